"""A loss balance followed by a gradient balance."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mtlbench.weighting import Indicator, Level, Weighting, overrides


class Hybrid(Weighting):
    """The `transform` of one method and the `weights` of another, which sees the transformed losses and gradients.

    The loss balance scales everything and learns its parameters from the sum of the transformed losses; the
    gradient balance then scales what it touches. With C = dM/dL and w = weights(M, C G C'), shared parameters
    get sum_t u_t g_t, u = C' w.

    Level: feature, layer or parameter, as the gradient balance. Touches everything with the loss balance, and on top of
    it what the gradient balance touches: shared parameters or everything. Sum of weights: that of the gradient
    balance for w; what multiplies a raw shared gradient is u_t. Invariance to the losses' scales: what the loss balance
    makes alike stays alike, and the gradient balance's own. One task: the loss balance's multiple times the gradient
    balance's. A zero gradient is what the gradient balance makes of it.
    Raises ValueError for a gradient balance as `loss` or a loss balance as `gradient`.
    """

    levels: tuple[Level, ...] = ("feature", "layer", "parameter")  # then those of the gradient balance

    def __init__(self, tasks: Sequence[str], loss: Weighting, gradient: Weighting):
        if overrides(loss, "weights") or overrides(loss, "combine"):
            raise ValueError(
                f"method.loss: {type(loss).__name__} balances gradients, so it comes second. Type "
                f"method@method.gradient=<it> and method@method.loss=equal or another loss balance."
            )
        if overrides(gradient, "transform"):
            raise ValueError(
                f"method.gradient: {type(gradient).__name__} balances losses, so it comes first or alone. Type "
                f"method@method.loss=<it> and method@method.gradient=mgda or another gradient balance; or method=<it>."
            )
        if gradient.level != "loss":
            self.levels = gradient.levels
        super().__init__(tasks, gradient.level)
        self.loss, self.gradient = loss, gradient
        self.touches = gradient.touches

    def parts(self, name: str) -> tuple[Weighting, ...]:
        if name == "transform":
            return (self.loss,)
        return (self.gradient,) if name in ("weights", "combine") else (self.loss, self.gradient)

    def transform(self, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        return self.loss.transform(losses, tasks, rng)

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        return self.gradient.weights(losses, gramian, tasks, rng)

    def combine(self, weights: Tensor, jacobian: Tensor, tasks: Sequence[str], uniform: Callable[[], Tensor]) -> Tensor:
        return self.gradient.combine(weights, jacobian, tasks, uniform)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [*self.loss.parameter_groups(), *self.gradient.parameter_groups()]

    def after_step(self, losses: Tensor, tasks: Sequence[str]) -> None:
        self.loss.after_step(losses, tasks)
        self.gradient.after_step(losses, tasks)

    def after_epoch(self, losses: dict[str, float], indicators: dict[str, Indicator]) -> None:
        self.loss.after_epoch(losses, indicators)
        self.gradient.after_epoch(losses, indicators)
