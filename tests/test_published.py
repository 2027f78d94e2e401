"""The papers' aggregates follow from their printed numbers, except where results/papers/README.md says so."""

from pathlib import Path

import pytest

from mtlbench import published, stats

PAPERS = Path(__file__).resolve().parents[1] / "results" / "papers"
SLACK = 1e-9


@pytest.fixture(scope="module")
def frames():
    names = ("imtl2021", "mgda2018", "survey2021", "lsb2021", "elich2023")
    return {name: published.read(PAPERS, name) for name in names}


# How many printed Delta_m there are, how many come out to the printed digit, how many within rounding, and
# whether one unrounded single-task row fits them all.
DELTA_M = [
    ("elich2023", "A3", 12, 0, 12, True),
    ("elich2023", "A4", 12, 0, 12, True),
    ("elich2023", "A5", 12, 9, 12, True),
    ("elich2023", "A6", 12, 6, 12, True),
    ("survey2021", "3", 4, 0, 4, True),
    ("survey2021", "4", 7, 0, 7, True),
    ("survey2021", "5", 10, 0, 10, True),
    ("survey2021", "6", 4, 2, 4, True),
    ("survey2021", "7", 3, 0, 3, True),
    ("survey2021", "8", 3, 0, 3, True),
    ("survey2021", "9", 3, 0, 3, False),
    ("survey2021", "10", 7, 2, 7, True),
    ("survey2021", "11b", 5, 0, 3, False),
    ("survey2021", "11c", 5, 0, 4, False),
]


@pytest.mark.parametrize(("paper", "table", "rows", "exact", "within", "joint"), DELTA_M)
def test_delta_m_of_every_table(frames, paper, table, rows, exact, within, joint):
    found = published.check_delta_m(frames[paper], table, published.FORM[paper])
    assert (len(found), found.exact.sum(), found.within.sum()) == (rows, exact, within)
    assert published.jointly_consistent(frames[paper], table) == joint


@pytest.mark.parametrize("table", ["A5", "A6"])
def test_elich_means_metrics_and_not_tasks(frames, table):
    """Task-wise, no row of NYUv2 (9 metrics of 3 tasks) comes out; the sign of the other form is turned."""
    found = published.check_delta_m(frames["elich2023"], table, "tasks")
    low, high = -found[["low", "high"]].max(axis=1), -found[["low", "high"]].min(axis=1)
    assert not ((low - found.half <= found.printed) & (found.printed <= high + found.half)).any()


def test_elich_forms_coincide_on_cityscapes(frames):
    """Two tasks with two metrics each: the forms differ in nothing but the sign."""
    metrics, tasks = (published.check_delta_m(frames["elich2023"], "A3", form) for form in stats.DELTA_M)
    assert metrics.recomputed.to_numpy() == pytest.approx(-tasks.recomputed.to_numpy())


def test_survey_11b_misprint(frames):
    """The single-task mIoU is printed 44.6, and 44.5 in three other tables."""
    survey = frames["survey2021"]
    single = survey[(survey.method == "single_task") & (survey.metric == "miou") & (survey.dataset == "NYUv2")]
    printed = dict(zip(single.table, single.value, strict=True))
    assert (printed["3"], printed["6"], printed["10"], printed["11b"]) == ("44.5", "44.5", "44.5", "44.6")
    found = published.check_delta_m(survey, "11b", "tasks").droplevel([0, 1, 2, 4, 5])
    assert list(found.index[~found.within]) == ["gradnorm", "mgda"]
    assert found.loc["gradnorm", ["recomputed", "low", "high"]].tolist() == pytest.approx(
        [1.215, 1.022, 1.409], abs=5e-4
    )
    assert found.loc["mgda", ["recomputed", "low", "high"]].tolist() == pytest.approx([0.510, 0.319, 0.702], abs=5e-4)
    corrected = {("semseg", "miou"): "44.5"}
    again = published.check_delta_m(survey, "11b", "tasks", corrected).droplevel([0, 1, 2, 4, 5])
    order = ["equal", "uncertainty", "gradnorm", "dwa", "mgda"]
    expected = [1.052, 0.295, 1.327, 0.383, 0.619]
    assert again.recomputed[order].tolist() == pytest.approx(expected, abs=5e-4)
    assert again.within.all()
    assert published.jointly_consistent(survey, "11b", corrected)


def test_survey_11c_misprint(frames):
    """DWA's printed -2.29 does not follow; either of two single digits would make it follow."""
    survey = frames["survey2021"]
    found = published.check_delta_m(survey, "11c", "tasks").droplevel([0, 1, 2, 4, 5])
    assert list(found.index[~found.within]) == ["dwa"]
    assert found.loc["dwa", ["printed", "recomputed", "low", "high"]].tolist() == pytest.approx(
        [-2.29, -2.964, -3.435, -2.496], abs=5e-4
    )
    assert published.jointly_consistent(survey, "11c", leave_out=["dwa"])
    dwa = (survey.table == "11c") & (survey.method == "dwa")
    for task, text, delta in (("depth", "2.61", -2.32), ("instance", "11.7", -2.39)):
        other = survey.copy()
        other.loc[dwa & (survey.task == task), "value"] = text
        again = published.check_delta_m(other, "11c", "tasks").droplevel([0, 1, 2, 4, 5])
        assert again.recomputed["dwa"] == pytest.approx(delta, abs=5e-3)
        assert again.within.all()


