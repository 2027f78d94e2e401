"""The fully convolutional decoder of Taskonomy, as the survey sized it."""

from collections.abc import Sequence

from torch import Tensor, nn

from mtlbench.heads.coarsest import coarsest
from mtlbench.model import MapHead

LEAST = 16
"""Channels below which enlarging does not go."""


class TaskonomyDecoder(MapHead):
    """Zamir et al. 2018, Section 3 and Vandenhende et al. 2021, Section 4.2.3: "a 15-layer fully-convolutional head".

    3x3 convolutions of `widths` channels on the coarsest map, then for each halving of the image a transposed 3x3
    convolution of stride 2, to half the channels but 16 at least, and a 3x3 convolution; the last one gives
    `out_channels` at the image's size. Batch normalisation and ReLU after each but the last. Seven widths make 15
    layers of a map at 1/16, that of Taskonomy's encoder.
    The papers leave the channels unsaid: these are ours. With ResNet-50 they come to the parameters that the survey's
    Table 5 prints (four such heads and a linear one: 130 M, five networks: 224 M).
    channels, reductions: the backbone's. Raises ValueError where they hold no map, or one whose reduction is no power
    of two.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        reductions: tuple[int, ...],
        out_channels: int,
        widths: Sequence[int] = (1024, 512, 256, 256, 256, 128, 128),
    ):
        super().__init__()
        width = coarsest("taskonomy", channels, reductions)
        if not widths or min(widths) < 1:
            raise ValueError(f"head.widths={list(widths)}: expected the channels of one or more convolutions.")
        halvings = reductions[-1].bit_length() - 1
        if halvings == 0 or reductions[-1] != 2**halvings:
            raise ValueError(
                f"head=taskonomy: it doubles the map to the image's size, and this backbone's is at 1/{reductions[-1]} "
                f"of it. Type a backbone whose stride is 2, 4, 8, 16 or 32."
            )
        layers: list[nn.Module] = []
        for after in widths:
            layers += [nn.Conv2d(width, after, 3, padding=1, bias=False), *_norm(after)]
            width = after
        for i in range(halvings):
            after = max(width // 2, LEAST)
            layers += [_doubling(width, after), *_norm(after)]
            if i < halvings - 1:
                layers += [nn.Conv2d(after, after, 3, padding=1, bias=False), *_norm(after)]
            width = after
        self.project = nn.Sequential(*layers)
        self.predict = nn.Conv2d(width, out_channels, 3, padding=1)

    def embed(self, features: tuple[Tensor, ...]) -> Tensor:
        return self.project(features[-1])

    def resize(self, prediction: Tensor, size: tuple[int, int]) -> Tensor:
        """What is beyond the image, where its sides are no multiples of the reduction, is cut off."""
        return super().resize(prediction[..., : size[0], : size[1]], size)


def _doubling(before: int, after: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1, bias=False)


def _norm(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
