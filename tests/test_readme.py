"""What the README shows is run as written: its files, its commands, its tables."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def shown_files() -> dict[str, str]:
    """The code blocks whose first line names a file."""
    blocks = re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", README, flags=re.S)
    return dict(blocks)


def shown_command(part: str) -> str:
    """The one command line that contains `part`, without its comment."""
    (line,) = [
        line for line in re.findall(r"^(?:PYTHONPATH|python|torchrun|make).*$", README, flags=re.M) if part in line
    ]
    return line.split("  #")[0].strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in shown_files().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def run(command: str, folder: Path, *more: str) -> str:
    words = " ".join([command.replace("python ", f"{sys.executable} ", 1), *more])
    done = subprocess.run(words, shell=True, cwd=folder, capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_shown_file_is_known_here():
    assert set(shown_files()) == {
        "plain_loop.py",
        "mine/unit_gradients.py",
        "mine/method/unit_gradients.yaml",
        "mine/folder.py",
        "mine/dataset/folder.yaml",
    }


@pytest.mark.slow
def test_plain_loop(folder: Path):
    said = run("python plain_loop.py", folder)
    digit, ink = map(float, re.search(r"'digit': ([\d.e-]+), 'ink': ([\d.e-]+)", said).groups())
    assert digit < 0.1
    assert ink < 0.05


@pytest.mark.slow
def test_a_method_of_your_own(folder: Path):
    said = run(shown_command("method=unit_gradients"), folder, "dataset.train_pairs=512", "machine.threads=1")
    assert "is done" in said


@pytest.mark.slow
def test_a_dataset_of_your_own(folder: Path):
    data = folder / "mine" / "data" / "shapes"
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = ["file,part,kind,angle"]
    for i in range(128):
        kind, angle = i % 3, rng.uniform(0, 1)
        image = rng.integers(0, 60, (28, 28), dtype=np.uint8)
        image[: 8 + 8 * kind] += np.uint8(150 * angle)
        Image.fromarray(image).save(data / f"{i}.png")
        part = "train" if i < 96 else "val" if i < 112 else "test"
        rows.append(f"{i}.png,{part},{'' if i % 7 == 0 else kind},{'' if i % 5 == 0 else round(angle, 3)}")
    (data / "labels.csv").write_text("\n".join(rows) + "\n")
    said = run(shown_command("dataset=folder"), folder, "machine.threads=1")
    assert "kind/accuracy" in said
    assert "is done" in said


@pytest.mark.parametrize("name", ["demo_multidigits", "demo_cityscapes"])
def test_the_tables_are_those_that_were_measured(name: str):
    shown = README.split("<!-- demo tables -->")[1].split("<!-- end of demo tables -->")[0]
    parts = (ROOT / "results" / name / "table.md").read_text().split("\n\n")
    table = next(part for part in parts if part.startswith("|")).splitlines()  # the first: intervals are left out
    assert len(table) == 8
    assert all(line in shown for line in table)
