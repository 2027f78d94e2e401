"""Dynamic task prioritization: from validation metrics to indicators to weights."""

import io
import itertools
import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drill import Drill, build
from gramians import everywhere, names
from mtlbench.methods.dtp import DTP
from mtlbench.weighting import Indicator

mpmath.mp.dps = 40
torch.set_num_threads(1)


def weights_of(method: DTP, tasks=None) -> list[float]:
    leaf = torch.rand(len(tasks or method.tasks)).double().requires_grad_()
    total = method.transform(leaf, tasks or method.tasks, None).sum()
    return torch.autograd.grad(total, leaf)[0].tolist()


def share(value: float, higher_is_better: bool = True) -> Indicator:
    return Indicator(value, higher_is_better, "%")


def error(value: float) -> Indicator:
    return Indicator(value, False, "px")


def focal(k: float, gamma: float) -> float:
    k = mpmath.mpf(k)
    return float(-((1 - k) ** mpmath.mpf(gamma)) * mpmath.log(k))


def after(method: DTP, *epochs: dict[str, Indicator]) -> list[float]:
    for indicators in epochs:
        method.after_epoch({}, indicators)
    return weights_of(method)


# ------------------------------------------------------------------------------------------------ formulas


def test_the_exponential_average_and_the_focal_weight():
    method = DTP(["a", "b"], alpha=0.3, gamma={"a": 2.0, "b": 0.0})
    assert weights_of(method) == [1, 1]
    assert after(method, {"a": share(20), "b": share(50)}) == pytest.approx([focal(0.2, 2), focal(0.5, 0)])
    assert after(method, {"a": share(60), "b": share(90)}) == pytest.approx([focal(0.32, 2), focal(0.62, 0)])
    assert after(method, {"a": share(40), "b": share(10)}) == pytest.approx([focal(0.344, 2), focal(0.464, 0)])
    assert method.take_notes() == ("no indicator yet: a", "no indicator yet: b")


@settings(deadline=None, derandomize=True, max_examples=80)
@given(st.floats(0.05, 1), st.floats(0, 6), st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_searching_for_shares_with_another_weight(alpha: float, gamma: float, shares: list[float]):
    method = DTP(["a"], alpha=alpha, gamma=gamma, floor=0.02)
    k = None
    for value in shares:
        kappa = max(value / 100, 0.02)
        k = kappa if k is None else alpha * kappa + (1 - alpha) * k
        assert after(method, {"a": share(value)})[0] == pytest.approx(focal(min(k, 1), gamma), rel=1e-9, abs=1e-12)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.floats(0, 5), st.lists(st.floats(0.5, 99.5), min_size=2, max_size=6, unique=True))
def test_searching_for_a_better_task_with_more_weight(gamma: float, shares: list[float]):
    tasks = names(len(shares))
    found = after(DTP(tasks, gamma=gamma), {t: share(v) for t, v in zip(tasks, sorted(shares), strict=True)})
    assert all(worse >= better for worse, better in itertools.pairwise(found))


def test_directions_and_units():
    """A share of what is wrong counts as the share of what is right; an error as its place between 0 and infinity."""
    tasks = names(2)
    assert after(DTP(tasks), {"task0": share(30, higher_is_better=False), "task1": share(70)}) == pytest.approx(
        [focal(0.7, 1)] * 2
    )
    given = DTP(tasks, reference={"task0": 2.0, "task1": 10.0})
    found = after(given, {"task0": error(6.0), "task1": Indicator(30.0, True, "dB")})
    assert found == pytest.approx([focal(2 / 8, 1), focal(30 / 40, 1)])
    curved = DTP(tasks, regression="exponential", reference={"task0": 2.0, "task1": 10.0})
    found = after(curved, {"task0": error(6.0), "task1": Indicator(30.0, True, "dB")})
    assert found == pytest.approx([focal(1 / 8, 1), focal(7 / 8, 1)])


@pytest.mark.parametrize("regression", ["ratio", "exponential"])
def test_without_a_reference_the_first_error_has_the_indicator_one_half(regression: str):
    method = DTP(["a"], alpha=1.0, regression=regression)
    assert after(method, {"a": error(3.0)}) == pytest.approx([focal(0.5, 1)])
    expected = {"ratio": 3 / 4, "exponential": 2 ** (-1 / 3)}[regression]
    assert after(method, {"a": error(1.0)}) == pytest.approx([focal(expected, 1)])
    assert after(method, {"a": error(3.0)}) == pytest.approx([focal(0.5, 1)])  # the first, not the last


@settings(deadline=None, derandomize=True, max_examples=80)
@given(
    st.sampled_from(["ratio", "exponential"]),
    st.lists(st.tuples(st.floats(-1e12, 1e12), st.booleans(), st.sampled_from(["%", "px"])), min_size=1, max_size=6),
)
def test_searching_for_indicators_outside_the_range(regression: str, found: list[tuple[float, bool, str]]):
    method = DTP(["a"], regression=regression)
    for value, higher, unit in found:
        (weight,) = after(method, {"a": Indicator(value, higher, unit)})
        assert 0.01 <= method.average["a"] <= 1
        assert 0 <= weight <= -math.log(0.01) + 1e-12


