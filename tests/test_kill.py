"""kill -9 in a process of its own, at a random step, and the same command again: the same bits, for each kind of state
that a method has."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from test_train import lines, only, run, start

pytestmark = pytest.mark.slow

KINDS = {
    # a kind of state: the options that have it
    "weights learned by an optimizer of its own": ("method=gradnorm",),
    "logits learned from the losses after the step": ("method=famo",),
    "losses of the epochs before": ("method=dwa",),
    "phases of epochs": ("method=lsb",),
    "indicators": ("method=dtp",),
    "the last solution, for some steps": ("method=nash_mtl", "method.update_every=3"),
    "averages of cosines": ("method=gradvac",),
    "parameters of the run's optimizer": ("method=uncertainty",),
    "of a composition": ("method=hybrid", "method@method.loss=imtl_l", "method@method.gradient=gradvac"),
}
EPOCHS = 4


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


def kill_in_mid_epoch(words: tuple[str, ...], runs: Path, epochs_before: int, wait: float) -> Path:
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
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert epochs_before <= saved["epoch"] < EPOCHS
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_killed_and_started_again_it_comes_to_the_same_bits(kind: str, tmp_path: Path):
    words, number = KINDS[kind], list(KINDS).index(kind)
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
