"""Networks of one column a task, an encoder and a decoder, whose maps are mixed behind some stages of the encoder."""

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from mtlbench.architectures.making import add_heads, drawing_from, together
from mtlbench.architectures.pretrained import load_columns
from mtlbench.model import Backbone, BackboneMaker, Head, HeadMaker, MultiTaskModel, Stage, last_layer, made
from mtlbench.seeds import seed_of
from mtlbench.task import Task


class Columns(MultiTaskModel):
    """Each task has a backbone and a head; behind the stages of `mixed` a unit of each task mixes the maps of all.

    There is no one shared representation. Shared is all that lies before the last units: all tasks reach it through
    them, each column, and the units of all tasks but the last ones. What lies behind, with the task's own last unit, is
    the task's.
    Initial weights: every column starts as the backbone that the seed gives, each head as its task's, so that without
    mixing the columns are the tasks' single-task networks.

    stages: names of the stages whose maps are mixed. null: those that the architecture names.
    pretrained: {task: run folder or checkpoint} of single-task runs that the columns start from; tasks left out, or
        null, start as above.
    rate: multiple of the run's learning rate at which the units train.
    Raises ValueError for a backbone without stages, the name of a stage that it does not have, and for what
    `load_columns` refuses.
    """

    shared_representation = False
    representation: ClassVar[str] = "none: each task's head reads its own column"

    def __init__(
        self,
        backbone: Backbone | BackboneMaker,
        head: HeadMaker | Mapping[str, HeadMaker],
        tasks: Mapping[str, Task],
        stages: Sequence[str] | None = None,
        pretrained: Mapping[str, str] | None = None,
        rate: float = 1.0,
    ):
        super().__init__()
        self.tasks, self.columns, self.rate = tuple(tasks), len(tasks), rate
        if not rate > 0:
            raise ValueError(f"architecture.rate={rate}: expected a number above 0.")
        with drawing_from(torch.initial_seed()):
            first = made(backbone)
        cut = first.stages()
        chosen = checked(stages, cut, type(first).__name__) or self.default_stages(cut)
        self.mixed = chosen if len(self.tasks) > 1 else ()
        for task in self.tasks:
            self.add_module(f"backbone_{task}", first if task == self.tasks[0] else copy.deepcopy(first))
        add_heads(self, first, head, tasks)
        for stage in self.mixed:
            for task in self.tasks:
                with drawing_from(seed_of(torch.initial_seed(), "unit", stage, task)):
                    self.add_module(f"unit_{stage}_{task}", self.unit(task, cut[stage].channels))
        load_columns(self, pretrained or {})

    @staticmethod
    @abstractmethod
    def default_stages(cut: Mapping[str, Stage]) -> tuple[str, ...]:
        """The stages that are mixed where none are named."""

    @abstractmethod
    def unit(self, task: str, channels: int) -> nn.Module:
        """Makes what gives a task its map from those of all tasks, in a list."""

    def column(self, task: str) -> Backbone:
        return self.get_submodule(f"backbone_{task}")

    def head(self, task: str) -> Head:
        return self.get_submodule(f"head_{task}")

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """The tensors that each head reads, task after task."""
        columns = [self.column(task) for task in self.tasks]
        maps = [image] * len(columns)
        memories, found = [{} for _ in columns], [{} for _ in columns]
        for stage in columns[0].stages():
            parts = list(zip(columns, maps, memories, strict=True))
            maps = [column.stage(stage, x, memory)[1] for column, x, memory in parts]
            if stage in self.mixed:
                maps = [self.get_submodule(f"unit_{stage}_{task}")(maps) for task in self.tasks]
            for own, x in zip(found, maps, strict=True):
                own[stage] = x
        return tuple(x for column, own in zip(columns, found, strict=True) for x in column.collect(own))

    def of(self, task: str, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The tensors of one task's column."""
        place, count = self.tasks.index(task), len(features) // len(self.tasks)
        return features[place * count : (place + 1) * count]

    def decode(self, task: str, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        return self.head(task)(self.of(task, features), size)

    def decode_each(
        self, tasks: Sequence[str], features: Sequence[tuple[Tensor, ...]], size: tuple[int, int]
    ) -> list[Tensor]:
        own = [self.of(task, z) for task, z in zip(tasks, features, strict=True)]
        found = together([self.head(task) for task in tasks], own, size)
        return super().decode_each(tasks, features, size) if found is None else found

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        behind = [module for stage in self._stages(task, False).values() for module in stage.modules]
        last = [self.get_submodule(f"unit_{stage}_{task}") for stage in self.mixed[-1:]]
        return [p for module in (*behind, *last, self.head(task)) for p in module.parameters()]

    def last_shared_layer(self) -> list[nn.Parameter]:
        """GradNorm's W, of a network with one trunk, is here the last shared layer of every column together."""
        found = []
        for task in self.tasks:
            parts = [part for stage in self._stages(task, True).values() for part in stage.modules]
            found += last_layer([module for part in parts for module in part.modules()])
        return found

    def _stages(self, task: str, shared: bool) -> dict[str, Stage]:
        """Those of a column that all tasks reach, or those behind."""
        cut = self.column(task).stages()
        count = list(cut).index(self.mixed[-1]) + 1 if self.mixed else 0
        return {name: stage for k, (name, stage) in enumerate(cut.items()) if (k < count) == shared}

    def faster(self) -> list[tuple[list[nn.Parameter], float]]:
        units = [self.get_submodule(f"unit_{stage}_{task}") for stage in self.mixed for task in self.tasks]
        return [([p for unit in units for p in unit.parameters()], self.rate)]

    def compile_trunk(self) -> None:
        self.encode = torch.compile(self.encode)


def checked(named: Sequence[str] | None, cut: Mapping[str, Stage], backbone: str) -> tuple[str, ...]:
    """The named stages in the backbone's order, () for None. Raises ValueError with what there is for other names."""
    wrong = [name for name in named or () if name not in cut]
    if wrong or (named is not None and not named):
        what = f"{backbone} has no stage {wrong[0]}" if wrong else "no stage is named"
        raise ValueError(
            f"architecture.stages=[{','.join(map(str, named))}]: {what}. There are: "
            f"{', '.join(cut)}; null leaves the choice to the architecture."
        )
    return tuple(name for name in cut if name in (named or ()))
