import gzip
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image

from mtlbench import config, schedule
from mtlbench.architectures.multi_decoder import MultiDecoder
from mtlbench.backbones.lenet import LeNet
from mtlbench.datasets.multidigits import MultiDigits, enlarge
from mtlbench.datasets.multimnist import Digits, MultiMNIST, draw_pairs, hold_out, overlay
from mtlbench.heads.lenet import LeNetHead
from mtlbench.loader import EvaluationOrder, TrainingOrder, loader
from mtlbench.methods.equal import Equal
from mtlbench.parallel import Ranks
from mtlbench.step import step

NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
TRAIN, TEST = 64, 16
RIGHT_PIXEL = 25  # of a pair; comes from row and column 32 of the canvas, which only the right digit reaches


def images_idx(images):
    return np.array([2051, *images.shape], dtype=">i4").tobytes() + images.tobytes()


def labels_idx(labels):
    return np.array([2049, len(labels)], dtype=">i4").tobytes() + labels.astype(np.uint8).tobytes()


def numbered(count, first):
    """Digits whose pixels all hold the digit's own number, so that a pair tells whom it was made of."""
    numbers = np.arange(first, first + count, dtype=np.uint8)
    return Digits(np.broadcast_to(numbers[:, None, None], (count, 28, 28)).copy(), numbers % 10)


def write(folder, packed=False, train=None, test=None):
    """The four files under folder/mnist: training digits 1 to 64, test digits 101 to 116."""
    (folder / "mnist").mkdir(exist_ok=True)
    for digits, (image_name, label_name) in zip(
        (train or numbered(TRAIN, 1), test or numbered(TEST, 101)), NAMES.values(), strict=True
    ):
        for name, content in ((image_name, images_idx(digits.images)), (label_name, labels_idx(digits.labels))):
            path = folder / "mnist" / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(content) if packed else content)
    return folder


def mnist(folder, **options):
    defaults = {"seed": 0, "tasks": None, "validation": 10, "construction_seed": 0, "stretch": False}
    return MultiMNIST(folder=folder, **{**defaults, "allow_same": False, **options})


def multidigits(**options):
    defaults = {"seed": 0, "tasks": None, "construction_seed": 0, "stretch": True, "allow_same": False}
    counts = {"val_digits": 300, "test_digits": 300, "train_pairs": 1000, "val_pairs": 200, "test_pairs": 100}
    return MultiDigits(folder=Path("nowhere"), **{**defaults, **counts, **options})


def members(split):
    """The numbers of the left and the right digits of every pair of numbered digits."""
    return split.images[:, 0, 0].tolist(), split.images[:, RIGHT_PIXEL, RIGHT_PIXEL].tolist()


@pytest.mark.parametrize("stretch", [False, True])
def test_overlay_is_the_literal_construction(stretch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (6, 28, 28)).astype(np.uint8)
    images[5] = 0
    left, right = np.array([0, 1, 2, 3, 5, 5]), np.array([4, 1, 0, 5, 2, 5])
    found = overlay(images, left, right, stretch)
    for i, j, pair in zip(left, right, found, strict=True):
        canvas = np.zeros((36, 36))
        canvas[0:28, 0:28] = images[i]
        canvas[6:34, 6:34] = images[j]
        canvas[6:28, 6:28] = np.maximum(images[i][6:28, 6:28], images[j][0:22, 0:22])
        if stretch and canvas.max() > 0:  # scipy.misc.bytescale
            canvas = (canvas - canvas.min()) * (255 / (canvas.max() - canvas.min())) + 0.5
        expected = np.asarray(Image.fromarray(canvas.astype(np.uint8)).resize((28, 28), Image.Resampling.NEAREST))
        np.testing.assert_array_equal(pair, expected)
    if stretch:
        assert canvas.max() == 0  # two empty digits stay empty
        assert found[0].max() > 250


