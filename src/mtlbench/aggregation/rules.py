"""How the runs of a sweep become rows, and which printed table they stand beside: aggregate.toml in the sweep.

# sweeps/<name>/aggregate.toml: every key has a default
select = "best_val"                         # which epoch's numbers: a rule of selection.SELECT
form = "metrics"                            # of Delta_m, by which epochs and settings are chosen (stats.DELTA_M)
rows = ["method", "optimizer"]              # groups or dotted keys that make a row; whatever else is swept is chosen
valid = { "semantic/miou" = 10.0 }          # runs below are no part of the Pareto counts (above, if lower is better)

[[published]]                               # any number of these
paper = "elich2023"                         # results/papers/<paper>.csv
table = "A3"
where = { architecture = "SegNet" }         # columns of the csv, and what they must say
ours = { "dataset.size" = 128 }             # keys or groups of our rows, and what they must be
epochs = 300                                # as the paper has them; other epochs are not comparable
network = "segnet segnet"                   # backbone and head as the paper has them, likewise
unsaid = ["momentum of SGD: 0.9 here"]      # what the paper leaves open: told, and compared nevertheless
differs = ["crops of 512x512"]              # what is not as in the paper: told, and not comparable

[published.metrics]                         # printed "task/metric" = ours; `factor` turns ours into the printed unit
"semseg/miou" = { name = "semantic/miou", factor = 0.01 }
"attributes/accuracy" = { name = "*/accuracy" }        # the mean over all tasks

[published.spread]                          # half-widths, in printed units, where the paper prints no ±
"semseg/miou" = 0.5

Printed Delta_m and Pareto counts ("all/delta_m", "all/n_pareto_full", ...) need no entry in metrics.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtlbench import stats
from mtlbench.aggregation.selection import SELECT

FILE = "aggregate.toml"
ROWS = ("method", "architecture")


@dataclass(frozen=True)
class Published:
    """Which rows of results/papers a sweep stands beside; the keys of [[published]] in aggregate.toml."""

    paper: str
    table: str
    metrics: Mapping[str, Mapping[str, Any]]
    where: Mapping[str, str] = field(default_factory=dict)
    ours: Mapping[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    network: str | None = None
    unsaid: Sequence[str] = ()
    differs: Sequence[str] = ()
    spread: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Rules:
    """The keys of aggregate.toml. Raises ValueError for a value that is none of the possible ones."""

    select: str = "last"
    form: str = "metrics"
    rows: tuple[str, ...] = ROWS
    valid: Mapping[str, float] = field(default_factory=dict)
    published: tuple[Published, ...] = ()

    def __post_init__(self) -> None:
        if self.select not in SELECT:
            raise ValueError(f"select={self.select}: the rules are {', '.join(SELECT)}.")
        if self.form not in stats.DELTA_M:
            raise ValueError(f"form={self.form}: Δm has the forms {', '.join(stats.DELTA_M)}.")
        if "method" not in self.rows:
            raise ValueError(f"rows={','.join(self.rows)}: method is always one of the keys that make a row.")


def read(sweep: Path, **given: Any) -> Rules:
    """The rules of a sweep's aggregate.toml, where there is one; `given` (None: not given) goes before.

    Raises ValueError for a file that is not TOML, and for a key that is none of these.
    """
    path = sweep / FILE
    try:
        found = tomllib.loads(path.read_text()) if path.exists() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not TOML ({error}).") from error
    known = set(Rules.__dataclass_fields__)
    _refuse_unknown(path, found, known, "")
    blocks = found.pop("published", [])
    if not isinstance(blocks, list):
        raise ValueError(f"{path}: write [[published]], with two brackets: there may be several.")
    for block in blocks:
        _refuse_unknown(path, block, set(Published.__dataclass_fields__), "published.")
        lacking = {"paper", "table", "metrics"} - set(block)
        if lacking:
            raise ValueError(f"{path}: [[published]] lacks {', '.join(sorted(lacking))}.")
    found["published"] = tuple(Published(**block) for block in blocks)
    found |= {key: value for key, value in given.items() if value is not None}
    found["rows"] = tuple(found.get("rows", ROWS))
    try:
        return Rules(**found)
    except ValueError as error:
        raise ValueError(f"{path if path.exists() else sweep}: {error}") from error


def _refuse_unknown(path: Path, found: Mapping[str, Any], known: set[str], where: str) -> None:
    wrong = sorted(set(found) - known)
    if wrong:
        raise ValueError(f"{path}: {where}{wrong[0]} is no key of it. There are: {', '.join(sorted(known))}.")
