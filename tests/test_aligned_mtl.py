"""Aligned-MTL: against the singular value decomposition of the gradients, mpmath and torchjd."""

import math

import mpmath
import pytest
import torch
from torch import Tensor
from torchjd.aggregation import AlignedMTLWeighting

from gramians import FOUR, FULL, JACOBIANS, everywhere, names, weigh
from mtlbench.methods.aligned_mtl import AlignedMTL

PICK = {
    "min": min,
    "median": lambda values: sorted(values)[(len(values) - 1) // 2],
    "rmse": lambda values: sum(values) / len(values),
}
modes = pytest.mark.parametrize("mode", PICK)


def taken(jacobian: Tensor, mode: str = "min", **options) -> Tensor:
    return weigh(AlignedMTL(names(len(jacobian)), eigenvalue=mode, **options), jacobian)


RESOLVED = [n for n, j in FULL.items() if len(j) <= 15 and torch.linalg.cond(j @ j.T) < 1e11]
"""Of which float64 knows all eigenvalues of the Gramian."""


@modes
@pytest.mark.parametrize("name", RESOLVED)
def test_it_is_the_papers_formula_in_many_digits(name, mode):
    """B = sqrt(sigma) V diag(lambda^-1/2) V' of the exact Gramian, applied to a vector of ones."""
    assert len(RESOLVED) >= 10
    jacobian = JACOBIANS[name]
    count = len(jacobian)
    with mpmath.workdps(40):
        g = mpmath.matrix(jacobian.tolist())
        values, vectors = mpmath.eigsy(g * g.T)
        sigma = PICK[mode](list(values))
        balance = vectors * mpmath.diag([mpmath.sqrt(sigma / value) for value in values]) * vectors.T
        expected = torch.tensor([float(mpmath.fsum(balance[t, :])) for t in range(count)], dtype=torch.float64)
    tolerance = max(1e-9, 100 * torch.linalg.cond(jacobian @ jacobian.T).item() * 2.2e-16)
    assert (taken(jacobian, mode) - expected).abs().max() <= tolerance * expected.abs().max()


CERTAIN = [
    # all but those with an eigenvalue next to what counts as zero, where the Gramian and the gradients may disagree
    n
    for n, j in JACOBIANS.items()
    if not any(1e-17 < x < 1e-13 for x in (torch.linalg.svdvals(j) ** 2 / max(1e-300, j.norm() ** 2)).tolist())
]


@modes
@pytest.mark.parametrize("name", CERTAIN)
def test_the_result_is_a_sum_of_orthogonal_gradients_of_one_length(name, mode):
    """From the gradients' own singular vectors: the balanced gradients are U V' at one length."""
    assert len(CERTAIN) >= 40
    jacobian = JACOBIANS[name]
    found = taken(jacobian, mode)
    assert found.isfinite().all()
    left, singular, right = torch.linalg.svd(jacobian, full_matrices=False)
    square = singular**2
    if square.max() == 0:
        assert found.tolist() == [0.0] * len(jacobian)
        return
    there = square > len(jacobian) * 2.220446049250313e-16 * square.max()
    length = math.sqrt(PICK[mode](square[there].tolist()))
    expected = length * (left[:, there] @ right[there]).sum(0)
    condition = (square.max() / square[there].min()).item()
    tolerance = max(1e-9, 100 * condition * 2.2e-16)
    assert (found @ jacobian - expected).norm() <= tolerance * len(jacobian) * max(length, expected.norm().item())


@modes
@pytest.mark.parametrize(
    "name", ["2x6", "3x9", "4x12", "7x21", "15x45", "40x120", "4x2", "7x6", "zero row", "parallel"]
)
def test_torchjd_has_the_same_weights(name, mode):
    jacobian = JACOBIANS[name]
    count = len(jacobian)
    ones = torch.ones(count).double()
    expected = AlignedMTLWeighting(ones, scale_mode=mode)(jacobian @ jacobian.T)
    if mode != "median" or torch.linalg.matrix_rank(jacobian) % 2:  # it sorts downwards: torch's lower is its upper
        assert torch.allclose(taken(jacobian, mode), expected, rtol=1e-6, atol=1e-9)


@modes
@everywhere
def test_degenerate_gradients_give_finite_weights(jacobian, mode):
    assert taken(jacobian, mode).isfinite().all()


def test_preferences_are_by_the_tasks_names():
    given = {"task2": 3.0, "task0": 1.0, "task3": 0.5, "task1": 2.0}
    jacobian = JACOBIANS["4x12"]
    parts = [taken(jacobian, preferences={f"task{i}": 1.0 if i == k else 1e-300 for i in range(4)}) for k in range(4)]
    found = taken(jacobian, preferences=given)
    assert torch.allclose(found, sum(given[f"task{k}"] * parts[k] for k in range(4)), rtol=1e-9)
    method = AlignedMTL(names(4), preferences=given)
    some = jacobian[[1, 3]]
    found = method.weights(torch.ones(2).double(), some @ some.T, ["task1", "task3"], None)
    alone = AlignedMTL(["task1", "task3"], preferences={"task1": 2.0, "task3": 0.5})
    assert torch.equal(found, alone.weights(torch.ones(2).double(), some @ some.T, ["task1", "task3"], None))


def test_zero_gradients_and_one_task():
    jacobian = JACOBIANS["zero row"]
    found = taken(jacobian)
    assert found[1] == 0
    assert torch.allclose(found[[0, 2]], taken(jacobian[[0, 2]]), rtol=1e-12)
    assert taken(JACOBIANS["all zero"]).tolist() == [0, 0, 0]
    assert taken(FOUR[:1]).tolist() == pytest.approx([1])


def test_the_three_scales_differ_by_a_factor_alone():
    found = [taken(JACOBIANS["4x12"], mode) for mode in PICK]
    ratios = [(f / found[0]) for f in found]
    for ratio in ratios:
        assert torch.allclose(ratio, ratio[0].expand(4), rtol=1e-9)
    assert ratios[0][0] < ratios[1][0] < ratios[2][0]


def test_what_scales_change():
    jacobian = JACOBIANS["4x12"]
    assert torch.allclose(taken(1e3 * jacobian), taken(jacobian), rtol=1e-9)  # all losses by one factor
    scaled = torch.tensor([1.0, 10.0, 1.0, 0.1]).double()[:, None] * jacobian
    directions = [g / g.norm() for j in (jacobian, scaled) for g in [taken(j) @ j]]
    assert (directions[0] - directions[1]).norm() > 1e-3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"eigenvalue": "max"}, r"eigenvalue=max: AlignedMTL takes eigenvalue=min, median, rmse\."),
        ({"preferences": {"task0": 1.0}}, r"preferences names task0; the tasks are task0, task1\."),
        (
            {"preferences": {"task0": 1.0, "task1": 0.0}},
            r"preferences=0\.0: AlignedMTL expects a number preferences > 0",
        ),
        ({"level": "loss"}, r"method\.level=loss: AlignedMTL works at parameter, feature"),
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        AlignedMTL(names(2), **options)
