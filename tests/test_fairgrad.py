"""FairGrad, and the equation that it shares with Nash-MTL: against mpmath and scipy."""

import math

import mpmath
import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gramians import FOUR, JACOBIANS, everywhere, in_full_rank, names, weigh
from mtlbench.methods.fairgrad import FairGrad
from mtlbench.methods.mgda import MGDA
from mtlbench.methods.nash_mtl import NashMTL

NOTE = "no fair direction"
alphas = pytest.mark.parametrize("alpha", [0.3, 0.5, 1.0, 2.0, 10.0])


def taken(jacobian: Tensor, alpha: float = 2.0, **options) -> tuple[Tensor, tuple[str, ...]]:
    method = FairGrad(names(len(jacobian)), alpha=alpha, **options)
    return weigh(method, jacobian), method.take_notes()


def error(jacobian: Tensor, weights: Tensor, alpha: float) -> float:
    """By how much G w misses w^(-1/alpha), relative to what is added up in G w."""
    alive = jacobian.norm(dim=1) > 0
    jacobian, weights = jacobian[alive], weights[alive]
    gramian = jacobian @ jacobian.T
    right = weights ** (-1 / alpha)
    return ((gramian @ weights - right).abs() / (gramian.abs() @ weights + right)).max().item()


def shortest(jacobian: Tensor) -> float:
    """Length of the shortest convex combination of the unit gradients, by scipy."""
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    stacked = torch.cat([units, torch.ones(len(units), 1).double()], 1).T.numpy()
    found, _ = scipy.optimize.nnls(stacked, np.eye(len(stacked))[-1])
    return (torch.from_numpy(found / found.sum()) @ units).norm().item()


@alphas
@everywhere
def test_the_equation_holds_or_has_no_solution(jacobian, alpha):
    weights, notes = taken(jacobian, alpha)
    alive = jacobian.norm(dim=1) > 0
    assert (weights[~alive] == 0).all()
    if notes:
        assert notes == (NOTE,)
        assert (weights == 0).all()
        assert shortest(jacobian[alive]) < 2e-6
    elif alive.any():
        assert (weights[alive] > 0).all()
        assert error(jacobian, weights, alpha) <= 1e-13
        assert shortest(jacobian[alive]) > 5e-7


@alphas
@in_full_rank
def test_the_weights_are_those_in_many_digits(jacobian, alpha):
    """Newton's method on G w = w^(-1/alpha) in 400 digits, from the weights found: it must stay there."""
    if len(jacobian) > 15:
        jacobian = jacobian[:15]
    weights, _ = taken(jacobian, alpha)
    if not weights.any():
        assert shortest(jacobian) < 2e-6
        return
    with mpmath.workdps(400):
        g = mpmath.matrix(jacobian.tolist())
        gramian, power = g * g.T, mpmath.mpf(1) / mpmath.mpf(alpha)
        w = mpmath.matrix(weights.tolist())
        for _ in range(6):
            residual = gramian * w - mpmath.matrix([x**-power for x in w])
            slope = gramian + mpmath.diag([power * x ** (-power - 1) for x in w])
            w = w - mpmath.lu_solve(slope, residual)
        expected = torch.tensor([float(x) for x in w], dtype=torch.float64)
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    tolerance = max(1e-9, 100 * torch.linalg.cond(units @ units.T).item() * 2.2e-16)
    assert ((weights - expected).abs() <= tolerance * expected).all()


@pytest.mark.parametrize("name", ["2x6", "3x9", "4x12", "7x21", "agreeing", "orthogonal"])
def test_scipy_finds_the_same_weights_as_the_authors_code_does(name):
    """Least squares on the equation from 1/T, with its own tolerance."""
    gramian = (JACOBIANS[name] @ JACOBIANS[name].T).numpy()
    found = scipy.optimize.least_squares(
        lambda x: gramian @ x - x ** (-1 / 2.0), np.full(len(gramian), 1 / len(gramian)), bounds=(0, np.inf), xtol=1e-12
    )
    assert np.allclose(taken(JACOBIANS[name])[0].numpy(), found.x, rtol=1e-4)


def test_alpha_one_is_nash_mtl_and_large_alpha_mgda():
    jacobian = JACOBIANS["4x12"]
    assert torch.allclose(taken(jacobian, 1.0)[0], weigh(NashMTL(names(4)), jacobian), rtol=1e-12)
    least = weigh(MGDA(names(4)), jacobian) @ jacobian  # improves the worst task most: max-min fairness
    far = []
    for alpha in (1.0, 10.0, 100.0, 1000.0):
        fair = taken(jacobian, alpha)[0] @ jacobian
        far.append((fair / fair.norm() - least / least.norm()).norm().item())
    assert far == sorted(far, reverse=True)
    assert far[-1] < 0.01


@alphas
def test_one_task_and_a_factor_of_all_losses(alpha):
    row = FOUR[:1]
    assert taken(row, alpha)[0].item() == pytest.approx(row.norm().item() ** (-2 * alpha / (alpha + 1)), rel=1e-12)
    jacobian = JACOBIANS["4x12"]
    assert torch.allclose(
        taken(1e5 * jacobian, alpha)[0], 1e5 ** (-2 * alpha / (alpha + 1)) * taken(jacobian, alpha)[0], rtol=1e-9
    )


def test_zero_gradients_have_no_part():
    jacobian = JACOBIANS["zero row"]
    weights, notes = taken(jacobian)
    assert notes == ()
    assert torch.equal(weights[[0, 2]], taken(jacobian[[0, 2]])[0])
    assert taken(JACOBIANS["all zero"])[0].tolist() == [0, 0, 0]


def test_the_result_is_clipped():
    plain = taken(FOUR)[0]
    length = (plain @ FOUR).norm().item()
    assert torch.allclose(taken(FOUR, max_norm=length / 3)[0], plain / 3, rtol=1e-12)
    assert torch.equal(taken(FOUR, max_norm=length * 1.001)[0], plain)


@settings(deadline=None, derandomize=True, max_examples=200, database=None)
@given(st.integers(1, 9), st.integers(1, 12), st.integers(0, 10_000), st.floats(0, 8), st.floats(0.2, 5))
def test_searching_for_gradients_on_which_the_equation_is_missed(count, size, seed, decades, alpha):
    rng = torch.Generator().manual_seed(seed)
    jacobian = torch.randn(count, size, generator=rng).double()
    jacobian = 10 ** (decades * torch.rand(count, 1, generator=rng).double()) * jacobian
    weights, notes = taken(jacobian, alpha)
    if notes:
        assert shortest(jacobian) < 2e-6
    else:
        assert error(jacobian, weights, alpha) <= 1e-12
        sizes = (weights * jacobian.norm(dim=1)).sum() * jacobian.norm(dim=1)
        assert (jacobian @ (weights @ jacobian) >= -1e-12 * sizes).all()  # no loss rises


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alpha": 0}, r"alpha=0: FairGrad expects a number alpha > 0"),
        ({"alpha": math.inf}, r"alpha=inf: FairGrad expects a number alpha > 0"),
        ({"max_norm": 0}, r"max_norm=0: FairGrad expects a number max_norm > 0"),
        ({"level": "loss"}, r"method\.level=loss: FairGrad works at parameter, feature"),
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        FairGrad(names(2), **options)
