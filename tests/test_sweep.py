"""Sweeps: their cells against Hydra's own rules, the index, states and what they advise, and whole runs of them."""

import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from mtlbench import cells as celling
from mtlbench import config, sweep
from mtlbench.cells import cells, expand
from mtlbench.provenance import source_hash
from mtlbench.record import Run, epochs_done, state_of

ROOT = Path(__file__).resolve().parents[1]
SMALL = {
    "experiment": "mgda_multidigits",
    "dataset.train_pairs": 128,
    "dataset.val_pairs": 40,
    "dataset.test_pairs": 40,
    "batch_size": 32,
    "epochs": 2,
}


def write(folder: Path, name: str, params: dict, **more: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"defaults": ["/train", "_self_"], "hydra": {"mode": "MULTIRUN", "sweeper": {"params": params}}, **more}
    path = folder / f"{name}.yaml"
    path.write_text("# @package _global_\n# A sweep for a test.\n" + OmegaConf.to_yaml(OmegaConf.create(content)))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A sweep of five cells in two files."""
    folder = tmp_path / "sweeps" / "small"
    write(folder, "methods", {**SMALL, "method": "equal,imtl", "seed": "0,1"})
    write(folder, "single", {**SMALL, "method": "equal", "dataset.tasks": "[left]"})
    return folder


def runs_in(tmp_path: Path) -> list[str]:
    return [f"machine.runs={tmp_path / 'runs'}"]


def begin(tmp_path: Path, cell: celling.Cell) -> Run:
    return Run.open(tmp_path / "runs", cell.id, {"seed": 0}, {"seed": 0}, "data")


# cells


def test_axes_multiply_in_hydras_order_and_syntax(tmp_path: Path):
    params = {"method": "equal,imtl", "seed": "range(0,2)", "optimizer.lr": 0.01, "dataset.tasks": "[left],[right]"}
    assert expand(write(tmp_path, "a", params)) == [
        [f"method={m}", f"seed={s}", "optimizer.lr=0.01", f"dataset.tasks=[{t}]"]
        for m in ("equal", "imtl")
        for s in (0, 1)
        for t in ("left", "right")
    ]


@pytest.mark.parametrize(
    "params",
    [
        {"method": "equal"},
        {"method": "choice(equal,imtl)", "seed": "range(3)"},
        {"seed": "range(start=0,stop=10,step=5)", "sync_batch_norm": "true,false", "clip_norm": "null,1.5"},
        {"optimizer.lr": "sort(0.1,1e-4,3,reverse=true)", "dataset.tasks": "[left],[left,right],null"},
        {"method": "'a,b',\"c d\"", "optimizer": "{lr:1,betas:[0.9,0.99]},{lr:2}"},
    ],
)
def test_expansion_is_that_of_hydras_sweeper(tmp_path: Path, params: dict):
    # Hydra's search for plugins imports the module again: the class of now, not of this file's import
    BasicSweeper = importlib.import_module("hydra._internal.core_plugins.basic_sweeper").BasicSweeper
    sweeper = BasicSweeper(max_batch_size=None, params={key: str(value) for key, value in params.items()})
    words = sweeper._parse_config()  # what its sweep() does
    expected = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words), None)[0]
    assert expand(write(tmp_path, "a", params)) == expected


def test_overrides_replace_an_axis_or_are_added(tmp_path: Path):
    path = write(tmp_path, "a", {"method": "equal,imtl", "seed": "0,1"})
    assert expand(path, ["seed=7", "epochs=1"]) == [
        ["method=equal", "seed=7", "epochs=1"],
        ["method=imtl", "seed=7", "epochs=1"],
    ]
    assert len(expand(path, ["seed=7,8,9"])) == 6


def test_hydra_itself_runs_the_same_cells(small: Path, tmp_path: Path):
    """The file is a legal configuration of Hydra's: its multirun composes, and checks, what we expand."""
    code = (
        "import hydra, sys; from mtlbench import config\n"
        "@hydra.main(version_base='1.3', config_path=str(config.CONF), config_name='train')\n"
        "def main(cfg): print('cell', config.run_id(cfg), flush=True)\n"
        "main()"
    )
    script = tmp_path / "ids.py"
    script.write_text(code)
    words = ["--config-dir", str(small.parent), "--config-name", "small/methods", *runs_in(tmp_path)]
    done = subprocess.run([sys.executable, str(script), *words], capture_output=True, text=True, check=True)
    ids = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("cell ")]
    assert ids == [cell.id for cell in cells(small, runs_in(tmp_path))[:4]]


