"""The one protocol of all weighting methods.

A method turns T losses, and if it asks for them the T x T inner products of the task gradients (the
Gramian), into T weights. Everything a method sees or returns is float64 on the CPU: T numbers cost nothing
there, and solvers are exact. `step.py` is the only place that differentiates.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

Level = Literal["loss", "feature", "layer", "parameter"]
"""What `weights()` looks at: nothing (loss), the gradients at the shared representation z (feature), those of the
last shared layer's parameters (layer, GradNorm's W), or those of all shared parameters (parameter)."""

Touches = Literal["shared", "everything"]


class Indicator(NamedTuple):
    """A task's primary metric on the validation part. unit: "%" for shares, from 0 to 100."""

    value: float
    higher_is_better: bool
    unit: str


class Weighting(nn.Module):
    """Plain summation; a method overrides what its paper changes.

    All shapes are of the tasks present in the global batch, named by `tasks` in every call; state is kept
    for all tasks of the run (`self.tasks`) and looked up by `self.positions(tasks)`.

    levels: the levels that make sense for the method, its default first.
    touches: what `weights()` scales: "shared" leaves the task-specific heads to their own (transformed) loss
        (MGDA Algorithm 2, IMTL Algorithm 1), "everything" scales the heads too (GradNorm). `transform`
        always scales everything.
    scale_rule: paper leaves the weights as the method gives them; sum_T multiplies what scales the shared gradients,
        and what scales the heads, so that each sums to T: methods without the hidden factor of the learning rate.
    jacobian: at level parameter, whole keeps all gradients, [T, P]; streamed sums the Gramian over blocks of
        layers and passes the backbone once more (streaming.py): less memory, the same gradients to rounding.

    Parameters and buffers are in checkpoints; whatever else is state (an optimizer of the method's own, a
    dictionary) goes through nn.Module's get_extra_state and set_extra_state, as plain numbers and tensors.
    """

    levels: ClassVar[tuple[Level, ...]] = ("loss",)
    touches: Touches = "shared"
    scale_rule: Literal["paper", "sum_T"] = "paper"
    jacobian: Literal["whole", "streamed"] = "whole"

    def __init__(self, tasks: Sequence[str], level: Level | None = None):
        super().__init__()
        self.tasks = tuple(tasks)
        self.level: Level = self.levels[0] if level is None else level
        if self.level not in self.levels:
            raise ValueError(f"method.level={level}: {type(self).__name__} works at {', '.join(self.levels)}.")
        self.notes: list[str] = []

    def set_rules(self, scale: str, jacobian: str) -> None:
        """The keys of every method: method.scale and method.jacobian. Raises ValueError for what they do not take."""
        if scale not in ("paper", "sum_T"):
            raise ValueError(f"method.scale={scale}: expected paper or sum_T.")
        if jacobian not in ("whole", "streamed"):
            raise ValueError(f"method.jacobian={jacobian}: expected whole or streamed.")
        if jacobian == "streamed" and self.level != "parameter":
            raise ValueError(f"method.jacobian=streamed: only level parameter has a Jacobian, not {self.level}.")
        if jacobian == "streamed" and overrides(self, "combine"):
            raise ValueError(
                f"method.jacobian=streamed: {type(self).__name__} needs each coordinate of every gradient. Type "
                f"method.jacobian=whole."
            )
        self.scale_rule, self.jacobian = scale, jacobian

    def note(self, what: str) -> None:
        """Counts a step whose input the paper's formula does not answer, under a name such as "a zero gradient"; the
        docstring says what the method gives then. The record shows the counts."""
        self.notes.append(what)

    def take_notes(self) -> tuple[str, ...]:
        """The notes since the last call, of the methods inside as well, each once."""
        taken = []
        for part in self.modules():
            if isinstance(part, Weighting):
                taken += part.notes
                part.notes = []
        return tuple(dict.fromkeys(taken))

    def parts(self, name: str) -> tuple["Weighting", ...]:
        """Whose `name` of the protocol counts: the method's own; a composition names the methods inside it."""
        return (self,)

    def positions(self, tasks: Sequence[str]) -> list[int]:
        """Where `tasks` stand among all tasks of the run."""
        return [self.tasks.index(task) for task in tasks]

    def transform(self, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        """The loss balance: losses L [T] to M [T], differentiable in L and in the method's parameters.

        Training descends sum_t M_t. The method's own parameters get the gradient of that sum.
        """
        return losses

    def weights(self, losses: Tensor, gramian: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        """The gradient balance: weights [T] of the transformed gradients, from M [T] and their Gramian [T, T].

        Not called at level "loss".
        """
        return torch.ones_like(losses)

    def combine(self, weights: Tensor, jacobian: Tensor, tasks: Sequence[str], uniform: Callable[[], Tensor]) -> Tensor:
        """One gradient [D] from the transformed gradients [T, D]; overridden only by what is no weighted sum.

        uniform: draws [D] numbers from [0, 1), one for each coordinate. At feature level the coordinates are this
            rank's part of z, and the numbers those that one process would draw for them.
        """
        return weights.to(jacobian) @ jacobian

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The learned weights, as groups of the run's optimizer: no weight decay, `lr` only where it differs."""
        parameters = list(self.parameters())
        return [{"params": parameters, "weight_decay": 0.0}] if parameters else []

    def after_step(self, losses: Tensor, tasks: Sequence[str]) -> None:
        """The same batch's losses [T] after the update; costs a forward pass, so only if overridden."""

    def after_epoch(self, losses: dict[str, float], indicators: dict[str, Indicator]) -> None:
        """Once an epoch: the training means of the raw losses, weighted by valid terms, and each task's primary
        metric on the validation part (no entry where there is no such part)."""


def overrides(method: Weighting, name: str) -> bool:
    """Whether the method changes `name` of the protocol: its class, or of a composition the methods inside."""
    return any(
        getattr(type(part), name) is not getattr(Weighting, name) if part is method else overrides(part, name)
        for part in method.parts(name)
    )


def check_option(method: type[Weighting], key: str, value: str, allowed: Sequence[str]) -> None:
    """Raises ValueError with what exists if an option of a method is none of the allowed words."""
    if value not in allowed:
        raise ValueError(f"{key}={value}: {method.__name__} takes {key}={', '.join(allowed)}.")


def check_above(method: type[Weighting], key: str, value: float, bound: float) -> None:
    """Raises ValueError unless an option of a method is a finite number above the bound."""
    if not isinstance(value, int | float) or not bound < value < math.inf:
        raise ValueError(f"{key}={value}: {method.__name__} expects a number {key} > {bound:g}.")


def check_between(method: type[Weighting], key: str, value: float, low: float, high: float) -> None:
    """Raises ValueError unless an option of a method is a number in [low, high]; high may be infinite."""
    if not isinstance(value, int | float) or not low <= value <= high or math.isinf(value):
        allowed = f"{key} >= {low:g}" if math.isinf(high) else f"{low:g} <= {key} <= {high:g}"
        raise ValueError(f"{key}={value}: {method.__name__} expects a number {allowed}.")


def check_level(method: Weighting, model: nn.Module) -> None:
    """Raises ValueError if the method looks at a representation that the model does not have, or streams without."""
    if model.shared_representation:
        return
    without = f"{type(model).__name__} has no single shared representation that all heads read"
    if method.jacobian == "streamed":
        raise ValueError(f"method.jacobian=streamed: {without}. Type method.jacobian=whole.")
    if method.level == "feature":
        others = [level for level in method.levels if level != "feature"]
        typed = " or ".join(f"method.level={level}" for level in others)
        raise ValueError(
            f"method.level=feature: {without}. Type {typed or 'architecture=multi_decoder'}: {type(method).__name__} "
            f"works at {', '.join(method.levels)}."
        )
