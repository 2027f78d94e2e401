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
    the method touches everything. Parameters that no present task reaches get no gradient, and with a problem none
    do.
    Raises ValueError where the method looks at features and the model has no shared representation.
    """
    ranks = ranks or Ranks()
    check_level(method, model)
    model.zero_grad(set_to_none=True)
    method.zero_grad(set_to_none=True)

    counts, terms = _global_counts(tasks, targets, ranks)
    present = tuple(name for name in tasks if terms[name] > 0)
    if not present:
        empty = torch.zeros(0, dtype=torch.float64)
        return StepResult((), empty, empty, None, terms, 0.0, None)

    own = {name: [p for p in model.task_parameters(name) if p.requires_grad] for name in present}
    heads = [parameter for name in present for parameter in own[name]]
    shared = model.shared_parameters()
    split = method.level != "loss" and model.shared_representation
    with torch.autocast(image.device.type, autocast) if autocast else nullcontext():
        features = model.encode(image)
        leaves = [tuple(f.detach().requires_grad_() for f in features) if split else features for _ in present]
        size = tuple(image.shape[-2:])
        predictions = [model.decode(name, leaf, size) for name, leaf in zip(present, leaves, strict=True)]
    local = [
        tasks[name].loss(_at_least_float32(prediction), targets[name], counts[name])
        for name, prediction in zip(present, predictions, strict=True)
    ]
    del predictions

    gramian = None
    if method.level == "loss":
        losses = _to_host(ranks.sum(torch.stack([loss.detach().double() for loss in local])))
    else:  # rows: the raw task gradients, [T, N] for each tensor of z or one [T, P]
        at_z = method.level == "feature"
        if split:
            rows = _rows_at_features(local, leaves, heads, ranks)
            _check_nothing_shared_behind(model, shared)
            if not at_z:
                rows, reached = _through_backbone(features, rows, shared, ranks)
        else:
            rows, reached = _from_losses(local, shared, own, present, ranks)
        losses, gramian = _losses_and_gramian(local, rows, ranks, sum_gramian=at_z)

    problem = _problem_of_tasks(present, losses, gramian)
    if problem is None:
        chosen, weights, own_weights, slope = _balance(method, losses, gramian, present, rng)
        problem = _problem_of_method(method, present, chosen, weights, own_weights)
    if problem is not None:
        return _refused(
            model, method, StepResult(present, losses, losses * math.nan, gramian, terms, math.nan, problem)
        )

    if method.level == "loss":
        with ranks.summing([*shared, *heads]):
            sum(w * loss for w, loss in zip(weights.tolist(), local, strict=True)).backward()
    else:
        combined = _combine(method, chosen, weights, slope, rows, present, rng)
        if at_z:
            _backward(features, combined, shared, ranks)
        else:
            _scatter(combined[0], shared, reached)
        for name, weight in zip(present, own_weights.tolist(), strict=True):
            gradients = [p.grad for p in own[name] if p.grad is not None]
            if weight != 1.0 and gradients:
                torch._foreach_mul_(gradients, weight)

    norm = _gradient_norm(model)
    result = StepResult(present, losses, weights, gramian, terms, norm, _problem_of_norm(own, norm))
    return result if result.problem is None else _refused(model, method, result)


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
    if not present:
        return torch.zeros(0, dtype=torch.float64)
    ranks = ranks or Ranks()
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    counts, _ = _global_counts(tasks, targets, ranks)
    with torch.autocast(image.device.type, autocast) if autocast else nullcontext():
        predictions = model(image, present)
    local = [tasks[name].loss(_at_least_float32(predictions[name]), targets[name], counts[name]) for name in present]
    for buffer, before in buffers:
        buffer.copy_(before)
    return _to_host(ranks.sum(torch.stack([loss.double() for loss in local])))


def _global_counts(
    tasks: Mapping[str, Task], targets: Mapping[str, Tensor], ranks: Ranks
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Each task's counts in the global batch, where they are, and its valid terms, on the host."""
    counts = [task.loss.counts(targets[name]) for name, task in tasks.items()]
    total = ranks.sum(torch.cat(counts))
    lengths = [len(count) for count in counts]
    terms = [part[0].item() for part in total.cpu().split(lengths)]
    return dict(zip(tasks, total.split(lengths), strict=True)), dict(zip(tasks, terms, strict=True))


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _to_host(x: Tensor) -> Tensor:
    return x.double().cpu()


