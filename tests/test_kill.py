"""kill -9 in a process of its own, at a random step, and the same command again: the same bits, for each kind of state
that a method has."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from drill import build
from mtlbench import config
from mtlbench.weighting import overrides
from test_train import lines, only, run, start

pytestmark = pytest.mark.slow

EPOCHS = 4


def kinds() -> dict[str, str]:
    """{kind of state: a method that has it}, over all of conf/method."""
    found: dict[str, str] = {}
    for name in config.options("method"):
        method = build(name)
        extra = any(type(part).get_extra_state is not nn.Module.get_extra_state for part in method.modules())
        has = {
            "parameters": any(True for _ in method.parameters()),
            "buffers": any(True for _ in method.buffers()),
            "extra state": extra,
            "after_step": overrides(method, "after_step"),
            "after_epoch": overrides(method, "after_epoch"),
        }
        kind = ", ".join(what for what, there in has.items() if there)
        if kind:
            found.setdefault(kind, name)
    return found


RUNS = {kind: [f"method={name}"] for kind, name in kinds().items()} | {
    "epochs before": ["method=dwa"],
    "phases of epochs": ["method=lsb"],
    "the last solution": ["method=nash_mtl", "method.update_weights_every=3"],
}


def tensors(node: Any, place: str = "") -> dict[str, Any]:
    """The leaves of a nested state by path."""
    if isinstance(node, dict):
        return {k: v for key, value in node.items() for k, v in tensors(value, f"{place}/{key}").items()}
    if isinstance(node, list | tuple):
        return {k: v for i, value in enumerate(node) for k, v in tensors(value, f"{place}/{i}").items()}
    return {place: node}


def state(folder: Path) -> dict[str, Any]:
    """The parts of the last checkpoint that training goes on from."""
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    return tensors({part: saved[part] for part in ("model", "method", "optimizer")})


def kill_in_mid_epoch(words: Sequence[str], runs: Path, epochs_before: int, wait: float) -> Path:
    """A run, killed some steps after an epoch; its checkpoint is written after every step."""
    process = start(*words, f"epochs={EPOCHS}", "machine.checkpoint_minutes=0", runs=runs)
    while sum(path.read_text().count("\n") for path in runs.glob("*/metrics.jsonl")) < epochs_before:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    time.sleep(wait)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    folder = only(runs)
    assert not (folder / "record.json").exists()
    # killed while one checkpoint takes the other's place, there is only the one before
    name = next(n for n in ("checkpoint.pt", "checkpoint.previous.pt") if (folder / n).exists())
    saved = torch.load(folder / name, weights_only=True)
    assert epochs_before <= saved["epoch"] < EPOCHS
    return folder


@pytest.mark.parametrize("kind", RUNS)
def test_killed_and_started_again_it_comes_to_the_same_bits(kind: str, tmp_path: Path):
    words, number = RUNS[kind], list(RUNS).index(kind)
    run(*words, f"epochs={EPOCHS}", runs=tmp_path / "whole")
    folder = kill_in_mid_epoch(words, tmp_path / "killed", epochs_before=1 + number % 2, wait=0.05 * (1 + number % 3))
    run(*words, f"epochs={EPOCHS}", runs=tmp_path / "killed")
    whole = only(tmp_path / "whole")
    assert whole.name == folder.name
    assert lines(folder) == lines(whole)
    one, other = state(folder), state(whole)
    assert one.keys() == other.keys()
    for place, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other[place]), place
        else:
            assert value == other[place], place
