"""Everything that a report of a sweep can show, as one structure of plain values (`json.dumps` takes it).

    {"name": ..., "select": rule, "form": of Delta_m, "columns": [what a curve may hold],
     "comparisons": [{"title", "notes": [...], "synthetic": bool, "common": {key: value in all configurations},
                      "metrics": [{"name", "unit", "higher_is_better"}],
                      "settings": [Setting], "tables": [Table]}],
     "runs": {id: Run}, "points": how many epochs a curve has at most, "notes": [...],
     "commands": {"run": what to type for all that is missing}}
    Setting: {"label", "group": the row whose candidate it is, "single_task": its task or null, "chosen": bool,
              "method", "optimizer", "lr", "keys": {what differs from others: value}, "n": "2/3: 1 diverged",
              "means": {metric: mean over seeds}, "stds": {metric: deviation, ddof 1}, "delta": {form: mean},
              "interval": {form: [low, high]} (bootstrap, 95 %), "validation", "optimism", "seconds", "weights_sum",
              "rank": mean rank among all complete settings, "runs": [ids]}
    Run: {"seed", "state", "reason", "epoch", "values": {split: {metric: value}}, "delta": {form: value},
          "pareto": {"full": bool, "other": bool} or null, "other_code": bool, "command": what repeats it,
          "curves": {"epoch": [...], "losses:left": [...], "val:left/accuracy": [...], ...} or null}
    Table: {"title", "notes", "legend", "head": [...], "rows": [[[text, mark], ...]]}

Numbers are rounded to six digits, what is not finite is null; nothing depends on where the runs lie.
"""

import math
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtlbench import stats
from mtlbench.aggregation import presentation, sections
from mtlbench.aggregation.comparison import Comparison, versions
from mtlbench.aggregation.curves import Curves
from mtlbench.aggregation.gather import Result
from mtlbench.aggregation.naming import different, flat
from mtlbench.aggregation.rows import Row
from mtlbench.aggregation.tables import Table

POINTS = 60
"""Epochs of a curve that are kept: the first, the last, and evenly between."""

FITTING = 150_000
"""Numbers in the curves of all runs, up to which a page holds them all; more would make it slow to load."""

COLUMNS = ("epoch", "lr", "weights_sum", "losses", "weights", "gradient_norms", "val", "test")
"""Of the curves, by the part of a column's name before the colon."""


def report_data(
    name: str,
    comparisons: Sequence[Comparison],
    remarks: Sequence[str],
    resume: str,
    curves: str = "chosen",
    shown: Sequence[Sequence[Table]] | None = None,
) -> dict[str, Any]:
    """The structure above. curves: of which runs: "chosen" (those of the tables' rows), "all", "none", or "fitting":
    all where they are few enough, otherwise chosen. shown: each comparison's tables, where they are made already.
    """
    assert curves in ("chosen", "all", "none", "fitting"), curves
    if curves == "fitting":
        sizes = [result.curves.values.shape for comparison in comparisons for result in comparison.results]
        curves = "all" if sum(min(POINTS, n) * columns for n, columns in sizes) <= FITTING else "chosen"
    if shown is None:
        shown = [[presentation.table(one), *sections.sections(one)] for one in comparisons]
    first = comparisons[0].rules
    runs: dict[str, Any] = {}
    for comparison in comparisons:
        runs |= _runs(comparison, curves)
    return {
        "name": name,
        "select": first.select,
        "form": first.form,
        "columns": list(COLUMNS),
        "comparisons": [_comparison(one, tables) for one, tables in zip(comparisons, shown, strict=True)],
        "runs": runs,
        "points": POINTS,
        "notes": list(remarks),
        "commands": {"run": resume},
    }


def command(result: Result) -> str:
    """What repeats a run, wherever its folder is."""
    words = [word for word in result.overrides if not word.startswith("machine")]
    return shlex.join(["python", "-m", "mtlbench.train", *words])


