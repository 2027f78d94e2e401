"""The text of results/papers/networks.md."""

from collections.abc import Callable, Iterable, Sequence

from mtlbench import config as configuration
from mtlbench.docstrings import escape
from mtlbench.inspecting.published import METRICS, NEAR, Network, Row, measure

SPECIAL = ("cross_stitch", "nddr_cnn", "mtan")
GROUPS: dict[str, Callable[[Row], bool]] = {
    "single task and MTL baseline, survey Tables 3, 4, 7": lambda row: (
        row.table in ("3", "4", "7") and row.method in ("single_task", "mtl_baseline")
    ),
    "cross-stitch, NDDR-CNN, MTAN": lambda row: row.method in SPECIAL,
    "all": lambda row: True,
}


def page(rows: Sequence[Row]) -> str:
    """The printed rows and our networks. Raises ValueError where a row is far off and no reason is given."""
    unexplained = [f"table {row.table} {row.method}" for row in rows if (row.far or not row.network) and not row.why]
    if unexplained:
        raise ValueError(
            f"networks.toml gives no reason for what is missing or more than {NEAR:g} % off: {'; '.join(unexplained)}."
        )
    made = [row for row in rows if row.ours]
    parts = [
        "# The networks of the printed tables",
        "Written by `python -m mtlbench.inspect published` from the networks, `*.csv` and `networks.toml`; not edited. "
        "Any row again, layer by layer: `python -m mtlbench.inspect model <words> depth=4`.",
        "Parameters are all that a network holds, FLOPs the multiply-adds of one image, of convolutions and products "
        "of matrices alone (batch normalisation, activations, pooling and upsampling count nothing).",
        "## Which convention the printed FLOPs have",
        *_convention([row for row in made if "flops_g" in row.printed]),
        "## How near",
        _summary(made),
        *_tables(rows),
        "## Networks of settings without printed numbers",
        *_others({word for row in made for word in row.network.words}),
    ]
    return "\n\n".join(parts) + "\n"


def _convention(made: Sequence[Row]) -> list[str]:
    counts = {
        name: sum(abs(row.off("flops_g", times)) <= NEAR for row in made)
        for name, times in (("multiply-adds", 1.0), ("multiplications and additions, two each", 2.0))
    }
    rows = [(name, f"{count} of {len(made)}") for name, count in counts.items()]
    best = max(counts, key=counts.__getitem__)
    return [
        table(("an operation is", f"printed rows within {NEAR:g} %"), rows),
        f"So below: {best}. Multiplications alone are the same number: biases are not counted.",
    ]


def _summary(made: Sequence[Row]) -> str:
    def share(rows: Sequence[Row], metric: str, percent: float) -> str:
        own = [row for row in rows if metric in row.printed]
        near = sum(abs(row.off(metric)) <= percent or row.rounds(metric) for row in own)
        return f"{near} of {len(own)}"

    lines = []
    for name, belongs in GROUPS.items():
        own = [row for row in made if belongs(row)]
        lines.append((name, *(share(own, metric, percent) for metric in METRICS for percent in (2.0, NEAR))))
    head = ("rows", "parameters within 2 %", "within 5 %", "FLOPs within 2 %", "within 5 %")
    return f"Within so much of the printed number, or equal to it in its printed digits:\n\n{table(head, lines)}"


def _tables(rows: Sequence[Row]) -> Iterable[str]:
    for name in dict.fromkeys((row.paper, row.table) for row in rows):
        own = [row for row in rows if (row.paper, row.table) == name]
        made, absent = [row for row in own if row.ours], [row for row in own if not row.ours]
        yield f"## {name[0]}, Table {name[1]}"
        yield escape(own[0].about)
        if made:
            yield table(
                ("row", "printed M", "ours", "off", "printed G", "ours", "off", "words"),
                [(row.method, *_cells(row, "params_m"), *_cells(row, "flops_g"), _words(row.network)) for row in made],
            )
        for row in made:
            if row.why:
                yield f"- **{row.method}**: {escape(row.why)}"
        if absent:
            yield table(
                ("row without a network here", "printed M", "printed G", "why"),
                [(row.method, *(row.printed.get(metric, "") for metric in METRICS), escape(row.why)) for row in absent],
            )


def _cells(row: Row, metric: str) -> tuple[str, str, str]:
    if metric not in row.printed:
        return "", f"{row.ours[metric]:.1f}", ""
    digits = max(1, len(row.printed[metric].partition(".")[2]) + 1)
    return row.printed[metric], f"{row.ours[metric]:.{digits}f}", f"{row.off(metric):+.1f} %"


def _words(network: Network) -> str:
    said = f"`{' '.join(network.words)}`"
    return f"{said}, each task alone" if network.alone else said


def _others(taken: set[str]) -> list[str]:
    """The experiments that no printed row is beside."""
    lines = []
    for name in configuration.options("experiment"):
        word = f"experiment={name}"
        if word not in taken:
            _, choices = configuration.load_run([word])
            ours = measure(Network((word,)))
            named = " ".join(choices[group] for group in ("architecture", "backbone", "head"))
            lines.append((f"`{word}`", named, f"{ours['params_m']:.2f}", f"{ours['flops_g']:.2f}"))
    return [table(("words", "network", "parameters (M)", "multiply-adds (G)"), lines)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
