"""The command that turns run folders into tables: generated folders in, text out."""

import csv
import io
import json
import math
import random
import re
import subprocess
import sys

import pytest
from rich.console import Console

from mtlbench import aggregate, config, stats
from mtlbench.aggregation import gather, presentation, tables
from mtlbench.aggregation.comparison import compare
from mtlbench.aggregation.rules import Rules
from run_folders import EACH, Folder, composed, rows_of


@pytest.fixture
def runs(tmp_path):
    return Folder(tmp_path / "runs")


@pytest.fixture
def tiny(runs):
    """Single tasks at 81 % and 0.2; equal a little worse, lr=0.1 better at one metric and worse at the other."""
    runs.singles()
    for seed in range(3):
        test = {"left/accuracy": 79.0 + 2 * seed, "right/error": 0.22}
        runs.run("optimizer.lr=0.02", seed=seed, test=test, seconds=0.5)
        test = {"left/accuracy": 79.0 + 2 * seed, "right/error": 0.18}
        runs.run("optimizer.lr=0.1", seed=seed, test=test, seconds=0.5 + 0.1 * seed, weights_sum=1.0)
    return runs


GOLDEN = """\
# tiny: multidigits

- Dataset multidigits; multi_decoder + lenet + lenet; 15 epochs; float32.
- Test split; selection: the last epoch (last).
- Seeds 0, 1, 2. ± is the standard deviation over seeds (ddof 1). 3 seeds: too few to call any difference.
- Code: source 5a5a.

| method | left accuracy ↑ \\[%\\] | right error ↓ | Δm metrics ↓ \\[%\\] | Δm tasks ↑ \\[%\\] | rank ↓ \
| s/step ÷ equal | Σ weights | n |
| :-- | --: | --: | --: | --: | --: | --: | --: | --: |
| single_task | 81.00 ± 1.00 | 0.2000 ± 0.0000 | - | - | - | - | - | 3/3 |
| equal lr=0.02 | 81.00 ± 2.00 | <ins>0.2200 ± 0.0000</ins> | <ins>5.00 ± 1.23</ins> | <ins>-5.00 ± 1.23</ins> \
| <ins>1.75</ins> | 1.00 | 2.00 | 3/3 |
| equal lr=0.1 | 81.00 ± 2.00 | **0.1800 ± 0.0000** | **-5.00 ± 1.23** | **5.00 ± 1.23** \
| **1.25** | 1.00 | 1.00 | 3/3 |

- Δm metrics: mean over all metrics of the relative change against single_task, lower is better (Elich et al. 2023). \
Δm tasks: mean over tasks of the mean over their metrics, higher is better (Vandenhende et al. 2021). \
Each seed against the mean over seeds of single_task.
- rank: mean over 2 metrics of the rank of the mean over seeds, ties averaged, among 2 complete rows. \
Of these, the best is bold, the second underlined.
- s/step ÷ equal: median over seeds of seconds per step relative to equal, same seed and machine. \
Σ weights: mean over steps of the sum of the task weights, a hidden factor of the learning rate.
"""


def test_golden_table(tiny, tmp_path):
    assert main_table(tiny.aggregate(tmp_path)) == GOLDEN


def test_seconds_on_a_busy_machine_are_left_out(tiny, tmp_path):
    for seed in range(3):
        test = {"left/accuracy": 79.0, "right/error": 0.2}
        tiny.run("method=mgda", "optimizer.lr=0.02", seed=seed, test=test, seconds=1.0, load=(1.5, 3.2, None)[seed])
        tiny.run("method=pcgrad", "optimizer.lr=0.02", seed=seed, test=test, seconds=1.0, load=3.2)
    text = main_table(tiny.aggregate(tmp_path))
    rows = rows_of(text)
    assert [rows[name][5] for name in ("mgda lr=0.02", "pcgrad lr=0.02")] == ["2.00", "-"]
    assert "without 5 of 12 runs, whose machine had more than 1.5 processes a core" in text


def main_table(files):
    return files["table.md"].partition("\n## ")[0]


def test_latex_table(tiny, tmp_path):
    text = tiny.aggregate(tmp_path)["table.tex"]
    body = [line for line in text.partition(r"\end{table}")[0].splitlines() if line.endswith(r"\\")]
    assert body == [
        r"method & left accuracy $\uparrow$ [\%] & right error $\downarrow$ & $\Delta$m metrics $\downarrow$ [\%] & "
        r"$\Delta$m tasks $\uparrow$ [\%] & rank $\downarrow$ & s/step $\div$ equal & $\Sigma$ weights & n \\",
        r"single\_task & 81.00 $\pm$ 1.00 & 0.2000 $\pm$ 0.0000 & - & - & - & - & - & 3/3 \\",
        r"equal lr=0.02 & 81.00 $\pm$ 2.00 & \underline{0.2200 $\pm$ 0.0000} & \underline{5.00 $\pm$ 1.23} & "
        r"\underline{$-$5.00 $\pm$ 1.23} & \underline{1.75} & 1.00 & 2.00 & 3/3 \\",
        r"equal lr=0.1 & 81.00 $\pm$ 2.00 & \textbf{0.1800 $\pm$ 0.0000} & \textbf{$-$5.00 $\pm$ 1.23} & "
        r"\textbf{5.00 $\pm$ 1.23} & \textbf{1.25} & 1.00 & 1.00 & 3/3 \\",
    ]
    for name in ("toprule", "midrule", "bottomrule", "caption", "begin{tabular}{lrrrrrrrr}"):
        assert text.partition(r"\end{table}")[0].count(f"\\{name}") == 1


def test_records_are_tidy_and_hold_every_number(tiny, tmp_path):
    rows = list(csv.DictReader(io.StringIO(tiny.aggregate(tmp_path)["records.csv"])))
    assert len(rows) == 2 * (6 + 2 * 6)  # two splits; six single-task numbers, two rows of three seeds and two metrics
    keys = [(row["run"], row["split"], row["task"], row["metric"]) for row in rows]
    assert len(set(keys)) == len(keys)
    picked = [r for r in rows if r["label"] == "equal lr=0.1" and r["split"] == "test" and r["task"] == "left"]
    assert [(r["seed"], float(r["value"]), r["lr"], r["higher_is_better"], r["unit"]) for r in picked] == [
        ("0", 79.0, "0.1", "True", "%"),
        ("1", 81.0, "0.1", "True", "%"),
        ("2", 83.0, "0.1", "True", "%"),
    ]
    assert {row["state"] for row in rows} == {"done"}
    assert {row["source_hash"] for row in rows} == {"5a5a"}
    assert {row["epoch"] for row in rows} == {"0"}
    assert not any(str(tmp_path) in value for row in rows for value in row.values())  # where runs live is not in it


def test_same_bytes_whatever_the_order(tiny, tmp_path):
    first = tiny.aggregate(tmp_path, out="first")
    mixed = random.Random(0).sample(tiny.cells, len(tiny.cells))
    assert mixed != tiny.cells
    assert tiny.aggregate(tmp_path, out="second", cells=mixed) == first
    assert tiny.aggregate(tmp_path, out="third", cells=tiny.cells + tiny.cells[:3]) == first  # a cell named twice
    assert tiny.aggregate(tmp_path, out="first") == first  # written over itself


