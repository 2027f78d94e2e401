"""Epochs, evaluation, checkpoint and resume, stop signals: everything between a built model and its numbers."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mtlbench.dataset import MultiTaskDataset, Split
from mtlbench.epoch import EpochStatistics
from mtlbench.loader import EvaluationOrder, TrainingOrder, loader
from mtlbench.parallel import Ranks
from mtlbench.record import Run
from mtlbench.schedule import Schedule
from mtlbench.seeds import seed_of
from mtlbench.signals import Stop
from mtlbench.stats import mean_relative_improvement
from mtlbench.step import StepResult, losses_after, step
from mtlbench.task import Task, added
from mtlbench.weighting import Indicator, Weighting, overrides

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}
"""The parameters' type; bfloat16 is autocast over float32 parameters. float16 would need loss scaling."""


@dataclass(frozen=True)
class Settings:
    """The numbers of a run, as in conf/train.yaml, and of the machine, as in conf/machine/local.yaml."""

    seed: int
    epochs: int
    batch_size: int
    evaluate_every: int
    precision: str
    clip_norm: float | None
    workers: int
    evaluation_batch: int
    checkpoint_minutes: float
    micro_batches: int = 1

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision}: expected {', '.join(PRECISIONS)}.")
        for name in ("epochs", "batch_size", "evaluate_every", "evaluation_batch", "micro_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 1.")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"clip_norm={self.clip_norm}: expected a positive number or null.")

    @property
    def autocast(self) -> torch.dtype | None:
        return torch.bfloat16 if self.precision == "bfloat16" else None


class Stopped(Exception):
    """A signal came; the state is saved and the run can go on from here."""


Report = Callable[..., None]
"""report(line) after an epoch, report(step=, of=, epoch=, loss=) after a step: progress for a person."""


