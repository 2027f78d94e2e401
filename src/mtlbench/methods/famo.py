"""FAMO: fast adaptive multi-task optimisation (Liu et al., NeurIPS 2023)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlbench.weighting import Weighting, check_above, check_between

LEAST = 1e-8
"""Added to a loss above its bound before the logarithm, as in the authors' code."""


class FAMO(Weighting):
    """Weights under which the logarithms of all losses fall alike, learned from the losses before and after each step.

    M = (1/C) sum_t z_t log D_t,  z = softmax(xi),  D_t = L_t - b_t,  C = sum_t z_t / D_t held fixed
    xi <- xi - Adam( J_z' (log D_t before the step - log D_t after it) )   (Liu et al. 2023, Algorithm 1, Eqs. 9, 10)
    so the weight of the gradient of L_t is z_t / (C D_t). The loss after the step is of the same batch: one forward
    pass more.

    lr, weight_decay: of the logits' own Adam (the paper's alpha = 0.025 and gamma = 0.001; the authors' code adds the
        decay to the gradient, as here).
    min_losses: b, {task: lower bound}; null is 0 for each.

    Level: loss. Touches everything. Sum of weights: 1. Invariance to the losses' scales: of the direction, for b = 0.
    One task: its plain gradient (times z / (C D) = 1). A zero gradient changes nothing. A loss at or below its bound
    counts as 1e-8 above it, noted as "a loss at its lower bound". An absent task's logit stays, and z is of the present
    ones. Raises ValueError for lr <= 0, weight_decay < 0 or min_losses that are not of the run's tasks.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        lr: float = 0.025,
        weight_decay: float = 0.001,
        min_losses: Mapping[str, float] | None = None,
    ):
        super().__init__(tasks)
        check_above(FAMO, "lr", lr, 0)
        check_between(FAMO, "weight_decay", weight_decay, 0, math.inf)
        given = dict.fromkeys(self.tasks, 0.0) if min_losses is None else dict(min_losses)
        if set(given) != set(self.tasks):
            raise ValueError(
                f"min_losses names {', '.join(given)}; the tasks are {', '.join(self.tasks)}. Name each once."
            )
        self.bounds = torch.tensor([float(given[task]) for task in self.tasks], dtype=torch.float64)
        self.logits = nn.ParameterList(
            nn.Parameter(torch.zeros((), dtype=torch.float64), requires_grad=False) for _ in self.tasks
        )
        self.optimizer = torch.optim.Adam(list(self.logits), lr=lr, weight_decay=weight_decay)
        self.before: Tensor | None = None  # log D of the step whose losses after it are awaited

    def parameter_groups(self) -> list[dict[str, Any]]:
        """None: the logits have an optimizer of their own."""
        return []

    def transform(self, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        z = self._shares(tasks)
        distance = self._distance(losses, tasks)
        self.before = distance.detach().log()
        return z * distance.log() / (z / distance.detach()).sum()

    def after_step(self, losses: Tensor, tasks: Sequence[str]) -> None:
        assert self.before is not None
        change = self.before - self._distance(losses, tasks).log()
        z = self._shares(tasks)
        self.optimizer.zero_grad()
        for i, value in zip(self.positions(tasks), z * (change - z @ change), strict=True):
            self.logits[i].grad = value.clone()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.before = None

    def _shares(self, tasks: Sequence[str]) -> Tensor:
        return torch.stack([self.logits[i].data for i in self.positions(tasks)]).softmax(0)

    def _distance(self, losses: Tensor, tasks: Sequence[str]) -> Tensor:
        above = losses - self.bounds[self.positions(tasks)]
        if (above <= 0).any():
            self.note("a loss at its lower bound")
        return above.clamp(min=0) + LEAST

    def get_extra_state(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state)
