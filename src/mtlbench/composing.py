"""Many command lines to their configurations: Hydra composes each combination of groups once, values are set on copies.

What a command line chooses from conf/ (`method=imtl`) decides which files are merged, and costs; a value
(`optimizer.lr=0.1`) is set afterwards on the result. Both are done by Hydra's own functions in Hydra's order, so the
outcome is that of `config.load_run` for each line.
"""

import copy
from collections.abc import Sequence

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from mtlbench import config as configuration


class Composer:
    """`config.load_run`, in milliseconds for a command line whose groups were seen before."""

    def __init__(self) -> None:
        self._parser = OverridesParser.create()
        self._bases: dict[tuple[str, ...], tuple[DictConfig, dict[str, str]]] = {}
        self.composed = 0  # how often Hydra was asked

    def __call__(self, words: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
        """The configuration and the choices. Raises ValueError with what exists for a wrong group, option or key."""
        try:
            parsed = self._parser.parse_overrides(list(words))
            if any(not _plain(override) for override in parsed):
                return self._whole(words)
            groups = tuple(o.input_line for o in parsed if _of_group(o))
            if groups not in self._bases:
                self._bases[groups] = self._whole(groups)
            base, choices = self._bases[groups]
            config = copy.deepcopy(base)
            ConfigLoaderImpl._apply_overrides_to_config([o for o in parsed if not _of_group(o)], config)
        except (HydraException, OmegaConfBaseException, ValueError):
            return self._whole(words)  # raises the same as a sentence
        return config, dict(choices)

    def _whole(self, words: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
        self.composed += 1
        return configuration.load_run(words)


def _plain(override: Override) -> bool:
    """A choice or a value: nothing added or deleted, nothing of Hydra's own."""
    key = override.key_or_group.replace("/", ".").split(".")[0]
    return key != "hydra" and not (override.is_add() or override.is_force_add() or override.is_delete())


def _of_group(override: Override) -> bool:
    """Hydra's rule: the key is a folder of conf/, and the value is not a dictionary."""
    return (configuration.CONF / override.key_or_group).is_dir() and not isinstance(override.value(), dict)
