"""MTAN's copies of NYUv2 and Cityscapes, as the synthetic writers make them: loaders, and what is wrong with files."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mtlbench.datasets.cityscapes_npy import CityscapesNpy, in_unit
from mtlbench.datasets.measures import Measures
from mtlbench.datasets.nyuv2_classes import LIBMTL_VALIDATION, numbers
from mtlbench.datasets.nyuv2_npy import NYUv2Npy
from mtlbench.labels import BlendedNormals, Disparity, DividedInverseDepth, InverseDepth, UnscaledNormals
from mtlbench.sliding import Sliding
from mtlbench.synthetic import cityscapes_npy as streets
from mtlbench.synthetic import nyuv2_npy as rooms
from mtlbench.synthetic.ids import Id
from mtlbench.task import IGNORE
from mtlbench.transforms import Augmentation

ROOMS = rooms.NYUv2Npy(24, 32, train=8, val=4, dtype="float32", seed=1)
STREETS = streets.CityscapesNpy(32, 64, train=5, val=3, dtype="float64", seed=1)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder that holds nyuv2_npy/ and cityscapes_npy/."""
    folder = tmp_path_factory.mktemp("npy")
    for source in (ROOMS, STREETS):
        for item in source.items():
            source.write(folder / source.name, *item)
    return folder


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    for name in ("nyuv2_npy", "cityscapes_npy"):
        shutil.copytree(written / name, tmp_path / name)
    return tmp_path


def of_rooms(folder: Path, **options) -> NYUv2Npy:
    return NYUv2Npy(folder, 0, options.pop("augmentation", Augmentation()), Sliding(), Measures(), **options)


def of_streets(folder: Path, **options) -> CityscapesNpy:
    return CityscapesNpy(folder, 0, options.pop("augmentation", Augmentation()), Sliding(), Measures(), **options)


def stored(folder: Path, dataset: str, part: str, kind: str, index: int) -> np.ndarray:
    return np.load(folder / dataset / part / kind / f"{index}.npy")


# -- what is written


def test_rooms_have_the_oddities_of_real_ones(written: Path):
    """-1, depth 0, no normal, a normal that adds up to 0, a class absent from val, an image without any label."""

    def every(part: str, kind: str) -> np.ndarray:
        return np.stack([stored(written, "nyuv2_npy", part, kind, i) for i in range(getattr(ROOMS, part))])

    image, label, depth, normal = (every("train", kind) for kind in ("image", "label", "depth", "normal"))
    assert (image.shape, label.shape, depth.shape, normal.shape) == (
        (8, 24, 32, 3),
        (8, 24, 32),
        (8, 24, 32, 1),
        (8, 24, 32, 3),
    )
    assert image.dtype == np.float32
    assert 0 <= image.min() < image.max() <= 1
    assert (label[:7] == -1).any()
    assert set(np.unique(label)) == set(range(-1, 13))
    assert 0 not in every("val", "label")  # beds
    assert ((depth == 0).any(axis=(1, 2, 3))).all()
    assert np.array_equal(depth[..., 0] == 0, ~normal.any(-1))
    lengths = np.linalg.norm(normal, axis=-1)
    assert np.allclose(lengths[lengths > 0], 1, atol=1e-6)
    assert ((normal.sum(-1) == 0) & (lengths > 0)).sum() == 7  # one in each but the last
    assert (label[7] == -1).all()
    assert not depth[7].any()
    assert not normal[7].any()


def test_streets_have_the_oddities_of_real_ones(written: Path):
    for part, number in (("train", 5), ("val", 3)):
        for index in range(number):
            found = {k: stored(written, "cityscapes_npy", part, k, index) for k in ("image", "depth", "label_7")}
            assert found["image"].shape == (32, 64, 3)
            assert found["depth"].shape == (32, 64, 1)
            assert found["image"].dtype == np.float64
            p = found["depth"] * 65535
            assert np.allclose(p, np.rint(p))
            assert (p == 0).mean() > 0.1
            assert p.max() <= 32257.5
            assert -1 in found["label_7"]
            seven, nineteen, two = (
                stored(written, "cityscapes_npy", part, f"label_{n}", index).astype(int) for n in (7, 19, 2)
            )
            assert ((seven == -1) <= (nineteen == -1)).all()
            assert ((seven == -1) == (two == -1)).all()
            assert ((seven >= 5) == (two == 1)).all()
    depths = [stored(written, "cityscapes_npy", "train", "depth", i) for i in range(5)]
    assert any(np.isclose(d, 1 / 65535).any() for d in depths)
    assert any(np.isclose(d, 32257 / 65535).any() for d in depths)


