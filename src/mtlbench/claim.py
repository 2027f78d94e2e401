"""Who runs a run: one process at a time, among all hosts that share the folder.

A claim is a file `claim.<n>.json`, made with O_EXCL; the highest number counts. A claim that is stale or given
back is taken over by making the next number, which exactly one process can: unlike a rename of the stale file,
it cannot hit the new claim of a faster process. Numbers are never used again while the run is unfinished.
"""

import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEAT = 30.0
"""Seconds between two signs of life (the claim's modification time)."""

SILENCE = 300.0
"""Seconds without a sign of life after which a claim is stale, by the clock of the file system."""

_NAME = re.compile(r"claim\.(\d+)\.(json|released)")


class Busy(Exception):
    """Another live process has the run; `.holder` is its claim."""

    def __init__(self, folder: Path, holder: Mapping[str, Any]):
        who = f"process {holder['pid']} on {holder['host']}, since {holder['start']}" if holder else "a process"
        super().__init__(f"{folder} is being run by {who}. Wait for it, or stop it; its work is kept.")
        self.holder = dict(holder)


class Lost(Exception):
    """The run belongs to another process now: this one was silent for too long, or its folder was removed."""


def process_start(pid: int) -> int | None:
    """When a process of this host began, in clock ticks since the host's start; None: no such process (or dead)."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else int(fields[18])


def place() -> str:
    """Where process ids mean the same processes: the running system and its process namespace ("" off Linux)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def newest(folder: Path) -> Path | None:
    """The claim that counts, alive or not; None where there is none."""
    found = [(int(match[1]), name) for name in os.listdir(folder) if (match := _NAME.fullmatch(name))]
    return folder / max(found)[1] if found else None


def read(path: Path) -> dict[str, Any]:
    """What a claim says; empty for one that is just being written."""
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError:
        return {}


def file_system_time(folder: Path) -> float:
    """Now, by the clock that dates the folder's files; this host's own clock where the folder is read-only."""
    probe = folder / f".probe-{secrets.token_hex(8)}"
    try:
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
    except OSError:
        return time.time()
    return now


def holder(folder: Path) -> dict[str, Any] | None:
    """The claim of the live process that runs the run (empty while it is being written); None: nobody runs it."""
    path = newest(folder)
    if path is None or path.suffix == ".released":
        return None
    try:
        claim, beat = read(path), path.stat().st_mtime
    except FileNotFoundError:  # given back or taken over this moment
        return holder(folder)
    if claim and _earlier_start_of_this_job(claim):
        return None
    here = place()
    if claim and here and claim["place"] == here and process_start(claim["pid"]) != claim["process_start"]:
        return None
    return claim if file_system_time(folder) - beat < SILENCE else None


def _slurm() -> dict[str, Any]:
    """The Slurm job that this process belongs to, and how often it was started before; empty without one."""
    names = {"cluster": "SLURM_CLUSTER_NAME", "job": "SLURM_JOB_ID"}
    if "SLURM_JOB_ID" not in os.environ:
        return {}
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    return {**{key: os.environ.get(name) for key, name in names.items()}, "restarts": restarts}


def _earlier_start_of_this_job(claim: Mapping[str, Any]) -> bool:
    """Slurm starts a job again, maybe on another host, only when all of its processes have ended."""
    now, then = _slurm(), claim.get("slurm") or {}
    same = bool(now) and all(now[key] == then.get(key) for key in ("cluster", "job"))
    return same and then["restarts"] < now["restarts"]


def _fill(descriptor: int, text: str) -> None:
    with open(descriptor, "w") as file:
        file.write(text)


class Claim:
    """This process's claim on a run's folder, kept alive by a thread."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]):
        """Takes the run; `facts` are kept in the claim. Raises Busy where another live process has it."""
        self.folder = folder
        self.token = secrets.token_hex(16)
        self.path = self._take(facts)
        for name in os.listdir(folder):
            match = _NAME.fullmatch(name)
            if match and int(match[1]) < self.number:
                (folder / name).unlink(missing_ok=True)
        self._stop = threading.Event()
        threading.Thread(target=self._beat, daemon=True, name=f"claim {folder.name}").start()

    @property
    def number(self) -> int:
        match = _NAME.fullmatch(self.path.name)
        assert match
        return int(match[1])

    def _take(self, facts: Mapping[str, Any]) -> Path:
        text = json.dumps(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "process_start": process_start(os.getpid()),
                "place": place(),
                "start": time.strftime("%Y-%m-%d %H:%M:%S %z"),
                "slurm": _slurm(),
                "token": self.token,
                **facts,
            },
            indent=1,
        )
        while True:
            old = newest(self.folder)
            other = holder(self.folder)
            if other is not None:
                raise Busy(self.folder, other)
            match = _NAME.fullmatch(old.name) if old else None
            mine = self.folder / f"claim.{int(match[1]) + 1 if match else 0}.json"
            try:
                descriptor = os.open(mine, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                continue  # another process was faster: look at its claim
            try:
                _fill(descriptor, text)
            except OSError:  # a full disk: leave no claim that looks alive
                os.rename(mine, mine.with_suffix(".released"))
                raise
            if newest(self.folder) == mine:
                return mine
            mine.unlink()  # a number between, freed by the holder of a later one

    def check(self) -> None:
        """Raises Lost unless the run is still this process's."""
        try:
            path = newest(self.folder)
            ours = path == self.path and read(self.path).get("token") == self.token
        except FileNotFoundError:
            ours = False
        if not ours:
            raise Lost(f"{self.folder} was taken over by another process, or removed; this one writes nothing more.")

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            try:
                self.check()
                os.utime(self.path)
            except Lost:
                return
            except OSError:  # a file server's hiccup: silence is what tells the others
                continue

    def give_back(self) -> None:
        """Ends the claim and leaves its mark, `claim.<n>.released`; nothing where the run is another's."""
        self._stop.set()
        try:
            self.check()
            os.rename(self.path, self.path.with_suffix(".released"))
        except (Lost, FileNotFoundError):
            return
