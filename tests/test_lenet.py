import pytest
import torch
import torch.nn.functional as F

from mtlbench.backbones.lenet import LeNet
from mtlbench.heads.lenet import LeNetHead


def images(count=4):
    return torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def head(**options):
    return LeNetHead(channels=(50,), reductions=(0,), out_channels=10, **options)


def test_sizes_are_the_papers():
    shapes = {name: tuple(p.shape) for name, p in LeNet().named_parameters()}
    assert shapes == {
        "conv1.weight": (10, 1, 5, 5),
        "conv1.bias": (10,),
        "conv2.weight": (20, 10, 5, 5),
        "conv2.bias": (20,),
        "fc.weight": (50, 320),
        "fc.bias": (50,),
    }
    assert [tuple(p.shape) for p in head().parameters()] == [(50, 50), (50,), (10, 50), (10,)]
    features = LeNet()(images())
    assert [feature.shape for feature in features] == [(4, 50)]
    assert head()(features, (28, 28)).shape == (4, 10)
    assert (features[0] >= 0).all()


def test_evaluation_is_the_published_forward_pass():
    """The layers in the order of the authors' code, without masks; it draws nothing."""
    backbone, task = LeNet().eval(), head().eval()
    x = F.relu(F.max_pool2d(backbone.conv1(images()), 2))
    x = F.relu(F.max_pool2d(backbone.conv2(x), 2))
    x = F.relu(backbone.fc(x.view(-1, 320)))
    state = torch.get_rng_state()
    torch.testing.assert_close(backbone(images())[0], x)
    torch.testing.assert_close(task((x,), (28, 28)), task.fc2(F.relu(task.fc1(x))))
    assert torch.equal(torch.get_rng_state(), state)


def dropped(backbone, x):
    """Which share of x [B, C, H, W] is left, per image and channel; each channel is scaled as a whole."""
    ratio = backbone._drop_channels(x) / x
    assert torch.equal(ratio.amin((2, 3)), ratio.amax((2, 3)))
    return ratio[:, :, 0, 0]


@pytest.mark.parametrize(("rate", "scale"), [(0.5, 2.0), (0.2, 1.25)])
def test_channels_are_dropped_for_each_image_and_the_rest_scaled_up(rate, scale):
    torch.manual_seed(0)
    kept = dropped(LeNet(dropout=rate), torch.ones(200, 20, 3, 3))
    assert set(kept.unique().tolist()) == {0.0, scale}
    assert not torch.equal(kept[0], kept[1])
    assert kept.mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("rate", [0.5, 0.2])
def test_as_in_code_one_mask_serves_the_batch_and_nothing_is_scaled(rate):
    torch.manual_seed(0)
    backbone = LeNet(dropout=rate, as_in_code=True)
    drawn = torch.stack([dropped(backbone, torch.ones(3, 20, 2, 2)) for _ in range(200)])
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(drawn[:, 0], drawn[:, 1])
    assert drawn.mean().item() == pytest.approx(1 - rate, abs=0.05)
    backbone.eval()
    assert torch.equal(backbone._drop_channels(torch.ones(3, 20, 2, 2)), torch.ones(3, 20, 2, 2))


@pytest.mark.parametrize(("as_in_code", "scale"), [(False, 2.0), (True, 1.0)])
def test_dropout_of_the_head(as_in_code, scale):
    task = head(as_in_code=as_in_code)
    with torch.no_grad():
        task.fc1.weight.zero_()
        task.fc1.bias.fill_(1)
        task.fc2.weight.fill_(1)
        task.fc2.bias.zero_()
    torch.manual_seed(0)
    sums = task((torch.zeros(400, 50),), (28, 28))[:, 0] / scale  # how many of 50 were kept
    assert torch.equal(sums, sums.round())
    assert sums.mean().item() == pytest.approx(25, abs=1)
    assert sums.unique().numel() > 5
    assert torch.equal(task.eval()((torch.zeros(2, 50),), (28, 28)), torch.full((2, 10), 50.0))


def test_without_dropout_training_is_evaluation():
    for as_in_code in (False, True):
        backbone, task = LeNet(0.0, as_in_code), head(dropout=0.0, as_in_code=as_in_code)
        trained = task(backbone(images()), (28, 28))
        assert torch.equal(trained, task.eval()(backbone.eval()(images()), (28, 28)))


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    backbone, task = LeNet(), head()
    task(backbone(images(32)), (28, 28)).square().sum().backward()
    for parameter in [*backbone.parameters(), *task.parameters()]:
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 36, 36), (1, 28, 32)])
def test_another_image_size_is_refused(shape):
    with pytest.raises(ValueError, match=f"1 x 28 x 28, found {' x '.join(map(str, shape))}"):
        LeNet()(torch.zeros(2, *shape))


@pytest.mark.parametrize("reductions", [(8,), (4, 8, 16), (0, 0)])
def test_a_head_on_maps_is_refused(reductions):
    with pytest.raises(ValueError, match=r"head=lenet reads one vector.*backbone=lenet"):
        LeNetHead(channels=(50,) * len(reductions), reductions=reductions, out_channels=10)
