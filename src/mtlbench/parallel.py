"""All of torch.distributed: ranks and sums over them.

Not DistributedDataParallel: its hooks do not see `autograd.grad`, and it averages, where losses that are
divided by global counts are to be summed.
"""

import functools
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

CPU = torch.device("cpu")

BUCKET = 25 << 20
"""Bytes of gradients that are summed in one piece."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run. Ranks() is a run of one process: every sum is the identity.

    group: of the sums that run beside other work, apart from the default group that synchronised batch
        normalisation uses meanwhile; None is the default group too (NCCL: two groups at a time are not safe).
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU
    group: dist.ProcessGroup | None = None

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, in place; returns the tensor."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def laid_end_to_end(self, values: Tensor) -> Tensor:
        """The values [n] of all ranks, n their own, in the order of the ranks."""
        if self.size == 1:
            return values
        lengths = torch.zeros(self.size, dtype=torch.int64, device=values.device)
        lengths[self.rank] = len(values)
        ends = self.sum(lengths).cumsum(0).tolist()
        every = values.new_zeros(ends[-1])
        every[ends[self.rank] - len(values) : ends[self.rank]] = values
        return self.sum(every)

    @contextmanager
    def later(self) -> Iterator[Callable[[Tensor], None]]:
        """Gives a function that begins to sum a tensor over ranks, in place; at the end all sums are done."""
        works: list[dist.Work] = []

        def begin(tensor: Tensor) -> None:
            if self.size > 1 and tensor.numel():
                works.append(dist.all_reduce(tensor, group=self.group, async_op=True))

        yield begin
        for work in works:
            work.wait()

    @contextmanager
    def summing(self, parameters: Iterable[nn.Parameter], bucket_bytes: int = BUCKET) -> Iterator[None]:
        """One backward pass inside leaves in `.grad` the sums over ranks, taken while it runs.

        A gradient that is missing on some ranks counts as zero there; one missing on all stays None. What
        `.grad` holds before is summed too, so it should be None. After an exception nothing is waited for.
        """
        if self.size == 1:
            yield
            return
        sums = _BucketSums(parameters, self.group, bucket_bytes)
        try:
            yield
            sums.finish()
        finally:
            for hook in sums.hooks:
                hook.remove()

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value on every rank, as JSON gives it back (tuples become lists); the others' is not looked at."""
        return json.loads(self._broadcast(json.dumps(value).encode() if self.rank == 0 else b""))

    def broadcast_state(self, state: Any) -> Any:
        """The same for what a checkpoint holds: whatever torch.load reads with weights_only, tensors on the CPU."""
        if self.size == 1:
            return state
        file = io.BytesIO()
        if self.rank == 0:
            torch.save(state, file)
        data = self._broadcast(file.getvalue())
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)

    def _broadcast(self, data: bytes) -> bytes:
        if self.size == 1:
            return data
        length = torch.tensor([len(data)], device=self.device)
        dist.broadcast(length, 0)
        content = torch.frombuffer(bytearray(data or int(length)), dtype=torch.uint8).to(self.device)
        dist.broadcast(content, 0)
        return content.cpu().numpy().tobytes()

    def barrier(self) -> None:
        """Returns when every rank has come here."""
        if self.size > 1:
            dist.barrier()

    def slice(self, batch_size: int) -> slice:
        """This rank's part of a global batch. Raises ValueError where the ranks do not divide it."""
        part, rest = divmod(batch_size, self.size)
        if rest:
            near = " or ".join(f"{n * self.size}" for n in (part, part + 1) if n)
            raise ValueError(
                f"batch_size={batch_size}: {self.size} processes do not divide it. Type batch_size={near}."
            )
        return slice(self.rank * part, (self.rank + 1) * part)


def start(device: str = "auto", timeout: timedelta = timedelta(minutes=10)) -> Ranks:
    """Joins the processes of this run: those of torchrun, or of srun with several tasks, or this one alone.

    device: "cpu", "cuda" (the GPU of this process's number on its machine), or "auto": cuda where there is one.
    timeout: for how long a process waits for the others before it ends with an error. Processes need not wait
        for one that died: they fail at once.
    Raises ValueError for an incomplete environment and a device that is not there.
    """
    rank, size, local = _place(os.environ)
    chosen = _device(device, local)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if size == 1:
        return Ranks(device=chosen)
    if chosen.type == "cuda":
        dist.init_process_group("nccl", rank=rank, world_size=size, timeout=timeout, device_id=chosen)
        return Ranks(rank, size, chosen)
    dist.init_process_group("gloo", rank=rank, world_size=size, timeout=timeout)
    return Ranks(rank, size, chosen, dist.new_group(timeout=timeout))


def stop(ranks: Ranks, failed: bool = False) -> None:
    """Leaves the run together with the others; no second `start` in this process.

    A process that failed only ends: the others are elsewhere and would be waited for in vain; its end is theirs.
    """
    if ranks.size > 1 and not failed:
        dist.barrier()  # without it the process may abort at exit
        dist.destroy_process_group()


