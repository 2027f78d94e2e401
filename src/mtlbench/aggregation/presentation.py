"""What a comparison looks like: its columns, and the lines above the table that say what the numbers are."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mtlbench import stats
from mtlbench.aggregation.comparison import Comparison, versions
from mtlbench.aggregation.inference import ENOUGH
from mtlbench.aggregation.rows import BUSY, Row, alone
from mtlbench.aggregation.selection import SCORES, SELECT
from mtlbench.aggregation.tables import BEST, SECOND, Cell, Table, decimals

FORMS = {"metrics": "Δm metrics ↓ [%]", "tasks": "Δm tasks ↑ [%]"}
DASH = Cell("-")


def table(comparison: Comparison, rows: Sequence[Row] | None = None, title: str = "") -> Table:
    """The main table, or the same of other rows: single_task first, each metric of it from its own task's runs."""
    rows = comparison.rows if rows is None else rows
    ranked = comparison.complete(rows)
    columns: dict[str, list[Cell]] = {}
    for name, metric in comparison.metrics.items():
        everyone = [comparison.single[name.partition("/")[0]], *rows]
        values = [row.values([name])[:, 0] if row.has(name) else np.array([]) for row in everyone]
        columns[head(name, metric)] = spread(values, [i + 1 for i in ranked], metric["higher_is_better"])
    for form, text in FORMS.items():
        columns[text] = [DASH, *spread([row.deltas[form] for row in rows], ranked, form == "tasks", 2)]
    means = comparison.ranks(rows).mean(1)
    places = [np.array([] if math.isnan(place) else [place]) for place in means]
    columns["rank ↓"] = [DASH, *spread(places, ranked, False, 2)]
    columns["s/step ÷ equal"] = [DASH, *(Cell(number(row.seconds, 2)) for row in rows)]
    sums = [mean([result.weights_sum for result in row.done]) for row in rows]
    digits = min(decimals(sums), 2)
    columns["Σ weights"] = [DASH, *(Cell(number(value, digits)) for value in sums)]
    columns["n"] = [Cell(_single_n(comparison)), *(Cell(row.n) for row in rows)]
    labels = ["single_task", *(row.label for row in rows)]
    cells = [[Cell(label), *(column[i] for column in columns.values())] for i, label in enumerate(labels)]
    if title:
        return Table(title, [], ["method", *columns], cells, [_rank(comparison, rows)])
    return Table(comparison.title, notes(comparison), ["method", *columns], cells, legend(comparison))


def _single_n(comparison: Comparison) -> str:
    single = {task: row.n for task, row in comparison.single.items()}
    alike = len(set(single.values())) == 1
    return next(iter(single.values())) if alike else ", ".join(f"{task} {n}" for task, n in single.items())


def head(name: str, metric: dict[str, Any]) -> str:
    """The head of a metric's column: "semantic miou ↑ [%]"."""
    unit = f" [{metric['unit']}]" if metric["unit"] else ""
    return f"{name.replace('/', ' ')} {'↑' if metric['higher_is_better'] else '↓'}{unit}"


def notes(comparison: Comparison) -> list[str]:
    """The lines above the table: whatever a reader must know to judge its numbers."""
    results = comparison.results
    records = [result.record for result in results if result.record]
    config = records[0]["config"]
    network = ", ".join(
        sorted({" + ".join(r.option(g) for g in ("architecture", "backbone", "head")) for r in results})
    )
    dataset = results[0].option("dataset")
    synthetic = sum(record["synthetic"] for record in records)
    lines = [f"Dataset {dataset}; {network}; {config['epochs']} epochs; {config['precision']}."]
    if synthetic:
        which = "All runs" if synthetic == len(records) else f"{synthetic} of {len(records)} runs"
        lines[0] = f"Dataset {dataset}, synthetic data; {lines[0].partition('; ')[2]}"
        lines.append(f"{which} used synthetic data: these numbers say nothing about the real dataset.")
    lines.append(selection(comparison))
    lines += [chosen(comparison)] * bool(chosen(comparison))
    lines.append(_seeds(comparison))
    if comparison.undefined:
        lines.append(f"Δm is undefined: single_task's {', '.join(comparison.undefined)} is not above 0.")
    return lines + _warnings(comparison)


def selection(comparison: Comparison) -> str:
    """Which epoch's numbers these are."""
    rule, form = comparison.rules.select, comparison.rules.form
    text = f"Test split; selection: {SELECT[rule]} ({rule})."
    if rule in ("best_val", "optimistic_best_test"):
        split = "val" if rule == "best_val" else "test"
        undefined = comparison.reference[split].undefined
        text = text.replace("Δm", SCORES[form])
        text += " Single-task runs: with the best mean relative improvement over their own first evaluation."
        text += " So are all, for Δm is undefined there." * bool(undefined)
    return text


def chosen(comparison: Comparison) -> str:
    """How settings became rows; nothing where there was one for each."""
    if comparison.unchosen:
        return comparison.unchosen
    if not comparison.searched:
        return ""
    tried = [f"{row.label} {row.tried}" for row in [*comparison.single.values(), *comparison.rows]]
    others = [row for row in [*comparison.single.values(), *comparison.rows] if row.fallback]
    text = (
        f"Each row is one setting of those that were tried ({', '.join(tried)}), chosen by validation "
        f"{SCORES[comparison.rules.form]}, single_task by its validation metrics; whatever is swept and is none of "
        f"{', '.join(comparison.rules.rows)} was chosen so."
    )
    if others:
        text += f" No setting is finished, shown is that with most seeds: {', '.join(row.label for row in others)}."
    return text


