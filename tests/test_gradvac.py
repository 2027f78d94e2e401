"""GradVac against Algorithm 1 on the gradients themselves, torchjd, and the equation that it solves."""

import pytest
import torch
import torchjd.aggregation as torchjd
from hypothesis import given, settings
from hypothesis import strategies as st

from drill import build
from gramians import FOUR, FULL, JACOBIANS, everywhere, in_full_rank, names, weigh
from mtlbench.methods.gradvac import GradVac
from mtlbench.methods.pcgrad import PCGrad

ONES = torch.ones(4).double()


def algorithm(jacobian, target, beta, orders):
    """Algorithm 1 on vectors; changes target [T, T]. Every pair of gradients that are not zero is visited."""
    turned = jacobian.clone()
    for i, order in enumerate(orders):
        for j in order:
            if i == j:
                continue
            p, g = turned[i].clone(), jacobian[j]
            phi, psi = p @ g / p.norm() / g.norm(), target[i, j].clone()
            if phi < psi:
                across = psi * (1 - phi**2).sqrt() - phi * (1 - psi**2).sqrt()
                turned[i] = p + p.norm() * across / (g.norm() * (1 - psi**2).sqrt()) * g
            target[i, j] = (1 - beta) * psi + beta * phi
    return turned.sum(0)


def steps(jacobian, count=5, seed=11):
    """The same gradients, disturbed: what a run sees."""
    rng = torch.Generator().manual_seed(seed)
    return [jacobian * (1 + 0.5 * torch.randn(jacobian.shape, generator=rng).double()) for _ in range(count)]


@pytest.mark.parametrize("beta", [0.01, 0.5])
@pytest.mark.parametrize("order", ["per_task", "shared"])
@in_full_rank
def test_is_algorithm_1_over_some_steps(jacobian, order, beta):
    count = len(jacobian)
    method = GradVac(names(count), beta=beta, order=order)
    target = torch.zeros(count, count).double()
    for k, rows in enumerate(steps(jacobian, 3)):
        draws = torch.Generator().manual_seed(k)
        if order == "shared":
            orders = [torch.randperm(count, generator=draws).tolist()] * count
        else:
            orders = [torch.randperm(count, generator=draws).tolist() for _ in range(count)]
        expected = algorithm(rows, target, beta, orders)
        weights = weigh(method, rows, rng=torch.Generator().manual_seed(k))
        size = (weights.abs()[:, None] * rows).norm(dim=1).sum().item()
        torch.testing.assert_close(weights @ rows, expected, rtol=0, atol=1e-8 * size)
        torch.testing.assert_close(method.target, target, rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", FULL)
def test_agrees_with_torchjd(name, monkeypatch):
    jacobian = FULL[name]
    monkeypatch.setattr(torch, "randperm", lambda count, **_: torch.arange(count))
    method = GradVac(names(len(jacobian)), beta=0.5)
    peer = torchjd.GradVac(beta=0.5, eps=0.0).gramian_weighting
    for rows in steps(jacobian):
        expected = peer(rows @ rows.T)
        torch.testing.assert_close(weigh(method, rows), expected, rtol=1e-7, atol=1e-9 * expected.abs().max().item())


@in_full_rank
def test_the_first_step_is_pcgrads(jacobian):
    tasks = names(len(jacobian))
    found, expected = (weigh(kind(tasks), jacobian, rng=torch.Generator().manual_seed(5)) for kind in (GradVac, PCGrad))
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9 * expected.max().item())


def test_a_turned_gradient_reaches_its_target():
    """Eq. 2 solves cos(p', g_j) = psi."""
    method = GradVac(names(2), beta=0.0)
    jacobian = FOUR[:2]
    for psi in (-0.4, 0.0, 0.3, 0.9):
        method.target.fill_(psi)
        gramian = (jacobian @ jacobian.T).numpy()
        weights = torch.from_numpy(method._turned(0, gramian, method.target[0].numpy(), [1]))
        p = weights @ jacobian
        reached = torch.cosine_similarity(p, jacobian[1], 0).item()
        before = torch.cosine_similarity(jacobian[0], jacobian[1], 0).item()
        assert reached == pytest.approx(max(psi, before), abs=1e-9)


