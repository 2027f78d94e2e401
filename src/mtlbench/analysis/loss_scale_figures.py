"""The figures of the study as SVG: the same bytes for the same numbers, text as text.

frozen, trained   lengths of the updates by step, plain solid and scaled dotted (Elich et al. 2023, A1, A2)
epsilon           by how much eps lets a scaled loss change a coordinate's step
"""

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from mtlbench.aggregation.figures import COLOURS, STYLE
from mtlbench.analysis.loss_scale_epsilon import Effect
from mtlbench.analysis.loss_scale_network import PARTS
from mtlbench.analysis.loss_scale_study import Case

SHOWN = 120
"""Coordinates in the figure of eps."""


def lines(cases: Sequence[Case], title: str) -> str:
    """Lengths of the updates, a row for each part that moves and a column for each case."""
    parts = [part for part in PARTS if cases[0].plain.updates[part].any()]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * len(cases) + 0.6, 2.1 * len(parts) + 0.8), layout="constrained")
        figure.suptitle(title)
        for i, part in enumerate(parts):
            shared = None
            for j, case in enumerate(cases):
                axes = figure.add_subplot(len(parts), len(cases), i * len(cases) + j + 1, sharey=shared)
                shared = shared or axes
                for run, dash, width, label in ((case.plain, "-", 2.4, "plain"), (case.scaled, ":", 1.4, "scaled")):
                    norms = run.norms(part)
                    colour = "#56b4e9" if run is case.plain else "#000000"
                    axes.plot(np.arange(1, len(norms) + 1), norms, dash, color=colour, linewidth=width, label=label)
                axes.set_yscale("log")
                axes.minorticks_off()
                if i == 0:
                    axes.set_title(case.name, fontsize=9)
                if j == 0:
                    axes.set_ylabel(f"{part}\nlength of the update")
                else:
                    axes.tick_params(labelleft=False)
                if i == len(parts) - 1:
                    axes.set_xlabel("step")
        figure.axes[0].legend(fontsize=8)
        return svg(figure)


def epsilon(effects: Mapping[str, Effect], scales: Mapping[str, float], eps: float) -> str:
    """Coordinates of the last step: measured as dots, the formula as a line."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.8), layout="constrained")
        axes = figure.add_subplot()
        for colour, (part, effect) in zip(COLOURS, effects.items(), strict=False):
            order = np.argsort(effect.roots[-1], kind="stable")
            order = order[:: max(1, len(order) // SHOWN)]
            roots, measured = effect.roots[-1][order], abs(effect.measured[-1][order])
            shown = (roots > 0) & (measured > 0)
            label = f"{part}, loss x {scales.get(part, 1.0):g}"
            axes.plot(roots[shown], measured[shown], ".", color=colour, markersize=5, label=f"{label}: torch's Adam")
            if shown.any():
                x = np.geomspace(roots[shown].min(), roots[shown].max(), 60)
                y = abs((x + eps) / (x + eps / scales.get(part, 1.0)) - 1)
                axes.plot(x, y, color=colour, linewidth=1, label=f"{label}: formula")
        axes.set(xscale="log", yscale="log", xlabel="square root of v", ylabel="relative change of the step")
        axes.minorticks_off()
        axes.set_title(f"What eps {eps:g} leaves of the invariance, by coordinate", fontsize=9)
        axes.legend(fontsize=7)
        return svg(figure)


def svg(figure: Figure) -> str:
    FigureCanvasSVG(figure)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"
