"""Run folders as training leaves them, without training: for the tests of what reads them."""

import functools
import json
from unittest.mock import patch

from omegaconf import OmegaConf

from mtlbench import aggregate, config
from mtlbench.cells import Cell

METRICS = {
    "left/accuracy": {"higher_is_better": True, "unit": "%", "primary": True},
    "right/error": {"higher_is_better": False, "unit": "", "primary": True},
}


EACH = ("method", "architecture", "optimizer", "optimizer.lr", "batch_size")
"""What the settings of these tests differ in."""


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
        words = [*overrides, f"seed={seed}", f"machine.runs={self.path}"]
        cell = Cell(config.run_id(OmegaConf.create(identity)), words, choices, identity["epochs"])
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
            "load": 1.0,
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

    def aggregate(self, tmp_path, out="results", cells=None, rows=EACH, figures=False, report=False, **keys):
        """The files that the command writes for these cells, by name; every setting a row unless told otherwise."""
        overrides = [f"machine.runs={self.path}"]
        sweep = str(tmp_path / "sweeps" / "tiny")
        found = self.cells if cells is None else cells
        with patch.object(aggregate, "cells", lambda folder, words: found):
            _, folder = aggregate.aggregate(
                sweep, overrides, out=str(tmp_path / out), rows=rows, figures=figures, report=report, **keys
            )
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


def rows_of(text):
    """The first Markdown table of a text: {label: [cells]}."""
    lines = [line for line in text.split("\n\n## ")[0].splitlines() if line.startswith("| ")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0]: row[1:] for row in cells}
