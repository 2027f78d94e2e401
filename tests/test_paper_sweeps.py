"""The sweeps of published tables: whole, with baselines, beside every printed row; or waiting for what they name."""

import re
import shutil
import tomllib
from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from mtlbench import aggregate, config, published_ids, synthesize
from mtlbench.aggregation import reproduction, rules
from mtlbench.cells import cells, expand, files_of
from mtlbench.composing import Composer
from mtlbench.datasets.celeba_lists import ATTRIBUTES
from mtlbench.train import train
from run_folders import rows_of

SWEEPS = Path(__file__).resolve().parents[1] / "sweeps"
PAPERS = SWEEPS.parent / "results" / "papers"
WAITING = tomllib.loads((SWEEPS / "waiting.toml").read_text())
SMOKE = tomllib.loads((SWEEPS / "smoke.toml").read_text())
NAMES = sorted({path.parent.name for path in SWEEPS.glob("*/*.yaml")})
OF_PAPERS = [name for name in NAMES if rules.read(SWEEPS / name).published]
READY = [name for name in OF_PAPERS if name not in WAITING]

TABLES = {
    # every table that these sweeps are of, those that a paper has one sweep a dataset or network of several times
    "imtl2021": ["1", "2"],
    "mgda2018": ["1", "2", "3", "4", "5"],
    "survey2021": ["3", "4", "5", "7", "10", "11a", "11b", "11c"],
    "lsb2021": ["2a", "2b", "2c", "2d", "4a", "4b", "4c", "5a", "5b", "6", "7"],
    "elich2023": ["2", "A2", "A3", "A4", "A5", "A6"],
}

VARIES = ("method", "architecture", "dataset.tasks", "optimizer", "schedule", "batch_size", "seed", "loss_scale")
"""What may differ between the cells of one sweep: all else is its protocol."""


@cache
def lines_of(name: str) -> list[dict[str, str]]:
    """The cells' command lines: {key: value as typed}."""
    lines = [words for path in files_of(SWEEPS / name) for words in expand(path)]
    return [dict(word.split("=", 1) for word in words) for words in lines]


def varies(key: str) -> bool:
    return any(key == own or key.startswith(f"{own}.") for own in VARIES)


def alone(line: dict[str, str]) -> str | None:
    """The task of a single-task cell."""
    names = line.get("dataset.tasks", "").strip("[]")
    return names if names and "," not in names else None


def test_every_table_has_a_sweep():
    found = defaultdict(set)
    for name in OF_PAPERS:
        for block in rules.read(SWEEPS / name).published:
            found[block.paper].add(block.table)
    assert {paper: sorted(tables) for paper, tables in found.items()} == {p: sorted(t) for p, t in TABLES.items()}


def test_every_dataset_and_setting_of_these_tables_is_beside_a_sweep():
    """No printed row of such a table is forgotten because of a `where`."""
    beside = defaultdict(set)
    for name in OF_PAPERS:
        for block in rules.read(SWEEPS / name).published:
            for row in reproduction.read(PAPERS, block):
                beside[block.paper, block.table].add(tuple(row.values()))
    for (paper, table), rows in beside.items():
        whole = rules.Published(paper=paper, table=table, metrics={})
        assert rows == {tuple(row.values()) for row in reproduction.read(PAPERS, whole)}, (paper, table)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_sweep_waits_for_is_what_conf_lacks(name: str):
    words = {word for line in lines_of(name) for word in line.items()}
    lacking = {f"{k}={v}" for k, v in words if (config.CONF / k).is_dir() and v not in config.options(k)}
    assert lacking == set(WAITING.get(name, [])), "sweeps/waiting.toml lists what a sweep waits for, and all of it"


def test_only_sweeps_wait():
    assert set(WAITING) <= set(OF_PAPERS)
    assert all(WAITING.values())


@pytest.mark.parametrize("name", OF_PAPERS)
def test_it_composes_wholly_or_fails_for_what_it_waits_for(name: str, tmp_path: Path):
    if name in WAITING:
        with pytest.raises(ValueError, match=r"there is no such") as error:
            cells(SWEEPS / name, [f"machine.runs={tmp_path}"])
        assert any(f": {option}: there is no such" in str(error.value) for option in WAITING[name])
    else:
        assert len(cells(SWEEPS / name, [f"machine.runs={tmp_path}"])) == len(lines_of(name))


@pytest.mark.parametrize("name", OF_PAPERS)
def test_baselines_are_cells_of_the_same_protocol(name: str):
    protocols, singles, trained = set(), set(), set()
    for line in lines_of(name):
        protocols.add(tuple(sorted(item for item in line.items() if not varies(item[0]))))
        task = alone(line)
        if task:
            assert line["method"] == "equal"
            assert line.get("architecture", "multi_decoder") == "multi_decoder"
            singles.add(task)
        elif "dataset.tasks" in line:
            trained |= set(line["dataset.tasks"].strip("[]").split(","))
    assert len(protocols) == 1
    assert singles
    assert trained <= singles
    for block in rules.read(SWEEPS / name).published:
        own = {entry["name"].partition("/")[0] for entry in block.metrics.values()}
        assert own <= singles or (own == {"*"} and len(singles) == 40)


