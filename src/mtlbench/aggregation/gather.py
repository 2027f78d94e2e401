"""The cells of a sweep as they are found on the disk: state, record, and the metrics of the selected epoch."""

import math
import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtlbench import config, record, stats
from mtlbench.cells import Cell

SELECT = {
    "last": "the last epoch",
    "best_val": "the epoch with the best mean relative improvement of the validation metrics over the run's first "
    "evaluation",
    "mean_last_10": "the mean of the last 10 evaluated epochs",
}
"""The rules that pick a run's numbers from its epochs. None looks at the test part."""

NEEDED = (
    *("run", "config", "choices", "tasks", "metrics", "synthetic", "fingerprint", "source_hash", "versions"),
    *("device", "world_size", "threads", "diverged", "epochs", "seconds_per_step"),
)
"""What is read of a record.json."""


@dataclass
class Result:
    """One cell. state: done, diverged, unreadable, failed, running, interrupted or missing; reason: one line, of
    the three in which something is wrong. config: the identity; choices: Hydra's options; record: of a finished
    run; values: {split: {metric: value}} at `epoch`, of a done one. label: the row that it is in."""

    id: str
    overrides: list[str]
    state: str
    config: dict[str, Any]
    choices: dict[str, str]
    reason: str = ""
    record: dict[str, Any] | None = None
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    epoch: int | None = None
    weights_sum: float = math.nan
    label: str = ""

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def tasks(self) -> list[str] | None:
        """Selected by name; None: all of the dataset."""
        return self.record["tasks"] if self.record else (self.config["dataset"] or {}).get("tasks")

    def option(self, group: str) -> str:
        """The name of a group's option: Hydra's, else that of its class."""
        target = (self.config.get(group) or {}).get("_target_") or "none"
        return self.choices.get(group) or target.rpartition(".")[2].lower()

    @property
    def single_task(self) -> bool:
        """A baseline: one task, with nothing to balance."""
        return self.tasks is not None and len(self.tasks) == 1 and self.option("method") == "equal"


def gather(cells: Iterable[Cell], runs: Path, select: str) -> tuple[list[Result], list[str]]:
    """The cells by id, each as its folder in `runs` has it, and notes on files that were not whole.

    Raises ValueError for select=best_val where a run has no validation metrics.
    """
    cells = sorted({cell.id: cell for cell in cells}.values(), key=lambda cell: cell.id)
    known: dict[tuple[str, ...], tuple[dict[str, Any], dict[str, str]]] = {}
    results, notes, unknown = [], [], []
    for cell in cells:
        folder, row = runs / cell.id, _without_seed(cell.overrides)
        state = record.state_of(folder)
        if state == "done":
            result = _finished(cell, folder, select, notes)
            if result.record is not None:
                known.setdefault(row, (result.config, result.choices))
                results.append(result)
                continue
        else:
            result = Result(cell.id, list(cell.overrides), state, {}, {})
            if state == "failed":
                result.reason = _last_line(folder / "error.txt")
        unknown.append(result)
    for result in unknown:  # no record says what they are: composed, once for all seeds of a row
        row = _without_seed(result.overrides)
        if row not in known:
            composed, choices = config.load_run(result.overrides)
            known[row] = config.identity(composed), choices
        identity, result.choices = known[row]
        seeds = [text.removeprefix("seed=") for text in result.overrides if text.startswith("seed=")]
        result.config = {**identity, "seed": int(seeds[-1]) if seeds else identity["seed"]}
    return sorted(results + unknown, key=lambda result: result.id), notes


def _finished(cell: Cell, folder: Path, select: str, notes: list[str]) -> Result:
    """The result of a cell that has a record; without `.record` where that cannot be read."""
    broken = Result(cell.id, list(cell.overrides), "unreadable", {}, {})
    try:
        entry = record.read_record(folder)
    except ValueError as error:
        broken.reason = str(error)
        return broken
    lacking = [key for key in NEEDED if key not in entry]
    if lacking:
        broken.reason = f"{folder}/record.json lacks {', '.join(lacking)}: another version of the code wrote it."
        return broken
    result = Result(cell.id, list(cell.overrides), "done", entry["config"], entry["choices"], record=entry)
    if entry["diverged"]:
        where = entry["diverged"]
        result.state = "diverged"
        result.reason = f"epoch {where['epoch']}, step {where['step']}: {where['reason']}"
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            lines = record.read_lines(folder)
        notes.extend(str(warning.message) for warning in caught)
        sums = [line["weights_sum"] for line in lines if line["weights_sum"] is not None]
        result.weights_sum = statistics.fmean(sums) if sums else math.nan
        problem = _damage(lines, entry)
    except ValueError as error:
        problem = str(error)
    if result.state == "done":
        if problem:
            result.state, result.reason = "unreadable", problem
        else:
            result.values, result.epoch = selected(lines, select, entry["metrics"], str(folder))
    return result


def _damage(lines: list[dict[str, Any]], entry: Mapping[str, Any]) -> str:
    """Why a run's lines cannot be what its record is about, or nothing."""
    if len(lines) != entry["epochs"]:
        return f"metrics.jsonl has {len(lines)} whole lines, the record says {entry['epochs']} epochs."
    if not entry["diverged"]:
        lacking = [name for name in entry["metrics"] if name not in (lines[-1]["test"] or {})]
        if lacking:
            return f"the last epoch has no test value of {', '.join(lacking)}."
    return ""


def selected(
    lines: list[dict[str, Any]], rule: str, metrics: Mapping[str, Mapping[str, Any]], run: str = "this run"
) -> tuple[dict[str, dict[str, float]], int]:
    """{"test": {metric: value}, "val": ...} by a rule of SELECT, and the (last) epoch that it took.

    NaN where a metric is undefined. Raises ValueError for best_val without validation metrics.
    """
    evaluated = [line for line in lines if line["test"]]
    if rule == "best_val":
        if not all(line["val"] for line in evaluated):
            raise ValueError(
                f"--select best_val: {run} has no validation metrics. Use --select last or mean_last_10, or a "
                f"dataset with a validation part."
            )
        better = [metric["higher_is_better"] for metric in metrics.values()]
        values = [[_number(line["val"].get(name)) for name in metrics] for line in evaluated]
        gains = stats.mean_relative_improvement(values, values[0], better)
        evaluated = [evaluated[int(gains.argmax())]]
    else:
        evaluated = evaluated[-10 if rule == "mean_last_10" else -1 :]
    found = {
        split: {name: statistics.fmean(_number(line[split].get(name)) for line in evaluated) for name in metrics}
        for split in ("test", "val")
        if all(line[split] for line in evaluated)
    }
    return found, evaluated[-1]["epoch"]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _without_seed(overrides: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(text for text in overrides if not text.startswith("seed=")))


def _last_line(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "error.txt is empty"
