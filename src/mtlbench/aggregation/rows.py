"""The runs of one configuration, by seed."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mtlbench.aggregation.gather import Result


@dataclass
class Row:
    """The results of one configuration, by seed, and what became of them.

    deltas: Delta_m on test of each done seed, by form (empty where undefined); validation: its mean on validation, in
    the form that chooses; optimism: by how many points Delta_m would be better with every epoch chosen on test;
    seconds: per step, relative to equal. All NaN where unknown.
    group: the label of the chosen row that this setting was a candidate of.
    Of a row that was chosen among several settings: setting (which it is), tried, and of these `finished` (every seed
    done, every metric defined); fallback: it was not chosen by its score, for none of the settings is finished.
    other_code: how many of the runs another version of the code made than most of the sweep.
    """

    label: str
    results: list[Result]
    deltas: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    validation: float = math.nan
    optimism: float = math.nan
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
        return np.array(table, float).reshape(-1, len(metrics))

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
