"""Fashion-MNIST's pairs and the mix with MNIST, on IDX files written here; and on the real ones where they are."""

import gzip
import json
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mtlbench import config
from mtlbench.datasets.idx import FASHION, MNIST, Digits, find, read_digits
from mtlbench.datasets.multifashion import MultiFashion, MultiFashionMNIST
from mtlbench.train import train

DEBIAN = Path(FASHION.places[-1])
RIGHT_PIXEL = 25  # of a pair; comes from row and column 32 of the canvas, which only the right image reaches
ABSENT = FASHION._replace(places=FASHION.places[:-1])
"""Without what the system may have installed."""


def write(folder, train, test, packed=False):
    """Four IDX files of images whose pixels all hold their own number; labels are its last digit."""
    folder.mkdir(parents=True)
    for prefix, numbers in (("train", train), ("t10k", test)):
        numbers = np.array(numbers, np.uint8)
        images = np.broadcast_to(numbers[:, None, None], (len(numbers), 28, 28)).tobytes()
        for name, content in (
            (f"{prefix}-images-idx3-ubyte", np.array([2051, len(numbers), 28, 28], ">i4").tobytes() + images),
            (f"{prefix}-labels-idx1-ubyte", np.array([2049, len(numbers)], ">i4").tobytes() + (numbers % 10).tobytes()),
        ):
            (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)


def fashion(folder, **options):
    defaults = {"seed": 0, "tasks": None, "validation": 8, "construction_seed": 0, "stretch": False}
    return MultiFashion(folder=folder, **{**defaults, "allow_same": False, **options})


def mixed(folder, **options):
    defaults = {"seed": 0, "tasks": None, "validation": 8, "construction_seed": 0, "stretch": False, "first": "mnist"}
    return MultiFashionMNIST(folder=folder, **{**defaults, **options})


def members(split):
    """Numbers of the left and right images; where images overlap the larger one shows, so they are read at corners."""
    return split.images[:, 0, 0].tolist(), split.images[:, RIGHT_PIXEL, RIGHT_PIXEL].tolist()


@pytest.fixture
def both(tmp_path):
    write(tmp_path / "mnist", range(1, 41), range(41, 51))
    write(tmp_path / "fashion-mnist", range(101, 161), range(161, 181), packed=True)
    return tmp_path


def test_fashion_is_multimnists_construction_on_other_files(both):
    dataset = fashion(both)
    parts = {name: members(dataset.split(name)) for name in ("train", "val", "test")}
    assert {name: len(left) for name, (left, _) in parts.items()} == {"train": 52, "val": 8, "test": 20}
    assert sorted(parts["train"][0] + parts["val"][0]) == list(range(101, 161))
    seen = {name: {*left, *right} for name, (left, right) in parts.items()}
    assert not seen["train"] & seen["val"]
    assert dataset.fingerprint().startswith("multifashion 60+20 images ")
    with pytest.raises(ValueError, match="there are 60 training images, so it must be from 0 to 59"):
        fashion(both, validation=60).split("train")


@pytest.mark.parametrize("first", ["mnist", "fashion"])
def test_the_mix_has_one_image_of_either_set(both, first):
    dataset = mixed(both, first=first)
    pairs = {name: members(dataset.split(name)) for name in ("train", "val", "test")}
    clothes = {True: set(range(101, 181)), False: set(range(1, 51))}
    for left, right in pairs.values():
        assert set(left) <= clothes[first == "fashion"]
        assert set(right) <= clothes[first == "mnist"]
        assert len(set(left)) == len(left)  # each once
    for side in (0, 1):
        seen = [set(pairs[name][side]) for name in ("train", "val", "test")]
        assert len(set.union(*seen)) == sum(map(len, seen))  # no image of one part is in another
    assert len(pairs["train"][0]) == (32 if first == "mnist" else 52)
    assert len(pairs["val"][0]) == 8
    for side, task in enumerate(("left", "right")):
        numbers = torch.tensor(pairs["train"][side])
        assert torch.equal(dataset.split("train").targets[task], numbers.long() % 10)


