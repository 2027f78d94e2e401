"""How a batch runs through the network: what is measured first, what descends afterwards. Levels "loss" and "feature".

Every pass is made of pieces of this rank's batch (one, or `micro_batches`): the losses are shares of the global ones,
so their sums over pieces and ranks are exact. What cannot be kept for all pieces (the graph of a network) is run
again in the second part, with the same random numbers; batch statistics move in the first part only.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtlbench.balance import Balance
from mtlbench.parallel import Ranks
from mtlbench.rows import (
    at_least_float32,
    gramian_of,
    rows_of,
    to_host,
    weighted_sum,
)
from mtlbench.task import Task
from mtlbench.weighting import Weighting, overrides

Piece = tuple[Tensor, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Work:
    """One batch of this rank and all that it goes through. tasks: those present in the global batch.

    own: {task: the parameters that it alone reaches}; shared: those of all; only what trains.
    """

    model: nn.Module
    tasks: Mapping[str, Task]
    pieces: Sequence[Piece]
    counts: Mapping[str, Tensor]
    own: Mapping[str, list[nn.Parameter]]
    shared: list[nn.Parameter]
    ranks: Ranks
    autocast: torch.dtype | None

    @property
    def heads(self) -> list[nn.Parameter]:
        return [parameter for parameters in self.own.values() for parameter in parameters]

    def numbered(self) -> Iterator[tuple[Piece, bool]]:
        """The pieces, and whether it is the last."""
        for k, piece in enumerate(self.pieces):
            yield piece, k + 1 == len(self.pieces)

    def encode(self, piece: Piece) -> tuple[Tensor, ...]:
        with self.precision(piece):
            return self.model.encode(piece[0])

    def losses(self, piece: Piece, features: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
        """This piece's share of each global loss; `features` are what each task's head reads."""
        image, targets = piece
        with self.precision(piece):
            predictions = self.model.decode_each(list(self.tasks), features, tuple(image.shape[-2:]))
        return [
            task.loss(at_least_float32(prediction), targets[name], self.counts[name])
            for (name, task), prediction in zip(self.tasks.items(), predictions, strict=True)
        ]

    def precision(self, piece: Piece):
        return torch.autocast(piece[0].device.type, self.autocast) if self.autocast else nullcontext()

    def summing(self, parameters: list[nn.Parameter], last: bool):
        """Around the backward pass of a piece: the gradients of all pieces are summed over ranks in the last one's."""
        return self.ranks.summing(parameters) if last else nullcontext()


class Pass(ABC):
    """`measure` gives what the method asks for; `descend` then leaves the gradients, but for the scale of the heads."""

    def __init__(self, work: Work):
        self.work = work

    @abstractmethod
    def measure(self) -> tuple[Tensor, Tensor | None]:
        """Global losses [T] and the Gramian [T, T] of the raw task gradients (None at level "loss"): float64, CPU."""

    @abstractmethod
    def descend(self, method: Weighting, found: Balance, rng: torch.Generator | None) -> None: ...

    def scale_heads(self, weights: Sequence[float]) -> None:
        """The gradients of each task's own parameters, times its weight."""
        for parameters, weight in zip(self.work.own.values(), weights, strict=True):
            gradients = [p.grad for p in parameters if p.grad is not None]
            if weight != 1.0 and gradients:
                torch._foreach_mul_(gradients, weight)


class SumPass(Pass):
    """Ends with one backward pass of the weighted sum of the losses, kept from `measure` or, of pieces, run again."""

    kept: list[Tensor] | None
    random: list[Tensor]

    def backward(self, weights: Sequence[float], parameters: list[nn.Parameter] | None = None) -> None:
        """parameters: the only ones that get a gradient; None: all that train."""
        work = self.work
        summed = [*work.shared, *work.heads] if parameters is None else parameters
        if not summed:
            return
        if self.kept is None:
            set_random_state(work, self.random)
        for piece, last in work.numbered():
            with nullcontext() if self.kept is not None else buffers_kept(work.model):
                local = self.kept or work.losses(piece, [work.encode(piece)] * len(work.tasks))
                with work.summing(summed, last):
                    sum(w * loss for w, loss in zip(weights, local, strict=True)).backward(inputs=parameters)


class LossPass(SumPass):
    """Level "loss": one backward pass of the weighted sum. Several pieces are first run without one for the losses,
    unless the weights are 1 whatever they are."""

    def __init__(self, work: Work, plain: bool):
        super().__init__(work)
        self.plain = plain
        self.kept = None

    def measure(self) -> tuple[Tensor, None]:
        work, total = self.work, 0.0
        self.random = random_state(work)
        alone = len(work.pieces) == 1
        for piece, last in work.numbered():
            with nullcontext() if alone or self.plain else torch.no_grad():
                features = work.encode(piece)
                local = work.losses(piece, [features] * len(work.tasks))
            total = total + torch.stack([loss.detach().double() for loss in local])
            if alone:
                self.kept = local
            elif self.plain:
                with work.summing([*work.shared, *work.heads], last):
                    sum(local).backward()
        return to_host(work.ranks.sum(total)), None

    def descend(self, method: Weighting, found: Balance, rng: torch.Generator | None) -> None:
        if self.kept is not None or not self.plain:
            self.backward(found.own.tolist())

    def scale_heads(self, weights: Sequence[float]) -> None:
        """They have been, by the weighted sum."""


