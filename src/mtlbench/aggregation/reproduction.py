"""Ours beside the published numbers: cell by cell, whether they can be compared, and whether they agree."""

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlbench import published_ids, stats
from mtlbench.aggregation.comparison import Comparison
from mtlbench.aggregation.naming import flat, shown
from mtlbench.aggregation.presentation import number
from mtlbench.aggregation.rows import Row
from mtlbench.aggregation.rules import Published
from mtlbench.aggregation.tables import Cell, Table

VERDICTS = ("within", "outside", "not comparable", "not run")


@dataclass
class Beside:
    """One printed number and ours. spread: half-width within which they agree, and whose it is; blocking: why they
    cannot be compared; why: what else to know."""

    block: Published
    printed: Mapping[str, str]
    ours: float = math.nan
    std: float = math.nan
    n: str = ""
    spread: float = math.nan
    whose: str = ""
    verdict: str = "not run"
    blocking: list[str] = field(default_factory=list)
    why: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Method, optimizer and setting as printed."""
        keys = ("method", "optimizer", "setting")
        return " ".join(self.printed[key] for key in keys if self.printed[key] and key not in self.block.where)

    @property
    def metric(self) -> str:
        return f"{self.printed['task']}/{self.printed['metric']}"

    @property
    def difference(self) -> float:
        return self.ours - float(self.printed["value"])


def read(papers: Path, block: Published) -> list[dict[str, str]]:
    """The printed rows of a block. Raises ValueError where there are none."""
    path = papers / f"{block.paper}.csv"
    if not path.exists():
        there = ", ".join(sorted(p.stem for p in papers.glob("*.csv"))) or "none"
        raise ValueError(f"published.paper={block.paper}: there is no {path}. There are: {there}.")
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    wrong = sorted(set(block.where) - set(rows[0]))
    if wrong:
        raise ValueError(f"published.where: {wrong[0]} is no column of {path}; there are {', '.join(rows[0])}.")
    wanted = {"table": block.table, **block.where}
    found = [row for row in rows if all(row[key] == str(value) for key, value in wanted.items())]
    if not found:
        tables = ", ".join(dict.fromkeys(row["table"] for row in rows))
        raise ValueError(f"{path} has no row with {wanted}; its tables are {tables}.")
    return found


Printed = Sequence[tuple[Comparison, Published, Sequence[Beside]]]


def all_beside(comparisons: Sequence[Comparison], blocks: Sequence[Published], papers: Path) -> Printed:
    """Every block beside the comparisons that have a run for it; beside the first where none has."""
    found = []
    for block in blocks:
        each = [(comparison, block, beside(comparison, block, papers)) for comparison in comparisons]
        run = [one for one in each if any(cell.verdict != "not run" for cell in one[2])]
        found += run or each[:1]
    return found


def beside(comparison: Comparison, block: Published, papers: Path) -> list[Beside]:
    """Every printed number of a block for which there is a metric of ours; those without a run included."""
    rows = read(papers, block)
    ids = {row["method"] for row in rows}
    split = len({(row["optimizer"]) for row in rows if row["method"] not in ("single_task", "all")}) > 1
    found = []
    for printed in rows:
        one = Beside(block, printed)
        if printed["metric"].startswith("n_"):
            _count(one, comparison)
        elif printed["metric"] == "delta_m" and printed["method"] == "single_task":
            continue  # 0 by definition
        elif one.metric in block.metrics or printed["metric"] == "delta_m":
            row = _row(comparison, one, ids, split)
            if row is not None:
                _numbers(one, comparison, row)
        else:
            continue
        _judge(one, comparison)
        found.append(one)
    return found


def of_published(row: Row, ids: set[str]) -> str | None:
    """The published id of a row, among those of a table."""
    result = row.results[0]
    groups = {key: result.option(key) for key in ("method", "architecture")}
    return published_ids.id_of(groups | dict(flat(result.config)), ids)


def _row(comparison: Comparison, one: Beside, ids: set[str], split: bool) -> Row | None:
    if one.printed["method"] == "single_task":
        task = one.block.metrics.get(one.metric, {}).get("name", "").partition("/")[0]
        single = next(iter(comparison.single.values()), None) if task == "*" else comparison.single.get(task)
        said = {key: value for key, value in one.block.ours.items() if not key.startswith("method")}
        return single if single is not None and _is_ours(single, said) else None
    rows = comparison.by_optimizer if split and comparison.by_optimizer else comparison.rows
    for row in rows:
        same = not split or row.results[0].option("optimizer") == one.printed["optimizer"]
        if same and of_published(row, ids) == one.printed["method"] and _is_ours(row, one.block.ours):
            return row
    return None


def _is_ours(row: Row, ours: Mapping[str, Any]) -> bool:
    """Whether a row has these options and values; a key that it lacks is "none"."""
    result, keys = row.results[0], dict(flat(row.results[0].config))
    return all((keys[key] if key in keys else result.option(key)) == value for key, value in ours.items())


def _numbers(one: Beside, comparison: Comparison, row: Row) -> None:
    one.n = row.n
    if one.printed["metric"] == "delta_m":
        from mtlbench import published  # scipy takes half a second

        values = row.deltas.get(published.FORM.get(one.block.paper, "metrics"), [])
    else:
        entry = one.block.metrics[one.metric]
        values = _values(comparison, row, entry["name"]) * entry.get("factor", 1.0)
    if len(values):
        one.ours, one.std = stats.mean_std(values, ddof=1)
    if len(row.done) < len(row.results):
        one.why.append("not every seed is done")
    optimizer = row.results[0].option("optimizer")
    if one.printed["optimizer"] not in ("", optimizer):
        one.why.append(f"optimizer {optimizer}, printed {one.printed['optimizer']}")
    lr = (row.results[0].config.get("optimizer") or {}).get("lr")
    if one.printed["lr"] and lr is not None and float(one.printed["lr"]) != lr:
        one.why.append(f"learning rate {shown(lr)}, printed {one.printed['lr']}")


def _values(comparison: Comparison, row: Row, name: str) -> NDArray[np.float64]:
    """A metric of each done seed; of "*/metric" the mean over all tasks, each of its own row for a baseline."""
    task, _, metric = name.partition("/")
    names = [known for known in comparison.metrics if known == name or (task == "*" and known.endswith(f"/{metric}"))]
    if not names:
        known = ", ".join(comparison.metrics)
        raise ValueError(f"published.metrics: {name} is no metric of ours; there are {known}.")
    if not any(row is single for single in comparison.single.values()):
        return row.values(names).mean(1)
    each = [comparison.single[known.partition("/")[0]].values([known])[:, 0] for known in names]
    if len({len(values) for values in each}) == 1:
        return np.mean(each, axis=0)
    return np.array([np.mean([values.mean() for values in each])])  # seeds are missing: no spread over seeds


def _count(one: Beside, comparison: Comparison) -> None:
    """Counts of runs: valid, on the front of all, on that against the other optimizer."""
    front, printed = comparison.front, one.printed
    mine = [
        run.option("optimizer") == printed["optimizer"] and printed["method"] in ("all", run.option("method"))
        for run in front.runs
    ]
    if not any(mine):
        return
    which = {"n_experiments_valid": [True] * len(mine), "n_pareto_full": front.full}.get(printed["metric"], front.other)
    one.ours = float(sum(bool(a and b) for a, b in zip(mine, which, strict=True)))
    one.why.append(f"a count of {sum(mine)} valid runs")


def _judge(one: Beside, comparison: Comparison) -> None:
    """Sets spread, verdict and why."""
    block, printed = one.block, one.printed
    if math.isnan(one.ours):
        return
    half = stats.printed(printed["value"])[1]
    if printed["std"]:
        one.spread, one.whose = float(printed["std"]) + half, "paper's ±"
    elif one.metric in block.spread:
        one.spread, one.whose = block.spread[one.metric] + half, "stated"
    elif not math.isnan(one.std):
        one.spread, one.whose = 2 * one.std + half, "2 x ours"
    one.blocking = _not_comparable(comparison, block) + ["no spread is known"] * math.isnan(one.spread)
    one.why += [f"unsaid in the paper: {text}" for text in block.unsaid]
    if one.blocking:
        one.verdict = "not comparable"
    else:
        one.verdict = "within" if abs(one.difference) <= one.spread + 1e-12 else "outside"


def _not_comparable(comparison: Comparison, block: Published) -> list[str]:
    results = [result for result in comparison.results if result.record]
    why = []
    if any(result.record["synthetic"] for result in results):
        why.append("synthetic data")
    epochs = results[0].config["epochs"]
    if block.epochs is not None and epochs != block.epochs:
        why.append(f"{epochs} epochs, {block.epochs} in the paper")
    networks = sorted({" ".join(result.option(group) for group in ("backbone", "head")) for result in results})
    if block.network is not None and networks != [block.network]:
        why.append(f"network {', '.join(networks)}, {block.network} in the paper")
    return [*why, *block.differs]


def table(found: Sequence[Beside], block: Published) -> Table:
    """One block, a line a printed number; reasons by letters."""
    reasons = list(dict.fromkeys(reason for one in found for reason in [*one.blocking, *one.why]))
    letters = dict(zip(reasons, map(_letter, range(len(reasons))), strict=True))
    said = ", ".join(f"{key} {value}" for key, value in block.where.items())
    head = ["row", "metric", "published", "ours", "difference", "spread", "n", "verdict", "why"]
    grid = Table(f"Beside {block.paper}, Table {block.table}{', ' * bool(said)}{said}", [], head)
    for one in found:
        digits = len(one.printed["value"].partition(".")[2])
        value = one.printed["value"] + (f" ± {one.printed['std']}" if one.printed["std"] else "")
        ours = number(one.ours, digits) + ("" if math.isnan(one.std) else f" ± {one.std:.{digits}f}")
        spread = "-" if math.isnan(one.spread) else f"{one.spread:.{digits + 1}f} ({one.whose})"
        why = ", ".join(letters[reason] for reason in [*one.blocking, *one.why]) or "-"
        texts = [one.label, one.metric, value, ours, number(one.difference, digits), spread, one.n or "-", one.verdict]
        grid.rows.append([Cell(text) for text in (*texts, why)])
    grid.legend = [f"{letter}: {reason}." for reason, letter in letters.items()]
    grid.legend.append(
        "within: no further from the printed number than the spread: the paper's ± where it prints one, otherwise what "
        "the sweep's aggregate.toml states, otherwise two standard deviations of ours; and half the last digit's unit."
    )
    return grid


def _letter(place: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[place % 26] * (1 + place // 26)


def summary(name: str, tables: Printed) -> Table:
    """reproduction.md: how many cells there are, and what became of them."""
    grid = Table(f"{name} beside what was published", [], ["table", "cells", "run", *VERDICTS])
    for comparison, block, found in tables:
        count = Counter(one.verdict for one in found)
        said = " ".join([block.paper, block.table, *block.where.values()])
        label = said if len({id(c) for c, _, _ in tables}) == 1 else f"{said} ({comparison.title.partition(': ')[2]})"
        run = len(found) - count["not run"]
        grid.rows.append(
            [Cell(text) for text in (label, str(len(found)), str(run), *(str(count[v]) for v in VERDICTS))]
        )
    reasons = Counter(why for _, _, found in tables for one in found for why in one.blocking)
    grid.legend = [f"{count} cells: {why}." for why, count in sorted(reasons.items(), key=lambda p: (-p[1], p[0]))]
    grid.legend.append("A cell is one printed number for which the sweep has a metric; table.md has each beside ours.")
    return grid
