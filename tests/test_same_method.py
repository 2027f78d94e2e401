"""One method as several sources print it: the numbers are those of the csv files, spreads and orders are recomputed."""

import csv
import shutil
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlbench.audit import same_method
from mtlbench.audit.families import FAMILIES, Family, Source
from mtlbench.audit.same_method import Printed, numbers, of_metric, spread, turned, widest, within

PAPERS = Path(__file__).resolve().parents[1] / "results" / "papers"
HEAD = "paper,table,dataset,setting,architecture,method,optimizer,lr,task,metric,higher_is_better,value,std,note\n"


def lines(paper: str) -> list[dict[str, str]]:
    with open(PAPERS / f"{paper}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def toy(tmp_path: Path):
    """Two sources of one metric: fractions of accuracy, and errors in percent."""

    def write(one: dict[str, str], other: dict[str, str]) -> Family:
        for name, metric, own in (("one", "acc", one), ("other", "error", other)):
            rows = [f"{name},1,D,,,{method},,,left,{metric},true,{value},,\n" for method, value in own.items()]
            (tmp_path / f"{name}.csv").write_text(HEAD + "".join(rows))
        sources = (
            Source("One", "one", {"table": "1"}, {"epochs": "3", "batch": "8"}, powers={"left/acc": 2}),
            Source(
                "Other",
                "other",
                {"table": "1"},
                {"epochs": "5", "batch": "8"},
                minus={"left/error": 100},
                rename={"left/error": "left/acc"},
                same={"mgda_ub": "mgda"},
            ),
        )
        return Family("Toy", {"left/acc": "accuracy, %"}, sources, ("A note.",))

    return write


def test_numbers_are_turned_into_one_unit(toy, tmp_path):
    family = toy({"equal": "0.905", "mgda": "0.88"}, {"equal": "9.30", "mgda_ub": "13.0"})
    found = of_metric(tmp_path, family, "left/acc")
    assert found == {
        "equal": {"One": Printed(Fraction("90.5"), 1), "Other": Printed(Fraction("90.70"), 2)},
        "mgda": {"One": Printed(Fraction(88), 0), "Other": Printed(Fraction(87), 1)},
    }
    assert spread(found["equal"]) == Printed(Fraction("0.2"), 2)
    assert widest(found) == ("mgda", Printed(Fraction(1), 1))
    assert within(found, family) == ("Other", Printed(Fraction("3.7"), 2))
    assert turned(found) == (0, 1)


def test_the_page_of_a_family(toy, tmp_path):
    text = same_method.page(tmp_path, toy({"equal": "0.905", "alone": "0.1"}, {"equal": "9.30"}))
    assert "Alike: batch: 8." in text
    assert "| differs | One | Other |\n| :-- | --: | --: |\n| epochs | 3 | 5 |" in text
    assert "### accuracy, %" in text
    assert "| equal | 90.5 | 90.70 | 0.20 |" in text
    assert "alone" not in text  # one source only
    assert text.endswith("- A note.")


def test_what_a_family_cannot_show_is_refused(toy, tmp_path):
    with pytest.raises(ValueError, match="Toy: no method has numbers of two sources"):
        same_method.page(tmp_path, toy({"equal": "0.9"}, {"mgda": "9.3"}))
    family = toy({"equal": "0.9"}, {"equal": "9.3"})
    (tmp_path / "one.csv").write_text(HEAD)
    with pytest.raises(ValueError, match=r"one\.csv has no row with .*'table': '1'.* \(One\)"):
        same_method.page(tmp_path, family)
    with pytest.raises(ValueError, match=r"Other: results/papers/other\.csv has two numbers of mgda left/acc"):
        same_method.page(tmp_path, toy({"equal": "0.9"}, {"mgda": "9.3", "mgda_ub": "9.2"}))


@given(st.dictionaries(st.sampled_from("abcde"), st.tuples(*[st.integers(-3, 3)] * 3), min_size=1))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_turned_counts_pairs_in_opposite_order(table):
    """Against the definition: signs of differences, for each pair of methods and each pair of sources."""
    found = {m: {s: Printed(Fraction(v), 0) for s, v in zip("xyz", own, strict=True)} for m, own in table.items()}
    opposite = total = 0
    for one, other in combinations(table, 2):
        for i, j in combinations(range(3), 2):
            product = (table[one][i] - table[other][i]) * (table[one][j] - table[other][j])
            opposite += product < 0
            total += product != 0
    assert turned(found) == (opposite, total)
    found["single_task"] = {s: Printed(Fraction(9), 0) for s in "xyz"}
    assert turned(found) == (opposite, total)  # the baseline is no method
    assert widest(found)[0] != "single_task"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.title)
