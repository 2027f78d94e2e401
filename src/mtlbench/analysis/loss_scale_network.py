"""A small network of two tasks, trained with plain and with scaled losses: what each part's update is, step by step.

Elich et al. 2023, A2: scalar inputs, targets that are multiples of the input, a backbone of two layers with LeakyReLU,
two heads of two layers, L1. Gradients are those of the suite's `step`, so any method can be put before the optimizer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor, nn

from mtlbench import config as configuration
from mtlbench.losses import L1, scaled
from mtlbench.model import TrunkAndHeads
from mtlbench.seeds import seed_of
from mtlbench.step import losses_after, step
from mtlbench.task import Task
from mtlbench.weighting import Indicator, overrides

MULTIPLES = {"first": 2.0, "second": 0.5}
"""The target of each task over the input; the paper does not print its own."""
PARTS = ("backbone", *MULTIPLES)
OPTIMIZERS = ("sgd", "adam", "adam_per_task")


@dataclass(frozen=True)
class Setting:
    """What a run is a function of, but for the losses' scales. node: of the method; kind: of the numbers.

    frozen: the backbone is not moved. eps: Adam's; 0: a coordinate that never had a gradient stays where it is.
    """

    node: DictConfig
    optimizer: str = "adam"
    eps: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    frozen: bool = False
    lr: float = 1e-3
    momentum: float = 0.9
    steps: int = 100
    samples: int = 256
    width: int = 20
    slope: float = 0.01
    seed: int = 0
    kind: torch.dtype = torch.float64

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(
                f"optimizers=[{self.optimizer}]: there is no such optimizer here. There are: {', '.join(OPTIMIZERS)}."
            )


@dataclass(frozen=True)
class Trajectory:
    """losses [steps, tasks]: plain, before each update; gradients {part: [steps, coordinates]}, of the combined and
    scaled losses (None with an Adam for each task); updates {part: [steps, coordinates]}; problem: why it ended early.
    """

    losses: NDArray[np.float64]
    gradients: dict[str, NDArray[np.float64]] | None
    updates: dict[str, NDArray[np.float64]]
    problem: str = ""

    def norms(self, part: str) -> NDArray[np.float64]:
        """Of the updates of a part [steps]."""
        return np.linalg.norm(self.updates[part], axis=1)


def network(setting: Setting) -> TrunkAndHeads:
    """The same initial weights for every optimizer, method and scale."""
    torch.manual_seed(seed_of(setting.seed, "network"))
    width = setting.width

    def layers(*sizes: int) -> list[nn.Module]:
        """Linear layers with LeakyReLU between them."""
        pairs = [[nn.Linear(a, b), nn.LeakyReLU(setting.slope)] for a, b in pairwise(sizes)]
        return [module for pair in pairs for module in pair][:-1]

    trunk = nn.Sequential(*layers(1, width, width), nn.LeakyReLU(setting.slope))
    return TrunkAndHeads(trunk, {t: nn.Sequential(*layers(width, width, 1)) for t in MULTIPLES}).to(setting.kind)


def data(setting: Setting) -> tuple[Tensor, dict[str, Tensor]]:
    """Inputs [samples, 1], uniform in [0, 1), and each task's targets."""
    rng = torch.Generator().manual_seed(seed_of(setting.seed, "inputs"))
    inputs = torch.rand(setting.samples, 1, generator=rng, dtype=torch.float64).to(setting.kind)
    return inputs, {name: multiple * inputs for name, multiple in MULTIPLES.items()}


def optimizer(setting: Setting, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """eps 0 is the smallest normal number: added to any root above it that is no change at all, and 0 / eps is 0."""
    if setting.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=setting.lr, momentum=setting.momentum)
    eps = setting.eps or torch.finfo(setting.kind).tiny
    return torch.optim.Adam(groups, lr=setting.lr, betas=setting.betas, eps=eps)


def train(setting: Setting, scales: Mapping[str, float] | None = None) -> Trajectory:
    """One run. Raises ValueError for a scale that is no number above 0 or of no task."""
    plain = {name: Task(name, 1, L1(), [], "vector") for name in MULTIPLES}
    tasks = scaled(plain, scales or {})
    run = _Run(setting, tasks)
    losses: list[list[float]] = []
    gradients: list[list[NDArray]] = []
    updates: list[list[NDArray]] = []
    problem = ""
    for k in range(setting.steps):
        found = losses_after(run.model, plain, *run.data, list(plain)).tolist()
        before = run.place()
        problem = run.update(k, found)
        if problem:
            break
        losses.append(found)
        updates.append([after - old for after, old in zip(run.place(), before, strict=True)])
        gradients.append(run.gradient)

    def by_part(rows: Sequence[Sequence[NDArray]]) -> dict[str, NDArray]:
        return {part: np.array([row[i] for row in rows]) for i, part in enumerate(PARTS)}

    known = by_part(gradients) if setting.optimizer != "adam_per_task" else None
    return Trajectory(np.array(losses), known, by_part(updates), problem)


class _Run:
    """The model, the method and the optimizers of one run."""

    def __init__(self, setting: Setting, tasks: Mapping[str, Task]):
        self.setting, self.tasks = setting, tasks
        self.model, self.data = network(setting), data(setting)
        self.method = configuration.build_method(setting.node, list(tasks)).double()
        heads = {name: self.model.task_parameters(name) for name in tasks}
        self.parts = dict(zip(PARTS, [self.model.shared_parameters(), *heads.values()], strict=True))
        moved = [p for part, ps in self.parts.items() for p in ps if part != "backbone" or not setting.frozen]
        if setting.optimizer == "adam_per_task":
            self.moved, self.optimizers = moved, [optimizer(setting, [{"params": moved}]) for _ in tasks]
        else:
            self.optimizers = [optimizer(setting, [{"params": moved}, *self.method.parameter_groups()])]
        self.gradient: list[NDArray] = []

    def place(self) -> list[NDArray[np.float64]]:
        """The parameters of each part."""
        return [torch.cat([p.detach().double().flatten() for p in ps]).numpy() for ps in self.parts.values()]

    def update(self, k: int, losses: Sequence[float]) -> str:
        """One step of every optimizer, from one point; what makes it impossible, or nothing."""
        if self.setting.optimizer == "adam_per_task":
            return self._update_per_task()
        rng = torch.Generator().manual_seed(seed_of(self.setting.seed, "method", k))
        result = step(self.model, self.tasks, self.method, *self.data, rng=rng)
        if result.problem:
            return result.problem
        self.gradient = [torch.cat([p.grad.flatten() for p in ps]).double().numpy() for ps in self.parts.values()]
        self.optimizers[0].step()
        if overrides(self.method, "after_step"):
            after = losses_after(self.model, self.tasks, *self.data, result.tasks)
            self.method.after_step(after, result.tasks)
        errors = dict(zip(self.tasks, losses, strict=True))  # the metric: no scale reaches it
        indicators = {name: Indicator(error, False, "") for name, error in errors.items()}
        self.method.after_epoch(dict(zip(result.tasks, result.losses.tolist(), strict=True)), indicators)
        return ""

    def _update_per_task(self) -> str:
        gradients = []
        for name, task in self.tasks.items():
            result = step(self.model, {name: task}, self.method, *self.data)
            if result.problem:
                return result.problem
            gradients.append([p.grad for p in self.moved])
        for own, found in zip(self.optimizers, gradients, strict=True):
            for parameter, gradient in zip(self.moved, found, strict=True):
                parameter.grad = gradient
            own.step()
        return ""


@dataclass(frozen=True)
class Difference:
    """What scaling the losses changes in the updates of a part: the largest over the steps, over the plain update.

    norm: of their lengths, which is what the paper draws. update: the length of the difference of the updates. From the
    second step on: in Adam's first every coordinate moves by lr, whatever the gradient. first: of the first step, the
    scaled update's length over the plain one's. NaN where a run has no second step.
    """

    norm: float
    update: float
    first: float


def difference(plain: Trajectory, other: Trajectory, part: str) -> Difference:
    steps = min(len(plain.losses), len(other.losses))
    if steps < 2:
        return Difference(np.nan, np.nan, np.nan)
    one, two = plain.norms(part)[:steps], other.norms(part)[:steps]
    if not one.any():  # frozen
        return Difference(0.0, 0.0, np.nan)
    apart = np.linalg.norm(other.updates[part][:steps] - plain.updates[part][:steps], axis=1)
    return Difference(float((abs(two - one) / one)[1:].max()), float((apart / one)[1:].max()), float(two[0] / one[0]))