def test_categories_of_ids():
    ids = np.array(
        [Id.UNLABELED, Id.STATIC, Id.ROAD, Id.PARKING, Id.BRIDGE, Id.POLEGROUP, Id.TERRAIN, Id.SKY, Id.RIDER]
    )
    assert streets.classes(ids, 7).tolist() == [-1, -1, 0, 0, 1, 2, 3, 4, 5]
    assert streets.classes(ids, 19).tolist() == [-1, -1, 0, -1, -1, -1, 9, 10, 12]
    assert streets.classes(ids, 2).tolist() == [-1, -1, 0, 0, 0, 0, 0, 0, 1]
    vehicles = np.array([Id.CAR, Id.CARAVAN, Id.BICYCLE])
    assert streets.classes(vehicles, 7).tolist() == [6, 6, 6]


# -- the loaders


def test_targets_of_rooms_are_what_is_stored(written: Path):
    data = of_rooms(written)
    assert (len(data.split("train")), data.split("val"), len(data.split("test"))) == (8, None, 4)
    image, labels = data.split("test")[(0, 2)]
    raw = {kind: stored(written, "nyuv2_npy", "val", kind, 2) for kind in ("image", "label", "depth", "normal")}
    assert torch.allclose(image, torch.from_numpy(raw["image"]).permute(2, 0, 1), atol=1e-6)
    assert torch.equal(
        labels["semantic"].int(), torch.from_numpy(np.where(raw["label"] < 0, IGNORE, raw["label"])).int()
    )
    none = torch.from_numpy(raw["depth"][..., 0] == 0)
    assert torch.equal(labels["depth"][0].isnan(), none)
    assert torch.equal(labels["depth"][0][~none], torch.from_numpy(raw["depth"][..., 0])[~none])
    right, towards, up = torch.from_numpy(raw["normal"]).permute(2, 0, 1)
    there = ~labels["normals"][0].isnan()
    assert torch.equal(there, ~none)  # also the one that adds up to 0
    assert torch.equal(labels["normals"][:, there], torch.stack([right, -up, -towards])[:, there])


def test_mtans_mask_drops_the_normal_that_adds_up_to_zero(written: Path):
    own, mtan = (of_rooms(written, mtan_mask=mask).split("train")[(0, 0)][1]["normals"] for mask in (False, True))
    assert (mtan.isnan() & ~own.isnan()).sum() == 3


def test_an_image_without_labels_is_absent_and_no_number(written: Path):
    data = of_rooms(written)
    image, labels = data.split("train")[(0, 7)]
    assert image.isfinite().all()
    for name, task in data.tasks.items():
        target = labels[name][None]
        counts = task.loss.counts(target)
        assert counts[0] == 0
        prediction = torch.zeros(1, task.channels, 24, 32, requires_grad=True)
        loss = task.loss(prediction, target, counts)
        loss.backward()
        assert loss == 0
        assert not prediction.grad.any()


def test_libmtls_validation_images_are_held_out_of_795(copy: Path):
    root = copy / "nyuv2_npy" / "train"
    for kind in ("image", "label", "depth", "normal"):
        for index in range(8, 795):
            (root / kind / f"{index}.npy").symlink_to(root / kind / f"{index % 8}.npy")
    data = of_rooms(copy, validation="libmtl")
    assert (len(data.split("train")), len(data.split("val")), len(data.split("test"))) == (636, 159, 4)
    assert [index for _, index in data.split("val").items] == numbers(LIBMTL_VALIDATION)
    assert ("train", 3) not in data.split("train").items
    drawn = of_rooms(copy, validation=159)
    assert len(drawn.held) == 159
    assert set(drawn.held) != set(data.held)


