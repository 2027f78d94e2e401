"""Training on one batch, timed: what the benchmarks of steps compare, whoever differentiates."""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mtlbench import build
from mtlbench import config as configuration
from mtlbench.benchmarks import workload
from mtlbench.fit import PRECISIONS
from mtlbench.parallel import Ranks
from mtlbench.rows import at_least_float32
from mtlbench.step import losses_after, step
from mtlbench.weighting import overrides


class Training(ABC):
    """A network and its optimizer on one batch: initial weights, batch and losses are the same for all.

    level: what the weights are chosen by, as in weighting.Level.
    """

    level: str
    optimizer: torch.optim.Optimizer

    def __init__(self, config: DictConfig, ranks: Ranks):
        self.config, self.ranks = config, ranks
        self.tasks = workload.tasks(config)
        self.dataset = SimpleNamespace(tasks=self.tasks, all_tasks=())  # what the model and the method ask of a dataset
        self.model: nn.Module = build.model(config, self.dataset, ranks).train()
        self.autocast = torch.bfloat16 if config.precision == "bfloat16" else None
        self.data = workload.batch(config, PRECISIONS[config.precision], ranks.device)
        self.steps = 0

    def optimize(self, learned_weights: Sequence[dict[str, Any]]) -> None:
        """Makes the optimizer, of the model's parameters and of what the method learns."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = configuration.build(self.config.optimizer, [{"params": trained}, *learned_weights])

    @abstractmethod
    def gradients(self) -> None:
        """Leaves in `.grad` what the optimizer needs, whatever was there before."""

    def after_step(self) -> None:  # noqa: B027 (nothing, unless a method says otherwise)
        """What the method does after the update."""

    def seconds(self) -> float:
        """Takes one step, of gradients and update."""
        self.steps += 1
        finish(self.ranks.device)
        begin = time.perf_counter()
        self.gradients()
        self.optimizer.step()
        self.after_step()
        finish(self.ranks.device)
        return time.perf_counter() - begin

    def check(self) -> None:
        """Raises ValueError where training has left the finite numbers: what was timed is then no training."""
        if not all(p.isfinite().all() for p in self.model.parameters()):
            raise ValueError(f"after {self.steps} steps the network's weights are not finite.")

    def precision(self) -> AbstractContextManager:
        return torch.autocast(self.ranks.device.type, self.autocast) if self.autocast else nullcontext()

    def counts(self) -> dict[str, Tensor]:
        """What each loss is divided by."""
        return {name: task.loss.counts(self.data[1][name]) for name, task in self.tasks.items()}

    def loss(self, name: str, prediction: Tensor, counts: Tensor) -> Tensor:
        return self.tasks[name].loss(at_least_float32(prediction), self.data[1][name], counts)


class Trainer(Training):
    """One of our methods. A step with a result that is not finite raises ValueError."""

    def __init__(self, config: DictConfig, ranks: Ranks):
        super().__init__(config, ranks)
        self.method = build.method(config, self.dataset, self.model)
        self.level = self.method.level
        self.present: tuple[str, ...] = ()
        self.optimize(self.method.parameter_groups())

    def gradients(self) -> None:
        rng = torch.Generator().manual_seed(self.steps)
        result = step(
            self.model, self.tasks, self.method, *self.data, rng=rng, ranks=self.ranks, autocast=self.autocast
        )
        if result.problem:
            raise ValueError(f"step {self.steps}: {result.problem}")
        self.present = result.tasks

    def after_step(self) -> None:
        if overrides(self.method, "after_step"):
            after = losses_after(
                self.model, self.tasks, *self.data, self.present, ranks=self.ranks, autocast=self.autocast
            )
            self.method.after_step(after, self.present)


def compare(one: Training, other: Training, pairs: int, warm_up: int) -> list[tuple[float, float]]:
    """Seconds of steps of both, side by side; who goes first alternates."""
    for _ in range(warm_up):
        one.seconds(), other.seconds()
    times = []
    for k in range(pairs):
        if k % 2:
            second, first = other.seconds(), one.seconds()
        else:
            first, second = one.seconds(), other.seconds()
        times.append((first, second))
    return times


def finish(device: torch.device) -> None:
    """Waits until the device has done what it was told, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
