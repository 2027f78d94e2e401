"""Furniture and what lies on it, put together from boxes, ellipsoids and cylinders; labels are NYUv2's 894."""

from enum import IntEnum

import numpy as np

from mtlbench.synthetic.paint import Material
from mtlbench.synthetic.parts import CLOTHES, Parts
from mtlbench.synthetic.raycast import BOX, CYLINDER, ELLIPSOID


class Thing(IntEnum):
    """Ids of NYUv2's 894 classes that occur in these rooms; str() is the name."""

    BOTTLE = 2
    CABINET = 3
    CEILING = 4
    CHAIR = 5
    COUNTER = 7
    DISHWASHER = 8
    FLOOR = 11
    GARBAGE_BIN = 12
    PAPER = 15
    REFRIDGERATOR = 17
    TABLE = 19
    WALL = 21
    SINK = 24
    BOX = 26
    DOOR = 28
    DESK = 36
    SHELVES = 42
    WHITEBOARD = 45
    BAG = 55
    WINDOW = 59
    PICTURE = 64
    BLINDS = 80
    SOFA = 83
    BOOKS = 85
    BOOKSHELF = 88
    CURTAIN = 89
    PILLOW = 119
    MIRROR = 122
    SHOWER_CURTAIN = 123
    TOILET = 124
    TOWEL = 135
    BATHTUB = 136
    CLOTHES = 141
    FLOOR_MAT = 143
    LAMP = 144
    BED = 157
    NIGHT_STAND = 158
    DRESSER = 169
    TELEVISION = 172
    PERSON = 331

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


WOODS = [(0.5, 0.33, 0.18), (0.36, 0.22, 0.12), (0.66, 0.5, 0.32), (0.75, 0.72, 0.66)]
FABRICS = [(0.5, 0.16, 0.16), (0.2, 0.28, 0.45), (0.55, 0.5, 0.42), (0.25, 0.35, 0.25), (0.35, 0.33, 0.36)]
WALLS = [(0.82, 0.79, 0.7), (0.7, 0.76, 0.78), (0.8, 0.74, 0.62), (0.78, 0.8, 0.72), (0.84, 0.83, 0.82)]
WHITE, DARK, STEEL, DAYLIGHT = (0.86, 0.86, 0.84), (0.05, 0.05, 0.06), (0.55, 0.56, 0.58), (0.85, 0.93, 1.0)


