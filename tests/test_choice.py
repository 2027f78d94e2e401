"""Rows that are chosen among settings: on validation, with their budget, and never on test."""

import csv
import io
import json
import math

import numpy as np
import pytest

from mtlbench.aggregation import gather, inference, rules, sections
from mtlbench.aggregation.comparison import compare
from mtlbench.aggregation.rules import Rules
from mtlbench.aggregation.selection import OPTIMISTIC
from run_folders import Folder, rows_of

GOOD = {"left/accuracy": 90.0, "right/error": 0.1}
FAIR = {"left/accuracy": 85.0, "right/error": 0.15}
POOR = {"left/accuracy": 70.0, "right/error": 0.4}


@pytest.fixture
def runs(tmp_path):
    return Folder(tmp_path / "runs")


@pytest.fixture
def grid(runs):
    """Validation and test disagree: lr=0.1 is the best of equal on validation, lr=0.02 on test."""
    runs.singles()
    for seed in range(3):
        runs.run("optimizer.lr=0.02", seed=seed, test=GOOD, epochs=[GOOD], val=[FAIR])
        runs.run("optimizer.lr=0.1", seed=seed, epochs=[FAIR], val=[GOOD])
        runs.run("optimizer.lr=0.5", seed=seed, epochs=[POOR], val=[POOR])
        runs.run("method=uncertainty", "optimizer.lr=0.02", seed=seed, epochs=[POOR], val=[POOR])
        runs.run("method=uncertainty", "optimizer=adam", "optimizer.lr=0.01", seed=seed, epochs=[FAIR], val=[FAIR])
    return runs


def compared(runs, **keys):
    results, _ = gather.gather(runs.cells, runs.path, "tiny")
    (found,) = compare(results, "tiny", lambda result, task: "", Rules(**keys))
    return found


def section(text, title):
    """A table below the main one: {first cell: the others}."""
    part = next(part for part in text.split("\n## ") if part.startswith(title))
    return rows_of("\n" + part)


def test_the_learning_rate_is_chosen_on_validation_and_the_budget_is_printed(grid, tmp_path):
    files = grid.aggregate(tmp_path, rows=None)
    rows = rows_of(files["table.md"])
    assert list(rows) == ["single_task", "equal", "uncertainty"]
    assert "85.00" in rows["equal"][0]
    chosen = section(files["table.md"], "How the rows were chosen")
    assert chosen["equal"][:3] == ["sgd lr=0.1", "3", "3"]
    assert chosen["uncertainty"][:3] == ["adam", "2", "2"]
    assert chosen["single_task left"][1:3] == ["1", "1"]
    assert (
        "(single_task left 1, single_task right 1, equal 3, uncertainty 2), chosen by validation Δm over metrics"
        in (files["table.md"])
    )
    records = list(csv.DictReader(io.StringIO(files["records.csv"])))
    assert {r["lr"] for r in records if r["chosen"] == "True" and r["method"] == "equal" and r["tasks"] != "left"} >= {
        "0.1"
    }
    assert {r["lr"] for r in records if r["label"].startswith("equal sgd") and r["chosen"] == "True"} == {"0.1"}


def test_every_setting_stays_to_be_seen(grid, tmp_path):
    files = grid.aggregate(tmp_path, rows=None)
    rows = rows_of(files["settings.md"])
    assert list(rows) == [
        "single_task",
        *(f"equal sgd lr={lr}" for lr in ("0.02", "0.1", "0.5")),
        *("uncertainty adam", "uncertainty sgd lr=0.02"),
    ]
    assert "90.00" in rows["equal sgd lr=0.02"][0]
    assert len({row["run"] for row in csv.DictReader(io.StringIO(files["records.csv"]))}) == 6 + 15


def test_each_optimizer_has_its_best_setting(grid, tmp_path):
    text = grid.aggregate(tmp_path, rows=None)["table.md"]
    rows = section(text, "The best setting of each optimizer")
    assert list(rows) == ["single_task", "equal sgd", "uncertainty adam", "uncertainty sgd"]
    assert "85.00" in rows["uncertainty adam"][0]
    rows = rows_of(grid.aggregate(tmp_path, rows=("method", "optimizer"))["table.md"])
    assert list(rows) == ["single_task", "equal sgd", "uncertainty adam", "uncertainty sgd"]


