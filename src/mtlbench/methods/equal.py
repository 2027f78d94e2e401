"""Equal weighting."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlbench.weighting import Weighting, check_option


class Equal(Weighting):
    """Uniform scaling: sum_t L_t, every weight 1; with `reduction=mean` (1/T) sum_t L_t, every weight 1/T.

    T counts the tasks present in the batch. Level: loss. Touches everything. Sum of weights: T (sum) or 1 (mean):
    for SGD the same but for the learning rate. Invariance to the losses' scales: none. One task: its plain
    gradient, so single-task training is this method with one task. A zero gradient changes nothing.
    """

    def __init__(self, tasks: Sequence[str], reduction: str = "sum"):
        super().__init__(tasks)
        check_option(Equal, "reduction", reduction, ("sum", "mean"))
        self.reduction = reduction

    def transform(self, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        return losses / len(losses) if self.reduction == "mean" else losses
