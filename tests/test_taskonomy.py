"""The Taskonomy loader on a few images written here by hand, in the data set's own formats and layouts."""

import json
import math
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from mtlbench import build as build_module
from mtlbench import config
from mtlbench.dataset import collate
from mtlbench.datasets import taskonomy_values as values
from mtlbench.datasets.taskonomy import Taskonomy, facing
from mtlbench.datasets.taskonomy_files import read_split
from mtlbench.datasets.taskonomy_reading import CHECKED, broken_files, trouble
from mtlbench.datasets.taskonomy_tasks import Losses
from mtlbench.losses import L1, MSE, Cosine, ShiftedL1
from mtlbench.parallel import Ranks
from mtlbench.task import IGNORE
from mtlbench.transforms import DEVIATION, MEAN, Augmentation

SIDE = 16

BUILDINGS = {"train": ["merom", "hanson"], "val": ["wiconisco"], "test": ["ihlen"]}

NAMES = [(10, 1), (9, 0), (9, 1), (10, 0)]
"""Points and views of a building: written in this order, which is not the right one."""

SUFFIX = {"segment_semantic": "segmentsemantic", "class_scene": "class_places"}

OLD = {
    "principal_curvature": "curvature", "depth_zbuffer": "depth", "depth_euclidean": "mist", "edge_occlusion": "edge",
    "edge_texture": "edge2d", "keypoints3d": "keypoint", "keypoints2d": "keypoint2d", "reshading": "reshade",
    "segment_semantic": "segmentsemantic", "class_scene": "places",
}  # fmt: skip
"""The names of folders in the authors' own trees."""


def maps(k: int = 0) -> dict[str, np.ndarray]:
    """Image number k. Every 16-bit map counts up row by row but for what is set below."""
    count = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE)
    zbuffer = count * 40 + 512 + k
    zbuffer[0] = 65535
    zbuffer[1] = [8191, 8192, 64499, 64500, 65534, 8000, 7992, 8008, 7991, 8009, *[1536] * 6]
    normal = np.stack([np.full((SIDE, SIDE), v) for v in (200, 100, 26)], -1).astype(np.uint8)
    normal[0] = 128
    normal[2, 2] = 127
    normal[2, 3] = (128, 128, 127)
    curvature = np.stack([np.full((SIDE, SIDE), v) for v in (140, 120, 0)], -1).astype(np.uint8)
    curvature[0] = (127, 127, 0)
    curvature[9, 9] = 0
    grey = (count % 256).astype(np.uint8)
    semantic = (count % 18).astype(np.uint8)
    scene = np.full(values.PLACES, 0.001, np.float32)
    scene[3], scene[4] = 0.2, 0.436 + 0.001  # the largest is none of the 63
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    mask[8, 8] = 0
    return {
        "rgb": np.stack([np.full((SIDE, SIDE), v) for v in (30 + k, 100, 200)], -1).astype(np.uint8),
        "depth_zbuffer": zbuffer,
        "depth_euclidean": np.where(zbuffer == 65535, 65535, np.minimum(zbuffer.astype(int) + 100, 65534)).astype("u2"),
        "normal": normal,
        "principal_curvature": curvature,
        "reshading": np.repeat(grey[..., None], 3, 2),
        "edge_texture": count * 30,
        "edge_occlusion": count * 3,
        "keypoints2d": count * 4,
        "keypoints3d": count * 200,
        "segment_semantic": semantic,
        "class_scene": scene,
        "mask_valid": mask,
    }


def place(root: Path, layout: str, domain: str, building: str, point: int, view: int) -> Path:
    top, name = root / "taskonomy", f"point_{point}_view_{view}"
    end = "npy" if domain == "class_scene" else "png"
    folder = {
        "omnidata": top / domain / "taskonomy" / building,
        "original": top / building / domain,
        "standley": top / domain / building,
        "authors": top / building / OLD.get(domain, domain),
    }[layout]
    full = f"{name}_domain_{SUFFIX.get(domain, domain)}.{end}"
    short = layout == "standley" or (layout == "authors" and domain == "class_scene")
    return folder / (f"{name}.{end}" if short else full)


