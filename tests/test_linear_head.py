"""Linear heads: together they give what each gives, in predictions and in every gradient of a step."""

import pytest
import torch
from torch import Tensor, nn

from mtlbench.architectures.multi_decoder import MultiDecoder
from mtlbench.config import build, build_method, load
from mtlbench.heads.linear import LinearHead
from mtlbench.losses import CrossEntropy
from mtlbench.methods.imtl_g import IMTLG
from mtlbench.model import Backbone
from mtlbench.step import step
from mtlbench.task import Task

NAMES = [f"attribute{i}" for i in range(5)]


class Small(Backbone):
    channels, reductions = (6,), (0,)

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 6)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return (self.linear(image.mean((2, 3))).tanh(),)


class OneByOne(MultiDecoder):
    def decode_each(self, tasks, features, size):
        return super(MultiDecoder, self).decode_each(tasks, features, size)


def tasks() -> dict[str, Task]:
    return {name: Task(name, 2 + (i == 3), CrossEntropy(), (), output="vector") for i, name in enumerate(NAMES)}


def make(kind: type = MultiDecoder) -> MultiDecoder:
    torch.manual_seed(0)
    return kind(Small(), LinearHead, tasks()).double()


def batch() -> tuple[Tensor, dict[str, Tensor]]:
    rng = torch.Generator().manual_seed(1)
    image = torch.randn(7, 4, 3, 3, generator=rng, dtype=torch.float64)
    return image, {name: torch.randint(2, (7,), generator=rng) for name in NAMES}


@pytest.mark.parametrize("level", ["loss", "feature", "parameter"])
def test_together_is_one_by_one(level):
    method = (
        build_method(load(["method=uncertainty"]).method, NAMES).double() if level == "loss" else IMTLG(NAMES, level)
    )
    found = []
    for kind in (MultiDecoder, OneByOne):
        model = make(kind)
        result = step(model, tasks(), method, *batch())
        found.append([result.losses, *([] if result.gramian is None else [result.gramian]), result.weights])
        found[-1] += [p.grad for p in model.parameters()]
    for together, alone in zip(*found, strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-14)


def test_predictions_of_some_tasks_in_evaluation():
    model = make().eval()
    image, _ = batch()
    some = model(image, ["attribute3", "attribute1"])
    assert list(some) == ["attribute3", "attribute1"]
    for name, prediction in some.items():
        torch.testing.assert_close(prediction, model.head(name)(model.encode(image), (3, 3)), rtol=1e-12, atol=1e-14)
    assert some["attribute3"].shape == (7, 3)


def test_the_coarsest_map_is_averaged():
    head = LinearHead((3, 5), (4, 8), 2)
    fine, coarse = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)
    torch.testing.assert_close(head((fine, coarse), (32, 32)), head.linear(coarse.mean((2, 3))))


def test_several_vectors_are_refused():
    with pytest.raises(ValueError, match=r"head=linear reads one vector or the coarsest map"):
        LinearHead((3, 5), (0, 0), 2)


def test_pooled_backbone():
    network = build(load(["backbone=resnet18", "backbone.output_stride=32", "backbone.pool=true"]).backbone).eval()
    (z,) = network(torch.randn(2, 3, 64, 64))
    assert (z.shape, network.channels, network.reductions) == ((2, 512), (512,), (0,))
    assert LinearHead(network.channels, network.reductions, 2)((z,), (64, 64)).shape == (2, 2)
    with pytest.raises(ValueError, match=r"backbone.pool=true: one map is averaged"):
        build(load(["backbone=resnet18", "backbone.out_indices=[3,4]", "backbone.pool=true"]).backbone)
