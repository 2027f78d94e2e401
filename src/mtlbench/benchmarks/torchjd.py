"""torchjd (Quinton and Rey, Jacobian descent) on our network: autojac at two levels, and autogram's Gramian."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from omegaconf import DictConfig
from torch import Tensor

from mtlbench.benchmarks.peers import Peer
from mtlbench.parallel import Ranks

NAMES = (
    *("Sum", "MGDA", "IMTLG", "PCGrad", "CAGrad", "NashMTL", "AlignedMTL", "UPGrad", "DualProj", "ConFIG"),
    *("FairGrad", "GradVac", "GradDrop"),
)


class TorchJD(Peer):
    """A class of torchjd.aggregation, by its name there.

    level=parameter (the default): as in torchjd's example of multi-task learning, `mtl_backward` of the losses with
        z as the features, then `jac_to_grad` of the shared parameters.
    level=feature: the same two with a detached z in the place of the shared parameters, then one backward pass of z
        with the gradient that they leave in it.
    engine=autogram: the Gramian with respect to the shared modules from `autogram.Engine`, weights from it, and a
        backward pass of the weighted losses, which weighs the heads too. With batch_dim=None, since the networks have
        batch normalisation; torchjd says of it that it takes much memory.
    parallel_chunk_size, optimize_gramian_computation: of `mtl_backward` and `jac_to_grad`; the defaults are theirs.
    Arguments without a default there are those of our methods.
    """

    PACKAGE: ClassVar[str] = "torchjd"
    OPTIONS: ClassVar[Sequence[str]] = ("engine", "parallel_chunk_size", "optimize_gramian_computation")
    LINES: ClassVar[Sequence[str]] = (
        *(f"{name} level={level}" for level in ("feature", "parameter") for name in NAMES),
        "MGDA level=parameter parallel_chunk_size=1",
        "MGDA level=parameter optimize_gramian_computation=true",
        "Sum engine=autogram",
        "MGDA engine=autogram",
        "UPGrad engine=autogram",
    )

    @classmethod
    def load(cls) -> None:
        import torchjd.aggregation
        import torchjd.autogram
        import torchjd.autojac  # noqa: F401

    def __init__(
        self,
        config: DictConfig,
        ranks: Ranks,
        method: str,
        level: str | None,
        engine: str | None = None,
        parallel_chunk_size: int | None = None,
        optimize_gramian_computation: bool = False,
    ):
        from torchjd import aggregation, autogram

        super().__init__(config, ranks)
        self.level = level or "parameter"
        self.chunk, self.optimized = parallel_chunk_size, optimize_gramian_computation
        self.own = [list(self.model.task_parameters(name)) for name in self.tasks]
        self.shared = self.model.shared_parameters()
        needed = {"CAGrad": {"c": 0.4}, "NashMTL": {"n_tasks": len(self.tasks)}, "FairGrad": {"alpha": 2.0}}
        if engine not in (None, "autogram") or (engine and self.level != "parameter"):
            raise ValueError(f"engine={engine} level={self.level}: expected engine=autogram at level=parameter.")
        name = f"{method}Weighting" if engine else method
        if name not in aggregation.__all__:
            raise ValueError(f"torchjd.aggregation has no {name}.")
        self.aggregator = getattr(aggregation, name)(**needed.get(method, {})).to(ranks.device)
        self.engine = autogram.Engine(*self._shared_modules(), batch_dim=None) if engine else None
        self.optimize([])

    def _shared_modules(self) -> list[torch.nn.Module]:
        shared = {id(p) for p in self.shared}
        return [child for child in self.model.children() if all(id(p) in shared for p in child.parameters())]

    def gradients(self) -> None:
        from torchjd.autojac import jac_to_grad

        self.optimizer.zero_grad()
        with self.precision():
            z = self.model.encode(self.data[0])
        if self.engine is not None:
            losses = torch.stack(self._losses(z))
            losses.backward(self.aggregator(self.engine.compute_gramian(losses)))
        elif self.level == "parameter":
            self._jacobian(z, self.shared)
            jac_to_grad(self.shared, self.aggregator, optimize_gramian_computation=self.optimized)
        else:
            leaves = [part.detach().requires_grad_() for part in z]
            self._jacobian(leaves, leaves)
            jac_to_grad(leaves, self.aggregator, optimize_gramian_computation=self.optimized)
            torch.autograd.backward(z, [leaf.grad for leaf in leaves])

    def _jacobian(self, features: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
        """Leaves the heads' gradients in `.grad` and the T losses' Jacobian in `.jac` of the inputs."""
        from torchjd.autojac import mtl_backward

        mtl_backward(
            self._losses(features),
            features=list(features),
            tasks_params=self.own,
            shared_params=inputs,
            parallel_chunk_size=self.chunk,
        )

    def _losses(self, z: Sequence[Tensor]) -> list[Tensor]:
        size, counts = tuple(self.data[0].shape[-2:]), self.counts()
        with self.precision():
            predictions = {name: self.model.decode(name, tuple(z), size) for name in self.tasks}
        return [self.loss(name, prediction, counts[name]) for name, prediction in predictions.items()]