def test_a_list_beyond_the_data_is_named(written: Path):
    with pytest.raises(ValueError, match=r"libmtl: the list goes to 791.npy .* has 8\. .*dataset.validation=1"):
        of_rooms(written, validation="libmtl")
    with pytest.raises(ValueError, match=r"dataset.validation=8: 0 to 7 of the 8 training images"):
        of_rooms(written, validation=8)
    with pytest.raises(ValueError, match=r"dataset.validation=mtan: libmtl or a number"):
        of_rooms(written, validation="mtan")


def test_targets_of_streets_are_what_is_stored(written: Path):
    for classes in (2, 7, 19):
        data = of_streets(written, classes=classes)
        _, labels = data.split("test")[(0, 1)]
        raw = stored(written, "cityscapes_npy", "val", f"label_{classes}", 1)
        assert torch.equal(labels["semantic"], torch.from_numpy(np.where(raw < 0, IGNORE, raw).astype(np.uint8)))
        assert (
            len(data.words["semantic"]) == len(data.colours["semantic"]) == data.tasks["semantic"].channels == classes
        )
    depth = stored(written, "cityscapes_npy", "val", "depth", 1)[..., 0]
    assert torch.equal(labels["depth"][0].isnan(), torch.from_numpy(depth == 0))
    assert np.nanmax(labels["depth"].numpy()) == np.float32(depth.max())
    held = of_streets(written, validation=2)
    assert (len(held.split("train")), len(held.split("val"))) == (3, 2)


def test_units_of_inverse_depth(written: Path):
    p = np.array([[1, 257, 32257]], np.float32)
    assert in_unit(p / 65535, "px_full", 128)[0] == pytest.approx([0, 1, 126], abs=1e-4)
    assert in_unit(p / 65535, "px_at_size", 128)[0] == pytest.approx([0, 1 / 16, 126 / 16], abs=1e-5)
    mtan, full, own, small = (
        of_streets(written, **options).split("test")[(0, 0)][1]["depth"].nanmean().item()
        for options in (
            {"unit": "mtan", "size": [16, 32]},
            {"unit": "px_full", "size": [16, 32]},
            {"unit": "px_at_size"},
            {"unit": "px_at_size", "size": [16, 32]},
        )
    )
    assert full == pytest.approx((65535 * mtan - 1) / 256, rel=1e-4)
    assert small == pytest.approx(full * 32 / 2048, rel=1e-4)
    assert small == pytest.approx(own / 2, rel=0.2)
    assert of_streets(written, unit="px_full").tasks["depth"].metrics[0].unit == "px"


def test_labels_are_of_the_type_that_an_option_names(written: Path):
    for option, kind in (("mul", InverseDepth), ("div", DividedInverseDepth)):
        assert type(of_streets(written, invdepth_scale=option).read(("train", 0))[1]["depth"]) is kind
    assert type(of_streets(written, unit="px_at_size").read(("train", 0))[1]["depth"]) is Disparity
    for option, kind in (("none", UnscaledNormals), ("mtan", BlendedNormals)):
        assert type(of_rooms(written, normals_scale=option).read(("train", 0))[1]["normals"]) is kind
    with pytest.raises(ValueError, match=r"px_at_size goes with invdepth_scale=mul, not with div"):
        of_streets(written, unit="px_at_size", invdepth_scale="div")


def test_libmtls_folder_and_both_dtypes_are_read(copy: Path, tmp_path: Path):
    before = of_streets(copy).split("train")[(0, 0)]
    for part in ("train", "val"):
        top = copy / "cityscapes_npy" / part
        (top / "label_7").rename(top / "label")
    after = of_streets(copy).split("train")[(0, 0)]
    assert torch.equal(before[1]["semantic"], after[1]["semantic"])
    for path in (copy / "cityscapes_npy").rglob("*.npy"):
        kind = np.int8 if path.parent.name == "label" else np.float32
        np.save(path, np.load(path).astype(kind))
    single = of_streets(copy).split("train")[(0, 0)]
    assert torch.allclose(single[0], after[0], atol=1e-6)
    assert torch.equal(single[1]["semantic"], after[1]["semantic"])


def test_augmentation_pads_with_the_mean_colour(written: Path):
    """Images are floats of 0 to 255 until all is cut, and padded by whole numbers of these."""
    data = of_streets(written, augmentation=Augmentation(None, (0.5, 0.5)))
    image, labels = data.split("train")[(0, 0)]
    assert image[:, 0, 0] * 255 == pytest.approx(torch.tensor([124.0, 116.0, 104.0]))
    assert labels["semantic"][0, 0] == IGNORE
    assert labels["depth"][0, 0, 0].isnan()


