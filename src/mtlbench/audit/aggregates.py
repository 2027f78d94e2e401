"""Every aggregate of the five papers, recomputed from their printed numbers with what rounding leaves open."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pandas as pd

from mtlbench import published
from mtlbench.audit.intervals import Interval, decimals, exact, mean, printed

PAPERS = ("imtl2021", "mgda2018", "survey2021", "lsb2021", "elich2023")

DELTA_M = {"survey2021": ("3", "4", "5", "6", "7", "8", "9", "10", "11b", "11c"), "elich2023": ("A3", "A4", "A5", "A6")}
MEANS = ("3", "A8", "A9")
RANKS = ("2b", "2c", "2d", "4a", "4b", "4c", "5a", "5b")

Place = tuple[str, str, str]
"""method, task, metric"""


@dataclass(frozen=True)
class Check:
    """One printed aggregate: where it stands, what it is, what follows from the printed numbers.

    rounded: whether the printed one was rounded (a count or a rank was not).
    """

    paper: str
    table: str
    row: str
    quantity: str
    printed: str
    recomputed: Interval
    rounded: bool = True

    @property
    def claimed(self) -> Interval:
        return printed(self.printed) if self.rounded else exact(self.printed)

    @property
    def exactly(self) -> bool:
        """Whether the printed digits are those of the recomputed value."""
        claimed = self.claimed
        return claimed.low <= self.recomputed.value <= claimed.high

    @property
    def inside(self) -> bool:
        """Whether the printed aggregate can follow: its own interval meets the recomputed one."""
        return self.claimed.meets(self.recomputed)

    @property
    def verdict(self) -> str:
        return "to the digit" if self.exactly else "within" if self.inside else "outside"

    @property
    def digits(self) -> int:
        """How many decimals show it: one more than printed."""
        return decimals(self.printed) + 1


class Papers:
    """The printed numbers of results/papers, by paper and table."""

    def __init__(self, folder: Path):
        self.frames = {paper: published.read(folder, paper) for paper in PAPERS}
        self.toy = published.read(folder, "elich_toy")

    def table(self, paper: str, name: str) -> pd.DataFrame:
        return published.table(self.frames[paper], name)

    def text(self, paper: str, table: str, place: Place, **where: str) -> str:
        """One printed number. Raises ValueError where the csv has none or several of that description."""
        said = dict(zip(("method", "task", "metric"), place, strict=True)) | where | {"table": table}
        frame = self.frames[paper]
        for column, value in said.items():
            frame = frame[frame[column] == value]
        if len(frame) != 1:
            raise ValueError(f"results/papers/{paper}.csv has {len(frame)} rows with {said}, expected one.")
        return str(frame.value.iloc[0])

    def number(self, paper: str, table: str, place: Place, **where: str) -> Interval:
        return printed(self.text(paper, table, place, **where))

    def methods(self, paper: str, table: str) -> list[str]:
        frame = self.frames[paper]
        return list(dict.fromkeys(frame[frame.table == table].method))

    def higher(self, paper: str, table: str, columns: Sequence[tuple[str, str]]) -> list[bool]:
        return [bool(flag) for flag in published.directions(self.frames[paper], table, columns)]


def name_of(row: tuple[str, ...], wide: pd.DataFrame) -> str:
    """What tells a row of a printed table from the others: its method, and what else varies in the table."""
    parts = dict(zip(wide.index.names, row, strict=True))
    varies = [key for key in ("architecture", "dataset", "optimizer") if wide.index.get_level_values(key).nunique() > 1]
    return " ".join(filter(None, [*(parts[key] for key in varies if key != "optimizer"), parts["method"]])) + (
        f" {parts['optimizer']}" if "optimizer" in varies else ""
    )


def relative(value: Interval, baseline: Interval) -> Interval:
    """(M - B) / B in percent, as M / B - 1: the baseline is named once."""
    return (value / baseline - 1) * 100


def delta_m(
    papers: Papers, paper: str, name: str, form: str | None = None, replace: Mapping[Place, str] | None = None
) -> Iterator[Check]:
    """Every printed Delta_m of a table. form: metrics or tasks (stats.delta_m), by default the paper's own.

    replace: other printed numbers, to try out a suspected misprint.
    """
    form = form or published.FORM[paper]
    wide = papers.table(paper, name)
    columns = published.raw(wide)
    tasks = [task for task, _ in columns]
    weights = [Fraction(1, len(tasks) if form == "metrics" else len(set(tasks)) * tasks.count(task)) for task in tasks]
    turn = [1 if better == (form == "tasks") else -1 for better in papers.higher(paper, name, columns)]

    def cells(row: tuple[str, ...]) -> list[Interval]:
        method = row[wide.index.names.index("method")]
        texts = [(replace or {}).get((method, *column), wide.loc[row, column]) for column in columns]
        return [printed(text) for text in texts]

    (single,) = [row for row in wide.index if row[wide.index.names.index("method")] == "single_task"]
    base = cells(single)
    for row in wide.index:
        if row == single:
            continue
        terms = [relative(m, b) * (w * s) for m, b, w, s in zip(cells(row), base, weights, turn, strict=True)]
        total = mean(terms) * len(terms)
        yield Check(paper, name, name_of(row, wide), "Δm", wide.loc[row, ("all", "delta_m")], total)


def corruption_means(papers: Papers) -> Iterator[Check]:
    """The last column of Elich et al.'s tables of robustness: the mean of the columns before it."""
    for name in MEANS:
        wide = papers.table("elich2023", name)
        for row in wide.index:
            total = mean(printed(wide.loc[row, column]) for column in published.raw(wide))
            said = wide.loc[row, ("all", "corr_delta_mean")]
            yield Check("elich2023", name, name_of(row, wide), "mean over metrics", said, total)


