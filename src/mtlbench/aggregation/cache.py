"""What was read of the runs of a sweep, kept beside them: only ever a cache, without it the same comes out slower.

<runs>/.index/<sweep>.read.json   what each run's record says, and where its numbers lie
<runs>/.index/<sweep>.read.f64    the numbers, one run after the other, behind a name that both files share
A run whose files have another size, time or number on the disk is read again; a cache that another version of this
package wrote, or that is not whole, is not used.
"""

import contextlib
import hashlib
import json
import os
import secrets
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtlbench import record
from mtlbench.aggregation import curves
from mtlbench.aggregation.curves import Curves

MANY = 200
"""Runs from which on several processes read."""

NAME = 16
"""Bytes before the numbers."""


@dataclass
class Read:
    """What was read of one finished run. problem: why its record cannot be used, or its lines (`lines_problem`)."""

    signature: list[int]
    record: dict[str, Any] | None
    curves: Curves
    problem: str = ""
    lines_problem: str = ""
    note: str = ""


def signature(folder: Path) -> list[int] | None:
    """What changes when the run's files do; None for a run without record."""
    try:
        facts = [os.stat(folder / "record.json")]
    except (FileNotFoundError, NotADirectoryError):
        return None
    with contextlib.suppress(FileNotFoundError):
        facts.append(os.stat(folder / "metrics.jsonl"))
    return [number for fact in facts for number in (fact.st_size, fact.st_mtime_ns, fact.st_ino)]


def read_all(signatures: Mapping[str, list[int]], runs: Path, name: str) -> dict[str, Read]:
    """Every run with a signature, by id: from the cache of the sweep `name` or read, several at a time."""
    index, numbers = runs / ".index" / f"{name}.read.json", runs / ".index" / f"{name}.read.f64"
    kept = _load(index, numbers)
    known = {id: entry for id, entry in kept.items() if signatures.get(id) == entry.signature}
    missing = sorted(id for id in signatures if id not in known)
    work = [(runs / id, signatures[id]) for id in missing]
    if len(work) < MANY:
        fresh = [_read(*one) for one in work]
    else:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with ProcessPoolExecutor(min(8, cores)) as pool:
            fresh = list(pool.map(_read, *zip(*work, strict=True), chunksize=20))
    known.update(zip(missing, fresh, strict=True))
    if missing or len(known) < len(kept):
        _save(index, numbers, known)
    return known


def _read(folder: Path, found: list[int]) -> Read:
    result = Read(found, None, curves.EMPTY)
    try:
        result.record = record.read_record(folder)
    except ValueError as error:
        result.problem = str(error)
        return result
    try:
        result.curves, result.note = curves.read(folder / "metrics.jsonl")
    except ValueError as error:
        result.lines_problem = str(error)
    return result


def _version() -> str:
    files = [Path(__file__), Path(curves.__file__), Path(record.__file__)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def _load(index: Path, numbers: Path) -> dict[str, Read]:
    try:
        kept = json.loads(index.read_text())
        if kept["version"] != _version() or numbers.stat().st_size != NAME + 8 * kept["size"]:
            return {}
        with open(numbers, "rb") as file:
            if file.read(NAME) != kept["name"].encode():
                return {}
        mapped = np.memmap(numbers, "<f8", "r", NAME, (kept["size"],)) if kept["size"] else np.empty(0)
        data = mapped.view(np.ndarray)
        return {id: _entry(entry, kept["columns"], data) for id, entry in kept["runs"].items()}
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, IndexError, ValueError):
        return {}


def _entry(entry: Mapping[str, Any], columns: Sequence[Sequence[str]], data: np.ndarray) -> Read:
    names = tuple(columns[entry["columns"]])
    begin, epochs = entry["begin"], entry["epochs"]
    values = data[begin : begin + epochs * len(names)].reshape(epochs, len(names))
    texts = {key: entry[key] for key in ("problem", "lines_problem", "note")}
    return Read(entry["signature"], entry["record"], Curves(names, values), **texts)


def _save(index: Path, numbers: Path, known: Mapping[str, Read]) -> None:
    columns: dict[tuple[str, ...], int] = {}
    entries, place = {}, 0
    name = secrets.token_hex(NAME // 2)
    partial = [path.with_suffix(f"{path.suffix}.{os.getpid()}.partial") for path in (index, numbers)]
    try:
        index.parent.mkdir(parents=True, exist_ok=True)
        with open(partial[1], "wb") as file:
            file.write(name.encode())
            for id, one in sorted(known.items()):
                file.write(np.ascontiguousarray(one.curves.values, "<f8").tobytes())
                entries[id] = {
                    "signature": one.signature,
                    "record": one.record,
                    "columns": columns.setdefault(one.curves.names, len(columns)),
                    "begin": place,
                    "epochs": len(one.curves),
                    "problem": one.problem,
                    "lines_problem": one.lines_problem,
                    "note": one.note,
                }
                place += one.curves.values.size
        kept = {"version": _version(), "name": name, "size": place, "columns": list(columns), "runs": entries}
        partial[0].write_text(json.dumps(kept))
        os.replace(partial[1], numbers)
        os.replace(partial[0], index)
    except OSError as error:
        warnings.warn(f"{index} cannot be written ({error.strerror}): the next call reads again.", stacklevel=3)
        for path in partial:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
