"""table.md of results/analysis/toy: the published table, its ranges, and every method, to read."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from omegaconf import DictConfig

from mtlbench.aggregation.tables import markdown_text
from mtlbench.analysis import toy_problem
from mtlbench.analysis.toy_methods import Life, Outcome
from mtlbench.analysis.toy_published import OTHERS, Cell, Run

HEAD = """# The two-task toy problem

Written by `python -m mtlbench.analysis.toy`; not to be edited. Two losses in the plane (Liu et al. 2021; Elich et al.
2023, Table A7 and Figures 1 and A5). A run has arrived at its first point with a mean loss F <= -15 (the optimum has
-15.0916); the count is of updates, the largest over the starts {starts}; `-`: not all arrived. Arriving is not
staying."""

PUBLISHED = """## The published table

{said}. {steps:,} points a run, float32 in the operations of PyTorch's CPU kernels before version 2.1, tanh correctly
rounded. In brackets the printed count where it is another one. Bold: the cells that every library's tanh and both forms
of Adam's average are known to give alike."""

MOVING = """### The cells that follow the last bit

The trajectories are chaotic: these counts change with the last bit of tanh. The range is over tanh correctly rounded,
{others} others that round half of the arguments whose tanh lies nearest to the middle between two floats, 0.8 % of all,
to the further float (so many differ in MKL's on AVX-512, which the printed counts are of), and for Adam PyTorch's
average since 2.1. Such a count is one draw: compare ranges, not ranks."""

LOOSE = "Bold cells that every library known gives alike, but not each of these other tanh:"

PLACES = """### Where the starts are after {steps:,} points

{letters}. Lower case: F <= -15 was reached, and is not held at the end."""

METHODS = """## Every method

The classes of training in float64, {steps:,} updates a run: a method is asked one step at a time, so the published
number of steps would take many hours. `-` is *not within so many*; Adam moves a coordinate by about its rate a step,
so that small rates cannot arrive. Every method at the defaults of its yaml, or with the options after its name. An
epoch, for methods that look at epochs, is {epoch} steps; there is no validation part.

A count is the largest first hit; `*`: not all stayed at F <= -15 until the end. `stop`: not all arrived, and one ended
with weights or gradients that are not finite. `undef`: *undefined: negative losses*: before a start arrived, if it did,
the method met losses for which its formula has no answer, because it needs positive ones (f2 is -19.4 at the start
(-8.5, -5), and one loss at least is negative wherever F <= -15); in brackets what the class's own substitute, in its
docstring, made of it; counted below."""

DISTANCES = """### How far from the Pareto set at the end

The largest distance over the starts; `inf`: a run that left for infinity."""

UNDEFINED = """### Inputs that a formula does not answer

Steps with losses that are not positive where the formula needs positive ones, their share of all steps, and in how many
runs; then all that the method notes, by steps."""


def rate(value: float) -> str:
    return f"lr {value:g}"


def distance(life: Life) -> float:
    finite = np.isfinite(life.end).all()
    return float(toy_problem.distance_to_pareto_set(life.end)[0]) if finite else float("nan")


def state(outcome: Outcome) -> str:
    """In words: what the cell of the second table stands for."""
    if outcome.undefined:
        return "undefined: negative losses"
    if outcome.reached is not None:
        return "reached" if all(life.stayed for life in outcome.lives) else "reached, not stayed"
    return "stopped" if any(life.stopped for life in outcome.lives) else "not reached"


def said_of_published(cells: Sequence[Cell]) -> str:
    """One line: how many cells are the printed ones."""
    compared = [cell for cell in cells if cell.published != ""]
    if not compared:
        return (
            f"published table: {len(cells)} cells; other starts or steps than the paper's, so nothing to compare with"
        )
    fixed = [cell for cell in compared if cell.machine_independent]
    same = sum(cell.iterations == cell.published for cell in fixed)
    rest = [cell for cell in compared if not cell.machine_independent]
    also = sum(cell.iterations == cell.published for cell in rest)
    return (
        f"published table: {same} of the {len(fixed)} machine-independent cells and {also} of the {len(rest)} others "
        f"are the printed ones"
    )


