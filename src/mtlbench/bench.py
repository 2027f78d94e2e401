"""What a training step of each method costs beside plain summation. `python -m mtlbench.bench step`

    python -m mtlbench.bench step                                     all methods on the small dense model
    python -m mtlbench.bench step methods=[imtl,pcgrad] pairs=30 machine.threads=1
    python -m mtlbench.bench step 'methods=["mgda level=parameter"]' workload=dense_resnet50 image=[256,512]
    python -m mtlbench.bench step workload=attributes attributes=11
    python -m mtlbench.bench memory method=imtl                       peak memory of two steps, in bytes
    python -m mtlbench.bench weights tasks=40                         the methods' own arithmetic, without a network
    python -m mtlbench.bench ranks processes=2                        steps in several processes, beside torch's DDP
    python -m mtlbench.bench aggregate runs=10000 epochs=200          seconds and memory that a sweep's tables take

Keys are in conf/bench.yaml; groups: workload architecture backbone head method optimizer machine. The result goes into
`folder`, one table (.md and .csv) a machine.
"""

import re
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from omegaconf import DictConfig

from mtlbench import bench_table, build, parallel, workload
from mtlbench import config as configuration
from mtlbench.bench_aggregate import bench_aggregate
from mtlbench.bench_ranks import bench_ranks
from mtlbench.bench_table import Cost
from mtlbench.bench_weights import bench_weights
from mtlbench.commands import run_command
from mtlbench.fit import PRECISIONS
from mtlbench.step import losses_after, step
from mtlbench.weighting import overrides


class Trainer:
    """Training on one batch: the initial weights are the same for every method."""

    def __init__(self, config: DictConfig, ranks: parallel.Ranks):
        dataset = SimpleNamespace(tasks=workload.tasks(config))  # what the model and the method ask of a dataset
        self.tasks, self.ranks = dataset.tasks, ranks
        self.model = build.model(config, dataset, ranks).train()
        self.method = build.method(config, dataset, self.model)
        trained = [p for p in self.model.parameters() if p.requires_grad]
        groups = [{"params": trained}, *self.method.parameter_groups()]
        self.optimizer = configuration.build(config.optimizer, groups)
        self.autocast = torch.bfloat16 if config.precision == "bfloat16" else None
        self.data = workload.batch(config, PRECISIONS[config.precision], ranks.device)
        self.steps = 0

    def seconds(self) -> float:
        """Takes one step, of gradients and update. Raises ValueError where they are not finite."""
        rng = torch.Generator().manual_seed(self.steps)
        self.steps += 1
        _finish(self.ranks.device)
        begin = time.perf_counter()
        result = step(
            self.model, self.tasks, self.method, *self.data, rng=rng, ranks=self.ranks, autocast=self.autocast
        )
        self.optimizer.step()
        if overrides(self.method, "after_step") and not result.problem:
            after = losses_after(
                self.model, self.tasks, *self.data, result.tasks, ranks=self.ranks, autocast=self.autocast
            )
            self.method.after_step(after, result.tasks)
        _finish(self.ranks.device)
        took = time.perf_counter() - begin
        if result.problem:
            raise ValueError(f"step {self.steps}: {result.problem}")
        return took


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare(one: Trainer, other: Trainer, pairs: int, warm_up: int) -> list[tuple[float, float]]:
    """Seconds of steps of both, side by side; who goes first alternates."""
    for _ in range(warm_up):
        one.seconds(), other.seconds()
    times = []
    for k in range(pairs):
        if k % 2:
            second, first = other.seconds(), one.seconds()
        else:
            first, second = one.seconds(), other.seconds()
        times.append((first, second))
    return times


def cost(name: str, overrides: Sequence[str], ranks: parallel.Ranks) -> Cost:
    """The row of one method, such as "mgda level=parameter"; what goes wrong with it stands in the row."""
    level = ""
    try:
        baseline = configuration.load(overrides, name="bench")
        config = configuration.load(of_method(name, overrides), name="bench")
        one, other = Trainer(config, ranks), Trainer(baseline, ranks)
        level = one.method.level
        times = compare(one, other, config.pairs, config.warm_up)
        del one, other
        peak = peak_in_process(of_method(name, overrides)) if config.memory else None
    except Exception as error:  # whatever it is, the other methods are still to be measured
        if not isinstance(error, ValueError):
            traceback.print_exc()
        return Cost(name, level, error=f"{type(error).__name__}: {error}")
    lower, middle, upper = statistics.quantiles([mine / its for mine, its in times], n=4, method="inclusive")
    mine, its = (statistics.median(column) for column in zip(*times, strict=True))
    return Cost(name, level, len(times), mine, its, middle, lower, upper, peak)


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
    held = _resident("VmRSS")
    trainer = Trainer(config, ranks)
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
    """Measures every method, prints and writes the table; "failed" if a method has no numbers."""
    config, choices = configuration.load_run(overrides, name="bench")
    if config.pairs < 2 or config.warm_up < 1 or config.batch_size < 1 or not config.methods:
        raise ValueError(
            f"pairs={config.pairs} warm_up={config.warm_up} batch_size={config.batch_size} methods={config.methods}: "
            f"expected at least 2 pairs, 1 step of warming up, 1 image and 1 method."
        )
    if config.precision not in PRECISIONS:
        raise ValueError(f"precision={config.precision}: expected {', '.join(PRECISIONS)}.")
    ranks = parallel.start(config.machine.device)
    if ranks.size > 1:
        raise ValueError("mtlbench.bench measures one process: start it without torchrun.")
    build.prepare(config.machine)
    facts = bench_table.machine(ranks.device)
    costs = []
    for name in config.methods:
        costs.append(cost(name, overrides, ranks))
        done = costs[-1].error or f"{costs[-1].ratio:.3f} x {choices['method']}, {1000 * costs[-1].seconds:.0f} ms"
        print(f"{name}: {done}", flush=True)
    text = bench_table.write(costs, facts, _workload(config, choices), choices["method"], Path(config.folder))
    print(f"\n{text}")
    print(f"files in {config.folder}")
    return "failed" if any(row.error for row in costs) else "done"


def _workload(config: DictConfig, choices: dict[str, str]) -> str:
    return f"{choices['backbone']} + {choices['head']}, {choices['optimizer']}, {workload.described(config)}"


def bench_memory(overrides: Sequence[str]) -> str:
    """Prints the bytes of `peak`, or "unknown"."""
    found = peak(configuration.load(overrides, name="bench"))
    print("unknown" if found is None else found)
    return "done"


BENCHMARKS = {
    "step": bench_step,
    "memory": bench_memory,
    "weights": bench_weights,
    "ranks": bench_ranks,
    "aggregate": bench_aggregate,
}


def main() -> None:
    first, *overrides = sys.argv[1:] or ["--help"]
    if {"-h", "--help"} & {first, *overrides}:
        print(__doc__.strip())
        return
    if first not in BENCHMARKS:
        sys.exit(f"mtlbench.bench {first}: there is no such benchmark. There are: {', '.join(BENCHMARKS)}.")

    def command() -> str:
        state = BENCHMARKS[first](overrides)
        if state == "failed":
            raise ValueError("At least one method could not be measured: see the table.")
        return state

    run_command(command)


if __name__ == "__main__":
    main()
