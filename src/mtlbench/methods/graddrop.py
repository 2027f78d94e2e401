"""GradDrop: gradient sign dropout (Chen et al., NeurIPS 2020)."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mtlbench.by_task import by_task
from mtlbench.weighting import Level, Weighting, check_between


class GradDrop(Weighting):
    """At each coordinate only gradients of one sign are kept; the purer a sign, the likelier it is drawn.

    P = 1/2 (1 + sum_t g_t / sum_t |g_t|)     at each coordinate (Chen et al. 2020, Eq. 1)
    g = sum_t (l_t + (1 - l_t) M_t) g_t       M_t = 1 where g_t > 0 and P > U, or g_t < 0 and P < U; else 0
    with U uniform on [0, 1), one number for each coordinate and all tasks (Algorithm 1, with f(P) = P).

    leak: l in [0, 1], one for all tasks or {task: leak}; 0 drops what is of the other sign, 1 is plain summation.

    Level: parameter (as public codes) or feature, element by element of z. The paper's Algorithm 1 at the features
    multiplies each gradient by the sign of z and sums over the batch before P is taken, so that a whole batch has one
    sign; it needs z itself, which no method of this protocol sees, and is not offered. Touches shared parameters. Sum
    of weights: T, as recorded: what is dropped differs by coordinate and is no weight of a task. Its expectation keeps
    a share P of the positive and 1 - P of the negative parts. Invariance to the losses' scales: none. One task: its
    plain gradient. A zero gradient has no sign and changes nothing, and so does a coordinate where all are zero.
    Raises ValueError for a leak outside [0, 1], or one that is not of the run's tasks.
    """

    levels: ClassVar[tuple[Level, ...]] = ("parameter", "feature")

    def __init__(self, tasks: Sequence[str], level: Level | None = None, leak: float | Mapping[str, float] = 0.0):
        super().__init__(tasks, level)
        given = by_task(GradDrop, "leak", leak, self.tasks)
        for value in given:
            check_between(GradDrop, "leak", value, 0, 1)
        self.leak = torch.tensor(given, dtype=torch.float64)

    def combine(self, weights: Tensor, jacobian: Tensor, tasks: Sequence[str], uniform: Callable[[], Tensor]) -> Tensor:
        gradients = weights.to(jacobian)[:, None] * jacobian
        # the purity by which the sign + is drawn; 0 / 0 where all gradients are zero: any sign
        purity = 0.5 * (1 + (gradients.sum(0) / gradients.abs().sum(0)).nan_to_num(0.0))
        # below 1 in this precision too: where all signs are + nothing may be dropped
        drawn = uniform().to(jacobian).clamp(max=1 - torch.finfo(jacobian.dtype).eps / 2)
        kept = (gradients > 0) == (purity > drawn)
        leak = self.leak[self.positions(tasks)].to(jacobian)[:, None]
        return ((leak + (1 - leak) * kept) * gradients).sum(0)
