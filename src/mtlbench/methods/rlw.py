"""RLW: random loss weighting (Lin et al., TMLR 2022; arXiv 2111.10603)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mtlbench.weighting import Weighting, check_option

DISTRIBUTIONS = ("normal", "uniform", "random_normal", "dirichlet", "bernoulli", "constrained_bernoulli")


class RLW(Weighting):
    """M_t = w_t L_t with weights drawn anew at each step, for the tasks present.

    distribution: the six of the authors' first code; the published paper keeps normal, the default.
        normal: softmax of numbers from N(0, 1).
        uniform: softmax of numbers from [0, 1).
        random_normal: softmax of numbers from N(m_t, s_t^2); m_t and s_t, uniform in [0, 1), are drawn once, at the
        task's first step.
        dirichlet: uniform over all weights whose sum is 1, Dirichlet(1, ..., 1).
        bernoulli: each task with probability 1/2, all chosen weights alike; drawn again while no task is chosen.
        constrained_bernoulli: one task, weight 1.

    The draws come from the step's generator, which is the same on every rank. Level: loss. Touches everything. Sum of
    weights: 1. Invariance to the losses' scales: none. One task: its plain gradient. A zero gradient changes nothing.
    Raises ValueError for an unknown distribution.
    """

    def __init__(self, tasks: Sequence[str], distribution: str = "normal"):
        super().__init__(tasks)
        check_option(RLW, "distribution", distribution, DISTRIBUTIONS)
        self.distribution = distribution
        if distribution == "random_normal":  # mean and standard deviation of each task [T, 2], -1 until they are drawn
            self.register_buffer("moments", torch.full((len(self.tasks), 2), -1.0, dtype=torch.float64))

    def transform(self, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        return losses * self.draw(tasks, rng).to(losses)

    def draw(self, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        """Weights [T] of the sum 1."""
        empty = torch.empty(len(tasks), dtype=torch.float64)
        if self.distribution == "dirichlet":
            found = empty.exponential_(generator=rng)  # normalised, exponential numbers are Dirichlet(1, ..., 1)
            return found / found.sum()
        if self.distribution == "bernoulli":
            found = empty.zero_()
            while not found.any():
                found = empty.bernoulli_(0.5, generator=rng)
            return found / found.sum()
        if self.distribution == "constrained_bernoulli":
            chosen = torch.randint(len(tasks), (1,), generator=rng)
            return empty.zero_().index_fill_(0, chosen, 1.0)
        if self.distribution == "uniform":
            return empty.uniform_(generator=rng).softmax(0)
        if self.distribution == "random_normal":
            mean, deviation = self._moments(tasks, rng).T
            return (mean + deviation * empty.normal_(generator=rng)).softmax(0)
        return empty.normal_(generator=rng).softmax(0)

    def _moments(self, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        """Means and standard deviations [T, 2]; a new task's are drawn."""
        places = self.positions(tasks)
        for i in places:
            if self.moments[i, 0] < 0:
                self.moments[i] = torch.rand(2, dtype=torch.float64, generator=rng)
        return self.moments[places]
