import pytest
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from mtlbench import schedule
from mtlbench.config import CONF

sizes = {"per_epoch": st.integers(1, 50), "epochs": st.integers(1, 50)}


def rates(factor, per_epoch, epochs):
    return [factor(iteration, per_epoch, epochs) for iteration in range(per_epoch * epochs)]


@settings(deadline=None, derandomize=True, max_examples=30)
@given(**sizes)
def test_constant(per_epoch, epochs):
    assert set(rates(schedule.constant(), per_epoch, epochs)) == {1.0}


@settings(deadline=None, derandomize=True, max_examples=30)
@given(**sizes, power=st.floats(0.1, 3.0))
def test_poly_falls_after_each_iteration_from_one_towards_zero(per_epoch, epochs, power):
    found = rates(schedule.poly(power), per_epoch, epochs)
    total = per_epoch * epochs
    assert found[0] == 1.0
    assert found == sorted(found, reverse=True)
    assert found == pytest.approx([((total - i) / total) ** power for i in range(total)])
    assert found[-1] > 0  # the last iteration still trains


@settings(deadline=None, derandomize=True, max_examples=30)
@given(**sizes, power=st.floats(0.1, 3.0))
def test_poly_by_epoch_is_level_within_an_epoch(per_epoch, epochs, power):
    found = rates(schedule.poly(power, unit="epoch"), per_epoch, epochs)
    by_iteration = rates(schedule.poly(power), per_epoch, epochs)
    for epoch in range(epochs):
        within = found[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert set(within) == {within[0]}
        assert within[0] == pytest.approx((1 - epoch / epochs) ** power)
        assert within[0] == pytest.approx(by_iteration[epoch * per_epoch])


def test_poly_of_the_paper_in_numbers():
    factor = schedule.poly(0.9)
    assert factor(0, 10, 10) == 1.0
    assert factor(50, 10, 10) == pytest.approx(0.535887, abs=1e-6)  # 0.5 ** 0.9
    assert factor(99, 10, 10) == pytest.approx(0.0158489, abs=1e-6)  # 0.01 ** 0.9


@settings(deadline=None, derandomize=True, max_examples=30)
@given(**sizes, every=st.integers(1, 20), ratio=st.floats(0.1, 1.0))
def test_step_changes_only_at_every_so_many_epochs(per_epoch, epochs, every, ratio):
    found = rates(schedule.step(every, ratio), per_epoch, epochs)
    expected = 1.0
    for epoch in range(epochs):
        if epoch and epoch % every == 0:
            expected *= ratio
        assert found[epoch * per_epoch : (epoch + 1) * per_epoch] == pytest.approx([expected] * per_epoch)


def test_halved_every_thirty_epochs():
    factor = schedule.step(30, 0.5)
    assert [factor(epoch * 7 + 6, 7, 100) for epoch in (0, 29, 30, 59, 60, 90)] == [1, 1, 0.5, 0.5, 0.25, 0.125]


def test_a_run_that_goes_on_finds_the_same_rates():
    """A factor depends on its arguments alone, not on how often it was called before."""
    for make in (schedule.constant, lambda: schedule.poly(0.9), lambda: schedule.step(2, 0.5)):
        whole = rates(make(), 5, 6)
        assert [make()(iteration, 5, 6) for iteration in range(17, 30)] == whole[17:]


@pytest.mark.parametrize("unit", ["step", "", "Epoch"])
def test_poly_refuses_another_unit(unit):
    with pytest.raises(ValueError, match=f"schedule.unit={unit}: expected iteration or epoch"):
        schedule.poly(0.9, unit=unit)


@pytest.mark.parametrize("every", [0, -3])
def test_step_refuses_less_than_an_epoch(every):
    with pytest.raises(ValueError, match=f"schedule.every={every}: expected at least 1 epoch"):
        schedule.step(every, 0.5)


@pytest.mark.parametrize("path", sorted((CONF / "schedule").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_option_starts_at_the_full_rate_and_never_rises(path):
    found = rates(instantiate(OmegaConf.load(path)), 3, 100)
    assert found[0] == 1.0
    assert found == sorted(found, reverse=True)
    assert min(found) > 0
