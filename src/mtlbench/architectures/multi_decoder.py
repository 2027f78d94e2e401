"""One shared backbone, one head per task."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtlbench.model import Backbone, Head, HeadMaker, MultiTaskModel, maker_of
from mtlbench.seeds import seed_of
from mtlbench.task import Task


class MultiDecoder(MultiTaskModel):
    """`backbone` is shared by all tasks; `head(channels=, reductions=, out_channels=)` makes one head for each,
    or is a mapping {task: what makes its head}.

    A head's initial weights are a function of torch's seed and the task's name, so that a task starts alike in
    single-task and multi-task runs, in any order. Torch's random state is left as it was.
    """

    def __init__(self, backbone: Backbone, head: HeadMaker | Mapping[str, HeadMaker], tasks: Mapping[str, Task]):
        super().__init__()
        self.backbone = backbone
        self.tasks = tuple(tasks)
        seed = torch.initial_seed()
        for name, task in tasks.items():
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed_of(seed, "head", name))
                make = maker_of(head, name)
                made = make(channels=backbone.channels, reductions=backbone.reductions, out_channels=task.channels)
            self.add_module(f"head_{name}", made)

    def head(self, task: str) -> Head:
        return self.get_submodule(f"head_{task}")

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.backbone(image)

    def decode(self, task: str, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        return self.head(task)(features, size)

    def decode_each(
        self, tasks: Sequence[str], features: Sequence[tuple[Tensor, ...]], size: tuple[int, int]
    ) -> list[Tensor]:
        heads = [self.head(task) for task in tasks]
        if len({type(head) for head in heads}) == 1 and hasattr(heads[0], "together"):
            return heads[0].together(heads, features, size)
        return super().decode_each(tasks, features, size)

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        return list(self.head(task).parameters())
