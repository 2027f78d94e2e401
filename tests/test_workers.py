"""Workers: cells that crash in every way fail alone; many workers on one sweep; GPUs, threads, signals, the display."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtlbench import gpus, live, sweep, worker, workers
from mtlbench.cells import Cell, cells
from mtlbench.record import Run, epochs_done, state_of
from mtlbench.workers import Plan, Workers, leave_error
from test_sweep import SMALL, command, lines_of, runs_in, wait_for, write

CRASHES = """
import ctypes, os, signal
def segfault(tasks, **options): ctypes.string_at(0)
def out_of_memory(tasks, **options): os.kill(os.getpid(), signal.SIGKILL)
def leave_politely(tasks, **options): raise SystemExit(4)
def error(tasks, **options): raise RuntimeError("a\\nlong story")
def recursion(tasks, **options): return recursion(tasks)
"""
KINDS = ("segfault", "out_of_memory", "leave_politely", "error", "recursion")


def cell(id: str, epochs: int = 2) -> Cell:
    return Cell(id, [f"seed={id}"], {}, epochs)


def pool(tmp_path: Path, found: list[Cell], **options: object) -> Workers:
    return Workers(found, found, tmp_path / "runs", Plan(gpus=[], **options), "test")


def lines(words: list[str], **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, **environment})


# crashes


@pytest.mark.slow
def test_a_cell_that_crashes_in_any_way_fails_alone(tmp_path: Path):
    (tmp_path / "crashing.py").write_text(CRASHES)
    folder, runs = tmp_path / "sweeps" / "crash", tmp_path / "runs"
    targets = ",".join(f"crashing.{kind}" for kind in KINDS)
    write(folder, "b_crashes", {**SMALL, "method._target_": targets})
    write(folder, "a_good", {**SMALL, "method": "equal"})
    write(folder, "c_good", {**SMALL, "method": "equal", "seed": 1})
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = lines(command("run", folder, "--worker", *runs_in(tmp_path)), PYTHONPATH=path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "7 cells   2 done   0 interrupted   0 running   5 failed   0 missing" in done.stdout, done.stdout
    found = cells(folder, runs_in(tmp_path))
    reasons = {c.overrides[-2].rpartition(".")[2]: sweep.standing(c, runs).reason for c in found[1:-1]}
    assert reasons["segfault"] == "its process was killed 2 times (SIGSEGV)"
    assert reasons["out_of_memory"] == "its process was killed 2 times (SIGKILL). Out of memory?"
    assert reasons["leave_politely"] == "SystemExit: 4"
    assert "long story" in reasons["error"]
    assert "RecursionError" in reasons["recursion"]
    assert [len(lines_of(runs / c.id)) for c in (found[0], found[-1])] == [2, 2]
    again = lines(command("run", folder, "--worker", *runs_in(tmp_path)), PYTHONPATH=path)  # what failed is left alone
    assert "7 cells   2 done   0 interrupted   0 running   5 failed" in again.stdout
    assert "was killed" not in again.stdout.split("7 cells")[0]
    assert again.returncode == 0
    removed = lines(command("clean", folder, "--yes", *runs_in(tmp_path)))
    assert removed.stdout == "removed 5 runs\n"


def test_a_process_that_ends_twice_without_an_answer_costs_its_cell(tmp_path: Path):
    mine = pool(tmp_path, [cell("a"), cell("b")])
    a = mine.queue.popleft()
    with mine.live:
        mine.tries[a.id] = 1
        mine._died(a, 3)
        assert mine.queue[0] == a
        assert mine.exit_code == 0
        mine.queue.popleft()
        mine.tries[a.id] = 2
        mine._died(a, 3)
    assert [c.id for c in mine.queue] == ["b"]
    assert sweep.standing(a, tmp_path / "runs").reason == "its process was killed 2 times (exit code 3)"
    assert mine.exit_code == 1


def test_the_reason_of_a_killed_cell_is_left_in_its_folder(tmp_path: Path):
    leave_error(tmp_path / "runs" / "new", "killed")
    assert state_of(tmp_path / "runs" / "new") == "failed"
    assert (tmp_path / "runs" / "new" / "error.txt").read_text() == "killed\n"
    run = Run.open(tmp_path / "runs", "new", {"seed": 0}, {"seed": 0}, "data")  # it can be started again
    assert state_of(run.folder) == "running"
    leave_error(run.folder, "killed again")  # another process has it by now: nothing is written
    assert not (run.folder / "error.txt").exists()
    run.check()


# many workers on one sweep


@pytest.mark.slow
def test_three_workers_share_a_sweep_and_run_each_cell_once(tmp_path: Path):
    folder, runs = tmp_path / "sweeps" / "shared", tmp_path / "runs"
    write(folder, "a", {**SMALL, "method": "equal", "seed": "range(0,6)"})
    words = [*command("run", folder, "--worker"), *runs_in(tmp_path), "machine.threads=1"]
    started = []
    for task in range(3):  # as an array of jobs starts them, each in a job step of three tasks
        array = {f"SLURM_ARRAY_TASK_{key}": str(value) for key, value in (("MIN", 0), ("MAX", 2), ("ID", task))}
        steps = {"SLURM_PROCID": str(task), "SLURM_NTASKS": "3", "SLURM_LOCALID": str(task)}
        environment = {**os.environ, **array, **steps, "SLURM_ARRAY_JOB_ID": "7"}
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment))
    outs = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], outs
    reported = [re.findall(r"^\d+/6 +(seed=\d)   ", out, flags=re.M) for out in outs]
    done = [json.loads((runs / c.id / "record.json").read_text()) for c in cells(folder, runs_in(tmp_path))]
    assert [record["world_size"] for record in done] == [1] * 6
    for found in cells(folder, runs_in(tmp_path)):
        assert [line["epoch"] for line in lines_of(runs / found.id)] == [0, 1]
    assert set().union(*reported) == {f"seed={seed}" for seed in range(6)}
    assert sorted(path.name for path in (runs / ".index").glob("*.log")) == [f"shared.7_{k}.0.log" for k in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGINT])
def test_signals_of_queues_stop_a_worker_and_the_next_goes_on(tmp_path: Path, number: signal.Signals):
    folder, runs = tmp_path / "sweeps" / "long", tmp_path / "runs"
    write(folder, "a", {**SMALL, "epochs": 300, "evaluate_every": 300})
    (only,) = cells(folder, runs_in(tmp_path))
    words = command("run", folder, "--worker", *runs_in(tmp_path))
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: epochs_done(runs / only.id) >= 1, process)
    os.killpg(process.pid, number)  # every process of the job gets it, some queues send it twice
    if number != signal.SIGINT:
        os.killpg(process.pid, signal.SIGTERM)
    out = process.communicate()[0]
    assert process.returncode == 85, out
    assert "stopped; what was running is saved. 1 cells remain." in out
    assert state_of(runs / only.id) == "interrupted"
    assert (runs / only.id / "checkpoint.pt").exists()


def test_cells_that_others_gave_up_come_back(tmp_path: Path):
    found = [cell("a"), cell("b"), cell("c")]
    runs = {c.id: Run.open(tmp_path / "runs", c.id, {"seed": 0}, {"seed": 0}, "data") for c in found}
    mine = pool(tmp_path, found, array=True)
    told: list[str] = []
    fake = workers._Worker(0, None, type("Pipe", (), {"send": lambda self, words: told.append(words[0])})())
    with mine.live:
        mine.queue.rotate(mine.queue.index(found[0]) * -1)
        mine._hand_out(fake)
        assert fake.cell is None
        assert len(mine.elsewhere) == 3
        assert not mine._more()
        runs["a"].finish({})
        runs["b"].release()
        assert mine._more()
        assert list(mine.queue) == [found[1]]
        assert mine.elsewhere == [found[2]]
        mine._hand_out(fake)
    assert told == ["seed=b"]


def test_a_worker_of_an_array_leaves_failures_alone_and_a_single_one_does_not(tmp_path: Path):
    found = [cell("a"), cell("b")]
    leave_error(tmp_path / "runs" / "a", "no")
    for array, expected in ((True, ["seed=b"]), (False, ["seed=a"])):
        told: list[str] = []
        fake = workers._Worker(
            0, None, type("Pipe", (), {"send": lambda self, words, told=told: told.append(words[0])})()
        )
        mine = pool(tmp_path, found, array=array)
        with mine.live:
            mine._hand_out(fake)
        assert told == expected


@pytest.mark.parametrize(("first", "last", "starts"), [(0, 3, [0, 25, 50, 75]), (1, 4, [0, 25, 50, 75]), (5, 5, [0])])
def test_workers_of_an_array_begin_apart(monkeypatch: pytest.MonkeyPatch, first: int, last: int, starts: list[int]):
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", str(first))
    monkeypatch.setenv("SLURM_ARRAY_TASK_MAX", str(last))
    found = []
    for task in range(first, last + 1):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        found.append(workers._place(100))
    assert found == starts
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    assert all(0 <= workers._place(100) < 100 for _ in range(20))
    assert workers._place(0) == 0


def test_only_a_second_ctrl_c_is_impatience(tmp_path: Path):
    mine = pool(tmp_path, [cell("a")])
    for number, stops in ((signal.SIGUSR1, 1), (signal.SIGTERM, 1), (signal.SIGTERM, 1), (signal.SIGINT, 2)):
        mine._stop(number, None)
        assert mine.stops == stops
    assert mine.exit_code == 85


# GPUs and threads


def test_gpus_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch):
    for said, expected in (
        ("", []),
        ("-1", []),
        ("2", ["2"]),
        ("0, 3", ["0", "3"]),
        ("GPU-a,MIG-b", ["GPU-a", "MIG-b"]),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
        assert gpus.visible_gpus() == expected


def test_gpus_are_those_that_nvidia_smi_lists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho GPU-a\necho GPU-b\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.visible_gpus() == ["GPU-a", "GPU-b"]
    tool.write_text("#!/bin/sh\necho 'no devices'\nexit 6\n")
    assert gpus.visible_gpus() == []
    tool.unlink()
    assert gpus.visible_gpus() == []


def test_one_process_a_gpu_unless_it_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert Plan(gpus=["0", "1", "2"]).processes() == 3
    assert Plan(gpus=[]).processes() == 1
    assert Plan(jobs=2, gpus=["0", "1", "2"]).processes() == 2
    assert Plan(array=True, gpus=["0", "1"]).processes() == 1
    assert [Plan(jobs=5, gpus=["a", "b"]).gpu(k) for k in range(5)] == ["a", "b", "a", "b", "a"]
    assert Plan(gpus=[]).gpu(0) is None
    assert Plan(jobs=1, gpus=[]).threads() == len(os.sched_getaffinity(0))
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    assert Plan(jobs=3, gpus=[]).threads() == 2
    assert Plan(jobs=20, gpus=[]).threads() == 1


def test_a_worker_sees_one_gpu_and_is_no_rank(tmp_path: Path):
    code = (
        "import os, sys; from multiprocessing import Pipe; from mtlbench import worker\n"
        "ours, theirs = Pipe(); ours.send([]); ours.close()\n"
        "worker._one = lambda words: print(*(os.environ[k] for k in ('CUDA_VISIBLE_DEVICES', 'WORLD_SIZE', 'RANK')))\n"
        "worker.work(theirs, sys.argv[1], 'GPU-b')\n"
    )
    environment = {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_NTASKS": "4", "SLURM_PROCID": "2"}
    done = lines([sys.executable, "-c", code, str(tmp_path / "log")], **environment)
    assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
    assert "GPU-b 1 0" in (tmp_path / "log").read_text()


def test_a_worker_ends_after_a_failure_that_may_have_spoiled_the_gpu(monkeypatch: pytest.MonkeyPatch):
    from mtlbench import train

    for error, used, last in (
        (RuntimeError("x"), True, True),
        (RuntimeError("x"), False, False),
        (ValueError("x"), True, False),
    ):

        def fail(*_: object, error: Exception = error) -> str:
            raise error

        monkeypatch.setattr(train, "train", fail)
        monkeypatch.setattr(worker, "_gpu_in_use", lambda used=used: used)
        assert worker._one(["seed=1"]).last is last


# what is refused


def test_what_does_not_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = write(tmp_path / "sweeps" / "a", "a", {"seed": "0,1"}).parent
    with pytest.raises(SystemExit, match="--worker --stale: many workers would set aside"):
        sweep.main(["run", str(folder), "--worker", "--stale", *runs_in(tmp_path)])
    with pytest.raises(SystemExit, match="--jobs -2: expected at least 1"):
        sweep.main(["run", str(folder), "--worker", "--jobs", "-2", *runs_in(tmp_path)])
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.raises(SystemExit, match="torchrun starts many processes of one run"):
        sweep.main(["run", str(folder), *runs_in(tmp_path)])


# the display


class Terminal:
    """A file that says it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


