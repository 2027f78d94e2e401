"""What metrics cost beside the network's forward pass. `python -m mtlbench.bench metrics`

Per image of evaluation: one forward pass of all tasks, and the sums of each task's meters over its prediction, as
`fit.evaluate` takes them. Keys are in conf/bench_metrics.yaml.
"""

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from omegaconf import DictConfig

from mtlbench import build, parallel
from mtlbench import config as configuration
from mtlbench.benchmarks import table, workload
from mtlbench.benchmarks.files import save
from mtlbench.benchmarks.training import finish
from mtlbench.fit import PRECISIONS
from mtlbench.parallel import Ranks
from mtlbench.rows import at_least_float32


@dataclass(frozen=True)
class MetricCost:
    """Medians over the repeats, of a batch. share: of the forward pass beside it, with quartiles."""

    task: str
    metrics: str
    seconds: float
    forward_seconds: float
    share: float
    share_lower: float
    share_upper: float


def measure(config: DictConfig, ranks: Ranks) -> list[MetricCost]:
    """A row for each task, then one for all of them together."""
    tasks = workload.tasks(config)
    model = build.model(config, SimpleNamespace(tasks=tasks, all_tasks=()), ranks).eval()
    image, targets = workload.batch(config, PRECISIONS[config.precision], ranks.device)
    autocast = torch.autocast(ranks.device.type, torch.bfloat16, enabled=config.precision == "bfloat16")
    forward, spent = [], {name: [] for name in tasks}

    def now() -> float:
        finish(ranks.device)
        return time.perf_counter()

    for repeat in range(1 + config.repeats):  # the first warms up
        with torch.inference_mode():
            begin = now()
            with autocast:
                predictions = model(image)
            forward.append(now() - begin)
            for name, task in tasks.items():
                begin = now()
                for meter in task.meters:
                    meter.sums(at_least_float32(predictions[name]), targets[name])
                spent[name].append(now() - begin)
        if repeat == 0:
            forward.clear(), [times.clear() for times in spent.values()]
    spent["all tasks"] = [sum(times) for times in zip(*spent.values(), strict=True)]
    rows = []
    for name, times in spent.items():
        names = ", ".join(m.name for m in tasks[name].metrics) if name in tasks else ""
        shares = [mine / its for mine, its in zip(times, forward, strict=True)]
        lower, middle, upper = statistics.quantiles(shares, n=4, method="inclusive")
        seconds = statistics.median(times), statistics.median(forward)
        rows.append(MetricCost(name, names, *seconds, middle, lower, upper))
    return rows


def bench_metrics(overrides: Sequence[str]) -> str:
    """Measures, prints and writes the table."""
    config, choices = configuration.load_run(overrides, name="bench_metrics")
    if config.repeats < 2 or config.batch_size < 1:
        raise ValueError(
            f"repeats={config.repeats} batch_size={config.batch_size}: expected at least 2 repeats and 1 image."
        )
    if config.precision not in PRECISIONS:
        raise ValueError(f"precision={config.precision}: expected {', '.join(PRECISIONS)}.")
    ranks = parallel.start(config.machine.device)
    if ranks.size > 1:
        raise ValueError("mtlbench.bench metrics measures one process: start it without torchrun.")
    build.prepare(config.machine)
    facts = table.machine(ranks.device)
    rows = measure(config, ranks)
    described = f"{choices['backbone']} + {choices['head']}, {workload.described(config)}"
    text = report(rows, facts, described, config.repeats)
    save(rows, text, facts["device"], choices["workload"], Path(config.folder))
    print(f"{text}\nfiles in {config.folder}")
    return "done"


def report(rows: Sequence[MetricCost], facts: Mapping[str, str], described: str, repeats: int) -> str:
    forward = 1000 * rows[0].forward_seconds
    lines = [
        "# Cost of metrics beside the forward pass",
        "",
        f"{described}. The forward pass of all tasks takes {forward:.0f} ms; given are the medians of {repeats} "
        f"passes, each with its metrics, and the quartiles.",
        "",
        "| task | metrics | time | of the forward pass | quartiles |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.task} | {row.metrics} | {1000 * row.seconds:.1f} ms | {100 * row.share:.2f} % "
            f"| {100 * row.share_lower:.2f} to {100 * row.share_upper:.2f} % |"
        )
    return "\n".join([*lines, "", *(f"- {key}: {value}" for key, value in facts.items())]) + "\n"
