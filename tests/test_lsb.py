"""Loss scale balancing against the paper's equations, written out in high precision."""

import io
import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf

from drill import Drill, build
from gramians import everywhere, names
from mtlbench.methods.lsb import LSB

mpmath.mp.dps = 50
torch.set_num_threads(1)

Records = list[list[float]]
"""Mean losses, by period and task."""


class ByHand:
    """Eqs. 3, 4, 7, 9, 11 and 12 of Lee, Lee and Kim (2021), one after the other, in periods from 1."""

    def __init__(self, records: Records, priorities: list[float], betas: list[float]):
        count = len(priorities)
        pi = [mpf(p) / sum(map(mpf, priorities)) for p in priorities]
        self.w, self.d, self.alpha, self.overall = [], [], [], []
        for t in range(len(records) + 1):  # t = 0 is the paper's first period
            last = [mpf(loss) for loss in records[t - 1]] if t else []
            w = [pi[k] * self.overall[-1] / last[k] for k in range(count)] if t else pi
            d = [mpf(1)] * count
            if t >= 2:
                before = [mpf(loss) for loss in records[t - 2]]
                pace = self.overall[-1] / self.overall[-2]
                d = [((last[k] / before[k]) / pace) ** mpf(betas[t]) for k in range(count)]
            alpha = 1 / sum(pi[k] * d[k] for k in range(count))
            self.w, self.d, self.alpha = [*self.w, w], [*self.d, d], [*self.alpha, alpha]
            if t < len(records):
                self.overall.append(alpha * sum(d[k] * w[k] * mpf(records[t][k]) for k in range(count)))

    def weights(self, t: int) -> list[float]:
        return [float(self.alpha[t] * d * w) for d, w in zip(self.d[t], self.w[t], strict=True)]


def weights_of(method: LSB, tasks=None) -> list[float]:
    leaf = torch.rand(len(tasks or method.tasks)).double().requires_grad_()
    total = method.transform(leaf, tasks or method.tasks, None).sum()
    return torch.autograd.grad(total, leaf)[0].tolist()


def end(method: LSB, losses) -> None:
    method.after_epoch(dict(zip(method.tasks, losses, strict=True)), {})


def lived(method: LSB, records: Records) -> list[list[float]]:
    """The weights in each period, and in the one after the last record."""
    found = [weights_of(method)]
    for losses in records:
        end(method, losses)
        found.append(weights_of(method))
    return found


RECORDS = [[2.0, 0.3, 9.0], [1.2, 0.25, 8.8], [1.1, 0.26, 5.0], [0.7, 0.20, 4.5], [0.69, 0.05, 4.4]]


@pytest.mark.parametrize(
    ("beta", "increment"), [(0.0, 0.05), (0.0, 0.0), (1.0, 0.0), (-3.0, 0.0), (10.0, 0.0), (-1.0, 0.7)]
)
@pytest.mark.parametrize(
    "priorities", [None, {"task0": 0.2, "task1": 0.3, "task2": 0.5}, {"task0": 5, "task1": 1, "task2": 1}]
)
def test_the_weights_are_those_of_the_equations(beta, increment, priorities):
    method = LSB(names(3), priorities, beta, increment)
    betas = [0, 0] + [beta + increment * k for k in range(4)]
    exact = ByHand(RECORDS, list((priorities or dict.fromkeys(names(3), 1)).values()), betas)
    for t, found in enumerate(lived(method, RECORDS)):
        assert found == pytest.approx(exact.weights(t), rel=1e-12), t


def test_three_phases():
    """Priorities; then loss scales in their proportion; then the harder task has more than its priority."""
    method = LSB(names(2), {"task0": 1.0, "task1": 3.0}, beta=1.0, beta_increment=0.0)
    assert weights_of(method) == pytest.approx([0.25, 0.75])
    end(method, [4.0, 0.5])
    first, second = weights_of(method)
    assert second * 0.5 == pytest.approx(3 * first * 4.0)
    end(method, [4.0, 0.1])  # task0 stands still: difficult
    first, second = weights_of(method)
    assert second * 0.1 == pytest.approx(3 * first * 4.0 / 5)


