"""The benchmark of step costs: what it measures, and what it writes."""

import csv
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from mtlbench import bench, config, parallel
from mtlbench.benchmarks import step as bench_step
from mtlbench.benchmarks import table as bench_table
from mtlbench.benchmarks import workload
from mtlbench.benchmarks.table import Cost
from mtlbench.benchmarks.training import Trainer, compare
from mtlbench.task import IGNORE

TINY = ["backbone.output_stride=32", "head.hidden=4", "image=[32,32]", "batch_size=2", "pairs=2", "warm_up=1"]
TINY += ["machine.device=cpu", "machine.threads=1"]


@pytest.fixture
def tiny(tmp_path):
    return [*TINY, "memory=false", f"folder={tmp_path}"]


@pytest.fixture(autouse=True)
def _not_deterministic_for_the_other_tests():
    yield
    torch.use_deterministic_algorithms(False)


def rows_of(folder) -> list[dict[str, str]]:
    (path,) = folder.glob("*.csv")
    with path.open() as file:
        return list(csv.DictReader(file))


def test_step_writes_a_row_for_each_method_and_reports_what_cannot_run(tiny, tmp_path, capsys):
    assert bench_step.bench_step([*tiny, 'methods=[equal,nope,"equal level=parameter"]']) == "failed"
    good, unknown, impossible = rows_of(tmp_path)
    assert (good["method"], good["level"], good["pairs"], good["error"]) == ("equal", "loss", "2", "")
    lower, middle, upper = (float(good[key]) for key in ("ratio_lower", "ratio", "ratio_upper"))
    assert 0 < lower <= middle <= upper
    assert float(good["seconds"]) > 0
    assert float(good["baseline_seconds"]) > 0
    assert good["peak_bytes"] == ""
    assert (unknown["method"], unknown["ratio"]) == ("nope", "")
    assert "no such method" in unknown["error"]
    assert impossible["method"] == "equal level=parameter"
    assert "level" in impossible["error"]
    (page,) = tmp_path.glob("*.md")
    text = page.read_text()
    assert "| mtlbench | nope |  | not run: ValueError: method=nope: there is no such method." in text
    assert "2 random images of 32x32" in text
    assert "- threads: 1" in text
    assert text in capsys.readouterr().out


def test_all_measured_is_done(tiny, tmp_path):
    assert bench_step.bench_step([*tiny, "methods=[equal]", "method=equal"]) == "done"
    assert [row["error"] for row in rows_of(tmp_path)] == [""]


def test_default_methods_exist():
    for name in config.load([], name="bench").methods:
        made = config.build_method(config.load(bench_step.of_method(name, []), name="bench").method, ["a", "b"])
        assert made.level == dict(key.split("=") for key in name.split()[1:]).get("level", made.levels[0])


