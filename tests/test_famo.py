"""FAMO against its algorithm by automatic differentiation, over steps with absent tasks and bounds."""

import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drill import Drill, build
from gramians import FOUR, FOUR_LOSSES, names
from mtlbench.methods.famo import FAMO

KINDS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
SOME = [
    (FOUR_LOSSES, FOUR_LOSSES * torch.tensor([0.9, 0.99, 1.05, 0.5]).double()),
    (FOUR_LOSSES * 0.8, FOUR_LOSSES * 0.75),
    (FOUR_LOSSES * torch.tensor([1.0, 3.0, 0.2, 1.0]).double(), FOUR_LOSSES),
    (FOUR_LOSSES.flip(0), FOUR_LOSSES.flip(0) * 0.97),
    (FOUR_LOSSES, FOUR_LOSSES * torch.tensor([1.1, 0.9, 0.9, 0.9]).double()),
]
"""(losses before, losses after) of some steps."""


def weights_of(method, losses, tasks=None):
    """dM/dL summed [T]: what the step scales the gradients by."""
    leaf = losses.clone().requires_grad_()
    method.transform(leaf, tasks or method.tasks, None).sum().backward()
    return leaf.grad


class Reference:
    """The update in one vector, the slope of the logits by automatic differentiation."""

    def __init__(self, count, lr, weight_decay, optimizer, bounds):
        self.xi = torch.zeros(count).double().requires_grad_()
        self.optimizer = KINDS[optimizer]([self.xi], lr=lr, weight_decay=weight_decay)
        self.bounds = bounds

    def weights(self, losses):
        leaf = losses.clone().requires_grad_()
        z = torch.softmax(self.xi.detach(), 0)
        distance = leaf - self.bounds + 1e-8
        scale = (z / distance).sum().detach()
        (z * distance.log() / scale).sum().backward()
        return leaf.grad

    def update(self, before, after):
        delta = (before - self.bounds + 1e-8).log() - (after - self.bounds + 1e-8).log()
        self.optimizer.zero_grad()
        torch.softmax(self.xi, 0).backward(delta)
        self.optimizer.step()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("bounds", [None, {"task0": 0.1, "task1": -3.0, "task2": 0.0, "task3": 0.05}])
def test_is_the_algorithm_over_some_steps(optimizer, bounds):
    method = FAMO(names(4), lr=0.1, weight_decay=0.02, optimizer=optimizer, min_losses=bounds)
    low = torch.tensor(list(bounds.values()) if bounds else [0.0] * 4, dtype=torch.float64)
    reference = Reference(4, 0.1, 0.02, optimizer, low)
    for before, after in SOME:
        torch.testing.assert_close(weights_of(method, before), reference.weights(before), rtol=1e-10, atol=1e-14)
        method.after_step(after, method.tasks)
        reference.update(before, after)
        found = torch.stack([x.data for x in method.logits])
        torch.testing.assert_close(found, reference.xi.detach(), rtol=1e-7, atol=1e-12)
    assert found.abs().min() > 1e-4
    assert method.take_notes() == ()


def test_the_first_step_of_sgd_in_closed_form():
    """xi = -lr z (delta - z delta), z = 1/T: the task that improved least gains weight."""
    method = FAMO(names(4), lr=0.5, optimizer="sgd")
    before, after = SOME[0]
    weights_of(method, before)
    method.after_step(after, method.tasks)
    delta = (before / after).log()
    found = torch.stack([x.data for x in method.logits])
    torch.testing.assert_close(found, -0.5 * 0.25 * (delta - delta.mean()), rtol=1e-6, atol=1e-9)
    assert found.argmax() == 2
    assert found.argmin() == 3


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(st.floats(1e-3, 1e6), min_size=2, max_size=5), st.lists(st.floats(1e-3, 1e6), min_size=5, max_size=5))
def test_weights_sum_to_one_and_the_shares_do_not_depend_on_scales(losses, scales):
    """w_t L_t is in the proportions of z, whatever the losses (1e-8 against 1e-3 is what is not exact)."""
    method = FAMO(names(len(losses)), lr=0.3)
    before = torch.tensor(losses, dtype=torch.float64)
    weights_of(method, before)
    method.after_step(before * torch.linspace(0.5, 1.5, len(losses)).double(), method.tasks)
    z = method.shares(method.tasks)
    for factor in (torch.ones(len(losses)).double(), torch.tensor(scales[: len(losses)], dtype=torch.float64)):
        weights = weights_of(method, before * factor)
        assert weights.sum().item() == pytest.approx(1, rel=1e-9)
        share = weights * (before * factor + 1e-8)
        torch.testing.assert_close(share / share.sum(), z, rtol=1e-9, atol=0)


