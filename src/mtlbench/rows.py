"""Task gradients as rows [T, N]: gathered, multiplied with each other, and put back where they belong."""

from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from mtlbench.parallel import Ranks


def at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def to_host(x: Tensor) -> Tensor:
    return x.double().cpu()


def blocks(row: Tensor) -> tuple[Tensor, ...]:
    """[..., N] in pieces of columns that stay in a CPU's cache; whole on a GPU."""
    return row.split(BLOCK, dim=-1) if row.device.type == "cpu" and row.shape[-1] else (row,)


BLOCK = 1 << 18


def gramian_of(rows: Sequence[Tensor]) -> Tensor:
    """Inner products [T, T] of rows [T, N] for each of several tensors, float64 where the rows are.

    The sums of the blocks are added in float64: more exact than one long sum.
    """
    parts = [at_least_float32(part) for row in rows for part in blocks(row)]
    return torch.stack([part @ part.T for part in parts]).double().sum(0)


def weighted_sum(weights: Tensor, row: Tensor) -> Tensor:
    """sum_t w_t row_t [N] of rows [T, N], each block written while it is in the cache."""
    if row.device.type != "cpu":
        return weights.to(row) @ row
    total = row.new_empty(row.shape[1])
    first, *others = weights.tolist()
    for part, out in zip(blocks(row), blocks(total), strict=True):
        torch.mul(part[0], first, out=out)
        for weight, task in zip(others, part[1:], strict=True):
            out.add_(task, alpha=weight)
    return total


def with_gramian(losses: Tensor, jacobian: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor]:
    """Global losses and the Gramian of a Jacobian that is summed over ranks already: one transfer to the host."""
    both = to_host(torch.cat([ranks.sum(losses), gramian_of([jacobian]).flatten()]))
    return both[: len(losses)], both[len(losses) :].view(len(losses), len(losses))


def rows_of(leaves: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """The gradients at the leaves as rows [T, N] for each tensor of z."""
    rows = []
    for tensors in zip(*leaves, strict=True):
        gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in tensors]
        rows.append(torch.stack([gradient.flatten() for gradient in gradients]))
        for leaf in tensors:
            leaf.grad = None
    return rows


def through_backbone(
    features: tuple[Tensor, ...],
    rows: list[Tensor],
    parameters: list[nn.Parameter],
    jacobian: Tensor,
    reached: set[int],
    add: bool,
    done: Callable[[Tensor], None] = lambda row: None,
    keep_graph: bool = False,
) -> None:
    """Writes into the Jacobian [T, P], or adds to it, what each task's row at z gives: one pass of the backbone a task.

    done: called with each row when it is complete, so that its sum over ranks begins while the next pass runs.
    """
    outputs = [(feature, row) for feature, row in zip(features, rows, strict=True) if feature.requires_grad]
    for t in range(len(jacobian)):
        gradients = (
            torch.autograd.grad(
                [feature for feature, _ in outputs],
                parameters,
                [row[t].view_as(feature) for feature, row in outputs],
                retain_graph=keep_graph or t + 1 < len(jacobian),
                allow_unused=True,
            )
            if outputs and parameters
            else [None] * len(parameters)
        )
        gather(gradients, jacobian[t], parameters, reached, add)
        done(jacobian[t])


_KEPT: WeakKeyDictionary[nn.Module, Tensor] = WeakKeyDictionary()


def jacobian_for(model: nn.Module, tasks: int, parameters: list[nn.Parameter]) -> Tensor:
    """Memory for the rows [T, P] of a step, with whatever is in it.

    On a CPU it is kept with the model for the next step: as much fresh memory costs more, page by page, than writing
    to it (on a GPU torch keeps it anyway).
    """
    size = sum(p.numel() for p in parameters)
    if not parameters:
        return torch.zeros(tasks, 0)
    kept = _KEPT.get(model)
    if kept is None or kept.shape != (tasks, size) or kept.dtype != parameters[0].dtype:
        _KEPT.pop(model, None)
        kept = parameters[0].new_empty(tasks, size)
        if kept.device.type == "cpu":
            _KEPT[model] = kept
    return kept


def gather(
    gradients: Sequence[Tensor | None], row: Tensor, parameters: list[nn.Parameter], reached: set[int], add: bool
) -> None:
    """Writes gradients to their places in a row, or adds them to it, and notes whose there are."""
    places = [part.view_as(p) for part, p in zip(row.split([p.numel() for p in parameters]), parameters, strict=True)]
    there = [i for i, gradient in enumerate(gradients) if gradient is not None]
    reached.update(there)
    if not add:
        for i in set(range(len(places))).difference(there):
            places[i].zero_()
    if there:
        write = torch._foreach_add_ if add else torch._foreach_copy_
        write([places[i] for i in there], [gradients[i] for i in there])


def scatter(row: Tensor, parameters: list[nn.Parameter], reached: set[int]) -> None:
    """A combined row back into `.grad` of the parameters that were reached."""
    for i, part in enumerate(row.split([p.numel() for p in parameters])):
        if i in reached:
            parameters[i].grad = part.view_as(parameters[i])
