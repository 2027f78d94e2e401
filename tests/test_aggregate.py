"""The command that turns run folders into tables: generated folders in, text out."""

import csv
import functools
import io
import json
import math
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mtlbench import aggregate, config, gather, presentation, stats, tables
from mtlbench.comparison import compare

METRICS = {
    "left/accuracy": {"higher_is_better": True, "unit": "%", "primary": True},
    "right/error": {"higher_is_better": False, "unit": "", "primary": True},
}


@dataclass(frozen=True)
class ACell:
    id: str
    overrides: list[str]


@functools.cache
def composed(overrides):
    loaded, choices = config.load_run(list(overrides))
    return json.dumps(config.identity(loaded)), choices


class Folder:
    """Run folders as training leaves them, and the list of cells of their sweep."""

    def __init__(self, path):
        self.path, self.cells = path, []

    def cell(self, *overrides, seed=0):
        """A cell without a folder: missing."""
        text, choices = composed(overrides)
        identity = {**json.loads(text), "seed": seed}
        cell = ACell(f"{len(self.cells):02x}cell", [*overrides, f"seed={seed}"])
        self.cells.append(cell)
        return cell, identity, choices

    def run(self, *overrides, seed=0, test=None, epochs=None, val=None, seconds=0.5, weights_sum=2.0, **record):
        """A finished run: `test` is the last epoch's {metric: value}, or `epochs` a list of them."""
        cell, identity, choices = self.cell(*overrides, seed=seed)
        epochs = epochs or [test]
        lines = [
            {"epoch": i, "weights_sum": weights_sum, "test": values, "val": val[i] if val else values}
            for i, values in enumerate(epochs)
        ]
        names = [name for name in METRICS if any(name in (values or {}) for values in epochs)]
        entry = {
            "run": cell.id,
            "config": identity,
            "choices": choices,
            "method": choices["method"],
            "tasks": [name.partition("/")[0] for name in names],
            "metrics": {name: METRICS[name] for name in names},
            "synthetic": False,
            "fingerprint": "abc",
            "git": {"commit": "c0ffee", "dirty": False},
            "source_hash": "5a5a",
            "method_hash": "1234",
            "versions": {"torch": "2.9.0"},
            "device": "cpu",
            "world_size": 1,
            "threads": 1,
            "diverged": None,
            "epochs": len(lines),
            "seconds_per_step": seconds,
        }
        folder = self.path / cell.id
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / "record.json").write_text(json.dumps({**entry, **record}))
        return folder

    def singles(self, seeds=(0, 1, 2), **record):
        for seed in seeds:
            self.run("dataset.tasks=[left]", seed=seed, test={"left/accuracy": 80.0 + seed}, seconds=0.4, **record)
            self.run("dataset.tasks=[right]", seed=seed, test={"right/error": 0.2}, seconds=0.4, **record)

    def aggregate(self, tmp_path, out="results", **keys):
        """The files that the command writes, by name."""
        overrides = [f"machine.runs={self.path}"]
        sweep = str(tmp_path / "sweeps" / "tiny")
        keys.setdefault("cells", self.cells)
        _, folder = aggregate.aggregate(sweep, overrides, out=str(tmp_path / out), **keys)
        return {path.name: path.read_text() for path in sorted(folder.iterdir())}


@pytest.fixture
def runs(tmp_path):
    return Folder(tmp_path / "runs")


@pytest.fixture
def tiny(runs):
    """Single tasks at 81 % and 0.2; equal a little worse, lr=0.1 better at one metric and worse at the other."""
    runs.singles()
    for seed in range(3):
        test = {"left/accuracy": 79.0 + 2 * seed, "right/error": 0.22}
        runs.run("optimizer.lr=0.02", seed=seed, test=test, seconds=0.5)
        test = {"left/accuracy": 79.0 + 2 * seed, "right/error": 0.18}
        runs.run("optimizer.lr=0.1", seed=seed, test=test, seconds=0.5 + 0.1 * seed, weights_sum=1.0)
    return runs


GOLDEN = """\
# tiny: multidigits

- Dataset multidigits; multi_decoder + lenet + lenet; 15 epochs; float32.
- Test split; selection: the last epoch (last).
- Seeds 0, 1, 2. ± is the standard deviation over seeds (ddof 1). 3 seeds: too few to call any difference.
- Δm metrics: mean over all metrics of the relative change against single_task, lower is better (Elich et al. 2023). \
Δm tasks: mean over tasks of the mean over their metrics, higher is better (Vandenhende et al. 2021). \
Each seed against the mean over seeds of single_task.
- rank: mean over 2 metrics of the rank of the mean over seeds, ties averaged, among 2 complete rows. \
Of these, the best is bold (\\*), the second underlined (+).
- s/step ÷ equal: median over seeds of seconds per step relative to equal, same seed and machine. \
Σ weights: mean over steps of the sum of the task weights, a hidden factor of the learning rate.
- Code: source 5a5a.

| method | left accuracy ↑ \\[%\\] | right error ↓ | Δm metrics ↓ \\[%\\] | Δm tasks ↑ \\[%\\] | rank ↓ | s/step ÷ equal \
| Σ weights | n |
| :-- | --: | --: | --: | --: | --: | --: | --: | --: |
| single_task | 81.00 ± 1.00 | 0.2000 ± 0.0000 | - | - | - | - | - | 3/3 |
| equal lr=0.02 | 81.00 ± 2.00 | <ins>0.2200 ± 0.0000</ins> | <ins>5.000 ± 1.235</ins> | <ins>-5.000 ± 1.235</ins> \
| <ins>1.75</ins> | 1.00 | 2.00 | 3/3 |
| equal lr=0.1 | 81.00 ± 2.00 | **0.1800 ± 0.0000** | **-5.000 ± 1.235** | **5.000 ± 1.235** \
| **1.25** | 1.00 | 1.00 | 3/3 |

## 95 % intervals of Δm

- Student's t over seeds. The spread of the single-task runs is not in it.

| method | Δm metrics ↓ \\[%\\] | Δm tasks ↑ \\[%\\] | seeds |
| :-- | --: | --: | --: |
| equal lr=0.02 | 5.00 in \\[1.93, 8.07\\] | -5.00 in \\[-8.07, -1.93\\] | 3 |
| equal lr=0.1 | -5.00 in \\[-8.07, -1.93\\] | 5.00 in \\[1.93, 8.07\\] | 3 |
"""


def test_golden_table(tiny, tmp_path):
    assert tiny.aggregate(tmp_path)["table.md"] == GOLDEN
