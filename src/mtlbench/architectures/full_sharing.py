"""One network for all tasks but for its last convolution (LSB: Lee et al. 2021, Figure 1b and Table 1)."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from mtlbench.architectures.making import head_for
from mtlbench.model import Backbone, BackboneMaker, HeadMaker, MapHead, MultiTaskModel, made
from mtlbench.task import Task


class FullSharing(MultiTaskModel):
    """ "A single encoder and then a single decoder, which generates multi-channel output": each task's channels are
    a 1x1 convolution of its own.

    The decoder is a head's `embed`, the convolutions are its `predict`. The representation is what the convolutions
    read, [B, C, h, w]; backbone and decoder are shared.
    Initial weights: the decoder's are those of the alphabetically first task's own head, the convolutions those of
    each task's, so that with one task this is the single-task network.
    Raises ValueError for heads that are not of maps, and where tasks have different ones.
    """

    representation: ClassVar[str] = "the map that each task's last convolution reads"

    def __init__(
        self,
        backbone: Backbone | BackboneMaker,
        head: HeadMaker | Mapping[str, HeadMaker],
        tasks: Mapping[str, Task],
    ):
        super().__init__()
        self.tasks = tuple(tasks)
        if isinstance(head, Mapping) and len({id(maker) for maker in head.values()}) > 1:
            raise ValueError(
                "architecture=full_sharing has one decoder for all tasks, and head_of gives some of them one of their "
                "own. Leave head_of out, or type architecture=multi_decoder."
            )
        self.backbone = made(backbone)
        heads = {name: head_for(self.backbone, head, name, task.channels) for name, task in tasks.items()}
        decoder = heads[min(heads)]
        if not isinstance(decoder, MapHead):
            raise ValueError(
                f"architecture=full_sharing shares a decoder of maps, and {type(decoder).__name__} has none to share. "
                f"Type a head of maps, such as head=psp, or architecture=multi_decoder."
            )
        for name, own in heads.items():
            self.add_module(f"predict_{name}", own.predict)
        self.decoder = decoder
        self.decoder.predict = None  # each task has its own

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        return (self.decoder.embed(self.backbone(image)),)

    def decode(self, task: str, features: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
        return self.decoder.resize(self.get_submodule(f"predict_{task}")(features[0]), size)

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        return list(self.get_submodule(f"predict_{task}").parameters())
