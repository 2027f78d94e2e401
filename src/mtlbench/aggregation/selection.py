"""Which epoch's numbers are a run's: the rules, applied to its curves."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtlbench import stats
from mtlbench.aggregation.curves import Curves

OPTIMISTIC = "optimistic_best_test"

SELECT = {
    "last": "the last epoch",
    "mean_last_10": "the mean of the last 10 evaluated epochs",
    "best_val": "the epoch with the best validation Δm",
    OPTIMISTIC: "the epoch with the best test Δm, which is OPTIMISTIC: it was chosen on the numbers that are shown",
}
"""The rules that pick a run's numbers from its epochs. All but the last never look at the test part."""

SCORES = {"metrics": "Δm over metrics", "tasks": "Δm over tasks"}
"""What a setting or an epoch is chosen by, in the form of Delta_m that is asked for."""


@dataclass(frozen=True)
class Reference:
    """What Delta_m is relative to, in one split: the mean of the chosen single-task runs. metrics: names [N];
    values [N]; higher [N]; form: of `stats.DELTA_M`."""

    metrics: tuple[str, ...]
    values: NDArray[np.float64]
    higher: tuple[bool, ...]
    form: str = "metrics"

    @property
    def undefined(self) -> list[str]:
        """Metrics against which there is no relative change."""
        return [name for name, value in zip(self.metrics, self.values, strict=True) if not value > 0]

    def part(self, names: Sequence[str]) -> "Reference":
        """Of some of the metrics."""
        places = [self.metrics.index(name) for name in names]
        return Reference(tuple(names), self.values[places], tuple(self.higher[i] for i in places), self.form)

    def delta(self, values: ArrayLike, form: str | None = None) -> NDArray[np.float64]:
        """Delta_m [...] of values [..., N], NaN where it is undefined."""
        values = np.asarray(values, float)
        if self.undefined:
            return np.full(values.shape[:-1], math.nan)
        groups = [name.partition("/")[0] for name in self.metrics]
        return stats.delta_m(values, self.values, self.higher, groups, form or self.form)

    def score(self, values: ArrayLike) -> NDArray[np.float64]:
        """Delta_m turned so that higher is better in either form."""
        return self.delta(values) * (1 if stats.DELTA_M[self.form] == "higher is better" else -1)


Score = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Values [..., evaluations, N] to scores [..., evaluations], higher is better, NaN where undefined."""


@dataclass(frozen=True)
class Selected:
    """Of several runs: values {split: [runs, N]} and the (last) epoch [runs] that was taken."""

    values: dict[str, NDArray[np.float64]]
    epochs: NDArray[np.int64]


def select(runs: Sequence[Curves], rule: str, metrics: Sequence[str], score: Mapping[str, Score]) -> Selected:
    """The numbers of runs by a rule of SELECT; the runs have the same columns and evaluated epochs (`alike`).

    score: {split: score} of the split that the rule looks at. NaN where a metric is undefined; an epoch without a
    score is not chosen unless there is no other. Raises ValueError for best_val without validation metrics.
    """
    if rule == "best_val" and not all(run.has("val") for run in runs):
        raise ValueError("no validation metrics. Use --select last or mean_last_10, or a dataset with that part.")
    splits = {split: stacked(runs, split, metrics) for split in ("test", "val") if all(r.has(split) for r in runs)}
    epochs = np.stack([run.epochs for run in runs]).astype(int)
    if rule in ("best_val", OPTIMISTIC):
        split = "val" if rule == "best_val" else "test"
        taken = best(score[split](splits[split]))
        each = np.arange(len(runs))
        return Selected({split: values[each, taken] for split, values in splits.items()}, epochs[each, taken])
    last = slice(-10 if rule == "mean_last_10" else -1, None)
    return Selected({split: values[:, last].mean(1) for split, values in splits.items()}, epochs[:, -1])


def stacked(runs: Sequence[Curves], split: str, metrics: Sequence[str]) -> NDArray[np.float64]:
    """Metrics of a split [runs, evaluations, N]."""
    return np.stack([run.metrics(split, metrics) for run in runs])


def alike(curves: Curves) -> tuple[Any, ...]:
    """What the curves must have in common that are handed to `select` together."""
    return curves.names, curves.evaluated.tobytes(), curves.has("val")


def best(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """The places [...] of the highest of scores [..., K], the first of equals; the last where none is defined."""
    places = np.where(np.isnan(scores), -np.inf, scores).argmax(-1)
    return np.where(np.isnan(scores).all(-1), scores.shape[-1] - 1, places)


def own_improvement(higher: Sequence[bool]) -> Score:
    """The score of an epoch where there is no single-task reference: the mean relative improvement over the run's
    own first evaluation (`stats.mean_relative_improvement`); undefined where a metric is."""

    def score(values: NDArray[np.float64]) -> NDArray[np.float64]:
        gains = stats.mean_relative_improvement(values, values[..., :1, :], higher)
        return np.where(np.isnan(values).any(-1), math.nan, gains)

    return score