def test_stretch_uses_the_whole_canvas_before_resizing():
    images = np.zeros((2, 28, 28), dtype=np.uint8)
    images[0, 0, 2] = 100  # column 2 of the canvas is one that nearest-neighbour resizing leaves out
    images[1, 10, 10] = 60
    kept = overlay(images, np.array([0]), np.array([1]), stretch=True)
    assert 2 not in ((np.arange(28) + 0.5) * 36 / 28).astype(int)
    assert kept.max() == 153  # 60 * 255 / 100


def test_every_digit_is_left_in_turn_and_meets_a_different_one():
    left, right = draw_pairs(7, 7000, np.random.default_rng(0), allow_same=False)
    assert np.bincount(left).tolist() == [1000] * 7
    assert (left != right).all()
    counts = np.bincount(left * 7 + right, minlength=49).reshape(7, 7)
    others = counts[~np.eye(7, dtype=bool)]
    assert abs(others - 1000 / 6).max() < 5 * np.sqrt(1000 / 6)  # uniform over the six others


def test_allow_same_pairs_a_digit_with_itself_at_times():
    left, right = draw_pairs(7, 7000, np.random.default_rng(0), allow_same=True)
    assert abs((left == right).sum() - 1000) < 5 * np.sqrt(1000)
    assert set(right.tolist()) == set(range(7))


@pytest.mark.parametrize("count", [0, 1, 37, 100, 199])
def test_hold_out_keeps_every_class_in_its_share(count):
    labels = np.repeat(np.arange(10), 20)
    digits = Digits(np.arange(200).reshape(200, 1, 1), labels)
    kept, held = hold_out(digits, count, np.random.default_rng(0))
    assert sorted([*kept.images.flat, *held.images.flat]) == list(range(200))
    assert len(held.labels) == count
    assert (labels[held.images.flatten()] == held.labels).all()
    assert abs(np.bincount(held.labels, minlength=10) - count / 10).max() < 1


@pytest.mark.parametrize("packed", [False, True])
def test_parts_of_multimnist_are_apart_before_pairing(tmp_path, packed):
    dataset = mnist(write(tmp_path, packed))
    parts = {name: members(dataset.split(name)) for name in ("train", "val", "test")}
    assert {name: len(left) for name, (left, _) in parts.items()} == {"train": 54, "val": 10, "test": 16}
    for left, right in parts.values():
        assert len(set(left)) == len(left)  # each digit is the left one once
        assert set(right) <= set(left)
        assert all(i != j for i, j in zip(left, right, strict=True))
    assert set(parts["train"][0]) | set(parts["val"][0]) == set(range(1, 65))
    assert not set(parts["train"][0]) & set(parts["val"][0])
    assert set(parts["test"][0]) == set(range(101, 117))


def test_targets_are_the_labels_of_the_two_digits(tmp_path):
    split = mnist(write(tmp_path)).split("train")
    left, right = members(split)
    assert split.targets["left"].tolist() == [number % 10 for number in left]
    assert split.targets["right"].tolist() == [number % 10 for number in right]
    assert split.targets["left"].dtype == torch.int64


def test_without_validation_all_digits_train(tmp_path):
    dataset = mnist(write(tmp_path), validation=0)
    assert len(dataset.split("train")) == TRAIN
    assert dataset.split("val") is None


def test_construction_is_a_function_of_its_own_seed_alone(tmp_path):
    write(tmp_path)

    def pairs(name, **options):
        return members(mnist(tmp_path, **options).split(name))

    assert pairs("train", seed=0) == pairs("train", seed=7)
    assert pairs("train", construction_seed=0) != pairs("train", construction_seed=1)
    assert set(pairs("val", construction_seed=0)[0]) != set(pairs("val", construction_seed=1)[0])
    both = numbered(TEST, 101)
    write(tmp_path, train=both, test=both)
    assert pairs("train", validation=0)[1] != pairs("test")[1]  # the same digits, other partners


