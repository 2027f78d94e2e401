"""What the heads that read the coarsest map have in common."""

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


def coarsest(head: str, channels: tuple[int, ...], reductions: tuple[int, ...], least: int = 1) -> int:
    """The channels of the coarsest map. Raises ValueError where the backbone gives none that the head can read."""
    if not channels or len(channels) != len(reductions):
        found = f"channels {list(channels)} and reductions {list(reductions)}"
    elif reductions[-1] == 0:
        found = f"a vector of {channels[-1]} numbers"
    elif channels[-1] < least:
        found = f"a map of {channels[-1]} channels, and at least {least} are needed"
    else:
        return channels[-1]
    raise ValueError(
        f"head={head}: it reads the coarsest feature map of the backbone, and this backbone gives {found}. Choose a "
        f"backbone of maps, such as backbone=resnet50_dilated or backbone=resnet18, or another head."
    )
