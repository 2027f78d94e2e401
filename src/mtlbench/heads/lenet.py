"""The head of MGDA's LeNet (Sener & Koltun 2018, Figure 5): two linear layers."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mtlbench.model import Head


class LeNetHead(Head):
    """Vector [B, channels] to [B, out_channels]: linear to `hidden`, ReLU, dropout, linear.

    The paper's text does not mention dropout; the authors' code drops half of the hidden values and does not
    scale up what is kept: `as_in_code=True`. The default scales by 1 / (1 - dropout).
    The log-softmax that ends the published head is in the loss. Raises ValueError if the backbone gives maps.
    """

    def __init__(
        self,
        channels: Sequence[int],
        reductions: Sequence[int],
        out_channels: int,
        hidden: int = 50,
        dropout: float = 0.5,
        as_in_code: bool = False,
    ):
        super().__init__()
        if tuple(reductions) != (0,):
            raise ValueError(
                f"head=lenet reads one vector, and this backbone gives maps at 1/{', 1/'.join(map(str, reductions))} "
                f"of the image's sides. Type backbone=lenet, or head= with a head for maps."
            )
        self.dropout, self.as_in_code = dropout, as_in_code
        self.fc1 = nn.Linear(channels[0], hidden)
        self.fc2 = nn.Linear(hidden, out_channels)

    def forward(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        x = F.dropout(F.relu(self.fc1(features[0])), self.dropout, self.training)
        if self.training and self.as_in_code:
            x = x * (1 - self.dropout)
        return self.fc2(x)
