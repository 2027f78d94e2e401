"""What one epoch's steps add up to: a line of metrics.jsonl."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from mtlbench.step import StepResult


class EpochStatistics:
    """Sums over the steps of one epoch. The state is plain numbers, so that a checkpoint within an epoch keeps it."""

    def __init__(self, tasks: Sequence[str]):
        self.tasks = tuple(tasks)
        self.steps = 0
        self.loss = {task: [0.0, 0.0] for task in tasks}  # sum of loss x valid terms, sum of valid terms
        self.weight = {task: [0.0, math.inf, -math.inf, 0] for task in tasks}  # sum, min, max, steps present
        self.weights_sum = 0.0
        self.norm: dict[str, list[float]] = {}
        self.cosine: dict[str, list[float]] = {}  # "a|b": sum, steps in which both gradients were not zero
        self.absent = dict.fromkeys(tasks, 0)
        self.notes: dict[str, int] = {}  # degenerate input: steps in which the method met it
        self.seconds: list[float] = []
        self.waited: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "tasks"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def add(self, result: StepResult, seconds: float, waited: float) -> None:
        """One step that took `seconds` of computing after `waited` seconds for its batch."""
        self.steps += 1
        self.seconds.append(seconds)
        self.waited.append(waited)
        weights = result.weights.tolist()
        self.weights_sum += sum(weights)
        for task, loss, weight in zip(result.tasks, result.losses.tolist(), weights, strict=True):
            self.loss[task][0] += loss * result.terms[task]
            self.loss[task][1] += result.terms[task]
            total, least, most, steps = self.weight[task]
            self.weight[task] = [total + weight, min(least, weight), max(most, weight), steps + 1]
        for task in self.tasks:
            self.absent[task] += task not in result.tasks
        for note in result.notes:
            self.notes[note] = self.notes.get(note, 0) + 1
        if result.gramian is not None:
            self._add_gramian(result.tasks, result.gramian.tolist())

    def _add_gramian(self, tasks: Sequence[str], gramian: list[list[float]]) -> None:
        norms = [math.sqrt(max(gramian[i][i], 0.0)) for i in range(len(tasks))]
        for i, a in enumerate(tasks):
            total = self.norm.setdefault(a, [0.0, 0])
            total[0], total[1] = total[0] + norms[i], total[1] + 1
            for j in range(i + 1, len(tasks)):
                if norms[i] > 0 and norms[j] > 0:
                    pair = self.cosine.setdefault(f"{a}|{tasks[j]}", [0.0, 0])
                    pair[0], pair[1] = pair[0] + gramian[i][j] / (norms[i] * norms[j]), pair[1] + 1

    def line(self, epoch: int, rate: float) -> dict[str, Any]:
        """The epoch's line, without the evaluation."""
        busy, waited = sum(self.seconds), sum(self.waited)
        return {
            "epoch": epoch,
            "steps": self.steps,
            "lr": rate,
            "losses": {task: total / terms if terms else None for task, (total, terms) in self.loss.items()},
            "weights": {
                task: {"mean": total / steps, "min": least, "max": most} if steps else None
                for task, (total, least, most, steps) in self.weight.items()
            },
            "weights_sum": self.weights_sum / self.steps if self.steps else None,
            "gradient_norms": {task: total / n for task, (total, n) in self.norm.items()} or None,
            "cosines": {pair: total / n for pair, (total, n) in self.cosine.items()} or None,
            "absent": dict(self.absent),
            "degenerate": dict(self.notes),
            "seconds_per_step": statistics.median(self.seconds) if self.seconds else None,
            "data_wait": waited / (busy + waited) if busy + waited > 0 else None,
        }
