"""Table A7 of Elich et al. 2023 again: updates until all starts have arrived, in float32, beside the printed ones."""

import csv
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtlbench.analysis import toy_float32, toy_problem
from mtlbench.analysis.toy_figures import Drawn, drawn
from mtlbench.analysis.toy_float32 import Arithmetic

STEPS = 100_000
"""Points of a run, the start among them; the paper's budget."""

FOLLOWS_LAST_BIT = {
    ("gd", "equal"): (0.1, 0.05),
    ("gd", "cagrad"): (0.1, 0.05, 0.01, 0.005, 0.001),
    ("adam", "equal"): (0.05, 0.01, 0.005),
    ("adam", "pcgrad"): (5.0, 0.5, 0.1, 0.05),
    ("adam", "cagrad"): (0.05, 0.01, 0.005, 0.001),
}
"""The 18 cells whose count changes with the last bit of tanh or the form of Adam's average; the other 36 do not."""

OTHERS = (*(Arithmetic(tanh=seed) for seed in range(1, 5)), Arithmetic(lerp=True))
"""The arithmetics of other machines and versions, beside the correctly rounded one."""


@dataclass(frozen=True)
class Run:
    """One start. hit: first index with F <= -15. stayed: F <= -15 from there on. place: a letter of PLACES, at the end,
    which is point. shown: what a figure draws of the path."""

    hit: int | None
    stayed: bool | None
    point: tuple[float, float]
    place: str
    shown: Drawn


@dataclass(frozen=True)
class Cell:
    """iterations: the largest hit, None where a start has none; others: the same in each of OTHERS that differs from
    the first; published: the printed one, None where "-" is printed, "" where there is none."""

    optimizer: str
    method: str
    rate: float
    runs: tuple[Run, ...]
    others: tuple[int | None, ...]
    published: int | str | None = ""

    @property
    def iterations(self) -> int | None:
        hits = [run.hit for run in self.runs]
        return None if None in hits else max(hits)

    @property
    def machine_independent(self) -> bool:
        return self.rate not in FOLLOWS_LAST_BIT.get((self.optimizer, self.method), ())


def printed(path: Path) -> dict[tuple[str, str, float], int | None]:
    """Table A7 (results/papers/elich_toy.csv), None where "-" is printed; nothing where the file is not there."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {
            (row["optimizer"], row["method"], float(row["lr"])): int(row["iterations"]) if row["iterations"] else None
            for row in csv.DictReader(file)
        }


def iterations(
    optimizer: str, method: str, rate: float, starts: Sequence[Sequence[float]], steps: int, arithmetic: Arithmetic
) -> int | None:
    """The largest first hit over the starts; it ends at the first start that has none."""
    largest = 0
    for start in starts:
        hit = toy_float32.run(optimizer, method, rate, start, steps, arithmetic, only_hit=True)[2]
        if hit is None:
            return None
        largest = max(largest, hit)
    return largest


def cell(
    optimizer: str,
    method: str,
    rate: float,
    starts: Sequence[Sequence[float]],
    steps: int,
    published: int | str | None = "",
) -> Cell:
    """All of one cell, with the whole paths of its starts."""
    runs = []
    for start in starts:
        points, means, hit = toy_float32.run(optimizer, method, rate, start, steps)
        stayed = None if hit is None else bool((means[hit:] <= toy_problem.TARGET).all())
        end = (float(points[-1, 0]), float(points[-1, 1]))
        where = toy_problem.place(points[-1], float(means[-1]))
        runs.append(Run(hit, stayed, end, where, drawn(points, hit)))
    others = [
        iterations(optimizer, method, rate, starts, steps, other)
        for other in OTHERS
        if optimizer == "adam" or not other.lerp
    ]
    return Cell(optimizer, method, rate, tuple(runs), tuple(others), published)


def cells(
    optimizers: Sequence[str],
    rates: Sequence[float],
    starts: Sequence[Sequence[float]],
    steps: int,
    papers: Path,
    jobs: int,
) -> list[Cell]:
    """The table, row by row. The printed numbers stand beside where starts and steps are the paper's."""
    table = printed(papers / "elich_toy.csv")
    same = steps == STEPS and np.array_equal(np.asarray(starts, float), toy_problem.STARTS)
    asked = [(o, m, r) for o in optimizers for m in toy_float32.METHODS for r in rates]
    toy_float32.run("gd", "equal", 1.0, (1.0, 1.0), 1)  # compiled before threads ask for it
    with ThreadPoolExecutor(jobs) as pool:
        found = [pool.submit(cell, *which, starts, steps, table.get(which, "") if same else "") for which in asked]
        return [future.result() for future in found]


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