def test_fingerprints_tell_data_apart(copy: Path):
    first = of_rooms(copy).fingerprint()
    assert first == of_rooms(copy).fingerprint()
    (copy / "nyuv2_npy" / "SYNTHETIC.json").write_text("{}")
    marked = of_rooms(copy).fingerprint()
    assert marked.startswith("synthetic nyuv2_npy")
    assert of_rooms(copy, tasks=["depth"]).fingerprint() != marked


# -- what is wrong with files

BROKEN: list[tuple[str, Callable[[Path], None], str]] = [
    (
        "image",
        lambda p: np.save(p, np.zeros((24, 32, 3), np.uint8)),
        "floats between 0 and 1 are expected, found uint8",
    ),
    (
        "image",
        lambda p: np.save(p, np.full((24, 32, 3), 200.0)),
        "between 0 and 1 are expected, found float64 from 200",
    ),
    ("image", lambda p: np.save(p, np.zeros((3, 24, 32))), "height x width x 3 is expected, found 3 x 24 x 32"),
    ("image", lambda p: np.save(p, np.full((24, 32, 3), np.nan)), "found float64 from nan"),
    ("label", lambda p: np.save(p, np.full((24, 32), 13)), "-1 .no label. to 12 are expected, found 13 to 13"),
    ("label", lambda p: np.save(p, np.full((24, 32), 0.5)), "whole numbers from -1"),
    ("label", lambda p: np.save(p, np.zeros((24, 32, 3))), "height x width x 1 is expected, found 24 x 32 x 3"),
    ("label", lambda p: np.save(p, np.zeros((12, 32))), "12 x 32 is not the size of its image, 24 x 32"),
    ("label", lambda p: np.save(p, np.array(["wall"])), "numbers are expected, found <U4"),
    ("label", lambda p: np.save(p, np.array([None])), "cannot be read"),
    ("depth", lambda p: np.save(p, np.full((24, 32, 1), -1.0)), "0 .no label. or more are expected, found -1"),
    ("depth", lambda p: np.save(p, np.full((24, 32, 1), np.nan)), "or more are expected, found nan"),
    ("depth", lambda p: np.savez(p.open("wb"), np.zeros(3)), "numbers are expected, found several arrays"),
    ("normal", lambda p: np.save(p, np.full((24, 32, 3), 128.0)), "components from -1 to 1 are expected, found 128"),
    ("normal", lambda p: np.save(p, np.zeros((24, 32))), "height x width x 3 is expected, found 24 x 32"),
    ("depth", lambda p: p.write_bytes(p.read_bytes()[:200]), "cannot be read"),
    ("depth", lambda p: p.write_bytes(b""), "cannot be read"),
    ("depth", lambda p: p.write_bytes(b"PK\x03\x04 and no more"), "cannot be read"),
]


@pytest.mark.parametrize(("kind", "spoil", "message"), BROKEN)
def test_a_broken_array_is_named(copy: Path, kind: str, spoil: Callable[[Path], None], message: str):
    path = copy / "nyuv2_npy" / "train" / kind / "5.npy"
    data = of_rooms(copy)
    spoil(path)
    with pytest.raises(ValueError, match=message) as error:
        data.split("train").read(5)
    assert str(path) in str(error.value)


