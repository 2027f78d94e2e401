"""Results of a sweep as comparisons: rows of chosen settings, with their Delta_m, ranks and cost."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlbench import stats
from mtlbench.aggregation import choice
from mtlbench.aggregation.gather import Result
from mtlbench.aggregation.naming import flat, names, shown
from mtlbench.aggregation.rows import Row
from mtlbench.aggregation.rules import Rules
from mtlbench.aggregation.selection import OPTIMISTIC, Reference, best, own_improvement, select

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
    found = versions(results)
    code = max(found, key=lambda version: (found[version], version), default="")
    return [_compare(members, title, command, rules, code) for title, members in titled]


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
    for row in [*settings, *(row for rows in baselines.values() for row in rows)]:
        for result in row.done:
            _select(result, comparison)
    _relate(comparison)
    _relative_seconds(settings)
    comparison.rows, comparison.by_optimizer, comparison.unchosen = choice.choose(settings, rules)
    for row in [*settings, *(row for rows in baselines.values() for row in rows)]:
        for result in row.results:
            result.label = row.label
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
    for result in (result for row in rows for result in row.done):
        names = tuple(result.record["metrics"])
        score = own_improvement([metric["higher_is_better"] for metric in result.record["metrics"].values()])
        _apply(result, rules.select, names, {"val": score, "test": score})
    for row in rows:
        row.label = f"single_task {task}" + row.label.removeprefix("equal") * (len(rows) > 1)
    return rows


def _apply(result: Result, rule: str, names: Sequence[str], score: dict[str, Any]) -> None:
    try:
        result.values, result.epoch = select(result.curves, rule, names, score)
    except ValueError as error:
        raise ValueError(f"--select {rule}: run {result.id}: {error}") from error


def _reference(comparison: Comparison, split: str) -> Reference:
    """The means of the chosen single-task runs; NaN where there is no such part."""
    means = []
    for name in comparison.metrics:
        done = comparison.single[name.partition("/")[0]].done
        found = [result.values.get(split, {}).get(name, math.nan) for result in done]
        means.append(np.mean(found) if found else math.nan)
    return Reference(tuple(comparison.metrics), np.array(means, float), tuple(comparison.higher), comparison.rules.form)


def _select(result: Result, comparison: Comparison) -> None:
    """The values of a run's epoch by the rule, and of that which the test part would choose, by Delta_m."""
    names = tuple(name for name in comparison.metrics if name in result.record["metrics"])
    score = {split: _score(comparison.reference[split], names) for split in ("test", "val")}
    rule, others = comparison.rules.select, result.curves
    if not result.single_task:
        _apply(result, rule, names, score)
    if rule == OPTIMISTIC:
        honest = "best_val" if others.has("val") else "last"
        result.optimistic = result.values["test"]
        result.honest = select(others, honest, names, score)[0]["test"]
    else:
        result.honest = result.values["test"]
    values = others.metrics("test", names)
    result.optimistic = dict(zip(names, values[best(score["test"](values))], strict=True))


def _score(reference: Reference, names: Sequence[str]) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Delta_m over some of the metrics; where it is undefined, the improvement over the run's own first epoch."""
    part = reference.part(names)
    return own_improvement(part.higher) if part.undefined else part.score


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


def _relate(comparison: Comparison) -> None:
    """Delta_m of each seed against the mean over seeds of the single-task runs, of the validation part their mean, and
    how much more the test part's own choice of epochs would show."""
    metrics, reference = list(comparison.metrics), comparison.reference
    for row in comparison.settings:
        for form in stats.DELTA_M:
            delta = reference["test"].delta(row.values(metrics), form)
            row.deltas[form] = np.array([]) if np.isnan(delta).any() else delta
        row.validation = _mean(reference["val"].delta(row.values(metrics, "val")))
        row.optimism = _optimism(row, reference["test"])
    for task, rows in comparison.baselines.items():
        own = [name for name in metrics if name.partition("/")[0] == task]
        for row in rows:
            row.optimism = _optimism(row, reference["test"].part(own))


def _optimism(row: Row, reference: Reference) -> float:
    def scores(kind: str) -> NDArray[np.float64]:
        table = [[getattr(r, kind).get(name, math.nan) for name in reference.metrics] for r in row.done]
        return reference.score(np.array(table, float).reshape(-1, len(reference.metrics)))

    return _mean(scores("optimistic") - scores("honest"))


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else math.nan


def _relative_seconds(rows: Sequence[Row]) -> None:
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
    for row in rows:
        ratios = []
        for result in row.done:
            of_equal = equal.get(setting(result, True)) or equal.get(setting(result, False))
            if of_equal and result.record["seconds_per_step"]:
                ratios.append(result.record["seconds_per_step"] / statistics.median(of_equal))
        row.seconds = statistics.median(ratios) if ratios else math.nan


def versions(results: Sequence[Result]) -> Counter[str]:
    """How many runs each version of the code made."""
    return Counter(result.record["source_hash"] for result in results if result.record)
