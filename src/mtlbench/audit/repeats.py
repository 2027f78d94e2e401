"""Numbers that are printed twice, and counts that bound each other: what agrees, and what does not."""

from dataclasses import dataclass

from mtlbench.audit.aggregates import Papers
from mtlbench.audit.misprints import Finding

Cells = dict[tuple[str, ...], str]

SAME = (
    # paper, table and what to take of it, the table that repeats it and what to take of that
    ("survey2021", "3", {}, "10", {}),
    ("survey2021", "6", {}, "10", {}),
    ("survey2021", "3", {"method": "mtl_baseline"}, "11b", {"method": "equal"}),
    ("survey2021", "3", {"method": "single_task"}, "11b", {"method": "single_task"}),
    ("survey2021", "4", {"method": "mtl_baseline"}, "11c", {"method": "equal"}),
    ("survey2021", "4", {"method": "single_task"}, "11c", {"method": "single_task"}),
    ("mgda2018", "4", {"method": "mgda_ub"}, "2", {"method": "mgda_ub", "dataset": "Cityscapes"}),
    ("mgda2018", "1", {"method": "mgda_ub"}, "2", {"method": "mgda_ub", "dataset": "CelebA"}),
    ("lsb2021", "4a", {"method": "lsb"}, "6", {"setting": "beta default (0, increased each period)"}),
    ("elich2023", "3", {}, "A9", {"architecture": "SegNet"}),
)

VALID = 6 * 10 * 3
"""Runs of Elich et al. for each dataset, network and optimizer: methods, learning rates, seeds."""


@dataclass(frozen=True)
class Repeat:
    """How many cells two tables share, and those that differ."""

    what: str
    shared: int
    differ: list[str]


def cells(papers: Papers, paper: str, table: str, where: dict[str, str]) -> Cells:
    frame = papers.frames[paper]
    frame = frame[frame.table == table]
    for column, value in where.items():
        frame = frame[frame[column] == value]
    key = ["method", "task", "metric"] if "method" not in where and "setting" not in where else ["task", "metric"]
    return dict(zip(frame[key].itertuples(index=False, name=None), frame.value, strict=True))


def repeats(papers: Papers) -> list[Repeat]:
    """Raises ValueError where a pair of tables has nothing in common: the csv has changed."""
    found = []
    for paper, first, one, second, other in SAME:
        a, b = cells(papers, paper, first, one), cells(papers, paper, second, other)
        if "setting" in other:  # a table of one method: the other's ranks have no counterpart
            b = {place[-2:]: text for place, text in b.items()}
        shared = [place for place in a if place in b]
        if not shared:
            raise ValueError(f"results/papers/{paper}.csv: tables {first} and {second} share no cell any more.")
        row = " ".join(one.values())
        differ = [
            f"{' '.join(place)}: {a[place]} and {b[place]}" for place in shared if float(a[place]) != float(b[place])
        ]
        found.append(Repeat(f"{paper} {first}{' ' * bool(row)}{row} in {second}", len(shared), differ))
    return found


def bounds(papers: Papers) -> Finding:
    """Elich et al.'s counts: full <= with respect to the other optimizer <= valid <= all."""
    frame = papers.frames["elich2023"]
    held = 0
    for _, part in frame[frame.table == "2"].groupby(["architecture", "dataset", "optimizer"]):
        counts = dict(zip(part.metric, part.value.astype(int), strict=True))
        (other,) = (count for metric, count in counts.items() if metric.startswith("n_pareto_wrt"))
        held += counts["n_pareto_full"] <= other <= counts["n_experiments_valid"] <= VALID
    return Finding(
        "elich2023 2",
        f"Pareto optimal among all runs ≤ with respect to the other optimizer ≤ valid ≤ {VALID} (6 methods, 10 "
        f"rates, 3 seeds): {held} of 8 rows. No run is printed, so that the counts themselves cannot be made again.",
    )