def test_every_number_is_that_of_its_row(family: Family):
    for source in family.sources:
        rows = [row for row in lines(source.paper) if all(row[key] == value for key, value in source.where.items())]
        found = numbers(PAPERS, source)
        assert len(rows) == len(found)
        for row in rows:
            printed = f"{row['task']}/{row['metric']}"
            value = Fraction(row["value"]) * 10 ** source.powers.get(printed, 0)
            value = source.minus[printed] - value if printed in source.minus else value
            method = source.same.get(row["method"], row["method"])
            assert found[method, source.rename.get(printed, printed)].value == value


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.title)
def test_sources_of_a_family_differ_and_each_has_a_part(family: Family):
    assert len({source.name for source in family.sources}) == len(family.sources)
    assert len({tuple(source.protocol.items()) for source in family.sources}) == len(family.sources)
    shared = set()
    for metric in family.metrics:
        found = of_metric(PAPERS, family, metric)
        own = {source for cells in found.values() if len(cells) > 1 for source in cells}
        assert own, metric
        shared |= own
    assert shared == {source.name for source in family.sources}


def test_the_known_gaps_are_there():
    """GradNorm on NYUv2 twice as good in a rerun; MGDA's offsets on Cityscapes; the orders on CelebA."""
    by_title = {family.title: family for family in FAMILIES}
    nyuv2 = by_title["NYUv2: segmentation, depth, normals; SegNet"]
    assert widest(of_metric(PAPERS, nyuv2, "semseg/miou")) == ("gradnorm", Printed(Fraction("20.03"), 2))
    cityscapes = by_title["Cityscapes: segmentation, instance offsets, disparity; ResNet-50 with pyramid pooling"]
    assert widest(of_metric(PAPERS, cityscapes, "instance/error")) == ("mgda", Printed(Fraction("42.89"), 2))
    celeba = by_title["CelebA: 40 attributes; ResNet-18 with 40 linear heads"]
    found = of_metric(PAPERS, celeba, "attributes/accuracy")
    assert found["equal"]["MGDA 2018, 1"].value == Fraction("90.38")  # an error of 9.62
    assert turned(found) == (12, 18)


def test_peers_are_told_by_their_first_ten_columns():
    rows = lines("peers")
    assert list(rows[0]) == HEAD.strip().split(",")
    assert len({tuple(row.values())[:10] for row in rows}) == len(rows)
    directions = {}
    for row in rows:
        Fraction(row["value"])
        assert directions.setdefault(row["metric"], row["higher_is_better"]) == row["higher_is_better"]


def test_the_committed_page_is_that_of_the_csv(tmp_path):
    for path in PAPERS.glob("*.csv"):
        shutil.copy(path, tmp_path)
    assert same_method.same_method_md(tmp_path) == (PAPERS / "same_method.md").read_text(encoding="utf-8")
    path = tmp_path / "peers.csv"
    path.write_text(path.read_text().replace(",20.09,", ",30.09,"))
    assert "| gradnorm | - | - | 30.09 | 40.12 | 10.03 |" in same_method.same_method_md(tmp_path)
