"""What a dataset holds and what a network is made of. `python -m mtlbench.inspect dataset=...`, `... inspect model`

    python -m mtlbench.inspect dataset=cityscapes machine.data=<folder>          images and targets as trained on
    python -m mtlbench.inspect model architecture=mtan dataset=nyuv2             layers, parameters, operations by part
    python -m mtlbench.inspect model experiment=survey_nyuv2 depth=3             deeper; beside what the paper prints
    python -m mtlbench.inspect model experiment=imtl_cityscapes image=[1024,2048]
    python -m mtlbench.inspect published                                         results/papers/networks.md

    python -m mtlbench.inspect dataset=celeba --help                             where to get the data and to put it

The rest of the words are overrides as in `mtlbench.train`; `model` reads no data, and takes `image` and `depth` besides
(conf/inspect_model.yaml).
"""

import sys
from collections.abc import Sequence
from importlib import import_module

from mtlbench.commands import run_command

COMMANDS = {
    "dataset": ("mtlbench.inspecting.data", "inspect_data"),
    "model": ("mtlbench.inspecting.model", "inspect_model"),
    "published": ("mtlbench.inspecting.published", "inspect_published"),
}
"""Each: (module, function of the overrides), imported when it is asked for."""


def main() -> None:
    words = sys.argv[1:] or ["--help"]
    if {"-h", "--help"} & set(words):
        run_command(lambda: _tell(words))
        return
    run_command(lambda: inspect(words))


def _tell(words: Sequence[str]) -> str:
    """Prints what this command does, or, of data sets among the words: licence, where to get and to put them.

    Raises ValueError for a data set that does not exist.
    """
    names = [word.partition("=")[2] for word in words if word.startswith("dataset=")]
    if not names:
        print(__doc__.strip())
        return "done"
    from mtlbench import config  # Hydra and torch take seconds

    for name in names:
        module = config.load([f"dataset={name}"]).dataset._target_.rpartition(".")[0]
        print(import_module(module).__doc__.strip())
    return "done"


def inspect(words: Sequence[str]) -> str:
    """Runs one command; without a first word, `dataset`. Raises ValueError for a word that is no command."""
    first, overrides = (words[0], words[1:]) if "=" not in words[0] else ("dataset", words)
    if first not in COMMANDS:
        raise ValueError(f"mtlbench.inspect {first}: there is no such command. There are: {', '.join(COMMANDS)}.")
    module, function = COMMANDS[first]
    return getattr(import_module(module), function)(list(overrides))


if __name__ == "__main__":
    main()
