"""The survey's head of HRNet: all scales side by side."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtlbench.heads.coarsest import check_maps
from mtlbench.model import MapHead


class HRNetHead(MapHead):
    """Vandenhende et al. 2021, Section 4.3.1: all maps, enlarged to the finest one and concatenated, through "two
    consecutive convolutional layers to get the task output".

    Bilinear enlarging, 1x1 convolution, batch normalisation, ReLU, 1x1 convolution to `out_channels`, bilinear
    upsampling; sizes of kernels and the normalisation are of the authors' code.
    hidden: channels between the convolutions; null: as many as the maps have together.
    channels, reductions: the backbone's. Raises ValueError where they hold no maps.
    """

    def __init__(
        self,
        channels: Sequence[int],
        reductions: Sequence[int],
        out_channels: int,
        hidden: int | None = None,
        align_corners: bool = False,
    ):
        super().__init__()
        check_maps("hrnet", "all feature maps", channels, reductions)
        self.align_corners = align_corners
        together = sum(channels)
        width = together if hidden is None else hidden
        self.fuse = nn.Sequential(nn.Conv2d(together, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.predict = nn.Conv2d(width, out_channels, 1)

    def embed(self, features: tuple[Tensor, ...]) -> Tensor:
        finest, *coarser = features
        size = finest.shape[-2:]
        enlarged = [F.interpolate(x, size, mode="bilinear", align_corners=self.align_corners) for x in coarser]
        return self.fuse(torch.cat([finest, *enlarged], dim=1))
