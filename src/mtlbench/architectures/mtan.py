"""Multi-task attention networks (MTAN: Liu et al. 2019)."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtlbench.architectures.columns import checked
from mtlbench.architectures.making import add_heads, drawing_from
from mtlbench.model import Backbone, BackboneMaker, HeadMaker, MultiTaskModel, Stage, last_layer, made
from mtlbench.seeds import seed_of
from mtlbench.task import Task


class MTAN(MultiTaskModel):
    """One backbone for all tasks, and for each task a chain of masks on its stages (Liu et al. 2019, Section 3.2).

    a_s = sigmoid(h(g([p_s; r_{s-1}]))) * u_s: p_s is the map inside a stage, u_s the stage's map, r_{s-1} = f(a_{s-1})
    the refined map of the stage before, brought to the size of p_s; g and h are 1x1 convolutions with batch
    normalisation, f another one. On the way down f is followed by max-pooling; on the way up (SegNet's decoder) it
    follows a bilinear enlargement. p_s is what the last block of a ResNet's stage reads, what the second convolution of
    a stage of SegNet's encoder reads, and the unpooled map in its decoder. The heads read the masked maps.

    The representation is all p_s and u_s, as long as each task has refinements of its own; shared are the backbone's
    parameters. Where refinements are shared, they lie behind these tensors and there is no one representation.

    narrow: g has C / narrow channels. 1: the paper, its SegNet code. 4: both codes for ResNets (the authors' and the
        survey's, Vandenhende et al. 2021).
    refinement: f is a 3x3 convolution, batch normalisation, ReLU (conv: the paper, its SegNet code), or a bottleneck
        block (both codes for ResNets).
    shared_refinement: one f for all tasks: the paper ("a shared feature extractor") and all codes.
    refine_last: f behind the last stage of a backbone without a way up, with as many channels.
    The defaults (1, conv, one for each task, refined last) are what the survey's printed numbers say: its Tables 3 to 5
    have 79 M parameters a task more than multi_decoder, and the FLOPs of these layers. Its code has
    narrow=4 refinement=bottleneck shared_refinement=true refine_last=false: 16 M more for two tasks.
    stages: those that are masked; null: all with an inner map (layer1 to layer4 of a ResNet).
    Raises ValueError for a backbone without stages, and for stages that are not there or have no inner map.
    """

    representation: ClassVar[str] = "of each stage the map inside it and its last"

    def __init__(
        self,
        backbone: Backbone | BackboneMaker,
        head: HeadMaker | Mapping[str, HeadMaker],
        tasks: Mapping[str, Task],
        stages: Sequence[str] | None = None,
        narrow: int = 1,
        refinement: str = "conv",
        shared_refinement: bool = False,
        refine_last: bool = True,
    ):
        super().__init__()
        if refinement not in ("conv", "bottleneck"):
            raise ValueError(f"architecture.refinement={refinement}: expected conv or bottleneck.")
        if narrow < 1:
            raise ValueError(f"architecture.narrow={narrow}: expected 1 or more.")
        self.tasks, self.shared_representation = tuple(tasks), not shared_refinement
        self.backbone = made(backbone)
        cut = self.backbone.stages()
        self.masked = _with_inner_maps(stages, cut, type(self.backbone).__name__)
        self.read = {name: stage.read for name, stage in cut.items()}
        self.upward = {name: cut[name].upward for name in self.masked}
        self.refine_last = refine_last and not self.upward[self.masked[-1]]
        kind = _Convolution if refinement == "conv" else _bottleneck
        refined = 0
        for name, after in pairwise((*self.masked, None)):
            stage, following = cut[name], cut.get(after)
            if stage.upward and refined:
                self._add("enter", name, kind, refined, stage.channels, shared_refinement)
                refined = stage.channels
            self._add("mask", name, _Mask, stage.inner + refined, stage.channels, False, narrow)
            refined = stage.channels
            if not stage.upward and (following is not None or self.refine_last):
                refined = following.channels if following and not following.upward else stage.channels
                self._add("leave", name, kind, stage.channels, refined, shared_refinement)
        add_heads(self, self.backbone, head, tasks)

    def _add(self, what: str, stage: str, kind, channels: int, out_channels: int, shared: bool, *more: int) -> None:
        for task in [""] if shared else self.tasks:
            with drawing_from(seed_of(torch.initial_seed(), what, stage, task)):
                self.add_module(f"{what}_{stage}_{task}", kind(channels, out_channels, *more))

    def part(self, what: str, stage: str, task: str) -> nn.Module | None:
        """A task's mask, or what refines its map on entering or leaving a stage; None where nothing does."""
        own, common = (self._modules.get(f"{what}_{stage}_{name}") for name in (task, ""))
        return common if own is None else own

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        x, memory, found = image, {}, []
        for name, read in self.read.items():
            inner, x = self.backbone.stage(name, x, memory)
            found += [inner, x] if name in self.masked else [x] if read else []
        return tuple(found)

    def decode(self, task: str, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        rest, maps, refined = iter(features), {}, None
        for name, read in self.read.items():
            if name not in self.masked:
                maps |= {name: next(rest)} if read else {}
                continue
            inner, whole = next(rest), next(rest)
            if refined is not None:
                refined = self._entered(task, name, refined, tuple(inner.shape[-2:]))
                inner = torch.cat([inner, refined], 1)
            maps[name] = refined = self.part("mask", name, task)(inner) * whole
            leave = self.part("leave", name, task)
            if leave is not None:
                refined = leave(refined)
        if self.refine_last:
            maps[self.masked[-1]] = refined
        return self.get_submodule(f"head_{task}")(self.backbone.collect(maps), size)

    def _entered(self, task: str, stage: str, x: Tensor, size: tuple[int, int]) -> Tensor:
        """The refined map of the stage before, at the size of this stage's inner map."""
        if not self.upward[stage]:
            return _shrunk(x, size)
        before = self.masked[self.masked.index(stage) - 1]
        if not self.upward[before]:
            x = F.max_pool2d(x, 2)  # SegNet's encoder ends with a pooling, its decoder begins with an unpooling
        return self.part("enter", stage, task)(F.interpolate(x, size, mode="bilinear", align_corners=True))

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        own = [f"{what}_{stage}_{task}" for stage in self.masked for what in ("enter", "mask", "leave")]
        modules = (self._modules.get(name) for name in (*own, f"head_{task}"))
        return [p for module in modules if module is not None for p in module.parameters()]

    def last_shared_layer(self) -> list[nn.Parameter]:
        """The backbone's, also where refinements are shared: they are not on every path."""
        parts = [part for stage in self.backbone.stages().values() for part in stage.modules]
        return last_layer([module for part in parts for module in part.modules()])

    def compile_trunk(self) -> None:
        self.encode = torch.compile(self.encode)


def _with_inner_maps(stages: Sequence[str] | None, cut: Mapping[str, Stage], backbone: str) -> tuple[str, ...]:
    """The stages to mask. Raises ValueError where they have no inner map."""
    able = [name for name, stage in cut.items() if stage.inner]
    chosen = checked(stages, cut, backbone) or tuple(able)
    unable = [name for name in chosen if name not in able]
    if unable or not able:
        what = f"architecture.stages: no {', '.join(unable)} of" if unable else "backbone: no stage of"
        raise ValueError(
            f"{what} {backbone} has a map inside from which MTAN makes a mask (what the last of several blocks reads). "
            f"{'Those that have: ' + ', '.join(able) if able else 'Type a ResNet, such as backbone=resnet50_dilated'}."
        )
    return chosen


def _shrunk(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Max-pooled by 2 to a size; of odd sides the last place is left out where the size says so."""
    for _ in range(round(math.log2(max(x.shape[-2] / size[0], x.shape[-1] / size[1])))):
        x = F.max_pool2d(x, 2, ceil_mode=True)
    return x[..., : size[0], : size[1]]


class _Mask(nn.Sequential):
    """Two 1x1 convolutions with batch normalisation to numbers in (0, 1)."""

    def __init__(self, channels: int, out_channels: int, narrow: int):
        hidden = max(out_channels // narrow, 1)
        super().__init__(
            nn.Conv2d(channels, hidden, 1),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, out_channels, 1),
            nn.BatchNorm2d(out_channels),
            nn.Sigmoid(),
        )


class _Convolution(nn.Sequential):
    def __init__(self, channels: int, out_channels: int):
        super().__init__(
            nn.Conv2d(channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
        )


def _bottleneck(channels: int, out_channels: int) -> nn.Module:
    """A ResNet's bottleneck block with a 1x1 convolution beside it."""
    from torchvision.models.resnet import Bottleneck  # slow to import, and only this option needs it

    beside = nn.Sequential(nn.Conv2d(channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
    return Bottleneck(channels, out_channels // 4, downsample=beside)
