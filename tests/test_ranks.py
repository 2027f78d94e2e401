"""N processes give what one gives: gradients, weights and a trajectory, for every method and level."""

import copy
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from omegaconf import OmegaConf
from torch import Tensor, nn

from mtlbench import config
from mtlbench.batch_norm import synchronise_batch_norm
from mtlbench.dataset import MultiTaskDataset, Split
from mtlbench.fit import Fit, Settings
from mtlbench.loader import TrainingOrder
from mtlbench.losses import L1, CrossEntropy
from mtlbench.metrics import Confusion, MeanAbsoluteError
from mtlbench.model import MultiTaskModel
from mtlbench.parallel import Ranks, stop
from mtlbench.schedule import poly
from mtlbench.seeds import seed_of
from mtlbench.signals import Stop
from mtlbench.step import StepResult
from mtlbench.task import IGNORE, Task

BATCH, STEPS, EPOCHS, SEED = 6, 5, 2, 3
SIDE, CLASSES = 6, 3
CLOSE = 1e-10

TASKS = {
    "semantic": Task("semantic", CLASSES, CrossEntropy(), [Confusion(CLASSES)]),
    "offset": Task("offset", 2, L1("pixels"), [MeanAbsoluteError("px")]),
    "depth": Task("depth", 1, L1(), [MeanAbsoluteError("m")]),
}

MISSING = {
    # step: the tasks without a label, and at which places of the batch
    1: {"offset": range(3, 6)},  # on the second of two ranks, on one and a half of three
    2: {"depth": range(6)},  # in the whole batch
    3: {"semantic": range(3), "depth": range(2, 6)},
    4: {"semantic": range(6), "offset": range(6), "depth": range(6)},  # no label at all
    6: {"offset": range(6), "depth": range(6)},  # a single task is left
    7: {"semantic": range(6), "offset": range(5)},
    8: {"depth": range(1, 6)},
}


class Scenes(Split):
    """Random images; targets have holes of different sizes, and at the steps of MISSING no label at all."""

    def __init__(self, length: int, training: bool):
        self.length, self.training = length, training

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, dict[str, Tensor]]:
        epoch, index = key
        draw = torch.Generator().manual_seed(seed_of("scene", self.training, index))
        image = torch.randn(3, SIDE, SIDE, generator=draw)
        brightness = image.mean(0)
        targets = {
            "semantic": torch.bucketize(brightness, torch.tensor([-0.3, 0.3])),
            "offset": torch.stack([brightness, -brightness]) + 0.1 * torch.randn(2, SIDE, SIDE, generator=draw),
            "depth": brightness[None] ** 2,
        }
        hole = torch.rand(SIDE, SIDE, generator=draw) < 0.9 * torch.rand(1, generator=draw)
        missing = self._missing(epoch, index) if self.training else ()
        for name, target in targets.items():
            empty = torch.ones_like(hole) if name in missing else hole
            target[..., empty] = IGNORE if name == "semantic" else torch.nan
        return image, targets

    def _missing(self, epoch: int, index: int) -> list[str]:
        order = TrainingOrder(self.length, BATCH, SEED, Ranks())
        order.epoch = epoch
        for step, batch in enumerate(order):
            if (epoch, index) in batch:
                place = batch.index((epoch, index))
                return [name for name, places in MISSING.get(epoch * STEPS + step, {}).items() if place in places]
        raise AssertionError("an image outside the epoch")


class Dataset(MultiTaskDataset):
    tasks = TASKS

    def split(self, name: str) -> Split | None:
        return {"train": Scenes(BATCH * STEPS, True), "val": Scenes(7, False)}.get(name)  # 7: no rank has as many

    def fingerprint(self) -> str:
        return "scenes"