def test_holes_are_shown_in_place_and_never_ranked(tiny, runs, tmp_path):
    """A row with a diverged seed, one with failed, running, interrupted and missing seeds, one without any run."""
    from mtlbench.claim import Claim

    good = {"left/accuracy": 99.0, "right/error": 0.01}  # better than all others: it must not become the best
    for seed in (0, 1):
        runs.run("optimizer.lr=0.3", seed=seed, test=good)
    where = {"epoch": 3, "step": 17, "reason": "the loss of left is NaN"}
    runs.run("optimizer.lr=0.3", seed=2, epochs=[None], diverged=where)
    runs.run("optimizer.lr=0.5", seed=0, test=good)
    for seed in (1, 2, 3):
        (runs.path / runs.cell("optimizer.lr=0.5", seed=seed)[0].id).mkdir()
    failed, running, interrupted = [runs.path / cell.id for cell in runs.cells[-3:]]
    (failed / "error.txt").write_text("Traceback (most recent call last):\n  ...\nOSError: disk <full>\n\n")
    (interrupted / "config.yaml").write_text("seed: 3\n")
    runs.cell("optimizer.lr=0.5", seed=4)
    runs.cell("optimizer.lr=0.7", seed=0)
    claim = Claim(running, {})
    try:
        files = runs.aggregate(tmp_path)
    finally:
        claim.give_back()
    rows = rows_of(files["table.md"])
    assert rows["equal lr=0.3"][-1] == "2/3: 1 diverged"
    assert rows["equal lr=0.5"][-1] == "1/5: 1 failed, 1 interrupted, 1 missing, 1 running"
    assert rows["equal lr=0.7"] == ["-"] * 7 + ["0/1: 1 missing"]
    assert rows["equal lr=0.3"][:2] == ["99.00 ± 0.00", "0.0100 ± 0.0000"]
    for label in ("equal lr=0.3", "equal lr=0.5"):
        assert rows[label][4] == "-"  # no rank
        assert "**" not in "".join(rows[label])
    assert rows["equal lr=0.1"][4] == "**1.25**"  # as if the others were not there
    assert (
        "Not complete, shown with what there is and not ranked: equal lr=0.3, equal lr=0.5, equal lr=0.7."
        in (files["table.md"])
    )
    status = files["status.md"]
    assert "21 cells: 15 done, 1 diverged, 1 failed, 1 interrupted, 1 running, 2 missing." in status
    assert f"failed equal lr=0.5 seed=1, run {failed.name}: OSError" in status
    assert "OSError: disk &lt;full&gt;" in status  # in Markdown nothing is HTML
    assert "diverged equal lr=0.3 seed=2" in status
    assert "epoch 3, step 17: the loss of left is NaN" in status
    assert "python -m mtlbench.sweep run" in status
    assert f"python -m mtlbench.train optimizer.lr=0.5 seed=4 machine.runs={runs.path}" in status
    records = list(csv.DictReader(io.StringIO(files["records.csv"])))
    empty = [row for row in records if row["state"] != "done"]
    assert len(empty) == 6
    assert all(row["value"] == "" and row["metric"] == "" for row in empty)


def test_a_diverged_seed_has_no_part_in_any_number(tiny, runs, tmp_path):
    """The last epoch of a diverged run may have metrics; they are not its result."""
    before = rows_of(tiny.aggregate(tmp_path, out="before")["table.md"])
    where = {"epoch": 1, "step": 0, "reason": "x"}
    bad = {"left/accuracy": 1.0, "right/error": 9.0}
    runs.run("optimizer.lr=0.1", seed=3, epochs=[bad, None], diverged=where, weights_sum=99.0, seconds=99.0)
    after = rows_of(runs.aggregate(tmp_path, out="after")["table.md"])
    plain = [cell.replace("*", "").replace("<ins>", "").replace("</ins>", "") for cell in before["equal lr=0.1"]]
    assert after["equal lr=0.1"][:4] + after["equal lr=0.1"][5:7] == plain[:4] + plain[5:7]
    assert after["equal lr=0.1"][-1] == "3/4: 1 diverged"


def test_undefined_metrics_are_said_to_be(tiny, runs, tmp_path):
    for seed in range(3):
        value = None if seed == 1 else 90.0
        runs.run("optimizer.lr=0.3", seed=seed, test={"left/accuracy": value, "right/error": 0.1})
    row = rows_of(runs.aggregate(tmp_path)["table.md"])["equal lr=0.3"]
    assert row[0] == "undefined"
    assert row[1] == "0.1000 ± 0.0000"  # not marked as the best: the row is not ranked
    assert row[2:5] == ["-", "-", "-"]


def test_a_baseline_of_zero_has_no_delta_m(runs, tmp_path):
    for seed in range(3):
        runs.run("dataset.tasks=[left]", seed=seed, test={"left/accuracy": 0.0})
        runs.run("dataset.tasks=[right]", seed=seed, test={"right/error": 0.2})
        runs.run(seed=seed, test={"left/accuracy": 10.0, "right/error": 0.2})
    files = runs.aggregate(tmp_path)
    assert rows_of(files["table.md"])["equal"][2:4] == ["-", "-"]
    assert "Δm is undefined: single_task's left/accuracy is not above 0." in files["table.md"]


def test_missing_baseline_names_the_command(runs, tmp_path):
    runs.run("dataset.tasks=[left]", test={"left/accuracy": 80.0})
    runs.run("dataset.tasks=[left,right]", "optimizer.lr=0.1", "architecture=multi_decoder", seed=0, test=GOOD)
    with pytest.raises(ValueError, match=r"single-task run of right.*none in the sweep") as caught:
        runs.aggregate(tmp_path)
    words = f"optimizer.lr=0.1 seed=0 machine.runs={runs.path} method=equal 'dataset.tasks=[right]'"
    assert f"\n  python -m mtlbench.train {words}\n" in str(caught.value)
    loaded, _ = config.load_run(["optimizer.lr=0.1", "seed=0", "method=equal", "dataset.tasks=[right]"])
    assert list(loaded.dataset.tasks) == ["right"]  # the command composes
    assert not (tmp_path / "results").exists()  # nothing half-made


