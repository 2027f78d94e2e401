"""LibMTL (Lin and Zhang, JMLR 2023) on our network: its weighting classes and its hard parameter sharing."""

import importlib
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from mtlbench.benchmarks.peers import Peer
from mtlbench.parallel import Ranks

ARGUMENTS: dict[str, dict[str, Any]] = {
    "CAGrad": {"calpha": 0.5, "rescale": 1},
    "DWA": {"T": 2.0},
    "GradDrop": {"leak": 0.0},
    "GradNorm": {"alpha": 1.5},
    "GradVac": {"beta": 0.5},
    "MGDA": {"mgda_gn": "none"},
    "RLW": {"dist": "Normal"},
}
"""Of `backward`, with the defaults of LibMTL/config.py."""

OF_LOSSES = ("EW", "UW", "DWA", "GLS", "RLW")
"""Methods that look at no gradient."""


class LibMTL(Peer):
    """A class of LibMTL.weighting, by its name there; a step is what LibMTL's Trainer does for one batch.

    level=parameter (the default): rep_grad=False there; level=feature: rep_grad=True.
    same_rep=true: z goes to LibMTL as a list, one entry a task, which its release on PyPI takes for one representation
        of all tasks and so passes through the backbone once. A plain tensor it takes for a representation of each task,
        and passes through the backbone T times.
    The package itself is not imported, since its release imports what torchvision no longer has: only the modules
    needed are. Gradients of the shared parameters are set to zero and not to None between the tasks: so did torch at
    the time of that release, and its code relies on it.
    """

    PACKAGE: ClassVar[str] = "LibMTL"
    OPTIONS: ClassVar[Sequence[str]] = ("same_rep",)
    LINES: ClassVar[Sequence[str]] = (
        *("EW", "UW", "DWA", "GLS", "RLW"),
        *("MGDA level=feature", "IMTL level=feature", "GradNorm level=feature", "GradDrop level=feature"),
        *("MGDA level=feature same_rep=true", "IMTL level=feature same_rep=true"),
        *("PCGrad level=feature", "CAGrad level=feature", "GradVac level=feature"),
        *("MGDA level=parameter", "IMTL level=parameter", "PCGrad level=parameter", "CAGrad level=parameter"),
        *("GradVac level=parameter", "GradNorm level=parameter"),
        *("Nash_MTL level=parameter", "Aligned_MTL level=parameter", "UPGrad level=parameter"),
    )

    @classmethod
    def load(cls) -> None:
        for name in ("LibMTL", "LibMTL.weighting", "LibMTL.architecture"):
            _without_its_init(name)
        importlib.import_module("LibMTL.weighting.abstract_weighting")

    def __init__(
        self, config: DictConfig, ranks: Ranks, method: str, level: str | None, same_rep: bool = False
    ) -> None:
        super().__init__(config, ranks)
        self.level = level or ("loss" if method in OF_LOSSES else "parameter")
        self.arguments = ARGUMENTS.get(method, {})
        size = tuple(self.data[0].shape[-2:])
        self.network = _network(
            sharing=importlib.import_module("LibMTL.architecture.HPS").HPS,
            weighting=getattr(importlib.import_module(f"LibMTL.weighting.{method}"), method),
            shared=self.model.shared_parameters(),
            task_name=list(self.tasks),
            encoder_class=lambda: partial(self._encode, len(self.tasks) if same_rep else None),
            decoders={name: partial(self._decode, name, size) for name in self.tasks},
            rep_grad=self.level == "feature",
            multi_input=False,
            device=ranks.device,
        )
        # as in a third epoch: GradNorm and DWA look back
        self.network.epoch, self.network.train_loss_buffer = 2, np.ones([len(self.tasks), 3])
        learned = list(self.network.parameters())
        self.optimize([{"params": learned}] if learned else [])

    def _encode(self, copies: int | None, image: Tensor) -> Tensor | list[Tensor]:
        z = self.model.encode(image)
        if len(z) != 1:
            raise ValueError(f"LibMTL reads one tensor as the representation; this backbone gives {len(z)}.")
        return z[0] if copies is None else [z[0]] * copies

    def _decode(self, task: str, size: tuple[int, int], z: Tensor) -> Tensor:
        return self.model.decode(task, (z,), size)

    def gradients(self) -> None:
        counts = self.counts()
        with self.precision():
            predictions = self.network(self.data[0])
        losses = torch.zeros(len(self.tasks)).to(self.ranks.device)
        for t, name in enumerate(self.tasks):
            losses[t] = self.loss(name, predictions[name], counts[name])
        self.optimizer.zero_grad()
        self.network.backward(losses, **self.arguments)


def _network(sharing: type, weighting: type, shared: list[nn.Parameter], **arguments: Any) -> nn.Module:
    """The class that LibMTL's Trainer makes of an architecture and a weighting, with our parameters as the shared."""

    class Network(sharing, weighting):
        def get_share_params(self) -> list[nn.Parameter]:
            return shared

        def zero_grad_share_params(self) -> None:
            for parameter in shared:
                if parameter.grad is not None:
                    parameter.grad.zero_()

    network = Network(**arguments)
    network.init_param()
    return network


def _without_its_init(package: str) -> None:
    """Lets a package's modules be imported one by one, its own __init__ left out. Raises ImportError without it."""
    if package in sys.modules:
        return
    spec = find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"No module named '{package}'")
    module = ModuleType(package)
    module.__path__ = list(spec.submodule_search_locations)
    sys.modules[package] = module
