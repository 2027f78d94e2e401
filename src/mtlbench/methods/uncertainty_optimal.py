"""UW-O: uncertainty weighting with the best sigma in closed form (Elich et al. 2023)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mtlbench.by_task import positive
from mtlbench.methods.uncertainty import forms_by_task
from mtlbench.weighting import Weighting


class UncertaintyOptimal(Weighting):
    """Uncertainty weighting in which sigma_t is the best one for the batch's loss, computed instead of learned.

    M_t = L_t / sg(L_t)          laplace (Elich et al. 2023, Eqs. 1-2 and 7-12: sigma = L)
    M_t = L_t / (2 sg(L_t))      gaussian (sigma^2 = L) and softmax (sigma^2 = 2 L), likewise

    sg: no gradient goes through. sigma is detached (through it the gradient of L / sigma + log sigma would be the
    same, because there its derivative by sigma is 0), and log sigma, which is without gradient then, is left out as
    in Eq. 2. So each M has the value 1 (or 1/2) at every step, and the weights are 1 / L_t (or half of it).

    form: laplace, the paper's derivation and default, gaussian or softmax; or {task: form}. "Straight-forward to derive
        the same" for others, it says; the two are our derivation from `uncertainty`.

    A loss that is not above 0 has no best sigma: the task's weight is 0 in that step, noted; the others' are what
    they were. Level: loss. Touches everything. Sum of weights: sum_t 1 / L_t (or half of each). Invariance to the
    losses' scales: the whole result. One task: 1 / L (or half of it) times its gradient. A zero gradient changes
    nothing. Raises ValueError for an unknown form or a {task: form} that is not of the run's tasks.
    """

    def __init__(self, tasks: Sequence[str], form: str | Mapping[str, str] = "laplace"):
        super().__init__(tasks)
        self.forms = forms_by_task(UncertaintyOptimal, form, self.tasks)

    def transform(self, losses: Tensor, tasks: Sequence[str], rng: torch.Generator | None) -> Tensor:
        above = positive(self, losses, tasks)
        powers = losses.new_tensor([self.forms[i][1] for i in self.positions(tasks)])
        # f L / sigma^k + log sigma is least at sigma^k = f k L, where f / sigma^k is 1 / (k L)
        return losses * torch.where(above, 1 / (powers * losses.detach().where(above, 1.0)), 0.0)
