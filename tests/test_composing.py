"""Composing many command lines is composing each of them with Hydra."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from mtlbench import config
from mtlbench.cells import expand, files_of
from mtlbench.composing import Composer

FOLDER = Path(__file__).resolve().parents[1] / "sweeps"
WAITING = set(tomllib.loads((FOLDER / "waiting.toml").read_text()))  # tested by test_paper_sweeps.py
SWEEPS = sorted(path.parent for path in FOLDER.glob("*/*.yaml") if path.parent.name not in WAITING)

LINES = [
    [],
    ["seed=3"],
    ["method=imtl", "optimizer.lr=1e-3", "seed=1"],
    ["seed=1", "method=imtl", "optimizer=adam", "optimizer.lr=0.5"],
    ["optimizer.lr=0.5", "optimizer=adam"],  # a value before its group
    ["method=imtl", "method=mgda"],  # twice: the last counts
    ["dataset=cityscapes", "dataset.tasks=[semantic]", "dataset.augmentation.scale=[1,1]", "clip_norm=null"],
    ["experiment=mgda_multidigits", "batch_size=32", "batch_size=64"],
    ["optimizer={lr: 0.25}"],  # a dictionary is merged into the group's node
    ["method=hybrid", "method@method.loss=uncertainty", "method@method.gradient=pcgrad"],
    ["method=hybrid", "method.gradient.level=parameter", "method@method.gradient=mgda"],
    ["keep='best'", 'precision="float64"', "evaluate_every=0x10", "sync_batch_norm=False"],
    ["machine.runs='a folder'", "machine.data=/x/y z", "logger=wandb"],
    ["epochs=${seed}", "seed=7"],  # an interpolation is of the finished configuration
    ["hydra.job.name=x", "seed=2"],
    ["+method@method.extra=equal"],  # an addition to the defaults list
    ["~experiment"],
]


def plain(found: tuple) -> tuple:
    made, choices = found
    return OmegaConf.to_container(made, resolve=True), choices, OmegaConf.is_struct(made), config.run_id(made)


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_equal_to_hydra(words: list[str]):
    composer = Composer()
    assert plain(composer(words)) == plain(config.load_run(words))
    assert plain(composer(words)) == plain(config.load_run(words))  # from what is kept


def test_lines_do_not_leak_into_each_other():
    composer = Composer()
    for _ in range(2):
        for words in LINES:
            assert plain(composer(words)) == plain(config.load_run(words))
    composer(["seed=3"])[1]["method"] = "changed"
    composer(["seed=3"])[0].seed = 9
    assert plain(composer(["seed=3"])) == plain(config.load_run(["seed=3"]))


@pytest.mark.parametrize("folder", dict.fromkeys(SWEEPS), ids=lambda folder: folder.name)
def test_equal_on_a_sample_of_every_sweep(folder: Path):
    composer = Composer()
    lines = [words for path in files_of(folder) for words in expand(path)]
    step = max(1, len(lines) // 12)
    for words in {tuple(line) for line in (*lines[::step], lines[-1])}:
        assert plain(composer(words)) == plain(config.load_run(words))


WORDS = ["seed=1", "seed=2", "method=imtl", "method=mgda", "optimizer=adam", "optimizer.lr=0.3", "schedule=step"]
WORDS += ["experiment=mgda_multidigits", "method.scale=sum_T", "dataset.tasks=[left]", "optimizer={lr: 2}", "epochs=3"]


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.lists(st.sampled_from(WORDS), max_size=6))
def test_any_order_of_words(words: list[str]):
    assert plain(Composer()(words)) == plain(config.load_run(words))


def test_hydra_is_asked_once_for_each_combination_of_groups():
    composer = Composer()
    for method in ("equal", "imtl"):
        for lr in range(1, 20):
            assert composer([f"method={method}", f"optimizer.lr={lr}"])[0].optimizer.lr == lr
    assert composer.composed == 2


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer.lrr=1"],
        ["method=imtll"],
        ["methd=imtl"],
        ["+new=1"],
        ["++seed=1"],
        ["seed.x=1"],
        ["method=3"],
        ["dataset.tasks=[left"],
        ["seed@x=1"],
        ["method=equal,imtl"],
    ],
    ids=" ".join,
)
def test_errors_are_those_of_a_single_line(words: list[str]):
    composer = Composer()
    composer([])
    with pytest.raises(ValueError, match=r".") as expected:
        config.load_run(words)
    with pytest.raises(ValueError, match=r".") as found:
        composer(words)
    assert str(found.value) == str(expected.value)