losses = st.floats(-6, 6).map(lambda power: 10.0**power)
lives = st.integers(1, 6).flatmap(
    lambda count: st.tuples(
        st.lists(st.lists(losses, min_size=count, max_size=count), min_size=1, max_size=6),
        st.lists(st.floats(0.05, 20), min_size=count, max_size=count),
    )
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(lives, st.floats(-3, 3), st.floats(0, 0.5))
def test_searching_for_new_weights_that_change_the_overall_loss(life, beta: float, increment: float):
    """Proposition 1 (second period) and Proposition 2 (from the third on), for any losses and priorities."""
    records, priorities = life
    tasks = names(len(priorities))
    method = LSB(tasks, dict(zip(tasks, priorities, strict=True)), beta, increment)
    found = lived(method, records)
    exact = ByHand(records, priorities, [0, 0] + [beta + increment * k for k in range(6)])
    for t, record in enumerate(records):
        before = math.fsum(w * loss for w, loss in zip(found[t], record, strict=True))
        after = math.fsum(w * loss for w, loss in zip(found[t + 1], record, strict=True))
        assert after == pytest.approx(before, rel=1e-11)
        assert found[t + 1] == pytest.approx(exact.weights(t + 1), rel=1e-9)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(lives, st.floats(-2, 2))
def test_searching_for_scales_that_turn_the_step(life, beta: float):
    """From the second period on, a task's loss scale does not depend on the unit of its loss."""
    records, priorities = life
    units = [10.0 ** (k - 2) for k in range(len(priorities))]
    tasks = names(len(priorities))
    plain, scaled = (LSB(tasks, None, beta) for _ in range(2))
    one = lived(plain, records)
    other = lived(scaled, [[u * x for u, x in zip(units, record, strict=True)] for record in records])
    for a, b in zip(one[1:], other[1:], strict=True):
        ratios = [u * y / x for u, x, y in zip(units, a, b, strict=True)]
        assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=1e-9)


def test_the_default_begins_without_difficulties_and_grows():
    method = LSB(names(3))
    found = []
    for record in RECORDS:
        found.append(method.beta_now())
        end(method, record)
    assert found == pytest.approx([0, 0, 0, 0.05, 0.1])
    plain = LSB(names(3), beta_increment=0.0)
    default = lived(LSB(names(3)), RECORDS)
    for t, (a, b) in enumerate(zip(lived(plain, RECORDS), default, strict=True)):
        assert (a == pytest.approx(b, rel=1e-6)) == (t < 3), t


@everywhere
def test_the_step_in_the_third_period(jacobian):
    count = len(jacobian)
    method = LSB(names(count), beta=1.0)
    records = [torch.linspace(0.1, 9, count).tolist(), torch.logspace(1, -1, count).tolist()]
    for record in records:
        end(method, record)
    exact = torch.tensor(ByHand(records, [1] * count, [0, 0, 1.0]).weights(2), dtype=torch.float64)
    answer = Drill(method).take(torch.linspace(1, 2, count).double(), jacobian)
    torch.testing.assert_close(answer.weights, exact, rtol=1e-11, atol=0)
    torch.testing.assert_close(answer.heads, exact, rtol=1e-11, atol=0)
    size = (exact[:, None] * jacobian).norm(dim=1).sum().item()
    torch.testing.assert_close(answer.gradient, exact @ jacobian, rtol=1e-11, atol=1e-11 * size)


def test_large_exponents_do_not_overflow():
    method = LSB(names(2), beta=500.0)
    for record in ([1.0, 1.0], [1e-9, 1e9]):
        end(method, record)
    assert weights_of(method)[0] == 0  # all on the difficult task
    assert weights_of(method)[1] == pytest.approx((0.5 * 1e-9 + 0.5 * 1e9) / 1e9)


# ------------------------------------------------------------------------------------------- who is there


def test_a_task_without_a_label_in_the_batch_leaves_the_balance_of_the_others():
    """In any period: as if the others had been the only ones from the start, but for their overall loss's length."""
    priorities = {"task0": 1.0, "task1": 2.0, "task2": 4.0}
    method, pair = LSB(names(3), priorities, beta=1.0), LSB(names(3)[1:], {"task1": 2.0, "task2": 4.0}, beta=1.0)
    for record in RECORDS:
        some, alone = weights_of(method, ["task1", "task2"]), weights_of(pair)
        assert some[0] / some[1] == pytest.approx(alone[0] / alone[1], rel=1e-12)
        end(method, record)
        end(pair, record[1:])


