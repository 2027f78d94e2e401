"""What architectures have in common in being made: heads, and initial weights that hang on the seed and names alone."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from mtlbench.model import Backbone, Head, HeadMaker, maker_of
from mtlbench.seeds import seed_of
from mtlbench.task import Task


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Random numbers of the CPU start from a seed; afterwards torch's state is what it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def head_for(backbone: Backbone, head: HeadMaker | Mapping[str, HeadMaker], task: str, out_channels: int) -> Head:
    """The head of a task; its initial weights are a function of torch's seed and the task's name."""
    with drawing_from(seed_of(torch.initial_seed(), "head", task)):
        make = maker_of(head, task)
        return make(channels=backbone.channels, reductions=backbone.reductions, out_channels=out_channels)


def add_heads(
    model: nn.Module, backbone: Backbone, head: HeadMaker | Mapping[str, HeadMaker], tasks: Mapping[str, Task]
) -> None:
    """Adds a submodule "head_<task>" for each task."""
    for name, task in tasks.items():
        model.add_module(f"head_{name}", head_for(backbone, head, name, task.channels))


def together(
    heads: list[Head], features: list[tuple[torch.Tensor, ...]], size: tuple[int, int]
) -> list[torch.Tensor] | None:
    """What each head makes of its own features, where their class has a cheaper way than one after the other."""
    if len({type(head) for head in heads}) == 1 and hasattr(heads[0], "together"):
        return heads[0].together(heads, features, size)
    return None
