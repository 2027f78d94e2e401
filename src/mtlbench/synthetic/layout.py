"""Random streets: what stands where, the light, and the camera's pose."""

from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray

from mtlbench.seeds import seed_of
from mtlbench.synthetic.ids import Id
from mtlbench.synthetic.paint import Light, Material
from mtlbench.synthetic.parts import FACADES, SIZES, STEEL, Parts
from mtlbench.synthetic.raycast import BOX, CYLINDER, ELLIPSOID, PRIMITIVE, Camera

RARE = (Id.TRUCK, Id.BUS, Id.TRAIN, Id.MOTORCYCLE, Id.CARAVAN, Id.TRAILER, Id.MOTORCYCLE)
"""Vehicles of which every second street has one, in turn; trains in the training part alone."""

FULL_SIZE = (1024, 2048)
FULL_CAMERA = Camera(fx=2262.52, fy=2265.3017905988554, u0=1096.98, v0=513.137)
"""The camera of one real file, for images of FULL_SIZE."""

FAR = 160.0
"""Metres: how far a street is built."""


@dataclass(frozen=True)
class Scene:
    """A street: primitives (`raycast.PRIMITIVE`), contact shadows, light, and the camera's pose."""

    primitives: ndarray
    shadows: ndarray
    light: Light
    pose: Camera
    salt: int

    def camera(self, height: int, width: int) -> Camera:
        """The scene's camera for an image of that size: FULL_CAMERA scaled to its width, with the
        principal point as far down as in a full image."""
        scale = width / FULL_SIZE[1]
        return replace(
            self.pose,
            fx=FULL_CAMERA.fx * scale,
            fy=FULL_CAMERA.fy * scale,
            u0=(FULL_CAMERA.u0 + 0.5) * scale - 0.5,
            v0=(FULL_CAMERA.v0 + 0.5) * height / FULL_SIZE[0] - 0.5,
        )


