"""Adam and the scale of the losses (Elich et al. 2023, A1.3 and A2; IMTL's test). `mtlbench.analysis.loss_scale`

    python -m mtlbench.analysis.loss_scale                                   the small network: a minute
    python -m mtlbench.analysis.loss_scale scales.second=0.01 eps=1e-4 methods=[] folder=mine
    python -m mtlbench.analysis.loss_scale optimizers=[sgd,adam] 'methods=["imtl","cagrad c=0.8"]'
    python -m mtlbench.sweep run sweeps/loss_scale_multidigits               digits, one loss x 10: hours
    python -m mtlbench.analysis.loss_scale machine.runs=runs                 and the table of that sweep's changes

A network of two tasks in float64, trained with plain and with scaled losses:

    table.md                   where updates do not depend on the losses' scales, what eps does, and a claim that fails
    differences.csv            its numbers; steps.csv: every step of the figures; methods.csv: every method of the suite
    frozen.svg, trained.svg    lengths of the updates, plain and scaled; epsilon.svg: what eps leaves of the invariance
    sweep/changes.md, .csv     with machine.runs: each metric of the sweep's finished runs, plain and with one loss x 10

Keys are in conf/loss_scale.yaml: optimizers scales lr momentum eps steps samples width slope methods method_steps seed
figures folder sweep.
"""

import functools
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mtlbench import config as configuration
from mtlbench.aggregate import write
from mtlbench.analysis import loss_scale_changes, loss_scale_page
from mtlbench.analysis.loss_scale_network import MULTIPLES, OPTIMIZERS, Setting
from mtlbench.analysis.loss_scale_study import methods, study
from mtlbench.commands import run_command
from mtlbench.docstrings import facts, first_sentence


def check(config: DictConfig) -> None:
    """Raises ValueError for an optimizer, a scale or a number that cannot be."""
    if not OmegaConf.is_list(config.optimizers) or not config.optimizers:
        raise ValueError(f"optimizers={config.optimizers}: expected a list, such as optimizers=[sgd,adam].")
    for optimizer in config.optimizers:
        if optimizer not in OPTIMIZERS:
            raise ValueError(
                f"optimizers=[{optimizer}]: there is no such optimizer here. There are: {', '.join(OPTIMIZERS)}."
            )
        if list(config.optimizers).count(optimizer) > 1:
            raise ValueError(f"optimizers: {optimizer} stands there twice. Name each once.")
    if not OmegaConf.is_dict(config.scales) or not config.scales:
        raise ValueError(f"scales={config.scales}: expected what multiplies the tasks' losses: scales.first=10.")
    for task, scale in config.scales.items():
        if task not in MULTIPLES:
            raise ValueError(f"scales.{task}={scale}: there is no such task. There are: {', '.join(MULTIPLES)}.")
        if not _number(scale) or not 0 < scale < math.inf:
            raise ValueError(f"scales.{task}={scale}: expected a number above 0, which multiplies the loss.")
    for key, low in {"lr": 0, "momentum": None, "eps": None, "slope": None}.items():
        value = config[key]
        if not _number(value) or not 0 <= value < math.inf or value == low:
            raise ValueError(f"{key}={value}: expected a number {'above 0' if low == 0 else 'of at least 0'}.")
    for key, least in {"steps": 2, "method_steps": 2, "samples": 1, "width": 1}.items():
        if not isinstance(config[key], int) or isinstance(config[key], bool) or config[key] < least:
            raise ValueError(f"{key}={config[key]}: expected a whole number of at least {least}.")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def nodes(names: Sequence[str] | None) -> dict[str, tuple[DictConfig, str]]:
    """{name: (config node, what the docstring says of the losses' scales)} of "name key=value ..."; None: every method
    but hybrid, which is any two.

    Raises ValueError for what is not there.
    """
    every = [name for name in configuration.options("method") if name != "hybrid"]
    found = {}
    for typed in map(str, every if names is None else names):
        name, *keys = typed.split()
        node = configuration.load([f"method={name}", *(f"method.{key}" for key in keys)], name="loss_scale").method
        built = configuration.build_method(node, list(MULTIPLES))
        found[typed] = node, first_sentence(facts(type(built))["scales"]).rstrip(".")
    return found


def small_network(config: DictConfig) -> dict[str, str]:
    """The files of the study on the small network."""
    plain, optimal = (nodes([name])[name][0] for name in ("equal", "uncertainty_optimal"))
    chosen = nodes(config.methods)
    same = {key: config[key] for key in ("lr", "momentum", "steps", "samples", "width", "slope", "seed")}
    base, scales = Setting(plain, **same), {str(task): float(scale) for task, scale in config.scales.items()}
    print("optimizers, eps, betas", flush=True)
    found = study(base, optimal, list(config.optimizers), scales, config.eps)
    short = replace(base, steps=config.method_steps)
    done = functools.partial(print, "done:", flush=True)
    found.methods = methods(chosen, short, scales, list(config.optimizers), done)
    return loss_scale_page.files(found, base, config.eps, config.figures)


def changes(config: DictConfig, overrides: Sequence[str]) -> dict[str, str]:
    """The files of the sweep; none where the command line names neither runs nor a sweep."""
    if not any(word.split("=")[0] in ("machine.runs", "sweep") for word in overrides):
        return {}
    machine = [word for word in overrides if word.startswith("machine")]
    found = loss_scale_changes.changes(Path(config.sweep), machine)
    return {
        "changes.md": loss_scale_changes.page(found, config.sweep),
        "changes.csv": loss_scale_changes.table(found),
    }


def loss_scale(overrides: Sequence[str]) -> str:
    """Writes what the configuration asks for."""
    config = configuration.load(overrides, name="loss_scale")
    check(config)
    folder = Path(config.folder)
    files = {folder / "sweep": changes(config, overrides)}  # first: an error costs no minute
    files[folder] = small_network(config)
    for place, content in files.items():
        if content:
            write(place, content)
            print("  ".join(str(place / name) for name in content))
    return "done"


def main() -> None:
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(__doc__.strip())
        return
    run_command(lambda: loss_scale(words))


if __name__ == "__main__":
    main()
