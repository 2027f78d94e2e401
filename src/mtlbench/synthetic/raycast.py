"""A pinhole camera and a ray caster for scenes of boxes, ellipsoids, cylinders, cards and ground patches.

World: x right, y up, z forward, in metres. Camera: x right, y down, z along the optical axis; pixel centres
at integers (u right, v down). A ray is scaled so that its parameter is the depth along the optical axis.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray

BOX, ELLIPSOID, CYLINDER, CARD, PATCH = range(5)
"""Shapes: cylinders stand upright, a card is a thin upright rectangle, a patch a horizontal one."""

PRIMITIVE = np.dtype(
    [
        ("shape", "u1"),
        ("material", "u1"),
        ("label", "u2"),  # NYUv2 has 894
        ("instance", "i4"),  # -1: none
        ("heading", "f4"),  # radians about y; 0 looks along z
        ("centre", "f4", 3),
        ("half", "f4", 3),  # half extents along the primitive's own x, y, z
        ("colour", "f4", 3),  # 0 to 1
    ]
)
NEAR = 0.3
"""Metres: nothing nearer is seen."""

FARTHEST = np.float32(1e5)
"""Metres: a depth that no hit exceeds, so that a miss (infinity) never counts as one."""

CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera and its pose.

    fx, fy, u0, v0 in pixels; x, y (height), z in metres; angles in radians: yaw to the right, pitch down,
    roll such that what is seen turns counter-clockwise. mirror: the scene is reflected at x = 0 first.
    """

    fx: float
    fy: float
    u0: float
    v0: float
    x: float = 0.0
    y: float = 1.22
    z: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    mirror: bool = False

    def mirrored(self, width: int) -> "Camera":
        """The camera of the mirrored scene whose image is this one's image flipped left to right."""
        return replace(
            self,
            mirror=not self.mirror,
            x=-self.x,
            yaw=-self.yaw,
            roll=-self.roll,
            u0=width - 1 - self.u0,
        )

    def zoomed(self, scale: float, height: int, width: int) -> "Camera":
        """Focal lengths times `scale`, about the image's centre: its image enlarged about that point."""
        u, v = (width - 1) / 2, (height - 1) / 2
        return replace(
            self,
            fx=self.fx * scale,
            fy=self.fy * scale,
            u0=u + (self.u0 - u) * scale,
            v0=v + (self.v0 - v) * scale,
        )

    def rolled(self, angle: float) -> "Camera":
        """Turned by `angle` radians: its image turns counter-clockwise about (u0, v0) where fx = fy."""
        return replace(self, roll=self.roll + angle)

    def rotation(self) -> ndarray:
        """World from camera axes [3, 3], a reflection included where mirror is set."""
        c, s = np.cos(self.roll), np.sin(self.roll)
        roll = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        c, s = np.cos(self.pitch), np.sin(self.pitch)
        pitch = np.array([[1, 0, 0], [0, c, s], [0, -s, c]])
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        yaw = np.array([[c, 0, s], [0, -1, 0], [-s, 0, c]])  # camera y is down, world y is up
        return np.diag([-1 if self.mirror else 1, 1, 1]) @ yaw @ pitch @ roll

    def position(self) -> ndarray:
        """Where the camera is in the scene as it was made, before any reflection [3]."""
        return np.array([-self.x if self.mirror else self.x, self.y, self.z])

    def rays(self, height: int, width: int) -> ndarray:
        """Directions in the world [3, height, width] with camera z = 1, float32."""
        u = (np.arange(width) - self.u0) / self.fx
        v = (np.arange(height) - self.v0) / self.fy
        camera = np.stack([*np.broadcast_arrays(u[None], v[:, None]), np.ones((height, width))])
        return np.einsum("ij,jhw->ihw", self.rotation(), camera).astype(np.float32)

    def project(self, points: ndarray) -> tuple[ndarray, ndarray, ndarray]:
        """(u, v, depth) of world points [..., 3], pixels and metres; u and v mean nothing at depth <= 0."""
        x, y, z = np.moveaxis((points - self.position()) @ self.rotation(), -1, 0)
        safe = np.where(z > 1e-6, z, 1e-6)
        return self.u0 + self.fx * x / safe, self.v0 + self.fy * y / safe, z


def turn(heading, x, z):
    """(x, z) in the axes of something with that heading."""
    c, s = np.cos(heading), np.sin(heading)
    return c * x - s * z, s * x + c * z


def turned(heading: ndarray, points: ndarray) -> ndarray:
    """Points [3, n] in the axes of things with those headings [n]."""
    x, z = turn(heading, points[0], points[2])
    return np.stack([x, points[1], z])


@dataclass(frozen=True)
class Hits:
    """What the rays meet, [height, width]: the primitive's number (-1: nothing) and the depth in metres
    (infinity: nothing)."""

    primitive: ndarray
    depth: ndarray


