"""The change of each metric when one loss is multiplied, over a sweep's runs (IMTL, Liu et al. 2021, Table 1)."""

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtlbench.aggregation.gather import Result, gather
from mtlbench.aggregation.status import states
from mtlbench.aggregation.tables import Cell, Table, markdown
from mtlbench.analysis.loss_scale_page import csv_text
from mtlbench.cells import cells, runs_of

HEAD = """# One loss multiplied: what becomes of each metric

Written by `python -m mtlbench.analysis.loss_scale` from the finished runs of {sweep}; not to be edited.

IMTL's test (Liu et al. 2021, Table 1): the same run with one task's loss multiplied before any method sees it. Metrics
of the last epoch on the test part, means over the seeds of which both runs are done; change: scaled less plain, seed by
seed, ± its standard deviation.
"""


@dataclass(frozen=True)
class Change:
    """One metric of one method and optimizer. pairs: [(plain, scaled)] of the seeds of which both runs are done.

    lost: what became of the other seeds. scale: what multiplied the losses.
    """

    method: str
    optimizer: str
    lr: float | None
    scale: str
    metric: str
    unit: str
    higher_is_better: bool
    pairs: tuple[tuple[float, float], ...]
    lost: str

    def mean(self, place: int) -> float:
        return statistics.fmean(pair[place] for pair in self.pairs)

    @property
    def change(self) -> float:
        return statistics.fmean(scaled - plain for plain, scaled in self.pairs)

    @property
    def spread(self) -> float | None:
        """The standard deviation of the change over seeds."""
        found = [scaled - plain for plain, scaled in self.pairs]
        return statistics.stdev(found) if len(found) > 1 else None


def changes(sweep: Path, overrides: Sequence[str]) -> list[Change]:
    """Of the multi-task runs of a sweep, at their last epoch, on test.

    Raises ValueError where no method has a finished run with plain and one with scaled losses.
    """
    results, _ = gather(cells(sweep, overrides), runs_of(overrides), sweep.resolve().name)
    many = [result for result in results if result.tasks is None or len(result.tasks) > 1]
    groups: dict[str, dict[str, dict[int, Result]]] = {}
    for result in many:
        rest = {key: value for key, value in result.config.items() if key not in ("seed", "loss_scale")}
        scale = json.dumps(result.config.get("loss_scale"), sort_keys=True)
        groups.setdefault(json.dumps(rest, sort_keys=True), {}).setdefault(scale, {})[result.seed] = result
    found = []
    for runs in groups.values():
        plain = runs.get("null", {})
        for scale, scaled in runs.items():
            if scale != "null":
                found += _of_pairs(plain, scaled)
    if not any(change.pairs for change in found):
        raise ValueError(
            f"{sweep}: no method has a finished run with plain and one with scaled losses ({states(many)}). Run it:\n"
            f"  python -m mtlbench.sweep run {' '.join([str(sweep), *overrides])}"
        )
    return sorted(found, key=lambda c: (c.optimizer, c.lr or 0, c.scale, c.method != "equal", c.method, c.metric))


def _of_pairs(plain: dict[int, Result], scaled: dict[int, Result]) -> list[Change]:
    seeds = sorted({*plain, *scaled})
    both = [
        (plain[s], scaled[s]) for s in seeds if all(s in runs and runs[s].state == "done" for runs in (plain, scaled))
    ]
    count: Counter[str] = Counter()
    for name, runs in (("plain", plain), ("scaled", scaled)):
        for seed in seeds:
            state = runs[seed].state if seed in runs else "not in the sweep"
            count[f"{name} {state}"] += state != "done"
    lost = ", ".join(f"{number} {what}" for what, number in sorted(count.items()) if number)
    one = next(iter(scaled.values()))
    scale = ", ".join(f"{task} x {factor:g}" for task, factor in one.config["loss_scale"].items())
    facts = one.option("method"), one.option("optimizer"), (one.config["optimizer"] or {}).get("lr"), scale
    if not both:
        return [Change(*facts, "", "", True, (), lost)]
    metrics = both[0][0].record["metrics"]
    values = [[run.curves.metrics("test", list(metrics))[-1] for run in pair] for pair in both]
    return [
        Change(
            *facts,
            name,
            entry["unit"],
            entry["higher_is_better"],
            tuple((float(one[i]), float(other[i])) for one, other in values),
            lost,
        )
        for i, (name, entry) in enumerate(metrics.items())
    ]


def page(found: Sequence[Change], sweep: str) -> str:
    """changes.md."""
    parts = [HEAD.format(sweep=sweep)]
    for optimizer, lr, scale in dict.fromkeys((c.optimizer, c.lr, c.scale) for c in found):
        mine = [c for c in found if (c.optimizer, c.lr, c.scale) == (optimizer, lr, scale)]
        named = {c.metric: c for c in mine if c.metric}
        head = ["method"]
        for metric, c in named.items():
            title = f"{metric.replace('/', ' ')} {'↑' if c.higher_is_better else '↓'}" + f" [{c.unit}]" * bool(c.unit)
            head += [title, "scaled", "change"]
        table = Table(f"{optimizer}, lr {lr:g}: {scale}", [], [*head, "seeds", "without numbers"])
        for method in dict.fromkeys(c.method for c in mine):
            own = {c.metric: c for c in mine if c.method == method}
            texts = [method]
            for metric in named:
                texts += _shown(own[metric]) if metric in own else ["-", "-", "-"]
            any_one = next(iter(own.values()))
            table.rows.append([Cell(text) for text in (*texts, str(len(any_one.pairs)), any_one.lost or "-")])
        parts.append(markdown(table, 2))
    return "\n".join(parts)


def _shown(change: Change) -> list[str]:
    spread = "" if change.spread is None else f" ± {change.spread:.2f}"
    return [f"{change.mean(0):.2f}", f"{change.mean(1):.2f}", f"{change.change:+.2f}{spread}"]


def table(found: Sequence[Change]) -> str:
    """changes.csv."""
    head = ["method", "optimizer", "lr", "scale", "metric", "unit", "higher_is_better", "seeds"]
    rows = []
    for c in found:
        facts = [c.method, c.optimizer, c.lr, c.scale, c.metric, c.unit, c.higher_is_better, len(c.pairs)]
        rows.append([*facts, *([c.mean(0), c.mean(1), c.change, c.spread] if c.pairs else [None] * 4), c.lost])
    return csv_text([*head, "plain", "scaled", "change", "spread", "lost"], rows)
