"""The toy problem in float32: its solver, its gradients, its directions, and the cells of the published table."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from drill import build
from mtlbench.analysis import toy_float32, toy_problem, toy_published
from mtlbench.analysis.toy_float32 import Arithmetic, F
from mtlbench.analysis.toy_solver import bounded_minimum, objective

PAPERS = Path(__file__).resolve().parents[1] / "results" / "papers"
PRINTED = toy_published.printed(PAPERS / "elich_toy.csv")
FIXED = [key for key in PRINTED if key[2] not in toy_published.FOLLOWS_LAST_BIT.get(key[:2], ())]
MOVING = [key for key in PRINTED if key not in FIXED]


def autograd(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    """f1, f2, df1/dx, df1/dy, df2/dx, df2/dy as PyTorch has them, of many points, in their precision."""
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    upper, lower = (y * 0.5).tanh().clamp(min=0), (-y * 0.5).tanh().clamp(min=0)
    f1 = (0.5 * (-x - 7) - (-y).tanh()).abs().clamp(min=5e-6).log() + 6
    f2 = (0.5 * (-x + 3) + (-y).tanh() + 2).abs().clamp(min=5e-6).log() + 6
    s1 = ((-x + 7).pow(2) + 0.1 * (-y - 8).pow(2)) / 10 - 20
    s2 = ((-x - 7).pow(2) + 0.1 * (-y - 8).pow(2)) / 10 - 20
    found = [f1 * upper + s1 * lower, f2 * upper + s2 * lower]
    gradients = [g for f in found for g in torch.autograd.grad(f.sum(), (x, y), retain_graph=True)]
    return [f.detach() for f in found] + gradients


def random_points(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-toy_problem.WINDOW, toy_problem.WINDOW, (count, 2))


# ------------------------------------------------------------------------------------------------ the solver


def inner_products(count: int) -> np.ndarray:
    """aa, ab, bb of random pairs of gradients of many lengths, some parallel, some opposite, some zero."""
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(count, 2, 2)) * 10 ** rng.uniform(-2, 2, (count, 1, 1))
    pairs[::7, 1] = pairs[::7, 0] * rng.uniform(-2, 2, (len(pairs[::7]), 1))
    pairs[::50, 1] = 0
    pairs[::75, 0] = 0
    gramians = pairs @ pairs.transpose(0, 2, 1)
    return gramians[:, [0, 0, 1], [0, 1, 1]]


def test_the_compiled_solver_has_scipys_iterates_to_the_bit():
    edges = 0
    for aa, ab, bb in inner_products(300):
        radius = 0.5 * (0.5 * np.sqrt(aa + bb + 2 * ab + 1e-4))
        # the same objective, compiled: its last bit is the processor's and not what is compared here
        given = minimize_scalar(lambda w: objective(w, radius, aa, ab, bb), bounds=(0, 1), method="bounded").x  # noqa: B023
        assert bounded_minimum(radius, aa, ab, bb) == given
        edges += not 0.01 < given < 0.99
    assert 0.1 * 300 < edges < 0.9 * 300  # minima at the ends as well as between


def test_the_compiled_objective_is_the_published_formula():
    for aa, ab, bb in inner_products(50):
        for w in (0.0, 0.3, 1.0):
            got = 2.0 * np.sqrt(w**2 * (aa + bb - 2 * ab) + 2 * w * (ab - bb) + bb + 1e-4)
            got += 0.5 * w * (aa + bb - 2 * ab) + (0.5 + w) * (ab - bb) + bb
            assert objective(w, 2.0, aa, ab, bb) == pytest.approx(got, rel=1e-12, abs=1e-9 * (aa + bb))


# ------------------------------------------------------------------------------------- losses and gradients


def test_float32_losses_and_gradients_are_autograds_to_the_bit():
    """Where this machine's tanh and logarithm are the correctly rounded ones, which they nearly always are."""
    points = random_points(3000, 1).astype(np.float32)
    points[::10, 0] = -7 + 2 * np.tanh(points[::10, 1])  # near a valley
    x, y = torch.from_numpy(points).T
    theirs = torch.stack(autograd(x, y), 1).numpy()
    mine = np.array([toy_float32.losses_and_gradients(F(a), F(b), 0) for a, b in points])
    np.testing.assert_array_equal(mine, mine.astype(np.float32))  # compiled code hands them over as Python's floats
    t = (-y).tanh()
    sizes = [(0.5 * (-x - 7) - t).abs().clamp(min=5e-6), (0.5 * (-x + 3) + t + 2).abs().clamp(min=5e-6)]
    alike = torch.ones(len(x), dtype=torch.bool)
    for function, arguments in (("tanh", (0.5 * y, -0.5 * y, -y)), ("log", sizes)):
        for a in arguments:
            alike &= getattr(a, function)() == getattr(a.double(), function)().float()
    alike = alike.numpy()
    assert alike.mean() > 0.5  # it depends on the library
    np.testing.assert_array_equal(mine[alike], theirs[alike])
    np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)


