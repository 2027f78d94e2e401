"""The Cityscapes loader on a few images written here by hand, in the data set's own format."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor, nn

from mtlbench import config
from mtlbench.dataset import collate
from mtlbench.datasets.cityscapes import Cityscapes, negate_dx
from mtlbench.images import read_image
from mtlbench.loader import EvaluationOrder, TrainingOrder, loader
from mtlbench.losses import MSE, Scaled
from mtlbench.parallel import Ranks
from mtlbench.sliding import Sliding
from mtlbench.task import IGNORE
from mtlbench.transforms import DEVIATION, MEAN, Augmentation

HEIGHT, WIDTH = 64, 128

TRAIN_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14,
    28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip

FRAMES = {
    # city_sequence_frame: written in this order, which is not the right one
    "train": [
        "ulm_000010_000019", "aachen_000002_000019", "ulm_000009_000019", "ulm_000009_000007", "zuerich_000000_000001",
    ],
    "val": ["lindau_000001_000019", "frankfurt_000000_000294"],
}  # fmt: skip
SORTED = [
    "aachen_000002_000019",
    "ulm_000009_000007",
    "ulm_000009_000019",
    "ulm_000010_000019",
    "zuerich_000000_000001",
]

INSTANCES = {
    # stored value: (top, left, bottom, right); the boxes do not overlap
    26000: (30, 10, 50, 40),
    26001: (30, 40, 50, 61),  # touches the one before
    33001: (40, 70, 52, 80),  # a bicycle: above 32767
    24000: (20, 120, 60, 128),  # cut by the border
    24007: (10, 100, 11, 101),  # one pixel
    29000: (5, 5, 10, 15),  # a caravan: not among the 19
    26: (52, 90, 60, 110),  # a crowd of cars
    25: (52, 84, 56, 88),  # a crowd of riders
}


def maps(k: int = 0) -> dict[str, np.ndarray]:
    """Image number k: label ids in stripes, instances, disparities rising to the right with holes."""
    ids = np.broadcast_to(np.minimum(np.arange(WIDTH) // 3, 33).astype(np.uint8), (HEIGHT, WIDTH)).copy()
    ids[60:, :10] = 255  # license plate
    instances = ids.astype(np.uint16)
    instances[np.isin(ids, range(24, 34))] = 0
    for value, (top, left, bottom, right) in INSTANCES.items():
        instances[top:bottom, left:right] = value
        ids[top:bottom, left:right] = value // 1000 if value >= 1000 else value
    disparity = np.broadcast_to(np.linspace(256, 32257, WIDTH).astype(np.uint16), (HEIGHT, WIDTH)).copy()
    disparity[:8] = 0
    disparity[8, :3] = [1, 40000, 65535]
    image = np.stack([np.full((HEIGHT, WIDTH), v) for v in (30 + 20 * k, 100, 200)], -1).astype(np.uint8)
    image[::2, ::2] = 255
    return {"image": image, "ids": ids, "instances": instances, "disparity": disparity}


def place(root: Path, split: str, stem: str, kind: str) -> Path:
    folder, end = {
        "image": ("leftImg8bit", "leftImg8bit"),
        "ids": ("gtFine", "gtFine_labelIds"),
        "instances": ("gtFine", "gtFine_instanceIds"),
        "disparity": ("disparity", "disparity"),
    }[kind]
    return root / "cityscapes" / folder / split / stem.split("_")[0] / f"{stem}_{end}.png"


def write(root: Path, split: str, stem: str, arrays: dict[str, np.ndarray]) -> None:
    for kind, array in arrays.items():
        path = place(root, split, stem, kind)
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(array).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, stems in FRAMES.items():
        for k, stem in enumerate(stems):
            write(tmp_path, split, stem, maps(k))
    return tmp_path


def build(
    root: Path, augmentation: Augmentation | None = None, evaluation: Sliding | None = None, **options
) -> Cityscapes:
    return Cityscapes(root, options.pop("seed", 0), augmentation or Augmentation(), evaluation or Sliding(), **options)


def targets(data: Cityscapes, index: int = 0) -> dict[str, Tensor]:
    return data.split("test")[(0, index)][1]


def equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.nan_to_num(-1e6), b.nan_to_num(-1e6))


def test_images_are_paired_by_name_and_in_order(root: Path):
    write(root, "train", "nowhere_000000_000000", {"ids": maps()["ids"]})  # a label without an image
    (root / "cityscapes/leftImg8bit/train/ulm/notes.txt").write_text("not an image")
    (root / "cityscapes/leftImg8bit/train/ulm/._ulm_000009_000007_leftImg8bit.png").write_text("of a file manager")
    (root / "cityscapes/leftImg8bit/train/.DS_Store").write_text("")
    data = build(root)
    assert [frame.stem for frame in data.split("train").frames] == SORTED
    assert [frame.stem for frame in data.split("test").frames] == sorted(FRAMES["val"])
    assert data.split("val") is None
    assert list(data.tasks) == ["semantic", "instance", "disparity"]
    assert [task.channels for task in data.tasks.values()] == [19, 2, 1]
    for split, stems in (("train", SORTED), ("test", sorted(FRAMES["val"]))):
        for i, stem in enumerate(stems):  # each image differs: its own files were read
            image, _ = data.split(split)[(0, i)]
            k = FRAMES["val" if split == "test" else split].index(stem)
            assert torch.allclose(image[0, 1, 1], torch.tensor(((30 + 20 * k) / 255 - MEAN[0]) / DEVIATION[0]))


def test_an_item_is_plain_tensors_of_the_right_kind(root: Path):
    image, labels = build(root).split("train")[(0, 0)]
    assert {type(x) for x in (image, *labels.values())} == {Tensor}
    assert image.dtype == torch.float32
    assert image.shape == (3, HEIGHT, WIDTH)
    assert labels["semantic"].shape == (HEIGHT, WIDTH)
    assert labels["instance"].shape == (2, HEIGHT, WIDTH)
    assert labels["disparity"].shape == (1, HEIGHT, WIDTH)
    assert labels["instance"].dtype == labels["disparity"].dtype == torch.float32
    batch = collate([(image, labels), (image, labels)])
    assert batch.targets["instance"].shape == (2, 2, HEIGHT, WIDTH)
    assert image[2, 1, 1] == pytest.approx((200 / 255 - MEAN[2]) / DEVIATION[2])


def test_ids_become_the_19_classes(root: Path):
    found = targets(build(root))["semantic"]
    stored = torch.from_numpy(maps()["ids"].astype(np.int64))
    assert set(stored.unique().tolist()) == {*range(34), 255}
    for value in stored.unique().tolist():
        assert (found[stored == value] == TRAIN_IDS.get(value, IGNORE)).all(), value


def centres(*values: int) -> dict[int, tuple[float, float]]:
    return {
        value: ((left + right - 1) / 2, (top + bottom - 1) / 2)
        for value, (top, left, bottom, right) in INSTANCES.items()
        if value in values
    }


@pytest.mark.parametrize(
    ("options", "instances"),
    [
        ({}, [26000, 26001, 33001, 24000, 24007]),
        ({"crowd": "instance"}, [26000, 26001, 33001, 24000, 24007, 26, 25]),
        ({"unevaluated": "instance"}, [26000, 26001, 33001, 24000, 24007, 29000]),
        ({"crowd": "instance", "unevaluated": "instance"}, list(INSTANCES)),
    ],
)
def test_offsets_lead_from_each_pixel_to_its_instances_centre(root: Path, options: dict, instances: list[int]):
    found = targets(build(root, **options))["instance"]
    ys, xs = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    stored = torch.from_numpy(maps()["instances"].astype(np.int64))
    for value, (x, y) in centres(*instances).items():
        where = stored == value
        assert torch.allclose(found[0][where] + xs[where], torch.tensor(x)), value
        assert torch.allclose(found[1][where] + ys[where], torch.tensor(y)), value
    nothing = ~torch.isin(stored, torch.tensor(instances))
    assert found[:, nothing].isnan().all()
    assert not found[:, ~nothing].isnan().any()
    assert found[:, 10, 100].tolist() == [0.0, 0.0]  # the instance of one pixel


def test_disparity_is_in_pixels_and_unknown_where_nothing_was_measured(root: Path):
    found = targets(build(root))["disparity"][0]
    stored = torch.from_numpy(maps()["disparity"].astype(np.float32))
    assert torch.equal(found.isnan(), stored == 0)
    assert torch.equal(found[stored > 0], (stored[stored > 0] - 1) / 256)
    assert found[8, :3].tolist() == [0.0, 39999 / 256, 65534 / 256]  # p = 1 is a measurement; above 32767 no sign


def test_labels_follow_the_size_of_whole_images(root: Path):
    full, small = targets(build(root)), targets(build(root, size=[32, 64]))
    assert small["semantic"].shape == (32, 64)
    for y, x in ((20, 20), (22, 38), (24, 36), (12, 62)):  # new pixels well inside of an instance
        old = full["instance"][:, 2 * y, 2 * x] + torch.tensor([2 * x, 2 * y])  # the centre, and where it goes
        assert torch.allclose(small["instance"][:, y, x] + torch.tensor([x, y]), (old + 0.5) / 2 - 0.5)
    known = small["disparity"][0][8:]
    ahead = torch.stack([full["disparity"][0][16::2, i::2] / 2 for i in (0, 1)])
    assert ((known >= ahead.amin(0)) & (known <= ahead.amax(0))).all()
    assert small["disparity"][0][:3].isnan().all()
    image, _ = build(root, size=[32, 64]).split("test")[(0, 0)]
    assert image.shape == (3, 32, 64)


def test_files_of_tasks_that_are_not_selected_are_never_read(root: Path):
    shutil.rmtree(root / "cityscapes/disparity")
    for path in (root / "cityscapes/gtFine").rglob("*_instanceIds.png"):
        path.write_bytes(b"not a png")
    data = build(root, tasks=["semantic"])
    assert list(targets(data)) == ["semantic"]
    assert list(data.split("train")[(0, 1)][1]) == ["semantic"]
    with pytest.raises(ValueError, match=r"dataset\.tasks: cityscapes has the tasks semantic, instance, disparity"):
        build(root, tasks=["depth"])


def test_a_missing_label_is_named_before_anything_is_trained(root: Path):
    path = place(root, "train", "ulm_000009_000019", "disparity")
    path.unlink()
    with pytest.raises(
        ValueError, match=r"(?s)disparity/train/ulm/ulm_000009_000019_disparity\.png is missing.*dataset\.tasks"
    ):
        build(root)
    build(root, tasks=["semantic", "instance"])


def test_no_folder_says_what_to_type(tmp_path: Path):
    with pytest.raises(ValueError, match="no images under") as error:
        build(tmp_path / "data")
    assert f"python -m mtlbench.synthesize dataset=cityscapes machine.data={tmp_path / 'data'}" in str(error.value)
    (tmp_path / "data/cityscapes/leftImg8bit/train/aachen").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"leftImg8bit/train\.\n"):
        build(tmp_path / "data")


@pytest.mark.parametrize("kind", ["image", "ids", "instances", "disparity"])
def test_a_truncated_png_is_named_wherever_it_breaks_off(root: Path, kind: str):
    path = place(root, "val", "frankfurt_000000_000294", kind)
    whole = path.read_bytes()
    data = build(root)
    for length in (0, 1, 7, 8, 20, 33, 40, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"frankfurt_000000_000294_\w+\.png: this PNG cannot be read"):
            data.split("test")[(0, 0)]
    path.unlink()
    with pytest.raises(ValueError, match="frankfurt_000000_000294"):
        data.split("test")[(0, 0)]
    assert data.split("test")[(0, 1)]


def test_a_label_of_another_size_is_named(root: Path):
    write(root, "val", "lindau_000001_000019", {"disparity": np.ones((32, 128), np.uint16)})
    with pytest.raises(ValueError, match=r"lindau_000001_000019_disparity\.png: 32 x 128 .* 64 x 128"):
        targets(build(root), 1)
    write(root, "val", "lindau_000001_000019", {"disparity": np.ones((64, 128, 3), np.uint8)})
    with pytest.raises(ValueError, match="one grey channel is expected, found 3"):
        targets(build(root), 1)


def test_an_image_without_a_label_of_a_task_goes_on(root: Path):
    empty = maps() | {
        "disparity": np.zeros((HEIGHT, WIDTH), np.uint16),
        "instances": np.full((HEIGHT, WIDTH), 7, np.uint16),
    }
    write(root, "val", "lindau_000001_000019", empty | {"ids": np.zeros((HEIGHT, WIDTH), np.uint8)})
    data = build(root)
    batch = collate([data.split("test")[(0, 1)]])
    for name, task in data.tasks.items():
        target = batch.targets[name]
        assert (target == IGNORE).all() if name == "semantic" else target.isnan().all()
        prediction = torch.ones(1, task.channels, HEIGHT, WIDTH, requires_grad=True)
        counts = task.loss.counts(target)
        assert counts.tolist() == [0.0]
        loss = task.loss(prediction, target, counts)
        loss.backward()
        assert loss == 0
        assert (prediction.grad == 0).all()


def test_both_greys_are_read_alike(tmp_path: Path):
    values = np.array([[0, 1, 255], [7, 33, 24]])
    for name, kind in (("8", np.uint8), ("16", np.uint16)):
        PIL.Image.fromarray(values.astype(kind)).save(tmp_path / f"{name}.png")
        assert np.array_equal(read_image(tmp_path / f"{name}.png"), values)
    PIL.Image.fromarray(np.array([[32767, 32768, 65535]], np.uint16)).save(tmp_path / "high.png")
    assert read_image(tmp_path / "high.png").tolist() == [[32767, 32768, 65535]]


AUGMENTATION = Augmentation(48, (0.5, 2.0), (-10.0, 10.0), 0.5, 0.5, 0.5)


def test_an_item_is_a_function_of_seed_epoch_and_index(root: Path):
    split = build(root, AUGMENTATION).split("train")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = split[(3, 1)]
    assert torch.equal(torch.get_rng_state(), before)  # nothing else's randomness is touched
    torch.manual_seed(77)
    split[(0, 0)]
    again = split[(3, 1)]
    assert equal(first[0], again[0])
    assert all(equal(first[1][name], again[1][name]) for name in first[1])
    assert not equal(first[0], split[(4, 1)][0])
    assert not equal(first[0], build(root, AUGMENTATION, seed=1).split("train")[(3, 1)][0])
    single = build(root, AUGMENTATION, tasks=["instance"]).split("train")[(3, 1)]  # tasks do not change images
    assert equal(first[0], single[0])
    assert equal(first[1]["instance"], single[1]["instance"])
    assert first[0].shape == (3, 48, 48)
    test = build(root, AUGMENTATION).split("test")
    assert test[(0, 0)][0].shape == (3, HEIGHT, WIDTH)  # evaluation: whole images, as they are
    assert equal(test[(0, 0)][0], test[(9, 0)][0])


@pytest.mark.slow
def test_workers_change_nothing(root: Path):
    split = build(root, AUGMENTATION).split("train")
    batches = []
    for workers in (0, 2):
        order = TrainingOrder(len(split), 2, 0, Ranks())
        order.epoch = 3
        batches.append(list(loader(split, order, workers, torch.device("cpu"))))
    assert len(batches[0]) == 2
    for one, two in zip(*batches, strict=True):
        assert equal(one.image, two.image)
        assert all(equal(one.targets[name], two.targets[name]) for name in one.targets)


def test_held_out_images_are_fixed_and_apart(root: Path):
    data = build(root, AUGMENTATION, validation=2)
    train, val = data.split("train"), data.split("val")
    assert len(train) == 3
    assert len(val) == 2
    assert sorted(f.stem for f in (*train.frames, *val.frames)) == SORTED
    assert [f.stem for f in val.frames] == sorted(f.stem for f in val.frames)
    assert val[(0, 0)][0].shape == (3, HEIGHT, WIDTH)  # not augmented
    assert build(root, validation=2, seed=9).split("val").frames == val.frames  # whatever the run's seed
    others = {tuple(build(root, validation=2, validation_seed=s).split("val").frames) for s in range(8)}
    assert len(others) > 1
    assert len(data.split("test")) == 2
    for count in (5, 6, -1):
        with pytest.raises(ValueError, match=f"dataset.validation={count}: 0 to 4"):
            build(root, validation=count)


def test_the_fingerprint_is_of_what_is_read(root: Path):
    first = build(root).fingerprint()
    assert build(root).fingerprint() == first
    path = place(root, "train", "ulm_000009_000019", "disparity")
    os.utime(path, (0, 0))
    (path.parent / "other.txt").write_text("not read")
    assert build(root, AUGMENTATION, validation=2, seed=4).fingerprint() == first
    without = build(root, tasks=["semantic"]).fingerprint()
    assert without != first
    path.write_bytes(path.read_bytes() + b" ")
    data = build(root)
    assert data.fingerprint() != first
    assert build(root, tasks=["semantic"]).fingerprint() == without
    assert not data.synthetic
    (root / "cityscapes/SYNTHETIC.json").write_text(json.dumps({"seed": 0}))
    marked = build(root)
    assert marked.synthetic
    assert "synthetic" in marked.fingerprint()
    assert marked.fingerprint() != data.fingerprint()
    (root / "cityscapes/SYNTHETIC.json").write_text(json.dumps({"seed": 1}))
    assert build(root).fingerprint() != marked.fingerprint()


class Shifted(nn.Module):
    """Predicts the same at every pixel: offsets (3, 2) in any image, mirrored or not."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        constant = {"semantic": [0.0] * 18 + [5.0], "instance": [3.0, 2.0], "disparity": [7.0]}
        return {
            n: torch.tensor(v)[None, :, None, None].expand(len(image), -1, *image.shape[2:])
            for n, v in constant.items()
        }


