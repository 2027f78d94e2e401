"""GradDrop: gradient sign dropout (Chen et al., NeurIPS 2020)."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mtlbench.weighting import Level, Weighting, check_between


class GradDrop(Weighting):
    """At each coordinate only the gradients of one sign are kept, a sign drawn by how pure it is.

    P = 1/2 (1 + sum_t g_t / sum_t |g_t|), coordinate by coordinate (Chen et al. 2020, Eq. 1); with U uniform on [0, 1)
    the positive parts are kept where P > U and the negative ones where P < U: g = sum_t (l_t + (1 - l_t) M_t) g_t
    (Algorithm 1, with f(P) = P).

    leak: l in [0, 1], of all tasks or {task: leak}: 0 drops all of the other sign, 1 is plain summation.

    Level: parameter (as public codes do) or feature, coordinate by coordinate of z. The paper's own form at the
    features multiplies by the sign of the activation and sums over the batch before P is taken: it needs z itself,
    which no method of this protocol sees, and is not offered. Touches shared parameters. Sum of weights: T as recorded
    (each gradient counts once before the draw). Invariance to the losses' scales: none. One task: its plain gradient.
    A zero gradient has no sign and changes nothing. Raises ValueError for a leak outside [0, 1] or one that is not of
    the run's tasks.
    """

    levels: ClassVar[tuple[Level, ...]] = ("parameter", "feature")

    def __init__(self, tasks: Sequence[str], level: Level | None = None, leak: float | Mapping[str, float] = 0.0):
        super().__init__(tasks, level)
        given = dict(leak) if isinstance(leak, Mapping) else dict.fromkeys(self.tasks, leak)
        if set(given) != set(self.tasks):
            raise ValueError(f"leak names {', '.join(given)}; the tasks are {', '.join(self.tasks)}. Name each once.")
        for value in given.values():
            check_between(GradDrop, "leak", value, 0, 1)
        self.leak = torch.tensor([float(given[task]) for task in self.tasks], dtype=torch.float64)

    def combine(self, weights: Tensor, jacobian: Tensor, tasks: Sequence[str], uniform: Callable[[], Tensor]) -> Tensor:
        gradients = weights.to(jacobian)[:, None] * jacobian
        size = gradients.abs().sum(0)
        purity = 0.5 * (1 + gradients.sum(0) / torch.where(size > 0, size, torch.ones_like(size)))
        drawn = uniform().to(jacobian)
        kept = torch.where(gradients > 0, purity > drawn, purity < drawn)
        leak = self.leak[self.positions(tasks)].to(jacobian)[:, None]
        return ((leak + (1 - leak) * kept) * gradients).sum(0)
