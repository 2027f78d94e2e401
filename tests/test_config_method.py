"""ConFIG against the pseudo-inverse of the gradients themselves, torchjd and IMTL-G."""

import mpmath
import pytest
import torch
import torchjd.aggregation as torchjd
from hypothesis import given, settings
from hypothesis import strategies as st

from drill import build
from gramians import FOUR, JACOBIANS, everywhere, in_full_rank, names, weigh
from mtlbench.methods.config import ConFIG
from mtlbench.methods.imtl_g import IMTLG


def units_of(jacobian):
    lengths = jacobian.norm(dim=1, keepdim=True)
    return torch.where(lengths > 0, jacobian / lengths.clamp(min=1e-300), 0.0)


@everywhere
def test_is_the_pseudo_inverse_of_the_unit_gradients(jacobian):
    """numpy's pseudo-inverse of U [T, D] itself, cut where the cosine matrix cannot tell more (1e-6)."""
    units = units_of(jacobian)
    direction = torch.linalg.pinv(units, rtol=1e-6) @ torch.ones(len(units)).double()
    method = ConFIG(names(len(units)))
    weights = weigh(method, jacobian)
    if direction.norm() <= 1e-6:
        assert (weights == 0).all()
        assert method.take_notes() == (("no common direction",) if units.any() else ())
        return
    unit = direction / direction.norm()
    expected = (jacobian @ unit).sum() * unit
    singular = torch.linalg.svdvals(units)
    condition = singular[0] / singular[singular > 1e-6 * singular[0]][-1]
    tolerance = max(1e-9, 100 * condition.item() ** 2 * 2.2e-16)
    size = jacobian.norm(dim=1).max().item()
    torch.testing.assert_close(weights @ jacobian, expected, rtol=0, atol=tolerance * size * len(units))
    assert method.take_notes() == ()


@in_full_rank
def test_agrees_with_torchjd(jacobian):
    if jacobian.shape[1] < len(jacobian):
        return
    expected = torchjd.ConFIG()(jacobian)
    found = weigh(ConFIG(names(len(jacobian))), jacobian) @ jacobian
    units = units_of(jacobian)
    tolerance = max(1e-9, 100 * torch.linalg.cond(units @ units.T).item() * 2.2e-16)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * expected.norm().item())


@in_full_rank
def test_cosines_are_equal_and_nothing_conflicts(jacobian):
    found = weigh(ConFIG(names(len(jacobian))), jacobian) @ jacobian
    units = units_of(jacobian)
    products = units @ (found / found.norm())
    assert (products > 0).all()
    tolerance = max(1e-9, 100 * torch.linalg.cond(units @ units.T).item() * 2.2e-16)
    torch.testing.assert_close(products, products.mean().expand_as(products), rtol=tolerance, atol=tolerance)
    assert found.norm().item() == pytest.approx((jacobian @ (found / found.norm())).sum().item(), rel=tolerance)


@in_full_rank
def test_is_parallel_to_imtl_g_up_to_its_sign(jacobian):
    ours = weigh(ConFIG(names(len(jacobian))), jacobian)
    other = weigh(IMTLG(names(len(jacobian))), jacobian)
    sign = torch.sign((other @ jacobian) @ (ours @ jacobian))
    lengths = jacobian.norm(dim=1)
    a, b = ours * lengths, other * lengths * sign
    torch.testing.assert_close(a / a.norm(), b / b.norm(), rtol=1e-6, atol=1e-8)


def test_agrees_with_fifty_digits_for_four_tasks_in_conflict():
    with mpmath.workdps(50):
        rows = mpmath.matrix(FOUR.tolist())
        gram = rows * rows.T
        lengths = [mpmath.sqrt(gram[t, t]) for t in range(4)]
        cosines = mpmath.matrix(4, 4)
        for s in range(4):
            for t in range(4):
                cosines[s, t] = gram[s, t] / lengths[s] / lengths[t]
        beta = mpmath.lu_solve(cosines, mpmath.ones(4, 1))
        square = sum(beta)  # beta' K beta = beta' 1
        expected = [float(sum(lengths) / square * beta[t] / lengths[t]) for t in range(4)]
    torch.testing.assert_close(
        weigh(ConFIG(names(4)), FOUR), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12
    )


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=4, max_size=4), min_size=1, max_size=6),
    st.lists(st.integers(-8, 8), min_size=6, max_size=6),
)
def test_the_direction_does_not_depend_on_lengths(rows, exponents):
    plain = torch.tensor(rows).double()
    scaled = plain * 10.0 ** torch.tensor(exponents[: len(rows)]).double()[:, None]
    one, other = (weigh(ConFIG(names(len(rows))), j) @ j for j in (plain, scaled))
    assert other.isfinite().all()
    if one.norm() > 1e-4 and other.norm() > 1e-4 * scaled.norm():
        parallel = (one / one.norm()) @ (other / other.norm())
        assert abs(parallel) == pytest.approx(1, abs=1e-6)


def test_zero_gradients_are_left_out():
    row = JACOBIANS["zero row"]
    found, alone = weigh(ConFIG(names(3)), row), weigh(ConFIG(names(2)), row[[0, 2]])
    assert found[1] == 0
    torch.testing.assert_close(found[[0, 2]], alone, rtol=1e-12, atol=0)
    assert (weigh(ConFIG(names(3)), JACOBIANS["all zero"]) == 0).all()


def test_opposite_gradients_are_noted():
    method = ConFIG(names(2))
    assert (weigh(method, JACOBIANS["opposite, unequal"]) == 0).all()
    assert method.take_notes() == ("no common direction",)


def test_orthogonal_gradients_have_equal_weights_of_sum_one():
    torch.testing.assert_close(
        weigh(ConFIG(names(5)), JACOBIANS["orthogonal"]), torch.full((5,), 1.0).double(), rtol=1e-12, atol=0
    )


def test_other_levels_are_refused():
    with pytest.raises(ValueError, match="ConFIG works at parameter, feature"):
        build("config", "method.level=layer")
