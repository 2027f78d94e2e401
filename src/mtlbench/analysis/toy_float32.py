"""The toy problem in the arithmetic of its published table: float32 as PyTorch's CPU kernels round, compiled by numba.

Every operation is rounded on its own but for those that PyTorch fuses: 1 - tanh^2 of the backward pass, gradient
descent's update and Adam's two averages (before PyTorch 2.1; later versions form the first one by lerp). Inner
products are two float32 products and a float32 sum, then float64. What the library's last bit decides is an option:
the trajectories are chaotic, and long counts follow it (`Arithmetic`).
"""

import math
from typing import NamedTuple

import numba
import numpy as np

from mtlbench.analysis.toy_problem import TARGET
from mtlbench.analysis.toy_solver import bounded_minimum

METHODS = ("equal", "pcgrad", "cagrad")
OPTIMIZERS = ("gd", "adam")

F = np.float32
ZERO, ONE, TWO, THREE, SIX, SEVEN, EIGHT, TEN, TWENTY = map(F, (0, 1, 2, 3, 6, 7, 8, 10, 20))
HALF, TENTH, FLOOR, GOAL = F(0.5), F(0.1), F(5e-6), F(TARGET)
FIRST, SECOND = 0.9, 0.999  # Adam's betas
KEEP_M, ADD_M, KEEP_V, ADD_V, EPS = F(FIRST), F(1 - FIRST), F(SECOND), F(1 - SECOND), F(1e-8)
DIVISOR = F(1.5)  # CAGrad's 1 + c
SHARE = 0.492  # of a unit of the last place: nearer than it to a float32 a tanh is rounded to it by every library

compiled = numba.njit(nogil=True, error_model="numpy")


class Arithmetic(NamedTuple):
    """tanh: 0 is correctly rounded. Another number stands for another library: half of the arguments whose tanh lies
    within 0.008 units of the middle between two floats, 0.8 % of all, are rounded to the further one, chosen by a hash
    of the argument and the number; so often MKL's on AVX-512 differs. lerp: Adam's first average as in PyTorch since
    2.1."""

    tanh: int = 0
    lerp: bool = False


ROUNDED = Arithmetic()


@compiled
def fused(a, b, c):
    """a b + c with one rounding, but for very rare double roundings."""
    return F(np.float64(a) * np.float64(b) + np.float64(c))


@compiled
def tanh(a, seed):
    """Of a float32, correctly rounded, or as `Arithmetic` says."""
    exact = math.tanh(np.float64(a))
    nearest = F(exact)
    if seed == 0 or np.float64(nearest) == exact:
        return nearest
    other = np.nextafter(nearest, TWO if exact > nearest else -TWO)
    if abs(exact - nearest) < SHARE * abs(np.float64(other) - np.float64(nearest)):
        return nearest
    mixed = (np.int64(F(abs(a)).view(np.int32)) * 2654435761 + seed * 40503) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 16)) * 73244475) & 0xFFFFFFFF
    mixed = ((mixed ^ (mixed >> 15)) * 73244475) & 0xFFFFFFFF
    return other if (mixed ^ (mixed >> 16)) % 2 else nearest


@compiled
def losses_and_gradients(x, y, seed):
    """f1, f2, df1/dx, df1/dy, df2/dx, df2/dy in the order of PyTorch's forward and backward pass."""
    h, j, t = tanh(HALF * y, seed), tanh(-HALF * y, seed), tanh(-y, seed)
    c, k = max(h, ZERO), max(j, ZERO)
    by_h, by_j, by_t = fused(-h, h, ONE), fused(-j, j, ONE), fused(-t, t, ONE)
    u1, u2 = HALF * (-x - SEVEN) - t, HALF * (-x + THREE) + t + TWO
    a1, a2, b = -x + SEVEN, -x - SEVEN, -y - EIGHT
    f1, x1, y1 = _one(u1, a1, b, c, k, h, j, by_h, by_j)
    f2, x2, y2 = _one(u2, a2, b, c, k, h, j, by_h, by_j)
    return f1, f2, x1[0], y1 + (-(-x1[1] * by_t)), x2[0], y2 + (-(x2[1] * by_t))


