"""A task: what is predicted, its loss, its metrics and their directions."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

IGNORE = 255
"""The class label of a pixel or image without a label. Float targets without a value are NaN."""


class Loss(ABC):
    """A loss that divides by what the *global* batch holds, so that N processes weigh terms as one would.

    `counts(target)` is summed over ranks before the loss is taken; its first entry is the number of
    valid terms, and a task whose first entry is zero everywhere is absent from the batch.
    """

    @abstractmethod
    def counts(self, target: Tensor) -> Tensor:
        """What the loss divides by, of this rank's target: float64 [K], the first entry the valid terms."""

    @abstractmethod
    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        """This rank's share [] of the global loss; `counts` [K] are those of the global batch.

        A share without valid terms is `0 * prediction.sum()`: zero, with a zero gradient.
        """


@dataclass(frozen=True)
class Metric:
    """A number that is reported for a task, and which way is better.

    error: how far it may be from the number that it stands for, where it is not computed exactly.
    """

    name: str
    higher_is_better: bool
    unit: str = ""
    error: float = 0.0


class Meter(ABC):
    """Metrics as sums over a whole set, so that batch size and number of ranks change nothing.

    together: how many images, in the order of the set, one value is made of. Above 1 evaluation is in batches of a
        multiple of it, on one rank, and refused otherwise.
    gathers: sums() gives numbers [n], n of any length, that are not added but laid end to end over batches and ranks.
    """

    metrics: tuple[Metric, ...]
    together: int = 1
    gathers: bool = False

    @abstractmethod
    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Additive statistics of one batch, float64, of one fixed shape, on the prediction's device."""

    @abstractmethod
    def values(self, sums: Tensor) -> dict[str, float]:
        """The metrics by name, from statistics summed over batches and ranks; NaN where undefined."""


def added(meter: Meter, total: Tensor | None, sums: Tensor) -> Tensor:
    """The sums of one batch added to those of the batches before it, None if there were none."""
    if total is None:
        return sums
    return torch.cat([total, sums]) if meter.gathers else total + sums


@dataclass(frozen=True)
class Task:
    """One task of a dataset.

    name: as in tables, records and `dataset.tasks`.
    channels: how many numbers the head gives, per pixel (output="map") or per image ("vector").
    meters: the first metric of the first meter is the primary one.
    unflip: for test-time flipping: a prediction [B, C, H, W] made from the mirrored image and mirrored
        back is corrected by this (offsets negate dx); None where mirroring back is all.
    """

    name: str
    channels: int
    loss: Loss
    meters: Sequence[Meter]
    output: Literal["map", "vector"] = "map"
    unflip: Callable[[Tensor], Tensor] | None = None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return tuple(metric for meter in self.meters for metric in meter.metrics)
