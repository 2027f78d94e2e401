"""Processes that run the cells of a sweep one after another, so that imports are paid once a process."""

import contextlib
import gc
import json
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from mtlbench import config as configuration
from mtlbench.cells import Cell, labels
from mtlbench.commands import CONFLICT
from mtlbench.console import duration, values_of
from mtlbench.record import epochs_done, read_record, state_of

TRIES = 2
"""How often a cell is started whose process is killed from outside (out of memory, say)."""


class _Signals:
    """In a worker: a signal that comes outside of a training loop is sent again until the loop has noted it."""

    def __init__(self) -> None:
        self.stopped = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        again = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
        again.daemon = True
        again.start()


def work(pipe: Connection, log: str) -> None:
    """A worker's life: command lines come in, (state, last line of the error) goes out; what it prints, to `log`."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(out, 1)
    os.dup2(out, 2)
    signals = _Signals()
    while not signals.stopped:
        try:
            overrides = pipe.recv()
        except EOFError:  # the parent has no more cells, or is gone
            return
        print(f"\n$ {' '.join(overrides)}", flush=True)
        answer = ("interrupted", "") if signals.stopped else _one(overrides)
        try:
            pipe.send(answer)
        except BrokenPipeError:
            return
        gc.collect()  # the network of this cell, before that of the next


def _one(overrides: Sequence[str]) -> tuple[str, str]:
    """One cell. Whatever goes wrong in it is its own: the next cell is not concerned."""
    from mtlbench.train import train

    try:
        return train(*configuration.load_run(overrides)), ""
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return "failed", kind + " ".join(str(error).split())


@dataclass
class _Worker:
    """A process, and the cell that it has in hand."""

    process: Any
    pipe: Connection
    log: Path
    row: TaskID
    cell: Cell | None = None
    begin: float = 0.0
    epochs: int = 0  # of the cell, when it was handed out
    told: int = 0  # how often it was told to stop


class Workers:
    """Runs `queue` on `jobs` processes. Claims keep a cell from running twice, here or on another machine."""

    def __init__(self, queue: Sequence[Cell], all_cells: Sequence[Cell], runs: Path, jobs: int, name: str):
        self.queue, self.runs, self.jobs, self.name = deque(queue), runs, jobs, name
        self.names, self.total = labels(all_cells), len(all_cells)
        self.finished = self.total - len(queue)
        self.tries: dict[str, int] = {}
        self.failed: dict[str, str] = {}
        self.begin, self.epochs = time.monotonic(), 0
        self.stops = 0
        self.threads = max(1, len(os.sched_getaffinity(0)) // jobs)
        self.console = Console(highlight=False, soft_wrap=True)
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )

    @property
    def exit_code(self) -> int:
        """0; 1 if a cell failed; 85 if a signal stopped the sweep."""
        return CONFLICT["interrupted"] if self.stops else int(bool(self.failed))

    def run(self) -> None:
        """Returns when every cell was tried, or after a signal when the workers have saved and ended."""
        logs = self.runs / ".index"
        try:
            logs.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"{logs} cannot be made: {error.strerror}. Set machine.runs to a folder of yours."
            ) from error
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        workers: list[_Worker] = []
        try:
            with self.bar:
                self.all = self.bar.add_task(self.name, total=self.total, completed=self.finished, unit="cells")
                for number in range(min(self.jobs, len(self.queue))):
                    workers.append(self._start(logs / f"{self.name}.worker{number}.log"))
                while any(worker.cell for worker in workers) or (self.queue and not self.stops):
                    for place, worker in enumerate(workers):
                        if worker.cell is None and not self.stops:
                            self._hand_out(worker)
                        if self.stops:
                            self._tell_to_stop(worker)
                        if worker.cell and worker.pipe.poll():
                            workers[place] = self._take_back(worker)
                    self._show(workers)
                    wait([worker.pipe for worker in workers if worker.cell], 0.5)
        finally:
            for worker in workers:
                worker.pipe.close()  # an idle worker ends when nobody is at the other end
                if worker.cell is not None:
                    worker.process.kill()
                worker.process.join()
            for number, handler in before.items():
                signal.signal(number, handler)
        self._say_what_left_no_trace()
        if self.stops:
            self._say(f"stopped; what was running is saved. {self.total - self.finished} cells remain.")

    def _start(self, log: Path, row: TaskID | None = None) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=work, args=(theirs, str(log)), name=log.stem)
        process.start()
        theirs.close()
        row = self.bar.add_task("starting", total=None, unit="epochs") if row is None else row
        return _Worker(process, ours, log, row)

    def _hand_out(self, worker: _Worker) -> None:
        """The next cell that nobody has done or is doing meanwhile."""
        while self.queue:
            cell = self.queue.popleft()
            state = state_of(self.runs / cell.id)
            if state == "running":
                self._say(f"skipped, another process runs it: {self.names[cell.id]}")
            elif state == "done":
                self.finished += 1
            else:
                worker.cell, worker.begin = cell, time.monotonic()
                worker.epochs = epochs_done(self.runs / cell.id)
                self.tries[cell.id] = self.tries.get(cell.id, 0) + 1
                self.bar.reset(worker.row, description=self.names[cell.id], total=cell.epochs, visible=True)
                with contextlib.suppress(BrokenPipeError):  # it died while idle: noticed when its answer is read
                    worker.pipe.send([*cell.overrides, *self._threads(cell)])
                return
        self.bar.update(worker.row, visible=False)

    def _threads(self, cell: Cell) -> list[str]:
        """An even share of the cores, unless it was said; a run that was begun goes on with as many as it had."""
        if any(word.startswith("machine.threads=") for word in cell.overrides):
            return []
        begun = self.runs / cell.id / "config.yaml"
        if begun.exists() and (begun.parent / "checkpoint.pt").exists():
            return [f"machine.threads={json.dumps(yaml.safe_load(begun.read_text())['machine']['threads'])}"]
        return [f"machine.threads={self.threads}"]

    def _take_back(self, worker: _Worker) -> _Worker:
        """Notes how a worker's cell ended; returns the worker, or a new one in place of one that was killed."""
        cell, worker.cell = worker.cell, None
        assert cell is not None
        self.epochs += epochs_done(self.runs / cell.id) - worker.epochs
        try:
            state, reason = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            self._died(cell, worker.process.exitcode)
            worker.pipe.close()
            return self._start(worker.log, worker.row) if not self.stops else worker
        self._note(cell, state, reason, time.monotonic() - worker.begin)
        return worker

    def _died(self, cell: Cell, code: int) -> None:
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if self.stops:
            return
        if self.tries[cell.id] < TRIES:
            self._say(f"the process of {self.names[cell.id]} was killed ({how}); it is started again")
            self.queue.appendleft(cell)
        else:
            self._fail(cell, f"its process was killed {TRIES} times ({how})")

    def _note(self, cell: Cell, state: str, reason: str, seconds: float) -> None:
        if state == "done":
            self.finished += 1
            if self.bar.disable:  # on a terminal the bar has it
                place = f"{self.finished}/{self.total}"
                self._say(f"{place:<8} {self.names[cell.id]}   {duration(seconds)}   {self._result(cell)}")
        elif state == "failed":
            self._fail(cell, reason)
        elif state == "busy":
            self._say(f"skipped, another process runs it: {self.names[cell.id]}")
        else:
            done = epochs_done(self.runs / cell.id)
            self._say(f"saved    {self.names[cell.id]}   after {done} of {cell.epochs} epochs")
            self.stops = self.stops or 1  # a worker was sent a signal by somebody else

    def _fail(self, cell: Cell, reason: str) -> None:
        self.failed[cell.id] = reason
        self._say(f"failed   {self.names[cell.id]}   {reason}")

    def _result(self, cell: Cell) -> str:
        record: Mapping[str, Any] = read_record(self.runs / cell.id)
        if record.get("diverged"):
            return f"diverged: {record['diverged']['reason']}"
        return values_of(record.get("last", {}), {name: metric["unit"] for name, metric in record["metrics"].items()})

    def _show(self, workers: Sequence[_Worker]) -> None:
        """The bars of a terminal, from the files of the runs; and how long the rest takes at the pace so far."""
        if self.bar.disable:
            return
        epochs = self.epochs
        for worker in workers:
            if worker.cell is not None:
                now = epochs_done(self.runs / worker.cell.id)
                epochs += now - worker.epochs
                self.bar.update(worker.row, completed=now)
        open_epochs = sum(cell.epochs for cell in self.queue)
        open_epochs += sum(w.cell.epochs - epochs_done(self.runs / w.cell.id) for w in workers if w.cell)
        pace = (time.monotonic() - self.begin) / epochs if epochs else None
        left = f"   about {duration(pace * open_epochs)} left" if pace and open_epochs > 0 else ""
        self.bar.update(self.all, completed=self.finished, unit=f"cells{left}")

    def _say_what_left_no_trace(self) -> None:
        """Failures before a run's folder was opened, as without the data: `status` cannot know them."""
        reasons: dict[str, list[str]] = {}
        for id, reason in self.failed.items():
            if state_of(self.runs / id) != "failed":
                reasons.setdefault(reason, []).append(self.names[id])
        for reason, names in reasons.items():
            self._say(f"not run   {names[0] if len(names) == 1 else f'{len(names)} cells'}   {reason}")

    def _say(self, line: str) -> None:
        self.console.print(line, markup=False)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stops += 1

    def _tell_to_stop(self, worker: _Worker) -> None:
        """The first signal lets the worker save; another one kills it, which costs what came after its checkpoint."""
        if worker.cell is not None and worker.told < min(self.stops, 2):
            worker.process.kill() if worker.told else worker.process.terminate()
            worker.told += 1
