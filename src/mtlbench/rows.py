"""Task gradients as rows [T, N]: gathered, multiplied with each other, and put back where they belong."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mtlbench.parallel import Ranks


def at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def to_host(x: Tensor) -> Tensor:
    return x.double().cpu()


def gramian_of(rows: Sequence[Tensor]) -> Tensor:
    """Inner products [T, T] of rows [T, N] for each of several tensors, float64 where the rows are."""
    parts = [at_least_float32(row) for row in rows]
    return torch.stack([part @ part.T for part in parts]).sum(0).double()


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
    done: Callable[[Tensor], None] = lambda row: None,
    keep_graph: bool = False,
) -> None:
    """Adds to the Jacobian [T, P] what each task's row at z gives; one pass of the backbone for each task.

    done: called with each row when it is complete, so that its sum over ranks begins while the next pass runs.
    """
    outputs = [(feature, row) for feature, row in zip(features, rows, strict=True) if feature.requires_grad]
    for t in range(len(jacobian) if outputs and parameters else 0):
        gradients = torch.autograd.grad(
            [feature for feature, _ in outputs],
            parameters,
            [row[t].view_as(feature) for feature, row in outputs],
            retain_graph=keep_graph or t + 1 < len(jacobian),
            allow_unused=True,
        )
        gather(gradients, jacobian[t], parameters, reached)
        done(jacobian[t])


def empty_jacobian(like: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    kind = parameters[0] if parameters else like
    return kind.new_zeros(len(like), sum(p.numel() for p in parameters))


def gather(gradients: Sequence[Tensor | None], row: Tensor, parameters: list[nn.Parameter], reached: set[int]) -> None:
    """Adds gradients to their places in a row, and notes whose there are."""
    for i, part in enumerate(row.split([p.numel() for p in parameters])):
        if i < len(gradients) and gradients[i] is not None:
            part.add_(gradients[i].flatten())
            reached.add(i)


def scatter(row: Tensor, parameters: list[nn.Parameter], reached: set[int]) -> None:
    """A combined row back into `.grad` of the parameters that were reached."""
    for i, part in enumerate(row.split([p.numel() for p in parameters])):
        if i in reached:
            parameters[i].grad = part.view_as(parameters[i])
