"""The benchmark of the methods' own arithmetic: what it times, and what it writes."""

import csv
import importlib
import sys

import pytest
import torch

from mtlbench import bench, config
from mtlbench.benchmarks import weights as bench_weights
from mtlbench.benchmarks import weights_table as bench_weights_table
from mtlbench.benchmarks.weights import jacobians, measure, timed_method
from mtlbench.benchmarks.weights_table import Time

TASKS = 5


@pytest.fixture
def settings():
    return config.load(["repeats=2"], name="bench_weights")


def rows_of(folder) -> list[dict[str, str]]:
    (path,) = folder.glob("*_weights.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


def test_a_row_for_each_method_and_number_of_tasks_and_what_cannot_run(tmp_path, capsys):
    typed = ['methods=[gls,"mgda solver=frank_wolfe",pcgrad,nope]', "tasks=[2,3]", "repeats=2", f"folder={tmp_path}"]
    assert bench_weights.bench_weights(typed) == "failed"
    rows = rows_of(tmp_path)
    assert [(row["method"], row["tasks"]) for row in rows] == [
        (name, count) for count in ("2", "3") for name in ("gls", "mgda solver=frank_wolfe", "pcgrad", "nope")
    ]
    for row in rows:
        if row["method"] == "nope":
            assert "no such method" in row["error"]
            assert row["median"] == ""
            continue
        assert (row["error"], row["limit"], row["verdict"]) == ("", "", "")  # limits are those of 40 tasks
        lower, middle, upper, longest = (float(row[key]) for key in ("lower", "median", "upper", "longest"))
        assert 0 < lower <= middle <= upper <= longest
        assert row["calls"] == str(2 * len(bench_weights.KINDS))
        assert row["slowest"] in bench_weights.KINDS
    assert [row["peer"] for row in rows] == ["", "", "PCGradWeighting", ""] * 2  # of a method without other keys
    assert all((row["peer"] == "") == (row["peer_median"] == "") for row in rows)
    (page,) = tmp_path.glob("*_weights.md")
    text = page.read_text()
    assert text in capsys.readouterr().out
    assert "## 3 tasks" in text
    assert "| nope | failed: ValueError: method=nope: there is no such method." in text


@pytest.mark.parametrize("name", config.options("method"))
def test_every_method_gives_weights_to_every_gramian(name):
    for kind, rows in jacobians(TASKS, 0).items():
        call = timed_method(bench_weights._node(name), TASKS, rows @ rows.T, 0)
        assert call(1).shared.isfinite().all(), kind


def test_the_method_has_lived_some_epochs_and_steps_differ():
    gramian = torch.eye(TASKS).double()
    call = timed_method(bench_weights._node("dwa"), TASKS, gramian, 0)
    assert call(1).shared.std() > 0  # in its first two epochs all weights are 1
    first, second = (timed_method(bench_weights._node("rlw"), TASKS, gramian, 0)(k).shared for k in (1, 2))
    assert not torch.equal(first, second)
    famo = timed_method(bench_weights._node("famo"), TASKS, gramian, 0)
    before = famo(1).shared / famo(1).shared.sum()
    for _ in range(5):
        famo(1)
    after = famo(1).shared / famo(1).shared.sum()
    assert (after - before).abs().max() > 1e-4  # it learns from the losses after the step


def test_a_method_without_finite_weights_is_refused():
    with pytest.raises(ValueError, match="MGDA gives task0 the weight nan"):
        timed_method(bench_weights._node("mgda"), 2, torch.full((2, 2), torch.inf).double(), 0)


def test_gramians_are_what_their_names_say():
    found = jacobians(12, 3)
    assert {rows.shape for rows in found.values()} == {(12, bench_weights.COORDINATES)}
    cosines = {}
    for kind, rows in found.items():
        unit = rows / rows.norm(dim=1, keepdim=True)
        cosines[kind] = unit @ unit.T
    ranks = {kind: int(torch.linalg.matrix_rank(rows)) for kind, rows in found.items()}
    assert {kind for kind, rank in ranks.items() if rank < 12} == {"rank T/3", "duplicated"}
    assert ranks["rank T/3"] == 4
    assert torch.linalg.cond(cosines["conflicting, ill-conditioned"]) > 1e8
    assert torch.linalg.cond(cosines["conflicting"]) < 1e4
    assert cosines["agreeing"].min() > 0.3
    for kind in ("conflicting", "conflicting, lengths 0.1 to 10", "stationary"):
        assert cosines[kind].min() < -0.5
    assert (cosines["nearly orthogonal"] - torch.eye(12)).abs().max() < 0.2
    assert found["stationary"].mean(0).norm() < 0.01 * found["stationary"].norm(dim=1).mean()
    assert torch.equal(jacobians(12, 3)["conflicting"], found["conflicting"])
    assert not torch.equal(jacobians(12, 4)["conflicting"], found["conflicting"])


@pytest.mark.parametrize(
    ("name", "milliseconds", "expected"),
    [
        ("gls", 1.9, "met"),
        ("gls", 2.1, "missed"),
        ("pcgrad", 9.0, "met"),
        ("mgda normalize=l2", 11.0, "missed"),
        ("upgrad", 500.0, ""),
    ],
)
def test_a_limit_is_held_against_the_lower_quartile_of_the_slowest_gramian(
    name, milliseconds, expected, settings, monkeypatch
):
    given = {kind: [1e-4] * 5 for kind in bench_weights.KINDS}
    given["stationary"] = [milliseconds / 1000] * 2 + [10.0] * 2 + [milliseconds / 2000]  # lower quartile: milliseconds
    following = iter(given.values())
    monkeypatch.setattr(bench_weights, "seconds", lambda call, repeats: next(following))
    settings.peers = False
    row = measure(name, 40, settings)
    assert row.error == ""
    assert (row.slowest, row.verdict) == ("stationary", expected)
    assert row.slowest_lower == pytest.approx(milliseconds)
    assert (row.median, row.longest, row.calls) == (pytest.approx(0.1), 10000.0, 5 * len(given))


def test_so_many_calls_or_fewer_that_take_seconds(monkeypatch):
    called = []
    assert len(bench_weights.seconds(called.append, 4)) == 4
    assert called == [0, 1, 2, 3, 4]  # the first is not counted
    clock = iter(range(0, 1000, 3))  # each call takes 3 s
    monkeypatch.setattr(bench_weights.time, "perf_counter", lambda: next(clock))
    assert bench_weights.seconds(called.append, 15) == [3, 3]


def test_peers_by_name(settings, monkeypatch):
    torchjd = importlib.import_module("torchjd.aggregation")
    cagrad = config.load(["method=cagrad", "method.c=0.7"]).method
    word, make = bench_weights.peer_of("cagrad", cagrad)
    assert (word, make().c) == ("CAGradWeighting", 0.7)
    assert bench_weights.peer_of("aligned_mtl", cagrad)[0] == "AlignedMTLWeighting"
    assert bench_weights.peer_of("gls", cagrad) is None

    def broken(self, gramian):
        raise RuntimeError("a peer's error")

    monkeypatch.setattr(torchjd.PCGradWeighting, "forward", broken)
    row = measure("pcgrad", 3, settings)
    assert (row.error, row.peer_error, row.peer_median) == ("", "RuntimeError: a peer's error", None)
    assert row.median > 0
    assert "not run: RuntimeError: a peer's error" in bench_weights_table.report([row], {}, "2 calls")
    settings.peers = False
    assert measure("pcgrad", 3, settings).peer == ""
    settings.peers = True
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)  # as if it were not installed
    row = measure("pcgrad", 3, settings)
    assert (row.error, row.peer, row.peer_error) == ("", "", "")


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    rows = [
        Time("mgda", 40, 10, 1.0, 0.5, 2.0, 9.0, "stationary", 1.5, 10.0, "met", "", "MGDAWeighting", 3, 2, 4, 5.0),
        Time("a|b", 40, error="ValueError: no\nnumbers | here"),
    ]
    facts = {"device": "A Machine (R), 2 cores"}
    text = bench_weights_table.write(rows, facts, "5 calls on each of 2 Gramians", tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "a-machine-r-2-cores_weights.csv",
        "a-machine-r-2-cores_weights.md",
    ]
    expected = (
        "| mgda | 1.00 | 0.50 to 2.00 | 9.00 | stationary, 1.50 | 10 ms: met | 3.00 (2.00 to 4.00, at most 5.00) |"
    )
    assert expected in text.splitlines()
    assert "| a\\|b | failed: ValueError: no numbers \\| here | | | | | |" in text.splitlines()
    before = (tmp_path / "new" / "a-machine-r-2-cores_weights.csv").read_bytes()
    assert bench_weights_table.write(rows, facts, "5 calls on each of 2 Gramians", tmp_path / "new") == text
    assert (tmp_path / "new" / "a-machine-r-2-cores_weights.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("tasks=0", "tasks=0: expected numbers of tasks"),
        ("tasks=[]", "expected numbers of tasks"),
        ("tasks=many", "tasks=many: expected numbers of tasks"),
        ("repeats=1", "repeats=1: expected a whole number, at least 2"),
        ("repeat=3", "There are: .*repeats"),
    ],
)
def test_wrong_keys_get_a_sentence(wrong, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        bench_weights.bench_weights([wrong, f"folder={tmp_path}"])
    assert not list(tmp_path.iterdir())


def test_it_is_a_benchmark_of_the_command():
    assert bench.benchmark("weights") is bench_weights.bench_weights
