"""Synthetic faces in CelebA's format, and the CelebA loader on them."""

import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from mtlbench import config, inspect, synthesize
from mtlbench.datasets.celeba import CelebA, FaceDistance, read_image
from mtlbench.datasets.celeba_lists import ATTRIBUTES, read_attributes, read_landmarks
from mtlbench.losses import BinaryCrossEntropy, CrossEntropy
from mtlbench.synthetic import celeba, faces
from mtlbench.synthetic.face_paint import paint
from mtlbench.train import train
from mtlbench.transforms import DEVIATION, MEAN, Augmentation

TRAIN, VAL, TEST = 8, 3, 3


def source(**options):
    defaults = {"train": TRAIN, "val": VAL, "test": TEST, "tree": "official", "line_ends": "lf", "without": None}
    return celeba.CelebA(**{**defaults, "seed": 0, **options})


def written(folder, **options):
    made = source(**options)
    for item in made.items():
        made.write(folder / "celeba", *item)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return written(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def root(whole, tmp_path):
    """A copy to be damaged."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path


def load(folder, **options):
    return CelebA(folder=folder, seed=0, **{"augmentation": Augmentation(), **options})


def lists(folder):
    anno = folder / "celeba" / "Anno"
    return anno / "list_attr_celeba.txt", anno / "list_landmarks_align_celeba.txt"


# faces


def test_every_attribute_can_be_seen():
    """What a face has and what it would be without: pixels differ by more than noise and light."""
    waiting, drawn = set(ATTRIBUTES), 0
    while waiting:
        one = faces.face(np.random.default_rng(drawn))
        drawn += 1
        assert drawn < 200, f"{waiting} never occurs"
        if "Blurry" in one.has and "Blurry" not in waiting:
            continue  # in which all else is faint
        shown = sorted(one.has & waiting) if "Blurry" not in one.has else ["Blurry"]
        picture = paint(one).astype(int) if shown else None
        for name in shown:
            other = replace(one, has=one.has - {name}, full_beard=name == "No_Beard")
            changed = (np.abs(paint(other) - picture).max(2) > 25).sum()
            assert changed >= 20, (name, drawn - 1, changed)
            waiting.remove(name)


def test_attributes_agree_with_each_other_and_vary():
    drawn = [faces.face(np.random.default_rng(seed)) for seed in range(600)]
    share = {name: np.mean([name in one.has for one in drawn]) for name in ATTRIBUTES}
    assert all(0.02 < value < 0.98 for value in share.values()), share
    for one in drawn:
        assert ("No_Beard" in one.has) == (not one.full_beard and not one.has.intersection(faces.BEARDS))
        assert len(one.has.intersection(filter(None, faces.COLOURS))) <= 1
        assert not {"Straight_Hair", "Wavy_Hair"} <= one.has
        for hidden in ("Bald", "Bangs", "Receding_Hairline"):
            assert not {"Wearing_Hat", hidden} <= one.has


def test_landmarks_are_in_the_frame_and_where_the_eyes_and_lips_are_drawn():
    for seed in range(300):
        one = faces.face(np.random.default_rng(seed))
        points = faces.landmarks(one)
        assert all(0 <= x < faces.WIDTH and 0 <= y < faces.HEIGHT for x, y in points)
        (left, right, nose, mouth_left, mouth_right) = points
        assert left[0] < nose[0] < right[0]
        assert mouth_left[0] < nose[0] < mouth_right[0]
        assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])
    plain = replace(
        faces.face(np.random.default_rng(2)), has=frozenset({"Young", "Wearing_Lipstick"}), full_beard=False
    )
    picture, (left, right, _, *corners) = paint(plain).astype(int), faces.landmarks(plain)
    for x, y in (left, right):
        assert picture[y, x].max() < 70  # the pupil
    for (x, y), inwards in zip(corners, (1, -1), strict=True):
        red, green, _ = picture[y - 1 : y + 2, x + 2 * inwards].mean(0)
        assert red > green + 60


# files


def test_the_format_on_disk(whole):
    folder = whole / "celeba"
    attributes, landmarks = (path.read_text().split("\n") for path in lists(whole))
    assert attributes[0] == landmarks[0] == str(TRAIN + VAL + TEST)
    assert attributes[1].split(" ")[:2] == ["5_o_Clock_Shadow", "Arched_Eyebrows"]
    assert len(attributes[1].split()) == 40
    assert landmarks[1].split()[:3] == ["lefteye_x", "lefteye_y", "righteye_x"]
    assert re.fullmatch(r"000001\.jpg( -1|  1){40}", attributes[2])  # several blanks between two numbers
    assert attributes[-1] == ""
    parts = (folder / "Eval" / "list_eval_partition.txt").read_text().splitlines()
    assert [line.split()[1] for line in parts] == ["0"] * TRAIN + ["1"] * VAL + ["2"] * TEST
    names = [line.split()[0] for line in parts]
    assert names == sorted(names)
    assert names[1] == "000038.jpg"  # with gaps
    assert names[TRAIN] == "162771.jpg"
    assert names[TRAIN + VAL] == "182638.jpg"
    for name in names:
        with PIL.Image.open(folder / "Img" / "img_align_celeba" / name) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (178, 218))


def test_torchvision_reads_it_and_finds_the_same(tmp_path, monkeypatch):
    from torchvision import datasets

    written(tmp_path, tree="torchvision", train=3)
    monkeypatch.setattr(datasets.CelebA, "_check_integrity", lambda self: True)  # of sums of the real files
    ours = load(tmp_path, tasks=["attributes", "landmarks"], landmark_unit="pixels", input="unit")
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test")):
        theirs = datasets.CelebA(str(tmp_path), split=name, target_type=["attr", "landmarks"])
        mine = ours.split(split)
        assert len(mine) == len(theirs)
        for i in range(len(mine)):
            image, (attributes, points) = theirs[i]
            seen, targets = mine[0, i]
            assert torch.equal(targets["attributes"].long(), attributes.long())
            assert torch.equal(targets["landmarks"], points.float())
            np.testing.assert_array_equal((255 * seen).round().byte().permute(1, 2, 0), np.asarray(image))


def test_no_count_tree_or_line_end_changes_a_face(whole, tmp_path):
    other = written(tmp_path, train=2, val=1, test=0, tree="torchvision", line_ends="crlf")
    for name in ("000001.jpg", "000038.jpg", "162771.jpg"):
        mine = (other / "celeba" / "img_align_celeba" / name).read_bytes()
        assert mine == (whole / "celeba" / "Img" / "img_align_celeba" / name).read_bytes()
    text = (other / "celeba" / "list_attr_celeba.txt").read_bytes()
    assert text.count(b"\r\n") == text.count(b"\n") == 5
    found = read_attributes(other / "celeba" / "list_attr_celeba.txt").values
    assert (found == read_attributes(lists(whole)[0]).values[[0, 1, TRAIN]]).all()


def test_ids_never_come_twice_and_keep_to_their_part():
    for split, (first, last) in celeba.PARTS.items():
        names = {celeba.file_name(split, index) for index in range(last - first + 1)}
        assert len(names) == last - first + 1
        assert min(names) == f"{first:06d}.jpg"
        assert max(names) == f"{last:06d}.jpg"


def test_an_attribute_that_nobody_has(tmp_path):
    written(tmp_path, train=6, val=0, test=1, without="Young")
    column = read_attributes(lists(tmp_path)[0]).values[:, ATTRIBUTES.index("Young")]
    assert set(column.tolist()) == {-1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": 0}, r"dataset\.train: expected a whole number from 1 to 162770, found 0"),
        ({"val": 19_868}, r"dataset\.val: expected a whole number from 0 to 19867"),
        ({"test": 2.5}, r"dataset\.test: expected a whole number"),
        ({"tree": "kaggle"}, r"dataset\.tree=kaggle: expected one of official, torchvision"),
        ({"line_ends": "cr"}, r"dataset\.line_ends=cr: expected one of lf, crlf"),
        ({"without": "Beard"}, r"dataset\.without=Beard: expected one of null, 5_o_Clock_Shadow"),
    ],
)
def test_options_of_the_writer_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        source(**options)


# loading


def test_parts_and_targets_are_those_of_the_lists(whole):
    dataset = load(whole, input="unit")
    assert list(dataset.tasks) == list(ATTRIBUTES)
    assert dataset.split("train").dataset.files  # lists and images, for the fingerprint
    table = read_attributes(lists(whole)[0])
    start = {"train": 0, "val": TRAIN, "test": TRAIN + VAL}
    for name, count in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        split = dataset.split(name)
        assert len(split) == count
        batch = split.__getitems__([(0, i) for i in range(count)])
        assert batch.image.shape == (count, 3, 218, 178)
        rows = table.values[start[name] : start[name] + count]
        for task, target in batch.targets.items():
            assert target.tolist() == ((rows[:, ATTRIBUTES.index(task)] + 1) // 2).tolist()
        image, targets = split[0, count - 1]
        assert torch.equal(image, batch.image[-1])
        assert {task: target[-1].item() for task, target in batch.targets.items()} == {
            task: target.item() for task, target in targets.items()
        }
    stored = read_image(whole / "celeba" / "Img" / "img_align_celeba" / "000001.jpg")
    np.testing.assert_allclose(dataset.split("train")[0, 0][0].permute(1, 2, 0) * 255, stored, atol=1e-3)


def test_both_trees_give_the_same(whole, tmp_path):
    flat = tmp_path / "celeba"
    shutil.copytree(whole / "celeba" / "Img", flat)
    for path in (whole / "celeba").glob("*/*.txt"):
        shutil.copy(path, flat)
    ours, other = load(whole), load(tmp_path)
    image, targets = ours.split("val")[0, 1]
    image_too, targets_too = other.split("val")[0, 1]
    assert torch.equal(image, image_too)
    assert targets == targets_too


def test_lists_in_another_order_are_matched_by_name(root):
    path, _ = lists(root)
    before = load(root).split("test")[0, 0][1]
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], *reversed(lines[2:])]) + "\n")
    assert load(root).split("test")[0, 0][1] == before


def test_normalisations(whole):
    unit, signed, imagenet = (load(whole, input=name).split("val")[0, 0][0] for name in ("unit", "signed", "imagenet"))
    assert 0 <= unit.min() < 0.3 < 0.7 < unit.max() <= 1
    assert torch.allclose(signed, 2 * unit - 1)
    mean, deviation = (torch.tensor(x)[:, None, None] for x in (MEAN, DEVIATION))
    assert torch.allclose(imagenet, (unit - mean) / deviation, atol=1e-6)


def test_what_imtl_reports_is_the_validation_part(whole):
    usual, imtl = load(whole), load(whole, report="validation")
    assert imtl.split("val") is None
    assert torch.equal(imtl.split("test")[0, 2][0], usual.split("val")[0, 2][0])
    assert len(imtl.split("train")) == TRAIN


def test_losses_metrics_and_their_numbers_of_outputs(whole):
    bce, softmax = load(whole), load(whole, attribute_loss="softmax", metric="error")
    young, two = bce.tasks["Young"], softmax.tasks["Young"]
    assert (young.channels, two.channels) == (1, 2)
    assert isinstance(young.loss, BinaryCrossEntropy)
    assert isinstance(two.loss, CrossEntropy)
    assert [(m.name, m.higher_is_better) for m in young.metrics] == [("accuracy", True)]
    assert [(m.name, m.higher_is_better) for m in two.metrics] == [("error", False)]
    # two outputs (0, z) decide as one logit z does, and have the same loss
    z, target = torch.tensor([[1.5], [-0.5], [0.3]]), torch.tensor([1, 1, 0], dtype=torch.uint8)
    both = torch.cat([torch.zeros(3, 1), z], 1)
    counts = young.loss.counts(target)
    assert torch.allclose(young.loss(z, target, counts), two.loss(both, target, two.loss.counts(target)))
    (meter,), (other,) = young.meters, two.meters
    accuracy = meter.values(meter.sums(z, target))["accuracy"]
    assert accuracy == pytest.approx(100 / 3)
    assert other.values(other.sums(both, target))["error"] == pytest.approx(100 - accuracy)


def test_landmarks_in_sides_and_in_pixels(whole):
    points = read_landmarks(lists(whole)[1]).values[0]
    as_is = load(whole, tasks=["landmarks"], landmark_unit="pixels")
    assert as_is.split("train")[0, 0][1]["landmarks"].tolist() == points.tolist()
    x, y = points[::2], points[1::2]
    for size in (None, (64, 64), (109, 356)):
        target = load(whole, tasks=["landmarks"], size=size).split("train")[0, 0][1]["landmarks"]
        assert target.abs().max() < 0.5
        np.testing.assert_allclose(target[::2], (x + 0.5) / 178 - 0.5, atol=1e-6)
        np.testing.assert_allclose(target[1::2], (y + 0.5) / 218 - 0.5, atol=1e-6)
    small = load(whole, tasks=["landmarks"], size=[64, 64], landmark_unit="pixels")
    target = small.split("train")[0, 0][1]["landmarks"]
    np.testing.assert_allclose(target[::2], (x + 0.5) * 64 / 178 - 0.5, atol=1e-4)
    # a pixel is one of the 218 x 178 image, whatever is seen
    for dataset in (as_is, small, load(whole, tasks=["landmarks"], size=[32, 48])):
        (meter,) = dataset.tasks["landmarks"].meters
        target = dataset.split("train")[0, 0][1]["landmarks"][None]
        height, width = dataset.size or (218, 178)
        unit = 1 if dataset.landmark_unit == "sides" else width
        moved = target.clone()
        moved[0, 0] += 3 * unit / 178  # the left eye, by 3 pixels to the right
        moved[0, 5] += 4 * (1 if unit == 1 else height) / 218  # the nose, by 4 down
        found = meter.values(meter.sums(moved, target))
        assert found == pytest.approx({"eye": 1.5, "nose": 4.0, "mouth": 0.0}, abs=1e-4)


def test_face_distance_leaves_out_points_without_a_label():
    meter = FaceDistance((178, 218))
    target = torch.zeros(2, 10)
    prediction = torch.full((2, 10), 0.0)
    prediction[0, 4] = 10 / 178
    target[1, 4:6] = float("nan")
    assert meter.values(meter.sums(prediction, target))["nose"] == pytest.approx(10)
    assert [m.name for m in meter.metrics] == ["eye", "nose", "mouth"]


def test_mirroring_exchanges_left_and_right_landmarks_and_no_attribute(whole):
    flipped = Augmentation(flip_probability=1.0)
    names = ["Male", "attributes", "landmarks"]
    plain = load(whole, tasks=names, landmark_unit="pixels").split("train")
    mirrored = load(whole, tasks=names, landmark_unit="pixels", augmentation=flipped).split("train")
    for index in range(TRAIN):
        (image, targets), (other, others) = plain[0, index], mirrored[0, index]
        assert torch.equal(image.flip(-1), other)
        assert targets["Male"] == others["Male"]
        assert torch.equal(targets["attributes"], others["attributes"])
        before, after = targets["landmarks"].reshape(5, 2), others["landmarks"].reshape(5, 2)
        for i, j in enumerate((1, 0, 2, 4, 3)):
            assert after[i].tolist() == [177 - before[j, 0], before[j, 1]]


def test_augmentation_is_a_function_of_seed_epoch_and_image(whole):
    cropped = Augmentation(crop=[64, 64], scale=[1.0, 1.3], flip_probability=0.5)
    split = load(whole, tasks=["landmarks"], size=[64, 64], augmentation=cropped).split("train")
    image, targets = split[1, 3]
    assert image.shape == (3, 64, 64)
    assert torch.equal(split[1, 3][0], image)
    assert torch.equal(split[1, 3][1]["landmarks"], targets["landmarks"])
    assert not torch.equal(split[2, 3][0], image)
    val = load(whole, tasks=["landmarks"], size=[64, 64], augmentation=cropped).split("val")
    assert torch.equal(val[0, 0][0], val[5, 0][0])


def test_labels_as_on_disk(whole):
    image, labels = load(whole, tasks=["Young", "attributes", "landmarks"]).split("train").read(0)
    assert image.shape == (3, 218, 178)
    assert image.dtype == torch.uint8
    assert labels["landmarks"].shape == (5, 2)
    assert labels["attributes"].shape == (40,)
    assert labels["attributes"][ATTRIBUTES.index("Young")] == labels["Young"]


def test_lists_of_other_tasks_are_not_read(root):
    attributes, landmarks = lists(root)
    everything = load(root).fingerprint()
    landmarks.unlink()
    assert load(root).fingerprint() == everything
    with pytest.raises(ValueError, match="there is no list_landmarks"):
        load(root, tasks=["landmarks"])
    attributes.unlink()
    with pytest.raises(ValueError, match="there is no list_attr"):
        load(root)


def test_the_marker_and_the_fingerprint(root):
    assert not load(root).synthetic
    real = load(root).fingerprint()
    (root / "celeba" / "SYNTHETIC.json").write_text("{}")
    assert load(root).synthetic
    assert load(root).fingerprint().startswith("synthetic celeba ")
    (root / "celeba" / "SYNTHETIC.json").unlink()
    assert load(root).fingerprint() == real
    image = root / "celeba" / "Img" / "img_align_celeba" / "000001.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    assert load(root).fingerprint() != real


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ["Beard"]}, "celeba has the tasks 5_o_Clock_Shadow.*unknown: Beard"),
        ({"size": [64]}, r"dataset\.size=\[64\]: \[height, width\]"),
        ({"input": "raw"}, r"dataset\.input=raw: imagenet or unit or signed"),
        ({"report": "val"}, r"dataset\.report=val: test or validation"),
        ({"attribute_loss": "mse"}, r"dataset\.attribute_loss=mse: bce or softmax"),
        ({"divide_by": "all"}, r"dataset\.divide_by=all: terms or images"),
        ({"metric": "f1"}, r"dataset\.metric=f1: accuracy or error"),
        ({"landmark_loss": "bce"}, r"dataset\.landmark_loss=bce: l1 or mse"),
        ({"landmark_unit": "mm"}, r"dataset\.landmark_unit=mm: sides or pixels"),
        ({"attribute_loss": "softmax", "tasks": ["attributes"]}, "the task attributes has bce alone"),
    ],
)
def test_options_that_make_no_sense(whole, options, message):
    with pytest.raises(ValueError, match=message):
        load(whole, **options)


# damage


def rewrite(path, change):
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)) + "\n")
    return str(path)


def cut_off(root):
    return f"{rewrite(lists(root)[0], lambda x: x[:-2])}: line 1 says 14 images, and there are 12: cut off"


def fewer_images(root):
    path = rewrite(lists(root)[0], lambda x: ["12", *x[1:-2]])
    return f"{path} has 12 images, {root / 'celeba/Eval/list_eval_partition.txt'} has 14: the lists do not belong"


def other_images(root):
    path = rewrite(lists(root)[0], lambda x: [*x[:-1], "999999" + x[-1][6:]])
    parts = root / "celeba/Eval/list_eval_partition.txt"
    last = parts.read_text().split()[-2]
    return f"{last} of {parts} is not in {path}: the lists do not belong"


def header(root):
    path = rewrite(lists(root)[0], lambda x: [x[0], x[1].replace("Bald", "Bold"), *x[2:]])
    return (
        f"{path}: line 2 is expected to name the 40 columns 5_o_Clock_Shadow to Young in the authors' order, found Bold"
    )


def no_header(root):
    return f"{rewrite(lists(root)[0], lambda x: x[2:])}: the number of images is expected in line 1, found '000001.jpg"


def a_value_missing(root):
    return (
        f"{rewrite(lists(root)[0], lambda x: [*x[:4], x[4][:-3], *x[5:]])}: line 5: a name and 40 values are expected"
    )


def another_value(root):
    path = rewrite(lists(root)[0], lambda x: [*x[:3], x[3][:-2] + " 0", *x[4:]])
    return f"{path}: line 4: a name and 40 values are expected, each one of -1, 1; found"


def a_word(root):
    path = rewrite(lists(root)[0], lambda x: [*x[:3], x[3][:-2] + " x", *x[4:]])
    return f"{path}: line 4: a name and 40 values are expected"


def another_part(root):
    path = rewrite(root / "celeba/Eval/list_eval_partition.txt", lambda x: [x[0][:-1] + "3", *x[1:]])
    return f"{path}: line 1: a name and 1 values are expected, each one of 0, 1, 2; found '000001.jpg 3'"


def twice(root):
    path = rewrite(root / "celeba/Eval/list_eval_partition.txt", lambda x: [*x, x[2]])
    return f"{path}: 000075.jpg is in it twice"


def all_packed(root):
    shutil.rmtree(root / "celeba")
    (root / "celeba").write_bytes(b"PK")
    return f"{root / 'celeba'}: a folder is expected, found a file"


def no_training(root):
    path = rewrite(root / "celeba/Eval/list_eval_partition.txt", lambda x: [line[:-1] + "1" for line in x])
    return f"{path}: there are no training images (part 0) in it"


def empty(root):
    path = root / "celeba/Eval/list_eval_partition.txt"
    path.write_text("")
    return f"{path}: there are no images in it"


def binary(root):
    path = root / "celeba/Eval/list_eval_partition.txt"
    path.write_bytes(b"\xff\xfe\x00")
    return f"{path}: this is no plain text"


def no_list(root):
    (root / "celeba/Eval/list_eval_partition.txt").unlink()
    return f"there is no list_eval_partition.txt in {root / 'celeba'}"


def csv(root):
    (root / "celeba/Eval/list_eval_partition.txt").rename(root / "celeba/Eval/list_eval_partition.csv")
    return f"{root / 'celeba/Eval/list_eval_partition.csv'} is a copy in another format"


def missing_image(root):
    for name in ("000038.jpg", "162771.jpg"):
        (root / "celeba/Img/img_align_celeba" / name).unlink()
    return f"{root / 'celeba/Img/img_align_celeba/000038.jpg'} is missing, an image of"


def packed(root):
    shutil.rmtree(root / "celeba/Img/img_align_celeba")
    path = root / "celeba/Img/img_align_celeba.zip"
    path.write_bytes(b"PK")
    return f"{path} is not unpacked: a folder img_align_celeba with the images is expected beside it. Type: unzip"


def packed_as_the_folder(root):
    shutil.rmtree(root / "celeba/Img/img_align_celeba")
    (root / "celeba/Img/img_align_celeba").write_bytes(b"PK")
    return f"{root / 'celeba/Img/img_align_celeba'}: a folder is expected, found a file"


def no_images(root):
    shutil.rmtree(root / "celeba/Img")
    return f"there are no images under {root / 'celeba/Img/img_align_celeba'} or"


def nothing(root):
    shutil.rmtree(root / "celeba")
    return "Download it with the images from mmlab.ie.cuhk.edu.hk/projects/CelebA.html"


@pytest.mark.parametrize(
    "damage",
    [
        cut_off, fewer_images, other_images, header, no_header, a_value_missing, another_value, a_word, another_part,
        no_training, twice, all_packed, empty, binary, no_list, csv, missing_image, packed, packed_as_the_folder,
        no_images, nothing,
    ],
)  # fmt: skip
def test_bad_folders_and_lists_are_named(root, damage):
    message = damage(root)
    with pytest.raises(ValueError, match=re.escape(message)):
        load(root)


def test_images_unpacked_into_a_folder_more_are_found(root):
    images = root / "celeba" / "Img" / "img_align_celeba"
    images.rename(root / "inner")
    images.mkdir()
    (root / "inner").rename(images / "img_align_celeba")
    assert len(load(root).split("train")) == TRAIN


def damaged_image(root, change):
    path = root / "celeba/Img/img_align_celeba/000001.jpg"
    change(path)
    dataset = load(root)
    with pytest.raises(ValueError, match=re.escape(str(path))) as error:
        dataset.split("train").__getitems__([(0, 1), (0, 0)])
    return str(error.value)


def test_damaged_images_are_named(root):
    def cut(path):
        path.write_bytes(path.read_bytes()[:-2000])

    assert "this image cannot be read (" in damaged_image(root, cut)
    assert "this image cannot be read (" in damaged_image(root, lambda path: path.write_bytes(b"no jpeg"))
    wild = PIL.Image.new("RGB", (409, 687))
    assert "178 x 218 is expected, found 409 x 687. Unpack img_align" in damaged_image(root, lambda p: wild.save(p))


@pytest.mark.parametrize(
    "closed", ["Img/img_align_celeba/000001.jpg", "Img/img_align_celeba", "Anno", "Anno/list_attr_celeba.txt"]
)
def test_what_may_not_be_read_is_named(whole, closed):
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        shutil.copytree(whole, name, dirs_exist_ok=True)
        for path in (Path(name), *Path(name).rglob("*")):
            path.chmod(0o755)
        path = Path(name) / "celeba" / closed
        path.chmod(0)
        if os.geteuid() == 0:  # root may read everything
            os.seteuid(65534)
        try:
            with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: may not be read .*Type: chmod a\+r"):
                load(name).split("train")[0, 0]
        finally:
            os.seteuid(os.getuid())
            path.chmod(0o755)


def test_help_of_a_data_set_begins_with_its_licence(capsys, monkeypatch):
    for name in ("celeba", "celeba_mgda", "multifashion", "multifashionmnist", "multimnist"):
        monkeypatch.setattr(sys, "argv", ["inspect", f"dataset={name}", "--help"])
        with pytest.raises(SystemExit, match="0"):
            inspect.main()
        text = capsys.readouterr().out
        assert text.split("\n")[2].startswith("Licence: ")
        assert "<machine.data>" in text


# whole commands

TINY = [
    "epochs=2", "batch_size=8", "dataset.size=[64,64]", "backbone=timm", "backbone.name=test_resnet",
    "backbone.output_stride=null", "backbone.weights=null", "backbone.pool=true", "machine.threads=1",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method", ["imtl", "uncertainty", "pcgrad"])
def test_synthesize_and_two_epochs(method, tmp_path):
    words = ["dataset=celeba", "dataset.train=16", "dataset.val=8", "dataset.test=8"]
    words = synthesize.translate([*words, f"machine.data={tmp_path}", "processes=1"])
    assert synthesize.synthesize(config.load(words, name="synthesize")) == "done"
    words = [
        f"method={method}",
        "dataset=celeba",
        *TINY,
        f"machine.data={tmp_path}",
        f"machine.runs={tmp_path / 'runs'}",
    ]
    assert train(*config.load_run(words)) == "done"
    (path,) = (tmp_path / "runs").glob("*/record.json")
    record = json.loads(path.read_text())
    words = ["dataset=celeba", f"machine.data={tmp_path}", f"folder={tmp_path}", "dataset.tasks=[attributes,landmarks]"]
    assert inspect.inspect(words) == "done"  # nothing is wrong with the folder
    assert (tmp_path / "celeba.png").stat().st_size > 10_000
    assert record["synthetic"]
    assert record["tasks"] == list(ATTRIBUTES)
    assert record["epochs"] == 2
    assert set(record["last"]) == {f"{name}/accuracy" for name in ATTRIBUTES}
    assert all(0 <= value <= 100 for value in record["last"].values())


@pytest.mark.slow
def test_landmarks_and_attributes_of_lsb_are_learned(tmp_path):
    """On 16 images that are seen again and again the losses fall well below those of the beginning."""
    written(tmp_path, train=16, val=0, test=2)
    words = ["method=equal", "dataset=celeba", *TINY, "epochs=24", "dataset.tasks=[landmarks,attributes]"]
    words += [f"machine.data={tmp_path}", f"machine.runs={tmp_path / 'runs'}", "optimizer=adam", "optimizer.lr=0.003"]
    assert train(*config.load_run([*words, "evaluate_every=24"])) == "done"
    (path,) = (tmp_path / "runs").glob("*/metrics.jsonl")
    losses = [json.loads(line)["losses"] for line in path.read_text().splitlines()]
    assert losses[-1]["landmarks"] < 0.3 * losses[0]["landmarks"]
    assert losses[-1]["attributes"] < 0.8 * losses[0]["attributes"]
