"""The toy problem's figures as SVG: the paths of a run's three starts over contours of the mean loss, panel by panel.

As Figures 1 and A5 of Elich et al. 2023: a panel for each method and learning rate. Contours and axes are drawn once
and used in every panel, so a file with 27 panels stays small; the same bytes for the same paths.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import contourpy
import numpy as np

from mtlbench.analysis import toy_problem
from mtlbench.analysis.toy_problem import WINDOW

SIZE = 150
"""Of a panel, in pixels; GAP between panels, MARGIN for labels."""
GAP, MARGIN, HEAD, FOOT = 8, 64, 34, 46
TICKS = (-10, -5, 0, 5, 10)
LEVELS = tuple(np.arange(-15, 9, 3))
NEAR = 0.8
"""Points nearer to the last one than so many pixels are left out."""
SEGMENTS = 700
"""Of a path at most; what a run does for long is sampled evenly."""
COLOURS = 12
"""Steps of the colour from the run's begin, red, to its end, yellow."""

Segment = tuple[float, float, float, float, int]
"""x, y, x, y in pixels of the panel, and the colour's number."""


def pixels(points: np.ndarray) -> np.ndarray:
    """Of the panel, y downwards [N, 2]."""
    return (np.asarray(points, float) * [1, -1] + WINDOW) * (SIZE / (2 * WINDOW))


