"""`make demo`: two small sweeps from nothing to their tables, and whether training has learned to see."""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtlbench import config as configuration
from mtlbench import sweep
from mtlbench.aggregate import aggregate
from mtlbench.aggregation import presentation, tables
from mtlbench.aggregation.comparison import Comparison, Row
from mtlbench.console import duration, number
from mtlbench.synthesize import synthesize

ACCURACY = 93.0
"""Percent of unseen digits that equal and every single-task network must tell."""

MIOU, DISPARITY = 1.3, 0.8
"""Of what the best prediction that ignores the image reaches: semantic mIoU at least, disparity error at most."""

SCENES = ["dataset.height=64", "dataset.width=128", "dataset.train=240", "dataset.val=48"]
"""The street scenes of the demo."""


@dataclass(frozen=True)
class Check:
    """One number that must be on the right side of a limit."""

    row: str
    metric: str
    value: float
    limit: float
    higher: bool
    why: str

    @property
    def holds(self) -> bool:
        return self.value >= self.limit if self.higher else self.value <= self.limit

    def __str__(self) -> str:
        verdict = "learned" if self.holds else "NOT LEARNED"
        bound = "at least" if self.higher else "at most"
        return f"{verdict}: {self.row} {self.metric} {number(self.value)}, {bound} {number(self.limit)} ({self.why})"


def measured(comparison: Comparison, metric: str) -> list[tuple[str, float]]:
    """The mean over seeds of a metric: of equal, and of its own task's single-task networks."""
    task = metric.partition("/")[0]
    equal: Row = next(row for row in comparison.rows if row.results[0].option("method") == "equal")
    rows = [("equal", equal), (f"single_task {task}", comparison.single[task])]
    return [(label, float(row.values([metric]).mean())) for label, row in rows]


def digit_checks(comparison: Comparison) -> list[Check]:
    """Accuracy on unseen digits."""
    return [
        Check(label, metric, value, ACCURACY, True, "guessing gives 10")
        for metric in ("left/accuracy", "right/accuracy")
        for label, value in measured(comparison, metric)
    ]


def scene_checks(comparison: Comparison, folder: Path) -> list[Check]:
    """mIoU and disparity error on unseen scenes, against the most frequent class and the median disparity of the
    training scenes at each pixel."""
    from mtlbench.blind import blind_metrics, blind_prediction

    still = [f"dataset.augmentation.{key}" for key in ("scale=[1,1]", "rotate_probability=0", "flip_probability=0")]
    words = ["experiment=demo_cityscapes", *still, "dataset.augmentation.blur_probability=0"]
    config = configuration.load([*words, "dataset.augmentation.crop=null"])
    dataset = configuration.build(config.dataset, folder=folder, seed=0)
    channels = {name: task.channels for name, task in dataset.tasks.items()}
    blind = blind_metrics(dataset, blind_prediction(dataset.split("train"), channels), dataset.split("test"))
    checks = []
    for metric, factor in (("semantic/miou", MIOU), ("disparity/l1", DISPARITY)):
        why = f"{factor} x {number(blind[metric])}, the best prediction that ignores the image"
        for label, value in measured(comparison, metric):
            checks.append(Check(label, metric, value, factor * blind[metric], factor > 1, why))
    return checks


def run(name: str, overrides: list[str], jobs: int, sweeps: Path, out: Path) -> tuple[Comparison, Path]:
    """One sweep to its tables. Ends the command where a cell failed or was interrupted: the same command goes on."""
    code = sweep.run(sweeps / name, overrides, jobs)
    if code:
        sys.exit(code)
    comparisons, folder = aggregate(str(sweeps / name), overrides, out=str(out))
    (comparison,) = comparisons
    return comparison, folder


def tell(comparison: Comparison, folder: Path, checks: Sequence[Check]) -> bool:
    """Prints the table, what was learned and where the files are; whether every check holds."""
    (folder / "learned.md").write_text("\n".join(["# What was learned", "", *(f"- {c}" for c in checks), ""]))
    tables.show(presentation.table(comparison))
    print("\n".join(map(str, checks)))
    print(f"files: {', '.join(str(path) for path in sorted(folder.iterdir()))}\n", flush=True)
    return all(check.holds for check in checks)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m mtlbench.demo", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="processes that train at the same time")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the runs are kept (runs)")
    parser.add_argument("--data", type=Path, default=Path("data/demo"), help="where the scenes are written (data/demo)")
    parser.add_argument("--out", type=Path, default=Path("results"), help="where the tables go (results)")
    parser.add_argument("--sweeps", type=Path, default=Path("sweeps"), help="where the sweeps are (sweeps)")
    asked = parser.parse_args(arguments)
    begin = time.monotonic()
    overrides = [f"machine.runs={asked.runs}", f"machine.data={asked.data}"]
    try:
        comparison, folder = run("demo_multidigits", overrides, asked.jobs, asked.sweeps, asked.out)
        learned = tell(comparison, folder, digit_checks(comparison))
        synthesize(configuration.load([f"machine.data={asked.data}", *SCENES], "synthesize"))
        comparison, folder = run("demo_cityscapes", overrides, asked.jobs, asked.sweeps, asked.out)
        learned &= tell(comparison, folder, scene_checks(comparison, asked.data))
    except ValueError as error:
        sys.exit(str(error))
    print(f"{duration(time.monotonic() - begin)}. A second start finds every run done.")
    if not learned:
        sys.exit("Some networks did not learn to see: the lines above that say NOT LEARNED.")


if __name__ == "__main__":
    main()
