"""docs/methods.md: what is read from docstrings and yaml, what is refused, and that the page is current."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mtlbench import catalogue, config, docstrings, document
from mtlbench.docstrings import FACTS, escape, facts, first_sentence, markdown

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def composed_once():
    """The methods, read once for all tests; the command itself is run apart."""
    all_of_them = catalogue.methods()
    with pytest.MonkeyPatch.context() as patch:
        for module in (catalogue, document):
            patch.setattr(module, "methods", lambda: all_of_them)
        yield


class Described:
    """Weights by magic (Someone 2020, Eq. 1), for gradients of L_t < 1 and 2 * w_.

    w_t = 1 / L_t     plain
    w_t = 2 / L_t
    w = 3 is no formula but a sentence.
    With T of them it ends.

    rule: plain or other,
        or a third.
    - a first remark;
    - a second.

    Level: feature or parameter. Touches shared parameters. Sum of weights: T (see Eq. 3). And more of it.
    Invariance to the losses' scales: none. One task: its plain gradient. A zero gradient: the zero step; a
    loss of 0 too.
    Raises ValueError for another rule.
    """

    def __init__(self, tasks, rule="plain"):
        pass


def test_facts_are_what_follows_the_fixed_words():
    assert facts(Described) == {
        "level": "feature or parameter.",
        "touches": "shared parameters.",
        "sum": "T (see Eq. 3). And more of it.",
        "scales": "none.",
        "one": "its plain gradient.",
        "zero": ": the zero step; a loss of 0 too.",
    }
    assert first_sentence(facts(Described)["sum"]) == "T (see Eq. 3)"


def test_a_docstring_becomes_prose_formulas_lists_and_facts():
    assert markdown(Described).split("\n\n") == [
        "Weights by magic (Someone 2020, Eq. 1), for gradients of L_t \\< 1 and 2 \\* w\\_.",
        "```text\nw_t = 1 / L_t     plain\nw_t = 2 / L_t\n```",
        "w = 3 is no formula but a sentence. With T of them it ends.",
        "- `rule`: plain or other, or a third.\n- a first remark;\n- a second.",
        "- **Level:** feature or parameter.\n- **Touches** shared parameters.\n"
        "- **Sum of weights:** T (see Eq. 3). And more of it.\n- **Invariance to the losses' scales:** none.\n"
        "- **One task:** its plain gradient.\n- **A zero gradient:** the zero step; a loss of 0 too.\n"
        "- **Raises** ValueError for another rule.",
    ]


@pytest.mark.parametrize("words", FACTS.values())
def test_a_missing_fact_is_an_error_that_names_class_and_fact(words: str):
    text = re.sub(re.escape(words), words.lower(), Described.__doc__)
    wrong = type("Wrong", (), {"__doc__": text, "__module__": "somewhere"})
    with pytest.raises(ValueError, match=r"somewhere\.Wrong") as error:
        facts(wrong)
    assert repr(words.strip()) in str(error.value)
    assert sum(repr(other.strip()) in str(error.value) for other in FACTS.values()) == 1


def test_a_fact_in_mid_sentence_is_none():
    class Wrong:
        __doc__ = Described.__doc__.replace("parameter. Touches", "parameter and Touches")

    with pytest.raises(ValueError, match="'Touches'"):
        facts(Wrong)

    class Undocumented(Described):
        pass

    with pytest.raises(ValueError, match="Undocumented"):
        facts(Undocumented)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a*b", "a\\*b"),
        ("L_t g_{2:T}", "L_t g_{2:T}"),
        ("|g|_2 and _x", "|g|\\_2 and \\_x"),
        ("x < 0 <- y", "x \\< 0 \\<- y"),
        ("`a_*b` c*", "`a_*b` c\\*"),
    ],
)
def test_prose_is_shown_as_it_is(text: str, shown: str):
    assert escape(text) == shown


def write(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text)
    return path


def test_options_have_default_and_comment(tmp_path: Path):
    path = write(
        tmp_path,
        "# A method.\n_target_: a.B\n# longer than\n# a line\nlevel: feature\nc: 1e-5 # small # indeed\n"
        "weights: {} # by task\n",
    )
    assert catalogue.options(path) == [
        ("level", "feature", "longer than a line"),
        ("c", "1e-5", "small # indeed"),
        ("weights", "{}", "by task"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# A method.\n_target_: a.B\nc: 1\n", "the key c has no comment"),
        ("# A method.\n_target_: a.B\n'c': 1 # quoted\n", "expected a line 'key: value # comment' for c"),
    ],
)
def test_options_without_words_are_refused(text: str, said: str, tmp_path: Path):
    with pytest.raises(ValueError, match=said):
        catalogue.options(write(tmp_path, text))


def test_left_out_has_a_reason_each_and_nothing_that_is_here(tmp_path: Path, monkeypatch):
    rows = catalogue.left_out(config.options("method"))
    assert len({name for name, _, _ in rows}) == len(rows) >= 20
    for name in ("Auto-Lambda", "MOML", "SAMO", "MoCo", "SDMGrad", "DB-MTL", "Krum", "RotoGrad", "NTKMTL", "PIVRG"):
        assert name in {row[0] for row in rows}
    file = tmp_path / "left_out.txt"
    monkeypatch.setattr(catalogue, "LEFT_OUT", file)
    file.write_text("IMTL-G | Liu 2021 | nothing\n")
    with pytest.raises(ValueError, match="IMTL-G is in conf/method"):
        catalogue.left_out(["imtl_g"])
    file.write_text("IMTL-G | Liu 2021\n")
    with pytest.raises(ValueError, match=r"expected 'name \| source \| reason'"):
        catalogue.left_out([])


def test_costs_come_from_the_measured_tables():
    tables = catalogue.measured(ROOT / "results" / "step_cost")
    assert tables
    assert all(table.workload and table.machine and table.rows for table in tables)
    text = document.page(ROOT)
    for path in (ROOT / "results" / "step_cost").rglob("*.csv"):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                if row.get("who") == "mtlbench" and row["ratio"]:
                    lower, upper = float(row["ratio_lower"]), float(row["ratio_upper"])
                    (line,) = (
                        line for line in text.splitlines() if line.startswith(f"| `{row['method']}` | {row['level']} |")
                    )
                    assert f"| {float(row['ratio']):.2f} ({lower:.2f} to {upper:.2f}) |" in line


def test_a_table_without_its_report_is_refused_and_another_csv_is_none(tmp_path: Path):
    (tmp_path / "other.csv").write_text("task,value\na,1\n")
    assert catalogue.measured(tmp_path) == []
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "machine.csv").write_text(
        "who,method,level,ratio\nmtlbench,mgda,feature,1.1\nmtlbench,equal,loss,\ntorchjd 1,MGDA,feature,2\n"
    )
    with pytest.raises(ValueError, match=r"expected machine\.md beside it"):
        catalogue.measured(tmp_path)
    (tmp_path / "some" / "machine.md").write_text(
        "# Cost\n\nA net, float32. More.\n\n| a |\n\n- device: A box\n- b: c\n"
    )
    rows = [{"who": "mtlbench", "method": "mgda", "level": "feature", "ratio": "1.1"}]
    assert catalogue.measured(tmp_path) == [catalogue.Measured("A net, float32", "A box", rows)]


def test_every_method_has_its_row_and_its_section():
    text = document.page(ROOT)
    for method in catalogue.methods():
        assert f"| [{method.name}](#{method.name}) | {method.role} |" in text
        section = text.split(f"\n### {method.name}\n")[1].split("\n### ")[0]
        assert method.role
        for key, default, _ in method.options:
            assert f"{key}` | `{default}`" in section
        for words in FACTS.values():
            assert f"**{words.strip()}" in section
        assert "**Cost of a step:**" in section
    assert not re.search(r"/(work|tmp|home)/", text)


def test_roles_are_those_that_a_hybrid_takes():
    by_name = {method.name: method for method in catalogue.methods()}
    for method in by_name.values():
        for part, takes, other in (
            ("loss", method.goes_first, "method@method.gradient=mgda"),
            ("gradient", method.goes_second, "method@method.loss=equal"),
        ):
            typed = ["method=hybrid", f"method@method.{part}={method.name}", other]
            try:
                config.build_method(config.load(typed).method, ["a", "b"])
            except ValueError:
                assert not takes, (method.name, part)
            else:
                assert takes, (method.name, part)
    assert by_name["imtl"].role == by_name["hybrid"].role == "loss balance, then gradient balance"
    assert by_name["equal"].goes_first
    assert by_name["pcgrad"].role == "gradient balance"


def test_the_page_is_current():
    assert (ROOT / "docs" / "methods.md").read_text() == document.page(ROOT), (
        "docs/methods.md is not current. Type: python -m mtlbench.document methods"
    )


def run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "mtlbench.document", *words], capture_output=True, text=True)


def test_the_command_checks_and_refuses():
    assert run("methods", "--check").returncode == 0
    for words in ([], ["method"], ["methods", "--chek"]):
        done = run(*words)
        assert done.returncode == 1
        assert "expected methods or methods --check" in done.stderr
        assert "Traceback" not in done.stderr


def test_check_finds_a_page_that_is_not_current(tmp_path: Path, monkeypatch):
    for name in ("conf", "results"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setattr(config, "CONF", tmp_path / "conf")
    with pytest.raises(ValueError, match="no part of an installed package"):
        document._run(["methods"])
    (tmp_path / "pyproject.toml").touch()
    with pytest.raises(ValueError, match=r"is not current\. Type: python -m mtlbench\.document methods"):
        document._run(["methods", "--check"])
    document._run(["methods"])
    assert document._run(["methods", "--check"]) == "done"
    page = tmp_path / "docs" / "methods.md"
    page.write_text(page.read_text() + "\n")
    with pytest.raises(ValueError, match="is not current"):
        document._run(["methods", "--check"])


def test_facts_state_what_the_classes_do():
    """The levels named, and what is touched where `weights` has a say."""
    for method in catalogue.methods():
        for level in method.levels:
            assert level in method.facts["level"], (method.name, level)
        said = method.facts["touches"]
        assert "shared" in said or "everything" in said, method.name
    assert docstrings.FACTS.keys() == facts(Described).keys()
