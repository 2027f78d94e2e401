"""A method's docstring as data: the facts that each one must state, and the rest as markdown."""

import inspect
import re
from collections.abc import Collection, Sequence

FACTS = {
    "level": "Level:",
    "touches": "Touches ",
    "sum": "Sum of weights:",
    "scales": "Invariance to the losses' scales:",
    "one": "One task:",
    "zero": "A zero gradient",
}
"""What a reader must find in every method's docstring, and the words with which the sentence begins."""

_BEGIN = re.compile(
    r"(?:^|(?<=[.:;)] ))(" + "|".join(re.escape(words) for words in FACTS.values()) + r"|Raises (?=ValueError))"
)


def facts(kind: type) -> dict[str, str]:
    """{"level": "feature (...) or parameter.", ...}: what follows the fixed words of FACTS, up to the next of them.

    Raises ValueError that names the class and every fact that its docstring does not state.
    """
    found: dict[str, str] = {}
    for paragraph in _paragraphs(kind):
        for words, text in _statements(" ".join(line.strip() for line in paragraph))[1]:
            found.setdefault(words, text)
    missing = [words for words in FACTS.values() if words not in found]
    if missing:
        raise ValueError(
            f"the docstring of {kind.__module__}.{kind.__name__} has no sentence that begins with "
            f"{' or '.join(f'{words.strip()!r}' for words in missing)}."
        )
    return {name: found[words] for name, words in FACTS.items()}


def first_sentence(text: str) -> str:
    """Up to the first full stop before a capital letter, without it."""
    return re.split(r"\.(?: (?=[A-Z])|$)", text, maxsplit=1)[0]


def markdown(kind: type) -> str:
    """The docstring as markdown: paragraphs, formulas that stand apart as code, options and facts as lists."""
    options = [*inspect.signature(kind).parameters, "level", "touches"]
    return "\n\n".join(_block(paragraph, options) for paragraph in _paragraphs(kind))


def escape(text: str) -> str:
    """Text outside code, so that markdown shows it as it is; what stands between backticks is code already."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [re.sub(r"([*<\\])|(?<![A-Za-z0-9])(_)|(_)(?![A-Za-z0-9{])", r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts)


def _paragraphs(kind: type) -> list[list[str]]:
    text = inspect.cleandoc(kind.__doc__ or "")
    return [block.split("\n") for block in re.split(r"\n\s*\n", text)]


def _statements(text: str) -> tuple[str, list[tuple[str, str]]]:
    """What comes before the first fact, and (its first words, the rest) of each fact and of "Raises"."""
    before, *rest = _BEGIN.split(text)
    return before.strip(), [(words, said.strip()) for words, said in zip(rest[::2], rest[1::2], strict=True)]


def _block(lines: list[str], options: Collection[str]) -> str:
    """A paragraph's lines, each kind of them (prose, formula, item of a list) as markdown has it."""
    pieces: list[tuple[str, list[str]]] = []
    for line in lines:
        before = pieces[-1][0] if pieces else ""
        option = re.match(r"(\w+): ", line)
        if line.startswith("- ") or (option and option.group(1) in options):
            pieces.append(("item", [line]))
        elif line.startswith(" ") and before == "item":
            pieces[-1][1].append(line)
        elif _is_formula(line, lines):
            pieces.append(("formula", [line])) if before != "formula" else pieces[-1][1].append(line)
        else:
            pieces.append(("prose", [line])) if before != "prose" else pieces[-1][1].append(line)
    text = ""
    for (kind, part), before in zip(pieces, [("", []), *pieces], strict=False):
        text += ("" if not text else "\n" if kind == before[0] == "item" else "\n\n") + _piece(kind, part)
    return text


def _is_formula(line: str, paragraph: Sequence[str]) -> bool:
    """A line set apart: indented, with a gap inside, or an equation in a paragraph that has such a line."""
    apart = [text for text in paragraph if text.startswith("  ") or re.search(r"[^ ] {2,}[^ ]", text)]
    return line in apart or (bool(apart) and re.match(r"[^ ]+ (=|<-) [^.;]*$", line) is not None)


def _piece(kind: str, lines: list[str]) -> str:
    if kind == "formula":
        return "```text\n" + inspect.cleandoc("\n" + "\n".join(lines)) + "\n```"
    text = " ".join(line.strip() for line in lines)
    if kind == "item":
        return re.sub(r"^(?:- )?(\w+):", r"- `\1`:", escape(text)) if not text.startswith("- ") else escape(text)
    before, statements = _statements(text)
    items = [f"- **{words.strip()}** {escape(said)}".replace("** :", ":**") for words, said in statements]
    return "\n\n".join(part for part in (escape(before), "\n".join(items)) if part)