def test_float64_losses_and_gradients_are_autograds():
    points = np.concatenate([random_points(2000, 2), [[1.0, 2.0], [-5.0, 9.0], [0.0, -8.3551]]])
    losses, gradients = toy_problem.losses_and_gradients(points)
    theirs = torch.stack(autograd(*torch.from_numpy(points).T), 1).numpy()
    np.testing.assert_allclose(np.column_stack([losses, gradients.reshape(-1, 4)]), theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("point", "losses", "gradients"),
    [
        (
            (-8.5, 7.5),
            (6.552363407771, 7.900798143173),
            (-0.285398511984, 0.007248720226, -0.073992174236, 0.008739437528),
        ),
        (
            (-8.5, -5),
            (4.059917836893, -19.421502459111),
            (-3.058504324269, 0.004483351488, -0.295984289446, 0.320930849018),
        ),
        ((9, 9), (7.943949188978, 6.691495369217), (0.071410943321, 0.001960713755, 0.249938306519, 0.001651622743)),
        ((1, 2), (5.415339445689, 5.111038238274), (0.125428371970, 1.475397214517, -0.187034497251, 1.382790066614)),
    ],
)
def test_the_problem_at_points_computed_elsewhere(point, losses, gradients):
    f, g = toy_problem.losses_and_gradients(np.array([point]))
    np.testing.assert_allclose(f[0], losses, rtol=0, atol=1e-12)
    np.testing.assert_allclose(g[0].ravel(), gradients, rtol=0, atol=1e-12)


def test_nothing_passes_the_clamp_of_the_logarithm():
    f, g = toy_problem.losses_and_gradients(np.array([[-5.0, 9.0]]))
    assert f[0, 0] == pytest.approx(-6.204541054125, abs=1e-12)
    assert g[0, 0, 0] == 0
    assert g[0, 0, 1] == pytest.approx(-0.001531402415, abs=1e-12)


def test_the_optimum_and_the_pareto_set():
    x, y = toy_problem.optimum()
    assert (x, y) == (0, pytest.approx(-8.355109776756256, abs=1e-12))
    assert toy_problem.mean_loss(np.array([[x, y]]))[0] == pytest.approx(-15.091638445306595, abs=1e-12)
    line = toy_problem.pareto_set()
    assert line[0] == pytest.approx([-7, -8.434459855516095], abs=1e-12)
    assert line[-1] == pytest.approx([7, -8.434459855516095], abs=1e-12)
    _, gradients = toy_problem.losses_and_gradients(line)
    w = (line[:, 0] / 7 + 1) / 2  # the weights (w, 1 - w) under which the point is stationary
    np.testing.assert_allclose(w[:, None] * gradients[:, 0] + (1 - w[:, None]) * gradients[:, 1], 0, atol=1e-12)
    on, beside = np.array([1.2345, line[823][1]]), np.array([9.0, line[-1][1]])
    assert toy_problem.distance_to_pareto_set(on)[0] < 1e-3
    assert toy_problem.distance_to_pareto_set(np.stack([beside, [0, 0]])) == pytest.approx(
        [2, 8.355109776756], abs=1e-2
    )


