"""What was read is kept, and is only ever a cache."""

import json
import os
import shutil

import numpy as np
import pytest

from mtlbench.aggregation import cache, curves, gather
from run_folders import Folder

GOOD = {"left/accuracy": 90.0, "right/error": 0.1}


@pytest.fixture
def runs(tmp_path):
    folder = Folder(tmp_path / "runs")
    folder.singles()
    for seed in range(3):
        folder.run(seed=seed, epochs=[{**GOOD, "left/accuracy": 80.0 + i + seed} for i in range(4)])
    return folder


@pytest.fixture
def reads(monkeypatch):
    """The folders that are read, in order."""
    found, read = [], cache._read
    monkeypatch.setattr(cache, "_read", lambda folder, seen: (found.append(folder.name), read(folder, seen))[1])
    return found


def test_the_second_call_reads_nothing_and_says_the_same(runs, tmp_path, reads):
    first = runs.aggregate(tmp_path, out="first")
    assert sorted(reads) == sorted(cell.id for cell in runs.cells)
    reads.clear()
    assert runs.aggregate(tmp_path, out="second") == first
    assert reads == []
    shutil.rmtree(runs.path / ".index")
    assert runs.aggregate(tmp_path, out="third") == first
    assert len(reads) == len(runs.cells)


def test_a_run_that_changed_is_read_again_and_others_are_not(runs, tmp_path, reads):
    runs.aggregate(tmp_path)
    reads.clear()
    folder = runs.path / runs.cells[-1].id
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(text.replace("85.0", "95.0"))
    files = runs.aggregate(tmp_path)
    assert reads == [folder.name]
    assert "95.0" in files["records.csv"]
    reads.clear()
    os.utime(folder / "record.json", ns=(1, 1))
    runs.aggregate(tmp_path)
    assert reads == [folder.name]


def test_a_run_that_is_gone_leaves_the_cache(runs, tmp_path):
    runs.aggregate(tmp_path)
    index = runs.path / ".index" / "tiny.read.json"
    gone = runs.cells[-1].id
    assert gone in json.loads(index.read_text())["runs"]
    shutil.rmtree(runs.path / gone)
    assert "2/3: 1 missing" in runs.aggregate(tmp_path)["table.md"]
    assert gone not in json.loads(index.read_text())["runs"]


@pytest.mark.parametrize("damage", ["cut index", "no numbers", "cut numbers", "others' numbers", "version", "nonsense"])
def test_a_cache_that_is_not_whole_is_not_used(runs, tmp_path, reads, damage):
    first = runs.aggregate(tmp_path, out="first")
    reads.clear()
    index, numbers = (runs.path / ".index" / f"tiny.read.{end}" for end in ("json", "f64"))
    if damage == "cut index":
        index.write_bytes(index.read_bytes()[:-5])
    elif damage == "no numbers":
        numbers.unlink()
    elif damage == "cut numbers":
        numbers.write_bytes(numbers.read_bytes()[:-8])
    elif damage == "others' numbers":  # as after a crash between the two renames
        numbers.write_bytes(b"x" * 16 + numbers.read_bytes()[16:])
    elif damage == "version":
        index.write_text(json.dumps({**json.loads(index.read_text()), "version": "another"}))
    else:
        index.write_text("[]")
    assert runs.aggregate(tmp_path, out="second") == first
    assert len(reads) == len(runs.cells)


def test_a_cache_that_cannot_be_written_costs_time_alone(runs, tmp_path):
    first = runs.aggregate(tmp_path, out="first")
    index = runs.path / ".index" / "tiny.read.json"
    index.unlink()
    index.mkdir()  # as good as a folder without write permission, which does not stop root
    with pytest.warns(UserWarning, match=r"tiny.read.json cannot be written \(.*\): the next call reads again"):
        assert runs.aggregate(tmp_path, out="second") == first
    assert not list((runs.path / ".index").glob("*.partial"))


def test_several_processes_read_the_same(runs, monkeypatch):
    one, _ = gather.gather(runs.cells, runs.path, "tiny")
    shutil.rmtree(runs.path / ".index")
    monkeypatch.setattr(cache, "MANY", 1)
    other, _ = gather.gather(runs.cells, runs.path, "tiny")
    for a, b in zip(one, other, strict=True):
        assert (a.id, a.record) == (b.id, b.record)
        assert a.curves.names == b.curves.names
        assert np.array_equal(a.curves.values, b.curves.values, equal_nan=True)


def test_numbers_come_back_to_the_bit(runs):
    gather.gather(runs.cells, runs.path, "tiny")
    results, _ = gather.gather(runs.cells, runs.path, "tiny")
    for result in results:
        fresh, _ = curves.read(runs.path / result.id / "metrics.jsonl")
        assert fresh.names == result.curves.names
        assert fresh.values.tobytes() == np.ascontiguousarray(result.curves.values).tobytes()


def test_unfinished_cells_take_their_configuration_from_a_neighbour_only_where_the_id_agrees(runs, monkeypatch):
    """A learning rate and a seed are set in a copy; another optimizer is composed, once for its seeds."""
    composed = []
    load = gather.config.load_run
    monkeypatch.setattr(gather.config, "load_run", lambda words: (composed.append(words), load(words))[1])
    known = [runs.cell("optimizer.lr=0.3", seed=seed)[0] for seed in (0, 7)]
    others = [runs.cell("optimizer=adam", f"optimizer.lr={lr}", seed=seed)[0] for lr in (0.1, 0.2) for seed in (0, 1)]
    for seed in range(2):
        runs.run("optimizer.lr=0.5", seed=seed, test=GOOD)
    composed.clear()
    results, _ = gather.gather(runs.cells, runs.path, "tiny")
    assert len(composed) == 1
    by_id = {result.id: result for result in results}
    assert [by_id[cell.id].config["optimizer"]["lr"] for cell in known] == [0.3, 0.3]
    assert [by_id[cell.id].seed for cell in known] == [0, 7]
    assert {by_id[cell.id].option("optimizer") for cell in others} == {"adam"}
    assert all(gather.id_of(result.config) == result.id for result in results)