def street(seed: int, split: str, index: int) -> Scene:
    """A random street. Indices 1 and 11 of every 22 have nothing that counts as an instance; every second,
    from 0, has one of RARE; every fourth, from 0, crowds."""
    rare = RARE[index // 2 % len(RARE)] if index % 2 == 0 else None
    if rare == Id.TRAIN and split != "train":
        rare = Id.BUS
    builder = _Street(np.random.default_rng(seed_of(seed, "street", split, index)), rare)
    builder.ground()
    for side in (-1, 1):
        builder.roadside(side)
        builder.furniture(side)
    builder.horizon()
    builder.odds_and_ends()
    if index % 22 not in (1, 11):
        builder.traffic()
        builder.people(crowd=index % 4 == 0)
    return builder.scene()


class _Street(Parts):
    """A street under construction: the camera at x = 0 looks along z; the road is between left and right."""

    def __init__(self, rng: np.random.Generator, rare: Id | None) -> None:
        super().__init__(rng)
        u = rng.uniform
        self.rare = rare
        self.left, self.right = -u(6.5 if rare == Id.TRAIN else 2.6, 8.0), u(2.4, 6.5)
        self.walk = {-1: u(1.5, 6), 1: u(1.5, 6)}  # widths of the sidewalks
        self.bay = {-1: 0.0, 1: 0.0}  # and of the parking bays in them
        self.rails = self.left + 1.6 if rare == Id.TRAIN or (self.left < -5 and u() < 0.2) else None
        self.crossing = u(16, 70) if u() < 0.6 else np.inf
        self.styles = rng.dirichlet([1.6, 1.0, 0.4, 0.4, 0.6])  # of building, park, wall, fence, open

    def edge(self, side) -> float:
        """Where the sidewalk of a side ends."""
        return self.kerb(side) + side * self.walk[side]

    def kerb(self, side) -> float:
        """Where the road ends at a side."""
        return self.right if side > 0 else self.left

    def ground(self) -> None:
        u = self.rng.uniform
        asphalt, paving = self.tone(0.24, 0.36, (1, 1, 1.04)), self.tone(0.42, 0.6, (1.03, 1, 0.96))
        grass = self.tone(0.3, 0.42, (0.95, 1.1, 0.5))
        self.patch(Id.TERRAIN, -900, 900, -60, 2500, grass, Material.GRASS)
        if u() < 0.3:
            side, z = self.rng.choice([-1, 1]), u(5, 40)
            colour = self.tone(0.4, 0.5, (1.1, 1, 0.8))
            self.patch(Id.GROUND, *sorted((0, side * 30)), z, z + u(8, 25), colour, Material.PAVING)
        self.patch(Id.SIDEWALK, self.edge(-1), self.edge(1), -30, 400, paving, Material.PAVING)
        self.patch(Id.ROAD, self.left, self.right, -30, 2500, asphalt, Material.ASPHALT)
        for side in (-1, 1):
            inner = self.kerb(side)
            if u() < 0.4 and self.walk[side] > 2.6:
                z, self.bay[side] = u(-5, 25), 2.1
                bay = sorted((inner, inner + side * 2.1))
                self.patch(Id.PARKING, *bay, z, z + u(15, 60), self.tone(0.33, 0.42), Material.PAVING)
            self.patch(Id.SIDEWALK, *sorted((inner, inner + side * 0.15)), -30, 400, self.tone(0.62, 0.72))
        middle = (self.left + self.right) / 2 - 0.4
        if self.right - self.left > 7:
            self.patch(Id.ROAD, middle - 0.08, middle + 0.08, -30, 400, asphalt, Material.DASHES)
        if self.rails:
            self.patch(Id.RAIL_TRACK, self.rails - 1.1, self.rails + 1.1, -30, 400, asphalt, Material.RAILS)
        if self.crossing < FAR:
            z = self.crossing
            self.patch(Id.ROAD, -150, 150, z - 3.5, z + 3.5, asphalt, Material.ASPHALT)
            self.patch(Id.ROAD, self.left, self.right, z - 6.8, z - 4, asphalt, Material.STRIPES)

    def roadside(self, side: int) -> None:
        """Stretches of buildings, parks, walls, fences and open land along one side."""
        u, z = self.rng.uniform, -10.0
        while z < FAR:
            length = u(10, 38)
            end = z + length
            if z < self.crossing + 6 and end > self.crossing - 6:
                if z < self.crossing - 12:
                    end = self.crossing - 6
                else:
                    z = self.crossing + 6
                    continue
            style = self.rng.choice(5, p=self.styles)
            foot = self.edge(side) + side * (u(0, 7) if u() < 0.5 else 0.1)
            (self.buildings, self.park, self.wall, self.fence, self.open)[style](side, foot, z, end)
            z = end + (u(2, 9) if u() < 0.3 else 0)

    def buildings(self, side, foot, z, end, height=None) -> None:
        while z < end:
            length = min(self.rng.uniform(7, 22), end - z + 0.5)
            half = (7, (height or self.rng.uniform(6, 21)) / 2, length / 2)
            colour = self.pick(FACADES)
            self.add(BOX, Id.BUILDING, (foot + side * 7, half[1], z + length / 2), half, colour, Material.FACADE)
            if self.rng.uniform() < 0.4:
                roof = tuple(np.asarray((0.4, 0.22, 0.18)) * self.rng.uniform(0.7, 1.2))
                at = (foot + side * 7, 2 * half[1] + 0.5, z + length / 2)
                self.add(BOX, Id.BUILDING, at, (6.4, 0.6, length / 2 - 0.3), roof)
            z += length

    def park(self, side, foot, z, end) -> None:
        for _ in range(int((end - z) / 3.5)):
            self.tree(foot + side * self.rng.uniform(1, 14), self.rng.uniform(z, end), self.rng.uniform(0.8, 1.5))
        for _ in range(3):
            half = self.rng.uniform(0.6, 1.5, 3)
            at = (foot + side * self.rng.uniform(0.8, 6), half[1] * 0.6, self.rng.uniform(z, end))
            self.add(ELLIPSOID, Id.VEGETATION, at, half, self.leaves(), Material.LEAVES)

    def wall(self, side, foot, z, end) -> None:
        half = (0.15, self.rng.uniform(1.1, 3) / 2, (end - z) / 2)
        colour = self.tone(0.4, 0.55, (1.05, 1, 0.92))
        self.add(BOX, Id.WALL, (foot, half[1], (z + end) / 2), half, colour, Material.BRICK)
        self.behind(side, foot, z, end)

    def fence(self, side, foot, z, end) -> None:
        half = (0.05, self.rng.uniform(1.1, 2) / 2, (end - z) / 2)
        colour = self.pick([(0.35, 0.26, 0.18), (0.5, 0.52, 0.52), (0.2, 0.3, 0.22)])
        self.add(BOX, Id.FENCE, (foot, half[1], (z + end) / 2), half, colour, Material.BARS)
        self.behind(side, foot, z, end)

    def behind(self, side, foot, z, end) -> None:
        if self.rng.uniform() < 0.5:
            self.buildings(side, foot + side * self.rng.uniform(4, 12), z, end)
        else:
            self.park(side, foot + side * 2, z, end)

    def open(self, side, foot, z, end) -> None:
        if self.rng.uniform() < 0.4:
            self.buildings(side, foot + side * self.rng.uniform(20, 45), z, end, self.rng.uniform(4, 9))
        if self.rng.uniform() < 0.35:
            half = (0.1, 0.35, (end - z) / 2)
            self.add(BOX, Id.GUARD_RAIL, (foot, 0.45, (z + end) / 2), half, STEEL, Material.PLAIN)

    def furniture(self, side: int) -> None:
        """Lamps, signs, traffic lights and trees along the kerb."""
        u, kerb = self.rng.uniform, self.kerb(side) + side * (0.55 + self.bay[side])
        trees = u() < 0.35
        for z in np.arange(u(5, 14), 110, u(11, 22)):
            if abs(z - self.crossing) < 6:
                continue
            height = u(4.5, 7)
            self.post(kerb, z, height)
            self.add(BOX, Id.POLE, (kerb - side * 0.6, height, z), (0.6, 0.05, 0.09), STEEL)
            if trees and self.walk[side] > 1.8:
                self.tree(kerb + side * 0.4, z + 4, u(0.7, 1.1))
        for z in np.arange(u(6, 26), 90, u(18, 40)):
            self.sign(kerb + side * 0.1, z)
        if self.crossing < 60:
            for x in (kerb, kerb - side * 2.2) if u() < 0.4 else (kerb,):
                top = 5.2 if x != kerb else 2.9
                if x == kerb:
                    self.post(x, self.crossing - 7.4, 3.4 if top < 3 else 5.4)
                at = (x, top, self.crossing - 7.6)
                self.add(BOX, Id.TRAFFIC_LIGHT, at, (0.18, 0.5, 0.12), (0.1, 0.11, 0.1), Material.LAMPS)

    def horizon(self) -> None:
        """What ends the street: a building across it, trees, a bridge, a tunnel or nothing; distant blocks."""
        u = self.rng.uniform
        kind, z = u(), u(65, FAR)
        if kind < 0.35:
            half = (u(20, 60), u(4, 11), 6)
            self.add(BOX, Id.BUILDING, (u(-15, 15), half[1], z + 6), half, self.pick(FACADES), Material.FACADE)
        elif kind < 0.6:
            for x in np.arange(-40, 40, u(3, 5)):
                half = u(1.8, 4, 3)
                at = (x, half[1] * 0.8, z + u(0, 8))
                self.add(ELLIPSOID, Id.VEGETATION, at, half, self.leaves(), Material.LEAVES)
        elif kind < 0.72:
            z = u(30, 70)
            self.add(BOX, Id.BRIDGE, (0, 6.2, z), (45, 0.8, 3), self.tone(0.4, 0.55))
            for x in (self.edge(-1) - 0.6, self.edge(1) + 0.6):
                self.add(BOX, Id.BRIDGE, (x, 2.7, z), (0.6, 2.7, 2.5), self.tone(0.4, 0.5))
        elif kind < 0.78:
            self.add(BOX, Id.TUNNEL, (0, 4, z), (9, 4, 2), self.tone(0.18, 0.24))
        for _ in range(self.rng.integers(0, 14)):
            half = (u(6, 20), u(3, 14), u(6, 15))
            at = (u(-250, 250), half[1], u(210, 420))
            self.add(BOX, Id.BUILDING, at, half, self.pick(FACADES), Material.FACADE)

    def odds_and_ends(self) -> None:
        """Bins and boxes (static), bags and prams (dynamic), bundles of posts, and what nobody labelled."""
        u = self.rng.uniform
        for label, chance, colour in (
            (Id.STATIC, 0.9, (0.2, 0.25, 0.2)),
            (Id.DYNAMIC, 0.5, (0.5, 0.35, 0.2)),
            (Id.UNLABELED, 0.5, (0.45, 0.45, 0.5)),
        ):
            for _ in range(self.rng.poisson(chance) + (label == Id.STATIC)):
                side, z = self.rng.choice([-1, 1]), u(6, 35)
                x, half = self.edge(side) - side * u(0.4, 0.9), u(0.25, 0.55, 3)
                self.add(BOX, label, (x, half[1], z), half, self.pick([colour]), heading=u(-0.4, 0.4))
                self.shadow(x, z, half[0], half[2])
        if u() < 0.25:
            side, z = self.rng.choice([-1, 1]), u(9, 25)
            for k in range(5):
                at = (self.edge(side) - side * 0.3, 0.5, z + 0.5 * k)
                self.add(CYLINDER, Id.POLEGROUP, at, (0.07, 0.5, 0.07), STEEL)

    def traffic(self) -> None:
        """Parked rows, a lane each way, one rare vehicle, a train on its rails, bicycles and riders."""
        u, free = self.rng.uniform, self.left + 0.3
        for side, heading in ((1, 0.0), (-1, np.pi)):
            x = self.kerb(side) + side * (self.bay[side] - 1.0)
            if u() < 0.6 and abs(x) > 2.9 and not (side < 0 and self.rails):
                self.row(x, u(3.5, 16), u(25, 75), heading)
                free = max(free, x + 1.1) if side < 0 else free
        if self.rails:
            free = self.rails + 1.4
            if self.rare == Id.TRAIN:
                self.vehicle(Id.TRAIN, self.rails, u(14, 35) + SIZES[Id.TRAIN][1], 0.0)
                self.rare = None
        self.lane(u(-0.5, 0.5), u(8, 14) if self.rare == Id.MOTORCYCLE else u(9, 40), 0.0)
        if free < -3.4:
            self.lane(min(-2.3, (free - 1.2) / 2), u(7, 40), np.pi)
        if self.crossing < 50 and u() < 0.5:
            self.vehicle(Id.CAR, u(-9, 9), self.crossing + u(-1.5, 1.5), self.rng.choice([-1, 1]) * np.pi / 2)
        for _ in range(self.rng.poisson(0.9) + 1):
            side = self.rng.choice([-1, 1])
            self.cyclist(self.kerb(side) - side * u(0.5, 0.9), u(7, 40), 0.0 if side > 0 else np.pi)
        for _ in range(self.rng.poisson(0.8) + 1):
            side = self.rng.choice([-1, 1])
            self.bicycle(self.edge(side) - side * 0.5, u(6, 30), u(0, 2 * np.pi), self.instance())

    def lane(self, x, z, heading) -> None:
        """Cars one after the other, the rare vehicle first; none on the crossing."""
        while z < 75:
            kind = self.rare or Id.CAR
            half = SIZES[kind][1]
            if abs(z + half - self.crossing) > half + 4:
                self.vehicle(kind, x + self.rng.uniform(-0.2, 0.2), z + half, heading + self.rng.uniform(-0.04, 0.04))
                self.rare = None
            z += 2 * half + self.rng.uniform(6, 36)

    def row(self, x, z, end, heading) -> None:
        while z < end:
            if abs(z - self.crossing) > 10:
                self.vehicle(Id.CAR, x + self.rng.uniform(-0.1, 0.1), z, heading)
            z += self.rng.uniform(4.9, 6.0) if self.rng.uniform() < 0.85 else self.rng.uniform(8, 20)

    def people(self, crowd: bool) -> None:
        """Walkers on the sidewalks, a few on the road, and groups that nobody could tell apart."""
        u = self.rng.uniform
        for _ in range(self.rng.poisson(3.5) + 1):
            side = self.rng.choice([-1, 1])
            x = self.kerb(side) + side * u(0.3, max(0.5, self.walk[side] - 0.3))
            if abs(x) > 2.2:
                self.person(x, u(6, 45), u(0, 2 * np.pi))
        if self.crossing < 45 and u() < 0.6:
            for _ in range(self.rng.integers(1, 4)):
                self.person(u(self.left, self.right), self.crossing - u(4, 6.5), self.rng.choice([-1, 1]) * np.pi / 2)
        if crowd:
            side, z = self.rng.choice([-1, 1]), u(14, 30)
            for _ in range(9):
                x = self.kerb(side) + side * u(0.2, self.walk[side])
                self.person(x, z + u(0, 3), u(0, 2 * np.pi), crowd=True)
            side = self.rng.choice([-1, 1])
            for k in range(4):
                x = self.edge(side) + side * (3 + 4.6 * k)
                z = self.crossing + 1.5 if self.crossing < 50 else 28 + 2.6 * k
                self.vehicle(Id.CAR, x, z, side * np.pi / 2, crowd=True)

    def scene(self) -> Scene:
        u = self.rng.uniform
        azimuth, elevation, overcast = u(0, 2 * np.pi), u(0.35, 1.1), u()
        sun = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
        grey = np.array([0.78, 0.8, 0.83])
        light = Light(
            sun=sun.astype(np.float32),
            direct=float(0.75 * (1 - 0.8 * overcast)),
            ambient=float(0.5 + 0.3 * overcast),
            tint=(1 + u(-0.07, 0.07) * np.array([1, 0, -1.3])).astype(np.float32),
            zenith=(np.array([0.36, 0.55, 0.86]) * (1 - 0.6 * overcast) + 0.6 * overcast * grey).astype(np.float32),
            horizon=(np.array([0.75, 0.84, 0.94]) * u(0.9, 1.05)).astype(np.float32),
            clouds=float(0.2 + 0.8 * overcast),
            haze=float(u(0.0005, 0.006)),
            exposure=float(u(0.85, 1.35)),
            grain=float(u(0.006, 0.02)),
        )
        pose = replace(FULL_CAMERA, y=FULL_CAMERA.y * u(0.95, 1.05), yaw=u(-0.11, 0.11), pitch=u(-0.035, 0.09))
        return Scene(
            np.array(self.primitives, PRIMITIVE),
            np.array(self.shadows, np.float32).reshape(-1, 5),
            light,
            pose,
            int(self.rng.integers(2**31)),
        )