def test_a_batch_is_the_stack_of_its_items_and_normalised(tmp_path):
    train = Digits(np.zeros((TRAIN, 28, 28), dtype=np.uint8), np.arange(TRAIN) % 10)
    train.images[:, 0, 0] = 255
    dataset = mnist(write(tmp_path, train=train), validation=0)
    split = dataset.split("train")
    keys = [(3, 5), (3, 0), (3, 63)]
    batch = split.__getitems__(keys)
    items = [split[key] for key in keys]
    assert torch.equal(batch.image, torch.stack([image for image, _ in items]))
    assert all(torch.equal(batch.targets[t], torch.stack([targets[t] for _, targets in items])) for t in dataset.tasks)
    assert batch.image.shape == (3, 1, 28, 28)
    assert batch.image.dtype == torch.float32
    assert batch.image.min().item() == pytest.approx(-0.1307 / 0.3081)
    assert batch.image.max().item() == pytest.approx((1 - 0.1307) / 0.3081)


@pytest.mark.parametrize("workers", [0, 1])
def test_loader_takes_whole_batches(tmp_path, workers):
    split = mnist(write(tmp_path)).split("train")
    order = TrainingOrder(len(split), 20, 0, Ranks())
    batches = list(loader(split, order, workers, torch.device("cpu")))
    assert [batch.image.shape for batch in batches] == [(20, 1, 28, 28)] * 2
    expected = split.__getitems__(next(iter(order)))
    assert torch.equal(batches[0].image, expected.image)
    assert torch.equal(batches[0].targets["right"], expected.targets["right"])
    seen = loader(split, EvaluationOrder(len(split), 20, Ranks()), workers, torch.device("cpu"))
    assert torch.equal(torch.cat([batch.targets["left"] for batch in seen]), split.targets["left"])


def test_one_task_sees_the_same_images(tmp_path):
    write(tmp_path)
    both, right = mnist(tmp_path), mnist(tmp_path, tasks=["right"])
    assert list(both.tasks) == ["left", "right"]
    assert list(right.tasks) == list(right.split("train").targets) == ["right"]
    assert torch.equal(both.split("train").images, right.split("train").images)
    with pytest.raises(ValueError, match="multimnist has the tasks left, right; unknown: top"):
        mnist(tmp_path, tasks=["top"])


def test_fingerprint_is_of_the_content(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    plain = mnist(write(tmp_path / "a")).fingerprint()
    assert plain == mnist(write(tmp_path / "b", packed=True), validation=0, construction_seed=5).fingerprint()
    other = numbered(TRAIN, 1)
    other.images[3, 4, 5] += 1
    assert mnist(write(tmp_path / "a", train=other)).fingerprint() != plain
    relabelled = numbered(TRAIN, 1)
    relabelled.labels[0] = 9
    assert mnist(write(tmp_path / "a", train=relabelled)).fingerprint() != plain


def damage_missing(folder):
    (folder / "train-labels-idx1-ubyte").unlink()
    return "there is no train-labels-idx1-ubyte (or train-labels-idx1-ubyte.gz) under"


def damage_magic(folder):
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes((folder / "train-labels-idx1-ubyte").read_bytes())
    return f"{path}: expected an IDX file of images, which begins with the number 2051, found 2049"


def damage_labels_magic(folder):
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes((folder / "t10k-images-idx3-ubyte").read_bytes())
    return f"{path}: expected an IDX file of labels, which begins with the number 2049, found 2051"


def damage_truncated(folder):
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    return f"{path}: expected {16 + TEST * 784:,} bytes, found {15 + TEST * 784:,}: truncated"


def damage_header_only(folder):
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:10])
    return f"{path}: expected 17 bytes, found 10: truncated"


def damage_empty(folder):
    path = folder / "train-labels-idx1-ubyte"
    path.write_bytes(b"")
    return f"{path}: expected 9 bytes, found 0: truncated"


def damage_counts(folder):
    path = folder / "train-labels-idx1-ubyte"
    path.write_bytes(labels_idx(np.zeros(TRAIN - 1)))
    return f"{path} has 63 labels, {folder / 'train-images-idx3-ubyte'} has 64 images"


