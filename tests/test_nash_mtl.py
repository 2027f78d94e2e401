"""Nash-MTL: against mpmath, the product that a bargain maximises, and the authors' convex programmes."""

import io

import cvxpy
import mpmath
import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from gramians import FOUR, JACOBIANS, everywhere, in_full_rank, names, weigh
from mtlbench.methods.cosines import lengths_and_cosines
from mtlbench.methods.nash_mtl import NashMTL, programme

NOTE, STOPPED = "no bargaining solution", "a convex programme that rounding stops"


def taken(jacobian: Tensor, **options) -> tuple[Tensor, tuple[str, ...]]:
    method = NashMTL(names(len(jacobian)), **options)
    return weigh(method, jacobian), method.take_notes()


@everywhere
def test_the_equation_holds_or_has_no_solution(jacobian):
    """alpha_t g_t g' = 1 for all tasks with a gradient, relative to what is added up in g_t g'."""
    alpha, notes = taken(jacobian)
    norms = jacobian.norm(dim=1)
    alive = norms > 0
    assert (alpha[~alive] == 0).all()
    if notes:
        assert notes == (NOTE,)
        assert (alpha == 0).all()
        units = (jacobian[alive] / norms[alive, None]).numpy()
        stacked = np.concatenate([units, np.ones((len(units), 1))], 1).T
        found, _ = scipy.optimize.nnls(stacked, np.eye(len(stacked))[-1])
        assert np.linalg.norm(found / found.sum() @ units) < 2e-6
    elif alive.any():
        assert (alpha[alive] > 0).all()
        inner = (jacobian @ jacobian.T)[alive][:, alive]
        error = (inner @ alpha[alive] - 1 / alpha[alive]).abs() / (inner.abs() @ alpha[alive])
        assert error.max() <= 1e-13


@in_full_rank
def test_the_weights_are_those_in_many_digits(jacobian):
    jacobian = jacobian[:15]
    alpha, _ = taken(jacobian)
    if not alpha.any():
        return
    with mpmath.workdps(100):
        g = mpmath.matrix(jacobian.tolist())
        gramian, w = g * g.T, mpmath.matrix(alpha.tolist())
        for _ in range(6):
            slope = gramian + mpmath.diag([1 / x**2 for x in w])
            w = w - mpmath.lu_solve(slope, gramian * w - mpmath.matrix([1 / x for x in w]))
        expected = torch.tensor([float(x) for x in w], dtype=torch.float64)
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    tolerance = max(1e-9, 100 * torch.linalg.cond(units @ units.T).item() * 2.2e-16)
    assert ((alpha - expected).abs() <= tolerance * expected).all()


@pytest.mark.parametrize("name", ["2x6", "3x9", "4x12", "7x21", "agreeing", "orthogonal"])
def test_it_is_the_direction_with_the_largest_product_of_improvements(name):
    """Claim 3.1: of all directions of one length, g maximises sum_t log g_t g'."""
    jacobian = JACOBIANS[name].numpy()
    g = taken(JACOBIANS[name])[0].numpy() @ jacobian
    assert np.linalg.norm(g) == pytest.approx(np.sqrt(len(jacobian)), rel=1e-12)

    def product(x: np.ndarray) -> float:
        return np.log(jacobian @ x / np.linalg.norm(x)).sum()

    rng = np.random.default_rng(0)
    for size in (1e-3, 1e-2, 0.1):
        for _ in range(50):
            near = g + size * np.linalg.norm(g) * rng.standard_normal(len(g))
            if (jacobian @ near > 0).all():
                assert product(near) <= product(g) + 1e-12


@in_full_rank
def test_the_result_does_not_change_with_the_losses_scales(jacobian):
    k = 10 ** (4 * torch.rand(len(jacobian), 1, generator=torch.Generator().manual_seed(3)).double() - 2)
    before, after = taken(jacobian)[0][:, None] * jacobian, taken(k * jacobian)[0][:, None] * (k * jacobian)
    assert (before - after).norm() <= 1e-7 * before.norm()


def test_two_tasks_one_task_and_zero_gradients():
    """For two unit gradients of cosine k both weights are 1 / sqrt(1 + k)."""
    jacobian = torch.tensor([[1.0, 0.0], [-0.6, 0.8]], dtype=torch.float64)
    assert taken(jacobian)[0].tolist() == pytest.approx([1 / np.sqrt(0.4)] * 2, rel=1e-12)
    assert taken(FOUR[:1])[0].item() == pytest.approx(1 / FOUR[0].norm().item())
    alpha, notes = taken(JACOBIANS["zero row"])
    assert notes == ()
    assert torch.equal(alpha[[0, 2]], taken(JACOBIANS["zero row"][[0, 2]])[0])
    assert taken(JACOBIANS["all zero"])[0].tolist() == [0, 0, 0]


# ------------------------------------------------------------------------- the settings of the authors' code


