"""python -m mtlbench.aggregate sweeps/<name>: the runs of a sweep as tables, in results/<name>/. Imports no torch.

records.csv   one row a run, split and metric: plain numbers, to compute with
table.md      the comparison, and below it how rows were chosen, equal budgets, Pareto counts, intervals, tests
table.tex     the same tables for booktabs
reproduction.md   how many of the published numbers were met; each beside ours in table.md
settings.md   every setting that was tried, where rows were chosen among several
status.md     every cell's state, why it failed, what to type for what is missing
report.html   all of it as one page: tables to sort and filter, figures, and behind each number its runs
figures/      response curves, Pareto scatter, parallel coordinates, budgets, training curves (SVG)
digests.txt   the files as they were written (sha256sum -c digests.txt), to notice an edit by hand

--published, without a sweep: the audit of the papers' printed tables, results/papers/audit.md, and one method as
several sources print it, same_method.md.

A sweep's aggregate.toml says which settings make a row and which printed table it stands beside
(mtlbench.aggregation.rules).
"""

import argparse
import gc
import hashlib
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mtlbench import stats
from mtlbench.aggregation import cache, gather, presentation, reproduction, rules, sections, selection, tables
from mtlbench.aggregation.commands import baseline_overrides, train_command
from mtlbench.aggregation.comparison import Comparison, compare
from mtlbench.aggregation.drawing import Drawing
from mtlbench.aggregation.figure_data import figure_data
from mtlbench.aggregation.gather import Result
from mtlbench.aggregation.records import records
from mtlbench.aggregation.report import report_data
from mtlbench.aggregation.rules import Rules
from mtlbench.aggregation.status import states, status
from mtlbench.cells import Cell, cells, runs_of
from mtlbench.config import CONF
from mtlbench.report.html import page

PAPERS = CONF.parent / "results" / "papers"
"""The printed numbers, of a checkout."""


def aggregate(
    sweep: str,
    overrides: Sequence[str] = (),
    select: str | None = None,
    out: str = "results",
    form: str | None = None,
    rows: Sequence[str] | None = None,
    figures: bool = True,
    papers: str | Path = PAPERS,
    report: bool = True,
) -> tuple[list[Comparison], Path]:
    """Writes the results of a sweep and returns its comparisons and their folder.

    overrides: as given to the sweep (machine.runs=<folder>). select, form, rows: as in aggregate.toml, and before it.
    Raises ValueError where no run has finished, a single-task baseline is missing, or `select` cannot be applied.
    """
    name = Path(sweep).resolve().name
    how = rules.read(Path(sweep), select=select, form=form, rows=rows)
    found = cells(Path(sweep), overrides)
    with Drawing(figures, len(found) >= cache.MANY) as drawing:
        return _aggregate(sweep, name, found, overrides, how, Path(out), drawing, Path(papers), report)


def _aggregate(
    sweep: str,
    name: str,
    found: Sequence[Cell],
    overrides: Sequence[str],
    how: Rules,
    out: Path,
    drawing: Drawing,
    papers: Path,
    report: bool,
) -> tuple[list[Comparison], Path]:
    results, remarks = gather.gather(found, runs_of(overrides), name)
    resume = shlex.join(["python", "-m", "mtlbench.sweep", "run", sweep, *overrides])
    if not any(result.state == "done" for result in results):
        raise ValueError(f"{sweep}: no run has finished ({states(results)}). Run it:\n  {resume}")

    def command(result: Result, task: str) -> str:
        if result.single_task:
            return resume
        cell = train_command(baseline_overrides(result.overrides, task))
        return f"{cell}\nand make it a cell of {sweep}, so that its tables find it."

    comparisons = compare(results, name, command, how)
    drawing.begin([figure_data(comparison) for comparison in comparisons])
    printed = reproduction.all_beside(comparisons, how.published, papers)
    tabled = [_tables(comparison, printed) for comparison in comparisons]
    parts = [part for own in tabled for part in own]
    files = {
        "records.csv": records(comparisons),
        "table.md": "\n".join(tables.markdown(table, level) for level, table in parts),
        "table.tex": "\n".join(["% needs \\usepackage{booktabs}", *(tables.latex(table) for _, table in parts)]),
        "status.md": status(name, comparisons, remarks, resume),
    }
    if printed:
        files["reproduction.md"] = tables.markdown(reproduction.summary(name, printed))
    searched = [comparison for comparison in comparisons if comparison.searched]
    if searched:
        files["settings.md"] = "\n".join(tables.markdown(sections.every(comparison)) for comparison in searched)
    if report:
        shown = [[table for _, table in own] for own in tabled]
        files["report.html"] = page(report_data(name, comparisons, remarks, resume, "fitting", shown))
    for comparison, figures in zip(comparisons, drawing.end(), strict=True):
        place = "figures" if len(comparisons) == 1 else f"figures/{_slug(comparison.title)}"
        files |= {f"{place}/{figure}.svg": text for figure, text in figures.items()}
    write(out / name, files)
    return comparisons, out / name


