"""DTP: dynamic task prioritization (Guo et al., ECCV 2018)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtlbench.by_task import by_task
from mtlbench.weighting import Indicator, Weighting, check_above, check_between, check_option


class DTP(Weighting):
    """Tasks that do badly on the validation part get more weight, by a focal loss of their performance indicator.

    w_t = -(1 - k_t)^gamma_t log k_t          (Guo et al. 2018; Vandenhende et al. 2021, Eq. 9)
    k_t <- alpha kappa_t + (1 - alpha) k_t    (after each evaluation; the first kappa_t is k_t itself)

    kappa_t in (0, 1] is made from the task's first metric on the validation part. A share in % is taken as it is
    (1 minus it where lower is better). How another metric becomes an indicator the sources do not say beyond
    "thresholded"; with an error e and a reference r, ours is

    kappa = r / (r + e)    regression=ratio
    kappa = 2^(-e / r)     regression=exponential

    1 at no error, 1/2 at the reference, and 1 minus it where higher is better.

    alpha: above 0, up to 1, the last indicator alone. The default is our choice.
    gamma: 0 or more, one number or {task: number}. The default is our choice.
    regression: ratio or exponential.
    reference: {task: r above 0}, in the metric's unit, of the tasks whose metric is no share; null: the task's first
        indicator.
    floor: the least kappa, above 0, up to 1: at 0 the weight would be infinite. Our choice.

    Until its first indicator a task has the weight 1 (our choice: the sources do not say), counted as a note, as in a
    run without a validation part; an indicator that is not finite is passed over. At k = 1 a task is done and its
    weight 0; a step in which all are done is noted. The paper's second half, a focal loss of each example, is a loss
    and no weight of a task: not here.

    Level: loss. Touches everything. Sum of weights: what the indicators make it; T before the first.
    Invariance to the losses' scales: of the weights, not of the result. One task: -(1 - k)^gamma log k times its
    gradient. A zero gradient changes nothing.
    Raises ValueError for an option out of its range and for names that are no tasks of the run.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        alpha: float = 0.5,
        gamma: float | Mapping[str, float] = 1.0,
        regression: str = "ratio",
        reference: Mapping[str, float] | None = None,
        floor: float = 0.01,
    ):
        super().__init__(tasks)
        check_above(DTP, "alpha", alpha, 0)
        check_between(DTP, "alpha", alpha, 0, 1)
        check_option(DTP, "regression", regression, ("ratio", "exponential"))
        check_above(DTP, "floor", floor, 0)
        check_between(DTP, "floor", floor, 0, 1)
        gammas = by_task(DTP, "gamma", gamma, self.tasks)
        for value in gammas:
            check_between(DTP, "gamma", value, 0, math.inf)
        if reference is not None and not isinstance(reference, Mapping):
            raise ValueError(
                f"reference={reference}: DTP expects a number for each task that has one, such as "
                f"{{{self.tasks[0]}: {reference}}}."
            )
        for task, value in (reference or {}).items():
            if task not in self.tasks:
                raise ValueError(f"reference names {task}; the tasks are {', '.join(self.tasks)}.")
            check_above(DTP, f"reference.{task}", value, 0)
        self.alpha, self.regression, self.floor = alpha, regression, floor
        self.gamma = dict(zip(self.tasks, gammas, strict=True))
        self.reference = dict(reference or {})
        self.first: dict[str, float] = {}  # {task: its first indicator}, the reference where none is given
        self.average: dict[str, float] = {}  # {task: k}

    def transform(self, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        for task in tasks:
            if task not in self.average:
                self.note(f"no indicator yet: {task}")
        weights = losses.new_tensor([self._weight(task) for task in tasks])
        if not weights.any():
            self.note("every task is done")
        return losses * weights

    def _weight(self, task: str) -> float:
        if task not in self.average:
            return 1.0
        k = self.average[task]
        return -((1 - k) ** self.gamma[task]) * math.log(k) + 0.0  # no -0

    def after_epoch(self, losses: dict[str, float], indicators: dict[str, Indicator]) -> None:
        for task, indicator in indicators.items():
            if math.isfinite(indicator.value):
                kappa = self._kappa(task, indicator)
                before = self.average.get(task, kappa)
                self.average[task] = min(self.alpha * kappa + (1 - self.alpha) * before, 1.0)

    def _kappa(self, task: str, indicator: Indicator) -> float:
        """The indicator's value in [floor, 1]."""
        if indicator.unit == "%":
            good = indicator.value / 100 if indicator.higher_is_better else 1 - indicator.value / 100
        else:
            first = self.first.setdefault(task, indicator.value)
            low = self._of_error(max(indicator.value, 0.0), self.reference.get(task, max(first, 0.0)))
            good = 1 - low if indicator.higher_is_better else low
        return min(max(good, self.floor), 1.0)

    def _of_error(self, error: float, reference: float) -> float:
        """1 at no error, 1/2 at the reference, towards 0."""
        if error == 0:
            return 1.0
        if self.regression == "ratio":
            return reference / (reference + error)
        return 2 ** (-error / reference) if reference > 0 else 0.0

    def get_extra_state(self) -> dict[str, Any]:
        return {"first": dict(self.first), "average": dict(self.average)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.first, self.average = dict(state["first"]), dict(state["average"])
