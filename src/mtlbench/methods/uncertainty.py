"""Uncertainty weighting of Kendall, Gal and Cipolla (CVPR 2018)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlbench.by_task import by_task, positive
from mtlbench.weighting import Weighting, check_above, check_option

FORMS = {"gaussian": (0.5, 2), "laplace": (1.0, 1), "softmax": (1.0, 2)}
"""Likelihood: (factor f, power k) of M = f L / sigma^k + log sigma."""

PARAMETRISATIONS = ("log_variance", "log_sigma", "sigma")


def forms_by_task(
    method: type[Weighting], form: str | Mapping[str, str], tasks: Sequence[str]
) -> list[tuple[float, float]]:
    """Each task's (factor, power), from one form's name or {task: name}. Raises ValueError for what is unknown."""
    names = by_task(method, "form", form, tasks)
    for name in names:
        check_option(method, "form", name, tuple(FORMS))
    return [FORMS[name] for name in names]


class Uncertainty(Weighting):
    """Losses weighed by each task's learned homoscedastic uncertainty sigma_t, from maximum likelihood.

    M = L / (2 sigma^2) + log sigma   gaussian: squared errors  (Kendall et al. 2018, Eq. 7; IMTL Eq. 34)
    M = L / sigma + log sigma         laplace: L1, sigma = b    (IMTL Section 4; Elich et al. 2023, Eq. 7)
    M = L / sigma^2 + log sigma       softmax: cross-entropy    (Kendall et al. 2018, Eq. 10; IMTL Eq. 8)

    form: one for all tasks, or {task: form}. The default, gaussian for all, is that of the survey (Vandenhende
        et al. 2021, Eq. 6). A loss that is no likelihood (cosine similarity) has no form of its own.
    parametrisation: what is learned: s = log sigma^2 (log_variance, as Kendall et al. advise), s = log sigma
        (log_sigma; the authors' example code, exp(-s) L + s, is this with laplace) or sigma itself, whose sign
        does not matter. They descend the same M at different rates.
    initial_sigma: 1 is our choice; the paper does not say.

    Learned by the run's optimizer, without weight decay. At the best sigma the scaled loss is the same for all
    losses of one form: 1/2 (gaussian), 1 (laplace), 1/2 (softmax). Level: loss. Touches everything. Sum of
    weights: what sigma makes it; at the start with sigma = 1 the sum of the factors 1/2, 1, 1. Invariance to
    the losses' scales: at the best sigma, not on the way there. One task: f / sigma^k times its gradient. A zero
    gradient changes nothing; a loss of 0 drives sigma to 0, a step at a time, and one below 0 (no likelihood has it)
    ever faster: both are noted.
    Raises ValueError for an unknown form or parametrisation, sigma <= 0, or a {task: form} that is not of the
    run's tasks.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        form: str | Mapping[str, str] = "gaussian",
        parametrisation: str = "log_variance",
        initial_sigma: float = 1.0,
    ):
        super().__init__(tasks)
        self.forms = forms_by_task(Uncertainty, form, self.tasks)
        check_option(Uncertainty, "parametrisation", parametrisation, PARAMETRISATIONS)
        check_above(Uncertainty, "initial_sigma", initial_sigma, 0)
        self.parametrisation = parametrisation
        sigma = torch.tensor(initial_sigma, dtype=torch.float64)
        start = {"log_variance": 2 * sigma.log(), "log_sigma": sigma.log(), "sigma": sigma}[parametrisation]
        # one tensor a task, so that the optimizer leaves an absent task's alone
        self.uncertainty = nn.ParameterList(nn.Parameter(start.clone()) for _ in self.tasks)

    def log_sigma(self, tasks: Sequence[str]) -> Tensor:
        """log sigma [T], differentiable."""
        learned = torch.stack([self.uncertainty[i] for i in self.positions(tasks)])
        if self.parametrisation == "sigma":
            return learned.abs().log()
        return learned / 2 if self.parametrisation == "log_variance" else learned

    def transform(self, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        positive(self, losses, tasks)
        log_sigma = self.log_sigma(tasks)
        factor, power = losses.new_tensor([self.forms[i] for i in self.positions(tasks)]).T
        return factor * losses * (-power * log_sigma).exp() + log_sigma