def test_the_form_that_chooses(runs):
    """By metrics the left task weighs two thirds, by tasks a half: they prefer other rates."""
    metrics = {
        name: {"higher_is_better": True, "unit": "", "primary": True} for name in ("left/a", "left/b", "right/c")
    }

    def run(*overrides, **values):
        test = {f"{'right' if name == 'c' else 'left'}/{name}": value for name, value in values.items()}
        found = {name: metrics[name] for name in test}
        runs.run(*overrides, test=test, metrics=found, tasks=list(dict.fromkeys(n.partition("/")[0] for n in test)))

    run("dataset.tasks=[left]", a=100.0, b=100.0)
    run("dataset.tasks=[right]", c=100.0)
    run("optimizer.lr=0.02", a=110.0, b=110.0, c=85.0)  # +10 +10 -15: 1.67 over metrics, -2.5 over tasks
    run("optimizer.lr=0.1", a=100.0, b=100.0, c=101.0)
    assert compared(runs, form="metrics").rows[0].results[0].config["optimizer"]["lr"] == 0.02
    assert compared(runs, form="tasks").rows[0].results[0].config["optimizer"]["lr"] == 0.1


def test_the_rate_of_the_baselines_is_chosen_too(runs, tmp_path):
    for seed in range(3):
        for lr, accuracy in (("0.02", 80.0), ("0.1", 84.0)):
            name = f"optimizer.lr={lr}"
            runs.run(
                "dataset.tasks=[left]",
                name,
                seed=seed,
                epochs=[{"left/accuracy": 99.0 if lr == "0.02" else 84.0}],
                val=[{"left/accuracy": accuracy}],
            )
        runs.run("dataset.tasks=[right]", seed=seed, test={"right/error": 0.2})
        runs.run("optimizer.lr=0.1", seed=seed, test=GOOD)
    files = runs.aggregate(tmp_path, rows=None)
    assert rows_of(files["table.md"])["single_task"][0] == "84.00 ± 0.00"  # not the 99 that looks better on test
    assert section(files["table.md"], "How")["single_task left"][:3] == ["lr=0.1", "2", "2"]
    delta = float(section(files["table.md"], "How")["equal"][4])
    assert delta == pytest.approx(-100 * (6 / 84 + 0.5) / 2, abs=0.01)
    assert "single_task left 2, single_task right 1" in files["table.md"]


def test_baselines_without_validation_part_must_be_one(runs, tmp_path):
    for lr in ("0.02", "0.1"):
        runs.run("dataset.tasks=[left]", f"optimizer.lr={lr}", epochs=[{"left/accuracy": 80.0}], val=[None])
    runs.run("dataset.tasks=[right]", epochs=[{"right/error": 0.2}], val=[None])
    runs.run(epochs=[GOOD], val=[None])
    with pytest.raises(ValueError, match=r"left has 2 single-task settings \(.*lr=0.02; .*lr=0.1\) and no validation"):
        runs.aggregate(tmp_path, rows=None)


def test_without_validation_part_every_setting_is_a_row(runs, tmp_path):
    runs.run("dataset.tasks=[left]", epochs=[{"left/accuracy": 80.0}], val=[None])
    runs.run("dataset.tasks=[right]", epochs=[{"right/error": 0.2}], val=[None])
    for lr in ("0.02", "0.1"):
        runs.run(f"optimizer.lr={lr}", epochs=[GOOD], val=[None])
    text = runs.aggregate(tmp_path, rows=None)["table.md"]
    assert list(rows_of(text)) == ["single_task", "equal lr=0.02", "equal lr=0.1"]
    assert "There is no validation part: no setting was chosen, each is a row." in text


def test_a_setting_that_diverged_on_one_seed_is_not_chosen_over_a_finished_one(grid, tmp_path):
    where = {"epoch": 0, "step": 1, "reason": "the loss is NaN"}
    for seed in range(3):
        more = {"diverged": where, "epochs": [None]} if seed == 2 else {"test": {**GOOD, "left/accuracy": 99.0}}
        grid.run("optimizer.lr=0.7", seed=seed, **more)
    text = grid.aggregate(tmp_path, rows=None)["table.md"]
    assert section(text, "How")["equal"][:3] == ["sgd lr=0.1", "4", "3"]
    lr = section(grid.aggregate(tmp_path, rows=None)["settings.md"].replace("# tiny", "\n## tiny"), "tiny")
    assert lr["equal sgd lr=0.7"][-1] == "2/3: 1 diverged"


