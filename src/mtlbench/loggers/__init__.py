"""Sinks beside metrics.jsonl. A run never needs one, and what is in a record never comes from one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class Logger(ABC):
    """Follows one run. `start` comes first, `line` after each epoch, `finish` last; in rank 0 alone."""

    @abstractmethod
    def start(self, folder: Path, run_id: str, config: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> None:
        """folder: the run's. config: the run's identity. lines: of metrics.jsonl so far, for a run that goes on."""

    @abstractmethod
    def line(self, line: Mapping[str, Any]) -> None:
        """One epoch, as written to metrics.jsonl."""

    @abstractmethod
    def finish(self, record: Mapping[str, Any] | None) -> None:
        """The run's record, or None for a run that was stopped or failed before it had one."""


def flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    """{"val": {"left/accuracy": 97.0}, "cosines": None} to {"val/left/accuracy": 97.0}: None is left out."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}/{inner}": v for inner, v in flatten(value).items()})
        elif value is not None:
            flat[str(key)] = value
    return flat
