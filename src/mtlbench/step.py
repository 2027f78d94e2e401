"""One batch to gradients. With *passes.py, streaming.py, rows.py and balance.py the only place that differentiates.

The features are handed to each head as that head's own detached leaf. One backward pass of the summed
losses goes through every head once and leaves, at no extra cost, the heads' parameter gradients and all T
gradients dL_t/dz in the leaves. The Gramian is T x T; one backward pass through the backbone with their
weighted sum finishes. So a feature-level method costs what adding the losses costs; the parameter level
needs T passes of the backbone instead of one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtlbench.balance import balance, problem_of_method, problem_of_tasks
from mtlbench.jacobian_passes import LayerPass, ParameterPass, UnsharedLayerPass, UnsharedParameterPass
from mtlbench.parallel import Ranks
from mtlbench.passes import FeaturePass, LossPass, Pass, Work, buffers_kept
from mtlbench.rows import to_host
from mtlbench.streaming import StreamedPass
from mtlbench.task import Task
from mtlbench.weighting import Weighting, check_level, overrides


@dataclass(frozen=True)
class StepResult:
    """What one step found. Tensors are float64 on the CPU, of the T tasks present in the global batch.

    losses [T]: raw, of the global batch. weights [T]: what multiplied the shared gradients in the end
    (u = C' w). gramian [T, T]: inner products of the raw task gradients, None at level "loss".
    terms: {task: valid terms in the global batch}. gradient_norm: of all model gradients together.
    problem: why no update may follow (a non-finite loss or gradient, with the task's name), or None.
    notes: which degenerate input the method met, as its docstring says.
    """

    tasks: tuple[str, ...]
    losses: Tensor
    weights: Tensor
    gramian: Tensor | None
    terms: dict[str, float]
    gradient_norm: float
    problem: str | None
    notes: tuple[str, ...] = ()


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
    micro_batches: int = 1,
) -> StepResult:
    """Leaves in `.grad` of the model and of the method the gradients of one batch, summed over ranks.

    image [B, C, H, W] and targets {task: [B, ...]} are this rank's part of the global batch. A task without
    a label in the whole batch is absent: its head gets no gradient and the method does not see it.
    With L the global losses, M = transform(L), C = dM/dL and w = weights(M, C G C'): shared parameters get
    sum_t u_t g_t with u = C' w; the parameters of task t alone are scaled by c_t = (C' 1)_t, or by u_t where
    the method touches everything. Parameters that no present task reaches get no gradient, and with a problem none
    do.
    micro_batches: pieces that this rank's part is run in, one after the other: less memory, the same gradients
        where no layer looks at several images or draws numbers (batch normalisation, dropout).
    Raises ValueError where the method looks at features and the model has no shared representation, and where
    micro_batches does not divide the images or goes with a streamed Jacobian.
    """
    ranks = ranks or Ranks()
    check_level(method, model)
    model.zero_grad(set_to_none=True)
    method.zero_grad(set_to_none=True)
    method.take_notes()

    counts, terms = _global_counts(tasks, targets, ranks)
    present = {name: task for name, task in tasks.items() if terms[name] > 0}
    names = tuple(present)
    if not present:
        empty = torch.zeros(0, dtype=torch.float64)
        return StepResult((), empty, empty, None, terms, 0.0, None)

    own = {name: [p for p in model.task_parameters(name) if p.requires_grad] for name in present}
    pieces = _pieces(image, targets, names, micro_batches)
    run = _pass_of(method, Work(model, present, pieces, counts, own, model.shared_parameters(), ranks, autocast))
    losses, gramian = run.measure()

    problem = problem_of_tasks(names, losses, gramian)
    if problem is None:
        found = balance(method, losses, gramian, names, rng)
        problem = problem_of_method(method, names, found)
    if problem is not None:
        return _refused(model, method, StepResult(names, losses, losses * math.nan, gramian, terms, math.nan, problem))

    run.descend(method, found, rng)
    run.scale_heads(found.own.tolist())
    norm = _gradient_norm(model)
    problem = _problem_of_norm(own, norm)
    result = StepResult(names, losses, found.shared, gramian, terms, norm, problem, method.take_notes())
    return result if result.problem is None else _refused(model, method, result)


def _pass_of(method: Weighting, work: Work) -> Pass:
    """The pass of the method's level and the model's kind."""
    if method.level == "loss":
        return LossPass(work, plain=not overrides(method, "transform"))
    if method.jacobian == "streamed":
        return StreamedPass(work)
    split = work.model.shared_representation
    kinds = {
        "feature": (FeaturePass, FeaturePass),
        "layer": (LayerPass, UnsharedLayerPass),
        "parameter": (ParameterPass, UnsharedParameterPass),
    }[method.level]
    return kinds[0 if split else 1](work)


def _pieces(
    image: Tensor, targets: Mapping[str, Tensor], tasks: Sequence[str], count: int
) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """A batch in equal parts. Raises ValueError where its images do not divide."""
    if len(image) % count or count < 1:
        raise ValueError(
            f"micro_batches={count}: it does not divide the {len(image)} images of this process. Type a number that "
            f"does, or micro_batches=1."
        )
    size = len(image) // count
    return [
        (image[k : k + size], {name: targets[name][k : k + size] for name in tasks}) for k in range(0, len(image), size)
    ]


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
    micro_batches: int = 1,
) -> Tensor:
    """The global losses [T] of the present tasks at the model as it is now, in float64 on the CPU.

    One more forward pass in the mode the model is in; buffers (batch statistics) stay what they were.
    """
    if not present:
        return torch.zeros(0, dtype=torch.float64)
    ranks = ranks or Ranks()
    counts, _ = _global_counts(tasks, targets, ranks)
    some = {name: tasks[name] for name in present}
    total: Tensor | float = 0.0
    for piece in _pieces(image, targets, present, micro_batches):
        work = Work(model, some, [piece], counts, {}, [], ranks, autocast)
        with buffers_kept(model):
            local = work.losses(piece, [work.encode(piece)] * len(some))
        total = total + torch.stack([loss.double() for loss in local])
    return to_host(ranks.sum(total))


def _global_counts(
    tasks: Mapping[str, Task], targets: Mapping[str, Tensor], ranks: Ranks
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Each task's counts in the global batch, where they are, and its valid terms, on the host."""
    counts = [task.loss.counts(targets[name]) for name, task in tasks.items()]
    total = ranks.sum(torch.cat(counts))
    lengths = [len(count) for count in counts]
    terms = [part[0].item() for part in total.cpu().split(lengths)]
    return dict(zip(tasks, total.split(lengths), strict=True)), dict(zip(tasks, terms, strict=True))


def _gradient_norm(model: nn.Module) -> float:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients).item() if gradients else 0.0


def _refused(model: nn.Module, method: Weighting, result: StepResult) -> StepResult:
    """The result of a step after which no update may follow: without gradients none can."""
    model.zero_grad(set_to_none=True)
    method.zero_grad(set_to_none=True)
    return result


def _problem_of_norm(own: Mapping[str, list[nn.Parameter]], norm: float) -> str | None:
    if math.isfinite(norm):
        return None
    heads = [n for n, ps in own.items() if any(p.grad is not None and not p.grad.isfinite().all() for p in ps)]
    return f"the gradient of {', '.join(heads or own)} is not finite"
