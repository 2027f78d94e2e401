"""Which epoch is a run's, and what a run's lines become."""

import json
import math

import numpy as np
import pytest

from mtlbench.aggregation import curves
from mtlbench.aggregation.selection import OPTIMISTIC, SELECT, Reference, alike, own_improvement
from mtlbench.aggregation.selection import select as select_of_many

LEFT = ("left/accuracy",)
BOTH = ("left/accuracy", "right/error")
REFERENCE = Reference(BOTH, np.array([50.0, 2.0]), (True, False))


def line(epoch, test, val):
    return {"epoch": epoch, "test": test and {"left/accuracy": test}, "val": val and {"left/accuracy": val}}


def both(accuracy, error):
    return {"left/accuracy": accuracy, "right/error": error}


@pytest.fixture
def read(tmp_path):
    def read(lines):
        path = tmp_path / "metrics.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in lines))
        return curves.read(path)[0]

    return read


def select(found, rule, metrics, score):
    """Of one run: {split: {metric: value}} and the epoch."""
    chosen = select_of_many([found], rule, metrics, score)
    return {split: dict(zip(metrics, v[0], strict=True)) for split, v in chosen.values.items()}, chosen.epochs[0]


def scores(higher=(True,)):
    return dict.fromkeys(("val", "test"), own_improvement(higher))


def test_the_rules(read):
    found = read([line(i, 50.0 + i, 90.0 - abs(i - 4)) for i in range(13)])
    values, epoch = select(found, "last", LEFT, scores())
    assert (values, epoch) == ({"test": {"left/accuracy": 62}, "val": {"left/accuracy": 82}}, 12)
    values, epoch = select(found, "best_val", LEFT, scores())
    assert (values["test"]["left/accuracy"], values["val"]["left/accuracy"], epoch) == (54, 90, 4)
    values, epoch = select(found, "mean_last_10", LEFT, scores())
    assert (values["test"]["left/accuracy"], epoch) == (pytest.approx(57.5), 12)
    values, epoch = select(found, OPTIMISTIC, LEFT, scores())
    assert (values["test"]["left/accuracy"], epoch) == (62, 12)


def test_only_one_rule_looks_at_the_test_part(read):
    lines = [line(0, 10.0, 50.0), line(1, 99.0, 51.0), line(2, 1.0, 52.0)]
    epochs = {rule: select(read(lines), rule, LEFT, scores())[1] for rule in SELECT}
    assert epochs == {"last": 2, "mean_last_10": 2, "best_val": 2, OPTIMISTIC: 1}
    assert "optimistic" in OPTIMISTIC


def test_an_undefined_metric_is_undefined_in_the_mean_and_chooses_no_epoch(read):
    lines = [line(i, 50.0 + i, 90.0) for i in range(3)]
    lines[2]["test"]["left/accuracy"] = lines[0]["val"]["left/accuracy"] = None
    found = read(lines)
    assert math.isnan(select(found, "mean_last_10", LEFT, scores())[0]["test"]["left/accuracy"])
    assert select(found, "best_val", LEFT, scores())[1] == 1
    assert select(found, OPTIMISTIC, LEFT, scores())[1] == 1
    nowhere = [{"epoch": i, "test": {"left/accuracy": None}, "val": {"left/accuracy": None}} for i in range(3)]
    assert select(read(nowhere), "best_val", LEFT, scores())[1] == 2  # no score anywhere: the last


def test_best_val_weighs_metrics_by_their_relative_gain_and_takes_the_first_of_equals(read):
    val = [both(50, 2.0), both(55, 2.0), both(50, 1.8), both(45, 1.6)]  # gains 0, 10 %, 10 %, -10 % and 20 %
    lines = [{"epoch": i, "test": both(i + 1, i + 1), "val": values} for i, values in enumerate(val)]
    assert select(read(lines), "best_val", BOTH, scores((True, False)))[1] == 1
    assert select(read(lines), "best_val", BOTH, {"val": REFERENCE.score})[1] == 1


def test_delta_m_and_the_runs_own_improvement_can_choose_other_epochs(read):
    """From 10 % to 20 % is much against 10 %, little against a baseline of 50 %; an error from 2.0 to 1.5 is both."""
    val = [both(10, 2.0), both(20, 2.0), both(10, 1.4)]
    found = read([{"epoch": i, "test": values, "val": values} for i, values in enumerate(val)])
    assert select(found, "best_val", BOTH, scores((True, False)))[1] == 1
    assert select(found, "best_val", BOTH, {"val": REFERENCE.score})[1] == 2


