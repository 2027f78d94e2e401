"""Every file of conf/: it explains itself, it composes, and what it names takes its keys. A typo gets what exists."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from mtlbench import config
from mtlbench.config import CONF, load, load_run, options

FILES = sorted(path for path in CONF.rglob("*.yaml") if path.relative_to(CONF).parts[0] != "hydra")
"""All but options of Hydra's own groups."""
COMMANDS = sorted(path.stem for path in FILES if path.parent == CONF)
GROUPS = sorted({path.parent.name for path in FILES} - {CONF.name})
OPTIONS = [(path.parent.name, path.stem) for path in FILES if path.parent != CONF]

RUNTIME = {
    # what code adds to the keys of a yaml when it builds the object; of nodes inside a node by their path
    "architecture": {"backbone", "head", "tasks"},
    "dataset": {"folder", "seed"},
    "head": {"channels", "reductions", "out_channels"},
    "head_of.scene": {"channels", "reductions", "out_channels"},
    "method": {"tasks"},
    "method.loss": {"tasks"},
    "method.gradient": {"tasks"},
    "optimizer": {"params"},
    "synthetic": {"seed"},
}

READ_BY = {"synthetic": "synthesize", "workload": "bench"}
"""The command that reads a group, where it is not train."""


def name_of(path: Path) -> str:
    return str(path.relative_to(CONF))


@functools.cache
def composed(group: str, option: str) -> tuple[DictConfig, dict[str, str]]:
    """The command that reads the group, with the option chosen."""
    if group == "synthetic":
        return load_run([f"synthetic@dataset={option}"], name="synthesize")
    return load_run([f"{group}={option}"], name=READ_BY.get(group, "train"))


def objects(node: DictConfig, place: str = "") -> list[tuple[str, DictConfig]]:
    """(path, node) of every node that names an object, however deep."""
    found = [(place, node)] if node.get("_target_") else []
    for key, value in node.items():
        if isinstance(value, DictConfig):
            found += objects(value, f"{place}.{key}".lstrip("."))
    return found


def signature_of(target: Callable[..., Any]) -> inspect.Signature:
    """Of a class whose __init__ hands **options on: with the parameters of the class above it instead."""
    steps = [c.__init__ for c in target.__mro__ if "__init__" in vars(c)] if inspect.isclass(target) else [target]
    found: dict[str, inspect.Parameter] = {}
    for step in steps:
        parameters = inspect.signature(step).parameters.values()
        open_ended = [p for p in parameters if p.kind is p.VAR_KEYWORD]
        named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name != "self"]
        found = {p.name: p.replace(kind=p.KEYWORD_ONLY) for p in named} | found
        if not open_ended:
            break
    return inspect.Signature(list(found.values()))


def misfits(place: str, node: DictConfig, runtime: set[str]) -> list[str]:
    """Why the object of a node cannot be built from the node's keys, or has keys that no yaml shows."""
    signature = signature_of(get_object(node._target_))
    keys = {str(key) for key in node if str(key) not in ("_target_", "_partial_")}
    keys -= {"scale", "jacobian"} if place == "method" else set()  # of every method: build_method reads it
    try:
        signature.bind(**dict.fromkeys(keys | runtime))
    except TypeError as error:
        return [f"{place}: {node._target_}: {error}"]
    hidden = set(signature.parameters) - keys - runtime if node._target_.startswith("mtlbench.") else set()
    return [f"{place}: no yaml shows the keys {sorted(hidden)} of {node._target_}"] if hidden else []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_file_begins_by_saying_what_it_is(path: Path):
    first, second = [*path.read_text().splitlines(), ""][:2]
    line = second if first.startswith("# @package") else first
    assert line.startswith("# "), f"the first line of {path} is a comment: what it is, and the paper"
    assert len(line) > 20


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_values_are_literal(path: Path):
    """No ${...}: what a file says is what is meant, whatever is chosen beside it."""
    content = yaml.safe_load(path.read_text()) or {}
    content.pop("hydra", None)
    if path.parent.name != "machine":
        assert "${" not in yaml.safe_dump(content)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_composes_with_its_defaults(name: str):
    loaded = load(name=name)
    assert not OmegaConf.missing_keys(loaded)
    for place, node in objects(loaded):
        assert misfits(place, node, RUNTIME.get("synthetic" if name == "synthesize" else place, set())) == []


