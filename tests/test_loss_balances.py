"""Loss balances without a state or with a short one: static, uncertainty_optimal, gls, log, rlw, dwa; and what equal,
uncertainty and imtl_l say of losses that are not above 0. LSB and DTP have files of their own."""

import io
import itertools
import math
from collections import Counter

import mpmath
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from drill import Drill, build
from gramians import FOUR, FOUR_LOSSES, everywhere, names
from mtlbench.methods.dwa import DWA
from mtlbench.methods.gls import GLS
from mtlbench.methods.log import Log
from mtlbench.methods.rlw import DISTRIBUTIONS, RLW
from mtlbench.methods.static import Static
from mtlbench.methods.uncertainty_optimal import UncertaintyOptimal
from mtlbench.weighting import Weighting

mpmath.mp.dps = 60
torch.set_num_threads(1)


def slope_of(method: Weighting, losses: Tensor, tasks=None, seed: int = 0) -> tuple[Tensor, Tensor]:
    """M [T] and its Jacobian dM/dL [T, T]."""
    tasks = method.tasks if tasks is None else tasks
    leaf = losses.clone().requires_grad_()
    found = method.transform(leaf, tasks, torch.Generator().manual_seed(seed))
    rows = [torch.autograd.grad(part, leaf, retain_graph=True)[0] for part in found]
    return found.detach(), torch.stack(rows)


def weights_of(method: Weighting, losses: Tensor, tasks=None, seed: int = 0) -> list[float]:
    """dM/dL, of which only the diagonal may be there: no task's loss moves another one's M."""
    slope = slope_of(method, losses, tasks, seed)[1]
    assert torch.equal(slope, slope.diag().diag())
    return slope.diag().tolist()


def spread(count: int) -> Tensor:
    return torch.logspace(-3, 2, count).double()


# -------------------------------------------------------------------------------------------------- oracles


def geometric(losses: list[float]) -> list[float]:
    """d GLS / d L, in 60 digits."""
    exact = [mpmath.mpf(loss) for loss in losses]
    mean = mpmath.power(mpmath.fprod(exact), mpmath.mpf(1) / len(exact))
    return [float(mean / (len(exact) * loss)) for loss in exact]


ORACLES = {
    "static": (["method.weights={%s}"], lambda losses: [0.5 + i for i in range(len(losses))]),
    "log": ([], lambda losses: [1 / loss for loss in losses]),
    "uncertainty_optimal": ([], lambda losses: [1 / loss for loss in losses]),
    "gls": ([], geometric),
}


@everywhere
@pytest.mark.parametrize("name", ORACLES)
def test_the_step_is_that_of_the_closed_form(name: str, jacobian: Tensor):
    typed, oracle = ORACLES[name]
    tasks, losses = names(len(jacobian)), spread(len(jacobian))
    given = ", ".join(f"{task}: {0.5 + i}" for i, task in enumerate(tasks))
    answer = Drill(build(name, *(word.replace("%s", given) for word in typed), tasks=tasks)).take(losses, jacobian)
    exact = torch.tensor(oracle(losses.tolist()), dtype=torch.float64)
    torch.testing.assert_close(answer.weights, exact, rtol=1e-12, atol=0)
    torch.testing.assert_close(answer.heads, exact, rtol=1e-12, atol=0)
    size = (exact[:, None] * jacobian).norm(dim=1).sum().item()
    torch.testing.assert_close(answer.gradient, exact @ jacobian, rtol=1e-12, atol=1e-12 * size)


# --------------------------------------------------------------------------------------------------- static


def test_static_without_weights_is_equal():
    static, equal = (Drill(build(name, tasks=names(4))).take(FOUR_LOSSES, FOUR) for name in ("static", "equal"))
    assert torch.equal(static.weights, equal.weights)
    assert torch.equal(static.gradient, equal.gradient)


def test_static_weights_go_by_name_in_any_order_and_presence():
    method = build("static", "method.weights={c: 3, a: 1.5, b: 0}")
    assert weights_of(method, spread(3)) == [1.5, 0, 3]
    assert weights_of(method, spread(2), ("b", "c")) == [0, 3]
    assert weights_of(Static(["x"], {"x": 7.0}), spread(1)) == [7]


