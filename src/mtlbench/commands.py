"""What the commands share: their words, their errors as sentences, their exit codes."""

import sys
import warnings
from collections.abc import Callable, Sequence

CONFLICT = {"interrupted": 85, "busy": 0, "done": 0}
"""Exit codes of a run's state: 85 was stopped by a signal and saved (as in `signals.STOPPED`)."""


def overrides_of(words: Sequence[str]) -> list[str] | None:
    """The Hydra overrides of a command line, or None where it has flags, which are Hydra's to understand."""
    return None if any(word.startswith("-") for word in words) else list(words)


def run_command(command: Callable[[], str]) -> None:
    """Runs a command to its exit code. A ValueError is a sentence for the user, without a traceback."""
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # our warnings are sentences too
    try:
        state = command()
    except ValueError as error:
        sys.exit(str(error))
    sys.exit(CONFLICT.get(state, 0))
