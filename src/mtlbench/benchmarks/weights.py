"""How long the methods' own arithmetic takes, without a network. `python -m mtlbench.bench weights tasks=40`

What is timed is what a step asks of a method: balance.balance() on losses [T] and a Gramian [T, T], in float64 on the
CPU, and `after_step` where the method has one. Beside it torchjd's weighting of the same name on the same Gramian.
Keys are in conf/bench_weights.yaml.
"""

import functools
import importlib
import importlib.metadata
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig, ListConfig
from torch import Tensor

from mtlbench import config as configuration
from mtlbench.balance import Balance, balance, problem_of_method
from mtlbench.benchmarks import table
from mtlbench.benchmarks.weights_table import Time, write
from mtlbench.weighting import Indicator, Weighting, overrides

LIMIT_TASKS = 40
LIMITS = {  # milliseconds at LIMIT_TASKS; None: an iteration whose length is reported alone
    **dict.fromkeys(("mgda", "cagrad", "pcgrad", "gradvac", "hybrid"), 10.0),
    **dict.fromkeys(("upgrad", "dualproj", "nash_mtl", "fairgrad"), None),
}
CLOSED_FORM = 2.0
"""The limit [ms] of every method that is not in LIMITS."""

COORDINATES = 1000
"""Coordinates of a gradient: far more than tasks, as in a network."""

ENOUGH = 4.0
"""Seconds of calls on one Gramian after which no more are made."""

EPOCHS = 3
"""That a method has lived before it is timed: some begin with weights that are the same for all."""

Timed = Callable[[int], Balance | Tensor]
"""What the k-th step's call gives; its time is what counts."""