def damage_size(folder):
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(images_idx(np.zeros((TRAIN, 28, 27), dtype=np.uint8)))
    return f"{path}: expected images of 28 x 28 pixels, found 28 x 27"


def damage_label(folder):
    path = folder / "train-labels-idx1-ubyte"
    path.write_bytes(labels_idx(np.full(TRAIN, 10)))
    return f"{path}: expected labels from 0 to 9, found 10"


def damage_no_images(folder):
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(images_idx(np.zeros((0, 28, 28), dtype=np.uint8)))
    (folder / "train-labels-idx1-ubyte").write_bytes(labels_idx(np.zeros(0)))
    return f"{path}: there are no images in it"


@pytest.mark.parametrize(
    "damage",
    [
        damage_missing,
        damage_magic,
        damage_labels_magic,
        damage_truncated,
        damage_header_only,
        damage_empty,
        damage_counts,
        damage_size,
        damage_label,
        damage_no_images,
    ],
)
def test_bad_files_are_named(tmp_path, damage):
    message = damage(write(tmp_path) / "mnist")
    dataset = mnist(tmp_path)
    for read in (dataset.fingerprint, lambda: dataset.split("train")):
        with pytest.raises(ValueError, match=re.escape(message)):
            read()


@pytest.mark.parametrize("change", [lambda b: b[: len(b) // 2], lambda b: b"not packed", lambda b: b[:-8] + b"\1" * 8])
def test_a_damaged_packed_file_is_named(tmp_path, change):
    path = write(tmp_path, packed=True) / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: truncated or damaged"):
        mnist(tmp_path).fingerprint()


def test_no_folder_says_where_to_put_what(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)under .*mnist.*four IDX files.*machine\.data=.*dataset=multidigits"):
        mnist(tmp_path / "nothing").split("train")


@pytest.mark.parametrize(("validation", "message"), [(64, "from 0 to 63"), (-1, "from 0 to 63"), (1, "two different")])
def test_validation_that_does_not_fit(tmp_path, validation, message):
    dataset = mnist(write(tmp_path), validation=validation)
    with pytest.raises(ValueError, match=message):
        dataset.split("val")


def test_multidigits_parts_are_apart_and_in_their_shares():
    dataset = multidigits()
    everything = {image.tobytes() for image in dataset.source[0].images}
    parts = {name: {i.tobytes() for i in digits.images} for name, digits in dataset.parts.items()}
    assert {name: len(images) for name, images in parts.items()} == {"train": 1197, "val": 300, "test": 300}
    assert set.union(*parts.values()) == everything
    assert len(everything) == 1797  # no two digits are alike, so the sets above are disjoint
    share = np.bincount(dataset.source[0].labels) / 1797
    for digits in dataset.parts.values():
        assert abs(np.bincount(digits.labels) / len(digits.labels) - share).max() < 0.01


def test_multidigits_pairs():
    dataset = multidigits(train_pairs=3000)
    train = dataset.split("train")
    assert (len(train), len(dataset.split("val")), len(dataset.split("test"))) == (3000, 200, 100)
    digits = dataset.parts["train"]
    left, right = draw_pairs(1197, 3000, dataset.rng("pairs of train"), allow_same=False)
    assert train.targets["left"].tolist() == digits.labels[left].tolist()
    assert train.targets["right"].tolist() == digits.labels[right].tolist()
    np.testing.assert_array_equal(train.images.numpy(), overlay(digits.images, left, right, stretch=True))
    assert np.bincount(left).max() - np.bincount(left).min() == 1


def test_enlarged_digits_keep_their_values():
    images = np.zeros((2, 8, 8))
    images[0] = 16
    images[1, 4, 4] = 16
    large = enlarge(images)
    assert large.dtype == np.uint8
    assert (large[0, 4:24, 4:24] == 255).all()
    assert large[0].sum() == 255 * 400  # the margin is empty
    assert abs(large[1].astype(float).sum() - 255 * 400 / 64) < 0.05 * 255 * 400 / 64
    row, column = np.unravel_index(large[1].argmax(), (28, 28))
    assert row == column
    assert abs(row - (4 + 4.5 * 20 / 8 - 0.5)) <= 1


def test_multidigits_fingerprint_is_the_data():
    assert multidigits().fingerprint() == multidigits(construction_seed=3, test_digits=10).fingerprint()
    assert multidigits().fingerprint().startswith("multidigits 1797 digits ")


def test_multidigits_without_validation_or_test():
    dataset = multidigits(val_digits=0, test_digits=0)
    assert dataset.split("val") is None
    assert dataset.split("test") is None
    assert len(dataset.parts["train"].labels) == 1797


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_digits": 1000, "test_digits": 797}, "there are 1,797 digits, and some must be left"),
        ({"test_digits": -1}, "there are 1,797 digits"),
        ({"train_pairs": 0}, "train_pairs=0: expected 1 or more"),
        ({"test_pairs": -1}, "test_pairs=-1: expected 0 or more"),
        ({"val_digits": 1}, "the val part has 1 digits, and a pair needs two different ones"),
    ],
)
def test_multidigits_refuses_what_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        multidigits(**options).split("val")


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ValueError, match="pip install scikit-learn"):
        multidigits().fingerprint()


