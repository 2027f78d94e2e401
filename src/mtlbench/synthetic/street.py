"""Random streets, and what a car's camera sees of them: image, labels, instances, depth and normals.

A scene is a function of (seed, split, index) alone; `render` shows it to any camera, so a transformed view
(mirrored, zoomed, rolled) has true labels too. Label ids are those of Cityscapes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray

from mtlbench.seeds import seed_of
from mtlbench.synthetic.paint import Light, Material, cut, develop, expose
from mtlbench.synthetic.raycast import (
    BOX,
    CARD,
    CYLINDER,
    ELLIPSOID,
    PATCH,
    PRIMITIVE,
    Camera,
    cast,
    surface,
    turn,
)

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
        """The scene's camera for an image of that size: FULL_CAMERA resized, square in x and y as it is."""
        scale = width / FULL_SIZE[1]
        return replace(
            self.pose,
            fx=FULL_CAMERA.fx * scale,
            fy=FULL_CAMERA.fy * scale,
            u0=(FULL_CAMERA.u0 + 0.5) * scale - 0.5,
            v0=(FULL_CAMERA.v0 + 0.5) * height / FULL_SIZE[0] - 0.5,
        )


@dataclass(frozen=True)
class View:
    """What a camera sees: image uint8 [H, W, 3]; labels uint8 [H, W] (Cityscapes ids); instances int32 [H, W]
    (1000 label + k, or the label where there is no instance); depth float32 [H, W] in metres along the
    optical axis, infinite in the sky; normals float32 [3, H, W] in the camera's axes, zero in the sky."""

    image: ndarray
    labels: ndarray
    instances: ndarray
    depth: ndarray
    normals: ndarray
    camera: Camera


def render(
    seed: int,
    index: int,
    height: int,
    width: int,
    change: Callable[[Camera], Camera] = lambda camera: camera,
    split: str = "train",
) -> View:
    """The scene of (seed, split, index), seen by its camera after `change`."""
    scene = street(seed, split, index)
    return view(scene, change(scene.camera(height, width)), height, width)


def view(scene: Scene, camera: Camera, height: int, width: int) -> View:
    """A scene as a camera sees it."""
    hits = cast(scene.primitives, camera, height, width, cut)
    rays = camera.rays(height, width)
    which, local, normal = surface(scene.primitives, hits, camera, rays)
    image = develop(hits, which, local, normal, rays, scene.light, scene.shadows, scene.salt)
    seen = hits.primitive >= 0
    labels = np.full((height, width), SKY, np.uint8)
    labels[seen] = which["label"]
    owner = np.full((height, width), -1, np.int32)
    owner[seen] = which["instance"]
    normals = np.zeros((3, height, width), np.float32)
    normals[:, seen] = camera.rotation().T @ normal
    image = expose(image, scene.light, np.random.default_rng(scene.salt))
    return View(image, labels, number_instances(labels, owner), hits.depth, normals, camera)


def number_instances(labels: ndarray, owner: ndarray) -> ndarray:
    """instanceIds of labels and owners (-1: none) [H, W]: 1000 label + k, k from 0 in each class, in the
    owners' order; the plain label where there is no owner."""
    instances = labels.astype(np.int32)
    owned = owner >= 0
    pairs, inverse = np.unique(np.stack([labels[owned], owner[owned]], 1), axis=0, return_inverse=True)
    first = np.searchsorted(pairs[:, 0], pairs[:, 0])
    instances[owned] = (1000 * pairs[:, 0] + np.arange(len(pairs)) - first)[inverse]
    return instances


UNLABELED, STATIC, DYNAMIC, GROUND, ROAD, SIDEWALK, PARKING, RAIL_TRACK = 0, 4, 5, 6, 7, 8, 9, 10
BUILDING, WALL, FENCE, GUARD_RAIL, BRIDGE, TUNNEL, POLE, POLEGROUP = 11, 12, 13, 14, 15, 16, 17, 18
TRAFFIC_LIGHT, TRAFFIC_SIGN, VEGETATION, TERRAIN, SKY, PERSON, RIDER, CAR = 19, 20, 21, 22, 23, 24, 25, 26
TRUCK, BUS, CARAVAN, TRAILER, TRAIN, MOTORCYCLE, BICYCLE = 27, 28, 29, 30, 31, 32, 33

