"""The benchmark of reading data: what it compares, and what it writes."""

import csv

import pytest

from mtlbench import synthesize
from mtlbench.benchmarks.data import bench_data
from mtlbench.benchmarks.data_table import CACHED, OURS, PLAIN
from mtlbench.config import load

SHORT = ["images=3", "rounds=2", "warm_up=1", "batch_size=2", "machine.threads=1", "dataset.augmentation.crop=48"]


@pytest.fixture
def data(tmp_path):
    words = [
        "synthetic@dataset=cityscapes",
        "dataset.height=64",
        "dataset.width=128",
        "dataset.train=3",
        "dataset.val=1",
    ]
    synthesize.synthesize(load([*words, "processes=1", f"machine.data={tmp_path}"], "synthesize"))
    return tmp_path


def test_three_loaders_of_the_same_files(data, capsys):
    assert bench_data([*SHORT, "dataset=cityscapes", f"machine.data={data}", f"folder={data / 'out'}"]) == "done"
    (path,) = (data / "out").glob("*_cityscapes.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["loader"], row["work"]) for row in rows} == {
        (loader, work) for loader in (OURS, CACHED, PLAIN) for work in ("everything", "decode and crop")
    }
    for row in rows:
        assert 0 < float(row["lower"]) <= float(row["per_second"]) <= float(row["upper"])
        assert int(row["rounds"]) == 2
        assert (float(row["ratio"]) == 1) == (row["loader"] == PLAIN)
        shares = [float(row[key]) for key in ("decode", "transform", "collate") if row[key]]
        assert len(shares) == 3 * (row["work"] == "everything" and row["loader"] != PLAIN)
        assert not shares or sum(shares) == pytest.approx(1, abs=1e-4)
    (page,) = (data / "out").glob("*.md")
    assert "synthetic data" in page.read_text()
    assert page.read_text() in capsys.readouterr().out


def test_data_in_memory_is_measured_alone(tmp_path):
    small = ["dataset.train_pairs=20", "dataset.val_pairs=4", "dataset.test_pairs=4"]
    words = [word for word in SHORT if "crop" not in word]
    assert bench_data([*words, *small, "dataset=multidigits", f"folder={tmp_path}"]) == "done"
    (path,) = tmp_path.glob("*_multidigits.csv")
    with path.open() as file:
        (row,) = csv.DictReader(file)
    assert (row["loader"], row["work"], row["ratio"]) == (OURS, "everything", "")


@pytest.mark.parametrize("wrong", ["images=0", "rounds=1", "warm_up=0"])
def test_too_little_to_measure_is_refused(tmp_path, wrong: str):
    with pytest.raises(ValueError, match="expected at least 1 image"):
        bench_data(["dataset=multidigits", wrong, f"folder={tmp_path}"])
    assert list(tmp_path.iterdir()) == []