def test_both_start_from_the_same_weights_and_data():
    one, other = (Trainer(config.load(TINY, name="bench"), parallel.Ranks()) for _ in range(2))
    for (name, a), b in zip(one.model.state_dict().items(), other.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert torch.equal(one.data[0], other.data[0])
    before = [p.clone() for p in one.model.parameters()]
    assert one.seconds() > 0
    changed = [not torch.equal(a, b) for a, b in zip(before, one.model.parameters(), strict=True)]
    assert sum(changed) > len(changed) / 2  # timm's blocks begin as the identity: not all of them at the first step


def test_batch_has_unlabelled_parts_of_every_task():
    loaded = config.load(TINY, name="bench")
    tasks = workload.tasks(loaded)
    image, targets = workload.batch(loaded, torch.float32, torch.device("cpu"))
    assert image.shape == (2, 3, 32, 32)
    assert list(targets) == list(tasks)
    labelled = {name: int(task.loss.counts(targets[name])[0]) for name, task in tasks.items()}
    assert all(0 < count < targets[name].numel() for name, count in labelled.items())
    assert IGNORE in targets["semantic"]
    assert targets["instance"].shape == (2, 2, 32, 32)
    assert targets["disparity"].shape == (2, 1, 32, 32)


def test_the_precision_reaches_the_data_and_the_model():
    trainer = Trainer(config.load([*TINY, "precision=float64"], name="bench"), parallel.Ranks())
    assert trainer.data[0].dtype == trainer.data[1]["disparity"].dtype == torch.float64
    assert trainer.seconds() > 0


def test_a_step_that_is_not_finite_is_an_error():
    trainer = Trainer(config.load(TINY, name="bench"), parallel.Ranks())
    trainer.data[0][0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="step 1: the loss of semantic is nan"):
        trainer.seconds()


def test_pairs_alternate_who_goes_first():
    order = []

    def taking(name: str, seconds: float) -> SimpleNamespace:
        return SimpleNamespace(seconds=lambda: order.append(name) or seconds)

    times = compare(taking("a", 1.0), taking("b", 2.0), pairs=3, warm_up=1)
    assert times == [(1.0, 2.0)] * 3
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"


def test_ratio_is_the_median_over_pairs(monkeypatch):
    monkeypatch.setattr(
        bench_step, "compare", lambda *_: [(2.0, 1.0), (3.0, 1.0), (4.0, 4.0), (50.0, 10.0), (6.0, 4.0)]
    )
    found = bench_step.cost_of_ours("equal", [*TINY, "memory=false"], parallel.Ranks())
    assert (found.ratio_lower, found.ratio, found.ratio_upper) == (1.5, 2.0, 3.0)
    assert (found.seconds, found.baseline_seconds, found.pairs) == (4.0, 4.0, 5)


@pytest.mark.parametrize(
    ("name", "overrides", "expected"),
    [
        ("mgda level=parameter", ["seed=1"], ["seed=1", "method=mgda", "method.level=parameter"]),
        ("equal", ["method=mgda", "method.level=feature", "methods=[a]"], ["methods=[a]", "method=equal"]),
        ("hybrid method@method.loss=imtl_l", [], ["method=hybrid", "method@method.loss=imtl_l"]),
    ],
)
def test_of_method(name: str, overrides: list[str], expected: list[str]):
    assert bench_step.of_method(name, overrides) == expected


FACTS = {"device": "Some CPU (R) 3000, 2 cores", "threads": "2"}
COSTS = [
    Cost("mtlbench", "equal", "loss", 15, 0.1, 0.1, 1.0, 0.99, 1.01, 2**20),
    Cost("mtlbench", "imtl", "feature", 15, 0.1034, 0.1, 1.034, 1.02, 1.05),
    Cost("torchjd 0.18.0", "broken", error='ValueError: a | b,\n"c"'),
]


def test_files_are_what_the_numbers_say(tmp_path):
    text = bench_table.write(COSTS, FACTS, "A workload", "equal", "dense", tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == [
        "some-cpu-r-3000-2-cores_dense.csv",
        "some-cpu-r-3000-2-cores_dense.md",
    ]
    assert (folder / "some-cpu-r-3000-2-cores_dense.md").read_text() == text
    assert "| mtlbench | equal | loss | 1.000 | 0.990 to 1.010 | 100 ms | 100 ms | 1 MiB | 15 |" in text
    assert "| mtlbench | imtl | feature | 1.034 | 1.020 to 1.050 | 103 ms | 100 ms | - | 15 |" in text
    assert '| torchjd 0.18.0 | broken |  | not run: ValueError: a \\| b, "c" | | | | | |' in text
    table = (folder / "some-cpu-r-3000-2-cores_dense.csv").read_bytes()
    assert table == (
        b"who,method,level,pairs,seconds,baseline_seconds,ratio,ratio_lower,ratio_upper,peak_bytes,error\n"
        b"mtlbench,equal,loss,15,0.10000,0.10000,1.00000,0.99000,1.01000,1048576,\n"
        b"mtlbench,imtl,feature,15,0.10340,0.10000,1.03400,1.02000,1.05000,,\n"
        b'torchjd 0.18.0,broken,,0,,,,,,,"ValueError: a | b,\n""c"""\n'
    )


def test_a_table_is_named_after_what_changes_a_step():
    name = bench_step._file
    assert name("dense", None, ["workload=dense", "pairs=3", "methods=[equal]", "machine.threads=1"]) == "dense"
    assert name("attributes", 11, ["attributes=11"]) == "attributes11"
    assert name("dense", None, ["image=[256,512]", "batch_size=8"]) == "dense_batch_size-8_image-256-512"


def test_all_methods_at_all_their_levels():
    every = bench_step.every_method()
    assert {"equal", "mgda", "mgda level=parameter", "pcgrad", "pcgrad level=feature"} <= set(every)
    assert {line.split()[0] for line in every} == set(config.options("method"))
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("wrong", ["pairs=1", "warm_up=0", "methods=[]", "batch_size=0", "peer_pairs=1"])
def test_too_little_to_measure_is_refused(tiny, tmp_path, wrong: str):
    with pytest.raises(ValueError, match="at least 2 pairs"):
        bench_step.bench_step([*tiny, wrong])
    assert list(tmp_path.iterdir()) == []


def test_wrong_words_are_refused(tiny, monkeypatch):
    with pytest.raises(ValueError, match=r"no such key.*warm_up"):
        bench_step.bench_step([*tiny, "warmup=2"])
    with pytest.raises(ValueError, match=r"float32.*bfloat16"):
        bench_step.bench_step([*tiny, "precision=float16"])
    with pytest.raises(ValueError, match=r"methods=equal: expected a list, such as \[equal\], or all"):
        bench_step.bench_step([*tiny, "methods=equal"])
    monkeypatch.setattr(sys, "argv", ["bench", "stepp"])
    with pytest.raises(SystemExit, match=r"stepp: there is no such benchmark. There are: step, memory"):
        bench.main()


@pytest.mark.parametrize("words", [[], ["--help"], ["step", "-h"]])
def test_help(monkeypatch, capsys, words: list[str]):
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    bench.main()
    assert "python -m mtlbench.bench step" in capsys.readouterr().out


@pytest.mark.slow
def test_command_measures_memory_in_its_own_process(tmp_path):
    command = [sys.executable, "-m", "mtlbench.bench"]
    keys = [*TINY, 'methods=[equal,"equal reduction=mean",nope]', f"folder={tmp_path}"]
    done = subprocess.run([*command, "step", *keys], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "could not be measured" in done.stderr
    equal, mean, nope = rows_of(tmp_path)
    parameters = 4 * 11_000_000  # bytes of ResNet-18 alone
    for row in (equal, mean):
        assert 3 * parameters < int(row["peak_bytes"]) < 20 * parameters, "weights, gradients and momentum at least"
    assert nope["peak_bytes"] == ""
    with pytest.raises(RuntimeError, match="no such method"):
        bench_step.peak_in_process(["method=nope"])


def test_attributes_with_linear_heads(tmp_path):
    small = ["workload=attributes", "attributes=3", "image=[32,32]", "batch_size=4", "pairs=2", "warm_up=1"]
    methods = 'methods=[imtl,famo,"mgda level=parameter",gradnorm]'
    overrides = [*small, methods, "memory=false", "machine.device=cpu", "machine.threads=1", f"folder={tmp_path}"]
    assert bench_step.bench_step(overrides) == "done"
    assert [row["level"] for row in rows_of(tmp_path)] == ["feature", "loss", "parameter", "layer"]
    (page,) = tmp_path.glob("*.md")
    assert "3 attributes on 4 random images of 32x32" in page.read_text()
    image, targets = workload.batch(config.load(small, name="bench"), torch.float32, torch.device("cpu"))
    assert image.shape == (4, 3, 32, 32)
    assert [target.tolist() for target in targets.values()] != [[0] * 4] * 3
