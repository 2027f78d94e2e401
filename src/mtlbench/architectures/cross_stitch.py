"""Cross-stitch networks (Misra et al. 2016)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtlbench.architectures.columns import Columns
from mtlbench.model import Stage


class CrossStitch(Columns):
    """x~_i = sum_j alpha_ij x_j (Misra et al. 2016, Equation 1) behind stages of the tasks' encoders, one unit for each
    channel or for all; LSB's multi-column architecture (Lee et al. 2021, Table 1).

    same, other: the initial alpha_ii and alpha_ij. 0.9 and 0.1 are the survey's code (Vandenhende et al. 2021), for
        any number of tasks; the paper has two tasks and finds 0.9 and 0.1 or 1 and 0 good.
    share: other is divided by the number of other tasks, so that a row sums to same + other. Ours, for many tasks;
        not in the papers.
    per: channel (the paper and the survey's code) or map (one number for all channels: MTAN's code of cross-stitch).
    stages: null: all but the first, the stem: layer1 to layer4 of a ResNet, as in the survey's code. The paper mixes
        behind every pooling and fully connected layer of AlexNet; LSB's paper does not say where.
    rate: 100 in the survey's code, for SGD alone ("Adam seems to fail"); the paper finds 100 to 1000 good.
    Other options, initial weights and what is shared: see `Columns`.
    """

    def __init__(
        self,
        *parts: Any,
        stages: Sequence[str] | None = None,
        same: float = 0.9,
        other: float = 0.1,
        share: bool = False,
        per: str = "channel",
        rate: float = 100.0,
        **more: Any,
    ):
        if per not in ("channel", "map"):
            raise ValueError(f"architecture.per={per}: expected channel or map.")
        self.initial = (same, other, share, per)
        super().__init__(*parts, stages=stages, rate=rate, **more)

    @staticmethod
    def default_stages(cut: Mapping[str, Stage]) -> tuple[str, ...]:
        return tuple(cut)[1:]

    def unit(self, task: str, channels: int) -> nn.Module:
        same, other, share, per = self.initial
        count = len(self.tasks)
        alpha = torch.full((count, channels if per == "channel" else 1), other / (count - 1) if share else other)
        alpha[self.tasks.index(task)] = same
        return Stitch(alpha)


class Stitch(nn.Module):
    """The row of one task: maps [B, C, h, w] of all tasks to one, by alpha [T, C] or [T, 1]."""

    def __init__(self, alpha: Tensor):
        super().__init__()
        self.alpha = nn.Parameter(alpha)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        rows = self.alpha.view(len(maps), 1, -1, *[1] * (maps[0].ndim - 2))
        total = rows[0] * maps[0]
        for row, x in zip(rows[1:], maps[1:], strict=True):
            total = torch.addcmul(total, row, x)
        return total
