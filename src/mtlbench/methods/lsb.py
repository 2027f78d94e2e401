"""LSB: loss scale balancing (Lee, Lee and Kim, ICCV 2021)."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mtlbench.by_task import by_task, measured
from mtlbench.weighting import Indicator, Weighting, check_above, check_between


class LSB(Weighting):
    """M_k = alpha^t d_k^t w_k^t L_k: each task's share of the overall loss is its priority, times its difficulty.

    w_k^t = pi_k L^{t-1} / L_k^{t-1}          (Eq. 7; in the first period w_k = pi_k, Eq. 4)
    d_k^t = ((L_k^{t-1} / L_k^{t-2}) / (L^{t-1} / L^{t-2}))^beta   (Eq. 9; 1 in the first two periods)
    alpha^t = 1 / sum_k pi_k d_k^t            (Eq. 12)
    L^t = alpha^t sum_k d_k^t w_k^t L_k^t     (Eqs. 3 and 11)

    A period is an epoch; L_k^t is the mean training loss in it. New weights leave the overall loss of the period
    before unchanged (Propositions 1 and 2). All of it is of the tasks present in a batch: their overall losses, and
    their priorities divided by the sum of these. A task without a record is in its own first period (weight pi_k),
    with one record in its second; epochs without a label of the task are passed over.

    priorities: {task: number above 0}, divided by their sum; null: 1 / T each (Section 3).
    beta: in the third period: 0, the paper's default mode, in which it is "incremented gradually"; a fixed one (its
        Table 6: -3 to 10) is beta with beta_increment=0.
    beta_increment: added at each later period. The paper does not say how much: 0.05 is our choice.

    A record that is not above 0 gives no weight: its task is in its first period again, noted in each step.
    Level: loss. Touches everything. Sum of weights: 1 in the first period, then what leaves the overall loss
    unchanged. Invariance to the losses' scales: the direction, from the second period on; the length is that of the
    first period's overall loss. One task: its plain gradient. A zero gradient changes nothing.
    Raises ValueError for priorities that are not of the run's tasks or not above 0, beta not finite, or
    beta_increment < 0.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        priorities: Mapping[str, float] | None = None,
        beta: float = 0.0,
        beta_increment: float = 0.05,
    ):
        super().__init__(tasks)
        if priorities is not None and not isinstance(priorities, Mapping):
            example = ", ".join(f"{task}: 1" for task in self.tasks)
            raise ValueError(f"priorities={priorities}: LSB expects one for each task, such as {{{example}}}.")
        given = by_task(LSB, "priorities", 1.0 if priorities is None else priorities, self.tasks)
        for task, priority in zip(self.tasks, given, strict=True):
            check_above(LSB, f"priorities.{task}", priority, 0)
        check_between(LSB, "beta", beta, -math.inf, math.inf)
        check_between(LSB, "beta_increment", beta_increment, 0, math.inf)
        self.priorities = dict(zip(self.tasks, given, strict=True))
        self.beta, self.beta_increment = beta, beta_increment
        self.period = 1
        self.history: dict[str, list[float]] = {}  # {task: mean losses of its last periods, two at most}
        self.factors: dict[str, float] = {}  # {task: alpha d w of its last period}

    def transform(self, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        for task in tasks:
            if self.history.get(task, [1.0])[-1] <= 0:
                self.note(f"a loss record that is not above 0: {task}")
        return losses * losses.new_tensor(self.balanced(tasks))

    def balanced(self, tasks: Sequence[str]) -> list[float]:
        """alpha d w of these tasks, were they the only ones, in the current period."""
        total = sum(self.priorities[task] for task in tasks)
        found = {task: self.priorities[task] / total for task in tasks}
        known = [task for task in tasks if self.history.get(task, [0.0])[-1] > 0]
        if known:
            overall = sum(self.factors[task] * self.history[task][-1] for task in known)
            # alpha d_k w_k = (pi_k d_k / sum pi d) L / L_k: a softmax, in which L^{t-1} / L^{t-2} of Eq. 9, the
            # same for all tasks, cancels, and no power of a ratio overflows
            logs = [math.log(self.priorities[task]) + self.beta_now() * self._log_pace(task) for task in known]
            shares = torch.tensor(logs, dtype=torch.float64).softmax(0).tolist()
            for task, share in zip(known, shares, strict=True):
                found[task] = share * overall / self.history[task][-1]
        return [found[task] for task in tasks]

    def beta_now(self) -> float:
        """The exponent of the difficulties in the current period."""
        return self.beta + self.beta_increment * max(self.period - 3, 0)

    def _log_pace(self, task: str) -> float:
        """log(L_k^{t-1} / L_k^{t-2}), 0 without two records."""
        history = self.history[task]
        return math.log(history[1]) - math.log(history[0]) if len(history) == 2 and history[0] > 0 else 0.0

    def after_epoch(self, losses: dict[str, float], indicators: dict[str, Indicator]) -> None:
        found = measured(losses)
        tasks = [task for task in self.tasks if task in found]
        self.factors |= dict(zip(tasks, self.balanced(tasks), strict=True))
        for task in tasks:
            self.history[task] = [*self.history.get(task, []), found[task]][-2:]
        self.period += 1

    def get_extra_state(self) -> dict[str, Any]:
        history = {task: list(losses) for task, losses in self.history.items()}
        return {"period": self.period, "history": history, "factors": dict(self.factors)}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.period = state["period"]
        self.history = {task: list(losses) for task, losses in state["history"].items()}
        self.factors = dict(state["factors"])