def test_evaluation_is_on_crops_and_mirrored_images(root: Path):
    image, _ = build(root).split("test")[(0, 0)]
    found = build(root, evaluation=Sliding(40, 30, True)).predict(Shifted(), image[None])
    assert torch.allclose(found["instance"][0, :, 0, 0], torch.tensor([0.0, 2.0]))  # 3 and the mirrored -3
    assert torch.allclose(found["disparity"], torch.tensor(7.0))
    assert (found["semantic"].argmax(1) == 18).all()
    assert torch.allclose(found["semantic"].exp().sum(1), torch.tensor(1.0))  # mean probabilities, as logarithms
    plain = build(root).predict(Shifted(), image[None])
    assert torch.allclose(plain["instance"][0, :, 0, 0], torch.tensor([3.0, 2.0]))
    assert torch.equal(negate_dx(torch.tensor([1.0, 2.0])[None, :, None, None]).flatten(), torch.tensor([-1.0, 2.0]))


def test_perfect_predictions_have_no_error_and_unlabelled_pixels_do_not_count(root: Path):
    data = build(root)
    order = EvaluationOrder(2, 2, Ranks())
    (batch,) = loader(data.split("test"), order, 0, torch.device("cpu"))
    perfect = {
        "semantic": nn.functional.one_hot(batch.targets["semantic"].long() % 19, 19).permute(0, 3, 1, 2).float(),
        "instance": batch.targets["instance"].nan_to_num(1e9),
        "disparity": batch.targets["disparity"].nan_to_num(-1e9),
    }
    values = {}
    for name, task in data.tasks.items():
        for meter in task.meters:
            values |= {
                f"{name}/{k}": v for k, v in meter.values(meter.sums(perfect[name], batch.targets[name])).items()
            }
    assert values == {"semantic/miou": 100, "semantic/pixel_accuracy": 100, "instance/l1": 0, "disparity/l1": 0}
    assert [task.metrics[0].name for task in data.tasks.values()] == ["miou", "l1", "l1"]
    assert [task.metrics[0].unit for task in data.tasks.values()] == ["%", "px", "px"]


