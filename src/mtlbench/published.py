"""The papers' printed tables (results/papers/*.csv), and their aggregates recomputed from the printed numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import linprog

from mtlbench import stats

ROW = ["dataset", "setting", "architecture", "method", "optimizer", "lr"]
"""What tells the rows of one printed table apart."""

FORM = {"elich2023": "metrics", "survey2021": "tasks"}
"""The form of Delta_m by which a paper's tables follow from its printed numbers."""


def read(folder: Path, paper: str) -> pd.DataFrame:
    """One printed number a row, as strings: the digits are kept. Schema: results/papers/README.md."""
    return pd.read_csv(Path(folder) / f"{paper}.csv", dtype=str, keep_default_na=False)


def table(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """One printed table: a row a method (index ROW), a column for each (task, metric), as printed strings.

    Raises ValueError for a table that the frame does not hold.
    """
    part = frame[frame.table == name]
    if part.empty:
        raise ValueError(f"there is no table {name}; there are {', '.join(dict.fromkeys(frame.table))}.")
    wide = part.pivot(index=ROW, columns=["task", "metric"], values="value")
    order = part.drop_duplicates(["task", "metric"])
    wide = wide[list(zip(order.task, order.metric, strict=True))]
    return wide.loc[pd.MultiIndex.from_frame(part[ROW].drop_duplicates())]


def directions(frame: pd.DataFrame, name: str, columns: Sequence[tuple[str, str]]) -> np.ndarray:
    """Whether higher is better, for each (task, metric)."""
    part = frame[frame.table == name].drop_duplicates(["task", "metric"]).set_index(["task", "metric"])
    return (part.higher_is_better.loc[list(columns)] == "true").to_numpy()


def raw(wide: pd.DataFrame, prefix: str = "") -> list[tuple[str, str]]:
    """The columns of single tasks; those whose metric starts with `prefix`, or with no "rank_" if it is empty."""
    own = [c for c in wide.columns if c[0] != "all"]
    return [c for c in own if (c[1].startswith(prefix) if prefix else not c[1].startswith("rank_"))]


def numbers(wide: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Values [rows, columns] and half a unit of each one's last printed digit."""
    both = np.array([[stats.printed(text) for text in row] for row in wide.to_numpy()])
    return both[..., 0], both[..., 1]


def _compare(printed: pd.Series, recomputed: list[tuple[float, float, float]]) -> pd.DataFrame:
    """The printed aggregate, what follows from the printed numbers and between which bounds, per row."""
    values, half = zip(*map(stats.printed, printed), strict=True)
    result = pd.DataFrame(recomputed, printed.index, ["recomputed", "low", "high"])
    result.insert(0, "printed", values)
    result["half"] = half
    slack = 1e-9  # of binary fractions: 0.005 is none
    result["exact"] = (result.recomputed - result.printed).abs() <= result.half + slack
    result["within"] = (result.low - result.half - slack <= result.printed) & (
        result.printed <= result.high + result.half + slack
    )
    return result


def check_delta_m(
    frame: pd.DataFrame, name: str, form: str, baseline: dict[tuple[str, str], str] | None = None
) -> pd.DataFrame:
    """Every printed Delta_m of a table: printed, recomputed, low, high, half, exact (to the printed digit),
    within (the rounding interval, in which every number, the single-task row's too, moves by half a unit).

    baseline: other printed numbers for the single-task row, to try out a suspected misprint.
    """
    wide = table(frame, name)
    columns = raw(wide)
    better, groups = directions(frame, name, columns), [task for task, _ in columns]
    single = wide.index.get_level_values("method") == "single_task"
    first = wide.loc[single, columns].copy()
    for column, text in (baseline or {}).items():
        first[[column]] = text
    base, base_half = (part[0] for part in numbers(first))
    rows = wide.loc[~single]
    n = len(columns)

    def aggregate(x: np.ndarray) -> float:
        return float(stats.delta_m(x[:n], x[n:], better, groups, form))

    found = []
    for value, half in zip(*numbers(rows[columns]), strict=True):
        together, halves = np.concatenate([value, base]), np.concatenate([half, base_half])
        found.append((aggregate(together), *stats.rounding_interval(aggregate, together, halves)))
    return _compare(rows["all", "delta_m"], found)


def jointly_consistent(
    frame: pd.DataFrame,
    name: str,
    baseline: dict[tuple[str, str], str] | None = None,
    leave_out: Sequence[str] = (),
) -> bool:
    """Whether one unrounded single-task row fits every printed Delta_m of a table at once.

    With y_i = 1 / B_i the term of metric i is +-(M_i y_i - 1): linear in y at both ends of M_i's rounding,
    so this is the feasibility of a linear program. For tables in which both forms of Delta_m give a metric
    the same weight 1/N (Elich et al. on any dataset, the survey's one metric a task).
    """
    wide = table(frame, name)
    columns = raw(wide)
    wide = wide[~wide.index.get_level_values("method").isin(leave_out)]
    single = wide.index.get_level_values("method") == "single_task"
    first = wide.loc[single, columns].copy()
    for column, text in (baseline or {}).items():
        first[[column]] = text
    base, base_half = (part[0] for part in numbers(first))
    values, half = numbers(wide.loc[~single, columns])
    printed, printed_half = numbers(wide.loc[~single, [("all", "delta_m")]])
    lower_is_better = frame[(frame.table == name) & (frame.metric == "delta_m")].higher_is_better.iloc[0] == "false"
    sign = np.where(directions(frame, name, columns) == lower_is_better, -1.0, 1.0)
    scale = 100 / len(columns)
    low, high = values - half * sign, values + half * sign  # of each M, by what it does to Delta_m
    rows = np.concatenate([scale * sign * low, -scale * sign * high])
    shift = scale * sign.sum()
    bounds = np.concatenate([printed + printed_half + shift, -(printed - printed_half + shift)])[:, 0]
    box = list(zip(1 / (base + base_half), 1 / (base - base_half), strict=True))
    return linprog(np.zeros(len(columns)), rows, bounds, bounds=box).status == 0


def check_mean(frame: pd.DataFrame, name: str, metric: str) -> pd.DataFrame:
    """A printed plain mean over a table's task columns, column ("all", metric); columns as in `check_delta_m`."""
    wide = table(frame, name)
    found = []
    for value, half in zip(*numbers(wide[raw(wide)]), strict=True):
        found.append((value.mean(), *stats.rounding_interval(lambda x: float(x.mean()), value, half)))
    return _compare(wide["all", metric], found)


def check_ranks(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Every printed rank: columns method, task, metric, printed, recomputed (from the printed values)."""
    wide = table(frame, name)
    columns = raw(wide)
    found = stats.ranks(numbers(wide[columns])[0], directions(frame, name, columns))
    methods = wide.index.get_level_values("method")
    return pd.DataFrame(
        [
            (method, task, metric, float(wide[task, f"rank_{metric}"].iloc[i]), found[i, j])
            for i, method in enumerate(methods)
            for j, (task, metric) in enumerate(columns)
        ],
        columns=["method", "task", "metric", "printed", "recomputed"],
    )


def check_rank_summary(frame: pd.DataFrame, name: str, source: str = "ranks") -> pd.DataFrame:
    """Min, max and average rank of each method, recomputed from the printed "ranks" or from the "values";
    beside each the printed one, as far as the table prints it.

    Columns: min, max, average, printed_min, printed_max, printed_average, half (of the printed average).
    """
    wide = table(frame, name)
    if source == "values":
        columns = raw(wide)
        cells = stats.ranks(numbers(wide[columns])[0], directions(frame, name, columns))
    else:
        cells = numbers(wide[raw(wide, "rank_")])[0]
    result = stats.rank_summary(cells).set_index(wide.index.get_level_values("method"))
    for mine, theirs in (("min", "rank_min"), ("max", "rank_max"), ("average", "rank_avg")):
        if ("all", theirs) in wide.columns:
            result[f"printed_{mine}"] = wide["all", theirs].astype(float).to_numpy()
    result["half"] = [stats.printed(text)[1] for text in wide["all", "rank_avg"]]
    return result
