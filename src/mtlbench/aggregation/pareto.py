"""Pareto counts as a table: by optimizer, and by method (Elich et al. 2023, Tables 2 and A2)."""

import numpy as np

from mtlbench.aggregation.comparison import Comparison
from mtlbench.aggregation.front import bound
from mtlbench.aggregation.gather import Result
from mtlbench.aggregation.tables import Cell, Table


def table(comparison: Comparison) -> Table:
    """Counts by optimizer, and of each optimizer by method."""
    found = comparison.front
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
    rules += [bound(name, floor, comparison.metrics) for name, floor in comparison.rules.valid.items()]
    gone = ", ".join(f"{count} {reason}" for reason, count in sorted(found.left_out.items()))
    grid.legend = [
        f"Each run (setting and seed) counts, by its {len(comparison.metrics)} test metrics at the selected epoch. "
        "full: no run of any optimizer is as good in every metric and better in one. against the others: no run of "
        "another optimizer is (Elich et al. 2023, Table 2). Equal runs do not dominate each other.",
        f"Not valid: {'; '.join(rules)}. Left out: {gone or 'none'}.",
    ]
    return grid
