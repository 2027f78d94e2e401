"""Writes a synthetic stand-in for a dataset. `python -m mtlbench.synthesize dataset=cityscapes machine.data=data`

A generator is a class named by a yaml in conf/synthetic: constructed with the yaml's keys and `seed`, it has
`name` (the folder's), `version`, `items()`, `images(folder)` and `write(folder, *item)`, and pickles. Where one file
holds all items it also has `finish(folder)`, called when all are written.
"""

import difflib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from rich.progress import track

from mtlbench import config as configuration
from mtlbench.commands import overrides_of, run_command

MARKER = "SYNTHETIC.json"
"""In a dataset's folder: the data is synthetic, and made by this generator from these options."""


def marker(source: Any, config: DictConfig) -> dict[str, Any]:
    """What makes synthetic data what it is."""
    options = {str(k): v for k, v in OmegaConf.to_container(config.dataset, resolve=True).items() if k != "_target_"}
    return {
        "synthetic": True,
        "dataset": source.name,
        "generator": config.dataset._target_,
        "version": source.version,
        "seed": config.seed,
        "options": options,
    }


def synthesize(config: DictConfig) -> str:
    """Writes config.dataset's files into machine.data, in whole or not at all; "done".

    Raises ValueError where the folder holds real data, or, without overwrite, other synthetic data.
    """
    if config.processes is not None and config.processes < 1:
        raise ValueError(f"processes={config.processes}: expected 1 or more, or null for one per core.")
    source = configuration.build(config.dataset, seed=config.seed)
    folder = Path(config.machine.data) / source.name
    wanted = marker(source, config)
    try:
        if _there(source, folder, wanted, config.overwrite):
            print(f"{source.name}: {_said(source, wanted)} are there already, in {folder}.", flush=True)
            return "done"
        folder.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        beside = Path(tempfile.mkdtemp(prefix=f".{source.name}.", dir=folder.parent))
        beside.chmod(0o755)
        try:
            _write(source, beside, config.processes)
            if hasattr(source, "finish"):
                source.finish(beside)
            (beside / MARKER).write_text(json.dumps(wanted, indent=1) + "\n")
            if not _there(source, folder, wanted, config.overwrite):  # another process may have been faster
                _move(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise ValueError(
            f"{source.name}: cannot write {folder}: {error}. Nothing was left there; "
            f"free the disk or name another folder with machine.data=<folder>."
        ) from error
    print(
        f"{source.name}: wrote {_said(source, wanted)} to {folder} in {time.monotonic() - started:.0f} s.", flush=True
    )
    return "done"


def _said(source: Any, wanted: dict[str, Any]) -> str:
    options = ", ".join(f"{key} {value}" for key, value in wanted["options"].items())
    return f"{len(source.items())} synthetic images ({options}, seed {wanted['seed']})"


def _there(source: Any, folder: Path, wanted: dict[str, Any], overwrite: bool) -> bool:
    """Whether the folder holds what is wanted, in whole; False where it may be written."""
    if not folder.exists() and not folder.is_symlink():
        return False
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder. Name another place with machine.data=<folder>.")
    if not any(folder.iterdir()):
        return False
    if not (folder / MARKER).is_file():
        raise ValueError(
            f"{folder} holds data without a file {MARKER}, so it may be real: it is left alone. "
            f"Write the synthetic data elsewhere: machine.data=<folder>."
        )
    if overwrite:
        return False
    try:
        found = json.loads((folder / MARKER).read_text())
    except ValueError:
        found = {}
    if found != wanted:
        changed = [k for k in wanted if k != "options" and found.get(k) != wanted[k]]
        options = found.get("options") or {}
        changed += [k for k in wanted["options"] if options.get(k) != wanted["options"][k]]
        raise ValueError(
            f"{folder} holds synthetic data made otherwise (different: {', '.join(changed)}). "
            f"Replace it with overwrite=true, or write elsewhere with machine.data=<folder>."
        )
    missing = [path for path in source.images(folder) if not path.is_file()]
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} of its images, {missing[0].name} among them. "
            f"Write it again with overwrite=true."
        )
    return True


def _move(beside: Path, folder: Path) -> None:
    """Puts the finished folder in place; what was there (marked as synthetic) is removed afterwards."""
    old = None
    if folder.is_dir() and any(folder.iterdir()):
        old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
        os.replace(folder, old)
    try:
        os.replace(beside, folder)
    except OSError:
        if old is not None:
            os.replace(old, folder)
        raise
    if old is not None:
        shutil.rmtree(old)


def _write(source: Any, folder: Path, processes: int | None) -> None:
    items = source.items()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = min(processes or cores or 1, len(items))
    if count == 1:
        for item in _progress(items, source.name, len(items)):
            source.write(folder, *item)
        return
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(source.write, folder, *item) for item in items]
        try:
            for ended in _progress(as_completed(waiting), source.name, len(items)):
                ended.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _progress(steps: Iterable, name: str, total: int) -> Iterable:
    """A bar on a terminal; elsewhere a line at each quarter."""
    if sys.stdout.isatty():
        yield from track(steps, f"{name}: writing", total=total)
        return
    for done, step in enumerate(steps, start=1):
        yield step
        if done * 4 // total > (done - 1) * 4 // total:
            print(f"{name}: {done} of {total} images written", flush=True)


def translate(words: Sequence[str]) -> list[str]:
    """The command line with `dataset=name` as Hydra's `synthetic@dataset=name`.

    Raises ValueError that lists what exists where there is no synthetic dataset of that name.
    """
    existing = configuration.options("synthetic")
    translated = []
    for word in words:
        key, equals, name = word.partition("=")
        if key == "dataset" and equals:
            if name not in existing:
                near = difflib.get_close_matches(name, existing, n=1)
                guess = f" Did you mean {near[0]}?" if near else ""
                raise ValueError(
                    f"{word}: there is no synthetic dataset of that name.{guess} There are: {', '.join(existing)}."
                )
            word = f"synthetic@dataset={name}"
        translated.append(word)
    return translated


def main() -> None:
    """`mtlbench-synthesize`: a plain command line is composed here, with errors as sentences; flags are Hydra's."""

    def command() -> str:
        sys.argv[1:] = translate(sys.argv[1:])
        arguments = overrides_of(sys.argv[1:])
        if arguments is None:
            hydra.main(version_base="1.3", config_path=str(configuration.CONF), config_name="synthesize")(synthesize)()
            return "done"
        return synthesize(configuration.load(arguments, "synthesize"))

    run_command(command)


if __name__ == "__main__":
    main()