def _slug(title: str) -> str:
    """A comparison's title without the sweep's name, as a folder's name."""
    return re.sub(r"[^A-Za-z0-9.=-]+", "_", title.partition(": ")[2]).strip("_")


def _tables(comparison: Comparison, printed: reproduction.Printed) -> list[tuple[int, tables.Table]]:
    """The main table, and one level below those that belong to it."""
    below = [reproduction.table(found, block) for whose, block, found in printed if whose is comparison and found]
    below += sections.sections(comparison)
    return [(1, presentation.table(comparison)), *((2, table) for table in below)]


def write(folder: Path, files: dict[str, str]) -> None:
    """Writes the files and digests.txt, and removes what the call before wrote and this one does not. A file that was
    edited since is kept beside, with a warning."""
    folder.mkdir(parents=True, exist_ok=True)
    listing = folder / "digests.txt"
    lines = listing.read_text().splitlines() if listing.exists() else []
    known = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in sorted(set(known) - set(files)):
        path = folder / name
        if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == known[name]:
            path.unlink()
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


def published_pages(sweep: str | None, papers: Path = PAPERS) -> None:
    """Writes results/papers/audit.md and what belongs to it. Ends with an error as a sentence."""
    from mtlbench.audit.document import write as write_pages

    if sweep is not None:
        sys.exit(f"--published is about the printed tables alone: leave out {sweep}.")
    try:
        print("  ".join(map(str, write_pages(papers))))
    except (ValueError, FileNotFoundError) as error:
        sys.exit(str(error))


def main(arguments: Sequence[str] | None = None) -> None:
    """`mtlbench-aggregate`. Ends with an error as a sentence where the tables cannot be made."""
    parser = argparse.ArgumentParser(
        prog="python -m mtlbench.aggregate",
        description="Tables of a sweep's finished runs: results/<name>/table.md, table.tex, records.csv, status.md.",
    )
    parser.add_argument("sweep", nargs="?", help="the sweep's folder: sweeps/demo_multidigits")
    parser.add_argument("overrides", nargs="*", help="as given to the sweep, e.g. machine.runs=<folder>")
    parser.add_argument("--select", choices=list(selection.SELECT), help="which epoch's numbers (last)")
    parser.add_argument("--form", choices=list(stats.DELTA_M), help="of the Δm that chooses settings (metrics)")
    parser.add_argument("--rows", help=f"what makes a row, the rest is chosen on validation ({','.join(rules.ROWS)})")
    parser.add_argument("--no-figures", action="store_true", help="no figures/*.svg")
    parser.add_argument("--no-report", action="store_true", help="no report.html")
    parser.add_argument("--out", default="results", help="where the folder of results goes (results)")
    parser.add_argument("--published", action="store_true", help="no sweep: audit the printed tables of results/papers")
    asked = parser.parse_intermixed_args(arguments)
    if asked.published:
        return published_pages(asked.sweep)
    if asked.sweep is None:
        parser.error("which sweep? For example sweeps/demo_multidigits; or --published")
    gc.disable()  # many objects and a short life: with 10,000 runs a fifth of the time
    try:
        rows = asked.rows.split(",") if asked.rows else None
        comparisons, folder = aggregate(
            asked.sweep,
            asked.overrides,
            asked.select,
            asked.out,
            asked.form,
            rows,
            figures=not asked.no_figures,
            report=not asked.no_report,
        )
    except ValueError as error:
        sys.exit(str(error))
    for comparison in comparisons:
        tables.show(presentation.table(comparison))
    print("  ".join(str(folder / name) for name in _named(asked.no_report)))


def _named(no_report: bool) -> list[str]:
    """The files that the command's last line names."""
    return ["table.md", "table.tex", "records.csv", "status.md", *(["report.html"] * (not no_report))]


if __name__ == "__main__":
    main()
