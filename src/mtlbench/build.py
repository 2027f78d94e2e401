"""From a configuration to a run that can be trained: the objects, the machine, the checkpoint to go on from."""

import os
import platform
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from mtlbench import config as configuration
from mtlbench import memory
from mtlbench.activations import checkpoint_activations
from mtlbench.batch_norm import synchronise_batch_norm
from mtlbench.dataset import MultiTaskDataset
from mtlbench.fit import PRECISIONS, Fit, Settings
from mtlbench.losses import scaled
from mtlbench.model import HeadMaker, MapHead
from mtlbench.parallel import Ranks
from mtlbench.record import Run
from mtlbench.task import Task
from mtlbench.weighting import Weighting, check_level


def prepare(machine: DictConfig) -> None:
    """Threads, memory and determinism of this process."""
    if machine.threads is not None:
        torch.set_num_threads(machine.threads)
    if machine.keep_memory:
        memory.keep_freed()
    if machine.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.utils.deterministic.fill_uninitialized_memory = False  # costs time; nothing here reads such memory
    torch.use_deterministic_algorithms(machine.deterministic, warn_only=True)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()  # of this run, not of the one before in the same process


@contextmanager
def watching_determinism(on: bool) -> Iterator[list[str]]:
    """Collects the operations that torch warns have no deterministic form; other warnings pass."""
    found: list[str] = []
    show = warnings.showwarning

    def note(message: Warning | str, *rest: Any, **more: Any) -> None:
        text = str(message)
        if "deterministic" in text and "does not have a deterministic implementation" in text:
            operation = text.split(" does not have")[0].strip()
            if operation not in found:
                found.append(operation)
        else:
            show(message, *rest, **more)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=".*deterministic implementation.*")
        warnings.showwarning = note
        try:
            yield found
        finally:
            warnings.showwarning = show


def dataset(config: DictConfig) -> MultiTaskDataset:
    """The data and its tasks, their losses multiplied by `loss_scale`. Raises ValueError for a wrong scale."""
    if config.loss_scale is not None and not isinstance(config.loss_scale, DictConfig):
        raise ValueError(
            f"loss_scale={config.loss_scale}: expected null, or tasks and what multiplies their losses: "
            f"'loss_scale={{left: 10}}'."
        )
    built = configuration.build(config.dataset, folder=Path(config.machine.data), seed=config.seed)
    if config.machine.get("cache") is not None:
        if built.image_files is None:
            kind = type(built).__name__
            warnings.warn(f"machine.cache: {kind} reads no image files, so nothing is kept there.", stacklevel=2)
        else:
            built.image_files.keep_in(Path(config.machine.cache))
    built.tasks = scaled(built.tasks, dict(config.loss_scale or {}))
    return built


def settings(config: DictConfig, ranks: Ranks) -> Settings:
    """The run's numbers, checked. Raises ValueError, also where the ranks do not divide the batch."""
    part = ranks.slice(config.batch_size)
    images = part.stop - part.start
    if config.micro_batches < 1 or images % config.micro_batches:
        fitting = [k for k in range(1, images + 1) if images % k == 0]
        raise ValueError(
            f"micro_batches={config.micro_batches}: it does not divide the {images} images of each process. Type one "
            f"of {', '.join(map(str, fitting))}."
        )
    return Settings(
        seed=config.seed,
        epochs=config.epochs,
        batch_size=config.batch_size,
        evaluate_every=config.evaluate_every,
        precision=config.precision,
        clip_norm=config.clip_norm,
        workers=config.machine.workers,
        evaluation_batch=config.machine.evaluation_batch or part.stop - part.start,
        checkpoint_minutes=config.machine.checkpoint_minutes,
        micro_batches=config.micro_batches,
    )


def heads(
    config: DictConfig, tasks: Mapping[str, Task], all_tasks: Collection[str] = ()
) -> HeadMaker | dict[str, HeadMaker]:
    """What makes the heads: `head` for all tasks, or by task where `head_of` has another one for some of them.

    Raises ValueError for a task that neither the run nor `all_tasks` has, for what is no head, and for a head of maps
    where the task is of the image as a whole.
    """
    common, own = configuration.partial(config.head), config.get("head_of") or {}
    for name, task in tasks.items():
        kind = getattr(common, "func", None)
        if task.output == "vector" and name not in own and isinstance(kind, type) and issubclass(kind, MapHead):
            raise ValueError(
                f"{name} is a task of the image as a whole, and this head ({kind.__name__}) gives maps. Type "
                f"+head@head_of.{name}=linear."
            )
    if not own:
        return common
    unknown = [str(task) for task in own if task not in (*tasks, *all_tasks)]
    if unknown:
        raise ValueError(f"head_of.{unknown[0]}: there is no such task. There are: {', '.join(tasks)}.")
    for task, node in own.items():
        if not isinstance(node, DictConfig) or "_target_" not in node:
            raise ValueError(
                f"head_of.{task}={node}: expected an option of the group head. Type +head@head_of.{task}={node}."
            )
    return {task: configuration.partial(own[task]) if task in own else common for task in tasks}