def test_one_task_has_its_plain_gradient():
    method = FAMO(["a"])
    for loss in (3.0, 1e-12, 1e10):
        assert weights_of(method, torch.tensor([loss]).double()).item() == pytest.approx(1, rel=1e-12)
        method.after_step(torch.tensor([0.9 * loss]).double(), ["a"])


def test_an_absent_tasks_logit_stays_and_the_others_are_as_if_alone():
    method, alone = FAMO(names(4)), FAMO(["task1", "task3"])
    for before, after in SOME:
        one, other = (weights_of(m, before[[1, 3]], ["task1", "task3"]) for m in (method, alone))
        assert torch.equal(one, other)
        for m in (method, alone):
            m.after_step(after[[1, 3]], ["task1", "task3"])
    assert [x.item() for x in method.logits][::2] == [0, 0]
    assert method.logits[1].item() == alone.logits[0].item() != 0


def test_a_batch_without_any_label_moves_nothing():
    method = FAMO(names(4))
    method.after_step(torch.zeros(0).double(), [])
    assert [x.item() for x in method.logits] == [0] * 4


@pytest.mark.parametrize("loss", [0.0, -2.0])
def test_a_loss_at_or_below_its_bound_is_noted_and_finite(loss):
    method = FAMO(names(2))
    weights = weights_of(method, torch.tensor([loss, 1.0]).double())
    assert method.take_notes() == ("a loss at or below its bound",)
    assert weights.isfinite().all()
    assert weights[0].item() == pytest.approx(1 if loss == 0 else 0, abs=1e-6)
    method.after_step(torch.tensor([loss - 1, 1.0]).double(), method.tasks)
    assert all(x.isfinite() for x in method.logits)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_losses_after_the_step_that_are_not_finite_move_no_logit(value):
    method = FAMO(names(2))
    weights_of(method, torch.ones(2).double())
    method.after_step(torch.tensor([value, 1.0]).double(), method.tasks)
    assert [x.item() for x in method.logits] == [0, 0]
    assert not method.optimizer.state


def test_a_step_teaches_the_next_ones_weights():
    drill = Drill(build("famo", "method.lr=0.3", tasks=names(4)))
    first = drill.take(*(FOUR_LOSSES, FOUR), after=SOME[0][1])
    second = drill.take(*(FOUR_LOSSES, FOUR), after=SOME[0][1])
    inverse = 1 / (FOUR_LOSSES + 1e-8)
    torch.testing.assert_close(first.weights, inverse / inverse.sum(), rtol=1e-9, atol=0)
    assert second.weights[2] / second.weights[3] > 1.2 * first.weights[2] / first.weights[3]
    torch.testing.assert_close(second.heads, second.weights, rtol=1e-12, atol=0)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_loaded_state_is_the_same_and_not_shared(optimizer):
    one, other, twin = (Drill(build("famo", f"method.optimizer={optimizer}", tasks=names(4))) for _ in range(3))
    for before, after in SOME[:3]:
        one.take(before, FOUR, after=after)
    file = io.BytesIO()
    torch.save(one.state(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other.load(saved)
    twin.load(saved)
    for before, after in SOME:
        answers = [drill.take(before, FOUR, after=after).weights for drill in (one, other)]
        assert torch.equal(*answers)
    for before, after in SOME:  # the first loading's steps did not move the saved state
        last = twin.take(before, FOUR, after=after).weights
    assert torch.equal(last, answers[0])


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("method.lr=0", "FAMO expects a number lr > 0"),
        ("method.weight_decay=-1", "FAMO expects a number weight_decay >= 0"),
        ("method.optimizer=lion", "FAMO takes optimizer=adam, sgd"),
        ("method.min_losses={a: 0, b: 1}", "min_losses names a, b; the tasks are a, b, c"),
        ("method.min_losses=3", "FAMO expects one for each task"),
    ],
)
def test_bad_options_are_refused(typed, said):
    with pytest.raises(ValueError, match=said):
        build("famo", typed)


@pytest.mark.parametrize("bound", [math.inf, -math.inf, math.nan, "low"])
def test_a_bound_that_is_no_finite_number_is_refused(bound):
    with pytest.raises(ValueError, match=r"min_losses\.b=.*FAMO expects a number"):
        FAMO("ab", min_losses={"a": 0.0, "b": bound})
