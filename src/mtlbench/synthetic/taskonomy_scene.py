"""What Taskonomy's cameras see of the rooms of `indoor`: surfaces, the world behind the windows, holes in the scan.

A scanned building has no glass: behind a window there is the street, as far as the scanner saw it, and nothing beyond.
A vase on the floor is added to every room; it is a class of Taskonomy's that the rooms lack.
"""

from dataclasses import dataclass, replace
from math import radians, tan

import numpy as np
from numpy import ndarray

from mtlbench.seeds import seed_of
from mtlbench.synthetic.furniture import Thing
from mtlbench.synthetic.indoor import Scene, room
from mtlbench.synthetic.paint import Material, cut, develop, expose, noise
from mtlbench.synthetic.raycast import BOX, CYLINDER, ELLIPSOID, PATCH, PRIMITIVE, Camera, Hits, cast, surface

VASE, OUTSIDE = 78, 60_000
"""Labels beside those of NYUv2: a vase is 78 there."""

OPENINGS = (Thing.WINDOW, Thing.MIRROR)
"""Where a scanner sees through, or nothing."""

TOWER = 127.0
"""Metres: how far away the last thing is that can be stored, p = 512 z = 65024."""

HOLES = 0.11
"""The least share of an image without a surface."""


@dataclass(frozen=True)
class View:
    """What a camera sees, [size, size]: image uint8 [.., 3]; depth float32 along the optical axis, infinite where
    there is nothing; normals float32 [3, ..] in the camera's axes (z < 0: towards the viewer), zero where nothing is;
    curvature float32 [2, ..] in 1/m, the larger one first; labels uint16; hole: the scan has no surface, though there
    is one. kind: of the room."""

    image: ndarray
    depth: ndarray
    normals: ndarray
    curvature: ndarray
    labels: ndarray
    hole: ndarray
    camera: Camera
    kind: str


def render(seed: int, split: str, point: int, view: int, size: int) -> View:
    """View number `view` of the room number `point`, of size x size pixels."""
    scene = room(seed, split, point)
    of_point = np.random.default_rng(seed_of(seed, "taskonomy", split, point))
    camera = camera_of(scene, view, size, of_point)
    added = np.array([vase(of_point)], PRIMITIVE)
    scene = replace(scene, primitives=np.concatenate([scene.primitives, added]))
    return seen(scene, outside(of_point), camera, np.random.default_rng(seed_of(seed, "view", split, point, view)))


