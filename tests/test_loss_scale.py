"""Adam and the scale of the losses: what is invariant is exactly so, eps does what the formula says, one claim fails.

And the key loss_scale of a run: the loss that methods see is multiplied, the metric is not.
"""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import DictConfig

from mtlbench import aggregate, build, config
from mtlbench.analysis import loss_scale as command
from mtlbench.analysis import loss_scale_changes
from mtlbench.analysis.loss_scale_epsilon import effect, second_moments, steps
from mtlbench.analysis.loss_scale_network import MULTIPLES, PARTS, Difference, Setting, Trajectory, difference, train
from mtlbench.analysis.loss_scale_network import optimizer as make_optimizer
from mtlbench.analysis.loss_scale_study import case, powers_of_two
from mtlbench.cells import cells
from mtlbench.losses import CrossEntropy, scaled
from mtlbench.metrics import Accuracy
from mtlbench.task import Task
from mtlbench.train import train as train_run

SWEEP = Path(__file__).resolve().parents[1] / "sweeps" / "loss_scale_multidigits"
SCALES = {"first": 10.0, "second": 0.1}
HEADS = tuple(MULTIPLES)


@cache
def node(name: str) -> DictConfig:
    return config.load([f"method={name}"], name="loss_scale").method


def setting(method: str = "equal", **keys: object) -> Setting:
    return Setting(node(method), **{"samples": 64, "width": 8, "steps": 40, **keys})


def differences(one: Setting, scales: Mapping[str, float] = SCALES) -> dict[str, Difference]:
    plain, other = train(one), train(one, scales)
    return {part: difference(plain, other, part) for part in PARTS}


def same_bits(one: Setting, scales: Mapping[str, float]) -> bool:
    plain, other = train(one), train(one, scales)
    return all(np.array_equal(plain.updates[part], other.updates[part]) for part in PARTS)


# ----------------------------------------------------------------------------------------- the small network

OPTIMAL = setting("uncertainty_optimal", optimizer="sgd")
INVARIANT = {
    # what Elich et al. derive (A1): setting, parts that move, scales
    "a head by Adam, frozen backbone": (setting(frozen=True), HEADS, SCALES),
    "everything by an Adam for each task": (setting(optimizer="adam_per_task"), PARTS, SCALES),
    "heads by UW-O and SGD, frozen backbone": (replace(OPTIMAL, frozen=True), HEADS, SCALES),
    "everything by UW-O and SGD": (OPTIMAL, PARTS, SCALES),
    "everything by Adam, one scale for all": (setting(), PARTS, {"first": 10.0, "second": 10.0}),
}


@pytest.mark.parametrize("name", INVARIANT)
def test_updates_are_invariant_at_eps_0(name: str):
    one, parts, scales = INVARIANT[name]
    found = differences(one, scales)
    for part in parts:
        assert found[part].norm < 1e-12
        assert found[part].update < 1e-12
        assert found[part].first == pytest.approx(1, rel=1e-12)
    assert same_bits(one, powers_of_two(scales))
    moved = train(one)
    assert all((moved.norms(part) > 0).all() == (part in parts) for part in PARTS)


@pytest.mark.parametrize("optimizer", ["adam", "adam_per_task"])
def test_in_float32_to_its_rounding(optimizer: str):
    found = differences(setting(optimizer=optimizer, kind=torch.float32, frozen=optimizer == "adam"))
    assert max(found[part].norm for part in PARTS) < 1e-5


def test_sgd_moves_each_head_by_its_scale():
    found = differences(setting(optimizer="sgd", frozen=True))
    assert found["first"].first == pytest.approx(10, rel=1e-12)
    assert found["second"].first == pytest.approx(0.1, rel=1e-12)
    assert found["first"].norm > 5
    assert found["second"].norm > 0.5


def test_adam_is_not_invariant_where_the_backbone_is_trained():
    found = differences(setting())
    assert all(found[part].update > 0.05 for part in PARTS)
    assert all(found[part].first == pytest.approx(1, rel=1e-12) for part in PARTS)  # which tells nothing
    assert not same_bits(setting(), {"first": 8.0, "second": 0.125})


def test_the_default_eps_breaks_the_invariance():
    exact, default = (differences(setting(optimizer="adam_per_task", eps=eps)) for eps in (0.0, 1e-8))
    assert all(default[part].update > 1e6 * exact[part].update for part in PARTS)


