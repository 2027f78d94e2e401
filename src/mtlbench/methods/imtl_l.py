"""IMTL-L: the loss balance of impartial multi-task learning (Liu et al., ICLR 2021)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlbench.by_task import positive
from mtlbench.weighting import Weighting, check_above


class IMTLL(Weighting):
    """M_t = b a^{s_t} L_t - s_t with a learned scale s_t for each task (Liu et al. 2021, Algorithm 1, line 5).

    With the default a = e, b = 1 it is e^s L - s (Eq. 6). The gradient of s is b ln(a) a^s L - 1, so s comes to
    rest where the scaled losses b a^s L are 1 / ln(a), alike for all tasks. Losses must be positive (Section
    3.2): for one of 0, s grows by the learning rate at every step, for one below 0 ever faster; both are noted.

    s starts at 0 (our choice; the paper does not say) and is learned by the run's optimizer, without weight
    decay. Level: loss. Touches everything. Sum of weights: sum_t b a^{s_t}, at the start b T. Invariance to
    the losses' scales: where s is at rest, not on the way there. One task: b a^s times its gradient. A zero gradient
    changes nothing. Raises ValueError unless a > 1 and b > 0 (Eq. 19).
    """

    def __init__(self, tasks: Sequence[str], a: float = math.e, b: float = 1.0):
        super().__init__(tasks)
        check_above(IMTLL, "a", a, 1)
        check_above(IMTLL, "b", b, 0)
        self.a, self.b = a, b
        # one tensor a task, so that the optimizer leaves an absent task's alone
        self.scale = nn.ParameterList(nn.Parameter(torch.zeros((), dtype=torch.float64)) for _ in self.tasks)

    def transform(self, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        positive(self, losses, tasks)
        s = torch.stack([self.scale[i] for i in self.positions(tasks)])
        return self.b * self.a**s * losses - s