@pytest.mark.parametrize("name", ["2x6", "3x9", "4x12", "7x21", "agreeing"])
def test_a_programme_has_the_minimum_that_cvxpy_finds(name):
    lengths, _, cosines = lengths_and_cosines(JACOBIANS[name] @ JACOBIANS[name].T)
    exact = taken(JACOBIANS[name])[0].numpy() * lengths
    slope = cosines @ lengths + 1 / exact
    found, solved = programme(cosines, slope, 1.5 * exact)
    assert solved
    assert (found * (cosines @ found) >= 1).all()
    y = cvxpy.Variable(len(exact))
    limits = [cvxpy.log(y[t]) + cvxpy.log(cosines[t] @ y) >= 0 for t in range(len(exact))]
    problem = cvxpy.Problem(cvxpy.Minimize(slope @ y), limits)
    problem.solve(solver=cvxpy.CLARABEL)
    assert slope @ found == pytest.approx(problem.value, rel=1e-6)
    assert np.allclose(found, y.value, rtol=1e-3)


@pytest.mark.parametrize("name", ["2x6", "3x9", "4x12", "7x21", "agreeing", "40x120", "zero row"])
def test_the_convex_programmes_come_to_the_solution(name):
    jacobian = JACOBIANS[name]
    exact, (alpha, notes) = taken(jacobian)[0], taken(jacobian, solver="ccp")
    assert notes == ()
    assert torch.allclose(alpha, exact, rtol=1e-2)
    assert (alpha == 0).tolist() == (exact == 0).tolist()


@everywhere
def test_the_convex_programmes_end_in_something_finite(jacobian):
    alpha, notes = taken(jacobian, solver="ccp", iterations=3)
    assert alpha.isfinite().all()
    assert set(notes) <= {NOTE, STOPPED}


def test_the_convex_programmes_begin_with_the_last_weights():
    near = JACOBIANS["4x12"] + 0.01 * JACOBIANS["4x12"].flip(0)
    method = NashMTL(names(4), solver="ccp", iterations=1)
    first = weigh(method, JACOBIANS["4x12"])
    second = weigh(method, near)
    assert not torch.equal(second, weigh(NashMTL(names(4), solver="ccp", iterations=1), near))
    assert not torch.equal(first, second)


def test_weights_stay_between_solutions_while_the_tasks_do():
    method, rng = NashMTL(names(3), update_weights_every=3), torch.Generator().manual_seed(0)
    batches = [torch.randn(3, 5, generator=rng).double() for _ in range(7)]
    found = [weigh(method, jacobian) for jacobian in batches]
    for k in range(7):
        assert torch.equal(found[k], taken(batches[k - k % 3])[0])
    some = batches[0][[0, 2]]
    ones = torch.ones(2).double()
    alone = method.weights(ones, some @ some.T, ["task0", "task2"], None)  # another set of tasks: solved at once
    assert torch.equal(alone, taken(some)[0])


def test_the_result_is_clipped_also_between_solutions():
    assert (taken(FOUR, max_norm=1.0)[0] @ FOUR).norm().item() == pytest.approx(1, rel=1e-12)
    assert torch.equal(taken(FOUR, max_norm=10.0)[0], taken(FOUR)[0])
    method = NashMTL(names(4), update_weights_every=5, max_norm=1.0)
    weigh(method, FOUR)
    for factor in (3.0, 10.0):
        assert (weigh(method, factor * FOUR) @ (factor * FOUR)).norm().item() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("options", [{"update_weights_every": 3}, {"solver": "ccp"}], ids=str)
def test_state_survives_a_checkpoint(options):
    rng = torch.Generator().manual_seed(1)
    batches = [JACOBIANS["4x12"] + 0.1 * torch.randn(4, 12, generator=rng).double() for _ in range(9)]
    method = NashMTL(names(4), **options)
    for jacobian in batches[:4]:
        weigh(method, jacobian)
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    again, fresh = NashMTL(names(4), **options), NashMTL(names(4), **options)
    again.load_state_dict(torch.load(file, weights_only=True))
    expected = [weigh(method, jacobian) for jacobian in batches[4:]]
    assert all(torch.equal(weigh(again, j), e) for j, e in zip(batches[4:], expected, strict=True))
    assert not all(torch.equal(weigh(fresh, j), e) for j, e in zip(batches[4:], expected, strict=True))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"solver": "ecos"}, r"solver=ecos: NashMTL takes solver=exact, ccp\."),
        ({"touches": "heads"}, r"touches=heads: NashMTL takes touches=shared, everything\."),
        ({"iterations": 0}, r"iterations=0: NashMTL expects a number iterations > 0"),
        ({"update_weights_every": 0}, r"update_weights_every=0: NashMTL expects a number update_weights_every > 0"),
        ({"max_norm": -1.0}, r"max_norm=-1\.0: NashMTL expects a number max_norm > 0"),
        ({"level": "loss"}, r"method\.level=loss: NashMTL works at parameter, feature"),
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        NashMTL(names(2), **options)