def test_where_no_setting_is_finished_the_one_with_most_seeds_is_shown_and_said(grid, tmp_path):
    where = {"epoch": 0, "step": 1, "reason": "the loss is NaN"}
    for lr, done in (("0.02", 1), ("0.1", 2)):
        for seed in range(3):
            more = {"test": GOOD} if seed < done else {"diverged": where, "epochs": [None]}
            grid.run("method=imtl", f"optimizer.lr={lr}", seed=seed, **more)
    text = grid.aggregate(tmp_path, rows=None)["table.md"]
    assert rows_of(text)["imtl"][-1] == "2/3: 1 diverged"
    assert rows_of(text)["imtl"][4] == "-"  # not ranked
    assert section(text, "How")["imtl"][:3] == ["sgd lr=0.1", "2", "0"]
    assert "No setting is finished, shown is that with most seeds: imtl." in text


def test_equal_budgets(grid, tmp_path):
    """Of three settings of equal: the mean of all, of the better of two, and the best, on validation."""
    text = grid.aggregate(tmp_path, rows=None)["table.md"]
    found = compared(grid)
    values = sorted(row.validation for row in found.settings if row.group == "equal")
    table = section(text, "Equal budgets: validation")
    means = [np.mean(values), (2 * values[0] + values[1]) / 3, values[0]]
    assert [float(table[str(k)][0]) for k in (1, 2, 3)] == pytest.approx(means, abs=0.006)
    assert table["3"][1] == "-"  # uncertainty had two
    test = section(text, "Equal budgets: test")
    chosen = next(row for row in found.rows if row.label == "equal")
    assert float(test["3"][0]) == pytest.approx(chosen.deltas["metrics"].mean(), abs=0.006)


def test_settings_that_failed_lose_and_those_that_are_missing_are_no_part_of_the_budget(grid):
    where = {"epoch": 0, "step": 1, "reason": "the loss is NaN"}
    before = {
        label: len(sections.budgets(rows, "metrics")[0]) for label, rows in sections.groups_of(compared(grid)).items()
    }
    for seed in range(3):
        grid.run("optimizer.lr=0.7", seed=seed, epochs=[None], diverged=where)
        grid.cell("optimizer.lr=0.9", seed=seed)
    found = compared(grid)
    rows = sections.groups_of(found)["equal"]
    validation, _, failed = sections.budgets(rows, "metrics")
    assert (len(validation), failed) == (before["equal"] + 1, 1)
    finished = [-row.validation for row in rows if row.state == "finished"]
    assert validation == pytest.approx(-inference.expected_best(finished, 1))
    text = next(table for table in sections.budget(found) if "validation" in table.title)
    assert "equal 1 of 4" in text.legend[1]


def test_optimism_is_what_choosing_epochs_on_test_would_add(runs, tmp_path):
    """equal is at its best on test in epoch 0, by 10 % in one of two metrics; validation chooses epoch 1."""
    runs.singles()
    last = {**GOOD, "left/accuracy": 81.0}
    for seed in range(3):
        runs.run(seed=seed, epochs=[{**last, "left/accuracy": 89.1}, last], val=[FAIR, GOOD])
    for select in ("last", "best_val", "mean_last_10"):
        text = runs.aggregate(tmp_path, rows=None, select=select)["table.md"]
        optimism = 2.5 if select == "mean_last_10" else 5.0
        assert float(section(text, "How")["equal"][5]) == pytest.approx(optimism, abs=0.006)
        assert "no number of this table is" in text
        assert "OPTIMISTIC" not in text
    text = runs.aggregate(tmp_path, rows=None, select=OPTIMISTIC)["table.md"]
    assert "OPTIMISTIC: it was chosen on the numbers that are shown (optimistic_best_test)" in text
    assert rows_of(text)["equal"][0] == "89.10 ± 0.00"
    assert float(section(text, "How")["equal"][5]) == pytest.approx(5.0, abs=0.006)
    assert "the numbers of this table ARE chosen so" in text


def test_best_val_is_by_delta_m_against_the_baselines_validation(runs):
    """A gain of 9 in a metric whose baseline is 10 on validation beats one of 50 where it is 100."""
    runs.run("dataset.tasks=[left]", epochs=[{"left/accuracy": 80.0}], val=[{"left/accuracy": 10.0}])
    runs.run("dataset.tasks=[right]", epochs=[{"right/error": 0.2}], val=[{"right/error": 100.0}])
    val = [{"left/accuracy": 10.0, "right/error": 50.0}, {"left/accuracy": 19.0, "right/error": 100.0}]
    runs.run(epochs=[GOOD, FAIR], val=val)
    found = compared(runs, select="best_val")
    assert found.rows[0].results[0].epoch == 1
    assert found.rows[0].validation == pytest.approx(-45)


