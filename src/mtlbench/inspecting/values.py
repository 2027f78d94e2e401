"""What the values of one label may be, by its type, and what they are."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mtlbench.labels import (
    BlendedNormals,
    ClassMap,
    Disparity,
    InverseDepth,
    Label,
    Landmarks,
    MetricDepth,
    Normals,
    UnscaledInverseDepth,
    UnscaledNormals,
    WholeImage,
)
from mtlbench.task import IGNORE, Task

NOT_NEGATIVE = (Disparity, InverseDepth, MetricDepth, UnscaledInverseDepth)
UNIT = 0.05
"""How far from 1 the length of a normal may be: 8 bits round it by a hundredth."""


@dataclass
class Seen:
    """The values of a task's labels, of one image or of many.

    low, high: of what is labelled. labelled, total: numbers. classes: how often each is found, where there are any.
    """

    low: float = np.inf
    high: float = -np.inf
    labelled: int = 0
    total: int = 0
    empty: int = 0  # images without any label
    classes: dict[int, int] = field(default_factory=dict)

    def add(self, other: "Seen") -> None:
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.labelled += other.labelled
        self.total += other.total
        self.empty += other.empty
        for number, count in other.classes.items():
            self.classes[number] = self.classes.get(number, 0) + count


def look(label: Tensor, task: Task) -> tuple[Seen, list[str]]:
    """What a label holds, and what is wrong with it."""
    values = label.as_subclass(Tensor)
    valid = ~torch.isnan(values) if values.is_floating_point() else values != IGNORE
    known = values[valid]
    seen = Seen(labelled=known.numel(), total=values.numel(), empty=int(known.numel() == 0))
    if known.numel() == 0:
        return seen, []
    seen.low, seen.high = known.min().item(), known.max().item()
    if not values.is_floating_point() and values.ndim != 1:  # several of yes and no are no classes
        numbers, counts = known.unique(return_counts=True)
        seen.classes = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    return seen, list(_wrong(label, values, known, task, seen))


def _wrong(label: Tensor, values: Tensor, known: Tensor, task: Task, seen: Seen):
    if values.is_floating_point() and not torch.isfinite(known).all():
        yield "infinite values"
    classes = isinstance(label, ClassMap) or (not values.is_floating_point() and values.ndim == 0)
    most = 2 if values.ndim == 1 else max(2, task.channels)
    most = most if classes or not values.is_floating_point() else None
    if most is not None and (seen.low < 0 or seen.high >= most):
        yield f"values from {seen.low} to {seen.high}, where 0 to {most - 1} or {IGNORE} (no label) are expected"
    if isinstance(label, NOT_NEGATIVE) and seen.low < 0:
        yield f"values down to {seen.low:.4g}, where none below 0 is expected"
    if isinstance(label, (Normals, UnscaledNormals)) and not isinstance(label, BlendedNormals):
        length = values.square().sum(0).sqrt()
        length = length[~torch.isnan(length)]
        odd = ((length - 1).abs() > UNIT).double().mean().item() if length.numel() else 0.0
        if odd > 0.01:
            yield f"{100 * odd:.0f} % of the normals are not of length 1, but {length.min():.3g} to {length.max():.3g}"
    if isinstance(label, Landmarks):
        height, width = label.canvas
        x, y = values.unbind(1)
        outside = ((x < -0.5) | (y < -0.5) | (x > width - 0.5) | (y > height - 0.5)).sum().item()
        if outside:
            yield f"{outside} of {len(values)} points are outside of the image"
    if isinstance(label, Label) and not isinstance(label, (Landmarks, WholeImage)) and values.ndim not in (2, 3):
        yield f"a map of {values.ndim} dimensions"


def described(seen: Seen, task: Task, words: tuple[str, ...] = ()) -> tuple[str, str, str]:
    """(range, labelled, classes) for people."""
    if not seen.labelled:
        return "-", "none", ""
    share = f"{100 * seen.labelled / seen.total:.1f} %"
    if not seen.classes:
        return f"{seen.low:.4g} to {seen.high:.4g}", share, ""
    count = max(2, task.channels)
    absent = [number for number in range(count) if number not in seen.classes]
    names = [words[number] if number < len(words) else str(number) for number in absent]
    found = f"{count - len(absent)} of {count}"
    missing = f"; without {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}" if absent else ""
    return f"{int(seen.low)} to {int(seen.high)}", share, found + missing
