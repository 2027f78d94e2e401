"""A run's folder, its state, its files. Reading needs no torch: only checkpoints import it, when they are used.

config.yaml               the whole resolved configuration
data.json                 the fingerprint of the data that the run was made from
claim.<n>.json            the process that runs it (claim.py); claim.<n>.released: the last one that did
metrics.jsonl             one line an epoch
checkpoint.pt             the state after the last save; checkpoint.previous.pt: after the one before
best.pt                   the model of the best epoch on validation data
error.txt                 why it failed (error.previous.txt: why it failed before it was started again)
record.json               the result: the run is done
"""

import errno
import json
import math
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from mtlbench.claim import Busy, Claim, Lost, holder

__all__ = ["Busy", "Done", "Lost", "Run", "load_state", "read_checkpoint", "read_lines", "read_record", "state_of"]

STATES = ("missing", "running", "interrupted", "failed", "done")


class Done(Exception):
    """The run is done; `.record` is its result."""

    def __init__(self, folder: Path, record: dict[str, Any]):
        super().__init__(f"{folder} is done.")
        self.folder, self.record = folder, record


def state_of(folder: Path) -> str:
    """missing, running, interrupted, failed or done, from the folder alone.

    A run with a live claim is running, even if an earlier attempt failed; a claim that is stale or given back,
    without record or error, is interrupted.
    """
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
        if "record.json" in names:
            return "done"
        if not names:
            return "missing"
        if holder(folder) is not None:
            return "running"
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    if (folder / "record.json").exists():  # it ended between the two looks
        return "done"
    return "failed" if (folder / "error.txt").exists() else "interrupted"


