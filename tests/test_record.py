"""A run's folder: its claim, its states, its files, and what happens to them when something breaks."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlbench import claim, provenance, record
from mtlbench.record import Busy, Done, Lost, Run, state_of

CONFIG = {
    "seed": 0,
    "optimizer": {"_target_": "torch.optim.SGD", "lr": 1e-4, "betas": [0.9, 0.999]},
    "method": {"_target_": "a.B", "eps": 1e-8},
    "machine": {"runs": "runs", "threads": None},
}
IDENTITY = {key: value for key, value in CONFIG.items() if key != "machine"}


def start(runs: Path, id: str = "ab12", config: dict = CONFIG, identity: dict = IDENTITY, data: str = "real:1") -> Run:
    return Run.open(runs, id, config, identity, data)


def state(value: float) -> dict:
    return {"w": torch.full((40, 40), value), "epoch": int(value)}


def die(runs: Path, id: str = "ab12") -> Path:
    """Leaves the folder as a process that was killed does; returns its claim."""
    path = start(runs, id)._claim.path
    held = json.loads(path.read_text())
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    path.write_text(json.dumps({**held, "pid": process.pid, "token": "of the dead"}))
    return path


def python(code: str, *words: object, **keys: object) -> subprocess.Popen:
    """A process that runs `code` with what this file imports, its words in `argv`."""
    head = (
        "import json, os, sys, time; from pathlib import Path; from mtlbench import claim\n"
        "from mtlbench.record import Busy, Done, Lost, Run, state_of\nargv = sys.argv[1:]\n"
        f"config, identity = {CONFIG!r}, {IDENTITY!r}\n"
        "start = lambda: Run.open(Path(argv[0]), 'ab12', config, identity, 'real:1')\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", head + code, *map(str, words)], stdout=subprocess.PIPE, text=True, **keys
    )


# states


def test_states_from_the_folder_alone(tmp_path: Path):
    folder = tmp_path / "ab12"
    assert state_of(folder) == "missing"
    folder.mkdir()
    (folder / ".probe-left").touch()
    assert state_of(folder) == "missing"
    with start(tmp_path) as run:
        assert (run.id, run.folder) == ("ab12", folder)
        assert state_of(folder) == "running"
    assert state_of(folder) == "interrupted"
    run = start(tmp_path)
    run.fail("Traceback\nOSError: full")
    assert state_of(folder) == "failed"
    run = start(tmp_path)
    assert state_of(folder) == "running"
    run.finish({"run": "ab12"})
    assert state_of(folder) == "done"
    assert not (folder / "error.txt").exists()
    assert (folder / "error.previous.txt").read_text() == "Traceback\nOSError: full\n"


def test_a_file_is_no_run(tmp_path: Path):
    (tmp_path / "ab12").write_text("")
    assert state_of(tmp_path / "ab12") == "missing"


def test_a_done_run_is_not_started(tmp_path: Path):
    start(tmp_path).finish({"run": "ab12", "seconds": math.inf, "metrics": {"a/b": {"value": math.nan}}})
    with pytest.raises(Done) as done:
        start(tmp_path)
    assert done.value.record == {"run": "ab12", "seconds": None, "metrics": {"a/b": {"value": None}}}
    assert record.read_record(tmp_path / "ab12") == done.value.record


def test_reading_a_record_that_is_not_there_or_damaged(tmp_path: Path):
    start(tmp_path).release()
    with pytest.raises(ValueError, match="the run is interrupted, not done"):
        record.read_record(tmp_path / "ab12")
    (tmp_path / "ab12" / "record.json").write_text('{"run": ')
    with pytest.raises(ValueError, match=r"record.json is damaged .* run it again"):
        record.read_record(tmp_path / "ab12")


def test_files_of_a_run(tmp_path: Path):
    run = start(tmp_path)
    assert yaml.safe_load((run.folder / "config.yaml").read_text()) == CONFIG
    held = json.loads((run.folder / "claim.0.json").read_text())
    assert held["pid"] == os.getpid()
    assert held["fingerprint"] == "real:1"
    assert json.loads((run.folder / "data.json").read_text()) == {"fingerprint": "real:1"}
    run.release()
    assert json.loads((run.folder / "data.json").read_text()) == {"fingerprint": "real:1"}


# what is refused


def leave(runs: Path, how: str) -> None:
    """A folder in one of the states."""
    run = start(runs)
    {"interrupted": run.release, "done": lambda: run.finish({}), "failed": lambda: run.fail("x"), "running": str}[how]()
    assert state_of(run.folder) == how


@pytest.mark.parametrize("how", ["interrupted", "done", "failed", "running"])
def test_other_data_is_refused_in_any_state(tmp_path: Path, how: str):
    leave(tmp_path, how)
    with pytest.raises(
        ValueError, match=r"made from other data: real:1 there, synthetic:2 here.*machine.data.*machine.runs"
    ):
        start(tmp_path, data="synthetic:2")
    assert state_of(tmp_path / "ab12") == how


def test_other_data_is_refused_by_the_record_alone(tmp_path: Path):
    start(tmp_path).finish({"fingerprint": "real:1"})
    (tmp_path / "ab12" / "data.json").unlink()
    with pytest.raises(ValueError, match="real:1 there, other here"):
        start(tmp_path, data="other")


@pytest.mark.parametrize("how", ["interrupted", "done", "failed"])
def test_a_folder_of_another_configuration_is_refused(tmp_path: Path, how: str):
    leave(tmp_path, how)
    other = {**CONFIG, "optimizer": {**CONFIG["optimizer"], "lr": 0.1}, "seed": 3}
    identity = {key: value for key, value in other.items() if key != "machine"}
    with pytest.raises(ValueError, match=r"optimizer.lr is 0.0001 there, 0.1 here; seed is 0 there, 3 here") as error:
        start(tmp_path, config=other, identity=identity)
    assert "ab12 belongs to another configuration" in str(error.value)
    assert state_of(tmp_path / "ab12") == how


def test_a_key_that_is_gone_is_another_configuration(tmp_path: Path):
    start(tmp_path).release()
    other = {**CONFIG, "method": {"_target_": "a.B"}}
    with pytest.raises(ValueError, match=r"method.eps is 1e-08 there, nothing here"):
        start(tmp_path, config=other, identity={k: v for k, v in other.items() if k != "machine"})


def test_the_machine_and_new_neutral_keys_may_differ(tmp_path: Path):
    start(tmp_path).release()
    newer = {**CONFIG, "machine": {"runs": "elsewhere", "workers": 2}, "new": 1}
    newer["method"] = {**CONFIG["method"], "neutral": False}
    start(tmp_path, config=newer, identity=IDENTITY).release()  # not in the identity: at its default


def test_a_damaged_config_is_refused(tmp_path: Path):
    start(tmp_path).release()
    (tmp_path / "ab12" / "config.yaml").write_text("a: [1, 2")
    with pytest.raises(ValueError, match=r"config.yaml is damaged"):
        start(tmp_path)


def test_a_file_where_a_folder_is_expected(tmp_path: Path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(ValueError, match=r"runs is a file; a folder is expected there \(machine.runs\)"):
        start(tmp_path / "runs")
    (tmp_path / "ab12").write_text("")
    with pytest.raises(ValueError, match=r"ab12 is a file; a folder"):
        start(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"cannot be written: .*Set machine.runs to a folder of yours"):
        start(Path("/proc/self/runs"))  # also for root
    make = os.open

    def refuse(path: object, flags: int, *rest: object) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return make(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ValueError, match=r"ab12 cannot be written: Permission denied"):
        start(tmp_path)


def test_a_full_disk_at_the_start_leaves_no_claim_that_looks_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(claim, "_fill", full)
        with pytest.raises(ValueError, match="No space left on device"):
            start(tmp_path)
    assert state_of(tmp_path / "ab12") == "interrupted"
    start(tmp_path).release()


# the claim


def test_a_live_run_is_busy_and_says_whose_it_is(tmp_path: Path):
    run = start(tmp_path)
    with pytest.raises(Busy, match=rf"process {os.getpid()} on .*, since .*Wait for it, or stop it") as busy:
        start(tmp_path)
    assert busy.value.holder["token"] == run._claim.token
    run.release()
    start(tmp_path).release()


def test_a_claim_that_is_just_being_written_is_busy(tmp_path: Path):
    start(tmp_path).release()
    (tmp_path / "ab12" / "claim.1.json").write_text("")
    with pytest.raises(Busy, match="is being run by a process"):
        start(tmp_path)
    assert state_of(tmp_path / "ab12") == "running"


def test_the_dead_are_interrupted_and_taken_over(tmp_path: Path):
    old = die(tmp_path)
    assert state_of(old.parent) == "interrupted"
    run = start(tmp_path)
    assert not old.exists()
    assert run._claim.path.name == "claim.1.json"
    run.check()


def test_a_process_number_used_again_is_noticed(tmp_path: Path):
    path = start(tmp_path)._claim.path
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "process_start": held["process_start"] - 1}))  # this pid, but older
    assert state_of(tmp_path / "ab12") == "interrupted"
    start(tmp_path).check()


@pytest.mark.parametrize("change", [{"place": "another host"}, {}])
def test_five_minutes_of_silence_by_the_clock_of_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict
):
    run = start(tmp_path)
    path = run._claim.path
    path.write_text(json.dumps({**json.loads(path.read_text()), "pid": os.getpid(), **change}))
    monkeypatch.setattr(time, "time", lambda: 0.0)  # this host's clock is wrong: nobody asks it
    now = path.stat().st_mtime
    os.utime(path, (now - 290, now - 290))
    assert state_of(run.folder) == "running"
    os.utime(path, (now - 310, now - 310))
    assert state_of(run.folder) == "interrupted"
    start(tmp_path).check()
    with pytest.raises(Lost):
        run.check()


def test_dead_processes_elsewhere_are_not_judged_by_their_number(tmp_path: Path):
    path = die(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "place": "another host"}))
    assert state_of(path.parent) == "running"


def test_a_reader_without_write_access_uses_its_own_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = start(tmp_path)

    def refuse(*args: object, **keys: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    assert state_of(run.folder) == "running"
    monkeypatch.setattr(time, "time", lambda: run._claim.path.stat().st_mtime + 310)
    assert state_of(run.folder) == "interrupted"


WRITES = {
    "append": lambda run: run.append({"epoch": 1}),
    "keep_lines": lambda run: run.keep_lines(0),
    "save": lambda run: run.save(state(2)),
    "save_best": lambda run: run.save_best(state(2)),
    "load": lambda run: run.load(),
    "tidy": lambda run: run.tidy("last"),
    "finish": lambda run: run.finish({}),
}


@pytest.mark.parametrize("how", ["taken over", "removed", "removed and begun anew"])
@pytest.mark.parametrize("write", WRITES)
def test_a_run_that_was_lost_writes_nothing(tmp_path: Path, write: str, how: str):
    run = start(tmp_path)
    run.append({"epoch": 0})
    run.save(state(1))
    if how == "taken over":
        (run.folder / "claim.1.json").write_text("{}")
    else:
        run.folder.rename(tmp_path / "old")
    if how == "removed and begun anew":
        start(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(Lost):
        WRITES[write](run)
    with pytest.warns(UserWarning, match="error.txt could not be written"):
        run.fail("x")
    run.release()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_heartbeat_keeps_a_claim_alive_until_it_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(claim, "BEAT", 0.01)
    before = set(threading.enumerate())
    run = start(tmp_path)
    (thread,) = set(threading.enumerate()) - before
    path = run._claim.path
    for _ in range(3):
        os.utime(path, (0, 0))
        wait_for(lambda: path.stat().st_mtime > 0)
    (run.folder / "claim.1.json").write_text("{}")
    thread.join(10)
    assert not thread.is_alive()


def test_the_heartbeat_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = set(threading.enumerate())
    run = start(tmp_path)
    (thread,) = set(threading.enumerate()) - before
    run.finish({})
    thread.join(10)
    assert not thread.is_alive()


def wait_for(condition: object) -> None:
    while not condition():
        time.sleep(0.005)


def test_a_slow_process_cannot_take_what_a_faster_one_has_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two find the same stale claim; the slow one acts after the fast one has taken over and cleaned up."""
    die(tmp_path)
    fast: list[Run] = []
    look = claim.holder

    def slowly(folder: Path) -> dict | None:
        found = look(folder)
        if not fast:
            monkeypatch.setattr(claim, "holder", look)
            fast.append(start(tmp_path))
        return found

    monkeypatch.setattr(claim, "holder", slowly)
    with pytest.raises(Busy):
        start(tmp_path)
    fast[0].check()


