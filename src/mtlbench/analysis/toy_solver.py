"""CAGrad's weight of two tasks as its published toy program finds it: scipy's bounded scalar minimiser, compiled.

`scipy.optimize.minimize_scalar(method="bounded")` is Brent's method (Algorithms for Minimization without Derivatives,
1973, Chapter 5). It ends 1e-5 from the minimum at best, and that error is part of the published trajectories; so its
iterates are followed to the bit.
"""

import math

import numba
import numpy as np

TOLERANCE = 1e-5  # xatol, scipy's default
ROOT_EPS = math.sqrt(2.2e-16)
GOLDEN = 0.5 * (3.0 - math.sqrt(5.0))
MOST = 500  # evaluations, scipy's default

compiled = numba.njit(nogil=True, error_model="numpy")


@compiled
def objective(w, radius, aa, ab, bb):
    """g_w g_0' + radius |g_w| for g_w = w g_1 + (1 - w) g_2, as written there, from the inner products aa, ab, bb."""
    across = aa + bb - 2 * ab
    return (
        radius * np.sqrt(w**2 * across + 2 * w * (ab - bb) + bb + 1e-4) + 0.5 * w * across + (0.5 + w) * (ab - bb) + bb
    )


@compiled
def _sign(a):
    return -1.0 if a < 0 else 1.0  # and 1 at 0


@compiled
def bounded_minimum(radius, aa, ab, bb):
    """The weight w in [0, 1] that scipy's method finds for `objective`. Names as in scipy: best, second, third points
    are xf, nfc, fulc."""
    low, high = 0.0, 1.0
    best = second = third = low + GOLDEN * (high - low)
    step = before = 0.0
    at_best = at_second = at_third = objective(best, radius, aa, ab, bb)
    count = 1
    middle = 0.5 * (low + high)
    least = ROOT_EPS * abs(best) + TOLERANCE / 3.0
    twice = 2.0 * least
    while abs(best - middle) > twice - 0.5 * (high - low):
        golden = True
        if abs(before) > least:  # a parabola through the three points
            r = (best - second) * (at_best - at_third)
            q = (best - third) * (at_best - at_second)
            p = (best - third) * q - (best - second) * r
            q = 2.0 * (q - r)
            p, q = (-p if q > 0.0 else p), abs(q)
            r, before = before, step
            if abs(p) < abs(0.5 * q * r) and p > q * (low - best) and p < q * (high - best):
                golden = False
                step = p / q
                x = best + step
                if x - low < twice or high - x < twice:
                    step = least * _sign(middle - best)
        if golden:
            before = low - best if best >= middle else high - best
            step = GOLDEN * before
        x = best + _sign(step) * max(abs(step), least)
        at_x = objective(x, radius, aa, ab, bb)
        count += 1
        if at_x <= at_best:
            low, high = (best, high) if x >= best else (low, best)
            third, at_third, second, at_second = second, at_second, best, at_best
            best, at_best = x, at_x
        else:
            low, high = (x, high) if x < best else (low, x)
            if at_x <= at_second or second == best:
                third, at_third, second, at_second = second, at_second, x, at_x
            elif at_x <= at_third or third in (best, second):
                third, at_third = x, at_x
        middle = 0.5 * (low + high)
        least = ROOT_EPS * abs(best) + TOLERANCE / 3.0
        twice = 2.0 * least
        if count >= MOST:
            break
    return best