@everywhere
def test_the_step_after_an_evaluation(jacobian):
    tasks = names(len(jacobian))
    values = torch.linspace(5, 95, len(jacobian)).tolist()
    method = DTP(tasks, gamma=1.5)
    method.after_epoch({}, {t: share(v) for t, v in zip(tasks, values, strict=True)})
    exact = torch.tensor([focal(v / 100, 1.5) for v in values], dtype=torch.float64)
    answer = Drill(method).take(torch.linspace(1, 2, len(tasks)).double(), jacobian)
    torch.testing.assert_close(answer.weights, exact, rtol=1e-11, atol=0)
    torch.testing.assert_close(answer.heads, exact, rtol=1e-11, atol=0)
    size = (exact[:, None] * jacobian).norm(dim=1).sum().item()
    torch.testing.assert_close(answer.gradient, exact @ jacobian, rtol=1e-11, atol=1e-11 * size)


# ---------------------------------------------------------------------------------------------- degenerate


def test_without_a_validation_part_all_weights_are_1_and_it_is_said():
    method = DTP(names(2))
    for _ in range(3):
        assert after(method, {}) == [1, 1]
        assert method.take_notes() == ("no indicator yet: task0", "no indicator yet: task1")


def test_an_epoch_without_evaluation_or_with_a_value_that_is_not_finite_keeps_the_average():
    method = DTP(names(2))
    before = after(method, {"task0": share(20), "task1": error(3.0)})
    assert after(method, {}, {"task0": share(math.nan), "task1": error(math.inf)}) == before
    assert after(DTP(["a"]), {"a": error(math.nan)}) == [1]


def test_a_task_that_is_done_has_no_weight_and_one_that_fails_a_finite_one():
    assert after(DTP(names(2)), {"task0": share(100), "task1": error(0.0)}) == [0, 0]
    found = after(DTP(names(3), gamma=0.0), {"task0": share(0), "task1": share(100, False), "task2": share(0.5)})
    assert found == pytest.approx([-math.log(0.01)] * 3)
    drill = Drill(DTP(names(2)))
    drill.method.after_epoch({}, {"task0": share(100), "task1": share(100)})
    answer = drill.take(torch.ones(2).double(), torch.eye(2).double())
    assert answer.problem is None
    assert answer.gradient.tolist() == [0, 0]
    weights_of(drill.method)
    assert drill.method.take_notes() == ("every task is done",)


def test_a_first_error_of_0_is_a_reference_that_any_other_falls_short_of():
    for regression in ("ratio", "exponential"):
        method = DTP(["a"], alpha=1.0, gamma=0.0, regression=regression)
        assert after(method, {"a": error(0.0)}) == [0]
        assert after(method, {"a": error(1e-9)}) == pytest.approx([-math.log(0.01)])


def test_absent_tasks_and_their_names():
    method = DTP(["a", "b", "c"])
    found = after(method, {"a": share(10), "b": share(50), "c": share(90)})
    assert weights_of(method, ["c", "a"]) == [found[2], found[0]]


# ---------------------------------------------------------------------------------------- state, bad input


def test_state_is_exact_and_no_alias():
    epochs = [{"a": share(10.0 + 7 * k), "b": error(5.0 / (k + 1)), "c": share(100 / (k + 3), False)} for k in range(6)]
    method = build("dtp")
    after(method, *epochs[:2])
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    expected = after(method, *epochs[2:])
    file.seek(0)
    state = torch.load(file, weights_only=True)
    again = build("dtp")
    after(again, *epochs[3:])  # another first error, another average
    assert after(again) != after(method)
    for _ in range(2):
        again.load_state_dict(state)
        assert after(again, *epochs[2:]) == expected


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("method.alpha=0", r"alpha=0: DTP expects a number alpha > 0"),
        ("method.alpha=1.2", r"alpha=1\.2: DTP expects a number 0 <= alpha <= 1"),
        ("method.alpha=nan", r"alpha=nan: DTP expects"),
        ("method.gamma=-1", r"gamma=-1: DTP expects a number gamma >= 0"),
        ("method.gamma={a: 1, b: 1}", r"gamma names a, b; the tasks are a, b, c\. Name each once"),
        ("method.gamma={a: 1, b: 1, c: -2}", r"gamma=-2: DTP expects"),
        ("method.regression=threshold", r"regression=threshold: DTP takes regression=ratio, exponential"),
        ("method.reference={d: 1}", r"reference names d; the tasks are a, b, c"),
        ("method.reference={a: 0}", r"reference\.a=0: DTP expects a number reference\.a > 0"),
        ("method.reference=3", r"reference=3: DTP expects a number for each task that has one, such as \{a: 3\}"),
        ("method.floor=0", r"floor=0: DTP expects a number floor > 0"),
        ("method.floor=1.5", r"floor=1\.5: DTP expects a number 0 <= floor <= 1"),
    ],
)
def test_bad_options_are_refused_with_what_is_allowed(typed: str, said: str):
    with pytest.raises(ValueError, match=said):
        build("dtp", typed)