def test_the_live_table_shows_each_workers_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    screen = Terminal()
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    a = cell("a", epochs=4)
    run = Run.open(tmp_path / "runs", "a", {}, {}, "data")
    shown = live.Live("name", 5, 2, tmp_path / "runs")
    with shown:
        shown.took(0, a, "method=imtl [seed=0]")
        run.append({"epoch": 0, "losses": {"l": 1.0, "r": 0.5}, "seconds_per_step": 0.02})
        shown.begin = time.monotonic() - 10
        shown.show(waiting=8)
        shown.bar.refresh()
        for expected in ("method=imtl [seed=0]", "1/4", "loss 1.5", "20 ms/step", "2/5", "left"):
            assert expected in screen.text, screen.text
        shown.done("method=imtl", 3.0, {"metrics": {}})
        shown.ended(0)
        shown.show(waiting=8)
    assert shown.finished == 3
    assert shown.epochs == 1


def test_without_a_terminal_each_result_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    shown = live.Live("name", 2, 0, tmp_path)
    metrics = {"l/accuracy": {"unit": "%"}}
    with shown:
        shown.took(0, cell("a"), "seed=0")
        shown.done("seed=0", 75.0, {"last": {"l/accuracy": 95.25}, "metrics": metrics})
        shown.done("seed=1", 2.0, {"diverged": {"reason": "loss of l is nan"}, "metrics": metrics})
        shown.ended(0)
    assert capsys.readouterr().out.splitlines() == [
        "1/2      seed=0   1 min 15 s   l/accuracy 95.2 %",
        "2/2      seed=1   2.0 s   diverged: loss of l is nan",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, {}),
        ("", {}),
        ('{"epoch": 0', {}),
        ('{"epoch": 0}\n', {"epoch": 0}),
        ('{"epoch": 0}\n{"epoch": 1}\n{"epo', {"epoch": 1}),
        ('{"epoch": 0}\nnot json\n', {}),
        ('{"long": "' + "x" * (1 << 16) + '"}\n{"epoch": 1}\n', {"epoch": 1}),
    ],
)
def test_the_last_whole_line(tmp_path: Path, text: str | None, expected: dict):
    path = tmp_path / "metrics.jsonl"
    if text is not None:
        path.write_text(text)
    assert live.last_line(path) == expected


def test_many_failures_of_one_reason_are_counted(tmp_path: Path):
    folder = write(tmp_path / "sweeps" / "a", "a", {**SMALL, "seed": "range(0,6)"}).parent
    found = cells(folder, runs_in(tmp_path))
    for c in found[:4]:
        leave_error(tmp_path / "runs" / c.id, "OSError: full")
    leave_error(tmp_path / "runs" / found[5].id, "OSError: other")
    failed = [line for line in sweep.status(folder, runs_in(tmp_path))[0].splitlines() if line.startswith("failed")]
    assert failed == [
        "failed   4 cells, the first: seed=0   OSError: full",
        "failed   seed=5   OSError: other",
    ]