def test_options_compose(tmp_path):
    digits = config.load(["experiment=mgda_multidigits"])
    assert (digits.epochs, digits.batch_size, digits.optimizer.lr) == (15, 256, 0.05)
    dataset = instantiate(digits.dataset, folder=tmp_path, seed=digits.seed)
    head = instantiate(digits.head)
    model = instantiate(digits.architecture, backbone=instantiate(digits.backbone), head=head, tasks=dataset.tasks)
    assert [p.shape for p in model(dataset.split("test").__getitems__([(0, 0)]).image).values()] == [(1, 10)] * 2
    assert len(dataset.split("train")) == 10_000

    paper = config.load(["experiment=mgda_multimnist", "method=equal"])
    assert (paper.epochs, paper.batch_size, paper.optimizer.momentum) == (100, 256, 0.9)
    factor = instantiate(paper.schedule)
    assert [factor(epoch * 10, 10, 100) for epoch in (0, 29, 30, 60, 99)] == [1, 1, 0.5, 0.25, 0.125]
    paper.dataset.validation = 10
    assert len(instantiate(paper.dataset, folder=write(tmp_path), seed=0).split("train")) == 54
    plain = config.load(["dataset=multidigits", "dataset.tasks=[left]"])
    assert plain.backbone._target_.endswith("LeNet")
    assert plain.epochs == 15


@pytest.mark.slow
def test_it_learns():
    """Three of the fifteen epochs, with fewer pairs: far above the 10 % of guessing, on digits never seen."""
    dataset = multidigits(train_pairs=5120, test_pairs=1000)
    torch.manual_seed(0)
    model = MultiDecoder(LeNet(), partial(LeNetHead), dataset.tasks)
    method, factor = Equal(list(dataset.tasks)), schedule.poly(0.9)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    train, test = dataset.split("train"), dataset.split("test").__getitems__([(0, i) for i in range(1000)])
    order = TrainingOrder(len(train), 128, 0, Ranks())
    for order.epoch in range(3):
        for k, keys in enumerate(order):
            batch = train.__getitems__(keys)
            optimizer.param_groups[0]["lr"] = 0.05 * factor(order.epoch * len(order) + k, len(order), 3)
            assert step(model, dataset.tasks, method, batch.image, batch.targets).problem is None
            optimizer.step()
    with torch.no_grad():
        predictions = model.eval()(test.image)
    for name, prediction in predictions.items():
        assert (prediction.argmax(1) == test.targets[name]).double().mean() > 0.7
