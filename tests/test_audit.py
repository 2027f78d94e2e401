"""The audit of the printed tables: exact intervals, every aggregate, findings that fail when the numbers change."""

import shutil
import sys
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlbench import aggregate, published
from mtlbench.audit import aggregates, document, intervals, misprints, repeats, statements
from mtlbench.audit.aggregates import Check, Papers, delta_m, every, rank_intervals
from mtlbench.audit.intervals import Interval, exact, interval, mean, printed, shown
from mtlbench.stats import ranks

PAPERS = Path(__file__).resolve().parents[1] / "results" / "papers"


@pytest.fixture(scope="module")
def papers():
    return Papers(PAPERS)


@pytest.fixture
def copy(tmp_path):
    """The csv files, to be changed."""
    for path in PAPERS.glob("*.csv"):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path


def change(folder, paper, line_part, old, new):
    """One printed number, in the one line that has line_part."""
    path = folder / f"{paper}.csv"
    lines = path.read_text().splitlines()
    (place,) = [i for i, line in enumerate(lines) if line_part in line and f",{old}," in line]
    lines[place] = lines[place].replace(f",{old},", f",{new},")
    path.write_text("\n".join(lines) + "\n")


# --- intervals

fractions = st.fractions(min_value=-50, max_value=50, max_denominator=1000)


@st.composite
def some_interval(draw):
    return Interval(*sorted(draw(fractions) for _ in range(3)))


def corners(*numbers: Interval):
    return product(*((n.low, n.value, n.high) for n in numbers))


@given(some_interval(), some_interval(), fractions)
@settings(deadline=None, derandomize=True, max_examples=150)
def test_arithmetic_reaches_its_corners_and_no_further(a, b, factor):
    """The bounds of every operation are those of its corners: it is monotone in each number."""
    cases = [(a + b, [x + y for x, y in corners(a, b)]), (a - b, [x - y for x, y in corners(a, b)])]
    cases += [(a * factor, [x * factor for (x,) in corners(a)]), (-a, [-x for (x,) in corners(a)])]
    if not b.low <= 0 <= b.high:
        cases.append((a / b, [x / y for x, y in corners(a, b)]))
    for found, all_ends in cases:
        assert (found.low, found.high) == (min(all_ends), max(all_ends))
    assert (a + b).value == a.value + b.value
    magnitude = abs(a)
    least = 0 if a.low <= 0 <= a.high else min(abs(a.low), abs(a.high))
    assert (magnitude.low, magnitude.high) == (least, max(abs(a.low), abs(a.high)))
    assert a.meets(b) == b.meets(a) == (max(a.low, b.low) <= min(a.high, b.high))


def test_division_by_what_may_be_zero():
    with pytest.raises(ValueError, match="may be 0"):
        printed("1.0") / printed("0.0")
    with pytest.raises(ValueError, match="may be 0"):
        printed("1.0") / Interval(Fraction(-1), Fraction(1), Fraction(2))


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("44.50", Fraction(44495, 1000), Fraction(44505, 1000)),
        ("-24.5", Fraction(-2455, 100), Fraction(-2445, 100)),
        ("87", Fraction(173, 2), Fraction(175, 2)),
        ("0.005", Fraction(45, 10000), Fraction(55, 10000)),
    ],
)
def test_printed_number(text, low, high):
    assert (printed(text).low, printed(text).high) == (low, high)
    assert exact(text) == interval(Fraction(text))


@pytest.mark.parametrize("text", ["", "-", "1,000", "nan"])
def test_no_number(text):
    with pytest.raises(ValueError, match="Invalid literal"):
        printed(text)


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [
        (Fraction(1215, 1000), 2, "1.22"),
        (Fraction(1225, 1000), 2, "1.22"),
        (Fraction(-5, 1000), 2, "0.00"),
        (Fraction(-15, 1000), 2, "-0.02"),
        (Fraction(7), 0, "7"),
        (Fraction(-1, 3), 4, "-0.3333"),
    ],
)
def test_shown_rounds_half_to_even(number, digits, text):
    assert shown(number, digits) == text


def test_baseline_is_named_once():
    """(M - B) / B as written would be wider than it can be: B cannot be high above the line and low below it."""
    value, base = printed("43.0"), printed("44.5")
    right = aggregates.relative(value, base)
    corners_of_it = [100 * (m - b) / b for m, b in corners(value, base)]
    assert (right.low, right.high) == (min(corners_of_it), max(corners_of_it))
    naive = (value - base) / base * 100
    assert naive.low < right.low
    assert naive.high > right.high


# --- aggregates


def test_delta_m_is_that_of_the_other_computation(papers):
    """published.check_delta_m computes in binary fractions and searches its bounds by moving numbers."""
    compared = 0
    for paper, names in aggregates.DELTA_M.items():
        for name in names:
            found = list(delta_m(papers, paper, name))
            other = published.check_delta_m(papers.frames[paper], name, published.FORM[paper])
            for check, row in zip(found, other.itertuples(), strict=True):
                mine = [float(getattr(check.recomputed, key)) for key in ("value", "low", "high")]
                assert mine == pytest.approx([row.recomputed, row.low, row.high], abs=1e-9)
                assert (check.exactly, check.inside) == (row.exact, row.within)
                compared += 1
    assert compared == 51 + 48


