"""One shared backbone, one head per task."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from mtlbench.architectures.making import add_heads, together
from mtlbench.model import Backbone, BackboneMaker, Head, HeadMaker, MultiTaskModel, made
from mtlbench.task import Task


class MultiDecoder(MultiTaskModel):
    """`backbone` is shared by all tasks; `head(channels=, reductions=, out_channels=)` makes one head for each,
    or is a mapping {task: what makes its head}.

    Its representation is what the backbone gives; the backbone's parameters are shared.
    A head's initial weights are a function of torch's seed and the task's name, so that a task starts alike in
    single-task and multi-task runs, in any order. Torch's random state is left as the backbone leaves it.
    """

    representation: ClassVar[str] = "the tensors of the backbone"

    def __init__(
        self,
        backbone: Backbone | BackboneMaker,
        head: HeadMaker | Mapping[str, HeadMaker],
        tasks: Mapping[str, Task],
    ):
        super().__init__()
        self.backbone = made(backbone)
        self.tasks = tuple(tasks)
        add_heads(self, self.backbone, head, tasks)

    def head(self, task: str) -> Head:
        return self.get_submodule(f"head_{task}")

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.backbone(image)

    def decode(self, task: str, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        return self.head(task)(features, size)

    def decode_each(
        self, tasks: Sequence[str], features: Sequence[tuple[Tensor, ...]], size: tuple[int, int]
    ) -> list[Tensor]:
        found = together([self.head(task) for task in tasks], list(features), size)
        return super().decode_each(tasks, features, size) if found is None else found

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        return list(self.head(task).parameters())
