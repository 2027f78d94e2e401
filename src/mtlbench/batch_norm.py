"""Batch normalisation with the statistics of the global batch, so that N processes normalise as one would."""

import functools
import sys
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from mtlbench.parallel import Ranks


def synchronise_batch_norm(model: nn.Module, ranks: Ranks) -> nn.Module:
    """Makes batch normalisation use the statistics of the global batch in training; returns the model.

    The modules are changed in place and keep their parameters and names. Covers nn.BatchNorm1d/2d/3d and timm's
    BatchNormAct2d; on GPUs they become nn.SyncBatchNorm. Left as they are: norms of single images, functional
    calls, and evaluation, which in a layer without running statistics goes by the rank's own batch.
    Raises ValueError for other kinds of batch normalisation.
    """
    if ranks.size == 1:
        return model
    layers = sys.modules.get("timm.layers")  # not imported here: it is slow, and without it no module is timm's
    for name, module in model.named_modules():
        kind = type(module)
        if not isinstance(module, _BatchNorm) or issubclass(kind, nn.SyncBatchNorm | _Synchronised):
            continue
        act = layers is not None and kind.forward is layers.BatchNormAct2d.forward
        if not act and kind.forward is not _BatchNorm.forward:
            raise ValueError(
                f"sync_batch_norm: {name or 'the model'} is a {kind.__name__}, whose own forward cannot be "
                f"synchronised. Type sync_batch_norm=false: each process then normalises by its own images."
            )
        if ranks.device.type == "cuda":
            module.process_group = None  # the default one
            module.__class__ = layers.SyncBatchNormAct if act else nn.SyncBatchNorm
        else:
            module.__class__ = _synchronised(kind, ranks)
    return model


@functools.cache
def _synchronised(kind: type[_BatchNorm], ranks: Ranks) -> type[_BatchNorm]:
    return type(f"Synchronised{kind.__name__}", (_Synchronised, kind), {"ranks": ranks})


class _Synchronised(_BatchNorm):
    """What nn.SyncBatchNorm does, for the CPU, where it refuses to. Mixed in before a module's own class."""

    ranks: ClassVar[Ranks]

    @torch.compiler.disable
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        y, mean, variance = _Normalise.apply(x, self.weight, self.bias, self.eps, self.ranks)
        if self.track_running_stats:
            self.num_batches_tracked.add_(1)
            momentum = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean), momentum)
            self.running_var.lerp_(variance.to(self.running_var), momentum)
        return self.act(self.drop(y)) if hasattr(self, "act") else y  # timm's BatchNormAct2d has both


class _Normalise(torch.autograd.Function):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias with the statistics [C] of all ranks' x [B, C, ...].

    Also returns the mean and the unbiased variance. The ranks may hold different numbers of images. The squared
    deviations are summed after the mean is known: the mean of squares minus the squared mean would cancel.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, ranks: Ranks
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = x if x.dtype == torch.float64 else x.float()
        dims, shape = _around(x)
        totals = ranks.sum(torch.cat([wide.sum(dims), wide.new_tensor([x.numel() // x.shape[1]])]))
        count = totals[-1].item()
        if count <= 1:
            raise ValueError(
                f"Batch normalisation in training needs more than one value per channel; all processes together "
                f"have {count:.0f}. Type a larger batch_size."
            )
        mean = totals[:-1] / count
        centred = wide - mean.view(shape)
        squares = ranks.sum(centred.square().sum(dims))
        inverse = (squares / count + eps).rsqrt()
        y = centred * (inverse if weight is None else inverse * weight).view(shape)
        if bias is not None:
            y = y + bias.view(shape)
        variance = squares / (count - 1)
        ctx.save_for_backward(x, weight, bias, mean, inverse)
        ctx.count, ctx.ranks = count, ranks
        ctx.mark_non_differentiable(mean, variance)
        return y.to(x.dtype), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """With n = (x - mean) / sqrt(variance + eps) and m(.) the mean over all ranks' values:

        dx = (dy - m(dy) - n m(n dy)) weight / sqrt(variance + eps). Weight and bias get this rank's share, as
        every parameter does.
        """
        x, weight, bias, mean, inverse = ctx.saved_tensors
        dims, shape = _around(x)
        dy = dy.to(mean.dtype)
        normalised = (x - mean.view(shape)) * inverse.view(shape)
        own = torch.stack([dy.sum(dims), (dy * normalised).sum(dims)])
        of_bias, of_weight = (ctx.ranks.sum(own.clone()) / ctx.count).view(2, *shape)
        dx = dy - of_bias - normalised * of_weight
        dx = dx * (inverse if weight is None else inverse * weight).view(shape)
        d_weight = None if weight is None else own[1].to(weight.dtype)
        d_bias = None if bias is None else own[0].to(bias.dtype)
        return dx.to(x.dtype), d_weight, d_bias, None, None


def _around(x: Tensor) -> tuple[list[int], list[int]]:
    """The dimensions but the channels' one, and the shape in which a [C] meets x."""
    return [d for d in range(x.dim()) if d != 1], [1, -1] + [1] * (x.dim() - 2)
