"""Task gradients to try weighting methods on, and how to ask a method for its weights."""

import pytest
import torch
from torch import Tensor

from mtlbench.weighting import Weighting


def names(count: int) -> list[str]:
    return [f"task{i}" for i in range(count)]


def weigh(method: Weighting, jacobian: Tensor, losses: Tensor | None = None, rng: torch.Generator | None = None):
    """Weights of gradients [T, D] as the step asks for them, of all the method's tasks."""
    losses = torch.ones(len(jacobian)).double() if losses is None else losses
    return method.weights(losses, jacobian @ jacobian.T, method.tasks, rng)


def jacobians() -> dict[str, Tensor]:
    """Task gradients [T, D] by name: tasks 2 to 40; D below, at and above T; all the ways to be degenerate."""
    generator = torch.Generator().manual_seed(7)
    found = {}
    for count in (2, 3, 4, 7, 15, 40):
        for size in sorted({1, 2, count - 1, count, 3 * count}):
            plain = torch.randn(count, size, generator=generator, dtype=torch.float64)
            found[f"{count}x{size}"] = plain
            scales = 10 ** (16 * torch.rand(count, 1, generator=generator, dtype=torch.float64) - 8)
            found[f"{count}x{size} scaled"] = plain * scales
    base = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    a, b, c, d = base
    zero = torch.zeros(6).double()
    special = {
        "parallel": [a, 2 * a, b],
        "all parallel": [a, 2 * a, 3 * a],
        "duplicated": [a, a, b, b, c],
        "opposite": [a, -a],
        "opposite, unequal": [a, -3 * a],
        "opposite and others": [a, -2 * a, b, c],
        "zero row": [a, zero, b],
        "zero rows": [zero, a, zero, b],
        "one alive": [zero, a],
        "all zero": [zero, zero, zero],
        "stationary": [a, b, -(a + b)],
        "stationary in the middle of four": [a, b, c, -(a + b + c) / 3],
        "nearly parallel": [a, a + 1e-7 * b, a - 1e-7 * c],
        "nearly opposite": [a, -a + 1e-9 * b],
        "tiny": [1e-8 * x for x in base],
        "huge": [1e8 * x for x in base],
        "1e-8 to 1e8": [1e-8 * a, b, 1e8 * c, 1e4 * d],
        "duplicated, scaled": [a, 1e6 * a, 1e-6 * b],
        "barely in": list(torch.tensor([[1, 0, 0], [1 - 1e-9, 1, 0], [1 + 1e-9, 0, 1]], dtype=torch.float64)),
        "orthogonal": list(torch.eye(5).double()),
        "agreeing": [x.abs() for x in base],
    }
    return found | {name: torch.stack(rows) for name, rows in special.items()}


JACOBIANS = jacobians()
everywhere = pytest.mark.parametrize("jacobian", JACOBIANS.values(), ids=JACOBIANS)
FULL = {  # gradients with a well-conditioned cosine matrix
    name: j
    for name, j in JACOBIANS.items()
    if (j.norm(dim=1) > 0).all() and torch.linalg.cond((u := j / j.norm(dim=1, keepdim=True)) @ u.T) < 1e7
}
in_full_rank = pytest.mark.parametrize("jacobian", FULL.values(), ids=FULL)

FOUR_LOSSES = torch.tensor([0.4, 2.0, 1.1, 7.0]).double()
FOUR = torch.tensor(  # four tasks in conflict; the first and the last have no weight at the minimum norm
    [[3.0, -1.0, 0.5, 0.2], [-0.8, 0.9, 0.3, 0.0], [0.4, -0.7, 0.6, 0.1], [-2.0, -0.5, 2.5, 1.5]]
).double()