def test_optimism_is_never_negative(runs):
    rng = np.random.default_rng(0)
    for seed in range(3):
        for task, metric in (("left", "left/accuracy"), ("right", "right/error")):
            epochs = [{metric: float(v)} for v in rng.uniform(0.1, 0.9, 6)]
            runs.run(f"dataset.tasks=[{task}]", seed=seed, epochs=epochs, val=epochs[::-1])
        epochs = [dict(zip(GOOD, rng.uniform(0.1, 0.9, 2).tolist(), strict=True)) for _ in range(6)]
        runs.run(seed=seed, epochs=epochs, val=epochs[::-1])
    for select in ("last", "best_val", "mean_last_10", OPTIMISTIC):
        for form in ("metrics", "tasks"):
            found = compared(runs, select=select, form=form)
            everyone = [*found.rows, *found.single.values()]
            assert all(row.optimism >= -1e-9 for row in everyone)
            assert any(row.optimism > 0.1 for row in everyone)


def test_runs_of_other_code_are_counted_in_their_row(grid, tmp_path):
    path = grid.path / grid.cells[-1].id / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "source_hash": "0ther"}))
    rows = rows_of(grid.aggregate(tmp_path, rows=None)["table.md"])
    assert rows["uncertainty"][-1] == "3/3: 1 by other code"
    assert rows["equal"][-1] == "3/3"


def test_few_seeds_are_said_to_be_too_few_and_many_are_tested(runs, tmp_path):
    rng = np.random.default_rng(1)
    for seed in range(7):
        runs.run("dataset.tasks=[left]", seed=seed, test={"left/accuracy": 80.0})
        runs.run("dataset.tasks=[right]", seed=seed, test={"right/error": 0.2})
        for i, method in enumerate(("equal", "uncertainty", "imtl")):
            noise = float(rng.normal(0, 0.01))
            test = {"left/accuracy": 80.0 + i, "right/error": 0.2 + noise * (method != "imtl")}
            runs.run(f"method={method}", seed=seed, test=test)
    text = runs.aggregate(tmp_path)["table.md"]
    rows = [line for line in text.split("## Is the difference real?")[1].splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 3
    found = compared(runs)
    a, b = (row.deltas["metrics"] for row in found.rows[:2])
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    assert float(cells[2]) == pytest.approx((a - b).mean(), abs=0.006)
    assert float(cells[3]) == pytest.approx(inference.probability_of_improvement(a, b, False), abs=0.006)
    assert float(cells[5]) == pytest.approx(inference.sign_flip(a - b), abs=6e-5)
    assert float(cells[6]) == pytest.approx(inference.wilcoxon(a - b), abs=6e-5)
    assert float(cells[7]) >= float(cells[5])
    assert "too small" not in text


def test_three_seeds(grid, tmp_path):
    text = grid.aggregate(tmp_path, rows=None)["table.md"]
    assert "3 pairs of seeds: the smallest p that either test can give is 0.25. n is too small to test" in text
    assert "p sign-flip" not in text


def test_bootstrap_holds_the_baselines_spread_where_seeds_agree(runs):
    """Single-task accuracies 80, 81, 82 and equal's the same: no spread together, some alone."""
    runs.singles()
    for seed in range(3):
        runs.run(seed=seed, test={"left/accuracy": 80.0 + seed, "right/error": 0.2})
    found = compared(runs)
    low, high = sections.bootstrap(found, found.rows[0], "metrics")
    assert (low, high) == pytest.approx((0, 0), abs=1e-9)
    runs.run(seed=3, test={"left/accuracy": 83.0, "right/error": 0.2})
    found = compared(runs)
    low, high = sections.bootstrap(found, found.rows[0], "metrics")
    delta = found.rows[0].deltas["metrics"]
    assert low == pytest.approx(np.percentile(delta[inference.resamples(4)].mean(1), 2.5))
    assert low < delta.mean() < high


def test_pareto_counts_and_filters(runs, tmp_path):
    runs.singles(seeds=(0,))
    where = {"epoch": 0, "step": 1, "reason": "the loss is NaN"}
    runs.run("optimizer=adam", seed=0, test={"left/accuracy": 90.0, "right/error": 0.3})
    runs.run("optimizer=adam", seed=1, test={"left/accuracy": 89.0, "right/error": 0.3})  # dominated by its own kind
    runs.run("optimizer=sgd", seed=0, test={"left/accuracy": 80.0, "right/error": 0.2})
    runs.run("optimizer=sgd", seed=1, test={"left/accuracy": 85.0, "right/error": 0.4})  # dominated by adam
    runs.run("optimizer=sgd", seed=2, test={"left/accuracy": 5.0, "right/error": 0.1})  # filtered
    runs.run("optimizer=sgd", seed=3, epochs=[None], diverged=where)
    runs.run("optimizer=sgd", seed=4, test={"left/accuracy": None, "right/error": 0.1})
    runs.cell("optimizer=sgd", seed=5)
    found = compared(runs, valid={"left/accuracy": 10.0})
    front = found.front
    adam = np.array([run.option("optimizer") == "adam" for run in front.runs])
    assert [adam.sum(), (front.full & adam).sum(), (front.other & adam).sum()] == [2, 1, 2]
    assert [(~adam).sum(), (front.full & ~adam).sum(), (front.other & ~adam).sum()] == [2, 1, 1]
    assert found.front.left_out == {
        "left/accuracy below 10": 1,
        "diverged": 1,
        "a metric is undefined": 1,
        "missing": 1,
    }
    text = runs.aggregate(tmp_path, rows=None)["table.md"]
    rows = [
        line
        for line in text.split("## Pareto-optimal runs")[1].partition("\n## ")[0].splitlines()
        if line.startswith("| ")
    ][2:]
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in rows] == [
        ["adam", "all", "2", "2", "1", "2"],
        ["sgd", "all", "6", "3", "2", "2"],  # with the accuracy of 5, which nobody dominates
    ]
    unknown = compared(runs, valid={"semantic/miou": 10.0})
    with pytest.raises(ValueError, match=r"valid: semantic/miou is no metric here; there are left/accuracy"):
        _ = unknown.front


