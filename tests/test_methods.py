"""Weighting methods: exact against independent solvers, and what their papers promise."""

import copy
import itertools
import math
from collections.abc import Sequence
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import scipy.optimize
import torch
import torchjd.aggregation as torchjd
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from drill import build
from gramians import FOUR, FOUR_LOSSES, FULL, JACOBIANS, everywhere, in_full_rank, names, weigh
from mtlbench.methods.hybrid import Hybrid
from mtlbench.methods.imtl import IMTL
from mtlbench.methods.imtl_g import IMTLG
from mtlbench.methods.imtl_l import IMTLL
from mtlbench.methods.mgda import MGDA, between_two, frank_wolfe, minimum_norm
from mtlbench.methods.pcgrad import PCGrad
from mtlbench.methods.uncertainty import Uncertainty
from mtlbench.weighting import Weighting, overrides


def weights_of(method: Weighting, losses: Tensor, jacobian: Tensor, tasks: Sequence[str] | None = None) -> Tensor:
    """u = C' w [T]: what multiplies the raw shared gradients; a fresh generator for each call."""
    tasks = method.tasks if tasks is None else tasks
    rng = torch.Generator().manual_seed(5)
    slope = torch.autograd.functional.jacobian(lambda x: method.transform(x, tasks, rng), losses)
    if method.level == "loss":
        return slope.sum(0)
    transformed = method.transform(losses, tasks, rng).detach()
    balanced = slope @ jacobian
    return slope.T @ method.weights(transformed, balanced @ balanced.T, tasks, rng)


def test_there_are_enough_gradients_to_try():
    assert len(JACOBIANS) >= 40
    assert len(FULL) >= 15
    cosines = (u := FOUR / FOUR.norm(dim=1, keepdim=True)) @ u.T
    assert (cosines - torch.eye(4)).min() < -0.5


# ---------------------------------------------------------------------------------------------- IMTL-G


@in_full_rank
def test_imtl_g_has_equal_projections_and_sum_one(jacobian):
    alpha = weigh(IMTLG(names(len(jacobian))), jacobian)
    assert alpha.sum() == pytest.approx(1, abs=1e-9)
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    parts = alpha[:, None] * jacobian
    projections = units @ parts.sum(0)
    assert (projections - projections.mean()).abs().max() <= 1e-9 * parts.norm(dim=1).sum()


@in_full_rank
def test_imtl_g_is_the_papers_closed_form(jacobian):
    with mpmath.workdps(60):
        g = mpmath.matrix(jacobian.tolist())
        rows = [g[t, :] for t in range(g.rows)]
        units = [row / mpmath.norm(row) for row in rows]
        size = len(rows) - 1
        u = mpmath.matrix(size, g.cols)
        d = mpmath.matrix(size, g.cols)
        for t in range(size):
            u[t, :], d[t, :] = units[0] - units[t + 1], rows[0] - rows[t + 1]
        rest = mpmath.lu_solve((d * u.T).T, (rows[0] * u.T).T)  # Eq. 2
        expected = torch.tensor([float(1 - mpmath.fsum(rest)), *map(float, rest)], dtype=torch.float64)
    alpha = weigh(IMTLG(names(len(jacobian))), jacobian)
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    condition = torch.linalg.cond(units @ units.T).item()
    cancelled = (alpha.abs().sum() / alpha.sum().abs()).item()  # how much the sum of 1 hides
    tolerance = max(1e-9, 100 * condition * cancelled * 2.2e-16)
    assert (alpha - expected).abs().max() <= tolerance * expected.abs().max()


@in_full_rank
def test_imtl_g_keeps_its_direction_when_losses_are_scaled(jacobian):
    """Theorem 2: g' = lambda g, lambda = 1 / sum_t alpha_t / k_t."""
    method = IMTLG(names(len(jacobian)))
    k = 10 ** (4 * torch.rand(len(jacobian), 1, generator=torch.Generator().manual_seed(3)).double() - 2)
    alpha, scaled = weigh(method, jacobian), weigh(method, k * jacobian)
    g = alpha @ jacobian
    expected = g / (alpha / k[:, 0]).sum()
    assert (scaled @ (k * jacobian) - expected).norm() <= 1e-7 * expected.norm()
    assert ((scaled - alpha).abs() > 1e-3 * alpha.abs()).any()  # the weights themselves do change


def test_imtl_g_equals_gradnorms_goal_at_equal_angles():
    """Theorem 1 and Lemma 3: alpha_t is proportional to 1 / |g_t|."""
    units = torch.linalg.cholesky(0.7 * torch.eye(5).double() + 0.3)
    norms = torch.tensor([0.1, 1.0, 3.0, 10.0, 0.5]).double()
    alpha = weigh(IMTLG(names(5)), norms[:, None] * units)
    assert torch.allclose(alpha, (1 / norms) / (1 / norms).sum(), rtol=1e-12)