GOOD = {"left/accuracy": 90.0, "right/error": 0.1}


def test_unfinished_baseline_says_how_to_go_on(runs, tmp_path):
    runs.run("dataset.tasks=[left]", test={"left/accuracy": 80.0})
    runs.cell("dataset.tasks=[right]", seed=0)
    runs.run(seed=0, test=GOOD)
    with pytest.raises(ValueError, match=r"run of right.*0/1: 1 missing[\s\S]*mtlbench.sweep run") as caught:
        runs.aggregate(tmp_path)
    assert f"machine.runs={runs.path}" in str(caught.value)


def test_a_baseline_with_fewer_seeds_is_said_to_have(tiny, runs, tmp_path):
    runs.cell("dataset.tasks=[left]", seed=3)
    text = runs.aggregate(tmp_path)["table.md"]
    assert rows_of(text)["single_task"][-1] == "left 3/4: 1 missing, right 3/3"
    assert "relative to fewer seeds than planned: single_task left." in text


def test_a_baseline_has_the_protocol_of_its_rows(tiny, runs, tmp_path):
    """Other epochs are another comparison, with baselines of its own; a float64 baseline is none for float32."""
    runs.run("epochs=3", test=GOOD)
    with pytest.raises(ValueError, match=r"run of left.*none in the sweep"):
        runs.aggregate(tmp_path)
    runs.run("epochs=3", "dataset.tasks=[left]", test={"left/accuracy": 45.0})
    runs.run("epochs=3", "dataset.tasks=[right]", test={"right/error": 0.1})
    text = runs.aggregate(tmp_path)["table.md"]
    assert "# tiny: multidigits, epochs=15\n" in text
    assert "# tiny: multidigits, epochs=3\n" in text
    three = rows_of("| " + text.split("epochs=3\n")[1].partition("| ")[2])
    assert three["equal"][2:4] == ["-50.00", "50.00"]  # 90 against 45, 0.1 against 0.1; n = 1: no ±


def test_no_finished_run(runs, tmp_path):
    runs.cell("optimizer.lr=0.1", seed=0)
    with pytest.raises(ValueError, match=r"no run has finished \(1 missing\)[\s\S]*mtlbench.sweep run"):
        runs.aggregate(tmp_path)


def test_synthetic_data_is_said_in_every_table(runs, tmp_path):
    runs.singles(synthetic=True)
    runs.run(test=GOOD, synthetic=True)
    files = runs.aggregate(tmp_path)
    assert files["table.md"].startswith("# tiny: multidigits (synthetic data)\n")
    assert "All runs used synthetic data" in files["table.md"]
    assert "multidigits (synthetic data)" in files["table.tex"]
    assert "multidigits (synthetic data)" in files["status.md"]
    assert {row["synthetic"] for row in csv.DictReader(io.StringIO(files["records.csv"]))} == {"True"}


def test_real_and_synthetic_in_one_table_are_told_apart(tiny, runs, tmp_path):
    runs.run("optimizer.lr=0.3", test=GOOD, synthetic=True, fingerprint="def")
    text = runs.aggregate(tmp_path)["table.md"]
    assert "equal lr=0.3 (synthetic data)" in rows_of(text)
    assert "equal lr=0.1" in rows_of(text)
    assert "1 of 13 runs used synthetic data" in text
    assert re.search(r"Runs of left, right with different data: abc \(\d runs\), def \(1 run\)\.", text)


def test_differences_between_runs_are_in_the_header(tiny, runs, tmp_path):
    other = {"source_hash": "6b6b", "versions": {"torch": "2.10.0"}, "device": "H100"}
    runs.run("method=uncertainty", seed=0, test=GOOD, **other)
    text = runs.aggregate(tmp_path)["table.md"]
    assert "Runs of 2 versions of the code: 5a5a (12 runs), 6b6b (1 run)." in text
    assert "Runs with different versions of torch: 2.10.0 (1 run), 2.9.0 (12 runs)." in text
    assert "Runs with different devices: H100 (1 run), cpu (12 runs)." in text
    assert "Seeds differ between rows: 0; 0, 1, 2." in text
    assert "1 seed: too few to call any difference." in text
    assert rows_of(text)["uncertainty lr=0.02"][5] == "-"  # seconds on another machine are not comparable


