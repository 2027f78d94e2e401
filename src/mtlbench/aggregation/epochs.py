"""Each run's epoch, chosen by the rules, and Delta_m there; for many runs at a time."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtlbench import stats
from mtlbench.aggregation.gather import Result
from mtlbench.aggregation.rules import Rules
from mtlbench.aggregation.selection import (
    OPTIMISTIC,
    Reference,
    Score,
    Selected,
    alike,
    best,
    own_improvement,
    select,
    stacked,
)


def batches(results: Sequence[Result], most: int = 500) -> list[list[Result]]:
    """Results whose curves have the same form and metrics, at most so many together."""
    groups: dict[Any, list[Result]] = {}
    for result in results:
        groups.setdefault((tuple(result.record["metrics"]), alike(result.curves)), []).append(result)
    return [group[i : i + most] for group in groups.values() for i in range(0, len(group), most)]


def apply(batch: Sequence[Result], rule: str, names: Sequence[str], score: dict[str, Score]) -> Selected:
    try:
        found = select([result.curves for result in batch], rule, names, score)
    except ValueError as error:
        raise ValueError(f"--select {rule}: run {batch[0].id} has {error}") from error
    for i, result in enumerate(batch):
        result.epoch = int(found.epochs[i])
        result.values = {k: dict(zip(names, v[i].tolist(), strict=True)) for k, v in found.values.items()}
    return found


def select_by_delta(batch: Sequence[Result], rules: Rules, reference: Mapping[str, Reference]) -> None:
    """The values of the epoch that the rule chooses, by Delta_m, and what follows from them."""
    names = _own(batch[0], reference)
    found = apply(batch, rules.select, names, _scores(reference, names))
    if names == reference["test"].metrics:
        test = {form: reference["test"].delta(found.values["test"], form) for form in stats.DELTA_M}
        validation = reference["val"].delta(found.values["val"]) if "val" in found.values else None
        for i, result in enumerate(batch):
            result.deltas = {form: float(delta[i]) for form, delta in test.items()}
            result.validation = math.nan if validation is None else float(validation[i])
    optimism(batch, rules, reference)


def optimism(batch: Sequence[Result], rules: Rules, reference: Mapping[str, Reference]) -> None:
    """How much better Delta_m is with the epoch chosen on test than with an honest one: that of the rule or, where
    this is the optimistic one, of best_val (without validation part: last)."""
    names = _own(batch[0], reference)
    curves = [result.curves for result in batch]
    scores, test = _scores(reference, names), reference["test"].part(names)
    values = stacked(curves, "test", names)
    optimistic = values[np.arange(len(batch)), best(scores["test"](values))]
    if rules.select == OPTIMISTIC:
        honest = select(curves, "best_val" if curves[0].has("val") else "last", names, scores).values["test"]
    else:
        honest = np.array([[result.values["test"][name] for name in names] for result in batch])
    for result, points in zip(batch, test.score(optimistic) - test.score(honest), strict=True):
        result.optimism = float(points)


def _own(result: Result, reference: Mapping[str, Reference]) -> tuple[str, ...]:
    """The metrics of the comparison that a run has."""
    return tuple(name for name in reference["test"].metrics if name in result.record["metrics"])


def _scores(reference: Mapping[str, Reference], names: Sequence[str]) -> dict[str, Score]:
    """Delta_m over some of the metrics; where it is undefined, the improvement over the run's own first epoch."""
    parts = {split: whole.part(names) for split, whole in reference.items()}
    return {split: own_improvement(part.higher) if part.undefined else part.score for split, part in parts.items()}
