"""Synthetic rooms: what a camera sees is consistent, and every class of NYUv2 is there."""

import numpy as np
import pytest

from mtlbench.datasets.nyuv2_classes import mapping_40
from mtlbench.datasets.nyuv2_normals import from_depth
from mtlbench.synthetic.furniture import Thing
from mtlbench.synthetic.indoor import View, numbered, render, room, scaled_camera, view
from mtlbench.synthetic.nyuv2 import valid_region
from mtlbench.synthetic.raycast import Camera

HEIGHT, WIDTH = 96, 128


@pytest.fixture(scope="module")
def rooms() -> list[View]:
    return [render(0, index, HEIGHT, WIDTH) for index in range(6)]


def degrees(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Angles [...] between unit vectors [3, ...]."""
    return np.degrees(2 * np.arctan2(np.linalg.norm(a - b, axis=0), np.linalg.norm(a + b, axis=0)))


def interior(seen: View, radius: int) -> np.ndarray:
    """Pixels around which all is one surface without an edge: one primitive, and no normal 5 degrees off."""
    height, width = seen.depth.shape
    inside = np.zeros((height, width), bool)
    inside[radius:-radius, radius:-radius] = True
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            inside &= np.roll(seen.primitive, (dy, dx), (0, 1)) == seen.primitive
            inside &= degrees(np.roll(seen.normals, (dy, dx), (1, 2)), seen.normals) < 5
    return inside


def test_six_rooms_in_a_row_have_all_40_classes_inside_the_border():
    for seed in range(3):
        seen = np.unique(np.concatenate([_inside(render(seed, index, 48, 64).labels) for index in range(6)]))
        assert set(seen) == {int(thing) for thing in Thing}
    assert set(mapping_40()[seen - 1]) == set(range(1, 41))


def _inside(labels: np.ndarray) -> np.ndarray:
    return labels[valid_region(*labels.shape)]


def test_a_view_is_of_the_documented_types_and_closed(rooms: list[View]):
    for seen in rooms:
        assert (seen.image.dtype, seen.image.shape) == (np.uint8, (HEIGHT, WIDTH, 3))
        assert (seen.labels.dtype, seen.instances.dtype, seen.depth.dtype) == (np.uint16, np.uint8, np.float32)
        assert np.isfinite(seen.depth).all()
        assert 0.3 < seen.depth.min() < seen.depth.max() < 8
        assert seen.image.std() > 20
        assert np.allclose(np.linalg.norm(seen.normals, axis=0), 1, atol=1e-5)
        rays = (
            (np.arange(WIDTH) - seen.camera.u0) / seen.camera.fx,
            (np.arange(HEIGHT) - seen.camera.v0) / seen.camera.fy,
        )
        facing = seen.normals[0] * rays[0] + seen.normals[1] * rays[1][:, None] + seen.normals[2]
        assert (facing <= 1e-4).all()
        assert (seen.normals[1][seen.labels == Thing.FLOOR] < -0.9).all()  # y is down
        assert (seen.normals[1][seen.labels == Thing.CEILING] > 0.9).all()


def test_a_room_is_a_function_of_seed_part_and_number(rooms: list[View]):
    again = render(0, 2, HEIGHT, WIDTH)
    assert all(np.array_equal(getattr(again, key), getattr(rooms[2], key)) for key in ("image", "depth", "labels"))
    for other in (render(1, 2, HEIGHT, WIDTH), render(0, 8, HEIGHT, WIDTH), render(0, 2, HEIGHT, WIDTH, split="val")):
        assert not np.array_equal(other.depth, again.depth)


@pytest.mark.parametrize("yaw", [0.0, 1.5, 3.0, 4.5])
def test_a_camera_may_look_anywhere(yaw: float):
    scene = room(0, "train", 3)
    seen = view(scene, Camera(**vars(scene.camera(24, 32)) | {"yaw": yaw}), 24, 32)
    assert np.isfinite(seen.depth).all()


def test_normals_of_the_depth_are_those_rendered_within_a_degree(rooms: list[View]):
    total = 0
    for seen in rooms:
        angle = degrees(from_depth(seen.depth, window=5), seen.normals)
        where = interior(seen, 2)
        assert where.mean() > 0.3
        assert (angle[where] < 1).all()
        total += where.sum()
    assert total > 0.5 * 6 * HEIGHT * WIDTH


def test_planes_are_fitted_exactly_and_never_over_edges_or_holes():
    camera = scaled_camera(60, 80)
    normal = np.array([0.3, -0.5, -0.8]) / np.linalg.norm([0.3, -0.5, -0.8])
    u, v = (np.arange(80) - camera.u0) / camera.fx, (np.arange(60) - camera.v0) / camera.fy
    depth = (-2.0 / (normal[0] * u + normal[1] * v[:, None] + normal[2])).astype(np.float32)
    depth[:, 40:] += 1.5  # a step: the planes on both sides are parallel, but not the same
    depth[20:24, 10:14] = 0
    found = from_depth(depth, window=7)
    assert np.isnan(found[:, 20:24, 10:14]).all()
    left = degrees(found[:, :, :40], np.broadcast_to(normal[:, None, None], (3, 60, 40)))
    assert np.nanmax(left) < 0.1
    assert np.isnan(left).sum() < 2 * 16 + 30  # the hole; a corner has a quarter of the window


def test_mirrored_and_zoomed_cameras_see_mirrored_and_zoomed_labels(rooms: list[View]):
    mirrored = render(0, 1, HEIGHT, WIDTH, lambda camera: camera.mirrored(WIDTH))
    same = mirrored.labels[:, ::-1] == rooms[1].labels
    assert same.mean() > 0.995
    assert np.allclose(mirrored.depth[:, ::-1][same], rooms[1].depth[same], atol=0.05)
    flipped = mirrored.normals[:, :, ::-1] * np.array([-1, 1, 1])[:, None, None]
    assert np.median(degrees(flipped, rooms[1].normals)) < 0.1


def test_instances_are_numbered_from_one_in_each_class():
    labels = np.array([[5, 5, 5], [7, 7, 5]], np.uint16)
    owner = np.array([[40, 40, 12], [3, 90, 12]])
    assert numbered(labels, owner).tolist() == [[2, 2, 1], [1, 2, 1]]


def test_a_dining_room_has_four_chairs(rooms: list[View]):
    chairs = np.unique(rooms[5].instances[rooms[5].labels == Thing.CHAIR])
    assert chairs.tolist() == [1, 2, 3, 4]
