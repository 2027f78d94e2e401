"""Atrous spatial pyramid pooling (DeepLabV3)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from segmentation_models_pytorch.decoders.deeplabv3.decoder import ASPP as Pyramid
from torch import Tensor

from mtlbench.heads.coarsest import CoarsestMapHead, coarsest


class ASPP(CoarsestMapHead):
    """Chen et al. 2017, Section 3.3: 1x1, three dilated 3x3 and an image-level branch side by side.

    Each has `hidden` channels, batch normalisation and ReLU; together they go through a 1x1 convolution, dropout,
    3x3 convolution, batch normalisation, ReLU, 1x1 convolution to `out_channels`, bilinear upsampling (the
    order of torchvision's DeepLabV3).
    rates: of the dilation, in steps of the map; the paper has (12, 24, 36) for stride 8, half of that for 16.
    channels, reductions: the backbone's. Raises ValueError where they hold no map, and in training on a single
    image, whose image-level branch has one value per channel to normalise.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        reductions: tuple[int, ...],
        out_channels: int,
        rates: Sequence[int] = (12, 24, 36),
        hidden: int = 256,
        dropout: float = 0.5,
        align_corners: bool = False,
    ):
        if len(rates) != 3:
            raise ValueError(f"head.rates={list(rates)}: expected three dilations, such as [12,24,36].")
        width = coarsest("aspp", channels, reductions)
        super().__init__(
            context=Pyramid(width, hidden, tuple(rates), separable=False, dropout=dropout),
            context_channels=hidden,
            hidden=hidden,
            dropout=0.0,
            out_channels=out_channels,
            align_corners=align_corners,
        )

    def embed(self, features: tuple[Tensor, ...]) -> Tensor:
        with needs_two_images("aspp", self.training, features[-1]):
            return super().embed(features)


@contextmanager
def needs_two_images(head: str, training: bool, read: Tensor) -> Iterator[None]:
    """What batch normalisation raises for a single image of an image-level branch, as a sentence."""
    try:
        yield
    except ValueError as error:
        if not training or len(read) > 1:
            raise
        raise ValueError(
            f"head={head}: in training its image-level branch normalises one value per channel and image, so it "
            "needs two images or more. Type a larger batch_size, use fewer processes (or leave "
            "sync_batch_norm=true), or head=psp."
        ) from error
