"""Batches whose content is a function of the run's seed and the epoch, never of workers, ranks or method."""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Sampler

from mtlbench.dataset import Split, collate
from mtlbench.parallel import Ranks
from mtlbench.seeds import seed_of

Key = tuple[int, int]


class TrainingOrder(Sampler[list[Key]]):
    """This rank's slices of the global batches of one epoch, from batch `start` on; the rest of a batch is dropped.

    The permutation has its own generator of (seed, epoch). `epoch` and `start` are set before each pass; they
    travel to the workers inside the keys, so that persistent workers see them too.
    Raises ValueError where the split holds less than one batch.
    """

    def __init__(self, length: int, batch_size: int, seed: int, ranks: Ranks):
        if length < batch_size:
            raise ValueError(
                f"batch_size={batch_size}: the training part has {length:,} images, less than one batch. "
                f"Type batch_size={max(1, length // 2)} or less."
            )
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.part = ranks.slice(batch_size)
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        return self.length // self.batch_size - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, "order", self.epoch))
        order = torch.randperm(self.length, generator=generator)
        for k in range(self.start, self.length // self.batch_size):
            batch = order[k * self.batch_size : (k + 1) * self.batch_size]
            yield [(self.epoch, index) for index in batch[self.part].tolist()]


class EvaluationOrder(Sampler[list[Key]]):
    """Every image once over all ranks, in order: rank r takes r, r + N, ...; nothing is padded."""

    def __init__(self, length: int, batch_size: int, ranks: Ranks):
        if length < ranks.size:
            raise ValueError(f"{length} images cannot be evaluated by {ranks.size} processes: use fewer.")
        mine = range(ranks.rank, length, ranks.size)
        self.batches = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in self.batches:
            yield [(0, index) for index in batch]


def loader(split: Split, order: TrainingOrder | EvaluationOrder, workers: int, device: torch.device) -> DataLoader:
    """A loader of `Batch`es in the given order."""
    return DataLoader(
        split,
        batch_sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(1),  # otherwise iterating draws from the global generator
    )