def test_six_seeds_are_not_called_too_few(runs, tmp_path):
    runs.singles(range(6))
    for seed in range(6):
        runs.run(seed=seed, test=GOOD)
    assert "too few" not in runs.aggregate(tmp_path)["table.md"]


ODD = r'a|b_*<script>"&%$#_{}~^\`c[d]'


def test_odd_names_are_escaped(runs, tmp_path):
    runs.singles()
    _, choices = composed(())
    runs.run(test=GOOD, choices={**choices, "method": ODD})
    files = runs.aggregate(tmp_path)
    line = next(line for line in files["table.md"].splitlines() if "script" in line)
    assert line.startswith(r'| a\|b\_\*&lt;script&gt;"&amp;%$\#\_{}\~^\\\`c\[d\] | ')
    assert "<script>" not in files["table.md"] + files["status.md"]
    latex = next(line for line in files["table.tex"].splitlines() if "script" in line)
    expected = r"a$|$b\_*$<$script$>$''\&\%\$\#\_\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}`c[d] & "
    assert latex.startswith(expected)
    assert {row["method"] for row in csv.DictReader(io.StringIO(files["records.csv"]))} == {"equal", ODD}


def test_every_rendering_shows_the_same_cells():
    table = tables.Table("t", ["a note"], ["method", "x"], [[tables.Cell("a"), tables.Cell("1", tables.BEST)]])
    table.rows.append([tables.Cell("b\nc"), tables.Cell("2", tables.SECOND)])
    assert (
        tables.plain(table)
        == "t\n  a note\n  method    x\n  a       1 *\n  b c     2 +\n  * best, + second of the complete rows\n"
    )
    assert "| b c | <ins>2</ins> |" in tables.markdown(table)
    assert r"b c & \underline{2} \\" in tables.latex(table)


def test_a_terminal_gets_emphasis_and_others_plain_text():
    table = tables.Table("t[red]", ["a [note]"], ["method", "x"], [[tables.Cell("a 1"), tables.Cell("1", tables.BEST)]])
    table.rows.append([tables.Cell("b"), tables.Cell("2" * 200, tables.SECOND)])
    file, terminal = io.StringIO(), io.StringIO()
    tables.show(table, Console(file=file, highlight=False, soft_wrap=True, width=40))
    assert file.getvalue() == tables.plain(table) + "\n"
    tables.show(table, Console(file=terminal, force_terminal=True, highlight=False, soft_wrap=True, width=40))
    text = terminal.getvalue()
    assert re.sub("\x1b\\[[0-9;]*m", "", text) == tables.plain(table) + "\n"  # nothing cut at 40 columns
    assert "a 1" + " " * 204 + "\x1b[1m1\x1b[0m *" in text
    assert "\x1b[4m" + "2" * 200 + "\x1b[0m +" in text


def test_equal_means_tie_whatever_the_order_of_their_terms(runs, tmp_path):
    """0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ in their last bit."""
    runs.singles()
    for seed, (one, two) in enumerate([(0.1, 0.3), (0.2, 0.2), (0.3, 0.1)]):
        runs.run("optimizer.lr=0.02", seed=seed, test={"left/accuracy": 80.0, "right/error": one})
        runs.run("optimizer.lr=0.1", seed=seed, test={"left/accuracy": 80.0, "right/error": two})
    assert sum([0.1, 0.2, 0.3]) != sum([0.3, 0.2, 0.1])
    rows = rows_of(runs.aggregate(tmp_path)["table.md"])
    assert rows["equal lr=0.02"][4] == rows["equal lr=0.1"][4] == "1.50"
    assert not any("**" in cell for cell in rows["equal lr=0.02"] + rows["equal lr=0.1"])


@pytest.mark.parametrize(
    ("values", "expected"), [([96.4], 2), ([100.0], 1), ([3.0], 3), ([0.05], 4), ([12345.0], 0), ([math.nan], 4)]
)
def test_decimals(values, expected):
    assert tables.decimals(values) == expected


def test_best_val_needs_validation_metrics(tiny, runs, tmp_path):
    assert "selection: the epoch with the best validation Δm" in runs.aggregate(tmp_path, select="best_val")["table.md"]
    runs.run("optimizer.lr=0.3", epochs=[GOOD], val=[None])
    with pytest.raises(ValueError, match=r"--select best_val: run \w+ has no validation metrics\. Use --select last"):
        runs.aggregate(tmp_path, select="best_val")


