"""The toy problem under every method of the suite: the classes of training, in float64, one step after the other.

A step is that of training without a network: `balance` asks the method for its weights, `combine` makes the direction,
the run's optimizer moves the point and what the method learns. There is no validation part; an epoch is a number of
steps. Methods are asked one run at a time, so that this costs up to a millisecond a step; runs are short.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from omegaconf import DictConfig

from mtlbench import config as configuration
from mtlbench.analysis import toy_problem
from mtlbench.analysis.toy_problem import TASKS
from mtlbench.balance import balance, problem_of_method, problem_of_tasks
from mtlbench.seeds import seed_of
from mtlbench.weighting import overrides

NEGATIVE = (
    "a loss that is not above 0",
    "a loss at or below its bound",
    "a first loss that is not above 0",
    "a loss record that is not above 0",
    "epoch losses without a ratio",
)
"""Notes of methods whose formulas need positive losses; the problem's are down to -20 where it is solved."""

PAPER = ("equal reduction=mean", "pcgrad reduction=mean", "cagrad c=0.5 rescale=linear")
"""The three methods of the published table as it has them: means instead of sums, CAGrad divided by 1 + c."""


@dataclass
class Life:
    """One run. end: its last point; mean: F there; steps: updates taken; hit: the first index with F <= -15; stayed:
    F <= -15 from there on; undefined: steps in which the method met a loss that its formula has no answer for, and
    how many of them came before the hit; notes: steps of each kind; stopped: why the run ended early."""

    end: np.ndarray
    mean: float
    steps: int
    hit: int | None = None
    stayed: bool | None = None
    undefined: int = 0
    undefined_before: int = 0
    notes: Counter = field(default_factory=Counter)
    stopped: str = ""


@dataclass(frozen=True)
class Outcome:
    """One cell of the table: a Life for each start."""

    optimizer: str
    method: str
    rate: float
    lives: tuple[Life, ...]

    @property
    def reached(self) -> int | None:
        """The largest first hit, None where a start has none."""
        hits = [life.hit for life in self.lives]
        return None if None in hits else max(hits)

    @property
    def undefined(self) -> bool:
        """Whether a run had met a loss that its formula has no answer for before it arrived, if it did."""
        return any(life.undefined_before for life in self.lives)

    @property
    def iterations(self) -> int | None:
        """What counts: `reached`, unless it is undefined."""
        return None if self.undefined else self.reached


class Runner:
    """One method's instance and what it learns, at one learning rate from one start."""

    def __init__(self, node: DictConfig, optimizer: str, rate: float, seed: int):
        self.method = configuration.build_method(node, list(TASKS)).double()
        groups = self.method.parameter_groups()
        kind = {"gd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]
        self.optimizer = kind(groups, lr=rate) if groups else None
        self.rng, self.seed = torch.Generator(), seed
        self.afterwards = overrides(self.method, "after_step")
        self.combines = overrides(self.method, "combine")

    def direction(self, k: int, losses: np.ndarray, gradients: np.ndarray) -> tuple[np.ndarray | None, str | None]:
        """What the optimizer moves the point by, or why the step cannot be taken: losses [2], gradients [2, 2]."""
        method, values, jacobian = self.method, torch.from_numpy(losses), torch.from_numpy(gradients)
        gramian = None if method.level == "loss" else torch.from_numpy(gradients @ gradients.T)
        problem = problem_of_tasks(TASKS, values, gramian)
        if problem:
            return None, problem
        self.rng.manual_seed(seed_of(self.seed, "method", k))
        found = balance(method, values, gramian, TASKS, self.rng)
        problem = problem_of_method(method, TASKS, found)
        if problem:
            return None, problem
        if self.combines:
            d = method.combine(found.chosen, found.slope @ jacobian, TASKS, self._uniform).numpy()
        else:
            d = found.shared.numpy() @ gradients
        if not np.isfinite(d).all():
            return None, "the combined gradient is not finite"
        if self.optimizer:
            self.optimizer.step()
        return d, None

    def _uniform(self) -> torch.Tensor:
        return torch.rand(2, generator=self.rng, dtype=torch.float64)

    def after_step(self, losses: np.ndarray) -> None:
        if self.afterwards:
            self.method.after_step(torch.from_numpy(losses), TASKS)


class Adam:
    """Of all points at once, as torch.optim.Adam: betas 0.9 and 0.999, eps 1e-8."""

    def __init__(self, shape: tuple[int, ...]):
        self.m, self.v = np.zeros(shape), np.zeros(shape)

    def move(self, k: int, d: np.ndarray) -> np.ndarray:
        self.m = 0.9 * self.m + 0.1 * d
        self.v = 0.999 * self.v + 0.001 * d * d
        return self.m / (1 - 0.9 ** (k + 1)) / (np.sqrt(self.v / (1 - 0.999 ** (k + 1))) + 1e-8)


def lives(
    node: DictConfig,
    optimizer: str,
    rates: Sequence[float],
    starts: Sequence[Sequence[float]],
    steps: int,
    epoch: int = 100,
    seed: int = 0,
) -> list[Life]:
    """A Life for each rate and start, in that order: `steps` updates of the method of a config node."""
    cells = [(rate, start) for rate in rates for start in starts]
    runners = [Runner(node, optimizer, rate, seed) for rate, _ in cells]
    points = np.array([start for _, start in cells], float)
    rate = np.array([rate for rate, _ in cells])[:, None]
    adam = Adam(points.shape)
    losses, gradients = toy_problem.losses_and_gradients(points)
    found = [Life(points[i], math.nan, 0) for i in range(len(cells))]
    sums, alive = np.zeros_like(losses), list(range(len(cells)))
    for k in range(steps + 1):
        for i in alive:
            _arrive(found[i], k, points[i], losses[i].mean())
        if k == steps:
            break
        moves = np.zeros_like(points)
        for i in list(alive):
            d, problem = runners[i].direction(k, losses[i], gradients[i])
            _count(found[i], runners[i].method.take_notes())
            if problem:
                found[i].stopped = f"step {k + 1}: {problem}"
                alive.remove(i)
            else:
                moves[i] = d
        sums += losses
        with np.errstate(over="ignore", invalid="ignore"):  # a run that leaves for infinity is stopped in the next step
            points = points - rate * (adam.move(k, moves) if optimizer == "adam" else moves)
            losses, gradients = toy_problem.losses_and_gradients(points)
        for i in alive:
            runners[i].after_step(losses[i])
            if (k + 1) % epoch == 0:
                runners[i].method.after_epoch(dict(zip(TASKS, sums[i] / epoch, strict=True)), {})
        if (k + 1) % epoch == 0:
            sums[:] = 0
    return found


def _arrive(life: Life, k: int, point: np.ndarray, mean: float) -> None:
    """Notes where a run is after k updates."""
    life.end, life.mean, life.steps = point, float(mean), k
    if life.hit is None and mean <= toy_problem.TARGET:
        life.hit, life.stayed = k, True
    if life.hit is not None and not mean <= toy_problem.TARGET:
        life.stayed = False


def _count(life: Life, notes: Sequence[str]) -> None:
    life.notes.update(notes)
    if any(note.startswith(NEGATIVE) for note in notes):
        life.undefined += 1
        life.undefined_before += life.hit is None


def outcomes(
    name: str,
    node: DictConfig,
    optimizer: str,
    rates: Sequence[float],
    starts: Sequence[Sequence[float]],
    steps: int,
    epoch: int,
    seed: int,
) -> list[Outcome]:
    """`lives` by learning rate; what a process of its own does."""
    torch.set_num_threads(1)
    found = lives(node, optimizer, rates, starts, steps, epoch, seed)
    each = len(starts)
    return [Outcome(optimizer, name, rate, tuple(found[i * each : (i + 1) * each])) for i, rate in enumerate(rates)]