def legend(comparison: Comparison) -> list[str]:
    """What the columns are."""
    return [
        "Δm metrics: mean over all metrics of the relative change against single_task, lower is better (Elich et "
        "al. 2023). Δm tasks: mean over tasks of the mean over their metrics, higher is better (Vandenhende et al. "
        "2021). Each seed against the mean over seeds of single_task.",
        _rank(comparison, comparison.rows),
        "s/step ÷ equal: median over seeds of seconds per step relative to equal, same seed and machine"
        f"{_busy(comparison)}. Σ weights: mean over steps of the sum of the task weights, a hidden factor of the "
        "learning rate.",
    ]


def _busy(comparison: Comparison) -> str:
    """Which seconds are left out."""
    done = [result for row in comparison.rows for result in row.done]
    busy = sum(not alone(result) for result in done)
    if not busy:
        return ""
    return (
        f"; without {busy} of {len(done)} runs, whose machine had more than {BUSY} processes a core, or whose record "
        f"does not tell"
    )


def _rank(comparison: Comparison, rows: Sequence[Row]) -> str:
    return (
        f"rank: mean over {len(comparison.metrics)} metrics of the rank of the mean over seeds, ties averaged, among "
        f"{len(comparison.complete(rows))} complete rows. Of these, the best is bold, the second underlined."
    )


def _seeds(comparison: Comparison) -> str:
    rows = [*comparison.single.values(), *comparison.rows]
    seeds = [tuple(result.seed for result in row.results) for row in rows]
    fewest = min(map(len, seeds))
    few = f" {fewest} seed{'s' * (fewest > 1)}: too few to call any difference." * (fewest < ENOUGH)
    if len(set(seeds)) == 1:
        said = f"Seeds {', '.join(map(str, seeds[0]))}."
    else:
        told = sorted((len(own), own) for own in set(seeds))
        said = "Seeds differ between rows: " + "; ".join(", ".join(map(str, own)) for _, own in told) + "."
    return f"{said} ± is the standard deviation over seeds (ddof 1).{few}"


def _warnings(comparison: Comparison) -> list[str]:
    """What should be the same in all runs and is not, and which rows lack something."""
    records = [result.record for result in comparison.results if result.record]
    lines = []
    sources = versions(comparison.results)
    if len(sources) > 1:
        lines.append(f"Runs of {len(sources)} versions of the code: {_counts(sources)}.")
    else:
        lines.append(f"Code: source {next(iter(sources))}.")
    libraries = sorted({key for record in records for key in record["versions"]})
    for key in libraries:
        versions_of = Counter(str(record["versions"].get(key)) for record in records)
        if len(versions_of) > 1:
            lines.append(f"Runs with different versions of {key}: {_counts(versions_of)}.")
    for tasks in sorted({tuple(record["tasks"]) for record in records}):  # other tasks read other files
        found = Counter(str(record["fingerprint"]) for record in records if tuple(record["tasks"]) == tasks)
        if len(found) > 1:
            lines.append(f"Runs of {', '.join(tasks)} with different data: {_counts(found)}.")
    devices = Counter(str(record["device"]) for record in records)
    if len(devices) > 1:
        lines.append(f"Runs with different devices: {_counts(devices)}.")
    lacking = [row.label for row in comparison.rows if not row.complete(list(comparison.metrics))]
    single = [row.label for row in comparison.single.values() if len(row.done) < len(row.results)]
    if lacking:
        lines.append(f"Not complete, shown with what there is and not ranked: {', '.join(lacking)}.")
    if single:
        lines.append(f"Δm is relative to fewer seeds than planned: {', '.join(single)}.")
    return lines


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{value} ({count} run{'s' * (count > 1)})" for value, count in sorted(counter.items()))


def spread(values: Sequence[np.ndarray], ranked: Iterable[int], higher: bool, digits: int | None = None) -> list[Cell]:
    """mean ± standard deviation of each row's values; of the ranked rows the best and the second are marked."""
    means = [stats.without_rounding_error(mean(row)) for row in values]  # equal means must tie
    digits = decimals(means) if digits is None else digits
    competing = {i for i in ranked if not math.isnan(means[i])}
    order = sorted((means[i] for i in competing), reverse=higher)
    marked = len(set(order)) > 1
    cells = []
    for i, row in enumerate(values):
        text = number(means[i], digits, "undefined" if len(row) else "-")
        if len(row) > 1 and not math.isnan(means[i]):
            text += f" ± {stats.mean_std(row, ddof=1)[1]:.{digits}f}"
        mark = ""
        if i in competing and marked:
            mark = BEST if means[i] == order[0] else SECOND if means[i] == order[1] else ""
        cells.append(Cell(text, mark))
    return cells


def mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def number(value: float, digits: int, undefined: str = "-") -> str:
    if not math.isfinite(value):
        return undefined
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text