@in_full_rank
def test_imtl_g_agrees_with_torchjd(jacobian):
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    expected = torchjd.IMTLG().gramian_weighting(units @ units.T)  # its pinv needs rows of like length
    found = weigh(IMTLG(names(len(jacobian))), units)
    assert (found - expected).norm() <= 1e-6 * expected.norm()


def test_imtl_g_leaves_out_a_zero_gradient():
    a, b, c = JACOBIANS["3x9"]
    with_it = weigh(IMTLG(names(4)), torch.stack([a, b, torch.zeros_like(a), c]))
    alone = weigh(IMTLG(names(3)), torch.stack([a, b, c]))
    assert with_it[2] == 0
    assert torch.allclose(with_it[[0, 1, 3]], alone, rtol=1e-12)
    assert weigh(IMTLG(names(3)), torch.zeros(3, 5).double()).tolist() == [1 / 3] * 3
    assert weigh(IMTLG(names(2)), JACOBIANS["one alive"]).tolist() == [0, 1]


def test_imtl_g_shares_a_direction_among_parallel_gradients():
    a, b, c = JACOBIANS["3x9"]
    alpha = weigh(IMTLG(names(4)), torch.stack([a, 5 * a, b, c]))
    assert alpha[0] == pytest.approx(5 * alpha[1].item(), rel=1e-9)  # equal parts alpha_t g_t
    g = alpha @ torch.stack([a, 5 * a, b, c])
    without = weigh(IMTLG(names(3)), torch.stack([a, b, c])) @ torch.stack([a, b, c])
    assert torch.allclose(g / g.norm(), without / without.norm(), atol=1e-9)
    assert torch.allclose(weigh(IMTLG(names(3)), JACOBIANS["all parallel"]), torch.tensor([6, 3, 2]).double() / 11)


@pytest.mark.parametrize("name", ["opposite", "opposite, unequal", "3x2", "stationary", "4x2 scaled", "40x2"])
def test_imtl_g_where_only_zero_has_equal_projections(name):
    jacobian = JACOBIANS[name]
    alpha = weigh(IMTLG(names(len(jacobian))), jacobian)
    parts = alpha[:, None] * jacobian
    assert parts.sum(0).norm() <= 1e-7 * parts.norm(dim=1).sum()
    assert alpha.sum() == pytest.approx(1, abs=1e-9)


def test_imtl_g_takes_opposite_gradients_as_the_paper_does():
    a = JACOBIANS["opposite, unequal"][0]
    alpha = weigh(IMTLG(names(2)), torch.stack([a, -3 * a]))
    assert torch.allclose(alpha, torch.tensor([0.75, 0.25]).double(), rtol=1e-12)  # Eq. 2 by hand


def singular() -> Tensor:
    """Three gradients for which the weights of Eq. 2 would have the sum 0: D U' is singular."""
    units = torch.linalg.cholesky(torch.tensor([[1, 0.8, 0.8], [0.8, 1, 0.4], [0.8, 0.4, 1]]).double())
    beta = torch.linalg.solve(units @ units.T, torch.ones(3).double())
    assert beta[0] < 0 < beta[1]
    lengths = torch.stack([-beta[0] / (beta[1] + beta[2]), torch.tensor(1.0), torch.tensor(1.0)]).double()
    return lengths[:, None] * units


def test_imtl_g_without_weights_of_sum_one():
    jacobian = singular()
    difference = jacobian[0] - jacobian[1:]
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    assert abs(torch.linalg.det(difference @ (units[0] - units[1:]).T)) < 1e-12
    alpha = weigh(IMTLG(names(3)), jacobian)
    projections = units @ (alpha @ jacobian)
    assert alpha.abs().sum() == pytest.approx(1)
    assert projections.min() > 0.01
    assert projections.max() - projections.min() < 1e-12


def test_imtl_g_points_uphill_where_the_papers_sum_is_negative():
    jacobian = singular()
    jacobian[0] /= 2  # the task with the negative share is weighed more
    alpha = weigh(IMTLG(names(3)), jacobian)
    assert alpha.sum() == pytest.approx(1)
    assert (jacobian @ (alpha @ jacobian)).max() < 0


# ------------------------------------------------------------------------------------------------ MGDA


def violation(jacobian: Tensor, alpha: Tensor) -> float:
    """By how much alpha misses the optimality conditions g g_t' >= |g|^2, relative to the lengths involved."""
    gramian, norms = jacobian @ jacobian.T, jacobian.norm(dim=1)
    below = (alpha @ gramian @ alpha - gramian @ alpha) / (norms * (alpha * norms).sum())
    return below[norms > 0].max().item() if (alpha * norms).sum() > 0 else 0.0


def convex(alpha: Tensor) -> bool:
    return bool((alpha >= 0).all()) and alpha.sum().item() == pytest.approx(1, abs=1e-12)


@everywhere
def test_mgda_meets_the_optimality_conditions(jacobian):
    alpha = weigh(MGDA(names(len(jacobian))), jacobian)
    assert convex(alpha)
    assert violation(jacobian, alpha) <= 1e-12


