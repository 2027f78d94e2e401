"""The command of the toy problem: what it refuses, every method's runs, the tables and the figures."""

import csv
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch

from mtlbench import config
from mtlbench.analysis import toy, toy_figures, toy_methods, toy_problem
from mtlbench.analysis.toy_methods import lives

RESULTS = Path(__file__).resolve().parents[1] / "results" / "analysis" / "toy"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# ----------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["methods=[cagrd]"], "Did you mean cagrad?"),
        (["methods=['cagrad c=-1']"], "c=-1"),
        (["optimizers=[sgd]"], "There are: gd, adam."),
        (["starts=[[12,0]]"], "inside the window"),
        (["starts=[[1,2,3]]"], "inside the window"),
        (["starts=[[a,2]]"], "inside the window"),
        (["rates=[0]"], "a learning rate is a number above 0"),
        (["rates=[1,-0.1]"], "a learning rate is a number above 0"),
        (["rates=[]"], "expected a list"),
        (["rates=[1,1]"], "Name each once"),
        (["method_steps=0"], "at least 1"),
        (["jobs=0"], "at least 1"),
        (["published=false", "methods=[]"], "nothing to do"),
        (["stepz=3"], "there is no such"),
    ],
)
def test_bad_input_is_a_sentence(words, said, tmp_path):
    with pytest.raises(ValueError, match=re.escape(said)):
        toy.toy([*words, f"folder={tmp_path}/none"])
    assert not (tmp_path / "none").exists()


def test_a_sentence_ends_the_command_and_help_answers(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["toy", "rates=[0]"])
    with pytest.raises(SystemExit) as ended:
        toy.main()
    assert "above 0" in ended.value.code
    monkeypatch.setattr("sys.argv", ["toy", "--help"])
    toy.main()
    assert "every_method.csv" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------- every method


def node(*words: str):
    return config.load(words, name="toy").method


def test_every_method_and_the_papers_three_are_there():
    assert list(toy.nodes(None)) == [*toy_methods.PAPER, *config.options("method")]


def test_adams_and_gds_steps_are_torchs():
    """Equal weights: the point that torch.optim moves by autograd's gradient of the sum."""
    for name, kind in (("gd", torch.optim.SGD), ("adam", torch.optim.Adam)):
        (mine,) = lives(node("method=equal"), name, [0.1], [(9.0, 9.0)], 30)
        point = torch.tensor([9.0, 9.0], dtype=torch.float64, requires_grad=True)
        optimizer = kind([point], lr=0.1)
        for _ in range(30):
            _, gradients = toy_problem.losses_and_gradients(point.detach().numpy()[None])
            point.grad = torch.from_numpy(gradients[0].sum(0))
            optimizer.step()
        np.testing.assert_allclose(mine.end, point.detach().numpy(), rtol=1e-9)


def test_runs_are_told_as_they_went():
    first, second, _ = lives(node("method=equal", "method.reduction=mean"), "adam", [1.0], toy_problem.STARTS, 60)
    assert (first.hit, second.hit) == (22, 9)  # as in float32
    assert first.steps == 60
    assert not first.notes
    assert first.stayed is False


def test_negative_losses_are_counted_where_a_formula_needs_positive_ones():
    found = lives(node("method=log"), "gd", [0.1], toy_problem.STARTS, 20)
    assert [life.undefined for life in found] == [0, 20, 0]
    assert found[1].undefined_before == 20
    (other,) = lives(node("method=pcgrad"), "gd", [0.1], [(-8.5, -5.0)], 20)
    assert other.undefined == 0


def test_weights_that_are_not_finite_end_a_run():
    (found,) = lives(node("method=imtl_l"), "gd", [1.0], [(-8.5, -5.0)], 50)
    assert found.stopped == "step 3: IMTLL gives f2 the weight inf"
    assert found.steps == 2


def test_each_note_of_negative_losses_is_some_methods_own():
    sources = "".join(path.read_text() for path in (config.CONF.parent / "src/mtlbench").rglob("*.py"))
    sources = sources.replace((config.CONF.parent / "src/mtlbench/analysis/toy_methods.py").read_text(), "")
    for note in toy_methods.NEGATIVE:
        assert f'note("{note}' in sources or f'note(f"{note}' in sources


# ------------------------------------------------------------------------------------------------ the files

SMALL = ["rates=[1,0.5]", "steps=300", "method_steps=3", "methods=[pcgrad,log]", "jobs=1"]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    assert toy.toy([*SMALL, f"folder={folder}"]) == "done"
    return folder


