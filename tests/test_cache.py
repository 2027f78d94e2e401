"""The cache of decoded images: the same arrays, one writer, never a part of it."""

import errno
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from mtlbench import build, cache, config
from mtlbench.cache import ImageFiles
from mtlbench.images import read_image

SIZES = [(4, 6), (8, 6), (5, 7), (64, 32)]


@pytest.fixture
def folder(tmp_path):
    """photos (RGB) and depths (16 bit) of a few sizes."""
    made = tmp_path / "data"
    made.mkdir()
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate(SIZES):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(made / f"photo{i}.png")
        Image.fromarray(rng.integers(0, 65536, (height, width), np.uint16)).save(made / f"depth{i}.png")
    return made


def files(folder: Path, read=read_image) -> ImageFiles:
    images = ImageFiles("things", folder)
    images.group("photos", sorted(folder.glob("photo*.png")), partial(read_image, mode="RGB"))
    images.group("depths", sorted(folder.glob("depth*.png")), read)
    return images


def all_arrays(images: ImageFiles) -> list[np.ndarray]:
    return [group(path) for group in images.groups.values() for path in group.paths]


def refuse(path):
    raise AssertionError(f"{path} was decoded")


def place(folder: Path, kind: str) -> Path:
    (found,) = (folder / "things").glob(f"{kind}-*")
    return found


def test_the_same_arrays_come_from_the_cache_without_decoding(folder, tmp_path):
    plain = files(folder)
    expected = all_arrays(plain)
    files(folder).keep_in(tmp_path / "cache")
    cached = files(folder, refuse)
    cached.keep_in(tmp_path / "cache")
    for found, wanted in zip(all_arrays(cached), expected, strict=True):
        assert found.dtype == wanted.dtype
        assert np.array_equal(found, wanted)
        assert not found.flags.writeable
    assert {array.dtype for array in expected} == {np.dtype(np.uint8), np.dtype(np.uint16)}
    names = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert names == {"pixels.bin", "index.npz", "lock"}


def test_a_reader_goes_to_a_worker_without_its_pixels(folder, tmp_path):
    images = files(folder)
    images.keep_in(tmp_path / "cache")
    group = images.groups["depths"]
    expected = group(group.paths[3]).copy()
    sent = pickle.dumps(group)
    assert len(sent) < 3000
    assert np.array_equal(pickle.loads(sent)(group.paths[3]), expected)


@pytest.mark.parametrize("change", ["size", "time", "one more", "one less"])
def test_other_files_have_another_cache(folder, tmp_path, change):
    files(folder).keep_in(tmp_path / "cache")
    path = folder / "depth1.png"
    if change == "size":
        Image.fromarray(np.zeros((9, 9), np.uint16)).save(path)
    elif change == "time":
        os.utime(path, ns=(1, 1))
    elif change == "one more":
        shutil.copy(path, folder / "depth9.png")
    else:
        path.unlink()
    images = files(folder)
    images.keep_in(tmp_path / "cache")
    assert [len(list((tmp_path / "cache" / "things").glob(f"{kind}-*"))) for kind in ("photos", "depths")] == [1, 2]
    for found, wanted in zip(all_arrays(images), all_arrays(files(folder)), strict=True):
        assert np.array_equal(found, wanted)


