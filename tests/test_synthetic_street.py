"""Synthetic street scenes: rays, geometry, the format of every file, and the command that writes them."""

import filecmp
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mtlbench import config, synthesize
from mtlbench.synthetic import cityscapes, raycast
from mtlbench.synthetic.ids import COLOURS, Id
from mtlbench.synthetic.layout import FULL_CAMERA, street
from mtlbench.synthetic.raycast import BOX, CARD, CYLINDER, ELLIPSOID, PATCH, PRIMITIVE, Camera, cast, surface
from mtlbench.synthetic.street import number_instances, render, view

HEIGHT, WIDTH, TRAIN, VAL = 64, 128, 18, 4
TRAINED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CAMERA = Camera(fx=100, fy=100, u0=20, v0=15, y=0)


def primitive(shape, centre, half, heading=0.0, label=Id.BUILDING):
    return (shape, 0, label, -1, heading, centre, half, (0.5, 0.5, 0.5))


def shot(*primitives, camera=CAMERA, height=31, width=41):
    scene = np.array(list(primitives), PRIMITIVE)
    hits = cast(scene, camera, height, width)
    normals = np.zeros((3, height, width))
    normals[:, hits.primitive >= 0] = surface(scene, hits, camera, camera.rays(height, width))[2]
    return hits, normals


@pytest.fixture(scope="module")
def source():
    return cityscapes.Cityscapes(height=HEIGHT, width=WIDTH, train=TRAIN, val=VAL, seed=3)


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("streets")
    for item in source.items():
        source.write(folder, *item)
    return folder


def read(folder, split, index, kind, suffix):
    path = cityscapes.path_of(folder, split, index, kind, suffix)
    return json.loads(path.read_text()) if suffix.endswith("json") else np.array(Image.open(path))


def labels_of(folder, split, index):
    return read(folder, split, index, "gtFine", "gtFine_labelIds.png")


def instances_of(folder, split, index):
    return read(folder, split, index, "gtFine", "gtFine_instanceIds.png").astype(int)


def disparity_of(folder, split, index):
    return read(folder, split, index, "disparity", "disparity.png").astype(int)


# -- rays and primitives


def test_depth_is_along_the_optical_axis_on_a_plane_that_faces_the_camera():
    hits, normals = shot(primitive(CARD, (0, 0, 8), (50, 50, 0.01)))
    assert np.allclose(hits.depth, 8)
    assert np.allclose(normals, np.array([0, 0, -1])[:, None, None])


@pytest.mark.parametrize("shape", [BOX, ELLIPSOID, CYLINDER])
def test_solids_are_met_at_their_front(shape):
    hits, normals = shot(primitive(shape, (0, 0, 10), (1, 1, 2)))
    assert hits.depth[15, 20] == pytest.approx(8, rel=1e-5)
    assert np.allclose(normals[:, 15, 20], (0, 0, -1), atol=1e-5)


def test_a_box_turned_by_a_quarter_is_as_deep_as_it_was_wide():
    hits, _ = shot(primitive(BOX, (0, 0, 10), (3, 1, 1), heading=np.pi / 2))
    assert hits.depth[15, 20] == pytest.approx(7, rel=1e-5)
    assert (hits.depth[15] < np.inf).sum() == 2 * int(100 / 7) + 1


def test_heading_turns_to_the_right():
    hits, _ = shot(primitive(BOX, (0, 0, 10), (0.1, 1, 1.5), heading=np.pi / 4))
    left, right = hits.depth[15, :20], hits.depth[15, 21:]
    assert right[np.isfinite(right)].max() > left[np.isfinite(left)].max()