def _comparison(comparison: Comparison, tables: Sequence[Table]) -> dict[str, Any]:
    rows = [*(row for rows in comparison.baselines.values() for row in rows), *comparison.settings]
    examples = [row.results[0] for row in rows]
    keys = different(examples)
    everyone = dict(flat(examples[0].config))
    differing = {key for own in keys for key in own} | {"seed"}
    ranks = comparison.ranks(comparison.settings).mean(1)
    places = dict(zip(map(id, comparison.settings), ranks, strict=True))
    return {
        "title": comparison.title,
        "notes": presentation.notes(comparison),
        "synthetic": any(result.record and result.record["synthetic"] for result in comparison.results),
        "common": {key: value for key, value in everyone.items() if key not in differing},
        "metrics": [
            {"name": metric, "unit": entry["unit"], "higher_is_better": entry["higher_is_better"]}
            for metric, entry in comparison.metrics.items()
        ],
        "settings": [
            _setting(comparison, row, own, places.get(id(row), math.nan)) for row, own in zip(rows, keys, strict=True)
        ],
        "tables": [_table(table) for table in tables],
    }


def _setting(comparison: Comparison, row: Row, keys: dict[str, Any], rank: float) -> dict[str, Any]:
    example = row.results[0]
    chosen = [*comparison.single.values(), *comparison.rows]
    metrics = [name for name in comparison.metrics if row.has(name)]
    values = row.values(metrics)
    several = len(values) > 1
    return {
        "label": row.label,
        "group": row.group or row.label,
        "single_task": example.tasks[0] if example.single_task and example.tasks else None,
        "chosen": any(row.results is other.results for other in chosen),
        "method": example.option("method"),
        "optimizer": example.option("optimizer"),
        "lr": (example.config.get("optimizer") or {}).get("lr"),
        "keys": keys,
        "n": row.n,
        "means": dict(zip(metrics, _plain(values.mean(0)) if len(values) else [], strict=False)),
        "stds": dict(zip(metrics, _plain(values.std(0, ddof=1)), strict=True)) if several else {},
        "delta": {form: _rounded(delta.mean()) if len(delta) else None for form, delta in row.deltas.items()},
        "interval": {form: _plain(np.array(sections.bootstrap(comparison, row, form))) for form in row.deltas},
        "validation": _rounded(row.validation),
        "optimism": _rounded(row.optimism),
        "seconds": _rounded(row.seconds),
        "weights_sum": _rounded(presentation.mean([result.weights_sum for result in row.done])),
        "rank": _rounded(rank),
        "runs": [result.id for result in row.results],
    }


def _runs(comparison: Comparison, curves: str) -> dict[str, Any]:
    front = comparison.front
    marks = {
        run.id: {"full": bool(full), "other": bool(other)}
        for run, full, other in zip(front.runs, front.full, front.other, strict=True)
    }
    rows = [*comparison.single.values(), *comparison.rows]
    chosen = {result.id for row in rows for result in row.results}
    found = versions(comparison.results)
    most = max(found, key=lambda version: (found[version], version), default="")
    runs = {}
    for result in comparison.results:
        shown = curves == "all" or (curves == "chosen" and result.id in chosen)
        runs[result.id] = {
            "seed": result.seed,
            "state": result.state,
            "reason": result.reason,
            "epoch": result.epoch,
            "values": {s: {k: _rounded(v) for k, v in values.items()} for s, values in result.values.items()},
            "delta": {form: _rounded(result.deltas.get(form, math.nan)) for form in stats.DELTA_M},
            "pareto": marks.get(result.id),
            "other_code": bool(result.record and result.record["source_hash"] != most),
            "command": command(result),
            "curves": _curves(result.curves) if shown and len(result.curves) else None,
        }
    return runs


def _curves(curves: Curves) -> dict[str, list[float | None]]:
    """The columns that hold anything, thinned."""
    last = len(curves) - 1
    kept = sorted({round(i * last / (POINTS - 1)) for i in range(POINTS)}) if last >= POINTS else range(last + 1)
    found = {}
    for place, name in enumerate(curves.names):
        column = curves.values[list(kept), place]
        whole = name not in ("val", "test") and name.partition(":")[0] in COLUMNS
        if whole and not np.isnan(column).all():
            found[name] = _plain(column)
    return found


def _table(table: Table) -> dict[str, Any]:
    rows = [[[cell.text, cell.mark] for cell in row] for row in table.rows]
    return {"title": table.title, "notes": table.notes, "legend": table.legend, "head": table.head, "rows": rows}


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [_rounded(value) for value in values.tolist()]


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