def solve(system: list[list[Fraction]], right: list[Fraction]) -> list[Fraction] | None:
    """Gauss-Jordan in rational arithmetic; None if the system is singular."""
    rows = [[*row, value] for row, value in zip(system, right, strict=True)]
    for k in range(len(rows)):
        pivot = next((i for i in range(k, len(rows)) if rows[i][k]), None)
        if pivot is None:
            return None
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [x / rows[k][k] for x in rows[k]]
        for i in range(len(rows)):
            if i != k:
                rows[i] = [x - rows[i][k] * y for x, y in zip(rows[i], rows[k], strict=True)]
    return [row[-1] for row in rows]


def exact_minimum(jacobian: Tensor) -> Fraction:
    """The least squared norm, in rational arithmetic, by trying every set of tasks with weight."""
    rows = [[Fraction(x) for x in row] for row in jacobian.tolist()]
    gramian = [[sum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]
    found = []
    for size in range(1, len(rows) + 1):
        for active in itertools.combinations(range(len(rows)), size):
            system = [[*(gramian[i][j] for j in active), Fraction(1)] for i in active]
            solution = solve([*system, [Fraction(1)] * size + [Fraction(0)]], [Fraction(0)] * size + [Fraction(1)])
            # a singular system is of an affinely dependent set, of which a smaller one has the same minimum
            if solution is not None and min(solution[:size]) >= 0:
                found.append(-solution[size])
    return min(found)


@pytest.mark.parametrize("name", [n for n, j in JACOBIANS.items() if len(j) <= 5 and n != "all zero"])
def test_mgda_norm_is_the_least_of_all_supports(name):
    jacobian = JACOBIANS[name]
    alpha = weigh(MGDA(names(len(jacobian))), jacobian)
    norms = jacobian.norm(dim=1)
    found = (alpha @ jacobian).square().sum().item()
    scale = (alpha * norms).sum().item() ** 2
    assert abs(found - float(exact_minimum(jacobian))) <= 1e-10 * max(scale, norms.min().item() ** 2)


@in_full_rank
def test_mgda_agrees_with_scipy(jacobian):
    jacobian = jacobian / jacobian.norm(dim=1).min() if jacobian.norm(dim=1).max() < 1e3 else FOUR
    stacked = torch.cat([jacobian, torch.ones(len(jacobian), 1).double()], dim=1)
    right = torch.zeros(stacked.shape[1]).double()
    right[-1] = 1
    solution, _ = scipy.optimize.nnls(stacked.T.numpy(), right.numpy())  # its direction is the minimum-norm point's
    expected = torch.from_numpy(solution / solution.sum())
    alpha = weigh(MGDA(names(len(jacobian))), jacobian)
    assert (alpha - expected).abs().max() <= 1e-8


@pytest.mark.parametrize("name", ["3x9", "4x4", "7x21", "15x15", "agreeing"])
def test_mgda_is_no_longer_than_what_slsqp_finds(name):
    jacobian = JACOBIANS[name].numpy()
    gramian = jacobian @ jacobian.T
    start = np.full(len(gramian), 1 / len(gramian))
    found = scipy.optimize.minimize(
        lambda x: x @ gramian @ x,
        start,
        jac=lambda x: 2 * gramian @ x,
        method="SLSQP",
        bounds=[(0, 1)] * len(start),
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    alpha = minimum_norm(gramian)
    assert alpha @ gramian @ alpha <= found.fun + 1e-12
    assert found.fun == pytest.approx(alpha @ gramian @ alpha, rel=1e-5)


@in_full_rank
def test_mgda_agrees_with_torchjd(jacobian):
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    expected = torchjd.MGDA(epsilon=1e-9, max_iters=3000).gramian_weighting(units @ units.T)
    found = weigh(MGDA(names(len(units))), units)
    lengths = [(alpha @ units).norm().item() for alpha in (found, expected)]
    assert lengths[0] <= lengths[1] + 1e-12
    assert lengths[1] - lengths[0] <= 1e-2  # Frank-Wolfe is slow


@in_full_rank
def test_mgda_descends_for_every_task(jacobian):
    """Desideri 2012: g g_t' >= |g|^2, so the step lowers all losses."""
    parts = weigh(MGDA(names(len(jacobian))), jacobian)[:, None] * jacobian
    g, norms = parts.sum(0), jacobian.norm(dim=1)
    assert ((g @ g - jacobian @ g) / (norms * parts.norm(dim=1).sum())).max() <= 1e-12


def test_the_shortest_vector_between_two():
    assert between_two(1.0, 2.0, 9.0) == (1.0, 0.0)  # a'b >= a'a
    assert between_two(9.0, 2.0, 1.0) == (0.0, 1.0)  # a'b >= b'b
    assert between_two(1.0, 0.0, 3.0) == (0.75, 0.25)  # (b - a)'b / |a - b|^2
    assert between_two(4.0, -2.0, 1.0) == (1 / 3, 2 / 3)


def test_mgda_gives_all_weight_to_zero_gradients():
    assert weigh(MGDA(names(3)), JACOBIANS["zero row"]).tolist() == [0, 1, 0]
    assert weigh(MGDA(names(4)), JACOBIANS["zero rows"]).tolist() == [0.5, 0, 0.5, 0]
    assert weigh(MGDA(names(3)), JACOBIANS["all zero"]).tolist() == [1 / 3] * 3
    assert weigh(MGDA(names(2), solver="frank_wolfe"), JACOBIANS["one alive"]).tolist() == [1, 0]


def frank_wolfe_on_vectors(jacobian: Tensor, iterations: int) -> Tensor:
    """Algorithm 2, lines 6 to 15, on the vectors themselves."""
    alpha = torch.full((len(jacobian),), 1 / len(jacobian)).double()
    for _ in range(iterations):
        now = alpha @ jacobian
        t = int((jacobian @ now).argmin())
        towards = jacobian[t]
        line = now - towards
        gamma = ((line @ now) / (line @ line)).clamp(0, 1)  # arg min |(1 - gamma) now + gamma towards|
        alpha = (1 - gamma) * alpha + gamma * torch.eye(len(jacobian)).double()[t]
    return alpha


@pytest.mark.parametrize("name", ["2x6", "3x9", "4x4", "7x21", "15x15", "agreeing", "stationary"])
def test_frank_wolfe_is_the_papers_algorithm(name):
    jacobian = JACOBIANS[name]
    for iterations in (1, 2, 5, 30):
        found = weigh(MGDA(names(len(jacobian)), solver="frank_wolfe", iterations=iterations, stop=1e-300), jacobian)
        assert torch.allclose(found, frank_wolfe_on_vectors(jacobian, iterations), atol=1e-9)
        assert convex(found)


def test_frank_wolfe_comes_to_the_minimum_and_stops_as_told():
    gramian = (FOUR @ FOUR.T).numpy()
    exact, long = minimum_norm(gramian), frank_wolfe(gramian, 20000, 1e-12)
    assert long @ gramian @ long == pytest.approx(exact @ gramian @ exact, rel=1e-3)
    assert (frank_wolfe(gramian, 1, 1e-12) == frank_wolfe(gramian, 10, 1.0)).all()
    assert not (frank_wolfe(gramian, 2, 1e-12) == frank_wolfe(gramian, 10, 1e-12)).all()


@pytest.mark.parametrize("solver", ["exact", "frank_wolfe"])
@pytest.mark.parametrize("normalize", ["none", "l2", "loss", "loss+"])
def test_mgda_divides_gradients_before_the_problem_is_solved(solver, normalize):
    norms = FOUR.norm(dim=1)
    divisor = {"none": norms / norms, "l2": norms, "loss": FOUR_LOSSES, "loss+": FOUR_LOSSES * norms}[normalize]
    found = weigh(MGDA(names(4), solver=solver, normalize=normalize), FOUR, FOUR_LOSSES)
    expected = weigh(MGDA(names(4), solver=solver), FOUR / divisor[:, None])
    assert torch.allclose(found, expected, atol=1e-10)


def test_mgda_normalizations_differ_and_do_not_divide_by_zero():
    found = [weigh(MGDA(names(4), normalize=n), FOUR, FOUR_LOSSES) for n in ("none", "l2", "loss", "loss+")]
    assert all((a - b).abs().max() > 1e-3 for a, b in itertools.combinations(found, 2))
    losses = torch.tensor([1.0, 0.0, 2.0]).double()
    for normalize in ("l2", "loss", "loss+"):
        assert weigh(MGDA(names(3), normalize=normalize), JACOBIANS["zero row"], losses).tolist() == [0, 1, 0]


def test_mgda_refuses_to_divide_by_a_negative_loss():
    with pytest.raises(ValueError, match=r"normalize=loss divides by .* task1 is -0\.5\. Type method\.normalize=l2"):
        weigh(MGDA(names(2), normalize="loss"), JACOBIANS["2x2"], torch.tensor([1.0, -0.5]).double())


def test_mgda_follows_the_losses_scales():
    """Known: it is not invariant; normalize=l2 makes its weights so."""
    scaled = FOUR * torch.tensor([1.0, 10.0, 1.0, 0.1]).double()[:, None]
    directions = [g / g.norm() for j in (FOUR, scaled) for g in [weigh(MGDA(names(4)), j) @ j]]
    assert (directions[0] - directions[1]).norm() > 0.1
    method = MGDA(names(4), normalize="l2")
    assert torch.allclose(weigh(method, FOUR), weigh(method, scaled), atol=1e-10)


# ---------------------------------------------------------------------------------------------- PCGrad


def pcgrad_on_vectors(jacobian: Tensor, orders: Sequence[Sequence[int]], own: bool = False) -> Tensor:
    """Algorithm 1 of Yu et al. (2020), on the vectors themselves."""
    total = torch.zeros(jacobian.shape[1]).double()
    for i, order in enumerate(orders):
        projected = jacobian[i].clone()
        for j in order:
            if j == i and not own:
                continue
            inner = projected @ jacobian[j]
            if inner < 0:
                projected -= inner / (jacobian[j] @ jacobian[j]) * jacobian[j]
        total += projected
    return total


@pytest.mark.parametrize("order", ["per_task", "shared", "code"])
@everywhere
def test_pcgrad_is_the_literal_algorithm(jacobian, order):
    count = len(jacobian)
    rng = torch.Generator().manual_seed(11)
    if order == "per_task":
        orders = [torch.randperm(count, generator=rng).tolist() for _ in range(count)]
    else:
        orders = [torch.randperm(count, generator=rng).tolist() if order == "shared" else list(range(count))] * count
    method = PCGrad(names(count), order=order)
    found = weigh(method, jacobian, rng=torch.Generator().manual_seed(11)) @ jacobian
    expected = pcgrad_on_vectors(jacobian, orders, own=order == "code")
    # a product that is zero to rounding may be projected or not: the same to rounding of the vectors
    assert (found - expected).norm() <= 1e-6 * jacobian.norm(dim=1).max()


def test_pcgrad_projects_onto_the_original_gradients():
    jacobian = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]]).double()
    found = weigh(PCGrad(names(3)), jacobian) @ jacobian  # without a generator: in the listed order
    assert torch.allclose(found, pcgrad_on_vectors(jacobian, [[0, 1, 2]] * 3))
    assert torch.allclose(found, torch.tensor([-1.0, 0.0]).double())  # by hand