def test_epochs_without_evaluation_are_passed_over(read):
    lines = [line(0, 10.0, 50.0), line(1, None, None), line(2, 30.0, 40.0), line(3, None, None), line(4, 20.0, 30.0)]
    assert select(read(lines), "mean_last_10", LEFT, scores())[0]["test"]["left/accuracy"] == 20
    assert select(read(lines), "best_val", LEFT, scores())[1] == 0


def test_best_val_needs_validation_metrics_at_every_evaluation(read):
    with pytest.raises(ValueError, match="no validation metrics"):
        select(read([line(0, 1.0, 1.0), line(1, 1.0, None)]), "best_val", LEFT, scores())


def test_runs_that_are_selected_together_choose_each_for_themselves(read):
    one = read([line(0, 1.0, 9.0), line(1, 2.0, 5.0)])
    other = read([line(0, 3.0, 5.0), line(1, 4.0, 9.0)])
    assert alike(one) == alike(other)
    found = select_of_many([one, other], "best_val", LEFT, scores())
    assert found.epochs.tolist() == [0, 1]
    assert found.values["test"].tolist() == [[1.0], [4.0]]
    assert alike(one) != alike(read([line(0, 1.0, 9.0), line(1, None, None)]))
    assert alike(one) != alike(read([line(0, 1.0, 9.0), line(1, 2.0, None)]))


def test_reference_scores_turn_both_forms_upwards():
    better, worse = [60.0, 1.0], [40.0, 3.0]
    for form in ("metrics", "tasks"):
        reference = Reference(BOTH, REFERENCE.values, REFERENCE.higher, form)
        assert reference.score(better) > 0 > reference.score(worse)
        assert reference.score([50.0, 2.0]) == 0
    assert REFERENCE.part(("right/error",)).delta([1.0]) == pytest.approx(-50)
    undefined = Reference(BOTH, np.array([0.0, 2.0]), (True, False))
    assert undefined.undefined == ["left/accuracy"]
    assert np.isnan(undefined.delta([[1.0, 1.0], [2.0, 2.0]])).tolist() == [True, True]


LINE = {
    **{"epoch": 3, "steps": 7, "lr": 0.5, "losses": {"a": 1.0, "b": None}, "weights_sum": 2.0},
    "weights": {"a": {"mean": 0.5, "min": 0.1, "max": 0.9}, "b": None},
    **{"gradient_norms": None, "val": None, "test": {"a/m": 4.0}},
}


def test_columns_of_a_line(read):
    found = read([LINE, {**LINE, "epoch": 4, "gradient_norms": {"a": 9.0}}])
    assert len(found) == 2
    assert [found.column(name)[1] for name in ("epoch", "losses:a", "weights:a", "gradient_norms:a", "test:a/m")] == [
        *(4, 1.0, 0.5, 9.0, 4.0),
    ]
    assert math.isnan(found.column("losses:b")[0])
    assert math.isnan(found.column("gradient_norms:a")[0])
    assert np.isnan(found.column("no such column")).all()
    assert found.has("test")
    assert not found.has("val")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"epoch": 0}\nnonsense\n{"epoch": 2}\n', "line 2: not JSON"),
        ('{"no epoch": 0}\n', "none of this program's"),
        ("[1]\n", "none of this program's"),
        ('{"epoch": 0, "test": {"a/m": "much"}}\n', "none of this program's"),
        ('{"epoch": 0, "weights": {"a": 1}}\n', "none of this program's"),
    ],
)
def test_lines_that_are_none(tmp_path, text, message):
    (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(ValueError, match=message):
        curves.read(tmp_path / "metrics.jsonl")


def test_a_cut_line_is_left_out_and_told(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 0}\n{"epoch": 1}\n{"epo')
    found, note = curves.read(path)
    assert found.column("epoch").tolist() == [0, 1]
    assert note.endswith("the last line was cut off and is dropped.")
    path.write_bytes(b'{"epoch": 0}\n{"epoch": 1, "\xff')
    assert curves.read(path)[0].column("epoch").tolist() == [0]
    assert len(curves.read(tmp_path / "none")[0]) == 0
