"""What a street is put together from: the builder of scenes, and vehicles, people, trees and signs."""

import numpy as np

from mtlbench.synthetic.ids import Id
from mtlbench.synthetic.paint import WHEEL, WHEEL_X, Material
from mtlbench.synthetic.raycast import BOX, CARD, CYLINDER, ELLIPSOID, PATCH, turn

SIZES = {
    Id.CAR: (0.88, 2.1),
    Id.TRUCK: (1.2, 3.8),
    Id.BUS: (1.25, 5.5),
    Id.TRAIN: (1.2, 11),
    Id.CARAVAN: (1.1, 2.3),
    Id.TRAILER: (0.9, 1.6),
    Id.MOTORCYCLE: (0.3, 1.0),
}
"""Half widths and lengths in metres."""

DARK, GLASS, STEEL = (0.06, 0.06, 0.07), (0.13, 0.16, 0.2), (0.42, 0.43, 0.45)
FACADES = [
    (0.72, 0.64, 0.5),
    (0.55, 0.3, 0.24),
    (0.62, 0.62, 0.6),
    (0.8, 0.77, 0.7),
    (0.7, 0.5, 0.28),
    (0.4, 0.38, 0.37),
]
PAINTS = [
    (0.75, 0.75, 0.77),
    (0.1, 0.1, 0.12),
    (0.5, 0.52, 0.55),
    (0.55, 0.07, 0.06),
    (0.08, 0.14, 0.4),
    (0.85, 0.85, 0.84),
]
CLOTHES = [(0.1, 0.12, 0.3), (0.5, 0.1, 0.1), (0.15, 0.15, 0.15), (0.6, 0.55, 0.45), (0.1, 0.4, 0.25), (0.75, 0.7, 0.2)]


