"""records.csv: every number of a sweep, tidy."""

import csv
import io
import math
import shlex
from collections.abc import Sequence
from typing import Any

from mtlbench.aggregation.comparison import Comparison
from mtlbench.aggregation.gather import Result

COLUMNS = (
    *("run", "label", "method", "optimizer", "lr", "seed", "tasks", "task", "metric", "unit", "higher_is_better"),
    *(
        "split",
        "value",
        "select",
        "epoch",
        "chosen",
        "state",
        "synthetic",
        "dataset",
        "backbone",
        "epochs",
        "precision",
    ),
    *("seconds_per_step", "weights_sum", "device", "source_hash", "method_hash", "commit", "dirty", "fingerprint"),
    "overrides",
)


def records(comparisons: Sequence[Comparison]) -> str:
    """records.csv: full precision, nothing formatted. A cell without numbers has one row, without metric and value."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    own = [COLUMNS.index(key) for key in ("task", "metric", "unit", "higher_is_better", "split", "value", "epoch")]
    for comparison in comparisons:
        chosen = {r.id for row in [*comparison.single.values(), *comparison.rows] for r in row.results}
        for result in comparison.results:
            common = _common(result, comparison.rules.select, result.id in chosen)
            line = [_csv(common.get(key)) for key in COLUMNS]
            for numbers in _numbers(result) or [(None,) * len(own)]:
                for place, value in zip(own, numbers, strict=True):
                    line[place] = _csv(value)
                writer.writerow(line)
    return text.getvalue()


def _common(result: Result, select: str, chosen: bool) -> dict[str, Any]:
    entry, config = result.record or {}, result.config
    git = entry.get("git") or {}
    common = {
        "run": result.id,
        "label": result.label,
        "method": result.option("method"),
        "optimizer": result.option("optimizer"),
        "lr": (config.get("optimizer") or {}).get("lr"),
        "seed": result.seed,
        "tasks": " ".join(result.tasks or ["all"]),
        "select": select,
        "chosen": chosen,
        "state": result.state,
        "dataset": result.option("dataset"),
        "backbone": result.option("backbone"),
        "epochs": config["epochs"],
        "precision": config["precision"],
        "weights_sum": result.weights_sum,
        "commit": git.get("commit"),
        "dirty": git.get("dirty"),
        "overrides": shlex.join(text for text in result.overrides if not text.startswith("machine")),
    }
    return common | {key: entry.get(key) for key in COLUMNS if key in entry and key not in common}


def _numbers(result: Result) -> list[tuple]:
    """Of each split and metric: task, metric, unit, higher_is_better, split, value, epoch."""
    found = []
    for split, values in result.values.items():
        for name, value in values.items():
            task, _, metric = name.partition("/")
            entry = result.record["metrics"][name]
            facts = (task, metric, entry["unit"], entry["higher_is_better"], split, float(value), result.epoch)
            found.append(facts)
    return found


def _csv(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