@pytest.mark.parametrize(
    ("point", "letter"),
    [((0.1, -8.3), "G"), ((-6, -8.38), "P"), ((-5, 6), "V"), ((12, 0), "D"), ((-6, -3), "L"), ((np.nan, 0), "D")],
)
def test_places(point, letter):
    point = np.array(point, float)
    assert toy_problem.place(point, float(toy_problem.mean_loss(point[None])[0])) == letter


# ----------------------------------------------------------------------------------------------- directions


@pytest.mark.parametrize(
    ("method", "options", "bound"),
    [
        ("equal", ["reduction=mean"], 1e-6),
        ("pcgrad", ["reduction=mean"], 1e-5),
        # the program stops 1e-5 from the best weight, and adds 1e-4 under its roots
        ("cagrad", ["c=0.5", "rescale=linear"], 1e-4),
    ],
)
def test_the_directions_are_those_of_the_method_classes(method, options, bound):
    weighting = build(method, *(f"method.{option}" for option in options), tasks=("f1", "f2"))
    rng = np.random.default_rng(3)
    jacobians = (rng.normal(size=(300, 2, 2)) * 10 ** rng.uniform(1, 3, (300, 1, 1))).astype(np.float32)
    conflicts, compared = 0, 0
    for jacobian in jacobians:
        exact = torch.from_numpy(jacobian.astype(np.float64))
        if abs(np.corrcoef(jacobian)[0, 1]) == 0 or torch.linalg.cond(exact) > 30:
            continue  # of nearly parallel gradients every rounding is magnified
        losses, gramian = torch.ones(2, dtype=torch.float64), exact @ exact.T
        if method == "equal":
            theirs = exact.mean(0).numpy()
        else:
            theirs = (weighting.weights(losses, gramian, ("f1", "f2"), None) @ exact).numpy()
        number = toy_float32.METHODS.index(method)
        mine = np.array(toy_float32.direction(number, *jacobian.ravel()), np.float64)
        assert np.linalg.norm(mine - theirs) <= bound * np.linalg.norm(jacobian)
        conflicts += gramian[0, 1] < 0
        compared += 1
    assert compared > 250
    assert 50 < conflicts < 250