def test_half_written_line_is_skipped_with_a_note(tiny, runs, tmp_path):
    """A cut line after the last epoch costs nothing; a cut last epoch makes the run unreadable, not something else."""
    with open(runs.path / runs.cells[-1].id / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 1, "te')
    files = runs.aggregate(tmp_path)
    assert main_table(files) == GOLDEN
    assert "the last line was cut off and is dropped" in files["status.md"]
    (runs.path / runs.cells[-1].id / "metrics.jsonl").write_text('{"epoch": 0, "te')
    files = runs.aggregate(tmp_path)
    assert rows_of(files["table.md"])["equal lr=0.1"][-1] == "2/3: 1 unreadable"
    assert "metrics.jsonl has 0 whole lines, the record says 1 epochs." in files["status.md"]


def test_a_damaged_or_foreign_record_is_refused_with_the_reason(tiny, runs, tmp_path):
    a, b, c = [runs.path / cell.id for cell in runs.cells[-5::2]]  # of lr=0.1: seeds 0, 1, 2
    (a / "record.json").write_text("{")
    entry = json.loads((b / "record.json").read_text())
    del entry["source_hash"], entry["device"]
    (b / "record.json").write_text(json.dumps(entry))
    (c / "metrics.jsonl").write_text("nonsense\n{}\n")
    files = runs.aggregate(tmp_path)
    assert rows_of(files["table.md"])["equal lr=0.1"][-1] == "0/3: 3 unreadable"
    assert "is damaged" in files["status.md"]
    assert "lacks source_hash, device: another version of the code wrote it." in files["status.md"]
    assert "metrics.jsonl, line 1: not JSON" in files["status.md"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda entry: [], "damaged: no mapping"),
        (
            lambda entry: {**entry, "run": "0123456789ab"},
            "is that of run 0123456789ab: the folder was renamed or copied",
        ),
        (
            lambda entry: {**entry, "config": {k: v for k, v in entry["config"].items() if k != "precision"}},
            "lacks config.precision: another version of the code wrote it",
        ),
        (lambda entry: {**entry, "epochs": 7}, "has 1 whole lines, the record says 7 epochs"),
    ],
)
def test_a_record_that_cannot_be_this_runs_is_no_result(tiny, tmp_path, change, reason):
    path = tiny.path / tiny.cells[-1].id / "record.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    files = tiny.aggregate(tmp_path)
    assert rows_of(files["table.md"])["equal lr=0.1"][-1] == "2/3: 1 unreadable"
    assert reason in files["status.md"]


