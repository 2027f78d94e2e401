"""Epochs in process: what is recorded, what clipping and precision do, which options change nothing."""

import math
import shutil
import warnings
from pathlib import Path

import pytest
import torch

from mtlbench import build, config
from mtlbench.loader import EvaluationOrder, TrainingOrder
from mtlbench.parallel import Ranks
from mtlbench.signals import Stop
from mtlbench.weighting import Weighting

WORDS = [
    "experiment=mgda_multidigits",
    "dataset.train_pairs=96",
    "dataset.val_pairs=32",
    "dataset.test_pairs=32",
    "batch_size=32",
    "epochs=2",
    "machine.device=cpu",
]


class Lines:
    """A run that only keeps what is appended and saved."""

    id = "test"

    def __init__(self):
        self.appended, self.best = [], []

    def append(self, line):
        self.appended.append(line)

    def save(self, state):
        self.state = state

    def save_best(self, state):
        self.best.append({**state, "model": {k: v.clone() for k, v in state["model"].items()}})

    def load(self):
        return None

    def keep_lines(self, number):
        assert number == 0


def fit(*words: str, method: Weighting | None = None):
    chosen = config.load([*WORDS, *words])
    ranks = Ranks()
    dataset = config.build(chosen.dataset, folder=Path(), seed=chosen.seed)
    run = Lines()
    made = build.fit(chosen, dataset, build.settings(chosen, ranks), ranks, run)
    build.resume(made, run, ranks, False)
    if method is not None:
        made.method = method
    made.train(Stop())
    return made, run


def state(made) -> dict[str, torch.Tensor]:
    return made.model.state_dict()


def test_a_line_says_what_happened():
    made, run = fit("method=mgda")
    assert [line["epoch"] for line in run.appended] == [0, 1]
    line = run.appended[0]
    assert line["steps"] == 3
    assert line["weights_sum"] == pytest.approx(1.0)
    assert 0 <= line["weights"]["left"]["min"] <= line["weights"]["left"]["mean"] <= line["weights"]["left"]["max"] <= 1
    assert line["gradient_norms"]["left"] > 0
    assert -1 <= line["cosines"]["left|right"] <= 1
    assert line["absent"] == {"left": 0, "right": 0}
    assert 0 <= line["data_wait"] <= 1
    assert run.appended[1]["lr"] < line["lr"]  # poly
    assert made.best["epoch"] == run.best[-1]["epoch"]


def test_evaluation_now_and_then_but_always_in_the_end():
    _, run = fit("epochs=3", "evaluate_every=2")
    assert [line["test"] is not None for line in run.appended] == [False, True, True]


def test_clipping_bounds_the_update():
    torch.manual_seed(0)
    made, _ = fit("clip_norm=1e-6", "optimizer.momentum=0", "optimizer.lr=1", "epochs=1", "schedule=constant")
    start = build.model(config.load([*WORDS]), made.dataset, Ranks()).state_dict()
    moved = math.sqrt(sum((state(made)[k] - start[k]).double().pow(2).sum().item() for k in start))
    assert 0 < moved <= 3 * 1e-6 * 1.001


def test_bfloat16_stays_close_and_float64_is_float64():
    plain, _ = fit("backbone.dropout=0", "head.dropout=0")
    half, _ = fit("backbone.dropout=0", "head.dropout=0", "precision=bfloat16")
    double, _ = fit("backbone.dropout=0", "head.dropout=0", "precision=float64")
    assert all(value.dtype == torch.float64 for value in state(double).values())
    for key, value in state(double).items():
        torch.testing.assert_close(state(plain)[key].double(), value, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(state(half)[key].double(), value, rtol=0.2, atol=0.05)


def test_channels_last_changes_nothing_but_rounding():
    plain, _ = fit()
    other, _ = fit("machine.channels_last=true")
    for key, value in state(plain).items():
        torch.testing.assert_close(state(other)[key], value, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs a C++ compiler")
def test_compile_changes_nothing_but_rounding():
    plain, _ = fit("backbone.dropout=0", "head.dropout=0", "epochs=1")
    other, _ = fit("backbone.dropout=0", "head.dropout=0", "epochs=1", "machine.compile=true")
    for key, value in state(plain).items():
        torch.testing.assert_close(state(other)[key], value, rtol=1e-3, atol=1e-5)


def test_the_method_sees_epochs_and_the_losses_after_each_step():
    class Watching(Weighting):
        def __init__(self, tasks):
            super().__init__(tasks)
            self.after, self.epochs = [], []

        def after_step(self, losses, tasks):
            self.after.append((losses, tasks))

        def after_epoch(self, losses, indicators):
            self.epochs.append((losses, indicators))

    watching = Watching(["left", "right"])
    made, run = fit(method=watching)
    assert len(watching.after) == 6
    assert all(losses.shape == (2,) and losses.isfinite().all() for losses, _ in watching.after)
    losses, indicators = watching.epochs[1]
    assert losses == run.appended[1]["losses"]
    assert indicators == {task: (run.appended[1]["val"][f"{task}/accuracy"], True, "%") for task in ("left", "right")}
    alone, _ = fit()
    assert all(torch.equal(state(made)[key], value) for key, value in state(alone).items())


def test_the_order_is_a_function_of_seed_and_epoch():
    def keys(rank=0, size=1, epoch=0, start=0, seed=0):
        order = TrainingOrder(100, 20, seed, Ranks(rank, size))
        order.epoch, order.start = epoch, start
        return list(order)

    whole = keys()
    assert len(whole) == 5
    assert sorted(index for batch in whole for _, index in batch) == list(range(100))
    assert keys(epoch=1) != whole
    assert keys(seed=1) != whole
    assert keys(start=2) == whole[2:]
    halves = [keys(rank, 2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole
    with pytest.raises(ValueError, match="less than one batch"):
        TrainingOrder(10, 20, 0, Ranks())


def test_evaluation_reads_every_image_once():
    seen = [key for rank in range(3) for batch in EvaluationOrder(10, 2, Ranks(rank, 3)) for key in batch]
    assert sorted(index for _, index in seen) == list(range(10))
    with pytest.raises(ValueError, match="use fewer"):
        EvaluationOrder(2, 2, Ranks(0, 3))


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["epochs=0"], "epochs=0"),
        (["evaluate_every=0"], "evaluate_every=0"),
        (["clip_norm=-1"], "clip_norm=-1"),
        (["precision=float8"], "float8"),
        (["schedule=step", "schedule.every=0"], "every"),
    ],
)
def test_numbers_that_make_no_sense(words, part):
    with pytest.raises(ValueError, match=part):
        fit(*words)


def test_operations_without_a_deterministic_form_are_noted():
    shown = []
    with warnings.catch_warnings(), build.watching_determinism(True) as found:
        text = "foo_backward does not have a deterministic implementation, but you set ..."
        warnings.warn(text, stacklevel=1)
        warnings.warn(text, stacklevel=1)
    assert found == ["foo_backward"]
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *rest: shown.append(str(message))
        with build.watching_determinism(True) as found:
            warnings.warn("something else", stacklevel=1)
    assert (found, shown) == ([], ["something else"])