def test_equals_transform_is_the_mean_that_the_direction_is():
    """The gradient of the class's transformed sum is the mean of the gradients."""
    weighting = build("equal", "method.reduction=mean", tasks=("f1", "f2"))
    losses = torch.tensor([3.0, 5.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(weighting.transform(losses, ("f1", "f2"), None).sum(), losses)
    assert slope.tolist() == [0.5, 0.5]


# --------------------------------------------------------------------------------------------------- counts


def counts(key, arithmetic=Arithmetic()) -> int | None:  # noqa: B008
    return toy_published.iterations(*key, toy_problem.STARTS, toy_published.STEPS, arithmetic)


def test_the_printed_table_is_whole():
    assert len(PRINTED) == 54
    assert sum(value is not None for value in PRINTED.values()) == 31
    assert (len(FIXED), len(MOVING)) == (36, 18)


@pytest.mark.parametrize("key", [k for k in FIXED if PRINTED[k]], ids=str)
def test_printed_counts_that_no_machine_changes(key):
    assert counts(key) == PRINTED[key]


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", [Arithmetic(), Arithmetic(lerp=True)], ids=["rounded", "lerp"])
def test_all_36_printed_cells_that_no_machine_changes(arithmetic):
    assert {key: counts(key, arithmetic) for key in FIXED} == {key: PRINTED[key] for key in FIXED}


@pytest.mark.slow
def test_the_18_other_cells_are_near_the_printed_ones():
    """They are one draw of a chaotic system: most arrive, at a count of the printed one's size."""
    ratios = []
    for key in MOVING:
        mine, printed = counts(key), PRINTED[key]
        if mine is not None and printed is not None:
            ratios.append(mine / printed)
    assert len(ratios) == 15
    assert all(0.5 < ratio < 2 for ratio in ratios)


REFERENCE = {
    # computed elsewhere with every tanh correctly rounded: all of the 18 that differ from the printed table
    ("gd", "equal", 0.1): 12394,
    ("gd", "equal", 0.05): 35015,
    ("gd", "cagrad", 0.1): 8125,
    ("gd", "cagrad", 0.05): 5730,
    ("gd", "cagrad", 0.01): 19806,
    ("gd", "cagrad", 0.005): 34302,
    ("gd", "cagrad", 0.001): 94048,
    ("adam", "equal", 0.01): 6429,
    ("adam", "equal", 0.005): 22342,
    ("adam", "pcgrad", 5.0): 5284,
    ("adam", "pcgrad", 0.5): 17222,
    ("adam", "pcgrad", 0.1): 34049,
    ("adam", "pcgrad", 0.05): 44484,
    ("adam", "cagrad", 0.005): 13444,
    ("adam", "cagrad", 0.001): 60441,
}


@pytest.mark.slow
def test_the_18_other_cells_to_the_iteration_with_a_correctly_rounded_tanh():
    expected = {key: REFERENCE.get(key, PRINTED[key]) for key in MOVING}
    assert {key: counts(key) for key in MOVING} == expected


@pytest.mark.slow
def test_fused_multiply_adds_decide_on_the_short_counts():
    """Without them gradient descent with equal weights at the rate 5 takes 104, not 103."""
    x, y = F(9), F(9)
    steps = 0
    while steps < 200:
        f1, f2, x1, y1, x2, y2 = toy_float32.losses_and_gradients(x, y, 0)
        if (f1 + f2) / F(2) <= F(-15):
            break
        d = toy_float32.direction(0, x1, y1, x2, y2)
        x, y = F(x - F(5) * F(d[0])), F(y - F(5) * F(d[1]))
        steps += 1
    assert steps == 104


def test_another_tanh_moves_few_last_bits_and_keeps_the_sign():
    arguments = np.random.default_rng(4).uniform(-4, 4, 20000).astype(np.float32)
    rounded = np.array([toy_float32.tanh(a, 0) for a in arguments], np.float32)
    np.testing.assert_array_equal(rounded, np.tanh(arguments.astype(np.float64)).astype(np.float32))
    moved = np.array([toy_float32.tanh(a, 1) for a in arguments], np.float32)
    other = moved != rounded
    assert 0.004 < other.mean() < 0.012
    assert (np.abs(moved.view(np.int32) - rounded.view(np.int32))[other] == 1).all()
    np.testing.assert_array_equal(moved, [-toy_float32.tanh(-a, 1) for a in arguments])
    assert (np.array([toy_float32.tanh(a, 2) for a in arguments]) != moved).any()


def test_a_path_begins_at_the_start_and_ends_at_its_hit():
    points, means, hit = toy_float32.run("gd", "cagrad", 1.0, (9.0, 9.0), 500)
    assert hit == 213
    assert points.shape == (500, 2)
    assert points[0].tolist() == [9, 9]
    assert means[hit] <= -15 < means[:hit].min()
    short, _, again = toy_float32.run("gd", "cagrad", 1.0, (9.0, 9.0), 500, only_hit=True)
    assert again == hit
    np.testing.assert_array_equal(short[: hit + 1], points[: hit + 1])
    assert toy_float32.run("gd", "cagrad", 1.0, (9.0, 9.0), 213)[2] is None
