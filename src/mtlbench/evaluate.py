"""A finished run's checkpoint, evaluated again: `python -m mtlbench.evaluate run=<id> checkpoint=best`."""

import json
import sys
from pathlib import Path

from omegaconf import OmegaConf

from mtlbench import config as configuration
from mtlbench.commands import overrides_of, run_command
from mtlbench.console import values_of
from mtlbench.record import read_checkpoint


def evaluate(run: str, checkpoint: str, split: str, runs: Path, data: Path | None) -> dict[str, float]:
    """The metrics "task/metric" of a run's checkpoint ("last" or "best") on a split, as the record has them.

    Raises ValueError where there is no such run, checkpoint or split.
    """
    from mtlbench import build
    from mtlbench import fit as fitting
    from mtlbench.parallel import start

    folder = Path(runs) / run
    if not (folder / "config.yaml").is_file():
        known = sorted(path.parent.name for path in Path(runs).glob("*/config.yaml"))
        raise ValueError(f"run={run}: no such run under {runs}. There are: {', '.join(known[:20]) or 'none'}.")
    state = read_checkpoint(folder, checkpoint)
    config = OmegaConf.load(folder / "config.yaml")
    where = Path(config.machine.data) if data is None else Path(data)
    dataset = configuration.build(config.dataset, folder=where, seed=config.seed)
    part = dataset.split(split) if split in ("val", "test") else None
    if part is None:
        raise ValueError(f"split={split}: expected val or test, and this run's protocol must have it.")
    ranks = start(config.machine.device)
    build.prepare(config.machine)
    settings = build.settings(config, ranks)
    model = build.model(config, dataset, ranks)
    model.load_state_dict(state["model"])
    return fitting.evaluate(model, dataset, part, settings, ranks)


def _command(words: list[str]) -> str:
    config = configuration.load(words, name="evaluate")
    if config.run is None:
        raise ValueError("run= is needed: the id of a run, the name of its folder under machine.runs.")
    values = evaluate(
        str(config.run),
        config.checkpoint,
        config.split,
        Path(config.machine.runs),
        None if config.machine.data is None else Path(config.machine.data),
    )
    if config.json:
        print(json.dumps(values))
    else:
        print(f"run {config.run}, {config.checkpoint} checkpoint, {config.split}: {values_of(values, {})}")
    return "done"


def main() -> None:
    words = overrides_of(sys.argv[1:])
    if words is None:
        print((configuration.CONF / "evaluate.yaml").read_text().split("\n\n")[0])
        return
    run_command(lambda: _command(words))


if __name__ == "__main__":
    main()
