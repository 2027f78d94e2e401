"""What to type to run a cell, or the baseline that it lacks."""

import re
import shlex
from collections.abc import Sequence


def baseline_overrides(overrides: Sequence[str], task: str) -> list[str]:
    """A cell's overrides, turned into those of the single-task run of `task` under the same protocol."""
    keys = [text.lstrip("+~").partition("=")[0] for text in overrides]
    gone = {key for key in keys if key == "dataset.tasks" or re.split("[.@]", key)[0] in ("method", "architecture")}
    kept = [text for key, text in zip(keys, overrides, strict=True) if key not in gone]
    return [*kept, "method=equal", f"dataset.tasks=[{task}]"]


def train_command(overrides: Sequence[str]) -> str:
    """What to type to run one cell."""
    return shlex.join(["python", "-m", "mtlbench.train", *overrides])
