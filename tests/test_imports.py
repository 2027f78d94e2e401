"""Who may import whom: read from the source, so that a new import in the wrong place fails here."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "mtlbench"
OPTIONS = ("methods", "datasets", "backbones", "heads", "architectures", "loggers", "synthetic")
"""Folders whose files are named by yaml alone."""

ALLOWED = {
    # file or folder: the mtlbench modules that it may import
    "stats": {"stats"},
    "task": set(),
    "losses": {"losses", "task"},
    "metrics": {"metrics", "task"},
    "weighting": set(),
    "by_task": {"weighting"},
    "seeds": set(),
    "schedule": set(),
    "model": set(),
    "dataset": {"cache", "task"},
    "cache": {"images", "progress"},
    "images": set(),
    "progress": set(),
    "labels": {"labels", "task"},
    "transforms": {"labels", "task", "seeds"},
    "sliding": {"task"},
    "parallel": set(),
    "balance": {"weighting"},
    "rows": {"parallel"},
    "passes": {"balance", "parallel", "rows", "task", "weighting"},
    "jacobian_passes": {"balance", "passes", "rows", "weighting"},
    "streaming": {"parallel", "passes", "rows"},
    "step": {"balance", "jacobian_passes", "parallel", "passes", "rows", "streaming", "task", "weighting"},
    "signals": set(),
    "claim": set(),
    "record": {"claim"},
    "methods": {"by_task", "weighting", "methods"},
    "datasets": {
        *("cache", "dataset", "datasets", "images", "labels", "losses", "metrics", "seeds", "sliding", "task"),
        "transforms",
    },
    "backbones": {"model", "backbones"},
    "heads": {"model", "heads"},
    "architectures": {"architectures", "model", "seeds", "task"},
    "loggers": set(),
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Every imported module of a file, also inside functions, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def own(path: Path) -> set[str]:
    """The first part below mtlbench of each import of ours: {"task", "methods"}."""
    parts = {name.split(".")[1] for name in imports(path) if name.startswith("mtlbench.")}
    known = {p.stem for p in PACKAGE.iterdir()}
    return parts & known


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_design(path: Path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ALLOWED:
        assert own(path) <= ALLOWED[room], f"{room} may import only {sorted(ALLOWED[room])}"
    if room not in OPTIONS:
        assert not own(path) & set(OPTIONS), "options are named by yaml, never imported"


def test_the_table_above_has_no_dead_entries():
    assert set(ALLOWED) <= {p.stem for p in PACKAGE.iterdir()}


@pytest.mark.parametrize("room", ["weighting", "step", "losses", "metrics", "stats", "aggregate", "task", "model"])
def test_configuration_stays_out_of_the_core(room: str):
    files = [path for path in modules() if path.relative_to(PACKAGE).parts[0] in (room, f"{room}.py")]
    assert files
    names = {name for path in files for name in imports(path)}
    assert not {name for name in names if name.split(".")[0] in ("hydra", "omegaconf")}


@pytest.mark.parametrize("module", ["train", "sweep", "aggregate", "record", "config", "evaluate", "synthesize"])
def test_commands_answer_without_torch(module: str):
    check = f"import mtlbench.{module}, sys; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", check], check=True)
