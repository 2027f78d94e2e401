"""What the metrics have in common: values as tensors, and counting without waiting for the device."""

from abc import abstractmethod

import torch
from torch import Tensor

from mtlbench.task import Meter


class SumMeter(Meter):
    """A meter whose values are a tensor function of its sums, on whatever device; sums()[0] counts what is labelled."""

    @abstractmethod
    def of(self, sums: Tensor) -> Tensor:
        """The metrics [K], in their order, float64; NaN where undefined. Nothing in it waits for the device."""

    def values(self, sums: Tensor) -> dict[str, float]:
        found = self.of(sums).tolist()
        return {metric.name: value for metric, value in zip(self.metrics, found, strict=True)}


def histogram(numbers: Tensor, bins: int) -> Tensor:
    """How often each of 0 to bins - 1 occurs in integers [N] of 0 to `bins`, float64 [bins]; the number `bins` is left
    out: what is to be ignored.

    On a GPU `bincount` would make the host wait for the largest number, and adding up in place is not deterministic:
    there the numbers are sorted and the places looked up where one ends and the next begins.
    """
    if numbers.device.type == "cpu":
        return torch.bincount(numbers, minlength=bins + 1)[:bins].double()
    ordered = numbers.to(torch.int16 if bins < 2**15 else torch.int32).sort().values
    edges = torch.arange(bins + 1, dtype=ordered.dtype, device=ordered.device)
    return torch.searchsorted(ordered, edges).diff().double()


def total(values: Tensor, where: Tensor) -> Tensor:
    """The sum [] of the values at the places that are true, float64; what the others hold never counts."""
    return torch.where(where, values, torch.zeros_like(values)).sum(dtype=torch.float64)
