"""The papers' backbones by name: maps, gradients, weights; HRNet's branches, MGDA's ResNet; what only rounds."""

import functools
import math

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from omegaconf import DictConfig
from torch import Tensor, nn

from mtlbench.backbones.hrnet import HRNet
from mtlbench.backbones.resnet_cifar import ResNet18Cifar
from mtlbench.backbones.segnet import SegNet
from mtlbench.backbones.timm import Timm
from mtlbench.config import build, load
from mtlbench.heads.deeplabv3plus import DeepLabV3Plus
from mtlbench.heads.hrnet import HRNetHead
from mtlbench.heads.segnet import SegNetHead
from mtlbench.model import Backbone

MAPS = {
    # option: channels, reductions, parameters in millions
    "deeplabv3plus": ((256, 2048), (4, 16), 23.51),
    "resnet26": ((256, 2048), (4, 16), 13.95),
    "resnet101": ((2048,), (8,), 42.50),
    "hrnet18": ((18, 36, 72, 144), (4, 8, 16, 32), 3.86),
    "hrnet_w18": ((18, 36, 72, 144), (4, 8, 16, 32), 9.56),
    "mobilenetv2": ((320,), (32,), 1.81),
    "pnasnet5": ((4320,), (32,), 81.74),
    "vgg16": ((512,), (32,), 14.71),
    "segnet": ((64,), (1,), 29.44),
    "segnet_mtan": ((64,), (1,), 24.94),
}


@functools.cache
def node(option: str, *words: str) -> DictConfig:
    random = () if option == "resnet18_cifar" else ("backbone.weights=null",)
    return load([f"backbone={option}", *random, *words]).backbone


def built(option: str, *words: str, seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    return build(node(option, *words))


SMALL_HRNET = ("hrnet18", "backbone.name=hrnet_w18_small")


@pytest.mark.parametrize("option", MAPS)
def test_channels_reductions_and_parameters(option: str):
    backbone = shapeless(option)
    channels, reductions, millions = MAPS[option]
    assert (backbone.channels, backbone.reductions) == (channels, reductions)
    assert round(sum(p.numel() for p in backbone.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 70)])
@pytest.mark.parametrize("option", ["deeplabv3plus", "mobilenetv2", "segnet", "vgg16"])
def test_maps_have_the_stated_shapes(option: str, size: tuple[int, int]):
    check_shapes(option, size)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["resnet26", "resnet101", "hrnet18", "hrnet_w18", "pnasnet5", "segnet_mtan"])
def test_maps_of_the_other_networks_have_the_stated_shapes(option: str):
    check_shapes(option, (65, 97))


@functools.cache
def shapeless(option: str) -> Backbone:
    with torch.device("meta"):
        return built(option).eval()


def check_shapes(option: str, size: tuple[int, int]) -> None:
    """VGG pools and PNASNet's first convolution is without padding: they round down where others round up."""
    backbone = shapeless(option)
    with torch.no_grad():
        maps = backbone(torch.zeros(2, 3, *size, device="meta"))
    for x, channels, reduction in zip(maps, backbone.channels, backbone.reductions, strict=True):
        assert x.shape[:2] == (2, channels)
        rounded = {math.ceil, math.floor} if option in ("vgg16", "pnasnet5") else {math.ceil}
        for found, side in zip(x.shape[2:], size, strict=True):
            assert found in {how(side / reduction) for how in rounded}


