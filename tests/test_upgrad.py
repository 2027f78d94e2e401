"""UPGrad against its optimality conditions, scipy, torchjd, PCGrad and its paper's promises."""

import numpy as np
import pytest
import scipy.optimize
import torch
import torchjd.aggregation as torchjd
from hypothesis import given, settings
from hypothesis import strategies as st
from torchjd.linalg import QuadprogProjector

from drill import build
from gramians import FOUR, FULL, JACOBIANS, everywhere, in_full_rank, names, weigh
from mtlbench.methods.cosines import lengths_and_cosines
from mtlbench.methods.pcgrad import PCGrad
from mtlbench.methods.upgrad import UPGrad, lifted


def cone_problems(jacobian):
    """Cosines [A, A]; (products [A], size) of each gradient that is not zero, as a unit vector, and of their sum."""
    lengths, alive, cosines = lengths_and_cosines(jacobian @ jacobian.T)
    share = lengths[alive] / max(lengths.max(), 1e-300)  # of the longest
    return cosines, [*((row, 1.0) for row in cosines), (cosines @ share, share.sum())]


@everywhere
def test_projections_satisfy_the_optimality_conditions(jacobian):
    """z >= 0, v = K z + products >= 0, z v = 0 (Karush, Kuhn and Tucker), relative to what is added up."""
    cosines, problems = cone_problems(jacobian)
    for products, scale in problems if len(cosines) else []:
        z = lifted(cosines, products, scale)
        v = cosines @ z + products
        size = scale + z.sum()
        assert (z >= 0).all()
        assert (v >= -1e-9 * size).all()
        assert (np.abs(v[z > 0]) <= 1e-9 * size).all()


@in_full_rank
def test_weights_are_those_of_nonnegative_least_squares(jacobian):
    """scipy's NNLS on the unit gradients: min |u_t + z U| over z >= 0 is the dual of the projection."""
    lengths = jacobian.norm(dim=1)
    units = (jacobian / lengths[:, None]).numpy()
    expected = np.zeros(len(units))
    for t in range(len(units)):
        z, _ = scipy.optimize.nnls(units.T, -units[t])
        row = z + np.eye(len(units))[t]
        expected += lengths[t].item() * row / lengths.numpy() / len(units)
    found = weigh(UPGrad(names(len(units))), jacobian).numpy()
    tolerance = max(1e-9, 100 * np.linalg.cond(units @ units.T) * np.finfo(float).eps)
    np.testing.assert_allclose(found * lengths.numpy(), expected * lengths.numpy(), rtol=tolerance, atol=tolerance)


def test_enough_gradients_have_unique_weights():
    assert len(FULL) >= 15
    assert len(JACOBIANS) >= 40


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@in_full_rank
def test_agrees_with_torchjd_to_its_regularisation(jacobian, reduction):
    """torchjd adds 1e-9 to the diagonal here (1e-4 by default): rows of one length, and 1e-6."""
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    if torch.linalg.cond(units @ units.T) > 1e3:
        return
    projector = QuadprogProjector(norm_eps=0.0, reg_eps=1e-9)
    expected = torchjd.UPGrad(projector=projector).gramian_weighting(units @ units.T)
    factor = len(units) if reduction == "sum" else 1
    found = weigh(UPGrad(names(len(units)), reduction=reduction), units)
    torch.testing.assert_close(found, factor * expected, rtol=1e-5, atol=1e-6 * factor)


@everywhere
def test_no_loss_grows_to_first_order(jacobian):
    """Theorem of the paper: the update does not conflict with any gradient."""
    gradient = weigh(UPGrad(names(len(jacobian))), jacobian) @ jacobian
    size = (weigh(UPGrad(names(len(jacobian))), jacobian).abs()[:, None] * jacobian).norm(dim=1).sum()
    products = jacobian @ gradient
    assert (products >= -1e-9 * jacobian.norm(dim=1) * size).all()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.integers(2, 6).flatmap(
        lambda count: st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=count, max_size=count)
    ),
    st.lists(st.integers(-8, 8), min_size=6, max_size=6),
)
def test_no_counterexample_is_found(rows, exponents):
    scales = 10.0 ** torch.tensor(exponents[: len(rows)]).double()
    jacobian = torch.tensor(rows).double() * scales[:, None]
    weights = weigh(UPGrad(names(len(rows))), jacobian)
    assert weights.isfinite().all()
    assert (weights >= 0).all()
    gradient = weights @ jacobian
    size = (weights[:, None] * jacobian).norm(dim=1).sum()
    assert (jacobian @ gradient >= -1e-9 * jacobian.norm(dim=1) * size).all()


