"""Pyramid pooling (PSPNet)."""

from collections.abc import Sequence

from segmentation_models_pytorch.decoders.pspnet.decoder import PSPModule

from mtlbench.heads.coarsest import CoarsestMapHead, coarsest


class PSP(CoarsestMapHead):
    """Zhao et al. 2017, Section 3.2: averages of the coarsest map in s x s parts, s of `sizes`, beside the map itself.

    Each is reduced to C / len(sizes) channels (1x1 convolution, batch normalisation but for s = 1, ReLU) and
    upsampled; then 3x3 convolution to `hidden`, batch normalisation, ReLU, dropout of channels, 1x1 convolution
    to `out_channels`, bilinear upsampling. Dropout of whole channels is that of the authors' PyTorch code.
    channels, reductions: the backbone's. Raises ValueError where they hold no map.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        reductions: tuple[int, ...],
        out_channels: int,
        sizes: Sequence[int] = (1, 2, 3, 6),
        hidden: int = 512,
        dropout: float = 0.1,
        align_corners: bool = False,
    ):
        width = coarsest("psp", channels, reductions, least=len(sizes))
        super().__init__(
            context=PSPModule(width, tuple(sizes)),
            context_channels=width + len(sizes) * (width // len(sizes)),
            hidden=hidden,
            dropout=dropout,
            out_channels=out_channels,
            align_corners=align_corners,
        )