def dead(backbone: Backbone, image: Tensor) -> list[str]:
    """Trained parameters that no gradient reaches, but for biases that batch normalisation takes away."""
    for norm in backbone.modules():  # timm begins each block as the identity: a weight of 0 stops the gradient once
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
    torch.stack([x.square().mean() for x in backbone(image)]).sum().backward()
    return [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("words", [SMALL_HRNET, ("mobilenetv2",), ("resnet26",)], ids=lambda words: words[0])
def test_gradient_reaches_every_parameter(words: tuple[str, ...]):
    assert dead(built(*words), torch.randn(2, 3, 64, 64)) == []


@pytest.mark.slow
def test_gradient_reaches_every_parameter_of_pnasnet():
    assert dead(built("pnasnet5"), torch.randn(2, 3, 64, 64)) == []


@pytest.mark.parametrize("words", [SMALL_HRNET, ("mobilenetv2",), ("resnet18_cifar",)], ids=lambda words: words[0])
def test_same_seed_same_weights(words: tuple[str, ...]):
    first, second, other = (list(built(*words, seed=seed).parameters()) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize(("option", "least"), [("deeplabv3plus", 16), ("hrnet18", 32), ("mobilenetv2", 32)])
def test_images_below_the_stride_are_refused(option: str, least: int):
    with pytest.raises(ValueError, match=rf"one place for {least} x {least} pixels.* {least - 1} x 64.*{least} or"):
        shapeless(option)(torch.zeros(1, 3, least - 1, 64, device="meta"))


# --- HRNet


def small_hrnet(**options) -> HRNet:
    torch.manual_seed(0)
    return HRNet("hrnet_w18_small", **options)


def test_hrnet_gives_the_branches_and_not_what_the_classifier_makes_of_them():
    ours = small_hrnet().eval()
    theirs = timm.create_model("hrnet_w18_small").eval()
    theirs.load_state_dict({**theirs.state_dict(), **ours.network.state_dict()})
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        x = theirs.act2(theirs.bn2(theirs.conv2(theirs.act1(theirs.bn1(theirs.conv1(image))))))
        for found, expected in zip(ours(image), theirs.stages(x), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_hrnet_takes_sides_that_32_does_not_divide():
    ours = small_hrnet().eval()
    image = torch.randn(1, 3, 33, 70)
    with torch.no_grad():
        maps, filled = ours(image), ours(F.pad(image, (0, 26, 0, 31)))
    for x, whole in zip(maps, filled, strict=True):
        assert torch.equal(x, whole[..., : x.shape[2], : x.shape[3]])


def test_hrnets_branches_may_be_fused_bilinearly():
    nearest, bilinear = small_hrnet().eval(), small_hrnet(fuse="bilinear").eval()
    assert {m.mode for m in bilinear.modules() if isinstance(m, nn.Upsample)} == {"bilinear"}
    image = torch.randn(1, 3, 32, 64)
    with torch.no_grad():
        assert not torch.equal(nearest(image)[0], bilinear(image)[0])


def test_hrnets_weights_come_from_a_file(tmp_path):
    torch.manual_seed(1)
    state = timm.create_model("hrnet_w18_small").state_dict()
    torch.save(state, tmp_path / "hrnet.pth")
    ours = small_hrnet(weights=str(tmp_path / "hrnet.pth"))
    assert all(torch.equal(value, state[key]) for key, value in ours.network.state_dict().items())
    with pytest.raises(ValueError, match="not the weights of hrnet_w18_small_v2"):
        HRNet("hrnet_w18_small_v2", weights=str(tmp_path / "hrnet.pth"))


def test_hrnet_refuses_what_is_none():
    with pytest.raises(ValueError, match=r"backbone=timm backbone\.name=resnet18"):
        HRNet("resnet18")
    with pytest.raises(ValueError, match="expected nearest or bilinear"):
        HRNet("hrnet_w18_small", fuse="bicubic")


# --- MGDA's ResNet-18


def block(x: Tensor, layer: nn.Module) -> Tensor:
    """A basic block: two 3x3 convolutions beside the identity, or beside a 1x1 convolution where the shape changes."""
    out = layer.bn2(layer.conv2(F.relu(layer.bn1(layer.conv1(x)))))
    return F.relu(out + (x if layer.downsample is None else layer.downsample(x)))


def test_resnet18_cifar_is_the_published_network():
    torch.manual_seed(0)
    ours = ResNet18Cifar().eval()
    network, image = ours.network, torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        x = F.relu(network.bn1(F.conv2d(image, network.conv1.weight, padding=1)))
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            for layer in stage:
                x = block(x, layer)
        assert x.shape == (2, 512, 8, 8)
        expected = F.avg_pool2d(x, 4).flatten(1)
        (found,) = ours(image)
    assert (ours.channels, ours.reductions, found.shape) == ((2048,), (0,), (2, 2048))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert sum(p.numel() for p in ours.parameters()) == 11_168_832  # ResNet-18 of CIFAR without its 10 classes


@pytest.mark.parametrize("size", [(8, 8), (33, 20)])
def test_resnet18_cifar_gives_as_many_numbers_at_every_size(size: tuple[int, int]):
    assert ResNet18Cifar(parts=1)(torch.zeros(2, 3, *size))[0].shape == (2, 512)
    assert ResNet18Cifar()(torch.zeros(2, 3, *size))[0].shape == (2, 2048)


def test_gradient_reaches_every_parameter_of_resnet18_cifar():
    assert dead(ResNet18Cifar(), torch.randn(2, 3, 32, 32)) == []


def test_resnet18_cifar_refuses_small_images_and_no_parts():
    with pytest.raises(ValueError, match="8 x 8 pixels"):
        ResNet18Cifar()(torch.zeros(1, 3, 7, 64))
    with pytest.raises(ValueError, match="1 or more"):
        ResNet18Cifar(parts=0)


# --- a pretrained file of VGG-16


@pytest.mark.slow
def test_torchvisions_file_of_vgg16_is_loaded(tmp_path):
    torch.manual_seed(0)
    theirs = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"]).eval()
    state = {f"features.{key}": value for key, value in theirs.state_dict().items()}
    torch.save({**state, "classifier.6.bias": torch.zeros(1000)}, tmp_path / "vgg16.pth")
    ours = Timm("vgg16", out_indices=[5], weights=str(tmp_path / "vgg16.pth")).eval()
    image = torch.randn(1, 3, 32, 40)
    with torch.no_grad():
        torch.testing.assert_close(ours(image)[0], theirs(image), rtol=0, atol=0)


# --- what changes nothing but rounding


class Network(nn.Module):
    def __init__(self, backbone: Backbone, head: type, **options):
        super().__init__()
        self.backbone = backbone
        self.head = head(backbone.channels, backbone.reductions, 3, **options)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.backbone(image), tuple(image.shape[-2:]))


def network(name: str) -> Network:
    torch.manual_seed(0)
    if name == "segnet":
        return Network(SegNet("segnet", (8, 8, 8, 8, 8)), SegNetHead)
    if name == "hrnet":
        return Network(HRNet("hrnet_w18_small"), HRNetHead)
    backbone = Timm("resnet18", output_stride=16, out_indices=[1, 4])
    return Network(backbone, DeepLabV3Plus, rates=(1, 2, 3), hidden=16, dropout=0.0)


NETWORKS = ["segnet", "hrnet", "deeplabv3plus"]


def image() -> Tensor:
    return torch.randn(2, 3, 64, 70, generator=torch.Generator().manual_seed(1))


def outcome(net: Network, x: Tensor, precision: torch.dtype | None = None) -> list[Tensor]:
    """The prediction, all gradients and the moved statistics of one training step."""
    net.train()
    with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
        prediction = net(x)
    prediction.float().square().mean().backward() if precision else prediction.square().mean().backward()
    statistics = [m.running_mean for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    return [prediction.detach(), *(p.grad for p in net.parameters()), *statistics]


def off(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference of a tensor over the largest value of all gradients, or of the prediction."""
    scale = [max(float(y.abs().max()), 1e-2) for y in expected]
    return max(float((x.double() - y.double()).abs().max()) / s for x, y, s in zip(found, expected, scale, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_last_changes_nothing_but_rounding(name: str):
    plain = outcome(network(name).double(), image().double())
    last = network(name).double().to(memory_format=torch.channels_last)
    turned = image().double().contiguous(memory_format=torch.channels_last)
    assert turned.is_contiguous(memory_format=torch.channels_last)
    assert off(outcome(last, turned), plain) < 1e-9


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_autocast_changes_what_rounding_the_input_changes(name: str):
    """SegNet's maxima move where two values are near each other, with the rounding of a photograph too."""
    plain = outcome(network(name), image())[0]
    of_input = outcome(network(name), image().bfloat16().float())[0]
    rounded = outcome(network(name), image(), torch.bfloat16)[0]
    size = [float((other.float() - plain).norm() / plain.norm()) for other in (rounded, of_input)]
    assert 0 < size[0] < 10 * size[1]
    assert size[0] < (1.0 if name == "segnet" else 0.1)


@pytest.mark.slow
def test_compiling_changes_nothing_but_rounding():
    """Traced and differentiated ahead of time, without a C compiler; unpooling is what a compiler might not know."""
    plain = outcome(network("segnet").double(), image().double())
    compiled = network("segnet").double()
    compiled.backbone.compile(backend="aot_eager")
    assert off(outcome(compiled, image().double()), plain) < 1e-9
