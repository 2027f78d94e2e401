"""Losses against torch's own, metrics against torchmetrics; masks, splits over ranks and batches, absent classes."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchmetrics
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mtlbench.losses import L1, MSE, CrossEntropy, Scaled
from mtlbench.metrics import Accuracy, Confusion, MeanAbsoluteError, MeanSquaredError
from mtlbench.task import IGNORE, Loss, Meter

CLASSES = 5

quick = settings(deadline=None, derandomize=True, max_examples=30)
seeds = st.integers(0, 2**31)


def classes(seed: int, batch: int = 4, labelled: float = 0.7) -> tuple[Tensor, Tensor]:
    """Logits [B, C, 3, 4] float64 and a class map [B, 3, 4] uint8, part of it without a label."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, CLASSES, (batch, 3, 4), generator=generator).to(torch.uint8)
    target[torch.rand(batch, 3, 4, generator=generator) >= labelled] = IGNORE
    return torch.randn(batch, CLASSES, 3, 4, generator=generator, dtype=torch.float64), target


def values(seed: int, batch: int = 4, labelled: float = 0.7) -> tuple[Tensor, Tensor]:
    """Predictions and targets [B, 2, 3, 4] float64, whole pixels of the target without a label."""
    generator = torch.Generator().manual_seed(seed)
    prediction, target = torch.randn(2, batch, 2, 3, 4, generator=generator, dtype=torch.float64)
    hidden = torch.rand(batch, 1, 3, 4, generator=generator) >= labelled
    return prediction, target.masked_fill(hidden, math.nan)


def value(loss: Loss, prediction: Tensor, target: Tensor) -> Tensor:
    return loss(prediction, target, loss.counts(target))


@quick
@given(seeds)
def test_cross_entropy_is_torchs(seed: int):
    prediction, target = classes(seed)
    prediction.requires_grad_()
    found = value(CrossEntropy(), prediction, target)
    expected = F.cross_entropy(prediction, target.long(), ignore_index=IGNORE)
    assert torch.allclose(found, expected)
    assert torch.allclose(*(torch.autograd.grad(x, prediction)[0] for x in (found, expected)))
    vectors, labels = prediction[:, :, 0, 0], torch.where(target[:, 0, 0] == IGNORE, 0, target[:, 0, 0])
    assert torch.allclose(value(CrossEntropy(), vectors, labels), F.cross_entropy(vectors, labels.long()))


@quick
@given(seeds)
def test_regressions_are_torchs_over_valid_terms(seed: int):
    prediction, target = values(seed)
    valid = ~target.isnan()
    for loss, torchs in ((L1, F.l1_loss), (MSE, F.mse_loss)):
        expected = torchs(prediction[valid], target[valid])
        assert torch.allclose(value(loss(), prediction, target), expected)
        assert torch.allclose(value(loss("pixels"), prediction, target), 2 * expected)  # two channels a pixel
    assert torch.allclose(value(Scaled(L1(), 10.0), prediction, target), 10 * value(L1(), prediction, target))


LOSSES = [
    (CrossEntropy(), classes),
    (L1(), values),
    (L1("pixels"), values),
    (MSE(), values),
    (MSE("pixels"), values),
    (Scaled(CrossEntropy(), 10.0), classes),
]


@pytest.mark.parametrize(("loss", "make"), LOSSES)
@pytest.mark.parametrize("parts", [[1, 3], [2, 2], [1, 1, 2], [3, 1]])
def test_ranks_together_are_one_process(loss: Loss, make, parts: list[int]):
    """The shares of parts of unequal valid counts, one without any label, add up to the loss and its gradient."""
    prediction, target = make(7, labelled=0.5)
    target[: parts[0]] = IGNORE if target.dtype == torch.uint8 else math.nan
    whole = prediction.clone().requires_grad_()
    expected = value(loss, whole, target)
    expected.backward()
    split = prediction.clone().requires_grad_()
    counts = sum(loss.counts(part) for part in target.split(parts))
    assert torch.equal(counts, loss.counts(target))
    shares = [loss(p, t, counts) for p, t in zip(split.split(parts), target.split(parts), strict=True)]
    sum(shares).backward()
    assert shares[0] == 0
    assert torch.allclose(sum(shares), expected)
    assert torch.allclose(split.grad, whole.grad)
    assert (split.grad[: parts[0]] == 0).all()


@pytest.mark.parametrize(("loss", "make"), LOSSES)
def test_nothing_labelled_is_zero_with_a_zero_gradient(loss: Loss, make):
    prediction, target = make(0, labelled=0.0)
    prediction.requires_grad_()
    assert loss.counts(target)[0] == 0
    found = value(loss, prediction, target)
    found.backward()
    assert found == 0
    assert (prediction.grad == 0).all()


