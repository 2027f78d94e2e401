"""Sweeps on a Slurm that is up: the time limit, failures, scancel, an array of workers. Skipped where there is none."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mtlbench import sweep
from mtlbench.cells import cells
from mtlbench.record import read_checkpoint, state_of
from test_sweep import SMALL, command, lines_of, runs_in, write

ROOT = Path(__file__).resolve().parents[1]
GIVEN = """
import os, time
from mtlbench.methods.equal import Equal
first = second = third = fourth = Equal
class Naps(Equal):
    def transform(self, losses, tasks, rng):  # so long only at the first start in a queue
        if "SLURM_JOB_ID" in os.environ and "SLURM_RESTART_COUNT" not in os.environ:
            time.sleep(float(os.environ["NAP"]))
        return super().transform(losses, tasks, rng)
def failing(tasks, **options): raise RuntimeError("no such thing")
"""


def no_slurm() -> str:
    """Why these tests cannot run; empty where they can."""
    if shutil.which("sinfo") is None:
        return "no Slurm here: there is no sinfo"
    try:
        asked = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True, timeout=10)
    except subprocess.TimeoutExpired:
        return "Slurm does not answer: sinfo takes more than 10 s"
    up = {"idle", "mixed", "completing", "allocated"} & set(asked.stdout.split())
    return "" if up else f"no node of Slurm is up: {' '.join((asked.stdout + asked.stderr).split())}"


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The environment of the jobs; at the end the jobs that were left are cancelled, by this test's own name."""
    reason = no_slurm()
    if reason:
        pytest.skip(reason)
    (tmp_path / "given.py").write_text(GIVEN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    name = f"test-{tmp_path.name}-{os.getpid()}"
    yield name
    subprocess.run(["scancel", "-n", name], check=True)


def jobs(name: str, form: str = "%T") -> list[str]:
    asked = subprocess.run(["squeue", "-h", "-r", "-n", name, "-o", form], capture_output=True, text=True, check=True)
    return asked.stdout.split()


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.2)


def head(folder: Path, tmp_path: Path) -> str:
    return sweep.status(folder, runs_in(tmp_path))[0].splitlines()[0]


@pytest.mark.slow
def test_an_array_of_cells_one_stopped_by_the_time_limit_and_one_that_fails(
    queue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="the extra `slurm` is not installed")
    monkeypatch.setenv("NAP", "12")
    folder, runs = tmp_path / "sweeps" / "six", tmp_path / "runs"
    names = ("first", "second", "third", "fourth", "Naps", "failing")
    write(folder, "a", {**SMALL, "method._target_": ",".join(f"given.{name}" for name in names)})
    found = cells(folder, runs_in(tmp_path))
    naps = found[4]
    assert head(folder, tmp_path).startswith("6 cells   0 done   0 interrupted   0 running   0 failed   6 missing")
    words = ["-m", "mtlbench.train", "--config-dir", str(folder.parent), "--config-name", "six/a", *runs_in(tmp_path)]
    words += ["machine.threads=1", "hydra/launcher=slurm", f"hydra.launcher.name={queue}"]
    words += ["hydra.launcher.timeout_min=2", "hydra.launcher.signal_delay_s=45"]
    launcher = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until(lambda: jobs(queue) == ["RUNNING"] and state_of(runs / naps.id) == "running")
    assert re.match(r"6 cells   4 done .*0 interrupted   1 running   1 failed   0 missing", head(folder, tmp_path))
    assert sweep.standing(found[5], runs).reason == "RuntimeError: no such thing"
    until(lambda: jobs(queue) == ["PENDING"])
    assert re.match(r"6 cells   4 done .*1 interrupted   0 running   1 failed   0 missing", head(folder, tmp_path))
    (job,) = jobs(queue, "%A")
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)  # instead of two minutes
    said = launcher.communicate()[0]
    assert "RuntimeError: no such thing" in said
    assert [state_of(runs / cell.id) for cell in found] == ["done"] * 5 + ["failed"]
    whole = tmp_path / "whole"
    subprocess.run([*command("run", folder), f"machine.runs={whole}", "machine.threads=1"], stdout=subprocess.DEVNULL)
    assert lines_of(runs / naps.id) == lines_of(whole / naps.id)
    resumed, uninterrupted = (read_checkpoint(place / naps.id)["model"] for place in (runs, whole))
    assert all(torch.equal(resumed[key], uninterrupted[key]) for key in uninterrupted)


@pytest.mark.slow
def test_an_array_of_workers_shares_a_sweep_and_scancel_leaves_states_right(
    queue: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NAP", "0.5")
    folder, runs = tmp_path / "sweeps" / "four", tmp_path / "runs"
    write(folder, "a", {**SMALL, "epochs": 6, "method._target_": "given.Naps", "seed": "range(0,4)"})
    found = cells(folder, runs_in(tmp_path))
    text = (ROOT / "docs" / "cluster.md").read_text()
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n# workers.sh\n.*?)```", text, flags=re.S)
    (tmp_path / "workers.sh").write_text(script)
    words = ["sbatch", f"--job-name={queue}", "workers.sh", str(folder), *runs_in(tmp_path), "machine.threads=1"]
    subprocess.run(words, cwd=tmp_path, check=True)
    until(lambda: [state_of(runs / cell.id) for cell in found].count("running") == 2)
    subprocess.run(["scancel", "-n", queue], check=True)
    until(lambda: not jobs(queue))
    states = [state_of(runs / cell.id) for cell in found]
    assert sorted(states) == ["interrupted", "interrupted", "missing", "missing"]
    assert head(folder, tmp_path).startswith("4 cells   0 done   2 interrupted   0 running   0 failed   2 missing")
    monkeypatch.setenv("NAP", "0")
    subprocess.run(words, cwd=tmp_path, check=True)
    until(lambda: not jobs(queue))
    for cell in found:
        assert state_of(runs / cell.id) == "done"
        assert [line["epoch"] for line in lines_of(runs / cell.id)] == list(range(6))
