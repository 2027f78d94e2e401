"""What a training step of each method costs beside plain summation. `python -m mtlbench.bench step`

    python -m mtlbench.bench step                                     all methods on the small dense model
    python -m mtlbench.bench step methods=[imtl,pcgrad] pairs=30 machine.threads=1
    python -m mtlbench.bench step 'methods=["mgda level=parameter"]' workload=dense_resnet50 image=[256,512]
    python -m mtlbench.bench step workload=attributes attributes=11
    python -m mtlbench.bench step methods=all peers=[torchjd,libmtl]  beside them other libraries (extra `peers`)
    python -m mtlbench.bench step 'peers=["torchjd MGDA level=feature"]'
    python -m mtlbench.bench memory method=imtl                       peak memory of two steps, in bytes
    python -m mtlbench.bench weights tasks=40                         the methods' own arithmetic, without a network
    python -m mtlbench.bench ranks processes=2                        steps in several processes, beside torch's DDP
    python -m mtlbench.bench network workload=dense_deeplabv3plus     a network, beside its modules in a loop
    python -m mtlbench.bench metrics image=[1024,2048]                metrics, beside the network's forward pass
    python -m mtlbench.bench data dataset=cityscapes machine.data=data     images a second, beside a plain loader
    python -m mtlbench.bench aggregate runs=10000 epochs=200          seconds and memory that a sweep's tables take

Keys are in conf/bench.yaml; groups: workload architecture backbone head method optimizer machine. The result goes into
`folder`, one table (.md and .csv) for each machine and workload.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from mtlbench.commands import run_command

BENCHMARKS = {
    "step": "step",
    "memory": "step",
    "weights": "weights",
    "ranks": "ranks",
    "network": "network",
    "metrics": "metrics",
    "data": "data",
    "aggregate": "aggregate",
}
"""Each: the module of mtlbench.benchmarks with its function bench_<name>, imported when it is asked for."""


def benchmark(name: str) -> Callable[[Sequence[str]], str]:
    """A benchmark, to be called with overrides; gives its final state."""
    return getattr(import_module(f"mtlbench.benchmarks.{BENCHMARKS[name]}"), f"bench_{name}")


def main() -> None:
    first, *overrides = sys.argv[1:] or ["--help"]
    if {"-h", "--help"} & {first, *overrides}:
        print(__doc__.strip())
        return
    if first not in BENCHMARKS:
        sys.exit(f"mtlbench.bench {first}: there is no such benchmark. There are: {', '.join(BENCHMARKS)}.")

    def command() -> str:
        state = benchmark(first)(overrides)
        if state == "failed":
            raise ValueError("At least one method could not be measured: see the table.")
        return state

    run_command(command)


if __name__ == "__main__":
    main()