def test_cells_are_the_union_with_ids_of_their_command_lines(small: Path, tmp_path: Path):
    found = cells(small, [*runs_in(tmp_path), "epochs=1"])
    assert len({cell.id for cell in found}) == 5
    for cell in found:
        assert cell.id == config.run_id(config.load(cell.overrides))
        assert cell.epochs == 1
        assert cell.choices["dataset"] == "multidigits"
        assert cell.overrides[-1] == runs_in(tmp_path)[0]
    assert [cell.choices["method"] for cell in found] == ["equal", "equal", "imtl", "imtl", "equal"]
    assert "dataset.tasks=[left]" in found[4].overrides


def test_the_index_spares_composing_until_something_changes(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    composed = []

    def counting(composer: object, path: Path, words: list[str]) -> celling.Cell:
        composed.append(words)
        return celling.Cell(" ".join(words), words, {"method": "equal"}, 1)

    monkeypatch.setattr(celling, "_compose", counting)
    first = cells(small, runs_in(tmp_path))
    assert len(composed) == 5
    assert cells(small, runs_in(tmp_path)) == first
    assert [c.id for c in cells(small, [*runs_in(tmp_path), "machine.threads=1"])] == [c.id for c in first]
    assert len(composed) == 5
    assert [c.id for c in cells(small, [*runs_in(tmp_path), "epochs=1"])] != [c.id for c in first]
    assert len(composed) == 10
    write(small, "single", {**SMALL, "method": "equal", "dataset.tasks": "[right]"})
    changed = cells(small, runs_in(tmp_path))
    assert len(composed) == 15
    assert changed[:4] == first[:4]
    assert changed[4] != first[4]
    (tmp_path / "runs" / ".index" / "small.json").write_text('{"key": ')  # half-written: composed again
    assert cells(small, runs_in(tmp_path)) == changed
    assert len(composed) == 20


def test_the_index_knows_every_file_of_conf(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    conf = tmp_path / "conf"
    (conf / "method").mkdir(parents=True)
    (conf / "train.yaml").write_text("a: 1")
    (conf / "method" / "equal.yaml").write_text("b: 1")
    monkeypatch.setattr(config, "CONF", conf)
    files = celling.files_of(small)
    keys = [celling._key(files, [])]
    (conf / "method" / "equal.yaml").write_text("b: 2")
    keys.append(celling._key(files, []))
    (conf / "method" / "equal.yaml").rename(conf / "method" / "other.yaml")
    keys.append(celling._key(files, []))
    assert len(set(keys)) == 3
    assert celling._key(files, []) == keys[2]


# sweeps that are none


def test_no_such_sweep_names_those_that_exist(small: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"smal: no such sweep. There are: .*sweeps/small"):
        cells(small.parent / "smal", runs_in(tmp_path))
    with pytest.raises(ValueError, match=r"no such sweep. A sweep is a folder of yaml files"):
        cells(tmp_path / "nowhere" / "x", runs_in(tmp_path))


def test_a_typo_names_the_cell_and_the_key(small: Path, tmp_path: Path):
    write(small, "typo", {**SMALL, "method": "equal", "optimizer.lrr": "0.1,0.2"})
    with pytest.raises(ValueError, match=r"typo.yaml, cell .*method=equal optimizer.lrr=0.1: .*Did you mean lr\?"):
        cells(small, runs_in(tmp_path))
    write(small, "typo", {**SMALL, "method": "equal,imtll"})
    with pytest.raises(ValueError, match=r"typo.yaml, cell .*method=imtll.*no such method. Did you mean imtl"):
        cells(small, runs_in(tmp_path))
    assert not (tmp_path / "runs" / ".index" / "small.json").exists()


def test_two_cells_that_are_one_run(small: Path, tmp_path: Path):
    write(small, "again", {**SMALL, "seed": "1,2", "method": "imtl"})
    with pytest.raises(ValueError, match=r"two cells are one run \(\w{12}\): .*seed=1.* and .*seed=1.*Leave one"):
        cells(small, runs_in(tmp_path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not a yaml file"),
        ("", "begins with `# @package _global_`"),
        ("- a", "begins with"),
        ("defaults: [/train, _self_]\nhydra: {mode: RUN, sweeper: {params: {seed: 1}}}", "hydra.mode: MULTIRUN"),
        ("defaults: [train]\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: 1}}}", r"defaults \[/train, _self_\]"),
        ("defaults: [/train, _self_]\nhydra: {mode: MULTIRUN}", "params is empty"),
        (
            "defaults: [/train, _self_]\nepochs: 3\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: 1}}}",
            "put epochs into hydra.sweeper.params",
        ),
        (
            "defaults: [/train, _self_]\nhydra: {mode: MULTIRUN, sweeper: {params: {dataset.tasks: [left]}}}",
            r'dataset.tasks: put \["left"\] in quotes',
        ),
        (
            "defaults: [/train, _self_]\nhydra: {mode: MULTIRUN, sweeper: {params: {clip_norm: null}}}",
            "null in quotes",
        ),
        (
            "defaults: [/train, _self_]\nhydra: {mode: MULTIRUN, sweeper: {params: {machine.workers: 1}}}",
            "machine.workers is the machine's",
        ),
        ("defaults: [/train, _self_]\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '[1,2'}}}", "a.yaml: "),
        (
            "defaults: [/train, _self_]\nhydra: {mode: MULTIRUN, sweeper: {params: {lr: 'interval(0,1)'}}}",
            "not support",
        ),
        ("defaults: [/train, _self_]\nhydra: {mode: MULTIRUN, sweeper: {params: {method: 'glob(*)'}}}", "a.yaml: "),
    ],
)
def test_files_that_are_no_sweep(tmp_path: Path, text: str, message: str):
    path = tmp_path / "a.yaml"
    path.write_text(f"# @package _global_\n{text}\n" if text else "")
    with pytest.raises(ValueError, match=message) as error:
        expand(path)
    assert "a.yaml" in str(error.value)


def test_launchers_may_be_chosen_in_the_file(tmp_path: Path):
    path = write(tmp_path, "a", {"seed": 1})
    text = path.read_text().replace("- /train\n", "- /train\n- override /hydra/launcher: submitit_slurm\n")
    path.write_text(text.replace("hydra:\n", "hydra:\n  launcher:\n    timeout_min: 60\n"))
    assert expand(path) == [["seed=1"]]


# how it stands


def put(tmp_path: Path, found: list[celling.Cell]) -> None:
    """The five cells of `small` in five states: done, done by other code and diverged, failed, running, interrupted."""
    done = {"seconds": 20.0, "epochs": 2, "source_hash": source_hash(), "diverged": None}
    begin(tmp_path, found[0]).finish(done)
    begin(tmp_path, found[1]).finish({**done, "source_hash": "old", "diverged": {"epoch": 1}})
    begin(tmp_path, found[2]).fail("Traceback:\n  File ...\nOSError: No space left on device: runs/3f\n\n")
    begin(tmp_path, found[3])
    run = begin(tmp_path, found[4])
    run.append({"epoch": 0})
    run.release()


def test_status_of_a_sweep_that_was_not_begun(small: Path, tmp_path: Path):
    text, complete = sweep.status(small, runs_in(tmp_path), jobs=2)
    words = f"{small} {runs_in(tmp_path)[0]}"
    assert text.splitlines() == [
        "5 cells   0 done   0 interrupted   0 running   0 failed   5 missing",
        f"next: python -m mtlbench.sweep run {words} --jobs 2",
    ]
    assert not complete


def test_status_of_every_state(small: Path, tmp_path: Path):
    found = cells(small, runs_in(tmp_path))
    put(tmp_path, found)
    text, complete = sweep.status(small, runs_in(tmp_path), jobs=1)
    lines = text.splitlines()
    assert lines[0] == (
        "5 cells   2 done (1 of them diverged, 1 by other code)   1 interrupted   1 running   1 failed   0 missing"
    )
    assert lines[1] == "about 50.0 s left on 1 worker"  # 10 s an epoch; 2 + 2 + 1 epochs
    assert lines[2] == "failed   method=imtl seed=0   OSError: No space left on device: runs/3f"
    assert lines[3].startswith("repeat what other code made: python -m mtlbench.sweep run --stale ")
    assert lines[4].startswith("next: python -m mtlbench.sweep run ")
    assert len(lines) == 5
    assert not complete


def test_status_when_all_is_done(small: Path, tmp_path: Path):
    for cell in cells(small, runs_in(tmp_path)):
        begin(tmp_path, cell).finish({"source_hash": source_hash(), "diverged": None})
    text, complete = sweep.status(small, runs_in(tmp_path))
    assert text.splitlines()[1] == f"next: python -m mtlbench.aggregate {small} {runs_in(tmp_path)[0]}"
    assert complete


def test_a_damaged_record_is_a_failure_with_its_reason_and_is_not_cleaned(small: Path, tmp_path: Path):
    cell = cells(small, runs_in(tmp_path))[0]
    begin(tmp_path, cell).finish({})
    (tmp_path / "runs" / cell.id / "record.json").write_text("{")
    assert "record.json is damaged" in sweep.status(small, runs_in(tmp_path))[0]
    assert sweep.clean(small, runs_in(tmp_path), yes=True) == []


def test_missing_prints_commands_that_a_shell_reads_back(small: Path, tmp_path: Path):
    found = cells(small, runs_in(tmp_path))
    assert len(sweep.missing(small, runs_in(tmp_path))) == 5
    put(tmp_path, found)
    commands = sweep.missing(small, runs_in(tmp_path))
    assert [shlex.split(command)[3:] for command in commands] == [found[2].overrides, found[4].overrides]
    assert "'dataset.tasks=[left]'" in commands[1]
    assert commands[1].startswith("python -m mtlbench.train experiment=mgda_multidigits ")


def test_clean_removes_failed_and_interrupted_runs_only(small: Path, tmp_path: Path):
    found = cells(small, runs_in(tmp_path))
    put(tmp_path, found)
    runs = tmp_path / "runs"
    with pytest.raises(ValueError, match="2 failed or interrupted runs would be removed; type --yes"):
        sweep.clean(small, runs_in(tmp_path))
    assert sweep.clean(small, runs_in(tmp_path), yes=True) == [runs / found[2].id, runs / found[4].id]
    states = [state_of(runs / cell.id) for cell in found]
    assert states == ["done", "done", "missing", "running", "missing"]
    assert sorted(path.name for path in runs.iterdir()) == sorted([".index", *(found[i].id for i in (0, 1, 3))])
    assert sweep.clean(small, runs_in(tmp_path)) == []


@pytest.mark.parametrize(("answer", "removed"), [("", 0), ("no", 0), ("y", 2), ("Yes", 2)])
def test_clean_asks_on_a_terminal(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, removed: int
):
    put(tmp_path, cells(small, runs_in(tmp_path)))
    asked = []
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or answer)
    assert len(sweep.clean(small, runs_in(tmp_path))) == removed
    assert "remove 2 failed or interrupted runs" in asked[0]


def test_a_run_that_was_started_meanwhile_is_not_removed(small: Path, tmp_path: Path):
    cell = cells(small, runs_in(tmp_path))[0]
    run = begin(tmp_path, cell)
    assert not sweep._remove(run.folder)
    run.check()


def test_set_aside_loses_nothing(tmp_path: Path):
    for attempt in range(3):
        run = Run.open(tmp_path, "ab12", {}, {}, "data")
        run.finish({"attempt": attempt})
        sweep.set_aside(tmp_path / "ab12", {"source_hash": "old"})
    names = ["ab12-old", "ab12-old-1", "ab12-old-2"]
    assert sorted(path.name for path in (tmp_path / ".stale").iterdir()) == names
    kept = [json.loads((tmp_path / ".stale" / name / "record.json").read_text())["attempt"] for name in names]
    assert kept == [0, 1, 2]


def test_bad_commands(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit, match="no such sweep"):
        sweep.main(["status", str(tmp_path / "x"), *runs_in(tmp_path)])
    with pytest.raises(SystemExit, match="--jobs 0: expected at least 1"):
        sweep.main(["run", str(small), "--jobs", "0", *runs_in(tmp_path)])
    with pytest.raises(SystemExit, match=r"machine.runss: there is no such key of machine. Did you mean runs\?"):
        sweep.main(["status", str(small), "machine.runss=x"])
    with pytest.raises(SystemExit) as code:
        sweep.main(["status", str(small), *runs_in(tmp_path)])
    assert code.value.code == 1
    with pytest.raises(SystemExit) as code:
        sweep.main(["stat", str(small)])
    assert code.value.code == 2
    assert "invalid choice: 'stat'" in capsys.readouterr().err


def test_a_folder_for_runs_that_cannot_be_made(small: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with (
        pytest.warns(UserWarning, match=r"small.json cannot be written"),
        pytest.raises(ValueError, match=r"cannot be made: .*Set machine.runs to a folder of yours"),
    ):
        sweep.run(small, [f"machine.runs={tmp_path / 'file'}"])


@pytest.mark.parametrize("name", ["demo_multidigits", "demo_cityscapes"])
def test_the_demos_sweeps_have_all_methods_and_a_baseline_a_task(name: str, tmp_path: Path):
    found = cells(ROOT / "sweeps" / name, runs_in(tmp_path))
    alone = [w for cell in found for w in cell.overrides if w.startswith("dataset.tasks=")]
    full = [cell.choices["method"] for cell in found if not {*alone} & {*cell.overrides}]
    seeds = 3 if name == "demo_multidigits" else 1
    tasks = ("left", "right") if name == "demo_multidigits" else ("semantic", "instance", "disparity")
    assert sorted(full) == sorted(["equal", "uncertainty", "imtl", "mgda", "pcgrad"] * seeds)
    assert sorted(alone) == sorted([f"dataset.tasks=[{task}]" for task in tasks] * seeds)
    assert len({cell.epochs for cell in found}) == 1
    assert len({cell.choices["experiment"] for cell in found}) == 1  # the baselines' protocol is the methods'


# whole runs


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "mtlbench.sweep", *map(str, words)]


def lines_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds_per_step", "data_wait")} for line in lines]


@pytest.mark.slow
def test_a_sweep_runs_to_its_end_though_a_cell_fails(small: Path, tmp_path: Path):
    write(small, "fails", {**SMALL, "method": "equal", "optimizer.lr": -1})
    runs, words = tmp_path / "runs", runs_in(tmp_path)
    done = subprocess.run(command("run", small, "--jobs", 2, *words), capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "6 cells   5 done   0 interrupted   0 running   1 failed   0 missing" in done.stdout
    assert "failed   method=equal optimizer.lr=-1   ValueError: Invalid learning rate: -1" in done.stdout
    assert "5/6      " in done.stdout
    found = cells(small, words)
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    for cell in found[1:]:
        record = json.loads((runs / cell.id / "record.json").read_text())
        assert (record["run"], record["threads"], record["choices"]) == (cell.id, threads, cell.choices)
    apart = tmp_path / "apart"  # the last cell of the worker is the same to the bit in a process of its own
    alone = [f"machine.threads={threads}", *found[5].overrides[:-1], f"machine.runs={apart}"]
    subprocess.run([sys.executable, "-m", "mtlbench.train", *alone], check=True, capture_output=True)
    assert lines_of(apart / found[5].id) == lines_of(runs / found[5].id)
    assert len(lines_of(apart / found[5].id)) == 2

    before = {cell.id: (runs / cell.id / "record.json").stat().st_mtime_ns for cell in found[1:]}
    again = subprocess.run(command("run", small, *words), capture_output=True, text=True)
    assert again.returncode == 1
    assert again.stdout.count("\nfailed") + again.stdout.startswith("failed") == 2  # it was tried again; and status
    assert {cell.id: (runs / cell.id / "record.json").stat().st_mtime_ns for cell in found[1:]} == before

    (small / "fails.yaml").unlink()
    path = runs / found[2].id / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "source_hash": "old"}))
    words.append(f"machine.threads={threads}")  # one process would take all cores, which shows in the last digits
    stale = subprocess.run(command("run", "--stale", small, *words), capture_output=True, text=True)
    assert stale.returncode == 0, stale.stdout + stale.stderr
    assert f"set aside: {runs}/.stale/{found[2].id}-old" in stale.stdout
    assert lines_of(runs / ".stale" / f"{found[2].id}-old") == lines_of(runs / found[2].id)
    assert subprocess.run(command("status", small, *words), capture_output=True).returncode == 0


