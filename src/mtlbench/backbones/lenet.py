"""MGDA's LeNet for MultiMNIST (Sener & Koltun 2018, Figure 5)."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mtlbench.model import Backbone, Stage


class LeNet(Backbone):
    """Grey image [B, 1, 28, 28] to a vector [B, 50]: conv 1-10 (5 x 5), max-pool 2, ReLU, conv 10-20 (5 x 5),
    channel dropout, max-pool 2, ReLU, linear 320-50, ReLU.

    The paper's text does not mention dropout; the authors' code drops half of the channels after the second
    convolution. There one mask serves the whole batch and what is kept is not scaled up, so that in evaluation,
    without a mask, values are twice what the next layer was trained on: `as_in_code=True`. The default draws
    a mask for each image and scales by 1 / (1 - dropout) (Tompson et al. 2015, nn.Dropout2d).
    Raises ValueError for images of another size.
    """

    channels = (50,)
    reductions = (0,)

    def __init__(self, dropout: float = 0.5, as_in_code: bool = False):
        super().__init__()
        self.dropout, self.as_in_code = dropout, as_in_code
        self.conv1 = nn.Conv2d(1, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.fc = nn.Linear(320, 50)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.in_stages(image)

    def stages(self) -> dict[str, Stage]:
        """conv1 and conv2 with their pooling, and fc, a vector."""
        return {
            "conv1": Stage(10, (self.conv1,)),
            "conv2": Stage(20, (self.conv2,)),
            "fc": Stage(50, (self.fc,), read=True),
        }

    def stage(self, name: str, x: Tensor, memory: dict[str, Any]) -> tuple[None, Tensor]:
        if name == "fc":
            return None, F.relu(self.fc(x.flatten(1)))
        if name == "conv1":
            if x.shape[1:] != (1, 28, 28):
                found = " x ".join(map(str, x.shape[1:]))
                raise ValueError(
                    f"backbone=lenet reads grey images of 1 x 28 x 28, found {found}. Type backbone= with another "
                    f"network."
                )
            return None, F.relu(F.max_pool2d(self.conv1(x), 2))
        return None, F.relu(F.max_pool2d(self._drop_channels(self.conv2(x)), 2))

    def collect(self, maps: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        return (maps["fc"],)

    def _drop_channels(self, x: Tensor) -> Tensor:
        if not self.training or self.dropout == 0:
            return x
        if not self.as_in_code:
            return F.dropout2d(x, self.dropout)
        return x * F.dropout2d(x.new_ones(1, x.shape[1], 1, 1), self.dropout) * (1 - self.dropout)