def test_pcgrad_orders_differ_and_come_from_the_generator():
    def run(order, seed):
        return weigh(PCGrad(names(15), order=order), JACOBIANS["15x2"], rng=torch.Generator().manual_seed(seed))

    assert torch.equal(run("per_task", 1), run("per_task", 1))
    assert not torch.equal(run("per_task", 1), run("per_task", 2))
    assert not torch.equal(run("per_task", 1), run("shared", 1))
    assert torch.equal(run("code", 1), run("code", 2))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    run("per_task", 1)
    assert torch.equal(torch.get_rng_state(), before)  # torch's own generator is left alone


def test_pcgrad_without_conflict_adds_and_means():
    jacobian = JACOBIANS["agreeing"]
    assert weigh(PCGrad(names(4)), jacobian).tolist() == [1.0] * 4
    assert weigh(PCGrad(names(4), reduction="mean"), jacobian).tolist() == [0.25] * 4
    both = [weigh(PCGrad(names(4), reduction=r), FOUR) for r in ("sum", "mean")]
    assert torch.allclose(both[0], 4 * both[1])
    assert both[0].sum() > 4


@pytest.mark.parametrize("name", ["2x1", "2x2", "2x6", "opposite, unequal", "nearly opposite"])
def test_pcgrad_of_two_tasks_conflicts_with_neither(name):
    jacobian = JACOBIANS[name]
    g = weigh(PCGrad(names(2)), jacobian) @ jacobian
    assert (jacobian @ g).min() >= -1e-12 * jacobian.norm(dim=1).max() ** 2


