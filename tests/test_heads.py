"""Heads of maps: shapes, their three parts, the modules inside against the libraries', and what is refused."""

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mtlbench.backbones.timm import Timm
from mtlbench.config import build, load, partial
from mtlbench.heads.aspp import ASPP
from mtlbench.heads.deeplabv3plus import DeepLabV3Plus
from mtlbench.heads.fcn import FCN
from mtlbench.heads.hrnet import HRNetHead
from mtlbench.heads.psp import PSP
from mtlbench.heads.segnet import SegNetHead
from mtlbench.heads.taskonomy import TaskonomyDecoder

SMALL = {
    PSP: {"hidden": 8},
    ASPP: {"hidden": 8, "rates": (1, 2, 3)},
    DeepLabV3Plus: {"hidden": 8, "rates": (1, 2, 3)},
    FCN: {"hidden": 8},
    HRNetHead: {},
    SegNetHead: {"hidden": 8},
    TaskonomyDecoder: {"widths": (8, 8)},
}
KINDS = list(SMALL)


def head_of(kind: type, channels: int = 8, out_channels: int = 3, **options):
    return kind(channels=(channels,), reductions=(8,), out_channels=out_channels, **(SMALL[kind] | options))


@pytest.mark.parametrize("kind", [PSP, ASPP])
@settings(deadline=None, derandomize=True, max_examples=15)
@given(data=st.data())
def test_prediction_has_the_input_size(kind: type, data):
    h, w = data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    size = data.draw(st.tuples(st.integers(1, 70), st.integers(1, 70)))
    channels, out_channels = data.draw(st.integers(4, 9)), data.draw(st.integers(1, 5))
    head = head_of(kind, channels, out_channels)
    assert head((torch.randn(2, channels, h, w),), size).shape == (2, out_channels, *size)


@pytest.mark.parametrize("kind", [PSP, ASPP])
def test_coarsest_of_several_maps_is_read(kind: type):
    head = kind(channels=(4, 8), reductions=(4, 8), out_channels=2, **SMALL[kind]).eval()
    fine, coarse = torch.randn(2, 4, 8, 8), torch.randn(2, 8, 4, 4)
    with torch.no_grad():
        assert torch.equal(head((fine, coarse), (32, 32)), head((fine + 1, coarse), (32, 32)))
        assert not torch.equal(head((fine, coarse), (32, 32)), head((fine, coarse + 1), (32, 32)))


