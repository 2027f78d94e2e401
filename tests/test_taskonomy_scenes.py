"""Synthetic Taskonomy: its domains against their definitions and each other, its files against the format, a run."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from numpy import ndarray

from mtlbench import config, synthesize
from mtlbench.datasets import taskonomy_values as values
from mtlbench.datasets.taskonomy import Taskonomy, facing
from mtlbench.datasets.taskonomy_tasks import Losses
from mtlbench.synthetic import taskonomy as synthetic
from mtlbench.synthetic import taskonomy_maps as domains
from mtlbench.synthetic.raycast import BOX, CYLINDER, ELLIPSOID, PRIMITIVE
from mtlbench.synthetic.taskonomy_scene import OUTSIDE, VASE, View, principal_curvatures, render
from mtlbench.train import train
from mtlbench.transforms import Augmentation

SIDE = 128
ROOMS = range(6)


@cache
def room(point: int, view: int = 0) -> tuple[View, dict[str, ndarray]]:
    seen = render(0, "train", point, view, SIDE)
    return seen, domains.maps(seen, np.random.default_rng(point), point)


def surface_of(files: dict[str, ndarray]) -> ndarray:
    return files["depth_zbuffer"] != 65535


def rays_of(seen: View) -> ndarray:
    """Of each pixel the point [3, H, W] at depth 1, from the camera's numbers alone."""
    v, u = np.mgrid[0:SIDE, 0:SIDE]
    camera = seen.camera
    return np.stack([(u - camera.u0) / camera.fx, (v - camera.v0) / camera.fy, np.ones((SIDE, SIDE))])


def flat_interior(seen: View) -> ndarray:
    """Pixels whose eight neighbours have the same normal and lie on the same plane: there 1/z changes evenly."""
    n = np.pad(seen.normals, [(0, 0), (1, 1), (1, 1)], mode="edge")
    inverse = np.pad(1 / seen.depth.astype(np.float64), 1, mode="edge")
    same = np.isfinite(seen.depth)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            beside = n[:, 1 + dy : SIDE + 1 + dy, 1 + dx : SIDE + 1 + dx]
            same &= np.abs(beside - seen.normals).max(0) < 1e-4
    for across, down in ((1, 0), (0, 1), (1, 1), (1, -1)):
        before = inverse[1 - down : SIDE + 1 - down, 1 - across : SIDE + 1 - across]
        after = inverse[1 + down : SIDE + 1 + down, 1 + across : SIDE + 1 + across]
        same &= np.abs(before + after - 2 / seen.depth) < 1e-4
    same[[0, -1]] = same[:, [0, -1]] = False
    return same


def angles(a: ndarray, b: ndarray) -> ndarray:
    return np.degrees(np.arccos(np.clip((a * b).sum(0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0), -1, 1)))


@pytest.mark.parametrize("point", ROOMS)
def test_normals_agree_with_depth_within_a_degree(point: int):
    """The cross product of differences of points, from depth and focal length, inside flat surfaces."""
    seen, files = room(point)
    points = rays_of(seen) * seen.depth
    with np.errstate(invalid="ignore"):
        across = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
        down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    normal = np.cross(down, across, axis=0)
    interior = flat_interior(seen)[1:-1, 1:-1]
    assert interior.mean() > 0.6
    rendered = seen.normals[:, 1:-1, 1:-1][:, interior]
    assert angles(normal[:, interior], rendered).max() < 1
    written = files["normal"].transpose(2, 0, 1)[:, 1:-1, 1:-1] / 127.5 - 1
    there = interior & surface_of(files)[1:-1, 1:-1]
    assert angles(normal[:, there], written[:, there]).max() < 1  # a file's steps included


@pytest.mark.parametrize("point", ROOMS)
def test_depths_agree_with_each_other(point: int):
    """Along the axis and to the camera's centre: their ratio is the length of the ray of depth 1."""
    seen, files = room(point)
    there = surface_of(files)
    assert np.array_equal(there, files["depth_euclidean"] != 65535)
    assert np.array_equal(there, files["mask_valid"] == 255)
    z, d = (files[name][there].astype(float) / 512 for name in ("depth_zbuffer", "depth_euclidean"))
    length = np.linalg.norm(rays_of(seen), axis=0)[there]
    stored = d < 65533 / 512
    assert (np.abs(d - z * length)[stored] < (0.51 + 0.51 * length[stored]) / 512).all()  # both are rounded
    assert np.abs(z - seen.depth[there]).max() <= 0.5 / 512 + 1e-5
    assert z.min() > 0.3


