"""MGDA without the sign condition: against the paper's closed form in many digits, and its equality with MGDA."""

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gramians import FOUR, JACOBIANS, everywhere, in_full_rank, names, weigh
from mtlbench.methods.mgda import MGDA
from mtlbench.methods.mgda_relaxed import MGDARelaxed

NOTE = "a stationary point of the affine hull"


def taken(jacobian: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    method = MGDARelaxed(names(len(jacobian)))
    return weigh(method, jacobian), method.take_notes()


@in_full_rank
def test_it_is_the_papers_closed_form(jacobian):
    """Eq. 30, alpha_{2:T} = g_1 D' (D D')^-1, in 80 digits; on cosines where lengths are apart the same numbers."""
    with mpmath.workdps(80):
        g = mpmath.matrix(jacobian.tolist())
        d = mpmath.matrix(g.rows - 1, g.cols)
        for t in range(1, g.rows):
            d[t - 1, :] = g[0, :] - g[t, :]
        rest = mpmath.lu_solve(d * d.T, d * g[0, :].T)
        expected = torch.tensor([float(1 - mpmath.fsum(rest)), *map(float, rest)], dtype=torch.float64)
    found, notes = taken(jacobian)
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    tolerance = max(1e-9, 100 * torch.linalg.cond(units @ units.T).item() * 2.2e-16)
    assert notes == ()
    norms = jacobian.norm(dim=1)
    assert ((found - expected) * norms).abs().max() <= tolerance * (expected * norms).abs().max()
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@everywhere
def test_projections_on_all_gradients_are_equal_or_the_result_is_zero(jacobian):
    """g g_t' = C (Section 3.1): of all alphas of sum 1 this is the condition of the shortest."""
    alpha, notes = taken(jacobian)
    assert alpha.sum().item() == pytest.approx(1, abs=1e-9)
    parts = alpha[:, None] * jacobian
    size, norms = parts.norm(dim=1).sum(), jacobian.norm(dim=1)
    g = parts.sum(0)
    if NOTE in notes or not norms.all():
        assert g.norm() <= 1e-6 * size
    else:
        differences = (jacobian @ g - g @ g).abs() / norms
        assert differences.max() <= 1e-6 * size


@pytest.mark.parametrize("name", ["2x6", "3x9", "4x12", "7x21", "orthogonal"])
def test_it_is_mgda_inside_the_simplex(name):
    jacobian = JACOBIANS[name]
    relaxed, mgda = taken(jacobian)[0], weigh(MGDA(names(len(jacobian))), jacobian)
    if (mgda > 0).all():
        assert torch.allclose(relaxed, mgda, rtol=1e-9)
    else:
        assert relaxed.min() < 0


@settings(deadline=None, derandomize=True, max_examples=150, database=None)
@given(st.integers(2, 10), st.integers(0, 10_000), st.floats(0, 4), st.floats(0, 1))
def test_searching_for_a_difference_from_mgda(count, seed, decades, agreement):
    """Equal exactly where all of the relaxed weights are positive; never longer than MGDA's vector."""
    rng = torch.Generator().manual_seed(seed)
    jacobian = torch.randn(count, count + 5, generator=rng).double() + agreement
    jacobian = 10 ** (decades * torch.rand(count, 1, generator=rng).double()) * jacobian
    relaxed, mgda = taken(jacobian)[0], weigh(MGDA(names(count)), jacobian)
    assert (relaxed @ jacobian).norm() <= (mgda @ jacobian).norm() * (1 + 1e-9)
    if (relaxed > 0).all():
        assert torch.allclose(relaxed, mgda, rtol=1e-6, atol=1e-9)
    else:
        assert (mgda == 0).any()


def test_the_least_norm_among_many_solutions():
    """Parallel gradients of one length share alike; with more tasks than dimensions the least sum of squares."""
    a, b, c = JACOBIANS["3x9"]
    alpha, _ = taken(torch.stack([a, a, b, c]))
    assert alpha[0] == pytest.approx(alpha[1].item(), rel=1e-9)
    alone = taken(torch.stack([a, b, c]))[0]
    assert alpha[0].item() * 2 == pytest.approx(alone[0].item(), rel=1e-9)
    jacobian = JACOBIANS["15x2"]
    alpha, notes = taken(jacobian)
    assert notes == (NOTE,)
    norms = jacobian.norm(dim=1)
    conditions = torch.cat([(jacobian / norms[:, None]).T, (1 / norms)[None]])  # on beta = alpha |g|: g = 0, sum 1
    expected = torch.linalg.lstsq(conditions, torch.tensor([0.0, 0.0, 1.0]).double(), driver="gelsd").solution / norms
    assert torch.allclose(alpha, expected, atol=1e-10)


def test_zero_gradients_have_all_the_weight():
    assert taken(JACOBIANS["zero row"])[0].tolist() == [0, 1, 0]
    assert taken(JACOBIANS["zero rows"])[0].tolist() == [0.5, 0, 0.5, 0]
    assert taken(JACOBIANS["all zero"])[0].tolist() == [1 / 3] * 3
    assert taken(FOUR[:1])[0].tolist() == [1]


def test_it_follows_the_losses_scales():
    scaled = torch.tensor([1.0, 10.0, 1.0, 0.1]).double()[:, None] * FOUR
    directions = [g / g.norm() for j in (FOUR, scaled) for g in [taken(j)[0] @ j]]
    assert (directions[0] - directions[1]).norm() > 0.1
    assert (taken(FOUR)[0] - taken(scaled)[0]).abs().max() > 1e-3


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match=r"method\.level=loss: MGDARelaxed works at feature, parameter"):
        MGDARelaxed(names(3), level="loss")
