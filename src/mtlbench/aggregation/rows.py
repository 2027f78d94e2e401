"""The runs of one configuration, by seed."""

import json
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mtlbench import stats
from mtlbench.aggregation.gather import Result


@dataclass
class Row:
    """The results of one configuration, by seed, and what became of them.

    seconds: per step, relative to equal; NaN where unknown. group: the label of the chosen row that this setting was a
    candidate of. Of a row that was chosen among several settings: setting (which it is), tried, and of these `finished`
    (every seed done, every metric defined); fallback: it was not chosen by its score, for none is finished.
    other_code: how many of the runs another version of the code made than most of the sweep.
    """

    label: str
    results: list[Result]
    seconds: float = math.nan
    setting: str = ""
    group: str = ""
    tried: int = 1
    finished: int = 0
    fallback: bool = False
    synthetic: bool = False
    other_code: int = 0

    @property
    def done(self) -> list[Result]:
        return [result for result in self.results if result.state == "done"]

    @property
    def seeds(self) -> list[int]:
        """Of the done runs."""
        return [result.seed for result in self.done]

    @cached_property
    def deltas(self) -> dict[str, NDArray[np.float64]]:
        """Delta_m on test of each done seed, by form; empty where one is undefined."""
        found = {}
        for form in stats.DELTA_M:
            delta = np.array([result.deltas.get(form, math.nan) for result in self.done])
            found[form] = np.array([]) if np.isnan(delta).any() else delta
        return found

    @property
    def validation(self) -> float:
        """The mean over seeds of Delta_m on validation, in the form that chooses."""
        return _mean([result.validation for result in self.done])

    @property
    def optimism(self) -> float:
        """By how many points Delta_m would be better with every epoch chosen on test."""
        return _mean([result.optimism for result in self.done])

    @property
    def n(self) -> str:
        """How many seeds count, of how many, and what became of the others: "2/3: 1 diverged"."""
        others = Counter(result.state for result in self.results if result.state != "done")
        why = [f"{count} {state}" for state, count in sorted(others.items())]
        why += [f"{self.other_code} by other code"] * (self.other_code > 0)
        return f"{len(self.done)}/{len(self.results)}" + (f": {', '.join(why)}" if why else "")

    def values(self, metrics: Sequence[str], split: str = "test") -> NDArray[np.float64]:
        """Metrics [seeds that are done, metrics]; NaN where undefined, or not of this row's tasks."""
        table = [[result.values.get(split, {}).get(name, math.nan) for name in metrics] for result in self.done]
        return np.array(table, float).reshape(len(table), len(metrics))

    def has(self, metric: str) -> bool:
        return any(metric in result.values["test"] for result in self.done)

    def complete(self, metrics: Sequence[str]) -> bool:
        """Whether every seed is done and every metric defined."""
        return len(self.done) == len(self.results) and not np.isnan(self.values(metrics)).any()

    @property
    def state(self) -> str:
        """finished: every seed done; failed: one diverged, failed or cannot be read; otherwise unfinished."""
        states = {result.state for result in self.results}
        if states == {"done"}:
            return "finished"
        return "failed" if states & {"diverged", "failed", "unreadable"} else "unfinished"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


BUSY = 1.5
"""Processes a core from which on a run's seconds are not its own."""


def alone(result: Result) -> bool:
    """Whether the run's seconds are known, and its record tells that the machine had no other work."""
    load = result.record.get("load")
    return bool(result.record["seconds_per_step"]) and load is not None and load <= BUSY


def relative_seconds(rows: Sequence[Row]) -> None:
    """Median over seeds of a run's seconds per step to those of equal: same seed, same machine, and the same
    configuration but for the method; where equal has no run at that learning rate, at any (the work is the same).
    Runs on a machine that was BUSY, or may have been, are left out.
    """
    equal: dict[tuple, list[float]] = {}
    keyed = [
        (row, [(result, _work(result, texts)) for result in row.done])
        for row, texts in zip(rows, map(_texts, rows), strict=True)
    ]
    for _, results in keyed:
        for result, keys in results:
            if result.option("method") == "equal" and alone(result):
                for key in keys:
                    equal.setdefault(key, []).append(result.record["seconds_per_step"])
    for row, results in keyed:
        ratios = []
        for result, (exact, any_rate) in results:
            of_equal = equal.get(exact) or equal.get(any_rate)
            if of_equal and alone(result):
                ratios.append(result.record["seconds_per_step"] / statistics.median(of_equal))
        row.seconds = statistics.median(ratios) if ratios else math.nan


def _texts(row: Row) -> tuple[str, str]:
    """The configuration of a row without method and seed, with and without its learning rate."""
    config = {key: value for key, value in row.results[0].config.items() if key not in ("method", "seed")}
    rest = {key: value for key, value in (config["optimizer"] or {}).items() if key != "lr"}
    return json.dumps(config, sort_keys=True), json.dumps({**config, "optimizer": rest}, sort_keys=True)


def _work(result: Result, texts: tuple[str, str]) -> list[tuple]:
    """What must be the same where seconds are compared."""
    machine = [result.record[key] for key in ("device", "world_size", "threads")]
    return [(text, result.seed, *result.record["tasks"], *machine) for text in texts]
