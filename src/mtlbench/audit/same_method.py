"""results/papers/same_method.md: one method on one protocol as different sources print it, and how far they differ."""

from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from mtlbench import published
from mtlbench.aggregation.tables import markdown_text
from mtlbench.audit.families import FAMILIES, Family, Source
from mtlbench.audit.intervals import decimals, shown

HEAD = """# One method, several sources

Written by `python -m mtlbench.aggregate --published` from the csv files beside it; not to be edited.

The same method on the same data with (nearly) the same network, as different sources print it. What is known to differ
between their protocols stands above the numbers; a dash is what a source leaves unsaid, or what was not looked up.
`peers.csv` holds the numbers that are not of the five papers: many of them are quoted by a later paper or recomputed,
as its notes say.

The *spread* of a method is its largest number less its smallest. Beside it stands the range of all multi-task methods
within one source, the largest of the sources: where the spread is the larger of the two, who ran a method says more
than which method it was. *Turned round*: of the pairs of methods that two sources both print, how many are in the
opposite order.

Mind the protocols: a spread has all their differences in it, and no source's number is wrong because of it."""


class Printed(NamedTuple):
    """A number of a source in the family's unit, and the decimals that show it."""

    value: Fraction
    digits: int


Numbers = dict[str, dict[str, Printed]]
"""{method: {source: number}} of one metric."""


def numbers(folder: Path, source: Source) -> dict[tuple[str, str], Printed]:
    """{(method, "task/metric"): number} of a source. Raises ValueError where its csv no longer has such rows."""
    frame = published.read(folder, source.paper)
    for column, value in source.where.items():
        frame = frame[frame[column] == value]
    if frame.empty:
        raise ValueError(f"results/papers/{source.paper}.csv has no row with {dict(source.where)} ({source.name}).")
    found: dict[tuple[str, str], Printed] = {}
    for row in frame.itertuples():
        metric, digits = f"{row.task}/{row.metric}", decimals(row.value)
        power = source.powers.get(metric, 0)
        value = Fraction(row.value) * 10**power
        if metric in source.minus:
            value = source.minus[metric] - value
        digits = max(0, digits - power)
        place = (source.same.get(row.method, row.method), source.rename.get(metric, metric))
        if place in found:
            raise ValueError(f"{source.name}: results/papers/{source.paper}.csv has two numbers of {' '.join(place)}.")
        found[place] = Printed(value, digits)
    return found


def of_metric(folder: Path, family: Family, metric: str) -> Numbers:
    """Every method's number in every source that prints it."""
    found: Numbers = {}
    for source in family.sources:
        for (method, printed), number in numbers(folder, source).items():
            if printed == metric:
                found.setdefault(method, {})[source.name] = number
    return found


def spread(of_method: dict[str, Printed]) -> Printed:
    """The largest less the smallest."""
    values = [number.value for number in of_method.values()]
    return Printed(max(values) - min(values), max(number.digits for number in of_method.values()))


def widest(found: Numbers) -> tuple[str, Printed] | None:
    """The multi-task method of two sources or more whose numbers lie furthest apart."""
    shared = {m: spread(own) for m, own in found.items() if len(own) > 1 and m != "single_task"}
    return max(shared.items(), key=lambda pair: pair[1].value, default=None)


def within(found: Numbers, family: Family) -> tuple[str, Printed] | None:
    """The source in which two multi-task methods or more lie furthest apart, and how far."""
    ranges = {}
    for source in family.sources:
        own = {m: cells[source.name] for m, cells in found.items() if source.name in cells and m != "single_task"}
        if len(own) > 1:
            ranges[source.name] = spread(own)
    return max(ranges.items(), key=lambda pair: pair[1].value, default=None)


def turned(found: Numbers) -> tuple[int, int]:
    """Of the pairs of multi-task methods that two sources both tell apart: how many in opposite order, and all."""
    opposite = total = 0
    for one, other in combinations([method for method in found if method != "single_task"], 2):
        both = [source for source in found[one] if source in found[other]]
        signs = [found[one][source].value - found[other][source].value for source in both]
        for first, second in combinations([sign for sign in signs if sign], 2):
            opposite += (first > 0) != (second > 0)
            total += 1
    return opposite, total


def _grid(head: list[str], rows: list[list[str]]) -> str:
    lines = [[markdown_text(text) for text in line] for line in (head, *rows)]
    lines.insert(1, [":--", *["--:"] * (len(head) - 1)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def summary(folder: Path) -> str:
    """A line a family and metric: the widest method, the range of all methods in one source, how their order agrees."""
    rows = []
    for family in FAMILIES:
        for metric, label in family.metrics.items():
            found = of_metric(folder, family, metric)
            far, inside, (opposite, pairs) = widest(found), within(found, family), turned(found)
            if far is None:
                continue
            shared = sum(len(cells) > 1 for method, cells in found.items() if method != "single_task")
            own = f"{shown(inside[1].value, inside[1].digits)} ({inside[0]})" if inside else "-"
            order = f"{opposite} of {pairs}" if pairs else "-"
            apart = f"{shown(far[1].value, far[1].digits)} ({far[0]})"
            rows.append([family.title, label, str(shared), apart, own, order])
    head = ["protocol", "metric", "methods", "widest spread of one method", "all methods in one source", "turned round"]
    return _grid(head, rows)


def protocols(family: Family) -> str:
    """What the sources say alike, and a table of what they do not."""
    keys = dict.fromkeys(key for source in family.sources for key in source.protocol)
    said = {key: [source.protocol.get(key, "-") for source in family.sources] for key in keys}
    alike = [f"{key}: {texts[0]}" for key, texts in said.items() if len(set(texts)) == 1]
    rows = [[key, *texts] for key, texts in said.items() if len(set(texts)) > 1]
    first = f"Alike: {markdown_text('; '.join(alike))}.\n\n" if alike else ""
    return first + _grid(["differs", *(source.name for source in family.sources)], rows)


def page(folder: Path, family: Family) -> str:
    """A family: its protocols, a table a metric, its notes. Raises ValueError where no method has two sources."""
    parts = [f"## {markdown_text(family.title)}", protocols(family)]
    for metric, label in family.metrics.items():
        found = of_metric(folder, family, metric)
        rows = []
        for method, own in found.items():
            if len(own) > 1:
                cells = [shown(own[s.name].value, own[s.name].digits) if s.name in own else "-" for s in family.sources]
                apart = spread(own)
                rows.append([method, *cells, shown(apart.value, apart.digits)])
        if rows:
            head = ["method", *(source.name for source in family.sources), "spread"]
            parts.append(f"### {markdown_text(label)}\n\n{_grid(head, rows)}")
    if len(parts) == 2:
        raise ValueError(f"{family.title}: no method has numbers of two sources.")
    parts += ["\n".join(f"- {markdown_text(note)}" for note in family.notes)] * bool(family.notes)
    return "\n\n".join(parts)


def same_method_md(folder: Path) -> str:
    """The page, from the csv files of `folder`."""
    parts = [HEAD, "## Overview", summary(folder), *(page(folder, family) for family in FAMILIES)]
    return "\n\n".join(parts) + "\n"
