"""What `sweep run` shows while it runs: a live table on a terminal, plain lines in a file or a queue's log."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mtlbench.cells import Cell
from mtlbench.console import duration, number, values_of
from mtlbench.record import epochs_done

TAIL = 1 << 16
"""Bytes at the end of metrics.jsonl in which the last line is looked for."""


class Live:
    """One row a worker and one for the sweep. As a context manager it draws until it is left."""

    def __init__(self, name: str, total: int, finished: int, runs: Path):
        self.name, self.total, self.finished, self.runs = name, total, finished, runs
        self.console = Console(highlight=False, soft_wrap=True)
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.rows: dict[int, Any] = {}
        self.cells: dict[int, tuple[Cell, int]] = {}  # by worker: what it has in hand, and its epochs at the beginning
        self.begin, self.epochs = time.monotonic(), 0

    def __enter__(self) -> "Live":
        self.bar.start()
        self.all = self.bar.add_task(self.name, total=self.total, completed=self.finished, unit="cells")
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def say(self, line: str) -> None:
        """A line that stays."""
        self.console.print(line, markup=False)

    def took(self, worker: int, cell: Cell, label: str) -> None:
        """A worker has begun a cell."""
        self.cells[worker] = cell, epochs_done(self.runs / cell.id)
        if worker not in self.rows:
            self.rows[worker] = self.bar.add_task("", total=None, unit="epochs")
        self.bar.reset(self.rows[worker], description=label, total=cell.epochs, visible=True, unit="epochs")

    def ended(self, worker: int) -> None:
        """A worker's cell has ended, however that was."""
        cell, before = self.cells.pop(worker)
        self.epochs += max(0, epochs_done(self.runs / cell.id) - before)
        self.bar.update(self.rows[worker], visible=False)

    def done(self, label: str, seconds: float, record: Mapping[str, Any]) -> None:
        """A cell has come to its result."""
        self.finished += 1
        if self.bar.disable:  # on a terminal the bar has it
            self.say(f"{f'{self.finished}/{self.total}':<8} {label}   {duration(seconds)}   {_result(record)}")

    def show(self, waiting: int) -> None:
        """The bars, from the files of the runs; how long the rest takes, `waiting` epochs and what is in hand."""
        if self.bar.disable:
            return
        epochs = self.epochs
        for worker, (cell, before) in self.cells.items():
            now = epochs_done(self.runs / cell.id)
            epochs += max(0, now - before)
            waiting += max(0, cell.epochs - now)
            line = last_line(self.runs / cell.id / "metrics.jsonl")
            self.bar.update(self.rows[worker], completed=now, unit=f"epochs   {_pace(line)}" if line else "epochs")
        pace = (time.monotonic() - self.begin) / epochs if epochs else None
        left = f"   about {duration(pace * waiting)} left" if pace and waiting > 0 else ""
        self.bar.update(self.all, completed=self.finished, unit=f"cells{left}")


def last_line(path: Path) -> dict[str, Any]:
    """The last whole line of a metrics.jsonl; empty where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            *whole, _cut = file.read().split(b"\n")
        return json.loads(whole[-1]) if whole else {}
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, UnicodeDecodeError):
        return {}


def _pace(line: Mapping[str, Any]) -> str:
    losses = [loss for loss in line["losses"].values() if loss is not None]
    parts = [f"loss {number(sum(losses))}"] if losses else []
    if line["seconds_per_step"] is not None:
        parts.append(f"{duration(line['seconds_per_step'])}/step")
    return "  ".join(parts)


def _result(record: Mapping[str, Any]) -> str:
    if record.get("diverged"):
        return f"diverged: {record['diverged']['reason']}"
    return values_of(record.get("last", {}), {name: metric["unit"] for name, metric in record["metrics"].items()})