def wait_for(condition: object, process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def claimed(folder: Path) -> int | None:
    """The process that has a run, once its first epoch is done."""
    if state_of(folder) != "running" or epochs_done(folder) < 1 or not (folder / "checkpoint.pt").exists():
        return None
    found = list(folder.glob("claim.*.json"))
    return json.loads(found[0].read_text())["pid"] if found else None


@pytest.mark.slow
def test_killed_workers_and_a_stopped_sweep(tmp_path: Path):
    folder = tmp_path / "sweeps" / "long"
    write(folder, "a", {**SMALL, "epochs": 400, "evaluate_every": 400, "seed": "0,1"})
    words, runs = runs_in(tmp_path), tmp_path / "runs"
    first, second = (runs / cell.id for cell in cells(folder, words))
    process = subprocess.Popen(command("run", folder, *words), stdout=subprocess.PIPE, text=True)
    wait_for(lambda: claimed(first), process)
    killed = claimed(first)
    os.kill(killed, signal.SIGKILL)  # as the kernel does when memory runs out: another worker goes on with the cell
    wait_for(lambda: (claimed(first) or killed) != killed, process)
    process.send_signal(signal.SIGTERM)
    out = process.communicate()[0]
    assert process.returncode == 85, out
    assert "was killed (SIGKILL); it is started again" in out
    assert "saved    seed=0   after" in out
    assert "stopped; what was running is saved. 2 cells remain." in out
    assert "2 cells   0 done   1 interrupted   0 running   0 failed   1 missing" in out
    assert "next: python -m mtlbench.sweep run" in out
    reached = epochs_done(first)
    assert 1 <= reached < 400

    process = subprocess.Popen(command("run", folder, "--jobs", 2, *words), stdout=subprocess.PIPE, text=True)
    wait_for(lambda: claimed(second) and claimed(first) and epochs_done(first) > reached, process)
    other = subprocess.run(command("run", folder, *words), capture_output=True, text=True)  # nothing is run twice
    assert other.stdout.count("skipped, another process runs it") == 2
    assert other.returncode == 0
    killed = claimed(second)  # a cell whose process is killed twice fails; the other goes on
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: (claimed(second) or killed) != killed, process)
    os.kill(claimed(second), signal.SIGKILL)
    wait_for(lambda: state_of(second) == "failed", process)
    assert (second / "error.txt").read_text() == "its process was killed 2 times (SIGKILL). Out of memory?\n"
    reached = epochs_done(first)
    wait_for(lambda: epochs_done(first) > reached, process)
    process.send_signal(signal.SIGINT)
    out = process.communicate()[0]
    assert process.returncode == 85, out
    assert "failed   seed=1   its process was killed 2 times (SIGKILL)" in out
    assert [line["epoch"] for line in lines_of(first)] == list(range(epochs_done(first)))


@pytest.mark.slow
def test_what_fails_before_a_folder_is_there_is_said_once(tmp_path: Path):
    folder = tmp_path / "sweeps" / "nodata"
    write(folder, "a", {"dataset": "multimnist", "seed": "0,1"})
    words = [*runs_in(tmp_path), f"machine.data={tmp_path / 'none'}"]
    done = subprocess.run(command("run", folder, *words), capture_output=True, text=True)
    assert done.returncode == 1
    assert "not run   2 cells   " in done.stdout
    assert "2 missing" in done.stdout
    assert str(tmp_path / "none") in done.stdout
