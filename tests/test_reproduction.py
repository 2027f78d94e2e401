"""Ours beside the printed numbers: which row is which, what can be compared, what agrees."""

import csv
import tomllib
from pathlib import Path

import pytest

from mtlbench import config, published_ids
from mtlbench.aggregate import PAPERS
from mtlbench.aggregation import gather, reproduction, rules
from mtlbench.aggregation.comparison import compare
from mtlbench.aggregation.gather import Result
from mtlbench.aggregation.reproduction import of_published
from mtlbench.aggregation.rows import Row
from mtlbench.aggregation.rules import Published
from run_folders import Folder, rows_of

WAITING = Path(__file__).resolve().parents[1] / "sweeps" / "waiting.toml"
HEAD = "paper,table,dataset,setting,architecture,method,optimizer,lr,task,metric,higher_is_better,value,std,note\n"
PAPER = HEAD + "".join(
    f"toy,1,Digits,default,LeNet,{line}\n"
    for line in (
        "single_task,sgd,0.02,left,acc,true,0.80,,",
        "single_task,sgd,0.02,all,delta_m,false,0.0,,",  # by definition: no line
        "equal,sgd,0.02,left,acc,true,0.90,,",
        "equal,sgd,0.02,right,err,false,0.10,,",
        "equal,sgd,0.02,all,delta_m,false,-31.0,2.0,",
        "equal,sgd,0.02,all,params_m,false,79,,",
        "uncertainty,sgd,0.02,left,acc,true,0.95,,",
        "mgda,sgd,0.02,left,acc,true,0.70,,",
        "mgda_ub,sgd,0.02,left,acc,true,0.60,,",
        "nobody,sgd,0.02,left,acc,true,0.99,,",
        "all,sgd,,all,n_pareto_full,true,3,,",
    )
)
METRICS = {"left/acc": {"name": "left/accuracy", "factor": 0.01}, "right/err": {"name": "right/error"}}


def values(accuracy):
    return {"left/accuracy": accuracy, "right/error": 0.1}


@pytest.fixture
def runs(tmp_path):
    """equal agrees, uncertainty does not; of mgda both levels; `nobody` has no run."""
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "toy.csv").write_text(PAPER)
    folder = Folder(tmp_path / "runs")
    folder.singles()
    for seed in range(3):
        folder.run("optimizer.lr=0.02", seed=seed, test=values(89.0 + seed))
        folder.run("method=uncertainty", "optimizer.lr=0.02", seed=seed, test=values(70.0 + seed))
        folder.run("method=mgda", "method.level=parameter", "optimizer.lr=0.02", seed=seed, test=values(71.0))
        folder.run("method=mgda", "method.level=feature", "optimizer.lr=0.1", seed=seed, test=values(61.0))
    return folder


def write(tmp_path, more=""):
    sweep = tmp_path / "sweeps" / "tiny"
    sweep.mkdir(parents=True, exist_ok=True)
    (sweep / rules.FILE).write_text(f"""
rows = ["method", "method.level"]
[[published]]
paper = "toy"
table = "1"
{more}
[published.metrics]
"left/acc" = {{ name = "left/accuracy", factor = 0.01 }}
"right/err" = {{ name = "right/error" }}
""")


def beside(runs, tmp_path, more="", **keys):
    """{"method metric": the line of the table}, and the summary's one line, and the text."""
    write(tmp_path, more)
    files = runs.aggregate(tmp_path, rows=None, papers=tmp_path / "papers", **keys)
    part = files["table.md"].split("\n## Beside")[1].split("\n## ")[0]
    lines = [[c.strip() for c in line.strip("|").split(" | ")] for line in part.splitlines() if line.startswith("| ")]
    (summary,) = rows_of(files["reproduction.md"]).values()
    return {f"{line[0]} {line[1]}": line[2:] for line in lines[2:]}, summary, part, files["reproduction.md"]


def test_every_printed_number_with_a_metric_of_ours_is_a_line(runs, tmp_path):
    lines, summary, text, _ = beside(runs, tmp_path)
    assert set(lines) == {
        *("single_task sgd default left/acc", "equal sgd default left/acc", "equal sgd default right/err"),
        *("equal sgd default all/delta_m", "uncertainty sgd default left/acc", "mgda sgd default left/acc"),
        *("mgda_ub sgd default left/acc", "nobody sgd default left/acc", "all sgd default all/n_pareto_full"),
    }
    assert "Beside" not in text
    assert "toy, Table 1" in text
    published, ours, difference, spread, n, verdict, _ = lines["equal sgd default left/acc"]
    assert (published, ours, difference, n) == ("0.90", "0.90 ± 0.01", "0.00", "3/3")
    assert spread == "0.025 (2 x ours)"  # twice 0.01, and half a unit of 0.90's last digit
    assert verdict == "within"
    assert lines["uncertainty sgd default left/acc"][-2] == "outside"
    assert lines["nobody sgd default left/acc"][1:] == ["-", "-", "-", "-", "not run", "-"]
    assert lines["single_task sgd default left/acc"][1] == "0.81 ± 0.01"
    assert lines["all sgd default all/n_pareto_full"][1] == "1"  # equal's best seed
    assert lines["all sgd default all/n_pareto_full"][-2] == "not comparable"  # no spread is known
    assert summary == ["9", "8", "4", "3", "1", "1"]


