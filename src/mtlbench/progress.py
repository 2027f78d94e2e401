"""How far something is: a bar on a terminal, a line at each quarter elsewhere."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import track

Step = TypeVar("Step")


def progress(steps: Iterable[Step], said: str, total: int) -> Iterator[Step]:
    """The steps, and how many of them are done: "said: 250 of 1,000"."""
    if sys.stdout.isatty():
        yield from track(steps, said, total=total)
        return
    for done, step in enumerate(steps, start=1):
        yield step
        if done * 4 // total > (done - 1) * 4 // total:
            print(f"{said}: {done:,} of {total:,}", flush=True)