@pytest.mark.parametrize("loss", [L1(), MSE()])
def test_what_lies_under_an_unlabelled_pixel_never_counts(loss: Loss):
    prediction, target = values(1)
    hidden = target.isnan()
    expected = value(loss, prediction, target)
    for wild in (1e300, math.inf, math.nan):
        there = prediction.masked_fill(hidden, wild).requires_grad_()
        found = value(loss, there, target)
        found.backward()
        assert torch.allclose(found, expected)
        assert (there.grad[hidden] == 0).all()
        assert there.grad.isfinite().all()


def test_a_bad_number_in_data_or_network_is_seen():
    prediction, target = values(1, labelled=1.0)
    for wild in (math.inf, math.nan):
        bad = prediction.clone()
        bad[0, 0, 0, 0] = wild
        assert not value(L1(), bad, target).isfinite()
        assert not value(MSE(), bad, target).isfinite()
    target[0, 0, 0, 0] = math.inf
    assert not value(L1(), prediction, target).isfinite()


def test_the_first_count_is_the_number_of_valid_terms():
    _, target = values(2)
    pixels = (~target[:, 0].isnan()).sum()
    assert L1().counts(target) == 2 * pixels
    assert L1("pixels").counts(target) == pixels
    _, labels = classes(2)
    assert CrossEntropy().counts(labels) == (labels != IGNORE).sum()
    assert {loss.counts(make(3)[1]).dtype for loss, make in LOSSES} == {torch.float64}
    many = torch.zeros(1, dtype=torch.uint8).expand(2**24 + 1)  # more than float32 can count
    assert CrossEntropy().counts(many) == 2**24 + 1


def test_unknown_options_are_refused():
    for make in (L1, MSE):
        with pytest.raises(ValueError, match="components, pixels or all, not 'mean'"):
            make("mean")
    with pytest.raises(ValueError, match="components, pixels or all"):
        MeanAbsoluteError("px", reduction="mean")
    with pytest.raises(ValueError, match="skip, nan or zero"):
        Confusion(3, absent="drop")
    with pytest.raises(ValueError, match="above 0"):
        Scaled(L1(), -1.0)


def measured(meter: Meter, prediction: Tensor, target: Tensor) -> dict[str, float]:
    found = meter.values(meter.sums(prediction, target))
    assert list(found) == [metric.name for metric in meter.metrics]
    return found


@quick
@given(seeds)
def test_segmentation_metrics_are_torchmetrics(seed: int):
    prediction, target = classes(seed, batch=12)
    found = measured(Confusion(CLASSES), prediction, target)
    options = {"num_classes": CLASSES, "ignore_index": IGNORE}
    jaccard = torchmetrics.JaccardIndex("multiclass", **options)(prediction, target.long())
    accuracy = torchmetrics.Accuracy("multiclass", average="micro", **options)(prediction, target.long())
    assert found["miou"] == pytest.approx(100 * jaccard.item(), rel=1e-5)
    assert found["pixel_accuracy"] == pytest.approx(100 * accuracy.item(), rel=1e-5)


@quick
@given(seeds)
def test_accuracy_and_errors_are_torchmetrics(seed: int):
    prediction, target = classes(seed, batch=30)
    prediction, target = prediction[:, :, 0, 0], target[:, 0, 0]
    labelled = target != IGNORE
    expected = torchmetrics.functional.accuracy(
        prediction[labelled], target[labelled].long(), "multiclass", num_classes=CLASSES, average="micro"
    )
    assert measured(Accuracy(), prediction, target)["accuracy"] == pytest.approx(100 * expected.item(), rel=1e-5)
    prediction, target = values(seed)
    valid = ~target.isnan()
    absolute = torchmetrics.functional.mean_absolute_error(prediction[valid], target[valid]).item()
    squared = torchmetrics.functional.mean_squared_error(prediction[valid], target[valid]).item()
    assert measured(MeanAbsoluteError("px"), prediction, target)["l1"] == pytest.approx(absolute)
    assert measured(MeanAbsoluteError("px", reduction="pixels"), prediction, target)["l1"] == pytest.approx(
        2 * absolute
    )
    assert measured(MeanSquaredError("px²"), prediction, target)["mse"] == pytest.approx(squared)


METERS = [
    (Confusion(CLASSES), classes),
    (MeanAbsoluteError("px"), values),
    (MeanAbsoluteError("px", reduction="pixels"), values),
    (MeanSquaredError("px²"), values),
]


