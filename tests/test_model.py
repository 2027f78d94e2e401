"""A network of one's own, from a trunk and heads."""

import torch
from torch import nn

from mtlbench.losses import L1
from mtlbench.methods.mgda import MGDA
from mtlbench.model import TrunkAndHeads
from mtlbench.step import step
from mtlbench.task import Task


class TwoScales(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x):
        fine = self.first(x).relu()
        return fine, self.second(fine)


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.fine, self.coarse = nn.Linear(3, 1), nn.Linear(2, 1)

    def forward(self, fine, coarse):
        return self.fine(fine) + self.coarse(coarse)


def test_a_trunk_of_one_tensor():
    model = TrunkAndHeads(nn.Linear(4, 3), {"a": nn.Linear(3, 1), "b": nn.Linear(3, 2)})
    image = torch.randn(5, 4)
    predictions = model(image)
    assert {task: tuple(p.shape) for task, p in predictions.items()} == {"a": (5, 1), "b": (5, 2)}
    assert torch.equal(predictions["b"], model.heads["b"](model.trunk(image)))
    assert list(model(image, ["b"])) == ["b"]
    assert model.shared_parameters() == list(model.trunk.parameters())
    assert model.task_parameters("a") == list(model.heads["a"].parameters())


def test_a_trunk_of_two_tensors_takes_a_step():
    torch.manual_seed(0)
    model = TrunkAndHeads(TwoScales(), {"a": Both(), "b": Both()})
    tasks = {name: Task(name, 1, L1(), []) for name in ("a", "b")}
    targets = {name: torch.randn(5, 1) for name in tasks}
    result = step(model, tasks, MGDA(list(tasks)), torch.randn(5, 4), targets)
    assert result.problem is None
    assert result.gramian.shape == (2, 2)
    assert all(p.grad is not None for p in model.parameters())