def test_the_command_writes_tables_and_figures(written):
    names = {path.name for path in written.iterdir()}
    assert {"table.md", "published.csv", "every_method.csv", "gd.svg", "adam.svg"} <= names
    rows = rows_of(written / "published.csv")
    assert list(rows[0])[:4] == ["optimizer", "method", "lr", "iterations"]
    found = {(row["optimizer"], row["method"], row["lr"]): row["iterations"] for row in rows}
    assert len(found) == 12
    assert found["gd", "cagrad", "1.0"] == "213"
    assert found["gd", "pcgrad", "1.0"] == ""
    assert rows[0]["published"] == rows[0]["same"] == ""  # 300 steps are not the paper's
    rows = rows_of(written / "every_method.csv")
    assert list(rows[0])[:4] == ["optimizer", "method", "lr", "iterations"]
    states = {row["method"]: row["state"] for row in rows}
    assert states == {"pcgrad": "not reached", "log": "undefined: negative losses"}
    assert "undef (-)" in (written / "table.md").read_text()


def test_the_same_bytes_again(written, tmp_path):
    toy.toy([*SMALL, f"folder={tmp_path}"])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {p.name: p.read_bytes() for p in written.iterdir()}


def check_figure(path: Path, rows: list[str], columns: list[str], starts: int) -> None:
    """Panels, labels, starts, and paths that begin at the starts and stay inside the panel."""
    svg = {"s": "http://www.w3.org/2000/svg"}
    root = ElementTree.parse(path).getroot()
    texts = [text.text for text in root.findall("s:text", svg)]
    assert {*rows, *columns} <= set(texts)
    panels = root.findall("s:g[@class='panel']", svg)
    assert len(panels) == len(rows) * len(columns)
    assert len(root.findall("s:defs/s:g[@id='ground']/s:path[@class='c']", svg)) == len(toy_figures.LEVELS)
    for panel in panels:
        assert len(panel.findall("s:circle[@class='start']", svg)) == starts
        assert [text.text for text in panel.findall("s:text", svg)] == [str(i + 1) for i in range(starts)]
        runs = panel.findall("s:g[@class='run']", svg)
        assert len(runs) == starts
        for run in runs:
            paths = [path.get("d") for path in run.findall("s:path", svg)]
            assert paths
            values = np.array([float(v) for d in paths for v in re.findall(r"-?[\d.]+", d)])
            assert values.min() >= 0
            assert values.max() <= toy_figures.SIZE


def test_the_figures_hold_paths_starts_and_labels(written):
    for name in ("gd", "adam"):
        check_figure(written / f"{name}.svg", ["equal", "pcgrad", "cagrad"], ["lr 1", "lr 0.5"], 3)


def test_paths_are_clipped_thinned_and_begin_at_the_start():
    inside = toy_figures.segments(np.array([[0.0, 0.0], [0.001, 0.0], [30.0, 0.0], [30.0, 5.0], [0.0, 5.0]]))
    middle = toy_figures.SIZE / 2
    assert inside[0][:4] == (middle, middle, toy_figures.SIZE, middle)
    assert len(inside) == 2  # the small step and the one outside are not drawn
    there_and_back = np.tile([[0.0, 0.0], [1.0, 0.0]], (500, 1))
    assert len(toy_figures.segments(there_and_back)) == 1
    wild = np.random.default_rng(0).uniform(-10, 10, (5000, 2))
    assert len(toy_figures.segments(wild)) == toy_figures.SEGMENTS
    ended = np.array([[0.0, 0.0], [2.0, 0.0], [np.nan, np.nan]])
    assert len(toy_figures.segments(ended)) == 1


def test_the_committed_results_are_whole():
    rows = rows_of(RESULTS / "published.csv")
    assert len(rows) == 54
    fixed = [row for row in rows if row["machine_independent"] == "true"]
    assert len(fixed) == 36
    assert all(row["same"] == "true" for row in fixed)
    every = rows_of(RESULTS / "every_method.csv")
    assert len(every) == 2 * 9 * (len(config.options("method")) + len(toy_methods.PAPER))
    columns = [f"lr {rate:g}" for rate in toy_problem.RATES]
    for name in ("gd", "adam"):
        check_figure(RESULTS / f"{name}.svg", ["equal", "pcgrad", "cagrad"], columns, 3)
        assert (RESULTS / f"{name}.svg").stat().st_size < 1_000_000
