"""GradNorm: gradient normalisation (Chen et al., ICML 2018)."""

import copy
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mtlbench.weighting import Level, Touches, Weighting, check_above, check_between, check_option

LEAST = 1e-6
"""No learned weight falls below it (ours): beyond 0, where |w_t g_t| grows again, a task would climb its loss."""


class GradNorm(Weighting):
    """Learned weights w_t under which the gradients w_t g_t have a common length, longer for tasks that learn slowly.

    L_grad = sum_t | w_t |g_t| - mean_s(w_s |g_s|) r_t^gamma |,  r_t = l_t / mean_s(l_s),  l_t = L_t / L_t(0)
    (Chen et al. 2018, Eqs. 1 and 2), the targets held fixed: dL_grad/dw_t = |g_t| sign(w_t |g_t| - target_t). As in
    their Algorithm 1 the network descends with w as it is; then w takes one step of its own optimizer and is scaled, so
    that its sum stays T. Means are over the tasks present in the batch; an absent task keeps its weight, and the
    present ones keep the sum that they had. All w_t start at 1.

    gamma: strength of the pull towards a common rate (alpha in the paper: 1.5 on NYUv2); 0: equal lengths alone (IMTL,
        Table 1, finds that best on Cityscapes).
    lr, optimizer: of the weights; 0.025 and adam are our choice.

    L_t(0) is the loss at the task's first step with a label (the paper also proposes log C for cross-entropy).
    Level: layer (the last shared layer, the paper's W), feature or parameter. Touches everything: the whole network
    descends sum_t w_t L_t. Sum of weights: T over all tasks of the run. Invariance to the losses' scales: of the
    direction at the balance where it comes to rest, not on the way there. One task: its plain gradient. A zero gradient
    has no slope: its weight moves by momentum and by the scaling alone, and it counts in the mean. A weight that would
    fall below 1e-6 is held there, noted as "a weight held at 1e-6". A first loss that is not above 0 gives no rate: l_t
    is 1, noted as "a first loss that is not above 0"; a later one below 0 has l_t = 0.
    Raises ValueError for gamma < 0, lr <= 0 or an unknown optimizer.
    """

    levels: ClassVar[tuple[Level, ...]] = ("layer", "feature", "parameter")
    touches: Touches = "everything"

    def __init__(
        self,
        tasks: Sequence[str],
        level: Level | None = None,
        gamma: float = 1.5,
        lr: float = 0.025,
        optimizer: str = "adam",
    ):
        super().__init__(tasks, level)
        check_between(GradNorm, "gamma", gamma, 0, math.inf)
        check_above(GradNorm, "lr", lr, 0)
        check_option(GradNorm, "optimizer", optimizer, ("adam", "sgd"))
        self.gamma = gamma
        # one tensor a task, so that the optimizer leaves an absent task's alone
        self.weight = nn.ParameterList(
            nn.Parameter(torch.ones((), dtype=torch.float64), requires_grad=False) for _ in self.tasks
        )
        self.register_buffer("first", torch.full((len(self.tasks),), math.nan, dtype=torch.float64))
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
        self.optimizer = kind(list(self.weight), lr=lr, foreach=True)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """None: the weights have an optimizer of their own."""
        return []

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        at = self.positions(tasks)
        self.first[at] = torch.where(self.first[at].isnan(), losses, self.first[at])
        present = [self.weight[i] for i in at]
        weights = torch.stack([w.data for w in present])
        lengths = gramian.diagonal().sqrt()
        scaled = weights * lengths
        slope = lengths * (scaled - scaled.mean() * self.rates(losses, at) ** self.gamma).sign()
        for w, value in zip(present, slope.clone().unbind(), strict=True):
            w.grad = value
        self.optimizer.step()
        self.optimizer.zero_grad()
        moved = torch.stack([w.data for w in present])
        if (moved < LEAST).any():
            self.note("a weight held at 1e-6")
            moved = moved.clamp(min=LEAST)
        torch._foreach_copy_([w.data for w in present], list(moved * (weights.sum() / moved.sum())))
        return weights

    def rates(self, losses: Tensor, at: Sequence[int]) -> Tensor:
        """r_t [T]: how slowly the present tasks learn, beside their mean."""
        first = self.first[at]
        known = first > 0
        if not known.all():
            self.note("a first loss that is not above 0")
        left = torch.where(known, losses.clamp(min=0) / first, 1.0)
        mean = left.mean()
        return left / mean if mean > 0 else torch.ones_like(left)

    def get_extra_state(self) -> dict[str, Any]:
        return copy.deepcopy(self.optimizer.state_dict())

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(copy.deepcopy(state))
