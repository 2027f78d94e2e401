"""What a step in several processes costs beside torch's DistributedDataParallel. `python -m mtlbench.bench ranks`

Ours over parallel.Ranks and the summed losses in DDP, on the same network and batch, leave the same gradients: DDP's
losses are divided by the counts of the global batch, which it is given, and multiplied by the number of processes,
because it averages. DDP broadcasts no buffers here, so that it does nothing that ours does not. Keys are in
conf/bench_ranks.yaml.
"""

import dataclasses
import json
import os
import socket
import statistics
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from omegaconf import DictConfig
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from mtlbench import build, parallel
from mtlbench import config as configuration
from mtlbench.benchmarks import table, workload
from mtlbench.benchmarks.ranks_table import RankCost, write
from mtlbench.benchmarks.training import Trainer, Training, compare
from mtlbench.fit import PRECISIONS
from mtlbench.parallel import Ranks

DDP = "DistributedDataParallel"


class Parallel(Training):
    """The summed losses in DistributedDataParallel.

    in_python: DDP's own sums are started from Python, where `exchanged` sees them; they are the same.
    """

    level = "loss"

    def __init__(self, config: DictConfig, ranks: Ranks, in_python: bool = False):
        super().__init__(config, ranks)
        self.global_counts = self.counts()
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # an older name, known to every torch
            self.wrapped = DistributedDataParallel(self.model, process_group=ranks.group, broadcast_buffers=False)
        if in_python:
            self.wrapped.register_comm_hook(ranks.group, allreduce_hook)
        self.optimize([])

    def gradients(self) -> None:
        self.optimizer.zero_grad()
        with self.precision():
            predictions = self.wrapped(self.data[0])
        losses = [self.loss(name, predictions[name], self.global_counts[name]) for name in self.tasks]
        (self.ranks.size * torch.stack(losses).sum()).backward()


class Together:
    """A training on this rank's part of its batch, whose steps begin on all ranks at once."""

    def __init__(self, training: Training):
        self.training, ranks = training, training.ranks
        image, targets = training.data
        part = ranks.slice(len(image))
        training.data = image[part], {name: target[part] for name, target in targets.items()}

    def seconds(self) -> float:
        self.training.ranks.barrier()
        return self.training.seconds()


@contextmanager
def exchanged() -> Iterator[list[tuple[int, int]]]:
    """Collects how many numbers and bytes this rank hands to each collective operation inside."""
    found: list[tuple[int, int]] = []

    def watched(operation, place: int):
        def call(*given, **keys):
            found.append((given[place].numel(), given[place].nbytes))
            return operation(*given, **keys)

        return call

    places = {"all_reduce": 0, "broadcast": 0, "all_gather_into_tensor": 1}
    with mock.patch.multiple(dist, **{name: watched(getattr(dist, name), place) for name, place in places.items()}):
        yield found


def traffic(training: Training) -> list[tuple[int, int]]:
    """What the second step exchanges: in its first DDP arranges its buckets."""
    training.seconds()
    with exchanged() as found:
        training.seconds()
    return found


def cost(name: str, overrides: Sequence[str], ranks: Ranks) -> RankCost:
    """The row of one method, or of DDP beside another of its own kind; what a user got wrong stands in the row."""
    try:
        config = _config(name, overrides)

        def make(in_python: bool = False) -> Training:
            return Parallel(config, ranks, in_python) if name == DDP else Trainer(config, ranks)

        handed = traffic(Together(make(in_python=True)).training)
        one, other = Together(make()), Together(Parallel(config, ranks))
        times = torch.tensor(compare(one, other, config.pairs, config.warm_up), dtype=torch.float64)
        one.training.check(), other.training.check()
    except ValueError as error:  # alike on all ranks, so the other methods can still be measured
        return RankCost(name, error=f"{type(error).__name__}: {error}")
    times = times.to(ranks.device)
    dist.all_reduce(times, dist.ReduceOp.MAX)  # a step has ended when the last rank has
    times = times.cpu()
    lower, middle, upper = statistics.quantiles((times[:, 0] / times[:, 1]).tolist(), n=4, method="inclusive")
    mine, its = times.median(dim=0).values.tolist()
    numbers, size = (sum(column) for column in zip(*handed, strict=True))
    level = one.training.level
    return RankCost(name, level, len(times), mine, its, middle, lower, upper, size, numbers, len(handed))


def _config(name: str, overrides: Sequence[str]) -> DictConfig:
    if name == DDP:
        return configuration.load(overrides, name="bench_ranks")
    option, *keys = name.split()
    return configuration.load([*overrides, f"method={option}", *(f"method.{key}" for key in keys)], name="bench_ranks")


def _work(rank: int, size: int, port: int, overrides: Sequence[str], answer: str) -> None:
    """One of the processes; the first prints, and writes the facts and the rows."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in place.items()})
    config = configuration.load(overrides, name="bench_ranks")
    ranks = parallel.start(config.machine.device)
    build.prepare(config.machine)
    facts = table.machine(ranks.device)
    rows = []
    for name in [DDP, *config.methods]:
        rows.append(cost(name, overrides, ranks))
        if rank == 0:
            done = rows[-1].error or f"{rows[-1].ratio:.3f} x DDP, {1000 * rows[-1].seconds:.0f} ms"
            print(f"{name}: {done}", flush=True)
    if rank == 0:
        backend = {"processes": f"{size}, {dist.get_backend()}"}
        Path(answer).write_text(json.dumps([facts | backend, [dataclasses.asdict(row) for row in rows]]))
    parallel.stop(ranks)


def bench_ranks(overrides: Sequence[str]) -> str:
    """Measures every method, prints and writes the table; "failed" if a method has no numbers."""
    config, choices = configuration.load_run(overrides, name="bench_ranks")
    if config.processes < 2 or config.pairs < 2 or config.warm_up < 1 or not config.methods:
        raise ValueError(
            f"processes={config.processes} pairs={config.pairs} warm_up={config.warm_up} methods={config.methods}: "
            f"expected at least 2 processes, 2 pairs, 1 step of warming up and 1 method."
        )
    if config.precision not in PRECISIONS:
        raise ValueError(f"precision={config.precision}: expected {', '.join(PRECISIONS)}.")
    if "WORLD_SIZE" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        raise ValueError("mtlbench.bench ranks starts its processes itself: start it without torchrun or srun.")
    parallel.start(config.machine.device)  # of this process alone: says so where there is none
    Ranks(0, config.processes).slice(config.batch_size)  # says so where they do not divide it
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        given = (config.processes, port, list(overrides), str(answer))
        multiprocessing.start_processes(_work, given, nprocs=config.processes, start_method="spawn")
        facts, found = json.loads(answer.read_text())
    rows = [RankCost(**row) for row in found]
    text = write(rows, facts, _workload(config, choices), len(workload.tasks(config)), Path(config.folder))
    print(f"\n{text}")
    print(f"files in {config.folder}")
    return "failed" if any(row.error for row in rows) else "done"


def _workload(config: DictConfig, choices: dict[str, str]) -> str:
    norm = "synchronised batch normalisation" if config.sync_batch_norm else "batch normalisation by process"
    return f"{choices['backbone']} + {choices['head']}, {choices['optimizer']}, {workload.described(config)}, {norm}"