@pytest.mark.parametrize(("part", "alpha"), [("first", 10.0), ("second", 0.1), ("second", 2.0**-10)])
@pytest.mark.parametrize("eps", [0.0, 1e-12, 1e-8, 1.0])
def test_eps_changes_a_step_as_the_formula_says(part: str, alpha: float, eps: float):
    found = effect(setting(eps=eps, frozen=True), part, alpha)
    np.testing.assert_allclose(found.measured, found.predicted, rtol=0, atol=1e-11)
    if eps:
        small = found.roots > 1e4 * eps * max(1, 1 / alpha)
        slight = eps * (1 - 1 / alpha) / found.roots
        np.testing.assert_allclose(found.measured[small], slight[small], rtol=1e-3, atol=1e-13)
        assert abs(found.measured).max() > 1e-10
    if eps == 1:  # far above the root in both runs: Adam is SGD
        like_sgd = found.measured[(found.roots > 0) & (found.roots < 1e-3 * eps * min(1, 1 / alpha))]
        assert len(like_sgd)
        np.testing.assert_allclose(like_sgd, alpha - 1, rtol=2e-3)


def test_second_moments_are_those_of_torch():
    gradients = np.random.default_rng(0).normal(size=(5, 3))
    parameter = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = make_optimizer(setting(), [{"params": [parameter]}])
    for gradient in gradients:
        parameter.grad = torch.from_numpy(gradient)
        adam.step()
    v = adam.state[parameter]["exp_avg_sq"].numpy() / (1 - 0.999**5)
    np.testing.assert_allclose(second_moments(gradients, 0.999)[-1], np.sqrt(v), rtol=1e-12)


def test_at_eps_0_a_coordinate_without_a_gradient_stays():
    moved = steps(setting(), np.array([[0.0, 1e-9, 3.0], [0.0, 0.0, -3.0]]))
    assert (moved[:, 0] == 0).all()
    assert np.isfinite(moved).all()
    np.testing.assert_allclose(abs(moved[0, 1:]), 1e-3, rtol=1e-12)  # lr, whatever the gradient


# ---------------------------------------------------------------- "if beta_1,2 = 0": the claim that does not hold


def test_adam_with_betas_of_0_is_not_invariant_in_the_plane():
    """The toy problem at (1, 2): with scales 10 and 0.1 the point goes the other way along x."""
    gradients = np.array([[0.125428371970, 1.475397214517], [-0.187034497251, 1.382790066614]])
    bare = setting(betas=(0.0, 0.0))
    plain, other = (steps(bare, (alphas @ gradients)[None])[0] for alphas in (np.ones(2), np.array([10, 0.1])))
    np.testing.assert_allclose(plain, [0.001, -0.001], rtol=1e-12)
    np.testing.assert_allclose(other, [-0.001, -0.001], rtol=1e-12)
    one, two = (
        sum(steps(bare, a * g[None])[0] for a, g in zip(alphas, gradients, strict=True))
        for alphas in ((1, 1), (10, 0.1))
    )
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-15)  # an Adam for each task


def test_adam_with_betas_of_0_turns_coordinates_and_keeps_the_length():
    plain, other = (train(setting(betas=(0.0, 0.0)), scales) for scales in (None, SCALES))
    one, two = plain.updates["backbone"][0], other.updates["backbone"][0]
    assert 0.02 < (np.sign(one) != np.sign(two)).mean() < 0.98
    assert np.linalg.norm(one) == pytest.approx(np.linalg.norm(two), rel=1e-12)
    assert same_bits(setting(optimizer="adam_per_task", betas=(0.0, 0.0)), {"first": 8.0, "second": 0.125})
    assert not same_bits(setting(betas=(0.0, 0.0)), {"first": 8.0, "second": 0.125})


# ------------------------------------------------------------------------------------------ methods of the suite


@pytest.mark.parametrize(
    ("method", "invariant"), [("log", True), ("nash_mtl", True), ("equal", False), ("mgda", False)]
)
def test_methods_before_adam(method: str, invariant: bool):
    """Nash-MTL's shared update is invariant, and the heads are by Adam."""
    found = differences(setting(method, steps=8))
    assert (max(found[part].update for part in PARTS) < 1e-6) == invariant


