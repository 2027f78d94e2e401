"""A weighting method driven as a run drives it, on losses and task gradients that a test chooses."""

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mtlbench import config
from mtlbench.model import MultiTaskModel
from mtlbench.step import step
from mtlbench.task import Loss, Task
from mtlbench.weighting import Indicator, Weighting, overrides


@functools.cache
def composed(*typed: str) -> DictConfig:
    return config.load(typed).method


def build(name: str, *typed: str, tasks: Sequence[str] = ("a", "b", "c")) -> Weighting:
    """The method of conf/method/<name>.yaml, with overrides as they are typed."""
    return copy.deepcopy(_built((f"method={name}", *typed), tuple(tasks)))  # composing takes far longer than a step


@functools.cache
def _built(typed: tuple[str, ...], tasks: tuple[str, ...]) -> Weighting:
    return config.build_method(composed(*typed), list(tasks))


class Given(Loss):
    """The prediction is the loss; a target of NaN is no label."""

    def counts(self, target: Tensor) -> Tensor:
        return (~target.isnan()).sum(dtype=torch.float64).reshape(1)

    def __call__(self, prediction: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        return prediction.sum()


class Slope(torch.autograd.Function):
    """0 with the gradient `row` in z: g z at z = 0, also for a gradient that is not finite."""

    @staticmethod
    def forward(ctx, z: Tensor, row: Tensor) -> Tensor:
        ctx.save_for_backward(row)
        return z.new_zeros(1)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (row,) = ctx.saved_tensors
        return gradient * row[None], None


class Prescribed(MultiTaskModel):
    """L_t + g_t z + h_t at z = 0 and h_t = 0: the losses L [T], and gradients g [T, D] at z at any level.

    The heads' parameters h_t have the gradient 1, so that their `.grad` is what scales the heads.
    """

    def __init__(self, tasks: Sequence[str], losses: Tensor, jacobian: Tensor):
        super().__init__()
        self.tasks, self.losses, self.jacobian = tuple(tasks), losses.to(jacobian), jacobian
        self.z = nn.Parameter(jacobian.new_zeros(1, jacobian.shape[1]))
        self.own = nn.ParameterList(nn.Parameter(jacobian.new_zeros(1)) for _ in tasks)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        return (self.z * 1,)

    def decode(self, task: str, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        t = self.tasks.index(task)
        return self.losses[t] + Slope.apply(features[0], self.jacobian[t]) + self.own[t]

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        return [self.own[self.tasks.index(task)]]


@dataclass(frozen=True)
class Answer:
    """Of the tasks present, float64: u [T], what scales the heads [T], the combined gradient [D]."""

    weights: Tensor
    heads: Tensor
    gradient: Tensor
    problem: str | None


class Drill:
    """A method beside the run's optimizer; `take` is one step of training."""

    def __init__(self, method: Weighting, lr: float = 0.05):
        self.method = method.double()
        network = nn.Parameter(torch.zeros(1).double())
        self.optimizer = torch.optim.Adam([{"params": [network]}, *method.parameter_groups()], lr=lr)
        self.steps = 0

    def take(
        self,
        losses: Tensor,
        jacobian: Tensor,
        present: Sequence[str] | None = None,
        after: Tensor | None = None,
        rng: torch.Generator | None = None,
    ) -> Answer:
        """losses [T] and jacobian [T, D] are of the tasks present, in the method's order; `after` the same losses
        after the update, by default less, by another share for each task. rng: by default the step's own."""
        tasks = self.method.tasks
        present = tasks if present is None else tuple(present)
        places = self.method.positions(present)
        full_losses, full = losses.new_zeros(len(tasks)), jacobian.new_zeros(len(tasks), jacobian.shape[1])
        full_losses[places], full[places] = losses, jacobian
        model = Prescribed(tasks, full_losses, full)
        targets = {t: jacobian.new_ones(1) if t in present else jacobian.new_full((1,), torch.nan) for t in tasks}
        rng = torch.Generator().manual_seed(self.steps) if rng is None else rng
        self.steps += 1
        known = {name: Task(name, 1, Given(), [], "vector") for name in tasks}
        result = step(model, known, self.method, jacobian.new_zeros(1, 1, 1), targets, rng=rng)
        if result.problem:
            assert all(p.grad is None for p in model.parameters())
            nothing = torch.zeros(0).double()
            return Answer(nothing, nothing, nothing, result.problem)
        assert result.tasks == present
        heads = torch.cat([model.own[i].grad for i in places]).double()
        gradient = torch.zeros(jacobian.shape[1]) if model.z.grad is None else model.z.grad[0]
        self.optimizer.step()
        if overrides(self.method, "after_step"):
            gained = torch.tensor([0.8 + 0.02 * (sum(name.encode()) % 9) for name in present]).double()
            self.method.after_step(gained * losses.double() if after is None else after, present)
        return Answer(result.weights, heads, gradient.double(), None)

    def end_epoch(
        self, losses: Sequence[float], present: Sequence[str] | None = None, metrics: Sequence[float] | None = None
    ) -> None:
        """Mean losses, and indicators made from `metrics`, by default the losses: of the first task by name lower is
        better, else higher."""
        present = self.method.tasks if present is None else present
        means = dict(zip(present, map(float, losses), strict=True))
        metrics = dict(zip(present, map(float, losses if metrics is None else metrics), strict=True))
        first = min(present)  # the same one in whatever order tasks are listed
        self.method.after_epoch(
            means,
            {
                task: Indicator(mean, False, "px") if task == first else Indicator(100 / (1 + mean), True, "%")
                for task, mean in metrics.items()
            },
        )

    def state(self) -> dict[str, Any]:
        return {"method": self.method.state_dict(), "optimizer": self.optimizer.state_dict(), "steps": self.steps}

    def load(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]