def test_the_mix_is_a_function_of_its_construction_seed(both):
    def pairs(**options):
        return members(mixed(both, **options).split("train"))

    assert pairs() == pairs(seed=5)
    assert pairs() != pairs(construction_seed=1)
    assert set(mixed(both, tasks=["right"]).split("test").targets) == {"right"}
    assert mixed(both, validation=0).split("val") is None
    with pytest.raises(ValueError, match="there are 40 training images, so it must be from 0 to 39"):
        mixed(both, validation=40).split("val")
    with pytest.raises(ValueError, match=r"dataset\.first=top: mnist or fashion is expected"):
        mixed(both, first="top")


@pytest.mark.parametrize(("source", "place"), [(FASHION, "FashionMNIST/raw"), (MNIST, "MNIST/raw")])
def test_torchvisions_folders_are_found(tmp_path, source, place):
    write(tmp_path / place, [7], [8, 9])
    assert find(tmp_path, source) == tmp_path / place
    found = read_digits(tmp_path, "t10k", source)
    assert isinstance(found, Digits)
    assert found.labels.tolist() == [8, 9]
    write(tmp_path / source.places[0], [1], [2])
    assert read_digits(tmp_path, "t10k", source).labels.tolist() == [2]  # the first place wins


def test_nowhere_says_how_to_get_it(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)no IDX files under .*fashion-mnist or .*FashionMNIST/raw.*apt-get ins"):
        find(tmp_path, ABSENT)
    (tmp_path / "fashion-mnist").mkdir()
    (tmp_path / "fashion-mnist" / "archive.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'fashion-mnist' / 'archive.zip'} is there: unpack")):
        find(tmp_path, ABSENT)
    (tmp_path / "mnist").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"mnist: a folder is expected, found a file\. Unpack"):
        find(tmp_path, MNIST)


def test_a_wrong_magic_number_and_a_folder_in_place_of_a_file(both):
    path = both / "fashion-mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(np.array([2049, 60], ">i4").tobytes() + b"\0" * 60))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: expected an IDX file of images.*2051, found 2049"):
        fashion(both).split("train")
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: a file is expected, found a folder"):
        fashion(both).split("train")


@pytest.mark.parametrize("closed", ["t10k-labels-idx1-ubyte", "."])
def test_what_may_not_be_read_is_named(closed):
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        write(Path(name) / "mnist", [1], [2])
        for path in (Path(name), *Path(name).rglob("*")):
            path.chmod(0o755)
        path = Path(name) / "mnist" / closed
        path.chmod(0)
        if os.geteuid() == 0:  # root may read everything
            os.seteuid(65534)
        try:
            with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: may not be read .*Type: chmod a\+r"):
                read_digits(Path(name), "t10k", MNIST)
        finally:
            os.seteuid(os.getuid())
            path.chmod(0o755)


@pytest.mark.slow
def test_two_epochs_on_the_real_fashion_mnist(tmp_path):
    if not (DEBIAN / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip(f"no real Fashion-MNIST in {DEBIAN}: apt-get install dataset-fashion-mnist")
    words = ["experiment=quick_multifashion", "method=imtl", f"machine.data={tmp_path}", f"machine.runs={tmp_path}"]
    loaded, choices = config.load_run([*words, "machine.threads=1"])
    assert train(loaded, choices) == "done"
    (record,) = (json.loads(path.read_text()) for path in tmp_path.glob("*/record.json"))
    assert record["fingerprint"].startswith("multifashion 60000+10000 images ")
    assert not record["synthetic"]
    lines = [json.loads(line) for line in (tmp_path / record["run"] / "metrics.jsonl").read_text().splitlines()]
    assert [line["steps"] for line in lines] == [195, 195]  # of 256 of the 50,000 that are not held out
    assert all(lines[-1]["test"][f"{task}/accuracy"] > 50 for task in ("left", "right"))
