"""The figures, drawn beside the tables: matplotlib is imported and at work in a second process where there is much."""

from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from types import TracebackType

from mtlbench.aggregation.figure_data import FigureData


class Drawing:
    """begin() hands over what is to be drawn, end() returns {name: SVG} of each; not wanted: nothing is drawn."""

    def __init__(self, wanted: bool, beside: bool):
        self._wanted = wanted
        self._pool = ProcessPoolExecutor(1) if wanted and beside else None
        self._data: Sequence[FigureData] = ()
        self._drawn: Future[list[dict[str, str]]] | None = None
        if self._pool:
            self._pool.submit(draw, [])

    def __enter__(self) -> "Drawing":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def begin(self, data: Sequence[FigureData]) -> None:
        self._data = data
        if self._pool:
            self._drawn = self._pool.submit(draw, list(data))

    def end(self) -> list[dict[str, str]]:
        if not self._wanted:
            return [{} for _ in self._data]
        return draw(self._data) if self._drawn is None else self._drawn.result()


def draw(data: Sequence[FigureData]) -> list[dict[str, str]]:
    from mtlbench.aggregation.figures import figures

    return [figures(one) for one in data]
