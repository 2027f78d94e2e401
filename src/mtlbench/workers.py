"""Hands the cells of a sweep to worker processes, and notes how each cell ended. A crash costs one cell, no more."""

import contextlib
import json
import multiprocessing
import os
import secrets
import signal
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from mtlbench.cells import Cell, labels
from mtlbench.claim import Claim
from mtlbench.commands import CONFLICT
from mtlbench.gpus import visible_gpus
from mtlbench.live import Live
from mtlbench.record import Busy, Run, epochs_done, read_record, state_of
from mtlbench.worker import Answer, work

TRIES = 2
"""How often a cell is started whose process ends without an answer (killed, crashed, out of memory)."""

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What stops a sweep: Ctrl-C, and what queues send before the time is over."""


@dataclass
class _Worker:
    """A process, and the cell that it has in hand."""

    number: int
    process: Any
    pipe: Connection
    cell: Cell | None = None
    begin: float = 0.0
    told: int = 0  # how often it was told to stop


@dataclass
class Plan:
    """How a sweep is run.

    jobs: worker processes; None: one a GPU, or one where there is none.
    array: one of several such commands that work on the same sweep at the same time (an array of jobs, many hosts):
        each begins elsewhere in the queue, and what failed is left alone, for otherwise each would try it again.
    """

    jobs: int | None = None
    array: bool = False
    gpus: list[str] = field(default_factory=visible_gpus)

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise ValueError(f"--jobs {self.jobs}: expected at least 1.")
        if "TORCHELASTIC_RUN_ID" in os.environ:
            raise ValueError(
                "torchrun starts many processes of one run and a sweep runs many runs: use one of the two."
            )

    def processes(self) -> int:
        return self.jobs or (1 if self.array else max(1, len(self.gpus)))

    def threads(self) -> int:
        """torch's threads in each process: an even share of the cores that the queue gave, or that there are."""
        cores = os.environ.get("SLURM_CPUS_PER_TASK", "")
        return max(1, (int(cores) if cores.isdecimal() else len(os.sched_getaffinity(0))) // self.processes())

    def gpu(self, worker: int) -> str | None:
        """The GPU of a worker; they share them where there are more workers."""
        return self.gpus[worker % len(self.gpus)] if self.gpus else None


class Workers:
    """Runs `queue` by a plan. Claims keep a cell from running twice, here or on another machine."""

    def __init__(self, queue: Sequence[Cell], all_cells: Sequence[Cell], runs: Path, plan: Plan, name: str):
        self.queue, self.runs, self.plan, self.name = deque(queue), runs, plan, name
        if plan.array:
            self.queue.rotate(-_place(len(queue)))
        self.names, self.total = labels(all_cells), len(all_cells)
        self.live = Live(name, self.total, self.total - len(queue), runs)
        self.elsewhere: list[Cell] = []  # what others had in hand when it was looked at
        self.tries: dict[str, int] = {}
        self.failed: dict[str, str] = {}
        self.stops = 0
        self.threads = plan.threads()

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
        before = {number: signal.signal(number, self._stop) for number in STOPS}
        workers: list[_Worker] = []
        try:
            with self.live:
                for number in range(min(self.plan.processes(), len(self.queue))):
                    workers.append(self._start(number))
                while any(worker.cell for worker in workers) or (self._more() and not self.stops):
                    for place, worker in enumerate(workers):
                        if worker.cell is None and not self.stops:
                            self._hand_out(worker)
                        if self.stops:
                            self._tell_to_stop(worker)
                        if worker.cell and worker.pipe.poll():
                            workers[place] = self._take_back(worker)
                    self.live.show(sum(cell.epochs for cell in self.queue))
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
            self.live.say(f"stopped; what was running is saved. {self.total - self.live.finished} cells remain.")

    def _more(self) -> bool:
        """Whether cells wait; at the end of the queue, those that others have given up meanwhile come back to it."""
        if not self.queue and self.elsewhere:
            self.queue.extend(c for c in self.elsewhere if state_of(self.runs / c.id) in ("missing", "interrupted"))
            self.elsewhere = [c for c in self.elsewhere if c not in self.queue and state_of(self.runs / c.id) != "done"]
        return bool(self.queue)

    def _start(self, number: int) -> _Worker:
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        log = self.runs / ".index" / f"{self.name}.{_who() if self.plan.array else 'worker'}{number}.log"
        process = context.Process(target=work, args=(theirs, str(log), self.plan.gpu(number)), name=log.stem)
        process.start()
        theirs.close()
        return _Worker(number, process, ours)

    def _hand_out(self, worker: _Worker) -> None:
        """The next cell that nobody has done or is doing meanwhile."""
        while self.queue:
            cell = self.queue.popleft()
            state = state_of(self.runs / cell.id)
            if state == "running":
                self._leave(cell)
            elif state == "done":
                self.live.finished += 1
            elif state != "failed" or not self.plan.array:
                worker.cell, worker.begin = cell, time.monotonic()
                self.tries[cell.id] = self.tries.get(cell.id, 0) + 1
                self.live.took(worker.number, cell, self.names[cell.id])
                with contextlib.suppress(BrokenPipeError):  # it died while idle: noticed when its answer is read
                    worker.pipe.send([*cell.overrides, *self._threads(cell)])
                return

    def _leave(self, cell: Cell) -> None:
        if cell not in self.elsewhere:
            self.elsewhere.append(cell)
            if not self.plan.array:  # where many work on one sweep it is no news
                self.live.say(f"skipped, another process runs it: {self.names[cell.id]}")

    def _threads(self, cell: Cell) -> list[str]:
        """An even share of the cores, unless it was said; a run that was begun goes on with as many as it had."""
        if any(word.startswith("machine.threads=") for word in cell.overrides):
            return []
        begun = self.runs / cell.id / "config.yaml"
        if begun.exists() and (begun.parent / "checkpoint.pt").exists():
            return [f"machine.threads={json.dumps(yaml.safe_load(begun.read_text())['machine']['threads'])}"]
        return [f"machine.threads={self.threads}"]

    def _take_back(self, worker: _Worker) -> _Worker:
        """Notes how a worker's cell ended; returns the worker, or a new one in place of one that has ended."""
        cell, worker.cell = worker.cell, None
        assert cell is not None
        self.live.ended(worker.number)
        try:
            answer = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join()
            self._died(cell, worker.process.exitcode)
        else:
            self._note(cell, answer, time.monotonic() - worker.begin)
            if not answer.last:
                return worker
            worker.process.join()
        worker.pipe.close()
        return worker if self.stops else self._start(worker.number)

    def _died(self, cell: Cell, code: int) -> None:
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if self.stops:
            return
        if self.tries[cell.id] < TRIES:
            self.live.say(f"the process of {self.names[cell.id]} was killed ({how}); it is started again")
            self.queue.appendleft(cell)
            return
        reason = f"its process was killed {TRIES} times ({how})"
        self._fail(cell, reason)
        leave_error(self.runs / cell.id, reason + (". Out of memory?" if how == "SIGKILL" else ""))

    def _note(self, cell: Cell, answer: Answer, seconds: float) -> None:
        if answer.state == "done":
            self.live.done(self.names[cell.id], seconds, read_record(self.runs / cell.id))
        elif answer.state == "failed":
            self._fail(cell, answer.reason)
        elif answer.state == "busy":
            self._leave(cell)
        else:
            done = epochs_done(self.runs / cell.id)
            self.live.say(f"saved    {self.names[cell.id]}   after {done} of {cell.epochs} epochs")
            self.stops = self.stops or 1  # a worker was sent a signal by somebody else

    def _fail(self, cell: Cell, reason: str) -> None:
        self.failed[cell.id] = reason
        self.live.say(f"failed   {self.names[cell.id]}   {reason}")

    def _say_what_left_no_trace(self) -> None:
        """Failures before a run's folder was opened, as without the data: `status` cannot know them."""
        reasons: dict[str, list[str]] = {}
        for id, reason in self.failed.items():
            if state_of(self.runs / id) != "failed":
                reasons.setdefault(reason, []).append(self.names[id])
        for reason, names in reasons.items():
            self.live.say(f"not run   {names[0] if len(names) == 1 else f'{len(names)} cells'}   {reason}")

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Queues send the same signal twice, or TERM after USR1; only a second Ctrl-C is impatience."""
        self.stops += number == signal.SIGINT or not self.stops

    def _tell_to_stop(self, worker: _Worker) -> None:
        """The first signal lets the worker save; another one kills it, which costs what came after its checkpoint."""
        if worker.cell is not None and worker.told < min(self.stops, 2):
            worker.process.kill() if worker.told else worker.process.terminate()
            worker.told += 1


def leave_error(folder: Path, reason: str) -> None:
    """Writes error.txt for a run whose process could not; nothing where another process has the run by now."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(Busy), Run(folder, Claim(folder, {"why": "its process was killed"})) as run:
        run.fail(reason)


def _who() -> str:
    """A name that no other worker of the sweep has."""
    job, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{job}_{task}." if job and task else f"{socket.gethostname()}.{os.getpid()}."


def _place(cells: int) -> int:
    """Where in a queue this worker of many begins: by its number in the array, or anywhere."""
    first, last, mine = (os.environ.get(f"SLURM_ARRAY_TASK_{name}", "") for name in ("MIN", "MAX", "ID"))
    if first.isdecimal() and last.isdecimal() and mine.isdecimal():
        return cells * (int(mine) - int(first)) // (int(last) - int(first) + 1)
    return secrets.randbelow(max(1, cells))