class Fit:
    """One training run: `train()` goes from wherever its checkpoint stands to the end."""

    def __init__(
        self,
        run: Run | None,
        model: nn.Module,
        dataset: MultiTaskDataset,
        method: Weighting,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        settings: Settings,
        ranks: Ranks,
        report: Report = lambda *args, **keys: None,
    ):
        self.run, self.model, self.dataset, self.method = run, model, dataset, method
        self.optimizer, self.schedule, self.settings, self.ranks = optimizer, schedule, settings, ranks
        self.report = report
        check_meters(dataset.tasks, settings, ranks)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        split = dataset.split("train")
        assert split is not None
        self.order = TrainingOrder(len(split), settings.batch_size, settings.seed, ranks)
        self.loader = loader(split, self.order, settings.workers, ranks.device)
        self.parts = {name: dataset.split(name) for name in ("val", "test")}
        self.per_epoch = len(split) // settings.batch_size
        self.epoch, self.done_steps = 0, 0
        self.statistics = EpochStatistics(list(dataset.tasks))
        self.best: dict[str, Any] = {"epoch": None, "score": None, "first": None}
        self.diverged: dict[str, Any] | None = None
        self.seconds = 0.0
        self.around: dict[str, Any] = {}  # what a checkpoint notes besides: versions, threads, ranks
        self._saved_at = time.monotonic()

    def train(self, stop: Stop) -> None:
        """Raises Stopped after a signal, with the state saved. A divergence ends the run and is a result."""
        while self.epoch < self.settings.epochs and self.diverged is None:
            begin = time.monotonic()
            self._train_epoch(stop)
            self._finish_epoch(stop)
            self.seconds += time.monotonic() - begin
            self.save()
            if self.epoch < self.settings.epochs:
                self._obey(stop)

    def _train_epoch(self, stop: Stop) -> None:
        self.model.train()
        self.order.epoch, self.order.start = self.epoch, self.done_steps
        asked = time.perf_counter()
        for batch in self.loader:
            got = time.perf_counter()
            result = self.step(batch.image, batch.targets)
            if result.problem:
                self.diverged = {"epoch": self.epoch, "step": self.done_steps, "reason": result.problem}
                return
            self.done_steps += 1
            now = time.perf_counter()
            self.statistics.add(result, now - got, got - asked)
            self.report(step=self.done_steps, of=self.per_epoch, epoch=self.epoch, loss=result.losses.sum().item())
            asked = now
            self._obey(stop)

    def step(self, image: Tensor, targets: Mapping[str, Tensor]) -> StepResult:
        """One batch: gradients, and unless they are not finite the update."""
        seed, epoch, k = self.settings.seed, self.epoch, self.done_steps
        torch.manual_seed(seed_of(seed, "step", epoch, k, self.ranks.rank))  # dropout
        rng = torch.Generator().manual_seed(seed_of(seed, "method", epoch, k))
        image, targets = self._to_device(image, targets)
        keys = {
            "ranks": self.ranks,
            "autocast": self.settings.autocast,
            "micro_batches": self.settings.micro_batches,
        }
        result = step(self.model, self.dataset.tasks, self.method, image, targets, rng=rng, **keys)
        if result.problem:
            return result
        if self.settings.clip_norm and result.gradient_norm > self.settings.clip_norm:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, self.settings.clip_norm / result.gradient_norm)
        factor = self.schedule(epoch * self.per_epoch + k, self.per_epoch, self.settings.epochs)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.step()
        if overrides(self.method, "after_step") and result.tasks:
            torch.manual_seed(seed_of(seed, "step", epoch, k, self.ranks.rank))  # the same dropout as before
            after = losses_after(self.model, self.dataset.tasks, image, targets, result.tasks, **keys)
            self.method.after_step(after, result.tasks)
        return result

    def _to_device(self, image: Tensor, targets: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        kind = next(self.model.parameters())
        moved = {name: target.to(kind.device, non_blocking=True) for name, target in targets.items()}
        moved = {name: t.to(kind.dtype) if t.is_floating_point() else t for name, t in moved.items()}
        return image.to(kind.device, kind.dtype, non_blocking=True), moved

    def _obey(self, stop: Stop) -> None:
        """Saves and raises after a signal that any rank got, and saves after a while within a long epoch."""
        wanted = stop.number
        if self.ranks.size > 1:  # the ranks must agree on the step after which they stop
            wanted = int(self.ranks.sum(torch.tensor(wanted, device=self.ranks.device)).item())
        if wanted:
            self.save()
            raise Stopped
        late = time.monotonic() - self._saved_at > 60 * self.settings.checkpoint_minutes
        if self.ranks.rank == 0 and late:
            self.save()

    def _finish_epoch(self, stop: Stop) -> None:
        factor = self.schedule(self.epoch * self.per_epoch, self.per_epoch, self.settings.epochs)
        line = self.statistics.line(self.epoch, self.rates[0] * factor)
        last = self.epoch + 1 == self.settings.epochs
        measure = (last or (self.epoch + 1) % self.settings.evaluate_every == 0) and self.diverged is None
        for name, split in self.parts.items():
            line[name] = self.evaluate(split, lambda: self._obey_alone(stop)) if split and measure else None
        if self.diverged is None:
            validation = line["val"] or {}  # never the test part: a method must not see it
            first = {name: task.metrics[0] for name, task in self.dataset.tasks.items()}
            indicators = {
                name: Indicator(validation[f"{name}/{metric.name}"], metric.higher_is_better, metric.unit)
                for name, metric in first.items()
                if f"{name}/{metric.name}" in validation
            }
            self.method.after_epoch(line["losses"], indicators)
        if self.run is not None:
            self.run.append(line)
        self._remember_best(line["val"])
        self.report(line)
        self.epoch, self.done_steps = self.epoch + 1, 0
        self.statistics = EpochStatistics(self.statistics.tasks)

    def _obey_alone(self, stop: Stop) -> None:
        """In an evaluation the ranks cannot agree; one process alone may stop and evaluate when it is back."""
        if self.ranks.size == 1 and stop.number:
            self._obey(stop)

    def evaluate(self, split: Split, between: Callable[[], None] = lambda: None) -> dict[str, float]:
        """The metrics "task/metric" of a split, as sums over the whole of it and over ranks."""
        return evaluate(self.model, self.dataset, split, self.settings, self.ranks, between)

    def _remember_best(self, values: dict[str, float] | None) -> None:
        """Keeps in best.pt the weights with the best mean relative improvement over the run's first evaluation."""
        if values is None:
            return
        first = self.best["first"] = self.best["first"] or values
        better = {f"{t.name}/{m.name}": m.higher_is_better for t in self.dataset.tasks.values() for m in t.metrics}
        now, then = list(values.values()), [first[name] for name in values]
        score = float(mean_relative_improvement(now, then, [better[name] for name in values]))
        if self.best["score"] is None or score > self.best["score"]:
            self.best.update(epoch=self.epoch, score=score)
            if self.run is not None:
                self.run.save_best({"model": self.model.state_dict(), "epoch": self.epoch, "values": values})

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "done_steps": self.done_steps,
            "statistics": self.statistics.state_dict(),
            "best": self.best,
            "diverged": self.diverged,
            "seconds": self.seconds,
            "random": torch.get_rng_state(),
            **self.around,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part in ("model", "method", "optimizer"):
            getattr(self, part).load_state_dict(state[part])
        self.epoch, self.done_steps = state["epoch"], state["done_steps"]
        self.statistics.load_state_dict(state["statistics"])
        self.best, self.diverged, self.seconds = state["best"], state["diverged"], state["seconds"]
        torch.set_rng_state(state["random"])

    def save(self) -> None:
        self._saved_at = time.monotonic()
        if self.run is not None:
            self.run.save(self.state_dict())


@torch.no_grad()
def evaluate(
    model: nn.Module,
    dataset: MultiTaskDataset,
    split: Split,
    settings: Settings,
    ranks: Ranks,
    between: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """The metrics "task/metric" of a split in evaluation mode; the ranks share the images.

    `between` is called before each batch. The model is left in the mode it was in.
    """
    check_meters(dataset.tasks, settings, ranks)
    was_training = model.training
    model.eval()
    kind = next(model.parameters())
    order = EvaluationOrder(len(split), settings.evaluation_batch, ranks)
    sums: dict[str, list[Tensor]] = {}
    for image, targets in loader(split, order, settings.workers, ranks.device):
        between()
        with torch.autocast(kind.device.type, settings.autocast, enabled=settings.autocast is not None):
            predictions = dataset.predict(model, image.to(kind.device, kind.dtype))
        for name, task in dataset.tasks.items():
            target = targets[name].to(kind.device)
            batch = [meter.sums(predictions[name].to(kind.dtype), target) for meter in task.meters]
            total = sums.get(name, [None] * len(batch))
            sums[name] = [added(*parts) for parts in zip(task.meters, total, batch, strict=True)]
    values = {}
    for name, task in dataset.tasks.items():
        for i, meter in enumerate(task.meters):
            total = ranks.laid_end_to_end(sums[name][i]) if meter.gathers else ranks.sum(sums[name][i])
            values.update({f"{name}/{metric}": value for metric, value in meter.values(total.cpu()).items()})
    model.train(was_training)
    return values


def check_meters(tasks: Mapping[str, Task], settings: Settings, ranks: Ranks) -> None:
    """Raises ValueError where a metric is a mean over batches that these ranks or these batches are not."""
    for name, task in tasks.items():
        for meter in task.meters:
            if meter.together > 1 and (ranks.size > 1 or settings.evaluation_batch % meter.together):
                raise ValueError(
                    f"{name}/{meter.metrics[0].name} is a mean over batches of {meter.together} images: it needs one "
                    f"process and evaluation in batches of them; found {ranks.size} and "
                    f"{settings.evaluation_batch}. Type machine.evaluation_batch={meter.together} without torchrun, or "
                    f"choose the metric over the whole set (pooled)."
                )