class Furniture(Parts):
    """Builds furniture in a room whose far wall is at z = `back`; x is to the right, y up from the floor.

    Every random choice comes from `rng`; what belongs together shares the colours `wood` and `fabric`.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(rng)
        self.back = rng.uniform(4.3, 4.9)
        self.wood, self.fabric = self.pick(WOODS), self.pick(FABRICS)

    def on_wall(self, label, x, y, half_x, half_y, colour, material=Material.PLAIN, half_z=0.012) -> None:
        """A flat thing on the far wall, its middle at (x, y)."""
        at = (x, y, self.back - half_z)
        self.add(BOX, label, at, (half_x, half_y, half_z), colour, material, 0.0, self.instance())

    def picture(self, x, y) -> None:
        u = self.rng.uniform
        self.on_wall(Thing.PICTURE, x, y, u(0.18, 0.26), u(0.18, 0.3), self.pick(FABRICS + WALLS), Material.PICTURE)

    def block(self, label, x, z, half_x, half_z, height, colour, drawers=0, doors=0) -> None:
        """A piece of furniture that is a box on the floor, with handles of as many drawers or doors."""
        parts = [(BOX, (0, height / 2, 0), (half_x, height / 2, half_z), colour)]
        for i in range(drawers):
            at = (0, height * (i + 0.62) / drawers, -half_z - 0.015)
            parts.append((BOX, at, (half_x * 0.35, 0.015, 0.015), STEEL))
        for i in range(doors):
            at = (half_x * (2 * (i + 0.5) / doors - 1), height * 0.6, -half_z - 0.015)
            parts.append((BOX, at, (0.015, height * 0.12, 0.015), STEEL))
        self.assemble(label, x, z, 0.0, self.instance(), parts)
        self.shadow(x, z, half_x, half_z)

    def bed(self, x) -> None:
        z, cover = self.back - 1.05, self.pick(FABRICS)
        parts = [
            (BOX, (0, 0.2, 0), (0.72, 0.12, 0.98), self.wood),
            (BOX, (0, 0.42, 0), (0.7, 0.1, 0.95), (0.8, 0.8, 0.78)),
            (BOX, (0, 0.46, -0.25), (0.73, 0.09, 0.72), cover),
            (BOX, (0, 0.5, 0.98), (0.74, 0.5, 0.04), self.wood),
        ]
        self.assemble(Thing.BED, x, z, 0.0, self.instance(), parts)
        self.shadow(x, z, 0.72, 0.98)
        for dx in (-0.34, 0.34):
            colour, half = self.tone(0.7, 0.88), (0.27, 0.1, 0.17)
            at = (x + dx, 0.6, self.back - 0.35)
            self.add(ELLIPSOID, Thing.PILLOW, at, half, colour, instance=self.instance())
        heap, colour = self.instance(), self.pick(CLOTHES)
        for _ in range(3):
            dx, dz = self.rng.uniform(-0.14, 0.14, 2)
            at = (x + 0.3 + dx, 0.56, z - 0.4 + dz)
            self.add(ELLIPSOID, Thing.CLOTHES, at, (0.2, 0.09, 0.16), colour, instance=heap)

    def lamp(self, x, z, foot, tall=0.45) -> None:
        parts = [
            (CYLINDER, (0, foot + 0.015, 0), (0.09, 0.015, 0.09), DARK),
            (CYLINDER, (0, foot + tall / 2, 0), (0.02, tall / 2, 0.02), STEEL),
            (CYLINDER, (0, foot + tall, 0), (0.15, 0.12, 0.15), (0.95, 0.88, 0.68)),
        ]
        self.assemble(Thing.LAMP, x, z, 0.0, self.instance(), parts)

    def table(self, x, z, half_x, half_z, height, label=Thing.TABLE) -> None:
        parts = [(BOX, (0, height - 0.02, 0), (half_x, 0.02, half_z), self.wood)]
        for sx in (-1, 1):
            for sz in (-1, 1):
                at = (sx * (half_x - 0.04), height / 2 - 0.02, sz * (half_z - 0.04))
                parts.append((BOX, at, (0.025, height / 2 - 0.02, 0.025), self.wood))
        self.assemble(label, x, z, 0.0, self.instance(), parts)
        self.shadow(x, z, half_x * 0.8, half_z * 0.8)

    def desk(self, x, z) -> None:
        """A table and the drawers under it."""
        self.table(x, z, 0.7, 0.36, 0.75, Thing.DESK)
        half = (0.18, 0.3, 0.3)
        at = (x + 0.45, 0.34, z + 0.02)
        self.add(BOX, Thing.DESK, at, half, self.wood, instance=self.instances)

    def chair(self, x, z, heading) -> None:
        colour = self.pick(WOODS + FABRICS)
        parts = [(BOX, (0, 0.44, 0), (0.21, 0.025, 0.21), colour), (BOX, (0, 0.72, -0.2), (0.2, 0.2, 0.02), colour)]
        for sx in (-1, 1):
            for sz in (-1, 1):
                parts.append((CYLINDER, (sx * 0.18, 0.21, sz * 0.18), (0.022, 0.21, 0.022), self.wood))
        self.assemble(Thing.CHAIR, x, z, heading, self.instance(), parts)
        self.shadow(x, z, 0.18, 0.18, heading)

    def sofa(self, x, z) -> None:
        parts = [
            (BOX, (0, 0.21, 0), (0.75, 0.21, 0.38), self.fabric),
            (BOX, (0, 0.6, 0.32), (0.75, 0.22, 0.1), self.fabric),
        ]
        parts += [(BOX, (sx * 0.72, 0.33, 0), (0.09, 0.3, 0.4), self.fabric) for sx in (-1, 1)]
        parts += [(ELLIPSOID, (sx * 0.32, 0.42, -0.03), (0.3, 0.08, 0.33), self.fabric) for sx in (-1, 1)]
        self.assemble(Thing.SOFA, x, z, 0.0, self.instance(), parts)
        self.shadow(x, z, 0.75, 0.38)

    def toilet(self, x, z) -> None:
        parts = [
            (CYLINDER, (0, 0.19, -0.18), (0.12, 0.19, 0.16), WHITE),
            (ELLIPSOID, (0, 0.38, -0.22), (0.2, 0.09, 0.27), WHITE),
            (BOX, (0, 0.58, 0.16), (0.22, 0.2, 0.1), WHITE),
        ]
        self.assemble(Thing.TOILET, x, z, 0.0, self.instance(), parts)
        self.shadow(x, z - 0.15, 0.13, 0.2)

    def sink(self, x, y, z) -> None:
        """A bowl that stands on a counter at height y, and its tap."""
        parts = [
            (CYLINDER, (0, y + 0.07, 0), (0.24, 0.07, 0.18), (0.9, 0.9, 0.9)),
            (CYLINDER, (0, y + 0.17, 0.2), (0.02, 0.17, 0.02), STEEL),
        ]
        self.assemble(Thing.SINK, x, z, 0.0, self.instance(), parts)

    def shelf(self, label, x, z, half_x, height) -> None:
        """Boards between two sides, with books on every board."""
        parts = [(BOX, (0, height / 2, 0.13), (half_x, height / 2, 0.015), self.wood)]
        parts += [(BOX, (sx * half_x, height / 2, 0), (0.02, height / 2, 0.14), self.wood) for sx in (-1, 1)]
        levels = np.linspace(0.05, height, 5)
        parts += [(BOX, (0, y, 0), (half_x, 0.02, 0.14), self.wood) for y in levels]
        self.assemble(label, x, z, 0.0, self.instance(), parts)
        for y in levels[:-1]:
            if self.rng.uniform() < 0.85:
                wide, tall = half_x * self.rng.uniform(0.5, 0.9), self.rng.uniform(0.11, 0.14)
                at = (x + self.rng.uniform(-1, 1) * (half_x - wide - 0.03), y + 0.02 + tall, z)
                colour = self.tone(0.5, 0.7)
                self.add(BOX, Thing.BOOKS, at, (wide, tall, 0.1), colour, Material.SPINES, 0.0, self.instance())
        self.shadow(x, z, half_x, 0.14)
