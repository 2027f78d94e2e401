"""What a run says: plain lines in a file, a bar on a terminal, one line at the end."""

import io
import math

import pytest
from rich.console import Console as Terminal

from mtlbench import console
from mtlbench.commands import overrides_of, run_command
from mtlbench.console import Console, duration, number, summary

LINE = {
    "epoch": 1,
    "losses": {"left": 0.5, "right": None},
    "val": None,
    "test": {"left/accuracy": 96.25},
    "seconds_per_step": 0.0123,
    "data_wait": 0.021,
}
RECORD = {
    "run": "abc",
    "config": {"seed": 3},
    "metrics": {"left/accuracy": {"unit": "%"}},
    "last": {"left/accuracy": 96.25},
    "seconds": 75.2,
    "diverged": None,
    "synthetic": False,
}


class Logger:
    def __init__(self):
        self.lines, self.finished = [], []

    def line(self, line):
        self.lines.append(line)

    def finish(self, record):
        self.finished.append(record)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.012, "12 ms"), (3.21, "3.2 s"), (59.7, "59.7 s"), (245, "4 min 05 s"), (7800, "2 h 10 min")],
)
def test_durations_as_people_say_them(seconds: float, said: str):
    assert duration(seconds) == said


@pytest.mark.parametrize(("value", "said"), [(74.12, "74.1"), (3.0123, "3.01"), (0.05123, "0.0512"), (None, "-")])
def test_numbers_keep_the_digits_that_matter(value, said):
    assert number(value) == said
    assert number(math.nan) == "-"


def test_plain_lines_in_a_file(capsys: pytest.CaptureFixture[str]):
    logger = Logger()
    told = Console("imtl on digits", "runs/abc", 15, {"left/accuracy": "%"}, logger)
    told(step=1, of=40, epoch=1, loss=0.7)  # nothing but a terminal shows single steps
    told(LINE)
    told.finish(RECORD)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "imtl on digits",
        "epoch 2/15  loss 0.5  test: left/accuracy 96.2 %  12 ms/step, data wait 2 %",
        "run abc is done: left/accuracy 96.2 %. Repeat it with a new seed: seed=4",
        "1 min 15 s; files in runs/abc",
    ]
    assert logger.lines == [LINE]
    assert logger.finished == [RECORD]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()

    def terminal(**keys):
        return Terminal(**{**keys, "file": screen, "force_terminal": True, "width": 100})

    monkeypatch.setattr(console, "Terminal", terminal)
    told = Console("imtl on digits", "runs/abc", 15, {})
    told(step=7, of=40, epoch=1, loss=0.7)
    told.bar.refresh()
    assert "epoch 2/15  loss 0.7" in screen.getvalue()
    assert "7/40" in screen.getvalue()
    told.stopped()
    assert "The same command goes on" in screen.getvalue()
    assert told.bar is None


@pytest.mark.parametrize("end", ["stopped", "failed"])
def test_whatever_ends_a_run_ends_its_logger(end: str):
    logger = Logger()
    getattr(Console("a", "b", 1, {}, logger), end)()
    assert logger.finished == [None]


def test_a_divergence_and_synthetic_data_are_said():
    diverged = {"epoch": 0, "step": 4, "reason": "the loss of left is nan"}
    said = summary({**RECORD, "diverged": diverged, "synthetic": True})
    assert "(synthetic data)" in said
    assert "diverged in epoch 1, step 5: the loss of left is nan" in said


def test_flags_are_hydras_and_states_have_exit_codes():
    assert overrides_of(["a=1", "b=2"]) == ["a=1", "b=2"]
    assert overrides_of(["a=1", "--cfg", "job"]) is None
    for state, code in (("done", 0), ("busy", 0), ("interrupted", 85)):
        with pytest.raises(SystemExit) as left:
            run_command(lambda state=state: state)
        assert left.value.code == code

    def wrong() -> str:
        raise ValueError("a sentence")

    with pytest.raises(SystemExit, match="a sentence"):
        run_command(wrong)


def test_many_values_of_one_metric_are_told_as_their_mean():
    values = {f"a{i}/accuracy": 50.0 + i for i in range(40)} | {"points/nose": 2.0}
    units = {"a0/accuracy": "%", "points/nose": "px"}
    assert console.values_of(values, units) == "mean of 40/accuracy 69.5 %, points/nose 2 px"
    values["a0/accuracy"], values["a1/accuracy"] = None, math.nan
    assert console.values_of(values, units).startswith("mean of 38/accuracy 70.5 %")
    few = {f"a{i}/accuracy": 50.0 for i in range(20)}
    assert console.values_of(few, {}).count("accuracy") == 20
    assert console.shortened(list("abcdefgh")) == "a, b, c, d, e, f, g, h"
    assert console.shortened(list("abcdefghi")) == "a, b, c, d, e, f and 3 more"
