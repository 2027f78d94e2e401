"""python -m mtlbench.aggregate sweeps/<name>: the runs of a sweep as tables, in results/<name>/. Imports no torch.

records.csv   one row a run, split and metric: plain numbers, to compute with
table.md      the comparison, and below it how rows were chosen, equal budgets, Pareto counts, intervals, tests
table.tex     the same tables for booktabs
settings.md   every setting that was tried, where rows were chosen among several
status.md     every cell's state, why it failed, what to type for what is missing
figures/      response curves, Pareto scatter, parallel coordinates, budgets, training curves (SVG)
digests.txt   the files as they were written (sha256sum -c digests.txt), to notice an edit by hand

A sweep's aggregate.toml says which settings make a row and which printed table it stands beside
(mtlbench.aggregation.rules).
"""

import argparse
import csv
import gc
import hashlib
import io
import math
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mtlbench import stats
from mtlbench.aggregation import cache, gather, presentation, rules, sections, selection, tables
from mtlbench.aggregation.comparison import Comparison, compare
from mtlbench.aggregation.drawing import Drawing
from mtlbench.aggregation.figure_data import figure_data
from mtlbench.aggregation.gather import Result
from mtlbench.aggregation.rules import Rules
from mtlbench.cells import Cell, cells, runs_of
from mtlbench.record import STATES

COLUMNS = (
    *("run", "label", "method", "optimizer", "lr", "seed", "tasks", "task", "metric", "unit", "higher_is_better"),
    *(
        "split",
        "value",
        "select",
        "epoch",
        "chosen",
        "state",
        "synthetic",
        "dataset",
        "backbone",
        "epochs",
        "precision",
    ),
    *("seconds_per_step", "weights_sum", "device", "source_hash", "method_hash", "commit", "dirty", "fingerprint"),
    "overrides",
)


def aggregate(
    sweep: str,
    overrides: Sequence[str] = (),
    select: str | None = None,
    out: str = "results",
    form: str | None = None,
    rows: Sequence[str] | None = None,
    figures: bool = True,
) -> tuple[list[Comparison], Path]:
    """Writes the results of a sweep and returns its comparisons and their folder.

    overrides: as given to the sweep (machine.runs=<folder>). select, form, rows: as in aggregate.toml, and before it.
    Raises ValueError where no run has finished, a single-task baseline is missing, or `select` cannot be applied.
    """
    name = Path(sweep).resolve().name
    how = rules.read(Path(sweep), select=select, form=form, rows=rows)
    found = cells(Path(sweep), overrides)
    with Drawing(figures, len(found) >= cache.MANY) as drawing:
        return _aggregate(sweep, name, found, overrides, how, Path(out), drawing)


def _aggregate(
    sweep: str, name: str, found: Sequence[Cell], overrides: Sequence[str], how: Rules, out: Path, drawing: Drawing
) -> tuple[list[Comparison], Path]:
    results, remarks = gather.gather(found, runs_of(overrides), name)
    resume = shlex.join(["python", "-m", "mtlbench.sweep", "run", sweep, *overrides])
    if not any(result.state == "done" for result in results):
        raise ValueError(f"{sweep}: no run has finished ({_states(results)}). Run it:\n  {resume}")

    def command(result: Result, task: str) -> str:
        if result.single_task:
            return resume
        cell = train_command(baseline_overrides(result.overrides, task))
        return f"{cell}\nand make it a cell of {sweep}, so that its tables find it."

    comparisons = compare(results, name, command, how)
    drawing.begin([figure_data(comparison) for comparison in comparisons])
    parts = [part for comparison in comparisons for part in _tables(comparison)]
    files = {
        "records.csv": records(comparisons),
        "table.md": "\n".join(tables.markdown(table, level) for level, table in parts),
        "table.tex": "\n".join(["% needs \\usepackage{booktabs}", *(tables.latex(table) for _, table in parts)]),
        "status.md": status(name, comparisons, remarks, resume),
    }
    searched = [comparison for comparison in comparisons if comparison.searched]
    if searched:
        files["settings.md"] = "\n".join(tables.markdown(sections.every(comparison)) for comparison in searched)
    for comparison, figures in zip(comparisons, drawing.end(), strict=True):
        place = "figures" if len(comparisons) == 1 else f"figures/{_slug(comparison.title)}"
        files |= {f"{place}/{figure}.svg": text for figure, text in figures.items()}
    write(out / name, files)
    return comparisons, out / name


