"""docs/methods.md, made from the methods' docstrings and their yaml. `python -m mtlbench.document methods`

    python -m mtlbench.document methods            writes it
    python -m mtlbench.document methods --check    writes nothing; exit code 1 if it is not current

Only in a checkout: an installed package has no docs/.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from mtlbench import config, docstrings
from mtlbench.catalogue import Measured, Method, left_out, measured, methods
from mtlbench.commands import run_command
from mtlbench.docstrings import escape, first_sentence

COST = {
    "loss": "one backward pass of the weighted sum: what adding the losses costs.",
    "feature": "one pass of the heads, one of the backbone, and T (T + 1) / 2 inner products at the shared "
    "representation: what adding the losses costs.",
    "layer": "one pass of the heads, T of the last shared layer alone, one of the backbone.",
    "parameter": "one pass of the heads, then T of the shared backbone.",
}
"""The work of a training step, by what `weights` looks at."""

HOOK_COST = {"after_step": "one more forward pass after the update"}


def page(root: Path) -> str:
    """The text of docs/methods.md."""
    all_of_them = methods()
    absent = left_out([method.name for method in all_of_them])
    tables = measured(root / "results" / "step_cost")
    parts = [
        "# Weighting methods",
        "Written by `python -m mtlbench.document methods` from the docstrings and from `conf/method`; not edited.",
        "L are the losses, g the gradients of the shared parameters (or at what `method.level` names), T the tasks "
        "present in the batch, G the T x T inner products of the gradients. A *loss balance* turns losses into losses "
        "and so scales everything; a *gradient balance* turns the gradients' inner products into weights. Every method "
        "takes `method.scale=sum_T`: its weights are rescaled to the sum T, so that methods are compared without the "
        "hidden factor of the learning rate. At level parameter, `method.jacobian=streamed` holds no task's whole "
        "gradient: it takes one more pass of the backbone, and the memory of its widest layers times T.",
        "## Overview",
        _overview(all_of_them),
        "## Compositions",
        *_compositions(all_of_them),
        "## What a step costs",
        *_costs(tables),
        "## The methods, one by one",
        *(part for method in all_of_them for part in _section(method, tables)),
        "## Left out, and why",
        "Methods that the papers behind this suite, or other libraries, name and that need something a step here "
        "does not have, or nothing that is worth a method of its own.",
        _table(("method", "source", "why"), [[escape(cell) for cell in row] for row in absent]),
    ]
    return "\n\n".join(parts) + "\n"


def _overview(all_of_them: Sequence[Method]) -> str:
    head = ("method", "kind", "levels, default first", "touches", "sum of weights", "one task")
    rows = [
        (
            f"[{m.name}](#{m.name})",
            m.role,
            ", ".join(m.levels),
            *(escape(first_sentence(m.facts[fact])) for fact in ("touches", "sum", "one")),
        )
        for m in sorted(all_of_them, key=lambda m: (not m.goes_first, m.parts, m.name))
    ]
    return _table(head, rows)


def _compositions(all_of_them: Sequence[Method]) -> list[str]:
    first = [m for m in all_of_them if m.goes_first]
    second = [m for m in all_of_them if m.goes_second]
    neither = [m.name for m in all_of_them if m.parts == 1 and not m.goes_first and not m.goes_second]
    text = [
        f"Any loss balance goes with any gradient balance, {len(first)} x {len(second)} of them. The loss balance "
        "comes first; the gradient balance sees the balanced losses M and their gradients:",
        "```bash\npython -m mtlbench.train method=hybrid method@method.loss=uncertainty method@method.gradient=pcgrad\n"
        "python -m mtlbench.train method=hybrid method@method.loss=imtl_l method@method.gradient=imtl_g  # is imtl\n"
        "```",
        f"`method.loss=` {', '.join(f'`{m.name}`' for m in first)}",
        "The loss balance scales everything: shared parameters and heads alike, by c = C' 1 with C = dM/dL. What the "
        "gradient balance scales on top of it, so that shared parameters get the sum of u\\_t g\\_t, u = C' w:",
        _table(
            ("`method.gradient=`", "touches", "so heads are scaled by"),
            [(f"`{m.name}`", escape(first_sentence(m.facts["touches"])), _heads(m.facts["touches"])) for m in second],
        ),
    ]
    if neither:
        text.append(
            f"{', '.join(f'`{name}`' for name in neither)}: these look at losses and gradients at once, so they are no "
            "half of a composition."
        )
    return text


def _heads(touches: str) -> str:
    everything, shared = touches.find("everything"), touches.find("shared")
    if everything >= 0 and shared >= 0:
        return "u or c, as the option says"
    return "u" if everything >= 0 else "c"


def _costs(tables: Sequence[Measured]) -> list[str]:
    text = [
        "\n".join(f"- **{level}**: {said}" for level, said in COST.items()),
        "Measured by `python -m mtlbench.bench step`, against the sum of the losses on the same network and batch "
        "(median and quartiles stand at each method; the whole of it, other libraries beside, is in "
        "[results/step_cost](../results/step_cost)):",
    ]
    listed = [f"- *{mark}*: {escape(table.workload)}; {escape(table.machine)}" for mark, table in _marked(tables)]
    return [*text, "\n".join(listed)] if listed else text[:1]


def _marked(tables: Sequence[Measured]) -> list[tuple[str, Measured]]:
    return [(f"table {number}", table) for number, table in enumerate(tables, 1)]


def _section(method: Method, tables: Sequence[Measured]) -> list[str]:
    text = [
        f"### {method.name}",
        f"**{escape(method.title)}**",
        docstrings.markdown(method.kind),
        _cost(method, tables),
    ]
    if method.options:
        keys = [
            (f"`{key}`" if "@" in key else f"`method.{key}`", f"`{default}`" if default else "", escape(comment))
            for key, default, comment in method.options
        ]
        text.append(_table(("option", "default", "meaning"), keys))
    return text


def _cost(method: Method, tables: Sequence[Measured]) -> str:
    more = "".join(f"; {said}" for hook, said in HOOK_COST.items() if hook in method.overrides)
    said = f"- **Cost of a step:** {COST[method.levels[0]].rstrip('.')}{more}."
    rows: dict[str, dict[str, str]] = {}
    for mark, table in _marked(tables):
        for row in table.rows:
            if row["method"].split(" ")[0] == method.name:
                ratio, lower, upper = (float(row[key]) for key in ("ratio", "ratio_lower", "ratio_upper"))
                cells = rows.setdefault(f"`{row['method']}` | {row['level']}", {})
                cells[mark] = f"{ratio:.2f} ({lower:.2f} to {upper:.2f})"
    if not rows:
        return said
    marks = [mark for mark, _ in _marked(tables) if any(mark in cells for cells in rows.values())]
    head = ("step / `equal`", "level", *marks)
    measured = [(*name.split(" | "), *(cells.get(mark, "-") for mark in marks)) for name, cells in rows.items()]
    return f"{said}\n\n{_table(head, measured)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _run(words: Sequence[str]) -> str:
    if [word for word in words if word != "--check"] != ["methods"]:
        raise ValueError(f"expected methods or methods --check, found {' '.join(words) or 'nothing'}.")
    root = config.CONF.parent
    target = root / "docs" / "methods.md"
    if not (root / "pyproject.toml").is_file():
        raise ValueError(f"{target.parent} is no part of an installed package: run this in a checkout.")
    text = page(root)
    if "--check" in words:
        if not target.is_file() or target.read_text() != text:
            raise ValueError(f"{target} is not current. Type: python -m mtlbench.document methods")
        return "done"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)
    print(f"{target}: {text.count(chr(10) + '### ')} methods")
    return "done"


def main() -> None:
    run_command(lambda: _run(sys.argv[1:]))


if __name__ == "__main__":
    main()
