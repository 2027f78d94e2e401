"""Which epoch's numbers are a run's: the rules, applied to its curves."""

import math
from collections.abc import Mapping, Sequence
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


def select(
    curves: Curves, rule: str, metrics: Sequence[str], score: Mapping[str, Any]
) -> tuple[dict[str, dict[str, float]], int]:
    """{"test": {metric: value}, "val": ...} by a rule of SELECT, and the (last) epoch that it took.

    score: {split: function of values [evaluations, N] to scores [evaluations], higher is better}, of the split that
    the rule looks at. NaN where a metric is undefined; an epoch without a score is not chosen unless there is no
    other. Raises ValueError for best_val without validation metrics.
    """
    if rule == "best_val" and not curves.has("val"):
        raise ValueError("it has no validation metrics. Use --select last or mean_last_10, or a dataset with a part.")
    splits = {split: curves.metrics(split, metrics) for split in ("test", "val") if curves.has(split)}
    evaluations = len(curves.epochs)
    if rule in ("best_val", OPTIMISTIC):
        split = "val" if rule == "best_val" else "test"
        taken = [best(score[split](splits[split]))]
    else:
        taken = list(range(evaluations))[-10 if rule == "mean_last_10" else -1 :]
    found = {split: dict(zip(metrics, values[taken].mean(0), strict=True)) for split, values in splits.items()}
    return found, int(curves.epochs[taken[-1]])


def best(scores: NDArray[np.float64]) -> int:
    """The place of the highest score, the first of equals; the last place where no score is defined."""
    return len(scores) - 1 if np.isnan(scores).all() else int(np.nanargmax(scores))


def own_improvement(higher: Sequence[bool]) -> Any:
    """The score of an epoch where there is no single-task reference: the mean relative improvement over the run's
    own first evaluation (`stats.mean_relative_improvement`); undefined where a metric is."""

    def score(values: NDArray[np.float64]) -> NDArray[np.float64]:
        gains = stats.mean_relative_improvement(values, values[0], higher)
        return np.where(np.isnan(values).any(-1), math.nan, gains)

    return score