def test_switches_reach_losses_and_metrics(root: Path):
    data = build(root, regression="mse", reduction="pixels", semantic_scale=10.0, absent="nan")
    assert type(data.tasks["instance"].loss) is MSE
    assert [metric.name for metric in data.tasks["instance"].metrics] == ["l1", "mse"]
    assert type(data.tasks["semantic"].loss) is Scaled
    target = targets(data)["semantic"][None]
    prediction = torch.randn(1, 19, HEIGHT, WIDTH)
    once, ten = (d.tasks["semantic"].loss for d in (build(root), data))
    assert torch.allclose(
        10 * once(prediction, target, once.counts(target)), ten(prediction, target, ten.counts(target))
    )
    offsets = targets(data)["instance"][None]
    both, components = (d.tasks["instance"].loss.counts(offsets) for d in (data, build(root)))
    assert 2 * both == components
    sums = data.tasks["semantic"].meters[0].sums(prediction[:, :, :1, 41:42], target[:, :1, 41:42])
    assert math.isnan(data.tasks["semantic"].meters[0].values(sums)["miou"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"crowd": "all"}, "dataset.crowd=all: ignore or instance"),
        ({"unevaluated": "x"}, "dataset.unevaluated=x"),
        ({"regression": "huber"}, "dataset.regression=huber: l1 or mse"),
        ({"reduction": "sum"}, "dataset.reduction=sum"),
        ({"absent": "drop"}, "skip, nan or zero"),
        ({"size": [3]}, "dataset.size"),
        ({"semantic_scale": 0.0}, "above 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(root: Path, options: dict, said: str):
    with pytest.raises(ValueError, match=said):
        build(root, **options)


def compose(root: Path, *overrides: str) -> tuple[config.DictConfig, Callable[[], Cityscapes]]:
    composed = config.load(overrides)
    return composed, lambda: config.build(composed.dataset, folder=root, seed=composed.seed)


def test_the_papers_settings_are_what_the_yaml_files_say(root: Path):
    imtl, data = compose(root, "experiment=imtl_cityscapes")
    data = data()
    assert (imtl.epochs, imtl.batch_size, imtl.optimizer.lr, imtl.optimizer.momentum) == (200, 32, 0.02, 0.9)
    assert (imtl.optimizer.weight_decay, imtl.schedule.power, imtl.backbone.output_stride) == (1e-4, 0.9, 8)
    assert (data.augmentation.crop, data.augmentation.scale, data.augmentation.rotate) == (713, [0.5, 2], [-10, 10])
    assert (data.evaluation.crop, data.evaluation.flip, data.size, data.split("val")) == (713, True, None, None)
    assert data.split("train")[(0, 0)][0].shape == (3, HEIGHT, WIDTH)  # a crop's sides are at most the image's
    mgda, data = compose(root, "experiment=mgda_cityscapes", "dataset.validation=1")
    data = data()
    assert (mgda.epochs, mgda.batch_size, mgda.schedule.every, mgda.schedule.factor) == (250, 8, 30, 0.5)
    assert data.split("train")[(0, 0)][0].shape == (3, 256, 512)
    assert len(data.split("val")) == 1
    plain, data = compose(root, "dataset=cityscapes", "backbone=resnet18", "epochs=2", "dataset.augmentation.crop=32")
    assert (plain.epochs, plain.batch_size, plain.backbone.name) == (2, 32, "resnet18")
    assert data().split("train")[(0, 0)][0].shape == (3, 32, 32)
    with pytest.raises(ValueError, match="Did you mean"):
        compose(root, "dataset=cityscapes", "dataset.augmentation.crops=3")
