"""A run's identity: what is in it, what is not, and that it stays what it was."""

import pytest
from omegaconf import OmegaConf

from mtlbench import config

PINNED = {
    "": "1ecf7fa3ea4c",
    "method=imtl": "a7fdc4a9f65c",
    "method=imtl method.level=parameter": "5228e56ceae8",
    "method=mgda seed=1": "0f0205407a26",
    "method=pcgrad optimizer=adam": "049b3200304b",
    "experiment=mgda_multidigits method=uncertainty": "995fa22531ff",
    "experiment=mgda_multidigits dataset.tasks=[left]": "e09158c13ade",
    "dataset=cityscapes method=imtl": "328e291d9031",
    "experiment=imtl_cityscapes dataset.semantic_scale=10": "b350f3fc743b",
    "method=hybrid method@method.loss=imtl_l method@method.gradient=pcgrad": "0eb5512eb040",
}
"""Runs that people have. A new key goes into config.NEUTRAL, with the default under which these stay."""


def identifier(words: str) -> str:
    return config.run_id(config.load(words.split()))


@pytest.mark.parametrize("words", PINNED)
def test_ids_stay(words: str):
    assert identifier(words) == PINNED[words]


def test_machine_and_logger_change_no_identity():
    words = "machine.runs=/x machine.data=/y machine.workers=3 machine.threads=1 machine.compile=true logger=wandb"
    assert identifier(words) == identifier("")


@pytest.mark.parametrize("words", ["seed=1", "precision=bfloat16", "batch_size=128", "sync_batch_norm=false"])
def test_what_changes_numbers_changes_the_identity(words: str):
    assert identifier(words) != identifier("")


def test_a_neutral_key_at_its_default_is_not_in_the_identity(monkeypatch: pytest.MonkeyPatch):
    before = OmegaConf.create(OmegaConf.to_container(config.load([])))
    after = OmegaConf.merge(before, {"new": 0, "optimizer": {"newer": None}})
    assert config.run_id(after) != config.run_id(before)
    monkeypatch.setattr(config, "NEUTRAL", {"new": 0, "optimizer.newer": None, "nowhere.at_all": 1})
    assert config.run_id(after) == config.run_id(before)
    other = OmegaConf.merge(after, {"new": 1})
    assert config.run_id(other) != config.run_id(before)


def test_the_order_of_keys_is_no_part_of_it():
    loaded = config.load([])
    turned = OmegaConf.create(dict(reversed(list(OmegaConf.to_container(loaded).items()))))
    assert config.run_id(turned) == config.run_id(loaded)


def test_choices_name_the_option_of_every_group():
    _, choices = config.load_run(["dataset=cityscapes", "method=imtl"])
    assert choices["dataset"] == "cityscapes"
    assert choices["method"] == "imtl"
    assert choices["backbone"] == "resnet50_dilated"
    assert choices["head"] == "psp"
    assert not any(key.startswith("hydra") for key in choices)


def test_experiment_wins_over_dataset_and_the_command_line_over_both():
    assert config.load(["dataset=cityscapes"]).batch_size == 32
    assert config.load(["experiment=demo_cityscapes"]).batch_size == 4
    assert config.load(["experiment=demo_cityscapes", "batch_size=2"]).batch_size == 2
