"""The benchmark of metrics: a row for each task and their sum, written as measured."""

import csv

import pytest

from mtlbench import bench

TINY = ["image=[32,64]", "backbone=resnet18_short", "head.hidden=4", "repeats=2", "machine.device=cpu"]


def test_from_the_command_to_the_table(tmp_path, capsys):
    assert bench.benchmark("metrics")([*TINY, f"folder={tmp_path}"]) == "done"
    (path,) = tmp_path.glob("*_dense_resnet18.csv")
    with path.open() as file:
        rows = {row["task"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["semantic", "instance", "disparity", "all tasks"]
    assert rows["semantic"]["metrics"] == "miou, pixel_accuracy"
    for row in rows.values():
        assert 0 < float(row["share_lower"]) <= float(row["share"]) <= float(row["share_upper"])
    single = [float(rows[name]["share_lower"]) for name in ("semantic", "instance", "disparity")]
    assert float(rows["all tasks"]["share"]) > max(single)
    (page,) = tmp_path.glob("*.md")
    assert page.read_text() in capsys.readouterr().out


@pytest.mark.parametrize(("override", "said"), [("repeats=1", "at least 2 repeats"), ("precision=half", "expected")])
def test_bad_input(override, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        bench.benchmark("metrics")([*TINY, f"folder={tmp_path}", override])
    assert not list(tmp_path.iterdir())
