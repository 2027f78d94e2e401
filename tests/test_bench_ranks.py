"""The benchmark of several processes: equal work on both sides, what is exchanged, what is written."""

import csv
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from mtlbench import bench, config
from mtlbench.benchmarks import ranks as bench_ranks
from mtlbench.benchmarks import ranks_table as bench_ranks_table
from mtlbench.benchmarks.ranks import DDP, Parallel, Together, exchanged
from mtlbench.benchmarks.ranks_table import RankCost
from mtlbench.benchmarks.training import Trainer
from mtlbench.parallel import Ranks, stop

TINY = ["backbone.output_stride=32", "head.hidden=4", "image=[32,32]", "batch_size=4", "pairs=2", "warm_up=1"]
TINY += ["machine.device=cpu"]


def rows_of(folder) -> dict[str, dict[str, str]]:
    (path,) = folder.glob("*_ranks.csv")
    with path.open() as file:
        return {row["method"]: row for row in csv.DictReader(file)}


@pytest.fixture
def _alone(monkeypatch):
    """Not started by torchrun, whatever the tests before left."""
    for name in ("WORLD_SIZE", "RANK", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)


# --------------------------------------------------------------------------------- two processes


@pytest.mark.slow
@pytest.mark.usefixtures("_alone")
def test_two_processes_from_the_command_to_the_table(tmp_path, capsys):
    methods = 'methods=[equal,mgda,"imtl_g level=parameter",nope]'
    assert bench_ranks.bench_ranks([*TINY, methods, f"folder={tmp_path}"]) == "failed"  # nope is no method
    rows = rows_of(tmp_path)
    assert list(rows) == [DDP, "equal", "mgda", "imtl_g level=parameter", "nope"]
    assert "no such method" in rows.pop("nope")["error"]
    for row in rows.values():
        assert (row["error"], row["pairs"]) == ("", "2")
        lower, middle, upper = (float(row[key]) for key in ("ratio_lower", "ratio", "ratio_upper"))
        assert 0 < lower <= middle <= upper
        assert float(row["seconds"]) > 0
    made = bench_ranks.Trainer(config.load(TINY, name="bench_ranks"), Ranks())
    every, shared = ([p.numel() for p in ps] for ps in (made.model.parameters(), made.model.shared_parameters()))
    numbers = {name: int(row["numbers"]) for name, row in rows.items()}
    count = 3
    assert numbers[DDP] == sum(every)
    # a flag for each gradient; of each task what its loss is divided by, and the loss
    counts = sum(len(c) for c in made.counts().values())
    assert numbers["equal"] == sum(every) + len(every) + counts + count
    assert numbers["mgda"] == numbers["equal"] + count * count
    # all rows instead of one gradient, each of them without flags
    assert numbers["imtl_g level=parameter"] == numbers["equal"] + (count - 1) * sum(shared) - len(shared)
    assert int(rows[DDP]["bytes"]) == 4 * sum(every)
    assert 4 * numbers["mgda"] < int(rows["mgda"]["bytes"]) < 4 * numbers["mgda"] + 200  # Gramian and losses: 8 bytes
    (page,) = tmp_path.glob("*_ranks.md")
    text = page.read_text()
    assert text in capsys.readouterr().out
    assert "T x T = 9 numbers" in text
    assert "- threads: 1" in text
    assert "- processes: 2, gloo" in text


@pytest.mark.slow
def test_both_sides_leave_the_same_gradients(tmp_path):
    multiprocessing.start_processes(_compare_gradients, (str(tmp_path / "store"),), nprocs=2, start_method="spawn")


