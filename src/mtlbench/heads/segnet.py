"""What follows SegNet's last map."""

from collections.abc import Sequence

from torch import Tensor, nn

from mtlbench.heads.coarsest import check_maps
from mtlbench.model import MapHead


class SegNetHead(MapHead):
    """One or two convolutions on the finest map, which of SegNet has the image's own size.

    hidden: 64: 3x3 to 64 channels, then 1x1 to `out_channels`, with nothing between (the code of Liu et al. 2019,
        MTAN); null: one 3x3 convolution to `out_channels`, the last of SegNet's decoder (Badrinarayanan et al. 2017).
    Xavier's initial weights, zero biases, as in MTAN's code.
    align_corners: of the upsampling, where the map is smaller than the image.
    channels, reductions: the backbone's. Raises ValueError where they hold no maps.
    """

    def __init__(
        self,
        channels: Sequence[int],
        reductions: Sequence[int],
        out_channels: int,
        hidden: int | None = 64,
        align_corners: bool = False,
    ):
        super().__init__()
        check_maps("segnet", "the finest feature map", channels, reductions)
        self.align_corners = align_corners
        if hidden is None:
            self.project = nn.Identity()
            self.predict = nn.Conv2d(channels[0], out_channels, 3, padding=1)
        else:
            self.project = nn.Conv2d(channels[0], hidden, 3, padding=1)
            self.predict = nn.Conv2d(hidden, out_channels, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def embed(self, features: tuple[Tensor, ...]) -> Tensor:
        return self.project(features[0])
