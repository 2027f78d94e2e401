"""A multi-task network: image -> shared representation -> {task: prediction}."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """Image [B, C, H, W] to feature tensors, coarse last.

    channels: of each tensor. reductions: the input's sides over each tensor's; 0 for a vector [B, C].
    """

    channels: tuple[int, ...]
    reductions: tuple[int, ...]

    @abstractmethod
    def forward(self, image: Tensor) -> tuple[Tensor, ...]: ...


class Head(nn.Module, ABC):
    """The part of one task. Constructed with `channels`, `reductions` (the backbone's) and `out_channels`.

    A class whose heads are cheaper together has a static method `together(heads, features of each, size)` that gives
    what each `forward` would.
    """

    @abstractmethod
    def forward(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        """Prediction [B, out_channels, *size] of a map, [B, out_channels] of a vector."""


class MapHead(Head):
    """A head of a map in three parts, of which an architecture may share the first: `embed`, `predict`, `resize`.

    predict: the last layer, a 1x1 convolution from what `embed` gives to [B, out_channels, h, w]; the only part that
        depends on out_channels. Shared decoding is `first.resize(own.predict(first.embed(features)), size)`.
    align_corners: of the bilinear upsampling to the input's size.
    """

    predict: nn.Conv2d
    align_corners: bool = False

    @abstractmethod
    def embed(self, features: tuple[Tensor, ...]) -> Tensor:
        """What `predict` reads, [B, predict.in_channels, h, w]."""

    def resize(self, prediction: Tensor, size: tuple[int, int]) -> Tensor:
        if prediction.shape[-2:] == tuple(size):
            return prediction
        return F.interpolate(prediction, size, mode="bilinear", align_corners=self.align_corners)

    def forward(self, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        return self.resize(self.predict(self.embed(features)), size)


HeadMaker = Callable[..., Head]
"""Called with channels=, reductions= and out_channels=."""


def maker_of(head: HeadMaker | Mapping[str, HeadMaker], task: str) -> HeadMaker:
    """What makes this task's head, where an architecture is given one maker for all tasks or one for each."""
    return head[task] if isinstance(head, Mapping) else head


class MultiTaskModel(nn.Module, ABC):
    """What every architecture gives to the step.

    shared_representation: whether the tensors of `encode` are all that the heads read; without it
        `method.level=feature` is refused.
    """

    shared_representation: ClassVar[bool] = True
    tasks: tuple[str, ...]

    @abstractmethod
    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """The shared representation z: one or several tensors."""

    @abstractmethod
    def decode(self, task: str, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        """The prediction of one task from z, at `size` (H, W) of the input."""

    def decode_each(
        self, tasks: Sequence[str], features: Sequence[tuple[Tensor, ...]], size: tuple[int, int]
    ) -> list[Tensor]:
        """The predictions of several tasks, each from its own copy of z; together where that is cheaper."""
        return [self.decode(task, z, size) for task, z in zip(tasks, features, strict=True)]

    @abstractmethod
    def task_parameters(self, task: str) -> list[nn.Parameter]:
        """The parameters that this task alone reaches; all others are shared."""

    def shared_parameters(self) -> list[nn.Parameter]:
        """The parameters that training changes and that belong to no single task."""
        own = {id(p) for task in self.tasks for p in self.task_parameters(task)}
        return [p for p in self.parameters() if id(p) not in own and p.requires_grad]

    def last_shared_layer(self) -> list[nn.Parameter]:
        """GradNorm's W: the shared parameters of the last module in the network's order that holds a matrix or a
        convolution; a network that uses its modules in another order says so by overriding this."""
        shared = {id(p) for p in self.shared_parameters()}
        for module in reversed(list(self.modules())):
            parameters = [p for p in module.parameters(recurse=False) if id(p) in shared]
            if any(p.ndim >= 2 for p in parameters):
                return parameters
        return []

    def forward(self, image: Tensor, tasks: Iterable[str] | None = None) -> dict[str, Tensor]:
        features = self.encode(image)
        names: Sequence[str] = self.tasks if tasks is None else tuple(tasks)
        predictions = self.decode_each(names, [features] * len(names), tuple(image.shape[-2:]))
        return dict(zip(names, predictions, strict=True))


class TrunkAndHeads(MultiTaskModel):
    """A network of one's own: `trunk` gives z (a tensor or a tuple of them), `heads` read it, one for each task."""

    def __init__(self, trunk: nn.Module, heads: Mapping[str, nn.Module]):
        super().__init__()
        self.trunk, self.heads = trunk, nn.ModuleDict(heads)
        self.tasks = tuple(heads)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        z = self.trunk(image)
        return z if isinstance(z, tuple) else (z,)

    def decode(self, task: str, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        return self.heads[task](*features)

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        return list(self.heads[task].parameters())