def _balance(
    method: Weighting, losses: Tensor, gramian: Tensor | None, tasks: Sequence[str], rng: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """w = weights(M, C G C'), what scales the shared gradients and the tasks' own parameters, and C."""
    transformed, total, slope = _transform(method, losses, tasks, rng, whole=gramian is not None)
    if gramian is None:
        return torch.ones_like(losses), total, total, slope
    balanced = slope @ gramian @ slope.T
    if bool(transformed.isfinite().all() and balanced.isfinite().all()):
        chosen = method.weights(transformed, balanced, tasks, rng).detach()
    else:
        chosen = losses * math.nan  # a solver cannot say more; it is reported as the method's problem
    weights = slope.T @ chosen
    return chosen, weights, weights if method.touches == "everything" else total, slope


def _transform(
    method: Weighting, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None, whole: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """M [T], c = C' 1 [T] and, if the whole is asked for, C = dM/dL [T, T].

    Leaves in the method's own parameters the gradient of sum(M): the same on all ranks, because the losses are
    global, so nothing is summed here.
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


def _check_nothing_shared_behind(model: nn.Module, shared: list[nn.Parameter]) -> None:
    if any(parameter.grad is not None for parameter in shared):
        raise ValueError(
            f"{type(model).__name__}: several heads share parameters that lie behind the representation of "
            f"encode(), so its gradients do not say how they change. Set shared_representation = False."
        )


def _through_backbone(
    features: tuple[Tensor, ...], rows: list[Tensor], shared: list[nn.Parameter], ranks: Ranks
) -> tuple[list[Tensor], set[int]]:
    """The Jacobian [T, P] of the shared parameters, summed over ranks, and which of them it reaches.

    One pass of the backbone for each task; a row is summed while the next pass runs.
    """
    jacobian, reached = _empty_jacobian(rows[0], shared), set()
    outputs = [(feature, row) for feature, row in zip(features, rows, strict=True) if feature.requires_grad]
    with ranks.later() as begin_sum:
        for t in range(len(jacobian) if outputs and shared else 0):
            gradients = torch.autograd.grad(
                [feature for feature, _ in outputs],
                shared,
                [row[t].view_as(feature) for feature, row in outputs],
                retain_graph=t + 1 < len(jacobian),
                allow_unused=True,
            )
            _gather(gradients, shared, jacobian[t], reached)
            begin_sum(jacobian[t])
    return [jacobian], reached


def _from_losses(
    local: list[Tensor],
    shared: list[nn.Parameter],
    own: Mapping[str, list[nn.Parameter]],
    present: Sequence[str],
    ranks: Ranks,
) -> tuple[list[Tensor], set[int]]:
    """The same where no representation is shared: one pass of the whole network for each task."""
    jacobian, reached = _empty_jacobian(torch.stack(local), shared), set()
    with ranks.later() as begin_sum:
        for t, (name, loss) in enumerate(zip(present, local, strict=True)):
            gradients = torch.autograd.grad(
                loss, [*shared, *own[name]], retain_graph=t + 1 < len(local), allow_unused=True
            )
            _gather(gradients[: len(shared)], shared, jacobian[t], reached)
            begin_sum(jacobian[t])
            with ranks.summing(own[name]):
                for parameter, gradient in zip(own[name], gradients[len(shared) :], strict=True):
                    parameter.grad = gradient
    return [jacobian], reached


def _empty_jacobian(like: Tensor, shared: list[nn.Parameter]) -> Tensor:
    kind = shared[0] if shared else like
    return kind.new_zeros(len(like), sum(p.numel() for p in shared))


def _gather(gradients: Sequence[Tensor | None], parameters: list[nn.Parameter], row: Tensor, reached: set[int]) -> None:
    for i, part in enumerate(row.split([p.numel() for p in parameters])):
        if gradients[i] is not None:
            part.copy_(gradients[i].flatten())
            reached.add(i)


def _scatter(row: Tensor, parameters: list[nn.Parameter], reached: set[int]) -> None:
    for i, part in enumerate(row.split([p.numel() for p in parameters])):
        if i in reached:
            parameters[i].grad = part.view_as(parameters[i])


def _backward(features: tuple[Tensor, ...], at_z: list[Tensor], shared: list[nn.Parameter], ranks: Ranks) -> None:
    """One pass of the backbone, from the combined gradient at z."""
    outputs = [
        (feature, g.view_as(feature)) for feature, g in zip(features, at_z, strict=True) if feature.requires_grad
    ]
    if outputs:
        with ranks.summing(shared):
            torch.autograd.backward(*zip(*outputs, strict=True))


def _losses_and_gramian(
    local: list[Tensor], rows: list[Tensor], ranks: Ranks, sum_gramian: bool
) -> tuple[Tensor, Tensor]:
    """Global losses [T] and Gramian [T, T] of the raw gradients: one sum over ranks, one transfer to the host.

    At feature level each rank holds the rows of its own images, so the Gramian is the sum of the ranks'.
    """
    parts = [_at_least_float32(row) for row in rows]
    gramian = torch.stack([part @ part.T for part in parts]).sum(0).double()
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
    exact = [_at_least_float32(row) for row in rows]
    if overrides(method, "combine"):
        jacobian = slope.to(exact[0]) @ torch.cat(exact, dim=1)
        combined = method.combine(chosen, jacobian, tasks, rng).split([row.shape[1] for row in rows])
    else:
        combined = [weights.to(row) @ row for row in exact]
    return [vector.to(row.dtype) for vector, row in zip(combined, rows, strict=True)]


def _gradient_norm(model: nn.Module) -> float:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients).item() if gradients else 0.0


def _refused(model: nn.Module, method: Weighting, result: StepResult) -> StepResult:
    """The result of a step after which no update may follow: without gradients none can."""
    model.zero_grad(set_to_none=True)
    method.zero_grad(set_to_none=True)
    return result


def _problem_of_tasks(tasks: Sequence[str], losses: Tensor, gramian: Tensor | None) -> str | None:
    for name, loss in zip(tasks, losses.tolist(), strict=True):
        if not math.isfinite(loss):
            return f"the loss of {name} is {loss}"
    if gramian is not None:
        for name, square in zip(tasks, gramian.diagonal().tolist(), strict=True):
            if not math.isfinite(square):
                return f"the gradient of {name} is not finite"
    return None


def _problem_of_method(method: Weighting, tasks: Sequence[str], *weights: Tensor) -> str | None:
    for vector in weights:
        for name, weight in zip(tasks, vector.tolist(), strict=True):
            if not math.isfinite(weight):
                return f"{type(method).__name__} gives {name} the weight {weight}"
    if any(p.grad is not None and not p.grad.isfinite().all() for p in method.parameters()):
        return f"the gradient of what {type(method).__name__} learns is not finite"
    return None


def _problem_of_norm(own: Mapping[str, list[nn.Parameter]], norm: float) -> str | None:
    if math.isfinite(norm):
        return None
    heads = [n for n, ps in own.items() if any(p.grad is not None and not p.grad.isfinite().all() for p in ps)]
    return f"the gradient of {', '.join(heads or own)} is not finite"
