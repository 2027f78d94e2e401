"""What a run tells the person at the terminal, the queue's log and the chosen logger."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console as Terminal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def number(value: float | None) -> str:
    """Three or four digits that matter: 74.1, 3.012, 0.0512."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """As people say it: 12 ms, 3.2 s, 4 min 05 s, 2 h 10 min."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


MANY = 20
"""More values of one metric than this are told as their mean."""


def values_of(values: Mapping[str, float | None], units: Mapping[str, str]) -> str:
    values, units = _means(values, units)
    return ", ".join(f"{name} {number(value)}{_unit(units.get(name, ''))}" for name, value in values.items())


def _means(
    values: Mapping[str, float | None], units: Mapping[str, str]
) -> tuple[Mapping[str, float | None], Mapping[str, str]]:
    """A metric that many tasks have (40 attributes) as one: "mean of 40/accuracy"."""
    found: dict[str, float | None] = {}
    units = dict(units)
    for metric in dict.fromkeys(name.rpartition("/")[2] for name in values):
        names = [name for name in values if name.rpartition("/")[2] == metric]
        if len(names) <= MANY:
            found |= {name: values[name] for name in names}
            continue
        defined = [values[name] for name in names if values[name] is not None and math.isfinite(values[name])]
        mean = f"mean of {len(defined)}/{metric}"
        found[mean], units[mean] = sum(defined) / len(defined) if defined else None, units.get(names[0], "")
    return (found if len(found) < len(values) else values), units


def shortened(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:6])} and {len(names) - 6} more"


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""


def unit_of(unit: str, error: float) -> str:
    """A metric's unit, with how far its value may be off where it is not exact: ° (±0.005)."""
    return f"{unit} (±{error:g})".strip() if error else unit


def summary(record: Mapping[str, Any]) -> str:
    """One line about a finished run, and how to repeat it."""
    marks = " (synthetic data)" if record.get("synthetic") else ""
    if record.get("diverged"):
        where = record["diverged"]
        text = f"diverged in epoch {where['epoch'] + 1}, step {where['step'] + 1}: {where['reason']}"
    else:
        text = values_of(
            record.get("last", {}), {k: unit_of(m["unit"], m.get("error", 0.0)) for k, m in record["metrics"].items()}
        )
    seed = record["config"]["seed"]
    return f"run {record['run']} is done{marks}: {text}. Repeat it with a new seed: seed={seed + 1}"


class Console:
    """Progress of one run: a bar on a terminal, one plain line an epoch elsewhere; `logger` gets every line."""

    def __init__(self, title: str, folder: str, epochs: int, units: Mapping[str, str], logger: Any = None):
        self.folder, self.epochs, self.units, self.logger = folder, epochs, units, logger
        self.begin = time.monotonic()
        self.terminal = Terminal(file=sys.stdout, highlight=False, soft_wrap=True)
        self.bar: Progress | None = None
        self.terminal.print(title, markup=False)
        if self.terminal.is_terminal:
            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self.terminal,
                transient=True,
            )
            self.task = self.bar.add_task("", total=None)
            self.bar.start()
        self._flush()

    def __call__(self, line: dict[str, Any] | None = None, **place: Any) -> None:
        if line is None:
            if self.bar is not None:
                text = f"epoch {place['epoch'] + 1}/{self.epochs}  loss {number(place['loss'])}"
                self.bar.update(self.task, description=text, completed=place["step"], total=place["of"])
            return
        if self.logger is not None:
            self.logger.line(line)
        losses = [loss for loss in line["losses"].values() if loss is not None]
        parts = [f"epoch {line['epoch'] + 1}/{self.epochs}", f"loss {number(sum(losses))}"]
        for split in ("val", "test"):
            if line.get(split):
                parts.append(f"{split}: {values_of(line[split], self.units)}")
        if line["seconds_per_step"] is not None:
            parts.append(f"{duration(line['seconds_per_step'])}/step, data wait {100 * line['data_wait']:.0f} %")
        self.terminal.print("  ".join(parts), markup=False)
        self._flush()

    def finish(self, record: Mapping[str, Any]) -> None:
        self._end()
        self.terminal.print(f"{summary(record)}\n{duration(record['seconds'])}; files in {self.folder}", markup=False)
        if self.logger is not None:
            self.logger.finish(record)
        self._flush()

    def stopped(self) -> None:
        self._end()
        if self.logger is not None:
            self.logger.finish(None)
        self.terminal.print(f"stopped; the state is saved in {self.folder}. The same command goes on.", markup=False)
        self._flush()

    def failed(self) -> None:
        """Leaves the terminal as it was; the error itself is told by whoever catches it."""
        self._end()
        if self.logger is not None:
            self.logger.finish(None)

    def _end(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _flush(self) -> None:
        sys.stdout.flush()
