"""Losses and metrics of class maps, depths and normals as the public codes have them, by options."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mtlbench.losses import L1, MSE, Cosine, CrossEntropy, LogL1, Loss, NormalL1
from mtlbench.metrics import BatchMean, Confusion, DepthErrors, NormalAngles
from mtlbench.metrics.sums import SumMeter
from mtlbench.task import Meter, Task

WITHIN = re.compile(r"within_\d+(\.\d+)?")


@dataclass(frozen=True)
class Measures:
    """What is minimised and what is reported.

    depth_loss: l1 (the MTAN family, IMTL, the survey), mse, or log_l1 (LSB).
    depth_predicts: what the network gives with log_l1: "value", or "log" of the depth. LSB does not say.
    depth_metrics: names of `metrics.DepthErrors`, the primary one first.
    depth_above: rel_err_above is over targets greater than this.
    depth_clamp: predictions below count as this in metrics (1e-9 in the survey's code).
    rmse_per_image: the mean over images of each one's rmse (LSB), instead of the set's (the survey).
    normals_loss: cosine (IMTL, LSB, the MTAN family) or l1 (the survey's code).
    normals_metrics: mean_angle, median_angle, within_<degrees>, rmse_angle, cos, the primary one first; mean_angle
        always among them.
    absent: what mIoU does with a class found neither in labels nor predictions: skip, nan (MTAN, LibMTL, CAGrad) or
        zero (the survey's code).
    miou_per: "set", or "image": the mean over images (MTAN before November 2020, about 8 points less).
    batch: null: over all pixels of the set; a number: metrics of depth and normals are means over batches of that many
        images, the incomplete last one weighted equally (MTAN, CAGrad, Nash-MTL), for comparison with their tables.

    Raises ValueError for values that make no sense.
    """

    depth_loss: str = "l1"
    depth_predicts: str = "value"
    depth_metrics: Sequence[str] = ("abs_err", "rel_err")
    depth_above: float | None = None
    depth_clamp: float | None = None
    rmse_per_image: bool = False
    normals_loss: str = "cosine"
    normals_metrics: Sequence[str] = ("mean_angle", "median_angle", "within_11.25", "within_22.5", "within_30")
    absent: str = "skip"
    miou_per: str = "set"
    batch: int | None = None

    def __post_init__(self) -> None:
        for key, allowed in {
            "depth_loss": ("l1", "mse", "log_l1"),
            "depth_predicts": ("value", "log"),
            "normals_loss": ("cosine", "l1"),
            "absent": ("skip", "nan", "zero"),
            "miou_per": ("set", "image"),
        }.items():
            check(f"measures.{key}", getattr(self, key), allowed)
        if self.depth_predicts == "log" and self.depth_loss != "log_l1":
            raise ValueError(
                f"dataset.measures.depth_predicts=log goes with depth_loss=log_l1, not with {self.depth_loss}."
            )
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"dataset.measures.batch={self.batch}: 1 or more images, or null, are expected.")
        self._angles()  # here, so that a wrong name is told of before data is read

    def semantic(self, classes: int) -> Task:
        meter: SumMeter = Confusion(classes, absent=self.absent)
        return Task("semantic", classes, CrossEntropy(), [BatchMean(meter, 1) if self.miou_per == "image" else meter])

    def depth(self, unit: str = "m", factor: float = 1.0) -> Task:
        """Metric or inverse depth; `factor` brings the target's numbers to `unit` in metrics."""
        losses: dict[str, Callable[[], Loss]] = {"l1": L1, "mse": MSE, "log_l1": partial(LogL1, self.depth_predicts)}
        loss = losses[self.depth_loss]()

        def meter(names: Sequence[str]) -> SumMeter:
            above = self.depth_above if "rel_err_above" in names else None
            return DepthErrors(unit, names, factor, above, self.depth_clamp, self.depth_predicts)

        names = list(self.depth_metrics)
        if not self.rmse_per_image or "rmse" not in names:
            return Task("depth", 1, loss, [self._over_batches(meter(names))])
        rest = [name for name in names if name != "rmse"]
        meters: list[Meter] = [BatchMean(meter(["rmse"]), 1)]
        if rest:
            meters.insert(1 if names[0] == "rmse" else 0, self._over_batches(meter(rest)))
        return Task("depth", 1, loss, meters)

    def normals(self) -> Task:
        loss = Cosine() if self.normals_loss == "cosine" else NormalL1()
        return Task("normals", 3, loss, [self._over_batches(self._angles())], unflip=negate_x)

    def _over_batches(self, meter: SumMeter) -> SumMeter:
        return meter if self.batch is None else BatchMean(meter, self.batch)

    def _angles(self) -> NormalAngles:
        names = list(self.normals_metrics)
        thresholds = [float(name[7:]) for name in names if WITHIN.fullmatch(name)]
        known = {"mean_angle", "median_angle", "rmse_angle", "cos"}
        if "mean_angle" not in names or any(n not in known and not WITHIN.fullmatch(n) for n in names):
            raise ValueError(
                f"dataset.measures.normals_metrics={names}: mean_angle and any of median_angle, within_<degrees>, "
                f"rmse_angle and cos are expected."
            )
        return NormalAngles(
            thresholds, "median_angle" in names, "rmse_angle" in names, "cos" in names, primary=names[0]
        )


def negate_x(normals: Tensor) -> Tensor:
    """Normals [B, 3, H, W] of a mirrored image, mirrored back: x points the other way."""
    return torch.cat([-normals[:, :1], normals[:, 1:]], dim=1)


def check(key: str, value: object, allowed: Sequence) -> None:
    """Raises ValueError where an option of the dataset has none of the values that there are."""
    if value not in allowed:
        raise ValueError(f"dataset.{key}={value}: {' or '.join(map(str, allowed))} is expected.")
