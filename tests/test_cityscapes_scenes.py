"""The Cityscapes loader and its geometry on rendered streets: a changed label against the label of a changed camera."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from mtlbench.datasets import cityscapes
from mtlbench.labels import Label
from mtlbench.sliding import Sliding
from mtlbench.synthetic import cityscapes as synthetic
from mtlbench.synthetic.raycast import Camera
from mtlbench.synthetic.street import View, render
from mtlbench.task import IGNORE
from mtlbench.transforms import Augmentation, see
from mtlbench.transforms import View as Window

HEIGHT, WIDTH = 96, 192
SCENES = (0, 2, 3)


def test_what_the_writer_writes_is_what_the_loader_reads(tmp_path: Path):
    source = synthetic.Cityscapes(HEIGHT, WIDTH, train=5, val=2, seed=3)
    for split, index in source.items():
        source.write(tmp_path / "cityscapes", split, index)
    augmentation = Augmentation(64, (0.5, 2.0), (-10.0, 10.0), 0.5, 0.5, 0.5)
    data = cityscapes.Cityscapes(tmp_path, 0, augmentation, Sliding())
    assert len(data.split("train")) == 5
    assert len(data.split("test")) == 2
    for index in range(5):
        image, labels = data.split("train")[(0, index)]
        assert image.shape == (3, 64, 64)
        assert image.isfinite().all()
        assert {name: tuple(label.shape) for name, label in labels.items()} == {
            "semantic": (64, 64),
            "instance": (2, 64, 64),
            "disparity": (1, 64, 64),
        }
    (frame, *_), (_, labels) = data.split("test").frames, data.split("test")[(0, 0)]
    stem = f"{frame.split}/{frame.city}/{frame.stem}"
    camera = json.loads((tmp_path / f"cityscapes/camera/{stem}_camera.json").read_text())
    (index,) = [i for i in range(2) if frame.stem in str(synthetic.path_of(Path(), "val", i, "camera", ""))]
    depth = torch.from_numpy(render(3, index, HEIGHT, WIDTH, split="val").depth)
    true = camera["extrinsic"]["baseline"] * camera["intrinsic"]["fx"] / depth
    known = ~labels["disparity"][0].isnan() & (labels["semantic"] != IGNORE)
    assert 0.3 < known.float().mean() < 0.95
    error = (labels["disparity"][0] - true)[known].abs()
    assert (error < 0.01).float().mean() > 0.99  # of the person in one pixel, nothing else
    assert set(labels["semantic"].unique().tolist()) >= {0, 10, IGNORE}


def labels_of(seen: View) -> dict[str, Label]:
    """A rendered view through the loader's own decoding of what would be on disk, without holes in the disparity."""
    disparity = np.float32(synthetic.BASELINE * seen.camera.fx) / seen.depth
    instances = cityscapes.instance_values("ignore", "ignore")
    return {
        "semantic": cityscapes.class_map(seen.labels.astype(np.int32)),
        "instance": cityscapes.instance_offset(seen.instances, instances=instances),
        "disparity": cityscapes.disparity(np.rint(disparity * 256).astype(np.int32) + 1),
    }


def zoom(x: Label) -> Label:
    return see(x, Window(HEIGHT // 6, WIDTH // 6, HEIGHT * 2 // 3, WIDTH * 2 // 3, (HEIGHT, WIDTH), (HEIGHT, WIDTH)))


def turn(degrees: float, camera: Camera) -> Callable[[Label], Label]:
    return lambda x: F.rotate(x, degrees, center=[camera.u0 + 0.5, camera.v0 + 0.5])


@pytest.mark.parametrize("index", SCENES)
@pytest.mark.parametrize("change", ["mirrored", "zoomed", "turned"])
def test_a_changed_label_is_the_label_of_the_changed_scene(index: int, change: str):
    """Rendered again, mirrored, through a longer lens or with the camera rolled, the scene must have the labels that
    come out when the first view's labels are changed; but for pixels at edges, where sampling chooses."""
    first = render(0, index, HEIGHT, WIDTH)
    camera, moved, agreement = {
        "mirrored": (lambda c: c.mirrored(WIDTH), F.horizontal_flip, 0.995),
        "zoomed": (lambda c: c.zoomed(1.5, HEIGHT, WIDTH), zoom, 0.93),
        "turned": (lambda c: c.rolled(math.radians(8)), turn(8, first.camera), 0.93),
    }[change]
    again = render(0, index, HEIGHT, WIDTH, camera)
    changed = {name: moved(label).as_subclass(Tensor) for name, label in labels_of(first).items()}
    truth = {name: label.as_subclass(Tensor) for name, label in labels_of(again).items()}
    covered = ~changed["disparity"][0].isnan()  # turning leaves corners empty
    same = (changed["semantic"] == truth["semantic"]) & covered
    assert same.sum() > agreement * covered.sum()
    assert (changed["semantic"][~covered] == IGNORE).all()

    ratio = (changed["disparity"] / truth["disparity"])[0][same & (truth["disparity"][0] > 0.5)]
    assert abs(ratio.median() - 1) < 0.01
    assert ((ratio - 1).abs() < 0.1).float().mean() > 0.93

    # centres are compared for instances that both views show whole
    points = torch.stack(torch.meshgrid(torch.arange(WIDTH), torch.arange(HEIGHT), indexing="xy"))
    compared = 0
    for value in np.unique(again.instances[~truth["instance"][0].isnan().numpy()]):
        where = torch.from_numpy(again.instances == value)
        cut = where[[0, -1]].any() or where[:, [0, -1]].any() or not covered[where].all()
        where &= same & ~changed["instance"][0].isnan()
        if cut or where.sum() < 30:
            continue
        centre = (truth["instance"] + points)[:, where].median(1).values
        found = (changed["instance"] + points)[:, where].median(1).values
        assert (centre - found).abs().max() < (0.1 if change == "mirrored" else 1.0), value
        compared += 1
    assert compared >= 1
