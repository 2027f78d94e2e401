"""Intervals, paired tests and budgets, against enumeration by the definition and scipy."""

import itertools
import math

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings

from mtlbench.aggregation import inference

DIFFERENCES = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=9)
SLOWLY = settings(deadline=None, derandomize=True, max_examples=40)


def test_resamples_of_few_seeds_are_all_of_them():
    assert len(inference.resamples(3)) == 27
    assert sorted(map(tuple, inference.resamples(2))) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert inference.resamples(7).shape == (inference.RESAMPLES, 7)
    assert np.array_equal(inference.resamples(7), inference.resamples(7))


def test_bootstrap_interval_by_hand():
    """Of two values the four means are 0, 1, 1, 2: 2.5 % of the way into the sorted four."""
    values = np.array([0.0, 2.0])
    low, high = inference.bootstrap_interval(lambda places: values[places].mean(1), 2)
    assert (low, high) == pytest.approx((0.075, 1.925))
    assert all(math.isnan(end) for end in inference.bootstrap_interval(lambda places: values[places].mean(1), 1))
    with pytest.raises(ValueError, match="confidence"):
        inference.bootstrap_interval(lambda places: values[places].mean(1), 2, 1.0)


def test_bootstrap_interval_of_many_seeds_is_near_scipys():
    values = np.random.default_rng(3).normal(size=12)
    found = inference.bootstrap_interval(lambda places: values[places].mean(1), 12)
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(1))
    assert found == pytest.approx(tuple(theirs.confidence_interval), abs=0.03)


@SLOWLY
@given(DIFFERENCES)
def test_sign_flip_is_the_share_of_signs_that_do_as_much(differences):
    told = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in _signs(len(differences))]
    expected = np.mean(np.array(told) >= abs(sum(differences)))
    assert inference.sign_flip(differences) == pytest.approx(expected)


def test_sign_flip_of_many_is_near_scipys_and_repeats():
    differences = np.random.default_rng(0).normal(0.3, 1, 30)
    theirs = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(5)
    )
    assert inference.sign_flip(differences) == pytest.approx(theirs.pvalue, abs=0.02)
    assert inference.sign_flip(differences) == inference.sign_flip(differences)
    assert inference.sign_flip(np.ones(30)) == pytest.approx(1 / inference.RESAMPLES)  # never 0
    assert math.isnan(inference.sign_flip([]))


def test_sign_flip_counts_equal_sums_of_other_orders():
    assert inference.sign_flip([0.1, 0.2, 0.3]) == inference.sign_flip([0.3, 0.2, 0.1]) == 0.25


@SLOWLY
@given(DIFFERENCES)
def test_wilcoxon_by_the_definition(differences):
    """Every assignment of signs to the mean ranks of the sizes; zeros are left out."""
    kept = np.array([d for d in differences if d])
    ranks = scipy.stats.rankdata(np.abs(kept)) if len(kept) else kept
    sums = np.array([sum(r for r, s in zip(ranks, signs, strict=True) if s > 0) for signs in _signs(len(kept))])
    observed = sum(r for r, d in zip(ranks, kept, strict=True) if d > 0)
    expected = min(1, 2 * min(np.mean(sums <= observed + 1e-9), np.mean(sums >= observed - 1e-9)))
    assert inference.wilcoxon(differences) == pytest.approx(expected)


def test_wilcoxon_is_scipys_without_ties():
    differences = np.random.default_rng(2).normal(0.4, 1, 14)
    expected = scipy.stats.wilcoxon(differences, method="exact").pvalue
    assert inference.wilcoxon(differences) == pytest.approx(expected, rel=1e-9)
    assert inference.wilcoxon([0.0, 0.0]) == 1
    assert math.isnan(inference.wilcoxon([]))


@pytest.mark.parametrize("n", [1, 3, 5, 6, 8])
def test_the_smallest_p_is_reached_by_differences_of_one_sign(n):
    differences = np.arange(1.0, n + 1)
    assert inference.sign_flip(differences) == inference.wilcoxon(differences) == inference.smallest_p(n)
    assert (inference.smallest_p(n) <= 0.05) == (n >= inference.ENOUGH)


def test_holm_by_hand_and_in_the_given_order():
    """0.01 x 3, 0.02 x 2, 0.03 x 1 raised to the one before; a NaN does not count among the three."""
    assert inference.holm([0.03, 0.01, math.nan, 0.02])[[0, 1, 3]] == pytest.approx([0.04, 0.03, 0.04])
    assert math.isnan(inference.holm([0.03, math.nan])[1])
    assert inference.holm([0.9, 0.8]).tolist() == [1, 1]
    assert inference.holm([]).size == 0


@SLOWLY
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 0.2))
def test_holm_rejects_what_the_procedure_rejects(p, level):
    order = sorted(range(len(p)), key=lambda i: p[i])
    rejected = set()
    for step, i in enumerate(order):
        if p[i] * (len(p) - step) > level:
            break
        rejected.add(i)
    assert {i for i, value in enumerate(inference.holm(p)) if value <= level} == rejected


def test_probability_of_improvement():
    assert inference.probability_of_improvement([1, 2], [0, 2], True) == (1 + 0 + 1 + 0.5) / 4
    assert inference.probability_of_improvement([1, 2], [0, 2], False) == (0 + 1 + 0 + 0.5) / 4
    assert math.isnan(inference.probability_of_improvement([], [1], True))


@SLOWLY
@given(
    st.lists(st.integers(-9, 9).map(float), min_size=1, max_size=6, unique=True),
    st.integers(0, 3),
    st.integers(0, 2**31),
)
def test_expected_best_is_the_mean_over_all_draws(scores, failed, seed):
    """Every subset of k settings, the failed ones worse than all others; test values go with the chosen setting."""
    values = np.random.default_rng(seed).normal(size=len(scores))
    found = inference.expected_best(scores, failed)
    tested = inference.expected_best(scores, failed, values)
    everything = [*range(len(scores)), *[None] * failed]
    assert len(found) == len(everything)
    for k in range(1, len(everything) + 1):
        draws = list(itertools.combinations(everything, k))
        alive = [[i for i in draw if i is not None] for draw in draws]
        best = [max(draw, key=lambda i: scores[i]) for draw in alive if draw]
        assert found[k - 1] == pytest.approx(np.mean([scores[i] for i in best]))
        assert tested[k - 1] == pytest.approx(np.mean([values[i] for i in best]))
        lost = sum(not draw for draw in alive) / len(draws)
        assert inference.all_fail(len(everything), failed, k) == pytest.approx(lost)


def test_expected_best_ends_at_the_best_and_holds_for_many_settings():
    scores = np.random.default_rng(0).normal(size=2000)
    found = inference.expected_best(scores)
    assert found[0] == pytest.approx(scores.mean())
    assert found[-1] == pytest.approx(scores.max())
    assert (np.diff(found) > -1e-12).all()
    assert inference.expected_best([], 3).size == 0


def _signs(n):
    return itertools.product((1, -1), repeat=n)
