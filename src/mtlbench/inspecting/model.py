"""`python -m mtlbench.inspect model`: layers, parameters and multiply-adds of a configured network."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import get_args

from mtlbench import config as configuration
from mtlbench.inspecting.counting import Count, Counted
from mtlbench.inspecting.network import counted, shape_of, unread
from mtlbench.inspecting.published import beside
from mtlbench.weighting import Level

CONVENTION = "Multiply-adds of one image in evaluation, of convolutions and products of matrices alone."


def inspect_model(overrides: Sequence[str]) -> str:
    """Prints the network of the overrides. Raises ValueError for what cannot be built, with what fits."""
    config, choices = configuration.load_run(overrides, name="inspect_model")
    if not isinstance(config.depth, int) or config.depth < 1:
        raise ValueError(f"depth={config.depth}: a number of levels from 1 is expected.")
    dataset = unread(config)
    shape = shape_of(config, dataset)
    network = counted(config, dataset, shape)
    named = " ".join(choices[group] for group in ("architecture", "backbone", "head"))
    print(f"{named}, {len(dataset.tasks)} tasks of {choices['dataset']}, images of {' x '.join(map(str, shape))}\n")
    print(table(("layer", "", "output", "parameters", "multiply-adds", "part"), layers(network, config.depth)))
    print(f"\n{table(('part', 'parameters', 'multiply-adds'), parts(network))}\n\n{CONVENTION}")
    print(f"method.level: {', '.join(levels(network))}")
    for line in beside(choices):
        print(line)
    return "done"


def layers(network: Counted, depth: int) -> list[tuple[str, ...]]:
    """Rows of the modules; those that follow each other and differ in nothing but the name are one."""
    rows = []
    for name, (module, count, part) in network.of_modules(depth).items():
        level = name.count(".")
        rows.append((level, "  " * level + name.rpartition(".")[2], type(module).__name__, count, part))
    found = []
    for _, same in groupby(rows, key=lambda row: (row[0], *row[2:4])):
        first, *others = same
        _, name, kind, count, part = first
        more = f" and {len(others)} more" if others else ""
        found.append((name + more, kind, count.shape, *numbers(count), part if not others else ""))
    return found


def parts(network: Counted) -> list[tuple[str, ...]]:
    """Rows of what is shared and of each task, equal ones together, and of their sum."""
    found = []
    for _, same in groupby(network.of_parts().items(), key=lambda item: (item[0] == "shared", item[1])):
        (part, count), *others = same
        each = f" and {len(others)} more, each" if others else ""
        found.append((part + each, *numbers(count)))
    return [*found, ("all", *numbers(Count(network.parameters, network.multiply_adds, "")))]


def levels(network: Counted) -> list[str]:
    """Those of `method.level` that the network can give."""
    return [level for level in get_args(Level) if level != "feature" or network.model.shared_representation]


def numbers(count: Count) -> tuple[str, str]:
    return f"{count.parameters:,}", f"{count.multiply_adds / 1e9:.4f} G"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns of text; numbers are aligned to the right."""
    lines = [tuple(head), *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    right = [title in ("parameters", "multiply-adds") for title in head]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )
