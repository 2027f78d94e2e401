"""CAGrad: exact by the conditions of optimality, and against independent solvers."""

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchjd.aggregation import CAGradWeighting

from gramians import FOUR, JACOBIANS, everywhere, names, weigh
from mtlbench.methods.cagrad import CAGrad
from mtlbench.methods.dualproj import DualProj
from mtlbench.methods.mgda import MGDA

STUCK, NONE = "no direction improves all tasks", "a zero average gradient"


def taken(jacobian: Tensor, c: float = 0.4, **options) -> tuple[Tensor, tuple[str, ...]]:
    """The method's weights of these gradients, and what it noted."""
    method = CAGrad(names(len(jacobian)), c=c, **options)
    return weigh(method, jacobian), method.take_notes()


def check(jacobian: Tensor, c: float, tolerance: float = 1e-9) -> tuple[str, ...]:
    """Asserts that the result is the optimum: feasible, and with no gap to the dual's value at its own multipliers."""
    count, norms = len(jacobian), jacobian.norm(dim=1)
    weights, notes = taken(jacobian, c)
    average = jacobian.mean(0)
    more = weights - 1 / count  # sqrt(phi) / |g_w| times w
    assert (more >= -1e-15).all()
    moved = (more[:, None] * jacobian).sum(0)
    d, radius = average + moved, c * average.norm()
    size = average.norm() + (more * norms).sum()
    if NONE in notes:
        assert d.norm() <= 2e-6 * norms.mean()
        return notes
    assert moved.norm() <= radius + tolerance * size
    improvements, error = jacobian @ d, tolerance * size * norms
    if STUCK in notes:
        worst = 0.0
        alive = norms > 0
        units = jacobian[alive] / norms[alive, None]
        assert not alive.all() or length_of_the_shortest(units) <= 2e-6  # so nothing improves all of them
    else:
        worst = (improvements + error).min().item()
        assert c == 0 or moved.norm() == pytest.approx(radius.item(), rel=tolerance, abs=tolerance * size.item())
    # tasks with weight are the worst ones; by weak duality no d within the radius then improves the worst task more
    assert (improvements + error >= worst).all()
    assert (improvements - error <= worst)[more * norms > 1e-12 * size].all()
    return notes


def length_of_the_shortest(rows: Tensor) -> float:
    """Of the convex combinations, by scipy: the non-negative least-squares solution points to it."""
    stacked = torch.cat([rows, torch.ones(len(rows), 1).double()], 1).T.numpy()
    solution, _ = scipy.optimize.nnls(stacked, np.eye(len(stacked))[-1])
    return (torch.from_numpy(solution / solution.sum()) @ rows).norm().item()


@pytest.mark.parametrize("c", [0.01, 0.4, 0.9, 1.5, 10.0])
@everywhere
def test_it_is_the_optimum(jacobian, c):
    check(jacobian, c)


def test_the_notes_are_where_they_must_be():
    assert [n for n in JACOBIANS if NONE in taken(JACOBIANS[n])[1]] == [
        "opposite",
        "all zero",
        "stationary",
        "nearly opposite",
    ]
    for name in ("zero row", "opposite and others", "stationary in the middle of four", "15x2"):
        assert taken(JACOBIANS[name], 10.0)[1] == (STUCK,)
    for name in ("3x9", "agreeing", "duplicated", "parallel", "1e-8 to 1e8", "40x120"):
        assert taken(JACOBIANS[name])[1] == ()


@pytest.mark.parametrize("c", [0.2, 0.8, 2.0])
@pytest.mark.parametrize("name", ["2x6", "3x2", "3x9", "4x3", "7x21", "agreeing", "opposite and others", "orthogonal"])
def test_scipy_finds_no_better_direction(name, c):
    """The problem as the paper states it (Eq. 1), solved on d itself."""
    jacobian = JACOBIANS[name].numpy()
    average = jacobian.mean(0)
    radius = c * np.linalg.norm(average)
    found = scipy.optimize.minimize(
        lambda x: -x[-1],
        np.append(average, (jacobian @ average).min()),
        method="SLSQP",
        constraints=[
            {"type": "ineq", "fun": lambda x: jacobian @ x[:-1] - x[-1]},
            {"type": "ineq", "fun": lambda x: radius**2 - ((x[:-1] - average) ** 2).sum()},
        ],
        options={"ftol": 1e-13, "maxiter": 1000},
    )
    weights, _ = taken(JACOBIANS[name], c)
    ours = (jacobian @ (weights.numpy() @ jacobian)).min()
    assert ours == pytest.approx(found.x[-1], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["2x6", "3x9", "4x12", "7x21", "15x45", "agreeing", "orthogonal"])
def test_torchjd_has_the_same_weights(name):
    jacobian = JACOBIANS[name]
    expected = CAGradWeighting(c=0.4)(jacobian @ jacobian.T)
    assert torch.allclose(taken(jacobian)[0], expected, rtol=1e-3, atol=1e-4)  # at its solver's tolerance


@pytest.mark.parametrize("c", [0.1, 0.5, 0.99, 3.0])
def test_two_tasks_by_hand(c):
    """For two orthogonal gradients of length 1 the dual's value is 1/2 + c sqrt(1/2) |g_w|: least at equal weights."""
    weights, _ = taken(torch.eye(2).double(), c)
    assert weights.tolist() == pytest.approx([0.5 * (1 + c)] * 2, rel=1e-12)


def test_without_a_radius_it_is_the_average():
    for jacobian in JACOBIANS.values():
        assert taken(jacobian, 0.0)[0].tolist() == [1 / len(jacobian)] * len(jacobian)


def test_with_a_large_radius_it_points_where_mgda_does():
    """The direction of the shortest convex combination, for c to infinity (Section 3.2 of the paper)."""
    d = taken(FOUR, 1e6)[0] @ FOUR
    shortest = weigh(MGDA(names(4)), FOUR) @ FOUR
    assert torch.allclose(d / d.norm(), shortest / shortest.norm(), atol=1e-5)


def test_where_nothing_improves_all_tasks_it_worsens_none():
    """The limit of the formula, and the projection of the average onto the dual cone if that is near enough."""
    jacobian = torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 1.0]]).double()
    assert not taken(jacobian, 0.7)[1]  # nothing within the radius is free of conflict: the formula has an answer
    weights, notes = taken(jacobian, 0.8)
    assert notes == (STUCK,)
    assert torch.allclose(weights @ jacobian, torch.tensor([0.0, 1 / 3]).double(), atol=1e-12)
    projected = weigh(DualProj(names(3)), jacobian) @ jacobian
    assert torch.allclose(weights @ jacobian, projected, atol=1e-12)
    border = math.sqrt(0.5) - 1e-9  # where the conflict ends
    assert torch.allclose(taken(jacobian, border)[0] @ jacobian, projected, atol=1e-6)


def test_a_zero_gradient_keeps_all_others_from_harm():
    jacobian = JACOBIANS["zero row"]
    weights, _ = taken(jacobian, 0.9)
    assert (jacobian @ (weights @ jacobian) >= -1e-12).all()
    assert weights[1] == pytest.approx(1 / 3)
    assert taken(JACOBIANS["all zero"])[0].tolist() == [1 / 3] * 3


def test_rescale_and_reduction():
    plain = taken(FOUR, 0.5)[0]
    assert torch.allclose(taken(FOUR, 0.5, rescale="square")[0], plain / 1.25)
    assert torch.allclose(taken(FOUR, 0.5, rescale="linear")[0], plain / 1.5)
    assert torch.allclose(taken(FOUR, 0.5, reduction="sum")[0], 4 * plain)
    assert taken(FOUR[:1], 0.5)[0].tolist() == pytest.approx([1.5])
    assert taken(FOUR[:1], 0.5, rescale="linear")[0].tolist() == pytest.approx([1.0])


def test_its_bound_and_its_known_lack_of_invariance():
    for c in (0.1, 0.4, 0.9):
        weights, _ = taken(FOUR, c)
        average, d = FOUR.mean(0), weights @ FOUR
        assert (d - average).norm() <= (1 + 1e-12) * c * average.norm()
        more = weights - 0.25
        assert weights.sum().item() == pytest.approx(
            1 + c * (average.norm() / (more / more.sum() @ FOUR).norm()).item(), rel=1e-9
        )
    scaled = torch.tensor([1.0, 10.0, 1.0, 0.1]).double()[:, None] * FOUR
    directions = [g / g.norm() for j in (FOUR, scaled) for g in [taken(j)[0] @ j]]
    assert (directions[0] - directions[1]).norm() > 0.1


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_a_common_factor_changes_nothing(factor):
    for name in ("4x12", "7x21", "opposite and others", "40x40"):
        assert torch.allclose(taken(factor * JACOBIANS[name])[0], taken(JACOBIANS[name])[0], rtol=1e-9)


@settings(deadline=None, derandomize=True, max_examples=150, database=None)
@given(st.integers(1, 8), st.integers(1, 9), st.integers(0, 10_000), st.floats(0, 8), st.floats(0.01, 3))
def test_searching_for_gradients_where_it_is_not_the_optimum(count, size, seed, decades, c):
    rng = torch.Generator().manual_seed(seed)
    jacobian = torch.randn(count, size, generator=rng).double()
    check(10 ** (decades * torch.rand(count, 1, generator=rng).double()) * jacobian, c)


entries = st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0, -3.0])
few = st.tuples(st.integers(1, 7), st.integers(1, 4)).flatmap(
    lambda shape: st.lists(
        st.lists(entries, min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
    )
)


@settings(deadline=None, derandomize=True, max_examples=300, database=None)
@given(few, st.sampled_from([0.1, 0.4, 1.0, 2.0]))
def test_searching_among_ties_duplicates_and_zeros(rows, c):
    check(torch.tensor(rows).double(), c)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"c": -0.1}, r"c=-0\.1: CAGrad expects a number c >= 0"),
        ({"c": math.inf}, r"c=inf: CAGrad expects a number c >= 0"),
        ({"rescale": 1}, r"rescale=1: CAGrad takes rescale=none, square, linear\."),
        ({"reduction": "max"}, r"reduction=max: CAGrad takes reduction=mean, sum\."),
        ({"level": "loss"}, r"method\.level=loss: CAGrad works at parameter, feature"),
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        CAGrad(names(3), **options)
