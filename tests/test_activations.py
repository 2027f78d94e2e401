"""Activations computed again instead of kept: the same numbers, statistics that move once, and less that is kept."""

import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from mtlbench import build
from mtlbench.activations import checkpoint_activations
from mtlbench.backbones.hrnet import HRNet
from mtlbench.backbones.lenet import LeNet
from mtlbench.backbones.resnet_cifar import ResNet18Cifar
from mtlbench.backbones.segnet import SegNet
from mtlbench.backbones.timm import Timm
from mtlbench.benchmarks import workload
from mtlbench.config import load, run_id
from mtlbench.model import Backbone
from mtlbench.parallel import Ranks
from mtlbench.step import step

BACKBONES = {
    "segnet": lambda: SegNet("mtan", (4, 4, 4, 4, 4)),
    "hrnet": lambda: HRNet("hrnet_w18_small"),
    "resnet": lambda: Timm("test_resnet", out_indices=[1, 4]),
    "mobilenet": lambda: Timm("mobilenetv2_035", out_indices=[2, 4]),
    "resnet18_cifar": ResNet18Cifar,
}


def made(name: str) -> Backbone:
    torch.manual_seed(0)
    return BACKBONES[name]().double().train()


def image() -> Tensor:
    return torch.randn(2, 3, 32, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def norms(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def passes(backbone: Backbone) -> list[Tensor]:
    """Maps, then the gradients of two backward passes through the same graph, as level=parameter makes them."""
    maps = backbone(image())
    parameters = list(backbone.parameters())
    found = [x.detach() for x in maps]
    for power in (1, 2):
        loss = torch.stack([x.pow(power).mean() for x in maps]).sum()
        found += torch.autograd.grad(loss, parameters, retain_graph=True)
    return found


@pytest.mark.parametrize("name", BACKBONES)
def test_the_same_maps_gradients_and_statistics(name: str):
    plain, again = made(name), made(name)
    assert checkpoint_activations(again)
    for found, expected in zip(passes(again), passes(plain), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    for a, b in zip(again.buffers(), plain.buffers(), strict=True):
        assert torch.equal(a, b)
    assert {int(m.num_batches_tracked) for m in norms(again)} == {1}
    assert {m.momentum for m in norms(again)} == {m.momentum for m in norms(plain)} != {0.0}


@pytest.mark.parametrize("name", BACKBONES)
def test_every_trained_layer_but_a_stem_is_in_a_block(name: str):
    backbone = made(name)
    inside = {id(p) for block in checkpoint_activations(backbone) for p in block.parameters()}
    outside = [n for n, p in backbone.named_parameters() if id(p) not in inside]
    stems = ("network.conv1.", "network.bn1.", "network.conv2.", "network.bn2.", "network.conv_stem.")
    assert [n for n in outside if not n.startswith(stems)] == []


def test_what_is_inside_a_block_is_not_kept():
    kept = []
    for backbone in (made("segnet"), made("segnet")):
        if kept:
            checkpoint_activations(backbone)
        seen = []
        inner = backbone.decoder[0][1]  # a normalisation, whose result the ReLU behind it keeps
        inner.register_forward_hook(lambda *a, seen=seen: seen.append(weakref.ref(a[2])))
        maps = backbone(image())
        kept.append(seen[0]() is not None)
        del maps
    assert kept == [True, False]


def test_dropout_repeats_its_draw():
    class Dropping(Backbone):
        channels, reductions = (3,), (1,)

        def __init__(self):
            super().__init__()
            self.stages_ = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0.5), nn.Conv2d(3, 3, 1))

        def forward(self, image: Tensor) -> tuple[Tensor, ...]:
            return (self.stages_(image),)

    gradients = []
    for again in (False, True):
        torch.manual_seed(0)
        backbone = Dropping().double().train()
        if again:
            checkpoint_activations(backbone)
        torch.manual_seed(1)
        backbone(image())[0].square().sum().backward()
        gradients.append([p.grad for p in backbone.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)
        assert a.any()


def test_evaluation_keeps_and_repeats_nothing():
    plain, again = made("resnet").eval(), made("resnet").eval()
    checkpoint_activations(again)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(plain(image()), again(image()), strict=True))


# --- as an option of a run

WORDS = ["workload=dense", "backbone=timm", "backbone.name=test_resnet", "backbone.output_stride=null", "head.hidden=4"]


def one_step(*words: str) -> tuple[list[Tensor], list[Tensor]]:
    """Gradients and buffers after a step with a method that passes the backbone once for each task."""
    config = load([*WORDS, "method=pcgrad", "method.level=parameter", "precision=float64", *words], name="bench")
    config.image, config.batch_size = [32, 64], 2
    data = SimpleNamespace(tasks=workload.tasks(config), all_tasks=())
    model = build.model(config, data, Ranks()).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    batch = workload.batch(config, torch.float64, torch.device("cpu"))
    method = build.method(config, data, model)
    result = step(model, data.tasks, method, *batch, rng=torch.Generator().manual_seed(0), ranks=Ranks(), autocast=None)
    assert result.problem is None
    return [p.grad for p in model.parameters()], list(model.buffers())


def test_a_step_with_several_passes_is_the_same():
    plain, again = one_step(), one_step("machine.checkpoint_activations=true")
    for a, b in zip(again[0], plain[0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)
    assert all(torch.equal(a, b) for a, b in zip(again[1], plain[1], strict=True))


def test_it_is_no_part_of_the_runs_identity():
    assert run_id(load(["machine.checkpoint_activations=true"])) == run_id(load([]))


def test_not_together_with_compiling():
    with pytest.raises(ValueError, match="exclude each other"):
        one_step("machine.checkpoint_activations=true", "machine.compile=true")


def test_backbones_without_blocks_are_refused():
    with pytest.raises(ValueError, match=r"no blocks.*checkpoint_activations=false"):
        checkpoint_activations(LeNet())
