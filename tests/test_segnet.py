"""SegNet: unpooling against a transcription, its two forms, VGG-16's weights, what is refused."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from mtlbench.backbones.segnet import SegNet
from mtlbench.config import build, load, partial

TINY = (4, 6, 8, 10, 10)


def tiny(variant: str = "segnet", seed: int = 0) -> SegNet:
    torch.manual_seed(seed)
    return SegNet(variant, TINY)


def pool(x: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """2x2 maxima and their places, place by place."""
    batch, channels, height, width = x.shape
    values = x.new_zeros(batch, channels, height // 2, width // 2)
    rows, columns = torch.zeros_like(values, dtype=torch.long), torch.zeros_like(values, dtype=torch.long)
    for b, c, i, j in torch.cartesian_prod(*(torch.arange(n) for n in values.shape)).tolist():
        best = max(
            ((2 * i + di, 2 * j + dj) for di in (0, 1) for dj in (0, 1)), key=lambda place: float(x[b, c, *place])
        )
        values[b, c, i, j] = x[b, c, *best]
        rows[b, c, i, j], columns[b, c, i, j] = best
    return values, torch.stack([rows, columns]), (height, width)


def unpool(x: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    found = x.new_zeros(*x.shape[:2], *size)
    for b, c, i, j in torch.cartesian_prod(*(torch.arange(n) for n in x.shape)).tolist():
        found[b, c, int(places[0, b, c, i, j]), int(places[1, b, c, i, j])] = x[b, c, i, j]
    return found


@pytest.mark.parametrize("variant", ["segnet", "mtan"])
@pytest.mark.parametrize("size", [(32, 32), (35, 41)])
def test_it_is_a_transcription_of_pooling_and_unpooling(variant: str, size: tuple[int, int]):
    network = tiny(variant).eval()
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        x, kept = image, []
        for stage in network.encoder:
            x, places, before = pool(stage(x))
            kept.append((places, before))
        for stage in network.decoder:
            x = stage(unpool(x, *kept.pop()))
        (found,) = network(image)
    assert found.shape == (1, 4, *size)
    torch.testing.assert_close(found, x, rtol=0, atol=0)


def test_a_value_returns_to_its_place_and_the_rest_is_zero():
    x = torch.randn(2, 3, 7, 9)
    values, indices = F.max_pool2d(x, 2, return_indices=True)
    found = F.max_unpool2d(values, indices, 2, output_size=x.shape[-2:])
    assert ((found == 0) | (found == x)).all()
    assert (found != 0).sum() == values.numel() == 2 * 3 * 3 * 4
    assert (found[..., 6, :] == 0).all()
    assert (found[..., 8] == 0).all()


@pytest.mark.parametrize("variant", ["segnet", "mtan"])
@pytest.mark.parametrize("size", [(32, 33), (47, 64)])
def test_gradient_reaches_every_parameter(variant: str, size: tuple[int, int]):
    network = tiny(variant)
    network(torch.randn(2, 3, *size))[0].square().sum().backward()
    # a bias before batch normalisation moves nothing: it is reached, with a gradient that rounding leaves
    dead = [n for n, p in network.named_parameters() if p.grad is None or not (n.endswith("0.bias") or p.grad.any())]
    assert dead == []
    assert not [n for n, p in network.named_parameters() if p.grad is None]


def convolutions(blocks: nn.ModuleList) -> list[list[tuple[int, int]]]:
    return [[(m.in_channels, m.out_channels) for m in block.modules() if isinstance(m, nn.Conv2d)] for block in blocks]


def test_the_two_forms_narrow_at_the_last_and_at_the_first_convolution():
    published = convolutions(tiny().decoder)
    assert published == [
        [(10, 10), (10, 10), (10, 10)],
        [(10, 10), (10, 10), (10, 8)],
        [(8, 8), (8, 8), (8, 6)],
        [(6, 6), (6, 4)],
        [(4, 4)],
    ]
    assert convolutions(tiny("mtan").decoder) == [
        [(10, 10), (10, 10), (10, 10)],
        [(10, 8), (8, 8), (8, 8)],
        [(8, 6), (6, 6), (6, 6)],
        [(6, 4), (4, 4)],
        [(4, 4), (4, 4)],
    ]
    assert convolutions(tiny().encoder) == convolutions(tiny("mtan").encoder)


def test_parameters_of_the_published_networks():
    """SegNet's authors print 29.45 M; MTAN's code names 24 981 069 for one task of 13 classes."""
    with torch.device("meta"):
        segnet, mtan = (build(load([f"backbone={option}"]).backbone) for option in ("segnet", "segnet_mtan"))
        own, code = (
            partial(load(["head=segnet", f"head.hidden={hidden}"]).head)(
                channels=(64,), reductions=(1,), out_channels=13
            )
            for hidden in ("null", "64")
        )
    count = [sum(p.numel() for module in pair for p in module.parameters()) for pair in ((segnet, own), (mtan, code))]
    assert round(count[0] / 1e6, 2) == 29.45
    assert count[1] == 24_981_069


def test_same_seed_same_weights():
    for variant in ("segnet", "mtan"):
        first, second, other = tiny(variant), tiny(variant), tiny(variant, seed=1)
        pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        assert not torch.equal(first.encoder[0][0][0].weight, other.encoder[0][0][0].weight)


def test_batch_statistics_move_once_a_forward():
    network = tiny()
    network(torch.randn(2, 3, 32, 32))
    assert {int(m.num_batches_tracked) for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {1}


def test_stages_are_forward_and_say_what_they_give():
    network = tiny("mtan").eval()
    image = torch.randn(1, 3, 40, 33)
    x, memory, maps = image, {}, {}
    for name, stage in network.stages().items():
        inner, x = network.stage(name, x, memory)
        maps[name] = x
        assert (inner.shape[1], x.shape[1]) == (stage.inner, stage.channels)
        assert inner.shape[-2:] == x.shape[-2:]
        assert stage.upward == name.startswith("decoder")
    assert memory["places"] == []
    assert [maps[f"encoder{k}"].shape[-2:] for k in range(1, 6)] == [
        maps[f"decoder{k}"].shape[-2:] for k in range(1, 6)
    ]
    with torch.no_grad():
        assert torch.equal(network.collect(maps)[0], network(image)[0])
    own = {id(p) for stage in network.stages().values() for m in stage.modules for p in m.parameters()}
    assert own == {id(p) for p in network.parameters()}


# --- VGG-16's weights


def vgg16_bn() -> dict[str, Tensor]:
    torch.manual_seed(3)
    with torch.device("meta"):
        whole = torchvision.models.vgg16_bn()
    return {
        key: torch.zeros(value.shape) if "running_mean" in key else torch.rand(value.shape)
        for key, value in whole.state_dict().items()
        if key.startswith("features.") and not key.endswith("num_batches_tracked")
    }


@pytest.mark.slow
def test_weights_of_torchvisions_file_are_the_encoders(tmp_path):
    state = vgg16_bn()
    torch.save(state, tmp_path / "vgg16_bn.pth")
    network = SegNet("mtan", weights=str(tmp_path / "vgg16_bn.pth")).eval()
    reference = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], batch_norm=True).eval()
    reference.load_state_dict({k.removeprefix("features."): v for k, v in state.items()}, strict=True)
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        x = image
        for stage in network.encoder:
            x = F.max_pool2d(stage(x), 2)
        torch.testing.assert_close(x, reference(image), rtol=0, atol=0)


@pytest.mark.slow
def test_a_file_of_another_network_lists_the_keys(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(ValueError, match=r"not the weights of vgg16_bn.*missing: features.*unexpected: conv1"):
        SegNet(weights=str(tmp_path / "resnet18.pth"))


# --- what is refused


def test_small_images_are_refused():
    with pytest.raises(ValueError, match=r"SegNet's coarsest map has one place for 32 x 32 .* 31 x 64.*32 or more"):
        tiny()(torch.zeros(1, 3, 31, 64))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"variant": "unet"}, "expected segnet or mtan"),
        ({"widths": (4, 8)}, "five stages"),
        ({"widths": TINY, "weights": "imagenet"}, r"VGG-16's weights need backbone.widths=\[64, 128"),
    ],
)
def test_wrong_options_are_refused(options: dict, said: str):
    with pytest.raises(ValueError, match=said):
        SegNet(**options)