def test_what_is_outside(papers):
    outside = [(c.paper, c.table, c.row, c.quantity, c.printed) for c in every(papers) if not c.inside]
    assert outside == [
        ("survey2021", "11b", "gradnorm", "Δm", "1.45"),
        ("survey2021", "11b", "mgda", "Δm", "0.71"),
        ("survey2021", "11c", "dwa", "Δm", "-2.29"),
        ("lsb2021", "2b", "gls", "largest rank", "4.5"),
        ("lsb2021", "2c", "lsb", "mean rank", "2.25"),
        ("lsb2021", "2d", "uncertainty", "rank in semseg/pixel_acc", "3"),
        ("lsb2021", "2d", "dwa", "rank in semseg/pixel_acc", "2"),
    ]


def test_every_printed_aggregate_is_checked(papers):
    """By the metric names of the csv: nothing that is an aggregate is left out."""
    kinds = {"delta_m", "rank_min", "rank_max", "rank_avg", "corr_delta_mean", "n_pareto_full"}
    count = 0
    for frame in papers.frames.values():
        single = frame.method == "single_task"  # 0 by definition
        is_one = frame.metric.isin(kinds) | frame.metric.str.endswith("_abs_change")
        is_one |= (frame.task != "all") & frame.metric.str.startswith("rank_")
        parts = (frame.table == "A2") & (frame.method != "all")  # what the totals are the sums of
        count += int((is_one & ~(single & (frame.metric == "delta_m")) & ~parts).sum())
    attributes = 5 + 1  # MGDA's Table 1, and "Ours" again in Table 2
    assert len(every(papers)) == count + attributes


@given(st.lists(st.integers(0, 12), min_size=2, max_size=5), st.booleans())
@settings(deadline=None, derandomize=True, max_examples=60)
def test_rank_intervals_by_trying(tenths, higher):
    """Best and worst rank of each, against every combination of ends and middles."""
    values = [printed(f"{n // 10}.{n % 10}") for n in tenths]
    found = rank_intervals(values, higher)
    tried = [ranks([[float(x)] for x in case], [higher])[:, 0] for case in corners(*values)]
    for i, one in enumerate(found):
        own = [row[i] for row in tried]
        assert (float(one.low), float(one.high)) == (min(own), max(own))
    middle = ranks([[float(v.value)] for v in values], [higher])[:, 0]
    assert [float(one.value) for one in found] == middle.tolist()


def test_verdicts():
    def check(text, low, value, high, rounded=True):
        numbers = Interval(*map(Fraction, (low, value, high)))
        return Check("p", "1", "row", "mean", text, numbers, rounded).verdict

    assert check("1.0", "0.9", "1.04", "1.2") == "to the digit"
    assert check("1.0", "0.9", "1.06", "1.2") == "within"
    assert check("1.0", "1.05", "1.1", "1.2") == "within"  # 1.05 is in both
    assert check("1.0", "1.051", "1.1", "1.2") == "outside"
    assert check("2.5", "2", "2", "2", rounded=False) == "outside"
    assert check("2", "1", "1.5", "2", rounded=False) == "within"


def test_mean():
    assert mean([printed("1.0"), printed("2.0")]) == Interval(*(Fraction(n) for n in ("1.45", "1.5", "1.55")))


# --- findings


def test_every_finding_still_holds(papers):
    found = [*misprints.misprints(papers), *statements.statements(papers)]
    assert len(found) == len(misprints.MISPRINTS) + len(statements.STATEMENTS)
    assert all(one.place.split()[0] in aggregates.PAPERS for one in found)