@pytest.mark.parametrize(("meter", "make"), METERS)
@pytest.mark.parametrize("parts", [[1, 3], [2, 1, 1]])
def test_batches_and_ranks_add_up_to_the_set(meter: Meter, make, parts: list[int]):
    prediction, target = make(11, labelled=0.4)
    target[0] = IGNORE if target.dtype == torch.uint8 else math.nan  # a batch without any label
    whole = meter.sums(prediction, target)
    split = [meter.sums(p, t) for p, t in zip(prediction.split(parts), target.split(parts), strict=True)]
    assert whole.dtype == torch.float64
    assert {s.shape for s in split} == {whole.shape}
    assert torch.allclose(sum(split), whole)
    assert meter.values(sum(split)) == pytest.approx(meter.values(whole))


@pytest.mark.parametrize(("meter", "make"), [*METERS, (Confusion(CLASSES, absent="zero"), classes)])
def test_a_set_without_labels_has_no_value(meter: Meter, make):
    prediction, target = make(0, labelled=0.0)
    found = measured(meter, prediction, target)
    if isinstance(meter, Confusion) and meter.absent == "zero":
        assert found["miou"] == 0
        assert math.isnan(found["pixel_accuracy"])
    else:
        assert all(math.isnan(x) for x in found.values())
    assert math.isnan(measured(Accuracy(), torch.zeros(2, 3), torch.full((2,), IGNORE))["accuracy"])


def one_hot(labels: Tensor) -> Tensor:
    return F.one_hot(labels, CLASSES).permute(0, 3, 1, 2).double()


def test_a_class_that_never_occurs():
    """Class 4 is nowhere, class 3 only in predictions, class 2 only under a pixel without a label."""
    target = torch.tensor([[[0, 0, 1, IGNORE], [1, 1, 0, 0]]])
    prediction = one_hot(torch.tensor([[[0, 0, 1, 2], [1, 3, 0, 1]]]))
    iou = [3 / 4, 2 / 4, 0.0]  # of the classes 0, 1 and 3
    assert measured(Confusion(CLASSES), prediction, target)["miou"] == pytest.approx(100 * sum(iou) / 3)
    assert measured(Confusion(CLASSES, absent="zero"), prediction, target)["miou"] == pytest.approx(100 * sum(iou) / 5)
    found = measured(Confusion(CLASSES, absent="nan"), prediction, target)
    assert math.isnan(found["miou"])
    assert found["pixel_accuracy"] == pytest.approx(100 * 5 / 7)


def test_with_all_classes_the_rules_agree():
    labels = torch.arange(CLASSES).repeat(4)[None, None]
    prediction, target = one_hot(labels.roll(1, -1) // 2), labels
    found = {measured(Confusion(CLASSES, absent=a), prediction, target)["miou"] for a in ("skip", "nan", "zero")}
    assert len(found) == 1


def test_confusion_is_over_the_set_and_no_mean_of_images():
    """By hand: image 1 has class 0 alone and right, image 2 class 0 and 1, half of it wrong."""
    target = torch.tensor([[[0, 0, 0, 0]], [[0, 0, 1, 1]]])
    prediction = one_hot(torch.tensor([[[0, 0, 0, 0]], [[1, 0, 1, 0]]]))
    found = measured(Confusion(2), prediction[:, :2], target)
    assert found["miou"] == pytest.approx(100 * (5 / 7 + 1 / 3) / 2)
    assert found["pixel_accuracy"] == pytest.approx(75.0)


def test_error_is_over_the_set_and_no_mean_of_batches():
    prediction = torch.zeros(2, 1, 1, 4)
    target = torch.tensor([[4.0, math.nan, math.nan, math.nan], [1.0, 1.0, 1.0, 1.0]])[:, None, None]
    assert measured(MeanAbsoluteError("px"), prediction, target)["l1"] == pytest.approx(8 / 5)
    wild = prediction.masked_fill(target.isnan(), math.nan)
    assert measured(MeanAbsoluteError("px"), wild, target)["l1"] == pytest.approx(8 / 5)


def test_sums_of_many_pixels_keep_their_digits():
    target = torch.full((1, 1, 1000, 5000), 0.1)
    assert measured(MeanAbsoluteError("px"), torch.zeros_like(target), target)["l1"] == pytest.approx(0.1, rel=1e-7)


def test_directions_and_units():
    found = {
        m.name: (m.higher_is_better, m.unit)
        for meter in (Accuracy(), Confusion(3), MeanAbsoluteError("px"), MeanSquaredError("px²"))
        for m in meter.metrics
    }
    assert found == {
        "accuracy": (True, "%"),
        "miou": (True, "%"),
        "pixel_accuracy": (True, "%"),
        "l1": (False, "px"),
        "mse": (False, "px²"),
    }
