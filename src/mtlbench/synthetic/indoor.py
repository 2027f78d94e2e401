"""What a hand-held camera sees of a random room: image, NYUv2's labels and instances, depth and normals.

    scene = room(seed, split, index)                # a function of these three alone
    seen = view(scene, scene.camera(480, 640), 480, 640)
    seen.image, seen.labels, seen.instances, seen.depth, seen.normals, seen.primitive, seen.camera

`render(seed, index, height, width, change, split)` is both in one call; `change` turns the scene's camera into
another one (`Camera.mirrored`, `zoomed`, `rolled`, or `dataclasses.replace` with another pose or focal length), so
that a transformed view has true labels too. A room is closed on all sides: every pixel has a depth, wherever the
camera looks. `scene.primitives[seen.primitive]` are the surfaces themselves (`raycast.PRIMITIVE`), from which
curvature, edges or distances can be derived; `raycast.surface` gives their points and normals.

Room number i is a `ROOMS[i % 6]`; six in a row hold all of NYUv2's 40 classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray

from mtlbench.seeds import seed_of
from mtlbench.synthetic.paint import Light, cut, develop, expose
from mtlbench.synthetic.raycast import PRIMITIVE, Camera, cast, surface
from mtlbench.synthetic.rooms import ROOMS, Room

FULL_SIZE = (480, 640)
FULL_CAMERA = Camera(fx=518.857901, fy=519.469611, u0=325.582449, v0=253.736166)
"""The colour camera of NYUv2's toolbox, for images of FULL_SIZE."""


@dataclass(frozen=True)
class Scene:
    """A room: primitives (`raycast.PRIMITIVE`), contact shadows, light, the camera's pose and the kind of room."""

    primitives: ndarray
    shadows: ndarray
    light: Light
    pose: Camera
    kind: str
    salt: int

    def camera(self, height: int, width: int) -> Camera:
        """The scene's camera for an image of that size: FULL_CAMERA scaled to its width, with the principal point as
        far down as in a full image."""
        return replace(
            scaled_camera(height, width),
            **{key: getattr(self.pose, key) for key in ("x", "y", "z", "yaw", "pitch", "roll")},
        )


@dataclass(frozen=True)
class View:
    """What a camera sees: image uint8 [H, W, 3]; labels uint16 [H, W] (1 to 894, NYUv2's); instances uint8 [H, W],
    from 1 in each class; depth float32 [H, W] in metres along the optical axis; normals float32 [3, H, W], unit, in
    the camera's axes (x right, y down, z along the optical axis, so that z < 0: towards the viewer); primitive int32
    [H, W], the number in the scene's primitives."""

    image: ndarray
    labels: ndarray
    instances: ndarray
    depth: ndarray
    normals: ndarray
    primitive: ndarray
    camera: Camera


def scaled_camera(height: int, width: int) -> Camera:
    """FULL_CAMERA without a pose, for a whole image resized to that size."""
    scale = width / FULL_SIZE[1]
    return Camera(
        fx=FULL_CAMERA.fx * scale,
        fy=FULL_CAMERA.fy * scale,
        u0=(FULL_CAMERA.u0 + 0.5) * scale - 0.5,
        v0=(FULL_CAMERA.v0 + 0.5) * height / FULL_SIZE[0] - 0.5,
    )


def room(seed: int, split: str, index: int) -> Scene:
    """A random room."""
    salt = seed_of(seed, "room", split, index)
    kind = ROOMS[index % len(ROOMS)]
    built = Room(np.random.default_rng(salt), kind)
    u = built.rng.uniform
    warm = np.array([1.0, u(0.93, 1.0), u(0.84, 1.0)], np.float32)
    lamp = np.array([u(-0.4, 0.4), 1.0, u(-0.8, -0.2)], np.float32)
    light = Light(
        sun=lamp / np.linalg.norm(lamp),
        direct=u(0.5, 0.75),
        ambient=u(0.5, 0.7),
        tint=warm,
        zenith=warm,
        horizon=warm,
        clouds=0.0,
        haze=0.0,
        exposure=u(0.8, 1.1),
        grain=u(0.006, 0.02),
    )
    pose = Camera(
        fx=FULL_CAMERA.fx,
        fy=FULL_CAMERA.fy,
        u0=FULL_CAMERA.u0,
        v0=FULL_CAMERA.v0,
        x=u(-0.15, 0.15),
        y=u(1.4, 1.5),
        z=0.0,
        yaw=u(-0.06, 0.06),
        pitch=u(0.06, 0.12),
        roll=u(-0.03, 0.03),
    )
    primitives = np.array(built.primitives, PRIMITIVE)
    shadows = np.array(built.shadows, np.float32).reshape(-1, 5)
    return Scene(primitives, shadows, light, pose, kind, salt % 2**31)


def render(
    seed: int,
    index: int,
    height: int,
    width: int,
    change: Callable[[Camera], Camera] = lambda camera: camera,
    split: str = "train",
) -> View:
    """The room of (seed, split, index), seen by its camera after `change`."""
    scene = room(seed, split, index)
    return view(scene, change(scene.camera(height, width)), height, width)


def view(scene: Scene, camera: Camera, height: int, width: int) -> View:
    """A room as a camera inside it sees it."""
    hits = cast(scene.primitives, camera, height, width, cut)
    assert (hits.primitive >= 0).all(), "a room is closed"
    rays = camera.rays(height, width)
    which, local, normal = surface(scene.primitives, hits, camera, rays)
    image = develop(hits, which, local, normal, rays, scene.light, scene.shadows, scene.salt)
    image = expose(image, scene.light, np.random.default_rng(scene.salt))
    labels = which["label"].reshape(height, width)
    normals = (camera.rotation().T @ normal).astype(np.float32).reshape(3, height, width)
    instances = numbered(labels, which["instance"].reshape(height, width))
    return View(image, labels, instances, hits.depth, normals, hits.primitive, camera)


def numbered(labels: ndarray, owner: ndarray) -> ndarray:
    """NYUv2's instances [H, W] uint8 of labels and owners: from 1 in each class, in the owners' order."""
    pairs, inverse = np.unique(np.stack([labels.ravel(), owner.ravel()], 1), axis=0, return_inverse=True)
    first = np.searchsorted(pairs[:, 0], pairs[:, 0])
    return (np.arange(len(pairs)) - first + 1)[inverse].astype(np.uint8).reshape(labels.shape)
