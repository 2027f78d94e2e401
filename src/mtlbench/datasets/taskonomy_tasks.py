"""Taskonomy's tasks: channels, losses, metrics."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mtlbench.datasets.taskonomy_values import CHANNELS, NORMALISATIONS
from mtlbench.losses import L1, MSE, Cosine, CrossEntropy, Loss, ShiftedL1, SoftCrossEntropy
from mtlbench.metrics import Confusion, MeanAbsoluteError, MeanSquaredError, NormalAngles, TopAccuracy
from mtlbench.task import Task

MAPS = ("l1", "mse", "shifted_l1")


@dataclass(frozen=True)
class Losses:
    """Which loss each kind of task has; of classes it is the cross-entropy, of scenes that with soft targets.

    maps: of depth, reshading, edges and keypoints: l1 (all public codes), mse, or shifted_l1 (`rotate_loss` in the code
        of Standley et al.: the least over shifts by one pixel).
    curvature: mse (the authors), l1 (Standley et al.), or shifted_l1.
    normals: l1 (all public codes), mse, shifted_l1, or cosine.
    reduction: "components", over those that are valid, or "all", where those that are not count as 0 in the mean
        (Standley et al.: the fewer are valid, the smaller the loss). Of the metrics as well.

    LSB (Lee et al. 2021) leaves its losses to a supplement, the survey (Vandenhende et al. 2021) to another paper.
    Raises ValueError for values that make no sense.
    """

    maps: str = "l1"
    curvature: str = "mse"
    normals: str = "l1"
    reduction: str = "components"

    def __post_init__(self) -> None:
        for key, allowed in {
            "maps": MAPS,
            "curvature": MAPS,
            "normals": (*MAPS, "cosine"),
            "reduction": ("components", "all"),
        }.items():
            if getattr(self, key) not in allowed:
                raise ValueError(f"dataset.losses.{key}={getattr(self, key)}: {', '.join(allowed)} is expected.")

    def of(self, kind: str) -> Loss:
        """The loss of that name."""
        if kind in ("l1", "mse"):
            return {"l1": L1, "mse": MSE}[kind](self.reduction)
        return Cosine() if kind == "cosine" else ShiftedL1()


def tasks_of(
    losses: Losses, normalisation: str, semantic_classes: int, scene_classes: int, absent: str
) -> dict[str, Task]:
    """All tasks. Numbers have the metric l1, in the unit of the normalised target (what LSB's Table 5 has is the task's
    loss), and mse where that is the loss; normals have angles as well, unless the loss is made of angles alone."""
    tasks = {name: _regressed(name, losses, normalisation) for name in CHANNELS}
    meters = [Confusion(semantic_classes, absent=absent)]
    tasks["semantic"] = Task("semantic", semantic_classes, CrossEntropy(), meters)
    tasks["scene"] = Task("scene", scene_classes, SoftCrossEntropy(), [TopAccuracy(5), TopAccuracy(1)], "vector")
    return tasks


def _regressed(name: str, losses: Losses, normalisation: str) -> Task:
    kind = {"curvature": losses.curvature, "normals": losses.normals}.get(name, losses.maps)
    meters = [MeanAbsoluteError("", reduction=losses.reduction)]
    if kind == "mse":
        meters.append(MeanSquaredError("", reduction=losses.reduction))
    unflip: Callable[[Tensor], Tensor] | None = None
    if name == "normals":
        if signed(normalisation):
            angles = NormalAngles(cosine=kind == "cosine")
            meters = [angles] if kind == "cosine" else [*meters, angles]
            unflip = negate_x
        elif kind == "cosine":
            raise ValueError(
                f"dataset.losses.normals=cosine needs vectors, and dataset.normalisation={normalisation} makes numbers "
                f"of 0 to 1 of them. Use dataset.normalisation=taskonomy, or losses.normals=l1."
            )
        else:
            unflip = from_one_x
    return Task(name, CHANNELS[name], losses.of(kind), meters, unflip=unflip)


def signed(normalisation: str) -> bool:
    """Whether the targets of normals are vectors with components of -1 to 1."""
    return NORMALISATIONS[normalisation]["normals"](torch.zeros(1)).item() < 0


def negate_x(normals: Tensor) -> Tensor:
    """Normals [B, 3, H, W] of a mirrored image, mirrored back: x points the other way."""
    return torch.cat([-normals[:, :1], normals[:, 1:]], dim=1)


def from_one_x(normals: Tensor) -> Tensor:
    """The same of components between 0 and 1."""
    return torch.cat([1 - normals[:, :1], normals[:, 1:]], dim=1)
