"""Pareto-optimal runs in the manner of Elich et al. 2023: every run by itself, of all settings and seeds."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlbench import stats
from mtlbench.aggregation.gather import Result


@dataclass
class Front:
    """The runs of a comparison that count, with their test metrics [runs, N]; which of them no run dominates (full),
    and which none of another optimizer does (other). left_out: how many did not count, by reason."""

    runs: list[Result]
    values: NDArray[np.float64]
    full: NDArray[np.bool_]
    other: NDArray[np.bool_]
    left_out: Counter[str]


def front(results: Iterable[Result], metrics: Mapping[str, Mapping[str, Any]], valid: Mapping[str, float]) -> Front:
    """Every finished run, after the filters: all metrics finite, and none beyond its bound in `valid`.

    Raises ValueError for a bound of what is no metric.
    """
    for name in valid:
        if name not in metrics:
            raise ValueError(f"valid: {name} is no metric here; there are {', '.join(metrics)}.")
    higher = [metric["higher_is_better"] for metric in metrics.values()]
    runs, values, left_out = [], [], Counter[str]()
    for result in results:
        vector = [result.values.get("test", {}).get(name, math.nan) for name in metrics]
        reason = _invalid(result, vector, metrics, valid)
        if reason:
            left_out[reason] += 1
        else:
            runs.append(result)
            values.append(vector)
    table = np.array(values, float).reshape(-1, len(metrics))
    optimizers = np.array([result.option("optimizer") for result in runs], object)
    full, other = np.zeros(len(runs), bool), np.zeros(len(runs), bool)
    if len(runs):
        full = stats.undominated(table, table, higher)
        for name in set(optimizers):
            mine = optimizers == name
            other[mine] = stats.undominated(table[mine], table[~mine], higher)
    return Front(runs, table, full, other, left_out)


def _invalid(
    result: Result, vector: Sequence[float], metrics: Mapping[str, Mapping[str, Any]], valid: Mapping[str, float]
) -> str:
    if result.state != "done":
        return result.state
    if not np.isfinite(vector).all():
        return "a metric is undefined"
    for name, limit in valid.items():
        value = result.values["test"][name]
        if value < limit if metrics[name]["higher_is_better"] else value > limit:
            return bound(name, limit, metrics)
    return ""


def bound(name: str, limit: float, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """A filter in words."""
    return f"{name} {'below' if metrics[name]['higher_is_better'] else 'above'} {limit:g}"
