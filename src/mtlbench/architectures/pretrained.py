"""Columns that start from single-task runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

SHOWN = 3


def load_columns(model: nn.Module, pretrained: Mapping[str, str]) -> None:
    """Loads "backbone_<task>" and "head_<task>" of a model from runs of multi_decoder with that task.

    pretrained: {task: a run's folder, of which best.pt is read, or checkpoint.pt without it; or such a file}.
    Raises ValueError for another task, a file that is not there or is none, and for weights of another network.
    """
    for task, source in pretrained.items():
        if task not in model.tasks:
            raise ValueError(
                f"architecture.pretrained.{task}: there is no such task. There are: {', '.join(model.tasks)}."
            )
        state = _weights(task, Path(source))
        for part, prefix in (("backbone", "backbone."), (f"head_{task}", f"head_{task}.")):
            own = model.get_submodule(part if part.startswith("head_") else f"backbone_{task}")
            given = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            _check(task, source, part, own.state_dict(), given)
            own.load_state_dict(given)


def _weights(task: str, path: Path) -> dict[str, torch.Tensor]:
    files = [path / "best.pt", path / "checkpoint.pt"] if path.is_dir() else [path]
    file = next((f for f in files if f.is_file()), None)
    if file is None:
        raise ValueError(
            f"architecture.pretrained.{task}={path}: there is no {' or '.join(f.name for f in files)}. Expected the "
            f"folder of a finished single-task run (runs/<id>, started with keep=best or keep=last), or its checkpoint."
        )
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zip and pickle each raise their own
        raise ValueError(
            f"architecture.pretrained.{task}={path}: {file.name} cannot be read ({type(error).__name__}). Expected the "
            f"checkpoint of a run."
        ) from error
    weights = state.get("model") if isinstance(state, dict) else None
    if not isinstance(weights, dict):
        raise ValueError(f"architecture.pretrained.{task}={path}: {file.name} is no checkpoint of a run.")
    return weights


def _check(task: str, source: str, part: str, expected: dict, found: dict) -> None:
    problems = {
        "missing": [key for key in expected if key not in found],
        "unexpected": [key for key in found if key not in expected],
        "of another shape": [k for k, v in expected.items() if k in found and found[k].shape != v.shape],
    }
    listed = [
        f"{len(keys)} {kind}: {', '.join(keys[:SHOWN])}{', ...' if len(keys) > SHOWN else ''}"
        for kind, keys in problems.items()
        if keys
    ]
    if listed:
        raise ValueError(
            f"architecture.pretrained.{task}={source}: not this network's {part} ({'; '.join(listed)}). What fits is a "
            f"run with architecture=multi_decoder, the same backbone= and head=, and this task."
        )