# --------------------------------------------------------------------------- uncertainty_optimal, gls and log


@pytest.mark.parametrize("form", ["laplace", "gaussian", "softmax"])
def test_uncertainty_optimal_is_uncertainty_at_its_best_sigma(form: str):
    """The learned method, brought to rest by another solver, has the weights that the closed form gives."""
    losses = torch.tensor([0.02, 1.3, 40.0]).double()
    learned = build("uncertainty", f"method.form={form}", "method.parametrisation=log_sigma")
    optimizer = torch.optim.LBFGS(
        learned.parameters(), max_iter=500, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = learned.transform(losses, learned.tasks, None).sum()
        total.backward()
        return total

    optimizer.step(closure)
    found = weights_of(build("uncertainty_optimal", f"method.form={form}"), losses)
    assert found == pytest.approx(weights_of(learned, losses), rel=1e-5)


def test_uncertainty_optimal_takes_a_form_for_each_task():
    method = build("uncertainty_optimal", "method.form={a: softmax, b: laplace, c: gaussian}")
    values, slope = slope_of(method, torch.tensor([4.0, 4.0, 0.5]).double())
    assert values.tolist() == [0.5, 1, 0.5]  # the same at every step: sigma follows the loss
    assert slope.diag().tolist() == [1 / 8, 1 / 4, 1]


@pytest.mark.parametrize("loss", [1e-12, 1e10])
def test_gls_of_forty_losses_of_one_extreme(loss: float):
    method = GLS(names(40))
    values, slope = slope_of(method, torch.full((40,), loss).double())
    assert values.sum().item() == pytest.approx(loss, rel=1e-12)
    assert slope.diag().tolist() == pytest.approx([1 / 40] * 40, rel=1e-12)


losses_far_apart = st.lists(st.floats(-30, 30).map(lambda power: 10.0**power), min_size=1, max_size=40)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(losses_far_apart)
def test_searching_for_losses_of_which_gls_is_not_the_geometric_mean(losses: list[float]):
    method = GLS(names(len(losses)))
    values, slope = slope_of(method, torch.tensor(losses, dtype=torch.float64))
    exact = mpmath.power(mpmath.fprod(map(mpmath.mpf, losses)), mpmath.mpf(1) / len(losses))
    assert values.sum().item() == pytest.approx(float(exact), rel=1e-11)
    assert slope.diag().tolist() == pytest.approx(geometric(losses), rel=1e-11)
    assert slope.diag().sum() >= 1 - 1e-11  # the arithmetic mean of 1 / L is at least the geometric one
    assert method.take_notes() == ()


def test_gls_has_the_gradient_of_the_geometric_mean_but_not_its_rank():
    """Differentiated directly, each of T equal parts of GLS would have the same gradient: a Gramian of rank one."""
    leaf = FOUR_LOSSES.clone().requires_grad_()
    leaf.prod().pow(1 / 4).backward()
    slope = slope_of(GLS(names(4)), FOUR_LOSSES)[1]
    torch.testing.assert_close(slope.sum(0), leaf.grad, rtol=1e-12, atol=0)
    assert torch.linalg.matrix_rank(slope) == 4
    answer = Drill(build("hybrid", "method@method.loss=gls", "method@method.gradient=imtl_g", tasks=names(4))).take(
        FOUR_LOSSES, FOUR
    )
    projections = (FOUR / FOUR.norm(dim=1, keepdim=True)) @ answer.gradient
    torch.testing.assert_close(projections, projections.mean().expand(4), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["log", "uncertainty_optimal"])
@settings(deadline=None, derandomize=True, max_examples=30)
@given(powers=st.lists(st.floats(-12, 12), min_size=4, max_size=4))
def test_searching_for_scales_that_change_a_scale_invariant_step(name: str, powers: list[float]):
    k = 10 ** torch.tensor(powers, dtype=torch.float64)
    plain, scaled = (
        Drill(build(name, tasks=names(4))).take(c * FOUR_LOSSES, c[:, None] * FOUR) for c in (torch.ones(4).double(), k)
    )
    torch.testing.assert_close(scaled.gradient, plain.gradient, rtol=1e-9, atol=1e-9)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(powers=st.lists(st.floats(-12, 12), min_size=4, max_size=4))
def test_searching_for_scales_that_turn_gls(powers: list[float]):
    k = 10 ** torch.tensor(powers, dtype=torch.float64)
    plain = Drill(GLS(names(4))).take(FOUR_LOSSES, FOUR)
    scaled = Drill(GLS(names(4))).take(k * FOUR_LOSSES, k[:, None] * FOUR)
    longer = 10 ** (sum(powers) / 4)
    torch.testing.assert_close(scaled.gradient / longer, plain.gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("loss", [0.0, -2.0])
@pytest.mark.parametrize("method", [GLS, Log, UncertaintyOptimal])
def test_a_loss_that_is_not_above_0_leaves_the_answer_of_the_others(method: type[Weighting], loss: float):
    losses = torch.tensor([0.5, loss, 3.0]).double()
    whole, others = method(names(3)), method(["task0", "task2"])
    values, slope = slope_of(whole, losses)
    assert torch.equal(slope, slope.diag().diag())
    assert (values[1].item(), slope[1, 1].item()) == (0, 0)
    assert slope.diag()[[0, 2]].tolist() == pytest.approx(weights_of(others, losses[[0, 2]]), rel=1e-15)
    assert whole.take_notes() == ("a loss that is not above 0: task1",)
    assert others.take_notes() == ()


@pytest.mark.parametrize("method", [GLS, Log, UncertaintyOptimal])
def test_without_a_loss_above_0_nothing_moves(method: type[Weighting]):
    for losses in (torch.zeros(4).double(), -FOUR_LOSSES):
        drill = Drill(method(names(4)))
        answer = drill.take(losses, FOUR)
        assert answer.problem is None
        assert answer.weights.tolist() == answer.heads.tolist() == [0] * 4
        assert answer.gradient.tolist() == [0] * 4


@pytest.mark.parametrize("name", ["uncertainty", "imtl_l"])
def test_the_learned_scales_note_a_loss_that_is_not_above_0(name: str):
    method = build(name)
    weights_of(method, torch.tensor([1.0, 0.0, -1.0]).double())
    assert method.take_notes() == ("a loss that is not above 0: b", "a loss that is not above 0: c")
    weights_of(method, torch.ones(3).double())
    assert method.take_notes() == ()


# ------------------------------------------------------------------------------------------------------ rlw


def draws(distribution: str, count: int = 3000, tasks: int = 3) -> Tensor:
    """[count, T]"""
    method, rng = RLW(names(tasks), distribution), torch.Generator().manual_seed(5)
    return torch.stack([method.draw(method.tasks, rng) for _ in range(count)])


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_rlw_weights_are_convex_new_each_step_and_drawn_from_the_generator_alone(distribution: str):
    found = draws(distribution, 50)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(1), torch.ones(50).double())
    assert len({tuple(row) for row in found.tolist()}) > 1
    torch.manual_seed(99)  # another rank's global generator may stand anywhere
    assert torch.equal(found, draws(distribution, 50))
    losses = torch.tensor([1.0, 5.0, 0.2]).double()
    one, other = RLW(names(3), distribution), RLW(names(3), distribution)
    assert weights_of(one, losses, seed=3) == other.draw(names(3), torch.Generator().manual_seed(3)).tolist()


@pytest.mark.parametrize("distribution", [d for d in DISTRIBUTIONS if d != "random_normal"])
def test_rlw_expects_as_much_of_each_task(distribution: str):
    found = draws(distribution)
    error = found.std(0) / math.sqrt(len(found))
    assert ((found.mean(0) - 1 / 3).abs() < 4 * error).all()


def test_rlw_softmax_of_known_distributions():
    """log w_i - log w_j is the difference of two draws: N(0, 2), and the triangular one on [-1, 1]."""
    normal, uniform = ((w[:, 0].log() - w[:, 1].log()).numpy() for w in (draws("normal"), draws("uniform")))
    assert scipy.stats.kstest(normal, scipy.stats.norm(0, math.sqrt(2)).cdf).pvalue > 0.01
    assert scipy.stats.kstest(uniform, scipy.stats.triang(0.5, -1, 2).cdf).pvalue > 0.01
    assert scipy.stats.kstest(normal, scipy.stats.triang(0.5, -1, 2).cdf).pvalue < 1e-6


def test_rlw_dirichlet_has_beta_marginals():
    for i in range(3):
        assert scipy.stats.kstest(draws("dirichlet")[:, i].numpy(), scipy.stats.beta(1, 2).cdf).pvalue > 0.01


@pytest.mark.parametrize(("distribution", "size"), [("bernoulli", 7), ("constrained_bernoulli", 3)])
def test_rlw_chooses_each_set_of_tasks_as_often(distribution: str, size: int):
    found = draws(distribution)
    counts = Counter(tuple(row) for row in (found > 0).tolist())
    assert len(counts) == size
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 0.01
    assert all(len(set(row) - {0.0}) == 1 for row in found.tolist())  # those chosen are alike


def test_rlw_random_normal_keeps_its_means_and_deviations():
    method, rng = RLW(names(2), "random_normal"), torch.Generator().manual_seed(11)
    found = torch.stack([method.draw(method.tasks, rng) for _ in range(3000)])
    (m, s), (n, r) = method.moments.tolist()
    assert all(0 <= x < 1 for x in (m, s, n, r))
    difference = scipy.stats.norm(m - n, math.hypot(s, r))
    assert scipy.stats.kstest((found[:, 0].log() - found[:, 1].log()).numpy(), difference.cdf).pvalue > 0.01


def test_rlw_random_normal_draws_a_tasks_moments_when_it_first_appears():
    method, rng = RLW(names(3), "random_normal"), torch.Generator().manual_seed(11)
    method.draw(["task1"], rng)
    first = method.moments.clone()
    assert (first[[0, 2]] == -1).all()
    assert (first[1] >= 0).all()
    method.draw(method.tasks, rng)
    assert torch.equal(method.moments[1], first[1])
    assert (method.moments >= 0).all()


# ------------------------------------------------------------------------------------------------------ dwa


def dwa_by_hand(before: list[float], last: list[float], temperature: float) -> list[float]:
    powers = [mpmath.exp(mpmath.mpf(b) / mpmath.mpf(a) / temperature) for a, b in zip(before, last, strict=True)]
    return [float(len(powers) * p / sum(powers)) for p in powers]


@pytest.mark.parametrize("temperature", [0.1, 2.0, 50.0])
def test_dwa_weights_epoch_by_epoch(temperature: float):
    method = DWA(names(3), temperature)
    epochs = [[1.0, 10.0, 0.3], [0.5, 9.0, 0.31], [0.4, 9.5, 0.1], [0.39, 2.0, 0.1]]
    expected = [[1.0] * 3, [1.0] * 3]
    expected += [dwa_by_hand(a, b, temperature) for a, b in itertools.pairwise(epochs)]
    for losses, weights in zip([*epochs, epochs[0]], expected, strict=True):
        for _ in range(2):  # the steps of an epoch all have the same weights, whatever their losses
            assert weights_of(method, torch.rand(3).double() + 0.1) == pytest.approx(weights, rel=1e-12)
        method.after_epoch(dict(zip(names(3), losses, strict=True)), {})
    assert method.take_notes() == ()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)), min_size=1, max_size=8), st.floats(0.5, 10))
