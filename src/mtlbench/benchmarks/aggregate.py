"""How long the tables of a large sweep take. `python -m mtlbench.bench aggregate runs=10000 epochs=200`

Writes a sweep of generated runs (no training: the curves are formulas), then aggregates it by the command, in a process
of its own: cold (nothing read before; the files are in the system's memory, having just been written), warm, and after
one more run. Keys: runs=10000 epochs=200 folder=<a new one, removed at the end>.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtlbench import cells, config
from mtlbench.aggregation.gather import id_of

METHODS = ("equal", "uncertainty", "rlw", "imtl", "pcgrad", "cagrad")
METRICS = {
    "semantic/miou": (True, "%", 70.0),
    "semantic/pixel_accuracy": (True, "%", 92.0),
    "instance/l1": (False, "px", 16.0),
    "disparity/l1": (False, "px", 3.0),
}
TASKS = ("semantic", "instance", "disparity")
SEEDS = 3

SWEEP = """\
# @package _global_
# Generated, to be counted and not to be run.
defaults: [/train, _self_]
hydra:
  mode: MULTIRUN
  sweeper:
    params:
"""


def generate(folder: Path, runs: int, epochs: int) -> Path:
    """A sweep of about so many finished runs: folder/sweeps/generated, folder/runs and the index of its cells."""
    each = max(1, round(runs / (SEEDS * 2 * (len(METHODS) + len(TASKS)))))
    rates = [float(f"{rate:.4g}") for rate in np.geomspace(1e-5, 0.5, each)]
    sweep = folder / "sweeps" / "generated"
    sweep.mkdir(parents=True)
    several = {"method": ",".join(METHODS)}
    alone = {"method": "equal", "dataset.tasks": ",".join(f"[{task}]" for task in TASKS)}
    for name, axes in (("methods", several), ("single_task", alone)):
        every = {"dataset": "cityscapes", **axes, "optimizer": "adam,sgd", "optimizer.lr": ",".join(map(str, rates))}
        lines = [f'      {key}: "{value}"\n' for key, value in {**every, "seed": f"range(0,{SEEDS})"}.items()]
        (sweep / f"{name}.yaml").write_text(SWEEP + "".join(lines))
    found, rng, bases = [], random.Random(0), {}
    for path in cells.files_of(sweep):
        for words in cells.expand(path):
            cell, identity = _identity(words, bases)
            found.append(cell)
            _write(folder / "runs" / cell["id"], cell, identity, epochs, rng)
    index = folder / "runs" / ".index" / "generated.json"
    cells._write_index(index, {"key": cells._key(cells.files_of(sweep), []), "cells": found})
    return sweep


def _identity(words: Sequence[str], bases: dict) -> tuple[dict[str, Any], dict[str, Any]]:
    """A cell and its configuration: composed once for each choice of groups."""
    said = dict(word.split("=", 1) for word in words)
    lr, seed = float(said.pop("optimizer.lr")), int(said.pop("seed"))
    key = tuple(said.items())
    if key not in bases:
        composed, choices = config.load_run([f"{name}={value}" for name, value in said.items()])
        bases[key] = config.identity(composed), choices
    base, choices = bases[key]
    identity = {**base, "seed": seed, "optimizer": {**base["optimizer"], "lr": lr}}
    return {"id": id_of(identity), "overrides": list(words), "choices": choices, "epochs": base["epochs"]}, identity


def _write(folder: Path, cell: dict[str, Any], identity: dict[str, Any], epochs: int, rng: random.Random) -> None:
    folder.mkdir(parents=True)
    tasks = identity["dataset"]["tasks"] or list(TASKS)
    lr = identity["optimizer"]["lr"]
    quality = 1 - abs(np.log10(lr / 3e-3)) / 4 + rng.gauss(0, 0.01) + 0.01 * METHODS.index(cell["choices"]["method"])
    metrics = [name for name in METRICS if name.partition("/")[0] in tasks]
    lines = "".join(_lines(tasks, metrics, lr, quality, epochs, rng))
    (folder / "metrics.jsonl").write_text(lines)
    shown = {
        name: {"higher_is_better": METRICS[name][0], "unit": METRICS[name][1], "primary": True} for name in metrics
    }
    record = {
        **{"run": cell["id"], "config": identity, "choices": cell["choices"], "method": cell["choices"]["method"]},
        **{"tasks": tasks, "metrics": shown, "synthetic": True, "fingerprint": " ".join(tasks), "epochs": epochs},
        **{"git": {"commit": "0" * 40, "dirty": False}, "source_hash": "0" * 16, "method_hash": "0" * 16},
        **{"versions": {"torch": "2.9.0"}, "device": "cpu", "world_size": 1, "threads": 1, "diverged": None},
        **{"seconds_per_step": 0.1 + 0.01 * rng.random(), "machine": {"runs": "runs"}, "parameters": {"shared": 1}},
    }
    (folder / "record.json").write_text(json.dumps(record))


def _lines(
    tasks: Sequence[str], metrics: Sequence[str], lr: float, quality: float, epochs: int, rng: random.Random
) -> Iterator[str]:
    for epoch in range(epochs):
        left = 1 / (1 + 0.2 * epoch)
        weights = {task: rng.uniform(0.5, 1.5) for task in tasks}
        values = {}
        for split in ("val", "test"):
            values[split] = {}
            for name in metrics:
                higher, _, level = METRICS[name]
                gain = quality * (1 - left) + rng.gauss(0, 0.005)
                values[split][name] = level * (gain if higher else 2 - gain)
        line = {
            **{"epoch": epoch, "steps": 100, "lr": lr, "losses": {task: left + rng.random() for task in tasks}},
            "weights": {task: {"mean": w, "min": w, "max": w} for task, w in weights.items()},
            **{"weights_sum": sum(weights.values()), "gradient_norms": None, "cosines": None},
            **{"absent": dict.fromkeys(tasks, 0), "seconds_per_step": 0.1, "data_wait": 0.01, **values},
        }
        yield json.dumps(line) + "\n"


def measure(sweep: Path, runs: Path, out: Path) -> tuple[float, float]:
    """Seconds of the command, and the most memory [bytes] that it and its readers held together."""
    words = [sys.executable, "-m", "mtlbench.aggregate", str(sweep), f"machine.runs={runs}", "--out", str(out)]
    begin = time.perf_counter()
    child = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    peak, running = 0, True
    while running:
        peak = max(peak, _resident(child.pid))
        try:
            child.wait(0.25)  # looking costs the one that is looked at a hundredth of a second
            running = False
        except subprocess.TimeoutExpired:
            continue
    seconds = time.perf_counter() - begin
    if child.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {child.returncode}.")
    return seconds, peak


def _resident(pid: int) -> int:
    """Memory of a process and its children that is theirs alone, and its part of what they share; 0 off Linux."""
    total = 0
    for process in [pid, *_children(pid)]:
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:  # it has just ended
            continue
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return 1024 * total


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def bench_aggregate(overrides: Sequence[str]) -> str:
    """Generates, measures and prints. Raises ValueError for a key that is none of the three."""
    keys = {"runs": "10000", "epochs": "200", "folder": ""}
    for word in overrides:
        key, _, value = word.partition("=")
        if key not in keys:
            raise ValueError(f"{word}: there is no such key. There are: {', '.join(keys)}.")
        if key != "folder" and not value.isdecimal():
            raise ValueError(f"{word}: expected a whole number.")
        keys[key] = value
    folder = Path(keys["folder"] or tempfile.mkdtemp(prefix="mtlbench-aggregate-"))
    if keys["folder"] and folder.exists():
        raise ValueError(f"{folder} exists: name a folder that is to be made and removed.")
    try:
        for line in _report(folder, int(keys["runs"]), int(keys["epochs"])):
            print(line, flush=True)
    finally:
        shutil.rmtree(folder)
    return "done"


def _report(folder: Path, runs: int, epochs: int) -> Iterator[str]:
    begin = time.perf_counter()
    sweep = generate(folder, runs, epochs)
    made = sorted(path for path in (folder / "runs").iterdir() if path.name != ".index")
    size = sum((path / "metrics.jsonl").stat().st_size for path in made)
    took = time.perf_counter() - begin
    yield f"{len(made)} runs of {epochs} epochs, {size / 1e6:.0f} MB of lines, written in {took:.0f} s"
    digests = []
    for name in ("cold", "warm", "one run more"):
        if name == "one run more":
            (made[0] / "record.json").touch()
        seconds, peak = measure(sweep, folder / "runs", folder / name)
        digests.append((folder / name / "generated" / "digests.txt").read_text())
        busy = os.getloadavg()[0]
        yield f"{name}: {seconds:.1f} s, at most {peak / 1e6:.0f} MB (load of the machine {busy:.1f})"
    if len(set(digests)) > 1:
        raise RuntimeError("the three calls wrote different files.")
    kept = sum(path.stat().st_size for path in (folder / "runs" / ".index").glob("*.read.*"))
    yield f"the same files each time; the cache has {kept / 1e6:.0f} MB; {os.cpu_count()} cores"