def test_a_task_that_comes_late_is_in_its_own_first_and_second_period():
    method = LSB(names(3), beta=1.0, beta_increment=0.0)
    for record in RECORDS[:3]:
        method.after_epoch({"task0": record[0], "task1": record[1], "task2": None}, {})
    first = weights_of(method)
    assert first[2] == pytest.approx(1 / 3)
    assert first[:2] == pytest.approx(weights_of(method, ["task0", "task1"]))
    end(method, [1.0, 0.2, 7.0])
    w = weights_of(method)
    overall = first[0] * 1.0 + first[1] * 0.2 + first[2] * 7.0
    assert w[0] * 1.0 + w[1] * 0.2 + w[2] * 7.0 == pytest.approx(overall)
    assert w[0] * 1.0 / (w[2] * 7.0) == pytest.approx(1.0 / 1.1)  # d of task0 and, without a second record, 1


def test_an_epoch_without_a_label_is_passed_over():
    method, other = LSB(names(2), beta=1.0, beta_increment=0.0), LSB(names(2), beta=1.0, beta_increment=0.0)
    for record in ([3.0, 1.0], [2.0, 0.5]):
        end(method, record)
        end(other, record)
    before = weights_of(method)
    method.after_epoch({"task0": None, "task1": None}, {})
    method.after_epoch({"task0": math.nan}, {})
    assert weights_of(method) == before
    assert method.period == 5
    end(method, [1.0, 0.4])
    end(other, [1.0, 0.4])
    assert weights_of(method) == weights_of(other)


@pytest.mark.parametrize("loss", [0.0, -1.0])
def test_a_record_that_is_not_above_0_is_noted_and_balances_nothing(loss):
    method = LSB(names(3), beta=1.0)
    for record in RECORDS[:2]:
        end(method, record)
    end(method, [1.1, loss, 5.0])
    found = weights_of(method)
    assert method.take_notes() == ("a loss record that is not above 0: task1",)
    assert found[1] == pytest.approx(1 / 3)
    assert [found[0], found[2]] == pytest.approx(weights_of(method, ["task0", "task2"]))
    end(method, RECORDS[3])
    assert all(0 < w < math.inf for w in weights_of(method))
    assert method.take_notes() == ()


def test_one_task_keeps_its_plain_gradient():
    assert (
        lived(LSB(["a"], {"a": 7.0}, beta=2.0), [[x] for x in (3.0, 0.1, 50.0, 1e-9)])
        == [pytest.approx([1.0], rel=1e-12)] * 5
    )


# ---------------------------------------------------------------------------------------- state, bad input


def test_state_is_exact_and_no_alias():
    method = LSB(names(3), beta=1.0)
    lived(method, RECORDS[:3])
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    expected = lived(method, RECORDS[3:])
    for _ in range(2):
        file.seek(0)
        again = LSB(names(3), beta=1.0)
        lived(again, RECORDS[1:])  # whatever it was before
        state = torch.load(file, weights_only=True)
        again.load_state_dict(state)
        assert lived(again, RECORDS[3:]) == expected
        again.load_state_dict(state)
        assert lived(again, RECORDS[3:]) == expected


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("method.priorities={a: 1, b: 1}", r"priorities names a, b; the tasks are a, b, c\. Name each once"),
        ("method.priorities={a: 1, b: 1, c: 1, d: 2}", r"priorities names a, b, c, d; the tasks are a, b, c"),
        ("method.priorities={a: 1, b: 0, c: 1}", r"priorities\.b=0: LSB expects a number priorities\.b > 0"),
        ("method.priorities={a: 1, b: 1, c: inf}", r"priorities\.c=inf: LSB expects"),
        ("method.priorities=1", r"priorities=1: LSB expects one for each task, such as \{a: 1, b: 1, c: 1\}"),
        ("method.beta=nan", r"beta=nan: LSB expects"),
        ("method.beta=inf", r"beta=inf: LSB expects"),
        ("method.beta=much", r"beta=much: LSB expects"),
        ("method.beta_increment=-0.1", r"beta_increment=-0\.1: LSB expects a number beta_increment >= 0"),
    ],
)
def test_bad_options_are_refused_with_what_is_allowed(typed: str, said: str):
    with pytest.raises(ValueError, match=said):
        build("lsb", typed)