def test_survey_9_misprint(frames):
    """The MTL baseline fits alone, at the edge of its interval, and not together with the others."""
    survey = frames["survey2021"]
    found = published.check_delta_m(survey, "9", "tasks").droplevel([0, 1, 2, 4, 5])
    baseline = found.loc["mtl_baseline"]
    assert baseline[["printed", "recomputed", "low", "high"]].tolist() == pytest.approx(
        [-3.70, -3.940, -4.201, -3.679], abs=5e-4
    )
    assert baseline.high - baseline.printed < 0.1 * (baseline.high - baseline.low)
    assert not published.jointly_consistent(survey, "9", leave_out=["pad_net"])
    assert published.jointly_consistent(survey, "9", leave_out=["mtl_baseline"])
    other = survey.copy()
    row = (survey.table == "9") & (survey.method == "mtl_baseline") & (survey.task == "semseg")
    assert other.loc[row, "value"].tolist() == ["53.6"]
    other.loc[row, "value"] = "54.3"
    again = published.check_delta_m(other, "9", "tasks").droplevel([0, 1, 2, 4, 5])
    assert again.recomputed["mtl_baseline"] == pytest.approx(-3.71, abs=5e-3)
    assert published.jointly_consistent(other, "9")


def test_survey_tables_repeat_each_other(frames):
    """Table 10 repeats 3 and 6; 11c's fixed weights and single tasks are Table 4's; 11b's fixed, Table 3's."""
    survey = frames["survey2021"]

    def cells(table, method):
        part = survey[(survey.table == table) & (survey.method == method)]
        return dict(zip(zip(part.task, part.metric, strict=True), part.value, strict=True))

    compared = 0
    for table in ("3", "6"):
        for method in survey[survey.table == table].method.unique():
            assert cells("10", method) == cells(table, method)
            compared += len(cells(table, method))
    assert compared == 50  # the single-task and baseline rows, 5 cells each, are in both: 40 cells of Table 10
    for method, theirs in (("single_task", "single_task"), ("equal", "mtl_baseline")):
        part = cells("11c", method)
        assert part == {key: cells("4", theirs)[key] for key in part}
    part = cells("11b", "equal")
    assert part == {key: cells("3", "mtl_baseline")[key] for key in part}


def test_mgda_table_1_is_the_mean_of_table_5(frames):
    mgda = frames["mgda2018"]
    attributes = published.table(mgda, "5")
    assert attributes.shape == (5, 40)
    means = published.numbers(attributes)[0].mean(1)
    table = published.table(mgda, "1")["attributes", "error"].droplevel([0, 1, 2, 4, 5])
    for method, mean in zip(attributes.index.get_level_values("method"), means, strict=True):
        value, half = stats.printed(table[method])
        assert abs(mean - value) <= half + SLACK


@pytest.mark.parametrize(("table", "rows", "exact"), [("3", 6, 6), ("A8", 12, 12), ("A9", 12, 11)])
def test_elich_corruption_means(frames, table, rows, exact):
    found = published.check_mean(frames["elich2023"], table, "corr_delta_mean")
    assert (len(found), found.exact.sum(), found.within.sum()) == (rows, exact, rows)
    if table == "A9":
        odd = found[~found.exact]
        assert odd.index[0][2:4] == ("DeepLabV3", "equal")
        assert odd[["printed", "recomputed"]].iloc[0].tolist() == pytest.approx([0.0102, 0.01026], abs=5e-6)


def test_elich_table_3_is_a_part_of_a9(frames):
    elich = frames["elich2023"]
    a9 = published.table(elich, "A9").xs("SegNet", level="architecture")
    assert published.table(elich, "3").xs("SegNet", level="architecture").equals(a9)


@pytest.mark.parametrize("table", ["2b", "2c", "4a", "4b", "4c", "5a", "5b"])
def test_lsb_ranks_of_every_cell(frames, table):
    found = published.check_ranks(frames["lsb2021"], table)
    size = {"2b": 30, "2c": 36, "4a": 15, "4b": 15, "4c": 15, "5a": 20, "5b": 40}
    assert len(found) == size[table]
    assert found.printed.tolist() == found.recomputed.tolist()


