"""What training takes in memory: kept for the next step, and estimated before it starts for networks that grow with
the number of tasks."""

import ctypes
import os
import warnings

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mtlbench.weighting import Weighting

GB = 1e9

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Of mallopt, in glibc's malloc.h."""


def keep_freed() -> bool:
    """Freed memory of the CPU stays with this process for the next step; False where the C library is not glibc.

    Otherwise glibc hands every large tensor back to the system, which must clear the pages of the next one, each step
    anew: a tenth of a step of ResNet-18, and more where each task has gradients. What the process holds stays at its
    peak; numbers do not change.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return False
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, -1), mallopt(M_TOP_PAD, 2**26)])


def parts(
    network: nn.Module, method: Weighting, optimizer: torch.optim.Optimizer, image: tuple[int, ...], images: int
) -> dict[str, int]:
    """Bytes by what they are for. image: the shape of one; images: those of one pass of a process.

    Not counted: what an operation needs while it runs, the data, and what the libraries take for themselves.
    """
    trained = sum(p.nbytes for p in network.parameters() if p.requires_grad)
    moments = 2 if "betas" in optimizer.defaults else int(bool(optimizer.defaults.get("momentum")))
    found = {
        "weights": sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers())),
        "their gradients": trained,
        "the optimizer": moments * trained,
        f"the maps of {images} images": images * maps(network, image),
    }
    if method.level == "parameter" and method.jacobian == "whole":
        shared = sum(p.nbytes for p in network.shared_parameters())
        found["the tasks' gradients (method.level=parameter)"] = len(network.tasks) * shared
    return found


def maps(network: nn.Module, image: tuple[int, ...]) -> int:
    """Bytes of what the backward pass of one image needs of its forward pass, of which no number is computed."""
    first = next(network.parameters())
    state = {
        name: tensor.detach().to("meta").requires_grad_(tensor.requires_grad)
        for name, tensor in (*network.named_parameters(), *network.named_buffers())
    }
    own = {tensor.untyped_storage()._cdata for tensor in state.values()}
    saved: dict[int, torch.UntypedStorage] = {}  # kept, so that no number is used twice

    def keep(tensor: Tensor) -> Tensor:
        saved.setdefault(tensor.untyped_storage()._cdata, tensor.untyped_storage())
        return tensor

    training = network.training
    network.eval()  # no sums over ranks, no random numbers
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = functional_call(network, state, (torch.empty(1, *image, dtype=first.dtype, device="meta"),))
    finally:
        network.train(training)
    assert outputs
    return sum(storage.nbytes() for number, storage in saved.items() if number not in own)


def warn(found: dict[str, int], columns: int, device: torch.device) -> None:
    """Warns where the device has less memory than `found` says."""
    there = capacity(device)
    needed = sum(found.values())
    if needed > there:
        listed = ", ".join(f"{size / GB:.3g} GB for {what}" for what, size in found.items() if size)
        warnings.warn(
            f"architecture: {columns} columns need about {needed / GB:.3g} GB ({listed}), and {device.type} has "
            f"{there / GB:.3g} GB. What takes less: a smaller batch_size, more micro_batches or processes, fewer "
            f"dataset.tasks, a smaller backbone, architecture=multi_decoder.",
            stacklevel=2,
        )


def capacity(device: torch.device) -> int:
    """Bytes of memory of a GPU, or of this machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