def test_an_unreadable_array_is_named(written: Path, monkeypatch):
    def refuse(path: Path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    data = of_rooms(written)
    monkeypatch.setattr(np, "load", refuse)
    with pytest.raises(ValueError, match=r"0.npy: this array cannot be read .*Permission denied"):
        data.read(("train", 0))


def test_fewer_labels_than_images_are_named(copy: Path):
    top = copy / "cityscapes_npy" / "train"
    (top / "label_7" / "4.npy").unlink()
    message = r"label_7: 4.npy is missing; 4 files are there and 5 in image, where 0.npy to 4.npy"
    with pytest.raises(ValueError, match=message):
        of_streets(copy)
    assert len(of_streets(copy, tasks=["depth"]).split("train")) == 5
    (top / "image" / "1.npy").unlink()
    with pytest.raises(ValueError, match=r"image: 1.npy is missing"):
        of_streets(copy, tasks=["depth"])


def test_more_labels_than_images_are_named(copy: Path):
    top = copy / "cityscapes_npy" / "val"
    shutil.copy(top / "depth" / "0.npy", top / "depth" / "3.npy")
    with pytest.raises(ValueError, match=r"depth: 3.npy has no image; 4 files are there and 3 in image"):
        of_streets(copy)


def test_a_missing_folder_is_named(copy: Path):
    shutil.rmtree(copy / "cityscapes_npy" / "val" / "label_19")
    with pytest.raises(ValueError, match=r"no folder label_19 or label, .* found: depth, image, label_2, label_7"):
        of_streets(copy, classes=19)
    shutil.rmtree(copy / "nyuv2_npy" / "val")
    with pytest.raises(ValueError, match=r"there is no folder .*nyuv2_npy/val"):
        of_rooms(copy)


@pytest.mark.parametrize("build", [of_rooms, of_streets])
def test_nothing_at_all_is_told_how_to_obtain(tmp_path: Path, build: Callable):
    with pytest.raises(
        ValueError, match=r"github.com/lorenmt/mtan links to .*\n.*mtlbench.synthesize dataset="
    ) as error:
        build(tmp_path)
    name = "nyuv2_npy" if build is of_rooms else "cityscapes_npy"
    (tmp_path / f"{name}.zip").write_bytes(b"PK\x03\x04")
    assert f"machine.data={tmp_path}" in str(error.value)
    with pytest.raises(ValueError, match=rf"{name}.zip is a file; unpack it so that .*train/image is a folder"):
        build(tmp_path)
    (tmp_path / name / "train" / "image").mkdir(parents=True)
    for kind in ("label", "label_7", "depth", "normal"):
        (tmp_path / name / "train" / kind).mkdir()
    with pytest.raises(ValueError, match=r"image holds no files 0.npy"):
        build(tmp_path)


def test_an_archive_in_the_folders_place_is_named(tmp_path: Path):
    (tmp_path / "cityscapes_npy").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"cityscapes_npy is a file; unpack it"):
        of_streets(tmp_path)
    (tmp_path / "nyuv2_npy").mkdir()
    (tmp_path / "nyuv2_npy" / "nyuv2.tar.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"nyuv2.tar.gz is a file; unpack it"):
        of_rooms(tmp_path)


def test_normals_in_other_axes_are_named(copy: Path):
    for path in (copy / "nyuv2_npy").glob("*/normal/*.npy"):
        right, towards, up = np.moveaxis(np.load(path), -1, 0)
        np.save(path, np.stack([right, -up, towards], -1))
    with pytest.raises(ValueError, match=r"normals_axes=eigen: .* Use dataset.normals_axes=omnidata"):
        of_rooms(copy)
    of_rooms(copy, normals_axes="omnidata")
    of_rooms(copy, tasks=["depth"])


@pytest.mark.parametrize(
    ("build", "option", "message"),
    [
        (of_streets, {"classes": 8}, "dataset.classes=8: 2 or 7 or 19"),
        (of_streets, {"unit": "m"}, "dataset.unit=m: mtan or px_full or px_at_size"),
        (of_streets, {"invdepth_scale": "s"}, "dataset.invdepth_scale=s"),
        (of_streets, {"tasks": ["normals"]}, "has the tasks semantic, depth; unknown: normals"),
        (of_rooms, {"normals_scale": "z"}, "dataset.normals_scale=z: imtl or none or mtan"),
        (of_rooms, {"depth_scale": "mul"}, "dataset.depth_scale=mul: div or none"),
        (of_rooms, {"size": [3]}, r"dataset.size=\[3\]"),
    ],
)
def test_options_that_make_no_sense_are_named(written: Path, build: Callable, option: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build(written, **option)


@pytest.mark.parametrize(("option", "value"), [("height", 1), ("train", 0), ("val", 0), ("dtype", "float16")])
def test_writers_refuse_what_they_cannot_write(option: str, value):
    for kind in (rooms.NYUv2Npy, streets.CityscapesNpy):
        options = {"height": 48, "width": 64, "train": 1, "val": 1, "dtype": "float32", "seed": 0} | {option: value}
        with pytest.raises(ValueError, match=f"dataset.{option}"):
            kind(**options)
