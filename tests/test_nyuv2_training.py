"""Synthesized data to a trained network, by the commands' own functions: NYUv2 and MTAN's copies."""

import json
from pathlib import Path

import pytest

from mtlbench import config, synthesize
from mtlbench.train import train

DATA = {
    "nyuv2": ["height=48", "width=64", "train=6", "test=2"],
    "nyuv2_npy": ["height=48", "width=64", "train=6", "val=2"],
    "cityscapes_npy": ["height=32", "width=64", "train=6", "val=2"],
}
METRICS = {
    "nyuv2": {"semantic/miou", "semantic/pixel_accuracy", "depth/abs_err", "normals/cos", "normals/mean_angle"},
    "nyuv2_npy": {
        *("semantic/miou", "semantic/pixel_accuracy", "depth/abs_err", "depth/rel_err", "normals/mean_angle"),
        *("normals/median_angle", "normals/within_11.25", "normals/within_22.5", "normals/within_30"),
    },
    "cityscapes_npy": {"semantic/miou", "semantic/pixel_accuracy", "depth/abs_err", "depth/rel_err"},
}
SMALL = ["epochs=2", "batch_size=2", "backbone=resnet18_short", "backbone.weights=null", "head.hidden=8"]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name, options in DATA.items():
        words = [f"dataset={name}", *(f"dataset.{option}" for option in options), "processes=1"]
        command = synthesize.translate([*words, f"machine.data={folder}"])
        assert synthesize.synthesize(config.load(command, name="synthesize")) == "done"
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", ["imtl", "uncertainty", "pcgrad"])
@pytest.mark.parametrize("name", DATA)
def test_two_epochs_end_with_numbers(name: str, method: str, data: Path, tmp_path: Path):
    words = [f"dataset={name}", f"method={method}", *SMALL, "dataset.validation=2", "machine.threads=1"]
    if name == "nyuv2":
        words += ["dataset.augmentation.crop=40", "dataset.evaluation.crop=40"]
    assert train(*config.load_run([*words, f"machine.data={data}", f"machine.runs={tmp_path}"])) == "done"
    (folder,) = tmp_path.glob("[0-9a-f]*")
    record = json.loads((folder / "record.json").read_text())
    assert record["synthetic"] is True
    assert record["fingerprint"].startswith(f"synthetic {name} ")
    assert set(record["metrics"]) == METRICS[name]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    for line in lines:
        assert set(line["val"]) == set(line["test"]) == METRICS[name]
        assert all(value is not None for value in line["test"].values())
        assert all(value is not None for value in line["losses"].values())
