"""What a training step of each method costs beside plain summation, ours and other libraries'."""

import dataclasses
import re
import statistics
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig

from mtlbench import build, parallel
from mtlbench import config as configuration
from mtlbench.benchmarks import peers, table, workload
from mtlbench.benchmarks.table import Cost
from mtlbench.benchmarks.training import Trainer, Training, compare
from mtlbench.fit import PRECISIONS

OURS = "mtlbench"


def every_method() -> list[str]:
    """Each yaml of conf/method at each of its levels, the default first: "pcgrad", "pcgrad level=feature"."""
    lines = []
    for name in configuration.options("method"):
        node = configuration.load([f"method={name}"], name="bench").method
        levels = configuration.build_method(node, ["a", "b"]).levels
        lines += [name, *(f"{name} level={level}" for level in levels if level != levels[0] and "level" in node)]
    return lines


def cost_of_ours(name: str, overrides: Sequence[str], ranks: parallel.Ranks) -> Cost:
    """The row of one method, such as "mgda level=parameter"; what goes wrong with it stands in the row."""
    typed, baseline = of_method(name, overrides), Trainer(configuration.load(overrides, name="bench"), ranks)
    pairs = baseline.config.pairs
    return _cost(
        Cost(OURS, name), lambda: Trainer(configuration.load(typed, name="bench"), ranks), baseline, pairs, typed
    )


def cost_of_peer(line: peers.Line, overrides: Sequence[str], ranks: parallel.Ranks) -> Cost:
    """The same of another library's method: where it cannot be run, the row says why."""
    config = configuration.load(overrides, name="bench")
    baseline, pairs = Trainer(config, ranks), config.peer_pairs or config.pairs
    typed = [*overrides, f"peer='{line.text}'"]
    return _cost(
        Cost(line.who, line.what, line.level or ""), lambda: line.loaded(config, ranks), baseline, pairs, typed
    )


def _cost(row: Cost, make: Callable[[], Training], baseline: Trainer, pairs: int, typed: Sequence[str]) -> Cost:
    level, config = row.level, baseline.config
    try:
        one = make()
        level = one.level
        times = compare(one, baseline, pairs, config.warm_up)
        one.check()
        del one, baseline
        peak = peak_in_process(typed) if config.memory else None
    except Exception as error:  # whatever it is, the other methods are still to be measured
        if row.who == OURS and not isinstance(error, ValueError):
            traceback.print_exc()
        return dataclasses.replace(row, level=level, error=f"{type(error).__name__}: {error}")
    lower, middle, upper = statistics.quantiles([mine / its for mine, its in times], n=4, method="inclusive")
    mine, its = (statistics.median(column) for column in zip(*times, strict=True))
    return Cost(row.who, row.method, level, len(times), mine, its, middle, lower, upper, peak)


def of_method(name: str, overrides: Sequence[str]) -> list[str]:
    """The overrides that put a method, such as "mgda level=parameter", in the place of the baseline."""
    option, *keys = name.split()
    kept = [o for o in overrides if not re.match(r"\+*~?method(@[\w.]+)?[.=]", o)]
    return [*kept, f"method={option}", *(key if key.startswith("method") else f"method.{key}" for key in keys)]


