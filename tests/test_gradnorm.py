"""GradNorm against autograd of its objective, its balance in closed form, and steps with absent tasks."""

import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drill import Drill, build
from gramians import FOUR, FOUR_LOSSES, everywhere, in_full_rank, names, weigh
from mtlbench.methods.gradnorm import GradNorm

KINDS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


class Reference:
    """Algorithm 1 as it is written, by automatic differentiation: W has the gradients `jacobian`."""

    def __init__(self, count, gamma, lr, optimizer):
        self.w = torch.ones(count).double().requires_grad_()
        self.optimizer = KINDS[optimizer]([self.w], lr=lr)
        self.gamma, self.first = gamma, None

    def step(self, losses, jacobian):
        self.first = losses if self.first is None else self.first
        used = self.w.detach().clone()
        lengths = (self.w[:, None] * jacobian).norm(dim=1)
        rates = losses / self.first
        target = (lengths.mean() * (rates / rates.mean()) ** self.gamma).detach()
        self.optimizer.zero_grad()
        (lengths - target).abs().sum().backward()
        self.optimizer.step()
        with torch.no_grad():
            self.w.mul_(len(losses) / self.w.sum())
        return used


def batches(jacobian, count, seed=3):
    rng = torch.Generator().manual_seed(seed)
    for _ in range(count):
        noise = torch.randn(jacobian.shape, generator=rng).double()
        yield 0.2 + torch.rand(len(jacobian), generator=rng).double(), jacobian * (1 + 0.1 * noise)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.5])
@in_full_rank
def test_is_algorithm_1_over_some_steps(jacobian, gamma, optimizer):
    jacobian = jacobian / jacobian.norm(dim=1).max()  # sgd's step is the length itself
    method = GradNorm(names(len(jacobian)), gamma=gamma, lr=0.01, optimizer=optimizer)
    reference = Reference(len(jacobian), gamma, 0.01, optimizer)
    for losses, rows in batches(jacobian, 6):
        torch.testing.assert_close(weigh(method, rows, losses), reference.step(losses, rows), rtol=1e-9, atol=1e-12)
    assert method.take_notes() == ()


def test_the_first_step_has_weights_of_one_and_the_second_those_that_it_learned():
    method = GradNorm(names(4), lr=0.1)
    assert weigh(method, FOUR, FOUR_LOSSES).tolist() == [1, 1, 1, 1]
    lengths = FOUR.norm(dim=1)
    moved = 1 - 0.1 * (lengths - lengths.mean()).sign()  # Adam's first step is the learning rate; all rates are 1
    torch.testing.assert_close(weigh(method, FOUR, FOUR_LOSSES), 4 * moved / moved.sum(), rtol=1e-6, atol=0)


def test_without_asymmetry_lengths_become_equal():
    """IMTL, Corollary 4: w_t = T |g_t|^-1 / sum_s |g_s|^-1, to about one step."""
    method = GradNorm(names(4), gamma=0.0, lr=2e-3)
    for _ in range(1500):
        weigh(method, FOUR, FOUR_LOSSES)
    inverse = 1 / FOUR.norm(dim=1)
    torch.testing.assert_close(weigh(method, FOUR), 4 * inverse / inverse.sum(), rtol=0.02, atol=0)


def test_a_slower_task_gets_a_longer_gradient():
    """At rest the lengths are as the rates to the power of gamma."""
    method = GradNorm(names(2), gamma=1.0, lr=2e-3)
    jacobian = FOUR[:2] / FOUR[:2].norm(dim=1, keepdim=True)
    weigh(method, jacobian, torch.tensor([1.0, 1.0]).double())
    for _ in range(1500):
        weights = weigh(method, jacobian, torch.tensor([0.9, 0.3]).double())
    torch.testing.assert_close(weights, torch.tensor([1.5, 0.5]).double(), rtol=0.02, atol=0)


def test_at_rest_scaling_a_loss_changes_nothing():
    found = []
    for scales in (torch.ones(4).double(), torch.tensor([1.0, 20.0, 0.1, 3.0]).double()):
        method = GradNorm(names(4), lr=2e-3)
        for _ in range(2500):
            weights = weigh(method, FOUR * scales[:, None], FOUR_LOSSES * scales)
        result = weights @ (FOUR * scales[:, None])
        found.append(result / result.norm())
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0.06)


def test_an_absent_task_keeps_its_weight_and_the_sum_stays_t():
    method = GradNorm(names(4))
    for losses, rows in batches(FOUR, 3):
        weigh(method, rows, losses)
    before = torch.stack([w.data for w in method.weight])
    pair = FOUR[[1, 3]]
    losses = torch.tensor([0.7, 0.2]).double()
    used = method.weights(losses, pair @ pair.T, ["task1", "task3"], None)
    after = torch.stack([w.data for w in method.weight])
    assert torch.equal(used, before[[1, 3]])
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert (after[[1, 3]] != before[[1, 3]]).all()
    assert after.sum().item() == pytest.approx(4, rel=1e-12)