def test_targets_are_an_exponential_average():
    method = GradVac(names(2), beta=0.25)
    jacobian = JACOBIANS["agreeing"][:2]
    cosine = torch.cosine_similarity(jacobian[0], jacobian[1], 0)
    for k in range(1, 5):
        weigh(method, jacobian)
        assert method.target[0, 1].item() == pytest.approx((1 - 0.75**k) * cosine.item(), rel=1e-12)
    assert method.target.diagonal().tolist() == [0, 0]


@everywhere
def test_degenerate_gradients_stay_finite_over_steps(jacobian):
    """beta = 1 keeps the last cosine as target, the hardest case: -1, 0 and 1 are all met."""
    for beta in (0.01, 1.0):
        method = GradVac(names(len(jacobian)), beta=beta)
        for rows in (jacobian, jacobian.flip(0), jacobian, -jacobian.roll(1, 0)):
            weights = weigh(method, rows)
            assert weights.isfinite().all()
            assert method.target.abs().max() <= 1


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=2, max_size=5),
    st.lists(st.integers(-8, 8), min_size=5, max_size=5),
    st.sampled_from([0.0, 0.01, 0.5, 1.0]),
)
def test_no_counterexample_is_found(rows, exponents, beta):
    """A turn adds a positive multiple of the other gradient: weights are at least those of the sum."""
    jacobian = torch.tensor(rows).double() * 10.0 ** torch.tensor(exponents[: len(rows)]).double()[:, None]
    method = GradVac(names(len(rows)), beta=beta)
    for sign in (1, -1, 1):
        jacobian[0] *= sign
        weights = weigh(method, jacobian)
        assert weights.isfinite().all()
        assert (weights >= 1).all()
        assert method.target.abs().max() <= 1


def test_parallel_then_turned_gradients_are_noted():
    method = GradVac(names(2), beta=1.0)
    a, b = FOUR[0], FOUR[1]
    weigh(method, torch.stack([a, 2 * a]))
    assert method.take_notes() == ()
    weights = weigh(method, torch.stack([a, b]))
    assert method.take_notes() == ("a target of parallel gradients",)
    turned = weights @ torch.stack([a, b])
    assert turned.isfinite().all()


def test_a_gradient_turned_to_zero_is_noted():
    method = GradVac(names(3))
    jacobian = torch.stack([FOUR[0], -FOUR[0], FOUR[1]])
    weigh(method, jacobian)
    assert method.take_notes() == ("a gradient turned to zero",)


def test_zero_gradients_and_absent_tasks_leave_targets_alone():
    method = GradVac(names(3), beta=0.5)
    method.target.fill_(0.2)
    jacobian = FOUR[:3].clone()
    jacobian[1] = 0
    found = weigh(method, jacobian)
    assert found[1] == 1
    assert (method.target[1] == 0.2).all()
    assert (method.target[:, 1] == 0.2).all()
    assert method.target[0, 2] != 0.2
    other = GradVac(names(3), beta=0.5)
    other.target.fill_(0.2)
    pair = FOUR[[0, 2]]
    two = other.weights(ONES[:2], pair @ pair.T, ["task0", "task2"], None)
    assert torch.equal(two, found[[0, 2]])
    assert torch.equal(other.target, method.target)


def test_mean_is_the_sum_over_t():
    one, other = GradVac(names(4)), GradVac(names(4), reduction="mean")
    torch.testing.assert_close(weigh(one, FOUR), 4 * weigh(other, FOUR), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("method.beta=1.1", r"GradVac expects a number 0 <= beta <= 1"),
        ("method.beta=-0.1", r"GradVac expects a number 0 <= beta <= 1"),
        ("method.order=code", "GradVac takes order=per_task, shared"),
        ("method.reduction=median", "GradVac takes reduction=sum, mean"),
        ("method.level=layer", "GradVac works at parameter, feature"),
    ],
)
def test_bad_options_are_refused(typed, said):
    with pytest.raises(ValueError, match=said):
        build("gradvac", typed)
