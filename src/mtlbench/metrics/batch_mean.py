"""Means over batches or images of what other metrics say of each."""

import torch
from torch import Tensor

from mtlbench.metrics.sums import SumMeter


class BatchMean(SumMeter):
    """The mean over batches of `images` images of a meter's values for each batch alone, the last one as it comes and
    weighted like the others.

    The MTAN family's numbers (MTAN, CAGrad, Nash-MTL) of depth and normals; it depends on the batch size, so that the
    number of images is said here, and evaluation refuses batches that are no multiple of it, and more than one rank.
    images=1: the mean over images, on any number of ranks (RMSE in LSB; mIoU of MTAN before November 2020).
    empty: a batch without any label is left out ("skip"), or makes the mean NaN ("nan", as those codes do).
    """

    def __init__(self, meter: SumMeter, images: int, empty: str = "skip"):
        if images < 1 or empty not in ("skip", "nan"):
            raise ValueError(f"images={images} empty={empty!r}: 1 or more, and skip or nan, are expected.")
        if not isinstance(meter, SumMeter) or isinstance(meter, BatchMean):
            raise ValueError(
                f"A mean over batches is taken of a metric of this package, not of {type(meter).__name__}."
            )
        self.meter, self.together, self.empty = meter, images, empty
        self.metrics = meter.metrics

    def sums(self, prediction: Tensor, target: Tensor) -> Tensor:
        """[1 + K]: batches, and the sums of their values."""
        found = []
        for p, t in zip(prediction.split(self.together), target.split(self.together), strict=True):
            sums = self.meter.sums(p, t)
            values = torch.cat([sums.new_ones(1).double(), self.meter.of(sums).double()])
            if self.empty == "skip":
                empty = (sums < 0).all() if self.meter.gathers else sums[0] == 0
                values = torch.where(empty, torch.zeros_like(values), values)
            found.append(values)
        return torch.stack(found).sum(0)

    def of(self, sums: Tensor) -> Tensor:
        return sums[1:] / sums[0]
