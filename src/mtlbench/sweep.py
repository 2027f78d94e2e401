"""How a sweep stands, and what to do about it: `python -m mtlbench.sweep status|missing|run|clean sweeps/<name>`."""

import argparse
import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtlbench.cells import Cell, cells, labels, machine_of, runs_of
from mtlbench.claim import Busy, Claim
from mtlbench.console import duration
from mtlbench.provenance import source_hash
from mtlbench.record import epochs_done, read_record, state_of

MANY = 3
"""Cells that failed for one reason are named one by one up to this number."""


@dataclass(frozen=True)
class Standing:
    """A cell as its folder has it: a state of record.STATES, the record if it is done, and what is wrong."""

    cell: Cell
    state: str
    record: dict[str, Any] | None = None
    reason: str = ""
    damaged: bool = False  # a record is there, but cannot be read

    @property
    def other_code(self) -> bool:
        return self.record is not None and self.record.get("source_hash") != source_hash()


# how it stands


def standing(cell: Cell, runs: Path) -> Standing:
    """The state of one cell."""
    folder = runs / cell.id
    state = state_of(folder)
    if state == "failed":
        return Standing(cell, state, reason=_last_line(folder / "error.txt"))
    if state != "done":
        return Standing(cell, state)
    try:
        return Standing(cell, state, read_record(folder))
    except ValueError as error:
        return Standing(cell, "failed", reason=str(error), damaged=True)


def standings(found: Sequence[Cell], runs: Path) -> list[Standing]:
    """The states of all cells, in their order."""
    return [standing(cell, runs) for cell in found]


def _last_line(path: Path) -> str:
    try:
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except FileNotFoundError:  # started again this moment
        return ""
    return lines[-1] if lines else "error.txt is empty"


def seconds_left(found: Sequence[Standing], runs: Path) -> float | None:
    """Seconds of work that remain at the mean pace of the cells that are done; None before the first one."""
    paces = [s.record["seconds"] / s.record["epochs"] for s in found if _measured(s)]
    if not paces:
        return None
    open_epochs = sum(max(0, s.cell.epochs - epochs_done(runs / s.cell.id)) for s in found if s.state != "done")
    return open_epochs * sum(paces) / len(paces)


def _measured(s: Standing) -> bool:
    return s.record is not None and not s.record.get("diverged") and bool(s.record.get("epochs"))


def status(folder: Path, overrides: Sequence[str] = (), jobs: int | None = None) -> tuple[str, bool]:
    """What is done, why what failed did, how long the rest takes, what to type next; and whether all is done."""
    runs, found = runs_of(overrides), cells(folder, overrides)
    stands, names = standings(found, runs), labels(found)
    count = Counter(s.state for s in stands)
    diverged = sum(bool(s.record and s.record.get("diverged")) for s in stands)
    other = sum(s.other_code for s in stands)
    remarks = [f"{diverged} of them diverged"] * bool(diverged) + [f"{other} by other code"] * bool(other)
    states = [f"{count['done']} done{' (' + ', '.join(remarks) + ')' if remarks else ''}"]
    states += [f"{count[state]} {state}" for state in ("interrupted", "running", "failed", "missing")]
    lines = [f"{len(found)} cells   {'   '.join(states)}"]
    complete = count["done"] == len(found)
    left = None if complete else seconds_left(stands, runs)
    if left is not None:
        workers = jobs or count["running"] or 1
        lines.append(f"about {duration(left / workers)} left on {workers} worker{'s' if workers > 1 else ''}")
    lines += _failures(stands, names)
    words = shlex.join([str(folder), *overrides])
    if other:
        lines.append(f"repeat what other code made: python -m mtlbench.sweep run --stale {words}")
    run = f"python -m mtlbench.sweep run {words} --jobs {jobs or os.cpu_count() or 1}"
    lines.append(f"next: {f'python -m mtlbench.aggregate {words}' if complete else run}")
    return "\n".join(lines), complete


def _failures(found: Sequence[Standing], names: dict[str, str]) -> list[str]:
    """A line for each reason, with the cells that it has; many of them are counted."""
    reasons: dict[str, list[str]] = {}
    for s in found:
        if s.state == "failed":
            reasons.setdefault(s.reason, []).append(names[s.cell.id])
    lines = []
    for reason, cells_ in reasons.items():
        if len(cells_) > MANY:
            lines.append(f"failed   {len(cells_)} cells, the first: {cells_[0]}   {reason}")
        else:
            lines += [f"failed   {name}   {reason}" for name in cells_]
    return lines


def missing(folder: Path, overrides: Sequence[str] = ()) -> list[str]:
    """The command of every cell that is neither done nor running, ready for a shell."""
    stands = standings(cells(folder, overrides), runs_of(overrides))
    remain = [s.cell for s in stands if s.state not in ("done", "running")]
    return [shlex.join(["python", "-m", "mtlbench.train", *cell.overrides]) for cell in remain]


