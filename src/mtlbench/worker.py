"""A process that runs the cells it is sent one after another, so that imports are paid once."""

import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import FrameType

from mtlbench import config as configuration


@dataclass(frozen=True)
class Answer:
    """How a cell ended: "done", "busy", "interrupted" or "failed", and why; `last`: the worker ends with it."""

    state: str
    reason: str = ""
    last: bool = False


class _Signals:
    """A signal that comes outside of a training loop is sent again until the loop has noted it."""

    def __init__(self) -> None:
        self.stopped = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        again = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
        again.daemon = True
        again.start()


def work(pipe: Connection, log: str, gpu: str | None) -> None:
    """A worker's life: command lines come in, an Answer each goes out; what the cells print, to the file `log`.

    gpu: the only one that it sees; None leaves the environment's.
    """
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.update({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"})  # a task of srun is no rank of a cell
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    signals = _Signals()
    while not signals.stopped:
        try:
            overrides = pipe.recv()
        except (EOFError, ConnectionResetError):  # the parent has no more cells, or is gone
            return
        print(f"\n$ {' '.join(overrides)}", flush=True)
        answer = Answer("interrupted") if signals.stopped else _one(overrides)
        try:
            pipe.send(answer)
        except BrokenPipeError:
            return
        if answer.last:
            return
        gc.collect()  # the network of this cell, before that of the next


def _one(overrides: Sequence[str]) -> Answer:
    """One cell. Whatever goes wrong in it is its own: the next cell is not concerned."""
    from mtlbench.train import train

    try:
        return Answer(train(*configuration.load_run(overrides)))
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        users = isinstance(error, ValueError)
        kind = "" if users else f"{type(error).__name__}: "
        return Answer("failed", kind + " ".join(str(error).split()), last=not users and _gpu_in_use())


def _gpu_in_use() -> bool:
    """A failed kernel spoils CUDA for the rest of the process."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
