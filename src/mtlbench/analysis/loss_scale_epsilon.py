"""What Adam's eps has to do with the scale of a loss: the change of a coordinate's step, predicted and measured.

With the gradients g of plain losses, a loss scaled by alpha gives m -> alpha m and v -> alpha^2 v (Elich et al. 2023,
Eqs. 19-20), so that the step of Eq. 18, with eps kept, changes by the factor

    (sqrt(v) + eps) / (sqrt(v) + eps / alpha)

m and v with bias correction. It is 1 for eps = 0, about 1 + eps (1 - 1/alpha) / sqrt(v) for small eps, and towards
alpha where eps is all that counts: there Adam is as SGD.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mtlbench.analysis.loss_scale_network import Setting, optimizer, train


@dataclass(frozen=True)
class Effect:
    """Of one head [steps, coordinates]: sqrt(v), and the relative change of the step by the formula and by torch."""

    roots: NDArray[np.float64]
    predicted: NDArray[np.float64]
    measured: NDArray[np.float64]


def effect(setting: Setting, part: str, alpha: float) -> Effect:
    """Along the gradients of a run with plain losses, that both steps are given: nothing else differs between them."""
    gradients = (train(setting).gradients or {})[part]
    one, other = steps(setting, gradients), steps(setting, alpha * gradients)
    roots = second_moments(gradients, setting.betas[1])
    predicted = (roots + setting.eps) / (roots + setting.eps / alpha) - 1 if setting.eps else np.zeros_like(roots)
    measured = np.divide(other, one, out=np.ones_like(one), where=one != 0) - 1
    return Effect(roots, np.where(one != 0, predicted, 0.0), measured)


def second_moments(gradients: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    """sqrt(v / (1 - beta^i)) of each step i [steps, coordinates]."""
    v, found = np.zeros(gradients.shape[1]), []
    for i, gradient in enumerate(gradients, start=1):
        v = beta * v + (1 - beta) * gradient**2
        found.append(np.sqrt(v / (1 - beta**i)))
    return np.array(found)


def steps(setting: Setting, gradients: NDArray[np.float64]) -> NDArray[np.float64]:
    """What torch's Adam adds to parameters at 0 when it is given these gradients, one after the other."""
    parameter = torch.zeros(gradients.shape[1], dtype=torch.float64, requires_grad=True)
    adam, found = optimizer(setting, [{"params": [parameter]}]), []
    for gradient in gradients:
        parameter.data.zero_()  # so that the whole of the step is in the digits
        parameter.grad = torch.from_numpy(gradient.copy())
        adam.step()
        found.append(parameter.detach().numpy().copy())
    return np.array(found)
