"""The label ids of Cityscapes and the colours of their display (cityscapesScripts, helpers/labels.py)."""

from enum import IntEnum


class Id(IntEnum):
    """Ids from PERSON on are of classes with instances."""

    UNLABELED = 0
    EGO_VEHICLE = 1
    RECTIFICATION_BORDER = 2
    OUT_OF_ROI = 3
    STATIC = 4
    DYNAMIC = 5
    GROUND = 6
    ROAD = 7
    SIDEWALK = 8
    PARKING = 9
    RAIL_TRACK = 10
    BUILDING = 11
    WALL = 12
    FENCE = 13
    GUARD_RAIL = 14
    BRIDGE = 15
    TUNNEL = 16
    POLE = 17
    POLEGROUP = 18
    TRAFFIC_LIGHT = 19
    TRAFFIC_SIGN = 20
    VEGETATION = 21
    TERRAIN = 22
    SKY = 23
    PERSON = 24
    RIDER = 25
    CAR = 26
    TRUCK = 27
    BUS = 28
    CARAVAN = 29
    TRAILER = 30
    TRAIN = 31
    MOTORCYCLE = 32
    BICYCLE = 33

    def __str__(self) -> str:
        """The name in polygon files."""
        return self.name.lower().replace("_", " ")


COLOURS = (
    (0, 0, 0),  # unlabeled
    (0, 0, 0),  # ego vehicle
    (0, 0, 0),  # rectification border
    (0, 0, 0),  # out of roi
    (0, 0, 0),  # static
    (111, 74, 0),  # dynamic
    (81, 0, 81),  # ground
    (128, 64, 128),  # road
    (244, 35, 232),  # sidewalk
    (250, 170, 160),  # parking
    (230, 150, 140),  # rail track
    (70, 70, 70),  # building
    (102, 102, 156),  # wall
    (190, 153, 153),  # fence
    (180, 165, 180),  # guard rail
    (150, 100, 100),  # bridge
    (150, 120, 90),  # tunnel
    (153, 153, 153),  # pole
    (153, 153, 153),  # polegroup
    (250, 170, 30),  # traffic light
    (220, 220, 0),  # traffic sign
    (107, 142, 35),  # vegetation
    (152, 251, 152),  # terrain
    (70, 130, 180),  # sky
    (220, 20, 60),  # person
    (255, 0, 0),  # rider
    (0, 0, 142),  # car
    (0, 0, 70),  # truck
    (0, 60, 100),  # bus
    (0, 0, 90),  # caravan
    (0, 0, 110),  # trailer
    (0, 80, 100),  # train
    (0, 0, 230),  # motorcycle
    (119, 11, 32),  # bicycle
)
"""Red, green, blue of each id."""