def _compare_gradients(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    ranks = Ranks(rank, 2, group=dist.new_group())
    for typed in (TINY, ["workload=attributes", "attributes=3", "image=[32,32]", "batch_size=8"]):
        loaded = config.load(
            ["machine.device=cpu", "precision=float64", *(o for o in typed if o != "machine.device=cpu")],
            name="bench_ranks",
        )
        sides = [Trainer(loaded, ranks), Parallel(loaded, ranks), Parallel(loaded, ranks, in_python=True)]
        for side in sides:
            torch.manual_seed(rank)  # of dropout
            whole = len(side.data[0])
            Together(side)
            assert len(side.data[0]) == whole // 2
            side.gradients()
        ours, *theirs = ([p.grad for p in side.model.parameters()] for side in sides)
        assert sum(g.abs().sum() for g in ours) > 0
        for found in theirs:
            for a, b in zip(ours, found, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(a.abs().max() + 1e-3))
    stop(ranks)


# --------------------------------------------------------------------------------- in this process


def test_what_is_handed_to_collective_operations_is_counted(monkeypatch):
    called = []
    for name in ("all_reduce", "broadcast", "all_gather_into_tensor"):
        monkeypatch.setattr(dist, name, lambda *given, name=name, **keys: called.append((name, keys)) or name)
    before = dist.all_reduce
    with exchanged() as found:
        assert dist.all_reduce(torch.zeros(3), async_op=True) == "all_reduce"
        dist.broadcast(torch.zeros(2, 2).double(), 0)
        dist.all_gather_into_tensor(torch.zeros(10), torch.zeros(5))
        Ranks(0, 2).sum(torch.zeros(7))
    assert found == [(3, 12), (4, 32), (5, 20), (7, 28)]
    assert [name for name, _ in called] == ["all_reduce", "broadcast", "all_gather_into_tensor", "all_reduce"]
    assert called[0][1] == {"async_op": True}
    assert dist.all_reduce is before


def test_each_rank_takes_its_part_and_waits_for_the_others(monkeypatch):
    loaded = config.load(TINY, name="bench_ranks")
    waited = []
    monkeypatch.setattr(Ranks, "barrier", lambda self: waited.append(self.rank))
    parts = []
    for rank in range(2):
        training = Trainer(loaded, Ranks())
        whole = training.data
        training.ranks = Ranks(rank, 2)
        together = Together(training)
        parts.append(training.data)
        training.seconds = lambda: len(waited)  # the barrier comes first, and is not timed
        assert together.seconds() == rank + 1
    assert torch.equal(torch.cat([part[0] for part in parts]), whole[0])
    for name, target in whole[1].items():
        torch.testing.assert_close(torch.cat([part[1][name] for part in parts]), target, equal_nan=True, rtol=0, atol=0)


def test_the_table(tmp_path):
    rows = [
        RankCost(DDP, "loss", 15, 0.1, 0.1, 1.0, 0.99, 1.01, 4000, 1000, 2),
        RankCost("equal", "loss", 15, 0.102, 0.1, 1.02, 1.01, 1.03, 4400, 1100, 3),
        RankCost("mgda", "feature", 15, 0.103, 0.1, 1.03, 1.02, 1.04, 4436, 1109, 3),
        RankCost("a|b", error="ValueError: no\nnumbers"),
    ]
    text = bench_ranks_table.write(rows, {"device": "A Machine, 2 cores"}, "A workload", 3, tmp_path)
    lines = text.splitlines()
    assert "| equal | loss | 1.020 | 1.010 to 1.030 | 102 ms | 100 ms | 4,400 bytes | 3 | 0 | 15 |" in lines
    assert "| mgda | feature | 1.030 | 1.020 to 1.040 | 103 ms | 100 ms | 4,436 bytes | 3 | 9 | 15 |" in lines
    assert "| a\\|b |  | failed: ValueError: no numbers | | | | | | | |" in lines
    assert (tmp_path / "a-machine-2-cores_ranks.md").read_text() == text
    assert list(rows_of(tmp_path)) == [DDP, "equal", "mgda", "a|b"]
    without = bench_ranks_table.report(rows[2:3], {}, "A workload", 3)
    assert "| 4,436 bytes | 3 | - | 15 |" in without  # nothing to be beyond


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("processes=1", "processes=1 .*expected at least 2 processes"),
        ("pairs=1", "pairs=1 .*expected .* 2 pairs"),
        ("methods=[]", "expected .* 1 method"),
        ("processes=3", "batch_size=4: 3 processes do not divide it. Type batch_size=3 or 6"),
        ("precision=float16", "precision=float16: expected float32"),
        ("process=2", "There are: .*processes"),
    ],
)
@pytest.mark.usefixtures("_alone")
def test_wrong_keys_get_a_sentence(wrong, message, tmp_path, monkeypatch):
    def started(*given, **keys):
        raise AssertionError("no process is started for this")

    monkeypatch.setattr(multiprocessing, "start_processes", started)
    with pytest.raises(ValueError, match=message):
        bench_ranks.bench_ranks([*TINY, f"folder={tmp_path}", wrong])


@pytest.mark.usefixtures("_alone")
def test_it_starts_its_processes_itself(monkeypatch, tmp_path):
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="start it without torchrun or srun"):
        bench_ranks.bench_ranks([*TINY, f"folder={tmp_path}"])


def test_default_methods_exist():
    for name in config.load([], name="bench_ranks").methods:
        made = config.build_method(bench_ranks._config(name, []).method, ["a", "b"])
        assert made.level == dict(key.split("=") for key in name.split()[1:]).get("level", made.levels[0])


def test_it_is_a_benchmark_of_the_command():
    assert bench.benchmark("ranks") is bench_ranks.bench_ranks
