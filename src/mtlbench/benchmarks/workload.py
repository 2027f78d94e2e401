"""What the benchmarks train on: random images, and dense tasks or attributes with random labels."""

import torch
from omegaconf import DictConfig
from torch import Tensor

from mtlbench.losses import L1, CrossEntropy
from mtlbench.metrics import Accuracy, Confusion, MeanAbsoluteError
from mtlbench.task import IGNORE, Task


def tasks(config: DictConfig) -> dict[str, Task]:
    """Three dense tasks as in street scenes: 19 classes, offsets, disparity; or `attributes` of two classes."""
    if config.attributes:
        names = [f"attribute{i:02}" for i in range(config.attributes)]
        return {name: Task(name, 2, CrossEntropy(), [Accuracy()], output="vector") for name in names}
    dense = (
        Task("semantic", 19, CrossEntropy(), [Confusion(19)]),
        Task("instance", 2, L1(), [MeanAbsoluteError("px")]),
        Task("disparity", 1, L1(), [MeanAbsoluteError("px")]),
    )
    return {task.name: task for task in dense}


def batch(config: DictConfig, kind: torch.dtype, device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
    """A random image [B, 3, H, W] and random targets, of the dense tasks a part without labels."""
    rng = torch.Generator().manual_seed(config.seed)
    count, (height, width) = config.batch_size, config.image
    image = torch.randn(count, 3, height, width, generator=rng).to(device, kind)
    if config.machine.channels_last:
        image = image.contiguous(memory_format=torch.channels_last)
    if config.attributes:
        return image, {name: torch.randint(2, (count,), generator=rng).to(device) for name in tasks(config)}

    def labels(channels: int, scale: float, valid: float) -> Tensor:
        values = scale * torch.randn(count, channels, height, width, generator=rng)
        mask = torch.rand(count, 1, height, width, generator=rng) < valid
        return torch.where(mask, values, torch.nan).to(device, kind)

    classes = torch.randint(19, (count, height, width), generator=rng)
    classes[torch.rand(count, height, width, generator=rng) > 0.9] = IGNORE
    return image, {"semantic": classes.to(device), "instance": labels(2, 20.0, 0.3), "disparity": labels(1, 30.0, 0.8)}


def described(config: DictConfig) -> str:
    """ "three dense tasks (...) on 4 random images of 64x128, float32" """
    height, width = config.image
    some = f"{config.attributes} attributes" if config.attributes else f"three dense tasks ({', '.join(tasks(config))})"
    return f"{some} on {config.batch_size} random images of {height}x{width}, {config.precision}"
