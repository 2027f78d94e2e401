"""`python -m mtlbench.inspect published`: our networks beside the printed parameters and FLOPs."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mtlbench import config as configuration
from mtlbench import published, stats
from mtlbench.inspecting.network import counted, shape_of, unread
from mtlbench.task import Task

PAPERS = configuration.CONF.parent / "results" / "papers"
METRICS = ("params_m", "flops_g")
NEAR = 5.0
"""Percent: a row further off has a reason in networks.toml."""


@dataclass(frozen=True)
class Network:
    """One of ours, as networks.toml says it."""

    words: tuple[str, ...]
    alone: bool = False
    outputs: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Row:
    """A printed row of a table. network: ours, None where there is none; why: it is far off, or has none."""

    paper: str
    table: str
    method: str
    about: str
    printed: dict[str, str]
    network: Network | None = None
    why: str = ""

    @property
    def ours(self) -> dict[str, float]:
        """As `printed`, of our network; empty where there is none."""
        return measure(self.network) if self.network else {}

    def off(self, metric: str, times: float = 1.0) -> float:
        """Ours beyond the printed number, in percent of it."""
        number = float(self.printed[metric])
        return 100 * (times * self.ours[metric] - number) / number

    def rounds(self, metric: str) -> bool:
        """Whether ours has the printed digits."""
        number, half = stats.printed(self.printed[metric])
        return abs(self.ours[metric] - number) <= half

    @property
    def far(self) -> list[str]:
        return [m for m in self.printed if abs(self.off(m)) > NEAR and not self.rounds(m)] if self.ours else []


def rows(papers: Path = PAPERS, experiment: str | None = None) -> list[Row]:
    """All printed rows with a number of METRICS, beside our networks; with an experiment those that it makes.

    Raises ValueError for a row that networks.toml forgets or invents.
    """
    said = tomllib.loads((papers / "networks.toml").read_text())["table"]
    named = {(table["paper"], name): table for table in said for name in table["tables"]}
    found, seen = [], set()
    for paper in dict.fromkeys(table["paper"] for table in said):
        frame = published.read(papers, paper)
        part = frame[frame.metric.isin(METRICS)]
        for (name, method), own in part.groupby(["table", "method"], sort=False):
            table = named.get((paper, name))
            if table is None or (method not in table["rows"] and method not in table.get("why", {})):
                raise ValueError(
                    f"{papers / 'networks.toml'}: nothing is said about {method} of {paper}, table {name}."
                )
            seen.add((paper, name, method))
            if experiment is None or f"experiment={experiment}" in table["words"]:
                found.append(_row(table, name, method, dict(zip(own.metric, own.value, strict=True))))
    for table in said:
        for row in table["rows"]:
            if not any((table["paper"], name, row) in seen for name in table["tables"]):
                raise ValueError(f"{papers / 'networks.toml'}: tables {table['tables']} have no row {row}.")
    return found


def _row(table: Mapping[str, Any], name: str, method: str, printed: dict[str, str]) -> Row:
    how = table["rows"].get(method)
    network = None
    if how is not None:
        outputs = tuple(table.get("outputs", {}).items())
        network = Network((*table["words"], *how.get("words", [])), how.get("alone", False), outputs)
    return Row(
        table["paper"],
        name,
        method,
        table["about"],
        printed,
        network,
        table.get("why", {}).get(method, ""),
    )


@cache
def measure(network: Network) -> dict[str, float]:
    """{"params_m": millions of parameters, "flops_g": 1e9 multiply-adds}, of single-task networks their sum."""
    config = configuration.load(network.words, name="inspect_model")
    dataset = unread(config)
    tasks, shape = dict(dataset.tasks), shape_of(config, dataset)
    if network.outputs:
        loss = next(iter(tasks.values())).loss
        tasks = {name: Task(name, channels, loss, []) for name, channels in network.outputs}
    made = []
    for part in [{name: task} for name, task in tasks.items()] if network.alone else [tasks]:
        dataset.tasks = part
        made.append(counted(config, dataset, shape))
    return {
        "params_m": sum(one.parameters for one in made) / 1e6,
        "flops_g": sum(one.multiply_adds for one in made) / 1e9,
    }


def beside(choices: Mapping[str, str], papers: Path = PAPERS) -> Iterator[str]:
    """Lines of the printed rows that the chosen experiment makes with the chosen architecture."""
    if "experiment" not in choices or not (papers / "networks.toml").is_file():
        return
    for row in rows(papers, choices["experiment"]):
        default = "architecture=multi_decoder"
        words = row.network.words if row.network else ()
        architecture = next((word for word in reversed(words) if word.startswith("architecture=")), default)
        if row.network and architecture == f"architecture={choices['architecture']}":
            what = " (a network for each task, added up)" if row.network.alone else ""
            told = "; ".join(_told(row, metric) for metric in row.printed)
            yield f"{row.paper}, table {row.table}, {row.method}{what}: {told}"


def _told(row: Row, metric: str) -> str:
    unit = metric[-1].upper()
    return f"printed {row.printed[metric]} {unit}, ours {row.ours[metric]:.1f} {unit} ({row.off(metric):+.1f} %)"


def inspect_published(overrides: Sequence[str]) -> str:
    """Writes results/papers/networks.md. Raises ValueError for words, outside a checkout and for a missing reason."""
    if overrides and list(overrides) != ["--check"]:
        raise ValueError(f"mtlbench.inspect published takes no words but --check, found {' '.join(overrides)}.")
    if not (PAPERS / "networks.toml").is_file():
        raise ValueError(f"{PAPERS} is no part of an installed package: run this in a checkout.")
    from mtlbench.inspecting.networks_page import page  # which is made of what is here

    text, target = page(rows()), PAPERS / "networks.md"
    if overrides:
        if not target.is_file() or target.read_text() != text:
            raise ValueError(f"{target} is not current. Type: python -m mtlbench.inspect published")
        return "done"
    target.write_text(text)
    print(target)
    return "done"