@pytest.mark.parametrize("point", ROOMS)
def test_reshading_is_the_cosine_to_the_camera(point: int):
    """From the files alone: the normal of one, the ray of the other's camera."""
    seen, files = room(point)
    there = surface_of(files)
    ray = rays_of(seen)
    normal = files["normal"].transpose(2, 0, 1) / 127.5 - 1
    cosine = -(normal * ray / np.linalg.norm(ray, axis=0)).sum(0)
    stored = files["reshading"][..., 0] / 255
    assert np.array_equal(files["reshading"][..., 0], files["reshading"][..., 2])
    assert np.abs(stored - cosine.clip(0, 1))[there].max() < 0.012
    assert (stored[~there] == 0).all()
    assert stored[there].mean() > 0.3


def test_curvatures_of_known_surfaces():
    def at(shape: int, half: tuple[float, float, float], *points: tuple[float, float, float]) -> list[list[float]]:
        which = np.zeros(len(points), PRIMITIVE)
        which["shape"], which["half"] = shape, half
        return principal_curvatures(which, np.array(points, np.float32).T).T.round(4).tolist()

    sphere = np.array([1, 2, 2]) / 3 * 0.5
    assert at(ELLIPSOID, (0.5, 0.5, 0.5), (0.5, 0, 0), tuple(sphere)) == [[-2, -2], [-2, -2]]
    # at the end of half axis a: a / b^2 and a / c^2
    assert at(ELLIPSOID, (1, 2, 4), (1, 0, 0)) == [[-1 / 16, -1 / 4]]
    assert at(ELLIPSOID, (1, 2, 4), (0, -2, 0)) == [[-2 / 16, -2]]
    assert at(CYLINDER, (0.2, 1, 0.2), (0.2, 0.3, 0), (0, 0.9, 0.2), (0.1, 1, 0)) == [[0, -5], [0, -5], [0, 0]]
    assert at(CYLINDER, (1, 3, 2), (0, 0, 2)) == [[0, -2]]
    assert at(BOX, (1, 1, 1), (1, 0.2, 0.3)) == [[0, 0]]


@pytest.mark.parametrize("point", ROOMS)
def test_curvature_is_how_normals_turn(point: int):
    """On the vase: the change of the normal per metre along the surface, by differences, is between k2 and k1."""
    seen, files = room(point)
    vase = seen.labels == VASE
    inner = vase.copy()
    for dy, dx in ((0, 2), (0, -2), (2, 0), (-2, 0)):
        inner &= np.roll(vase, (dy, dx), (0, 1))
    facing_us = inner & (-(seen.normals * rays_of(seen)).sum(0) > 0.6)
    assert facing_us.sum() >= 20, "the vase can be seen"
    points = rays_of(seen) * np.where(np.isfinite(seen.depth), seen.depth, 0)
    for axis in (1, 2):
        step = np.roll(points, -1, axis) - np.roll(points, 1, axis)
        turn = np.roll(seen.normals, -1, axis) - np.roll(seen.normals, 1, axis)
        k = -(turn * step).sum(0)[facing_us] / (step**2).sum(0)[facing_us]
        least, most = seen.curvature[1][facing_us], seen.curvature[0][facing_us]
        assert (k > least * 1.1 - 0.1).mean() > 0.95
        assert (k < most * 0.9 + 0.1).mean() > 0.95
    shown = facing_us & surface_of(files)
    decoded = (2 * files["principal_curvature"][..., :2].astype(float) / 254 - 1) / 0.03
    assert np.abs(decoded.transpose(2, 0, 1) - seen.curvature)[:, shown].max() < 0.14
    assert (files["principal_curvature"][..., 2] == 0).all()


@pytest.mark.parametrize("point", ROOMS)
def test_occlusion_edges_are_where_depth_jumps(point: int):
    seen, files = room(point)
    depth = np.minimum(seen.depth, 128)
    jump = np.zeros((SIDE, SIDE))
    for axis in (0, 1):
        step = np.abs(np.diff(depth, axis=axis))
        for side in (slice(None, -1), slice(1, None)):
            where = (side, slice(None)) if axis == 0 else (slice(None), side)
            jump[where] = np.maximum(jump[where], step)
    edges = files["edge_occlusion"].astype(float)
    occluding, interior = jump > 0.5, flat_interior(seen) & (jump < 0.1)
    assert occluding.any()
    assert np.quantile(edges[occluding], 0.1) > 2 * np.quantile(edges[interior], 0.9)
    expected = domains.sobel(np.sqrt(depth / (65535 / 512))) * SIDE / 512 * 65535
    assert np.abs(edges - expected).max() < 1


