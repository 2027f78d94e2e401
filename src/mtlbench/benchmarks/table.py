"""The table of what training steps cost, and the machine on which they were timed."""

import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mtlbench.benchmarks.files import cell, save


@dataclass(frozen=True)
class Cost:
    """A method's step against the baseline's. Ratios are of pairs: a step and the baseline's step beside it.

    who: whose method it is, "mtlbench" or another library with its version.
    peak_bytes: of two steps in a fresh process; None where it was not measured. error: why there are no numbers.
    """

    who: str
    method: str
    level: str = ""
    pairs: int = 0
    seconds: float | None = None
    baseline_seconds: float | None = None
    ratio: float | None = None
    ratio_lower: float | None = None
    ratio_upper: float | None = None
    peak_bytes: int | None = None
    error: str = ""


def machine(device: torch.device) -> dict[str, str]:
    """What the seconds depend on besides the configuration; "device" names the file."""
    model = re.search(r"^model name\s*:\s*(.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    cpu = model.group(1).strip() if model else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{cpu}, {cores} cores",
        "cpu": f"{cpu}, {cores} cores",
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if hasattr(os, "getloadavg"):
        facts["load before"] = f"{os.getloadavg()[0]:.1f} processes"
    return facts


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def write(
    costs: Sequence[Cost], facts: Mapping[str, str], workload: str, baseline: str, name: str, folder: Path
) -> str:
    """Writes <machine>_<name>.csv and .md into the folder; returns the latter's text. Same numbers, same bytes."""
    text = report(costs, facts, workload, baseline)
    save(costs, text, facts["device"], name, folder)
    return text


def report(costs: Sequence[Cost], facts: Mapping[str, str], workload: str, baseline: str) -> str:
    lines = [
        f"# Cost of a training step over {baseline}",
        "",
        f"{workload}. Gradients, weights and update are timed, loading of data is not. Each ratio is of two steps "
        f"side by side; given are the median and the quartiles over pairs.",
        "",
        f"| whose | method | level | step / {baseline} | quartiles | step | {baseline} | peak memory | pairs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in costs:
        name = f"{cell(row.who)} | {cell(row.method)}"
        if row.error:
            lines.append(f"| {name} | {row.level} | not run: {cell(row.error)} | | | | | |")
            continue
        peak = "-" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f} MiB"
        lines.append(
            f"| {name} | {row.level} | {row.ratio:.3f} | {row.ratio_lower:.3f} to {row.ratio_upper:.3f} "
            f"| {1000 * row.seconds:.0f} ms | {1000 * row.baseline_seconds:.0f} ms | {peak} | {row.pairs} |"
        )
    lines += [
        "",
        "Peak memory: of two steps in a process of its own, beyond what it held before the model was made "
        "(CPU: resident memory; GPU: what torch allocated).",
        "",
        *(f"- {key}: {value}" for key, value in facts.items()),
    ]
    return "\n".join(lines) + "\n"
