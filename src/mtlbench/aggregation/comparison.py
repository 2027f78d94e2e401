"""Results of a sweep as comparisons: rows of chosen settings, with their Delta_m, ranks and cost."""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlbench import stats
from mtlbench.aggregation import choice, epochs
from mtlbench.aggregation.front import Front, front
from mtlbench.aggregation.gather import Result, setting_of
from mtlbench.aggregation.naming import flat, names, shown
from mtlbench.aggregation.rows import Row, relative_seconds
from mtlbench.aggregation.rules import Rules
from mtlbench.aggregation.selection import Reference, own_improvement

PROTOCOL = ("dataset", "backbone", "head", "epochs", "precision")
"""What a row and its single-task baseline have in common (of the dataset all but the choice of tasks)."""

Command = Callable[[Result, str], str]
"""command(result, task): what to type for the baseline of `task` under the protocol of `result`."""

__all__ = ["Comparison", "Row", "compare"]


@dataclass
class Comparison:
    """One protocol. metrics: {name: record's entry}; baselines: the single-task settings of each task, and `single`
    the one that was chosen; settings: every other configuration; rows: of these, one for each of rules.rows, chosen on
    validation, and by_optimizer the same for each of them and each optimizer (empty with one optimizer).
    reference: {split: what Delta_m is relative to}. unchosen: why every setting is a row of its own, or nothing.
    """

    title: str
    rules: Rules
    metrics: dict[str, dict[str, Any]]
    baselines: dict[str, list[Row]]
    single: dict[str, Row]
    settings: list[Row]
    rows: list[Row] = field(default_factory=list)
    by_optimizer: list[Row] = field(default_factory=list)
    reference: dict[str, Reference] = field(default_factory=dict)
    unchosen: str = ""

    @property
    def results(self) -> list[Result]:
        rows = [*(row for rows in self.baselines.values() for row in rows), *self.settings]
        return [result for row in rows for result in row.results]

    @property
    def undefined(self) -> list[str]:
        """Metrics whose baseline allows no Delta_m."""
        return self.reference["test"].undefined

    @property
    def higher(self) -> list[bool]:
        return [metric["higher_is_better"] for metric in self.metrics.values()]

    @property
    def searched(self) -> bool:
        """Whether there was something to choose."""
        return any(row.tried > 1 for row in [*self.rows, *self.single.values()])

    @cached_property
    def front(self) -> Front:
        """The Pareto-optimal ones of all multi-task runs."""
        results = (result for row in self.settings for result in row.results)
        return front(results, self.metrics, self.rules.valid)

    def complete(self, rows: Sequence[Row]) -> list[int]:
        """The places of rows of which every seed is done and every metric defined: only these are ranked."""
        return [i for i, row in enumerate(rows) if row.complete(list(self.metrics))]

    def ranks(self, rows: Sequence[Row]) -> NDArray[np.float64]:
        """Ranks of the means over seeds among the complete rows [rows, metrics]; NaN for the others."""
        found = np.full((len(rows), len(self.metrics)), math.nan)
        ranked = self.complete(rows)
        if ranked:
            averages = np.array([rows[i].values(list(self.metrics)).mean(0) for i in ranked])
            averages = np.vectorize(stats.without_rounding_error)(averages)  # equal means must tie
            found[ranked] = stats.ranks(averages, self.higher)
        return found


def compare(results: Sequence[Result], name: str, command: Command, rules: Rules | None = None) -> list[Comparison]:
    """One comparison for each protocol among the results; sets each result's values, epoch and label.

    Raises ValueError where a baseline is missing, naming the command, where a task has several and no validation
    part to choose by, or where rules.select cannot be applied.
    """
    rules = rules or Rules()
    groups: dict[str, list[Result]] = {}
    for setting in _settings(results):
        groups.setdefault(_text(_protocol(setting[0])), []).extend(setting)
    protocols = [dict(flat(_protocol(members[0]))) for members in groups.values()]
    titled = []
    for members, own in zip(groups.values(), protocols, strict=True):
        differs = [k for k in own if len({_text(other.get(k)) for other in protocols}) > 1]
        synthetic = any(result.record and result.record["synthetic"] for result in members)
        parts = [members[0].option("dataset") + (" (synthetic data)" if synthetic else "")]
        parts += [f"{key}={shown(own[key])}" for key in differs if not key.endswith("_target_")]
        titled.append((f"{name}: {', '.join(parts)}", members))
    titled.sort(key=lambda pair: pair[0])
    found = versions(results)
    code = max(found, key=lambda version: (found[version], version), default="")
    return [_compare(members, title, command, rules, code) for title, members in titled]


