"""Whole commands in processes of their own: train, stop, kill, resume, refuse, evaluate."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

SMALL = [
    "experiment=mgda_multidigits",
    "dataset.train_pairs=640",
    "dataset.val_pairs=100",
    "dataset.test_pairs=100",
    "batch_size=32",
    "machine.threads=1",
]
TIMES = ("seconds_per_step", "data_wait")


def command(*words: str, module: str = "mtlbench.train", runs: Path) -> list[str]:
    return [sys.executable, "-m", module, *words, f"machine.runs={runs}"]


def start(*words: str, runs: Path, **keys) -> subprocess.Popen:
    return subprocess.Popen(
        command(*SMALL, *words, runs=runs), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **keys
    )


def run(*words: str, runs: Path, code: int = 0, module: str = "mtlbench.train", small: bool = True) -> str:
    words = (*SMALL, *words) if small else words
    done = subprocess.run(command(*words, module=module, runs=runs), capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def only(runs: Path) -> Path:
    (folder,) = [path for path in runs.iterdir() if (path / "config.yaml").is_file()]
    return folder


def lines(folder: Path) -> list[dict]:
    """metrics.jsonl without what a clock says."""
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in read]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    momentum = {f"optimizer.{i}": s["momentum_buffer"] for i, s in state["optimizer"]["state"].items()}
    return {**state["model"], **{f"method.{k}": v for k, v in state["method"].items()}, **momentum}


def assert_same_run(one: Path, other: Path) -> None:
    assert lines(one) == lines(other)
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def wait_for(condition, process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    """imtl, whose learned scales and dropout make state beyond the weights, for four epochs."""
    runs = tmp_path_factory.mktemp("uninterrupted")
    run("method=imtl", "epochs=4", runs=runs)
    return only(runs)


def test_record_and_a_second_start(uninterrupted: Path):
    record = json.loads((uninterrupted / "record.json").read_text())
    assert record["run"] == uninterrupted.name
    assert record["tasks"] == ["left", "right"]
    assert record["metrics"]["left/accuracy"] == {"higher_is_better": True, "unit": "%", "primary": True}
    assert record["synthetic"] is False
    assert record["diverged"] is None
    assert record["epochs"] == 4
    assert record["parameters"]["shared"] > record["parameters"]["left"] > 0
    assert record["choices"]["method"] == "imtl"
    assert record["threads"] == 1
    assert len(record["source_hash"]) >= 12
    assert record["nondeterministic"] == []
    line = lines(uninterrupted)[-1]
    assert line["epoch"] == 3
    assert line["steps"] == 640 // 32
    assert set(line["losses"]) == {"left", "right"}
    assert set(line["cosines"]) == {"left|right"}
    assert line["val"].keys() == line["test"].keys() == {"left/accuracy", "right/accuracy"}
    before = (uninterrupted / "metrics.jsonl").stat().st_mtime_ns
    said = run("method=imtl", "epochs=4", runs=uninterrupted.parent)
    assert f"run {uninterrupted.name} is done" in said
    assert (uninterrupted / "metrics.jsonl").stat().st_mtime_ns == before


def test_kill_in_mid_epoch_then_restart_gives_the_same_bits(uninterrupted: Path, tmp_path: Path):
    process = start("method=imtl", "epochs=4", "machine.checkpoint_minutes=0", runs=tmp_path)

    def in_second_epoch() -> bool:
        files = list(tmp_path.glob("*/metrics.jsonl"))
        return bool(files) and files[0].read_text().count("\n") >= 1

    wait_for(in_second_epoch, process)
    time.sleep(0.1)  # some steps into the epoch
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    folder = only(tmp_path)
    assert not (folder / "record.json").exists()
    run("method=imtl", "epochs=4", runs=tmp_path)
    assert_same_run(folder, uninterrupted)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_exits_with_its_code(number: int, uninterrupted: Path, tmp_path: Path):
    process = start("method=imtl", "epochs=4", runs=tmp_path)
    wait_for(lambda: any(tmp_path.glob("*/metrics.jsonl")), process)
    process.send_signal(number)
    said, _ = process.communicate()
    assert process.returncode == 85, said
    assert "state is saved" in said
    from mtlbench.record import state_of

    folder = only(tmp_path)
    assert state_of(folder) == "interrupted"
    run("method=imtl", "epochs=4", runs=tmp_path)
    assert_same_run(folder, uninterrupted)


def test_a_truncated_checkpoint_falls_back_to_the_one_before(uninterrupted: Path, tmp_path: Path):
    process = start("method=imtl", "epochs=4", runs=tmp_path)
    wait_for(lambda: any(tmp_path.glob("*/checkpoint.previous.pt")), process)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    folder = only(tmp_path)
    checkpoint = folder / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])
    said = run("method=imtl", "epochs=4", runs=tmp_path)
    assert re.search(r"warning: .*checkpoint.pt is broken .*goes on from the checkpoint before", said)
    assert_same_run(folder, uninterrupted)


def test_two_processes_do_a_run_once(uninterrupted: Path, tmp_path: Path):
    both = [start("method=imtl", "epochs=4", runs=tmp_path) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum("epoch 4/4" in text for text in said) == 1, said
    assert_same_run(only(tmp_path), uninterrupted)


def test_workers_and_a_second_checkpoint_rhythm_change_nothing(uninterrupted: Path, tmp_path: Path):
    run("method=imtl", "epochs=4", "machine.workers=2", "machine.evaluation_batch=7", runs=tmp_path)
    assert only(tmp_path).name == uninterrupted.name
    assert_same_run(only(tmp_path), uninterrupted)


def test_other_threads_are_refused_unless_allowed(tmp_path: Path):
    process = start("method=equal", "epochs=4", runs=tmp_path)
    wait_for(lambda: any(tmp_path.glob("*/checkpoint.pt")), process)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    said = run("method=equal", "epochs=4", "machine.threads=2", runs=tmp_path, code=1)
    assert "threads was 1, is 2" in said
    assert "machine.allow_change=true" in said
    run("method=equal", "epochs=4", "machine.threads=2", "machine.allow_change=true", runs=tmp_path)
    record = json.loads((only(tmp_path) / "record.json").read_text())
    assert record["changed"] == {"threads": [1, 2]}


def test_divergence_is_a_result_found_before_the_update(tmp_path: Path):
    said = run("method=equal", "epochs=2", "optimizer.lr=1e30", "optimizer.weight_decay=0", runs=tmp_path)
    folder = only(tmp_path)
    record = json.loads((folder / "record.json").read_text())
    assert "left" in record["diverged"]["reason"] or "right" in record["diverged"]["reason"]
    assert "diverged" in said
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert not any(value.isnan().any() for value in state["model"].values() if value.is_floating_point())


def test_evaluate_recomputes_the_record(tmp_path: Path):
    run("method=equal", "epochs=2", "keep=all", runs=tmp_path)
    folder = only(tmp_path)
    last = lines(folder)[-1]
    words = (f"run={folder.name}", "json=true")
    said = run(*words, module="mtlbench.evaluate", runs=tmp_path, small=False)
    assert json.loads(said) == last["test"]
    best = json.loads(
        run(*words, "checkpoint=best", "split=val", module="mtlbench.evaluate", runs=tmp_path, small=False)
    )
    epoch = json.loads((folder / "record.json").read_text())["best_epoch"]
    assert best == lines(folder)[epoch]["val"]
    said = run("run=nothing", module="mtlbench.evaluate", runs=tmp_path, small=False, code=1)
    assert folder.name in said


def test_multirun_and_its_refusal_under_torchrun(tmp_path: Path):
    run("-m", *SMALL, "method=equal,imtl_l", "epochs=1", runs=tmp_path, small=False)
    assert len(list(tmp_path.glob("*/record.json"))) == 2
    environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "0"}
    words = command("-m", *SMALL, "method=equal,imtl_l", runs=tmp_path)
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "torchrun" in done.stderr


def test_two_processes_train_as_one(tmp_path: Path):
    """float64 and no dropout: what is left is rounding."""
    words = ["method=imtl", "epochs=2", "precision=float64", "backbone.dropout=0", "head.dropout=0"]
    run(*words, runs=tmp_path / "one")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    full = command(*SMALL, *words, runs=tmp_path / "two")
    done = subprocess.run([*torchrun, *full[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = only(tmp_path / "one"), only(tmp_path / "two")
    assert one.name == two.name
    assert json.loads((two / "record.json").read_text())["world_size"] == 2
    a, b = weights(one), weights(two)
    for key in a:
        torch.testing.assert_close(b[key], a[key], rtol=1e-9, atol=1e-12)
    assert [line["test"] for line in lines(one)] == [line["test"] for line in lines(two)]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["method=imtll"], ["there is no such method", "Did you mean imtl_l", "pcgrad"]),
        (["optimizer.lrr=1"], ["optimizer.lrr", "Did you mean lr", "momentum"]),
        (["epoch=1"], ["Did you mean epochs", "batch_size"]),
        (["dataset.tasks=[left,middle]"], ["middle", "left, right"]),
        (["method=mgda", "method.level=layer"], ["layer", "feature, parameter"]),
        (["batch_size=1000"], ["640", "less than one batch"]),
        (["dataset=cityscapes", "machine.data=nowhere"], ["nowhere", "mtlbench.synthesize"]),
        (["precision=float16"], ["float16", "bfloat16"]),
        (["+new=1"], ["+new=1"]),
    ],
)
def test_bad_input_is_a_sentence_without_a_traceback(words: list[str], parts: list[str], tmp_path: Path):
    small = [] if words[0].startswith("dataset=") else SMALL
    said = run(*small, *words, runs=tmp_path / "runs", code=1, small=False)
    assert all(part in said for part in parts), said
    assert "Traceback" not in said
    assert not list((tmp_path / "runs").glob("*/record.json"))


def test_a_run_folder_that_cannot_be_written(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("")
    said = run("method=equal", runs=file, code=1)
    assert str(file) in said
    assert "Traceback" not in said


def test_other_data_under_the_same_configuration(tmp_path: Path):
    run("method=equal", "epochs=1", runs=tmp_path)
    folder = only(tmp_path)
    fingerprint = json.loads((folder / "record.json").read_text())["fingerprint"]
    for name in ("record.json", "data.json"):
        text = (folder / name).read_text()
        assert fingerprint in text
        (folder / name).write_text(text.replace(fingerprint, "other data"))
    said = run("method=equal", "epochs=1", runs=tmp_path, code=1)
    assert "other data" in said


def test_help_names_the_three_commands_and_the_groups(tmp_path: Path):
    done = subprocess.run([sys.executable, "-m", "mtlbench.train", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "method=imtl dataset=cityscapes" in done.stdout
    assert "pcgrad" in done.stdout
