"""Levels "layer" and "parameter": T passes of the backbone, or of its last layer, for the rows [T, P] of a Jacobian."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mtlbench.balance import Balance
from mtlbench.passes import FeaturePass, SumPass, Work, combine, random_state
from mtlbench.rows import gather, jacobian_for, scatter, through_backbone, with_gramian
from mtlbench.weighting import Weighting


class LayerPass(FeaturePass):
    """Level "layer": the Gramian of the last shared layer's parameters; all else as at level "feature"."""

    graph = True

    def __init__(self, work: Work):
        super().__init__(work)
        self.layer = work.model.last_shared_layer()
        self.jacobian: Tensor | None = None

    def look(self, features: tuple[Tensor, ...], rows: list[Tensor], last: bool) -> None:
        add = self.jacobian is not None
        if not add:
            self.jacobian = jacobian_for(self.work.model, len(rows[0]), self.layer)
        keep_graph = len(self.work.pieces) == 1
        through_backbone(features, rows, self.layer, self.jacobian, set(), add, keep_graph=keep_graph)

    def losses_and_gramian(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        return with_gramian(losses, self.work.ranks.sum(self.jacobian), self.work.ranks)


class ParameterPass(FeaturePass):
    """Level "parameter": the heads are passed once, then the backbone once for each task, into one [T, P]."""

    graph = True

    def __init__(self, work: Work):
        super().__init__(work)
        self.jacobian: Tensor | None = None
        self.reached: set[int] = set()

    def look(self, features: tuple[Tensor, ...], rows: list[Tensor], last: bool) -> None:
        work, add = self.work, self.jacobian is not None
        if not add:
            self.jacobian = jacobian_for(work.model, len(rows[0]), work.shared)
        with work.ranks.later() as begin_sum:
            done = begin_sum if last else lambda row: None
            through_backbone(features, rows, work.shared, self.jacobian, self.reached, add, done)

    def losses_and_gramian(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        self.rows = [self.jacobian]
        return with_gramian(losses, self.jacobian, self.work.ranks)

    def descend(self, method: Weighting, found: Balance, rng: torch.Generator | None) -> None:
        (combined,) = combine(method, found, self.rows, list(self.work.tasks), self.uniform(rng))
        scatter(combined, self.work.shared, self.reached)

    def uniform(self, rng: torch.Generator | None) -> Callable[[], Tensor]:
        """The coordinates are the shared parameters, the same on all ranks."""
        row = self.jacobian[0]
        return lambda: torch.rand(len(row), generator=rng, dtype=torch.float64).to(row.device)


class UnsharedParameterPass(ParameterPass):
    """The same where no representation is shared: one pass of the whole network for each task."""

    def measure(self) -> tuple[Tensor, Tensor]:
        work, total = self.work, 0.0
        for piece, last in work.numbered():
            local = work.losses(piece, [work.encode(piece)] * len(work.tasks))
            add = self.jacobian is not None
            if not add:
                self.jacobian = jacobian_for(work.model, len(local), work.shared)
            with work.ranks.later() as begin_sum:
                done = begin_sum if last else lambda row: None
                through_network(work, local, work.shared, self.jacobian, self.reached, add, last, done)
            total = total + torch.stack([loss.detach().double() for loss in local])
        return self.losses_and_gramian(total)


class UnsharedLayerPass(SumPass):
    """Level "layer" where no representation is shared: T passes down to the layer, which leave the gradients of the
    tasks' own parameters, then one of the weighted sum for the shared ones."""

    def measure(self) -> tuple[Tensor, Tensor]:
        work, total = self.work, 0.0
        layer = work.model.last_shared_layer()
        jacobian: Tensor | None = None
        self.kept = None
        self.random = random_state(work)
        for piece, last in work.numbered():
            local = work.losses(piece, [work.encode(piece)] * len(work.tasks))
            add = jacobian is not None
            if not add:
                jacobian = jacobian_for(work.model, len(local), layer)
            through_network(work, local, layer, jacobian, set(), add, last, keep_graph=True)
            total = total + torch.stack([loss.detach().double() for loss in local])
            self.kept = local if len(work.pieces) == 1 else None
        return with_gramian(total, work.ranks.sum(jacobian), work.ranks)

    def descend(self, method: Weighting, found: Balance, rng: torch.Generator | None) -> None:
        self.backward(found.shared.tolist(), self.work.shared)


def through_network(
    work: Work,
    losses: Sequence[Tensor],
    parameters: list[nn.Parameter],
    jacobian: Tensor,
    reached: set[int],
    add: bool,
    last: bool,
    done: Callable[[Tensor], None] = lambda row: None,
    keep_graph: bool = False,
) -> None:
    """Writes into the Jacobian [T, P], or adds to it, each loss's gradient of shared parameters, and adds to `.grad`
    that of the task's own: one pass of the network a task.

    done: called with each row when it is complete.
    """
    for t, (own, loss) in enumerate(zip(work.own.values(), losses, strict=True)):
        wanted = [*parameters, *own]
        gradients = (
            torch.autograd.grad(loss, wanted, retain_graph=keep_graph or t + 1 < len(losses), allow_unused=True)
            if wanted and loss.requires_grad
            else [None] * len(wanted)
        )
        gather(gradients[: len(parameters)], jacobian[t], parameters, reached, add)
        done(jacobian[t])
        with work.summing(own, last):
            for parameter, gradient in zip(own, gradients[len(parameters) :], strict=True):
                if gradient is not None:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
