"""Pyramid pooling and atrous pyramid pooling heads: shapes, the modules inside, and what is refused."""

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mtlbench.config import build, load, partial
from mtlbench.heads.aspp import ASPP
from mtlbench.heads.psp import PSP

SMALL = {PSP: {"hidden": 8}, ASPP: {"hidden": 8, "rates": (1, 2, 3)}}


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
