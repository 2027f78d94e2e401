"""ResNet-18 for small images: MGDA's on CelebA."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18

from mtlbench.backbones.timm import check_size
from mtlbench.model import Backbone

STRIDE = 8


class ResNet18Cifar(Backbone):
    """ResNet-18 (He et al. 2016) with the stem of its CIFAR networks: 3x3 of stride 1, no pooling; a vector.

    The appendix of Sener & Koltun 2018 has ResNet-18 without its last layer and 2048 numbers a face. Their code comes
    to 2048 by averaging the last map, of 512 channels and 8 x 8 places at 64 x 64 pixels, in 2 x 2 parts, and leaves
    torch's initial weights. There are no ImageNet weights of this stem.
    parts: of the last map, a side; the vector has 512 parts^2 numbers. 1: the mean of the map.
    Raises ValueError for images below 8 a side.
    """

    reductions = (0,)

    def __init__(self, parts: int = 2):
        super().__init__()
        if parts < 1:
            raise ValueError(f"backbone.parts={parts}: expected 1 or more.")
        self.parts, self.channels = parts, (512 * parts**2,)
        whole = resnet18(weights=None)
        stem = {"conv1": nn.Conv2d(3, 64, 3, padding=1, bias=False), "bn1": whole.bn1, "relu": whole.relu}
        stages = {name: getattr(whole, name) for name in ("layer1", "layer2", "layer3", "layer4")}
        self.network = nn.Sequential(OrderedDict(stem | stages))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        check_size("resnet18_cifar", image, STRIDE)
        return (F.adaptive_avg_pool2d(self.network(image), self.parts).flatten(1),)