def test_aggregate_toml(tmp_path):
    sweep = tmp_path / "sweeps" / "tiny"
    sweep.mkdir(parents=True)
    assert rules.read(sweep) == Rules()
    (sweep / rules.FILE).write_text('select = "best_val"\nrows = ["method", "optimizer"]\nvalid = { "a/b" = 1.0 }\n')
    found = rules.read(sweep)
    assert (found.select, found.rows, found.valid) == ("best_val", ("method", "optimizer"), {"a/b": 1.0})
    assert rules.read(sweep, select="last", rows=None).select == "last"
    for text, message in (
        ("selct = 1", "selct is no key"),
        ('select = "best"', "the rules are last, mean_last_10"),
        ('form = "both"', "metrics, tasks"),
        ('rows = ["optimizer"]', "method is always"),
        ("not toml", "not TOML"),
        ('[published]\npaper = "x"', "two brackets"),
        ('[[published]]\npaper = "x"', "lacks metrics, table"),
        ('[[published]]\npapier = "x"', "published.papier is no key"),
    ):
        (sweep / rules.FILE).write_text(text)
        with pytest.raises(ValueError, match=message):
            rules.read(sweep)


def test_a_seed_that_only_one_row_has_is_left_out_of_the_pairs(runs):
    runs.singles()
    for seed in range(3):
        runs.run(seed=seed, test=GOOD)
        runs.run("method=uncertainty", seed=seed + 1, test=FAIR)
    found = compared(runs)
    grid = sections.tests(found)
    assert [cell.text for cell in grid.rows[0]][4] == "2"
    assert not math.isnan(float(grid.rows[0][2].text))


def test_two_hybrids_are_two_rows_and_their_rates_are_chosen(runs):
    runs.singles(seeds=(0,))
    for loss in ("uncertainty", "imtl_l"):
        words = ("method=hybrid", f"method@method.loss={loss}", "method@method.gradient=imtl_g")
        for lr, values in (("0.02", FAIR), ("0.1", GOOD)):
            runs.run(*words, f"optimizer.lr={lr}", test=values)
    found = compared(runs)
    assert [row.label for row in found.rows] == ["hybrid loss=imtll", "hybrid loss=uncertainty"]  # by their classes
    assert [(row.tried, row.results[0].config["optimizer"]["lr"]) for row in found.rows] == [(2, 0.1), (2, 0.1)]


def test_baselines_alone_make_a_table(runs, tmp_path):
    runs.singles()
    files = runs.aggregate(tmp_path, rows=None, figures=True)
    assert list(rows_of(files["table.md"])) == ["single_task"]
    assert "6 cells: 6 done." in files["status.md"]
    assert not [name for name in files if name.endswith(".svg")]


def test_a_comparison_whose_methods_have_not_run_yet(runs, tmp_path):
    runs.singles()
    for lr in ("0.02", "0.1"):
        runs.cell(f"optimizer.lr={lr}", seed=0)
    files = runs.aggregate(tmp_path, rows=None, figures=True)
    assert rows_of(files["table.md"])["equal"] == ["-"] * 7 + ["0/1: 1 missing"]
    assert section(files["table.md"], "How")["equal"][1:3] == ["2", "0"]