class Network(MultiTaskModel):
    """Two feature tensors of different sides, batch normalisation in the backbone and in each head."""

    tasks = tuple(TASKS)

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(5, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4), nn.Tanh())
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Conv2d(9, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, task.channels, 1))
                for name, task in TASKS.items()
            }
        )

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        fine = self.fine(image)
        return fine, self.coarse(fine)

    def decode(self, task: str, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        fine, coarse = features
        return self.heads[task](torch.cat([fine, nn.functional.interpolate(coarse, fine.shape[-2:])], 1))

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        return list(self.heads[task].parameters())


class NothingShared(Network):
    """The same with the coarse part behind `encode`: there is no one representation that all heads read."""

    shared_representation = False

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        return (self.fine(image),)

    def decode(self, task: str, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        return super().decode(task, (features[0], self.coarse(features[0])), size)


class Recorded(Fit):
    """Keeps of each step the result, the gradients and the weights after the update; of each epoch its line."""

    def train(self, stop: Stop) -> None:
        self.results: list[StepResult] = []
        self.gradients: list[list[Tensor | None]] = []
        self.weights: list[dict[str, Tensor]] = []
        self.lines: list[dict[str, Any]] = []
        self.report = lambda line=None, **progress: self.lines.append(line) if line else None
        super().train(stop)

    def step(self, image, targets):
        result = super().step(image, targets)
        parameters = [*self.model.parameters(), *self.method.parameters()]
        self.results.append(result)
        self.gradients.append([None if p.grad is None else p.grad.clone() for p in parameters])
        whole = {**self.model.state_dict(), **{f"method.{k}": v for k, v in self.method.state_dict().items()}}
        self.weights.append(copy.deepcopy(whole))
        return result


def run(kind: type[Network], method: dict, ranks: Ranks) -> Recorded:
    """The ten steps of one method in this process, one of `ranks`."""
    torch.manual_seed(0)
    network = synchronise_batch_norm(kind(), ranks).double()
    weighting = config.build_method(OmegaConf.create(method), tasks=list(TASKS)).double()
    groups = [{"params": list(network.parameters())}, *weighting.parameter_groups()]
    optimizer = torch.optim.SGD(groups, lr=0.02, momentum=0.9, weight_decay=1e-3)
    numbers = Settings(
        seed=SEED,
        epochs=EPOCHS,
        batch_size=BATCH,
        evaluate_every=1,
        precision="float64",
        clip_norm=2.0,
        workers=0,
        evaluation_batch=2,
        checkpoint_minutes=60,
    )
    fit = Recorded(None, network, Dataset(), weighting, optimizer, poly(0.9), numbers, ranks)
    with Stop() as stop:
        fit.train(stop)
    assert stop.number == 0
    return fit


def close(ours: Any, theirs: Any, what: str) -> None:
    """The same up to the rounding of float64 in ten steps: CLOSE times the largest number of a tensor."""
    assert type(ours) is type(theirs), what
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs), what
        for key in theirs:
            close(ours[key], theirs[key], f"{what}: {key}")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), what
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            close(a, b, f"{what}: {i}")
    elif isinstance(theirs, Tensor):
        assert ours.shape == theirs.shape, what
        if theirs.numel():
            bound = CLOSE * max(1e-3, theirs.double().nan_to_num().abs().max().item())
            assert torch.equal(ours.isnan(), theirs.isnan()), what
            error = (ours.double() - theirs.double()).nan_to_num().abs().max().item()
            assert error <= bound, f"{what}: {error:.3g} apart, {bound:.3g} allowed"
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=CLOSE, abs=1e-3 * CLOSE, nan_ok=True), what
    else:
        assert ours == theirs, what


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, in whatever a method keeps as its state."""
    if isinstance(a, Tensor):
        return bool(torch.equal(a.nan_to_num(1234.5), b.nan_to_num(1234.5)))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def compare(many: Recorded, one: Recorded, name: str) -> None:
    for k, (ours, theirs) in enumerate(zip(many.results, one.results, strict=True)):
        close(vars(ours), vars(theirs), f"{name}, step {k}")
        close(many.gradients[k], one.gradients[k], f"{name}, step {k}, gradient")
        close(many.weights[k], one.weights[k], f"{name}, step {k}, after the update")
    clock = ("seconds_per_step", "data_wait")
    for ours, theirs in zip(many.lines, one.lines, strict=True):
        told = [{key: value for key, value in line.items() if key not in clock} for line in (ours, theirs)]
        close(*told, f"{name}, epoch {theirs['epoch']}")


def trained(one: Recorded, name: str) -> None:
    """The reference is worth comparing with: it took all steps, saw the tasks it should, and moved."""
    assert len(one.results) == STEPS * EPOCHS, name
    assert one.diverged is None, f"{name}: {one.diverged}"
    everywhere = set(TASKS)
    for k, result in enumerate(one.results):
        absent = {task for task, places in MISSING.get(k, {}).items() if len(places) == BATCH}
        assert set(result.tasks) == everywhere - absent, f"{name}, step {k}"
    moved = (one.weights[-1]["fine.0.weight"] - one.weights[0]["fine.0.weight"]).abs().max()
    assert moved > 1e-4, name


def work(rank: int, size: int, store: str, cases: list[tuple[str, bool, dict]]) -> None:
    torch.set_num_threads(1)
    limit = timedelta(seconds=300)  # a mismatch of collectives ends the test with an error
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=limit)
    ranks = Ranks(rank, size, group=dist.new_group(timeout=limit))
    for name, shared, method in cases:
        kind = Network if shared else NothingShared
        one = run(kind, method, Ranks())
        trained(one, name)
        many = run(kind, method, ranks)
        compare(many, one, f"{name}, rank {rank} of {size}")
        first = ranks.broadcast_state(many.weights[-1])
        batch_norm = [type(m).__name__ for m in many.model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert batch_norm == ["SynchronisedBatchNorm2d"] * 5
        for key, value in many.weights[-1].items():
            assert same(value, first[key]), f"{name}: {key} differs between the ranks"
    stop(ranks)


def spawn(size: int, cases: list[tuple[str, bool, dict]], folder) -> None:
    multiprocessing.start_processes(work, args=(size, str(folder / "store"), cases), nprocs=size, start_method="spawn")


def cases(methods: list[str]) -> list[tuple[str, bool, dict]]:
    """(name, whether a representation is shared, the method's configuration) for all levels of the methods."""
    found = []
    for name in methods:
        whole = OmegaConf.to_container(config.load([f"method={name}"]).method, resolve=True)
        for level in config.build_method(OmegaConf.create(whole), tasks=list(TASKS)).levels:
            node = OmegaConf.to_container(OmegaConf.create(whole))
            for part in (node, *(value for value in node.values() if isinstance(value, dict))):
                if "level" in part:
                    part["level"] = level
            assert config.build_method(OmegaConf.create(node), tasks=list(TASKS)).level == level, name
            found.append((f"{name} at level {level}", True, node))
            if level != "feature":
                found.append((f"{name} at level {level}, nothing shared", False, node))
    return found


@pytest.mark.slow
def test_two_processes_are_one_for_every_method_and_level(tmp_path):
    every = cases(config.options("method"))
    assert {name.split(" at ")[0] for name, _, _ in every} >= {"equal", "uncertainty", "imtl", "mgda", "pcgrad"}
    nodes = [node for name, _, node in every if name in ("imtl at level parameter", "pcgrad at level parameter")]
    streamed = [("streamed Jacobian", True, {**node, "jacobian": "streamed"}) for node in nodes]
    assert len(streamed) == 2
    spawn(2, every + streamed, tmp_path)


@pytest.mark.slow
def test_three_processes_are_one(tmp_path):
    spawn(3, [case for case in cases(["imtl"]) if case[1]], tmp_path)