def test_broken_and_odd_files_are_read_as_without_a_cache(folder, tmp_path):
    whole = (folder / "depth3.png").read_bytes()
    (folder / "depth0.png").write_bytes(b"not an image")
    (folder / "depth3.png").write_bytes(whole[: len(whole) // 2])  # its size can be read, its pixels cannot
    Image.fromarray(np.full((3, 3), 7, np.uint8)).save(folder / "depth4.png")  # 8 bit among 16
    missing = folder / "depth5.png"
    images = ImageFiles("things", folder)
    group = images.group("depths", [*sorted(folder.glob("depth*.png")), missing], read_image)
    images.keep_in(tmp_path / "cache")
    for name in ("depth0", "depth3", "depth5"):
        with pytest.raises(ValueError, match=f"{name}.png: this PNG cannot be read"):
            group(folder / f"{name}.png")
    assert np.array_equal(group(folder / "depth1.png"), read_image(folder / "depth1.png"))
    assert group(folder / "depth4.png").tolist() == [[7] * 3] * 3


def test_no_file_can_be_read(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no")
    images = ImageFiles("things", tmp_path)
    group = images.group("depths", [tmp_path / "a.png"], read_image)
    images.keep_in(tmp_path / "cache")
    with pytest.raises(ValueError, match=r"a\.png"):
        group(tmp_path / "a.png")


class Stopped(Exception):
    pass


def test_it_goes_on_where_it_was_stopped(folder, tmp_path):
    decoded = []

    def read(path, limit=None):
        if limit and len(decoded) >= limit:
            raise Stopped
        decoded.append(path.name)
        return read_image(path)

    shutil.copy(folder / "depth1.png", folder / "depth4.png")
    with pytest.raises(Stopped):
        files(folder, partial(read, limit=4)).keep_in(tmp_path / "cache")  # one to plan, three to write
    left = place(tmp_path / "cache", "depths")
    assert (left / "pixels.partial").exists()
    assert not (left / "pixels.bin").exists()
    decoded.clear()
    images = files(folder, read)
    images.keep_in(tmp_path / "cache")
    assert decoded[0] == "depth0.png"  # to plan
    assert "depth0.png" not in decoded[1:]
    assert len(decoded) < 1 + 5
    for found, wanted in zip(all_arrays(images), all_arrays(files(folder)), strict=True):
        assert np.array_equal(found, wanted)


def test_what_was_not_sure_to_be_on_the_disk_is_written_again(folder, tmp_path):
    files(folder).keep_in(tmp_path / "cache")
    left = place(tmp_path / "cache", "depths")
    os.rename(left / "pixels.bin", left / "pixels.partial")
    (left / "synced.json").write_text('{"done": 4, "left_out": []}')
    os.truncate(left / "pixels.partial", 10)  # a crash of the machine
    images = files(folder)
    images.keep_in(tmp_path / "cache")
    assert np.array_equal(images.groups["depths"](folder / "depth0.png"), read_image(folder / "depth0.png"))


@pytest.mark.parametrize("damage", ["pixels.bin cut", "index.npz cut", "index.npz gone"])
def test_a_damaged_cache_is_not_used(folder, tmp_path, damage):
    files(folder).keep_in(tmp_path / "cache")
    name, how = damage.split()
    path = place(tmp_path / "cache", "depths") / name
    path.unlink() if how == "gone" else os.truncate(path, 100)
    images = files(folder)
    with pytest.warns(UserWarning, match="is damaged, and is written again"):
        images.keep_in(tmp_path / "cache")
    for found, wanted in zip(all_arrays(images), all_arrays(files(folder)), strict=True):
        assert np.array_equal(found, wanted)


def test_a_disk_too_small_is_refused_with_what_is_needed(folder, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 2000))
    images = files(folder)
    with pytest.raises(ValueError, match=r"0\.0 MB are needed in .* \(photos 0\.0 MB, depths 0\.0 MB\).*machine.cache"):
        images.keep_in(tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("pixels*"))
    assert np.array_equal(images.groups["depths"](folder / "depth0.png"), read_image(folder / "depth0.png"))


def test_a_disk_that_fills_leaves_nothing_that_is_used(folder, tmp_path, monkeypatch):
    written = cache._write

    def full(file, data):
        if file.tell() > 200:
            file.write(data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        written(file, data)

    monkeypatch.setattr(cache, "_write", full)
    images = files(folder)
    with pytest.raises(ValueError, match=r"photos.*pixels.partial could not be written \(No space left on device\)"):
        images.keep_in(tmp_path / "cache")
    assert {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()} == {"lock"}
    assert np.array_equal(images.groups["photos"](folder / "photo0.png"), read_image(folder / "photo0.png", "RGB"))
    monkeypatch.undo()
    again = files(folder)
    again.keep_in(tmp_path / "cache")
    for found, wanted in zip(all_arrays(again), all_arrays(files(folder)), strict=True):
        assert np.array_equal(found, wanted)


def test_a_dataset_without_image_files_says_that_nothing_is_kept(tmp_path):
    words = ["dataset=multidigits", f"machine.cache={tmp_path / 'cache'}", f"machine.data={tmp_path}"]
    with pytest.warns(UserWarning, match="MultiDigits reads no image files, so nothing is kept"):
        build.dataset(config.load(words))
    assert not (tmp_path / "cache").exists()


SCRIPT = """
import resource, sys
from functools import partial
from pathlib import Path
from mtlbench.cache import ImageFiles
from mtlbench.images import read_image
folder, where, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
print("ready", flush=True)
sys.stdin.readline()
images = ImageFiles("things", folder)
images.group("photos", sorted(folder.glob("photo*.png")), partial(read_image, mode="RGB"))
try:
    images.keep_in(where)
except ValueError as error:
    sys.exit(str(error))
print([int(group(path).sum()) for group in images.groups.values() for path in group.paths])
"""


def start(folder: Path, where: Path, limit: int = 0) -> subprocess.Popen:
    words = [sys.executable, "-c", SCRIPT, str(folder), str(where), str(limit)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, **pipes)


@pytest.mark.slow
def test_of_several_processes_one_writes(folder, tmp_path):
    expected = [int(array.sum()) for array in all_arrays(files(folder))[: len(SIZES)]]
    several = [start(folder, tmp_path / "cache") for _ in range(3)]
    assert [process.stdout.readline() for process in several] == ["ready\n"] * 3
    for process in several:
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate() for process in several]
    assert [process.returncode for process in several] == [0, 0, 0], outputs
    assert [json.loads(out.splitlines()[-1]) for out, _ in outputs] == [expected] * 3
    assert sorted("cache of photos" in out for out, _ in outputs) == [False, False, True]


@pytest.mark.slow
def test_a_real_limit_on_the_size_of_files(folder, tmp_path):
    process = start(folder, tmp_path / "cache", limit=1000)
    _, errors = process.communicate("go\n")
    assert process.returncode == 1
    assert "pixels.partial could not be written (File too large)" in errors
    assert not list((tmp_path / "cache").rglob("pixels*"))


def test_another_writer_is_waited_for(folder, tmp_path, monkeypatch, capsys):
    """While this process waits, the other one finishes: nothing is decoded a second time."""
    real = cache.fcntl.flock

    def flock(lock, how):
        if how & cache.fcntl.LOCK_NB and not waited:
            waited.append(True)
            raise BlockingIOError
        if how == cache.fcntl.LOCK_EX and len(waited) == 1:
            waited.append(True)
            files(folder).keep_in(tmp_path / "cache")
            return
        real(lock, how)

    waited = []
    monkeypatch.setattr(cache.fcntl, "flock", flock)
    decoded = []
    images = files(folder, lambda path: decoded.append(path) or read_image(path))
    images.keep_in(tmp_path / "cache")
    assert "waiting for another process" in capsys.readouterr().out
    assert len(decoded) == 1  # to plan
    assert np.array_equal(images.groups["depths"](folder / "depth0.png"), read_image(folder / "depth0.png"))


def test_a_folder_that_cannot_be_made(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"machine.cache=.*file: cannot be written .*machine.cache=null"):
        files(folder).keep_in(tmp_path / "file")


@pytest.mark.parametrize("kind", ["palette", "one bit", "rgba", "float"])
def test_reading_images_of_other_kinds(tmp_path, kind):
    path = tmp_path / ("a.tif" if kind == "float" else "a.png")
    if kind == "palette":
        image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
        image.putpalette([9, 9, 9, 50, 60, 70, 1, 2, 3])
        image.save(path)
        assert read_image(path).tolist() == [[0, 1], [2, 1]]
        assert read_image(path, "RGB")[0].tolist() == [[9, 9, 9], [50, 60, 70]]
    elif kind == "one bit":
        Image.fromarray(np.array([[True, False]])).save(path)
        assert read_image(path).dtype == np.uint8
        assert read_image(path).tolist() == [[1, 0]]
    elif kind == "rgba":
        Image.fromarray(np.zeros((2, 2, 4), np.uint8)).save(path)
        with pytest.raises(ValueError, match="one grey channel is expected, found 4"):
            read_image(path)
    else:
        Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(path)
        with pytest.raises(ValueError, match="8 or 16 bits without a sign are expected, found float32"):
            read_image(path)


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    from mtlbench.synthesize import synthesize

    folder = tmp_path_factory.mktemp("data")
    words = ["synthetic@dataset=cityscapes", "dataset.height=64", "dataset.width=128", "dataset.train=3"]
    synthesize(config.load([*words, "dataset.val=1", "processes=1", f"machine.data={folder}"], "synthesize"))
    return folder


def items(folder: Path, *words: str) -> list[bytes]:
    composed = config.load(["dataset=cityscapes", "dataset.augmentation.crop=40", f"machine.data={folder}", *words])
    dataset = build.dataset(composed)
    found = []
    for part in ("train", "test"):
        split = dataset.split(part)
        for image, targets in (split[(epoch, i)] for epoch in range(2) for i in range(len(split))):
            found += [image.numpy().tobytes(), *(target.numpy().tobytes() for target in targets.values())]
    return found


def test_cityscapes_gives_the_same_bits_and_the_same_run(streets, tmp_path):
    word = f"machine.cache={tmp_path}"
    assert items(streets, word) == items(streets)
    one, other = (config.load(["dataset=cityscapes", *words]) for words in ([], [word]))
    assert config.run_id(one) == config.run_id(other)
    kinds = {path.name.rpartition("-")[0] for path in (tmp_path / "cityscapes").iterdir()}
    assert kinds == {"leftImg8bit", "gtFine_labelIds", "gtFine_instanceIds", "disparity"}
    items(streets, word, "dataset.tasks=[disparity]", "dataset.validation=1")
    assert len(list((tmp_path / "cityscapes").iterdir())) == 4  # shared by runs of other tasks


def test_a_configuration_from_before_has_no_such_key(streets):
    composed = config.load(["dataset=cityscapes", f"machine.data={streets}"])
    plain = OmegaConf.to_container(composed)
    del plain["machine"]["cache"]
    assert len(build.dataset(OmegaConf.create(plain)).split("train")) == 3


def test_only_what_a_crop_shows_is_converted(streets):
    """A crop of the whole image's labels, which is how it is defined, has the same bits."""
    from mtlbench.seeds import seed_of
    from mtlbench.transforms import normalise

    words = ["dataset.augmentation.crop=48", "dataset.augmentation.scale=[0.4,2.0]", "dataset.crowd=instance"]
    dataset = build.dataset(config.load(["dataset=cityscapes", f"machine.data={streets}", *words]))
    split = dataset.split("train")
    for epoch in range(6):
        image, targets = split[(epoch, 1)]
        torch.manual_seed(seed_of(0, "augment", epoch, 1))
        wanted, labels = dataset.augmentation(*split.read(1))
        assert torch.equal(image, normalise(wanted))
        for name, target in targets.items():
            assert torch.equal(
                torch.nan_to_num(target, 9e9), torch.nan_to_num(labels[name].as_subclass(torch.Tensor), 9e9)
            )
