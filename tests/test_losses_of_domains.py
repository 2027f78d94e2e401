"""Losses of depth, normals, attributes, scenes and edges: against numpy, over ranks, without labels."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mtlbench.losses import (
    L1,
    MSE,
    BalancedBinaryCrossEntropy,
    BinaryCrossEntropy,
    Cosine,
    CrossEntropy,
    LogL1,
    Loss,
    NormalL1,
    ShiftedL1,
    SoftCrossEntropy,
)
from mtlbench.task import IGNORE


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hidden(shape: tuple[int, ...], labelled: float, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) >= labelled


def normals(seed: int, labelled: float = 0.7) -> tuple[Tensor, Tensor]:
    generator = drawn(seed)
    prediction, target = torch.randn(2, 4, 3, 5, 6, generator=generator, dtype=torch.float64)
    return prediction, F.normalize(target, dim=1).masked_fill(hidden((4, 1, 5, 6), labelled, generator), math.nan)


def depths(seed: int, labelled: float = 0.7) -> tuple[Tensor, Tensor]:
    generator = drawn(seed)
    prediction, target = torch.randn(2, 4, 1, 5, 6, generator=generator, dtype=torch.float64)
    return prediction, target.exp().masked_fill(hidden((4, 1, 5, 6), labelled, generator), math.nan)


def attributes(seed: int, labelled: float = 0.7) -> tuple[Tensor, Tensor]:
    generator = drawn(seed)
    target = torch.randint(0, 2, (4, 5), generator=generator).to(torch.uint8)
    target[hidden((4, 5), labelled, generator)] = IGNORE
    return torch.randn(4, 5, generator=generator, dtype=torch.float64), target


def edges(seed: int, labelled: float = 0.7) -> tuple[Tensor, Tensor]:
    generator = drawn(seed)
    target = (torch.rand(4, 5, 6, generator=generator) < 0.2).to(torch.uint8)
    target[hidden((4, 5, 6), labelled, generator)] = IGNORE
    return torch.randn(4, 1, 5, 6, generator=generator, dtype=torch.float64), target


def scenes(seed: int, labelled: float = 0.7) -> tuple[Tensor, Tensor]:
    generator = drawn(seed)
    prediction, target = torch.randn(2, 4, 7, generator=generator, dtype=torch.float64)
    return prediction, target.softmax(1).masked_fill(hidden((4, 1), labelled, generator), math.nan)


def classes(seed: int, labelled: float = 0.7) -> tuple[Tensor, Tensor]:
    prediction, target = edges(seed, labelled)
    return torch.cat([prediction, -prediction, prediction.square()], 1), target


def value(loss: Loss, prediction: Tensor, target: Tensor) -> Tensor:
    return loss(prediction, target, loss.counts(target))


def log_sigmoid(z: np.ndarray) -> np.ndarray:
    return -np.log1p(np.exp(-z))


@pytest.mark.parametrize("seed", range(4))
def test_normals_by_numpy(seed: int):
    prediction, target = normals(seed)
    p, t = prediction.numpy(), target.numpy()
    unit = p / np.sqrt((p**2).sum(1, keepdims=True))
    valid = ~np.isnan(t).any(1)
    cosines = (unit * t).sum(1)[valid]
    assert value(Cosine(), prediction, target).item() == pytest.approx(1 - cosines.mean())
    assert value(Cosine(normalise=False), prediction, target).item() == pytest.approx(1 - (p * t).sum(1)[valid].mean())
    absolute = np.abs(unit - t)[np.broadcast_to(valid[:, None], t.shape)]
    assert value(NormalL1(), prediction, target).item() == pytest.approx(absolute.mean())


@pytest.mark.parametrize("seed", range(4))
def test_depth_by_numpy(seed: int):
    prediction, target = depths(seed)
    target[0, 0, 0, :3] = torch.tensor([0.0, -1.0, math.nan])  # no depths: no labels
    p, t = prediction.numpy(), target.numpy()
    valid = t > 0
    expected = np.abs(p - np.log(np.where(valid, t, 1)))[valid].mean()
    assert value(LogL1(), prediction, target).item() == pytest.approx(expected)
    assert value(LogL1("value"), prediction.exp(), target).item() == pytest.approx(expected)
    low = np.abs(np.log(np.maximum(p, 0.01)) - np.log(np.where(valid, t, 1)))[valid].mean()
    assert value(LogL1("value", least=0.01), prediction, target).item() == pytest.approx(low)
    labelled = ~np.isnan(t)
    squares = ((p - t)[labelled] ** 2).sum() / t.size
    assert value(MSE("all"), prediction, target).item() == pytest.approx(squares)


@pytest.mark.parametrize("seed", range(4))
def test_yes_and_no_by_numpy(seed: int):
    prediction, target = attributes(seed)
    z, y = prediction.numpy(), target.numpy()
    terms = -np.where(y == 1, log_sigmoid(z), log_sigmoid(-z))
    labelled = y != IGNORE
    assert value(BinaryCrossEntropy(), prediction, target).item() == pytest.approx(terms[labelled].mean())
    images = labelled.any(1).sum()
    by_image = terms[labelled].sum() / images
    assert value(BinaryCrossEntropy("images"), prediction, target).item() == pytest.approx(by_image)
    one = value(BinaryCrossEntropy(), prediction[:, :1], target[:, 0])  # one attribute as a task
    assert one.item() == pytest.approx(terms[:, 0][labelled[:, 0]].mean())
    prediction, target = edges(seed)
    z, y = prediction.numpy()[:, 0], target.numpy()
    terms = -np.where(y == 1, log_sigmoid(z), log_sigmoid(-z))
    number = (y != IGNORE).sum()
    for weight in (None, 0.95):
        w = (y == 0).sum() / number if weight is None else weight
        expected = (w * terms[y == 1].sum() + (1 - w) * terms[y == 0].sum()) / number
        assert value(BalancedBinaryCrossEntropy(weight), prediction, target).item() == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_scenes_and_moos_division_by_numpy(seed: int):
    prediction, target = scenes(seed)
    labelled = ~target.isnan().any(1)
    expected = F.cross_entropy(prediction[labelled], target[labelled])
    assert torch.allclose(value(SoftCrossEntropy(), prediction, target), expected)
    prediction, target = classes(seed)
    total = F.cross_entropy(prediction, target.long(), ignore_index=IGNORE, reduction="sum")
    assert torch.allclose(value(CrossEntropy(divide_by="all"), prediction, target), total / target.numel())


def by_the_code_of_standley(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """The least over nine shifts for each image, as the public code takes it."""
    target, mask = target[:, :, 1:-1, 1:-1], mask[:, :, 1:-1, 1:-1]
    ends = {0: slice(0, -2), 1: slice(1, -1), 2: slice(2, None)}
    each = [((output[:, :, ends[y], ends[x]] - target).abs() * mask).mean((1, 2, 3)) for y in ends for x in ends]
    return torch.stack(each).amin(0).mean()


@pytest.mark.parametrize("seed", range(4))
def test_taskonomys_losses_are_standleys(seed: int):
    prediction, target = depths(seed)
    mask = (~target.isnan()).double()
    known = target.nan_to_num(0.0)
    assert torch.allclose(value(L1("all"), prediction, target), ((prediction - known).abs() * mask).mean())
    assert torch.allclose(value(ShiftedL1(), prediction, target), by_the_code_of_standley(prediction, known, mask))
    moved = known.roll((1, -1), (2, 3))  # a prediction that is right but for a shift of a pixel
    assert value(ShiftedL1(), moved, torch.where(mask > 0, target, torch.nan)) == 0


LOSSES = [
    (Cosine(), normals),
    (Cosine(normalise=False), normals),
    (NormalL1(), normals),
    (LogL1(), depths),
    (LogL1("value"), depths),
    (L1("all"), depths),
    (MSE("all"), depths),
    (ShiftedL1(), depths),
    (BinaryCrossEntropy(), attributes),
    (BinaryCrossEntropy("images"), attributes),
    (BalancedBinaryCrossEntropy(), edges),
    (BalancedBinaryCrossEntropy(0.95), edges),
    (SoftCrossEntropy(), scenes),
    (CrossEntropy(divide_by="all"), classes),
]
IDS = [f"{type(loss).__name__}-{i}" for i, (loss, _) in enumerate(LOSSES)]


@pytest.mark.parametrize(("loss", "make"), LOSSES, ids=IDS)
@pytest.mark.parametrize("parts", [[1, 3], [2, 2], [1, 1, 2]])
def test_ranks_together_are_one_process(loss: Loss, make, parts: list[int]):
    """The shares of parts of unequal valid counts, one without any label, add up to the loss and its gradient."""
    prediction, target = make(7, labelled=0.6)
    target[: parts[0]] = IGNORE if target.dtype == torch.uint8 else math.nan
    whole = prediction.clone().requires_grad_()
    expected = value(loss, whole, target)
    expected.backward()
    split = prediction.clone().requires_grad_()
    counts = sum(loss.counts(part) for part in target.split(parts))
    assert torch.equal(counts, loss.counts(target))
    assert counts.dtype == torch.float64
    shares = [loss(p, t, counts) for p, t in zip(split.split(parts), target.split(parts), strict=True)]
    sum(shares).backward()
    assert shares[0] == 0
    assert torch.allclose(sum(shares), expected)
    assert torch.allclose(split.grad, whole.grad)
    assert (split.grad[: parts[0]] == 0).all()
    assert (whole.grad != 0).any()


@pytest.mark.parametrize(("loss", "make"), LOSSES, ids=IDS)
def test_nothing_labelled_is_zero_with_a_zero_gradient_and_absent(loss: Loss, make):
    prediction, target = make(0, labelled=0.0)
    prediction.requires_grad_()
    assert loss.counts(target)[0] == 0
    found = value(loss, prediction, target)
    found.backward()
    assert found == 0
    assert (prediction.grad == 0).all()


@pytest.mark.parametrize(("loss", "make"), [x for x in LOSSES if x[1] is not classes], ids=IDS[:-1])
def test_what_lies_under_a_missing_label_never_counts(loss: Loss, make):
    prediction, target = make(1)
    absent = target == IGNORE if target.dtype == torch.uint8 else target.isnan()
    absent = absent.reshape(-1, 1, 5, 6) if make is edges else absent
    expected = value(loss, prediction, target)
    for wild in (1e300, math.inf, math.nan):
        there = prediction.masked_fill(absent, wild)
        if isinstance(loss, ShiftedL1):  # what is beside a missing label is compared
            continue
        there.requires_grad_()
        found = value(loss, there, target)
        found.backward()
        assert torch.allclose(found, expected)
        assert there.grad.isfinite().all()


@pytest.mark.parametrize(("loss", "make"), LOSSES, ids=IDS)
def test_a_nan_of_the_network_is_seen(loss: Loss, make):
    prediction, target = make(1, labelled=1.0)
    prediction[0, 0] = math.nan
    assert value(loss, prediction, target).isnan()


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="labelled or all terms, not by 'pixels'"):
        CrossEntropy(divide_by="pixels")
    with pytest.raises(ValueError, match="terms or images, not by 'all'"):
        BinaryCrossEntropy("all")
    with pytest.raises(ValueError, match=r"positive_weight=1\.0"):
        BalancedBinaryCrossEntropy(1.0)
    with pytest.raises(ValueError, match="log or value"):
        LogL1("depth")