@pytest.mark.parametrize("name", ["2x6", "3x9", "4x2", "7x7", "15x2", "40x40"])
def test_pcgrad_agrees_with_torchjd(name, monkeypatch):
    jacobian = JACOBIANS[name]
    monkeypatch.setattr(torch, "randperm", lambda count, **_: torch.arange(count))
    expected = torchjd.PCGrad().gramian_weighting(jacobian @ jacobian.T)
    assert torch.allclose(weigh(PCGrad(names(len(jacobian))), jacobian), expected, rtol=1e-9)


# -------------------------------------------------------------------------------------------- losses

FORM = {  # M, and where it is least in sigma, of a loss L
    "gaussian": (lambda loss, sigma: loss / (2 * sigma**2) + math.log(sigma), lambda loss: math.sqrt(loss), 0.5),
    "laplace": (lambda loss, sigma: loss / sigma + math.log(sigma), lambda loss: loss, 1.0),
    "softmax": (lambda loss, sigma: loss / sigma**2 + math.log(sigma), lambda loss: math.sqrt(2 * loss), 0.5),
}
LEARNED = {  # sigma from what is learned, and back
    "log_variance": (lambda s: math.exp(s / 2), lambda sigma: 2 * math.log(sigma)),
    "log_sigma": (math.exp, math.log),
    "sigma": (abs, lambda sigma: sigma),
}
combinations = pytest.mark.parametrize(("form", "parametrisation"), list(itertools.product(FORM, LEARNED)))


@combinations
def test_uncertainty_value_and_gradients(form, parametrisation):
    value = FORM[form][0]
    to_sigma, from_sigma = LEARNED[parametrisation]
    sigmas, losses = (0.3, 1.0, 4.0), torch.tensor([0.2, 3.0, 50.0]).double().requires_grad_()
    method = Uncertainty(names(3), form, parametrisation)
    for parameter, sigma in zip(method.uncertainty, sigmas, strict=True):
        assert parameter.item() == pytest.approx(from_sigma(1.0))
        parameter.data.fill_(from_sigma(sigma))
    found = method.transform(losses, method.tasks, None)
    assert found.tolist() == pytest.approx([value(l, s) for l, s in zip(losses.tolist(), sigmas, strict=True)])
    found.sum().backward()
    for i, loss in enumerate(losses.tolist()):
        assert losses.grad[i].item() == pytest.approx(value(1.0, sigmas[i]) - value(0.0, sigmas[i]))
        s, h = from_sigma(sigmas[i]), 1e-6
        slope = (value(loss, to_sigma(s + h)) - value(loss, to_sigma(s - h))) / (2 * h)
        assert method.uncertainty[i].grad.item() == pytest.approx(slope, rel=1e-5, abs=1e-7)


