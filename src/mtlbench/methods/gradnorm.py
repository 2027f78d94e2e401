"""GradNorm: gradient normalisation (Chen et al., ICML 2018)."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mtlbench.weighting import Level, Touches, Weighting, check_above, check_between, check_option

LEAST = 1e-6
"""A learned weight does not fall below it: at 0 its gradient would vanish or turn."""


class GradNorm(Weighting):
    """Learned weights w_t under which the tasks' gradients |w_t g_t| have a common length, longer for slow tasks.

    L_grad = sum_t | w_t |g_t| - mean_s(w_s |g_s|) r_t^gamma |,  r_t = (L_t / L_t(0)) / mean_s(L_s / L_s(0))
    (Chen et al. 2018, Eqs. 1 and 2), the targets held fixed. As in Algorithm 1 this step descends with w as it is;
    then w takes a step of its own optimizer and is scaled to sum T.

    gamma: strength of the pull towards a common rate (the paper's alpha, 1.5 on NYUv2); 0: equal lengths alone (IMTL,
        Table 1, finds that best on Cityscapes).
    lr, optimizer: of the weights (the paper: 0.025 and the network's kind of optimizer; adam is our default).
    L_t(0): the loss at the task's first step (the paper; log C for cross-entropy is its other proposal).

    Level: layer (the last shared layer, the paper's W), feature or parameter. Touches everything: the heads' losses
    are weighted too. Sum of weights: T; an absent task keeps its weight, and the others together theirs. Invariance
    to the losses' scales: of the balance that it comes to rest at, not on the way there. One task: its plain gradient.
    A zero gradient has the length 0: its weight grows by about the learning rate a step. Losses of 0 at the first step
    leave the task's rate at 1, noted as "a first loss of zero". Raises ValueError for gamma < 0, lr <= 0 or an unknown
    optimizer.
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
        self.weight = nn.ParameterList(
            nn.Parameter(torch.ones((), dtype=torch.float64), requires_grad=False) for _ in self.tasks
        )
        self.register_buffer("first", torch.full((len(self.tasks),), math.nan, dtype=torch.float64))
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
        self.optimizer = kind(list(self.weight), lr=lr)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """None: the weights have an optimizer of their own."""
        return []

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        at = self.positions(tasks)
        new = self.first[at].isnan()
        self.first[at] = torch.where(new, losses, self.first[at])
        weights = torch.stack([self.weight[i].data for i in at])
        lengths = gramian.diagonal().sqrt()
        slope = lengths * (weights * lengths - self._targets(losses, weights * lengths, at)).sign()
        self.optimizer.zero_grad()
        for i, value in zip(at, slope, strict=True):
            self.weight[i].grad = value.clone()
        self.optimizer.step()
        self.optimizer.zero_grad()
        moved = torch.stack([self.weight[i].data for i in at]).clamp(min=LEAST)
        for i, value in zip(at, moved * (weights.sum() / moved.sum()), strict=True):
            self.weight[i].data.copy_(value)
        return weights

    def _targets(self, losses: Tensor, scaled: Tensor, at: list[int]) -> Tensor:
        rates = losses / self.first[at]
        if not (self.first[at] != 0).all():
            self.note("a first loss of zero")
            rates = torch.where(self.first[at] == 0, torch.ones_like(rates), rates)
        mean = rates.mean()
        relative = rates / mean if mean > 0 else torch.ones_like(rates)
        return scaled.mean() * relative.clamp(min=0) ** self.gamma

    def get_extra_state(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)