@pytest.mark.parametrize("name", READY)
def test_baselines_are_of_every_task_of_the_data(name: str):
    loaded = config.load([f"{k}={v}" for k, v in lines_of(name)[0].items() if not k.startswith("dataset.tasks")])
    target = loaded.dataset._target_.rpartition(".")[2]
    dense = {"semantic", "depth", "normals"}
    known = {"Cityscapes": {"semantic", "instance", "disparity"}, "CelebA": set(ATTRIBUTES)}
    known |= {"NYUv2": dense, "NYUv2Npy": dense, "CityscapesNpy": {"semantic", "depth"}}
    tasks = set(loaded.dataset.tasks or known.get(target, {"left", "right"}))
    chosen = {line.get("dataset.tasks") for line in lines_of(name) if not alone(line)}
    if None not in chosen:  # the paper has a choice of its own
        (tasks,) = {frozenset(names.strip("[]").split(",")) for names in chosen}
    assert {alone(line) for line in lines_of(name)} - {None} == tasks


read_yaml = cache(yaml.safe_load)


@cache
def options_of(method: str) -> dict:
    return {f"method.{k}": v for k, v in read_yaml((config.CONF / "method" / f"{method}.yaml").read_text()).items()}


@cache
def scales_of(typed: str) -> dict:
    scales = OverridesParser.create().parse_override(f"loss_scale={typed}").value() or {}
    return {f"loss_scale.{task}": scale for task, scale in scales.items()}


def said_by(line: dict[str, str]) -> dict:
    """What a cell is told by in a table: its method with all options, its architecture, its scaled losses."""
    found = {"architecture": "multi_decoder", "loss_scale.semantic": "none"} | options_of(line["method"])
    return found | scales_of(line.get("loss_scale", "null")) | {key: read_yaml(value) for key, value in line.items()}


@pytest.mark.parametrize("name", OF_PAPERS)
def test_every_printed_row_has_its_cells(name: str):
    """Of each method, with the printed optimizer and rate among those that are tried."""
    multi = [(line, said_by(line)) for line in lines_of(name) if not alone(line)]
    for block in rules.read(SWEEPS / name).published:
        printed = reproduction.read(PAPERS, block)
        ids = {row["method"] for row in printed}
        own = [(line, said) for line, said in multi if all(said.get(key) == value for key, value in block.ours.items())]
        cells_of = defaultdict(list)
        for line, said in own:
            cells_of[published_ids.id_of(said, ids)].append(line)
        for row in printed:
            if row["method"] in (*published_ids.NO_METHOD, *published_ids.NETWORKS):
                continue
            found = cells_of[row["method"]]
            for key, value in (("optimizer", row["optimizer"]), ("optimizer.lr", row["lr"])):
                if value:
                    found = [line for line in found if key not in line or _same(line[key], value)]
            assert found, (name, block.table, row["method"], row["optimizer"], row["lr"])


def _same(typed: str, printed: str) -> bool:
    try:
        return float(typed) == float(printed)
    except ValueError:
        return typed == printed


@pytest.mark.parametrize("name", OF_PAPERS)
def test_every_printed_metric_is_beside_one_of_ours(name: str):
    for block in rules.read(SWEEPS / name).published:
        for row in reproduction.read(PAPERS, block):
            derived = row["metric"].startswith(("rank_", "n_")) or row["metric"].endswith("_abs_change")
            if row["task"] != "all" and not derived:
                assert f"{row['task']}/{row['metric']}" in block.metrics


@pytest.mark.parametrize("name", [name for name in OF_PAPERS if name.startswith("survey_")])
def test_the_survey_has_48_settings_of_everything(name: str):
    """Three batch sizes, two schedules, eight pairs of optimizer and rate (Appendix A)."""
    settings = defaultdict(set)
    for line in lines_of(name):
        what = (line["method"], line.get("architecture"), alone(line))
        settings[what].add((line["batch_size"], line["schedule"], line["optimizer"], line["optimizer.lr"]))
    assert {len(own) for own in settings.values()} == {48}


@pytest.mark.parametrize("name", [name for name in OF_PAPERS if name.startswith("elich_")])
def test_elich_has_360_runs_and_six_rates_for_each_task(name: str):
    """Six methods, ten rates, two optimizers, three seeds (Section 4.1.2); baselines with six rates (A3.2)."""
    assert sum(not alone(line) for line in lines_of(name)) == 360
    tasks = {alone(line) for line in lines_of(name)} - {None}
    assert len(tasks) == (2 if "cityscapes" in name else 3)
    assert sum(bool(alone(line)) for line in lines_of(name)) == len(tasks) * 6 * 3


