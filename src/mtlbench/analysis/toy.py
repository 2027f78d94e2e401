"""The two-task toy problem of CAGrad and Elich et al.: who reaches the Pareto set, and when. `mtlbench.analysis.toy`

    python -m mtlbench.analysis.toy                                   both tables and the figures: some minutes
    python -m mtlbench.analysis.toy methods=[]                        the published table alone: under a minute
    python -m mtlbench.analysis.toy published=false rates=[1,0.1] methods=[imtl,mgda] folder=mine
    python -m mtlbench.analysis.toy published=false 'methods=["cagrad c=0.8"]' 'starts=[[3,4]]' method_steps=5000

Two losses in the plane, gradient descent and Adam, nine learning rates, three starts:

    published.csv      the table of Elich et al. 2023 (A7) in its own float32 arithmetic, beside the printed numbers
    every_method.csv   every method of the suite in float64: first hit, end, distance to the Pareto set, did it stay
    gd.svg, adam.svg   the paths over contours of the mean loss, a panel for each method and learning rate
    table.md           all of it to read

Keys are in conf/toy.yaml: optimizers rates starts published steps methods method_steps epoch seed figures jobs folder.
"""

import math
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mtlbench import config as configuration
from mtlbench.aggregate import PAPERS, write
from mtlbench.analysis import toy_document, toy_float32, toy_page, toy_problem, toy_published
from mtlbench.analysis.toy_methods import PAPER, Outcome, outcomes
from mtlbench.commands import run_command


def check(config: DictConfig) -> None:
    """Raises ValueError for an optimizer, rate, start or number that cannot be."""
    for key in ("optimizers", "rates", "starts"):
        if not OmegaConf.is_list(config[key]) or not config[key]:
            raise ValueError(f"{key}={config[key]}: expected a list, such as {key}={_example(key)}.")
    for optimizer in config.optimizers:
        if optimizer not in toy_float32.OPTIMIZERS:
            raise ValueError(
                f"optimizers=[{optimizer}]: there is no such optimizer here. There are: "
                f"{', '.join(toy_float32.OPTIMIZERS)}."
            )
    for rate in config.rates:
        if not _number(rate) or not 0 < rate < math.inf:
            raise ValueError(f"rates=[{rate}]: a learning rate is a number above 0, such as {_example('rates')}.")
    for start in config.starts:
        inside = OmegaConf.is_list(start) and len(start) == 2 and all(map(_number, start))
        if not inside or not all(abs(value) <= toy_problem.WINDOW for value in start):
            raise ValueError(
                f"starts=[{start}]: a start is a point [x, y] inside the window, both from "
                f"{-toy_problem.WINDOW:g} to {toy_problem.WINDOW:g}, such as {_example('starts')}."
            )
    for key in ("steps", "method_steps", "epoch", *(["jobs"] if config.jobs is not None else [])):
        if not isinstance(config[key], int) or isinstance(config[key], bool) or config[key] < 1:
            raise ValueError(f"{key}={config[key]}: expected a whole number of at least 1.")
    for key in ("optimizers", "rates", "methods"):
        given = list(config[key] or [])
        twice = next((value for value in given if given.count(value) > 1), None)
        if twice is not None:
            raise ValueError(f"{key}: {twice} stands there twice. Name each once.")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _example(key: str) -> str:
    return {"optimizers": "[gd,adam]", "rates": "[1,0.1]", "starts": "[[-8.5,7.5],[9,9]]"}[key]


def nodes(names: Sequence[str] | None) -> dict[str, DictConfig]:
    """The config node of each method, by "name key=value ..."; None: all of conf/method, and the paper's three.

    Raises ValueError for what is not there.
    """
    if names is None:
        names = [*PAPER, *configuration.options("method")]
    found = {}
    for typed in names:
        name, *keys = str(typed).split()
        words = [f"method={name}", *(f"method.{key}" for key in keys)]
        found[str(typed)] = configuration.load(words, name="toy").method
        configuration.build_method(found[str(typed)], list(toy_problem.TASKS))  # a wrong value is told now
    return found


def every_method(config: DictConfig, methods: dict[str, DictConfig], jobs: int) -> Iterator[Outcome]:
    """The second table, row by row, as they come."""
    asked = [
        (name, node, optimizer, list(config.rates), [list(s) for s in config.starts], config.method_steps)
        for optimizer in config.optimizers
        for name, node in methods.items()
    ]
    rest = (config.epoch, config.seed)
    if jobs == 1:
        for one in asked:
            yield from outcomes(*one, *rest)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(outcomes, *one, *rest) for one in asked]:
            yield from future.result()


def toy(overrides: Sequence[str]) -> str:
    """Runs and writes what the configuration asks for."""
    config = configuration.load(overrides, name="toy")
    check(config)
    methods = nodes(config.methods)
    if not methods and not config.published:
        raise ValueError("published=false methods=[]: there is nothing to do. Leave out one of them.")
    jobs = config.jobs or toy_published.cores()
    cells, found = [], []
    if config.published:
        cells = toy_published.cells(config.optimizers, config.rates, config.starts, config.steps, PAPERS, jobs)
        print(toy_page.said_of_published(cells), flush=True)
    for outcome in every_method(config, methods, jobs):
        if outcome.rate == config.rates[-1]:
            print(f"{outcome.optimizer} {outcome.method}: done", flush=True)
        found.append(outcome)
    files = toy_document.files(config, cells, found)
    write(Path(config.folder), files)
    print("  ".join(str(Path(config.folder) / name) for name in files))
    return "done"


def main() -> None:
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(__doc__.strip())
        return
    run_command(lambda: toy(words))


if __name__ == "__main__":
    main()
