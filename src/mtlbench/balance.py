"""From losses and Gramian to the numbers that scale the gradients: what the step asks of a method."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtlbench.weighting import Weighting, overrides


@dataclass(frozen=True)
class Balance:
    """What one batch's gradients are multiplied by. All [T], float64 on the CPU.

    chosen: w = weights(M, C G C'), of the transformed gradients. shared: u = C' w, of the raw shared gradients.
    own: of each task's own parameters: c = C' 1, or u where the method touches everything. slope [T, T]: C = dM/dL.
    """

    chosen: Tensor
    shared: Tensor
    own: Tensor
    slope: Tensor


def balance(
    method: Weighting, losses: Tensor, gramian: Tensor | None, tasks: Sequence[str], rng: torch.Generator | None
) -> Balance:
    """What the method makes of losses L [T] and the Gramian [T, T] of the raw gradients (None at level "loss").

    Leaves in the method's own parameters the gradient of sum(M).
    """
    transformed, total, slope = _transform(method, losses, tasks, rng, whole=gramian is not None)
    if gramian is None:
        total = _rescaled(method, total)
        return Balance(torch.ones_like(losses), total, total, slope)
    for task, square in zip(tasks, gramian.diagonal().tolist(), strict=True):
        if square == 0:
            method.note(f"a zero gradient: {task}")
    balanced = slope @ gramian @ slope.T
    if bool(transformed.isfinite().all() and balanced.isfinite().all()):
        chosen = method.weights(transformed, balanced, tasks, rng).detach()
    else:
        chosen = losses * math.nan  # a solver cannot say more; it is reported as the method's problem
    raw = slope.T @ chosen
    weights = _rescaled(method, raw)
    if method.scale_rule == "sum_T" and weights is not raw:
        chosen = chosen * (len(raw) / raw.sum())
    return Balance(chosen, weights, weights if method.touches == "everything" else _rescaled(method, total), slope)


def _rescaled(method: Weighting, weights: Tensor) -> Tensor:
    """The weights, or with scale_rule sum_T those of the same proportions whose sum is T."""
    if method.scale_rule == "paper":
        return weights
    total = weights.sum()
    if not total > 0:
        method.note("weights of a sum that is not positive are not rescaled")
        return weights
    return weights * (len(weights) / total)


def _transform(
    method: Weighting, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None, whole: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """M [T], c = C' 1 [T] and, if the whole is asked for, C = dM/dL [T, T].

    The gradients of the method's own parameters are the same on all ranks, because the losses are global, so nothing
    is summed here.
    """
    none = losses.new_zeros(len(losses), len(losses))
    if not overrides(method, "transform"):
        return losses, torch.ones_like(losses), torch.eye(len(losses)).to(losses)
    leaf = losses.clone().requires_grad_()
    with torch.enable_grad():
        transformed = method.transform(leaf, tasks, rng)
    if not transformed.requires_grad:
        return transformed, torch.zeros_like(losses), none
    parameters = [p for p in method.parameters() if p.requires_grad]
    total, *gradients = torch.autograd.grad(
        transformed.sum(), [leaf, *parameters], retain_graph=True, allow_unused=True
    )
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    if total is None:  # M does not depend on L
        return transformed.detach(), torch.zeros_like(losses), none
    if not whole:
        return transformed.detach(), total, none
    (slope,) = torch.autograd.grad(
        transformed, leaf, torch.eye(len(losses)).to(losses), is_grads_batched=True, materialize_grads=True
    )
    return transformed.detach(), total, slope


def problem_of_tasks(tasks: Sequence[str], losses: Tensor, gramian: Tensor | None) -> str | None:
    """Which loss or gradient is not finite, or None."""
    for name, loss in zip(tasks, losses.tolist(), strict=True):
        if not math.isfinite(loss):
            return f"the loss of {name} is {loss}"
    if gramian is not None:
        for name, square in zip(tasks, gramian.diagonal().tolist(), strict=True):
            if not math.isfinite(square):
                return f"the gradient of {name} is not finite"
    return None


def problem_of_method(method: Weighting, tasks: Sequence[str], found: Balance) -> str | None:
    """Which weight is not finite, or None."""
    for vector in (found.chosen, found.shared, found.own):
        for name, weight in zip(tasks, vector.tolist(), strict=True):
            if not math.isfinite(weight):
                return f"{type(method).__name__} gives {name} the weight {weight}"
    if any(p.grad is not None and not p.grad.isfinite().all() for p in method.parameters()):
        return f"the gradient of what {type(method).__name__} learns is not finite"
    return None