def test_searching_for_dwa_weights_of_another_sum_or_order(pairs: list[tuple[float, float]], temperature: float):
    method = DWA(names(len(pairs)), temperature)
    for k in (0, 1):
        method.after_epoch({f"task{i}": pair[k] for i, pair in enumerate(pairs)}, {})
    found = weights_of(method, torch.ones(len(pairs)).double())
    assert sum(found) == pytest.approx(len(pairs))
    paces = [last / before for before, last in pairs]
    for i, pace in enumerate(paces):
        for j, other in enumerate(paces):
            assert found[i] >= found[j] or pace < other  # the slower a loss falls, the more weight


def test_dwa_passes_over_epochs_without_a_label():
    method = DWA(names(2))
    for losses in ({"task0": 4.0, "task1": 8.0}, {"task0": 2.0, "task1": None}, {"task0": 1.0, "task1": 2.0}):
        method.after_epoch(losses, {})
    assert weights_of(method, torch.ones(2).double()) == pytest.approx(dwa_by_hand([2.0, 8.0], [1.0, 2.0], 2.0))
    assert weights_of(method, torch.ones(1).double(), ["task1"]) == [1.0]


@pytest.mark.parametrize(
    ("before", "last", "noted"),
    [(0.0, 1.0, True), (1.0, 0.0, True), (-1.0, 1.0, True), (1e-300, 1e10, True), (1e-12, 1e12, False)],
)
def test_dwa_of_epoch_losses_without_a_ratio(before: float, last: float, noted: bool):
    method = DWA(names(2))
    method.after_epoch({"task0": before, "task1": 1.0}, {})
    method.after_epoch({"task0": last, "task1": 1.0}, {})
    found = weights_of(method, torch.ones(2).double())
    assert method.take_notes() == (("epoch losses without a ratio: task0",) if noted else ())
    assert found == pytest.approx([1, 1] if noted else [2, 0])


