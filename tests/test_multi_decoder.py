from functools import partial

import pytest
import torch

from mtlbench.architectures.multi_decoder import MultiDecoder
from mtlbench.backbones.lenet import LeNet
from mtlbench.heads.lenet import LeNetHead
from mtlbench.losses import CrossEntropy
from mtlbench.metrics import Accuracy
from mtlbench.task import Task

CHANNELS = {"left": 10, "right": 10, "third": 4}


def model(*names, seed=0):
    tasks = {name: Task(name, CHANNELS[name], CrossEntropy(), [Accuracy()], "vector") for name in names}
    torch.manual_seed(seed)
    return MultiDecoder(LeNet(dropout=0.0), partial(LeNetHead, dropout=0.0), tasks)


def images(count=8):
    return torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def weights(parameters):
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def test_predictions_have_the_tasks_channels():
    found = model("left", "third")(images())
    assert {name: tuple(prediction.shape) for name, prediction in found.items()} == {"left": (8, 10), "third": (8, 4)}
    assert list(model("left", "right", "third")(images(), ["third"])) == ["third"]


def test_encode_then_decode_is_forward():
    network = model("left", "right")
    features = network.encode(images())
    assert [feature.shape for feature in features] == [(8, 50)]
    whole = network(images())
    for name in network.tasks:
        assert torch.equal(network.decode(name, features, (28, 28)), whole[name])


@pytest.mark.parametrize("names", [("left", "right"), ("right", "third", "left")])
def test_shared_and_own_parameters_are_what_autograd_finds(names):
    network = model(*names)
    predictions = network(images())
    reached = {}
    for name in names:
        gradients = torch.autograd.grad(
            predictions[name].square().sum(), list(network.parameters()), retain_graph=True, allow_unused=True
        )
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            if gradient is not None:
                assert gradient.abs().sum() > 0
                reached.setdefault(parameter, []).append(name)
    assert set(reached) == set(network.parameters())
    assert {p for p, by in reached.items() if len(by) > 1} == set(network.shared_parameters())
    for name in names:
        assert {p for p, by in reached.items() if by == [name]} == set(network.task_parameters(name))


def test_a_task_starts_alike_alone_and_among_others():
    several, alone, turned = model("left", "right"), model("right"), model("third", "right", "left")
    for other in (alone, turned):
        assert torch.equal(weights(several.shared_parameters()), weights(other.shared_parameters()))
        assert torch.equal(weights(several.task_parameters("right")), weights(other.task_parameters("right")))
    with torch.no_grad():
        assert torch.equal(several.eval()(images())["right"], alone.eval()(images())["right"])


def test_heads_start_differently_from_each_other_and_with_each_seed():
    first, second = model("left", "right"), model("left", "right", seed=1)
    assert not torch.equal(weights(first.task_parameters("left")), weights(first.task_parameters("right")))
    assert not torch.equal(weights(first.task_parameters("left")), weights(second.task_parameters("left")))


def test_heads_draw_nothing_from_torchs_own_generator():
    torch.manual_seed(3)
    backbone = LeNet()
    expected, seed = torch.get_rng_state(), torch.initial_seed()
    tasks = {name: Task(name, 10, CrossEntropy(), [Accuracy()], "vector") for name in ("left", "right")}
    MultiDecoder(backbone, partial(LeNetHead), tasks)
    assert torch.equal(torch.get_rng_state(), expected)
    assert torch.initial_seed() == seed


def test_task_names_like_those_of_modules():
    """A task may be called as a method of nn.Module is."""
    names = ("type", "values", "head", "half")
    tasks = {name: Task(name, 2, CrossEntropy(), [Accuracy()], "vector") for name in names}
    network = MultiDecoder(LeNet(), LeNetHead, tasks)
    assert [tuple(network(images())[name].shape) for name in names] == [(8, 2)] * 4
    assert {key.split(".")[0] for key in network.state_dict()} == {"backbone", *(f"head_{name}" for name in names)}