def _place(environment: Mapping[str, str]) -> tuple[int, int, int]:
    """(rank, size, rank on this machine)."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if "RANK" not in environment and "WORLD_SIZE" not in environment:
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    size = environment.get(names[1], "1" if names[1] == "SLURM_NTASKS" else "")
    if size == "1":
        return 0, 1, 0
    found = {name: environment.get(name, "") for name in (*names, "MASTER_ADDR", "MASTER_PORT")}
    numbers = [int(found[name]) if found[name].isdecimal() else -1 for name in names]
    if min(numbers) < 0 or numbers[0] >= numbers[1] or not (found["MASTER_ADDR"] and found["MASTER_PORT"]):
        raise ValueError(
            f"The environment says {' '.join(f'{name}={value}' for name, value in found.items())}: several "
            f"processes need all five. Type torchrun --nproc-per-node=N -m mtlbench.train ..., which sets them; "
            f"before srun, export MASTER_ADDR (the first host) and MASTER_PORT; for one process, unset "
            f"{names[0]} {names[1]}."
        )
    return numbers[0], numbers[1], numbers[2]


def _device(asked: str, local: int) -> torch.device:
    if asked not in ("auto", "cpu", "cuda"):
        raise ValueError(f"machine.device={asked}: type auto, cpu or cuda.")
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return CPU
    if not torch.cuda.is_available():
        raise ValueError("machine.device=cuda: torch finds no GPU on this machine. Type machine.device=cpu.")
    count = torch.cuda.device_count()
    if local >= count:
        raise ValueError(
            f"machine.device={asked}: process {local} (counted from 0) of this machine finds {count} GPUs and "
            f"needs its own. Type --nproc-per-node={count}; under srun, let each task see all GPUs of its machine."
        )
    return torch.device("cuda", local)


class _BucketSums:
    """Sums of `.grad` that begin during a backward pass, bucket by bucket in one order, the same on all ranks."""

    def __init__(self, parameters: Iterable[nn.Parameter], group: dist.ProcessGroup | None, bucket_bytes: int):
        self.group = group
        self.buckets = _buckets(parameters, bucket_bytes)
        self.waiting = [set(bucket) for bucket in self.buckets]
        self.launched: list[tuple[Tensor, dist.Work]] = []
        place = {parameter: k for k, bucket in enumerate(self.buckets) for parameter in bucket}
        self.hooks = [p.register_post_accumulate_grad_hook(functools.partial(self._ready, k)) for p, k in place.items()]

    def _ready(self, bucket: int, parameter: Tensor) -> None:
        assert parameter in self.waiting[bucket], "one backward pass for each summing()"
        self.waiting[bucket].remove(parameter)
        while len(self.launched) < len(self.buckets) and not self.waiting[len(self.launched)]:
            self._launch()

    def _launch(self) -> None:
        """The next bucket, and after it a 1 for each gradient that is there."""
        bucket = self.buckets[len(self.launched)]
        there = bucket[0].new_ones(len(bucket))
        for i, parameter in enumerate(bucket):
            if parameter.grad is None:
                there[i] = 0
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), there])
        self.launched.append((flat, dist.all_reduce(flat, group=self.group, async_op=True)))

    def finish(self) -> None:
        while len(self.launched) < len(self.buckets):  # what no hook saw: missing, or written by hand
            self._launch()
        for bucket, (flat, work) in zip(self.buckets, self.launched, strict=True):
            work.wait()
            *parts, there = flat.split([*(p.numel() for p in bucket), len(bucket)])
            for i, parameter in enumerate(bucket):
                if parameter.grad is None and there[i] > 0:
                    parameter.grad = torch.empty_like(parameter)
            sums = [(p.grad, part.view_as(p)) for p, part in zip(bucket, parts, strict=True) if p.grad is not None]
            if sums:  # copied back, so that a gradient keeps its parameter's memory format
                torch._foreach_copy_(*zip(*sums, strict=True))


def _buckets(parameters: Iterable[nn.Parameter], limit: int) -> list[list[nn.Parameter]]:
    """The parameters that train, in reverse as their gradients come, in pieces of one dtype up to `limit` bytes."""
    buckets: list[list[nn.Parameter]] = []
    latest: dict[torch.dtype, tuple[list[nn.Parameter], int]] = {}
    for parameter in reversed(list(dict.fromkeys(parameters))):
        if parameter.requires_grad:
            bucket, filled = latest.get(parameter.dtype, ([], limit))
            if not bucket or filled + parameter.nbytes > limit:
                bucket, filled = [], 0
                buckets.append(bucket)
            bucket.append(parameter)
            latest[parameter.dtype] = (bucket, filled + parameter.nbytes)
    return buckets