def test_texture_edges_are_of_the_image_and_not_of_depth():
    seen, files = room(1)  # tiles on the floor of a kitchen
    floor = flat_interior(seen) & (seen.normals[1] < -0.9)
    assert np.quantile(files["edge_texture"][floor], 0.9) > 200
    grey = seen.image.astype(float) @ [0.299, 0.587, 0.114] / 255
    expected = domains.sobel(domains.blur(grey, 3 * SIDE / 512)) * SIDE / 512
    assert np.abs(files["edge_texture"] / 65535 - expected).max() < 1e-5


def test_filters_on_known_images():
    ramp = np.broadcast_to(np.arange(20.0) * 0.01, (20, 20))
    assert np.allclose(domains.sobel(ramp)[:, 1:-1], 0.01 * np.sqrt(2))
    assert np.allclose(domains.gradient(ramp.T)[1][1:-1], 0.01)
    y, x = np.mgrid[-10:11, -10:11] / 10.0
    assert np.allclose(domains.hessian(3 * x**2 + 5 * y**2)[3:-3, 3:-3], 60 * 0.1**4)
    assert (domains.hessian(x**2 - y**2)[3:-3, 3:-3] == 0).all()  # a saddle is no blob
    impulse = np.zeros((41, 41))
    impulse[20, 20] = 1
    blurred = domains.blur(impulse, 2.0)
    assert blurred.sum() == pytest.approx(1)
    assert (blurred * np.arange(-20, 21) ** 2).sum() == pytest.approx(4, rel=0.05)
    turning = np.stack([np.where(x > 0, 1.0, 0), np.where(y > 0, 1.0, 0), 0 * x])
    found = domains.corners(turning, 1.5)
    assert np.unravel_index(found.argmax(), found.shape) in {(10, 10), (10, 11), (11, 10), (11, 11)}
    assert found[10, 2] < 0.05 * found.max()  # an edge turns in one direction


def test_keypoints_of_surfaces_avoid_flat_walls():
    for point in ROOMS:
        seen, files = room(point)
        found = files["keypoints3d"].astype(float)
        wall = flat_interior(seen)
        for _ in range(6):  # away from every edge
            wall[1:-1, 1:-1] &= wall[2:, 1:-1] & wall[:-2, 1:-1] & wall[1:-1, 2:] & wall[1:-1, :-2]
        if wall.any():
            assert np.median(found[wall]) < 0.02 * found.max()
        assert found.max() > 1000
        assert files["keypoints2d"].max() > 50


@pytest.mark.parametrize("point", ROOMS)
def test_semantics_are_of_the_things_that_are_seen(point: int):
    seen, files = room(point)
    semantic = files["segment_semantic"]
    assert set(np.unique(semantic)) <= {0, 1, *domains.CLASSES.values()}
    assert (semantic[~surface_of(files)] == 0).all()
    assert (semantic[seen.labels == OUTSIDE] == 0).all()
    for label, number in domains.CLASSES.items():
        assert set(np.unique(semantic[seen.labels == label])) <= {0, number}
    assert (semantic == 1).mean() > 0.4


def test_scenes_are_probabilities_of_the_room():
    for point in ROOMS:
        seen, files = room(point)
        scene = files["class_scene"]
        assert scene.shape == (values.PLACES,)
        assert scene.sum() == pytest.approx(1, abs=1e-5)
        best = int(scene.argmax())
        if point % 5 == 4:
            assert best not in values.HOME
        else:
            assert best == domains.PLACES[seen.kind]
            assert best in values.HOME
        assert scene[list(values.HOME)].argmax() == values.HOME.index(domains.PLACES[seen.kind])


def test_two_views_of_a_point_show_one_room():
    (first, _), (second, _) = room(3), room(3, 1)
    assert first.kind == second.kind
    assert first.camera != second.camera
    assert first.camera.fx == second.camera.fx
    assert not np.array_equal(first.image, second.image)
    points = rays_of(first) * first.depth
    inside = np.isin(first.labels, (VASE,)) & ~first.hole
    world = first.camera.position()[:, None] + first.camera.rotation() @ points[:, inside]
    u, v, _ = second.camera.project(world.T)
    at = np.rint(v).astype(int).clip(0, SIDE - 1), np.rint(u).astype(int).clip(0, SIDE - 1)
    assert (second.labels[at] == VASE).mean() > 0.6  # the vase is in the same place


