"""The cells of a sweep: what its files say, and which run each cell is.

A sweep is a folder of Hydra configurations, each a product of axes (`hydra.sweeper.params`); its cells are those of
all of them. A cell is the command line of one run: everything that it says stands in `params`.
"""

import hashlib
import json
import os
import shlex
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mtlbench import composing
from mtlbench import config as configuration
from mtlbench.composing import Composer


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: what to type after `python -m mtlbench.train`, and the run's id."""

    id: str
    overrides: list[str]
    choices: dict[str, str]
    epochs: int


def files_of(folder: Path) -> list[Path]:
    """The configurations of a sweep. Raises ValueError where there is no sweep."""
    found = sorted(folder.glob("*.yaml"))
    if not found:
        known = sorted(str(path.parent) for path in folder.parent.glob("*/*.yaml"))
        there = f"There are: {', '.join(dict.fromkeys(known))}." if known else "A sweep is a folder of yaml files."
        raise ValueError(f"{folder}: no such sweep. {there}")
    return found


def expand(path: Path, overrides: Sequence[str] = ()) -> list[list[str]]:
    """The cells of one file as command lines, by Hydra's own rules; `overrides` replace axes or are added.

    Raises ValueError for what is no sweep, or says something outside of `hydra.sweeper.params`.
    """
    params = _params(path)
    words = [f"{key}={value}" for key, value in params.items()]
    try:
        parsed = OverridesParser.create().parse_overrides([*words, *overrides])
        return BasicSweeper.split_arguments(parsed, None)[0]
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"{path}: {error}") from error


def _params(path: Path) -> dict[str, Any]:
    text = path.read_text()
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, OmegaConfBaseException, OSError) as error:
        raise ValueError(f"{path}: not a yaml file ({str(error).splitlines()[0]}).") from error
    tree = tree if isinstance(tree, dict) else {}
    hydra = tree.pop("hydra", None) or {}
    defaults = [entry for entry in tree.pop("defaults", []) if not _of_hydra(entry)]
    if "# @package _global_" not in text or defaults != ["/train", "_self_"] or hydra.get("mode") != "MULTIRUN":
        raise ValueError(
            f"{path}: a sweep begins with `# @package _global_`, has the defaults [/train, _self_] and hydra.mode: "
            f"MULTIRUN (and, to be of use, hydra.sweeper.params)."
        )
    if tree:
        keys = ", ".join(map(str, tree))
        raise ValueError(f"{path}: put {keys} into hydra.sweeper.params: a cell is a command line.")
    params = (hydra.get("sweeper") or {}).get("params")
    if not isinstance(params, dict) or not params:
        raise ValueError(f"{path}: hydra.sweeper.params is empty; it maps keys to lists, as in method: equal,imtl.")
    for key, value in params.items():
        if value is None or isinstance(value, list | dict):
            raise ValueError(f'{path}: {key}: put {json.dumps(value)} in quotes, as in "[left],[right]" or "null".')
        if str(key).split(".")[0] == "machine":
            raise ValueError(f"{path}: {key} is the machine's, not the runs': type it after the sweep's folder.")
    return params


def _of_hydra(entry: Any) -> bool:
    return isinstance(entry, dict) and all(str(key).startswith("override /hydra/") for key in entry)


def cells(folder: Path, overrides: Sequence[str] = ()) -> list[Cell]:
    """All cells of a sweep with their ids, from the index beside the runs or composed (some ms each) and kept there.

    Raises ValueError for a wrong key or option (naming the cell) and for two cells that are one run.
    """
    folder = Path(folder)
    machine = [word for word in overrides if _of_machine(word)]
    rest = [word for word in overrides if word not in machine]
    files = files_of(folder)
    key = _key(files, rest)
    index = runs_of(overrides) / ".index" / f"{folder.resolve().name}.json"
    kept = _read_index(index)
    if kept.get("key") != key:
        lines = [(path, words) for path in files for words in expand(path, rest)]
        if len(lines) > 500:
            print(f"composing {len(lines)} cells, once: kept in {index}", file=sys.stderr, flush=True)
        composer = Composer()
        kept = {"key": key, "cells": [asdict(_compose(composer, path, words)) for path, words in lines]}
        _refuse_twins(kept["cells"])
        _write_index(index, kept)
    return [Cell(**{**cell, "overrides": [*cell["overrides"], *machine]}) for cell in kept["cells"]]


def labels(found: Sequence[Cell]) -> dict[str, str]:
    """What distinguishes each cell, by id: its overrides without those that all of them share."""
    count = Counter(word for cell in found for word in set(cell.overrides))
    own = {cell.id: [word for word in cell.overrides if count[word] < len(found)] for cell in found}
    return {cell.id: " ".join(own[cell.id] or cell.overrides) for cell in found}


def machine_of(overrides: Sequence[str] = ()) -> DictConfig:
    """The machine group, as the command line has it or conf/."""
    return configuration.load([word for word in overrides if _of_machine(word)]).machine


def runs_of(overrides: Sequence[str] = ()) -> Path:
    """The folder of the runs: machine.runs."""
    return Path(machine_of(overrides).runs)


def _of_machine(word: str) -> bool:
    return word.split(".")[0].split("=")[0] == "machine"


def _compose(composer: Composer, path: Path, words: list[str]) -> Cell:
    try:
        config, choices = composer(words)
        return Cell(configuration.run_id(config), words, choices, config.epochs)
    except (ValueError, OmegaConfBaseException) as error:
        raise ValueError(f"{path}, cell {shlex.join(words)}: {error}") from error


def _refuse_twins(found: Sequence[dict]) -> None:
    seen: dict[str, dict] = {}
    for cell in found:
        twin = seen.setdefault(cell["id"], cell)
        if twin is not cell:
            raise ValueError(
                f"two cells are one run ({cell['id']}): {shlex.join(twin['overrides'])} and "
                f"{shlex.join(cell['overrides'])}. Leave one of them out."
            )


def _key(files: Sequence[Path], overrides: Sequence[str]) -> str:
    """What the cells and their ids depend on, hashed: conf/, the sweep, the overrides, the rule of the id."""
    digest = hashlib.sha256(json.dumps(list(overrides)).encode())
    conf = sorted(configuration.CONF.rglob("*.yaml"))
    for path in (*conf, *files, Path(configuration.__file__), Path(composing.__file__)):
        name = path.relative_to(configuration.CONF).as_posix() if path in conf else path.name
        content = path.read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _read_index(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}


def _write_index(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(content))
        os.replace(partial, path)
    except OSError as error:
        warnings.warn(f"{path} cannot be written ({error.strerror}): the next call composes again.", stacklevel=3)
