"""timm's convolutional networks cut into stages, for architectures that look inside."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn


class Cut(NamedTuple):
    """A stage of a timm network, by names: modules may be copied or replaced (synchronised batch normalisation).

    modules: paths in the network. channels: of the stage's map. index: of the map among timm's feature maps, None
        where it is none of them.
    inner: whether its last module is a sequence of layers, whose last one reads a map of as many channels.
    cells: whether each module reads the maps of the two before it.
    activated: whether timm's feature map is the stage's map behind a ReLU.
    """

    modules: tuple[str, ...]
    channels: int
    index: int | None
    inner: bool = False
    cells: bool = False
    activated: bool = False


def cut(network: nn.Module) -> dict[str, Cut]:
    """The stages of a timm feature extractor up to its last map that is read: one ends at each feature map.

    What pools behind a map belongs to the map's stage, unless the map itself is read. A ResNet's are stem and layer1
    to layer4, a MobileNet's stem and blocks0 (1/2) to blocks4 (1/32), PNASNet's stem and cells0 (1/4) to cells3
    (1/32), those of other chains have timm's names. Raises ValueError for a network that is no such chain.
    """
    kind = type(network).__name__
    if kind == "FeatureListNet":
        found = dict(_of_chain(network))
    elif kind == "EfficientNetFeatures":
        found = dict(_of_blocks(network))
    elif kind == "FeatureHookNet" and type(getattr(network, "body", None)).__name__ == "PNASNet5Large":
        found = dict(_of_cells(network))
    else:
        raise ValueError(
            f"backbone: timm's {kind} is no chain of modules, so it has no stages to look into. Type a ResNet, a "
            f"MobileNet, VGG or PNASNet, such as backbone=resnet18, or architecture=multi_decoder."
        )
    last = max(network.feature_info.out_indices)
    names = list(found)
    end = next(i for i, name in enumerate(names) if found[name].index == last)
    return {name: found[name] for name in names[: end + 1]}


def run(network: nn.Module, stage: Cut, x: Tensor, memory: dict[str, Any]) -> tuple[Tensor | None, Tensor]:
    """The inner map and the map of a stage, as of `Backbone.stage`."""
    modules = [network.get_submodule(path) for path in stage.modules]
    if stage.cells:
        for path, cell in zip(stage.modules, modules, strict=True):
            # the map further back is the column's own; the first two modules read one map alone
            after = cell(x) if path in FIRST_CELLS else cell(memory["before"], x)
            memory["before"], x = x, after
        return None, x
    *modules, last = modules
    for module in modules:
        x = module(x)
    if not stage.inner:
        return None, last(x)
    for layer in last[:-1]:
        x = layer(x)
    return x, last[-1](x)


def feature(stage: Cut, x: Tensor) -> Tensor:
    """timm's feature map of a stage's map."""
    return F.relu(x) if stage.activated else x


def _of_chain(network: nn.Module) -> Iterator[tuple[str, Cut]]:
    """Of a FeatureListNet: its modules one after the other."""
    ends = {info["module"].replace(".", "_"): info for info in network.feature_info.info}
    names, start = list(network), 0
    for k, name in enumerate(names):
        if name not in ends:
            continue
        info, end = ends[name], k + 1
        if info["index"] not in network.feature_info.out_indices:
            while end < len(names) and names[end] not in ends and not list(network[names[end]].parameters()):
                end += 1
        inner = end == k + 1 and isinstance(network[name], nn.Sequential) and len(network[name]) > 1
        stem = start == 0 and not list(network[name].parameters())
        yield "stem" if stem else name, Cut(tuple(names[start:end]), info["num_chs"], info["index"], inner)
        start = end


def _of_blocks(network: nn.Module) -> Iterator[tuple[str, Cut]]:
    """Of an EfficientNetFeatures: the stem, then sequences of layers."""
    infos = {info["stage"]: info for info in network.feature_info.info}
    stem = infos.get(0)
    yield "stem", Cut(("conv_stem", "bn1"), network.conv_stem.out_channels, stem["index"] if stem else None)
    start = 0
    for number, layers in enumerate(network.blocks, 1):
        if number in infos:
            index, width = infos[number]["index"], infos[number]["num_chs"]
            paths = tuple(f"blocks.{i}" for i in range(start, number))
            yield f"blocks{index}", Cut(paths, width, index, inner=len(layers) > 1)
            start = number


FIRST_CELLS = ("body.conv_0", "body.cell_stem_0")


def _of_cells(network: nn.Module) -> Iterator[tuple[str, Cut]]:
    """Of PNASNet. timm takes its maps from behind the ReLU that the next cell, or the classifier, begins with."""
    names = [["conv_0"], ["cell_stem_0"], ["cell_stem_1", *(f"cell_{i}" for i in range(4))]]
    names += [[f"cell_{i}" for i in range(first, first + 4)] for first in (4, 8)]
    for index, (cells, info) in enumerate(zip(names, network.feature_info.info, strict=True)):
        paths = tuple(f"body.{cell}" for cell in cells)
        name = f"cells{index - 1}" if index else "stem"
        yield name, Cut(paths, info["num_chs"], index, cells=True, activated=index > 0)
