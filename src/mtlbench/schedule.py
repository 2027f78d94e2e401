"""Learning-rate schedules: (iteration, iterations per epoch, epochs) to the factor on the rate."""

from collections.abc import Callable

Schedule = Callable[[int, int, int], float]


def constant() -> Schedule:
    """The same rate throughout."""
    return lambda iteration, per_epoch, epochs: 1.0


def poly(power: float, unit: str = "iteration") -> Schedule:
    """(1 - i/I)^power; i counts iterations, or whole epochs with unit="epoch" (IMTL does not say which)."""
    if unit not in ("iteration", "epoch"):
        raise ValueError(f"schedule.unit={unit}: expected iteration or epoch.")

    def factor(iteration: int, per_epoch: int, epochs: int) -> float:
        done = iteration if unit == "iteration" else iteration // per_epoch * per_epoch
        return (1 - done / (per_epoch * epochs)) ** power

    return factor


def step(every: int, factor: float) -> Schedule:
    """factor^(epoch // every)."""
    if every < 1:
        raise ValueError(f"schedule.every={every}: expected at least 1 epoch.")
    return lambda iteration, per_epoch, epochs: factor ** (iteration // per_epoch // every)
