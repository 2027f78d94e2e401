"""The cells of a sweep as they are found on the disk: state, record, curves."""

import copy
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mtlbench import config, record
from mtlbench.aggregation import cache
from mtlbench.aggregation.cache import Read
from mtlbench.aggregation.curves import EMPTY, Curves
from mtlbench.cells import Cell

NEEDED = (
    *("run", "config", "choices", "tasks", "metrics", "synthetic", "fingerprint", "source_hash", "versions"),
    *("device", "world_size", "threads", "diverged", "epochs", "seconds_per_step"),
)
"""What is read of a record.json, and OF_CONFIG of the configuration in it."""

OF_CONFIG = ("seed", "epochs", "precision", "dataset", "backbone", "head", "optimizer", "method")


@dataclass
class Result:
    """One cell. state: done, diverged, unreadable, failed, running, interrupted or missing; reason: one line, of
    the three in which something is wrong. config: the identity; choices: Hydra's options; record: of a finished
    run; curves: its epochs. By the comparison are set, of a done one: values: {split: {metric: value}} at `epoch`;
    deltas: Delta_m of test by form, validation: of the validation part, optimism: by how much it would be better with
    the epoch chosen on test (NaN where undefined); label: the row it is in."""

    id: str
    overrides: list[str]
    state: str
    config: dict[str, Any]
    choices: dict[str, str]
    reason: str = ""
    record: dict[str, Any] | None = None
    curves: Curves = EMPTY
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    deltas: dict[str, float] = field(default_factory=dict)
    validation: float = math.nan
    optimism: float = math.nan
    epoch: int | None = None
    label: str = ""

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def tasks(self) -> list[str] | None:
        """Selected by name; None: all of the dataset."""
        return self.record["tasks"] if self.record else (self.config["dataset"] or {}).get("tasks")

    @cached_property
    def weights_sum(self) -> float:
        """Mean over the run of the sum of the task weights; NaN where there is none."""
        sums = self.curves.column("weights_sum")
        sums = sums[np.isfinite(sums)]
        return float(sums.mean()) if len(sums) else math.nan

    def option(self, group: str) -> str:
        """The name of a group's option: Hydra's, else that of its class."""
        if self.choices.get(group):
            return self.choices[group]
        target = (self.config.get(group) or {}).get("_target_") or "none"
        return target.rpartition(".")[2].lower()

    @property
    def single_task(self) -> bool:
        """A baseline: one task, with nothing to balance."""
        return self.tasks is not None and len(self.tasks) == 1 and self.option("method") == "equal"


def gather(cells: Iterable[Cell], runs: Path, name: str) -> tuple[list[Result], list[str]]:
    """The cells by id, each as its folder in `runs` has it, and notes on files that were not whole.

    name: of the sweep, for the cache of what was read.
    """
    cells = sorted({cell.id: cell for cell in cells}.values(), key=lambda cell: cell.id)
    found = {cell.id: cache.signature(runs / cell.id) for cell in cells}
    read = cache.read_all({id: seen for id, seen in found.items() if seen is not None}, runs, name)
    results, notes = [], []
    for cell in cells:
        if cell.id in read:
            result = _finished(cell, runs / cell.id, read[cell.id])
            notes += [read[cell.id].note] * bool(read[cell.id].note)
        else:
            result = Result(cell.id, list(cell.overrides), record.state_of(runs / cell.id), {}, {})
            if result.state == "failed":
                result.reason = _last_line(runs / cell.id / "error.txt")
        results.append(result)
    _identify(results)
    return results, notes


