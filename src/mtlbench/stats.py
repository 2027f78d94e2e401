"""Delta_m, ranks, rounding, intervals over seeds, Pareto fronts: numpy and pandas only."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

DELTA_M = {"metrics": "lower is better", "tasks": "higher is better"}
"""The named forms of Delta_m, each with its sign. See `delta_m`."""


def delta_m(
    values: ArrayLike,
    baseline: ArrayLike,
    higher_is_better: ArrayLike,
    groups: Sequence[str] | None = None,
    form: str = "metrics",
) -> NDArray[np.float64]:
    """Mean relative change against the single-task baseline, in percent.

    form="metrics" (Elich et al. 2023, Section 4.1; CAGrad; Nash-MTL), **lower is better**:
        100/N sum_i (-1)^l_i (M_i - B_i) / B_i over all N metrics, l_i = 1 if higher is better.
        The paper writes 1/T over "tasks"; its tables follow only with N metrics (see results/papers).
    form="tasks" (Vandenhende et al. 2021, Equation 10), **higher is better**:
        100/T sum_t (-1)^l_t (M_t - B_t) / B_t over tasks, l_t = 1 if lower is better. The survey has one
        metric a task; where a task has several, their mean stands for the task.

    values [..., N], baseline [N] (or [..., N]), higher_is_better [N], groups: the task of each metric, needed
    by form="tasks". Returns [...]; NaN where a value is NaN. Raises ValueError for an unknown form, and for
    a baseline that is not positive: the relative change is undefined at 0 and changes its sign below.
    """
    if form not in DELTA_M:
        raise ValueError(f"form={form!r}: Delta_m has the forms {', '.join(DELTA_M)}.")
    if form == "tasks" and groups is None:
        raise ValueError('form="tasks" needs groups: the task of each metric.')
    values, baseline = np.asarray(values, float), np.asarray(baseline, float)
    better = np.asarray(higher_is_better, bool)
    if not np.all(baseline > 0):
        raise ValueError(f"Delta_m needs a baseline above 0 in every metric, found {baseline.tolist()}.")
    change = 100 * (values - baseline) / baseline
    if form == "metrics":
        return np.where(better, -change, change).mean(-1)
    assert groups is not None
    assert len(groups) == change.shape[-1]
    gain = np.where(better, change, -change)
    tasks = [[i for i, g in enumerate(groups) if g == task] for task in dict.fromkeys(groups)]
    return np.stack([gain[..., members].mean(-1) for members in tasks], -1).mean(-1)


def mean_relative_improvement(
    values: ArrayLike, reference: ArrayLike, higher_is_better: ArrayLike
) -> NDArray[np.float64]:
    """Mean over metrics of (value - reference) / |reference|, turned so that higher is better.

    The rule by which an epoch is called the best of its run, with the run's own first evaluation as reference.
    A metric that is NaN in either has no part; one whose reference is 0 enters with its plain change.
    values [..., N], reference [N], higher_is_better [N]; returns [...], 0 where no metric has a part.
    """
    values, reference = np.asarray(values, float), np.asarray(reference, float)
    scale = np.where(reference == 0, 1.0, np.abs(reference))
    gain = np.where(np.asarray(higher_is_better, bool), 1, -1) * (values - reference) / scale
    known = ~np.isnan(gain)
    return np.where(known, gain, 0).sum(-1) / np.maximum(known.sum(-1), 1)


def ranks(values: ArrayLike, higher_is_better: ArrayLike) -> NDArray[np.float64]:
    """Rank of each row in each column, 1 is best, ties get the mean of their places (Lee et al. 2021, Table 2).

    values [rows, N], higher_is_better [N]; returns [rows, N]. Raises ValueError for NaN: it has no rank.
    """
    values = np.asarray(values, float)
    if np.isnan(values).any():
        raise ValueError("a row with an undefined (NaN) value has no rank; leave it out and say so.")
    turned = np.where(np.asarray(higher_is_better, bool), -values, values)
    return pd.DataFrame(turned).rank(method="average").to_numpy()


def without_rounding_error(value: float) -> float:
    """Twelve digits of a number: sums of the same terms in another order are equal then."""
    return float(f"{value:.12g}")


def rank_summary(cells: ArrayLike) -> pd.DataFrame:
    """Lee et al.'s protocol: the smallest, largest and mean rank of each row over all metrics.

    cells: the ranks [rows, N]; returns columns min, max, average.
    """
    cells = np.asarray(cells, float)
    return pd.DataFrame({"min": cells.min(1), "max": cells.max(1), "average": cells.mean(1)})


def printed(text: str) -> tuple[float, float]:
    """A printed number and half a unit of its last digit: "44.50" is (44.5, 0.005)."""
    _, _, decimals = text.partition(".")
    return float(text), 0.5 * 10.0 ** -len(decimals)


def rounding_interval(
    aggregate: Callable[[NDArray[np.float64]], float], numbers: ArrayLike, half: ArrayLike
) -> tuple[float, float]:
    """What an aggregate can be, when each printed number [K] may be off by its half unit [K].

    `aggregate` must be monotone in every number over that range, as means and Delta_m (of positive
    baselines) are; the direction is found by moving one number at a time.
    """
    numbers, half = np.asarray(numbers, float), np.asarray(half, float)
    centre = aggregate(numbers)
    up = np.empty_like(numbers)
    for i in range(len(numbers)):
        moved = numbers.copy()
        moved[i] += half[i]
        up[i] = 1 if aggregate(moved) >= centre else -1
    return float(aggregate(numbers - up * half)), float(aggregate(numbers + up * half))


def mean_std(values: ArrayLike, ddof: int) -> tuple[float, float]:
    """Mean and standard deviation with the named ddof; the deviation of too few values is NaN."""
    values = np.asarray(values, float)
    return float(values.mean()), float(values.std(ddof=ddof)) if values.size > ddof else math.nan


def student_t_quantile(confidence: float, freedom: int) -> float:
    """t with P(|T| <= t) = confidence for `freedom` degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    if not 0 < confidence < 1 or freedom < 1:
        raise ValueError(f"confidence must be in (0, 1), freedom at least 1, not {confidence}, {freedom}.")

    def within(theta: float) -> float:
        cosine, sine = math.cos(theta), math.sin(theta)
        odd = freedom % 2
        term = cosine if odd else 1.0
        total = 0.0 if freedom == 1 else term
        for k in range(2 + odd, freedom - 1, 2):
            term *= cosine**2 * (k - 1) / k
            total += term
        return 2 / math.pi * (theta + sine * total) if odd else sine * total

    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def t_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean over seeds, for few of them; (NaN, NaN) for one."""
    values = np.asarray(values, float)
    if values.size < 2:
        return math.nan, math.nan
    mean, std = mean_std(values, ddof=1)
    width = student_t_quantile(confidence, values.size - 1) * std / math.sqrt(values.size)
    return mean - width, mean + width


def undominated(values: ArrayLike, against: ArrayLike, higher_is_better: ArrayLike) -> NDArray[np.bool_]:
    """Which rows no row of `against` dominates: as good in every metric and better in one.

    values [rows, N], against [others, N], higher_is_better [N]; returns [rows]. Raises ValueError for NaN:
    diverged runs are dropped first, by a stated filter.
    """
    sign = np.where(np.asarray(higher_is_better, bool), -1.0, 1.0)
    values = np.asarray(values, float).reshape(-1, len(sign)) * sign
    against = np.asarray(against, float).reshape(-1, len(sign)) * sign
    if np.isnan(values).any() or np.isnan(against).any():
        raise ValueError("an undefined (NaN) value has no place in a Pareto front; drop such runs and say so.")
    best = _front(against)  # whatever is dominated is dominated by one of these
    return np.array([not _dominated(row, best) for row in values], bool)


def _front(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rows [n, N], lower is better, that none of them dominates; equal ones once."""
    kept = np.empty_like(rows)
    n = 0
    for row in rows[np.lexsort(rows.T[::-1])]:  # a row comes after whatever dominates it
        if not (kept[:n] <= row).all(1).any():
            kept[n] = row
            n += 1
    return kept[:n]


def _dominated(row: NDArray[np.float64], by: NDArray[np.float64]) -> bool:
    return bool(((by <= row).all(1) & (by < row).any(1)).any())


def pareto_counts(values: ArrayLike, others: ArrayLike, higher_is_better: ArrayLike) -> dict[str, int]:
    """How many rows are Pareto optimal (Elich et al. 2023, Table 2): "full" among values and others together,
    "other" with respect to `others` alone (a row may then be dominated by its own kind). full <= other.
    """
    n = len(np.asarray(higher_is_better))
    both = np.concatenate([np.asarray(values, float).reshape(-1, n), np.asarray(others, float).reshape(-1, n)])
    return {
        "full": int(undominated(values, both, higher_is_better).sum()),
        "other": int(undominated(values, others, higher_is_better).sum()),
    }