def test_an_ellipsoids_normals_are_its_gradient():
    centre, half = np.array([0.3, -0.2, 9]), np.array([1.2, 0.7, 2])
    hits, normals = shot(primitive(ELLIPSOID, centre, half))
    seen = np.isfinite(hits.depth)
    points = CAMERA.rays(31, 41)[:, seen] * hits.depth[seen] - centre[:, None]
    assert np.allclose(((points / half[:, None]) ** 2).sum(0), 1, atol=1e-4)
    expected = points / half[:, None] ** 2
    assert np.allclose(normals[:, seen], expected / np.linalg.norm(expected, axis=0), atol=1e-3)


def test_a_cylinders_lid_is_seen_from_above():
    camera = replace(CAMERA, y=5.0, pitch=np.pi / 2 - 0.2)
    hits, normals = shot(primitive(CYLINDER, (0, 1, 1), (0.5, 1, 0.5)), camera=camera)
    lid = normals[1] > 0.99
    assert lid.any()
    height = camera.y + (camera.rays(31, 41)[1] * np.where(np.isfinite(hits.depth), hits.depth, 0))[lid]
    assert np.allclose(height, 2, atol=1e-4)


def test_the_nearer_wins_and_of_patches_the_later():
    wall, pole = primitive(BOX, (0, 0, 20), (9, 9, 1)), primitive(CYLINDER, (0, 0, 9), (0.3, 9, 0.3))
    for order in ((wall, pole), (pole, wall)):
        hits, _ = shot(*order)
        assert hits.primitive[15, 20] == order.index(pole)
        assert hits.primitive[15, 0] == order.index(wall)
    ground = [primitive(PATCH, (0, -1, 0), (99, 0, 99)), primitive(PATCH, (0, -1, 0), (0.3, 0, 99))]
    hits, _ = shot(*ground)
    assert hits.primitive[30, 20] == 1
    assert hits.primitive[30, 0] == 0
    assert hits.primitive[0, 20] == -1


def test_nothing_behind_the_camera_is_seen():
    hits, _ = shot(primitive(BOX, (0, 0, -5), (1, 1, 1)), primitive(ELLIPSOID, (0, 0, -5), (1, 1, 1)))
    assert (hits.primitive == -1).all()
    assert np.isinf(hits.depth).all()


numbers = st.floats(-4, 4)
sizes = st.floats(0.125, 3)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.sampled_from([BOX, ELLIPSOID, CYLINDER, CARD, PATCH]),
    st.tuples(numbers, numbers, st.floats(-2, 15)),
    st.tuples(sizes, sizes, sizes),
    numbers,
    st.tuples(*[st.floats(-0.6, 0.6)] * 3),
)
def test_the_window_of_a_primitive_leaves_nothing_out(shape, centre, half, heading, pose):
    yaw, pitch, roll = pose
    camera = replace(CAMERA, yaw=yaw, pitch=pitch, roll=roll)
    one = np.array([primitive(shape, centre, half, heading)], PRIMITIVE)
    everywhere = (slice(0, 31), slice(0, 41))
    windowed = cast(one, camera, 31, 41)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raycast, "_window", lambda *_: everywhere)
        whole = cast(one, camera, 31, 41)
    assert np.array_equal(windowed.depth, whole.depth)


def test_projecting_a_ray_gives_its_pixel_back():
    camera = replace(CAMERA, x=1.0, y=2.0, z=-3.0, yaw=0.3, pitch=-0.2, roll=0.4, mirror=True)
    points = camera.position()[:, None, None] + 7 * camera.rays(31, 41)
    u, v, depth = camera.project(np.moveaxis(points, 0, -1))
    assert np.allclose(u, np.arange(41)[None], atol=1e-3)
    assert np.allclose(v, np.arange(31)[:, None], atol=1e-3)
    assert np.allclose(depth, 7, atol=1e-5)


# -- transformed cameras: what label transforms are compared with