@combinations
def test_uncertainty_is_at_rest_at_the_likeliest_sigma(form, parametrisation):
    _, best, scaled = FORM[form]
    losses = torch.tensor([1e-3, 0.7, 90.0]).double()
    method = Uncertainty(names(3), form, parametrisation)
    for parameter, loss in zip(method.uncertainty, losses.tolist(), strict=True):
        parameter.data.fill_(LEARNED[parametrisation][1](best(loss)))
    total = method.transform(losses, method.tasks, None).sum()
    total.backward()
    assert all(abs(p.grad.item() * p.abs().clamp(min=1).item()) < 1e-10 / losses.min() for p in method.uncertainty)
    assert method.log_sigma(method.tasks).exp().tolist() == pytest.approx([best(l) for l in losses.tolist()])
    weights = weights_of(method, losses, torch.eye(3).double())
    assert (weights * losses).tolist() == pytest.approx([scaled] * 3)  # so the losses' scales do not matter
    moved = copy.deepcopy(method)
    for parameter in moved.uncertainty:
        parameter.data *= 1.1
    assert moved.transform(losses, method.tasks, None).sum() > total


def test_uncertainty_of_each_task_its_own_form():
    method = build("uncertainty", "method.form={a: softmax, b: laplace, c: gaussian}", "method.initial_sigma=2.0")
    weights = weights_of(method, torch.tensor([1.0, 2.0, 3.0]).double(), torch.eye(3).double())
    assert weights.tolist() == pytest.approx([1 / 4, 1 / 2, 1 / 8])
    assert weights_of(method, torch.ones(2).double(), torch.eye(2).double(), ("c", "a")).tolist() == pytest.approx(
        [1 / 8, 1 / 4]
    )


def test_uncertainty_does_not_mind_the_sign_of_sigma():
    method = Uncertainty(["a"], "gaussian", "sigma", 3.0)
    before = method.transform(torch.ones(1).double(), ["a"], None)
    method.uncertainty[0].data.neg_()
    assert torch.equal(method.transform(torch.ones(1).double(), ["a"], None), before)


@pytest.mark.parametrize(("a", "b"), [(math.e, 1.0), (2.0, 1.0), (10.0, 0.3)])
def test_imtl_l_value_gradients_and_rest(a, b):
    method = IMTLL(names(3), a, b)
    losses = torch.tensor([0.01, 1.0, 300.0]).double().requires_grad_()
    at = [0.5, -1.0, 0.0]
    for parameter, s in zip(method.scale, at, strict=True):
        parameter.data.fill_(s)
    found = method.transform(losses, method.tasks, None)
    assert found.tolist() == pytest.approx([b * a**s * l - s for s, l in zip(at, losses.tolist(), strict=True)])
    found.sum().backward()
    assert losses.grad.tolist() == pytest.approx([b * a**s for s in at])
    for parameter, s, loss in zip(method.scale, at, losses.tolist(), strict=True):
        assert parameter.grad.item() == pytest.approx(b * math.log(a) * a**s * loss - 1)
    optimizer = torch.optim.LBFGS(method.scale, max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        total = method.transform(losses.detach(), method.tasks, None).sum()
        total.backward()
        return total

    optimizer.step(closure)
    scaled = weights_of(method, losses.detach(), torch.eye(3).double()) * losses.detach()
    assert scaled.tolist() == pytest.approx([1 / math.log(a)] * 3, rel=1e-4)


def test_imtl_l_is_the_laplace_form_in_log_sigma():
    ours, other = IMTLL(names(2)), Uncertainty(names(2), "laplace", "log_sigma")
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9) for m in (ours, other)]
    for loss in ([1.0, 5.0], [0.7, 4.0], [0.9, 3.0]):
        for method, optimizer in zip((ours, other), optimizers, strict=True):
            optimizer.zero_grad()
            method.transform(torch.tensor(loss).double(), names(2), None).sum().backward()
            optimizer.step()
    assert torch.allclose(torch.stack([*ours.scale]), -torch.stack([*other.uncertainty]), rtol=1e-12)


def test_an_absent_tasks_scale_stays_where_it_is():
    for method in (IMTLL(names(2)), Uncertainty(names(2))):
        optimizer = torch.optim.Adam(method.parameter_groups(), lr=0.1, weight_decay=0.1)
        for tasks in (["task0", "task1"], ["task1"], ["task1"]):
            before = [p.item() for p in method.parameters()]
            optimizer.zero_grad()
            method.transform(3 * torch.ones(len(tasks)).double(), tasks, None).sum().backward()
            optimizer.step()
            moved = [p.item() != b for p, b in zip(method.parameters(), before, strict=True)]
            assert moved == ["task0" in tasks, True]


