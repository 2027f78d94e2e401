"""Results of a sweep as comparisons: one row a configuration, with its Delta_m, rank and cost."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mtlbench import stats
from mtlbench.aggregation.gather import Result
from mtlbench.aggregation.naming import flat, names, shown

PROTOCOL = ("dataset", "backbone", "head", "epochs", "precision")
"""What a row and its single-task baseline have in common (of the dataset all but the choice of tasks)."""

Command = Callable[[Result, str], str]
"""command(result, task): what to type for the baseline of `task` under the protocol of `result`."""


@dataclass
class Row:
    """The results of one configuration, by seed."""

    label: str
    results: list[Result]

    @property
    def done(self) -> list[Result]:
        return [result for result in self.results if result.state == "done"]

    @property
    def n(self) -> str:
        """How many seeds count, of how many, and what became of the others: "2/3: 1 diverged"."""
        others = Counter(result.state for result in self.results if result.state != "done")
        why = ", ".join(f"{count} {state}" for state, count in sorted(others.items()))
        return f"{len(self.done)}/{len(self.results)}" + (f": {why}" if why else "")

    def values(self, metrics: Sequence[str]) -> np.ndarray:
        """Test metrics [seeds that are done, metrics]; NaN where undefined, or not of this row's tasks."""
        table = [[result.values["test"].get(name, math.nan) for name in metrics] for result in self.done]
        return np.array(table, float).reshape(-1, len(metrics))

    def has(self, metric: str) -> bool:
        return any(metric in result.values["test"] for result in self.done)

    def complete(self, metrics: Sequence[str]) -> bool:
        """Whether every seed is done and every metric defined: only such rows are ranked."""
        return len(self.done) == len(self.results) and not np.isnan(self.values(metrics)).any()


@dataclass
class Comparison:
    """The rows of one protocol, and beside each row its Delta_m by form and seed (empty where undefined), its mean
    rank (NaN for rows that are not complete) and its seconds per step relative to equal (NaN where unknown).

    single: the single-task row of each task. undefined: metrics whose baseline allows no Delta_m.
    """

    title: str
    metrics: dict[str, dict[str, Any]]
    single: dict[str, Row]
    rows: list[Row]
    deltas: dict[str, list[np.ndarray]] = field(default_factory=dict)
    ranks: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    undefined: list[str] = field(default_factory=list)

    @property
    def results(self) -> list[Result]:
        return [result for row in [*self.single.values(), *self.rows] for result in row.results]

    @property
    def ranked(self) -> list[int]:
        """The rows that are complete."""
        return [i for i, row in enumerate(self.rows) if row.complete(list(self.metrics))]