def test_lsb_2d_misprint(frames):
    """The ranks of two pixel accuracies are interchanged; by the values GLS would be ahead of DWA."""
    lsb = frames["lsb2021"]
    found = published.check_ranks(lsb, "2d")
    wrong = found[found.printed != found.recomputed].set_index("method")
    assert len(found) == 30
    assert wrong.metric.tolist() == ["pixel_acc"] * 2
    assert wrong.printed.to_dict() == {"uncertainty": 3, "dwa": 2}
    assert wrong.recomputed.to_dict() == {"uncertainty": 2, "dwa": 3}
    values = published.check_rank_summary(lsb, "2d", "values")
    assert values.average[["uncertainty", "dwa", "gls"]].tolist() == pytest.approx([2.5, 23 / 6, 3.75])
    assert values.printed_average[["uncertainty", "dwa", "gls"]].tolist() == [2.67, 3.67, 3.75]
    assert (values["min"]["dwa"], values.printed_min["dwa"]) == (3, 2)


@pytest.mark.parametrize("table", ["2b", "2d", "4a", "4b", "4c", "5a", "5b"])
def test_lsb_average_of_the_printed_ranks(frames, table):
    found = published.check_rank_summary(frames["lsb2021"], table)
    assert len(found) == 5
    assert ((found.average - found.printed_average).abs() <= found.half + SLACK).all()


@pytest.mark.parametrize(("table", "wrong"), [("2b", ["gls"]), ("2d", [])])
def test_lsb_min_and_max_of_the_printed_ranks(frames, table, wrong):
    found = published.check_rank_summary(frames["lsb2021"], table)
    assert found["min"].tolist() == found.printed_min.tolist()
    assert found.index[found["max"] != found.printed_max].tolist() == wrong
    if wrong:  # RMSE 0.847 has rank 5
        assert (found["max"]["gls"], found.printed_max["gls"]) == (5, 4.5)


def test_lsb_2c_misprint(frames):
    """The proposed method's average is printed 2.25 and is 2.08; the six averages must sum to 21."""
    found = published.check_rank_summary(frames["lsb2021"], "2c")
    off = (found.average - found.printed_average).abs() > found.half + SLACK
    assert found.index[off].tolist() == ["lsb"]
    assert found.average["lsb"] == pytest.approx(12.5 / 6)
    assert found.printed_average["lsb"] == 2.25
    assert found.average.sum() == pytest.approx(21)
    assert found.printed_average.sum() == pytest.approx(21.16)
    assert found.average.idxmin() == found.printed_average.idxmin() == "lsb"  # still the best
    order = ["equal", "gradnorm", "uncertainty", "dwa", "gls", "lsb"]
    assert found["min"][order].tolist() == [1, 1, 3, 2.5, 1, 1]
    assert found["max"][order].tolist() == [5, 6, 6, 4, 6, 4]


def test_elich_pareto_counts_add_up(frames):
    """Table A2 splits the full counts of Table 2 by method; full is never more than with respect to the other."""
    elich = frames["elich2023"]
    two, a2 = elich[elich.table == "2"], elich[(elich.table == "A2") & (elich.method != "all")]
    compared = 0
    for (network, dataset, optimizer), part in two.groupby(["architecture", "dataset", "optimizer"]):
        counts = dict(zip(part.metric, part.value.astype(int), strict=True))
        other = counts["n_pareto_wrt_sgd" if optimizer == "adam" else "n_pareto_wrt_adam"]
        assert counts["n_pareto_full"] <= other <= counts["n_experiments_valid"]
        rows = a2[(a2.architecture == network) & (a2.dataset == dataset) & (a2.optimizer == optimizer)]
        assert rows.value.astype(int).sum() == counts["n_pareto_full"]  # no rows: none, printed "-"
        compared += 1
    assert compared == 8


def test_text_against_tables(frames):
    """Elich A3: UW, IMTL and CAGrad with Adam beat equal weights with Adam on every printed metric; in A5 CAGrad."""
    elich = frames["elich2023"]
    for name, expected in (("A3", {"uncertainty", "imtl", "cagrad"}), ("A4", set()), ("A5", {"cagrad"}), ("A6", set())):
        wide = published.table(elich, name).xs("adam", level="optimizer")
        columns = published.raw(wide)
        values = published.numbers(wide[columns])[0]
        methods = list(wide.index.get_level_values("method"))
        better = published.directions(elich, name, columns)
        gain = (values - values[methods.index("equal")]) * [1 if b else -1 for b in better]
        winners = {m for m, g in zip(methods, gain, strict=True) if (g > 0).all()}
        assert winners - {"single_task"} == expected


def test_keys_are_unique_and_every_number_parses(frames):
    for name, frame in frames.items():
        assert not frame.duplicated(list(frame.columns[:10])).any(), name
        assert frame.value.map(lambda text: stats.printed(text)[1] > 0).all(), name
    assert {n: len(f) for n, f in frames.items()} == {
        "imtl2021": 156,
        "mgda2018": 242,
        "survey2021": 377,
        "lsb2021": 519,
        "elich2023": 680,
    }


def test_unknown_table_says_which_exist(frames):
    with pytest.raises(ValueError, match=r"no table 2;.*2a, 2b"):
        published.table(frames["lsb2021"], "2")