def test_a_run_is_what_its_optimizer_and_setting_say():
    one = train(setting(steps=3))
    assert one.losses.shape == (3, 2)
    assert one.losses[-1].sum() < one.losses[0].sum()
    assert {part: one.updates[part].shape[1] for part in PARTS} == {"backbone": 88, "first": 81, "second": 81}
    assert all(np.array_equal(one.updates[p], train(setting(steps=3)).updates[p]) for p in PARTS)
    other = train(setting(steps=3, seed=1))
    assert not np.array_equal(one.losses, other.losses)


def test_difference_of_runs_that_ended_early_is_unknown():
    one = train(setting(steps=3))
    short = Trajectory(one.losses[:1], None, {part: values[:1] for part, values in one.updates.items()}, "why")
    assert np.isnan(difference(one, short, "first").norm)


# --------------------------------------------------------------------------------------- a run's key loss_scale

DIGITS = ["dataset.train_pairs=128", "dataset.val_pairs=32", "dataset.test_pairs=32", "batch_size=64", "epochs=2"]


def of_run(*words: str) -> DictConfig:
    return config.load(["experiment=mgda_multidigits", *DIGITS, *words])


def test_loss_scale_multiplies_the_loss_and_leaves_the_metrics():
    plain = build.dataset(of_run())
    other = build.dataset(of_run("loss_scale={left: 10}"))
    prediction, target = torch.randn(6, 10, dtype=torch.float64), torch.arange(6)
    for name, factor in (("left", 10), ("right", 1)):
        losses = []
        for dataset in (plain, other):
            loss = dataset.tasks[name].loss
            losses.append(loss(prediction, target, loss.counts(target)))
        assert losses[1] == factor * losses[0]
        one, two = (dataset.tasks[name].meters[0].sums(prediction, target) for dataset in (plain, other))
        assert torch.equal(one, two)
        assert other.tasks[name].metrics == plain.tasks[name].metrics
    assert other.fingerprint() == plain.fingerprint()


def test_plain_losses_are_no_part_of_the_identity():
    assert "loss_scale" not in config.identity(of_run())
    assert config.run_id(of_run("loss_scale=null")) == config.run_id(of_run())
    assert config.run_id(of_run("loss_scale={left: 10}")) != config.run_id(of_run())


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "loss_scale={middle: 10}",
            r"loss_scale\.middle=10: there is no such task.* There are: left, right\.",
        ),
        ("loss_scale={left: 0}", r"loss_scale\.left=0: expected a number above 0"),
        ("loss_scale={left: -1}", r"loss_scale\.left=-1: expected a number above 0"),
        ("loss_scale={left: ten}", r"loss_scale\.left=ten: expected a number above 0"),
        ("loss_scale={left: inf}", r"loss_scale\.left=inf: expected a number above 0"),
        ("loss_scale={left: true}", r"loss_scale\.left=True: expected a number above 0"),
        ("loss_scale=10", r"loss_scale=10: expected null, or tasks"),
    ],
)
def test_wrong_scales_of_a_run_are_sentences(typed: str, said: str):
    with pytest.raises(ValueError, match=said):
        build.dataset(of_run(typed))


def test_a_single_task_run_does_not_know_the_other_task():
    with pytest.raises(ValueError, match=r"no such task in this run\. There are: right\."):
        build.dataset(of_run("dataset.tasks=[right]", "loss_scale={left: 10}"))


def test_scaled_leaves_the_other_tasks_as_they_are():
    tasks = {name: Task(name, 10, CrossEntropy(), [Accuracy()], "vector") for name in ("a", "b")}
    found = scaled(tasks, {"a": 3})
    assert found["b"] is tasks["b"]
    assert scaled(tasks, {}) == tasks
    assert list(found) == ["a", "b"]


# --------------------------------------------------------------------------------------------------- the sweep


def test_the_sweep_has_every_method_plain_and_scaled():
    methods = set(config.options("method")) - {"hybrid"}
    optimizers = set()
    for name in ("adam", "sgd"):
        params = yaml.safe_load((SWEEP / f"{name}.yaml").read_text())["hydra"]["sweeper"]["params"]
        assert {method.strip() for method in params["method"].split(",")} == methods
        assert params["loss_scale"] == "null,{left: 10}"
        optimizers.add(params["optimizer"])
    assert optimizers == {"adam", "sgd"}