def _finished(cell: Cell, folder: Path, read: Read) -> Result:
    """The result of a cell that has a record; without `.record` where that cannot be used."""
    broken = Result(cell.id, list(cell.overrides), "unreadable", {}, {})
    entry = read.record
    if not isinstance(entry, dict):
        broken.reason = read.problem or f"{folder}/record.json is damaged: no mapping."
        return broken
    lacking = [key for key in NEEDED if key not in entry]
    if isinstance(entry.get("config"), dict):
        lacking += [f"config.{key}" for key in OF_CONFIG if key not in entry["config"]]
    if lacking:
        broken.reason = f"{folder}/record.json lacks {', '.join(lacking)}: another version of the code wrote it."
        return broken
    if entry["run"] != cell.id:
        broken.reason = f"{folder}/record.json is that of run {entry['run']}: the folder was renamed or copied."
        return broken
    result = Result(cell.id, list(cell.overrides), "done", entry["config"], entry["choices"], record=entry)
    result.curves = read.curves
    if entry["diverged"]:
        where = entry["diverged"]
        result.state = "diverged"
        result.reason = f"epoch {where['epoch']}, step {where['step']}: {where['reason']}"
    else:
        problem = read.lines_problem or _damage(read.curves, entry)
        if problem:
            result.state, result.reason = "unreadable", problem
    return result


def _damage(curves: Curves, entry: Mapping[str, Any]) -> str:
    """Why a run's lines cannot be what its record is about, or nothing."""
    if len(curves) != entry["epochs"]:
        return f"metrics.jsonl has {len(curves)} whole lines, the record says {entry['epochs']} epochs."
    lacking = [name for name in entry["metrics"] if f"test:{name}" not in curves.names]
    if lacking or not curves.evaluated[-1]:
        return f"the last epoch has no test value of {', '.join(lacking or entry['metrics'])}."
    return ""


def _identify(results: Sequence[Result]) -> None:
    """Gives the results without a record their configuration: from a neighbour that differs in plain keys, where the
    id agrees, otherwise composed (0.2 s), once for all seeds of a setting."""
    known: dict[tuple[str, ...], tuple[dict[str, Any], dict[str, str]]] = {}
    groups: dict[tuple[str, ...], tuple[dict[str, Any], dict[str, str]]] = {}
    for result in results:
        if result.record:
            own = result.config, result.choices
            known.setdefault(setting_of(result.overrides), own)
            groups.setdefault(_groups(result.overrides), own)
    for result in results:
        if result.record:
            continue
        setting = setting_of(result.overrides)
        near = known.get(setting) or groups.get(_groups(result.overrides))
        result.config, result.choices = _changed(near, result) if near else ({}, {})
        if id_of(result.config) != result.id:
            composed, result.choices = config.load_run(result.overrides)
            result.config = config.identity(composed)
            known[setting] = groups[_groups(result.overrides)] = result.config, result.choices


def _changed(near: tuple[dict[str, Any], dict[str, str]], result: Result) -> tuple[dict[str, Any], dict[str, str]]:
    """A neighbour's configuration with the plain keys of this one's command line."""
    identity = copy.deepcopy(near[0])
    for text in result.overrides:
        key, _, value = text.partition("=")
        *parents, last = key.split(".")
        node: Any = identity
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if isinstance(node, dict) and last in node and not isinstance(node[last], dict):
            node[last] = _plain(value, node[last])
    return identity, near[1]


def _plain(text: str, like: Any) -> Any:
    """A value of the command line, read as the one that it replaces."""
    try:
        return type(like)(float(text)) if isinstance(like, float) else json.loads(text)
    except json.JSONDecodeError:
        return text
    except ValueError:
        return like


def id_of(identity: Mapping[str, Any]) -> str:
    """As `config.run_id` has it: what does not agree is composed."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def setting_of(overrides: Sequence[str]) -> tuple[str, ...]:
    """What the seeds of one setting have in common, on the command line."""
    return tuple(sorted(text for text in overrides if not text.startswith("seed=")))


def _groups(overrides: Sequence[str]) -> tuple[str, ...]:
    """The command line without the values of plain keys with a dot: lr, a method's options."""
    plain = [text.partition("=") for text in overrides if not text.startswith(("seed=", "machine"))]
    return tuple(sorted(key if "." in key.partition("@")[0] else f"{key}={value}" for key, _, value in plain))


def _last_line(path: Path) -> str:
    try:
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except FileNotFoundError:  # started again since
        return "error.txt is gone"
    return lines[-1] if lines else "error.txt is empty"
