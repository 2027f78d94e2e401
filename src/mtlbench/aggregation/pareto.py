"""Pareto counts in the manner of Elich et al. 2023, Table 2 and A2: every run by itself, of all settings and seeds."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtlbench import stats
from mtlbench.aggregation.comparison import Comparison
from mtlbench.aggregation.gather import Result
from mtlbench.aggregation.tables import Cell, Table


@dataclass
class Front:
    """The runs of a comparison that count, with their test metrics [runs, N]; which of them no run dominates (full),
    and which none of another optimizer does (other). left_out: how many did not count, by reason."""

    runs: list[Result]
    values: NDArray[np.float64]
    full: NDArray[np.bool_]
    other: NDArray[np.bool_]
    left_out: Counter[str]


def front(comparison: Comparison) -> Front:
    """Every finished multi-task run, after the filters: all metrics finite, and not below the floors of rules.valid."""
    metrics = list(comparison.metrics)
    runs, values, left_out = [], [], Counter[str]()
    for result in (result for row in comparison.settings for result in row.results):
        vector = [result.values.get("test", {}).get(name, math.nan) for name in metrics]
        reason = _invalid(result, vector, comparison)
        if reason:
            left_out[reason] += 1
        else:
            runs.append(result)
            values.append(vector)
    table = np.array(values, float).reshape(-1, len(metrics))
    optimizers = np.array([result.option("optimizer") for result in runs], object)
    full, other = np.zeros(len(runs), bool), np.zeros(len(runs), bool)
    if len(runs):
        full = stats.undominated(table, table, comparison.higher)
        for name in set(optimizers):
            mine = optimizers == name
            other[mine] = stats.undominated(table[mine], table[~mine], comparison.higher)
    return Front(runs, table, full, other, left_out)


def _invalid(result: Result, vector: Sequence[float], comparison: Comparison) -> str:
    if result.state != "done":
        return result.state
    if not np.isfinite(vector).all():
        return "a metric is undefined"
    for name, bound in comparison.rules.valid.items():
        if name not in comparison.metrics:
            raise ValueError(f"valid: {name} is no metric here; there are {', '.join(comparison.metrics)}.")
        value = result.values["test"][name]
        if (value < bound) if comparison.metrics[name]["higher_is_better"] else (value > bound):
            return f"{name} {'below' if comparison.metrics[name]['higher_is_better'] else 'above'} {bound:g}"
    return ""


def table(comparison: Comparison) -> Table:
    """Counts by optimizer, and of each optimizer by method."""
    found = front(comparison)
    everyone = [result for row in comparison.settings for result in row.results]
    optimizers = sorted({result.option("optimizer") for result in everyone})
    methods = list(dict.fromkeys(row.results[0].option("method") for row in comparison.settings))
    grid = Table("Pareto-optimal runs", [], ["optimizer", "method", "runs", "valid", "full", "against the others"])

    def count(optimizer: str, method: str | None) -> list[Cell]:
        def is_one(result: Result) -> bool:
            return result.option("optimizer") == optimizer and method in (None, result.option("method"))

        mine = np.array([is_one(result) for result in found.runs], bool)
        other = str(int(found.other[mine].sum())) if len(optimizers) > 1 else "-"
        shown = [str(sum(map(is_one, everyone))), str(int(mine.sum())), str(int(found.full[mine].sum())), other]
        return [Cell(text) for text in (optimizer, method or "all", *shown)]

    for optimizer in optimizers:
        grid.rows.append(count(optimizer, None))
        if len(methods) > 1:
            grid.rows += [count(optimizer, method) for method in methods]
    rules = ["not done or diverged", "a metric undefined"]
    rules += [
        f"{name} {'below' if comparison.metrics[name]['higher_is_better'] else 'above'} {bound:g}"
        for name, bound in comparison.rules.valid.items()
    ]
    gone = ", ".join(f"{count} {reason}" for reason, count in sorted(found.left_out.items()))
    grid.legend = [
        f"Each run (setting and seed) counts, by its {len(comparison.metrics)} test metrics at the selected epoch. "
        "full: no run of any optimizer is as good in every metric and better in one. against the others: no run of "
        "another optimizer is (Elich et al. 2023, Table 2). Equal runs do not dominate each other.",
        f"Not valid: {'; '.join(rules)}. Left out: {gone or 'none'}.",
    ]
    return grid