def test_the_papers_spread_goes_before_ours(runs, tmp_path):
    lines, *_ = beside(runs, tmp_path)
    published, ours, _, spread, _, verdict, _ = lines["equal sgd default all/delta_m"]
    assert published == "-31.0 ± 2.0"
    assert ours.startswith("-30.6 ± ")  # 90 against 81, 0.1 against 0.2
    assert spread == "2.05 (paper's ±)"
    assert verdict == "within"
    lines, *_ = beside(runs, tmp_path, more='spread = { "left/acc" = 0.3 }')
    assert lines["uncertainty sgd default left/acc"][3:6:2] == ["0.305 (stated)", "within"]


def test_published_ids_find_their_rows(runs, tmp_path):
    lines, *_ = beside(runs, tmp_path)
    assert lines["mgda sgd default left/acc"][1].startswith("0.71")
    assert lines["mgda_ub sgd default left/acc"][1].startswith("0.61")
    text = beside(runs, tmp_path)[2]
    assert "learning rate 0.1, printed 0.02." in text  # of mgda_ub alone
    assert lines["mgda_ub sgd default left/acc"][-1] != lines["mgda sgd default left/acc"][-1]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("epochs = 300", "15 epochs, 300 in the paper"),
        ('network = "segnet segnet"', "network lenet lenet, segnet segnet in the paper"),
        ('differs = ["smaller images"]', "smaller images"),
    ],
)
def test_what_cannot_be_compared_says_why_and_is_counted_so(runs, tmp_path, more, reason):
    lines, summary, text, reproduced = beside(runs, tmp_path, more)
    assert {line[-2] for line in lines.values()} == {"not comparable", "not run"}
    assert reason in text
    assert summary == ["9", "8", "0", "0", "8", "1"]
    assert f"8 cells: {reason}." in reproduced


def test_synthetic_data_is_never_compared(tmp_path, runs):
    for path in runs.path.glob("*/record.json"):
        path.write_text(path.read_text().replace('"synthetic": false', '"synthetic": true'))
    _, summary, text, _ = beside(runs, tmp_path)
    assert "synthetic data" in text
    assert summary[2:4] == ["0", "0"]


def test_another_optimizer_is_told(runs, tmp_path):
    for seed in range(3):
        runs.run("method=rlw", "optimizer=adam", "optimizer.lr=0.02", seed=seed, test=values(99.0))
    path = tmp_path / "papers" / "toy.csv"
    path.write_text(PAPER.replace("nobody", "rlw"))
    lines, _, text, reproduced = beside(runs, tmp_path)
    assert lines["rlw sgd default left/acc"][-2] == "within"
    assert "optimizer adam, printed sgd." in text
    assert "adam" not in reproduced  # it does not keep the two from being compared


def test_what_a_paper_leaves_unsaid_is_told_and_compared(runs, tmp_path):
    lines, _, text, _ = beside(runs, tmp_path, 'unsaid = ["momentum: 0.9 here"]')
    assert lines["equal sgd default left/acc"][-2] == "within"
    assert "unsaid in the paper: momentum: 0.9 here." in text


def test_rows_of_ours_can_be_narrowed(runs, tmp_path):
    lines, *_ = beside(runs, tmp_path, 'ours = { "method.level" = "parameter" }')
    assert lines["mgda sgd default left/acc"][-2] != "not run"
    assert lines["mgda_ub sgd default left/acc"][-2] == "not run"
    assert lines["single_task sgd default left/acc"][-2] != "not run"  # a method's keys say nothing of the baselines


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"paper": "none"}, "there is no .*none.csv. There are: toy"),
        ({"table": "2"}, "has no row with .*its tables are 1"),
        ({"where": {"colour": "red"}}, "colour is no column"),
        ({"metrics": {"left/acc": {"name": "left/acuracy"}}}, "left/acuracy is no metric of ours; there are left/acc"),
    ],
)
def test_what_is_wrong_in_the_block_is_said(runs, tmp_path, block, message):
    results, _ = gather.gather(runs.cells, runs.path, "tiny")
    (found,) = compare(results, "tiny", lambda result, task: "")
    keys = {"paper": "toy", "table": "1", "metrics": METRICS, **block}
    with pytest.raises(ValueError, match=message):
        reproduction.beside(found, Published(**keys), tmp_path / "papers")


def test_every_special_id_is_printed_in_a_paper_and_tells_its_rows_apart():
    tables = [path.read_text(encoding="utf-8").splitlines() for path in PAPERS.glob("*20*.csv")]
    printed = {row["method"] for lines in tables for row in csv.DictReader(lines)}
    waiting = {option for options in tomllib.loads(WAITING.read_text()).values() for option in options}
    for id, said in published_ids.OVERRIDES.items():
        assert id in printed
        words = [f"{key}={value}" for key, value in said.items()]
        if waiting & set(words):  # an architecture to come
            with pytest.raises(ValueError, match="there is no such"):
                config.load_run(words)
            continue
        loaded, choices = config.load_run(words)
        row = Row("", [Result("0", [], "missing", config.identity(loaded), choices)])
        assert of_published(row, {id, said["method"]}) == id
        assert of_published(row, {said["method"]}) == said["method"]
        assert of_published(row, {"somebody else", "single_task", "all"}) is None


def test_an_id_is_the_method_of_its_name_or_none_of_ours():
    assert published_ids.overrides("pcgrad") == {"method": "pcgrad"}
    for id in ("single_task", "all", "pad_net"):
        with pytest.raises(ValueError, match=f"{id}: no method of ours"):
            published_ids.overrides(id)
    said = {"method": "equal", "architecture": "mtan", "method.reduction": "sum"}
    assert published_ids.id_of(said, ["equal", "mtl_baseline", "mtan"]) == "mtan"
    assert published_ids.id_of(said, ["equal", "mtl_baseline"]) == "equal"
    assert published_ids.id_of(said, ["pad_net", "mgda"]) is None
