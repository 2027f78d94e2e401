"""Where conf/ is, a run's identity, and the objects that a configuration names."""

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

_HERE = Path(__file__).resolve().parent
CONF = next(p for p in (_HERE / "conf", _HERE.parents[1] / "conf") if (p / "train.yaml").is_file())
"""The folder of all options: beside the package in a wheel, at the top of a checkout."""

OUTSIDE_IDENTITY = ("machine", "logger")
"""Groups that change no number."""

NEUTRAL: dict[str, Any] = {
    "method.scale": "paper",
    "method.jacobian": "whole",
    "micro_batches": 1,
    "backbone.pool": False,
    "loss_scale": None,
    "head_of": {},
}
"""Keys added later, with the default under which a run is what it was before: no part of the identity then."""


def identity(config: DictConfig) -> dict[str, Any]:
    """What a run is a function of: the resolved configuration without machine, logger and neutral defaults."""
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    plain = {key: value for key, value in plain.items() if key not in OUTSIDE_IDENTITY}
    for key, default in NEUTRAL.items():
        *parents, last = key.split(".")
        node = plain
        for parent in parents:
            node = node.get(parent, {})
        if last in node and node[last] == default:
            del node[last]
    return plain


def run_id(config: DictConfig) -> str:
    """Twelve hexadecimal digits: the hash of the run's identity."""
    text = json.dumps(identity(config), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def load(overrides: Sequence[str] = (), name: str = "train", search: Sequence[Path] = ()) -> DictConfig:
    """The composed configuration for command-line overrides; `search` adds folders of options.

    Raises ValueError with what exists for a wrong group, option or key.
    """
    return load_run(overrides, name, search)[0]


def load_run(
    overrides: Sequence[str] = (), name: str = "train", search: Sequence[Path] = ()
) -> tuple[DictConfig, dict[str, str]]:
    """`load`, and the option chosen in each group: {"method": "imtl", "dataset": "multidigits", ...}."""
    GlobalHydra.instance().clear()
    path = [f"hydra.searchpath=[{','.join(f'file://{Path(p).resolve()}' for p in search)}]"] if search else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            refuse_additions(overrides)
            config = compose(name, overrides=[*overrides, *path], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(explain(error, overrides, name)) from error
    choices = chosen(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return config, choices


def chosen(choices: DictConfig) -> dict[str, str]:
    """Hydra's record of the option chosen in each group, without Hydra's own groups."""
    return {str(k): str(v) for k, v in choices.items() if v is not None and not str(k).startswith("hydra/")}


def build(node: DictConfig, *args: Any, **runtime: Any) -> Any:
    """The object of a node's `_target_`, from its keys and what is only known at run time."""
    return partial(node)(*args, **runtime)


def partial(node: DictConfig) -> Callable[..., Any]:
    """The class or function of a node's `_target_`, with the node's keys bound."""
    return instantiate(node, _partial_=True, _convert_="all")


def refuse_additions(overrides: Sequence[str]) -> None:
    """Raises ValueError for `+key=` and `++key=`: every key has its default in a yaml, so a new one is a typo."""
    for override in overrides:
        if override.startswith("+") and "@" not in override and not override.startswith("+hydra"):
            raise ValueError(
                f"{override}: keys are not added on the command line; every key that is read has its default "
                f"in conf/. Leave out the '+' to change it, or see --cfg job for what exists."
            )


def explain(error: Exception, overrides: Sequence[str], name: str = "train") -> str:
    """Hydra's error as a sentence that says what exists."""
    text = str(error)
    option = re.search(r"Could not find '([\w@.]+)/([^']*)'", text)
    if option:
        group, wrong = option.groups()
        return _no_such(f"{group}={wrong}", f"{group}", wrong, options(group))
    key = re.search(r"Could not override '([^']+)'", text)
    if key:
        wrong = key.group(1)
        task = re.match(r"(?:head@)?head_of\.(\w+)", wrong)
        if task and f"head_of.{task[1]}=" not in "".join(o.partition("@")[2] for o in overrides if o[0] == "+"):
            return f"{wrong}: {task[1]} has no head of its own yet. Type +head@head_of.{task[1]}=<option of head>."
        base = [o for o in overrides if o.split("=")[0].lstrip("~") != wrong]
        try:
            config = compose(name, overrides=base)
        except (HydraException, OmegaConfBaseException):
            config = compose(name)
        parent, _, last = wrong.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
        while node is None or not isinstance(node, DictConfig):
            parent, _, last = parent.rpartition(".")
            node = OmegaConf.select(config, parent) if parent else config
        existing = [str(k) for k in node if not str(k).startswith("_")]
        where = f"key of {parent}" if parent else "key or group"
        return _no_such(wrong, where, last, existing)
    return text


def _no_such(typed: str, kind: str, wrong: str, existing: Sequence[str]) -> str:
    near = difflib.get_close_matches(wrong, existing, n=1)
    guess = f" Did you mean {near[0]}?" if near else ""
    return f"{typed}: there is no such {kind}.{guess} There are: {', '.join(existing)}."


def options(group: str) -> list[str]:
    """The options of a config group, by name."""
    return sorted(path.stem for path in (CONF / group.split("@")[0]).glob("*.yaml"))


def build_method(node: DictConfig, tasks: Sequence[str]) -> Any:
    """The weighting method of a config node, and of the nodes inside it (a hybrid's two parts)."""
    inner = {
        str(key): build_method(value, tasks)
        for key, value in node.items()
        if isinstance(value, DictConfig) and "_target_" in value
    }
    rest = OmegaConf.create({k: v for k, v in node.items() if k not in (*inner, "scale", "jacobian")})
    built = build(rest, tasks=list(tasks), **inner)
    built.set_rules(node.get("scale", "paper"), node.get("jacobian", "whole"))
    return built