def clipped(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The part of the segment from a to b inside the panel (Liang and Barsky 1984), or None."""
    along = b - a
    first, last = 0.0, 1.0
    for i in (0, 1):
        for distance, speed in ((a[i], -along[i]), (SIZE - a[i], along[i])):
            if speed == 0:
                if distance < 0:
                    return None
            elif speed > 0:
                last = min(last, distance / speed)
            else:
                first = max(first, distance / speed)
    return (a + first * along, a + last * along) if first < last else None


def segments(points: np.ndarray) -> list[Segment]:
    """What of a path is drawn: steps of a visible length inside the panel, each once, not more than SEGMENTS.

    The rest is a sample: the first half as it came, of what follows evenly many.
    """
    places = pixels(points)
    found: dict[bytes, Segment] = {}
    last = 0
    for i in _visible(places):
        ends = clipped(places[last], places[i])
        if ends is not None:
            there, back = ((2 * np.concatenate(order)).round().astype(int).tobytes() for order in (ends, ends[::-1]))
            if there not in found and back not in found:
                values = np.concatenate(ends).round(1).tolist()
                found[there] = (*values, min(COLOURS - 1, COLOURS * i // len(places)))
        last = i
    kept = list(found.values())
    if len(kept) <= SEGMENTS:
        return kept
    half = SEGMENTS // 2
    return kept[:half] + [kept[i] for i in np.linspace(half, len(kept) - 1, SEGMENTS - half).astype(int)]


def _visible(places: np.ndarray) -> list[int]:
    """Indices of points that are NEAR or more from the one before them in the list; a point that is not finite ends
    it."""
    finite = np.isfinite(places).all(1)
    length = len(places) if finite.all() else int(np.argmin(finite))
    kept, last = [], places[0].tolist()
    for i, (x, y) in enumerate(places[:length].tolist()):
        if abs(x - last[0]) >= NEAR or abs(y - last[1]) >= NEAR:
            kept.append(i)
            last = (x, y)
    return kept


def _path_data(parts: Sequence[Sequence[float]]) -> str:
    """Segments x, y, x, y joined where one begins at the other's end."""
    text, end = [], None
    for x0, y0, x1, y1 in parts:
        text.append(f"{x1:g} {y1:g}" if end == (x0, y0) else f"M{x0:g} {y0:g}L{x1:g} {y1:g}")
        end = (x1, y1)
    return " ".join(text)


@functools.cache
def _ground() -> str:
    """What all panels share: contours of the mean loss, the Pareto set, the optimum, a frame."""
    ticks = np.linspace(-WINDOW, WINDOW, 201)
    grid = np.stack(np.meshgrid(ticks, ticks), -1)
    means = toy_problem.mean_loss(grid.reshape(-1, 2)).reshape(grid.shape[:2])
    lines = contourpy.contour_generator(ticks, ticks, means)
    parts = [f'<rect width="{SIZE}" height="{SIZE}" fill="#fff"/>']
    for level in LEVELS:
        data = "".join(_polyline(line) for line in lines.lines(level) if len(line) > 2)
        share = (level - LEVELS[0]) / (LEVELS[-1] - LEVELS[0])
        grey = round(120 + 95 * share)
        parts.append(f'<path class="c" d="{data}" stroke="rgb({grey - 20},{grey},{grey + 20})"/>')
    front = pixels(toy_problem.pareto_set()[::100])
    parts.append(
        f'<path d="{_polyline(front, True)}" fill="none" stroke="#666" stroke-opacity=".55" stroke-width="5"/>'
    )
    x, y = pixels(np.array([toy_problem.optimum()]))[0]
    parts.append(f'<path d="M{x - 5:.1f} {y:.1f}h10M{x - 2.5:.1f} {y - 4.3:.1f}l5 8.6m-5 0l5 -8.6" stroke="#000"/>')
    parts.append(f'<rect width="{SIZE}" height="{SIZE}" fill="none" stroke="#333"/>')
    return f'<g id="ground">{"".join(parts)}</g>'


def _polyline(line: np.ndarray, already: bool = False) -> str:
    places = (line if already else pixels(line)).round(1)
    kept = [places[0]]
    for place in places[1:-1]:
        if np.abs(place - kept[-1]).max() >= 1:
            kept.append(place)
    return "M" + " ".join(f"{x:g} {y:g}" for x, y in [*kept, places[-1]])


def colour(number: int) -> str:
    """From red to yellow."""
    return f"rgb(255,{round(225 * number / (COLOURS - 1))},0)" if number else "rgb(220,0,0)"


@dataclass(frozen=True)
class Drawn:
    """What a panel shows of a run: its path, where it begins and ends, and whether it arrived."""

    path: tuple[Segment, ...]
    start: tuple[float, float]
    end: tuple[float, float]
    arrived: bool


def drawn(points: np.ndarray, hit: int | None) -> Drawn:
    """Of a run's points [K, 2]; hit: the index of its arrival, or None."""
    begin, end = points[0].tolist(), points[-1].tolist()
    return Drawn(tuple(segments(points)), tuple(begin), tuple(end), hit is not None)


def panel(runs: Sequence[Drawn]) -> str:
    """The runs of one method at one learning rate, numbered at their starts."""
    parts = ['<use href="#ground"/>']
    for number, run in enumerate(runs, 1):
        chunks = []
        for shade in range(COLOURS):
            data = _path_data([s[:4] for s in run.path if s[4] == shade])
            if data:
                chunks.append(f'<path class="p" stroke="{colour(shade)}" d="{data}"/>')
        parts.append(f'<g class="run" data-start="{number}">{"".join(chunks)}</g>')
    for number, run in enumerate(runs, 1):
        x, y = pixels(np.array([run.start]))[0]
        parts.append(f'<circle class="start" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
        anchor, side = ("end", -5) if x > SIZE / 2 else ("start", 5)
        parts.append(f'<text class="n" x="{x + side:.1f}" y="{y - 3:.1f}" text-anchor="{anchor}">{number}</text>')
        x, y = pixels(np.array([run.end]))[0]
        if 0 <= x <= SIZE and 0 <= y <= SIZE:  # not where it is not a number
            fill = "#000" if run.arrived else "#fff"
            parts.append(f'<rect class="end" x="{x - 2:.1f}" y="{y - 2:.1f}" width="4" height="4" fill="{fill}"/>')
    return "".join(parts)


STYLE = (
    "text{font-family:sans-serif;font-size:10px;fill:#000}.t{font-size:14px}.n{font-size:10px;font-weight:bold}"
    ".c{fill:none;stroke-width:.8}.p{fill:none;stroke-width:1.3;stroke-linejoin:round}"
    ".end{stroke:#000;stroke-width:.8}"
)


def figure(
    title: str,
    caption: str,
    rows: Sequence[str],
    columns: Sequence[str],
    panels: Mapping[tuple[str, str], str],
) -> str:
    """The panels in a grid as one SVG. rows and columns: labels, and the keys of panels."""
    width = MARGIN + len(columns) * (SIZE + GAP) + GAP
    height = HEAD + 18 + len(rows) * (SIZE + GAP) + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<title>{escape(title)}</title><desc>{escape(caption)}</desc>",
        f"<style>{STYLE}</style><defs>{_ground()}</defs>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text class="t" x="{MARGIN}" y="20">{escape(title)}</text>',
    ]
    for j, column in enumerate(columns):
        x = MARGIN + j * (SIZE + GAP)
        parts.append(f'<text x="{x + SIZE / 2:g}" y="{HEAD + 10}" text-anchor="middle">{escape(column)}</text>')
        below = HEAD + 18 + len(rows) * (SIZE + GAP)
        for tick in TICKS:
            at = x + pixels(np.array([[tick, 0]]))[0, 0]
            parts.append(f'<text x="{at:.1f}" y="{below + 4}" text-anchor="middle">{tick}</text>')
    for i, row in enumerate(rows):
        y = HEAD + 18 + i * (SIZE + GAP)
        middle = y + SIZE / 2
        parts.append(
            f'<text class="t" transform="translate(16 {middle:g}) rotate(-90)" text-anchor="middle">'
            f"{escape(row)}</text>"
        )
        for tick in TICKS:
            at = y + pixels(np.array([[0, tick]]))[0, 1]
            parts.append(f'<text x="{MARGIN - 5}" y="{at + 3:.1f}" text-anchor="end">{tick}</text>')
        for j, column in enumerate(columns):
            if (row, column) in panels:
                x = MARGIN + j * (SIZE + GAP)
                parts.append(f'<g class="panel" transform="translate({x} {y})">{panels[row, column]}</g>')
    parts.append(f'<text x="{MARGIN}" y="{height - 12}">{escape(caption)}</text></svg>')
    return "\n".join(parts) + "\n"