def peak_in_process(overrides: Sequence[str]) -> int | None:
    """What `python -m mtlbench.bench memory` prints. Raises RuntimeError with the last line of its error."""
    command = [sys.executable, "-m", "mtlbench.bench", "memory", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"in the process that measures memory: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    answer = done.stdout.split()[-1]
    return None if answer == "unknown" else int(answer)


def peak(config: DictConfig) -> int | None:
    """Peak memory [bytes] of this process in two steps, beyond what it held before the model was made.

    On a GPU what torch allocated there; on a CPU resident memory, None where the system does not tell (it is
    read from Linux's /proc; getrusage's maximum would be the parent process's).
    """
    ranks = parallel.start(config.machine.device)
    build.prepare(config.machine)
    line = peers.read(config.peer) if config.peer else None
    if line is not None:
        line.kind.load()  # the library's own modules are not what a step needs
    held = _resident("VmRSS")
    trainer = line.loaded(config, ranks) if line is not None else Trainer(config, ranks)
    for _ in range(2):  # the second has the optimizer's state as well
        trainer.seconds()
    if ranks.device.type == "cuda":
        return torch.cuda.max_memory_allocated(ranks.device)
    highest = _resident("VmHWM")
    return None if held is None or highest is None else highest - held


def _resident(key: str) -> int | None:
    status = Path("/proc/self/status")
    found = re.search(rf"^{key}:\s+(\d+) kB$", status.read_text(), re.MULTILINE) if status.exists() else None
    return 1024 * int(found.group(1)) if found else None


def bench_step(overrides: Sequence[str]) -> str:
    """Measures every method, prints and writes the table; "failed" if a method of ours has no numbers."""
    config, choices = configuration.load_run(overrides, name="bench")
    if isinstance(config.methods, str) and config.methods != "all":
        raise ValueError(f"methods={config.methods}: expected a list, such as [{config.methods}], or all.")
    least = min(config.pairs, config.peer_pairs or config.pairs)
    if least < 2 or config.warm_up < 1 or config.batch_size < 1 or not (config.methods or config.peers):
        raise ValueError(
            f"pairs={config.pairs} peer_pairs={config.peer_pairs} warm_up={config.warm_up} "
            f"batch_size={config.batch_size} methods={config.methods}: expected at least 2 pairs, 1 step of warming "
            f"up, 1 image and 1 method."
        )
    if config.precision not in PRECISIONS:
        raise ValueError(f"precision={config.precision}: expected {', '.join(PRECISIONS)}.")
    lines = peers.lines(config.peers)
    ranks = parallel.start(config.machine.device)
    if ranks.size > 1:
        raise ValueError("mtlbench.bench step measures one process: start it without torchrun, or see bench ranks.")
    build.prepare(config.machine)
    facts = table.machine(ranks.device)
    methods = every_method() if config.methods == "all" else config.methods
    measures = [lambda name=name: cost_of_ours(name, overrides, ranks) for name in methods]
    measures += [lambda line=line: cost_of_peer(line, overrides, ranks) for line in lines]
    described = f"{choices['backbone']} + {choices['head']}, {choices['optimizer']}, {workload.described(config)}"
    place, costs, text = _file(choices["workload"], config.attributes, overrides), [], ""
    for measure in measures:
        costs.append(measure())
        row = costs[-1]
        done = row.error or f"{row.ratio:.3f} x {choices['method']}, {1000 * row.seconds:.0f} ms"
        print(f"{row.who} {row.method}: {done}", flush=True)
        # after each row: measuring takes long, and what there is should outlive an interruption
        text = table.write(costs, facts, described, choices["method"], place, Path(config.folder))
    print(f"\n{text}\nfiles in {config.folder}")
    return "failed" if any(row.error for row in costs if row.who == OURS) else "done"


UNNAMED = (
    "workload",
    "attributes",
    "methods",
    "peers",
    "peer_pairs",
    "pairs",
    "warm_up",
    "memory",
    "folder",
    "machine",
)
"""Keys that are in a table's name otherwise, or that change what stands in it but not what is measured."""


def _file(kind: str, attributes: int | None, overrides: Sequence[str]) -> str:
    """The table's name after the machine's: the workload, and what else was typed that changes a step's cost."""
    typed = sorted(o for o in overrides if re.split(r"[.=]", o)[0] not in UNNAMED)
    return "_".join([f"{kind}{attributes or ''}", *(re.sub(r"[^\w]+", "-", o).strip("-") for o in typed)])


def bench_memory(overrides: Sequence[str]) -> str:
    """Prints the bytes of `peak`, or "unknown"."""
    found = peak(configuration.load(overrides, name="bench"))
    print("unknown" if found is None else found)
    return "done"
