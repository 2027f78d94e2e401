"""Options and losses by task name, as the loss balances read them."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from torch import Tensor

from mtlbench.weighting import Weighting

Value = TypeVar("Value")


def by_task(method: type[Weighting], key: str, given: Mapping[str, Value] | Value, tasks: Sequence[str]) -> list[Value]:
    """An option's value for each task, in their order, from {task: value} or one value for all.

    Raises ValueError with what exists for a name that is no task of the run, and for a task without a value.
    """
    if not isinstance(given, Mapping):
        return [given] * len(tasks)
    if set(given) != set(tasks):
        raise ValueError(
            f"{key} names {', '.join(map(str, given)) or 'no task'}; the tasks are {', '.join(tasks)}. Name each once "
            f"({method.__name__})."
        )
    return [given[task] for task in tasks]


def positive(method: Weighting, losses: Tensor, tasks: Sequence[str]) -> Tensor:
    """Which of the losses [T] are above 0 [T], and a note for each of the others."""
    above = losses.detach() > 0
    for task, good in zip(tasks, above.tolist(), strict=True):
        if not good:
            method.note(f"a loss that is not above 0: {task}")
    return above


def measured(losses: Mapping[str, float | None]) -> dict[str, float]:
    """An epoch's mean losses without those of tasks that had no label in it, or none that is finite."""
    return {task: float(loss) for task, loss in losses.items() if loss is not None and math.isfinite(loss)}
