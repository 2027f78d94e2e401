"""DualProj against its optimality conditions, scipy, torchjd and GEM's promise."""

import numpy as np
import pytest
import scipy.optimize
import torch
import torchjd.aggregation as torchjd
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd.linalg import QuadprogProjector

from drill import build
from gramians import FOUR, JACOBIANS, everywhere, in_full_rank, names, weigh
from mtlbench.methods.dualproj import DualProj


@everywhere
def test_the_update_is_the_projection_of_the_mean(jacobian):
    """v - g_0 = z J with z >= 0, v g_t' >= 0, z_t v g_t' = 0 (Karush, Kuhn and Tucker), in units of the lengths."""
    count, lengths = len(jacobian), jacobian.norm(dim=1)
    weights = weigh(DualProj(names(count)), jacobian)
    added = (weights - 1 / count) * lengths / max(lengths.max(), 1e-300)
    size = added.abs().sum() + 1
    v = weights @ (jacobian / max(lengths.max(), 1e-300))
    products = (jacobian / lengths.clamp(min=1e-300)[:, None]) @ v
    assert (added >= -1e-12 * size).all()
    assert (products >= -1e-9 * size).all()
    assert (products[added > 1e-12 * size].abs() <= 1e-9 * size).all()


@in_full_rank
def test_weights_are_those_of_nonnegative_least_squares(jacobian):
    lengths = jacobian.norm(dim=1)
    units = (jacobian / lengths[:, None]).numpy()
    relative = (jacobian / lengths.max()).numpy()
    z, _ = scipy.optimize.nnls(units.T, -relative.mean(0))
    found = weigh(DualProj(names(len(units))), jacobian) * lengths / lengths.max()
    expected = z + (lengths / lengths.max()).numpy() / len(units)
    tolerance = max(1e-9, 100 * np.linalg.cond(units @ units.T) * np.finfo(float).eps)
    np.testing.assert_allclose(found.numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@in_full_rank
def test_agrees_with_torchjd_to_its_regularisation(jacobian, reduction):
    """torchjd adds 1e-9 to the diagonal here (1e-4 by default): rows of one length, and 1e-6."""
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    if torch.linalg.cond(units @ units.T) > 1e3:
        return
    projector = QuadprogProjector(norm_eps=0.0, reg_eps=1e-9)
    expected = torchjd.DualProj(projector=projector).gramian_weighting(units @ units.T)
    factor = len(units) if reduction == "sum" else 1
    found = weigh(DualProj(names(len(units)), reduction=reduction), units)
    torch.testing.assert_close(found, factor * expected, rtol=1e-5, atol=1e-6 * factor)


def test_preferences_weigh_the_vector_that_is_projected():
    units = FOUR / FOUR.norm(dim=1, keepdim=True)
    p = torch.tensor([1.0, 3.0, 0.5, 2.0]).double()
    projector = QuadprogProjector(norm_eps=0.0, reg_eps=1e-9)
    expected = torchjd.DualProj(pref_vector=p, projector=projector).gramian_weighting(units @ units.T) / 4
    method = build("dualproj", "method.preferences={task0: 1, task1: 3, task2: 0.5, task3: 2}", tasks=names(4))
    torch.testing.assert_close(weigh(method, units), expected, rtol=1e-5, atol=1e-6)
    assert method.preferences.tolist() == p.tolist()  # solving leaves them alone


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=2, max_size=6),
    st.lists(st.integers(-8, 8), min_size=6, max_size=6),
)
def test_no_counterexample_is_found(rows, exponents):
    scales = 10.0 ** torch.tensor(exponents[: len(rows)]).double()
    jacobian = torch.tensor(rows).double() * scales[:, None]
    weights = weigh(DualProj(names(len(rows))), jacobian)
    assert weights.isfinite().all()
    size = (weights[:, None] * jacobian).norm(dim=1).sum()
    assert (jacobian @ (weights @ jacobian) >= -1e-9 * jacobian.norm(dim=1) * size).all()


def test_without_conflict_of_the_mean_it_is_the_mean():
    assert torch.equal(weigh(DualProj(names(4)), JACOBIANS["agreeing"]), torch.full((4,), 0.25).double())


def test_it_is_not_upgrad_when_conflicts_do_not_reach_the_mean():
    """Two gradients in conflict whose mean conflicts with neither: the mean stays as it is."""
    jacobian = torch.tensor([[1.0, 0.2], [-0.2, 1.0], [-0.3, 0.5]]).double()
    assert (jacobian @ jacobian.T).min() < 0
    assert (jacobian @ jacobian.mean(0)).min() > 0
    assert torch.equal(weigh(DualProj(names(3)), jacobian), torch.full((3,), 1 / 3, dtype=torch.float64))


def test_zero_gradients():
    zero_row = JACOBIANS["zero row"]
    found, alone = weigh(DualProj(names(3)), zero_row), weigh(DualProj(names(2)), zero_row[[0, 2]])
    torch.testing.assert_close(3 * found[[0, 2]], 2 * alone, rtol=1e-12, atol=0)
    assert found[1] == pytest.approx(1 / 3)
    assert torch.equal(weigh(DualProj(names(3)), JACOBIANS["all zero"]), torch.full((3,), 1 / 3, dtype=torch.float64))


def test_opposite_gradients_give_the_zero_step():
    for name in ("opposite", "opposite, unequal"):
        jacobian = JACOBIANS[name]
        assert (weigh(DualProj(names(2)), jacobian) @ jacobian).norm() <= 1e-12 * jacobian.norm()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("method.reduction=median", "DualProj takes reduction=mean, sum"),
        ("method.preferences={a: 1, b: 1, d: 1}", "the tasks are a, b, c"),
        ("method.preferences={a: 1, b: -1, c: 1}", r"expects a number preferences.b > 0"),
        ("method.preferences=2", "expects one for each task"),
        ("method.level=layer", "DualProj works at parameter, feature"),
    ],
)
def test_bad_options_are_refused(typed, said):
    with pytest.raises(ValueError, match=said):
        build("dualproj", typed)