def test_a_number_that_was_freed_in_between_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The slow one sees claim 0; meanwhile 1 was made and given back, and 2 made, which removed 0 and 1."""
    die(tmp_path)
    fast: list[Run] = []
    look = claim.holder

    def slowly(folder: Path) -> dict | None:
        found = look(folder)
        if not fast:
            monkeypatch.setattr(claim, "holder", look)
            start(tmp_path).release()
            fast.append(start(tmp_path))
        return found

    monkeypatch.setattr(claim, "holder", slowly)
    with pytest.raises(Busy):
        start(tmp_path)
    assert sorted(path.name for path in fast[0].folder.glob("claim*")) == ["claim.2.json"]
    fast[0].check()


def test_a_run_that_ended_while_it_was_being_claimed_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    start(tmp_path).release()
    look = record._refuse

    def finish_after(*args: object) -> None:
        look(*args)
        monkeypatch.setattr(record, "_refuse", look)
        start(tmp_path).finish({"run": "by the other"})

    monkeypatch.setattr(record, "_refuse", finish_after)
    with pytest.raises(Done) as done:
        start(tmp_path)
    assert done.value.record == {"run": "by the other"}


RACE = """
Path(argv[1]).touch()
while not Path(argv[2]).exists(): time.sleep(0.0005)
try:
    run = start()
    print('won', flush=True)
    sys.stdin.read()
    run.check()
