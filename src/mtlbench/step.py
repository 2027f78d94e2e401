"""One batch to gradients: the only place that differentiates.

The features are handed to each head as that head's own detached leaf. One backward pass of the summed
losses goes through every head once and leaves, at no extra cost, the heads' parameter gradients and all T
gradients dL_t/dz in the leaves. The Gramian is T x T; one backward pass through the backbone with their
weighted sum finishes. So a feature-level method costs what adding the losses costs; the parameter level
needs T passes of the backbone instead of one.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtlbench.parallel import Ranks
from mtlbench.task import Task
from mtlbench.weighting import Weighting, check_level, overrides


@dataclass(frozen=True)
class StepResult:
    """What one step found. Tensors are float64 on the CPU, of the T tasks present in the global batch.

    losses [T]: raw, of the global batch. weights [T]: what multiplied the shared gradients in the end
    (u = C' w). gramian [T, T]: inner products of the raw task gradients, None at level "loss".
    terms: {task: valid terms in the global batch}. gradient_norm: of all model gradients together.
    problem: why no update may follow (a non-finite loss or gradient, with the task's name), or None.
    """

    tasks: tuple[str, ...]
    losses: Tensor
    weights: Tensor
    gramian: Tensor | None
    terms: dict[str, float]
    gradient_norm: float
    problem: str | None


def step(
    model: nn.Module,
    tasks: Mapping[str, Task],
    method: Weighting,
    image: Tensor,
    targets: Mapping[str, Tensor],
    *,
    rng: torch.Generator | None = None,
    ranks: Ranks | None = None,
    autocast: torch.dtype | None = None,
) -> StepResult:
    """Leaves in `.grad` of the model and of the method the gradients of one batch, summed over ranks.

    image [B, C, H, W] and targets {task: [B, ...]} are this rank's part of the global batch. A task without
    a label in the whole batch is absent: its head gets no gradient and the method does not see it.
    With L the global losses, M = transform(L), C = dM/dL and w = weights(M, C G C'): shared parameters get
    sum_t u_t g_t with u = C' w; the parameters of task t alone are scaled by c_t = (C' 1)_t, or by u_t where
    the method touches everything.
    Raises ValueError where the method looks at features and the model has no shared representation.
    """
    ranks = ranks or Ranks()
    check_level(method, model)
    model.zero_grad(set_to_none=True)
    method.zero_grad(set_to_none=True)

    counts = _global_counts(tasks, targets, ranks)
    terms = {name: count[0].item() for name, count in counts.items()}
    present = tuple(name for name in tasks if terms[name] > 0)
    if not present:
        empty = torch.zeros(0, dtype=torch.float64)
        return StepResult((), empty, empty, None, terms, 0.0, None)

    own = {name: [p for p in model.task_parameters(name) if p.requires_grad] for name in present}
    shared = model.shared_parameters()
    cast = torch.autocast(image.device.type, autocast) if autocast else nullcontext()
    with cast:
        features = model.encode(image)
        split = method.level != "loss" and model.shared_representation
        leaves = [tuple(f.detach().requires_grad_() for f in features) if split else features for _ in present]
        size = tuple(image.shape[-2:])
        predictions = [model.decode(name, leaf, size) for name, leaf in zip(present, leaves, strict=True)]
    local = [
        tasks[name].loss(_at_least_float32(prediction), targets[name], counts[name])
        for name, prediction in zip(present, predictions, strict=True)
    ]
    del predictions

    if method.level == "loss":
        losses = _to_host(ranks.sum(torch.stack([loss.detach().double() for loss in local])))
        _, slope = _transform(method, losses, present, rng)
        weights = slope.sum(0)
        with ranks.summing([*shared, *(p for name in present for p in own[name])]):
            sum(w * loss for w, loss in zip(weights.tolist(), local, strict=True)).backward()
        gramian = None
    else:
        at_z = method.level == "feature"
        if split:
            rows = _rows_at_features(local, leaves, [p for name in present for p in own[name]], ranks)
            if not at_z:
                rows = [_through_backbone(features, rows, shared)]
        else:
            rows = [_from_losses(local, shared, own, present, ranks)]
        if not at_z:
            ranks.sum(rows[0])
        losses, gramian = _losses_and_gramian(local, rows, ranks, sum_gramian=at_z)
        transformed, slope = _transform(method, losses, present, rng)
        balanced = slope @ gramian @ slope.T
        if bool(balanced.isfinite().all()):
            chosen = method.weights(transformed, balanced, present, rng).detach()
        else:
            chosen = torch.ones_like(losses)  # no update will follow: see `problem`
        weights = slope.T @ chosen
        combined = _combine(method, chosen, weights, slope, rows, present, rng)
        if at_z:
            with ranks.summing(shared):
                reached = [(f, g.view_as(f)) for f, g in zip(features, combined, strict=True) if f.requires_grad]
                torch.autograd.backward([f for f, _ in reached], [g for _, g in reached])
        else:
            _scatter(combined[0], shared)
        scales = (weights if method.touches == "everything" else slope.sum(0)).tolist()
        for name, scale in zip(present, scales, strict=True):
            gradients = [p.grad for p in own[name] if p.grad is not None]
            if scale != 1.0 and gradients:
                torch._foreach_mul_(gradients, scale)

    norm = _gradient_norm(model)
    return StepResult(present, losses, weights, gramian, terms, norm, _problem(present, losses, gramian, norm))


@torch.no_grad()
def losses_after(
    model: nn.Module,
    tasks: Mapping[str, Task],
    image: Tensor,
    targets: Mapping[str, Tensor],
    present: Sequence[str],
    *,
    ranks: Ranks | None = None,
    autocast: torch.dtype | None = None,
) -> Tensor:
    """The global losses [T] of the present tasks at the model as it is now, in float64 on the CPU.

    One more forward pass in the mode the model is in; buffers (batch statistics) stay what they were.
    """
    ranks = ranks or Ranks()
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    counts = _global_counts(tasks, targets, ranks)
    with torch.autocast(image.device.type, autocast) if autocast else nullcontext():
        predictions = model(image, present)
    local = [tasks[name].loss(_at_least_float32(predictions[name]), targets[name], counts[name]) for name in present]
    for buffer, before in buffers:
        buffer.copy_(before)
    return _to_host(ranks.sum(torch.stack([loss.double() for loss in local])))


def _global_counts(tasks: Mapping[str, Task], targets: Mapping[str, Tensor], ranks: Ranks) -> dict[str, Tensor]:
    counts = [task.loss.counts(targets[name]) for name, task in tasks.items()]
    total = ranks.sum(torch.cat(counts))
    return dict(zip(tasks, total.split([len(count) for count in counts]), strict=True))


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _to_host(x: Tensor) -> Tensor:
    return x.double().cpu()


def _transform(
    method: Weighting, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """M [T] and C = dM/dL [T, T]; leaves in the method's own parameters the gradient of sum(M).

    The same on all ranks, because the losses are global: nothing is summed here.
    """
    if not overrides(method, "transform"):
        return losses, torch.eye(len(losses), dtype=losses.dtype)
    leaf = losses.clone().requires_grad_()
    with torch.enable_grad():
        transformed = method.transform(leaf, tasks, rng)
    if not transformed.requires_grad:
        return transformed, torch.zeros(len(losses), len(losses), dtype=losses.dtype)
    parameters = [p for p in method.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(transformed.sum(), parameters, retain_graph=True, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    slope = [
        torch.autograd.grad(m, leaf, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
        for m in transformed
    ]
    return transformed.detach(), torch.stack(slope)


def _rows_at_features(
    local: list[Tensor], leaves: list[tuple[Tensor, ...]], heads: list[nn.Parameter], ranks: Ranks
) -> list[Tensor]:
    """One backward pass of all heads: their gradients in `.grad`, and dL_t/dz as rows [T, N] per tensor of z."""
    with ranks.summing(heads):
        torch.stack(local).sum().backward()
    rows = []
    for tensors in zip(*leaves, strict=True):
        gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in tensors]
        rows.append(torch.stack([gradient.flatten() for gradient in gradients]))
        for leaf in tensors:
            leaf.grad = None
    return rows


def _through_backbone(features: tuple[Tensor, ...], rows: list[Tensor], shared: list[nn.Parameter]) -> Tensor:
    """The Jacobian [T, P] of the shared parameters: one pass of the backbone for each task."""
    reached = [(feature, row) for feature, row in zip(features, rows, strict=True) if feature.requires_grad]
    count = len(rows[0])
    jacobian = _empty_jacobian(count, shared)
    for t in range(count):
        gradients = torch.autograd.grad(
            [feature for feature, _ in reached],
            shared,
            [row[t].view_as(feature) for feature, row in reached],
            retain_graph=t + 1 < count,
            allow_unused=True,
        )
        _gather(gradients, shared, jacobian[t])
    return jacobian


def _from_losses(
    local: list[Tensor],
    shared: list[nn.Parameter],
    own: Mapping[str, list[nn.Parameter]],
    present: Sequence[str],
    ranks: Ranks,
) -> Tensor:
    """The Jacobian [T, P] where no representation is shared: one pass of the whole network for each task."""
    jacobian = _empty_jacobian(len(local), shared)
    for t, (name, loss) in enumerate(zip(present, local, strict=True)):
        gradients = torch.autograd.grad(loss, [*shared, *own[name]], retain_graph=t + 1 < len(local), allow_unused=True)
        _gather(gradients[: len(shared)], shared, jacobian[t])
        with ranks.summing(own[name]):
            for parameter, gradient in zip(own[name], gradients[len(shared) :], strict=True):
                parameter.grad = gradient
    return jacobian


def _empty_jacobian(tasks: int, shared: list[nn.Parameter]) -> Tensor:
    return shared[0].new_zeros(tasks, sum(p.numel() for p in shared))


def _gather(gradients: Sequence[Tensor | None], parameters: list[nn.Parameter], row: Tensor) -> None:
    for gradient, part in zip(gradients, row.split([p.numel() for p in parameters]), strict=True):
        if gradient is not None:
            part.copy_(gradient.flatten())


def _scatter(row: Tensor, parameters: list[nn.Parameter]) -> None:
    for parameter, part in zip(parameters, row.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)


def _losses_and_gramian(
    local: list[Tensor], rows: list[Tensor], ranks: Ranks, sum_gramian: bool
) -> tuple[Tensor, Tensor]:
    """Global losses [T] and Gramian [T, T] of the raw gradients: one sum over ranks, one transfer to the host.

    At feature level each rank holds the rows of its own images, so the Gramian is the sum of the ranks'.
    """
    gramian = torch.stack([_at_least_float32(r) @ _at_least_float32(r).T for r in rows]).sum(0).double()
    losses = torch.stack([loss.detach().double() for loss in local])
    if sum_gramian:
        both = ranks.sum(torch.cat([losses, gramian.flatten()]))
    else:
        both = torch.cat([ranks.sum(losses), gramian.flatten()])
    both = _to_host(both)
    return both[: len(local)], both[len(local) :].view(len(local), len(local))


def _combine(
    method: Weighting,
    chosen: Tensor,
    weights: Tensor,
    slope: Tensor,
    rows: list[Tensor],
    tasks: Sequence[str],
    rng: torch.Generator | None,
) -> list[Tensor]:
    """sum_t u_t g_t for each tensor of rows, or what the method's own `combine` makes of the C-scaled rows."""
    if not overrides(method, "combine"):
        return [weights.to(row.device, row.dtype) @ row for row in rows]
    jacobian = slope.to(rows[0].device, rows[0].dtype) @ torch.cat(rows, dim=1)
    return list(method.combine(chosen, jacobian, tasks, rng).split([row.shape[1] for row in rows]))


def _gradient_norm(model: nn.Module) -> float:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients).item() if gradients else 0.0


def _problem(present: Sequence[str], losses: Tensor, gramian: Tensor | None, norm: float) -> str | None:
    for name, loss in zip(present, losses.tolist(), strict=True):
        if not math.isfinite(loss):
            return f"the loss of {name} is {loss}"
    if gramian is not None:
        for name, square in zip(present, gramian.diagonal().tolist(), strict=True):
            if not math.isfinite(square):
                return f"the gradient of {name} is not finite"
    if not math.isfinite(norm):
        return f"the combined gradient of {', '.join(present)} is not finite"
    return None
