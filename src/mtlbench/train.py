"""The entrypoint: compose, build, claim, fit, record. `python -m mtlbench.train --help`"""

import os
import sys
import traceback
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from mtlbench import config as configuration
from mtlbench.commands import CONFLICT, overrides_of, run_command
from mtlbench.console import Console, shortened, summary, unit_of
from mtlbench.signals import Stop


def train(config: DictConfig, choices: dict[str, str]) -> str:
    """One run in this process (one of its ranks): "done", "busy" (another process has it) or "interrupted".

    Raises what made it fail, after writing it to the run's error.txt; ValueError is the user's to mend.
    """
    with Stop() as stop:
        from mtlbench import parallel  # torch comes with it: not before --help has been answered

        ranks = parallel.start(config.machine.device)
        failed = True
        try:
            state = _train(config, choices, ranks, stop)
            failed = False
        finally:
            parallel.stop(ranks, failed=failed)
        if state == "interrupted":  # last: a queue's handler may end this process, and its job on every host
            stop.obey()
    return state


def _train(config: DictConfig, choices: dict[str, str], ranks: Any, stop: Stop) -> str:
    from mtlbench import build, record
    from mtlbench.entry import entry
    from mtlbench.fit import Stopped

    dataset = build.dataset(config)
    build.prepare(config.machine)
    settings = build.settings(config, ranks)
    state, run = "", None
    if ranks.rank == 0:
        state, run = ("interrupted", None) if stop.number else _open(config, dataset, record)
    state = ranks.broadcast(state)
    if state != "open":
        return state
    stop.ready()
    console = None
    try:
        with build.watching_determinism(config.machine.deterministic) as nondeterministic:
            fit = build.fit(config, dataset, settings, ranks, run)
            build.resume(fit, run, ranks, config.machine.allow_change)
            if run is not None:
                fit.report = console = _console(config, choices, dataset, run)
            fit.train(stop)
        if run is not None:
            ended = entry(config, choices, dataset, fit, ranks, run, nondeterministic)
            run.finish(ended)
            run.tidy(config.keep)
            console.finish(ended)
            run.release()
    except Stopped:
        if run is not None:
            run.release()
            console.stopped()
        return "interrupted"
    except BaseException as error:
        if console is not None:
            console.failed()
        if run is not None and isinstance(error, KeyboardInterrupt):
            run.release()
        elif run is not None and not isinstance(error, record.Lost):
            run.fail(traceback.format_exc())
        raise
    return "done"


def _open(config: DictConfig, dataset: Any, record: Any) -> tuple[str, Any]:
    name = configuration.run_id(config)
    whole = OmegaConf.to_container(config, resolve=True)
    try:
        run = record.Run.open(
            Path(config.machine.runs), name, whole, configuration.identity(config), dataset.fingerprint()
        )
    except record.Done as done:
        print(summary(done.record), flush=True)
        return "done", None
    except record.Busy as busy:
        print(f"run {name}: {busy}", flush=True)
        return "busy", None
    return "open", run


def _console(config: DictConfig, choices: dict[str, str], dataset: Any, run: Any) -> Console:
    sizes = [len(part) for part in map(dataset.split, ("train", "val", "test")) if part is not None]
    title = (
        f"{choices.get('method')} on {choices.get('dataset')}{' (synthetic data)' if dataset.synthetic else ''}: "
        f"{shortened(list(dataset.tasks))} · {choices.get('backbone')} + {choices.get('head')} · "
        f"{' / '.join(f'{size:,}' for size in sizes)} images · seed {config.seed} · run {run.id}"
    )
    units = {f"{t.name}/{m.name}": unit_of(m.unit, m.error) for t in dataset.tasks.values() for m in t.metrics}
    logger = configuration.build(config.logger) if config.logger else None
    if logger is not None:
        logger.start(run.folder, run.id, configuration.identity(config), run.lines())
    return Console(title, str(run.folder), config.epochs, units, logger)


def _job(config: DictConfig) -> None:
    """One job of a Hydra multirun."""
    hydra_config = HydraConfig.get()
    configuration.refuse_additions(hydra_config.overrides.task)
    if train(config, configuration.chosen(hydra_config.runtime.choices)) == "interrupted":
        sys.exit(CONFLICT["interrupted"])


def main() -> None:
    """`mtlbench-train`: a plain command line is composed here, with errors as sentences; the rest is Hydra's."""
    arguments = overrides_of(sys.argv[1:])
    if arguments is None:
        if os.environ.get("WORLD_SIZE", "1") != "1" and {"-m", "--multirun"} & set(sys.argv[1:]):
            sys.exit("--multirun starts many runs and torchrun many processes of one run: use one of the two.")
        hydra.main(version_base="1.3", config_path=str(configuration.CONF), config_name="train")(_job)()
        return
    run_command(lambda: train(*configuration.load_run(arguments)))


if __name__ == "__main__":
    main()
