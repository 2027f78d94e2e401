"""The figures of a comparison as SVG: the same bytes for the same runs, text as text.

response   test Delta_m by learning rate, a line a row, the band from the worst to the best seed
pareto     runs by their tasks' metrics, two tasks a panel, and the front of each optimizer
parallel   every run as a line over the metrics (Elich et al. 2023, Figure 2)
budget     expected validation Delta_m of the best of k settings
training   the test metrics by epoch of the chosen rows, the band from the least to the most
"""

import io
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from mtlbench import stats
from mtlbench.aggregation.figure_data import Band, FigureData

STYLE = {"svg.hashsalt": "mtlbench", "svg.fonttype": "none", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a6d3b", "#7b5ea7", "#7f7f7f")
"""Okabe and Ito's, told apart by most eyes; then others."""
DASHES = ("-", "--", ":", "-.")
PANELS = 9
"""Metrics that get a panel of their own."""


def figures(data: FigureData) -> dict[str, str]:
    """{name: SVG} of those of the figures above that the comparison has something for."""
    found = {}
    with matplotlib.rc_context(STYLE):
        for draw in (response, pareto, parallel, budget, training):
            figure = draw(data)
            if figure is not None:
                found[draw.__name__] = _svg(figure)
    return found


def _svg(figure: Figure) -> str:
    FigureCanvasSVG(figure)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _plain(text: str) -> str:
    """Text that matplotlib does not take for a formula."""
    return text.replace("$", r"\$")


def _panels(count: int, title: str, width: float = 4.2, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    columns = min(3, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns + 0.6, height * rows + 0.5), layout="constrained")
    figure.suptitle(_plain(title))
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    return figure, axes


def _look(names: Iterable[str]) -> Callable[[str], dict[str, Any]]:
    """A colour and a dash for each name, in their order."""
    places = {name: i for i, name in enumerate(dict.fromkeys(names))}

    def look(name: str) -> dict[str, Any]:
        turn, colour = divmod(places[name], len(COLOURS))
        return {"color": COLOURS[colour], "linestyle": DASHES[turn % len(DASHES)], "label": _plain(name)}

    return look


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    known = {}
    for axis in axes:
        known |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if known:
        figure.legend(known.values(), known.keys(), loc="outside right upper", frameon=False)


def _band(axis: Axes, band: Band, style: dict[str, Any], **line: Any) -> None:
    x, middle, least, most = band
    axis.plot(x, middle, **style, **line)
    axis.fill_between(x, least, most, color=style["color"], alpha=0.15, linewidth=0)


def response(data: FigureData) -> Figure | None:
    """A cross at the bad edge: no seed, or not every one, came to an end at this rate."""
    rates = {rate for rows in data.response.values() for band in rows.values() for rate in band[0]}
    if len(rates) < 2:
        return None
    figure, axes = _panels(len(data.response), data.title)
    look = _look(label for rows in data.response.values() for label in rows)
    for axis, (optimizer, rows) in zip(axes, data.response.items(), strict=True):
        for label, band in rows.items():
            if len(band[0]):
                _band(axis, band, look(label), marker="o", markersize=3)
            lost, edge = data.lost[optimizer][label], 0.02 if data.delta_higher else 0.98
            at, colour = axis.get_xaxis_transform(), look(label)["color"]
            axis.plot(lost, [edge] * len(lost), "x", color=colour, transform=at)
        axis.set(xscale="log", xlabel="learning rate", ylabel=f"test {data.delta}", title=_plain(optimizer))
        axis.set_yscale("symlog", linthresh=10)
    _legend(figure, axes)
    return figure


def pareto(data: FigureData) -> Figure | None:
    """The first metrics of two tasks, and each optimizer's front in that plane."""
    pairs = list(itertools.combinations(data.first, 2))[:PANELS]
    if not pairs or not len(data.points):
        return None
    figure, axes = _panels(len(pairs), data.title)
    optimizers, names = np.array(data.optimizers, object), sorted(set(data.optimizers))
    look = _look(names)
    for axis, pair in zip(axes, pairs, strict=True):
        for name in names:
            points = data.points[optimizers == name][:, pair]
            style = look(name)
            axis.plot(*points.T, "o", markersize=3, alpha=0.5, markeredgewidth=0, color=style["color"])
            best = points[stats.undominated(points, points, [data.higher[i] for i in pair])]
            best = best[np.lexsort(best.T[::-1])]
            axis.plot(*best.T, marker="o", markersize=4, linewidth=1, **style)
        axis.set(xlabel=_plain(data.metrics[pair[0]]), ylabel=_plain(data.metrics[pair[1]]))
    _legend(figure, axes)
    return figure


def parallel(data: FigureData) -> Figure | None:
    """Each axis from its worst (below) to its best run; runs that no other dominates in full colour, others faint."""
    if len(data.points) < 2 or len(data.metrics) < 2:
        return None
    low, high = data.points.min(0), data.points.max(0)
    width = np.where(high > low, high - low, 1)
    scaled = np.where(data.higher, (data.points - low) / width, (high - data.points) / width).round(4)
    figure = Figure(figsize=(1.6 * len(data.metrics) + 2, 3.8), layout="constrained")
    figure.suptitle(_plain(data.title))
    axis = figure.add_subplot()
    optimizers, names = np.array(data.optimizers, object), sorted(set(data.optimizers))
    look, x = _look(names), np.arange(len(data.metrics))
    for front, style in ((False, {"alpha": 0.15, "linewidth": 0.6}), (True, {"alpha": 1.0, "linewidth": 1.4})):
        for name in names:
            lines = [np.column_stack([x, y]) for y in scaled[(optimizers == name) & (data.full == front)]]
            axis.add_collection(LineCollection(lines, colors=look(name)["color"], **style))
    for name in names:
        axis.plot([], [], **look(name))
    heads = [_plain(text).replace(" ", "\n") for text in data.metrics]
    axis.set(xticks=x, xticklabels=heads, yticks=[0, 1], yticklabels=["worst", "best"], ylim=(-0.03, 1.03))
    axis.set_xlim(-0.2, len(x) - 0.8)
    _legend(figure, [axis])
    return figure


def budget(data: FigureData) -> Figure | None:
    """The equal-budget view as curves."""
    if max(map(len, data.budget.values()), default=0) < 2:
        return None
    figure, (axis,) = _panels(1, data.title, 6)
    look = _look(data.budget)
    for label, values in data.budget.items():
        axis.plot(np.arange(1, len(values) + 1), values, **look(label))
    axis.set(xscale="log", xlabel="settings tried", ylabel=f"expected validation {data.delta}")
    axis.set_yscale("symlog", linthresh=10)
    _legend(figure, [axis])
    return figure


def training(data: FigureData) -> Figure | None:
    """A panel for each of the first metrics."""
    metrics = list(data.training)[:PANELS]
    if max((len(band[0]) for rows in data.training.values() for band in rows.values()), default=0) < 2:
        return None
    figure, axes = _panels(len(metrics), data.title)
    look = _look(["single_task", *(label for rows in data.training.values() for label in rows)])
    for axis, metric in zip(axes, metrics, strict=True):
        for label, band in data.training[metric].items():
            _band(axis, band, look(label), linewidth=1)
        axis.set(xlabel="epoch", ylabel=_plain(metric))
    _legend(figure, axes)
    return figure