@pytest.mark.parametrize("kind", [PSP, ASPP])
def test_gradient_reaches_every_parameter_and_the_map(kind: type):
    torch.manual_seed(0)
    head = head_of(kind, dropout=0.0)
    feature = torch.randn(2, 8, 7, 9, requires_grad=True)
    head((feature,), (50, 60)).square().sum().backward()
    dead = [name for name, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []
    assert feature.grad.abs().sum() > 0


@pytest.mark.parametrize("align_corners", [True, False])
def test_psp_is_the_library_module_and_two_convolutions(align_corners: bool):
    torch.manual_seed(0)
    head = head_of(PSP, align_corners=align_corners).eval()
    library = smp.decoders.pspnet.decoder.PSPModule(8).eval()
    library.load_state_dict(head.context.state_dict(), strict=True)
    convolution, norm, relu, dropout = head.project
    last = head.predict
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(relu, nn.ReLU)
    assert dropout.p == 0.1
    feature = torch.randn(2, 8, 6, 7)
    with torch.no_grad():
        expected = last(F.relu(norm(F.conv2d(library(feature), convolution.weight, padding=1))))
        expected = F.interpolate(expected, (45, 50), mode="bilinear", align_corners=align_corners)
        torch.testing.assert_close(head((feature,), (45, 50)), expected, rtol=0, atol=0)


def test_aspp_is_the_library_module_and_two_convolutions():
    torch.manual_seed(0)
    head = head_of(ASPP).eval()
    library = smp.decoders.deeplabv3.decoder.ASPP(8, 8, (1, 2, 3), separable=False, dropout=0.5).eval()
    library.load_state_dict(head.context.state_dict(), strict=True)
    convolution, norm, _, _ = head.project
    last = head.predict
    feature = torch.randn(2, 8, 6, 7)
    with torch.no_grad():
        expected = last(F.relu(norm(F.conv2d(library(feature), convolution.weight, padding=1))))
        expected = F.interpolate(expected, (45, 50), mode="bilinear", align_corners=False)
        torch.testing.assert_close(head((feature,), (45, 50)), expected, rtol=0, atol=0)


def test_options_build_the_papers_heads():
    config = load(["head=psp"])
    psp = partial(config.head)(channels=(2048,), reductions=(8,), out_channels=19)
    assert [tuple(block.pool[0].output_size) for block in psp.context.blocks] == [(s, s) for s in (1, 2, 3, 6)]
    assert psp.project[0].weight.shape == (512, 4096, 3, 3)
    assert psp.predict.weight.shape == (19, 512, 1, 1)
    aspp = partial(load(["head=aspp"]).head)(channels=(2048,), reductions=(8,), out_channels=19)
    assert [branch[0].dilation[0] for branch in list(aspp.context.convs)[1:4]] == [12, 24, 36]
    assert aspp.project[0].weight.shape == (256, 256, 3, 3)


def test_channels_that_the_parts_do_not_divide():
    head = head_of(PSP, channels=10, sizes=(1, 2, 3))
    assert head.project[0].weight.shape[1] == 10 + 3 * 3
    assert head((torch.randn(2, 10, 5, 5),), (9, 9)).shape == (2, 3, 9, 9)


@pytest.mark.parametrize("name", ["psp", "aspp"])
def test_vector_backbone_is_refused(name: str):
    head = partial(load([f"head={name}"]).head)
    lenet = build(load(["backbone=lenet"]).backbone)
    for channels, reductions in [(lenet.channels, lenet.reductions), ((512,), (0,)), ((), ()), ((8, 8), (8,))]:
        with pytest.raises(ValueError, match=f"head={name}.*backbone=resnet50_dilated or backbone=resnet18"):
            head(channels=channels, reductions=reductions, out_channels=3)


def test_too_few_channels_for_the_pyramid_are_refused():
    with pytest.raises(ValueError, match="at least 4"):
        head_of(PSP, channels=3)


def test_aspp_needs_three_rates():
    with pytest.raises(ValueError, match=r"\[12,24,36\]"):
        head_of(ASPP, rates=(1, 2))


def test_aspp_trains_on_two_images_at_least():
    head = head_of(ASPP)
    one = (torch.randn(1, 8, 4, 4),)
    with pytest.raises(ValueError, match="larger batch_size"):
        head(one, (8, 8))
    assert head.eval()(one, (8, 8)).shape == (1, 3, 8, 8)
    assert head_of(PSP)(one, (8, 8)).shape == (1, 3, 8, 8)


# --- every head of maps


def two_maps(size: tuple[int, int], channels: tuple[int, int] = (6, 8)) -> tuple[torch.Tensor, torch.Tensor]:
    """At 1/4 and 1/16 of an image, as a backbone that rounds up gives them."""
    rng = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(2, c, *(-(-side // r) for side in size), generator=rng)
        for c, r in zip(channels, (4, 16), strict=True)
    )


def of_two(kind: type, out_channels: int = 3, seed: int = 0, **options):
    torch.manual_seed(seed)
    return kind(channels=(6, 8), reductions=(4, 16), out_channels=out_channels, **(SMALL[kind] | options))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(32, 48), (33, 47), (17, 64), (50, 31)])
def test_odd_sizes_too(kind: type, size: tuple[int, int]):
    assert of_two(kind)(two_maps(size), size).shape == (2, 3, *size)


@pytest.mark.parametrize("kind", KINDS)
def test_three_parts_of_which_only_the_last_layer_knows_the_task(kind: type):
    few, many = of_two(kind, 1), of_two(kind, 5)
    shapes = [{n: p.shape for n, p in head.named_parameters() if not n.startswith("predict.")} for head in (few, many)]
    assert shapes[0] == shapes[1]
    assert isinstance(many.predict, nn.Conv2d)
    assert (few.predict.out_channels, many.predict.out_channels) == (1, 5)
    many.eval()
    features = two_maps((33, 47))
    with torch.no_grad():
        embedded = many.embed(features)
        assert embedded.shape[1] == many.predict.in_channels
        assert torch.equal(many.resize(many.predict(embedded), (33, 47)), many(features, (33, 47)))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_every_parameter_of_every_head(kind: type):
    head = of_two(kind)
    for module in head.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    features = tuple(x.requires_grad_() for x in two_maps((33, 47)))
    head(features, (33, 47)).square().sum().backward()
    assert [n for n, p in head.named_parameters() if p.grad is None] == []
    # a bias before batch normalisation is reached, and moves nothing
    still = {n for n, p in head.named_parameters() if not p.grad.any()}
    assert still <= {"fuse.0.bias"}
    read = {SegNetHead: [True, False], DeepLabV3Plus: [True, True], HRNetHead: [True, True]}.get(kind, [False, True])
    assert [x.grad is not None and bool(x.grad.any()) for x in features] == read


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_head(kind: type):
    first, second, other = of_two(kind), of_two(kind), of_two(kind, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.predict.weight, other.predict.weight)


@pytest.mark.parametrize("name", ["psp", "aspp", "deeplabv3plus", "fcn", "hrnet", "segnet", "taskonomy"])
def test_every_head_of_maps_refuses_a_vector(name: str):
    head = partial(load([f"head={name}"]).head)
    for channels, reductions in [((50,), (0,)), ((), ())]:
        with pytest.raises(ValueError, match=f"head={name}: .*this backbone gives"):
            head(channels=channels, reductions=reductions, out_channels=3)


# --- against the libraries


def test_deeplabv3plus_equals_the_librarys_network():
    torch.manual_seed(0)
    library = smp.DeepLabV3Plus(
        "tu-resnet18", encoder_weights=None, encoder_output_stride=16, decoder_atrous_rates=(6, 12, 18), classes=5
    ).eval()
    for norm in library.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.running_mean, std=0.1)
    backbone = Timm("resnet18", output_stride=16, out_indices=[1, 4]).eval()
    head = DeepLabV3Plus(backbone.channels, backbone.reductions, out_channels=5).eval()
    backbone.network.load_state_dict(library.encoder.model.state_dict(), strict=True)
    head.decoder.load_state_dict(library.decoder.state_dict(), strict=True)
    head.predict.load_state_dict(library.segmentation_head[0].state_dict(), strict=True)
    image = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(head(backbone(image), (64, 96)), library(image), rtol=1e-5, atol=1e-5)


