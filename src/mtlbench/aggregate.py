"""python -m mtlbench.aggregate sweeps/<name>: the runs of a sweep as tables, in results/<name>/. Imports no torch.

records.csv   one row a run, split and metric: plain numbers, to compute with
table.md      the comparison; table.tex: the same for booktabs
status.md     every cell's state, why it failed, what to type for what is missing
digests.txt   the files as they were written (sha256sum -c digests.txt), to notice an edit by hand
"""

import argparse
import hashlib
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from mtlbench.aggregation import gather, presentation, tables
from mtlbench.aggregation.comparison import Comparison, compare
from mtlbench.aggregation.gather import Result
from mtlbench.cells import cells, runs_of
from mtlbench.record import STATES

COLUMNS = (
    *("run", "label", "method", "optimizer", "lr", "seed", "tasks", "task", "metric", "unit", "higher_is_better"),
    *("split", "value", "select", "epoch", "state", "synthetic", "dataset", "backbone", "epochs", "precision"),
    *("seconds_per_step", "weights_sum", "device", "source_hash", "method_hash", "commit", "dirty", "fingerprint"),
    "overrides",
)


def aggregate(
    sweep: str, overrides: Sequence[str] = (), select: str = "last", out: str = "results"
) -> tuple[list[Comparison], Path]:
    """Writes the results of a sweep and returns its comparisons and their folder.

    overrides: as given to the sweep (machine.runs=<folder>). Raises ValueError where no run has finished, a
    single-task baseline is missing, or `select` cannot be applied.
    """
    results, remarks = gather.gather(cells(Path(sweep), overrides), runs_of(overrides), select)
    resume = shlex.join(["python", "-m", "mtlbench.sweep", "run", sweep, *overrides])
    if not any(result.state == "done" for result in results):
        raise ValueError(f"{sweep}: no run has finished ({_states(results)}). Run it:\n  {resume}")

    def command(result: Result, task: str) -> str:
        if result.single_task:
            return resume
        cell = train_command(baseline_overrides(result.overrides, task))
        return f"{cell}\nand make it a cell of {sweep}, so that its tables find it."

    name = Path(sweep).resolve().name
    comparisons = compare(results, name, command)
    files = {
        "records.csv": records(comparisons, select),
        "table.md": table_md(comparisons, select),
        "table.tex": table_tex(comparisons, select),
        "status.md": status(name, comparisons, remarks, resume),
    }
    folder = Path(out) / name
    write(folder, files)
    return comparisons, folder


def baseline_overrides(overrides: Sequence[str], task: str) -> list[str]:
    """A cell's overrides, turned into those of the single-task run of `task` under the same protocol."""
    keys = [text.lstrip("+~").partition("=")[0] for text in overrides]
    gone = {key for key in keys if key == "dataset.tasks" or re.split("[.@]", key)[0] in ("method", "architecture")}
    kept = [text for key, text in zip(keys, overrides, strict=True) if key not in gone]
    return [*kept, "method=equal", f"dataset.tasks=[{task}]"]


def train_command(overrides: Sequence[str]) -> str:
    """What to type to run one cell."""
    return shlex.join(["python", "-m", "mtlbench.train", *overrides])


def records(comparisons: Sequence[Comparison], select: str) -> str:
    """records.csv: full precision, nothing formatted. A cell without numbers has one row, without metric and value."""
    rows = []
    for result in (result for comparison in comparisons for result in comparison.results):
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
        common |= {key: entry.get(key) for key in COLUMNS if key in entry and key not in common}
        numbers = [
            {
                "task": name.partition("/")[0],
                "metric": name.partition("/")[2],
                "unit": entry["metrics"][name]["unit"],
                "higher_is_better": entry["metrics"][name]["higher_is_better"],
                "split": split,
                "value": value,
                "epoch": result.epoch,
            }
            for split, values in result.values.items()
            for name, value in values.items()
        ]
        rows += [{**common, **number} for number in numbers or [{}]]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame["epoch"] = frame["epoch"].astype("Int64")
    return frame.to_csv(index=False, lineterminator="\n")


def table_md(comparisons: Sequence[Comparison], select: str) -> str:
    parts = []
    for comparison in comparisons:
        parts.append(tables.markdown(presentation.table(comparison, select)))
        intervals = presentation.intervals(comparison)
        if any(len(delta) > 1 for delta in comparison.deltas["metrics"]):
            parts.append(tables.markdown(intervals, level=2))
    return "\n".join(parts)


def table_tex(comparisons: Sequence[Comparison], select: str) -> str:
    parts = [tables.latex(presentation.table(comparison, select)) for comparison in comparisons]
    return "\n".join(["% needs \\usepackage{booktabs}", *parts])


def status(name: str, comparisons: Sequence[Comparison], remarks: Sequence[str], resume: str) -> str:
    """status.md: cells by state, rows with their seeds, what went wrong, what to type."""
    text = tables.markdown_text
    results = [result for comparison in comparisons for result in comparison.results]
    lines = [f"# status of {text(name)}", "", f"{len(results)} cells: {_states(results)}.", ""]
    for comparison in comparisons:
        grid = tables.Table(comparison.title, [], ["row", "seeds", "n"])
        for row in [*comparison.single.values(), *comparison.rows]:
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
    parser.add_argument("--select", choices=list(gather.SELECT), default="last", help="which epoch's numbers (last)")
    parser.add_argument("--out", default="results", help="where the folder of results goes (results)")
    asked = parser.parse_intermixed_args(arguments)
    try:
        comparisons, folder = aggregate(asked.sweep, asked.overrides, asked.select, asked.out)
    except ValueError as error:
        sys.exit(str(error))
    for comparison in comparisons:
        tables.show(presentation.table(comparison, asked.select))
    print("  ".join(str(folder / name) for name in ("table.md", "table.tex", "records.csv", "status.md")))


if __name__ == "__main__":
    main()
