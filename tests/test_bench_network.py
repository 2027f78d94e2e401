"""The benchmark of assembled networks: both sides compute the same, and the table says so."""

import csv

import pytest
import torch

from mtlbench import bench, config
from mtlbench.benchmarks.network import LIBRARY, LOOP, comparisons
from mtlbench.parallel import Ranks

TINY = ["image=[32,64]", "batch_size=2", "pairs=2", "warm_up=1", "machine.device=cpu", "head.hidden=4"]
LOOPS = [*TINY, "backbone=resnet18_short", "backbone.output_stride=32"]
LIBRARYS = [*TINY, "workload=dense_deeplabv3plus", "backbone.name=resnet18"]


def gradients(training) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)  # dropout
    training.gradients()
    return {name: p.grad for name, p in training.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("overrides", [LOOPS, [*LOOPS, "attributes=5", "workload=attributes"]])
def test_a_plain_loop_leaves_the_gradients_of_the_network(overrides):
    if "attributes=5" in overrides:
        overrides = [o for o in overrides if not o.startswith(("backbone", "head"))]
    found = comparisons(config.load([*overrides, "precision=float64"], name="bench_network"), Ranks())
    assert list(found) == [("forward and backward", LOOP), ("step of method=equal", LOOP)]
    for one, other in found.values():
        mine, its = gradients(one), gradients(other)
        assert mine.keys() == its.keys()
        for name, gradient in mine.items():
            torch.testing.assert_close(gradient, its[name], rtol=1e-9, atol=1e-12)
        assert any(gradient.abs().max() > 0 for gradient in mine.values())


@pytest.mark.slow
def test_the_librarys_network_leaves_the_gradients_of_ours():
    found = comparisons(config.load([*LIBRARYS, "precision=float64"], name="bench_network"), Ranks())
    one, other = found["forward and backward", LIBRARY]
    mine, its = gradients(one), gradients(other)
    assert len(mine) == len(its)
    backbone = {name.removeprefix("backbone.network."): g for name, g in mine.items() if name.startswith("backbone.")}
    encoder = {name.removeprefix("0.model."): g for name, g in its.items() if name.startswith("0.model.")}
    assert backbone.keys() == encoder.keys() != set()
    for name, gradient in backbone.items():
        torch.testing.assert_close(gradient, encoder[name], rtol=1e-9, atol=1e-12)
    norms = [sorted(float(g.norm()) for g in some.values()) for some in (mine, its)]
    assert norms[0] == pytest.approx(norms[1])


def test_from_the_command_to_the_table(tmp_path, capsys):
    assert bench.benchmark("network")([*LOOPS, f"folder={tmp_path}"]) == "done"
    (path,) = tmp_path.glob("*_network_dense_resnet50.csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["who"], row["method"], row["pairs"]) for row in rows] == [
        (LOOP, "forward and backward", "2"),
        (LOOP, "step of method=equal", "2"),
    ]
    for row in rows:
        assert 0 < float(row["ratio_lower"]) <= float(row["ratio"]) <= float(row["ratio_upper"])
        assert float(row["seconds"]) > 0
    (page,) = tmp_path.glob("*.md")
    assert page.read_text() in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["pairs=1"], "at least 2 pairs"),
        (["precision=half"], "precision=half: expected"),
        (["architecture=full_sharing"], "a loop needs architecture=multi_decoder"),
    ],
)
def test_bad_input(overrides, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        bench.benchmark("network")([*LOOPS, f"folder={tmp_path}", *overrides])
    assert not list(tmp_path.iterdir())
