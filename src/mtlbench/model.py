"""A multi-task network: image -> shared representation -> {task: prediction}."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn


class Stage(NamedTuple):
    """A stretch of a backbone, from one map to the next.

    channels: of the map that it gives. modules: what it runs.
    inner: channels of a map inside it, of the same height and width, from which MTAN makes its masks: what a ResNet's
        last block reads; 0 where there is none.
    upward: whether it begins by enlarging the map.
    read: whether `collect` reads the map.
    """

    channels: int
    modules: tuple[nn.Module, ...]
    inner: int = 0
    upward: bool = False
    read: bool = False


class Backbone(nn.Module, ABC):
    """Image [B, C, H, W] to feature tensors, coarse last.

    channels: of each tensor. reductions: the input's sides over each tensor's; 0 for a vector [B, C].

    For architectures that look inside, a backbone has `stages`, and `forward` is `stage` for each of them, then
    `collect`: see `in_stages`.
    """

    channels: tuple[int, ...]
    reductions: tuple[int, ...]

    @abstractmethod
    def forward(self, image: Tensor) -> tuple[Tensor, ...]: ...

    def stages(self) -> dict[str, Stage]:
        """Its stages by name, in order. Raises ValueError for a backbone that has none."""
        raise ValueError(
            f"backbone: {type(self).__name__} has no stages to look into. Type architecture=multi_decoder or "
            f"architecture=full_sharing, which do not, or a backbone that has, such as backbone=resnet18."
        )

    def stage(self, name: str, x: Tensor, memory: dict[str, Any]) -> tuple[Tensor | None, Tensor]:
        """The inner map (None without one) and the map of a stage, from the map of the stage before (or the image).

        memory: of one pass, empty at first: what a later stage needs besides (the places of a pooling's maxima).
        """
        raise NotImplementedError(f"{type(self).__name__} has stages, but no stage()")

    def collect(self, maps: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The tensors of `forward` from the stages' maps by name."""
        raise NotImplementedError(f"{type(self).__name__} has stages, but no collect()")

    def in_stages(self, image: Tensor) -> tuple[Tensor, ...]:
        """`forward`, stage by stage."""
        x, memory, maps = image, {}, {}
        for name in self.stages():
            _, x = self.stage(name, x, memory)
            maps[name] = x
        return self.collect(maps)


BackboneMaker = Callable[[], Backbone]


def made(backbone: Backbone | BackboneMaker) -> Backbone:
    """A backbone, where an architecture is given one or what makes it."""
    return backbone if isinstance(backbone, nn.Module) else backbone()


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
    representation: which tensors these are, in words.
    backbone: where there is one for all tasks. columns: how many backbones there are.
    """

    shared_representation: bool = True
    representation: ClassVar[str] = "what encode() gives"
    columns: int = 1
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
        return last_layer(list(self.modules()), shared)

    def faster(self) -> list[tuple[list[nn.Parameter], float]]:
        """Parameters that train at a multiple of the run's learning rate, and the multiple."""
        return []

    def compile_trunk(self) -> None:
        """Compiles what takes the most time."""
        self.backbone.compile()

    def forward(self, image: Tensor, tasks: Iterable[str] | None = None) -> dict[str, Tensor]:
        features = self.encode(image)
        names: Sequence[str] = self.tasks if tasks is None else tuple(tasks)
        predictions = self.decode_each(names, [features] * len(names), tuple(image.shape[-2:]))
        return dict(zip(names, predictions, strict=True))


def last_layer(modules: Sequence[nn.Module], of: Collection[int] | None = None) -> list[nn.Parameter]:
    """The parameters that train of the last module that holds a matrix or a convolution itself; [] without one.

    of: the ids of those that count; None: all.
    """
    for module in reversed(modules):
        own = [p for p in module.parameters(recurse=False) if p.requires_grad and (of is None or id(p) in of)]
        if any(p.ndim >= 2 for p in own):
            return own
    return []


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
