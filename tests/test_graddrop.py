"""GradDrop against Algorithm 1 coordinate by coordinate, torchjd, and its expectation."""

import pytest
import torch
import torchjd.aggregation as torchjd
from hypothesis import given, settings
from hypothesis import strategies as st

from drill import Drill, build
from gramians import FOUR, FOUR_LOSSES, JACOBIANS, everywhere, names
from mtlbench.methods.graddrop import GradDrop


def drop(method, jacobian, drawn, weights=None, tasks=None):
    weights = torch.ones(len(jacobian)).double() if weights is None else weights
    return method.combine(weights, jacobian, method.tasks if tasks is None else tasks, lambda: drawn)


def draws(size, seed=0):
    return torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def algorithm(jacobian, drawn, leak):
    """Lines 10 to 15 of Algorithm 1, a number at a time."""
    found = []
    for column, u in zip(jacobian.T.tolist(), drawn.tolist(), strict=True):
        size = sum(abs(g) for g in column)
        purity = 0.5 * (1 + sum(column) / size) if size else 0.5
        total = 0.0
        for g, l in zip(column, leak, strict=True):
            mask = (purity > u and g > 0) or (purity < u and g < 0)
            total += (l + (1 - l) * mask) * g
        found.append(total)
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("leak", [0.0, 0.3, 1.0])
@everywhere
def test_is_algorithm_1(jacobian, leak):
    drawn = draws(jacobian.shape[1])
    found = drop(GradDrop(names(len(jacobian)), leak=leak), jacobian, drawn)
    size = jacobian.abs().sum().item()
    expected = algorithm(jacobian, drawn, [leak] * len(jacobian))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14 * size)


@everywhere
def test_agrees_with_torchjd(jacobian, monkeypatch):
    drawn = draws(jacobian.shape[1])
    leak = torch.linspace(0, 1, len(jacobian)).double()
    method = GradDrop(names(len(jacobian)), leak=dict(zip(names(len(jacobian)), leak.tolist(), strict=True)))
    found = drop(method, jacobian, drawn)
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: drawn)
    expected = torchjd.GradDrop(leak=leak)(jacobian)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14 * jacobian.abs().sum().item())


@everywhere
def test_a_leak_of_one_is_the_sum(jacobian):
    found = drop(GradDrop(names(len(jacobian)), leak=1.0), jacobian, draws(jacobian.shape[1]))
    torch.testing.assert_close(found, jacobian.sum(0), rtol=1e-12, atol=1e-14 * jacobian.abs().sum().item())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-53])
def test_without_conflict_nothing_is_dropped(dtype, u):
    """Also where a draw below 1 is 1 in the gradients' precision, and where it is 0."""
    jacobian = JACOBIANS["agreeing"].to(dtype)
    drawn = torch.full((6,), u, dtype=torch.float64)
    for rows in (jacobian, -jacobian):
        assert torch.equal(drop(GradDrop(names(4)), rows, drawn), rows.sum(0))


def test_the_expectation_keeps_each_sign_by_its_purity():
    jacobian = torch.tensor([[3.0], [-1.0], [0.5]]).double().expand(3, 20000)
    found = drop(GradDrop(names(3)), jacobian, draws(20000))
    purity = 3.5 / 4.5
    assert set(found.tolist()) == {3.5, -1.0}
    assert (found > 0).double().mean().item() == pytest.approx(purity, abs=0.01)


def test_the_same_draw_serves_all_tasks():
    """One sign a coordinate: no sum of kept gradients has both."""
    drawn = draws(200, 3)
    jacobian = torch.randn(5, 200, generator=torch.Generator().manual_seed(4)).double()
    found = drop(GradDrop(names(5)), jacobian, drawn)
    positive, negative = jacobian.clamp(min=0).sum(0), jacobian.clamp(max=0).sum(0)
    assert (torch.isclose(found, positive) | torch.isclose(found, negative)).all()
    assert torch.isclose(found, positive).any()
    assert torch.isclose(found, negative).any()


def test_weights_of_a_loss_balance_come_first():
    drawn = draws(4)
    weights = torch.tensor([0.1, 20.0, 1.0, 3.0]).double()
    method = GradDrop(names(4))
    assert torch.equal(drop(method, FOUR, drawn, weights), drop(method, weights[:, None] * FOUR, drawn))
    assert not torch.equal(drop(method, FOUR, drawn, weights), weights @ FOUR)


def test_zero_gradients_and_zero_columns_change_nothing():
    jacobian = FOUR.clone()
    jacobian[:, 1] = 0
    drawn = draws(4)
    found = drop(GradDrop(names(4)), jacobian, drawn)
    assert found[1] == 0
    with_zero = torch.cat([jacobian, torch.zeros(1, 4).double()])
    assert torch.equal(drop(GradDrop(names(5)), with_zero, drawn), found)
    assert torch.equal(drop(GradDrop(names(4)), 0 * FOUR, drawn), torch.zeros(4).double())


def test_an_absent_tasks_leak_is_not_anothers():
    method = GradDrop(names(3), leak={"task0": 0.0, "task1": 1.0, "task2": 0.4})
    pair = FOUR[[0, 2]]
    drawn = draws(4)
    expected = drop(GradDrop(["a", "b"], leak={"a": 0.0, "b": 0.4}), pair, drawn)
    assert torch.equal(drop(method, pair, drawn, tasks=["task0", "task2"]), expected)


@pytest.mark.parametrize("level", ["parameter", "feature"])
def test_in_a_step_the_draws_are_the_steps_own(level):
    drill = Drill(build("graddrop", f"method.level={level}", tasks=names(4)))
    answer = drill.take(FOUR_LOSSES, FOUR, rng=torch.Generator().manual_seed(12))
    expected = algorithm(FOUR, draws(4, 12), [0.0] * 4)
    torch.testing.assert_close(answer.gradient, expected, rtol=1e-12, atol=1e-12)
    assert answer.weights.tolist() == answer.heads.tolist() == [1, 1, 1, 1]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.lists(st.floats(-1e8, 1e8, width=32), min_size=3, max_size=3), min_size=1, max_size=6),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=3, max_size=3),
    st.floats(0, 1),
)
def test_no_counterexample_is_found(rows, drawn, leak):
    """Between the sum of the negative parts and that of the positive ones, in float32 too."""
    for dtype in (torch.float64, torch.float32):
        jacobian = torch.tensor(rows, dtype=dtype)
        found = drop(GradDrop(names(len(rows)), leak=leak), jacobian, torch.tensor(drawn, dtype=torch.float64))
        slack = 1e-6 * jacobian.abs().sum(0) + 1e-30
        assert (found <= jacobian.clamp(min=0).sum(0) + slack).all()
        assert (found >= jacobian.clamp(max=0).sum(0) - slack).all()


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("method.leak=1.1", "GradDrop expects a number 0 <= leak <= 1"),
        ("method.leak=-0.1", "GradDrop expects a number 0 <= leak <= 1"),
        ("method.leak=much", "GradDrop expects a number 0 <= leak <= 1"),
        ("method.leak={a: 0, b: 2, c: 0}", "GradDrop expects a number 0 <= leak <= 1"),
        ("method.leak={a: 0, b: 1}", "leak names a, b; the tasks are a, b, c"),
        ("method.level=layer", "GradDrop works at parameter, feature"),
    ],
)
def test_bad_options_are_refused(typed, said):
    with pytest.raises(ValueError, match=said):
        build("graddrop", typed)