RARE = (TRUCK, BUS, TRAIN, MOTORCYCLE, CARAVAN, TRAILER)
"""Vehicles of which one stands in every sixth street in turn; trains in the training part alone."""

SIZES = {
    CAR: (0.88, 2.1),
    TRUCK: (1.2, 3.8),
    BUS: (1.25, 5.5),
    TRAIN: (1.2, 11),
    CARAVAN: (1.1, 2.3),
    TRAILER: (0.9, 1.6),
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


def street(seed: int, split: str, index: int) -> Scene:
    """A random street. Every twelfth has nothing that counts as an instance; every third has a crowd."""
    builder = _Street(np.random.default_rng(seed_of(seed, "street", split, index)))
    builder.ground()
    for side in (-1, 1):
        builder.roadside(side)
        builder.furniture(side)
    builder.horizon()
    builder.odds_and_ends()
    if index % 12 != 7:
        builder.traffic(rare=RARE[index // 2 % 6] if index % 2 == 0 else None, trains=split == "train")
        builder.people(crowd=index % 3 == 0)
    return builder.scene()


class _Street:
    """A street under construction: the camera at x = 0 looks along z; the road is between left and right."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.primitives: list[tuple] = []
        self.shadows: list[tuple] = []
        self.instances = 0
        u = rng.uniform
        self.left, self.right = -u(2.6, 8.0), u(2.4, 6.5)
        self.walk = {-1: u(1.2, 4.5), 1: u(1.2, 4.5)}
        self.crossing = u(16, 70) if u() < 0.6 else np.inf
        self.wildness = rng.dirichlet([1.6, 1.0, 0.4, 0.4, 0.6])  # of building, park, wall, fence, open

    # -- parts

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
            self.add(
                shape, label, (x + px, y, z + pz), half, colour, *(material or [Material.PLAIN]), heading, instance
            )

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

    def edge(self, side) -> float:
        """Where the sidewalk of a side ends."""
        return self.right + self.walk[1] if side > 0 else self.left - self.walk[-1]

    # -- the ground

    def ground(self) -> None:
        u = self.rng.uniform
        self.asphalt, paving = self.tone(0.24, 0.36, (1, 1, 1.04)), self.tone(0.42, 0.6, (1.03, 1, 0.96))
        grass = self.tone(0.3, 0.42, (0.95, 1.1, 0.5))
        self.patch(TERRAIN, -900, 900, -60, 2500, grass, Material.GRASS)
        if u() < 0.3:
            side, z = self.rng.choice([-1, 1]), u(5, 40)
            self.patch(
                GROUND, *sorted((0, side * 30)), z, z + u(8, 25), self.tone(0.4, 0.5, (1.1, 1, 0.8)), Material.PAVING
            )
        self.patch(SIDEWALK, self.edge(-1), self.edge(1), -30, 400, paving, Material.PAVING)
        self.patch(ROAD, self.left, self.right, -30, 2500, self.asphalt, Material.ASPHALT)
        self.bay = {-1: 0.0, 1: 0.0}
        for side, inner in ((-1, self.left), (1, self.right)):
            if u() < 0.4 and self.walk[side] > 2.6:
                z, self.bay[side] = u(-5, 25), 2.1
                bay = sorted((inner, inner + side * 2.1))
                self.patch(PARKING, *bay, z, z + u(15, 60), self.tone(0.33, 0.42), Material.PAVING)
            self.patch(SIDEWALK, *sorted((inner, inner + side * 0.15)), -30, 400, self.tone(0.62, 0.72))
        middle = (self.left + self.right) / 2 - 0.4
        if self.right - self.left > 7:
            self.patch(ROAD, middle - 0.08, middle + 0.08, -30, 400, self.asphalt, Material.DASHES)
        self.rails = self.left + 1.6 if u() < 0.22 and self.left < -5 else None
        if self.rails:
            self.patch(RAIL_TRACK, self.rails - 1.1, self.rails + 1.1, -30, 400, self.asphalt, Material.RAILS)
        if self.crossing < FAR:
            z = self.crossing
            self.patch(ROAD, -150, 150, z - 3.5, z + 3.5, self.asphalt, Material.ASPHALT)
            self.patch(ROAD, self.left, self.right, z - 6.8, z - 4, self.asphalt, Material.STRIPES)

    # -- what stands beside the street

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
            style = self.rng.choice(5, p=self.wildness)
            foot = self.edge(side) + side * (u(0, 7) if u() < 0.5 else 0.1)
            (self.buildings, self.park, self.wall, self.fence, self.open)[style](side, foot, z, end)
            z = end + (u(2, 9) if u() < 0.3 else 0)

    def buildings(self, side, foot, z, end, height=None) -> None:
        while z < end:
            length = min(self.rng.uniform(7, 22), end - z + 0.5)
            half = (7, (height or self.rng.uniform(6, 21)) / 2, length / 2)
            colour = self.pick(FACADES)
            self.add(BOX, BUILDING, (foot + side * 7, half[1], z + length / 2), half, colour, Material.FACADE)
            if self.rng.uniform() < 0.4:
                roof = tuple(np.asarray((0.4, 0.22, 0.18)) * self.rng.uniform(0.7, 1.2))
                at = (foot + side * 7, 2 * half[1] + 0.5, z + length / 2)
                self.add(BOX, BUILDING, at, (6.4, 0.6, length / 2 - 0.3), roof)
            z += length

    def park(self, side, foot, z, end) -> None:
        for _ in range(int((end - z) / 3.5)):
            self.tree(foot + side * self.rng.uniform(1, 14), self.rng.uniform(z, end), self.rng.uniform(0.8, 1.5))
        for _ in range(3):
            half = self.rng.uniform(0.6, 1.5, 3)
            at = (foot + side * self.rng.uniform(0.8, 6), half[1] * 0.6, self.rng.uniform(z, end))
            self.add(ELLIPSOID, VEGETATION, at, half, self.leaves(), Material.LEAVES)

    def wall(self, side, foot, z, end) -> None:
        half = (0.15, self.rng.uniform(1.1, 3) / 2, (end - z) / 2)
        self.add(BOX, WALL, (foot, half[1], (z + end) / 2), half, self.tone(0.4, 0.55, (1.05, 1, 0.92)), Material.BRICK)
        self.behind(side, foot, z, end)

    def fence(self, side, foot, z, end) -> None:
        half = (0.05, self.rng.uniform(1.1, 2) / 2, (end - z) / 2)
        colour = self.pick([(0.35, 0.26, 0.18), (0.5, 0.52, 0.52), (0.2, 0.3, 0.22)])
        self.add(BOX, FENCE, (foot, half[1], (z + end) / 2), half, colour, Material.BARS)
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
            self.add(BOX, GUARD_RAIL, (foot, 0.45, (z + end) / 2), half, STEEL, Material.PLAIN)

    def leaves(self) -> tuple:
        return self.tone(0.24, 0.42, (0.75 + 0.5 * self.rng.uniform() ** 2, 1.05, 0.45))

    def tree(self, x, z, size=1.0) -> None:
        if self.left - 0.3 < x < self.right + 0.3 or abs(x) < 2.6 and z < 8:
            return
        trunk = self.rng.uniform(1.6, 2.8) * size
        self.add(
            CYLINDER, VEGETATION, (x, trunk / 2, z), (0.13 * size, trunk / 2 + 0.4, 0.13 * size), (0.25, 0.19, 0.14)
        )
        colour = self.leaves()
        for _ in range(self.rng.integers(2, 4)):
            half = self.rng.uniform(0.9, 1.7, 3) * size
            dx, dz = self.rng.uniform(-0.7, 0.7, 2) * size
            at = (x + dx, trunk + self.rng.uniform(0.6, 1.4) * size, z + dz)
            self.add(ELLIPSOID, VEGETATION, at, half, colour, Material.LEAVES)
        self.shadow(x, z, 0.2, 0.2)

    def furniture(self, side: int) -> None:
        """Lamps, signs, traffic lights and trees along the kerb."""
        u, kerb = self.rng.uniform, (self.left if side < 0 else self.right) + side * 0.55
        if self.bay[side]:
            kerb += side * self.bay[side]
        trees = u() < 0.35
        for z in np.arange(u(5, 14), 110, u(11, 22)):
            if abs(z - self.crossing) < 6:
                continue
            self.post(kerb, z, u(4.5, 7))
            self.add(BOX, POLE, (kerb - side * 0.6, self.primitives[-1][6][1] * 2, z), (0.6, 0.05, 0.09), STEEL)
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
                self.add(BOX, TRAFFIC_LIGHT, at, (0.18, 0.5, 0.12), (0.1, 0.11, 0.1), Material.LAMPS)

    def post(self, x, z, height, radius=0.085) -> None:
        self.shadow(x, z, radius, radius)
        self.add(CYLINDER, POLE, (x, height / 2, z), (radius, height / 2, radius), STEEL)

    def sign(self, x, z) -> None:
        u = self.rng.uniform
        height = u(2.1, 2.9)
        self.post(x, z, height, 0.045)
        colour = self.pick([(0.75, 0.06, 0.08), (0.08, 0.2, 0.65), (0.9, 0.75, 0.1), (0.75, 0.06, 0.08)])
        material, half = (
            (Material.DISC, (0.4, 0.4, 0.01)) if u() < 0.5 else (Material.SIGN, (u(0.3, 0.7), u(0.3, 0.45), 0.01))
        )
        self.add(CARD, TRAFFIC_SIGN, (x, height, z - 0.08), half, colour, material, u(-0.3, 0.3))

    def horizon(self) -> None:
        """What ends the street: a building across it, trees, a bridge, a tunnel or nothing; distant blocks."""
        u = self.rng.uniform
        kind, z = u(), u(65, FAR)
        if kind < 0.35:
            half = (u(20, 60), u(4, 11), 6)
            self.add(BOX, BUILDING, (u(-15, 15), half[1], z + 6), half, self.pick(FACADES), Material.FACADE)
        elif kind < 0.6:
            for x in np.arange(-40, 40, u(3, 5)):
                half = u(1.8, 4, 3)
                self.add(ELLIPSOID, VEGETATION, (x, half[1] * 0.8, z + u(0, 8)), half, self.leaves(), Material.LEAVES)
        elif kind < 0.72:
            z = u(30, 70)
            self.add(BOX, BRIDGE, (0, 6.2, z), (45, 0.8, 3), self.tone(0.4, 0.55))
            for x in (self.edge(-1) - 0.6, self.edge(1) + 0.6):
                self.add(BOX, BRIDGE, (x, 2.7, z), (0.6, 2.7, 2.5), self.tone(0.4, 0.5))
        elif kind < 0.78:
            self.add(BOX, TUNNEL, (0, 4, z), (9, 4, 2), self.tone(0.18, 0.24))
        for _ in range(self.rng.integers(0, 14)):
            half = (u(6, 20), u(3, 14), u(6, 15))
            at = (u(-250, 250), half[1], u(210, 420))
            self.add(BOX, BUILDING, at, half, self.pick(FACADES), Material.FACADE)

    def odds_and_ends(self) -> None:
        """Bins and boxes (static), bags and prams (dynamic), bundles of posts, and what nobody labelled."""
        u = self.rng.uniform
        for label, chance, colour in (
            (STATIC, 0.9, (0.2, 0.25, 0.2)),
            (DYNAMIC, 0.5, (0.5, 0.35, 0.2)),
            (UNLABELED, 0.5, (0.45, 0.45, 0.5)),
        ):
            for _ in range(self.rng.poisson(chance) + (label == STATIC)):
                side, z = self.rng.choice([-1, 1]), u(6, 35)
                x, half = self.edge(side) - side * u(0.4, 0.9), u(0.25, 0.55, 3)
                self.add(BOX, label, (x, half[1], z), half, self.pick([colour]), heading=u(-0.4, 0.4))
                self.shadow(x, z, half[0], half[2])
        if u() < 0.25:
            side, z = self.rng.choice([-1, 1]), u(9, 25)
            for k in range(5):
                at = (self.edge(side) - side * 0.3, 0.5, z + 0.5 * k)
                self.add(CYLINDER, POLEGROUP, at, (0.07, 0.5, 0.07), STEEL)

    # -- what moves

    def traffic(self, rare: int | None, trains: bool) -> None:
        """Parked rows, two lanes, one rare vehicle, bicycles and riders."""
        u = self.rng.uniform
        if rare == TRAIN and not trains:
            rare = BUS
        for side, kerb, heading in ((1, self.right, 0.0), (-1, self.left, np.pi)):
            if u() < 0.6 and abs(kerb) > 2.9 and not (side < 0 and self.rails):
                x = kerb - side * 1.0 + side * self.bay[side]
                if abs(x) > 2.4:
                    self.row(x, u(3.5, 16), u(25, 75), heading)
        for x, heading, first in ((u(-0.5, 0.5), 0.0, 9), (self.left * 0.55, np.pi, 7)):
            if x < -1.9 or heading == 0:
                z = u(first, 40)
                while z < 75:
                    kind = rare or CAR
                    if kind == TRAIN:
                        x_train = self.rails or self.left - self.walk[-1] - 2
                        self.vehicle(TRAIN, x_train, max(z, 12) + 14, 0.0)
                        kind = CAR
                    half = SIZES.get(kind, (0, 1))[1]
                    self.vehicle(kind, x + u(-0.2, 0.2), z + half, heading + u(-0.04, 0.04))
                    rare = None
                    z += 2 * half + u(6, 36)
        if self.crossing < 50 and u() < 0.5:
            self.vehicle(CAR, u(-9, 9), self.crossing + u(-1.5, 1.5), self.rng.choice([-1, 1]) * np.pi / 2)
        for _ in range(self.rng.poisson(0.9) + 1):
            side = self.rng.choice([-1, 1])
            self.cyclist(
                (self.left if side < 0 else self.right) - side * u(0.5, 0.9), u(7, 40), 0.0 if side > 0 else np.pi
            )
        for _ in range(self.rng.poisson(0.8) + 1):
            side = self.rng.choice([-1, 1])
            self.bicycle(self.edge(side) - side * 0.5, u(6, 30), u(0, 2 * np.pi), self.instance())

    def row(self, x, z, end, heading) -> None:
        while z < end:
            if abs(z - self.crossing) > 10:
                self.vehicle(CAR, x + self.rng.uniform(-0.1, 0.1), z, heading)
            z += self.rng.uniform(4.9, 6.0) if self.rng.uniform() < 0.85 else self.rng.uniform(8, 20)

    def vehicle(self, label, x, z, heading, crowd=False) -> None:
        colour, u, s = self.pick(PAINTS), self.rng.uniform, self.rng.uniform(0.93, 1.07)
        instance = self.instance(crowd)
        if label == MOTORCYCLE:
            self.motorcycle(x, z, heading, instance, colour)
            return
        width, length = (half * s for half in SIZES[label])
        if label == CAR:
            low, roof = u(0.9, 1.02), u(1.4, 1.65)
            back = u(-0.7, -0.3)
            parts = [
                (BOX, (0, (low + 0.28) / 2, 0), (width, (low - 0.28) / 2, length), colour),
                (BOX, (0, (low + roof) / 2, back), (width * 0.86, (roof - low) / 2, length * 0.52), GLASS),
                (BOX, (0, roof, back - 0.05), (width * 0.82, 0.04, length * 0.46), colour),
            ]
        elif label == TRUCK:
            parts = [
                (BOX, (0, 2.0, -0.9), (width, 1.5, length - 1), colour),
                (BOX, (0, 1.5, length - 0.9), (width * 0.95, 1.1, 0.85), self.pick(PAINTS)),
                (BOX, (0, 1.9, length - 0.06), (width * 0.85, 0.45, 0.02), GLASS),
            ]
        elif label in (BUS, TRAIN):
            body = (0.75, 0.6, 0.1) if label == TRAIN else colour
            parts = [(BOX, (0, 1.75, 0), (width, 1.4, length), body, Material.COACH)]
        elif label == CARAVAN:
            parts = [
                (BOX, (0, 1.4, 0), (width, 1.05, length), (0.85, 0.84, 0.8)),
                (BOX, (0, 1.7, 0), (width + 0.01, 0.3, length * 0.5), GLASS),
            ]
        else:
            parts = [
                (BOX, (0, 0.75, 0), (width, 0.35, length), STEEL),
                (BOX, (0, 0.6, length + 0.5), (0.05, 0.05, 0.5), DARK),
            ]
        for sx in (-1, 1):
            for sz in (-0.62, 0.64):
                parts.append((ELLIPSOID, (sx * (width - 0.06), 0.33, sz * length), (0.12, 0.33, 0.33), DARK))
            if label in (CAR, TRUCK, BUS):
                at = 0.72 if label == CAR else 0.85
                parts.append((BOX, (sx * width * 0.78, at, -length), (0.16, 0.09, 0.03), (0.7, 0.04, 0.04)))
                parts.append((BOX, (sx * width * 0.78, at, length), (0.16, 0.09, 0.03), (0.95, 0.95, 0.85)))
        self.assemble(label, x, z, heading, instance, parts)
        self.shadow(x, z, width, length, heading)

    def motorcycle(self, x, z, heading, instance, colour) -> None:
        parts = [(ELLIPSOID, (0, 0.32, sz), (0.09, 0.32, 0.32), DARK) for sz in (-0.65, 0.65)]
        parts += [(BOX, (0, 0.65, 0), (0.17, 0.22, 0.6), colour), (BOX, (0, 1.0, 0.5), (0.36, 0.05, 0.05), DARK)]
        self.assemble(MOTORCYCLE, x, z, heading, instance, parts)
        self.shadow(x, z, 0.2, 0.8, heading)
        self.person(x, z, heading, RIDER, seat=0.55)

    def bicycle(self, x, z, heading, instance) -> None:
        """A bicycle; its card's own x is ahead, so it is turned by a quarter."""
        colour = self.pick([(0.12, 0.12, 0.14), (0.5, 0.1, 0.1), (0.1, 0.3, 0.45)])
        self.add(
            CARD, BICYCLE, (x, 0.54, z), (0.86, 0.54, 0.03), colour, Material.BICYCLE, heading - np.pi / 2, instance
        )
        self.add(BOX, BICYCLE, (x, 0.55, z), (0.05, 0.42, 0.55), colour, Material.PLAIN, heading, instance)
        self.shadow(x, z, 0.06, 0.8, heading)

    def cyclist(self, x, z, heading) -> None:
        heading += self.rng.uniform(-0.15, 0.15)
        self.bicycle(x, z, heading, self.instance())
        self.person(x, z, heading, RIDER, seat=0.62)

    def person(self, x, z, heading, label=PERSON, seat=0.0, crowd=False) -> None:
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

    def people(self, crowd: bool) -> None:
        """Walkers on the sidewalks, a few on the road, and groups that nobody could tell apart."""
        u = self.rng.uniform
        for _ in range(self.rng.poisson(3.5) + 1):
            side = self.rng.choice([-1, 1])
            x = (self.left if side < 0 else self.right) + side * u(0.3, max(0.5, self.walk[side] - 0.3))
            if abs(x) > 2.2:
                self.person(x, u(6, 45), u(0, 2 * np.pi))
        if self.crossing < 45 and u() < 0.6:
            for _ in range(self.rng.integers(1, 4)):
                self.person(u(self.left, self.right), self.crossing - u(4, 6.5), self.rng.choice([-1, 1]) * np.pi / 2)
        if crowd:
            side, z = self.rng.choice([-1, 1]), u(14, 30)
            for _ in range(9):
                x = (self.left if side < 0 else self.right) + side * u(0.2, self.walk[side])
                self.person(x, z + u(0, 3), u(0, 2 * np.pi), crowd=True)
        if crowd and u() < 0.7:
            x, z = self.edge(self.rng.choice([-1, 1])), u(26, 45)
            for k in range(5):
                self.vehicle(CAR, x + np.sign(x) * 2.5, z + 2.6 * k, np.pi / 2, crowd=True)

    # -- light and camera

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
        pose = replace(FULL_CAMERA, y=FULL_CAMERA.y * u(0.95, 1.05), yaw=u(-0.11, 0.11), pitch=u(-0.025, 0.075))
        return Scene(
            np.array(self.primitives, PRIMITIVE),
            np.array(self.shadows, np.float32).reshape(-1, 5),
            light,
            pose,
            int(self.rng.integers(2**31)),
        )
