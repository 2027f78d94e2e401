"""Other libraries' training steps on our network and batch: which there are, and the lines that name them.

A line is "LIBRARY METHOD key=value ...", the method and most keys in the library's own words:

    torchjd MGDA level=feature
    torchjd UPGrad level=parameter parallel_chunk_size=1
    libmtl PCGrad level=parameter

A library's name alone stands for all its `LINES`.
"""

import importlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, ClassVar

import yaml
from omegaconf import DictConfig

from mtlbench.benchmarks.training import Training
from mtlbench.parallel import Ranks

CLASSES = {"torchjd": "mtlbench.benchmarks.torchjd.TorchJD", "libmtl": "mtlbench.benchmarks.libmtl.LibMTL"}


class Peer(Training):
    """One method of another library, differentiated and weighted by its own code.

    PACKAGE: its name on PyPI. OPTIONS: keys of a line besides level. LINES: what the library's name alone stands for.
    Constructed with config, ranks, the method's name, level (None: the method's own) and a line's options; raises
    ValueError, or whatever the library raises, where the method cannot be had so.
    """

    PACKAGE: ClassVar[str]
    OPTIONS: ClassVar[Sequence[str]]
    LINES: ClassVar[Sequence[str]]

    @classmethod
    @abstractmethod
    def load(cls) -> None:
        """Imports the library. Raises ImportError where it is not installed."""


@dataclass(frozen=True)
class Line:
    """A line, read. level is None where the line leaves it to the method."""

    kind: type[Peer]
    method: str
    level: str | None
    options: dict[str, Any]
    text: str

    @property
    def who(self) -> str:
        """The library and its version: "torchjd 0.18.0"."""
        try:
            return f"{self.kind.PACKAGE} {metadata.version(self.kind.PACKAGE)}"
        except metadata.PackageNotFoundError:
            return self.kind.PACKAGE

    @property
    def what(self) -> str:
        """The line without the library."""
        return self.text.partition(" ")[2]

    def loaded(self, config: DictConfig, ranks: Ranks) -> Peer:
        """Its training. Raises ValueError where the library is not installed, and what the library raises."""
        try:
            self.kind.load()
        except ImportError as error:
            raise ValueError(
                f"{self.kind.PACKAGE} cannot be imported ({error}). Type: pip install 'mtlbench[peers]'"
            ) from error
        return self.kind(config, ranks, self.method, self.level, **self.options)


def read(text: str) -> Line:
    """Raises ValueError with what exists for a library, a level or a key that does not."""
    library, method, *pairs = [*text.split(), ""][:2] + text.split()[2:]
    kind = kind_of(library)
    if not method or not all("=" in pair for pair in pairs):
        raise ValueError(f"peers: expected '{library} METHOD key=value ...', found '{text}'.")
    options = {key: yaml.safe_load(value) for key, _, value in (pair.partition("=") for pair in pairs)}
    level = options.pop("level", None)
    unknown = [key for key in options if key not in kind.OPTIONS]
    if unknown:
        raise ValueError(f"peers: {unknown[0]} in '{text}' is no key. There are: level, {', '.join(kind.OPTIONS)}.")
    if level not in (None, "feature", "parameter"):
        raise ValueError(f"peers: level={level} in '{text}': expected feature or parameter, or no level.")
    return Line(kind, method, level, options, text)


def kind_of(library: str) -> type[Peer]:
    if library not in CLASSES:
        raise ValueError(f"peers: there is no library {library}. There are: {', '.join(CLASSES)}.")
    module, _, name = CLASSES[library].rpartition(".")
    return getattr(importlib.import_module(module), name)


def lines(peers: Sequence[str]) -> list[Line]:
    """All lines, a library's name alone as its `LINES`. Raises ValueError as `read` does."""
    found: list[str] = []
    for text in peers:
        found += [f"{text} {line}" for line in kind_of(text).LINES] if text in CLASSES else [" ".join(text.split())]
    return [read(text) for text in found]