except Busy: print('busy', flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", ["nothing", "a dead one's claim", "a claim given back"])
def test_exactly_one_of_many_processes_gets_the_run(tmp_path: Path, before: str):
    if before == "a dead one's claim":
        die(tmp_path)
    elif before == "a claim given back":
        start(tmp_path).release()
    for attempt in range(3):
        go = tmp_path / f"go{attempt}"
        ready = [tmp_path / f"ready{attempt}.{k}" for k in range(8)]
        processes = [python(RACE, tmp_path, path, go, stdin=subprocess.PIPE) for path in ready]
        wait_for(lambda ready=ready: all(path.exists() for path in ready))
        go.touch()
        words = [process.stdout.readline().strip() for process in processes]
        assert sorted(words) == ["busy"] * 7 + ["won"]
        winner = processes[words.index("won")]
        for process in processes:
            if process is not winner:
                process.wait()
        if attempt == 0:
            winner.kill()  # the next round takes over from it
        winner.communicate()
        assert winner.returncode == (-signal.SIGKILL if attempt == 0 else 0)
        assert state_of(tmp_path / "ab12") == "interrupted"


@pytest.mark.slow
def test_a_killed_holder_even_unreaped_is_interrupted(tmp_path: Path):
    process = python("run = start(); print(state_of(run.folder), flush=True); time.sleep(600)", tmp_path)
    assert process.stdout.readline() == "running\n"
    with pytest.raises(Busy, match=f"process {process.pid} "):
        start(tmp_path)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but a zombie: it is still in the process table
    assert claim.process_start(process.pid) is None
    assert state_of(tmp_path / "ab12") == "interrupted"
    start(tmp_path).release()
    process.wait()


# metrics.jsonl


def test_lines_are_appended_with_null_for_what_is_not_finite(tmp_path: Path):
    run = start(tmp_path)
    assert run.lines() == []
    run.append({"epoch": 0, "losses": {"a": math.nan, "b": 1.5}, "pairs": [math.inf, -math.inf, 2], "val": None})
    run.append({"epoch": 1})
    first = {"epoch": 0, "losses": {"a": None, "b": 1.5}, "pairs": [None, None, 2], "val": None}
    assert run.lines() == [first, {"epoch": 1}]
    run.keep_lines(1)
    assert run.lines() == [first]
    run.append({"epoch": 1, "again": True})
    assert record.read_lines(run.folder) == [first, {"epoch": 1, "again": True}]


@settings(deadline=None, derandomize=True, max_examples=15)
@given(cut=st.integers(1, 40))
def test_a_truncated_last_line_is_dropped_with_a_warning(tmp_path_factory: pytest.TempPathFactory, cut: int):
    runs = tmp_path_factory.mktemp("runs")
    lines = [{"epoch": 0, "loss": 1.25}, {"epoch": 1, "loss": 0.5, "text": "a longer line, é"}]
    run = start(runs)
    for line in lines:
        run.append(line)
    run.release()
    path = run.folder / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    kept = lines if cut == 1 else lines[:1]  # without its newline alone it is a whole line
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert record.read_lines(run.folder) == kept
        assert len(caught) == (cut > 1)
        run = start(runs)
    run.append({"epoch": 2})
    assert run.lines() == [*kept, {"epoch": 2}]


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path: Path):
    run = start(tmp_path)
    (run.folder / "metrics.jsonl").write_text('{"epoch": 0}\n{"epo\n{"epoch": 2}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 2: not JSON"):
        run.lines()


# checkpoints


def test_save_and_load_with_rotation(tmp_path: Path):
    run = start(tmp_path)
    assert run.load() is None
    for value in (1, 2, 3):
        run.save(state(value))
        loaded = run.load()
        assert loaded["epoch"] == value
        assert torch.equal(loaded["w"], state(value)["w"])
    assert record.load_state(run.folder / "checkpoint.previous.pt")["epoch"] == 2
    run.save_best(state(7))
    run.save_best(state(8))
    assert record.load_state(run.folder / "best.pt")["epoch"] == 8
    assert run.load()["epoch"] == 3
    assert not list(run.folder.glob("*.partial"))


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    middle = data.find(bytes(state(3)["w"][:4].numpy().tobytes()))
    if how == "truncated":
        del data[len(data) // 2 :]
    elif how == "empty":
        data.clear()
    elif middle < 0:
        raise AssertionError("damage() looks for the numbers of state(3)")
    elif how == "a flipped bit":
        data[middle] ^= 1
    elif how == "zeroed":
        data[middle : middle + 512] = bytes(512)
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["truncated", "empty", "a flipped bit", "zeroed"])
def test_a_broken_checkpoint_falls_back_to_the_one_before(tmp_path: Path, how: str):
    run = start(tmp_path)
    run.save(state(2))
    run.save(state(3))
    damage(run.folder / "checkpoint.pt", how)
    with pytest.warns(UserWarning, match=r"ab12/checkpoint.pt is broken .*goes on from the checkpoint before"):
        assert run.load()["epoch"] == 2
    run.save(state(3))  # the broken one is not rotated over the good one
    assert record.load_state(run.folder / "checkpoint.previous.pt")["epoch"] == 2
    assert run.load()["epoch"] == 3


def test_both_checkpoints_broken_starts_from_the_beginning_loudly(tmp_path: Path):
    run = start(tmp_path)
    run.save(state(3))
    run.save(state(3))
    damage(run.folder / "checkpoint.pt", "truncated")
    damage(run.folder / "checkpoint.previous.pt", "a flipped bit")
    with (
        pytest.warns(UserWarning, match=r"checkpoint.pt is broken"),
        pytest.warns(UserWarning, match=r"checkpoint.previous.pt is broken .* starts from the beginning"),
    ):
        assert run.load() is None


def test_every_truncation_is_noticed(tmp_path: Path):
    whole = tmp_path / "whole.pt"
    torch.save(state(3), whole)
    data, cut = whole.read_bytes(), tmp_path / "cut.pt"
    for length in range(0, len(data), 211):
        cut.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"cut.pt is broken"):
            record.load_state(cut)


