"""Rooms of six kinds: most things stand at the far wall or before it, where a camera at the near end sees them."""

import numpy as np

from mtlbench.synthetic.furniture import DARK, DAYLIGHT, FABRICS, STEEL, WALLS, WHITE, WOODS, Furniture, Thing
from mtlbench.synthetic.paint import Material
from mtlbench.synthetic.raycast import BOX, CYLINDER, ELLIPSOID, PATCH

ROOMS = ("bedroom", "kitchen", "bathroom", "living_room", "office", "dining_room")


class Room(Furniture):
    """A room under construction: x to the right from -half to half, z ahead from -0.8 to back, y up from the floor.

    The camera stands near x = z = 0, 1.45 m high.
    """

    def __init__(self, rng: np.random.Generator, kind: str) -> None:
        super().__init__(rng)
        self.half, self.top = rng.uniform(1.7, 2.0), rng.uniform(2.35, 2.5)
        self.shell(kind)
        getattr(self, kind)()

    def shell(self, kind: str) -> None:
        """Floor, ceiling and four walls, each an instance of its own."""
        depth, middle = (self.back + 0.8) / 2, (self.back - 0.8) / 2
        floor, material = {
            "kitchen": (self.tone(0.5, 0.7), Material.TILES),
            "bathroom": (self.tone(0.5, 0.75, (0.95, 1, 1.02)), Material.TILES),
            "bedroom": (self.tone(0.35, 0.55, (1.05, 1, 0.9)), Material.CARPET),
            "office": (self.tone(0.25, 0.4, (0.95, 0.98, 1.05)), Material.CARPET),
        }.get(kind, (self.pick(WOODS[:3]), Material.BOARDS))
        self.add(PATCH, Thing.FLOOR, (0, 0, middle), (self.half, 0, depth), floor, material, 0.0, self.instance())
        ceiling = (self.half, 0.05, depth)
        self.add(BOX, Thing.CEILING, (0, self.top + 0.05, middle), ceiling, WHITE, Material.PLAIN, 0.0, self.instance())
        wall, material = self.pick(WALLS), Material.TILES if kind == "bathroom" else Material.PLAIN
        high = self.top / 2
        for x, z, half_x, half_z in (
            (0, self.back + 0.05, self.half + 0.1, 0.05),
            (0, -0.85, self.half + 0.1, 0.05),
            (-self.half - 0.05, middle, 0.05, depth),
            (self.half + 0.05, middle, 0.05, depth),
        ):
            half = (half_x, high, half_z)
            self.add(BOX, Thing.WALL, (x, high, z), half, wall, material, 0.0, self.instance())

    def bedroom(self) -> None:
        u, side = self.rng.uniform, self.rng.choice([-1, 1])
        x = side * u(0.1, 0.25)
        self.bed(x)
        for at in (x - 1.0, x + 1.0):
            self.block(Thing.NIGHT_STAND, at, self.back - 0.28, 0.22, 0.26, 0.5, self.wood, drawers=2)
            self.lamp(at, self.back - 0.28, 0.5)
        self.on_wall(Thing.BLINDS, x, 1.65, 0.55, 0.4, WHITE, Material.SLATS)
        self.block(Thing.DRESSER, side * (self.half - 0.25), self.back - 1.3, 0.22, 0.45, 0.85, self.wood, drawers=3)
        self.picture(-side * (self.half - 0.35), 1.6)

    def kitchen(self) -> None:
        u, side = self.rng.uniform, self.rng.choice([-1, 1])
        x = side * (self.half - 0.4)
        self.block(
            Thing.REFRIDGERATOR, x, self.back - 0.36, 0.36, 0.34, u(1.65, 1.85), self.tone(0.75, 0.88), drawers=2
        )
        left, right = sorted((x - side * 0.42, -side * self.half))
        middle, half = (left + right) / 2, (right - left) / 2
        z = self.back - 0.3
        self.block(Thing.CABINET, middle, z, half, 0.28, 0.86, self.wood, doors=4)
        counter = self.tone(0.3, 0.7)
        self.add(BOX, Thing.COUNTER, (middle, 0.89, z - 0.02), (half, 0.03, 0.32), counter, instance=self.instance())
        self.sink(middle, 0.92, z)
        self.block(Thing.DISHWASHER, middle - side * 0.75, z - 0.02, 0.3, 0.28, 0.84, STEEL)
        bottle = self.instance()
        for dx, colour in ((0.55, (0.1, 0.35, 0.15)), (0.72, (0.5, 0.2, 0.1))):
            at = (middle + side * dx, 1.09, z)
            self.add(CYLINDER, Thing.BOTTLE, at, (0.08, 0.17, 0.08), colour, instance=bottle)
            bottle = self.instance()
        half = (half, 0.33, 0.17)
        self.add(
            BOX, Thing.CABINET, (middle, 1.85, self.back - 0.17), half, self.wood, Material.PLAIN, 0.0, self.instance()
        )
        self.on_wall(Thing.WINDOW, middle, 1.28, 0.4, 0.2, DAYLIGHT)
        self.table(-side * 0.3, 2.9, 0.45, 0.3, 0.45)

    def bathroom(self) -> None:
        u, side = self.rng.uniform, self.rng.choice([-1, 1])
        x = side * (self.half - 0.4)
        tub = self.instance()
        for dx in (-0.36, 0.36):
            half = (0.04, 0.28, 0.85)
            self.add(BOX, Thing.BATHTUB, (x + dx, 0.28, self.back - 0.85), half, WHITE, instance=tub)
        for dz in (0.04, 1.66):
            half = (0.32, 0.28, 0.04)
            self.add(BOX, Thing.BATHTUB, (x, 0.28, self.back - dz), half, WHITE, instance=tub)
        self.add(BOX, Thing.BATHTUB, (x, 0.1, self.back - 0.85), (0.32, 0.05, 0.77), WHITE, instance=tub)
        colour = self.pick(FABRICS)
        half = (0.02, 0.75, 0.3)
        self.add(
            BOX, Thing.SHOWER_CURTAIN, (x - side * 0.42, 1.25, self.back - 0.4), half, colour, instance=self.instance()
        )
        self.on_wall(Thing.SHOWER_CURTAIN, x, 1.35, 0.3, 0.6, colour, Material.BARS)
        self.toilet(side * u(0.2, 0.3), self.back - 0.35)
        self.block(Thing.CABINET, -side * 0.7, self.back - 0.25, 0.4, 0.24, 0.75, self.wood, doors=2)
        self.sink(-side * 0.7, 0.78, self.back - 0.27)
        self.on_wall(Thing.MIRROR, -side * 0.7, 1.5, 0.35, 0.4, (0.65, 0.7, 0.72))
        self.on_wall(Thing.TOWEL, -side * (self.half - 0.3), 1.35, 0.16, 0.3, self.pick(FABRICS))
        rug = self.pick(FABRICS)
        half = (0.4, 0.008, 0.28)
        self.add(BOX, Thing.FLOOR_MAT, (-side * 0.4, 0.008, 3.2), half, rug, Material.CARPET, 0.0, self.instance())

    def living_room(self) -> None:
        u, side = self.rng.uniform, self.rng.choice([-1, 1])
        self.shelf(Thing.BOOKSHELF, side * (self.half - 0.42), self.back - 0.16, 0.4, u(1.75, 2.0))
        self.on_wall(Thing.WINDOW, -side * 0.75, 1.6, 0.42, 0.42, DAYLIGHT)
        for dx in (-0.55, 0.55):
            half = (0.16, 0.75, 0.03)
            at = (-side * 0.75 + dx, 1.45, self.back - 0.08)
            self.add(BOX, Thing.CURTAIN, at, half, self.fabric, Material.BARS, 0.0, self.instance())
        self.sofa(-side * 0.75, self.back - 0.75)
        self.person(-side * 1.1, self.back - 0.72, np.pi, Thing.PERSON, seat=0.45)
        self.on_wall(Thing.TELEVISION, side * 0.5, u(1.3, 1.5), 0.36, 0.24, DARK, half_z=0.03)
        self.table(side * 0.15, u(2.7, 2.9), 0.42, 0.28, 0.4)
        half = (0.13, 0.05, 0.1)
        at = (side * 0.15, 0.45, 2.8)
        self.add(BOX, Thing.BOOKS, at, half, self.pick(FABRICS), Material.SPINES, u(-0.5, 0.5), self.instance())
        self.lamp(-side * (self.half - 0.2), self.back - 0.25, 0.0, 1.3)

    def office(self) -> None:
        u, side = self.rng.uniform, self.rng.choice([-1, 1])
        x = side * 0.75
        self.desk(x, self.back - 0.4)
        paper = (0.95, 0.95, 0.93)
        half = (0.2, 0.008, 0.16)
        self.add(BOX, Thing.PAPER, (x - 0.25, 0.76, self.back - 0.5), half, paper, instance=self.instance())
        self.on_wall(Thing.PAPER, x + 0.4, 1.05, 0.15, 0.2, paper)
        self.on_wall(Thing.WHITEBOARD, x, 1.65, 0.65, 0.35, (0.92, 0.93, 0.94))
        self.chair(x + u(-0.1, 0.1), self.back - 1.15, u(2.7, 3.5))
        self.chair(-side * 0.35, 3.1, u(-0.6, 0.6))
        self.shelf(Thing.SHELVES, -side * (self.half - 0.42), self.back - 0.16, 0.38, u(1.5, 1.8))
        bin_half = (0.15, 0.19, 0.15)
        at = (-side * 0.95, 0.19, self.back - 0.8)
        self.add(CYLINDER, Thing.GARBAGE_BIN, at, bin_half, self.tone(0.2, 0.5), instance=self.instance())
        self.shadow(at[0], at[2], 0.12, 0.12)
        self.block(Thing.CABINET, side * (self.half - 0.25), 3.2, 0.22, 0.3, 0.65, STEEL, drawers=3)

    def dining_room(self) -> None:
        u, side = self.rng.uniform, self.rng.choice([-1, 1])
        self.table(0, self.back - 1.35, 0.65, 0.4, 0.74)
        for dx, dz, heading in ((-0.5, -0.62, 0.0), (0.5, -0.62, 0.0), (-0.95, 0, 1.57), (0.95, 0, -1.57)):
            self.chair(dx, self.back - 1.35 + dz, heading + u(-0.25, 0.25))
        self.on_wall(Thing.DOOR, side * (self.half - 0.5), 1.0, 0.42, 1.0, self.pick(WOODS), Material.PLAIN, 0.02)
        for dx in (0.05, 0.75):
            self.picture(-side * dx, u(1.55, 1.7))
        self.block(Thing.CABINET, -side * 0.9, self.back - 0.2, 0.5, 0.18, 0.9, self.wood, doors=2)
        half = (0.17, 0.14, 0.13)
        at = (-side * 0.7, 1.04, self.back - 0.2)
        self.add(BOX, Thing.BOX, at, half, (0.6, 0.45, 0.28), instance=self.instance())
        bag = self.instance()
        at = (side * 1.1, 0.2, 2.75)
        self.add(ELLIPSOID, Thing.BAG, at, (0.22, 0.2, 0.15), self.pick(FABRICS), instance=bag)
        handle = (at[0], 0.42, at[2])
        self.add(BOX, Thing.BAG, handle, (0.1, 0.06, 0.02), DARK, instance=bag)
        self.shadow(at[0], at[2], 0.2, 0.1)
