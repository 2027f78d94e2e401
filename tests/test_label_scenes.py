"""Labels of rendered streets: a changed label against the label of the changed camera, and against its own depth."""

import math

import numpy as np
import pytest
import torch
from numpy import ndarray
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import Image

from mtlbench.labels import Disparity, InverseDepth, Landmarks, MetricDepth, Normals
from mtlbench.synthetic.raycast import Camera
from mtlbench.synthetic.street import View, render
from mtlbench.transforms import View as Window
from mtlbench.transforms import see, whole

HEIGHT, WIDTH = 96, 192
SCENES = (0, 2)


def known(values: ndarray, seen: View) -> Tensor:
    """Values [C, H, W], NaN in the sky and beyond 80 m."""
    return torch.from_numpy(np.where(seen.depth < 80, values, np.nan).astype(np.float32))


def labels_of(seen: View) -> tuple[MetricDepth, InverseDepth, Normals]:
    inverse = 1 / seen.depth
    return (
        MetricDepth(known(seen.depth[None], seen)),
        InverseDepth(known(inverse[None], seen)),
        Normals(known(seen.normals, seen)),
    )


def degrees_between(a: Tensor, b: Tensor) -> Tensor:
    return torch.rad2deg(torch.acos((a * b).sum(0).clamp(-1, 1)))


def agree(depth: Tensor, inverse: Tensor, normals: Tensor, again: View, least: float) -> None:
    """Nearly all pixels have the depths and the normals of the second view; those at edges are sampled elsewhere."""
    true = labels_of(again)
    both = ~depth[0].isnan() & ~true[0][0].isnan()
    assert both.float().mean() > 0.3
    ratio = (depth / true[0].as_subclass(Tensor))[0][both]
    assert ((ratio - 1).abs() < 0.08).float().mean() > least
    assert ((inverse * torch.from_numpy(again.depth))[0][both].sub(1).abs() < 0.08).float().mean() > least
    angle = degrees_between(normals, true[2].as_subclass(Tensor))[both]
    assert angle.median() < 0.1
    assert (angle < 2).float().mean() > (least if least > 0.99 else 0.78)  # trees and people are round


@pytest.mark.parametrize("index", SCENES)
def test_mirrored_and_turned_labels_are_those_of_the_mirrored_and_turned_scene(index: int):
    first = render(0, index, HEIGHT, WIDTH)
    mirrored = [F.horizontal_flip(label).as_subclass(Tensor) for label in labels_of(first)]
    agree(*mirrored, render(0, index, HEIGHT, WIDTH, lambda c: c.mirrored(WIDTH)), least=0.995)
    at = [first.camera.u0 + 0.5, first.camera.v0 + 0.5]
    turned = [F.rotate(label, 8, center=at).as_subclass(Tensor) for label in labels_of(first)]
    agree(*turned, render(0, index, HEIGHT, WIDTH, lambda c: c.rolled(math.radians(8))), least=0.93)
    # without the rule for normals this test would fail
    wrong = labels_of(first)[2].as_subclass(Tensor).flip(-1)
    with pytest.raises(AssertionError):
        agree(*mirrored[:2], wrong, render(0, index, HEIGHT, WIDTH, lambda c: c.mirrored(WIDTH)), least=0.995)