@pytest.mark.parametrize("name", [name for name in OF_PAPERS if name.startswith("mgda_")])
def test_mgda_chooses_among_six_rates(name: str):
    rates = defaultdict(set)
    for line in lines_of(name):
        rates[line["method"], line.get("method.level"), alone(line)].add(float(line["optimizer.lr"]))
    assert all(own == {1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2} for own in rates.values())


# the small variant of those that compose, whole


def mnist(folder: Path) -> None:
    """48 and 16 images of noise in the files of MNIST."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for part, count in (("train", 48), ("t10k", 16)):
        images = generator.integers(1, 256, (count, 28, 28), dtype=np.uint8)
        head = np.array([2051, count, 28, 28], dtype=">i4").tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        labels = np.array([2049, count], dtype=">i4").tobytes() + (np.arange(count) % 10).astype(np.uint8).tobytes()
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """What the small variants read: synthetic data, images in the form of MNIST; digits come with scikit-learn."""
    folder = tmp_path_factory.mktemp("data")
    for written in {tuple(small["data"]) for small in SMOKE.values() if "data" in small}:
        words = [*written, "processes=1", f"machine.data={folder}"]
        synthesize.synthesize(config.load(synthesize.translate(words), name="synthesize"))
    mnist(folder / "mnist")
    return folder


HALF = {name: ["schedule=tenth"] for name in READY if name.startswith("survey_")}
"""Words beside those of smoke.toml: one of its two schedules is enough here."""


def few_attributes(name: str, folder: Path) -> Path:
    """A copy of a sweep of 40 attributes with three, beside these ones' printed numbers and the printed means."""
    copy = folder / name
    shutil.copytree(SWEEPS / name, copy)
    few = ATTRIBUTES[:3]
    for path in copy.glob("*.yaml"):
        text, count = re.subn(r'dataset.tasks: "[^"]*"', f'dataset.tasks: "[{"],[".join(few)}]"', path.read_text())
        if not count:
            text, count = re.subn(r"( +)dataset: celeba\w*\n", rf'\g<0>\1dataset.tasks: "[{",".join(few)}]"\n', text)
        assert count == 1
        path.write_text(text)
    others = "|".join(ATTRIBUTES[3:])
    lines = re.sub(rf'.*name = "({others})/.*\n', "", (copy / rules.FILE).read_text())
    (copy / rules.FILE).write_text(lines)
    return copy


ONE_EACH = (
    *("imtl_cityscapes", "mgda_multimnist", "lsb_nyuv2_mobilenetv2", "survey_nyuv2_hrnet18"),
    "elich_cityscapes_segnet",
)
"""A sweep of each paper; the others take many minutes together."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name in ONE_EACH else pytest.param(name, marks=pytest.mark.thorough) for name in READY]
)
def test_its_small_variant_runs_to_its_tables(name: str, data: Path, tmp_path: Path):
    """Every cell is done, every printed number has one of ours beside it, and none is said to be comparable."""
    _, choices = config.load_run([f"{key}={value}" for key, value in lines_of(name)[0].items()])
    words = [*SMOKE[choices["dataset"]]["words"], *HALF.get(name, []), f"machine.data={data}"]
    words.append(f"machine.runs={tmp_path / 'runs'}")
    folder = (
        few_attributes(name, tmp_path)
        if choices["dataset"].startswith("celeba") and "lsb" not in name
        else SWEEPS / name
    )
    composer, found = Composer(), cells(folder, words)
    for cell in found:
        assert train(*composer(cell.overrides)) == "done", cell.overrides
    assert {cell.epochs for cell in found} == {2}
    assert len({word for cell in found for word in cell.overrides if word.startswith("optimizer.lr=")}) == 2
    comparisons, results = aggregate.aggregate(
        str(folder), words, out=str(tmp_path / "results"), papers=PAPERS, figures=False
    )
    assert len(comparisons) == 1
    assert all(row.state == "finished" for row in comparisons[0].rows)
    assert f"{len(found)} done" in (results / "status.md").read_text()
    printed = rows_of((results / "reproduction.md").read_text())
    assert len(printed) == len(rules.read(SWEEPS / name).published)
    networks = {
        row["method"] for block in rules.read(SWEEPS / name).published for row in reproduction.read(PAPERS, block)
    } & set(published_ids.NETWORKS)  # networks that were made for the table, and that nobody else has
    for beside, run, within, outside, incomparable, not_run in printed.values():
        assert int(beside) - int(not_run) == int(run) == int(incomparable) > 0
        assert (within, outside) == ("0", "0")
        assert int(not_run) == 0 or networks