def compare(results: Sequence[Result], name: str, command: Command) -> list[Comparison]:
    """One comparison for each protocol among the results; sets each result's label.

    Raises ValueError where a baseline is missing, naming the command, or where a task has several.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(_text(_protocol(result)), []).append(result)
    protocols = [dict(flat(_protocol(members[0]))) for members in groups.values()]
    titled = []
    for members, own in zip(groups.values(), protocols, strict=True):
        differs = [k for k in own if len({_text(other.get(k)) for other in protocols}) > 1]
        synthetic = any(result.record and result.record["synthetic"] for result in members)
        parts = [members[0].option("dataset") + (" (synthetic data)" if synthetic else "")]
        parts += [f"{key}={shown(own[key])}" for key in differs if not key.endswith("_target_")]
        titled.append((f"{name}: {', '.join(parts)}", members))
    titled.sort(key=lambda pair: pair[0])
    return [_compare(members, title, command) for title, members in titled]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _protocol(result: Result) -> dict[str, Any]:
    protocol = {key: result.config.get(key) for key in PROTOCOL}
    protocol["dataset"] = {k: v for k, v in protocol["dataset"].items() if k != "tasks"}
    return protocol


def _compare(members: list[Result], title: str, command: Command) -> Comparison:
    metrics: dict[str, dict[str, Any]] = {}
    records = [result.record for result in members if result.record]
    for entry in sorted(records, key=lambda entry: (-len(entry["tasks"]), entry["tasks"], entry["run"])):
        metrics.update({key: value for key, value in entry["metrics"].items() if key not in metrics})
    alone = sorted(result.tasks[0] for result in members if result.single_task)
    tasks = list(dict.fromkeys([*(name.partition("/")[0] for name in metrics), *alone]))
    single = _baselines(members, tasks, command)
    rows = _rows([result for result in members if not result.single_task])
    mixed = {entry["synthetic"] for entry in records} == {True, False}
    for row in [*rows, *single.values()]:
        if mixed and any(result.record and result.record["synthetic"] for result in row.results):
            row.label += " (synthetic data)"
        for result in row.results:
            result.label = row.label
    comparison = Comparison(title, metrics, single, rows)
    _relate(comparison)
    comparison.seconds = _relative_seconds(rows)
    return comparison


def _rows(members: Sequence[Result]) -> list[Row]:
    """One row for each configuration without its seed, sorted by name, `equal` first."""
    groups: dict[str, list[Result]] = {}
    for result in members:
        groups.setdefault(_text({**result.config, "seed": None}), []).append(result)
    rows = [Row("", sorted(group, key=lambda result: (result.seed, result.id))) for group in groups.values()]
    named = names([row.results[0] for row in rows])
    for row, (label, _) in zip(rows, named, strict=True):
        row.label = label
    order = sorted(range(len(rows)), key=lambda i: (named[i][1], rows[i].results[0].id))
    return [rows[i] for i in order]


def _baselines(members: Sequence[Result], tasks: Sequence[str], command: Command) -> dict[str, Row]:
    """The single-task row of each task."""
    found = {}
    for task in tasks:
        rows = _rows([result for result in members if result.single_task and result.tasks == [task]])
        if not any(row.done for row in rows):
            there = ", ".join(row.n for row in rows) or "none in the sweep"
            example = rows[0].results[0] if rows else min(members, key=lambda r: (r.single_task, r.id))
            raise ValueError(
                f"Δm needs a finished single-task run of {task}, with the rows' dataset, network, epochs and "
                f"precision. Found: {there}. To run it:\n  {command(example, task)}"
            )
        if len(rows) > 1:
            raise ValueError(
                f"{task} has {len(rows)} single-task configurations ({'; '.join(row.label for row in rows)}), "
                f"and Δm is relative to one. Leave one of them in the sweep."
            )
        rows[0].label = f"single_task {task}"
        found[task] = rows[0]
    return found


def _relate(comparison: Comparison) -> None:
    """Delta_m of each seed against the mean over seeds of the single-task runs, and the mean ranks."""
    metrics = list(comparison.metrics)
    tasks = [name.partition("/")[0] for name in metrics]
    better = [metric["higher_is_better"] for metric in comparison.metrics.values()]
    means = [comparison.single[task].values([name]).mean() for task, name in zip(tasks, metrics, strict=True)]
    comparison.undefined = [name for name, mean in zip(metrics, means, strict=True) if not mean > 0]
    for form in stats.DELTA_M:
        comparison.deltas[form] = []
        for row in comparison.rows:
            values = row.values(metrics)
            told = not comparison.undefined and not np.isnan(values).any()
            delta = stats.delta_m(values, means, better, tasks, form) if told else np.array([])
            comparison.deltas[form].append(delta)
    comparison.ranks = [math.nan] * len(comparison.rows)
    ranked = comparison.ranked
    if ranked:
        averages = np.array([comparison.rows[i].values(metrics).mean(0) for i in ranked])
        averages = np.vectorize(stats.without_rounding_error)(averages)  # equal means must tie
        summary = stats.rank_summary(stats.ranks(averages, better))
        for i, place in zip(ranked, summary.average, strict=True):
            comparison.ranks[i] = float(place)


def _relative_seconds(rows: Sequence[Row]) -> list[float]:
    """Median over seeds of a run's seconds per step to those of equal: same seed, same machine, and the same
    configuration but for the method; where equal has no run at that learning rate, at any (the work is the same).
    """

    def setting(result: Result, rate: bool) -> str:
        assert result.record
        config = {key: value for key, value in result.config.items() if key != "method"}
        if not rate:
            config["optimizer"] = {k: v for k, v in (config["optimizer"] or {}).items() if k != "lr"}
        return _text([config, [result.record[key] for key in ("tasks", "device", "world_size", "threads")]])

    equal: dict[str, list[float]] = {}
    for result in (result for row in rows for result in row.done):
        if result.option("method") == "equal" and result.record["seconds_per_step"]:
            for rate in (True, False):
                equal.setdefault(setting(result, rate), []).append(result.record["seconds_per_step"])
    found = []
    for row in rows:
        ratios = []
        for result in row.done:
            of_equal = equal.get(setting(result, True)) or equal.get(setting(result, False))
            if of_equal and result.record["seconds_per_step"]:
                ratios.append(result.record["seconds_per_step"] / statistics.median(of_equal))
        found.append(statistics.median(ratios) if ratios else math.nan)
    return found
