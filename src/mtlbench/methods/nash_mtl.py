"""Nash-MTL: multi-task learning as a bargaining game (Navon et al., ICML 2022)."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mtlbench.methods.fairgrad import fair_weights
from mtlbench.weighting import Level, Weighting, check_above, check_option


class NashMTL(Weighting):
    """The Nash bargaining solution of the tasks: G alpha = 1 / alpha, alpha > 0 (Navon et al. 2022, Claim 3.1, Eq. 3).

    Solved to rounding by Newton's method on alpha' G alpha / 2 - sum log alpha, whose gradient the equation is. The
    authors' code approaches it by up to 20 convex programmes, stops early, and keeps the last weights where the solver
    fails; its other settings are options:

    normalize: none (the paper), or frobenius: G is divided by its Frobenius norm first.
    update_weights_every: steps between solutions; the weights stay in between, while the same tasks are present (the
        paper's speed-up, Section 5; the authors' code has 1).
    max_norm: the result's length is clipped to it (1.0 in the authors' code; the paper says nothing); null: it is
        sqrt(T), whatever the losses.

    Level: parameter (the paper) or feature. Touches shared parameters. Sum of weights: sum 1 / (g_t g'), large for
    small gradients. Invariance to the losses' scales: the result is invariant (not with frobenius). One task:
    1 / |g| times its gradient. A zero gradient has no part in the game: weight 0, the others as if alone. Where a
    convex combination of unit gradients is zero (opposite gradients, stationary points) there is no solution: the zero
    step, noted as "no bargaining solution".
    Raises ValueError for an unknown option, update_weights_every < 1 or max_norm <= 0.
    """

    levels: ClassVar[tuple[Level, ...]] = ("parameter", "feature")

    def __init__(
        self,
        tasks: Sequence[str],
        level: Level | None = None,
        normalize: str = "none",
        update_weights_every: int = 1,
        max_norm: float | None = None,
    ):
        super().__init__(tasks, level)
        check_option(NashMTL, "normalize", normalize, ("none", "frobenius"))
        check_above(NashMTL, "update_weights_every", update_weights_every, 0)
        if max_norm is not None:
            check_above(NashMTL, "max_norm", max_norm, 0)
        self.normalize, self.every, self.max_norm = normalize, math.ceil(update_weights_every), max_norm
        self.register_buffer("last", torch.full((len(self.tasks),), math.nan, dtype=torch.float64))
        self.register_buffer("age", torch.zeros((), dtype=torch.int64))

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        at = self.positions(tasks)
        same = (~self.last.isnan()).nonzero().flatten().tolist() == sorted(at)
        if self.age % self.every == 0 or not same:
            factor = gramian.norm() if self.normalize == "frobenius" and gramian.norm() > 0 else gramian.new_ones(())
            found = fair_weights(gramian / factor, 1.0)
            if found is None:
                self.note("no bargaining solution")
            self.last.fill_(math.nan)
            self.last[at] = torch.zeros_like(losses) if found is None else torch.from_numpy(found)
            self.age.zero_()
        self.age += 1
        alpha = self.last[at].clone()
        length = (alpha @ gramian @ alpha).clamp(min=0).sqrt().item()
        return alpha * (self.max_norm / length) if self.max_norm is not None and length > self.max_norm else alpha
