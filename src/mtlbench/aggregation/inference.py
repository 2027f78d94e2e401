"""What a few seeds and settings allow to say: intervals, paired tests, the best of k settings. numpy only."""

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
"""Of the bootstrap and the sign-flip test, where there are too many to take each."""

ENOUGH = 6
"""Pairs of seeds below which no difference is called: 5 signs can fall in 32 ways, so p is 1/16 or more."""


def resamples(n: int) -> NDArray[np.intp]:
    """Draws of n from n with replacement [draws, n]: every one for n <= 5, otherwise RESAMPLES from a fixed seed."""
    if n <= 5:
        return np.array(list(itertools.product(range(n), repeat=n)), np.intp).reshape(-1, n)
    return np.random.default_rng(0).integers(0, n, (RESAMPLES, n))


def bootstrap_interval(
    statistic: Callable[[NDArray[np.intp]], NDArray[np.float64]], n: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a statistic over n seeds (Efron 1979); (NaN, NaN) for fewer than two.

    statistic: places of seeds [draws, n] to values [draws]. With few seeds it is too narrow: for three, a mean
    lies outside it more often than the confidence says.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), not {confidence}.")
    if n < 2:
        return math.nan, math.nan
    tail = 50 * (1 - confidence)
    low, high = np.percentile(statistic(resamples(n)), [tail, 100 - tail])
    return float(low), float(high)


def signs(n: int) -> NDArray[np.float64]:
    """Signs [draws, n]: all 2^n for n <= 16, otherwise RESAMPLES from a fixed seed, the first of them all plus."""
    if n <= 16:
        return np.array(list(itertools.product((1.0, -1.0), repeat=n))).reshape(-1, n)
    drawn = np.random.default_rng(0).choice([1.0, -1.0], (RESAMPLES, n))
    drawn[0] = 1
    return drawn


def sign_flip(differences: ArrayLike) -> float:
    """Two-sided p of the paired sign-flip (permutation) test of mean 0: how often random signs do as much.

    differences [n]; exact for n <= 16. NaN for none.
    """
    differences = np.asarray(differences, float)
    if not differences.size:
        return math.nan
    sums = np.abs(signs(differences.size) @ differences)
    slack = 1e-12 * np.abs(differences).sum()  # the same terms in another order
    return float((sums >= sums[0] - slack).mean())


def wilcoxon(differences: ArrayLike) -> float:
    """Two-sided p of the signed-rank test (Wilcoxon 1945), exact, ties at their mean rank, zeros left out.

    differences [n]; 1 if all are zero, NaN for none. The distribution of the rank sum is built term by term, so that
    n needs no limit.
    """
    differences = np.asarray(differences, float)
    if not differences.size:
        return math.nan
    differences = differences[differences != 0]
    size = np.abs(differences)
    twice = np.array([2 * (size < s).sum() + (size == s).sum() + 1 for s in size], int)  # doubled mean ranks
    ways = np.zeros(twice.sum() + 1)
    ways[0] = 1
    for rank in twice:
        ways[rank:] = (ways[rank:] + ways[: len(ways) - rank]) / 2
        ways[:rank] /= 2
    positive = int(twice[differences > 0].sum())
    return float(min(1.0, 2 * min(ways[: positive + 1].sum(), ways[positive:].sum())))


def smallest_p(n: int) -> float:
    """The least two-sided p that n pairs can give in either test."""
    return min(1.0, 2.0 ** (1 - n))


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down adjustment of a family of p [m], in their order; a NaN has no part."""
    p = np.asarray(p, float)
    adjusted = np.full(p.shape, math.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factor = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factor * p[order]))
    return adjusted


def probability_of_improvement(values: ArrayLike, others: ArrayLike, higher_is_better: bool) -> float:
    """P(a run of the first is better than one of the second), ties half (Agarwal et al. 2021): over all pairs of
    values [n] and others [m]; NaN if either is empty.
    """
    values, others = np.asarray(values, float), np.asarray(others, float)
    if not values.size or not others.size:
        return math.nan
    gain = (values[:, None] - others[None]) * (1 if higher_is_better else -1)
    return float(((gain > 0) + 0.5 * (gain == 0)).mean())


def expected_best(scores: ArrayLike, failed: int = 0, values: ArrayLike | None = None) -> NDArray[np.float64]:
    """Expected value of the best of k settings drawn at random, without replacement, for k = 1..K (Dodge et al. 2019,
    in the form without replacement of Tang et al. 2020): sum_i v_(i) C(i-1, k-1) / C(K, k), v_(i) the i-th worst.

    scores [n]: higher is better. failed: settings that gave nothing, worse than all others; K = n + failed, and
    the expectation is over draws in which one setting at least gave something (see `all_fail`). values [n]:
    what is expected of the setting that is chosen by its score, in place of the score. Returns [K], empty
    without scores.
    """
    scores = np.asarray(scores, float)
    values = scores if values is None else np.asarray(values, float)
    total = scores.size + failed
    if not scores.size:
        return np.array([])
    ordered = values[np.argsort(scores, kind="stable")][::-1]  # the best first
    places = np.arange(total - 1, failed, -1)  # i - 1 of the rank i: the best has i = K
    found = []
    for k in range(1, total + 1):
        ratios = np.maximum(places - k + 1, 0) / places  # of C(i - 1, k - 1) to that of the rank before
        weights = k / total * np.concatenate([[1.0], np.cumprod(ratios)])
        found.append(weights @ ordered / (1 - all_fail(total, failed, k)))
    return np.array(found)


def all_fail(total: int, failed: int, k: int) -> float:
    """The probability that k of `total` settings, drawn without replacement, are all among the failed ones."""
    return math.comb(failed, k) / math.comb(total, k)
