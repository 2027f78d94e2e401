"""Metrics of depth, normals, attributes, landmarks, edges: against numpy, scikit-learn and the official evaluation of
Cityscapes; over batches and ranks; without labels; on how many processes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score, top_k_accuracy_score
from torch import Tensor

from mtlbench.fit import Settings, check_meters
from mtlbench.losses import L1
from mtlbench.metrics import (
    Accuracy,
    BatchMean,
    BinaryAccuracy,
    Confusion,
    DepthErrors,
    EdgeF,
    LandmarkDistance,
    MeanAbsoluteError,
    MedianAngle,
    NormalAngles,
    Saliency,
    TopAccuracy,
)
from mtlbench.metrics.sums import histogram
from mtlbench.parallel import Ranks
from mtlbench.task import IGNORE, Meter, Task, added
from test_losses_of_domains import attributes, depths, drawn, edges, hidden, normals, scenes

CLASSES = 4


def maps(seed: int, labelled: float = 0.7) -> tuple[Tensor, Tensor]:
    generator = drawn(seed)
    target = torch.randint(0, CLASSES, (4, 5, 6), generator=generator).to(torch.uint8)
    target[hidden((4, 5, 6), labelled, generator)] = IGNORE
    return torch.randn(4, CLASSES, 5, 6, generator=generator, dtype=torch.float64), target


def points(seed: int, labelled: float = 0.7) -> tuple[Tensor, Tensor]:
    generator = drawn(seed)
    prediction, target = 20 * torch.rand(2, 4, 5, 2, generator=generator, dtype=torch.float64)
    target = target.masked_fill(hidden((4, 5, 1), labelled, generator), math.nan)
    return prediction.flatten(1), target.flatten(1)


def near_depths(seed: int, labelled: float = 0.7) -> tuple[Tensor, Tensor]:
    """Positive predictions, most of them within a factor of two."""
    prediction, target = depths(seed, labelled)
    return target.nan_to_num(1.0) * (0.4 * prediction).exp(), target


def measured(meter: Meter, prediction: Tensor, target: Tensor) -> dict[str, float]:
    found = meter.values(meter.sums(prediction, target))
    assert list(found) == [metric.name for metric in meter.metrics]
    return found


ALL_DEPTHS = ("abs_err", "rel_err", "rel_err_above", "rmse", "log_rmse", "delta1", "delta2", "delta3")


@pytest.mark.parametrize("seed", range(4))
def test_depth_errors_by_numpy(seed: int):
    prediction, target = near_depths(seed)
    p, d = (x.numpy()[~target.isnan().numpy()] for x in (prediction, target))
    far = d > 1.5
    ratio = np.maximum(p / d, d / p)
    expected = {
        "abs_err": np.abs(p - d).mean(),
        "rel_err": (np.abs(p - d) / d).mean(),
        "rel_err_above": (np.abs(p - d) / d)[far].mean(),
        "rmse": math.sqrt(((p - d) ** 2).mean()),
        "log_rmse": math.sqrt(((np.log(p) - np.log(d)) ** 2).mean()),
        **{f"delta{n}": 100 * (ratio < 1.25**n).mean() for n in (1, 2, 3)},
    }
    found = measured(DepthErrors("m", ALL_DEPTHS, above=1.5), prediction, target)
    assert found == pytest.approx(expected)
    logs = measured(DepthErrors("m", ALL_DEPTHS, above=1.5, predicts="log"), prediction.log(), target)
    assert logs == pytest.approx(expected)
    centimetres = measured(DepthErrors("cm", ("rmse", "abs_err", "delta1"), factor=100), prediction, target)
    scale = {"rmse": 100, "abs_err": 100, "delta1": 1}
    assert centimetres == pytest.approx({name: expected[name] * by for name, by in scale.items()})


def test_depths_at_the_edge():
    """By hand: a depth of 0 is a label without a relative error; a prediction of 0 or below is never near."""
    target = torch.tensor([0.0, 2.0, 2.0, math.nan])[None, None, None]
    prediction = torch.tensor([1.0, -2.0, 2.0, 9.0])[None, None, None]
    found = measured(DepthErrors("m", ("abs_err", "rel_err", "delta1", "rmse")), prediction, target)
    assert found == pytest.approx({"abs_err": 5 / 3, "rel_err": 1.0, "delta1": 50.0, "rmse": math.sqrt(17 / 3)})
    assert math.isnan(measured(DepthErrors("m", ("log_rmse",)), prediction, target)["log_rmse"])
    clamped = measured(DepthErrors("m", ("log_rmse",), clamp=1e-9), prediction, target)["log_rmse"]
    assert clamped == pytest.approx(math.sqrt((math.log(1e-9) - math.log(2)) ** 2 / 2), rel=1e-5)
    exact = torch.full((1, 1, 1, 4), 1.25), torch.ones(1, 1, 1, 4)  # below 1.25, not at it
    assert measured(DepthErrors("m", ("delta1", "delta2")), *exact) == {"delta1": 0.0, "delta2": 100.0}


def angles_of(prediction: Tensor, target: Tensor) -> np.ndarray:
    p, t = prediction.numpy(), target.numpy()
    cosines = (p / np.sqrt((p**2).sum(1, keepdims=True)) * t).sum(1)[~np.isnan(t).any(1)]
    return np.degrees(np.arccos(np.clip(cosines, -1, 1)))


@pytest.mark.parametrize("seed", range(6))
def test_angles_by_numpy(seed: int):
    prediction, target = normals(seed)
    prediction = target.nan_to_num(0.3) + 0.4 * prediction
    angle = angles_of(prediction, target)
    meter = NormalAngles(rmse=True, cosine=True)
    found = measured(meter, prediction, target)
    (median,) = [metric for metric in meter.metrics if metric.name == "median_angle"]
    assert median.error == pytest.approx(0.005)
    assert abs(found.pop("median_angle") - np.median(angle)) <= median.error + 1e-9
    expected = {
        "mean_angle": angle.mean(),
        "rmse_angle": math.sqrt((angle**2).mean()),
        "cos": np.cos(np.radians(angle)).mean(),
        **{f"within_{t:g}": 100 * (angle < t).mean() for t in (11.25, 22.5, 30)},
    }
    assert found == pytest.approx(expected)
    exact = measured(MedianAngle(), prediction, target)["median_angle"]
    assert exact == pytest.approx(np.median(angle))


def test_small_angles_keep_their_digits_in_float32():
    """acos of a float32 product would be 0 or 0.02 degrees here."""
    small = math.radians(0.01)
    target = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1)
    prediction = torch.tensor([math.sin(small), 0.0, math.cos(small)]).reshape(1, 3, 1, 1)
    found = measured(NormalAngles(median=False), prediction, target)
    assert found["mean_angle"] == pytest.approx(0.01, rel=1e-3)
    opposite = measured(NormalAngles(), -target, target)
    assert opposite["mean_angle"] == pytest.approx(180)
    assert opposite["median_angle"] == pytest.approx(180, abs=0.005)


def test_what_comes_first_is_the_primary_metric():
    names = [metric.name for metric in NormalAngles(cosine=True, primary="cos").metrics]
    assert names == ["cos", "mean_angle", "median_angle", "within_11.25", "within_22.5", "within_30"]
    with pytest.raises(ValueError, match="primary=cos"):
        NormalAngles(primary="cos")


@pytest.mark.parametrize("seed", range(4))
def test_attributes_and_scenes_are_scikit_learns(seed: int):
    prediction, target = attributes(seed)
    each = []
    for k in range(5):
        where = (target[:, k] != IGNORE).numpy()
        if where.any():
            each.append(accuracy_score(target[:, k].numpy()[where], (prediction[:, k] > 0).numpy()[where]))
    assert measured(BinaryAccuracy(), prediction, target)["accuracy"] == pytest.approx(100 * np.mean(each))
    assert measured(BinaryAccuracy("error"), prediction, target)["error"] == pytest.approx(100 - 100 * np.mean(each))
    generator = drawn(seed)
    labels = torch.randint(0, 9, (40,), generator=generator)
    logits = torch.randn(40, 9, generator=generator)
    expected = top_k_accuracy_score(labels.numpy(), logits.numpy(), k=5, labels=range(9))
    assert measured(TopAccuracy(5), logits, labels)["top5_accuracy"] == pytest.approx(100 * expected)
    soft = F.one_hot(labels, 9).float() * 0.5 + 0.5 / 9
    soft[:3], labels[:3] = math.nan, IGNORE
    both = measured(TopAccuracy(5), logits, soft), measured(TopAccuracy(5), logits, labels)
    assert both[0] == both[1]
    right = measured(Accuracy(), logits, labels)["accuracy"]
    assert measured(Accuracy(report="error"), logits, labels)["error"] == pytest.approx(100 - right)
    assert measured(TopAccuracy(1), logits, labels)["top1_accuracy"] == pytest.approx(right)


@pytest.mark.parametrize("seed", range(4))
def test_confusion_is_scikit_learns(seed: int):
    prediction, target = maps(seed)
    where = (target != IGNORE).numpy()
    true, found = target.numpy()[where], prediction.argmax(1).numpy()[where]
    sums = Confusion(CLASSES).sums(prediction, target)
    assert np.array_equal(sums[2:].reshape(CLASSES, CLASSES), confusion_matrix(true, found, labels=range(CLASSES)))
    values = measured(Confusion(CLASSES), prediction, target)
    assert values["miou"] == pytest.approx(100 * jaccard_score(true, found, average="macro"))
    assert values["pixel_accuracy"] == pytest.approx(100 * accuracy_score(true, found))


def test_confusion_is_the_official_evaluation_of_cityscapes(tmp_path):
    """Files of label ids with classes that are not evaluated, one that is nowhere; predictions of the 19 alone."""
    official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    from PIL import Image

    from mtlbench.datasets.cityscapes import TRAIN_IDS, TRAINED

    generator = np.random.default_rng(0)
    official.args.evalInstLevelScore, official.args.evalPixelAccuracy = False, False
    matrix = official.generateMatrix(official.args)
    meter, sums = Confusion(19), 0
    for i in range(3):
        labels = generator.integers(0, 33, (20, 30)).astype(np.uint8)  # no bicycles, 33
        chosen = generator.integers(0, 18, (20, 30))
        chosen = np.where((TRAIN_IDS[labels] != IGNORE) & (generator.random((20, 30)) < 0.6), TRAIN_IDS[labels], chosen)
        paths = str(tmp_path / f"{i}_pred.png"), str(tmp_path / f"{i}_labelIds.png")
        Image.fromarray(np.array(TRAINED, np.uint8)[chosen]).save(paths[0])
        Image.fromarray(labels).save(paths[1])
        official.evaluatePair(*paths, matrix, None, {}, official.args)
        prediction = F.one_hot(torch.from_numpy(chosen).long(), 19).permute(2, 0, 1)[None].float()
        sums = sums + meter.sums(prediction, torch.from_numpy(TRAIN_IDS[labels])[None])
    each = [official.getIouScoreForLabel(label, matrix, official.args) for label in TRAINED]
    assert math.isnan(each[18])
    assert meter.values(sums)["miou"] == pytest.approx(100 * np.nanmean(each))


def test_a_label_that_is_no_class_is_an_error():
    prediction, target = maps(0)
    target[0, 0, :2] = torch.tensor([CLASSES, 200])
    with pytest.raises(ValueError, match=r"2 of \d+ labelled pixels have a label that is none of the classes 0 to 3"):
        measured(Confusion(CLASSES), prediction, target)
    signed = target.to(torch.int16)
    signed[0, 0, :2] = -1
    with pytest.raises(ValueError, match="2 of"):
        measured(Confusion(CLASSES), prediction, signed)
    assert measured(Confusion(CLASSES, ignore_index=-1), prediction, signed.where(signed != IGNORE, -1))


@pytest.mark.parametrize("seed", range(4))
def test_landmarks_by_numpy(seed: int):
    prediction, target = points(seed)
    p, t = prediction.numpy().reshape(4, 5, 2), target.numpy().reshape(4, 5, 2)
    distance = np.sqrt(((p - t) ** 2).sum(2))
    meter = LandmarkDistance(groups={"eye": [0, 1], "nose": [2], "mouth": [3, 4]}, between=[0, 1])
    apart = np.sqrt(((t[:, :1] - t[:, 1:2]) ** 2).sum(2))
    expected = {
        "distance": np.nanmean(distance),
        "eye": np.nanmean(distance[:, :2]) if not np.isnan(distance[:, :2]).all() else math.nan,
        "nose": np.nanmean(distance[:, 2]) if not np.isnan(distance[:, 2]).all() else math.nan,
        "mouth": np.nanmean(distance[:, 3:]) if not np.isnan(distance[:, 3:]).all() else math.nan,
        "nme": 100 * np.nanmean(distance / apart) if not np.isnan(apart).all() else math.nan,
    }
    assert measured(meter, prediction, target) == pytest.approx(expected, nan_ok=True)
    assert measured(meter, prediction, target.reshape(4, 5, 2)) == pytest.approx(expected, nan_ok=True)
    with pytest.raises(ValueError, match="points of each group"):
        LandmarkDistance(groups={"eye": []})


@pytest.mark.parametrize("seed", range(3))
def test_edges_by_scikit_learn_and_by_brute_force(seed: int):
    prediction, target = edges(seed, labelled=0.9)
    probability, y = prediction.sigmoid().numpy()[:, 0], target.numpy()
    labelled = y != IGNORE
    thresholds = np.arange(1, 100) / 100
    exact = [f1_score(y[labelled], probability[labelled] > t, zero_division=0) for t in thresholds]
    assert measured(EdgeF(0), prediction, target)["ods_f"] == pytest.approx(100 * max(exact))
    best = 0.0
    for t in thresholds:
        there, true = (probability > t) & labelled, y == 1
        right = sum(there[b, i, j] and near(true, b, i, j) for b, i, j in np.ndindex(there.shape))
        found = sum(true[b, i, j] and near(there, b, i, j) for b, i, j in np.ndindex(there.shape))
        precision, recall = right / max(there.sum(), 1), found / true.sum()
        best = max(best, 2 * precision * recall / max(precision + recall, 1e-12))
    assert measured(EdgeF(1), prediction, target)["ods_f"] == pytest.approx(100 * best)


def near(where: np.ndarray, b: int, i: int, j: int) -> bool:
    return where[b, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].any()


@pytest.mark.parametrize("seed", range(3))
def test_saliency_by_scikit_learn(seed: int):
    prediction, target = edges(seed, labelled=0.9)
    probability, y = prediction.sigmoid().numpy()[:, 0], target.numpy()
    best_iou, best_f = 0.0, 0.0
    for t in np.linspace(0.2, 0.9, 15):
        each = []
        for p, true in zip(probability, y, strict=True):
            p, true = p[true != IGNORE] > t, true[true != IGNORE] == 1
            both, either = (p & true).sum(), (p | true).sum()
            each.append([1.0 if either == 0 else both / n if n else 0.0 for n in (either, p.sum(), true.sum())])
            if either:
                assert each[-1][0] == pytest.approx(jaccard_score(true, p, zero_division=0))
        iou, precision, recall = np.mean(each, 0)
        best_iou = max(best_iou, iou)
        best_f = max(best_f, 2 * precision * recall / max(precision + recall, 1e-12))
    found = measured(Saliency(), prediction, target)
    assert found == pytest.approx({"max_iou": 100 * best_iou, "max_f": 100 * best_f})


def test_means_over_batches_are_those_of_the_public_codes():
    """CAGrad's and MTAN's depth_error and normal_error: the mean over batches of each one's values, the last one of
    three images and one weighted alike."""
    prediction, target = near_depths(3)
    expected = np.mean([list(measured(DepthErrors("m"), *part).values()) for part in split(prediction, target, 3)], 0)
    found = measured(BatchMean(DepthErrors("m"), 3), prediction, target)
    assert list(found.values()) == pytest.approx(list(expected))
    assert found != pytest.approx(measured(DepthErrors("m"), prediction, target))
    prediction, target = normals(3)
    medians = [np.median(angles_of(*part)) for part in split(prediction, target, 2)]
    assert measured(BatchMean(MedianAngle(), 2), prediction, target)["median_angle"] == pytest.approx(np.mean(medians))
    prediction, target = maps(3)
    legacy = [
        jaccard_score(t[t != IGNORE], p.argmax(1)[t != IGNORE], average="macro")
        for p, t in split(prediction, target, 1)
    ]
    found = measured(BatchMean(Confusion(CLASSES), 1), prediction, target)
    assert found["miou"] == pytest.approx(100 * np.mean(legacy))


def split(prediction: Tensor, target: Tensor, images: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(prediction.split(images), target.split(images), strict=True))


def test_a_batch_without_labels_is_left_out_or_makes_a_nan():
    for inner, make in ((DepthErrors("m"), near_depths), (MedianAngle(), normals), (NormalAngles(), normals)):
        prediction, target = make(2)
        target[1] = math.nan
        rest = [measured(inner, *part) for i, part in enumerate(split(prediction, target, 1)) if i != 1]
        name = inner.metrics[0].name
        found = measured(BatchMean(inner, 1), prediction, target)[name]
        assert found == pytest.approx(np.mean([values[name] for values in rest]))
        assert math.isnan(measured(BatchMean(inner, 1, empty="nan"), prediction, target)[name])
        bad = prediction.clone()
        bad[0, 0, 0, 0], target[0, :, 0, 0] = math.nan, 0.5
        assert math.isnan(measured(BatchMean(inner, 1), bad, target)[name])  # a NaN of the network is not left out


def settings(batch: int) -> Settings:
    return Settings(0, 1, 8, 1, "float32", None, 0, batch, 10.0)


def test_means_over_batches_need_their_batches_and_one_process():
    tasks = {"depth": Task("depth", 1, L1(), [BatchMean(DepthErrors("m"), 4)])}
    check_meters(tasks, settings(4), Ranks())
    check_meters(tasks, settings(8), Ranks())
    with pytest.raises(ValueError, match=r"depth/abs_err is a mean over batches of 4 images.*evaluation_batch=4"):
        check_meters(tasks, settings(6), Ranks())
    with pytest.raises(ValueError, match=r"one process.*found 2 and 4"):
        check_meters(tasks, settings(4), Ranks(0, 2))
    each = {"depth": Task("depth", 1, L1(), [BatchMean(DepthErrors("m"), 1), MeanAbsoluteError("m")])}
    check_meters(each, settings(3), Ranks(1, 2))  # over images: any batches, any number of ranks


METERS = [
    (DepthErrors("m", ALL_DEPTHS, above=1.0), near_depths),
    (NormalAngles(rmse=True, cosine=True), normals),
    (MedianAngle(), normals),
    (BatchMean(DepthErrors("m"), 1), near_depths),
    (BatchMean(MedianAngle(), 1), normals),
    (BatchMean(Confusion(CLASSES), 1), maps),
    (Confusion(CLASSES), maps),
    (MeanAbsoluteError("m", reduction="all", factor=100), depths),
    (BinaryAccuracy(), attributes),
    (TopAccuracy(3), scenes),
    (LandmarkDistance(groups={"nose": [2]}, between=[0, 1]), points),
    (EdgeF(1), edges),
    (Saliency(), edges),
]
IDS = [f"{type(meter).__name__}-{i}" for i, (meter, _) in enumerate(METERS)]


def empty(target: Tensor, images: slice) -> None:
    target[images] = IGNORE if target.dtype == torch.uint8 else math.nan


@pytest.mark.parametrize(("meter", "make"), METERS, ids=IDS)
@pytest.mark.parametrize("parts", [[1, 3], [2, 1, 1], [1, 1, 1, 1]])
def test_batches_and_ranks_add_up_to_the_set(meter: Meter, make, parts: list[int]):
    prediction, target = make(11, labelled=0.8)
    empty(target, slice(0, 1))
    whole = meter.sums(prediction, target)
    total = None
    for p, t in zip(prediction.split(parts), target.split(parts), strict=True):
        sums = meter.sums(p, t)
        assert meter.gathers or (sums.dtype == torch.float64 and sums.shape == whole.shape)
        total = added(meter, total, sums)
    found = meter.values(total)
    assert found == pytest.approx(meter.values(whole), nan_ok=True)
    assert not any(math.isnan(x) for x in found.values())


@pytest.mark.parametrize(("meter", "make"), METERS, ids=IDS)
def test_a_set_without_labels_has_no_value(meter: Meter, make):
    found = measured(meter, *make(0, labelled=0.0))
    assert all(math.isnan(x) for x in found.values())


@pytest.mark.parametrize(("meter", "make"), METERS, ids=IDS)
def test_what_lies_under_a_missing_label_never_counts(meter: Meter, make):
    prediction, target = make(4)
    empty(target, slice(1, 2))
    expected = measured(meter, prediction, target)
    for wild in (1e9, math.inf, math.nan):
        prediction[1] = wild
        assert measured(meter, prediction, target) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("meter", "make"), METERS, ids=IDS)
def test_a_nan_of_the_network_is_seen(meter: Meter, make):
    """Errors become NaN; what is counted counts it as wrong."""
    prediction, target = make(4, labelled=1.0)
    before = measured(meter, prediction, target)
    prediction[:] = math.nan
    for metric in meter.metrics:
        after = measured(meter, prediction, target)[metric.name]
        assert math.isnan(after) or (metric.higher_is_better and after < before[metric.name])


def test_counting_on_other_devices_is_bincount():
    """The way of a GPU, followed here: sorting, and looking up where each number begins."""
    for bins in (5, 361, 40_000):
        numbers = torch.randint(0, bins + 1, (3000,), generator=drawn(bins))
        ordered = numbers.to(torch.int16 if bins < 2**15 else torch.int32).sort().values
        found = torch.searchsorted(ordered, torch.arange(bins + 1, dtype=ordered.dtype)).diff()
        assert torch.equal(found.double(), histogram(numbers, bins))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("meter", "make"), METERS)
def test_nothing_waits_for_the_gpu(meter: Meter, make):
    prediction, target = (x.cuda() for x in make(1))
    torch.cuda.set_sync_debug_mode("error")
    try:
        sums = meter.sums(prediction, target)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert meter.values(sums.cpu()) == pytest.approx(measured(meter, *make(1)), nan_ok=True)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match="unknown: depth"):
        DepthErrors("m", ("depth",))
    with pytest.raises(ValueError, match="above="):
        DepthErrors("m", ("rel_err_above",))
    with pytest.raises(ValueError, match="value or log"):
        DepthErrors("m", predicts="inverse")
    with pytest.raises(ValueError, match="skip or nan"):
        BatchMean(DepthErrors("m"), 2, empty="zero")
    with pytest.raises(ValueError, match="not of BatchMean"):
        BatchMean(BatchMean(DepthErrors("m"), 2), 2)
    with pytest.raises(ValueError, match="accuracy or error"):
        BinaryAccuracy("loss")
    with pytest.raises(ValueError, match="k=0"):
        TopAccuracy(0)
    with pytest.raises(ValueError, match="tolerance=-1"):
        EdgeF(-1)