def cast(primitives: ndarray, camera: Camera, height: int, width: int, keep=None) -> Hits:
    """The nearest primitive at every pixel; of patches at one height the later one.

    `keep(primitive, points, directions)` may cut holes: it gets a primitive and the points [3, n] at which
    rays meet it, with the rays' directions, in its own coordinates, and returns which points are there.
    """
    rays, origin = camera.rays(height, width), camera.position().astype(np.float32)
    depth = np.full((height, width), np.inf, np.float32)
    number = np.full((height, width), -1, np.int32)
    for index, primitive in enumerate(primitives):
        window = _window(primitive, camera, height, width)
        if window is None:
            continue
        start, direction = _local(primitive, origin, rays[:, *window])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            found = _INTERSECT[primitive["shape"]](start, direction, primitive["half"])
            nearer = (found > NEAR) & (found <= np.minimum(depth[window], FARTHEST))
        if keep is not None and nearer.any():
            where = np.nonzero(nearer)
            along = direction[:, *where]
            nearer[where] = keep(primitive, start[:, None] + found[where] * along, along)
        depth[window][nearer] = found[nearer]
        number[window][nearer] = index
    return Hits(number, depth)


def surface(primitives: ndarray, hits: Hits, camera: Camera, rays: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """Of the pixels that meet something, in row order: their primitives [n], the points in the primitives'
    own coordinates [3, n] and the unit normals in the scene's axes [3, n], towards the camera."""
    seen = hits.primitive >= 0
    which = primitives[hits.primitive[seen]]
    shape, half = which["shape"], which["half"].T
    points = camera.position().astype(np.float32)[:, None] + hits.depth[seen] * rays[:, seen]
    local = turned(which["heading"], points - which["centre"].T)
    normal = np.zeros_like(local)
    normal[2, shape == CARD] = 1
    normal[1, shape == PATCH] = 1
    box = np.flatnonzero(shape == BOX)
    axis = np.abs(local[:, box] / half[:, box]).argmax(0)
    normal[axis, box] = np.sign(local[axis, box])
    round_ = (shape == ELLIPSOID) | (shape == CYLINDER)
    normal[:, round_] = local[:, round_] / half[:, round_] ** 2
    cap = (shape == CYLINDER) & (np.abs(local[1]) >= half[1] * 0.9999)
    normal[1, shape == CYLINDER] = 0
    normal[:, cap] = np.sign(local[1, cap]) * np.array([[0], [1], [0]])
    normal /= np.maximum(np.sqrt((normal**2).sum(0)), 1e-9)
    world = turned(-which["heading"], normal)
    world *= np.where((world * rays[:, seen]).sum(0) > 0, -1, 1)
    return which, local, world


def _local(primitive, origin: ndarray, rays: ndarray) -> tuple[ndarray, ndarray]:
    heading = primitive["heading"]
    offset = origin - primitive["centre"]
    if heading == 0:
        return offset, rays
    x, z = turn(heading, offset[0], offset[2])
    dx, dz = turn(heading, rays[0], rays[2])
    return np.array([x, offset[1], z], np.float32), np.stack([dx, rays[1], dz])


def _window(primitive, camera: Camera, height: int, width: int) -> tuple[slice, slice] | None:
    """The rows and columns that a primitive can cover; None: it is out of sight."""
    x, y, z = (CORNERS * primitive["half"]).T
    x, z = turn(-primitive["heading"], x, z)
    u, v, depth = camera.project(np.stack([x, y, z], -1) + primitive["centre"])
    if (depth < NEAR).all():
        return None
    if (depth < NEAR).any():
        return slice(0, height), slice(0, width)
    left, right = max(0, int(np.floor(u.min())) - 1), min(width, int(np.ceil(u.max())) + 2)
    top, bottom = max(0, int(np.floor(v.min())) - 1), min(height, int(np.ceil(v.max())) + 2)
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def _box(start, direction, half):
    low = np.float32(-np.inf)
    high = np.float32(np.inf)
    for o, d, h in zip(start, direction, half, strict=True):
        inverse = 1 / d
        a, b = (-h - o) * inverse, (h - o) * inverse
        low, high = np.maximum(low, np.minimum(a, b)), np.minimum(high, np.maximum(a, b))
    return np.where(high >= low, low, np.inf)


def _quadratic(o, d):
    """The first root of |o + t d| = 1 for o, d [k], [k, ...]; not a number where there is none."""
    a, b, c = (d * d).sum(0), sum(x * y for x, y in zip(o, d, strict=True)), (o * o).sum() - 1
    return (-b - np.sqrt(b * b - a * c)) / a


def _ellipsoid(start, direction, half):
    return _quadratic(start / half, direction / half[:, None, None])


def _cylinder(start, direction, half):
    wide = half[[0, 2]]
    side = _quadratic(start[[0, 2]] / wide, direction[[0, 2]] / wide[:, None, None])
    side = np.where(np.abs(start[1] + side * direction[1]) <= half[1], side, np.inf)
    lid = (np.copysign(half[1], start[1]) - start[1]) / direction[1]  # the end that faces the camera
    x, z = (start[0] + lid * direction[0]) / half[0], (start[2] + lid * direction[2]) / half[2]
    lid = np.where((x * x + z * z <= 1) & (abs(start[1]) > half[1]), lid, np.inf)
    return np.minimum(side, lid)


def _card(start, direction, half):
    t = -start[2] / direction[2]
    x, y = start[0] + t * direction[0], start[1] + t * direction[1]
    return np.where((np.abs(x) <= half[0]) & (np.abs(y) <= half[1]), t, np.inf)


def _patch(start, direction, half):
    t = -start[1] / direction[1]
    x, z = start[0] + t * direction[0], start[2] + t * direction[2]
    return np.where((np.abs(x) <= half[0]) & (np.abs(z) <= half[2]), t, np.inf)


_INTERSECT = {BOX: _box, ELLIPSOID: _ellipsoid, CYLINDER: _cylinder, CARD: _card, PATCH: _patch}
