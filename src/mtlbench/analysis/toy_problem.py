"""Two losses in the plane (Liu et al. 2021, CAGrad), in float64: values, gradients, the Pareto set, where a point is.

u_1 = 0.5 (-x - 7) - tanh(-y)     u_2 = 0.5 (-x + 3) + tanh(-y) + 2     l_t = log(max(|u_t|, 5e-6)) + 6
s_t = ((-x +- 7)^2 + 0.1 (-y - 8)^2) / 10 - 20                          (+ for the first loss)
c = max(tanh(y / 2), 0)           k = max(tanh(-y / 2), 0)              f_t = l_t c + s_t k

In the upper half two valleys near x = -5 and x = 5 whose gradients grow up to 1e5; in the lower half two bowls. The
mean loss F = (f_1 + f_2) / 2 is least at (0, -8.3551), on the set of Pareto points that runs from x = -7 to 7.
"""

import functools

import numpy as np
from scipy.optimize import brentq

TASKS = ("f1", "f2")

STARTS = ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0))
"""Of the papers; at the first and third a valley lies on the way."""

RATES = (10.0, 5.0, 1.0, 0.5, 0.1, 0.05, 0.01, 0.005, 0.001)
"""Learning rates of Elich et al. 2023, Table A7."""

WINDOW = 11.0
"""The papers' figures show |x| and |y| up to it."""

TARGET = -15.0
"""A run has arrived at the first point with F <= TARGET, the one threshold that fits the printed counts."""

FLOOR = 5e-6
"""Below it |u| counts as it."""

ENDS = 7.0
"""Of the Pareto set, in x."""

BESIDE = 0.1
"""A point within this distance of the Pareto set is on it."""

PLACES = {
    "G": "at the optimum (F <= -15)",
    "P": "elsewhere on the Pareto set",
    "V": "in the upper half",
    "D": "outside the window",
    "L": "in the lower half, on the way",
}


def losses_and_gradients(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f [N, 2] and its gradients [N, 2 losses, 2 coordinates] at points [N, 2], as autograd has them.

    Below a floor nothing passes, at equality all does: so did PyTorch's clamp when the papers ran.
    """
    x, y = np.asarray(points, np.float64).T
    h, t = np.tanh(0.5 * y), np.tanh(-y)
    c, k = np.maximum(h, 0), np.maximum(-h, 0)
    slope = 0.5 * (1 - h * h)  # of tanh(y / 2)
    dc, dk = np.where(h >= 0, slope, 0), np.where(h <= 0, -slope, 0)
    values, gradients = [], []
    for u, a, du_dy in (
        (0.5 * (-x - 7) - t, -x + 7, 1 - t * t),
        (0.5 * (-x + 3) + t + 2, -x - 7, t * t - 1),
    ):
        size = np.maximum(np.abs(u), FLOOR)
        logarithm = np.log(size) + 6
        bowl = (a**2 + 0.1 * (-y - 8) ** 2) / 10 - 20
        passing = np.where(np.abs(u) >= FLOOR, np.sign(u) / size, 0)
        values.append(logarithm * c + bowl * k)
        by_x = -0.5 * passing * c - 0.2 * a * k
        by_y = passing * du_dy * c + logarithm * dc + 0.02 * (y + 8) * k + bowl * dk
        gradients.append(np.stack([by_x, by_y], -1))
    return np.stack(values, -1), np.stack(gradients, -2)


def mean_loss(points: np.ndarray) -> np.ndarray:
    """F [N] at points [N, 2]."""
    return losses_and_gradients(points)[0].mean(-1)


@functools.cache
def pareto_set(count: int = 1401) -> np.ndarray:
    """Points [count, 2] of the Pareto set, evenly in x from -7 to 7.

    w f_1 + (1 - w) f_2 has a vanishing derivative by x at x = 7 (2 w - 1). There the two bowls weigh
    S = (49 - x^2) / 10 + 0.01 (y + 8)^2 - 20 together, and the derivative of k S by y decides on y.
    """

    def slope(y: float, x: float) -> float:
        k = np.tanh(-0.5 * y)
        bowls = (49 - x * x) / 10 + 0.01 * (y + 8) ** 2 - 20
        return -0.5 * (1 - k * k) * bowls + 0.02 * (y + 8) * k

    xs = np.linspace(-ENDS, ENDS, count)
    return np.array([(x, brentq(slope, -9.0, -8.0, args=(x,), xtol=1e-14)) for x in xs])


@functools.cache
def optimum() -> tuple[float, float]:
    """Where F is least: the middle of the Pareto set."""
    return tuple(pareto_set()[700].tolist())


def distance_to_pareto_set(points: np.ndarray) -> np.ndarray:
    """Euclidean distances [N] of points [N, 2] to the line through the Pareto points."""
    line = pareto_set()
    begin, along = line[:-1], np.diff(line, axis=0)
    found = []
    for point in np.atleast_2d(points):
        share = np.clip(((point - begin) * along).sum(1) / (along**2).sum(1), 0, 1)
        found.append(np.linalg.norm(point - begin - share[:, None] * along, axis=1).min())
    return np.array(found)


def place(point: np.ndarray, value: float) -> str:
    """The letter of PLACES for a point with F = value."""
    if not np.isfinite(point).all() or np.abs(point).max() > WINDOW:
        return "D"
    if value <= TARGET:
        return "G"
    if distance_to_pareto_set(point)[0] <= BESIDE:
        return "P"
    return "V" if point[1] > 0 else "L"
