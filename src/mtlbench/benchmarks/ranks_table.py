"""The table of what training in several processes costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtlbench.benchmarks.files import cell, save


@dataclass(frozen=True)
class RankCost:
    """A method's step in several processes against DistributedDataParallel's beside it. Seconds: of the slowest rank.

    bytes, numbers, sums: what each rank hands to collective operations in a step, and how many of these there are; a
    ring carries 2 (N - 1) / N of it over each rank's wire. error: why there are no numbers.
    """

    method: str
    level: str = ""
    pairs: int = 0
    seconds: float | None = None
    baseline_seconds: float | None = None
    ratio: float | None = None
    ratio_lower: float | None = None
    ratio_upper: float | None = None
    bytes: int | None = None
    numbers: int | None = None
    sums: int | None = None
    error: str = ""


def write(rows: Sequence[RankCost], facts: Mapping[str, str], workload: str, tasks: int, folder: Path) -> str:
    """Writes <machine>_ranks.csv and .md into the folder; returns the latter's text."""
    text = report(rows, facts, workload, tasks)
    save(rows, text, facts["device"], "ranks", folder)
    return text


def report(rows: Sequence[RankCost], facts: Mapping[str, str], workload: str, tasks: int) -> str:
    plain = next((row.numbers for row in rows if row.method == "equal"), None)
    lines = [
        "# Cost of a step in several processes over DistributedDataParallel",
        "",
        f"{workload}. The same network, batch and summed losses in torch's DistributedDataParallel are the unit. "
        "Gradients, weights and update are timed, loading of data is not. Each ratio is of two steps side by side, "
        "each as long as the slowest process took; given are the median and the quartiles over pairs. Summed: what "
        "each process hands to sums over processes in a step.",
        "",
        "| method | level | step / DDP | quartiles | step | DDP | summed | sums | numbers beyond equal | pairs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name = cell(row.method)
        if row.error:
            lines.append(f"| {name} | {row.level} | failed: {cell(row.error)} | | | | | | | |")
            continue
        beyond = "-" if plain is None else f"{row.numbers - plain:,}"
        lines.append(
            f"| {name} | {row.level} | {row.ratio:.3f} | {row.ratio_lower:.3f} to {row.ratio_upper:.3f} "
            f"| {1000 * row.seconds:.0f} ms | {1000 * row.baseline_seconds:.0f} ms | {row.bytes:,} bytes "
            f"| {row.sums} | {beyond} | {row.pairs} |"
        )
    lines += [
        "",
        f"With T = {tasks} tasks the Gramian has T x T = {tasks**2} numbers, which feature level sums together with "
        f"the T = {tasks} losses that every level sums; parameter level sums the shared gradients of every task.",
        "",
        *(f"- {key}: {value}" for key, value in facts.items()),
    ]
    return "\n".join(lines) + "\n"