def _slug(title: str) -> str:
    """A comparison's title without the sweep's name, as a folder's name."""
    return re.sub(r"[^A-Za-z0-9.=-]+", "_", title.partition(": ")[2]).strip("_")


def _tables(comparison: Comparison) -> list[tuple[int, tables.Table]]:
    """The main table, and one level below those that belong to it."""
    below = sections.sections(comparison)
    return [(1, presentation.table(comparison)), *((2, table) for table in below)]


def baseline_overrides(overrides: Sequence[str], task: str) -> list[str]:
    """A cell's overrides, turned into those of the single-task run of `task` under the same protocol."""
    keys = [text.lstrip("+~").partition("=")[0] for text in overrides]
    gone = {key for key in keys if key == "dataset.tasks" or re.split("[.@]", key)[0] in ("method", "architecture")}
    kept = [text for key, text in zip(keys, overrides, strict=True) if key not in gone]
    return [*kept, "method=equal", f"dataset.tasks=[{task}]"]


def train_command(overrides: Sequence[str]) -> str:
    """What to type to run one cell."""
    return shlex.join(["python", "-m", "mtlbench.train", *overrides])


def records(comparisons: Sequence[Comparison]) -> str:
    """records.csv: full precision, nothing formatted. A cell without numbers has one row, without metric and value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    own = [COLUMNS.index(key) for key in ("task", "metric", "unit", "higher_is_better", "split", "value", "epoch")]
    for comparison in comparisons:
        chosen = {r.id for row in [*comparison.single.values(), *comparison.rows] for r in row.results}
        for result in comparison.results:
            common = _common(result, comparison.rules.select, result.id in chosen)
            line = [_csv(common.get(key)) for key in COLUMNS]
            for numbers in _numbers(result) or [(None,) * len(own)]:
                for place, value in zip(own, numbers, strict=True):
                    line[place] = _csv(value)
                writer.writerow(line)
    return text.getvalue()


def _common(result: Result, select: str, chosen: bool) -> dict[str, Any]:
    entry, config = result.record or {}, result.config
    git = entry.get("git") or {}
    common = {
        "run": result.id,
        "label": result.label,
        "method": result.option("method"),
        "optimizer": result.option("optimizer"),
        "lr": (config.get("optimizer") or {}).get("lr"),
        "seed": result.seed,
        "tasks": " ".join(result.tasks or ["all"]),
        "select": select,
        "chosen": chosen,
        "state": result.state,
        "dataset": result.option("dataset"),
        "backbone": result.option("backbone"),
        "epochs": config["epochs"],
        "precision": config["precision"],
        "weights_sum": result.weights_sum,
        "commit": git.get("commit"),
        "dirty": git.get("dirty"),
        "overrides": shlex.join(text for text in result.overrides if not text.startswith("machine")),
    }
    return common | {key: entry.get(key) for key in COLUMNS if key in entry and key not in common}


def _numbers(result: Result) -> list[tuple]:
    """Of each split and metric: task, metric, unit, higher_is_better, split, value, epoch."""
    found = []
    for split, values in result.values.items():
        for name, value in values.items():
            task, _, metric = name.partition("/")
            entry = result.record["metrics"][name]
            facts = (task, metric, entry["unit"], entry["higher_is_better"], split, float(value), result.epoch)
            found.append(facts)
    return found


def _csv(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def status(name: str, comparisons: Sequence[Comparison], remarks: Sequence[str], resume: str) -> str:
    """status.md: cells by state, rows with their seeds, what went wrong, what to type."""
    text = tables.markdown_text
    results = [result for comparison in comparisons for result in comparison.results]
    lines = [f"# status of {text(name)}", "", f"{len(results)} cells: {_states(results)}.", ""]
    for comparison in comparisons:
        grid = tables.Table(comparison.title, [], ["row", "seeds", "n"])
        baselines = [row for rows in comparison.baselines.values() for row in rows]
        for row in [*baselines, *comparison.settings]:
            seeds = ", ".join(str(result.seed) for result in row.results)
            grid.rows.append([tables.Cell(row.label), tables.Cell(seeds), tables.Cell(row.n)])
        lines += [tables.markdown(grid, level=2)]
    wrong = [result for result in results if result.reason]
    if wrong:
        lines += ["## What went wrong", ""]
        lines += [f"- {r.state} {text(_called(r))}, run {r.id}: {text(r.reason)}" for r in wrong] + [""]
    todo = [result for result in results if result.state not in ("done", "diverged")]
    if todo:
        lines += ["## What is missing", "", "All of it:", "", f"    {resume}", "", "One by one:", ""]
        for result in todo:
            lines.append(f"- {result.state} {text(_called(result))}, run {result.id}")
            lines += ["", f"      {train_command(result.overrides)}", ""]
    if remarks:
        lines += ["## Notes", "", *(f"- {text(remark)}" for remark in remarks), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _called(result: Result) -> str:
    return f"{result.label} seed={result.seed}"


def _states(results: Iterable[Result]) -> str:
    """3 done, 1 diverged, 2 missing: in the order of a run's life, the best first."""
    counts = Counter(result.state for result in results)
    order = ["done", "diverged", "unreadable", *(state for state in reversed(STATES) if state != "done")]
    return ", ".join(f"{counts[state]} {state}" for state in order if counts[state])


