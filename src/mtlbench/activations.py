"""Activations that are computed again in the backward pass instead of kept: less memory for one more forward."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from mtlbench.model import Backbone

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def checkpoint_activations(model: nn.Module) -> list[nn.Module]:
    """Keeps of the model's backbones, in training, only what goes into their blocks; returns these blocks.

    A block is a module of several layers (a residual block) or a sequence of single ones (a stage of SegNet). The
    numbers are the same: dropout repeats its draw, and batch statistics move in the first pass only. With several
    backward passes each one computes the blocks again. Raises ValueError for a model whose backbones have no blocks.
    """
    blocks = [block for module in model.modules() if isinstance(module, Backbone) for block in _blocks(module)]
    if not blocks:
        raise ValueError(
            "machine.checkpoint_activations=true: this backbone has no blocks that could be computed again alone. Type "
            "machine.checkpoint_activations=false, or micro_batches for less memory."
        )
    for block in blocks:
        block.forward = _again(block, block.forward)
    return blocks


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    if type(module).__name__ == "FeatureHookNet":  # its hooks would note the second pass as the next one's maps
        return
    for child in module.children():
        layers = [m for m in child.children() if any(True for _ in m.parameters())]
        if isinstance(child, nn.Sequential) and layers and not any(list(m.children()) for m in layers):
            yield child
        elif isinstance(child, CONTAINERS) or isinstance(module, Backbone):
            yield from _blocks(child)
        elif len(layers) > 1:
            yield child


def _again(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _Still(block)

    def run(*inputs: Any) -> Any:
        # HRNet's blocks write into the list that they are given: each pass gets its own
        return forward(*(list(x) if isinstance(x, list) else x for x in inputs))

    def forward_or_again(*inputs: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return run(*inputs)
        return checkpoint(run, *inputs, use_reentrant=False, context_fn=contexts)

    return forward_or_again


class _Still:
    """Batch normalisation goes by the batch, and its running statistics stay. Entered once for each backward pass."""

    def __init__(self, block: nn.Module):
        self.norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]

    def __enter__(self) -> None:
        self.before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0  # they are moved by nothing: the second pass must save the same tensors as the first

    def __exit__(self, *_: object) -> None:
        for norm, (momentum, count) in zip(self.norms, self.before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)
