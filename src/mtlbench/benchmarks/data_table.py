"""The table of images per second."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtlbench.benchmarks.files import cell, save

OURS, CACHED, PLAIN = "mtlbench", "mtlbench, cache", "plain torchvision"


@dataclass(frozen=True)
class Rate:
    """One kind of loader, one process and thread. work: "decode and crop" alone, or "everything" of a batch.

    per_second: images, the median over rounds, and the quartiles. cpu: seconds of the processor for an image.
    ratio: per_second over the plain loader's in the same round, median. decode, transform, collate: shares of the time.
    """

    loader: str
    work: str
    rounds: int
    per_second: float
    lower: float
    upper: float
    cpu: float
    ratio: float | None = None
    decode: float | None = None
    transform: float | None = None
    collate: float | None = None


def write(rows: Sequence[Rate], facts: Mapping[str, str], what: str, name: str, folder: Path) -> str:
    """Writes <machine>_<dataset>.csv and .md into the folder; returns the latter's text."""
    text = report(rows, facts, what)
    save(rows, text, facts["device"], name, folder)
    return text


def report(rows: Sequence[Rate], facts: Mapping[str, str], what: str) -> str:
    lines = [
        "# Images per second of one worker",
        "",
        f"{cell(what)}. One process, the files in the system's memory. The kinds of loader take turns; given are the "
        f"median and the quartiles over rounds, and the median of each round's ratio to the plain loader. The plain "
        f"loader decodes the same files with Pillow and takes the same views of image and labels with torchvision, but "
        f"computes nothing from labels; of decoding alone, it decodes whole files.",
        "",
        "| loader | work | images / s | quartiles | processor | of plain | decode | transform | collate | rounds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        shares = ("-" if x is None else f"{100 * x:.0f} %" for x in (row.decode, row.transform, row.collate))
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f} x"
        lines.append(
            f"| {row.loader} | {row.work} | {row.per_second:.1f} | {row.lower:.1f} to {row.upper:.1f} "
            f"| {1000 * row.cpu:.1f} ms | {ratio} | {' | '.join(shares)} | {row.rounds} |"
        )
    lines += [
        "",
        "Decode: what reading the files takes; with the cache the pages that a view shows are read while they are "
        "converted, which counts as transform. Processor: time of the processor for an image, which other load on the "
        "machine changes less.",
        "",
        *(f"- {key}: {value}" for key, value in facts.items()),
    ]
    return "\n".join(lines) + "\n"