def test_a_record_with_more_than_is_known_is_read(tiny, tmp_path):
    """Of a newer version, or with keys of somebody's own."""
    before = tiny.aggregate(tmp_path, out="before")["table.md"]
    for path in tiny.path.glob("*/record.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "of_tomorrow": {"a": [1]}}))
    assert tiny.aggregate(tmp_path, out="after")["table.md"] == before


def test_a_last_epoch_without_test_metrics_is_no_result(tiny, runs, tmp_path):
    runs.run("optimizer.lr=0.3", epochs=[GOOD, None])
    files = runs.aggregate(tmp_path)
    assert rows_of(files["table.md"])["equal lr=0.3"][-1] == "0/1: 1 unreadable"
    assert "the last epoch has no test value of left/accuracy, right/error." in files["status.md"]


def test_a_row_with_fewer_tasks_is_not_ranked(tiny, runs, tmp_path):
    """One task under another method is no baseline: it is shown with the metric it has."""
    for seed in range(3):
        runs.run("dataset.tasks=[left]", "method=uncertainty", seed=seed, test={"left/accuracy": 99.0})
    rows = rows_of(runs.aggregate(tmp_path)["table.md"])
    assert sum(label.startswith("equal") for label in rows) == 2
    row = rows[r"uncertainty tasks=\[left\] lr=0.02"]
    assert row[:2] == ["99.00 ± 0.00", "-"]
    assert row[4] == "-"


def test_edited_files_are_kept_with_a_warning(tiny, tmp_path, capsys):
    first = tiny.aggregate(tmp_path)
    assert capsys.readouterr().err == ""
    table = tmp_path / "results" / "tiny" / "table.md"
    table.write_text(first["table.md"] + "my remark\n")
    files = tiny.aggregate(tmp_path)
    assert "table.md was edited by hand. It is kept as table.md.edited1" in capsys.readouterr().err
    assert files.pop("table.md.edited1") == first["table.md"] + "my remark\n"
    assert files == first
    (tmp_path / "results" / "tiny" / "digests.txt").unlink()  # files of unknown origin count as edited, if different
    tiny.run("optimizer.lr=0.3", test=GOOD)
    files = tiny.aggregate(tmp_path)
    assert files["table.md.edited2"] == first["table.md"]
    err = capsys.readouterr().err
    assert err.count("edited by hand") == 4


def test_new_runs_replace_what_the_command_wrote_without_a_word(tiny, tmp_path, capsys):
    tiny.aggregate(tmp_path)
    tiny.run("optimizer.lr=0.3", test=GOOD)
    assert "equal lr=0.3" in tiny.aggregate(tmp_path)["table.md"]
    assert capsys.readouterr().err == ""


def test_what_is_no_longer_written_goes_unless_it_was_edited(tiny, tmp_path):
    tiny.aggregate(tmp_path, rows=None)
    folder = tmp_path / "results" / "tiny"
    assert (folder / "settings.md").exists()
    (folder / "mine.md").write_text("not of this command")
    assert "settings.md" not in tiny.aggregate(tmp_path)  # each setting is a row: nothing was chosen
    assert (folder / "mine.md").exists()
    tiny.aggregate(tmp_path, rows=None)
    (folder / "settings.md").write_text("edited")
    assert tiny.aggregate(tmp_path)["settings.md"] == "edited"


def test_digests_are_those_of_sha256sum(tiny, tmp_path):
    tiny.aggregate(tmp_path)
    folder = tmp_path / "results" / "tiny"
    subprocess.run(["sha256sum", "--check", "--quiet", "digests.txt"], cwd=folder, check=True)


def test_labels_say_what_differs(runs, tmp_path):
    """Optimizers by name, their keys among their own rows, nothing that all have in common."""
    runs.singles(seeds=(0,))
    runs.run("optimizer=adam", "optimizer.lr=0.001", test=GOOD)
    runs.run("optimizer=adam", "optimizer.lr=0.01", test=GOOD)
    runs.run("optimizer=sgd", "optimizer.lr=0.02", test=GOOD)
    runs.run("method=uncertainty", "optimizer=sgd", "optimizer.lr=0.02", "batch_size=64", test=GOOD)
    assert list(rows_of(runs.aggregate(tmp_path)["table.md"])) == [
        "single_task",
        "equal adam batch_size=256 lr=0.001",
        "equal adam batch_size=256 lr=0.01",
        "equal sgd batch_size=256",
        "uncertainty sgd batch_size=64",
    ]


def test_seconds_are_relative_to_equal_of_the_same_seed(runs):
    for seed in range(3):
        runs.run("dataset.tasks=[left]", seed=seed, test={"left/accuracy": 1.0})
        runs.run("dataset.tasks=[right]", seed=seed, test={"right/error": 1.0})
        runs.run(seed=seed, test=GOOD, seconds=1.0 + seed)
        runs.run(
            "method=uncertainty", "optimizer.lr=0.5", seed=seed, test=GOOD, seconds=(1.0 + seed) * (1.1 + seed / 10)
        )
        runs.run("method=uncertainty", "batch_size=64", seed=seed, test=GOOD, seconds=9.0)
    results, _ = gather.gather(runs.cells, runs.path, "tiny")
    (found,) = compare(results, "tiny", lambda result, task: "", Rules(rows=EACH))
    seconds = {row.label: row.seconds for row in found.rows}
    assert seconds["equal batch_size=256 lr=0.02"] == 1
    assert seconds["uncertainty batch_size=256 lr=0.5"] == pytest.approx(1.2)
    assert math.isnan(seconds["uncertainty batch_size=64 lr=0.02"])  # other work


def test_delta_m_in_the_table_is_that_of_stats(tiny):
    results, _ = gather.gather(tiny.cells, tiny.path, "tiny")
    (found,) = compare(results, "tiny", lambda result, task: "", Rules(rows=EACH))
    for form in stats.DELTA_M:
        values = [[79, 0.18], [81, 0.18], [83, 0.18]]
        expected = stats.delta_m(values, [81, 0.2], [True, False], ["left", "right"], form)
        assert found.rows[1].deltas[form] == pytest.approx(expected)
    assert presentation.table(found).head[3:5] == ["Δm metrics ↓ [%]", "Δm tasks ↑ [%]"]


METHODS = """\
# @package _global_
# Two learning rates.
defaults: [/train, _self_]
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      optimizer.lr: 0.02,0.1
      seed: range(0,3)
"""
CODE = "import sys; from mtlbench import aggregate; aggregate.main(sys.argv[1:]); assert 'torch' not in sys.modules"


def command(tmp_path, *arguments):
    return subprocess.run(
        [sys.executable, "-c", CODE, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_command_on_a_sweep(tiny, tmp_path):
    """Options between the overrides; plain text where there is no terminal; errors as sentences; never torch."""
    sweep = tmp_path / "sweeps" / "tiny"
    sweep.mkdir(parents=True)
    (sweep / "methods.yaml").write_text(METHODS)
    single = METHODS.replace("optimizer.lr: 0.02,0.1", 'dataset.tasks: "[left],[right]"')
    (sweep / "single_task.yaml").write_text(single)
    words = ["--select", "mean_last_10", "--rows", "method,optimizer.lr", "machine.runs=runs", "--out", "elsewhere"]
    done = command(tmp_path, "sweeps/tiny", *words)
    assert done.returncode == 0, done.stderr
    assert "tiny: multidigits\n" in done.stdout
    assert "0.1800 ± 0.0000 *" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("elsewhere/tiny/table.md  elsewhere/tiny/table.tex")
    table = (tmp_path / "elsewhere/tiny/table.md").read_text().partition("\n## ")[0]
    assert table == GOLDEN.replace("the last epoch (last)", "the mean of the last 10 evaluated epochs (mean_last_10)")
    assert "12 cells: 12 done." in (tmp_path / "elsewhere/tiny/status.md").read_text()
    empty = command(tmp_path, "sweeps/tiny", "machine.runs=nowhere")
    assert empty.returncode == 1
    assert empty.stdout == ""
    assert "sweeps/tiny: no run has finished (12 missing). Run it:\n" in empty.stderr
    assert "python -m mtlbench.sweep run sweeps/tiny machine.runs=nowhere" in empty.stderr
    wrong = command(tmp_path, "sweeps/tyni", "machine.runs=runs")
    assert wrong.returncode == 1
    assert "no such sweep" in wrong.stderr
    assert "Traceback" not in empty.stderr + wrong.stderr


def ended(tmp_path, monkeypatch, *arguments):
    """What the command says as it ends with an error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(aggregate.gc, "disable", lambda: None)  # the tests go on in this process
    with pytest.raises(SystemExit) as caught:
        aggregate.main(arguments)
    return str(caught.value)


def write_sweep(tmp_path, **params):
    folder = tmp_path / "sweeps" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(f'      {key}: "{value}"\n' for key, value in params.items())
    (folder / "methods.yaml").write_text(METHODS.partition("      optimizer.lr")[0] + lines)


def test_a_typo_in_a_sweep_names_the_cell_and_the_key(tmp_path, monkeypatch):
    write_sweep(tmp_path, **{"optimizer.lrr": "0.1,0.2", "seed": "0,1"})
    said = ended(tmp_path, monkeypatch, "sweeps/tiny", "machine.runs=runs")
    assert "methods.yaml, cell optimizer.lrr=0.1 seed=0: optimizer.lrr: there is no such key of optimizer" in said
    assert "Did you mean lr?" in said


def test_two_cells_of_one_identity_are_named(tmp_path, monkeypatch):
    write_sweep(tmp_path, **{"optimizer.lr": "0.1,0.10", "seed": "0"})
    said = ended(tmp_path, monkeypatch, "sweeps/tiny", "machine.runs=runs")
    assert re.search(r"two cells are one run \(\w{12}\): optimizer.lr=0.1 seed=0 and", said)


def test_a_wrong_aggregate_toml_ends_the_command(tmp_path, monkeypatch):
    write_sweep(tmp_path, seed="0")
    (tmp_path / "sweeps" / "tiny" / "aggregate.toml").write_text("rows = 1.0.0")
    assert "aggregate.toml: not TOML" in ended(tmp_path, monkeypatch, "sweeps/tiny", "machine.runs=runs")
    (tmp_path / "sweeps" / "tiny" / "aggregate.toml").write_text('select = "best"')
    assert "select=best: the rules are last" in ended(tmp_path, monkeypatch, "sweeps/tiny", "machine.runs=runs")


def test_imports_no_torch():
    code = "import mtlbench.aggregate, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
