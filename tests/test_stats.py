"""Delta_m in its forms, ranks with ties, rounding, intervals and Pareto fronts."""

import math
import subprocess
import sys

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings

from mtlbench import stats

BETTER = [True, False, False]
GROUPS = ["semantic", "depth", "depth"]


def test_delta_m_by_hand():
    """mIoU 50 -> 55 is a gain of 10 %, depth 2 -> 1 of 50 %, relative error 10 -> 12 a loss of 20 %."""
    values, baseline = [55, 1, 12], [50, 2, 10]
    metrics = stats.delta_m(values, baseline, BETTER, form="metrics")
    assert metrics == pytest.approx((-10 - 50 + 20) / 3)  # lower is better: negative is a gain
    tasks = stats.delta_m(values, baseline, BETTER, GROUPS, form="tasks")
    assert tasks == pytest.approx((10 + (50 - 20) / 2) / 2)  # higher is better: positive is a gain


def test_delta_m_forms_differ_in_sign_alone_with_one_metric_a_task():
    values, baseline = np.array([[55, 1, 12], [40, 3, 9]]), [50, 2, 10]
    metrics = stats.delta_m(values, baseline, BETTER)
    tasks = stats.delta_m(values, baseline, BETTER, ["a", "b", "c"], form="tasks")
    assert metrics.shape == (2,)
    assert metrics == pytest.approx(-tasks)


def test_delta_m_of_the_baseline_is_zero_and_groups_need_not_be_adjacent():
    for form in stats.DELTA_M:
        assert stats.delta_m([50, 2, 10], [50, 2, 10], BETTER, GROUPS, form) == 0
    adjacent = stats.delta_m([55, 1, 12], [50, 2, 10], BETTER, GROUPS, "tasks")
    spread = stats.delta_m([1, 55, 12], [2, 50, 10], [False, True, False], ["depth", "semantic", "depth"], "tasks")
    assert spread == pytest.approx(adjacent)


def test_delta_m_of_an_undefined_value_is_undefined():
    assert np.isnan(stats.delta_m([55, math.nan, 12], [50, 2, 10], BETTER))
    assert np.isnan(stats.delta_m([55, math.nan, 12], [50, 2, 10], BETTER, GROUPS, "tasks"))


@pytest.mark.parametrize("baseline", [[50, 0, 10], [50, -2, 10], [50, math.nan, 10]])
def test_delta_m_refuses_a_baseline_without_a_relative_change(baseline):
    with pytest.raises(ValueError, match="above 0"):
        stats.delta_m([55, 1, 12], baseline, BETTER)


def test_delta_m_refuses_an_unknown_form():
    with pytest.raises(ValueError, match="metrics, tasks"):
        stats.delta_m([1], [1], [True], form="task")
    with pytest.raises(ValueError, match="groups"):
        stats.delta_m([1], [1], [True], form="tasks")


def test_mean_relative_improvement():
    values = np.array([[50, 2.0, 10], [60, 1.0, 10], [50, math.nan, 5]])
    found = stats.mean_relative_improvement(values, values[0], BETTER)
    assert found == pytest.approx([0, (0.2 + 0.5) / 3, 0.25])  # a NaN has no part
    assert stats.mean_relative_improvement([0.3], [0.0], [True]) == pytest.approx(0.3)
    assert stats.mean_relative_improvement([math.nan], [1.0], [True]) == 0


def test_ranks_share_places_in_ties():
    values = [[3, 0.1], [3, 0.2], [1, 0.2], [5, 0.2]]
    assert stats.ranks(values, [True, False]).tolist() == [[2.5, 1], [2.5, 3], [4, 3], [1, 3]]
    with pytest.raises(ValueError, match="NaN"):
        stats.ranks([[1.0], [math.nan]], [True])