# ------------------------------------------------------------------------------------------ compositions


@pytest.mark.parametrize("level", ["feature", "parameter"])
def test_imtl_is_imtl_l_then_imtl_g(level):
    hybrid = build(
        "hybrid",
        "method@method.loss=imtl_l",
        "method@method.gradient=imtl_g",
        f"method.gradient.level={level}",
        "method.loss.a=3.0",
        "method.loss.b=0.5",
    )
    whole = build("imtl", f"method.level={level}", "method.a=3.0", "method.b=0.5")
    assert (whole.level, hybrid.level) == (level, level)
    assert [k for k, _ in whole.named_parameters()] == [k for k, _ in hybrid.named_parameters()]
    for method in (whole, hybrid):
        for i, parameter in enumerate(method.parameters()):
            parameter.data.fill_(i - 0.7)
    first, second = (weights_of(m, FOUR_LOSSES[:3], FOUR[:3]) for m in (whole, hybrid))
    assert torch.equal(first, second)


def test_imtl_moves_shared_parameters_alike_for_all_scales_of_the_losses():
    jacobian = JACOBIANS["4x12"]
    k = torch.tensor([1.0, 50.0, 0.02, 3.0]).double()
    directions = []
    for scale in (torch.ones(4).double(), k):
        method = IMTL(names(4))
        for i, s in enumerate(method.parameters()):
            s.data.fill_(0.3 * i)
        g = weights_of(method, scale * FOUR_LOSSES, scale[:, None] * jacobian) @ (scale[:, None] * jacobian)
        directions.append(g / g.norm())
    assert torch.allclose(*directions, atol=1e-9)


def test_a_hybrid_hands_on_what_its_parts_override():
    calls = []

    class Loss(Weighting):
        def transform(self, losses, tasks, rng):
            return 2 * losses

        def after_epoch(self, losses, indicators):
            calls.append(("loss", losses, indicators))

    class Gradient(Weighting):
        levels, touches = ("parameter",), "everything"

        def combine(self, weights, jacobian, tasks, uniform):
            return jacobian[0]

        def after_step(self, losses, tasks):
            calls.append(("gradient", losses, tasks))

    method = Hybrid(["a"], Loss(["a"]), Gradient(["a"]))
    assert (method.level, method.touches) == ("parameter", "everything")
    assert {n for n in ("transform", "weights", "combine", "after_step", "after_epoch") if overrides(method, n)} == {
        "transform",
        "combine",
        "after_step",
        "after_epoch",
    }
    method.after_step(torch.ones(1), ["a"])
    method.after_epoch({"a": 1.0}, {})
    assert calls == [("gradient", torch.ones(1), ["a"]), ("loss", {"a": 1.0}, {})]
    assert method.combine(torch.ones(1), torch.arange(2.0)[None], ["a"], None).tolist() == [0.0, 1.0]
    assert not overrides(Hybrid(["a"], Weighting(["a"]), Gradient(["a"])), "transform")


# --------------------------------------------------------------------------------- sums and other orders


def test_the_order_of_tasks_matters_to_pcgrad_by_its_draws_alone():
    """Over all orders of projection the results are the same set, however the tasks are listed."""
    jacobian = FOUR[:3]

    def every(rows: Tensor) -> set[tuple[float, ...]]:
        permutations = list(itertools.permutations(range(3)))
        return {
            tuple(round(x, 9) + 0.0 for x in pcgrad_on_vectors(rows, orders).tolist())
            for orders in itertools.product(permutations, repeat=3)
        }

    def drawn(rows: Tensor) -> set[tuple[float, ...]]:
        rngs = [torch.Generator().manual_seed(seed) for seed in range(150)]
        found = [weigh(PCGrad(names(3)), rows, rng=rng) @ rows for rng in rngs]
        return {tuple(round(x, 9) + 0.0 for x in g.tolist()) for g in found}

    assert drawn(jacobian) == every(jacobian) == every(jacobian[[2, 0, 1]]) == drawn(jacobian[[2, 0, 1]])
    assert len(every(jacobian)) > 1


SUMS = [
    (4, "equal"),
    (1, "equal", "method.reduction=mean"),
    (2, "uncertainty"),
    (4, "uncertainty", "method.form=laplace"),
    (4, "uncertainty", "method.form=softmax"),
    (4, "imtl_l"),
    (2.8, "imtl_l", "method.a=2.0", "method.b=0.7"),
    (1, "imtl_g"),
    (1, "imtl"),
    (1, "mgda"),
    (1, "mgda", "method.solver=frank_wolfe"),
    (1, "mgda", "method.normalize=l2"),
]


