"""The files of results/analysis/toy: two csv and the figures, and the page of toy_page."""

import csv
import io
from collections.abc import Iterable, Sequence

import numpy as np
from omegaconf import DictConfig

from mtlbench.analysis import toy_figures, toy_page, toy_problem
from mtlbench.analysis.toy_methods import Outcome
from mtlbench.analysis.toy_published import Cell

CAPTION = (
    "Contours of the mean loss. Dots: starts. Grey bar: Pareto set. Star: optimum. Squares: ends, black where "
    "F <= -15 was reached. Red to yellow: first to last step. Long oscillations are thinned."
)


def files(config: DictConfig, cells: Sequence[Cell], found: Sequence[Outcome]) -> dict[str, str]:
    """{name: content}. Same numbers, same bytes."""
    made = {}
    if cells:
        made["published.csv"] = _csv(_published_rows(cells))
    if found:
        made["every_method.csv"] = _csv(_method_rows(found))
    if cells and config.figures:
        for optimizer in dict.fromkeys(cell.optimizer for cell in cells):
            made[f"{optimizer}.svg"] = drawing(optimizer, [c for c in cells if c.optimizer == optimizer], config.steps)
    return {"table.md": toy_page.page(config, cells, found), **made}


def drawing(optimizer: str, cells: Sequence[Cell], steps: int) -> str:
    """The figure of one optimizer."""
    name = {"gd": "gradient descent", "adam": "Adam"}[optimizer]
    panels = {
        (cell.method, toy_page.rate(cell.rate)): toy_figures.panel([run.shown for run in cell.runs]) for cell in cells
    }
    rows, columns = (list(dict.fromkeys(keys)) for keys in zip(*panels, strict=True))
    return toy_figures.figure(f"Toy problem, {name}, {steps:,} points a path", CAPTION, rows, columns, panels)


def _csv(rows: Iterable[dict[str, object]]) -> str:
    rows = list(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _plain(value) for key, value in row.items()})
    return text.getvalue()


def _plain(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}" if np.isfinite(value) else ""
    return "" if value is None else value


def _published_rows(cells: Sequence[Cell]) -> Iterable[dict[str, object]]:
    for cell in cells:
        reached = [n for n in (cell.iterations, *cell.others) if n is not None]
        row: dict[str, object] = {
            "optimizer": cell.optimizer,
            "method": cell.method,
            "lr": str(float(cell.rate)),
            "iterations": cell.iterations,
            "published": cell.published,
            "same": "" if cell.published == "" else cell.iterations == cell.published,
            "machine_independent": cell.machine_independent,
            "arithmetics": 1 + len(cell.others),
            "arithmetics_reached": len(reached),
            "least": min(reached, default=None),
            "most": max(reached, default=None),
        }
        for number, run in enumerate(cell.runs, 1):
            row |= {f"hit_{number}": run.hit, f"stayed_{number}": run.stayed, f"place_{number}": run.place}
            row |= {f"x_{number}": run.point[0], f"y_{number}": run.point[1]}
        yield row


def _method_rows(found: Sequence[Outcome]) -> Iterable[dict[str, object]]:
    for outcome in found:
        row: dict[str, object] = {
            "optimizer": outcome.optimizer,
            "method": outcome.method,
            "lr": str(float(outcome.rate)),
            "iterations": outcome.iterations,
            "state": toy_page.state(outcome),
        }
        for number, life in enumerate(outcome.lives, 1):
            row |= {
                f"hit_{number}": life.hit,
                f"stayed_{number}": life.stayed,
                f"steps_{number}": life.steps,
                f"x_{number}": float(life.end[0]),
                f"y_{number}": float(life.end[1]),
                f"mean_loss_{number}": life.mean,
                f"distance_{number}": toy_page.distance(life),
                f"place_{number}": toy_problem.place(life.end, life.mean),
                f"undefined_{number}": life.undefined,
                f"stopped_{number}": life.stopped,
                f"notes_{number}": "; ".join(f"{note} ({count})" for note, count in sorted(life.notes.items())),
            }
        yield row
