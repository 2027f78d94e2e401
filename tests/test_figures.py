"""The figures: what is in them, that they are text and repeat; and the structure that a report is made of."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from mtlbench.aggregation import gather, report
from mtlbench.aggregation.comparison import compare
from mtlbench.aggregation.drawing import Drawing
from mtlbench.aggregation.figure_data import figure_data
from mtlbench.aggregation.figures import figures
from mtlbench.aggregation.rules import Rules
from run_folders import Folder, composed

ODD = '<script>&"$x$ äö'


@pytest.fixture
def runs(tmp_path):
    """Two methods, two rates, two optimizers, three seeds, four epochs; one run diverged, one cell is missing."""
    folder = Folder(tmp_path / "runs")
    folder.singles()
    _, choices = composed(("method=uncertainty",))
    rng = np.random.default_rng(0)
    for method in ("equal", "uncertainty"):
        more = {"choices": {**choices, "method": ODD}} if method == "uncertainty" else {}
        for lr in (0.02, 0.1):
            for seed in range(3):
                test = [{"left/accuracy": 70 + 5 * i + rng.normal(), "right/error": 0.4 - 0.05 * i} for i in range(4)]
                folder.run(f"method={method}", f"optimizer.lr={lr}", seed=seed, epochs=test, **more)
    where = {"epoch": 0, "step": 1, "reason": "the loss is NaN"}
    folder.run("optimizer.lr=0.5", seed=0, epochs=[None], diverged=where)
    folder.cell("optimizer.lr=0.7", seed=0)
    return folder


@pytest.fixture
def compared(runs):
    results, _ = gather.gather(runs.cells, runs.path, "tiny")
    (found,) = compare(results, "tiny", lambda result, task: "", Rules())
    return found


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_every_figure_is_a_whole_svg_with_its_text_as_text(compared):
    drawn = figures(figure_data(compared))
    assert set(drawn) == {"response", "pareto", "parallel", "budget", "training"}
    for svg in drawn.values():
        assert "tiny: multidigits" in texts(svg)
        assert "<script" not in svg
        assert not re.search(r"\d\d\d\d-\d\d-\d\d|<dc:date|Matplotlib v", svg)
    assert ODD in texts(drawn["response"])
    assert "learning rate" in texts(drawn["response"])
    assert "left accuracy ↑ [%]" in texts(drawn["training"])
    assert {"worst", "best"} <= set(texts(drawn["parallel"]))


def test_the_same_bytes_each_time_and_in_another_process(compared):
    data = figure_data(compared)
    first = figures(data)
    assert figures(data) == first
    with Drawing(True, beside=True) as drawing:
        drawing.begin([data])
        assert drawing.end() == [first]
    with Drawing(False, beside=True) as drawing:
        drawing.begin([data])
        assert drawing.end() == [{}]


def test_the_command_writes_them_and_their_digests(runs, tmp_path):
    files = runs.aggregate(tmp_path, rows=None, figures=True)
    drawn = {name for name in files if name.endswith(".svg")}
    assert drawn == {f"figures/{name}.svg" for name in ("response", "pareto", "parallel", "budget", "training")}
    subprocess.run(["sha256sum", "--check", "--quiet", "digests.txt"], cwd=tmp_path / "results" / "tiny", check=True)
    runs.run("epochs=3", "dataset.tasks=[left]", test={"left/accuracy": 45.0})
    runs.run("epochs=3", "dataset.tasks=[right]", test={"right/error": 0.1})
    runs.run("epochs=3", test={"left/accuracy": 40.0, "right/error": 0.1})
    files = runs.aggregate(tmp_path, out="two", rows=None, figures=True)
    assert "figures/multidigits_epochs=15/response.svg" in files
    assert "figures/multidigits_epochs=3/response.svg" not in files  # one rate is no curve


def test_what_the_figures_show(compared):
    data = figure_data(compared)
    rates, means, least, most = data.response["sgd"]["equal"]
    assert rates.tolist() == [0.02, 0.1]
    expected = [row.deltas["metrics"] for row in compared.settings if row.label in ("equal lr=0.02", "equal lr=0.1")]
    assert means == pytest.approx([delta.mean() for delta in expected])
    assert (least.tolist(), most.tolist()) == ([d.min() for d in expected], [d.max() for d in expected])
    assert data.lost["sgd"]["equal"] == [0.5, 0.7]
    epochs, means, *_ = data.training["left accuracy ↑ [%]"]["equal"]
    chosen = next(row for row in compared.rows if row.label == "equal")
    assert epochs.tolist() == [0, 1, 2, 3]
    assert means[3] == pytest.approx(chosen.values(["left/accuracy"]).mean())
    assert data.points.shape == (12, 2)
    assert data.first == [0, 1]
    assert data.budget["equal"].shape == (3,)  # two finished, one diverged; the missing one is no part


def test_one_setting_of_one_task_pair_needs_no_response_curve(tmp_path):
    folder = Folder(tmp_path / "runs")
    folder.singles(seeds=(0,))
    folder.run(test={"left/accuracy": 81.0, "right/error": 0.2})
    results, _ = gather.gather(folder.cells, folder.path, "tiny")
    (found,) = compare(results, "tiny", lambda result, task: "", Rules())
    assert set(figures(figure_data(found))) == {"pareto"}


def test_tables_alone_need_no_matplotlib():
    code = "import sys, mtlbench.aggregate; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_report_holds_what_the_tables_say(compared, runs):
    data = report.report_data("tiny", [compared], ["a note"], "python -m mtlbench.sweep run sweeps/tiny")
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    (found,) = data["comparisons"]
    settings = {setting["label"]: setting for setting in found["settings"]}
    assert set(settings) == {row.label for row in compared.settings} | {"single_task left", "single_task right"}
    chosen = {label for label, setting in settings.items() if setting["chosen"]}
    assert chosen == {"single_task left", "single_task right"} | {
        setting["label"] for setting in settings.values() if setting["runs"] in _runs_of(compared.rows)
    }
    row = compared.settings[0]
    assert settings[row.label]["delta"]["metrics"] == pytest.approx(row.deltas["metrics"].mean(), rel=1e-5)
    assert settings[row.label]["keys"]["optimizer.lr"] == 0.02
    assert "optimizer.lr" not in found["common"]
    assert found["common"]["epochs"] == 15
    assert settings["equal lr=0.5"]["n"] == "0/1: 1 diverged"
    assert settings["equal lr=0.5"]["delta"] == {"metrics": None, "tasks": None}
    assert found["tables"][0]["title"] == "tiny: multidigits"
    states = {run["state"] for run in data["runs"].values()}
    assert states == {"done", "diverged", "missing"}
    assert str(runs.path) not in json.dumps(data)
    assert data["runs"][compared.settings[0].results[0].id]["command"] == (
        "python -m mtlbench.train method=equal optimizer.lr=0.02 seed=0"
    )


def _runs_of(rows):
    return [[result.id for result in row.results] for row in rows]


def test_curves_of_the_report_are_those_that_are_asked_for_and_thinned(compared, runs):
    def curves(which):
        data = report.report_data("tiny", [compared], [], "", curves=which)
        return {id: run["curves"] for id, run in data["runs"].items() if run["curves"]}

    chosen = {id for ids in _runs_of([*compared.rows, *compared.single.values()]) for id in ids}
    assert set(curves("chosen")) == chosen
    assert len(curves("all")) == 6 + 12 + 1
    assert curves("none") == {}
    one = curves("chosen")[compared.rows[0].results[0].id]
    assert one["epoch"] == [0, 1, 2, 3]
    assert set(one) == {"epoch", "weights_sum", *(f"{s}:{m}" for s in ("val", "test") for m in compared.metrics)}
    long = [{"left/accuracy": float(i), "right/error": 0.1} for i in range(500)]
    folder = runs.run("optimizer.lr=0.9", seed=0, epochs=long)
    results, _ = gather.gather(runs.cells, runs.path, "tiny")
    (found,) = compare(results, "tiny", lambda result, task: "", Rules())
    data = report.report_data("tiny", [found], [], "", curves="all")
    epochs = data["runs"][folder.name]["curves"]["epoch"]
    assert len(epochs) == report.POINTS
    assert (epochs[0], epochs[-1]) == (0, 499)
    assert epochs == sorted(set(epochs))
