"""FAMO: fast adaptive multitask optimization (Liu et al., NeurIPS 2023)."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlbench.by_task import by_task
from mtlbench.weighting import Weighting, check_above, check_between, check_option

LEAST = 1e-8
"""Added to a loss above its bound before the logarithm, as in the authors' code."""


class FAMO(Weighting):
    """Weights under which the logarithms of all losses fall alike, learned from the losses before and after each step.

    M_t = z_t log D_t / C,  z = softmax(xi),  D_t = L_t - b_t + 1e-8,  C = sum_t z_t / D_t held fixed
    xi <- xi - lr (d + weight_decay xi),  d = J_z' (log D before the step - log D after it)    J_z = dz/dxi
    (Liu et al. 2023, Algorithm 1), so the weight of L_t is z_t / (C D_t). The losses after the step are of the same
    batch: one forward pass more. xi starts at 0.

    lr, weight_decay: of the logits' own optimizer; the paper's beta = 0.025 and gamma = 0.001.
    optimizer: adam is the authors' code, sgd the update above. Their code also clips the shared gradient to the length
        1, which a run does to all gradients with clip_norm=1.
    min_losses: b, {task: lower bound of its loss}; null is 0 for each.

    Level: loss. Touches everything. Sum of weights: 1. Invariance to the losses' scales: of the direction, for b = 0
    and losses far above 1e-8: the shares w_t L_t have it. One task: its plain gradient. A zero gradient changes
    nothing. A loss at its bound counts as 1e-8 above it, so nearly all weight is its own, and so does one below, whose
    own weight is 0 there; both are noted as "a loss at or below its bound". z is of the tasks present; an absent task's
    logit stays. Losses after the step that are not finite move no logit.
    Raises ValueError for lr <= 0, weight_decay < 0, an unknown optimizer, and min_losses that are not finite or not of
    the run's tasks.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        lr: float = 0.025,
        weight_decay: float = 0.001,
        optimizer: str = "adam",
        min_losses: Mapping[str, float] | None = None,
    ):
        super().__init__(tasks)
        check_above(FAMO, "lr", lr, 0)
        check_between(FAMO, "weight_decay", weight_decay, 0, math.inf)
        check_option(FAMO, "optimizer", optimizer, ("adam", "sgd"))
        if min_losses is not None and not isinstance(min_losses, Mapping):
            example = ", ".join(f"{task}: 0" for task in self.tasks)
            raise ValueError(f"min_losses={min_losses}: FAMO expects one for each task, such as {{{example}}}.")
        bounds = by_task(FAMO, "min_losses", 0.0 if min_losses is None else min_losses, self.tasks)
        for task, bound in zip(self.tasks, bounds, strict=True):
            check_between(FAMO, f"min_losses.{task}", bound, -math.inf, math.inf)
        self.bounds = torch.tensor(bounds, dtype=torch.float64)
        # one tensor a task, so that the optimizer leaves an absent task's alone
        self.logits = nn.ParameterList(
            nn.Parameter(torch.zeros((), dtype=torch.float64), requires_grad=False) for _ in self.tasks
        )
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]
        self.optimizer = kind(list(self.logits), lr=lr, weight_decay=weight_decay, foreach=True)
        self.before: Tensor | None = None  # log D [T] of the step whose losses after it are awaited

    def parameter_groups(self) -> list[dict[str, Any]]:
        """None: the logits have an optimizer of their own."""
        return []

    def transform(self, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        if (losses.detach() <= self.bounds[self.positions(tasks)]).any():
            self.note("a loss at or below its bound")
        z, distance = self.shares(tasks), self._distance(losses, tasks)
        self.before = distance.detach().log()
        return z * distance.log() / (z / distance.detach()).sum()

    def after_step(self, losses: Tensor, tasks: Sequence[str]) -> None:
        if not len(tasks):  # a batch without any label: there was no step
            return
        assert self.before is not None, "after_step without a step"
        change, self.before = self.before - self._distance(losses, tasks).log(), None
        if not change.isfinite().all():
            return
        z = self.shares(tasks)
        slope = z * (change - z @ change)
        for i, value in zip(self.positions(tasks), slope, strict=True):
            self.logits[i].grad = value.clone()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def shares(self, tasks: Sequence[str]) -> Tensor:
        """z [T] of the tasks present."""
        return torch.stack([self.logits[i].data for i in self.positions(tasks)]).softmax(0)

    def _distance(self, losses: Tensor, tasks: Sequence[str]) -> Tensor:
        above = losses - self.bounds[self.positions(tasks)]
        return torch.where(above < 0, 0.0, above) + LEAST

    def get_extra_state(self) -> dict[str, Any]:
        return copy.deepcopy(self.optimizer.state_dict())

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(copy.deepcopy(state))