def test_rank_summary_is_lsb_2c_gradnorm():
    found = stats.rank_summary([[6, 6, 6, 2.5, 1, 6]])
    assert found.loc[0, ["min", "max"]].tolist() == [1, 6]
    assert round(found.average[0], 2) == 4.58


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=7))
def test_ranks_are_those_of_scipy_and_sum_to_a_constant(rows):
    found = stats.ranks(rows, BETTER)
    turned = np.array(rows, float) * [-1, 1, 1]
    assert np.array_equal(found, scipy.stats.rankdata(turned, axis=0))
    assert found.sum(0) == pytest.approx(len(rows) * (len(rows) + 1) / 2)


def test_printed_digits():
    assert stats.printed("44.50") == (44.5, pytest.approx(0.005))
    assert stats.printed("79") == (79.0, 0.5)
    assert stats.printed("-2.3") == (-2.3, pytest.approx(0.05))
    with pytest.raises(ValueError, match="could not convert"):
        stats.printed("-")


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(st.floats(1, 100), min_size=6, max_size=6), st.integers(0, 2**31))
def test_rounding_interval_of_delta_m_holds_every_rounding_and_reaches_its_ends(numbers, seed):
    """Against random points of the box, and its 2^6 corners."""
    numbers, half = np.array(numbers), np.array([0.5, 0.05, 0.005] * 2)

    def aggregate(x):
        return float(stats.delta_m(x[:3], x[3:], BETTER, GROUPS, "tasks"))

    low, high = stats.rounding_interval(aggregate, numbers, half)
    corners = [aggregate(numbers + half * [1 if c >> i & 1 else -1 for i in range(6)]) for c in range(64)]
    assert (low, high) == pytest.approx((min(corners), max(corners)))
    inside = np.random.default_rng(seed).uniform(-1, 1, (50, 6))
    assert all(low - 1e-9 <= aggregate(numbers + half * point) <= high + 1e-9 for point in inside)


def test_mean_std_names_its_ddof():
    assert stats.mean_std([1, 2, 3], ddof=1) == (2, 1)
    assert stats.mean_std([1, 2, 3], ddof=0) == (2, pytest.approx(math.sqrt(2 / 3)))
    assert math.isnan(stats.mean_std([1], ddof=1)[1])


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 9, 29, 100])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_student_t_quantile_is_that_of_scipy(freedom, confidence):
    expected = scipy.stats.t.ppf((1 + confidence) / 2, freedom)
    assert stats.student_t_quantile(confidence, freedom) == pytest.approx(expected, rel=1e-9)


def test_t_interval():
    values = [1.0, 2.0, 4.0]
    expected = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    assert stats.t_interval(values) == pytest.approx(expected)
    assert all(math.isnan(end) for end in stats.t_interval([1.0]))
    with pytest.raises(ValueError, match="confidence"):
        stats.student_t_quantile(1.0, 3)


def test_undominated_and_the_two_counts():
    """a dominates b; c is dominated by the other set alone; equal rows do not dominate each other."""
    better = [True, False]
    mine = [[0.9, 1.0], [0.8, 1.0], [0.5, 0.5], [0.9, 1.0]]
    others = [[0.5, 0.4], [0.1, 9.0]]
    assert stats.undominated(mine, mine, better).tolist() == [True, False, True, True]
    assert stats.pareto_counts(mine, others, better) == {"full": 2, "other": 3}
    assert stats.pareto_counts(others, mine, better) == {"full": 1, "other": 1}
    assert stats.pareto_counts([], others, better) == {"full": 0, "other": 0}
    assert stats.pareto_counts(mine, [], better) == {"full": 3, "other": 4}
    with pytest.raises(ValueError, match="NaN"):
        stats.undominated([[math.nan, 1]], mine, better)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12), st.integers(0, 12))
def test_pareto_counts_by_the_definition(rows, cut):
    def count(part, against):
        return sum(
            not any(r[0] >= row[0] and r[1] <= row[1] and (r[0] > row[0] or r[1] < row[1]) for r in against)
            for row in part
        )

    mine, others = rows[:cut], rows[cut:]
    found = stats.pareto_counts(mine, others, [True, False])
    assert found == {"full": count(mine, rows), "other": count(mine, others)}
    assert found["full"] <= found["other"]


def test_imports_no_torch():
    code = "import sys, mtlbench.stats, mtlbench.published; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