# the files


def write(folder: Path, **options) -> synthetic.Taskonomy:
    options = {"size": 64, "train": 8, "val": 4, "test": 4, "layout": "omnidata", "broken": False, "seed": 0} | options
    source = synthetic.Taskonomy(**options)
    for item in source.items():
        source.write(folder / "taskonomy", *item)
    return source


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write(folder)
    return folder


def load(folder: Path, **options) -> Taskonomy:
    return Taskonomy(folder, 0, Augmentation(), Losses(), **options)


def every(folder: Path, domain: str) -> ndarray:
    paths = sorted((folder / "taskonomy" / domain).rglob("*.png"))
    return np.stack([np.asarray(PIL.Image.open(path)) for path in paths])


def test_what_the_writer_writes_is_what_the_loader_reads(written: Path):
    data = load(written)
    assert [len(data.split(part)) for part in ("train", "val", "test")] == [8, 4, 4]
    assert {frame.building for frame in data.split("train").frames} == {"hanson", "merom"}
    for part in ("train", "val", "test"):
        for i in range(len(data.split(part))):
            _, found = data.split(part)[(0, i)]
            assert set(found) == set(values.DOMAINS)
            for task in values.CHANNELS:
                assert found[task].isfinite().float().mean() > 0.5, task
                assert found[task][~found[task].isnan()].std() > 0
    assert facing(sorted((written / "taskonomy/normal").rglob("*.png"))) == "low"


def test_it_holds_what_real_files_hold(written: Path):
    """Bit depths, values that mean nothing, values on both sides of every published bound, oddities of names."""
    top = written / "taskonomy"
    z = every(written, "depth_zbuffer").astype(int)
    assert ((z == 65535).mean((1, 2)) >= 0.1).all()
    assert ((z >= 64500) & (z < 65535)).any()
    assert ((z > 8192) & (z < 64500)).any()
    assert (z < 8192).mean() > 0.5
    grey = every(written, "normal")[z == 65535]
    assert set(np.unique(grey)) == {127, 128}
    assert (np.ptp(grey, axis=1) == 0).all()
    assert (every(written, "principal_curvature")[z == 65535] == (127, 127, 0)).all()
    assert {0, 1, 17} <= set(np.unique(every(written, "segment_semantic")))
    best = [np.load(path).argmax() for path in sorted((top / "class_scene").rglob("*.npy"))]
    assert 0 < sum(i not in values.HOME for i in best) < len(best)
    assert list((top / "segment_semantic").rglob("*_domain_segmentsemantic.png"))
    assert list((top / "class_scene").rglob("*_domain_class_places.npy"))
    split = (top / "train_val_test_tiny.csv").read_bytes()
    assert b"\r" in split
    assert b"\n" not in split
    for domain in values.DOMAINS.values():
        if domain.bits:
            with PIL.Image.open(next((top / domain.name).rglob("*.png"))) as image:
                assert (image.mode.startswith("I"), image.mode == "RGB") == (domain.bits == 16, domain.channels == 3)
    camera = json.loads(next((top / "point_info").rglob("*_domain_point_info.json")).read_text())
    assert 0.9 < camera["field_of_view_rads"] < 1.35
    assert camera["resolution"] == 64


def test_an_image_of_the_real_size(tmp_path: Path):
    """512 x 512, and in the ranges that are published of a real building, where the scene does not decide them."""
    write(tmp_path, size=512, train=1, val=0, test=0)
    assert every(tmp_path, "rgb").shape == (1, 512, 512, 3)
    z = every(tmp_path, "depth_zbuffer").astype(int)
    assert 324 <= z.min() < 2000
    assert 0.1 < (z == 65535).mean() < 0.2
    assert 100 < every(tmp_path, "edge_texture").mean() < 2000
    assert every(tmp_path, "edge_texture").max() < 10_000
    assert every(tmp_path, "normal")[..., 2][z < 65535].mean() < 127.5  # what faces the viewer has little blue
    assert every(tmp_path, "principal_curvature").max() <= 254
    data = load(tmp_path, tasks=["normals"], size=[256, 256])
    assert data.split("val") is data.split("test") is None
    normals = data.split("train")[(0, 0)][1]["normals"]
    lengths = normals.norm(dim=0)
    assert (lengths[~lengths.isnan()] - 1).abs().max() < 1e-5