@pytest.mark.slow
def test_a_part_of_the_sweep_to_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    machine = [f"machine.runs={tmp_path / 'runs'}", "machine.device=cpu", "machine.threads=1"]
    found = cells(SWEEP, ["method=equal,imtl", "seed=0,1", *DIGITS, *machine])
    assert len(found) == 2 * 2 * 2 * 2 + 2 * 2 * 2  # methods, optimizers, scales, seeds; baselines with both "methods"
    found = [
        cell
        for cell in found
        if not {"dataset.tasks=[left]", "dataset.tasks=[right]"} & set(cell.overrides)
        or "method=equal" in cell.overrides
    ]
    left_out = {"method=imtl", "optimizer=sgd", "seed=1", "loss_scale={left:10}"}
    records = {}
    for cell in found:
        if not left_out <= set(cell.overrides):
            assert train_run(*config.load_run(cell.overrides)) == "done"
            record = yaml.safe_load((tmp_path / "runs" / cell.id / "record.json").read_text())
            if len(record["tasks"]) == 2:
                records[cell.id] = record
    monkeypatch.setattr(loss_scale_changes, "cells", lambda sweep, words: found)
    out = tmp_path / "out"
    words = [f"folder={out}", "methods=[]", "steps=4", "figures=false", "optimizers=[sgd]", *machine]
    assert command.loss_scale(words) == "done"
    rows = list(csv.DictReader(io.StringIO((out / "sweep" / "changes.csv").read_text())))
    assert len(rows) == 2 * 2 * 2
    for row in rows:
        mine = [
            r["last"][row["metric"]]
            for scale in (None, {"left": 10})
            for r in records.values()
            if (r["choices"]["method"], r["choices"]["optimizer"]) == (row["method"], row["optimizer"])
            and r["config"].get("loss_scale") == scale
            and (r["config"]["seed"] == 0 or row["seeds"] == "2")
        ]
        plain, other = np.mean(mine[: len(mine) // 2]), np.mean(mine[len(mine) // 2 :])
        assert float(row["plain"]) == pytest.approx(plain, rel=1e-4)
        assert float(row["scaled"]) == pytest.approx(other, rel=1e-4)
        assert float(row["change"]) == pytest.approx(other - plain, rel=1e-3, abs=1e-3)
        missing = (row["method"], row["optimizer"]) == ("imtl", "sgd")
        assert (row["seeds"], row["lost"]) == (("1", "1 scaled missing") if missing else ("2", ""))
    page = (out / "sweep" / "changes.md").read_text()
    assert "## adam, lr 0.003: left x 10" in page
    assert "## sgd, lr 0.02: left x 10" in page
    assert "left accuracy ↑ \\[%\\]" in page
    command.loss_scale([*words[:1], "methods=[]", "steps=4", "figures=false", "optimizers=[sgd]"])
    assert (out / "sweep" / "changes.md").read_text() == page  # a call without runs leaves it
    monkeypatch.setattr(aggregate, "cells", lambda sweep, words: found)
    (compared,), _ = aggregate.aggregate(str(SWEEP), machine, out=str(tmp_path), figures=False)
    labels = {row.label for row in compared.rows}
    assert {"equal adam", "equal adam left=10", "imtl sgd left=10"} <= labels, labels
    with pytest.raises(ValueError, match="no method has a finished run with plain and one with scaled"):
        loss_scale_changes.changes(SWEEP, [f"machine.runs={tmp_path / 'none'}"])


# ------------------------------------------------------------------------------------------------- the command

SMALL = ["steps=12", "samples=32", "width=6", "method_steps=3", 'methods=["equal","cagrad c=0.8"]']


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loss_scale")
    assert command.loss_scale([*SMALL, f"folder={folder}"]) == "done"
    return folder


@pytest.mark.slow
def test_the_files_and_what_is_in_them(written: Path):
    names = {path.name for path in written.iterdir()}
    tables = {"table.md", "differences.csv", "steps.csv", "methods.csv", "digests.txt"}
    assert names == tables | {"frozen.svg", "trained.svg", "epsilon.svg"}
    text = (written / "table.md").read_text()
    for line in ("| Adam, eps 0 | &lt; 1e-12", "A printed claim that does not hold: betas of 0", "| cagrad c=0.8 |"):
        assert line in text
    rows = list(csv.DictReader(io.StringIO((written / "differences.csv").read_text())))
    exact = {(row["group"], row["case"]): row["exact"] for row in rows}
    assert exact["frozen", "Adam, eps 0"] == exact["trained", "Adam per task, eps 0"] == "True"
    assert exact["trained", "Adam, eps 0"] == exact["frozen", "SGD"] == "False"
    assert exact["betas 0", "Adam per task"] == "True"
    lines = list(csv.DictReader(io.StringIO((written / "steps.csv").read_text())))
    assert {row["step"] for row in lines} == {str(k) for k in range(1, 13)}
    alone = [row for row in lines if row["case"] == "SGD" and row["backbone"] == "frozen" and row["step"] == "1"]
    plain, other = (float(row["update first"]) for row in alone)
    assert other == pytest.approx(10 * plain, rel=1e-3)
    for row in alone:
        assert float(row["update first"]) == pytest.approx(1e-3 * float(row["gradient first"]), rel=1e-3)


@pytest.mark.slow
def test_the_figures_show_both_runs_of_every_case(written: Path):
    for name, cases, parts in (("frozen", 4, 2), ("trained", 7, 3)):
        text = (written / f"{name}.svg").read_text()
        assert text.startswith("<?xml")
        assert len(re.findall(r'<g id="axes_\d+">', text)) == cases * parts
        assert text.count(">plain<") == text.count(">scaled<") == 1
        assert "Adam, eps 0" in text
        for part in PARTS[-parts:]:
            assert f">{part}<" in text
    text = (written / "epsilon.svg").read_text()
    for label in ("first, loss x 10: formula", "second, loss x 0.1: torch"):
        assert label in text


@pytest.mark.slow
def test_same_numbers_same_bytes(written: Path, tmp_path: Path):
    command.loss_scale([*SMALL, f"folder={tmp_path}"])
    for path in written.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "optimizers=[adan]",
            r"\[adan\]: there is no such optimizer here\. There are: sgd, adam, adam_per_task\.",
        ),
        ("optimizers=[]", "optimizers=.*: expected a list"),
        ("optimizers=adam", "optimizers=adam: expected a list"),
        ("optimizers=[sgd,sgd]", "sgd stands there twice"),
        ("scales.third=2", r"scales\.third: there is no such key of scales\. .*There are: first, second"),
        ("scales.first=0", r"scales\.first=0: expected a number above 0"),
        ("scales.second=-3", r"scales\.second=-3: expected a number above 0"),
        ("scales.second=many", r"scales\.second=many: expected a number above 0"),
        ("scales.second=nan", r"scales\.second=nan: expected a number above 0"),
        ("scales=null", "scales=None: expected what multiplies"),
        ("lr=0", "lr=0: expected a number above 0"),
        ("eps=-1e-8", "eps=-1e-08: expected a number of at least 0"),
        ("steps=1", "steps=1: expected a whole number of at least 2"),
        ("samples=2.5", "samples=2.5: expected a whole number"),
        ("methods=[imlt]", "Did you mean imtl"),
        ("sweep=sweeps/nothing", "no such sweep"),
    ],
)
def test_wrong_words_are_sentences(typed: str, said: str, tmp_path: Path):
    with pytest.raises(ValueError, match=said):
        command.loss_scale([typed, f"folder={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_an_unknown_optimizer_or_scale_is_refused_by_the_runs_too():
    with pytest.raises(ValueError, match="There are: sgd, adam, adam_per_task"):
        setting(optimizer="lion")
    with pytest.raises(ValueError, match="There are: first, second"):
        train(setting(steps=2), {"third": 2.0})
    assert powers_of_two({"first": 10.0, "second": 0.1, "third": 1.0}) == {"first": 8.0, "second": 0.125, "third": 2.0}


def test_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["loss_scale", "--help"])
    command.main()
    said = capsys.readouterr().out
    keys = set(yaml.safe_load((config.CONF / "loss_scale.yaml").read_text())) - {"defaults", "method"}
    assert all(key in said for key in keys)


def test_a_case_is_exact_only_if_it_ran():
    one = case("sgd", setting(steps=3, optimizer="sgd"), SCALES)
    assert not one.exact
    assert replace(one, powers=one.plain).exact
    nothing = Trajectory(np.empty(0), None, {part: np.empty(0) for part in PARTS}, "the loss is not finite")
    assert not replace(one, plain=nothing, powers=nothing).exact