def test_the_mirrored_scene_is_the_flipped_view():
    plain, flipped = (render(5, 2, 64, 128, change) for change in (lambda c: c, lambda c: c.mirrored(128)))
    same = plain.labels[:, ::-1] == flipped.labels
    assert same.mean() > 0.998
    known = same & np.isfinite(flipped.depth)
    near = np.isclose(plain.depth[:, ::-1][known], flipped.depth[known], rtol=1e-3)
    assert near.mean() > 0.998
    turned = plain.normals[:, :, ::-1] * np.array([-1, 1, 1])[:, None, None]
    assert (np.abs(turned - flipped.normals).max(0) < 1e-2).mean() > 0.99
    assert (plain.instances[:, ::-1] == flipped.instances).mean() > 0.99
    assert (plain.labels != flipped.labels).mean() > 0.05
    colours = [x.astype(int) for x in (plain.image, flipped.image)]
    assert np.abs(colours[0][:, ::-1] - colours[1]).mean() < 0.5 * np.abs(colours[0] - colours[1]).mean()


def test_a_longer_focal_length_enlarges_about_the_centre_and_keeps_the_depth():
    plain = render(5, 2, 65, 129)
    zoomed = render(5, 2, 65, 129, lambda c: c.zoomed(2.0, 65, 129))
    inner = (slice(16, 49), slice(32, 97))
    assert (plain.labels[inner] == zoomed.labels[::2, ::2]).mean() > 0.998
    same = plain.labels[inner] == zoomed.labels[::2, ::2]
    assert np.isclose(plain.depth[inner], zoomed.depth[::2, ::2], rtol=1e-3)[same].mean() > 0.998
    assert (plain.labels != zoomed.labels).mean() > 0.05


def test_a_rolled_camera_turns_the_view_counter_clockwise():
    def centred(camera):
        return replace(camera, fy=camera.fx, u0=32.0, v0=32.0)

    plain = render(5, 2, 65, 65, centred)
    rolled = render(5, 2, 65, 65, lambda c: centred(c).rolled(np.pi / 2))
    same = np.rot90(plain.labels) == rolled.labels
    assert same.mean() > 0.998
    assert np.isclose(np.rot90(plain.depth), rolled.depth, rtol=1e-3)[same].mean() > 0.998


def test_a_larger_image_shows_the_same_scene():
    small, large = render(5, 2, 64, 128), render(5, 2, 192, 384)
    assert (small.labels == large.labels[1::3, 1::3]).mean() > 0.995
    assert large.camera.fx == pytest.approx(FULL_CAMERA.fx * 384 / 2048)


def test_views_have_their_types():
    seen = render(0, 0, 40, 80)
    assert seen.image.shape == (40, 80, 3)
    assert (seen.image.dtype, seen.labels.dtype, seen.depth.dtype) == (np.uint8, np.uint8, np.float32)
    assert np.array_equal(np.isinf(seen.depth), seen.labels == Id.SKY)
    assert np.allclose(np.linalg.norm(seen.normals, axis=0)[seen.labels != Id.SKY], 1, atol=1e-4)
    rays = (
        np.stack(np.meshgrid(np.arange(80), np.arange(40))) - np.array([seen.camera.u0, seen.camera.v0])[:, None, None]
    )
    towards = (seen.normals[:2] * rays / np.array([seen.camera.fx, seen.camera.fy])[:, None, None]).sum(
        0
    ) + seen.normals[2]
    assert (towards <= 1e-3).all()


def test_instances_are_numbered_in_each_class():
    labels = np.array([[24, 24, 26, 26, 7], [24, 33, 26, 26, 24]], np.uint8)
    owner = np.array([[5, 9, 2, -1, -1], [5, 7, 30, 30, -1]], np.int32)
    expected = [[24000, 24001, 26000, 26, 7], [24000, 33000, 26001, 26001, 24]]
    assert number_instances(labels, owner).tolist() == expected
    assert number_instances(labels, np.full_like(owner, -1)).tolist() == labels.tolist()


# -- the files