def test_aspp_equals_torchvisions_head():
    torch.manual_seed(0)
    theirs = torchvision.models.segmentation.deeplabv3.DeepLabHead(8, 3, atrous_rates=(1, 2, 3)).eval()
    ours = ASPP((8,), (8,), 3, rates=(1, 2, 3)).eval()
    assert [v.shape for v in ours.state_dict().values()] == [v.shape for v in theirs.state_dict().values()]
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    feature = torch.randn(2, 8, 6, 7)
    with torch.no_grad():
        expected = F.interpolate(theirs(feature), (45, 50), mode="bilinear", align_corners=False)
        torch.testing.assert_close(ours((feature,), (45, 50)), expected, rtol=0, atol=0)


def test_fcn_equals_torchvisions_head():
    torch.manual_seed(0)
    theirs = torchvision.models.segmentation.fcn.FCNHead(32, 3).eval()
    ours = partial(load(["head=fcn"]).head)(channels=(32,), reductions=(32,), out_channels=3).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    assert [type(m) for m in ours.project] == [type(m) for m in list(theirs)[:-1]]
    assert ours.project[-1].p == theirs[-2].p
    feature = torch.randn(2, 32, 3, 4)
    with torch.no_grad():
        expected = F.interpolate(theirs(feature), (90, 100), mode="bilinear", align_corners=False)
        torch.testing.assert_close(ours((feature,), (90, 100)), expected, rtol=0, atol=0)


