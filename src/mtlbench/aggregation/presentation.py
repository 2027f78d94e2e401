"""What a comparison looks like: its columns, and the lines above the table that say what the numbers are."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from mtlbench import stats
from mtlbench.aggregation.comparison import Comparison
from mtlbench.aggregation.gather import SELECT
from mtlbench.aggregation.tables import BEST, SECOND, Cell, Table, decimals

FORMS = {"metrics": "Δm metrics ↓ [%]", "tasks": "Δm tasks ↑ [%]"}
ENOUGH = 6
"""Seeds below which no difference is called: with 5 pairs no sign-flip test reaches p = 0.05."""


def table(comparison: Comparison, select: str) -> Table:
    """The main table: single_task first, each metric of it from its own task's runs."""
    rows, ranked, dash = comparison.rows, comparison.ranked, Cell("-")
    columns: dict[str, list[Cell]] = {}
    for name, metric in comparison.metrics.items():
        everyone = [comparison.single[name.partition("/")[0]], *rows]
        values = [row.values([name])[:, 0] if row.has(name) else np.array([]) for row in everyone]
        columns[head(name, metric)] = _spread(values, [i + 1 for i in ranked], metric["higher_is_better"])
    for form, text in FORMS.items():
        columns[text] = [dash, *_spread(comparison.deltas[form], ranked, form == "tasks", 2)]
    places = [np.array([] if math.isnan(place) else [place]) for place in comparison.ranks]
    columns["rank ↓"] = [dash, *_spread(places, ranked, False, 2)]
    columns["s/step ÷ equal"] = [dash, *(Cell(_number(ratio, 2)) for ratio in comparison.seconds)]
    sums = [_mean([result.weights_sum for result in row.done]) for row in rows]
    columns["Σ weights"] = [dash, *(Cell(_number(value, min(decimals(sums), 2))) for value in sums)]
    single = {task: row.n for task, row in comparison.single.items()}
    alike = len(set(single.values())) == 1
    n = next(iter(single.values())) if alike else ", ".join(f"{task} {n}" for task, n in single.items())
    columns["n"] = [Cell(n), *(Cell(row.n) for row in rows)]
    labels = ["single_task", *(row.label for row in rows)]
    cells = [[Cell(label), *(column[i] for column in columns.values())] for i, label in enumerate(labels)]
    return Table(comparison.title, notes(comparison, select), ["method", *columns], cells, legend(comparison))


def intervals(comparison: Comparison) -> Table:
    """Student's 95 % interval over seeds of each row's Delta_m."""
    result = Table("95 % intervals of Δm", [], ["method", *FORMS.values(), "seeds"])
    result.notes = ["Student's t over seeds. The spread of the single-task runs is not in it."]
    for i, row in enumerate(comparison.rows):
        cells = []
        for form in FORMS:
            delta = comparison.deltas[form][i]
            low, high = stats.t_interval(delta)
            cells.append(
                Cell(
                    "-" if math.isnan(low) else f"{_number(delta.mean(), 2)} in [{_number(low, 2)}, {_number(high, 2)}]"
                )
            )
        result.rows.append([Cell(row.label), *cells, Cell(str(len(row.done)))])
    return result


def head(name: str, metric: dict[str, Any]) -> str:
    """The head of a metric's column: "semantic miou ↑ [%]"."""
    unit = f" [{metric['unit']}]" if metric["unit"] else ""
    return f"{name.replace('/', ' ')} {'↑' if metric['higher_is_better'] else '↓'}{unit}"


def notes(comparison: Comparison, select: str) -> list[str]:
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
    lines.append(f"Test split; selection: {SELECT[select]} ({select}).")
    lines.append(_seeds(comparison))
    if comparison.undefined:
        lines.append(f"Δm is undefined: single_task's {', '.join(comparison.undefined)} is not above 0.")
    return lines + _warnings(comparison)


def legend(comparison: Comparison) -> list[str]:
    """What the columns are."""
    return [
        "Δm metrics: mean over all metrics of the relative change against single_task, lower is better (Elich et "
        "al. 2023). Δm tasks: mean over tasks of the mean over their metrics, higher is better (Vandenhende et al. "
        "2021). Each seed against the mean over seeds of single_task.",
        f"rank: mean over {len(comparison.metrics)} metrics of the rank of the mean over seeds, ties averaged, among "
        f"{len(comparison.ranked)} complete rows. Of these, the best is bold, the second underlined.",
        "s/step ÷ equal: median over seeds of seconds per step relative to equal, same seed and machine. "
        "Σ weights: mean over steps of the sum of the task weights, a hidden factor of the learning rate.",
    ]


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
    sources = Counter(record["source_hash"] for record in records)
    if len(sources) > 1:
        lines.append(f"Runs of {len(sources)} versions of the code: {_counts(sources)}.")
    else:
        lines.append(f"Code: source {next(iter(sources))}.")
    libraries = sorted({key for record in records for key in record["versions"]})
    for key in libraries:
        versions = Counter(str(record["versions"].get(key)) for record in records)
        if len(versions) > 1:
            lines.append(f"Runs with different versions of {key}: {_counts(versions)}.")
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


def _spread(values: Sequence[np.ndarray], ranked: Iterable[int], higher: bool, digits: int | None = None) -> list[Cell]:
    """mean ± standard deviation of each row's values; of the ranked rows the best and the second are marked."""
    means = [stats.without_rounding_error(_mean(row)) for row in values]  # equal means must tie
    digits = decimals(means) if digits is None else digits
    competing = [i for i in ranked if not math.isnan(means[i])]
    order = sorted((means[i] for i in competing), reverse=higher)
    cells = []
    for i, row in enumerate(values):
        text = _number(means[i], digits, "undefined" if len(row) else "-")
        if len(row) > 1 and not math.isnan(means[i]):
            text += f" ± {stats.mean_std(row, ddof=1)[1]:.{digits}f}"
        mark = ""
        if i in competing and len(set(order)) > 1:
            mark = BEST if means[i] == order[0] else SECOND if means[i] == order[1] else ""
        cells.append(Cell(text, mark))
    return cells


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _number(value: float, digits: int, undefined: str = "-") -> str:
    if not math.isfinite(value):
        return undefined
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text
