"""The fully convolutional head."""

from torch import nn

from mtlbench.heads.coarsest import CoarsestMapHead, coarsest


class FCN(CoarsestMapHead):
    """Long et al. 2015, in the form of torchvision's FCN: a 3x3 convolution of the coarsest map, batch normalisation,
    ReLU, dropout, 1x1 convolution to `out_channels`, bilinear upsampling (FCN-32s at 1/32: no finer map is added).

    hidden: channels between; null: a quarter of the map's.
    channels, reductions: the backbone's. Raises ValueError where they hold no map.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        reductions: tuple[int, ...],
        out_channels: int,
        hidden: int | None = None,
        dropout: float = 0.1,
        align_corners: bool = False,
    ):
        width = coarsest("fcn", channels, reductions, least=4)
        super().__init__(
            context=nn.Identity(),
            context_channels=width,
            hidden=width // 4 if hidden is None else hidden,
            dropout=dropout,
            out_channels=out_channels,
            align_corners=align_corners,
        )
        self.project[-1] = nn.Dropout(dropout)  # of single values, as in torchvision
