"""A network as a configuration describes it, without data and without values: for counting."""

import tempfile
from pathlib import Path

import torch
from omegaconf import DictConfig, open_dict

from mtlbench import build
from mtlbench import config as configuration
from mtlbench.dataset import MultiTaskDataset
from mtlbench.inspecting.counting import Counted
from mtlbench.parallel import Ranks


def unread(config: DictConfig) -> MultiTaskDataset:
    """The dataset as far as it is made without files. Raises ValueError where not even its tasks are known then."""
    made = configuration.partial(config.dataset)
    dataset = made.func.__new__(made.func)
    with tempfile.TemporaryDirectory() as nothing:
        try:
            dataset.__init__(*made.args, folder=Path(nothing), seed=config.seed, **made.keywords)
        except ValueError:  # for want of files, in which case the tasks are chosen already; or for a wrong option
            if "tasks" not in vars(dataset):
                raise
    return dataset


def shape_of(config: DictConfig, dataset: MultiTaskDataset) -> tuple[int, int, int]:
    """(channels, height, width) of an image: as typed, else a crop in evaluation, else the dataset's size or own.

    Raises ValueError where none of them is given, or for something that is no height and width.
    """
    channels, *own = dataset.image_shape or (3,)
    evaluation = config.dataset.get("evaluation") or {}
    crop = evaluation.get("crop")
    size = config.image or ([crop, crop] if crop else None) or config.dataset.get("size") or own
    if isinstance(size, int):
        size = [size, size]
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(f"image={size}: a height and a width are expected. Type for example image=[256,512].")
    return channels, size[0], size[1]


def counted(config: DictConfig, dataset: MultiTaskDataset, shape: tuple[int, int, int]) -> Counted:
    """The configured network for the dataset's tasks, counted on one image [1, *shape] without values."""
    config = config.copy()
    with open_dict(config):
        if "weights" in config.backbone:
            config.backbone.weights = None  # which values is no part of the count
        config.precision, config.machine.compile = "float32", False
    ranks = Ranks(0, 1, torch.device("meta"))
    with torch.device("meta"), torch.random.fork_rng(devices=[]):  # the weights' seed is not this process's
        network = build.model(config, dataset, ranks)
        return Counted(network, torch.empty(1, *shape))
