"""The logger against the real library, offline; its files are read back record by record."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.utils import instantiate

from mtlbench import config
from mtlbench.loggers.wandb import Wandb, flatten

BLOCK = 32768
LINE = {
    "steps": 39,
    "lr": 0.05,
    "losses": {"left": 0.5, "right": None},
    "weights": {"left": {"mean": 1.0, "min": 0.5, "max": 1.5}},
    "cosines": None,
    "val": {"left/accuracy": 97.0},
}
RECORD = {
    "run": "abc123",
    "config": {"seed": 0},
    "metrics": {"left/accuracy": {"unit": "%"}},
    "diverged": None,
    "seconds": 12.5,
    "parameters": {"shared": 7},
}


def lines(count, start=0):
    return [{"epoch": epoch, **LINE} for epoch in range(start, start + count)]


def records(path):
    """The records of a .wandb file: a header of 7 bytes, then LevelDB's log format (checksum, length, kind, data;
    kind 1 is whole, 2 to 4 are first, middle and last pieces; nothing but padding in a block's last 6 bytes)."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    assert content[:4] == b":W&B"
    position, pieces = 7, b""
    while position < len(content):
        if BLOCK - position % BLOCK < 7:
            position += BLOCK - position % BLOCK
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        pieces += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield Record.FromString(pieces)
            pieces = b""


def written(folder, run_id="abc123"):
    """(history, config, summary) of the only offline run in a run folder; history as one dict per epoch.

    wandb's own process writes its last records a moment after `finish` has returned.
    """
    (path,) = Path(folder).glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb")
    found = []
    while not found or found[-1].WhichOneof("record_type") != "exit":
        time.sleep(0.05)
        found = list(records(path))

    def values(items):
        return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}

    history, settings, summary = [], {}, {}
    for record in found:
        kind = record.WhichOneof("record_type")
        if kind == "history":
            history.append({k: v for k, v in values(record.history.item).items() if not k.startswith("_")})
        elif kind == "run":
            settings = values(record.run.config.update)
        elif kind == "summary":
            summary |= values(record.summary.update)
    return history, settings, summary


@pytest.fixture
def no_settings(monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_flatten_leaves_out_what_there_is_not():
    assert flatten({"epoch": 3, **LINE}) == {
        "epoch": 3,
        "steps": 39,
        "lr": 0.05,
        "losses/left": 0.5,
        "weights/left/mean": 1.0,
        "weights/left/min": 0.5,
        "weights/left/max": 1.5,
        "val/left/accuracy": 97.0,
    }


@pytest.mark.parametrize(
    ("key", "environment", "mode", "expected"),
    [
        ("", "", None, "offline"),
        ("secret", "", None, "online"),
        ("secret", "offline", None, "offline"),
        ("", "", "online", "online"),
        ("secret", "online", "disabled", "disabled"),
    ],
)
def test_offline_unless_told_otherwise(monkeypatch, no_settings, key, environment, mode, expected):
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_MODE", environment)
    assert Wandb("mtlbench", mode=mode).mode == expected


def test_another_mode_is_refused(no_settings, monkeypatch):
    with pytest.raises(ValueError, match=r"logger\.mode=on: expected online, offline, disabled, or nothing"):
        Wandb("mtlbench", mode="on")
    monkeypatch.setenv("WANDB_MODE", "dryrun")
    with pytest.raises(ValueError, match=r"WANDB_MODE=dryrun: expected online"):
        Wandb("mtlbench")


def test_it_is_an_option_that_is_off_by_default(no_settings):
    assert config.load([]).logger == {}
    chosen = config.load(["logger=wandb", "logger.mode=offline"])
    assert isinstance(instantiate(chosen.logger), Wandb)
    assert config.run_id(chosen) == config.run_id(config.load([]))


def test_wandb_is_imported_only_when_a_run_starts():
    code = "import sys, mtlbench.loggers.wandb as w; w.Wandb('p'); print('wandb' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


@pytest.mark.slow
def test_offline_run_and_its_continuation(tmp_path, no_settings, capfd):
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    first = Wandb("mtlbench")
    first.start(tmp_path, "abc123", {"seed": 0, "optimizer": {"lr": 0.05}}, [])
    for line in lines(3):
        first.line(line)
    first.finish(None)  # stopped

    history, settings, _ = written(tmp_path)
    assert history == [flatten(line) for line in lines(3)]
    assert settings["seed"] == 0
    assert settings["optimizer"] == {"lr": 0.05}

    second = Wandb("mtlbench")
    second.start(tmp_path, "abc123", {"seed": 0}, lines(2))  # the checkpoint was older than the last line
    for line in lines(3, start=2):
        second.line(line)
    second.finish(RECORD)

    history, _, summary = written(tmp_path)
    assert history == [flatten(line) for line in lines(5)]  # each epoch once
    assert summary["record/seconds"] == 12.5
    assert summary["record/parameters/shared"] == 7
    assert not any(key.startswith(("record/config", "record/metrics", "record/diverged")) for key in summary)
    assert {number: signal.getsignal(number) for number in handlers} == handlers  # ours to set, not the logger's
    assert capfd.readouterr() == ("", "")
    assert {path.name for path in tmp_path.iterdir()} == {"wandb"}


@pytest.mark.slow
def test_two_runs_in_one_process(tmp_path, no_settings):
    """As in a multirun: the first was interrupted and never finished."""
    loggers = {"a": Wandb("mtlbench"), "b": Wandb("mtlbench")}
    for name, logger in loggers.items():
        (tmp_path / name).mkdir()
        logger.start(tmp_path / name, name, {}, [])
        logger.line({"epoch": 0, "loss": float(ord(name))})
    for logger in loggers.values():
        logger.finish(RECORD)
    for name in loggers:
        assert written(tmp_path / name, name)[0] == [{"epoch": 0, "loss": float(ord(name))}]


@pytest.mark.slow
def test_a_process_that_ends_without_finishing_keeps_what_it_logged(tmp_path, no_settings):
    code = (
        "import sys; from pathlib import Path; from mtlbench.loggers.wandb import Wandb\n"
        f"logger = Wandb('mtlbench'); logger.start(Path({str(tmp_path)!r}), 'abc123', {{}}, [])\n"
        "logger.line({'epoch': 0, 'loss': 1.0}); sys.exit(85)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}  # this process's
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (85, "", "")
    assert written(tmp_path)[0] == [{"epoch": 0, "loss": 1.0}]


@pytest.mark.slow
def test_disabled_writes_nothing(tmp_path, no_settings):
    logger = Wandb("mtlbench", mode="disabled")
    logger.start(tmp_path, "abc123", {}, lines(1))
    logger.line(lines(1, start=1)[0])
    logger.finish(RECORD)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_refusal_to_start_says_how_to_go_on(tmp_path, no_settings):
    logger = Wandb("", mode="offline")
    with pytest.raises(ValueError, match=r"logger=wandb: .*Type logger\.mode=offline, or logger=none"):
        logger.start(tmp_path, "a/b", {}, [])