@pytest.mark.parametrize("name", [n for n, j in JACOBIANS.items() if len(j) == 2])
def test_two_tasks_are_half_of_pcgrad(name):
    jacobian = JACOBIANS[name]
    twice = 2 * weigh(UPGrad(names(2)), jacobian)
    size = (twice[:, None] * jacobian).norm().item()  # what cancels
    expected = weigh(PCGrad(names(2)), jacobian) @ jacobian
    torch.testing.assert_close(twice @ jacobian, expected, rtol=1e-9, atol=1e-14 * size)


def test_without_conflict_it_is_the_mean():
    assert torch.equal(weigh(UPGrad(names(4)), JACOBIANS["agreeing"]), torch.full((4,), 0.25).double())


def test_scaling_a_loss_scales_its_projection_alone():
    """sum_t pi(s_t g_t) = sum_t s_t pi(g_t): the cone is that of the directions."""
    scales = torch.tensor([1.0, 1e3, 1e-4, 7.0]).double()
    parts = [
        (weigh(UPGrad(names(4), preferences=dict.fromkeys(names(4), 1.0) | {f"task{t}": 2.0}), FOUR) @ FOUR)
        - weigh(UPGrad(names(4)), FOUR) @ FOUR
        for t in range(4)
    ]  # pi(g_t) / T
    scaled = FOUR * scales[:, None]
    torch.testing.assert_close(
        weigh(UPGrad(names(4)), scaled) @ scaled, scales @ torch.stack(parts), rtol=1e-9, atol=1e-9
    )


def test_preferences_are_torchjds():
    units = FOUR / FOUR.norm(dim=1, keepdim=True)
    p = torch.tensor([1.0, 3.0, 0.5, 2.0]).double()
    projector = QuadprogProjector(norm_eps=0.0, reg_eps=1e-9)
    expected = torchjd.UPGrad(pref_vector=p, projector=projector).gramian_weighting(units @ units.T)
    method = build("upgrad", "method.preferences={task0: 1, task1: 3, task2: 0.5, task3: 2}", tasks=names(4))
    torch.testing.assert_close(weigh(method, units), expected / 4, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(method.preferences, p.numpy())


def test_an_absent_tasks_preference_is_left_out():
    preferences = {"a": 5.0, "b": 1.0, "c": 2.0}
    one = UPGrad(["a", "b", "c"], preferences=preferences)
    two = UPGrad(["b", "c"], preferences={"b": 1.0, "c": 2.0})
    jacobian = FOUR[1:3]
    found = one.weights(torch.ones(2).double(), jacobian @ jacobian.T, ["b", "c"], None)
    assert torch.equal(found, weigh(two, jacobian))
    assert torch.equal(torch.from_numpy(one.preferences), torch.tensor([5.0, 1.0, 2.0]).double())


def test_zero_gradients():
    zero_row = JACOBIANS["zero row"]
    found = weigh(UPGrad(names(3)), zero_row)
    alone = weigh(UPGrad(names(2)), zero_row[[0, 2]])
    torch.testing.assert_close(3 * found[[0, 2]], 2 * alone, rtol=1e-12, atol=0)
    assert found[1] == pytest.approx(1 / 3)
    assert torch.equal(weigh(UPGrad(names(3)), JACOBIANS["all zero"]), torch.full((3,), 1 / 3, dtype=torch.float64))


def test_opposite_gradients_give_the_zero_step():
    jacobian = JACOBIANS["opposite"]
    assert (weigh(UPGrad(names(2)), jacobian) @ jacobian).norm() <= 1e-12 * jacobian.norm()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("method.reduction=median", "UPGrad takes reduction=mean, sum"),
        ("method.preferences={a: 1, b: 1}", "Name each once"),
        ("method.preferences={a: 1, b: 1, d: 1}", "the tasks are a, b, c"),
        ("method.preferences={a: 1, b: 0, c: 1}", r"expects a number preferences.b > 0"),
        ("method.preferences=2", "expects one for each task"),
        ("method.level=loss", "UPGrad works at parameter, feature"),
    ],
)
def test_bad_options_are_refused(typed, said):
    with pytest.raises(Exception, match=said):
        build("upgrad", typed)