def test_files_have_cityscapes_names_and_types(folder, source):
    stems = {}
    for split, index in source.items():
        image = cityscapes.path_of(folder, split, index, "leftImg8bit", "leftImg8bit.png")
        city, sequence, frame, _ = image.stem.split("_")
        assert image.relative_to(folder).parts[:3] == ("leftImg8bit", split, city)
        assert len(sequence) == len(frame) == 6
        stems.setdefault((split, city), []).append((sequence, frame))
        for kind, suffix, mode, dtype, bands in (
            ("leftImg8bit", "leftImg8bit.png", "RGB", np.uint8, (3,)),
            ("gtFine", "gtFine_labelIds.png", "L", np.uint8, ()),
            ("gtFine", "gtFine_instanceIds.png", "I;16", np.uint16, ()),
            ("gtFine", "gtFine_color.png", "RGBA", np.uint8, (4,)),
            ("disparity", "disparity.png", "I;16", np.uint16, ()),
        ):
            with Image.open(cityscapes.path_of(folder, split, index, kind, suffix)) as opened:
                assert opened.format == "PNG"
                assert opened.mode == mode
                found = np.array(opened)
            assert found.dtype == dtype
            assert found.shape == (HEIGHT, WIDTH, *bands)
    assert {city for split, city in stems if split == "train"} == {"aachen", "bremen", "ulm"}
    assert {city for split, city in stems if split == "val"} == {"frankfurt"}
    for names in stems.values():
        assert len(set(names)) == len(names)
    frames = [int(frame) for _, frame in sorted(stems["train", "ulm"])]
    assert frames != sorted(frames)
    assert min(np.diff(sorted(frames))) > 1
    assert len(list(folder.rglob("*.*"))) == 7 * (TRAIN + VAL)
    assert source.images(folder) == [
        cityscapes.path_of(folder, *item, "leftImg8bit", "leftImg8bit.png") for item in source.items()
    ]


def test_colours_and_names_are_cityscapes():
    assert len(COLOURS) == len(Id) == 34
    assert COLOURS[Id.ROAD] == (128, 64, 128)
    assert COLOURS[Id.BICYCLE] == (119, 11, 32)
    assert (Id.TRAFFIC_LIGHT, Id.TRAIN, Id.BICYCLE) == (19, 31, 33)
    assert str(Id.TRAFFIC_SIGN) == "traffic sign"


