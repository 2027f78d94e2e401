"""Linear heads: one product of matrices for all tasks together."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtlbench.model import Head


class LinearHead(Head):
    """Vector [B, channels], or the mean over the coarsest map, to [B, out_channels] (Sener & Koltun 2018, Section 5.2).

    Many of them are one batched product: see `together`. Raises ValueError where the backbone gives several vectors.
    """

    def __init__(self, channels: Sequence[int], reductions: Sequence[int], out_channels: int):
        super().__init__()
        if not channels or (reductions[-1] == 0 and len(channels) > 1):
            raise ValueError(
                f"head=linear reads one vector or the coarsest map; this backbone gives channels {list(channels)} at "
                f"reductions {list(reductions)}. Type a backbone of one vector or of maps."
            )
        self.linear = nn.Linear(channels[-1], out_channels)

    def forward(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        return self.linear(_vector(features))

    @staticmethod
    def together(
        heads: Sequence["LinearHead"], features: Sequence[tuple[Tensor, ...]], size: tuple[int, int]
    ) -> list[Tensor]:
        """What each head gives for its own features: one batched product for all heads of the same size.

        Where all read the same tensor (plain summation) it is one product of matrices.
        """
        predictions: list[Tensor | None] = [None] * len(heads)
        sizes: dict[int, list[int]] = {}
        for i, head in enumerate(heads):
            sizes.setdefault(head.linear.out_features, []).append(i)
        for at in sizes.values():
            weight = torch.stack([heads[i].linear.weight for i in at])
            bias = torch.stack([heads[i].linear.bias for i in at])
            if all(features[i][-1] is features[at[0]][-1] for i in at):
                flat = nn.functional.linear(_vector(features[at[0]]), weight.flatten(0, 1), bias.flatten())
                found = flat.unflatten(1, bias.shape).unbind(1)
            else:
                vectors = torch.stack([_vector(features[i]) for i in at])
                found = torch.baddbmm(bias[:, None], vectors, weight.mT).unbind(0)
            for i, prediction in zip(at, found, strict=True):
                predictions[i] = prediction
        return predictions


def _vector(features: tuple[Tensor, ...]) -> Tensor:
    last = features[-1]
    return last if last.ndim == 2 else last.mean((2, 3))