def camera_of(scene: Scene, view: int, size: int, rng: np.random.Generator) -> Camera:
    """A camera of 55 to 75 degrees for size x size pixels; views after the first are from the right, looking left, and
    from the left, looking right, by turns."""
    focal = size / (2 * tan(radians(rng.uniform(55, 75)) / 2))
    turned = 0.16 * ((view + 1) // 2) * (1 if view % 2 else -1)
    middle = (size - 1) / 2
    pose = scene.pose
    return replace(
        pose,
        fx=focal,
        fy=focal,
        u0=middle,
        v0=middle,
        x=pose.x + turned,
        yaw=pose.yaw - turned,
        pitch=pose.pitch + 0.02,
    )


def seen(scene: Scene, beyond: ndarray, camera: Camera, rng: np.random.Generator) -> View:
    """A room, and what is `beyond` its windows (raycast.PRIMITIVE), as a camera in the middle of its image sees it."""
    size = round(2 * camera.u0 + 1)
    inside = cast(scene.primitives, camera, size, size, cut)
    street = cast(beyond, camera, size, size)
    window = np.isin(scene.primitives["label"][inside.primitive], OPENINGS)
    number = np.where(street.primitive >= 0, street.primitive + len(scene.primitives), -1)
    hits = Hits(np.where(window, number, inside.primitive), np.where(window, street.depth, inside.depth))
    rays = camera.rays(size, size)
    which, local, normal = surface(np.concatenate([scene.primitives, beyond]), hits, camera, rays)
    image = develop(hits, which, local, normal, rays, scene.light, scene.shadows, scene.salt)
    there = hits.primitive >= 0
    maps = np.zeros((3, size, size), np.float32), np.zeros((2, size, size), np.float32)
    maps[0][:, there] = camera.rotation().T @ normal
    maps[1][:, there] = principal_curvatures(which, local)
    labels = np.full((size, size), OUTSIDE, np.uint16)
    labels[there] = which["label"]
    return View(expose(image, scene.light, rng), hits.depth, *maps, labels, holes(there, rng), camera, scene.kind)


def vase(rng: np.random.Generator) -> tuple:
    """A vase on the floor before the camera."""
    half = (0.13, rng.uniform(0.2, 0.3), 0.13)
    centre = (rng.uniform(-0.7, 0.7), half[1], rng.uniform(2.1, 2.5))
    return (ELLIPSOID, Material.PLAIN, VASE, -1, 0.0, centre, half, (0.2, 0.35, rng.uniform(0.4, 0.7)))


def outside(rng: np.random.Generator) -> ndarray:
    """The ground three metres below, houses 18 to 40 m away with gaps between them, a tower at the scanner's end."""
    grey = (0.5, 0.5, 0.47)
    found = [(PATCH, Material.GRASS, OUTSIDE, -1, 0.0, (0, -3, 60), (200, 0, 55), (0.35, 0.42, 0.25))]
    for x in np.arange(-40, 41, 16) + rng.uniform(-4, 4):
        half = (rng.uniform(4, 7), rng.uniform(2, 6), 4)
        z = rng.uniform(18, 40)
        found.append((BOX, Material.FACADE, OUTSIDE, -1, 0.0, (x, half[1] - 3, z + 4), half, grey))
    found.append((BOX, Material.FACADE, OUTSIDE, -1, 0.0, (0, 5, TOWER + 3), (200, 18, 3), (0.6, 0.55, 0.5)))
    return np.array(found, PRIMITIVE)


def holes(there: ndarray, rng: np.random.Generator) -> ndarray:
    """Blobs [H, W] where the scan has no surface, as large as needed for at least HOLES of the image without one."""
    v, u = np.mgrid[0 : there.shape[0], 0 : there.shape[1]].astype(np.float32) * np.float32(7 / there.shape[1])
    salt = int(rng.integers(2**31))
    blobs = noise(u, v, salt) + 0.4 * noise(u * 3.3, v * 3.3, salt + 1)
    share = max(0.02, (HOLES - (~there).mean()) / there.mean())
    return there & (blobs <= np.quantile(blobs[there], share))


def principal_curvatures(which: ndarray, local: ndarray) -> ndarray:
    """k1 >= k2 [2, n] in 1/m at points [3, n] in their primitives' own coordinates; negative where a surface bulges
    towards the viewer, zero on boxes, cards and lids.

    Of an ellipsoid with half axes a, b, c, at q = (x / a^2, y / b^2, z / c^2): the Gaussian curvature is
    K = 1 / (a b c |q|^2)^2, the mean curvature H = (a^2 + b^2 + c^2 - |x|^2) / (2 (a b c)^2 |q|^3), and
    k = -H +- sqrt(H^2 - K). Of an upright elliptic cylinder: -1 / ((a c)^2 |q|^3) around it, 0 along it.
    """
    half = np.maximum(which["half"].T.astype(np.float64), 1e-9)
    local = local.astype(np.float64)
    found = np.zeros((2, local.shape[1]))
    ball = which["shape"] == ELLIPSOID
    x, a = local[:, ball], half[:, ball]
    q = np.sqrt(((x / a**2) ** 2).sum(0))
    volume = a.prod(0)
    gauss = 1 / (volume * q**2) ** 2
    mean = ((a**2).sum(0) - (x**2).sum(0)) / (2 * volume**2 * q**3)
    spread = np.sqrt(np.maximum(mean**2 - gauss, 0))
    found[:, ball] = -mean + spread, -mean - spread
    round_ = (which["shape"] == CYLINDER) & (np.abs(local[1]) < half[1] * 0.9999)
    x, a = local[[0, 2]][:, round_], half[[0, 2]][:, round_]
    found[1, round_] = -1 / (a.prod(0) ** 2 * np.sqrt(((x / a**2) ** 2).sum(0)) ** 3)
    return found