def test_a_kill_between_any_two_renames_leaves_a_readable_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Killed(BaseException):
        pass

    replace = os.replace
    for allowed in (0, 1, 2):
        run = start(tmp_path, f"ab{allowed}")
        run.save(state(1))
        run.save(state(2))
        left = [allowed]

        def killing(a: object, b: object, left: list[int] = left) -> None:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            replace(a, b)

        monkeypatch.setattr(os, "replace", killing)
        if allowed < 2:
            with pytest.raises(Killed):
                run.save(state(3))
        else:
            run.save(state(3))
        monkeypatch.setattr(os, "replace", replace)
        run.release()
        run = start(tmp_path, f"ab{allowed}")
        assert run.load()["epoch"] == (3 if allowed == 2 else 2)
        assert not list(run.folder.glob("*.partial"))


@pytest.fixture
def small_disk(tmp_path: Path):
    """A folder on a disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip(f"mounting a small disk needs rights: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_during_a_checkpoint_keeps_the_old_one(small_disk: Path):
    run = start(small_disk)
    run.save(state(1))
    run.save(state(2))
    large = {"w": torch.zeros(100_000)}
    for save in (run.save, run.save_best):
        with pytest.raises(OSError, match=r"No space left on device: .*\.pt\. .* Make room there") as error:
            save(large)
        assert error.value.errno == errno.ENOSPC
    assert run.load()["epoch"] == 2
    assert record.load_state(run.folder / "checkpoint.previous.pt")["epoch"] == 1
    assert not list(run.folder.glob("*.partial"))
    run.save(state(3))  # there is room again
    assert run.load()["epoch"] == 3


def test_a_full_disk_keeps_lines_and_small_files_whole(small_disk: Path):
    run = start(small_disk)
    run.append({"epoch": 0})
    filler = small_disk / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        file.writelines(bytes(4096) for _ in range(100))
    with pytest.raises(OSError, match=r"metrics.jsonl. The lines before are kept. Make room"):
        run.append({"epoch": 1, "text": "x" * 9000})
    assert run.lines() == [{"epoch": 0}]
    with pytest.raises(OSError, match=r"record.json. What was there is kept. Make room"):
        run.finish({"run": "x" * 9000})
    with pytest.warns(UserWarning, match=r"error.txt could not be written"):
        run.fail("x" * 9000)
    assert state_of(run.folder) == "interrupted"
    filler.unlink()
    start(small_disk).append({"epoch": 1})
    assert record.read_lines(run.folder) == [{"epoch": 0}, {"epoch": 1}]


def test_a_failing_write_during_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = start(tmp_path)
    run.save(state(1))
    write, room = record._write_all, [2000]

    def fills(file: object, data: bytes) -> int:
        room[0] -= len(data)
        if room[0] < 0:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        return write(file, data)

    monkeypatch.setattr(record, "_write_all", fills)
    with pytest.raises(OSError, match=r"Disk quota exceeded: .*checkpoint.pt. The checkpoint before is kept"):
        run.save(state(2))
    monkeypatch.undo()
    assert run.load()["epoch"] == 1


def test_an_object_that_cannot_be_saved_is_not_called_a_disk_error(tmp_path: Path):
    run = start(tmp_path)
    run.save(state(1))
    with pytest.raises((AttributeError, TypeError)) as error:
        run.save({"lock": threading.Lock()})
    assert not isinstance(error.value, OSError)
    assert run.load()["epoch"] == 1


def test_reading_a_checkpoint_of_a_run_that_nobody_has(tmp_path: Path):
    run = start(tmp_path)
    with pytest.raises(ValueError, match=r"no last checkpoint .*there: none.*keep=all"):
        record.read_checkpoint(run.folder)
    run.save(state(2))
    run.save(state(3))
    run.finish({})
    assert record.read_checkpoint(run.folder)["epoch"] == 3
    with pytest.raises(ValueError, match=r"no best checkpoint .*there: checkpoint.previous.pt, checkpoint.pt"):
        record.read_checkpoint(run.folder, "best")
    with pytest.raises(ValueError, match="checkpoint=first: expected last or best"):
        record.read_checkpoint(run.folder, "first")
    damage(run.folder / "checkpoint.pt", "zeroed")
    with pytest.warns(UserWarning, match=r"checkpoint.pt is broken .* checkpoint.previous.pt is read in its place"):
        assert record.read_checkpoint(run.folder)["epoch"] == 2
    assert (run.folder / "checkpoint.pt").exists()
    damage(run.folder / "checkpoint.previous.pt", "empty")
    with (
        pytest.warns(UserWarning, match="in its place"),
        pytest.raises(ValueError, match=r"no last checkpoint that can be read .*checkpoint.pt is broken"),
    ):
        record.read_checkpoint(run.folder)


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        ("last", ["checkpoint.pt"]),
        ("best", ["best.pt"]),
        ("all", ["best.pt", "checkpoint.previous.pt", "checkpoint.pt"]),
    ],
)
def test_tidy(tmp_path: Path, keep: str, left: list[str]):
    run = start(tmp_path)
    run.save(state(1))
    run.save(state(2))
    run.save_best(state(1))
    run.finish({})
    run.tidy(keep)
    assert sorted(path.name for path in run.folder.glob("*.pt")) == left


def test_tidy_best_without_a_best_keeps_the_last(tmp_path: Path):
    run = start(tmp_path)
    run.save(state(1))
    run.save(state(2))
    run.finish({})
    run.tidy("best")
    assert [path.name for path in run.folder.glob("*.pt")] == ["checkpoint.pt"]


# provenance


def test_source_hash_is_of_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert len(provenance.source_hash()) == 16
    (tmp_path / "methods").mkdir()
    (tmp_path / "a.py").write_text("a = 1")
    (tmp_path / "methods" / "b.py").write_text("b = 1")
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path)
    hashed = provenance.source_hash.__wrapped__
    first = hashed()
    (tmp_path / "notes.txt").write_text("not a source")
    assert hashed() == first
    (tmp_path / "methods" / "b.py").write_text("b = 2")
    second = hashed()
    (tmp_path / "methods" / "b.py").rename(tmp_path / "methods" / "c.py")
    assert len({first, second, hashed()}) == 3


def test_hash_of_is_of_the_files_of_the_classes():
    one, other = provenance.hash_of(Path()), provenance.hash_of(threading.Event())
    assert one != other
    assert provenance.hash_of(Path(), threading.Event()) == provenance.hash_of(threading.Event(), Path(), Path("a"))
    assert provenance.hash_of(Path(), threading.Event()) not in (one, other)


def test_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "src" / "mtlbench"
    package.mkdir(parents=True)
    (tmp_path / "conf").mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(provenance, "_PACKAGE", package)
    state = provenance.git_state.__wrapped__

    def git(*words: str) -> str:
        names = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *names, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    assert state() == {"commit": None, "dirty": None}
    git("init", "-q")
    assert state() == {"commit": None, "dirty": None}  # somebody's checkout, but the package is not of it
    git("add", "src")
    git("commit", "-qm", "a")
    assert state() == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "README.md").write_text("changes nothing")
    assert state()["dirty"] is False
    (tmp_path / "conf" / "new.yaml").write_text("")
    assert state()["dirty"] is True
    (tmp_path / "conf" / "new.yaml").unlink()
    (package / "__init__.py").write_text("a = 1")
    assert state()["dirty"] is True


def test_versions_name_what_makes_numbers():
    found = provenance.versions()
    assert found["torch"] == torch.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"numpy", "torchvision", "timm", "hydra-core", "cuda"} <= set(found)


def test_reading_runs_needs_no_torch(tmp_path: Path):
    run = start(tmp_path)
    run.append({"epoch": 0})
    run.finish({"run": "ab12"})
    code = (
        "from mtlbench.record import read_lines, read_record\n"
        "from mtlbench.provenance import source_hash, versions\nfolder = Path(argv[0]) / 'ab12'\n"
        "print(state_of(folder), read_lines(folder), read_record(folder), source_hash() and versions() and None)\n"
        "assert 'torch' not in sys.modules and 'hydra' not in sys.modules"
    )
    process = python(code, tmp_path)
    assert process.communicate()[0] == "done [{'epoch': 0}] {'run': 'ab12'} None\n"
    assert process.returncode == 0
