"""What a finished run's record.json says."""

import resource
import statistics
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from mtlbench import config as configuration
from mtlbench import provenance
from mtlbench.dataset import MultiTaskDataset
from mtlbench.fit import Fit
from mtlbench.parallel import Ranks
from mtlbench.record import Run
from mtlbench.weighting import Weighting


def entry(
    config: DictConfig,
    choices: dict[str, str],
    dataset: MultiTaskDataset,
    fit: Fit,
    ranks: Ranks,
    run: Run,
    nondeterministic: list[str],
) -> dict[str, Any]:
    """The record of a run that has ended, by its last epoch or by divergence."""
    lines = run.lines()
    steps = [line["seconds_per_step"] for line in lines if line["seconds_per_step"] is not None]
    waits = [line["data_wait"] for line in lines if line["data_wait"] is not None]
    around = fit.around["surroundings"]
    evaluated = [line["test"] for line in lines if line.get("test")]
    return {
        "run": run.id,
        "config": configuration.identity(config),
        "machine": OmegaConf.to_container(config.machine, resolve=True),
        "choices": choices,
        "method": choices.get("method", type(fit.method).__name__),
        "tasks": list(dataset.tasks),
        "metrics": {
            f"{task.name}/{metric.name}": {
                "higher_is_better": metric.higher_is_better,
                "unit": metric.unit,
                **({"error": metric.error} if metric.error else {}),
                "primary": metric is task.metrics[0],
            }
            for task in dataset.tasks.values()
            for metric in task.metrics
        },
        "last": evaluated[-1] if evaluated else {},
        "synthetic": dataset.synthetic,
        "fingerprint": dataset.fingerprint(),
        "left_out": dict(dataset.left_out),
        "git": provenance.git_state(),
        "source_hash": provenance.source_hash(),
        "method_hash": provenance.hash_of(*(m for m in fit.method.modules() if isinstance(m, Weighting))),
        "versions": provenance.versions(),
        "device": around["device"],
        "world_size": around["world_size"],
        "threads": around["threads"],
        "parameters": _parameters(fit),
        "peak_memory_bytes": _peak_memory(ranks),
        "nondeterministic": sorted(nondeterministic),
        "diverged": fit.diverged,
        "degenerate": _degenerate(lines),
        "epochs": len(lines),
        "seconds": fit.seconds,
        "seconds_per_step": statistics.median(steps) if steps else None,
        "load": provenance.load(),
        "data_wait": statistics.mean(waits) if waits else None,
        "best_epoch": fit.best["epoch"],
        "changed": fit.around["changed"],
    }


def _degenerate(lines: list[dict[str, Any]]) -> dict[str, int]:
    """Over the run: {what the method met: in how many steps}."""
    total: dict[str, int] = {}
    for line in lines:
        for note, steps in line.get("degenerate", {}).items():
            total[note] = total.get(note, 0) + steps
    return total


def _parameters(fit: Fit) -> dict[str, int]:
    shared = sum(p.numel() for p in fit.model.shared_parameters())
    own = {task: sum(p.numel() for p in fit.model.task_parameters(task)) for task in fit.dataset.tasks}
    return {"shared": shared, **own}


def _peak_memory(ranks: Ranks) -> int:
    """Bytes: of the GPU where there is one, otherwise the largest resident size of the process so far."""
    if ranks.device.type == "cuda":
        return torch.cuda.max_memory_allocated(ranks.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