def read_record(folder: Path) -> dict[str, Any]:
    """The result of a run that is done. Raises ValueError where there is none, or none that can be read."""
    path = folder / "record.json"
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{folder} has no record.json: the run is {state_of(folder)}, not done.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}). Remove {folder} and run it again.") from error


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line that was cut off is dropped with a warning.

    Raises ValueError for a line in the middle that is not JSON: no crash of ours leaves that.
    """
    path = folder / "metrics.jsonl"
    try:
        texts = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            lines.append(json.loads(text))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if number < len(texts):
                raise ValueError(f"{path}, line {number}: not JSON ({error}).") from error
            warnings.warn(f"{path}: the last line was cut off and is dropped.", stacklevel=2)
    return lines


def epochs_done(folder: Path) -> int:
    """Whole lines of metrics.jsonl."""
    try:
        return (folder / "metrics.jsonl").read_bytes().count(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return 0


def load_state(path: Path) -> dict[str, Any]:
    """The state in a checkpoint file, on the CPU. Raises ValueError for a file that is cut off or damaged."""
    import torch

    try:
        with zipfile.ZipFile(path) as file:  # torch itself reads over flipped bits
            wrong = file.testzip()
        if wrong is not None:
            raise zipfile.BadZipFile(f"checksum of {wrong}")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise ValueError(f"{path} is broken ({str(error).splitlines()[0]}).") from error


def read_checkpoint(folder: Path, which: str = "last") -> dict[str, Any]:
    """The saved state of a run, "last" or "best". Raises ValueError where there is none that can be read.

    A broken checkpoint.pt is passed over, with a warning, for checkpoint.previous.pt where that is left.
    """
    names = {"last": ("checkpoint.pt", "checkpoint.previous.pt"), "best": ("best.pt",)}
    if which not in names:
        raise ValueError(f"checkpoint={which}: expected last or best.")
    broken = []
    for path in (folder / name for name in names[which]):
        if path.exists():
            if broken:
                warnings.warn(f"{broken[0]} {path.name} is read in its place.", stacklevel=2)
            try:
                return load_state(path)
            except ValueError as error:
                broken.append(str(error))
    there = sorted(path.name for path in folder.glob("*.pt")) or ["none"]
    raise ValueError(
        f"{folder}: no {which} checkpoint that can be read (there: {', '.join(there)}). {' '.join(broken)} "
        f"What a run leaves is chosen by keep=last, keep=best or keep=all."
    )


class Run:
    """A run that this process has claimed. As a context manager it gives the run back on leaving."""

    def __init__(self, folder: Path, claim: Claim):
        self.folder, self.id, self._claim = folder, folder.name, claim

    @classmethod
    def open(cls, runs: Path, id: str, config: dict, identity: dict, fingerprint: str) -> "Run":
        """Makes the folder `runs/id` or goes on in it, and claims it.

        Raises Done for a finished run, Busy for one that another live process has, and ValueError for a folder
        that cannot be written, of another configuration, or made from other data (in any state).
        """
        folder = Path(runs) / id
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _refuse(folder, config, identity, fingerprint)
            run = cls(folder, Claim(folder, {"fingerprint": fingerprint}))
        except (FileExistsError, NotADirectoryError) as error:
            file = next(path for path in (folder, *folder.parents) if path.is_file())
            raise ValueError(f"{file} is a file; a folder is expected there (machine.runs).") from error
        except OSError as error:
            raise ValueError(
                f"{folder} cannot be written: {error.strerror}. Set machine.runs to a folder of yours."
            ) from error
        try:
            _refuse(folder, config, identity, fingerprint)  # it may have ended before it was ours
            run._prepare(config, fingerprint)
        except BaseException:
            run.release()
            raise
        return run

    def _prepare(self, config: dict, fingerprint: str) -> None:
        """Puts the folder in order after whatever ended the attempt before."""
        for left in self.folder.glob("*.partial"):
            left.unlink()
        if not (self.folder / "config.yaml").exists():
            self._write("config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
        if not (self.folder / "data.json").exists():
            self._write("data.json", json.dumps({"fingerprint": fingerprint}))
        if (self.folder / "error.txt").exists():
            os.replace(self.folder / "error.txt", self.folder / "error.previous.txt")
        metrics = self.folder / "metrics.jsonl"
        if metrics.exists() and not metrics.read_bytes().endswith(b"\n"):
            self.keep_lines(len(self.lines()))

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()

    def check(self) -> None:
        """Raises Lost if the run is no longer this process's."""
        self._claim.check()

    def release(self) -> None:
        """Gives the run back: without record or error it is interrupted. Does nothing the second time."""
        self._claim.give_back()

    # metrics.jsonl

    def append(self, line: dict[str, Any]) -> None:
        """Adds one line to metrics.jsonl, on the disk when this returns; what is not finite becomes null."""
        self.check()
        path = self.folder / "metrics.jsonl"
        text = json.dumps(finite(line), allow_nan=False) + "\n"
        with open(path, "ab", buffering=0) as file:
            before = file.tell()
            try:
                _write_all(file, text.encode())
                os.fsync(file.fileno())
            except OSError as error:
                os.truncate(path, before)
                raise _no_room(error, path, "The lines before are kept.") from error

    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        return read_lines(self.folder)

    def keep_lines(self, number: int) -> None:
        """Leaves the first `number` lines of metrics.jsonl: those of the epochs that the checkpoint holds."""
        lines = self.lines()
        assert number <= len(lines), f"{self.folder}: {len(lines)} lines, {number} to keep"
        self._write("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines[:number]))

    # checkpoints

    def save(self, state: dict[str, Any]) -> None:
        """Writes checkpoint.pt; the one before becomes checkpoint.previous.pt. A failing disk leaves both."""
        partial = self._save_beside("checkpoint.pt", state)
        path = self.folder / "checkpoint.pt"
        if path.exists():
            os.replace(path, self.folder / "checkpoint.previous.pt")
        os.replace(partial, path)
        _sync(self.folder)

    def save_best(self, state: dict[str, Any]) -> None:
        """Writes best.pt in place of the one before."""
        os.replace(self._save_beside("best.pt", state), self.folder / "best.pt")
        _sync(self.folder)

    def load(self) -> dict[str, Any] | None:
        """The last saved state, on the CPU; None where nothing was saved.

        A broken checkpoint.pt is set aside as checkpoint.broken.pt with a warning, and checkpoint.previous.pt is
        read; if that is broken too, the warnings say so and the run starts from the beginning.
        """
        self.check()
        for name, then in (
            ("checkpoint.pt", "The run goes on from the checkpoint before, if there is one."),
            ("checkpoint.previous.pt", "The run starts from the beginning."),
        ):
            path = self.folder / name
            if path.exists():
                try:
                    return load_state(path)
                except ValueError as error:
                    warnings.warn(f"{error} {then}", stacklevel=2)
                    os.replace(path, self.folder / "checkpoint.broken.pt")  # never rotated over a good one
        return None

    def tidy(self, keep: str) -> None:
        """Leaves the checkpoints that `keep` names: last, best (last where there is no best) or all.

        Called after `finish`: before, a kill would cost the run its place.
        """
        assert keep in ("last", "best", "all"), keep
        best = self.folder / "best.pt"
        leave = {"last": ["checkpoint.pt"], "best": ["best.pt"] if best.exists() else ["checkpoint.pt"]}
        if keep in leave:
            self._check_unless_done()
            for path in self.folder.glob("*.pt"):
                if path.name not in leave[keep]:
                    path.unlink()

    def _save_beside(self, name: str, state: dict[str, Any]) -> Path:
        import torch

        self.check()
        partial = self.folder / f"{name}.partial"
        raised: list[OSError] = []  # torch hides the disk's error behind its own
        try:
            with open(partial, "wb", buffering=0) as file:
                torch.save(state, _Keeping(file, raised))
                os.fsync(file.fileno())
            self.check()
        except BaseException as error:
            partial.unlink(missing_ok=True)
            cause = raised[0] if raised else error
            if isinstance(cause, OSError):
                kept = "The checkpoint before is kept" if (self.folder / name).exists() else "None was written before"
                raise _no_room(cause, self.folder / name, f"{kept}; the same command goes on from it.") from error
            raise
        return partial

    # how it ends

    def finish(self, record: dict[str, Any]) -> None:
        """Writes record.json, the run is done, and gives it back."""
        self._write("record.json", json.dumps(finite(record), indent=1, allow_nan=False) + "\n")
        self.release()

    def fail(self, text: str) -> None:
        """Writes error.txt and gives the run back; warns where even that cannot be written."""
        try:
            self._write("error.txt", text if text.endswith("\n") else text + "\n")
        except (OSError, Lost) as error:
            warnings.warn(f"{self.folder}: error.txt could not be written: {error}", stacklevel=2)
        self.release()

    def _check_unless_done(self) -> None:
        if not (self.folder / "record.json").exists():
            self.check()

    def _write(self, name: str, text: str) -> None:
        """Writes a small file as a whole: beside, synced, renamed."""
        self.check()
        partial, path = self.folder / f"{name}.partial", self.folder / name
        try:
            with open(partial, "wb", buffering=0) as file:
                _write_all(file, text.encode())
                os.fsync(file.fileno())
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise _no_room(error, path, "What was there is kept.") from error
        self.check()
        os.replace(partial, path)
        _sync(self.folder)


def finite(value: Any) -> Any:
    """The value with null for every number that is not finite, which JSON cannot say."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


def _refuse(folder: Path, config: dict, identity: dict, fingerprint: str) -> None:
    """Raises ValueError for a folder of other data or another configuration, Done for a finished run."""
    state = state_of(folder)
    record = read_record(folder) if state == "done" else None
    data = folder / "data.json"
    found = json.loads(data.read_text())["fingerprint"] if data.exists() else (record or {}).get("fingerprint")
    if found is not None and found != fingerprint:
        raise ValueError(
            f"{folder} ({state}) was made from other data: {found} there, {fingerprint} here. "
            f"Set machine.data to the data of that run, or machine.runs to another folder for this data, "
            f"or remove {folder}."
        )
    path = folder / "config.yaml"
    if path.exists():
        try:
            there = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is damaged ({error}). Remove {folder} and run it again.") from error
        there = there if isinstance(there, dict) else {}
        different = list(_differences(there, config, identity, top=True))
        if different:
            raise ValueError(
                f"{folder} belongs to another configuration than {folder.name}: {'; '.join(different[:5])}. "
                f"The folder was renamed or its config.yaml edited: move it away, or set machine.runs."
            )
    if record is not None:
        raise Done(folder, record)


def _differences(there: Mapping, here: Mapping, identity: Mapping, where: str = "", top: bool = False) -> Iterator[str]:
    """What differs in the parts of two configurations that are a run's identity, as sentences.

    A key that is not in the identity (machine, logger, or one added later, at its default) may be missing.
    """
    for key in sorted({*there, *here}, key=str):
        a, b, name = there.get(key, "nothing"), here.get(key, "nothing"), f"{where}{key}"
        if key not in identity and key in here and (top or key not in there):
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from _differences(a, b, identity.get(key, b), f"{name}.")
        elif json.dumps(a) != json.dumps(b):
            yield f"{name} is {a} there, {b} here"


class _Keeping:
    """A file for torch.save that remembers the error of a write."""

    def __init__(self, file: Any, raised: list[OSError]):
        self._file, self._raised = file, raised

    def write(self, data: Any) -> int:
        try:
            return _write_all(self._file, data)
        except OSError as error:
            self._raised.append(error)
            raise

    def flush(self) -> None:
        self._file.flush()


def _write_all(file: Any, data: Any) -> int:
    """Writes every byte: a raw file may take fewer than it is given."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
    return len(data)


def _no_room(error: OSError, path: Path, kept: str) -> OSError:
    free = " Make room there." if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return OSError(error.errno, f"{error.strerror}: {path}. {kept}{free}")


def _sync(folder: Path) -> None:
    """Makes renames last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
