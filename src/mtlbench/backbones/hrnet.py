"""High-resolution networks: four branches side by side, at 1/4 to 1/32."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from mtlbench.backbones.timm import Timm, check_size

STRIDE = 32
"""Of the coarsest branch, whichever branches are read."""


class HRNet(Timm):
    """The branches of timm's HRNet (Sun et al. 2019), without the classifier that widens them to 128 to 1024 channels.

    name: hrnet_w18_small_v2, hrnet_w18, hrnet_w32, ...
    out_indices: of the maps; 0 is the stem at 1/2, 1 to 4 the branches at 1/4 to 1/32.
    weights: as of `Timm`.
    fuse: how a coarser branch is enlarged before it is added to a finer one. nearest: timm and the ImageNet weights;
        bilinear: the code of the survey (Vandenhende et al. 2021) with the same weights.
    The network itself takes sides that 32 divides. Others are filled up with zeros, which are the mean colour of
    normalised images, at the right and the bottom, and the maps are cut to ceil(side / reduction).
    """

    features: ClassVar[dict[str, Any]] = {"feature_location": ""}

    def __init__(
        self,
        name: str,
        out_indices: Sequence[int] = (1, 2, 3, 4),
        weights: str | None = None,
        fuse: str = "nearest",
    ):
        if not name.startswith("hrnet"):
            raise ValueError(f"backbone.name={name}: expected an HRNet. Type backbone=timm backbone.name={name}.")
        if fuse not in ("nearest", "bilinear"):
            raise ValueError(f"backbone.fuse={fuse}: expected nearest or bilinear.")
        super().__init__(name, None, out_indices, weights)
        if fuse == "bilinear":
            for module in self.network.modules():
                if isinstance(module, nn.Upsample):
                    module.mode, module.align_corners = "bilinear", False

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        check_size(self.name, image, STRIDE)
        height, width = image.shape[-2:]
        maps = super().forward(F.pad(image, (0, -width % STRIDE, 0, -height % STRIDE)))
        sides = [(-(-height // r), -(-width // r)) for r in self.reductions]
        return tuple(x[..., :h, :w] for x, (h, w) in zip(maps, sides, strict=True))