def jacobians(tasks: int, seed: int) -> dict[str, Tensor]:
    """Task gradients [T, COORDINATES] by what they are like.

    conflicting: T/3 directions and some noise; ill-conditioned: with next to none; stationary: their sum is nearly
    zero; rank T/3 and duplicated: of fewer dimensions than tasks.
    """
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    few = max(2 if tasks > 2 else 1, tasks // 3)
    mixed = normal(tasks, few) @ normal(few, COORDINATES) / few**0.5
    lengths = 10 ** (2 * torch.rand(tasks, 1, generator=rng, dtype=torch.float64) - 1)
    base = normal(max(1, tasks // 2), COORDINATES)
    return {
        "nearly orthogonal": normal(tasks, COORDINATES),
        "agreeing": normal(COORDINATES) + normal(tasks, COORDINATES),
        "conflicting": mixed + 0.5 * normal(tasks, COORDINATES),
        "conflicting, lengths 0.1 to 10": lengths * (mixed + 0.5 * normal(tasks, COORDINATES)),
        "conflicting, ill-conditioned": lengths * (mixed + 1e-5 * normal(tasks, COORDINATES)),
        "stationary": mixed - mixed.mean(0) + 0.01 * normal(tasks, COORDINATES),
        "rank T/3": mixed,
        "duplicated": torch.cat([base, base, base])[:tasks].contiguous(),
    }


KINDS = tuple(jacobians(2, 0))


def timed_method(node: DictConfig, tasks: int, gramian: Tensor, seed: int) -> Timed:
    """A fresh method that has lived some epochs. Raises ValueError where it gives no finite weights."""
    names = [f"task{i}" for i in range(tasks)]
    method: Weighting = configuration.build_method(node, names).double()
    seen = None if method.level == "loss" else gramian
    learns = overrides(method, "after_step")
    some = 0.5 + 5 * torch.rand(1000, tasks, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for epoch in range(EPOCHS):
        means = dict(zip(names, some[epoch].tolist(), strict=True))
        shares = {name: Indicator(100 / (1 + mean), True, "%") for name, mean in means.items()}
        method.after_epoch(means, shares)

    def call(k: int) -> Balance:
        losses = some[k % len(some)]
        found = balance(method, losses, seen, names, torch.Generator().manual_seed(k))
        if learns:
            method.after_step(0.9 * losses, names)
        return found

    if problem := problem_of_method(method, names, call(0)):
        raise ValueError(problem)
    return call


def peer_of(name: str, method: DictConfig) -> tuple[str, Callable[[], Callable[[Tensor], Tensor]]] | None:
    """torchjd's weighting of an option's name and how it is made, with our method's keys where it needs some; None
    where there is none, or no torchjd."""
    try:
        peers = importlib.import_module("torchjd.aggregation")
    except ModuleNotFoundError:
        return None
    wanted = f"{name.replace('_', '')}weighting"
    found = next((each for each in dir(peers) if each.lower() == wanted), None)
    if found is None:
        return None
    keys = {"cagrad": {"c": method.get("c")}, "fairgrad": {"alpha": method.get("alpha")}}.get(name, {})
    return found, lambda: getattr(peers, found)(**keys)


def seconds(call: Timed, repeats: int) -> list[float]:
    """Of so many calls, or of two and what ENOUGH allows, after one that is not counted."""
    call(0)
    times: list[float] = []
    while len(times) < repeats and (len(times) < 2 or sum(times) < ENOUGH):
        begin = time.perf_counter()
        call(1 + len(times))
        times.append(time.perf_counter() - begin)
    return times


@functools.cache
def _node(name: str) -> DictConfig:
    option, *keys = name.split()
    return configuration.load([f"method={option}", *(f"method.{key}" for key in keys)]).method


def measure(name: str, tasks: int, settings: DictConfig) -> Time:
    """The row of one method, such as "mgda solver=frank_wolfe"; what goes wrong with it stands in the row."""
    option, *keys = name.split()
    try:
        node = _node(name)
        gramians = {kind: rows @ rows.T for kind, rows in jacobians(tasks, settings.seed).items()}
        times = {
            kind: seconds(timed_method(node, tasks, gramian, settings.seed), settings.repeats)
            for kind, gramian in gramians.items()
        }
    except Exception as error:  # whatever it is, the other methods are still to be measured
        return Time(name, tasks, error=f"{type(error).__name__}: {error}")
    lowers = {kind: 1000 * _quartiles(some)[0] for kind, some in times.items()}
    slowest = max(lowers, key=lowers.get)
    lower, middle, upper, longest = summary(times)
    limit = LIMITS.get(option, CLOSED_FORM) if tasks == LIMIT_TASKS else None
    verdict = "" if limit is None else "met" if lowers[slowest] <= limit else "missed"
    calls = sum(map(len, times.values()))
    mine = (calls, middle, lower, upper, longest, slowest, lowers[slowest], limit, verdict)
    peer = peer_of(option, node) if settings.peers and not keys else None
    if peer is None:
        return Time(name, tasks, *mine)
    word, make = peer
    try:
        others = {}
        for kind, gramian in gramians.items():
            weigh = make()
            others[kind] = seconds(lambda _, weigh=weigh, gramian=gramian: weigh(gramian), settings.repeats)
    except Exception as error:  # a peer that cannot be run is reported as that
        return Time(name, tasks, *mine, peer=word, peer_error=f"{type(error).__name__}: {error}")
    lower, middle, upper, longest = summary(others)
    return Time(name, tasks, *mine, "", word, middle, lower, upper, longest)


def summary(times: Mapping[str, Sequence[float]]) -> tuple[float, float, float, float]:
    """Lower quartile, median, upper quartile and maximum [ms] of all calls [s]."""
    every = [value for some in times.values() for value in some]
    return *(1000 * value for value in _quartiles(every)), 1000 * max(every)


def _quartiles(values: Sequence[float]) -> list[float]:
    return statistics.quantiles(values, n=4, method="inclusive")


def bench_weights(overrides: Sequence[str]) -> str:
    """Measures every method, prints and writes the table; "failed" if a method has no numbers."""
    settings = configuration.load(overrides, name="bench_weights")
    counts = list(settings.tasks) if isinstance(settings.tasks, ListConfig) else [settings.tasks]
    if not counts or not all(isinstance(count, int) and count > 0 for count in counts):
        raise ValueError(f"tasks={settings.tasks}: expected numbers of tasks, such as tasks=40 or tasks=[2,3].")
    if not isinstance(settings.repeats, int) or settings.repeats < 2:
        raise ValueError(f"repeats={settings.repeats}: expected a whole number, at least 2.")
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    facts = table.machine(torch.device("cpu"))
    if settings.peers:
        facts["torchjd"] = _version("torchjd")
    rows = []
    for count in counts:
        for name in settings.methods or configuration.options("method"):
            rows.append(measure(name, count, settings))
            print(_line(rows[-1]), flush=True)
    gramians = f"{len(KINDS)} Gramians of gradients with {COORDINATES} coordinates ({'; '.join(KINDS)})"
    text = write(rows, facts, f"{settings.repeats} calls on each of {gramians}", Path(settings.folder))
    print(f"\n{text}")
    print(f"files in {settings.folder}")
    return "failed" if any(row.error for row in rows) else "done"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _line(row: Time) -> str:
    if row.error:
        return f"{row.method}, {row.tasks} tasks: {row.error}"
    return f"{row.method}, {row.tasks} tasks: {row.median:.2f} ms, at most {row.longest:.2f} ms {row.verdict}".rstrip()
