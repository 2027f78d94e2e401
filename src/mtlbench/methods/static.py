"""Fixed weights: linear scalarisation."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtlbench.by_task import by_task
from mtlbench.weighting import Weighting, check_between


class Static(Weighting):
    """M_t = w_t L_t with weights that stay what they are (Vandenhende et al. 2021, Eq. 4; LSB Eq. 2).

    What a grid search sweeps; Xin et al. (NeurIPS 2022) and Kurin et al. (NeurIPS 2022) find it hard to beat.

    weights: {task: weight}, each task once, 0 or more, or null: 1 each, which is `equal`. A weight of 0 leaves the task
        out of training.

    Level: loss. Touches everything. Sum of weights: that of the given ones of the tasks present, without any T.
    Invariance to the losses' scales: none. One task: its weight times its gradient; without weights (null) its plain
    gradient. A zero gradient changes nothing.
    Raises ValueError for a name that is no task of the run, a task without a weight, a weight below 0, and where
    none is above 0.
    """

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float] | None = None):
        super().__init__(tasks)
        if weights is not None and not isinstance(weights, Mapping):
            example = ", ".join(f"{task}: 1" for task in self.tasks)
            raise ValueError(f"weights={weights}: Static expects one for each task, such as weights={{{example}}}.")
        self.given = by_task(Static, "weights", 1.0 if weights is None else weights, self.tasks)
        for task, weight in zip(self.tasks, self.given, strict=True):
            check_between(Static, f"weights.{task}", weight, 0, float("inf"))
        if not any(self.given):
            raise ValueError(f"weights: those of {', '.join(self.tasks)} are all 0; Static expects one above 0.")

    def transform(self, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        return losses * losses.new_tensor([self.given[i] for i in self.positions(tasks)])