@pytest.mark.parametrize("layout", ["original", "standley"])
def test_other_layouts_hold_the_same(written: Path, tmp_path: Path, layout: str):
    write(tmp_path, layout=layout, train=4, val=1, test=1)
    data = load(tmp_path)
    assert data.parts.tree.layout == layout
    first, other = data.split("val")[(0, 0)], load(written).split("val")
    same = [other[(0, i)] for i, frame in enumerate(other.frames) if frame == data.split("val").frames[0]]
    assert torch.equal(first[0], same[0][0])
    assert all(torch.equal(first[1][task].nan_to_num(), same[0][1][task].nan_to_num()) for task in data.tasks)


def test_the_counts_change_no_image(written: Path, tmp_path: Path):
    write(tmp_path, train=2, val=0, test=0)
    for path in (tmp_path / "taskonomy").rglob("*.png"):
        assert path.read_bytes() == (written / path.relative_to(tmp_path)).read_bytes()


def test_broken_as_the_real_data_is(tmp_path: Path):
    write(tmp_path, size=32, broken=True)
    with pytest.raises(ValueError, match=r"woodbine.*(?s:.)*missing_buildings=skip"):
        load(tmp_path)
    with pytest.raises(
        ValueError, match=r"merom/point_7_view_0_domain_reshading\.png is missing.*(?s:.)*broken_files=skip"
    ):
        load(tmp_path, missing_buildings="skip")
    with pytest.warns(UserWarning, match="left out"):
        data = load(tmp_path, missing_buildings="skip", broken_files="skip")
    assert data.left_out == {
        "buildings": ["woodbine"],
        "train": {"labels of reshading": 1},
        "val": {"labels of edge_2d": 1},
    }
    for part in ("train", "val"):
        for i in range(len(data.split(part))):
            assert data.split(part)[(0, i)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 16}, r"dataset\.size: .*at least 32, found 16"),
        ({"train": 0}, r"dataset\.train"),
        ({"val": -1}, r"dataset\.val"),
        ({"layout": "flat"}, r"dataset\.layout=flat: omnidata, original, standley"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, options: dict, said: str):
    with pytest.raises(ValueError, match=said):
        write(tmp_path, **options)


@pytest.mark.slow
def test_synthesize_and_two_epochs_of_three_methods(tmp_path: Path):
    """As typed: written, trained on, recorded; and with a damaged set, which the record tells of."""
    words = ["dataset=taskonomy", "dataset.size=32", "dataset.train=4", "dataset.val=2", "dataset.test=2"]
    command = [sys.executable, "-m", "mtlbench.synthesize", *words, "processes=1", f"machine.data={tmp_path / 'data'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "wrote 8 synthetic images" in done.stdout
    small = ["dataset.size=[32,32]", "batch_size=2", "epochs=2", "backbone=resnet18_short", "optimizer=adam"]
    small += [
        "optimizer.lr=1e-3",
        "head.hidden=8",
        f"machine.data={tmp_path / 'data'}",
        f"machine.runs={tmp_path}/runs",
    ]
    for method in ("imtl", "uncertainty", "pcgrad"):
        state = train(*config.load_run(["dataset=taskonomy_8tasks", f"method={method}", *small]))
        assert state == "done"
    broken = [*words, "dataset.broken=true", "overwrite=true", "processes=1", f"machine.data={tmp_path / 'data'}"]
    synthesize.synthesize(config.load(synthesize.translate(broken), name="synthesize"))
    skip = ["dataset.missing_buildings=skip", "dataset.broken_files=skip"]
    with pytest.warns(UserWarning, match="left out"):
        assert train(*config.load_run(["dataset=taskonomy", "method=equal", *small, *skip])) == "done"
    records = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/record.json")]
    assert len(records) == 4
    assert all(record["synthetic"] and record["fingerprint"].startswith("synthetic taskonomy") for record in records)
    assert all(np.isfinite(list(record["last"].values())).all() for record in records)
    left_out = {record["method"]: record["left_out"] for record in records}
    assert left_out.pop("equal") == {"buildings": ["woodbine"], "train": {"labels of reshading": 1}}
    assert left_out == {"imtl": {}, "uncertainty": {}, "pcgrad": {}}
