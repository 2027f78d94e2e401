"""The generated sweep is one that the command reads, and the benchmark's calls agree with each other."""

import json

import pytest

from mtlbench import aggregate
from mtlbench.aggregation import gather
from mtlbench.benchmarks import aggregate as bench_aggregate
from mtlbench.cells import cells


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    return bench_aggregate.generate(folder, runs=54, epochs=6)


def test_the_cells_are_those_of_the_sweep_itself(sweep):
    runs = sweep.parents[1] / "runs"
    found = cells(sweep, [f"machine.runs={runs}"])
    assert len(found) == 54
    (runs / ".index" / "generated.json").rename(runs / "kept")
    assert cells(sweep, [f"machine.runs={runs}"])[::9] == found[::9]  # composed one by one: the same ids
    results, notes = gather.gather(found, runs, "generated")
    assert {result.state for result in results} == {"done"}
    assert notes == []


@pytest.mark.slow
def test_it_is_tabulated(sweep, tmp_path):
    runs = sweep.parents[1] / "runs"
    (found,), folder = aggregate.aggregate(str(sweep), [f"machine.runs={runs}"], out=str(tmp_path), figures=False)
    assert [row.tried for row in found.rows] == [2] * 6
    assert (folder / "table.md").read_text().startswith("# generated: cityscapes (synthetic data)")


@pytest.mark.slow
def test_the_benchmark(tmp_path, capsys):
    assert bench_aggregate.bench_aggregate(["runs=54", "epochs=3", f"folder={tmp_path / 'made'}"]) == "done"
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("54 runs of 3 epochs")
    assert [line.partition(":")[0] for line in said[1:4]] == ["cold", "warm", "one run more"]
    assert "the same files each time" in said[4]
    assert not (tmp_path / "made").exists()


def test_its_keys(tmp_path):
    with pytest.raises(ValueError, match=r"epoch=3: there is no such key\. There are: runs, epochs, folder"):
        bench_aggregate.bench_aggregate(["epoch=3"])
    with pytest.raises(ValueError, match="runs=many: expected a whole number"):
        bench_aggregate.bench_aggregate(["runs=many"])
    with pytest.raises(ValueError, match="exists"):
        bench_aggregate.bench_aggregate([f"folder={tmp_path}"])


def test_a_line_is_as_training_writes_it(sweep):
    path = next((sweep.parents[1] / "runs").glob("*/metrics.jsonl"))
    line = json.loads(path.read_text().splitlines()[0])
    assert set(line) == {
        *("epoch", "steps", "lr", "losses", "weights", "weights_sum", "gradient_norms", "cosines", "absent"),
        *("seconds_per_step", "data_wait", "val", "test"),
    }
