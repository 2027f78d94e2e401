"""Errors of depth, inverse depth and disparity."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mtlbench.metrics.sums import SumMeter, total
from mtlbench.task import Metric

RATIO = 1.25
"""delta_n counts pixels with max(p / d, d / p) < RATIO^n."""

TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "abs_err": lambda p, d: (p - d).abs(),
    "rel_err": lambda p, d: (p - d).abs() / d,
    "rel_err_above": lambda p, d: (p - d).abs() / d,
    "rmse": lambda p, d: (p - d).square(),
    "log_rmse": lambda p, d: (p.log() - d.log()).square(),
    # as products: a prediction that is 0 or below is never near
    "delta1": lambda p, d: (p < RATIO * d) & (d < RATIO * p),
    "delta2": lambda p, d: (p < RATIO**2 * d) & (d < RATIO**2 * p),
    "delta3": lambda p, d: (p < RATIO**3 * d) & (d < RATIO**3 * p),
}
"""Of each metric the term of a pixel, of prediction p and target d; its mean over the set is what is reported, for
rmse and log_rmse its square root."""

ABSOLUTE = ("abs_err", "rmse")
"""Metrics in the unit of the target, and over all labelled pixels; the others are over those with d > 0."""


class DepthErrors(SumMeter):
    """Those of `metrics`, in that order, over labelled pixels of the whole set. prediction, target [B, 1, H, W].

    abs_err    mean of |p - d|
    rel_err    mean of |p - d| / d (pixels with d > 0). On Cityscapes 30 to 120 % of d and more are usual: a disparity
               of nearly 0 is valid there, and one pixel can outweigh all others.
    rel_err_above  the same over pixels with d > `above`
    rmse       square root of the mean of (p - d)^2 (the survey; LSB takes it image by image and then the mean:
               `BatchMean(DepthErrors(...), images=1)`)
    log_rmse   the same of log p - log d
    delta1, delta2, delta3   percent of pixels with max(p / d, d / p) < 1.25, 1.25^2, 1.25^3 (LSB)

    unit: of the target. factor: multiplies abs_err and rmse (100 for the survey's centimetres; 65535 / 256 brings
        MTAN's inverse depth to pixels of an image 2048 wide).
    clamp: predictions below count as this (the survey's code: 1e-9); null: as they are, and log_rmse is then NaN
        where one is negative.
    predicts: "value", or "log" where the network gives the logarithm of the depth.
    Raises ValueError for unknown metrics and for rel_err_above without `above`.
    """

    def __init__(
        self,
        unit: str,
        metrics: Sequence[str] = ("abs_err", "rel_err"),
        factor: float = 1.0,
        above: float | None = None,
        clamp: float | None = None,
        predicts: str = "value",
    ):
        unknown = [name for name in metrics if name not in TERMS]
        if unknown or not metrics:
            raise ValueError(
                f"Depth has the metrics {', '.join(TERMS)}; unknown: {', '.join(unknown) or 'none given'}."
            )
        if ("rel_err_above" in metrics) != (above is not None):
            raise ValueError(f"rel_err_above is over targets greater than above=; found above={above}.")
        if predicts not in ("value", "log"):
            raise ValueError(f"predicts={predicts!r}: value or log is expected.")
        self.names, self.factor, self.above, self.clamp, self.predicts = tuple(metrics), factor, above, clamp, predicts
        self.metrics = tuple(_metric(name, unit) for name in metrics)

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[1 + 2 K]: labelled pixels; of each metric the pixels that it is over, and the sum of its terms."""
        if self.predicts == "log":
            prediction = prediction.exp()
        if self.clamp is not None:
            prediction = prediction.clamp(min=self.clamp)
        labelled, positive = ~target.isnan(), target > 0
        found = [labelled.sum(dtype=torch.float64)]
        for name in self.names:
            where = labelled if name in ABSOLUTE else positive
            if name == "rel_err_above":
                where = positive & (target > self.above)
            terms = TERMS[name](prediction, target)
            found += [where.sum(dtype=torch.float64), total(terms, where)]
        return torch.stack(found)

    def of(self, sums: Tensor) -> Tensor:
        number, terms = sums[1:].reshape(-1, 2).T
        means = terms / number
        values = [mean.sqrt() if name.endswith("rmse") else mean for name, mean in zip(self.names, means, strict=True)]
        scale = [self.factor if n in ABSOLUTE else 100.0 if n.startswith("delta") else 1.0 for n in self.names]
        return torch.stack([value * factor for value, factor in zip(values, scale, strict=True)])


def _metric(name: str, unit: str) -> Metric:
    if name.startswith("delta"):
        return Metric(name, True, "%")
    return Metric(name, False, unit if name in ABSOLUTE else "")