def attribute_means(papers: Papers) -> Iterator[Check]:
    """Sener and Koltun's Table 1 (and "Ours" of Table 2): the means of the 40 columns of Table 5."""
    wide = papers.table("mgda2018", "5")
    for row in wide.index:
        method = row[wide.index.names.index("method")]
        total = mean(printed(text) for text in wide.loc[row])
        for table in ("1", "2") if method == "mgda_ub" else ("1",):
            said = papers.text("mgda2018", table, (method, "attributes", "error"))
            yield Check("mgda2018", table, method, "mean over 40 attributes", said, total)


def absolute_changes(papers: Papers) -> Iterator[Check]:
    """The subscripts of IMTL's Table 1: how far a number moves when the segmentation loss is scaled by 10."""
    frame = papers.frames["imtl2021"]
    for row in frame[frame.metric.str.endswith("_abs_change")].itertuples():
        place = (row.method, row.task, row.metric.removesuffix("_abs_change"))
        now, before = (papers.number("imtl2021", "1", place, setting=s) for s in ("sem loss x10", "default"))
        yield Check("imtl2021", "1", f"{row.method} {row.task}", "absolute change", row.value, abs(now - before))


def rank_intervals(values: Sequence[Interval], higher: bool) -> list[Interval]:
    """The rank of each in a column, ties the mean of their places; and the best and worst that rounding allows.

    The worst rank of a row is that of its own worst end among the others' best ends, and the other way round.
    """
    turned = [value if higher else -value for value in values]

    def rank(own: Fraction, others: Sequence[Fraction]) -> Fraction:
        return 1 + sum(other > own for other in others) + Fraction(sum(other == own for other in others), 2)

    found = []
    for i, own in enumerate(turned):
        others = turned[:i] + turned[i + 1 :]
        best, worst = rank(own.high, [o.low for o in others]), rank(own.low, [o.high for o in others])
        found.append(Interval(best, rank(own.value, [o.value for o in others]), worst))
    return found


def ranks(papers: Papers, name: str) -> Iterator[Check]:
    """Every printed rank of a table of LSB; then min, max and mean of the printed ranks, as far as printed."""
    wide = papers.table("lsb2021", name)
    columns = published.raw(wide)
    for column, higher in zip(columns, papers.higher("lsb2021", name, columns), strict=True):
        found = rank_intervals([printed(text) for text in wide[column]], higher)
        for row, one in zip(wide.index, found, strict=True):
            said = wide.loc[row, (column[0], f"rank_{column[1]}")]
            yield Check("lsb2021", name, name_of(row, wide), f"rank in {'/'.join(column)}", said, one, rounded=False)
    yield from rank_summaries(papers, name)


def rank_summaries(papers: Papers, name: str) -> Iterator[Check]:
    wide = papers.table("lsb2021", name)
    for row in wide.index:
        own = [exact(wide.loc[row, column]) for column in published.raw(wide, "rank_")]
        values = [rank.value for rank in own]
        summary = {"min": exact(str(min(values))), "max": exact(str(max(values))), "avg": mean(own)}
        for key, quantity in (("min", "smallest rank"), ("max", "largest rank"), ("avg", "mean rank")):
            if ("all", f"rank_{key}") in wide.columns:
                said = wide.loc[row, ("all", f"rank_{key}")]
                yield Check("lsb2021", name, name_of(row, wide), quantity, said, summary[key], rounded=key == "avg")


def average_ranks_of_values(papers: Papers, name: str) -> dict[str, Interval]:
    """What the mean rank of each method would be by the printed values, whatever ranks are printed."""
    wide = papers.table("lsb2021", name)
    columns = published.raw(wide)
    found = [
        rank_intervals([printed(text) for text in wide[column]], higher)
        for column, higher in zip(columns, papers.higher("lsb2021", name, columns), strict=True)
    ]
    methods = wide.index.get_level_values("method")
    return {method: mean(one) for method, one in zip(methods, zip(*found, strict=True), strict=True)}


def pareto_counts(papers: Papers) -> Iterator[Check]:
    """Elich et al.'s Table 2 and the totals of Table A2, from the counts of single methods in Table A2.

    No run is printed, so that the counts cannot be made again; only whether they agree. A2 has no row for what it
    prints as "-": none.
    """
    frame = papers.frames["elich2023"]
    full = frame[(frame.table.isin(["2", "A2"])) & (frame.method == "all") & (frame.metric == "n_pareto_full")]
    for row in full.itertuples():
        same = (frame.dataset == row.dataset) & (frame.architecture == row.architecture)
        parts = frame[(frame.table == "A2") & (frame.method != "all") & (frame.optimizer == row.optimizer) & same]
        total = exact(str(sum(int(count) for count in parts.value)))
        label = f"{row.dataset} {row.architecture} {row.optimizer}"
        yield Check("elich2023", row.table, label, "Pareto optimal, sum over methods", row.value, total, rounded=False)


def every(papers: Papers) -> list[Check]:
    """All of them, in the order of the papers."""
    found = [*absolute_changes(papers), *attribute_means(papers)]
    for paper, names in DELTA_M.items():
        if paper == "survey2021":
            found += [check for name in names for check in delta_m(papers, paper, name)]
    found += [check for name in RANKS for check in ranks(papers, name)]
    found += [*pareto_counts(papers), *corruption_means(papers)]
    return found + [check for name in DELTA_M["elich2023"] for check in delta_m(papers, "elich2023", name)]
