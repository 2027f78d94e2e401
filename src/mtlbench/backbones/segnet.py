"""SegNet: an encoder-decoder whose decoder puts values back where max-pooling took them from."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtlbench.backbones.timm import Timm, check_size
from mtlbench.model import Backbone, Stage

DEPTHS = (2, 2, 3, 3, 3)
"""3x3 convolutions of each stage of VGG-16."""

WIDTHS = (64, 128, 256, 512, 512)


class SegNet(Backbone):
    """One map at the image's size: VGG-16's thirteen convolutions in five stages, and their mirror image.

    Each is 3x3, with batch normalisation and ReLU. A stage of the encoder ends with 2x2 max-pooling, whose places
    the decoder's stage of the same size begins with: every value returns to where it was the largest, the rest is 0.

    variant: segnet (Badrinarayanan et al. 2017): the last convolution of a decoder's stage narrows to the next
            stage's channels, and the very last one is the head's; He's initial weights. 29.45 M
            parameters with the head.
        mtan (the code of Liu et al. 2019, whose paper leaves it unsaid; CAGrad's and others' descend from it): the
            first convolution of a stage narrows, the last stage has both; Xavier's initial weights. 24.98 M with a head
            of 13 channels.
    widths: channels of the five stages.
    weights: of the encoder: null (random), "imagenet" or a tag of timm's vgg16_bn, or a local file with the weights
        of torchvision's or timm's vgg16_bn.
    Raises ValueError for another variant, for what `Timm` raises it with the weights, and for images below 32 a side.
    """

    reductions = (1,)

    def __init__(self, variant: str = "segnet", widths: Sequence[int] = WIDTHS, weights: str | None = None):
        super().__init__()
        if variant not in ("segnet", "mtan"):
            raise ValueError(f"backbone.variant={variant}: expected segnet or mtan.")
        if len(widths) != len(DEPTHS):
            raise ValueError(f"backbone.widths={list(widths)}: expected the channels of five stages.")
        if weights is not None and tuple(widths) != WIDTHS:
            raise ValueError(f"backbone.weights={weights}: VGG-16's weights need backbone.widths={list(WIDTHS)}.")
        self.channels = (widths[0],)
        before = (3, *widths)
        self.encoder = nn.ModuleList(
            nn.Sequential(_stage([before[i], widths[i]]), _stage([widths[i]] * depth)) for i, depth in enumerate(DEPTHS)
        )  # fine to coarse, each the first convolution and the others
        self.decoder = nn.ModuleList(
            _stage(_decoded(variant, i, widths)) for i in reversed(range(len(DEPTHS)))
        )  # coarse to fine
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if variant == "mtan":
                    nn.init.xavier_normal_(module.weight)
                else:
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        if weights is not None:
            self._load(weights)

    def _load(self, weights: str) -> None:
        """VGG-16's convolutions and normalisations in their order; random numbers go on as without."""
        with torch.random.fork_rng(devices=[]):
            source = Timm("vgg16_bn", out_indices=[5], weights=weights)
        kinds = (nn.Conv2d, nn.BatchNorm2d)
        own, given = ([m for m in net.modules() if isinstance(m, kinds)] for net in (self.encoder, source))
        for module, trained in zip(own, given, strict=True):
            module.load_state_dict(trained.state_dict())

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.in_stages(image)

    def stages(self) -> dict[str, Stage]:
        """encoder1 (the image's size) to encoder5, decoder5 to decoder1; the maps are those before pooling."""
        down = [Stage(_width(others), (first, others), _width(first)) for first, others in self.encoder]
        up = [Stage(_width(block), tuple(block), block[0].in_channels, upward=True) for block in self.decoder]
        up[-1] = up[-1]._replace(read=True)
        count = len(DEPTHS)
        found = {f"encoder{k}": stage for k, stage in enumerate(down, 1)}
        return found | {f"decoder{k}": stage for k, stage in zip(range(count, 0, -1), up, strict=True)}

    def stage(self, name: str, x: Tensor, memory: dict[str, Any]) -> tuple[Tensor | None, Tensor]:
        """Inner maps: the first convolution's of an encoder's stage, the unpooled one of a decoder's."""
        kind, number = name[:-1], int(name[-1])
        places = memory.setdefault("places", [])
        if kind == "encoder":
            if number == 1:
                check_size("SegNet", x, 2 ** len(DEPTHS))
            else:
                x = _pool(x, places)
            first, others = self.encoder[number - 1]
            inner = first(x)
            return inner, others(inner)
        if number == len(DEPTHS):
            x = _pool(x, places)
        indices, size = places.pop()
        inner = F.max_unpool2d(x, indices, 2, output_size=size)
        return inner, self.decoder[len(DEPTHS) - number](inner)

    def collect(self, maps: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return (maps["decoder1"],)


def _pool(x: Tensor, places: list[tuple[Tensor, torch.Size]]) -> Tensor:
    """2x2 max-pooling, which notes where the maxima were and the size, odd sides too."""
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    places.append((indices, x.shape[-2:]))
    return pooled


def _width(layers: nn.Sequential) -> int:
    return layers[-2].num_features


def _decoded(variant: str, i: int, widths: Sequence[int]) -> list[int]:
    """Channels through the decoder's stage of the i-th size."""
    narrow = widths[max(i - 1, 0)]
    if variant == "mtan":
        return [widths[i]] + [narrow] * DEPTHS[i]
    if i == 0:
        return [widths[0]] * DEPTHS[0]  # one convolution less: it is the head's
    return [widths[i]] * DEPTHS[i] + [narrow]


def _stage(channels: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
