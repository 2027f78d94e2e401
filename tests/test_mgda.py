"""MGDA's exact solver against a certificate in many digits, at all scales; and when it is the relaxed solution."""

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gramians import in_full_rank, names, weigh
from mtlbench.methods.mgda import MGDA


def certify(jacobian: Tensor) -> None:
    """The tasks with weight are the right ones, and their weights those of the shortest vector, in 80 digits.

    On a set of independent tasks the shortest combination of sum 1 has G alpha = const; it is the shortest convex one
    of all tasks if alpha > 0 and no other task's product with it is less (Wolfe 1976).
    """
    found = weigh(MGDA(names(len(jacobian))), jacobian)
    assert found.sum().item() == pytest.approx(1, abs=1e-12)
    assert (found >= 0).all()
    chosen = (found > 0).nonzero().flatten().tolist()
    with mpmath.workdps(80):
        g = mpmath.matrix(jacobian.tolist())
        rows = mpmath.matrix(jacobian[chosen].tolist())
        solution = mpmath.lu_solve(rows * rows.T, mpmath.ones(len(chosen), 1))
        total = mpmath.fsum(solution)
        alpha = [x / total for x in solution]
        shortest = mpmath.matrix([alpha]) * rows
        products, square = g * shortest.T, (shortest * shortest.T)[0]
        lengths = [mpmath.norm(g[t, :]) for t in range(g.rows)]
        size = mpmath.fsum(a * lengths[t] for a, t in zip(alpha, chosen, strict=True))
        slack = [float((products[t] - square) / (lengths[t] * size)) for t in range(g.rows)]
        expected = torch.zeros(len(jacobian)).double()
        expected[chosen] = torch.tensor([float(a) for a in alpha], dtype=torch.float64)
    assert min(slack) >= -1e-12
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    tolerance = max(1e-9, 100 * torch.linalg.cond(units @ units.T).item() * 2.2e-16)
    norms = jacobian.norm(dim=1)
    assert (expected >= -tolerance * expected.max()).all()
    assert ((found - expected) * norms).abs().max() <= tolerance * (expected * norms).max()


@in_full_rank
def test_the_solver_is_exact_at_all_scales(jacobian):
    certify(jacobian)


@settings(deadline=None, derandomize=True, max_examples=80, database=None)
@given(st.integers(2, 12), st.integers(0, 10_000), st.floats(0, 8), st.floats(0, 1.5))
def test_searching_for_gradients_on_which_the_solver_is_not_exact(count, seed, decades, agreement):
    rng = torch.Generator().manual_seed(seed)
    jacobian = torch.randn(count, count + 2, generator=rng).double() + agreement
    certify(10 ** (decades * torch.rand(count, 1, generator=rng).double()) * jacobian)


def test_two_tasks_at_the_ends_of_their_segment():
    a = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for b, expected in (([1.0, 5.0], [1.0, 0.0]), ([0.2, 0.0], [0.0, 1.0]), ([0.0, 1.0], [0.5, 0.5])):
        assert weigh(MGDA(names(2)), torch.stack([a, torch.tensor(b, dtype=torch.float64)])).tolist() == expected


@pytest.mark.parametrize("touches", ["shared", "everything"])
def test_touches_changes_the_heads_alone(touches):
    jacobian = torch.eye(3).double()
    method = MGDA(names(3), touches=touches)
    assert method.touches == touches
    assert weigh(method, jacobian).tolist() == pytest.approx([1 / 3] * 3)