def test_every_group_is_read_by_a_command():
    defaults = {name: str(yaml.safe_load((CONF / f"{name}.yaml").read_text()).get("defaults", "")) for name in COMMANDS}
    for group in GROUPS:
        assert any(f"'{group}'" in text or f"'{group}@" in text for text in defaults.values()), group


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_option_composes_and_is_chosen(group: str, option: str):
    chosen, choices = composed(group, option)
    assert option in (choices.get(group), choices.get(f"{group}@dataset"))
    assert not OmegaConf.missing_keys(chosen)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_objects_take_the_keys_that_the_files_give(group: str, option: str):
    """Also what an option sets elsewhere, as datasets and experiments do: Hydra merges a misspelt key silently."""
    found = objects(composed(group, option)[0])
    assert found
    for place, node in found:
        kind = "head" if place.startswith("head_of.") else place
        runtime = RUNTIME.get("synthetic" if group == "synthetic" else kind, set())
        assert misfits(place, node, runtime) == []


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_option_adds_no_key_beside_those_of_the_command(group: str, option: str):
    command = READ_BY.get(group, "train")
    known = set(yaml.safe_load((CONF / f"{command}.yaml").read_text())) - {"defaults", "hydra"}
    known |= {path.parent.name for path in FILES if path.parent != CONF} - {"experiment", "synthetic", "workload"}
    assert set(composed(group, option)[0]) <= known
    machine = set(yaml.safe_load((CONF / "machine" / "local.yaml").read_text()))
    assert set(composed(group, option)[0].machine) == machine


def test_the_checks_above_find_what_they_look_for():
    node = OmegaConf.create({"_target_": "mtlbench.schedule.poly", "power": 0.9, "unit": "epoch"})
    assert misfits("schedule", node, set()) == []
    assert "unexpected keyword argument 'pwer'" in misfits("", OmegaConf.merge(node, {"pwer": 1}), set())[0]
    del node["unit"]
    assert "no yaml shows the keys ['unit']" in misfits("", node, set())[0]
    del node["power"]
    assert "missing a required argument: 'power'" in misfits("", node, set())[0]
    digits = load(["dataset=multidigits"]).dataset  # its class hands options on to the one above it
    assert misfits("", digits, RUNTIME["dataset"]) == []
    assert "'strech'" in misfits("", OmegaConf.create({**digits, "strech": True}), RUNTIME["dataset"])[0]
    nested = OmegaConf.create({"a": {"b": {"_target_": "x"}, "_target_": "y"}, "c": {"_target_": None}})
    assert [place for place, _ in objects(nested)] == ["a", "a.b"]


# --- typos


def refused(*overrides: str, name: str = "train") -> str:
    with pytest.raises(ValueError, match=r"there is no such|keys are not added") as caught:
        load(overrides, name=name)
    return str(caught.value)


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "synthetic"])
def test_wrong_option_lists_the_options(group: str):
    message = refused(f"{group}=nope", name=READ_BY.get(group, "train"))
    assert message.startswith(f"{group}=nope: there is no such {group}.")
    assert message.endswith(f"There are: {', '.join(options(group))}.")
    assert options(group)


def test_wrong_option_names_the_nearest():
    assert "Did you mean resnet50_dilated?" in refused("backbone=resnet50_dilate")
    assert "Did you mean imtl" in refused("method=imlt")


def test_wrong_part_of_a_hybrid_lists_the_methods():
    message = refused("method=hybrid", "method@method.loss=uncertanty")
    assert "Did you mean uncertainty?" in message
    assert ", ".join(options("method")) in message


@pytest.mark.parametrize(
    ("typed", "near", "also"),
    [
        ("epoch=3", "epochs", "batch_size"),
        ("metod=equal", "method", "dataset"),
        ("optimizer.lrr=1", "lr", "momentum"),
        ("machine.run=x", "runs", "threads"),
        ("dataset.task=[left]", "tasks", "construction_seed"),
        ("hidra.mode=RUN", None, "epochs"),
        ("optimizer.lr.start=1", None, "momentum"),
    ],
)
def test_wrong_key_lists_the_keys(typed: str, near: str | None, also: str):
    message = refused(typed)
    assert message.startswith(f"{typed.split('=')[0]}: there is no such key")
    assert near is None or f"Did you mean {near}?" in message
    assert also in message.partition("There are: ")[2]


def test_wrong_key_of_the_chosen_option_lists_its_own_keys():
    message = refused("method=imtl", "method.levl=parameter")
    assert "Did you mean level?" in message
    assert message.endswith("There are: scale, jacobian, a, b, level.")
    message = refused("dataset=cityscapes", "dataset.augmentation.crops=100")
    assert "key of dataset.augmentation. Did you mean crop?" in message
    assert "blur_sigma" in message


@pytest.mark.parametrize("typed", ["+new=1", "++new=1", "+optimizer.new=1", "++optimizer.lr=1", "+method=imtl"])
def test_added_key_is_refused(typed: str):
    assert refused(typed).startswith(f"{typed}: keys are not added")


def test_typo_in_the_other_commands():
    assert "Did you mean warm_up?" in refused("warmup=1", name="bench")
    assert "Did you mean checkpoint?" in refused("checkpiont=best", name="evaluate")
    assert "width" in refused("dataset.hight=3", name="synthesize").partition("There are: ")[2]


def test_several_overrides_are_looked_at_one_by_one():
    assert refused("method=imtl", "epochs=3", "optimiser.lr=1").startswith("optimiser.lr: there is no such")
    assert config.load(["method=imtl", "epochs=3"]).epochs == 3


def test_an_error_leaves_nothing_behind():
    before: Any = load(["method=equal"])
    refused("method=nope")
    assert load(["method=equal"]) == before
