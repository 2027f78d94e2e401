"""A table as Markdown, LaTeX, plain text or on a terminal. What it says is decided elsewhere."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.console import Console
from rich.text import Text

BEST, SECOND = "best", "second"


@dataclass(frozen=True)
class Cell:
    """A text, and whether it is the best or second of its column."""

    text: str
    mark: str = ""


@dataclass
class Table:
    """title, notes (what qualifies the numbers: above the table), one head a column, rows of cells (the first is the
    label), legend (what the columns are: below the table, and not on a terminal)."""

    title: str
    notes: list[str]
    head: list[str]
    rows: list[list[Cell]] = field(default_factory=list)
    legend: list[str] = field(default_factory=list)


def decimals(values: list[float]) -> int:
    """How many decimals show about four digits of the largest of the finite values: 96.41, 3.012, 0.0512."""
    largest = max((abs(value) for value in values if abs(value) < float("inf")), default=0.0)
    whole = len(str(int(largest)))
    return max(0, 4 - whole) if largest >= 1 else 4


_LATEX = {
    **{c: "\\" + c for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "Δ": r"$\Delta$", "Σ": r"$\Sigma$"},
    **{"÷": r"$\div$", "<": r"$<$", ">": r"$>$", "|": r"$|$", "−": "$-$", '"': "''", "°": r"$^\circ$"},
}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def latex_text(text: str) -> str:
    """Any text as LaTeX that prints it, on one line; the sign of a number is a minus, not a hyphen."""
    return "".join(_LATEX.get(c, c) for c in re.sub(r"(?<![\w-])-(?=\d)", "−", _one_line(text)))


def markdown_text(text: str) -> str:
    """Any text as Markdown that shows it, on one line; underscores within words need no escape."""
    text = _one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|\[\]~#])", r"\\\1", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def markdown(table: Table, level: int = 1) -> str:
    """Heading, notes as a list, table, legend as a list; best **bold**, second underlined."""
    shown = _marked(table, markdown_text, lambda text: f"**{text}**", lambda text: f"<ins>{text}</ins>")
    head = [markdown_text(text) for text in table.head]
    lines = [f"{'#' * level} {markdown_text(table.title)}", ""]
    lines += [f"- {markdown_text(note)}" for note in table.notes] + [""] * bool(table.notes)
    lines += [_line(head), _line([":--", *["--:"] * (len(head) - 1)]), *map(_line, shown)]
    lines += [""] * bool(table.legend) + [f"- {markdown_text(text)}" for text in table.legend]
    return "\n".join(lines) + "\n"


def _line(texts: list[str]) -> str:
    return f"| {' | '.join(texts)} |"


def latex(table: Table) -> str:
    r"""A table environment for booktabs: notes and legend are the caption; best \textbf, second \underline."""
    shown = _marked(table, latex_text, lambda text: rf"\textbf{{{text}}}", lambda text: rf"\underline{{{text}}}")
    lines = [r"\begin{table}", r"\centering"]
    lines += [rf"\caption{{{latex_text(' '.join([f'{table.title}.', *table.notes, *table.legend]))}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}", r"\toprule"]
    lines += [" & ".join(map(latex_text, table.head)) + r" \\", r"\midrule"]
    lines += [" & ".join(row) + r" \\" for row in shown]
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def plain(table: Table) -> str:
    """For a file or a queue's log: aligned columns; the best with a star, the second with a plus."""
    shown = [
        [*map(_one_line, table.head)],
        *_marked(table, _one_line, lambda text: f"{text} *", lambda text: f"{text} +"),
    ]
    widths = [max(len(row[i]) for row in shown) for i in range(len(table.head))]
    lines = [_one_line(table.title), *(f"  {_one_line(note)}" for note in table.notes)]
    for row in shown:
        cells = [row[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(row[1:], widths[1:], strict=True))]
        lines.append(("  " + "  ".join(cells)).rstrip())
    if any(cell.mark for row in table.rows for cell in row):
        lines.append("  * best, + second of the complete rows")
    return "\n".join(lines) + "\n"


def show(table: Table, console: Console | None = None) -> None:
    """To the terminal: bold and underlined on a terminal, plain text elsewhere. Wide tables are never cut."""
    console = console or Console(highlight=False, soft_wrap=True)
    text = plain(table)
    if not console.is_terminal:
        console.print(text, markup=False)
        return
    lines = text.splitlines()
    above = 1 + len(table.notes)
    console.print(Text(lines[0], style="bold"))
    console.print("\n".join(lines[1:above]), markup=False)
    console.print(Text(lines[above], style="dim"))
    styles = {BEST: "bold", SECOND: "underline", "": ""}
    below = above + 1 + len(table.rows)
    for line, row in zip(lines[above + 1 : below], table.rows, strict=True):
        shown, place = Text(line), 0
        for cell in row:
            text = _one_line(cell.text)
            place = line.index(text, place)
            shown.stylize(styles[cell.mark], place, place + len(text))
            place += len(text)
        console.print(shown)
    console.print("\n".join([*lines[below:], ""]), markup=False)


def _marked(
    table: Table, escape: Callable[[str], str], best: Callable[[str], str], second: Callable[[str], str]
) -> list[list[str]]:
    wrap = {BEST: best, SECOND: second, "": lambda text: text}
    return [[wrap[cell.mark](escape(cell.text)) for cell in row] for row in table.rows]