def write(folder: Path, files: dict[str, str]) -> None:
    """Writes the files and digests.txt. A file that was edited since is kept beside, with a warning."""
    folder.mkdir(parents=True, exist_ok=True)
    listing = folder / "digests.txt"
    lines = listing.read_text().splitlines() if listing.exists() else []
    known = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name, content in files.items():
        path, data = folder / name, content.encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            found = path.read_bytes()
            if found != data and hashlib.sha256(found).hexdigest() != known.get(name):
                kept = _unused(folder, name)
                os.replace(path, kept)
                print(f"{path} was edited by hand. It is kept as {kept.name}; a new one is written.", file=sys.stderr)
        path.write_bytes(data)
    digests = {name: hashlib.sha256(content.encode()).hexdigest() for name, content in files.items()}
    listing.write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()))


def _unused(folder: Path, name: str) -> Path:
    number = 1
    while (folder / f"{name}.edited{number}").exists():
        number += 1
    return folder / f"{name}.edited{number}"


def main(arguments: Sequence[str] | None = None) -> None:
    """`mtlbench-aggregate`. Ends with an error as a sentence where the tables cannot be made."""
    parser = argparse.ArgumentParser(
        prog="python -m mtlbench.aggregate",
        description="Tables of a sweep's finished runs: results/<name>/table.md, table.tex, records.csv, status.md.",
    )
    parser.add_argument("sweep", help="the sweep's folder: sweeps/demo_multidigits")
    parser.add_argument("overrides", nargs="*", help="as given to the sweep, e.g. machine.runs=<folder>")
    parser.add_argument("--select", choices=list(selection.SELECT), help="which epoch's numbers (last)")
    parser.add_argument("--form", choices=list(stats.DELTA_M), help="of the Δm that chooses settings (metrics)")
    parser.add_argument("--rows", help=f"what makes a row, the rest is chosen on validation ({','.join(rules.ROWS)})")
    parser.add_argument("--no-figures", action="store_true", help="tables alone")
    parser.add_argument("--out", default="results", help="where the folder of results goes (results)")
    asked = parser.parse_intermixed_args(arguments)
    gc.disable()  # many objects and a short life: with 10,000 runs a fifth of the time
    try:
        rows = asked.rows.split(",") if asked.rows else None
        comparisons, folder = aggregate(
            asked.sweep, asked.overrides, asked.select, asked.out, asked.form, rows, not asked.no_figures
        )
    except ValueError as error:
        sys.exit(str(error))
    for comparison in comparisons:
        tables.show(presentation.table(comparison))
    print("  ".join(str(folder / name) for name in ("table.md", "table.tex", "records.csv", "status.md")))


if __name__ == "__main__":
    main()
