"""DWA: dynamic weight average (Liu, Johns and Davison, CVPR 2019)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mtlbench.by_task import measured
from mtlbench.weighting import Indicator, Weighting, check_above


class DWA(Weighting):
    """A task whose loss falls more slowly than the others' gets more weight.

    w_t = T exp(r_t / temperature) / sum_j exp(r_j / temperature)
    r_t = L_t(e - 1) / L_t(e - 2)          (Liu et al. 2019; Vandenhende et al. 2021, Eq. 8)

    L_t(e) is the mean training loss of epoch e, T counts the tasks present. r is 1 in the first two epochs, as in the
    paper, and for each task until it has two epochs with a label; an epoch without one is passed over.

    temperature: 2 in the paper; the larger, the more alike the weights.

    The ratio of epoch losses that are not above 0, or that is not finite, says nothing: r is 1 then, noted in each
    step. Level: loss. Touches everything. Sum of weights: T. Invariance to the losses' scales: of the weights, not
    of the result. One task: its plain gradient. A zero gradient changes nothing.
    Raises ValueError unless temperature > 0.
    """

    def __init__(self, tasks: Sequence[str], temperature: float = 2.0):
        super().__init__(tasks)
        check_above(DWA, "temperature", temperature, 0)
        self.temperature = temperature
        self.history: dict[str, list[float]] = {}  # {task: mean losses of its last epochs, two at most}

    def transform(self, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        ratios = losses.new_tensor([self._ratio(task) for task in tasks])
        return losses * len(losses) * (ratios / self.temperature).softmax(0)

    def _ratio(self, task: str) -> float:
        history = self.history.get(task, [])
        if len(history) < 2:
            return 1.0
        before, last = history
        # so small a divisor, or so large a quotient, would overflow
        if before > 0 and last > 0 and last / self.temperature < 1e300 * min(before, 1.0):
            return last / before
        self.note(f"epoch losses without a ratio: {task}")
        return 1.0

    def after_epoch(self, losses: dict[str, float], indicators: dict[str, Indicator]) -> None:
        for task, loss in measured(losses).items():
            self.history[task] = [*self.history.get(task, []), loss][-2:]

    def get_extra_state(self) -> dict[str, Any]:
        return {"history": {task: list(losses) for task, losses in self.history.items()}}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.history = {task: list(losses) for task, losses in state["history"].items()}
