"""results/papers/audit.md and audit.csv: every printed aggregate, and what follows from the printed numbers."""

import csv
import io
from collections import Counter
from pathlib import Path

from mtlbench import published
from mtlbench.aggregation.tables import markdown_text
from mtlbench.audit.aggregates import DELTA_M, Check, Papers, delta_m, every
from mtlbench.audit.intervals import shown
from mtlbench.audit.misprints import Finding, misprints
from mtlbench.audit.repeats import bounds, repeats
from mtlbench.audit.same_method import same_method_md
from mtlbench.audit.statements import statements

HEAD = """# Audit of the printed aggregates

Written by `python -m mtlbench.aggregate --published` from the csv files beside it; not to be edited.

Every aggregate of the five papers is recomputed from the numbers that they print themselves. A printed number of d
decimals is everything within half a unit of its last digit, so that a recomputed aggregate is an interval: what it
can be when every number that goes into it, the single-task row's too, is anything within its rounding. The
arithmetic is exact (fractions of the decimals as printed); a relative change is M / B - 1, in which the baseline
stands once, so that the interval is no wider than it must be.

- *to the digit*: the recomputed value rounds to what is printed. *within*: what is printed can follow: its own
  rounding interval and the recomputed one have a number in common. **outside**: it cannot.
- *joint*: one unrounded single-task row fits all rows of the table at once (a linear program); within is asked of
  each row alone.
- Ranks and counts are not rounded. The rank of a printed value is an interval as well: values that differ by less
  than their rounding may be tied."""

CONVENTIONS = """## Which convention each paper uses

- **elich2023, Δm**: the mean over all metric columns, in percent, lower is better. Its formula has 1/T "tasks". Of
  the {n} rows of A5 and A6 (nine metrics of three tasks), {metrics} are within metric by metric, {tasks} task by
  task. On Cityscapes, two metrics a task, both are one.
- **survey2021, Δ_MTL**: the mean over tasks with one metric each, in percent, higher is better.
- **lsb2021**: a rank in each metric column, ties the mean of their places; smallest, largest and mean over the
  columns (2: six, 4: three metrics; 5: four or eight tasks).
- **mgda2018**: Table 1 is the plain mean of the 40 errors of Table 5.
- **elich2023, robustness** (3, A8, A9): the plain mean over all metric columns.
- **imtl2021** prints no aggregate but the changes under a tenfold segmentation loss: the absolute difference of two
  printed numbers."""


def _line(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _grid(head: list[str], rows: list[list[str]]) -> str:
    align = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join([_line(head), _line(align), *map(_line, rows)]) + "\n"


def _kind(check: Check) -> str:
    return "ranks of cells" if check.quantity.startswith("rank in") else check.quantity


def overview(papers: Papers, checks: list[Check]) -> str:
    """A line for each table and quantity."""
    groups: dict[tuple[str, str, str], list[Check]] = {}
    for check in checks:
        groups.setdefault((check.paper, check.table, _kind(check)), []).append(check)
    rows = []
    for (paper, table, kind), members in groups.items():
        joint = ""
        if table in DELTA_M.get(paper, ()):
            joint = "yes" if published.jointly_consistent(papers.frames[paper], table) else "**no**"
        count = Counter(check.verdict for check in members)
        outside = f"**{count['outside']}**" if count["outside"] else "0"
        numbers = [str(len(members)), str(count["to the digit"]), str(count["within"]), outside]
        rows.append([f"{paper} {table}", kind, *numbers, joint])
    total = Counter(check.verdict for check in checks)
    rows.append(["all", "", str(len(checks)), *(str(total[key]) for key in ("to the digit", "within", "outside")), ""])
    return _grid(["table", "what", "printed", "to the digit", "within", "outside", "joint"], rows)


def conventions(papers: Papers) -> str:
    tables = ("A5", "A6")
    count = {
        form: sum(_turned(check, form).inside for name in tables for check in delta_m(papers, "elich2023", name, form))
        for form in ("metrics", "tasks")
    }
    rows = sum(1 for name in tables for _ in delta_m(papers, "elich2023", name))
    return CONVENTIONS.format(n=rows, **count)


def _turned(check: Check, form: str) -> Check:
    """The form by tasks counts the other way round; turned, so that only the mean is another one."""
    if form == "metrics":
        return check
    return Check(check.paper, check.table, check.row, check.quantity, check.printed, -check.recomputed, check.rounded)


def listing(checks: list[Check]) -> str:
    """Every aggregate but the ranks of single cells, of which only those that do not follow: all are in audit.csv."""
    parts = []
    tables = dict.fromkeys((check.paper, check.table) for check in checks)
    for paper, table in tables:
        rows = []
        for check in checks:
            if (check.paper, check.table) != (paper, table) or (_kind(check) == "ranks of cells" and check.inside):
                continue
            low, value, high = (
                shown(number, check.digits)
                for number in (check.recomputed.low, check.recomputed.value, check.recomputed.high)
            )
            between = "exact" if low == high else f"{low} to {high}"
            verdict = check.verdict if check.inside else "**outside**"
            rows.append(
                [markdown_text(check.row), markdown_text(check.quantity), check.printed, value, between, verdict]
            )
        parts.append(f"### {paper} {table}\n\n" + _grid(["row", "what", "printed", "recomputed", "interval", ""], rows))
    return "\n".join(parts)


def _numbered(findings: list[Finding], start: int) -> str:
    return "\n".join(f"{i}. **{f.place}**: {markdown_text(f.text)}" for i, f in enumerate(findings, start)) + "\n"


def audit_md(papers: Papers) -> str:
    checks = every(papers)
    wrong, said = misprints(papers), statements(papers)
    same = [
        [repeat.what, str(repeat.shared), markdown_text("; ".join(repeat.differ)) or "none"]
        for repeat in repeats(papers)
    ]
    parts = [
        HEAD,
        "## Overview\n\n" + overview(papers, checks),
        "## What does not follow from the printed numbers\n\n" + _numbered(wrong, 1),
        "## What the text says and the table does not\n\n" + _numbered(said, len(wrong) + 1),
        conventions(papers),
        "## Numbers that are printed twice\n\n"
        + _grid(["tables", "shared cells", "different"], same)
        + f"\n{markdown_text(bounds(papers).text)}\n",
        "## Every aggregate\n\nRanks of single cells stand here only where they do not follow; `audit.csv` has all.\n\n"
        + listing(checks),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def audit_csv(papers: Papers) -> str:
    """Every check: paper, table, row, quantity, printed, recomputed, low, high, verdict."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["paper", "table", "row", "quantity", "printed", "recomputed", "low", "high", "verdict"])
    for check in every(papers):
        bounds_ = [
            shown(n, check.digits + 2) for n in (check.recomputed.value, check.recomputed.low, check.recomputed.high)
        ]
        writer.writerow([check.paper, check.table, check.row, check.quantity, check.printed, *bounds_, check.verdict])
    return file.getvalue()


def write(folder: Path) -> list[Path]:
    """Writes audit.md, audit.csv and same_method.md beside the printed numbers and returns their paths."""
    papers = Papers(folder)
    files = {"audit.md": audit_md(papers), "audit.csv": audit_csv(papers), "same_method.md": same_method_md(folder)}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in files]