def page(config: DictConfig, cells: Sequence[Cell], found: Sequence[Outcome]) -> str:
    """table.md."""
    parts = [HEAD.format(starts=", ".join(f"({x:g}, {y:g})" for x, y in config.starts))]
    if cells:
        parts += _of_published(cells, config.steps)
    if found:
        parts += _of_methods(found, config)
    return "\n\n".join(parts) + "\n"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _by_row(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    rows: dict[str, list[Cell]] = {}
    for cell in cells:
        rows.setdefault(f"{cell.optimizer} {cell.method}", []).append(cell)
    return rows


def _count(number: int | str | None) -> str:
    return "-" if number is None else str(number)


def _of_published(cells: Sequence[Cell], steps: int) -> list[str]:
    rows = _by_row(cells)
    rates = [rate(cell.rate) for cell in next(iter(rows.values()))]

    def shown(cell: Cell) -> str:
        text = _count(cell.iterations)
        text = f"**{text}**" if cell.machine_independent else text
        return text if cell.published in ("", cell.iterations) else f"{text} ({_count(cell.published)})"

    def line(cell: Cell) -> list[str]:
        others = [n for n in (cell.iterations, *cell.others) if n is not None]
        span = f"{min(others)} to {max(others)}" if others else "-"
        many = f"{len(others)} of {1 + len(cell.others)}"
        name = f"{cell.optimizer} {cell.method}, {rate(cell.rate)}"
        return [name, _count(cell.published), _count(cell.iterations), span, many]

    said = said_of_published(cells)
    parts = [
        PUBLISHED.format(said=said[0].upper() + said[1:], steps=steps),
        _grid(["", *rates], [[name, *map(shown, row)] for name, row in rows.items()]),
    ]
    moving = [cell for cell in cells if not cell.machine_independent]
    loose = [cell for cell in cells if cell.machine_independent and set(cell.others) - {cell.iterations}]
    head = ["cell", "printed", "here", "range", "arithmetics in which all arrive"]
    if moving:
        parts += [MOVING.format(others=sum(not other.lerp for other in OTHERS)), _grid(head, map(line, moving))]
    if loose:
        parts += [LOOSE, _grid(head, map(line, loose))]
    letters = "; ".join(f"{letter}: {words}" for letter, words in toy_problem.PLACES.items())
    ends = [[name, *["".join(map(_letter, cell.runs)) for cell in row]] for name, row in rows.items()]
    return [*parts, PLACES.format(steps=steps, letters=letters), _grid(["", *rates], ends)]


def _letter(run: Run) -> str:
    return run.place.lower() if run.hit is not None and run.place != "G" else run.place


def _of_methods(found: Sequence[Outcome], config: DictConfig) -> list[str]:
    rates = [rate(value) for value in config.rates]
    parts = [METHODS.format(steps=config.method_steps, epoch=config.epoch)]
    for optimizer in dict.fromkeys(outcome.optimizer for outcome in found):
        rows: dict[str, list[Outcome]] = {}
        for outcome in found:
            if outcome.optimizer == optimizer:
                rows.setdefault(outcome.method, []).append(outcome)
        shown = [[markdown_text(name), *map(_cell, row)] for name, row in rows.items()]
        parts += [f"### {optimizer}", _grid(["", *rates], shown)]
    return [*parts, *_distances(found, rates), *_undefined(found)]


def _cell(outcome: Outcome) -> str:
    stayed = all(life.stayed for life in outcome.lives)
    text = "stop" if any(life.stopped for life in outcome.lives) else "-"
    if outcome.reached is not None:
        text = f"{outcome.reached}{'' if stayed else '*'}"
    return f"undef ({text})" if outcome.undefined else text


def _distances(found: Sequence[Outcome], rates: Sequence[str]) -> list[str]:
    """The largest distance over the starts, cell by cell."""
    rows: dict[str, list[str]] = {}
    for outcome in found:
        values = [distance(life) for life in outcome.lives]
        text = f"{max(values):.2g}" if np.isfinite(values).all() else "inf"
        rows.setdefault(f"{outcome.optimizer} {outcome.method}", []).append(text)
    return [DISTANCES, _grid(["", *rates], [[markdown_text(name), *row] for name, row in rows.items()])]


def _undefined(found: Sequence[Outcome]) -> list[str]:
    """Steps in which a formula had no answer, by method."""
    rows = []
    for name in dict.fromkeys(outcome.method for outcome in found):
        lives = [life for outcome in found if outcome.method == name for life in outcome.lives]
        notes = sum((life.notes for life in lives), Counter())
        undefined, steps = sum(life.undefined for life in lives), sum(life.steps + bool(life.stopped) for life in lives)
        if notes:
            counts = [
                str(undefined),
                f"{100 * undefined / steps:.0f} %",
                str(sum(life.undefined > 0 for life in lives)),
            ]
            said = "; ".join(f"{note} ({count})" for note, count in sorted(notes.items()))
            rows.append([markdown_text(name), *counts, said])
    if not rows:
        return ["No method met an input that its formula does not answer."]
    return [UNDEFINED, _grid(["method", "undefined steps", "share", "runs", "notes"], rows)]