def put(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        PIL.Image.fromarray(array).save(path)


def write(root: Path, layout: str = "omnidata", leave: tuple[str, ...] = ("mask_valid",)) -> Path:
    """Four buildings with four images each, numbered as they are written; the CSV has lines that end in CR."""
    k, rows = 0, ["id,train,val,test"]
    for part, buildings in BUILDINGS.items():
        for building in buildings:
            rows.append(",".join([building, *("1" if p == part else "0" for p in BUILDINGS)]))
            for point, view in NAMES:
                for domain, array in maps(k).items():
                    if domain not in leave:
                        put(place(root, layout, domain, building, point, view), array)
                k += 1
    (root / "taskonomy/train_val_test_tiny.csv").write_bytes("".join(f"{row}\r" for row in rows).encode())
    return root


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Never changed."""
    return write(tmp_path_factory.mktemp("data"))


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    shutil.copytree(written, tmp_path, dirs_exist_ok=True)
    return tmp_path


def build(root: Path, **options) -> Taskonomy:
    augmentation = options.pop("augmentation", None) or Augmentation()
    return Taskonomy(root, options.pop("seed", 0), augmentation, options.pop("losses", Losses()), **options)


def targets(data: Taskonomy, part: str = "test", index: int = 0) -> dict[str, Tensor]:
    return data.split(part)[(0, index)][1]


def stored(domain: str) -> Tensor:
    """p of the map of that name, as floats."""
    return torch.from_numpy(maps(13)[domain].astype(np.float32))  # ihlen's first image in order


def no_label(task: str) -> Tensor:
    """Grey pixels are no normal by any mask."""
    grey = ((stored("normal") - 127.5).abs() < 1).all(-1)
    return grey if task == "normals" else torch.zeros_like(grey)


def near(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.isnan(), b.isnan()) and torch.allclose(a.nan_to_num(), b.nan_to_num(), atol=1e-5)


# layouts, order, splits


@pytest.mark.parametrize("layout", ["omnidata", "original", "standley", "authors"])
def test_every_layout_gives_the_same_images_in_order(written: Path, tmp_path: Path, layout: str):
    data = build(write(tmp_path, layout))
    assert data.parts.tree.layout == {"authors": "original"}.get(layout, layout)
    frames = data.split("train").frames
    order = [(b, p, v) for b in ("hanson", "merom") for p, v in sorted(NAMES)]
    assert [tuple(frame) for frame in frames] == order
    assert [len(data.split(part)) for part in ("train", "val", "test")] == [8, 4, 4]
    reference = build(written)
    for part in ("train", "val", "test"):
        for i in range(len(data.split(part))):
            image, found = data.split(part)[(0, i)]
            other, expected = reference.split(part)[(0, i)]
            assert torch.equal(image, other)
            assert all(near(found[task].float(), expected[task].float()) for task in data.tasks)
    for i, (building, point, view) in enumerate(order):  # each image differs: its own files were read
        k = 4 * ["merom", "hanson"].index(building) + NAMES.index((point, view))
        image, _ = data.split("train")[(0, i)]
        assert image[0, 0, 0] == pytest.approx(((30 + k) / 255 - MEAN[0]) / DEVIATION[0], abs=1e-5)


def test_an_item_is_plain_tensors_of_the_right_kind(written: Path):
    data = build(written)
    image, found = data.split("train")[(0, 0)]
    assert {type(x) for x in (image, *found.values())} == {Tensor}
    assert image.shape == (3, SIDE, SIDE)
    assert {name: tuple(x.shape[:-2]) for name, x in found.items() if x.ndim > 1} == {
        "depth": (1,), "euclidean": (1,), "normals": (3,), "curvature": (2,), "reshading": (1,), "edge_2d": (1,),
        "edge_3d": (1,), "keypoint_2d": (1,), "keypoint_3d": (1,), "semantic": (),
    }  # fmt: skip
    assert found["scene"].shape == (63,)
    assert [task.channels for task in data.tasks.values()] == [1, 1, 3, 2, 1, 1, 1, 1, 1, 17, 63]
    assert {name: x.dtype for name, x in found.items()} == {
        **dict.fromkeys(found, torch.float32),
        "semantic": torch.uint8,
    }
    assert collate([(image, found)] * 2).targets["normals"].shape == (2, 3, SIDE, SIDE)


def test_a_sample_is_every_nth_image(written: Path):
    data = build(written, tasks=["depth"], sample=3)
    whole = build(written, tasks=["depth"]).split("train").frames
    assert data.split("train").frames == whole[::3]
    assert len(data.split("test")) == 2
    assert data.fingerprint() != build(written, tasks=["depth"]).fingerprint()


def test_the_fingerprint_follows_names_and_sizes(root: Path):
    first = build(root).fingerprint()
    assert first == build(root).fingerprint()
    assert first.startswith("taskonomy ")
    path = place(root, "omnidata", "reshading", "ihlen", 9, 0)
    path.write_bytes(path.read_bytes() + b"\0")
    assert build(root).fingerprint() != first
    assert build(root, tasks=["edge_2d"]).fingerprint() == build(root, tasks=["edge_2d"]).fingerprint()
    (root / "taskonomy/SYNTHETIC.json").write_text("{}")
    assert build(root).synthetic
    assert build(root).fingerprint().startswith("synthetic taskonomy ")


def test_only_files_of_the_selected_tasks_are_needed(written: Path, tmp_path: Path):
    leave = tuple(domain for domain in maps() if domain not in ("rgb", "edge_texture", "segment_semantic"))
    data = build(write(tmp_path, leave=leave), tasks=["semantic", "edge_2d"])
    assert list(targets(data)) == ["edge_2d", "semantic"]  # in the data set's order
    with pytest.raises(ValueError, match=r"(?s)the domain principal_curvature has no files.*curvature needs it.*tasks"):
        build(tmp_path, tasks=["curvature"])
    with pytest.raises(ValueError, match=r"taskonomy has the tasks depth, euclidean"):
        build(written, tasks=["edges"])


def test_masks_need_the_depth_that_they_are_made_of(tmp_path: Path):
    write(tmp_path, leave=("mask_valid", "depth_zbuffer"))
    with pytest.raises(ValueError, match=r"depth_zbuffer has no files.*euclidean, normals.* need it"):
        build(tmp_path, tasks=["euclidean", "normals", "edge_2d"])
    assert targets(build(tmp_path, tasks=["normals"], validity="omnidata"))["normals"].isfinite().any()


# values


EXPECTED = {
    # normalisation: {task: target of p}, from datasets' own code
    "taskonomy": {
        "depth": lambda p: torch.log(1 + p) / math.log(65536),
        "euclidean": lambda p: torch.log(1 + p) / math.log(65536),
        "normals": lambda p: p / 127.5 - 1,
        "curvature": lambda p: (
            (p[:2] - torch.tensor([123.572, 120.1]).view(2, 1, 1)) / torch.tensor([31.922, 21.658]).view(2, 1, 1)
        ),
        "reshading": lambda p: p / 127.5 - 1,
        "edge_2d": lambda p: 2 * (p / 65535).clamp(max=0.08) / 0.08 - 1,
        "keypoint_2d": lambda p: 2 * (p / 65535).clamp(max=0.005) / 0.005 - 1,
        "keypoint_3d": lambda p: 2 * p / 65535 - 1,
    },
    "standley": {
        "depth": lambda p: (p - 1500) / 1000,
        "euclidean": lambda p: (p - 1500) / 1000,
        "normals": lambda p: (p / 255 - 0.5) * 2,
        "curvature": lambda p: (
            (p[:2] / 255 - torch.tensor([0.5175, 0.4987]).view(2, 1, 1)) / torch.tensor([0.1373, 0.0359]).view(2, 1, 1)
        ),
        "reshading": lambda p: (p / 255 - 0.4962) / 0.2846,
        "edge_2d": lambda p: (p - 718) / 1070,
        "edge_3d": lambda p: (p - 56.0248) / 239.1265,
        "keypoint_2d": lambda p: (p - 50) / 100,
    },
    "omnidata": {
        "depth": lambda p: p / 8000,
        "euclidean": lambda p: p / 8000,
        "normals": lambda p: p / 255,
        "curvature": lambda p: p[:2] / 255,
        "reshading": lambda p: p / 255,
        "edge_2d": lambda p: p / 65535 / 0.25,
        "edge_3d": lambda p: p / 65535,
        "keypoint_2d": lambda p: p / 65535,
        "keypoint_3d": lambda p: p / 65535,
    },
}
EXPECTED["omnidata_metres"] = EXPECTED["omnidata"] | {"depth": lambda p: p / 512, "euclidean": lambda p: p / 512}


@pytest.mark.parametrize("name", EXPECTED)
def test_targets_are_normalised_as_in_the_code_of_that_name(written: Path, name: str):
    tasks = list(EXPECTED[name])
    found = targets(build(written, tasks=tasks, normalisation=name, validity="taskonomy"))
    for task, normalise in EXPECTED[name].items():
        domain = values.DOMAINS[task]
        p = stored(domain.name)
        p = p.permute(2, 0, 1) if p.ndim == 3 else p[None]
        expected = normalise(p.mean(0, keepdim=True) if task == "reshading" else p)
        if domain.masked:
            expected = expected.masked_fill((stored("depth_zbuffer") >= 64500) | no_label(task), math.nan)
        assert near(found[task], expected), task


def test_the_authors_blur_of_occlusion_edges(written: Path):
    """Standard deviation 4 in an image 256 high; before the mask, so that what is not valid has its part in it."""
    found = targets(build(written, tasks=["edge_3d"]))["edge_3d"]
    sharp = maps()["edge_occlusion"].astype(float) / 65535 / 0.00625 * 2 - 1
    blurred = gaussian_filter(sharp, 4 * SIDE / 256, mode="mirror")
    valid = ~(stored("depth_zbuffer") >= 64500)
    assert torch.equal(found[0].isnan(), ~valid)
    assert (found[0][valid] - torch.from_numpy(blurred).float()[valid]).abs().max() < 1e-4
    big = torch.rand(2, 40, 40, dtype=torch.float64)
    ours = values.blurred(big, 2.0)
    for one, other in zip(ours, big, strict=True):
        assert (one - torch.from_numpy(gaussian_filter(other.numpy(), 2.0, mode="mirror"))).abs().max() < 1e-9


def test_missing_depths_stay_positive_numbers(written: Path):
    """65535 read as a signed number would be -1 and pass p < 8192."""
    found = targets(build(written, tasks=["depth"], normalisation="standley", validity="standley"))["depth"][0]
    assert found[0].isnan().all()
    assert torch.equal(found.isnan(), stored("depth_zbuffer") >= 8192)
    assert found[1].isnan().tolist() == [False, True, True, True, True, *[False] * 3, False, False, *[False] * 6]


@pytest.mark.parametrize(("name", "bound"), [("taskonomy", 64500), ("standley", 8192)])
def test_masks_of_the_two_depth_bounds(written: Path, name: str, bound: int):
    found = targets(build(written, validity=name))
    invalid = stored("depth_zbuffer") >= bound
    assert invalid.any()
    for task, domain in values.DOMAINS.items():
        if domain.masked:
            assert (found[task].isnan() == invalid | no_label(task)).all(), task
    for task in ("edge_2d", "keypoint_2d"):  # unmasked in both public codes
        assert found[task].isfinite().all()


def test_omnidatas_masks_by_value_are_dilated(written: Path):
    found = targets(build(written, validity="omnidata"))
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")

    def within_two(where: Tensor) -> Tensor:
        points = where.nonzero()
        far = [torch.maximum((y - a).abs(), (x - b).abs()) for a, b in points.tolist()]
        return torch.stack(far).amin(0) <= 2

    p = stored("depth_zbuffer")
    assert torch.equal(found["depth"][0].isnan(), within_two((p - 8000).abs() <= 8))  # 15.6 m, not what is missing
    grey = within_two((stored("normal") == 128).all(-1)) | no_label("normals")
    assert torch.equal(found["normals"][0].isnan(), grey)
    assert torch.equal(found["curvature"][1].isnan(), within_two((stored("principal_curvature") == 0).all(-1)))
    for task in ("euclidean", "reshading", "edge_3d", "keypoint_3d"):
        assert found[task].isfinite().all(), task


def test_omnidatas_masks_from_mask_valid(tmp_path: Path):
    found = targets(build(write(tmp_path, leave=()), validity="omnidata"))
    expected = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    expected[6:11, 6:11] = True  # one pixel, dilated by 5 x 5
    for task, domain in values.DOMAINS.items():
        if domain.masked:
            assert (found[task].isnan() == expected | no_label(task)).all(), task
    assert found["edge_2d"].isfinite().all()


def test_classes_and_scenes(written: Path):
    p = stored("segment_semantic").long()
    for count, shift in ((17, 1), (18, 0)):
        data = build(written, tasks=["semantic"], semantic_classes=count)
        found = targets(data)["semantic"].long()
        assert torch.equal(found, torch.where(p == 0, IGNORE, p - shift))
        assert data.tasks["semantic"].channels == count
    every = targets(build(written, tasks=["scene"], scene_classes=365))["scene"]
    assert torch.equal(every, torch.from_numpy(maps()["class_scene"]))
    home = targets(build(written, tasks=["scene"]))["scene"]
    assert home.shape == (63,)
    assert home.sum() == pytest.approx(1)
    assert home.argmax() == 0
    assert torch.allclose(home, every[list(values.HOME)] / every[list(values.HOME)].sum())
    assert len(set(values.HOME)) == 63
    assert len(values.SEMANTIC) == 17


def test_normals_whichever_way_they_are_stored(root: Path):
    as_stored = targets(build(root, tasks=["normals"]))["normals"][:, 5, 5]
    assert as_stored.tolist() == pytest.approx([200 / 127.5 - 1, 100 / 127.5 - 1, 26 / 127.5 - 1])
    towards = build(root, tasks=["normals"], normals_z="viewer")
    assert targets(towards)["normals"][:, 5, 5].tolist() == pytest.approx(
        (as_stored * torch.tensor([1, 1, -1])).tolist()
    )
    paths = sorted((root / "taskonomy/normal").rglob("*.png"))
    assert facing(paths) == "low"
    for path in paths:
        pixels = np.array(PIL.Image.open(path))
        pixels[..., 2] = 255 - pixels[..., 2]
        put(path, pixels)
    assert facing(paths) == "high"
    assert torch.equal(
        targets(build(root, tasks=["normals"], normals_z="viewer"))["normals"].nan_to_num(),
        targets(build(root, tasks=["normals"]))["normals"].nan_to_num(),
    )
    pixels[: SIDE // 2, :, 2] = 20
    for path in paths:
        put(path, pixels)
    with pytest.raises(ValueError, match=r"normals_z=viewer: .*low blue.*normals_z=stored"):
        build(root, tasks=["normals"], normals_z="viewer")


def test_labels_are_sampled_and_masks_made_at_full_size(written: Path):
    small = targets(build(written, size=[8, 8]))
    large = targets(build(written))
    for task in set(small) - {"scene"}:
        full = large[task].float()
        blocks = torch.stack([full[..., i::2, j::2] for i in (0, 1) for j in (0, 1)])
        one = ((small[task].float() == blocks) | (small[task].isnan() & blocks.isnan())).any(0)
        # normals are unit vectors after resizing, and not quite in a file
        close = (small[task].float() - blocks).abs().nan_to_num(1e9).amin(0) < (0.01 if task == "normals" else 1e-4)
        assert (one | close).all(), task  # one of its four pixels, never a mixture
    image, _ = build(written, size=[8, 8]).split("train")[(0, 0)]
    assert image.shape == (3, 8, 8)


def test_a_mirrored_image_has_mirrored_labels_and_negated_x(written: Path):
    plain = build(written)
    flipped = build(written, augmentation=Augmentation(flip_probability=1.0))
    (image, found), (other, mirrored) = plain.split("train")[(0, 0)], flipped.split("train")[(0, 0)]
    assert torch.equal(other, image.flip(-1))
    for task, label in found.items():
        expected = label if task == "scene" else label.flip(-1)
        if task == "normals":
            expected = expected * torch.tensor([-1.0, 1, 1]).view(3, 1, 1)
        assert near(mirrored[task].float(), expected.float()), task
    unflip = flipped.tasks["normals"].unflip
    assert near(unflip(mirrored["normals"].flip(-1)[None])[0], found["normals"])
    other = build(written, normalisation="omnidata", tasks=["normals"]).tasks["normals"].unflip
    assert other(torch.tensor([0.75, 0.25, 0.5]).view(1, 3, 1, 1)).flatten().tolist() == [0.25, 0.25, 0.5]


def test_enlarging_divides_depth_before_it_is_normalised(written: Path):
    twice = build(written, tasks=["depth"], augmentation=Augmentation(scale=(2.0, 2.0)))
    found = targets(twice, "train", 0)["depth"]
    k = 4 + NAMES.index((9, 0))  # hanson's first
    known = torch.log(1 + torch.from_numpy(maps(k)["depth_zbuffer"].astype(np.float32)) / 2) / math.log(65536)
    assert all((known - value).abs().min() < 1e-6 for value in found[~found.isnan()])


# tasks


def test_losses_by_name(written: Path):
    tasks = build(written).tasks
    kinds = {name: type(task.loss) for name, task in tasks.items()}
    assert kinds["curvature"] is MSE
    assert {kinds[name] for name in set(values.CHANNELS) - {"curvature"}} == {L1}
    assert [metric.name for metric in tasks["curvature"].metrics] == ["l1", "mse"]
    assert [metric.name for metric in tasks["depth"].metrics] == ["l1"]
    assert [metric.name for metric in tasks["normals"].metrics][:2] == ["l1", "mean_angle"]
    assert [metric.name for metric in tasks["semantic"].metrics] == ["miou", "pixel_accuracy"]
    assert [metric.name for metric in tasks["scene"].metrics] == ["top5_accuracy", "top1_accuracy"]
    assert tasks["scene"].output == "vector"
    other = build(written, losses=Losses("shifted_l1", "l1", "cosine", "all")).tasks
    assert isinstance(other["normals"].loss, Cosine)
    assert isinstance(other["edge_2d"].loss, ShiftedL1)
    assert other["curvature"].loss.reduction == other["curvature"].meters[0].reduction == "all"
    assert other["normals"].metrics[0].name == "mean_angle"


def test_an_image_without_a_label_of_a_task_goes_on(root: Path):
    for name, value in (("depth_zbuffer", 65535), ("segment_semantic", 0)):
        path = place(root, "omnidata", name, "ihlen", 9, 0)
        put(path, np.full((SIDE, SIDE), value, np.uint16 if name.startswith("depth") else np.uint8))
    data = build(root)
    batch = collate([data.split("test")[(0, 0)]])
    for name, task in data.tasks.items():
        if not (values.DOMAINS[name].masked or name == "semantic"):
            continue
        target = batch.targets[name]
        assert (target == IGNORE).all() if name == "semantic" else target.isnan().all()
        prediction = torch.ones(1, task.channels, SIDE, SIDE, requires_grad=True)
        counts = task.loss.counts(target)
        assert counts[0] == 0
        loss = task.loss(prediction, target, counts)
        loss.backward()
        assert loss == 0
        assert (prediction.grad == 0).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"normalisation": "imagenet"}, "dataset.normalisation=imagenet: taskonomy or standley or omnidata"),
        ({"validity": "none"}, "dataset.validity=none"),
        ({"normals_z": "up"}, "dataset.normals_z=up: stored or viewer"),
        ({"semantic_classes": 16}, "dataset.semantic_classes=16: 17 or 18"),
        ({"scene_classes": 31}, "dataset.scene_classes=31: 63 or 365"),
        ({"missing_buildings": "ignore"}, "dataset.missing_buildings=ignore: fail or skip"),
        ({"broken_files": "x"}, "dataset.broken_files=x"),
        ({"layout": "flat"}, "dataset.layout=flat: omnidata, original, standley"),
        ({"size": [3]}, "dataset.size"),
        ({"sample": 0}, "dataset.sample=0"),
        ({"absent": "drop"}, "skip, nan or zero"),
        ({"tasks": ["keypoint_3d"], "normalisation": "standley"}, r"says nothing of keypoint_3d.*\(taskonomy, omni"),
    ],
)
def test_options_that_make_no_sense_are_refused(written: Path, options: dict, said: str):
    with pytest.raises(ValueError, match=said):
        build(written, **options)


@pytest.mark.parametrize("key", ["maps", "curvature", "normals", "reduction"])
def test_losses_that_make_no_sense_are_refused(key: str):
    with pytest.raises(ValueError, match=rf"dataset\.losses\.{key}=huber"):
        Losses(**{key: "huber"})


def test_the_cosine_needs_vectors(written: Path):
    with pytest.raises(ValueError, match=r"losses\.normals=cosine needs vectors"):
        build(written, losses=Losses(normals="cosine"), normalisation="omnidata")


# the split's file


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_the_split_may_end_its_lines_in_any_way(tmp_path: Path, end: str):
    path = tmp_path / "split.csv"
    path.write_bytes(end.join(["id,train,val,test", "b,1,0,0", "a,1,0,0", "c,0,0,1", ""]).encode())
    assert read_split(path) == {"train": ["a", "b"], "val": [], "test": ["c"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be id,train,val,test, found 'nothing'"),
        ("name,split\rhanson,train\r", "must be id,train,val,test, found 'name,split'"),
        ("id,train,test,val\rhanson,1,0,0\r", "found 'id,train,test,val'"),
        ("id,train,val,test\rhanson,1,1,0\r", "hanson,1,1,0.*one 1 among"),
        ("id,train,val,test\rhanson,1,0\r", "hanson,1,0'"),
        ("id,train,val,test\rhanson,0,0,0\r", "one 1 among"),
        ("id,train,val,test\rhanson,1,0,0\rhanson,0,1,0\r", "hanson is there more than once"),
        (b"PK\x03\x04\xff\xfe\x80", "cannot be read as text"),
    ],
)
def test_a_wrong_split_is_named(root: Path, text: str | bytes, said: str):
    path = root / "taskonomy/train_val_test_tiny.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=rf"train_val_test_tiny\.csv.*{said}"):
        build(root)


def test_a_missing_split_says_where_it_is_from(root: Path):
    (root / "taskonomy/train_val_test_tiny.csv").unlink()
    with pytest.raises(ValueError, match=r"train_val_test_tiny\.csv is missing.*splits_taskonomy\.zip.*split_file"):
        build(root)
    with pytest.raises(ValueError, match=r"other\.csv is missing"):
        build(root, split_file="other.csv")


# what is missing or damaged


def test_no_folder_says_how_to_obtain_the_data(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no images under .*taskonomy") as error:
        build(tmp_path / "data")
    assert "licence" in str(error.value)
    assert f"python -m mtlbench.synthesize dataset=taskonomy machine.data={tmp_path / 'data'}" in str(error.value)


def test_archives_in_place_of_folders_are_named(root: Path, tmp_path_factory):
    empty = tmp_path_factory.mktemp("archives")
    (empty / "taskonomy").mkdir()
    (empty / "taskonomy/rgb__taskonomy__hanson.tar").write_bytes(b"")
    (empty / "taskonomy/rgb__taskonomy__merom.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"rgb__taskonomy__hanson\.tar is an archive \(2 are there\).*(?s:.)*Unpack"):
        build(empty)
    shutil.rmtree(empty / "taskonomy")
    (empty / "taskonomy").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"taskonomy is a file; a folder is expected"):
        build(empty)
    shutil.rmtree(root / "taskonomy/reshading")
    (root / "taskonomy/reshading.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"reshading\.zip is a file; a folder .*reshading is expected"):
        build(root)
    (root / "taskonomy/reshading.zip").rename(root / "taskonomy/reshading")
    with pytest.raises(ValueError, match=r"reshading is a file; a folder"):
        build(root)
    assert build(root, tasks=["edge_2d"])


def test_two_layouts_at_once_need_a_choice(written: Path, tmp_path: Path):
    write(write(tmp_path, "omnidata"), "original")
    with pytest.raises(ValueError, match=r"2 layouts.*dataset\.layout=omnidata"):
        build(tmp_path)
    assert build(tmp_path, layout="original").parts.tree.layout == "original"
    with pytest.raises(ValueError, match="no images in the layout standley"):
        build(written, layout="standley")


def test_a_folder_without_permission_is_named(root: Path, monkeypatch: pytest.MonkeyPatch):
    closed = root / "taskonomy/normal/taskonomy/merom"
    listed = os.listdir

    def refuse(path):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "listdir", refuse)  # a right that root has all the same, if tests run as root
    with pytest.raises(ValueError, match=r"merom may not be read \(Permission denied\).*chmod"):
        build(root)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(root: Path):
    path = place(root, "omnidata", "normal", "ihlen", 9, 0)
    path.chmod(0)
    with pytest.raises(ValueError, match=r"point_9_view_0_domain_normal\.png: this PNG cannot be read .*ermission"):
        targets(build(root))


def test_a_missing_building_fails_or_is_left_out_with_its_name(root: Path):
    shutil.rmtree(root / "taskonomy/rgb/taskonomy/merom")
    with pytest.raises(ValueError, match=r"merom of the split's buildings .*(?s:.)*dataset\.missing_buildings=skip"):
        build(root)
    with pytest.warns(UserWarning, match="left out.*merom"):
        data = build(root, missing_buildings="skip")
    assert data.left_out == {"buildings": ["merom"]}
    assert {frame.building for frame in data.split("train").frames} == {"hanson"}
    shutil.rmtree(root / "taskonomy/rgb/taskonomy/hanson")
    with pytest.raises(ValueError, match="none of the split's training buildings"):
        build(root, missing_buildings="skip")


def test_a_missing_label_fails_or_is_no_label(root: Path):
    place(root, "omnidata", "reshading", "merom", 9, 1).unlink()
    place(root, "omnidata", "class_scene", "ihlen", 9, 0).unlink()
    with pytest.raises(
        ValueError, match=r"point_9_view_0_domain_class_places\.npy is missing.*2 are missing.*(?s:.)*skip"
    ):
        build(root)
    with pytest.warns(UserWarning, match="left out"):
        data = build(root, broken_files="skip")
    assert data.left_out == {"train": {"labels of reshading": 1}, "test": {"labels of scene": 1}}
    frames = data.split("train").frames
    assert len(frames) == 8  # the image stays, for its other labels
    index = [tuple(frame) for frame in frames].index(("merom", 9, 1))
    found = targets(data, "train", index)
    assert found["reshading"].shape == (1, SIDE, SIDE)
    assert found["reshading"].isnan().all()
    assert found["normals"].isfinite().any()
    assert targets(data)["scene"].shape == (63,)
    assert targets(data)["scene"].isnan().all()
    assert data.tasks["scene"].loss.counts(targets(data)["scene"][None])[0] == 0


def test_without_its_mask_a_label_is_no_label(root: Path):
    place(root, "omnidata", "depth_zbuffer", "ihlen", 9, 0).unlink()
    with pytest.warns(UserWarning, match="left out"):
        data = build(root, broken_files="skip", tasks=["normals", "edge_2d", "semantic"])
    assert data.left_out == {"test": {"labels of normals": 1}}
    found = targets(data)
    assert found["normals"].isnan().all()
    assert found["edge_2d"].isfinite().all()


def test_a_whole_building_without_a_domain_has_no_labels_of_it(root: Path):
    shutil.rmtree(root / "taskonomy/edge_texture/taskonomy/wiconisco")
    with pytest.raises(ValueError, match=r"edge_texture of wiconisco, point 9, view 0 is missing.*4 are"):
        build(root)
    with pytest.warns(UserWarning, match="left out"):
        data = build(root, broken_files="skip")
    assert data.left_out == {"val": {"labels of edge_2d": 4}}
    assert all(targets(data, "val", i)["edge_2d"].isnan().all() for i in range(4))


@pytest.mark.parametrize("domain", ["rgb", "edge_texture", "depth_zbuffer", "class_scene"])
def test_a_truncated_file_fails_or_is_left_out(root: Path, domain: str):
    path = place(root, "omnidata", domain, "wiconisco", 9, 1)
    whole = path.read_bytes()
    for length in (0, 7, 20, 33, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:length])
        data = build(root)
        with pytest.raises(
            ValueError, match=r"wiconisco/point_9_view_1_\w+\.(png|npy): this \.?(PNG|npy) cannot be read"
        ):
            targets(data, "val", 1)
        assert targets(data, "val", 0)
        with pytest.warns(UserWarning, match="left out"):
            data = build(root, broken_files="skip")
        if domain == "rgb":
            assert data.left_out["val"] == {"images": 1}
            assert len(data.split("val")) == 3
        else:
            missed = {task for task in data.tasks if data.parts.unlabelled(task, data.split("val").frames[1])}
            expected = {t for t, d in values.DOMAINS.items() if d.name == domain or (d.masked and "depth_z" in domain)}
            assert missed == expected
            assert data.left_out["val"] == {f"labels of {task}": 1 for task in expected}
        for i in range(len(data.split("val"))):
            assert targets(data, "val", i)


def test_flipped_bits_are_found_by_the_checksum(root: Path):
    path = place(root, "omnidata", "reshading", "ihlen", 10, 0)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "checksum" in trouble(path)
    path.write_bytes(b"GIF89a" + b"\0" * 99)
    assert trouble(path) == "not a PNG"
    assert trouble(place(root, "omnidata", "rgb", "ihlen", 10, 0)) is None
    assert trouble(place(root, "omnidata", "class_scene", "ihlen", 10, 0)) is None


def test_files_are_checked_once(root: Path, monkeypatch: pytest.MonkeyPatch):
    place(root, "omnidata", "reshading", "merom", 9, 1).write_bytes(b"")
    with pytest.warns(UserWarning, match="left out"):
        first = build(root, broken_files="skip")
    assert (root / "taskonomy" / CHECKED).is_file()

    def never(path: Path) -> None:
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr("mtlbench.datasets.taskonomy_reading.trouble", never)
    with pytest.warns(UserWarning, match="left out"):
        assert build(root, broken_files="skip").left_out == first.left_out
    path = place(root, "omnidata", "reshading", "hanson", 9, 1)
    path.write_bytes(path.read_bytes() + b"\0")  # another size: its building is looked at again
    with pytest.raises(AssertionError, match="is read again"):
        build(root, broken_files="skip")


def test_a_file_that_was_mended_is_looked_at_again(root: Path):
    path = place(root, "omnidata", "reshading", "merom", 9, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30] + bytes(30))  # as long as before
    os.utime(path, ns=(1, 1))
    with pytest.warns(UserWarning, match="left out"):
        assert build(root, broken_files="skip").left_out == {"train": {"labels of reshading": 1}}
    path.write_bytes(whole)
    assert build(root, broken_files="skip").left_out == {}


def test_what_may_not_be_read_is_not_taken_for_damaged(root: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ValueError, match=r"domain_rgb\.png cannot be read \(Permission denied\).*chmod"):
        build(root, broken_files="skip")
    assert not (root / "taskonomy" / CHECKED).exists()


def test_a_read_only_folder_is_said_and_checked_each_time(root: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*args, **keys):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", full)
    with pytest.warns(UserWarning, match=r"cannot be written \(Read-only file system\)"):
        assert broken_files(root / "taskonomy", [[]]) == {}


def test_nothing_is_checked_and_nothing_said_where_all_is_whole(written: Path, root: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert build(written).left_out == {}
        assert build(root, broken_files="skip", missing_buildings="skip").left_out == {}
    assert not (written / "taskonomy" / CHECKED).exists()
    assert list(json.loads((root / "taskonomy" / CHECKED).read_text()).values()) == [{}] * 48


# files of another kind


@pytest.mark.parametrize(
    ("domain", "array", "said"),
    [
        ("depth_zbuffer", np.ones((SIDE, SIDE), np.uint8), "16-bit grey is expected, found 8-bit grey"),
        ("keypoints2d", np.ones((SIDE, SIDE, 3), np.uint8), "16-bit grey is expected, found 8-bit with 3 channels"),
        ("normal", np.ones((SIDE, SIDE), np.uint16), "8-bit with 3 channels is expected, found 16-bit grey"),
        ("rgb", np.ones((SIDE, SIDE), np.uint8), "8-bit with 3 channels is expected, found 8-bit grey"),
        ("segment_semantic", np.ones((SIDE, SIDE), np.uint16), "8-bit grey is expected, found 16-bit grey"),
        ("segment_semantic", np.full((SIDE, SIDE), 18, np.uint8), "0 to 17 are expected, found 18"),
        ("depth_zbuffer", np.ones((SIDE, 8), np.uint16), "16 x 8 is not the size of its image, 16 x 16"),
        ("reshading", np.ones((8, SIDE, 3), np.uint8), "8 x 16 is not the size of its image"),
        ("class_scene", np.ones(63, np.float32), r"365 floats are expected, found \[63\] float32"),
        ("class_scene", np.ones(365, np.int64), r"365 floats are expected, found \[365\] int64"),
    ],
)
def test_a_file_of_another_kind_is_named(root: Path, domain: str, array: np.ndarray, said: str):
    path = place(root, "omnidata", domain, "ihlen", 9, 0)
    put(path, array)
    with pytest.raises(ValueError, match=rf"{path.name}: {said}"):
        targets(build(root))


def test_an_npy_with_pickled_objects_is_refused(root: Path):
    path = place(root, "omnidata", "class_scene", "ihlen", 9, 0)
    np.save(path, np.array([{}] * 365, dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"class_places\.npy: this \.npy cannot be read"):
        targets(build(root))


# yaml files


def test_the_papers_task_sets_are_what_the_yaml_files_say(written: Path):
    eight = ["depth", "normals", "curvature", "reshading", "edge_2d", "edge_3d", "keypoint_2d", "keypoint_3d"]
    sets = {
        "taskonomy": eight[:4],
        "taskonomy_8tasks": eight,
        "taskonomy_survey": ["depth", "edge_2d", "keypoint_2d", "semantic", "scene"],
    }
    for name, tasks in sets.items():
        composed = config.load([f"dataset={name}"])
        data = config.build(composed.dataset, folder=written, seed=0)
        assert list(data.tasks) == tasks
        assert data.size == (256, 256)
        assert data.split("train")[(0, 0)][0].shape == (3, 256, 256)
    with pytest.raises(ValueError, match="Did you mean normalisation"):
        config.load(["dataset=taskonomy", "dataset.normalization=standley"])


def test_scenes_have_a_head_of_their_own(written: Path):
    def built(*words: str) -> torch.nn.Module:
        composed = config.load([*words, "backbone=resnet18_short", "head.hidden=4"])
        return build_module.model(composed, config.build(composed.dataset, folder=written, seed=0), Ranks())

    network = built("dataset=taskonomy_survey")
    found = network(torch.zeros(2, 3, 32, 32))
    assert found["scene"].shape == (2, 63)
    assert found["semantic"].shape == (2, 17, 32, 32)
    built("dataset=taskonomy_survey", "dataset.tasks=[depth]")  # a baseline: the head of scene is no mistake
    with pytest.raises(ValueError, match=r"scene is a task of the image as a whole.*\(PSP\).*head_of\.scene=linear"):
        built("dataset=taskonomy", "dataset.tasks=[depth,scene]")
    with pytest.raises(ValueError, match=r"head_of\.scenes: there is no such task"):
        built("dataset=taskonomy", "+head@head_of.scenes=linear")


def test_a_cache_changes_no_number(root: Path, tmp_path_factory):
    place(root, "omnidata", "reshading", "ihlen", 9, 0).unlink()
    path = place(root, "omnidata", "edge_texture", "wiconisco", 9, 0)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.warns(UserWarning, match="left out"):
        plain, cached = (
            build(root, broken_files="skip", augmentation=Augmentation(flip_probability=0.5)) for _ in "ab"
        )
    cached.image_files.keep_in(tmp_path_factory.mktemp("cache"))
    kinds = {domain.name for domain in values.DOMAINS.values() if domain.bits}
    assert {group.kind for group in cached.image_files.groups.values() if group.place} == {"rgb", *kinds}
    parts = [(part, i) for part in ("train", "val", "test") for i in range(len(plain.split(part)))]
    expected = [plain.split(part)[(1, i)] for part, i in parts]
    for kind in ("rgb", *kinds):
        shutil.rmtree(root / "taskonomy" / kind)  # nothing is read from there any more
    with pytest.raises(ValueError, match="cannot be read"):
        plain.split("train")[(1, 0)]
    for (part, i), (image, labels) in zip(parts, expected, strict=True):
        other, found = cached.split(part)[(1, i)]
        assert torch.equal(image, other)
        assert all(torch.equal(found[task].nan_to_num(-9), labels[task].nan_to_num(-9)) for task in labels)
