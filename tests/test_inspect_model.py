"""`python -m mtlbench.inspect model`: tasks without data, counts by hand, parts, bad input."""

import re
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mtlbench import config, inspect
from mtlbench.inspecting import model as inspected
from mtlbench.inspecting.counting import Count, Counted
from mtlbench.inspecting.network import counted, shape_of, unread
from mtlbench.model import MultiTaskModel


@pytest.mark.parametrize("name", config.options("dataset"))
def test_every_dataset_knows_its_tasks_and_images_without_data(name: str):
    loaded = config.load([f"dataset={name}", "image=null"], name="inspect_model")
    dataset = unread(loaded)
    assert dataset.tasks
    assert all(task.channels > 0 for task in dataset.tasks.values())
    channels, height, width = shape_of(loaded, dataset)
    assert channels in (1, 3)
    assert min(height, width) > 0


def test_a_wrong_task_is_refused_without_data_too():
    with pytest.raises(ValueError, match="has the tasks semantic, instance, disparity"):
        unread(config.load(["dataset=cityscapes", "dataset.tasks=[depth]"], name="inspect_model"))


class Small(MultiTaskModel):
    """A stem and three tasks: one with a module of its own, one without a module, one beside the stem."""

    shared_representation = False

    def __init__(self):
        super().__init__()
        self.tasks = ("a", "b", "c")
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.a = nn.Conv2d(4, 2, 1)
        self.b = nn.Parameter(torch.zeros(5, 4))
        self.beside = nn.Conv2d(3, 1, 1)  # of task c, and run while encoding

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.stem(image), self.beside(image)

    def decode(self, task: str, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        if task == "a":
            return self.a(features[0])
        return features[0].mean((2, 3)) @ self.b.T if task == "b" else features[1]

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        return {"a": [*self.a.parameters()], "b": [self.b], "c": [*self.beside.parameters()]}[task]


def test_counts_by_hand():
    with torch.device("meta"):
        network = Counted(Small(), torch.empty(1, 3, 6, 8))
    assert network.of_parts() == {
        "shared": Count(4 * 27 + 4 + 8, 48 * 4 * 27, ""),
        "a": Count(10, 48 * 8, ""),
        "b": Count(20, 20, ""),
        "c": Count(4, 48 * 3, ""),
    }
    assert network.parameters == sum(p.numel() for p in network.model.parameters())
    assert network.multiply_adds == sum(count.multiply_adds for count in network.of_parts().values())
    modules = network.of_modules(depth=1)
    assert list(modules) == ["stem", "a", "beside"]
    assert modules["stem"][1:] == (Count(120, 48 * 4 * 27, "4 x 6 x 8"), "shared")
    assert modules["beside"][1:] == (Count(4, 48 * 3, "1 x 6 x 8"), "c")
    assert list(network.of_modules(depth=2)) == ["stem", "stem.0", "stem.1", "a", "beside"]
    assert inspected.levels(network) == ["loss", "layer", "parameter"]


def test_half_of_torch_s_own_count():
    loaded = config.load(["dataset=cityscapes", "backbone=resnet18", "image=[64,128]"], name="inspect_model")
    network = counted(loaded, unread(loaded), (3, 64, 128))
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        network.model(torch.empty(1, 3, 64, 128, device="meta"))
    assert 2 * network.multiply_adds == flops.get_total_flops() > 0


def test_values_and_random_state_are_not_needed():
    torch.manual_seed(123)
    state = torch.random.get_rng_state()
    loaded = config.load(["dataset=cityscapes"], name="inspect_model")
    network = counted(loaded, unread(loaded), (3, 64, 128))
    assert {p.device.type for p in network.model.parameters()} == {"meta"}
    assert torch.equal(state, torch.random.get_rng_state())
    assert loaded.backbone.weights == "tv_in1k"  # the configuration that was given is as it was


def test_forty_alike_are_one_row(capsys):
    assert inspect.inspect(["model", "dataset=celeba", "depth=1"]) == "done"
    printed = capsys.readouterr().out
    assert "40 tasks of celeba, images of 3 x 218 x 178" in printed
    assert "5_o_Clock_Shadow and 39 more, each" in printed
    assert "head_Arched_Eyebrows" not in printed
    assert len(printed.splitlines()) < 15


def test_it_prints_layers_and_parts(capsys):
    inspect.inspect(["model", "dataset=cityscapes_mgda", "depth=2", "image=[64,128]"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "multi_decoder resnet50_dilated psp, 3 tasks of cityscapes_mgda, images of 3 x 64 x 128"
    rows = {line.split()[0]: line.split() for line in printed if line}
    assert rows["shared"][1] == "23,508,032"
    assert rows["head_semantic"][1] == "PSP"
    assert rows["context"][-1] == "disparity"
    assert rows["method.level:"][1:] == ["loss,", "feature,", "layer,", "parameter"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model", "image=[64]"], "a height and a width are expected"),
        (["model", "image=[0,64]"], "a height and a width are expected"),
        (["model", "image=64x64"], "a height and a width are expected"),
        (["model", "depth=0"], "a number of levels from 1"),
        (["model", "depth=deep"], "a number of levels from 1"),
        (["model", "backbone=resnet19"], "Did you mean resnet18?"),
        (["model", "imagee=[64,64]"], "Did you mean image?"),
        (["model", "dataset=cityscapes", "backbone=lenet"], "this backbone gives a vector of 50 numbers"),
        (["modle"], "There are: dataset, model, published"),
        (["published", "table=3"], "takes no words but --check"),
    ],
)
def test_bad_words(words: list[str], said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        inspect.inspect(words)


def test_without_a_first_word_it_is_the_dataset(monkeypatch):
    called = []
    monkeypatch.setattr(
        inspect, "import_module", lambda name: SimpleNamespace(inspect_data=lambda o: called.append((name, o)))
    )
    inspect.inspect(["dataset=cityscapes", "machine.data=x"])
    inspect.inspect(["dataset", "dataset=cityscapes"])
    assert called == [
        ("mtlbench.inspecting.data", ["dataset=cityscapes", "machine.data=x"]),
        ("mtlbench.inspecting.data", ["dataset=cityscapes"]),
    ]


@pytest.mark.slow
def test_the_committed_page_is_that_of_the_networks():
    assert inspect.inspect(["published", "--check"]) == "done"