@pytest.mark.parametrize("total_and_typed", SUMS, ids=lambda case: " ".join(map(str, case[1:])))
def test_the_sum_of_weights_is_what_the_docstring_says(total_and_typed):
    total, *typed = total_and_typed
    found = weights_of(build(*typed, tasks=names(4)), FOUR_LOSSES, FOUR)
    assert found.sum().item() == pytest.approx(total)


entries = st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0, -3.0, 1e-8, 1e8, -1e8, 1 / 3])
gradients = st.tuples(st.integers(1, 7), st.integers(1, 8)).flatmap(
    lambda shape: st.lists(
        st.lists(entries, min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
    )
)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(gradients)
def test_searching_for_gradients_that_break_a_solver(rows):
    jacobian = torch.tensor(rows).double()
    count = len(rows)
    alpha = weigh(MGDA(names(count)), jacobian)
    assert convex(alpha)
    assert violation(jacobian, alpha) <= 1e-7  # of entries 1e8 and 1e-8 the Gramian itself knows no more
    assert convex(weigh(MGDA(names(count), solver="frank_wolfe"), jacobian))
    impartial = weigh(IMTLG(names(count)), jacobian)
    assert impartial.isfinite().all()
    assert impartial.sum().item() == pytest.approx(1, abs=1e-3) or impartial.abs().sum().item() == pytest.approx(1)
    assert weigh(PCGrad(names(count)), jacobian, rng=torch.Generator().manual_seed(0)).isfinite().all()


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.integers(2, 12), st.integers(0, 12), st.integers(0, 10_000), st.floats(0, 6))
def test_searching_for_gradients_on_which_imtl_g_is_partial(count, more, seed, decades):
    generator = torch.Generator().manual_seed(seed)
    jacobian = torch.randn(count, count + more, generator=generator, dtype=torch.float64)
    jacobian *= 10 ** (decades * torch.rand(count, 1, generator=generator, dtype=torch.float64))
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    alpha = weigh(IMTLG(names(count)), jacobian)
    parts = alpha[:, None] * jacobian
    projections = units @ parts.sum(0)
    assert (projections - projections.mean()).abs().max() <= 1e-9 * parts.norm(dim=1).sum()


# --------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("equal", "method.reduction=max"), r"reduction=max: Equal takes reduction=sum, mean\."),
        (("uncertainty", "method.form=poisson"), r"form=poisson: Uncertainty takes form=gaussian, laplace, softmax\."),
        (("uncertainty", "method.form={a: laplace}"), r"form names a; the tasks are a, b, c\."),
        (("uncertainty", "method.form={a: laplace, b: laplace, c: laplace, d: laplace}"), "form names a, b, c, d"),
        (("uncertainty", "method.parametrisation=variance"), "takes parametrisation=log_variance, log_sigma, sigma"),
        (("uncertainty", "method.initial_sigma=0"), r"initial_sigma=0: Uncertainty expects a number initial_sigma > 0"),
        (("uncertainty", "method.initial_sigma=nan"), r"initial_sigma=nan: Uncertainty expects a number"),
        (("imtl_l", "method.a=1.0"), r"a=1\.0: IMTLL expects a number a > 1"),
        (("imtl_l", "method.b=-2"), r"b=-2: IMTLL expects a number b > 0"),
        (("imtl_l", "method.a=inf"), r"a=inf: IMTLL expects a number a > 1"),
        (("imtl", "method.a=e"), r"a=e: IMTLL expects a number a > 1"),
        (("imtl", "method.level=loss"), r"method\.level=loss: IMTLG works at feature, parameter"),
        (("imtl_g", "method.level=layers"), r"method\.level=layers: IMTLG works at feature, parameter"),
        (("mgda", "method.solver=qp"), r"solver=qp: MGDA takes solver=exact, frank_wolfe\."),
        (("mgda", "method.normalize=l1"), r"normalize=l1: MGDA takes normalize=none, l2, loss, loss\+\."),
        (("mgda", "method.touches=heads"), r"touches=heads: MGDA takes touches=shared, everything\."),
        (("mgda", "method.iterations=0"), r"iterations=0: MGDA expects a number iterations > 0"),
        (("mgda", "method.stop=0"), r"stop=0: MGDA expects a number stop > 0"),
        (("pcgrad", "method.level=loss"), r"method\.level=loss: PCGrad works at parameter, feature"),
        (("pcgrad", "method.order=sorted"), r"order=sorted: PCGrad takes order=per_task, shared, code\."),
        (("pcgrad", "method.reduction=max"), r"reduction=max: PCGrad takes reduction=sum, mean\."),
        (("hybrid", "method.gradient.level=loss"), r"method\.level=loss: MGDA works at feature, parameter"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else "",
)
def test_bad_options_are_refused_with_what_is_allowed(typed, said):
    with pytest.raises(ValueError, match=said):
        build(*typed)


def test_a_typo_in_a_methods_name_gets_the_list():
    with pytest.raises(ValueError, match=r"mgdaa: there is no such method\. Did you mean mgda\?"):
        build("mgdaa")
    with pytest.raises(ValueError, match="there is no such method"):
        build("hybrid", "method@method.gradient=mgdaa")
