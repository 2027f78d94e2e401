"""status.md: every cell's state, why it failed, what to type for what is missing."""

from collections import Counter
from collections.abc import Iterable, Sequence

from mtlbench.aggregation import tables
from mtlbench.aggregation.commands import train_command
from mtlbench.aggregation.comparison import Comparison
from mtlbench.aggregation.gather import Result
from mtlbench.record import STATES


def status(name: str, comparisons: Sequence[Comparison], remarks: Sequence[str], resume: str) -> str:
    """status.md: cells by state, rows with their seeds, what went wrong, what to type."""
    text = tables.markdown_text
    results = [result for comparison in comparisons for result in comparison.results]
    lines = [f"# status of {text(name)}", "", f"{len(results)} cells: {states(results)}.", ""]
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


def states(results: Iterable[Result]) -> str:
    """3 done, 1 diverged, 2 missing: in the order of a run's life, the best first."""
    counts = Counter(result.state for result in results)
    order = ["done", "diverged", "unreadable", *(state for state in reversed(STATES) if state != "done")]
    return ", ".join(f"{counts[state]} {state}" for state in order if counts[state])
