"""DeepLabV3+: the pyramid of ASPP, refined with a finer map."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
from torch import Tensor, nn

from mtlbench.heads.aspp import needs_two_images
from mtlbench.model import MapHead


class DeepLabV3Plus(MapHead):
    """Chen et al. 2018, Section 3.1: ASPP on the coarsest map, enlarged to the finest, beside 48 channels of that one.

    ASPP, a 3x3 convolution (smp's addition to it), bilinear enlarging, concatenation with the finest map's 1x1
    convolution, 3x3 convolution to `hidden` channels, 1x1 convolution to `out_channels`, bilinear upsampling. The
    modules are segmentation-models-pytorch's, with batch normalisation and ReLU after each but the last.
    rates: of the dilation, in steps of the coarsest map; the paper has (6, 12, 18) for stride 16, twice that for 8.
    separable: depthwise separable convolutions in ASPP too, as in the paper's Xception.
    align_corners: of both enlargings; true in smp and in the authors' code.
    channels, reductions: the backbone's. Raises ValueError where they hold no two scales, and in training on a single
    image, whose image-level branch has one value per channel to normalise.
    """

    def __init__(
        self,
        channels: Sequence[int],
        reductions: Sequence[int],
        out_channels: int,
        rates: Sequence[int] = (6, 12, 18),
        hidden: int = 256,
        dropout: float = 0.5,
        separable: bool = True,
        align_corners: bool = True,
    ):
        super().__init__()
        if len(rates) != 3:
            raise ValueError(f"head.rates={list(rates)}: expected three dilations, such as [6,12,18].")
        if len(channels) < 2 or len(channels) != len(reductions) or not 0 < reductions[0] < reductions[-1]:
            raise ValueError(
                f"head=deeplabv3plus: it reads a fine and a coarse map, and this backbone gives channels "
                f"{list(channels)} at reductions {list(reductions)}. Type backbone=deeplabv3plus, name two of the "
                f"backbone's scales (backbone.out_indices=[1,4], where it has them), or head=aspp."
            )
        self.align_corners = align_corners
        self.decoder = DeepLabV3PlusDecoder(
            encoder_channels=(0, 0, channels[0], channels[-1]),
            encoder_depth=4,
            out_channels=hidden,
            atrous_rates=tuple(rates),
            output_stride=16,
            aspp_separable=separable,
            aspp_dropout=dropout,
        )
        self.predict = nn.Conv2d(hidden, out_channels, 1)

    def embed(self, features: tuple[Tensor, ...]) -> Tensor:
        with needs_two_images("deeplabv3plus", self.training, features[-1]):
            context = self.decoder.aspp(features[-1])
        # to the finest map's own size: smp's fixed factor of 4 fails on sides that 16 does not divide
        context = F.interpolate(context, features[0].shape[-2:], mode="bilinear", align_corners=self.align_corners)
        return self.decoder.block2(torch.cat([context, self.decoder.block1(features[0])], dim=1))
