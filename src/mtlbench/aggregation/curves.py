"""A run's metrics.jsonl as one array of numbers."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PLAIN = ("epoch", "steps", "lr", "weights_sum", "seconds_per_step")
"""Numbers of a line."""

GROUPS = ("losses", "gradient_norms", "val", "test")
"""Mappings of a line to numbers. The column `losses:left` holds that of the task left; `val` and `test` alone are 1
in the epochs that were evaluated, 0 in the others."""


@dataclass(frozen=True)
class Curves:
    """names [K] of the columns, and values [epochs, K]: NaN for what is null or not there."""

    names: tuple[str, ...]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values)

    def column(self, name: str) -> NDArray[np.float64]:
        """One column [epochs]; NaN throughout for one that is not there."""
        place = places(self.names).get(name)
        return np.full(len(self.values), math.nan) if place is None else self.values[:, place]

    def metrics(self, split: str, names: Sequence[str]) -> NDArray[np.float64]:
        """The metrics of a split in the epochs that were evaluated [evaluations, len(names)]."""
        found = [places(self.names).get(f"{split}:{name}") for name in names]
        if None in found:
            return np.stack([self.column(f"{split}:{name}") for name in names], 1)[self.evaluated]
        return self.values[:, found][self.evaluated]

    @cached_property
    def evaluated(self) -> NDArray[np.bool_]:
        """Which epochs have metrics of the test part [epochs]."""
        return self.column("test") == 1

    @property
    def epochs(self) -> NDArray[np.float64]:
        """The numbers of the evaluated epochs [evaluations]."""
        return self.column("epoch")[self.evaluated]

    def has(self, split: str) -> bool:
        """Whether every evaluation has metrics of the split, test or val."""
        return bool(self.evaluated.any()) if split == "test" else self._validated

    @cached_property
    def _validated(self) -> bool:
        seen = self.evaluated
        return bool(seen.any() and (self.column("val")[seen] == 1).all())


@cache
def places(names: tuple[str, ...]) -> Mapping[str, int]:
    """Where each column is."""
    return {name: place for place, name in enumerate(names)}


EMPTY = Curves((), np.empty((0, 0)))


def read(path: Path) -> tuple[Curves, str]:
    """The lines of a metrics.jsonl, and a note on a last line that was cut off (or nothing).

    Raises ValueError for a line in the middle that is no JSON, and for one that is none of ours.
    """
    try:
        texts = path.read_bytes().splitlines()
    except FileNotFoundError:
        return EMPTY, ""
    note = ""
    try:
        lines = json.loads(b"[" + b",".join(texts) + b"]")
    except (json.JSONDecodeError, UnicodeDecodeError):
        lines, note = _one_by_one(path, texts)
    try:
        return _table(lines), note
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: a line is none of this program's ({type(error).__name__}: {error}).") from error


def _one_by_one(path: Path, texts: Sequence[bytes]) -> tuple[list[Any], str]:
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            lines.append(json.loads(text))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if number < len(texts):
                raise ValueError(f"{path}, line {number}: not JSON ({error}).") from error
            return lines, f"{path}: the last line was cut off and is dropped."
    return lines, ""


def _table(lines: Sequence[dict[str, Any]]) -> Curves:
    if not lines:
        return EMPTY
    names, parts = list(PLAIN), [_numbers([[line.get(key) for key in PLAIN] for line in lines])]
    assert PLAIN[0] == "epoch"
    if np.isnan(parts[0][:, 0]).any():
        raise KeyError("epoch")
    for group in GROUPS:
        found = [line.get(group) or {} for line in lines]
        keys = list(dict.fromkeys(key for one in found for key in one))
        names += [f"{group}:{key}" for key in keys]
        parts.append(_numbers([[one.get(key) for key in keys] for one in found]))
    found = [line.get("weights") or {} for line in lines]
    keys = list(dict.fromkeys(key for one in found for key in one))
    names += [f"weights:{key}" for key in keys]
    parts.append(_numbers([[(one.get(key) or {}).get("mean") for key in keys] for one in found]))
    names += ["val", "test"]
    parts.append(_numbers([[bool(line.get("val")), bool(line.get("test"))] for line in lines]))
    return Curves(tuple(names), np.concatenate(parts, 1))


def _numbers(rows: list[list[float | None]]) -> NDArray[np.float64]:
    """None becomes NaN."""
    return np.array(rows, float).reshape(len(rows), -1)
