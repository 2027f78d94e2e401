"""All options of conf/method as data: their classes, facts, keys, and what a step of each was measured to cost."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from mtlbench import config, docstrings

LEFT_OUT = Path(__file__).with_name("left_out.txt")
"""Methods that are not here: a line each, "name | source | what it needs and this protocol does not have"."""


@dataclass(frozen=True)
class Method:
    """One option of conf/method: its class, its facts, and what of the protocol it changes."""

    name: str
    title: str
    kind: type
    options: list[tuple[str, str, str]]
    facts: dict[str, str]
    overrides: frozenset[str]
    levels: tuple[str, ...]
    parts: int

    @property
    def role(self) -> str:
        """What it balances, in words."""
        if self.parts > 1:
            return "loss balance, then gradient balance"
        roles = []
        if "transform" in self.overrides or self.overrides <= {"after_step", "after_epoch"}:
            roles.append("loss balance")
        if "weights" in self.overrides:
            roles.append("gradient balance")
        if "combine" in self.overrides:
            roles.append("each coordinate")
        if "after_step" in self.overrides:
            roles.append("after the step")
        return ", ".join(roles)

    @property
    def goes_first(self) -> bool:
        """Whether a hybrid takes it as its loss balance."""
        return self.parts == 1 and not self.overrides & {"weights", "combine"}

    @property
    def goes_second(self) -> bool:
        """Whether a hybrid takes it as its gradient balance."""
        return self.parts == 1 and "transform" not in self.overrides and len(self.overrides) > 0


def methods() -> list[Method]:
    """All of conf/method, by name. Raises ValueError naming every docstring without a fact, every key without words."""
    found, wrong = [], []
    for name in config.options("method"):
        try:
            found.append(_method(name))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("\n".join(wrong))
    return found


def _method(name: str) -> Method:
    from mtlbench.weighting import overrides  # torch: not needed to say how this command is used

    path = config.CONF / "method" / f"{name}.yaml"
    built = config.build_method(config.load([f"method={name}"]).method, ["a", "b"])
    hooks = ("transform", "weights", "combine", "after_step", "after_epoch")
    return Method(
        name=name,
        title=path.read_text().splitlines()[0].removeprefix("# "),
        kind=type(built),
        options=options(path),
        facts=docstrings.facts(type(built)),
        overrides=frozenset(hook for hook in hooks if overrides(built, hook)),
        levels=tuple(built.levels),
        parts=len({*built.parts("transform"), *built.parts("weights")}),
    )


def options(path: Path) -> list[tuple[str, str, str]]:
    """(key, default, comment) of a method's yaml; a comment stands behind the value or in the lines above.

    Raises ValueError naming the file and the key that has no comment, or the line that is not understood.
    """
    text = path.read_text()
    values = yaml.safe_load(text)
    values.pop("_target_")
    groups = [*(entry for entry in values.pop("defaults", []) if isinstance(entry, dict))]
    found = [(f"method@method.{key.split('@')[1]}", value, "") for entry in groups for key, value in entry.items()]
    above: list[str] = []
    for line in text.splitlines()[1:]:
        key = re.match(r"(\w+):(?: (.*?))?(?:\s+# (.*))?$", line)
        if line.startswith("# "):
            above.append(line.removeprefix("# "))
        elif key and key.group(1) in values:
            comment = " ".join([*above, key.group(3) or ""]).strip()
            if not comment:
                raise ValueError(f"{path}: the key {key.group(1)} has no comment that says what it does.")
            found.append((key.group(1), (key.group(2) or "").strip(), comment))
            above = []
    unread = set(values) - {key for key, _, _ in found}
    if unread:
        raise ValueError(f"{path}: expected a line 'key: value # comment' for {', '.join(sorted(unread))}.")
    return found


def left_out(here: Sequence[str]) -> list[tuple[str, str, str]]:
    """The lines of LEFT_OUT. Raises ValueError for a line of another form, or a method that is here after all."""
    found = []
    for line in LEFT_OUT.read_text().splitlines():
        parts = tuple(part.strip() for part in line.split("|"))
        if len(parts) != 3 or not all(parts):
            raise ValueError(f"{LEFT_OUT.name}: expected 'name | source | reason', found {line!r}.")
        if re.sub(r"[^a-z0-9]+", "_", parts[0].lower()) in here:
            raise ValueError(f"{LEFT_OUT.name}: {parts[0]} is in conf/method, so it is not left out. Delete its line.")
        found.append(parts)
    return found


@dataclass(frozen=True)
class Measured:
    """One table of results/step_cost: what was timed where, and the rows by method."""

    workload: str
    machine: str
    rows: list[dict[str, str]]


def measured(folder: Path) -> list[Measured]:
    """Our methods in every table of one process's steps in the folder.

    Raises ValueError for a table without the .md that says on what and where.
    """
    tables = []
    for path in sorted(folder.rglob("*.csv")):
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("ratio") and row.get("who") == "mtlbench"]
        if not rows:  # of something else, or of methods that all failed
            continue
        if not path.with_suffix(".md").is_file():
            raise ValueError(f"{path}: expected {path.stem}.md beside it. Type: python -m mtlbench.bench step")
        report = path.with_suffix(".md").read_text()
        said = [block for block in report.split("\n\n") if not block.startswith(("#", "|", "-"))]
        device = re.search(r"^- device: (.*)$", report, re.MULTILINE)
        tables.append(Measured(docstrings.first_sentence(said[0]), device.group(1) if device else path.stem, rows))
    return tables