def test_the_reference_is_the_first_loss_that_a_task_has():
    method = GradNorm(names(3))
    pair = FOUR[:2]
    method.weights(torch.tensor([2.0, 3.0]).double(), pair @ pair.T, ["task0", "task1"], None)
    assert method.first[2].isnan()
    weigh(method, FOUR[:3], torch.tensor([1.0, 1.0, 5.0]).double())
    assert method.first.tolist() == [2, 3, 5]
    expected = torch.tensor([0.5, 1 / 3, 1.0], dtype=torch.float64)
    torch.testing.assert_close(
        method.rates(torch.tensor([1.0, 1.0, 5.0]).double(), [0, 1, 2]), expected / expected.mean()
    )


def test_one_task_keeps_the_weight_one():
    method = GradNorm(["a"])
    for loss in (3.0, 0.1, 7.0):
        assert weigh(method, FOUR[:1] * loss, torch.tensor([loss]).double()).tolist() == [1]


@everywhere
def test_weights_stay_positive_of_sum_t_whatever_the_gradients(jacobian):
    count = len(jacobian)
    method = GradNorm(names(count), lr=0.4)
    for _ in range(6):
        weights = weigh(method, jacobian, torch.linspace(0, 1, count).double())
        assert weights.isfinite().all()
        assert (weights > 0).all()
        assert weights.sum().item() == pytest.approx(count, rel=1e-9)


def test_a_zero_gradient_has_no_slope():
    method = GradNorm(names(2), lr=0.1, optimizer="sgd")
    jacobian = torch.stack([FOUR[0], 0 * FOUR[0]])
    weigh(method, jacobian)
    moved = torch.tensor([1 - 0.1 * FOUR[0].norm().item(), 1.0], dtype=torch.float64)
    torch.testing.assert_close(weigh(method, jacobian), 2 * moved / moved.sum(), rtol=1e-12, atol=0)


def test_a_weight_that_would_turn_is_held_and_noted():
    method = GradNorm(names(2), lr=3.0)
    jacobian = torch.stack([10 * FOUR[0], FOUR[1]])
    weigh(method, jacobian)
    assert method.take_notes() == ("a weight held at 1e-6",)
    weights = weigh(method, jacobian)
    assert 0 < weights[0] <= 1e-6
    assert weights.sum().item() == pytest.approx(2)


@pytest.mark.parametrize("first", [0.0, -1.0])
def test_a_first_loss_that_is_not_above_zero_is_noted(first):
    method = GradNorm(names(2))
    weigh(method, FOUR[:2], torch.tensor([first, 1.0]).double())
    assert method.take_notes() == ("a first loss that is not above 0",)
    assert method.rates(torch.tensor([5.0, 1.0]).double(), [0, 1]).tolist() == [1, 1]


def test_losses_of_zero_have_one_rate():
    method = GradNorm(names(2))
    weigh(method, FOUR[:2], torch.ones(2).double())
    assert method.rates(torch.zeros(2).double(), [0, 1]).tolist() == [1, 1]
    assert method.rates(torch.tensor([-3.0, 1.0]).double(), [0, 1]).tolist() == [0, 2]


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    st.lists(st.floats(0, 1e6), min_size=3, max_size=3),
    st.lists(st.integers(-8, 8), min_size=3, max_size=3),
    st.sampled_from([0.0, 1.5, 12.0]),
)
def test_no_counterexample_is_found(losses, exponents, gamma):
    method = GradNorm(names(3), gamma=gamma)
    jacobian = FOUR[:3] * 10.0 ** torch.tensor(exponents).double()[:, None]
    for factor in (1.0, 0.5, 1e-9):
        weights = weigh(method, jacobian, factor * torch.tensor(losses, dtype=torch.float64))
        assert weights.isfinite().all()
        assert (weights > 0).all()
        assert math.isclose(weights.sum(), 3, rel_tol=1e-9)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_loaded_state_is_the_same_and_not_shared(optimizer):
    one, other = (Drill(build("gradnorm", f"method.optimizer={optimizer}", tasks=names(4))) for _ in range(2))
    for losses, rows in batches(FOUR, 3):
        one.take(losses, rows)
    file = io.BytesIO()
    torch.save(one.state(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    twin = Drill(build("gradnorm", f"method.optimizer={optimizer}", tasks=names(4)))
    other.load(saved)
    twin.load(saved)
    for losses, rows in batches(FOUR, 5, seed=9):
        answers = [drill.take(losses, rows).weights for drill in (one, other)]
        assert torch.equal(*answers)
    for losses, rows in batches(FOUR, 5, seed=9):  # the first loading's steps did not move the saved state
        last = twin.take(losses, rows).weights
    assert torch.equal(last, answers[0])


@pytest.mark.parametrize("level", ["layer", "feature", "parameter"])
def test_every_level_touches_everything(level):
    drill = Drill(build("gradnorm", f"method.level={level}", tasks=names(4)))
    assert drill.method.level == level
    assert drill.method.touches == "everything"
    assert drill.method.parameter_groups() == []


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("method.gamma=-1", "GradNorm expects a number gamma >= 0"),
        ("method.lr=0", "GradNorm expects a number lr > 0"),
        ("method.optimizer=lion", "GradNorm takes optimizer=adam, sgd"),
        ("method.level=loss", "GradNorm works at layer, feature, parameter"),
    ],
)
def test_bad_options_are_refused(typed, said):
    with pytest.raises(ValueError, match=said):
        build("gradnorm", typed)
