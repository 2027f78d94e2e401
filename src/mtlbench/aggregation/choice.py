"""Which setting stands for a method: chosen on validation, never on test."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from mtlbench import stats
from mtlbench.aggregation.naming import belongs, different, names
from mtlbench.aggregation.rows import Row
from mtlbench.aggregation.rules import Rules

NO_VALIDATION = (
    "There is no validation part: no setting was chosen, each is a row. (Choosing on test would favour whoever was "
    "tried most.)"
)


def choose(settings: Sequence[Row], rules: Rules) -> tuple[list[Row], list[Row], str]:
    """The rows of a comparison, the same by optimizer (empty if there is one), and why nothing was chosen."""
    examples = [row.results[0] for row in settings]
    leaves = different(examples)
    more = (*rules.rows, "optimizer")
    keys = [label for label, _ in names(examples, lambda key: belongs(key, rules.rows), leaves)]
    finer = [label for label, _ in names(examples, lambda key: belongs(key, more), leaves)]
    rest = names(examples, lambda key: not belongs(key, rules.rows), leaves)
    for row, (label, _) in zip(settings, rest, strict=True):
        row.setting = label
        row.finished = int(row.state == "finished")
    if len(set(keys)) == len(settings):
        return list(settings), [], ""
    if any("val" not in result.values for row in settings for result in row.done):
        return list(settings), [], NO_VALIDATION
    optimizers = {row.results[0].option("optimizer") for row in settings}
    split = len(optimizers) > 1 and "optimizer" not in rules.rows
    for row, key in zip(settings, keys, strict=True):
        row.group = key + " (synthetic data)" * row.synthetic
    return _grouped(settings, keys, rules), _grouped(settings, finer, rules) if split else [], ""


def _grouped(settings: Sequence[Row], keys: Sequence[str], rules: Rules) -> list[Row]:
    groups: dict[str, list[Row]] = {}
    for row, key in zip(settings, keys, strict=True):
        groups.setdefault(key + " (synthetic data)" * row.synthetic, []).append(row)
    return [_best(label, rows, rules) for label, rows in groups.items()]


def _best(label: str, rows: Sequence[Row], rules: Rules) -> Row:
    """The finished setting with the best validation Delta_m, the first of equals; without one, that with most seeds."""
    higher = stats.DELTA_M[rules.form] == "higher is better"
    scores = [_score(row, higher) for row in rows]
    finished = [i for i, score in enumerate(scores) if not math.isnan(score)]
    if finished:
        place = max(finished, key=lambda i: (scores[i], -i))
    else:
        place = max(range(len(rows)), key=lambda i: (len(rows[i].done), -i))
    return dataclasses.replace(
        rows[place], label=label, tried=len(rows), finished=len(finished), fallback=not finished and len(rows) > 1
    )


def _score(row: Row, higher: bool) -> float:
    """NaN for a setting that is not finished: a seed that diverged is no result, one that is missing not yet."""
    if row.state != "finished":
        return math.nan
    return row.validation if higher else -row.validation


def baseline(task: str, rows: Sequence[Row]) -> Row:
    """The single-task setting of a task with the best validation metrics: the mean of their relative improvements over
    their medians among the settings.

    Raises ValueError where there are several and no validation part.
    """
    if len(rows) == 1:
        return dataclasses.replace(rows[0], finished=int(rows[0].state == "finished"))
    if any("val" not in result.values for row in rows for result in row.done):
        raise ValueError(
            f"{task} has {len(rows)} single-task settings ({'; '.join(row.label for row in rows)}) and no validation "
            f"part to choose by; Δm is relative to one. Leave one of them in the sweep."
        )
    metrics = next(result.record["metrics"] for row in rows for result in row.done)
    finished = [i for i, row in enumerate(rows) if row.complete(list(metrics))]
    candidates = finished or [max(range(len(rows)), key=lambda i: (len(rows[i].done), -i))]
    means = np.array([rows[i].values(list(metrics), "val").mean(0) for i in candidates])
    better = [metric["higher_is_better"] for metric in metrics.values()]
    scores = stats.mean_relative_improvement(means, np.nanmedian(means, 0), better)
    place = candidates[int(np.argmax(scores))]
    extra = rows[place].label.removeprefix(f"single_task {task}").strip()
    return dataclasses.replace(
        rows[place],
        label=f"single_task {task}",
        setting=extra,
        tried=len(rows),
        finished=len(finished),
        fallback=not finished,
    )