@pytest.mark.parametrize("index", SCENES)
def test_a_smaller_data_set_has_the_labels_of_a_smaller_camera(index: int):
    """Resizing as a whole: what a camera of half the pixels sees, metres and angles as they were."""
    first, again = render(0, index, HEIGHT, WIDTH), render(0, index, HEIGHT // 2, WIDTH // 2)
    window = whole(Image(torch.zeros(3, HEIGHT, WIDTH)), (HEIGHT // 2, WIDTH // 2))
    agree(*(see(label, window).as_subclass(Tensor) for label in labels_of(first)), again, least=0.93)
    disparity = Disparity(known(0.2 * first.camera.fx / first.depth[None], first))
    found = see(disparity, window).as_subclass(Tensor)[0]
    ratio = found / torch.from_numpy(0.2 * again.camera.fx / again.depth)
    assert ((ratio[~ratio.isnan()] - 1).abs() < 0.08).float().mean() > 0.93


def normals_of(depth: ndarray, camera: Camera) -> ndarray:
    """Unit normals [3, H, W] towards the camera from depths [H, W] alone, by differences of points; NaN in the sky."""
    depth = np.where(depth < 1e4, depth, np.nan)
    v, u = np.mgrid[: depth.shape[0], : depth.shape[1]]
    points = np.stack([(u - camera.u0) / camera.fx * depth, (v - camera.v0) / camera.fy * depth, depth])
    normal = np.cross(np.gradient(points, axis=1), np.gradient(points, axis=2), axis=0)
    return normal / np.linalg.norm(normal, axis=0)


@pytest.mark.parametrize("index", SCENES)
def test_zoomed_normals_are_those_of_the_zoomed_depth(index: int):
    """Enlarging by 1.5 with the focal length kept: depth / s is another surface, and its normals must be ours.

    The rule (x, y, s z) gives the normals of that depth to a tenth of a degree; normals left as they are do not.
    Depths are rendered where the enlarged pixels are, not sampled.
    """
    s = 1.5
    first = render(0, index, HEIGHT, WIDTH)
    close = render(0, index, HEIGHT, WIDTH, lambda c: c.zoomed(s, HEIGHT, WIDTH))
    pixel = Window(HEIGHT // 6, WIDTH // 6, HEIGHT * 2 // 3, WIDTH * 2 // 3, (HEIGHT, WIDTH), (HEIGHT, WIDTH))
    depth, inverse, normals = (see(label, pixel).as_subclass(Tensor) for label in labels_of(first))
    both = ~depth[0].isnan() & torch.from_numpy(close.depth < 80)
    ratio = (depth[0] * s / torch.from_numpy(close.depth))[both]
    assert ((ratio - 1).abs() < 0.08).float().mean() > 0.9
    assert torch.allclose((inverse * depth)[0][both], torch.ones(1), rtol=1e-5)
    # the camera of the old focal length, its centre where the enlarged one's is, looking at depth / s
    same_lens = Camera(first.camera.fx, first.camera.fy, close.camera.u0, close.camera.v0)
    own = torch.from_numpy(normals_of(close.depth / s, same_lens)).float()
    plane = torch.from_numpy(close.depth < 40) & both & (own.isfinite().all(0))
    angle = degrees_between(own, normals)[plane]
    assert angle.median() < 0.1
    unchanged = torch.from_numpy(np.ascontiguousarray(close.normals))
    assert degrees_between(own, unchanged)[plane].median() > 0.9


@pytest.mark.parametrize("index", SCENES)
def test_landmarks_are_where_the_changed_camera_sees_the_points(index: int):
    """Points of the world, among them one to the left and one to the right, through each camera."""
    first = render(0, index, HEIGHT, WIDTH).camera
    world = first.position() + np.array([[-1.0, 0.2, 9.0], [1.5, 0.4, 11.0], [0.2, -0.5, 8.0]])
    partners = (1, 0, 2)

    def seen_by(camera: Camera) -> Tensor:
        u, v, depth = camera.project(world)
        assert (depth > 1).all()
        return torch.from_numpy(np.stack([u, v], 1))

    points = Landmarks(seen_by(first), (HEIGHT, WIDTH), partners)
    assert not points.isnan().any()
    flipped = F.horizontal_flip(points).as_subclass(Tensor)
    assert torch.allclose(flipped, seen_by(first.mirrored(WIDTH))[list(partners)], atol=1e-6)
    pixel = Window(HEIGHT // 6, WIDTH // 6, HEIGHT * 2 // 3, WIDTH * 2 // 3, (HEIGHT, WIDTH), (HEIGHT, WIDTH))
    assert torch.allclose(see(points, pixel).as_subclass(Tensor), seen_by(first.zoomed(1.5, HEIGHT, WIDTH)), atol=1e-6)
    turned = F.rotate(points, 8, center=[first.u0 + 0.5, first.v0 + 0.5]).as_subclass(Tensor)
    # the lens is a little wider than high, 212.1 and 212.4 pixels, which a turned image does not know
    assert torch.allclose(turned, seen_by(first.rolled(math.radians(8))), atol=0.1)