class Parts:
    """A scene's primitives, contact shadows and count of instances; every random choice comes from `rng`.

    Metres, half extents, headings in radians (0 looks along z), colours 0 to 1.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.primitives: list[tuple] = []
        self.shadows: list[tuple] = []
        self.instances = 0

    def add(self, shape, label, centre, half, colour, material=Material.PLAIN, heading=0.0, instance=-1) -> None:
        self.primitives.append((shape, material, label, instance, heading, centre, half, colour))

    def patch(self, label, x0, x1, z0, z1, colour, material=Material.PLAIN) -> None:
        centre, half = ((x0 + x1) / 2, 0, (z0 + z1) / 2), ((x1 - x0) / 2, 0, (z1 - z0) / 2)
        self.add(PATCH, label, centre, half, colour, material)

    def assemble(self, label, x, z, heading, instance, parts) -> None:
        """Parts (shape, centre, half, colour[, material]) of one thing that stands at (x, z) and looks along
        heading; its own x is to the right, z ahead, y up from the ground."""
        for shape, (dx, y, dz), half, colour, *material in parts:
            px, pz = turn(-heading, dx, dz)
            surface = material[0] if material else Material.PLAIN
            self.add(shape, label, (x + px, y, z + pz), half, colour, surface, heading, instance)

    def shadow(self, x, z, half_x, half_z, heading=0.0) -> None:
        self.shadows.append((x, z, half_x, half_z, heading))

    def instance(self, crowd: bool = False) -> int:
        self.instances += 1
        return -1 if crowd else self.instances

    def tone(self, low, high, tint=(1, 1, 1)) -> tuple:
        """A colour of random brightness and a little random hue."""
        return tuple(self.rng.uniform(low, high) * np.asarray(tint) * self.rng.uniform(0.94, 1.06, 3))

    def pick(self, colours) -> tuple:
        colour = np.asarray(colours[self.rng.integers(len(colours))]) * self.rng.uniform(0.8, 1.15)
        return tuple(colour * self.rng.uniform(0.94, 1.06, 3))

    def leaves(self) -> tuple:
        return self.tone(0.24, 0.42, (0.75 + 0.5 * self.rng.uniform() ** 2, 1.05, 0.45))

    def tree(self, x, z, size=1.0) -> None:
        trunk = self.rng.uniform(1.6, 2.8) * size
        half = (0.13 * size, trunk / 2 + 0.4, 0.13 * size)
        self.add(CYLINDER, Id.VEGETATION, (x, trunk / 2, z), half, (0.25, 0.19, 0.14))
        colour = self.leaves()
        for _ in range(self.rng.integers(2, 4)):
            half = self.rng.uniform(0.9, 1.7, 3) * size
            dx, dz = self.rng.uniform(-0.7, 0.7, 2) * size
            at = (x + dx, trunk + self.rng.uniform(0.6, 1.4) * size, z + dz)
            self.add(ELLIPSOID, Id.VEGETATION, at, half, colour, Material.LEAVES)
        self.shadow(x, z, 0.2, 0.2)

    def post(self, x, z, height, radius=0.085) -> None:
        self.shadow(x, z, radius, radius)
        self.add(CYLINDER, Id.POLE, (x, height / 2, z), (radius, height / 2, radius), STEEL)

    def sign(self, x, z) -> None:
        u = self.rng.uniform
        height = u(2.1, 2.9)
        self.post(x, z, height, 0.045)
        colour = self.pick([(0.75, 0.06, 0.08), (0.08, 0.2, 0.65), (0.9, 0.75, 0.1), (0.75, 0.06, 0.08)])
        material, half = Material.SIGN, (u(0.3, 0.7), u(0.3, 0.45), 0.01)
        if u() < 0.5:
            material, half = Material.DISC, (0.4, 0.4, 0.01)
        self.add(CARD, Id.TRAFFIC_SIGN, (x, height, z - 0.08), half, colour, material, u(-0.3, 0.3))

    def vehicle(self, label, x, z, heading, crowd=False) -> None:
        """One of SIZES with its middle at (x, z); of a crowd: no instance of its own."""
        colour, s = self.pick(PAINTS), self.rng.uniform(0.93, 1.07)
        instance = self.instance(crowd)
        if label == Id.MOTORCYCLE:
            self.motorcycle(x, z, heading, instance, colour)
            return
        width, length = (half * s for half in SIZES[label])
        parts = self.body(label, width, length, colour)
        for sx in (-1, 1):
            for sz in (-0.62, 0.64):
                parts.append((ELLIPSOID, (sx * (width - 0.06), 0.33, sz * length), (0.12, 0.33, 0.33), DARK))
            if label in (Id.CAR, Id.TRUCK, Id.BUS):
                at = 0.72 if label == Id.CAR else 0.85
                parts.append((BOX, (sx * width * 0.78, at, -length), (0.16, 0.09, 0.03), (0.7, 0.04, 0.04)))
                parts.append((BOX, (sx * width * 0.78, at, length), (0.16, 0.09, 0.03), (0.95, 0.95, 0.85)))
        self.assemble(label, x, z, heading, instance, parts)
        self.shadow(x, z, width, length, heading)

    def body(self, label, width, length, colour) -> list[tuple]:
        """A vehicle's parts above its wheels."""
        u = self.rng.uniform
        if label == Id.CAR:
            low, roof = u(0.9, 1.02), u(1.4, 1.65)
            back = u(-0.7, -0.3)
            return [
                (BOX, (0, (low + 0.28) / 2, 0), (width, (low - 0.28) / 2, length), colour),
                (BOX, (0, (low + roof) / 2, back), (width * 0.86, (roof - low) / 2, length * 0.52), GLASS),
                (BOX, (0, roof, back - 0.05), (width * 0.82, 0.04, length * 0.46), colour),
            ]
        if label == Id.TRUCK:
            return [
                (BOX, (0, 2.0, -0.9), (width, 1.5, length - 1), colour),
                (BOX, (0, 1.5, length - 0.9), (width * 0.95, 1.1, 0.85), self.pick(PAINTS)),
                (BOX, (0, 1.9, length - 0.06), (width * 0.85, 0.45, 0.02), GLASS),
            ]
        if label in (Id.BUS, Id.TRAIN):
            body = (0.75, 0.6, 0.1) if label == Id.TRAIN else colour
            return [(BOX, (0, 1.75, 0), (width, 1.4, length), body, Material.COACH)]
        if label == Id.CARAVAN:
            return [
                (BOX, (0, 1.4, 0), (width, 1.05, length), (0.85, 0.84, 0.8)),
                (BOX, (0, 1.7, 0), (width + 0.01, 0.3, length * 0.5), GLASS),
            ]
        return [  # a trailer
            (BOX, (0, 0.75, 0), (width, 0.35, length), STEEL),
            (BOX, (0, 0.6, length + 0.5), (0.05, 0.05, 0.5), DARK),
        ]

    def motorcycle(self, x, z, heading, instance, colour) -> None:
        parts = [(ELLIPSOID, (0, 0.32, sz), (0.11, 0.33, 0.33), DARK) for sz in (-0.65, 0.65)]
        parts += [(BOX, (0, 0.65, 0), (0.24, 0.24, 0.62), colour), (BOX, (0, 1.0, 0.5), (0.4, 0.06, 0.05), DARK)]
        self.assemble(Id.MOTORCYCLE, x, z, heading, instance, parts)
        self.shadow(x, z, 0.2, 0.8, heading)
        self.person(x, z, heading, Id.RIDER, seat=0.55)

    def bicycle(self, x, z, heading, instance) -> None:
        """A bicycle; its card's own x is ahead, so it is turned by a quarter."""
        colour = self.pick([(0.12, 0.12, 0.14), (0.5, 0.1, 0.1), (0.1, 0.3, 0.45)])
        half = (WHEEL_X + WHEEL, 0.54, 0.03)
        self.add(CARD, Id.BICYCLE, (x, 0.54, z), half, colour, Material.BICYCLE, heading - np.pi / 2, instance)
        self.add(BOX, Id.BICYCLE, (x, 0.55, z), (0.05, 0.42, 0.55), colour, Material.PLAIN, heading, instance)
        self.shadow(x, z, 0.06, 0.8, heading)

    def cyclist(self, x, z, heading) -> None:
        heading += self.rng.uniform(-0.15, 0.15)
        self.bicycle(x, z, heading, self.instance())
        self.person(x, z, heading, Id.RIDER, seat=0.62)

    def person(self, x, z, heading, label=Id.PERSON, seat=0.0, crowd=False) -> None:
        u, s = self.rng.uniform, self.rng.uniform(0.86, 1.08)
        skin, top, legs = self.pick([(0.75, 0.55, 0.45), (0.45, 0.3, 0.22)]), self.pick(CLOTHES), self.pick(CLOTHES[:4])
        lift, lean = (seat - 0.37, 0.1) if seat else (0.0, 0.0)
        shoulders = lift + 1.3 * s
        parts = [
            (ELLIPSOID, (0, lift + 1.64 * s, 0.04 + lean), (0.1, 0.13, 0.11), skin),
            (ELLIPSOID, (0, lift + 1.18 * s, lean / 2), (0.21, 0.34 * s, 0.14), top),
            (BOX, (0, shoulders, lean), (0.2, 0.1, 0.09), top),
        ]
        for sx in (-1, 1):
            arm = (sx * 0.24, shoulders - 0.2, lean + (0.15 if seat else 0))
            parts.append((ELLIPSOID, arm, (0.06, 0.3 * s, 0.2 if seat else 0.08), top))
            foot, tall = (0.66, 0.36) if seat else (0.44 * s, 0.44 * s)
            parts.append((CYLINDER, (sx * 0.1, foot, sx * u(0, 0.2)), (0.085, tall, 0.09), legs))
        self.assemble(label, x, z, heading, self.instance(crowd), parts)
        self.shadow(x, z, 0.2, 0.2)