def test_dwa_ignores_a_mean_that_is_not_finite():
    method = DWA(names(1))
    method.after_epoch({"task0": math.nan}, {})
    assert method.history == {}


# ---------------------------------------------------------------------------------------- state, bad input


@pytest.mark.parametrize("typed", [("dwa",), ("rlw", "method.distribution=random_normal")])
def test_state_loaded_into_a_method_of_another_past_is_the_saved_one(typed: tuple[str, ...]):
    method, other = build(*typed), build(*typed)
    for k, one in enumerate((method, other)):
        weights_of(one, spread(3), seed=k)
        for epoch in range(3):
            one.after_epoch({task: 1.0 + epoch * k + i * epoch for i, task in enumerate("abc")}, {})
    assert weights_of(method, spread(3), seed=9) != weights_of(other, spread(3), seed=9)
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert weights_of(method, spread(3), seed=9) == weights_of(other, spread(3), seed=9)
    other.after_epoch({task: 50.0 + i for i, task in enumerate("abc")}, {})  # what was loaded is no alias
    again = build(*typed)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert weights_of(method, spread(3), seed=9) == weights_of(again, spread(3), seed=9)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("static", "method.weights={a: 1, b: 1}"), r"weights names a, b; the tasks are a, b, c\. Name each once"),
        (("static", "method.weights={a: 1, b: 1, c: 1, d: 1}"), r"weights names a, b, c, d; the tasks are a, b, c\."),
        (("static", "method.weights={}"), r"weights names no task; the tasks are a, b, c\."),
        (("static", "method.weights={a: 1, b: -0.1, c: 1}"), r"weights\.b=-0\.1: Static expects .* weights\.b >= 0"),
        (("static", "method.weights={a: 1, b: inf, c: 1}"), r"weights\.b=inf: Static expects"),
        (("static", "method.weights={a: 1, b: x, c: 1}"), r"weights\.b=x: Static expects"),
        (("static", "method.weights={a: 0, b: 0, c: 0}"), r"those of a, b, c are all 0; Static expects one above 0"),
        (("static", "method.weights=2"), r"weights=2: .* such as weights=\{a: 1, b: 1, c: 1\}"),
        (("static", "method.weights=[1,2,3]"), r"Static expects one for each task, such as weights=\{a: 1"),
        (("uncertainty_optimal", "method.form=cauchy"), r"form=cauchy: UncertaintyOptimal takes form=gaussian"),
        (("uncertainty_optimal", "method.form={a: laplace}"), r"form names a; the tasks are a, b, c\."),
        (("uncertainty_optimal", "method.form={a: laplace, b: laplace, c: x}"), "form=x: UncertaintyOptimal takes"),
        (("rlw", "method.distribution=cauchy"), r"distribution=cauchy: RLW takes distribution=normal, uniform"),
        (("dwa", "method.temperature=0"), r"temperature=0: DWA expects a number temperature > 0"),
        (("dwa", "method.temperature=nan"), r"temperature=nan: DWA expects"),
        (("dwa", "method.temperature=inf"), r"temperature=inf: DWA expects"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, tuple) else "",
)
def test_bad_options_are_refused_with_what_is_allowed(typed: tuple[str, ...], said: str):
    with pytest.raises(ValueError, match=said):
        build(*typed)