def test_colour_and_instance_files_follow_the_labels(folder, source):
    for split, index in source.items():
        labels, instances = labels_of(folder, split, index), instances_of(folder, split, index)
        own = instances >= 1000
        assert np.array_equal(np.where(own, instances // 1000, instances), labels)
        assert (instances[own] >= 24000).all()
        for label in np.unique(labels[own]):
            numbered = np.unique(instances[own & (labels == label)]) % 1000
            assert numbered.tolist() == list(range(len(numbered)))
        colour = read(folder, split, index, "gtFine", "gtFine_color.png")
        assert np.array_equal(colour[..., :3], np.array(COLOURS, np.uint8)[labels])
        assert (colour[..., 3] == 255).all()


def test_polygon_files_hold_the_bounds_of_every_region(folder, source):
    for split, index in source.items():
        instances = instances_of(folder, split, index)
        found = read(folder, split, index, "gtFine", "gtFine_polygons.json")
        assert (found["imgHeight"], found["imgWidth"]) == (HEIGHT, WIDTH)
        values = np.unique(instances)
        assert len(found["objects"]) == len(values)
        for value, thing in zip(values, found["objects"], strict=True):
            rows, columns = np.nonzero(instances == value)
            corners = np.array(thing["polygon"])
            assert corners.min(0).tolist() == [columns.min(), rows.min()]
            assert corners.max(0).tolist() == [columns.max(), rows.max()]
            assert thing["label"].endswith("group") == (24 <= value < 1000 or value == Id.POLEGROUP)


def test_disparity_is_the_true_depth_through_the_camera_file(folder, source):
    for split, index in source.items():
        camera = read(folder, split, index, "camera", "camera.json")
        stored, labels = disparity_of(folder, split, index), labels_of(folder, split, index)
        depth = render(source.seed, index, HEIGHT, WIDTH, split=split).depth
        fx, baseline = camera["intrinsic"]["fx"], camera["extrinsic"]["baseline"]
        assert fx == pytest.approx(2262.52 * WIDTH / 2048)
        known = (stored > 0) & (labels != Id.EGO_VEHICLE)
        error = np.abs((stored - 1) / 256 - baseline * fx / depth)[known]
        speck = 0.021 * baseline * fx / depth[known]  # the person of one pixel stands 2 % nearer
        assert (error > 1 / 500).sum() <= 1
        assert (error < 1 / 500 + speck).all()


def test_road_disparity_is_linear_in_the_row_as_pitch_and_height_say(folder, source):
    for split, index in source.items():
        camera = read(folder, split, index, "camera", "camera.json")
        inside, outside = camera["intrinsic"], camera["extrinsic"]
        stored = disparity_of(folder, split, index)
        rows, columns = np.nonzero((labels_of(folder, split, index) == Id.ROAD) & (stored > 0))
        assert len(rows) > 100
        down = np.cos(outside["pitch"]) * (rows - inside["v0"]) / inside["fy"] + np.sin(outside["pitch"])
        expected = outside["baseline"] * inside["fx"] * down / outside["z"]
        assert np.abs((stored[rows, columns] - 1) / 256 - expected).max() < 0.01
        assert outside["roll"] == 0


def test_a_tenth_of_the_disparity_at_least_is_invalid(folder, source):
    shares = [(disparity_of(folder, *item) == 0).mean() for item in source.items()]
    assert min(shares) >= 0.1
    assert max(shares) < 0.6
    largest = max(disparity_of(folder, *item).max() for item in source.items())
    assert largest == 32257
    for item in source.items():
        stored, labels = disparity_of(folder, *item), labels_of(folder, *item)
        assert ((stored == 1) <= (labels == Id.SKY)).all()
        assert (stored[(labels == Id.RECTIFICATION_BORDER) | (labels == Id.OUT_OF_ROI)] == 0).all()
        assert ((stored > 0) & (labels == Id.EGO_VEHICLE)).sum() <= 3
    assert sum((disparity_of(folder, *item) == 1).any() for item in source.items()) > 5


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.lists(st.sampled_from([0.0, 0.5, 1, 2, 3.25, 6]), min_size=3, max_size=16))
def test_occlusion_is_what_the_right_camera_does_not_see(row):
    disparity = np.array([row], np.float32)
    places = [u - d for u, d in enumerate(row)]
    expected = [p < 0 or any(q <= p for q in places[u + 1 :]) for u, p in enumerate(places)]
    assert cityscapes.occluded(disparity)[0].tolist() == expected


def test_the_band_left_of_a_near_thing_is_occluded():
    disparity = np.full((1, 30), 2.0, np.float32)
    disparity[0, 15:20] = 6
    hidden = np.nonzero(cityscapes.occluded(disparity)[0])[0]
    assert hidden.tolist() == [0, 1, 11, 12, 13, 14]


def test_what_real_data_has_is_there(folder, source):
    items = {split: [i for s, i in source.items() if s == split] for split in ("train", "val")}
    found = {split: set() for split in items}
    for split, index in source.items():
        found[split] |= set(np.unique(labels_of(folder, split, index)).tolist())
    assert found["train"] >= {0, 1, 2, 3, 4, 5, 6, 9, 10, *TRAINED}
    assert Id.TRAIN not in found["val"]
    instances = {item: instances_of(folder, *item) for item in source.items()}
    counts = {
        item: dict(zip(*np.unique(x[x >= 1000], return_counts=True), strict=True)) for item, x in instances.items()
    }
    assert not counts["train", 1]
    assert not counts["val", 1]
    assert sum(not c for c in counts.values()) <= 4
    everything = {int(v) for x in instances.values() for v in np.unique(x)}
    assert everything >= {26000, 26001, 33000, 24, 26}
    assert any(1 in c.values() for c in counts.values())
    touching = border = False
    for x in instances.values():
        beside = (x[:, 1:] != x[:, :-1]) & (x[:, 1:] // 1000 == 26) & (x[:, :-1] // 1000 == 26)
        touching |= bool(beside.any())
        border |= bool((x[:, [0, -1]] >= 1000).any())
    assert touching
    assert border


def test_covered_pixels_are_the_bonnet_and_the_border(folder, source):
    for item in source.items():
        labels = labels_of(folder, *item)
        assert (labels[-1] == Id.OUT_OF_ROI).all()
        assert (labels[: HEIGHT * 3 // 4] != Id.EGO_VEHICLE).all()
        assert (labels == Id.EGO_VEHICLE).any()
        image = read(folder, *item, "leftImg8bit", "leftImg8bit.png")
        assert image[labels == Id.OUT_OF_ROI].max() == 0
        assert image.std() > 15


def test_scenes_differ_so_that_a_prediction_without_the_image_is_poor(folder, source):
    labels = np.stack([labels_of(folder, *item) for item in source.items()])
    votes = np.stack([(labels == k).sum(0) for k in TRAINED])
    common = np.array(TRAINED)[votes.argmax(0)]
    ious = []
    for k in TRAINED:
        union = ((labels == k) | ((common == k) & np.isin(labels, TRAINED))).sum()
        ious.append(((labels == k) & (common == k)).sum() / union)
    assert np.mean(ious) < 0.2
    stored = np.stack([disparity_of(folder, *item) for item in source.items()])
    often = (stored > 0).sum(0) > 3
    disparity = np.where(stored > 0, (stored - 1) / 256, np.nan)[:, often]
    error = np.nanmean(np.abs(disparity - np.nanmedian(disparity, axis=0)))
    assert error > 0.2 * np.nanmean(disparity)


# -- reproducible


def digest(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_seed_gives_the_same_bytes_whatever_the_counts(folder, source, tmp_path):
    other = replace(source, train=5, val=1)
    for item in other.items():
        other.write(tmp_path, *item)
    again = digest(tmp_path)
    assert len(again) == 7 * 6
    for name in again:
        assert filecmp.cmp(folder / name, tmp_path / name, shallow=False), name


def test_seed_split_and_index_change_the_scene():
    scenes = [
        render(*key, 24, 48, split=split).image
        for *key, split in ((0, 0, "train"), (1, 0, "train"), (0, 2, "train"), (0, 0, "val"))
    ]
    assert all((a != b).mean() > 0.5 for i, a in enumerate(scenes) for b in scenes[:i])
    assert np.array_equal(street(0, "train", 4).primitives, street(0, "train", 4).primitives)
    assert np.array_equal(scenes[0], view(street(0, "train", 0), street(0, "train", 0).camera(24, 48), 24, 48).image)


# -- the command


def command(folder, *words):
    return synthesize.synthesize(
        config.load(
            synthesize.translate(
                [
                    "dataset=cityscapes",
                    f"machine.data={folder}",
                    "dataset.height=32",
                    "dataset.width=64",
                    "dataset.train=3",
                    "dataset.val=1",
                    "processes=1",
                    *words,
                ]
            ),
            "synthesize",
        )
    )


def test_the_command_writes_marks_and_says_that_it_is_there(tmp_path, capsys):
    command(tmp_path / "data")
    assert "wrote 4 synthetic images" in capsys.readouterr().out
    root = tmp_path / "data" / "cityscapes"
    found = json.loads((root / synthesize.MARKER).read_text())
    assert found["synthetic"] is True
    assert found["seed"] == 0
    assert found["options"] == {"height": 32, "width": 64, "train": 3, "val": 1}
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["cityscapes"]
    before = digest(root)
    times = {p: p.stat().st_mtime_ns for p in root.rglob("*")}
    command(tmp_path / "data")
    assert "are there already" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*")} == times
    with pytest.raises(ValueError, match=r"made otherwise \(different: seed, train\).*overwrite=true"):
        command(tmp_path / "data", "seed=1", "dataset.train=4")
    assert digest(root) == before
    command(tmp_path / "data", "seed=1", "overwrite=true")
    assert json.loads((root / synthesize.MARKER).read_text())["seed"] == 1
    assert digest(root) != before
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["cityscapes"]
    next(root.rglob("*_leftImg8bit.png")).unlink()
    with pytest.raises(ValueError, match="lacks 1 of its images"):
        command(tmp_path / "data", "seed=1")


def test_real_data_is_left_alone_whatever_is_said(tmp_path):
    real = tmp_path / "cityscapes" / "leftImg8bit"
    real.mkdir(parents=True)
    (real / "real.png").write_bytes(b"real")
    for words in ((), ("overwrite=true",)):
        with pytest.raises(ValueError, match=r"may be real: it is left alone"):
            command(tmp_path, *words)
    assert digest(tmp_path) == {"cityscapes/leftImg8bit/real.png": b"real"}
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "cityscapes").write_text("")
    with pytest.raises(ValueError, match="not a folder"):
        command(tmp_path / "file")


@pytest.mark.parametrize("there", [False, True])
def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch, there):
    if there:
        command(tmp_path)
    before = digest(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cityscapes.Cityscapes, "write", full)
    with pytest.raises(ValueError, match=r"cannot write .*No space left on device.*machine.data="):
        command(tmp_path, "seed=5", "overwrite=true")
    assert digest(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == (["cityscapes"] if there else [])


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "cityscapes").mkdir()
    command(tmp_path)
    assert (tmp_path / "cityscapes" / synthesize.MARKER).is_file()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "dataset=cityscape",
            r"dataset=cityscape: there is no synthetic dataset.*Did you mean cityscapes\?.*There are:",
        ),
        ("dataset=multidigits", r"There are: .*cityscapes"),
        ("dataset.heigth=32", r"dataset.heigth.*Did you mean height\?"),
        ("sead=1", r"sead.*Did you mean seed\?"),
        ("dataset.height=3", r"dataset.height: expected a whole number of at least 32, found 3"),
        ("dataset.train=0", r"dataset.train: expected a whole number of at least 1, found 0"),
        ("dataset.width=65.5", r"dataset.width: expected a whole number"),
        ("processes=-1", r"processes=-1: expected 1 or more"),
        ("+dataset.colour=1", r"keys are not added"),
    ],
)
def test_mistakes_get_a_sentence_that_says_what_exists(tmp_path, word, message):
    with pytest.raises(ValueError, match=message):
        command(tmp_path, word)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_number_of_processes_changes_no_byte(tmp_path):
    words = ["dataset.height=32", "dataset.width=64", "dataset.train=5", "dataset.val=2"]
    for processes in (1, 3):
        subprocess.run(
            [
                *(sys.executable, "-m", "mtlbench.synthesize", "dataset=cityscapes", *words),
                *(f"processes={processes}", f"machine.data={tmp_path / str(processes)}"),
            ],
            check=True,
        )
    assert digest(tmp_path / "1") == digest(tmp_path / "3")
    assert len(digest(tmp_path / "1")) == 7 * 7 + 1


@pytest.mark.slow
def test_the_commands_flags_and_errors(tmp_path):
    def run(*words):
        call = [sys.executable, "-m", "mtlbench.synthesize", *words]
        return subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, check=False)

    helped = run("--help")
    assert helped.returncode == 0
    assert "dataset.height" in helped.stdout
    shown = run("dataset=cityscapes", "dataset.train=7", "--cfg", "job")
    assert "train: 7" in shown.stdout
    wrong = run("dataset=nyu")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("dataset=nyu: there is no synthetic dataset")
    assert "Traceback" not in wrong.stderr
    assert not list(tmp_path.iterdir())