@compiled
def _one(u, a, b, c, k, h, j, by_h, by_j):
    """A loss, (its derivative by x, what goes on to u) and its derivative by y but for the part through u."""
    size = max(abs(u), FLOOR)
    logarithm = F(math.log(np.float64(size))) + SIX
    bowl = (a * a + TENTH * (b * b)) / TEN - TWENTY
    e = (c / size) * (ONE if u > ZERO else -ONE) if abs(u) >= FLOOR else ZERO
    p = k / TEN
    part_j = -((bowl * by_j) * HALF) if j >= ZERO else ZERO
    part_b = -((p * TENTH) * (TWO * b))
    part_h = (logarithm * by_h) * HALF if h >= ZERO else ZERO
    return logarithm * c + bowl * k, (-(p * (TWO * a)) + -(HALF * e), e), (part_j + part_b) + part_h


@compiled
def direction(method, x1, y1, x2, y2):
    """The two coordinates of d: 0 equal (the mean), 1 PCGrad (the mean of the projected), 2 CAGrad (c = 0.5, over 1.5).

    The formulas and constants are those of CAGrad's published toy program.
    """
    if method == 0:
        return (x1 + x2) / TWO, (y1 + y2) / TWO
    aa, ab, bb = np.float64(x1 * x1 + y1 * y1), np.float64(x1 * x2 + y1 * y2), np.float64(x2 * x2 + y2 * y2)
    if method == 1:
        if ab < 0:
            one, two = F(1 - ab / aa), F(1 - ab / bb)
            return (one * x1 + two * x2) / TWO, (one * y1 + two * y2) / TWO
        return (x1 + x2) / TWO, (y1 + y2) / TWO
    radius = 0.5 * (0.5 * math.sqrt(aa + bb + 2 * ab + 1e-4))
    w = bounded_minimum(radius, aa, ab, bb)
    length = math.sqrt(w**2 * aa + (1 - w) ** 2 * bb + 2 * w * (1 - w) * ab + 1e-4)
    one, two, far = F(w), F(1 - w), F(radius / (length + 1e-4))
    x = (x1 + x2) / TWO + far * (one * x1 + two * x2)
    y = (y1 + y2) / TWO + far * (one * y1 + two * y2)
    return x / DIVISOR, y / DIVISOR


@compiled
def _adam(position, d, m, v, scale, root, lerp):
    m = fused(ADD_M, d - m, m) if lerp else fused(ADD_M, d, KEEP_M * m)
    v = fused(ADD_V * d, d, KEEP_V * v)
    return position + (scale * m) / (np.sqrt(v) / root + EPS), m, v


@compiled
def path(adam, method, rate, x, y, steps, seed, lerp, only_hit):
    """Points [steps, 2] of a run, the start first, F [steps] at them and the first index with F <= -15 or -1.

    only_hit: the run ends there; what follows in the arrays is empty.
    """
    points, means, hit = np.empty((steps, 2), np.float32), np.empty(steps, np.float32), -1
    negative = -F(rate)
    mx, my, vx, vy = ZERO, ZERO, ZERO, ZERO
    for i in range(steps):
        f1, f2, x1, y1, x2, y2 = losses_and_gradients(x, y, seed)
        mean = (f1 + f2) / TWO
        points[i, 0], points[i, 1], means[i] = x, y, mean
        if hit < 0 and mean <= GOAL:
            hit = i
            if only_hit:
                break
        dx, dy = direction(method, x1, y1, x2, y2)
        if adam:
            scale = F(-(rate / (1 - FIRST ** (i + 1))))
            root = F(math.sqrt(1 - SECOND ** (i + 1)))
            x, mx, vx = _adam(x, dx, mx, vx, scale, root, lerp)
            y, my, vy = _adam(y, dy, my, vy, scale, root, lerp)
        else:
            x, y = fused(negative, dx, x), fused(negative, dy, y)
    return points, means, hit


def run(
    optimizer: str,
    method: str,
    rate: float,
    start: tuple[float, float],
    steps: int,
    arithmetic: Arithmetic = ROUNDED,
    only_hit: bool = False,
) -> tuple[np.ndarray, np.ndarray, int | None]:
    """`path` by names; the first hit is None where F stays above."""
    points, means, hit = path(
        optimizer == "adam", METHODS.index(method), rate, F(start[0]), F(start[1]), steps, *arithmetic, only_hit
    )
    return points, means, None if hit < 0 else hit
