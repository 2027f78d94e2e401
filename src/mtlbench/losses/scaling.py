"""Losses times a constant."""

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from mtlbench.task import Loss, Task


class Scaled(Loss):
    """Another loss times a constant, before any method sees it (IMTL's test of robustness: 10 x segmentation)."""

    def __init__(self, loss: Loss, factor: float):
        if not factor > 0:
            raise ValueError(f"The factor of a loss must be above 0, not {factor}.")
        self.loss, self.factor = loss, factor

    def counts(self, target: Tensor) -> Tensor:
        return self.loss.counts(target)

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        return self.factor * self.loss(prediction, target, counts)


def scaled(tasks: Mapping[str, Task], factors: Mapping[str, float]) -> dict[str, Task]:
    """The tasks, the losses of those named in `factors` multiplied by a number above 0; metrics are what they were.

    Raises ValueError for a task that is not there and for a factor that is no finite number above 0.
    """
    for name, factor in factors.items():
        if name not in tasks:
            raise ValueError(
                f"loss_scale.{name}={factor}: there is no such task in this run. There are: {', '.join(tasks)}."
            )
        number = isinstance(factor, int | float) and not isinstance(factor, bool)
        if not number or not 0 < factor < math.inf:
            raise ValueError(f"loss_scale.{name}={factor}: expected a number above 0, which multiplies the loss.")
    return {n: replace(task, loss=Scaled(task.loss, factors[n])) if n in factors else task for n, task in tasks.items()}
