"""NYUv2's own files, as the synthetic writer makes them: every variable, the loader, and what is wrong with files."""

import hashlib
import os
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import PIL.Image
import pytest
import torch
from scipy.io import loadmat, savemat

from mtlbench import config, synthesize
from mtlbench.datasets import nyuv2_normals
from mtlbench.datasets.measures import Measures
from mtlbench.datasets.nyuv2 import NYUv2
from mtlbench.datasets.nyuv2_classes import (
    CLASSES,
    LIBMTL_VALIDATION,
    NAMES_13,
    mapping_13,
    mapping_40,
    numbers,
    official_split,
    targets,
)
from mtlbench.datasets.nyuv2_files import FILE
from mtlbench.sliding import Sliding
from mtlbench.synthetic import nyuv2 as synthetic
from mtlbench.synthetic.indoor import room, view
from mtlbench.task import IGNORE
from mtlbench.transforms import Augmentation

HEIGHT, WIDTH, TRAIN, TEST = 48, 64, 6, 2
SOURCE = synthetic.NYUv2(HEIGHT, WIDTH, TRAIN, TEST, archive=True, seed=5)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder that holds nyuv2/."""
    folder = tmp_path_factory.mktemp("rooms")
    (folder / "nyuv2").mkdir()
    for item in SOURCE.items():
        SOURCE.write(folder / "nyuv2", *item)
    SOURCE.finish(folder / "nyuv2")
    return folder


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    shutil.copytree(written / "nyuv2", tmp_path / "nyuv2")
    return tmp_path


def build(folder: Path, **options) -> NYUv2:
    measures = options.pop("measures", Measures())
    return NYUv2(folder, 0, options.pop("augmentation", Augmentation()), Sliding(), measures, **options)


def md5(values) -> str:
    return hashlib.md5(",".join(map(str, values)).encode()).hexdigest()


# -- the tables


def test_mappings_and_lists_are_the_official_ones():
    assert md5(mapping_40()) == "0e07198087c2457378083ee10f948830"
    train, test = official_split(1449)
    assert md5(i + 1 for i in test) == "1a1549269a009d89f8fe9254940c5d3a"
    assert md5(i + 1 for i in train) == "88b97df0fb6e4eee2477eb6229503c8f"
    assert (len(train), len(test)) == (795, 654)
    held = numbers(LIBMTL_VALIDATION)
    assert md5(held) == "e6d3358f76046e9b4cd2aca84ba2e859"
    assert (len(held), len(set(held)), min(held), max(held)) == (159, 159, 3, 791)
    assert len(CLASSES) == len(mapping_13()) == 40
    assert set(mapping_13()) == set(range(1, 14))


def test_classes_of_known_labels():
    label = {"wall": 21, "bed": 157, "dishwasher": 8, "garbage bin": 12, "bottle": 2, "window": 59}
    of_40, of_13, of_41 = (targets(n, mapping_40(), mapping_13()) for n in (40, 13, 41))
    names = ("wall", "bed", "dishwasher", "garbage bin", "bottle")
    assert [of_40[label[name]] for name in names] == [0, 3, 37, 38, 39]
    names = ("wall", "bed", "dishwasher", "garbage bin", "window")
    assert [NAMES_13[of_13[label[name]]] for name in names] == ["wall", "bed", "objects", "furniture", "window"]
    assert (of_13[0], of_40[0], of_41[0], of_41[21]) == (IGNORE, IGNORE, 0, 1)  # no label is not class 0
    assert set(of_13[1:]) == set(range(13))


# -- the files


def test_variables_have_matlabs_axes_reversed(written: Path):
    path, number = written / "nyuv2" / FILE, TRAIN + TEST
    assert path.read_bytes().startswith(b"MATLAB 7.3 MAT-file")
    with h5py.File(path) as file:
        assert file.userblock_size == 512
        shapes = {name: (file[name].shape, str(file[name].dtype)) for name in file if name != "#refs#"}
        assert shapes["images"] == ((number, 3, WIDTH, HEIGHT), "uint8")
        assert shapes["labels"] == ((number, WIDTH, HEIGHT), "uint16")
        assert shapes["instances"] == ((number, WIDTH, HEIGHT), "uint8")
        assert shapes["depths"] == shapes["rawDepths"] == ((number, WIDTH, HEIGHT), "float32")
        assert shapes["accelData"][0] == (4, number)
        for name, count in {"names": 894, "scenes": number, "sceneTypes": number, "rawRgbFilenames": number}.items():
            assert shapes[name][0] == (1, count)
            assert h5py.check_ref_dtype(file[name].dtype) is h5py.Reference
        words = [_string(file, file["names"][0, k]) for k in (20, 156, 893)]
        assert words == ["wall", "bed", "class 894"]
        assert _string(file, file["sceneTypes"][0, 2]) == "bathroom"
        assert _string(file, file["scenes"][0, 2]).startswith("bathroom_0")
        assert file["labels"].attrs["MATLAB_class"] == b"uint16"


def _string(file: h5py.File, reference: h5py.Reference) -> str:
    codes = file[reference][()]
    assert (codes.dtype, codes.shape[1]) == (np.uint16, 1)
    return "".join(chr(code) for code in codes.ravel())


def test_labels_depths_and_borders_have_what_real_ones_have(written: Path):
    with h5py.File(written / "nyuv2" / FILE) as file:
        images, labels, instances, depths, raw = (
            np.swapaxes(file[name][:], -1, -2) for name in ("images", "labels", "instances", "depths", "rawDepths")
        )
    assert 0.1 < (labels == 0).mean() < 0.5
    assert set(mapping_40()[np.unique(labels[labels > 0]) - 1]) == set(range(1, 41))
    assert ((labels == 0) == (instances == 0)).all()
    assert any((instances[labels == label] > 1).any() for label in np.unique(labels))
    assert (depths > 0).all()
    inside = synthetic.valid_region(HEIGHT, WIDTH)
    assert (raw[:, ~inside] == 0).all()
    assert (labels[:, ~inside] == 0).all()
    assert 0.02 < (raw[:, inside] == 0).mean() < 0.3
    assert np.array_equal(raw[raw > 0], depths[raw > 0])
    assert (images[..., 0, :] == 255).all()
    assert (images[..., -1] == 255).all()
    assert images[:, :, inside].mean() < 200


def test_splits_and_mappings_are_matlab_files_of_version_5(written: Path):
    folder = written / "nyuv2"
    splits = loadmat(folder / "splits.mat")
    train, test = splits["trainNdxs"], splits["testNdxs"]
    assert (train.shape, test.shape, train.dtype) == ((TRAIN, 1), (TEST, 1), np.uint16)
    assert sorted([*train.ravel(), *test.ravel()]) == list(range(1, TRAIN + TEST + 1))
    found = loadmat(folder / "classMapping40.mat")
    assert np.array_equal(found["mapClass"], mapping_40()[None])
    assert found["className"][0, 3][0] == "bed"
    assert np.array_equal(
        loadmat(folder / "class13Mapping.mat")["classMapping13"]["labels13"][0, 0], mapping_13()[None]
    )


def test_the_same_options_make_the_same_bytes(written: Path, tmp_path: Path):
    words = ["dataset=nyuv2", f"machine.data={tmp_path}", "seed=5", "processes=1"]
    words += [f"dataset.{k}={v}" for k, v in {"height": 48, "width": 64, "train": 6, "test": 2}.items()]
    synthesize.synthesize(config.load(synthesize.translate(words), name="synthesize"))
    ours = {p.relative_to(tmp_path): p.read_bytes() for p in (tmp_path / "nyuv2").rglob("*") if p.is_file()}
    ours.pop(Path("nyuv2/SYNTHETIC.json"))
    theirs = {p.relative_to(written): p.read_bytes() for p in (written / "nyuv2").rglob("*") if p.is_file()}
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert synthesize.synthesize(config.load(synthesize.translate(words), name="synthesize")) == "done"  # is there


# -- the loader


def test_parts_are_those_of_the_split(written: Path):
    data = build(written)
    splits = loadmat(written / "nyuv2" / "splits.mat")
    assert data.split("train").items == [i - 1 for i in splits["trainNdxs"].ravel()]
    assert data.split("test").items == [i - 1 for i in splits["testNdxs"].ravel()]
    assert data.split("val") is None
    held = build(written, validation=2)
    assert (len(held.split("train")), len(held.split("val"))) == (4, 2)
    assert sorted(held.trained + held.held) == data.trained
    assert held.held == build(written, validation=2).held
    others = [build(written, validation=2, validation_seed=s).held for s in range(1, 4)]
    assert any(other != held.held for other in others)


def test_targets_are_what_was_rendered(written: Path):
    data = build(written, classes=40, depth_source="raw")
    split = data.split("train")
    for k, index in enumerate(split.items):
        image, labels = split.read(k)
        scene = room(5, "nyuv2", index)
        seen = view(scene, scene.camera(HEIGHT, WIDTH), HEIGHT, WIDTH)
        inner = torch.from_numpy(synthetic.valid_region(HEIGHT, WIDTH))
        assert torch.equal(image.permute(1, 2, 0)[inner], torch.from_numpy(seen.image)[inner])
        semantic = labels["semantic"].as_subclass(torch.Tensor)
        known = semantic != IGNORE
        true = torch.from_numpy(mapping_40()[seen.labels - 1].astype(int) - 1)
        assert (semantic[known] == true[known]).all()
        depth = labels["depth"][0].as_subclass(torch.Tensor)
        there = ~depth.isnan()
        assert torch.equal(depth[there], torch.from_numpy(seen.depth)[there])
        normals = labels["normals"].as_subclass(torch.Tensor)
        assert torch.equal(~normals[0].isnan(), there)
        cosine = (normals * torch.from_numpy(seen.normals)).sum(0)[there]
        assert cosine.min() > 0.9999  # one grey level is half a degree


def test_fitted_normals_are_near_those_of_the_archive(written: Path):
    fitted = build(written, normals_source="depth", normals_window=3, tasks=["normals"])
    stored = build(written, tasks=["normals"])
    assert fitted.fingerprint().endswith(", normals fitted to depth")
    assert not stored.fingerprint().endswith("depth")
    for k in range(3):
        a, b = fitted.split("train")[(0, k)][1]["normals"], stored.split("train")[(0, k)][1]["normals"]
        both = ~a[0].isnan() & ~b[0].isnan()
        assert (a * b).sum(0)[both].median() > 0.999


def test_without_an_archive_normals_are_fitted(copy: Path):
    shutil.rmtree(copy / "nyuv2" / "normals_gt")
    assert build(copy).fitted
    with pytest.raises(ValueError, match=r"normals_source=archive: .*normals_gt.* is missing"):
        build(copy, normals_source="archive")


def test_only_what_the_tasks_need_is_asked_for(copy: Path):
    with h5py.File(copy / "nyuv2" / FILE, "r+") as file:
        del file["labels"], file["rawDepths"]
    shutil.rmtree(copy / "nyuv2" / "normals_gt")
    assert set(build(copy, tasks=["depth"]).split("train")[(0, 0)][1]) == {"depth"}
    with pytest.raises(ValueError, match=r"there is no variable labels; found: .*images"):
        build(copy)


def test_options_of_size_border_input_and_classes(written: Path):
    image, labels = build(written, size=[24, 32], classes=41, input="unit").split("test")[(0, 0)]
    assert image.shape == (3, 24, 32)
    assert 0 <= image.min() < image.max() <= 1
    assert labels["semantic"].min() == 0
    assert labels["semantic"].max() <= 40
    plain = build(written).split("test")[(0, 0)][1]["depth"]
    assert (labels["depth"].median() / plain.median() - 1).abs() < 0.05  # resizing a data set changes no depth
    image, labels = build(written, crop_border=True, classes=40).split("test")[(0, 0)]
    assert image.shape[1:] == labels["normals"].shape[1:] == (43, 56)
    signed = build(written, input="signed").split("test")[(0, 0)][0]
    assert (signed.min() >= -1) & (signed.max() == 1) & (signed.min() < 0)


def test_augmentation_repeats_and_is_of_the_epoch(written: Path):
    augmentation = Augmentation(32, (0.5, 2.0), (-10.0, 10.0), 0.5, 0.5, 0.5)
    split = build(written, augmentation=augmentation).split("train")
    a, b, c = split[(0, 1)], split[(0, 1)], split[(1, 1)]
    assert a[0].shape == (3, 32, 32)
    assert torch.equal(a[0], b[0])
    assert not torch.equal(a[0], c[0])
    lengths = a[1]["normals"].norm(dim=0)
    assert torch.allclose(lengths[~lengths.isnan()], torch.ones(()), atol=1e-5)


def test_other_processes_open_the_file_for_themselves(written: Path):
    data = build(written, tasks=["depth"])
    split = data.split("train")
    here = split[(0, 0)][1]["depth"]
    there = pickle.loads(pickle.dumps(split))[(0, 0)][1]["depth"]
    assert torch.equal(here.nan_to_num(0), there.nan_to_num(0))
    loader = torch.utils.data.DataLoader(split, sampler=[(0, 0)], batch_size=None, num_workers=1)
    assert torch.equal(next(iter(loader))[1]["depth"].nan_to_num(0), here.nan_to_num(0))


# -- what is wrong with files


def test_a_missing_file_is_told_how_to_obtain(tmp_path: Path):
    with pytest.raises(ValueError, match=r"nyu_depth_v2_labeled.mat is missing") as error:
        build(tmp_path)
    assert f"mtlbench.synthesize dataset=nyuv2 machine.data={tmp_path}" in str(error.value)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(600),
            "is of an older MATLAB format; version 7.3 is expected",
        ),
        (b"PK\x03\x04" + bytes(600), "is a zip archive under another name"),
        (b"<html>not found</html>", "is not HDF5; version 7.3 is expected"),
        (b"", "is not HDF5"),
    ],
)
def test_a_file_of_another_format_is_named(tmp_path: Path, head: bytes, message: str):
    (tmp_path / "nyuv2").mkdir()
    (tmp_path / "nyuv2" / FILE).write_bytes(head)
    with pytest.raises(ValueError, match=message) as error:
        build(tmp_path)
    assert str(tmp_path / "nyuv2" / FILE) in str(error.value)


def test_an_archive_in_the_folders_place_is_named(tmp_path: Path):
    (tmp_path / "nyuv2.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"nyuv2.zip is a file; unpack it"):
        build(tmp_path)
    (tmp_path / "nyuv2").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"is a file; unpack it"):
        build(tmp_path)


def test_a_folder_in_the_files_place_is_named(tmp_path: Path):
    (tmp_path / "nyuv2" / FILE).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"is a folder; the file of that name"):
        build(tmp_path)


def test_a_truncated_file_is_named(copy: Path):
    path = copy / "nyuv2" / FILE
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"cannot be opened \(.*truncated.*\)\. It has [\d,]+ bytes") as error:
        build(copy)
    assert str(path) in str(error.value)


def test_a_damaged_image_is_named(copy: Path):
    path = copy / "nyuv2" / FILE
    with h5py.File(path) as file:
        chunk = file["images"].id.get_chunk_info(2)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset + 512)  # of the block in front
        file.write(bytes(chunk.size))
    data = build(copy, tasks=["semantic"])
    with pytest.raises(ValueError, match=r"images of image 2 cannot be read"):
        data.read(2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(copy: Path):
    (copy / "nyuv2" / FILE).chmod(0)
    with pytest.raises(ValueError, match=r"cannot be read \(Permission denied\)\. Look at its permissions"):
        build(copy)


def test_permissions_are_told_of_even_to_root(copy: Path, monkeypatch):
    def refuse(self: Path, *_, **__):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ValueError, match=r"cannot be read \(Permission denied\)\. Look at its permissions"):
        build(copy)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("depths", np.zeros((8, HEIGHT, WIDTH), np.float32), "number of images, width and height must be the same"),
        ("labels", np.zeros((7, WIDTH, HEIGHT), np.uint16), "labels is 7 x 64 x 48, the images are 8 x 3 x 64 x 48"),
        ("labels", np.zeros((8, WIDTH, HEIGHT)), "labels has numbers of type float64; integers are expected"),
        ("images", np.zeros((HEIGHT, WIDTH, 3, 8), np.uint8), "4 axes are expected, as h5py has them: image, colour"),
        ("images", np.zeros((8, 3, WIDTH, HEIGHT)), "images has numbers of type float64; uint8 are expected"),
        ("depths", np.zeros((8, WIDTH, HEIGHT), int), "depths has numbers of type int64; floats in metres"),
    ],
)
def test_variables_of_another_shape_or_type_are_named(copy: Path, name: str, values: np.ndarray, message: str):
    with h5py.File(copy / "nyuv2" / FILE, "r+") as file:
        del file[name]
        file[name] = values
    with pytest.raises(ValueError, match=message):
        build(copy)


def test_a_label_beyond_894_is_named(copy: Path):
    with h5py.File(copy / "nyuv2" / FILE, "r+") as file:
        file["labels"][0, 10, 10] = 900
    with pytest.raises(ValueError, match=r"image 0 has label 900; 0 to 894 are expected"):
        build(copy, tasks=["semantic"]).read(0)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([1, 2, 3], [9], "image 9 is not among the 1 to 8"),
        ([0, 2, 3], [4], "image 0 is not among the 1 to 8"),
        ([1, 2, 3], [3, 4], "must be different ones"),
        ([], [3, 4], "some must be for training"),
    ],
)
def test_a_split_beyond_the_data_is_named(copy: Path, train: list[int], test: list[int], message: str):
    path = copy / "nyuv2" / "splits.mat"
    savemat(path, {"trainNdxs": np.array(train).reshape(-1, 1), "testNdxs": np.array(test).reshape(-1, 1)})
    with pytest.raises(ValueError, match=message) as error:
        build(copy)
    assert str(path) in str(error.value)


def test_the_official_split_needs_the_official_images(copy: Path):
    (copy / "nyuv2" / "splits.mat").unlink()
    with pytest.raises(ValueError, match=r"holds 8 images, not 1,449.*\n?.*splits.mat"):
        build(copy)


@pytest.mark.parametrize("name", ["splits.mat", "classMapping40.mat", "class13Mapping.mat"])
def test_broken_small_files_are_named(copy: Path, name: str):
    path = copy / "nyuv2" / name
    whole = path.read_bytes()
    for content in (whole[:150], b"no MATLAB at all" * 20, b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=name):
            build(copy)


def test_mappings_that_are_there_are_used_and_checked(copy: Path):
    path = copy / "nyuv2" / "classMapping40.mat"
    savemat(path, {"mapClass": np.full((1, 894), 7)})
    labels = build(copy, classes=40, tasks=["semantic"]).split("train")[(0, 0)][1]["semantic"]
    assert set(labels.unique().tolist()) == {6, IGNORE}
    savemat(path, {"mapClass": np.full((1, 893), 7)})
    with pytest.raises(ValueError, match=r"mapClass must have 894 numbers from 1 to 40; found 893"):
        build(copy)
    savemat(path, {"classes": 1})
    with pytest.raises(ValueError, match=r"there is no variable mapClass; found: classes"):
        build(copy)


def test_normals_that_are_missing_small_or_turned_are_named(copy: Path):
    path = copy / "nyuv2" / "normals_gt" / "normals" / "0001.png"
    turned = np.array(PIL.Image.open(path))
    with pytest.raises(ValueError, match=r"normals_axes=camera: .* Use dataset.normals_axes=eigen"):
        build(copy, normals_axes="camera")
    PIL.Image.fromarray(turned[:-1]).save(path)
    with pytest.raises(ValueError, match=r"0001.png: 47 x 64 is not the size of the images"):
        build(copy).read(1)
    path.unlink()
    with pytest.raises(ValueError, match=r"0001.png is missing. Unpack normals_gt.tgz again"):
        build(copy)


def test_axes_are_told_apart_by_what_faces_the_viewer_and_by_the_floor(written: Path):
    data = build(written, tasks=["semantic", "normals"], classes=40)
    _, labels = data.split("train")[(0, 1)]
    floor = (labels["semantic"] == 1).numpy()
    assert floor.any()
    assert nyuv2_normals.upward_share(labels["normals"].numpy(), floor) > 0.99
    stored = data._stored_normals(data.trained[1])
    assert nyuv2_normals.upward_share(nyuv2_normals.to_camera(stored, "omnidata"), floor) < 0.5


def test_colours_of_normals_are_unit_vectors_and_127_is_none():
    colours = np.array([[[255, 127, 128], [127, 127, 127], [0, 128, 127]]], np.uint8)
    vectors = nyuv2_normals.from_png(colours, np.array([[255, 255, 0]]))
    assert vectors[0, 0] == pytest.approx([1, 0, 0], abs=0.01)
    assert not vectors[0, 1:].any()
    assert np.isnan(nyuv2_normals.to_camera(vectors, "eigen")[:, 0, 1:]).all()
    assert nyuv2_normals.to_camera(np.array([[0, 1.0, 0]]), "eigen")[:, 0].tolist() == [0, 0, -1]
    assert nyuv2_normals.to_camera(np.array([[0, 0, 1.0]]), "eigen")[:, 0].tolist() == [0, -1, 0]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"classes": 14}, "dataset.classes=14: 13 or 40 or 41"),
        ({"depth_source": "in_painted"}, "dataset.depth_source=in_painted: depths or raw"),
        ({"normals_window": 4}, "dataset.normals_window=4: an odd number"),
        ({"size": [0, 3]}, r"dataset.size=\[0, 3\]"),
        ({"validation": 6}, "dataset.validation=6: 0 to 5 of the 6 training images"),
        ({"validation": "libmtl"}, "dataset.validation=libmtl: 0 to 5"),
        ({"tasks": ["edges"]}, "has the tasks semantic, depth, normals; unknown: edges"),
        ({"input": "grey"}, "dataset.input=grey: imagenet or unit or signed"),
    ],
)
def test_options_that_make_no_sense_are_named(written: Path, option: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build(written, **option)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"depth_loss": "l2"}, "dataset.measures.depth_loss=l2"),
        ({"depth_predicts": "log"}, "goes with depth_loss=log_l1"),
        ({"normals_metrics": ["median_angle"]}, "mean_angle and any of"),
        ({"normals_metrics": ["mean_angle", "within_x"]}, "mean_angle and any of"),
        ({"batch": 0}, "measures.batch=0"),
        ({"miou_per": "batch"}, "measures.miou_per=batch"),
    ],
)
def test_measures_that_make_no_sense_are_named(option: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Measures(**option)


def test_measures_name_and_order_the_metrics():
    imtl = Measures(depth_metrics=["abs_err"], normals_metrics=["cos", "mean_angle"])
    assert [m.name for m in imtl.depth().metrics] == ["abs_err"]
    assert [m.name for m in imtl.normals().metrics] == ["cos", "mean_angle"]
    lsb = Measures(
        "log_l1", "log", ["rmse", "delta1"], rmse_per_image=True, normals_metrics=["within_30", "mean_angle"]
    )
    assert [m.name for m in lsb.depth().metrics] == ["rmse", "delta1"]
    assert lsb.normals().metrics[0].name == "within_30"
    assert [m.name for m in Measures().normals().metrics] == [
        "mean_angle",
        "median_angle",
        "within_11.25",
        "within_22.5",
        "within_30",
    ]
    assert [meter.together for meter in Measures(batch=2).depth().meters] == [2]


@pytest.mark.parametrize(("option", "value"), [("height", 10), ("train", 0), ("test", -1), ("width", 1.5)])
def test_a_writer_refuses_what_it_cannot_write(option: str, value):
    options = {"height": 48, "width": 64, "train": 1, "test": 1, "archive": True, "seed": 0} | {option: value}
    with pytest.raises(ValueError, match=f"dataset.{option}: expected a whole number of at least"):
        synthetic.NYUv2(**options)