def test_hrnet_head_is_two_convolutions_of_all_maps_side_by_side():
    torch.manual_seed(0)
    channels = (4, 5, 6, 7)
    head = HRNetHead(channels, (4, 8, 16, 32), out_channels=3).eval()
    maps = [torch.randn(2, c, 8 // 2**i, 16 // 2**i) for i, c in enumerate(channels)]
    enlarged = [F.interpolate(x, (8, 16), mode="bilinear", align_corners=False) for x in maps]
    first, norm, _ = head.fuse
    assert first.weight.shape == (22, 22, 1, 1)
    with torch.no_grad():
        expected = head.predict(F.relu(norm(first(torch.cat(enlarged, 1)))))
        expected = F.interpolate(expected, (32, 64), mode="bilinear", align_corners=False)
        torch.testing.assert_close(head(tuple(maps), (32, 64)), expected, rtol=0, atol=0)


def test_segnet_head_of_the_papers_own_form_is_one_convolution():
    head = SegNetHead((8,), (1,), out_channels=3, hidden=None)
    feature = torch.randn(2, 8, 5, 7)
    assert [tuple(p.shape) for p in head.parameters()] == [(3, 8, 3, 3), (3,)]
    with torch.no_grad():
        expected = F.conv2d(feature, head.predict.weight, head.predict.bias, padding=1)
        assert torch.equal(head((feature,), (5, 7)), expected)


# --- Taskonomy's decoder


def full_taskonomy(reduction: int = 16, out_channels: int = 1):
    with torch.device("meta"):
        return partial(load(["head=taskonomy"]).head)(
            channels=(2048,), reductions=(reduction,), out_channels=out_channels
        )


def test_taskonomys_decoder_has_15_layers_at_a_sixteenth():
    layers = [m for m in full_taskonomy().modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) == 15
    assert [isinstance(m, nn.ConvTranspose2d) for m in layers] == [False] * 7 + [True, False] * 4
    assert [m.out_channels for m in layers[7:]] == [64, 64, 32, 32, 16, 16, 16, 1]


def test_taskonomys_decoder_has_the_parameters_that_the_survey_prints():
    """Table 5: 130 M for one ResNet-50 and 224 M for five, with four decoders and a linear head of 365 scenes or so."""
    decoders = 4 * sum(p.numel() for p in full_taskonomy().parameters())
    resnet50, scenes = 23.508e6, 365 * 2049
    assert abs(resnet50 + decoders + scenes - 130e6) < 0.02 * 130e6
    assert abs(5 * resnet50 + decoders + scenes - 224e6) < 0.02 * 224e6


def test_taskonomys_decoder_keeps_places_where_sides_are_no_multiples():
    """The map's first place is the image's first corner at every size; the rest is cut off, not squeezed."""
    head = of_two(TaskonomyDecoder).eval()
    features = two_maps((32, 48))
    with torch.no_grad():
        whole = head(features, (32, 48))
        assert torch.equal(head(features, (29, 41)), whole[..., :29, :41])


@pytest.mark.parametrize("reduction", [1, 12])
def test_taskonomys_decoder_needs_a_power_of_two(reduction: int):
    with pytest.raises(ValueError, match=f"this backbone's is at 1/{reduction} .*2, 4, 8, 16 or 32"):
        TaskonomyDecoder((8,), (reduction,), 3)


def test_taskonomys_decoder_needs_layers():
    with pytest.raises(ValueError, match=r"head.widths=\[\]"):
        TaskonomyDecoder((8,), (8,), 3, widths=())


# --- what DeepLabV3+ cannot read


@pytest.mark.parametrize(
    ("channels", "reductions"), [((512,), (8,)), ((8, 8), (8, 8)), ((8, 8), (16, 4)), ((8, 8), (8,)), ((8, 8), (0, 0))]
)
def test_deeplabv3plus_needs_two_scales(channels: tuple[int, ...], reductions: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"a fine and a coarse map.*backbone=deeplabv3plus.*head=aspp"):
        DeepLabV3Plus(channels, reductions, out_channels=3)


def test_deeplabv3plus_needs_three_rates():
    with pytest.raises(ValueError, match=r"\[6,12,18\]"):
        of_two(DeepLabV3Plus, rates=(1, 2))


def test_deeplabv3plus_trains_on_two_images_at_least():
    head = of_two(DeepLabV3Plus)
    one = tuple(x[:1] for x in two_maps((32, 32)))
    with pytest.raises(ValueError, match=r"head=deeplabv3plus: .*larger batch_size"):
        head(one, (32, 32))
    assert head.eval()(one, (32, 32)).shape == (1, 3, 32, 32)