def _settings(results: Sequence[Result]) -> list[list[Result]]:
    """The results by what their command lines say but for the seed; two of these may still be one configuration."""
    found: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        found.setdefault(setting_of(result.overrides), []).append(result)
    return list(found.values())


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _protocol(result: Result) -> dict[str, Any]:
    protocol = {key: result.config.get(key) for key in PROTOCOL}
    protocol["dataset"] = {k: v for k, v in protocol["dataset"].items() if k != "tasks"}
    return protocol


def _compare(members: list[Result], title: str, command: Command, rules: Rules, code: str) -> Comparison:
    metrics: dict[str, dict[str, Any]] = {}
    records = [result.record for result in members if result.record]
    for entry in sorted(records, key=lambda entry: (-len(entry["tasks"]), entry["tasks"], entry["run"])):
        metrics.update({key: value for key, value in entry["metrics"].items() if key not in metrics})
    alone = sorted(result.tasks[0] for result in members if result.single_task)
    tasks = list(dict.fromkeys([*(name.partition("/")[0] for name in metrics), *alone]))
    baselines = {task: _baselines(members, task, command, rules) for task in tasks}
    settings = _rows([result for result in members if not result.single_task])
    _mark([*settings, *(row for rows in baselines.values() for row in rows)], code)
    single = {task: choice.baseline(task, rows) for task, rows in baselines.items()}
    comparison = Comparison(title, rules, metrics, baselines, single, settings)
    comparison.reference = {split: _reference(comparison, split) for split in ("test", "val")}
    for batch in epochs.batches([result for row in settings for result in row.done]):
        epochs.select_by_delta(batch, comparison.rules, comparison.reference)
    for batch in epochs.batches([result for rows in baselines.values() for row in rows for result in row.done]):
        epochs.optimism(batch, comparison.rules, comparison.reference)
    relative_seconds(settings)
    comparison.rows, comparison.by_optimizer, comparison.unchosen = choice.choose(settings, rules)
    for row in [*settings, *(row for rows in baselines.values() for row in rows)]:
        for result in row.results:
            result.label = row.label
    return comparison


def _rows(members: Sequence[Result]) -> list[Row]:
    """One row for each configuration without its seed, sorted by name, `equal` first."""
    groups: dict[str, list[Result]] = {}
    for setting in _settings(members):
        groups.setdefault(_text({**setting[0].config, "seed": None}), []).extend(setting)
    rows = [Row("", sorted(group, key=lambda result: (result.seed, result.id))) for group in groups.values()]
    named = names([row.results[0] for row in rows])
    for row, (label, _) in zip(rows, named, strict=True):
        row.label = label
    order = sorted(range(len(rows)), key=lambda i: (named[i][1], rows[i].results[0].id))
    return [rows[i] for i in order]


def _baselines(members: Sequence[Result], task: str, command: Command, rules: Rules) -> list[Row]:
    """The single-task settings of a task, each run with the epoch that it chooses by itself."""
    rows = _rows([result for result in members if result.single_task and result.tasks == [task]])
    if not any(row.done for row in rows):
        there = ", ".join(row.n for row in rows) or "none in the sweep"
        example = rows[0].results[0] if rows else min(members, key=lambda r: (r.single_task, r.id))
        raise ValueError(
            f"Δm needs a finished single-task run of {task}, with the rows' dataset, network, epochs and "
            f"precision. Found: {there}. To run it:\n  {command(example, task)}"
        )
    for batch in epochs.batches([result for row in rows for result in row.done]):
        metrics = batch[0].record["metrics"]
        score = own_improvement([metric["higher_is_better"] for metric in metrics.values()])
        epochs.apply(batch, rules.select, tuple(metrics), {"val": score, "test": score})
    for row in rows:
        row.label = f"single_task {task}" + row.label.removeprefix("equal") * (len(rows) > 1)
    return rows


def _reference(comparison: Comparison, split: str) -> Reference:
    """The means of the chosen single-task runs; NaN where there is no such part."""
    means = []
    for name in comparison.metrics:
        done = comparison.single[name.partition("/")[0]].done
        found = [result.values.get(split, {}).get(name, math.nan) for result in done]
        means.append(np.mean(found) if found else math.nan)
    return Reference(tuple(comparison.metrics), np.array(means, float), tuple(comparison.higher), comparison.rules.form)


def _mark(rows: Sequence[Row], code: str) -> None:
    """Which rows have synthetic data among real, and runs by other code than most."""
    results = [result for row in rows for result in row.results if result.record]
    mixed = {result.record["synthetic"] for result in results} == {True, False}
    for row in rows:
        records = [result.record for result in row.results if result.record]
        row.other_code = sum(entry["source_hash"] != code for entry in records)
        if mixed and any(entry["synthetic"] for entry in records):
            row.label += " (synthetic data)"
            row.synthetic = True


def versions(results: Sequence[Result]) -> Counter[str]:
    """How many runs each version of the code made."""
    return Counter(result.record["source_hash"] for result in results if result.record)
