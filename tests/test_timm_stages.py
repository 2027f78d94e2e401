"""timm's networks in stages: the same numbers as whole, and the names and channels of what lies between."""

import copy

import pytest
import torch

from mtlbench.backbones.lenet import LeNet
from mtlbench.backbones.timm import Timm

NETWORKS = [
    ("resnet10t", 8, [4], ["stem", "layer1", "layer2", "layer3", "layer4"]),
    ("resnet18", 16, [1, 4], ["stem", "layer1", "layer2", "layer3", "layer4"]),
    ("resnet18", None, [0, 2], ["stem", "layer1", "layer2"]),
    ("mobilenetv2_035", None, [0, 4], ["stem", "blocks0", "blocks1", "blocks2", "blocks3", "blocks4"]),
    ("vgg11_bn", None, [2], ["stem", "features_6", "features_13"]),
    ("convnext_atto", None, [3], ["stages_0", "stages_1", "stages_2", "stages_3"]),
]


def compare(network, image, training):
    torch.manual_seed(0)
    whole, staged = network.train(training), copy.deepcopy(network)
    expected, found = whole(image), staged.in_stages(image)
    assert [z.shape for z in found] == [z.shape for z in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(staged.buffers(), whole.buffers(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("name", "stride", "indices", "stages"), NETWORKS)
def test_stage_by_stage_is_the_whole_network(name, stride, indices, stages, training):
    network = Timm(name, stride, indices)
    assert list(network.stages()) == stages
    compare(network, torch.randn(2, 3, 64, 51), training)
    assert [s.channels for s in network.stages().values() if s.read] == list(network.channels)
    run = {id(p) for stage in network.stages().values() for m in stage.modules for p in m.parameters()}
    used = {name for name, p in network.named_parameters() if id(p) in run}
    image = torch.randn(2, 3, 64, 64)
    sum(z.sum() for z in network.train()(image)).backward()
    assert used == {name for name, p in network.named_parameters() if p.grad is not None}


def test_channels_and_inner_maps_are_what_the_stages_give():
    for name, stride, indices, _ in NETWORKS:
        network, x, memory = Timm(name, stride, indices).eval(), torch.randn(1, 3, 64, 64), {}
        for key, stage in network.stages().items():
            inner, x = network.stage(key, x, memory)
            assert x.shape[1] == stage.channels
            assert (inner is None) == (stage.inner == 0)
            if inner is not None:
                assert (inner.shape[1], inner.shape[2:]) == (stage.inner, x.shape[2:])


def test_a_pooled_map_is_pooled_in_stages_too():
    compare(Timm("resnet18", 32, [4], pool=True), torch.randn(2, 3, 64, 64), training=True)


def test_what_the_stage_before_gives_is_what_the_next_one_reads():
    """Zeros behind a stage reach the end: nothing goes past the map."""
    network = Timm("resnet18", 8, [4]).eval()
    memory, x = {}, torch.randn(1, 3, 64, 64)
    maps = {}
    for name in network.stages():
        _, x = network.stage(name, x, memory)
        x = torch.zeros_like(x) if name == "layer2" else x
        maps[name] = x
    again = torch.zeros(1, 128, 8, 8)
    for name in ("layer3", "layer4"):
        _, again = network.stage(name, again, {})
    assert torch.equal(network.collect(maps)[0], again)


def test_lenet_in_stages():
    network = LeNet()
    assert {name: stage.channels for name, stage in network.stages().items()} == {"conv1": 10, "conv2": 20, "fc": 50}
    _, x = network.stage("conv1", torch.randn(2, 1, 28, 28), {})
    assert x.shape == (2, 10, 12, 12)
    with pytest.raises(ValueError, match="grey images of 1 x 28 x 28"):
        network.stage("conv1", torch.randn(2, 3, 28, 28), {})


def test_networks_that_are_no_chain_are_refused():
    with pytest.raises(ValueError, match=r"is no chain of modules.* Type a ResNet"):
        Timm("hrnet_w18_small", None, [1, 2]).stages()


def test_images_below_the_stride_are_refused_before_the_first_stage():
    with pytest.raises(ValueError, match="32 x 32 pixels"):
        Timm("resnet10t", None, [4]).in_stages(torch.randn(1, 3, 16, 64))


@pytest.mark.slow
def test_pnasnet_in_stages():
    """Each cell reads the two before it, over the borders of stages."""
    network = Timm("pnasnet5large", None, [0, 2, 3, 4])
    assert {name: stage.channels for name, stage in network.stages().items()} == {
        "stem": 96, "cells0": 270, "cells1": 1080, "cells2": 2160, "cells3": 4320
    }  # fmt: skip
    with torch.no_grad():
        compare(network, torch.randn(1, 3, 64, 64), training=False)
