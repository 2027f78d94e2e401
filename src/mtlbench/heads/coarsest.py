"""What the heads that read the coarsest map have in common."""

from collections.abc import Sequence
from typing import NoReturn

from torch import Tensor, nn

from mtlbench.model import MapHead


class CoarsestMapHead(MapHead):
    """A context module on the coarsest map, 3x3 convolution, 1x1 convolution, bilinear upsampling.

    context: [B, C, h, w] to [B, context_channels, h, w].
    align_corners: of the upsampling to the input's size.
    """

    def __init__(
        self,
        context: nn.Module,
        context_channels: int,
        hidden: int,
        dropout: float,
        out_channels: int,
        align_corners: bool,
    ):
        super().__init__()
        self.align_corners = align_corners
        self.context = context
        self.project = nn.Sequential(
            nn.Conv2d(context_channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout),
        )
        self.predict = nn.Conv2d(hidden, out_channels, 1)

    def embed(self, features: tuple[Tensor, ...]) -> Tensor:
        return self.project(self.context(features[-1]))


def coarsest(head: str, channels: Sequence[int], reductions: Sequence[int], least: int = 1) -> int:
    """The channels of the coarsest map. Raises ValueError where the backbone gives none that the head can read."""
    check_maps(head, "the coarsest feature map", channels, reductions)
    if channels[-1] < least:
        _refuse(head, "the coarsest feature map", f"one of {channels[-1]} channels, and at least {least} are needed")
    return channels[-1]


def check_maps(head: str, reads: str, channels: Sequence[int], reductions: Sequence[int]) -> None:
    """Raises ValueError where the backbone gives no maps."""
    if not channels or len(channels) != len(reductions):
        _refuse(head, reads, f"channels {list(channels)} and reductions {list(reductions)}")
    if 0 in reductions:
        _refuse(head, reads, f"a vector of {channels[-1]} numbers")


def _refuse(head: str, reads: str, found: str) -> NoReturn:
    raise ValueError(
        f"head={head}: it reads {reads} of the backbone, and this backbone gives {found}. Choose a "
        f"backbone of maps, such as backbone=resnet50_dilated or backbone=resnet18, or another head."
    )
