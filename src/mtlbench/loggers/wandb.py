"""Weights & Biases."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MODES = ("online", "offline", "disabled")


class Wandb:
    """Sends each line of metrics.jsonl to Weights & Biases, or keeps it in <run folder>/wandb for `wandb sync`.

    mode: online, offline or disabled; None: what WANDB_MODE says, else online where WANDB_API_KEY is set, else
    offline. The step is the epoch, so that no epoch is logged twice: a run that goes on offline is written anew
    from metrics.jsonl in place of its earlier folder, online it goes on after the last epoch that was sent.
    Raises ValueError for another mode, or where Weights & Biases refuses to start.
    """

    def __init__(self, project: str, entity: str | None = None, mode: str | None = None):
        asked = "WANDB_MODE" if mode is None else "logger.mode"
        mode = os.environ.get("WANDB_MODE") or None if mode is None else mode
        if mode is not None and mode not in MODES:
            raise ValueError(f"{asked}={mode}: expected {', '.join(MODES)}, or nothing. Type logger.mode=offline.")
        self.project, self.entity = project, entity
        self.mode = mode or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
        self.run: Any = None

    def start(self, folder: Path, run_id: str, config: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at import; else it asks for its vendor's host
        import wandb

        if self.mode == "offline":
            for earlier in (folder / "wandb").glob(f"offline-run-*-{run_id}"):
                shutil.rmtree(earlier)  # all that is in it is in `lines`
        try:
            self.run = wandb.init(
                project=self.project,
                entity=self.entity,
                id=run_id,
                dir=str(folder),
                config=dict(config),
                mode=self.mode,
                resume="allow" if self.mode == "online" else None,
                settings=wandb.Settings(silent=True, console="off", reinit="create_new"),
            )
        except wandb.errors.Error as error:
            raise ValueError(f"logger=wandb: {error}. Type logger.mode=offline, or logger=none.") from error
        for line in lines:
            self.line(line)

    def line(self, line: Mapping[str, Any]) -> None:
        if line["epoch"] >= self.run.step:  # less: sent before the run was interrupted
            self.run.log(flatten(line), step=line["epoch"], commit=True)

    def finish(self, record: Mapping[str, Any] | None) -> None:
        if record is not None:
            kept = {key: value for key, value in record.items() if key not in ("config", "metrics")}
            self.run.summary.update(flatten({"record": kept}))
        self.run.finish(exit_code=0 if record is not None else 1)


def flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    """{"val": {"left/accuracy": 97.0}, "cosines": None} to {"val/left/accuracy": 97.0}: None is left out."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}/{inner}": v for inner, v in flatten(value).items()})
        elif value is not None:
            flat[str(key)] = value
    return flat