@pytest.mark.parametrize(
    ("finding", "paper", "line", "old", "new"),
    [
        (
            "survey_11b",
            "survey2021",
            "11b,NYUv2,task balancing,ResNet-50 (dilated) + ASPP,single_task,,,semseg",
            "44.6",
            "44.5",
        ),
        (
            "survey_11c",
            "survey2021",
            "11c,Cityscapes,task balancing,ResNet-50 (dilated) + PSP,dwa,,,depth",
            "2.66",
            "2.61",
        ),
        ("survey_9", "survey2021", ",mtl_baseline,,,semseg", "53.6", "54.3"),
        ("lsb_2b", "lsb2021", "2b,NYUv2,full-sharing,MobileNet.v2,gls,,,all,rank_max", "4.5", "5"),
        ("lsb_2c", "lsb2021", "2c,NYUv2,multi-decoder,MobileNet.v2,lsb,,,all,rank_avg", "2.25", "2.08"),
        ("lsb_2c_second", "lsb2021", "2c,NYUv2,multi-decoder,MobileNet.v2,gls,,,all,rank_avg", "3.00", "2.50"),
        (
            "lsb_2d",
            "lsb2021",
            "2d,NYUv2,multi-column (cross-stitch),MobileNet.v2,dwa,,,semseg,pixel_acc",
            "56.2",
            "56.4",
        ),
        (
            "imtl_scale",
            "imtl2021",
            "sem loss x10,ResNet-50 (dilated) + PSPNet heads,imtl,sgd,0.02,disparity,l1_abs_change",
            "0.033",
            "0.001",
        ),
        ("imtl_nyu", "imtl2021", "imtl,sgd,0.03,depth,l1", "0.4215", "0.4115"),
        ("imtl_normals", "imtl2021", "imtl,sgd,0.03,normals,cos", "0.8888", "0.8870"),
        ("mgda_grid", "mgda2018", "gradnorm,sgd,,left_digit", "96.27", "96.50"),
        ("mgda_speed", "mgda2018", "mgda_ub,sgd,,all,training_time", "16.1", "17.3"),
        (
            "survey_baseline",
            "survey2021",
            "3,NYUv2,encoder-based,ResNet-50 (dilated) + ASPP,cross_stitch,,,all,delta_m",
            "1.14",
            "1.10",
        ),
        ("survey_costs", "survey2021", "cross_stitch,,,all,params_m", "224", "230"),
        ("survey_quote", "survey2021", "11a,CelebA,task balancing,ResNet-18 + 40 linear heads,mgda", "91.30", "91.75"),
        ("elich_dominant", "elich2023", "A5,NYUv2,", "0.4046", "0.3946"),
        ("elich_normals", "elich2023", "DeepLabV3,imtl,,,normals,corr_delta_mean_angle", "0.0073", "-0.0073"),
        ("elich_a9_mean", "elich2023", "A9,NYUv2,corrupted test data,DeepLabV3,equal,,,all", "0.0102", "0.0103"),
        ("elich_toy", "elich_toy", "adam,pcgrad,0.1,", "34175", ""),
    ],
)
def test_a_finding_that_the_numbers_no_longer_show_is_an_error(copy, finding, paper, line, old, new):
    if paper == "elich_toy":
        path = copy / "elich_toy.csv"
        assert f"{line}{old}\n" in path.read_text()
        path.write_text(path.read_text().replace(f"{line}{old}\n", f"{line}{new}\n"))
    else:
        change(copy, paper, line, old, new)
    (function,) = [f for f in (*misprints.MISPRINTS, *statements.STATEMENTS) if f.__name__ == finding]
    assert function(Papers(PAPERS))
    with pytest.raises(ValueError, match="no longer shows"):
        function(Papers(copy))


def test_numbers_that_are_not_there(papers):
    with pytest.raises(ValueError, match=r"has 0 rows with .*nobody"):
        papers.text("lsb2021", "2b", ("nobody", "semseg", "miou"))
    with pytest.raises(ValueError, match=r"has 2 rows"):
        papers.text("elich2023", "A3", ("equal", "semseg", "miou"))


def test_what_is_printed_twice(papers, copy):
    found = repeats.repeats(papers)
    assert [repeat.what for repeat in found if repeat.differ] == ["survey2021 3 single_task in 11b"]
    assert sum(repeat.shared for repeat in found) == 25 + 25 + 3 + 3 + 4 + 4 + 3 + 1 + 3 + 60
    assert "8 of 8" in repeats.bounds(papers).text
    path = copy / "lsb2021.csv"
    path.write_text(path.read_text().replace("beta default (0, increased each period)", "default"))
    with pytest.raises(ValueError, match="tables 4a and 6 share no cell"):
        repeats.repeats(Papers(copy))


# --- pages


def test_committed_pages_are_those_of_the_csv(copy):
    """And a second writing changes no byte."""
    for _ in range(2):
        for path in document.write(copy):
            assert path.read_bytes() == (PAPERS / path.name).read_bytes(), f"{path.name}: aggregate --published"


def test_conventions_are_counted(papers):
    text = document.conventions(papers)
    assert "24 rows of A5 and A6" in " ".join(text.split())
    assert "24 are within metric by metric, 0 task by task" in " ".join(text.split())


def test_command(monkeypatch, capsys, copy):
    monkeypatch.setattr(sys, "argv", ["aggregate"])
    aggregate.published_pages(None, copy)
    assert "audit.md" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="leave out sweeps/x"):
        aggregate.main(["--published", "sweeps/x"])
    with pytest.raises(SystemExit, match="2"):
        aggregate.main([])
    assert "which sweep" in capsys.readouterr().err


def test_command_where_the_csv_says_something_else(copy):
    change(copy, "lsb2021", "2b,NYUv2,full-sharing,MobileNet.v2,gls,,,all,rank_max", "4.5", "5")
    with pytest.raises(SystemExit, match="results/papers no longer shows"):
        aggregate.published_pages(None, copy)
    (copy / "elich_toy.csv").unlink()
    with pytest.raises(SystemExit, match=r"elich_toy\.csv"):
        aggregate.published_pages(None, copy)


def test_shown_is_not_of_binary_fractions():
    assert intervals.decimals("44") == 0
    assert shown(Fraction("2.675"), 2) == "2.68"  # round(2.675, 2) is 2.67
