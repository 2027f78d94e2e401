"""What losses divide by."""

import torch
from torch import Tensor


def count(mask: Tensor) -> Tensor:
    """How many are true, float64 [1]."""
    return mask.sum(dtype=torch.float64).reshape(1)


def all_of(target: Tensor) -> Tensor:
    """How many terms there are, labelled or not, float64 [1]."""
    return torch.full((1,), target.numel(), dtype=torch.float64, device=target.device)


def share(total: Tensor, number: Tensor) -> Tensor:
    """A sum [] over a number of terms []; over 1 where there are none."""
    return total / number.clamp(min=1).to(total.dtype)