def clean(folder: Path, overrides: Sequence[str] = (), yes: bool = False) -> list[Path]:
    """Removes the folders of failed and interrupted cells, after asking; returns them.

    Raises ValueError where there is nobody to ask and no --yes.
    """
    runs = runs_of(overrides)
    stands = standings(cells(folder, overrides), runs)
    doomed = [runs / s.cell.id for s in stands if s.state in ("failed", "interrupted") and not s.damaged]
    if doomed and not yes:
        if not sys.stdin.isatty():
            raise ValueError(f"{len(doomed)} failed or interrupted runs would be removed; type --yes to do it.")
        answer = input(f"remove {len(doomed)} failed or interrupted runs under {runs}, with their checkpoints? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            return []
    return [path for path in doomed if _remove(path)]


def _remove(path: Path) -> bool:
    """Claims the run, so that nobody starts it meanwhile, and removes its folder; False if it was started first."""
    try:
        claim = Claim(path, {"why": "being removed"})
    except Busy:
        return False
    aside = path.with_name(f".removed-{path.name}-{claim.token}")
    os.rename(path, aside)
    claim.give_back()
    shutil.rmtree(aside)
    return True


def set_aside(folder: Path, record: dict[str, Any]) -> Path:
    """Moves a finished run to `.stale/<id>-<its source hash>`, so that the cell can be run again; nothing is lost."""
    stale = folder.parent / ".stale"
    stale.mkdir(exist_ok=True)
    number, place = 0, stale / f"{folder.name}-{record.get('source_hash')}"
    while place.exists():
        number += 1
        place = stale / f"{folder.name}-{record.get('source_hash')}-{number}"
    os.rename(folder, place)
    return place


def run(
    folder: Path, overrides: Sequence[str] = (), jobs: int | None = None, stale: bool = False, worker: bool = False
) -> int:
    """Runs every cell that is not done; returns an exit code: 0, 1 (a cell failed) or 85 (stopped).

    jobs: processes at a time; None: one a GPU, one on a CPU. worker: this is one of many such commands.
    """
    from mtlbench.workers import Plan, Workers

    if worker and stale:
        raise ValueError("--worker --stale: many workers would set aside each other's runs. Type run --stale once.")
    machine = machine_of(overrides)
    plan = Plan(jobs, worker, gpus=[]) if machine.device == "cpu" else Plan(jobs, worker)
    runs, found = Path(machine.runs), cells(folder, overrides)
    stands = standings(found, runs)
    if stale:
        for s in stands:
            if s.other_code:
                print(f"set aside: {set_aside(runs / s.cell.id, s.record or {})}")
        stands = standings(found, runs)
    pool = Workers([s.cell for s in stands if s.state != "done"], found, runs, plan, Path(folder).resolve().name)
    if pool.queue:
        pool.run()
    print(status(folder, overrides, plan.processes())[0], flush=True)
    return pool.exit_code


def main(words: Sequence[str] | None = None) -> None:
    """`mtlbench-sweep`"""
    parser = argparse.ArgumentParser(
        prog="python -m mtlbench.sweep",
        description="status: what is done, failed, missing, how long the rest takes (exit code 0 if all is done). "
        "missing: the command of every cell that remains. run: runs them; a second start continues. "
        "clean: removes failed and interrupted runs.",
    )
    parser.add_argument("verb", choices=("status", "missing", "run", "clean"))
    parser.add_argument("folder", type=Path, help="sweeps/<name>")
    parser.add_argument("overrides", nargs="*", help="for all cells: machine.runs=<folder> epochs=1")
    parser.add_argument(
        "--jobs",
        type=int,
        default=None,
        help="run: so many processes, which share the cores (one a GPU; 1 on a CPU)",
    )
    parser.add_argument(
        "--worker",
        action="store_true",
        help="run: as one of many such commands, an array of jobs or several hosts; leaves what failed alone",
    )
    parser.add_argument("--stale", action="store_true", help="run: also what other code made (moved to runs/.stale)")
    parser.add_argument("--yes", action="store_true", help="clean: do not ask")
    typed = parser.parse_intermixed_args(words)
    try:
        if typed.verb == "status":
            text, complete = status(typed.folder, typed.overrides, typed.jobs)
            print(text)
            sys.exit(0 if complete else 1)
        if typed.verb == "run":
            sys.exit(run(typed.folder, typed.overrides, typed.jobs, typed.stale, typed.worker))
        if typed.verb == "clean":
            removed = clean(typed.folder, typed.overrides, typed.yes)
            print(f"removed {len(removed)} runs" if removed else "nothing removed")
        else:
            print("\n".join(missing(typed.folder, typed.overrides)))
    except ValueError as error:
        sys.exit(str(error))
    except BrokenPipeError:  # `status ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