class FeaturePass(Pass):
    """Level "feature": every head reads its own detached leaf of z; one backward pass of the summed losses leaves the
    heads' gradients and all T gradients at z; one backward pass of the backbone follows.

    Several pieces: their gradients at z are kept and the backbone, run without its graph at first, is run again.
    """

    graph = False
    """Whether the first part needs the backbone's graph, whatever the number of pieces."""

    def measure(self) -> tuple[Tensor, Tensor]:
        work, total = self.work, 0.0
        self.features: tuple[Tensor, ...] | None = None
        self.random: list[list[Tensor]] = []
        pieces: list[list[Tensor]] = []  # for each the rows [T, N] of each tensor of z
        alone = len(work.pieces) == 1
        for piece, last in work.numbered():
            self.random.append(random_state(work))
            with nullcontext() if alone or self.graph else torch.no_grad():
                features = work.encode(piece)
            leaves = [tuple(f.detach().requires_grad_() for f in features) for _ in work.tasks]
            local = work.losses(piece, leaves)
            with work.summing(work.heads, last):
                torch.stack(local).sum().backward()
            rows = rows_of(leaves)
            check_nothing_shared_behind(work)
            self.look(features, rows, last)
            pieces.append(rows)
            total = total + torch.stack([loss.detach().double() for loss in local])
            self.features = features if alone else None
        self.rows = [torch.cat(tensors, 1) for tensors in zip(*pieces, strict=True)]
        return self.losses_and_gramian(total)

    def look(self, features: tuple[Tensor, ...], rows: list[Tensor], last: bool) -> None:
        """What a level measures besides, while the piece's graph is there."""

    def losses_and_gramian(self, losses: Tensor) -> tuple[Tensor, Tensor]:
        """Each rank holds the rows of its own images, so losses and Gramian are sums over ranks: one sum of T + T*T."""
        gramian = gramian_of(self.rows)
        both = to_host(self.work.ranks.sum(torch.cat([losses, gramian.flatten()])))
        return both[: len(losses)], both[len(losses) :].view_as(gramian)

    def descend(self, method: Weighting, found: Balance, rng: torch.Generator | None) -> None:
        work = self.work
        combined = combine(method, found, self.rows, list(work.tasks), self.uniform(rng))
        count = [len(image) for image, _ in work.pieces]
        parts = [c.view(sum(count), -1).split(count) if len(count) > 1 else [c] for c in combined]
        for k, (piece, last) in enumerate(work.numbered()):
            at_z = [part[k] for part in parts]
            if self.features is not None:
                self.backward(self.features, at_z, last)
                continue
            set_random_state(work, self.random[k])
            with buffers_kept(work.model):
                self.backward(work.encode(piece), at_z, last)

    def backward(self, features: tuple[Tensor, ...], at_z: list[Tensor], last: bool) -> None:
        """One pass of the backbone, from the combined gradient at z."""
        outputs = [(f, g.reshape(f.shape)) for f, g in zip(features, at_z, strict=True) if f.requires_grad]
        if outputs:
            with self.work.summing(self.work.shared, last):
                torch.autograd.backward(*zip(*outputs, strict=True))

    def uniform(self, rng: torch.Generator | None) -> Callable[[], Tensor]:
        """Draws for the global batch, of which this rank takes its part: its images stand together."""

        def draw() -> Tensor:
            ranks, drawn = self.work.ranks, []
            for row in self.rows:
                whole = torch.rand(ranks.size * row.shape[1], generator=rng, dtype=torch.float64)
                drawn.append(whole[ranks.rank * row.shape[1] : (ranks.rank + 1) * row.shape[1]])
            return torch.cat(drawn).to(self.rows[0].device)

        return draw


def combine(
    method: Weighting, found: Balance, rows: list[Tensor], tasks: Sequence[str], uniform: Callable[[], Tensor]
) -> list[Tensor]:
    """sum_t u_t g_t for each tensor of rows, or what the method's own `combine` makes of the C-scaled rows."""
    exact = [at_least_float32(row) for row in rows]
    if overrides(method, "combine"):
        jacobian = found.slope.to(exact[0]) @ torch.cat(exact, dim=1)
        combined = method.combine(found.chosen, jacobian, tasks, uniform).split([row.shape[1] for row in rows])
    else:
        combined = [weighted_sum(found.shared, row) for row in exact]
    return [vector.to(row.dtype) for vector, row in zip(combined, rows, strict=True)]


def check_nothing_shared_behind(work: Work) -> None:
    if any(parameter.grad is not None for parameter in work.shared):
        raise ValueError(
            f"{type(work.model).__name__}: several heads share parameters that lie behind the representation of "
            f"encode(), so its gradients do not say how they change. Set shared_representation = False."
        )


def random_state(work: Work) -> list[Tensor]:
    """Of the generators that dropout draws from: the CPU's, and the GPU's where the batch is on one."""
    device = work.pieces[0][0].device
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def set_random_state(work: Work, state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state(state[1], work.pieces[0][0].device)


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Buffers (batch statistics) are afterwards what they were before; a backward pass belongs inside."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    yield
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
