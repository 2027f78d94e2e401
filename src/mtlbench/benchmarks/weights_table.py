"""The table of what the methods' own arithmetic costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtlbench.benchmarks.files import cell, save


@dataclass(frozen=True)
class Time:
    """Of one method and one number of tasks, over all Gramians and repeats, in milliseconds.

    slowest: the Gramian that takes longest; slowest_lower: the lower quartile over its repeats, which a limit is held
    against. peer: the same of torchjd's. error, peer_error: why there are no numbers.
    """

    method: str
    tasks: int
    calls: int = 0
    median: float | None = None
    lower: float | None = None
    upper: float | None = None
    longest: float | None = None
    slowest: str = ""
    slowest_lower: float | None = None
    limit: float | None = None
    verdict: str = ""
    error: str = ""
    peer: str = ""
    peer_median: float | None = None
    peer_lower: float | None = None
    peer_upper: float | None = None
    peer_longest: float | None = None
    peer_error: str = ""


def write(rows: Sequence[Time], facts: Mapping[str, str], calls: str, folder: Path) -> str:
    """Writes <machine>_weights.csv and .md into the folder; returns the latter's text."""
    text = report(rows, facts, calls)
    save(rows, text, facts["device"], "weights", folder)
    return text


def report(rows: Sequence[Time], facts: Mapping[str, str], calls: str) -> str:
    """calls: over what median and quartiles are taken, in words."""
    lines = [
        "# What the methods' own arithmetic costs",
        "",
        "Milliseconds of a step's transform and weights (and of what a method learns from the losses after the step), "
        f"on losses and a Gramian that are there: no network. Median, quartiles and maximum over {calls}. A limit is "
        "held against the lower quartile on the Gramian that takes longest. Beside it torchjd's weighting of the same "
        "name, which is given the same Gramians alone, and solves some of the problems to fewer digits.",
    ]
    for count in dict.fromkeys(row.tasks for row in rows):
        lines += ["", f"## {count} tasks", ""]
        lines.append("| method | median | quartiles | maximum | slowest Gramian, lower quartile | limit | torchjd |")
        lines.append("|---|---|---|---|---|---|---|")
        lines += [_row(row) for row in rows if row.tasks == count]
    return "\n".join([*lines, "", *(f"- {key}: {value}" for key, value in facts.items())]) + "\n"


def _row(row: Time) -> str:
    if row.error:
        return f"| {cell(row.method)} | failed: {cell(row.error)} | | | | | |"
    limit = f"{row.limit:g} ms: {row.verdict}" if row.limit is not None else "-"
    peer = f"not run: {row.peer_error}" if row.peer_error else "-"
    if row.peer_median is not None:
        peer = f"{row.peer_median:.2f} ({row.peer_lower:.2f} to {row.peer_upper:.2f}, at most {row.peer_longest:.2f})"
    return (
        f"| {cell(row.method)} | {row.median:.2f} | {row.lower:.2f} to {row.upper:.2f} | {row.longest:.2f} "
        f"| {cell(row.slowest)}, {row.slowest_lower:.2f} | {limit} | {cell(peer)} |"
    )
