"""What the figures of a comparison show, as plain numbers: drawing needs neither runs nor records."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtlbench import stats
from mtlbench.aggregation import sections
from mtlbench.aggregation.comparison import Comparison
from mtlbench.aggregation.presentation import FORMS, head
from mtlbench.aggregation.rows import Row

Band = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""x, and there the mean, the least and the most over seeds."""


@dataclass(frozen=True)
class FigureData:
    """title; delta: the head of Delta_m's axis, and whether higher is better; metrics: the heads [N], higher [N], and
    first: the first metric of each task.
    response: {optimizer: {row: band over learning rates}}, and lost: the rates at which not every seed came to an end.
    points: test metrics of the valid runs [runs, N], their optimizers, and full: which no run dominates.
    budget: {row: expected validation Delta_m of the best of k, from k = 1}.
    training: {metric: {row: band over epochs}}.
    """

    title: str
    delta: str
    delta_higher: bool
    metrics: list[str]
    higher: list[bool]
    first: list[int]
    response: dict[str, dict[str, Band]]
    lost: dict[str, dict[str, list[float]]]
    points: NDArray[np.float64]
    optimizers: list[str]
    full: NDArray[np.bool_]
    budget: dict[str, NDArray[np.float64]]
    training: dict[str, dict[str, Band]]


def figure_data(comparison: Comparison) -> FigureData:
    form, front = comparison.rules.form, comparison.front
    groups = sections.groups_of(comparison)
    first = {name.partition("/")[0]: i for i, name in reversed(list(enumerate(comparison.metrics)))}
    bands, lost = _response(groups, form)
    return FigureData(
        title=comparison.title,
        delta=FORMS[form],
        delta_higher=stats.DELTA_M[form] == "higher is better",
        metrics=[head(name, metric) for name, metric in comparison.metrics.items()],
        higher=comparison.higher,
        first=sorted(first.values()),
        response=bands,
        lost=lost,
        points=front.values,
        optimizers=[run.option("optimizer") for run in front.runs],
        full=front.full,
        budget={label: sections.budgets(rows, form)[0] for label, rows in groups.items()},
        training={head(name, metric): _training(comparison, name) for name, metric in comparison.metrics.items()},
    )


def _response(
    groups: dict[str, list[Row]], form: str
) -> tuple[dict[str, dict[str, Band]], dict[str, dict[str, list[float]]]]:
    """Of each row's settings with one rate and optimizer the one that validation prefers."""
    bands: dict[str, dict[str, Band]] = {}
    lost: dict[str, dict[str, list[float]]] = {}
    for label, rows in groups.items():
        rates = _by_rate(rows, form)
        for optimizer in sorted({name for _, name in rates}):
            mine = sorted((rate, row) for (rate, name), row in rates.items() if name == optimizer)
            good = [(rate, row.deltas[form]) for rate, row in mine if len(row.deltas[form])]
            x = np.array([rate for rate, _ in good])
            seeds = [delta for _, delta in good]
            middle, least, most = (np.array([f(delta) for delta in seeds]) for f in (np.mean, np.min, np.max))
            bands.setdefault(optimizer, {})[label] = (x, middle, least, most)
            bad = [rate for rate, row in mine if len(row.deltas[form]) < len(row.results)]
            lost.setdefault(optimizer, {})[label] = bad
    return dict(sorted(bands.items())), lost


def _by_rate(rows: Sequence[Row], form: str) -> dict[tuple[float, str], Row]:
    turn = 1 if stats.DELTA_M[form] == "higher is better" else -1

    def score(row: Row) -> float:
        return -math.inf if math.isnan(row.validation) else turn * row.validation

    best: dict[tuple[float, str], Row] = {}
    for row in rows:
        rate = (row.results[0].config.get("optimizer") or {}).get("lr")
        if rate is not None and rate > 0:
            key = (float(rate), row.results[0].option("optimizer"))
            if key not in best or score(row) > score(best[key]):
                best[key] = row
    return best


def _training(comparison: Comparison, name: str) -> dict[str, Band]:
    """Of single_task and of each row, where the seeds have the same epochs."""
    rows = [("single_task", comparison.single[name.partition("/")[0]]), *((row.label, row) for row in comparison.rows)]
    found = {}
    for label, row in rows:
        curves = [result.curves for result in row.done if f"test:{name}" in result.curves.names]
        if curves and all(np.array_equal(one.epochs, curves[0].epochs) for one in curves):
            values = np.stack([one.metrics("test", [name])[:, 0] for one in curves])
            known = ~np.isnan(values).any(0)
            values = values[:, known]
            found[label] = (curves[0].epochs[known], values.mean(0), values.min(0), values.max(0))
    return found