def model(config: DictConfig, dataset: MultiTaskDataset, ranks: Ranks) -> nn.Module:
    """The network with its initial weights, which depend on the seed and the network alone."""
    torch.manual_seed(config.seed)
    network = configuration.build(
        config.architecture,
        backbone=configuration.partial(config.backbone),  # some architectures need several
        head=heads(config, dataset.tasks, dataset.all_tasks),
        tasks=dataset.tasks,
    )
    if config.sync_batch_norm and ranks.size > 1:
        network = synchronise_batch_norm(network, ranks)
    network = network.to(ranks.device, PRECISIONS[config.precision])
    if config.machine.channels_last:
        network = network.to(memory_format=torch.channels_last)
    if config.machine.checkpoint_activations:
        if config.machine.compile:
            raise ValueError("machine.checkpoint_activations and machine.compile exclude each other: type one of them.")
        checkpoint_activations(network)
    if config.machine.compile:
        network.compile_trunk()
    return network


def method(config: DictConfig, dataset: MultiTaskDataset, network: nn.Module) -> Weighting:
    """The weighting method, checked against what the network can give it."""
    built = configuration.build_method(config.method, tasks=list(dataset.tasks)).double()
    check_level(built, network)
    return built


def parameter_groups(network: nn.Module, rate: float) -> list[dict[str, Any]]:
    """The network's parameters as groups of the optimizer, whose learning rate is `rate`."""
    faster = [(parameters, factor) for parameters, factor in network.faster() if factor != 1 and parameters]
    apart = {id(p) for parameters, _ in faster for p in parameters}
    trained = [p for p in network.parameters() if p.requires_grad and id(p) not in apart]
    return [{"params": trained}, *({"params": ps, "lr": factor * rate} for ps, factor in faster)]


def fit(config: DictConfig, dataset: MultiTaskDataset, numbers: Settings, ranks: Ranks, run: Run | None) -> Fit:
    """Everything of a run, at its beginning."""
    network = model(config, dataset, ranks)
    weighting = method(config, dataset, network)
    groups = [*parameter_groups(network, config.optimizer.lr), *weighting.parameter_groups()]
    optimizer = configuration.build(config.optimizer, groups)
    schedule = configuration.build(config.schedule)
    if network.columns > 1:
        image, _ = dataset.split("train")[0, 0]
        images = numbers.batch_size // ranks.size // numbers.micro_batches
        memory.warn(memory.parts(network, weighting, optimizer, image.shape, images), network.columns, ranks.device)
    return Fit(run, network, dataset, weighting, optimizer, schedule, numbers, ranks)


def surroundings(ranks: Ranks) -> dict[str, Any]:
    """What the same bits need besides the configuration, as a checkpoint and the record keep it."""
    cuda = ranks.device.type == "cuda"
    return {
        "world_size": ranks.size,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(ranks.device) if cuda else f"cpu {platform.machine()}",
        "torch": str(torch.__version__),  # a class of torch's own, which a checkpoint must not hold
        "python": platform.python_version(),
    }


def resume(started: Fit, run: Run | None, ranks: Ranks, allow_change: bool) -> None:
    """Puts the run where its checkpoint left it, and notes what has changed around it since.

    Raises ValueError if something that the bits depend on has changed and `machine.allow_change` is not set.
    """
    state = ranks.broadcast_state(run.load() if run is not None else None)
    now = surroundings(ranks)
    changed = None
    if state is not None:
        then = state["surroundings"]
        different = {key: [then.get(key), value] for key, value in now.items() if then.get(key) != value}
        if different and not allow_change:
            listed = "; ".join(f"{key} was {old}, is {new}" for key, (old, new) in different.items())
            raise ValueError(
                f"run {run.id if run else ''}: its checkpoint was made elsewhere ({listed}), so going on would not "
                f"give the same bits. Type machine.allow_change=true to go on all the same; the record will say so."
            )
        changed = {**(state["changed"] or {}), **different} or None
        started.load_state_dict(state)
    started.around = {"surroundings": now, "changed": changed}
    if run is not None:
        run.keep_lines(started.epoch)
