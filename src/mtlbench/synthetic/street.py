"""What a car's camera sees of a random street: image, labels, instances, depth and normals.

A scene is a function of (seed, split, index) alone; `render` shows it to any camera, so a transformed view
(mirrored, zoomed, rolled) has true labels too. Label ids are those of Cityscapes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from mtlbench.synthetic.ids import Id
from mtlbench.synthetic.layout import Scene, street
from mtlbench.synthetic.paint import cut, develop, expose
from mtlbench.synthetic.raycast import Camera, cast, surface


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
    labels = np.full((height, width), Id.SKY, np.uint8)
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
