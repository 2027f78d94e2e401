"""Other libraries in the benchmark of steps: that they train the same network, and what happens where they cannot."""

import csv
from importlib.util import find_spec

import pytest
import torch

from mtlbench import config, parallel
from mtlbench.benchmarks import peers
from mtlbench.benchmarks import step as bench_step
from mtlbench.benchmarks.training import Trainer

TINY = ["backbone.output_stride=32", "head.hidden=4", "image=[32,32]", "batch_size=2", "pairs=2", "warm_up=1"]
TINY += ["machine.device=cpu", "machine.threads=1", "memory=false", "precision=float64"]
SUMS = [
    ("torchjd", "torchjd Sum level=feature"),
    ("torchjd", "torchjd Sum level=parameter"),
    ("torchjd", "torchjd Sum level=parameter parallel_chunk_size=1"),
    ("torchjd", "torchjd Sum engine=autogram"),
    ("LibMTL", "libmtl EW"),
]


@pytest.fixture(autouse=True)
def _not_deterministic_for_the_other_tests():
    yield
    torch.use_deterministic_algorithms(False)


def gradients(training) -> list[torch.Tensor]:
    training.gradients()
    return [p.grad.clone() for p in training.model.parameters()]


@pytest.mark.parametrize(("library", "line"), SUMS)
def test_their_plain_sum_leaves_the_gradients_of_ours(library: str, line: str):
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    loaded = config.load(TINY, name="bench")
    torch.manual_seed(0)
    ours = gradients(Trainer(loaded, parallel.Ranks()))
    torch.manual_seed(0)
    theirs = gradients(peers.read(line).loaded(loaded, parallel.Ranks()))
    for mine, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, their, rtol=1e-6 if library == "LibMTL" else 1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("mgda", "torchjd MGDA level=feature"), ("mgda level=parameter", "torchjd MGDA level=parameter")],
)
def test_the_same_level_is_the_same_level(ours: str, theirs: str):
    """MGDA of both: ours exactly, torchjd's by Frank-Wolfe; a row at another level would be far from it."""
    pytest.importorskip("torchjd")
    rows = []
    for make in (
        lambda: Trainer(config.load(bench_step.of_method(ours, TINY), name="bench"), parallel.Ranks()),
        lambda: peers.read(theirs).loaded(config.load(TINY, name="bench"), parallel.Ranks()),
    ):
        training = make()
        torch.manual_seed(0)
        training.gradients()
        rows.append(torch.cat([p.grad.flatten() for p in training.model.shared_parameters()]))
    assert torch.nn.functional.cosine_similarity(*rows, dim=0) > 0.999


def test_what_a_library_cannot_do_stands_in_its_row(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(peers.CLASSES, "absent", "test_bench_peers.Absent")
    lines = '["absent EW level=feature","torchjd Nope"]'
    overrides = [*TINY, "methods=[equal]", f"peers={lines}", f"folder={tmp_path}"]
    assert bench_step.bench_step(overrides) == "done", "ours are measured"
    (path,) = tmp_path.glob("*.csv")
    with path.open() as file:
        equal, absent, nope = csv.DictReader(file)
    assert (equal["who"], equal["error"]) == ("mtlbench", "")
    assert (absent["who"], absent["method"], absent["level"]) == ("no-such-package", "EW level=feature", "feature")
    assert "no-such-package cannot be imported" in absent["error"]
    assert "pip install 'mtlbench[peers]'" in absent["error"]
    assert nope["who"].startswith("torchjd")
    assert nope["ratio"] == ""
    assert "no-such-package EW level=feature: " in capsys.readouterr().out


class Absent(peers.Peer):
    """A library that is not installed."""

    PACKAGE, OPTIONS, LINES = "no-such-package", (), ()

    @classmethod
    def load(cls) -> None:
        raise ImportError("No module named 'no_such_package'")

    def gradients(self) -> None:
        raise AssertionError("never constructed")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("nobody MGDA", "there is no library nobody. There are: torchjd, libmtl"),
        ("torchjd", "expected 'torchjd METHOD key=value ...'"),
        ("torchjd MGDA feature", "expected 'torchjd METHOD key=value ...'"),
        ("torchjd MGDA level=layer", "expected feature or parameter"),
        ("libmtl EW chunk=1", "chunk in 'libmtl EW chunk=1' is no key. There are: level, same_rep"),
    ],
)
def test_wrong_lines_are_refused(line: str, said: str):
    with pytest.raises(ValueError, match="peers: ") as refused:
        peers.read(line)
    assert said in str(refused.value)


def test_a_librarys_name_stands_for_all_its_lines():
    texts = [line.text for line in peers.lines(["torchjd", "libmtl  EW"])]
    assert texts[0] == "torchjd Sum level=feature"
    assert texts[-1] == "libmtl EW"
    assert len(texts) > 20
