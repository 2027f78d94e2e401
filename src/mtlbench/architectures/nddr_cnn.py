"""NDDR-CNN: neural discriminative dimensionality reduction (Gao et al. 2019)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlbench.architectures.columns import Columns
from mtlbench.model import Stage


class NDDRCNN(Columns):
    """Behind stages of the tasks' encoders the maps of all tasks are put side by side and each task reduces them to
    its own channels: 1x1 convolution [C, T C] without bias, batch normalisation, ReLU (Gao et al. 2019, Section 3.2).

    same, other: of the initial convolution, which is diagonal in each task's block: 0.9 and 0.1 are the authors'
        code and the survey's (Vandenhende et al. 2021). null for both: torch's initial weights.
    normalise: batch normalisation (momentum 0.05 as in the authors' code) and the ReLU behind the convolution, as in
        the survey's code; false: the convolution alone, of which a cross-stitch unit is the diagonal case.
    stages: null: all, the stem too: conv and layer1 to layer4 of a ResNet, as in the survey's code on NYUD-v2. Its
        printed parameters and FLOPs are those of all stages in Table 4, without layer4 in Table 5, and in Table 3 the
        parameters with and the FLOPs without it.
    rate: 100 in both codes, the survey's for SGD alone ("Adam seems to fail").
    The paper's shortcut variant is not here. Other options, initial weights and what is shared: see `Columns`.
    """

    def __init__(
        self,
        *parts: Any,
        stages: Sequence[str] | None = None,
        same: float | None = 0.9,
        other: float | None = 0.1,
        normalise: bool = True,
        rate: float = 100.0,
        **more: Any,
    ):
        if (same is None) != (other is None):
            raise ValueError(f"architecture.same={same} architecture.other={other}: expected two numbers or two nulls.")
        self.initial, self.normalise = (same, other), normalise
        super().__init__(*parts, stages=stages, rate=rate, **more)

    @staticmethod
    def default_stages(cut: Mapping[str, Stage]) -> tuple[str, ...]:
        return tuple(cut)

    def unit(self, task: str, channels: int) -> nn.Module:
        return Reduction(self.tasks.index(task), len(self.tasks), channels, self.initial, self.normalise)


class Reduction(nn.Module):
    """The maps [B, C, h, w] (or vectors [B, C]) of all tasks to one of C channels."""

    def __init__(
        self, place: int, count: int, channels: int, initial: tuple[float | None, float | None], normalise: bool
    ):
        super().__init__()
        self.reduce = nn.Conv2d(count * channels, channels, 1, bias=False)
        same, other = initial
        if same is not None:
            blocks = [torch.eye(channels) * (same if k == place else other) for k in range(count)]
            with torch.no_grad():
                self.reduce.weight.copy_(torch.cat(blocks, 1)[..., None, None])
        self.after = nn.Sequential(nn.BatchNorm2d(channels, momentum=0.05), nn.ReLU()) if normalise else nn.Identity()

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        x = torch.cat(list(maps), 1)
        if x.ndim == 2:  # vectors are maps of one place
            return self.after(self.reduce(x[..., None, None])).flatten(1)
        return self.after(self.reduce(x))
