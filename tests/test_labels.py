"""Each label type under each change of geometry: shape and content, against what the image itself shows."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import Image

from mtlbench.labels import REFUSED, ClassMap, Disparity, InstanceOffset, Label
from mtlbench.task import IGNORE

HEIGHT, WIDTH = 48, 64
BOXES = {1: (10, 12, 26, 28), 2: (20, 36, 40, 58), 3: (6, 40, 16, 50)}  # id: top, left, bottom, right
DISPARITY = {1: 10.0, 2: 4.5, 3: 33.0}

quick = settings(deadline=None, derandomize=True, max_examples=25)


def centre(box: tuple[int, int, int, int]) -> tuple[float, float]:
    top, left, bottom, right = box
    return (left + right - 1) / 2, (top + bottom - 1) / 2  # x, y: the mean of the pixels' coordinates


def scene() -> tuple[ClassMap, Disparity, InstanceOffset]:
    """Three boxes on unlabelled ground: their ids, their constant disparities, the offsets to their centres."""
    ids = torch.full((HEIGHT, WIDTH), IGNORE, dtype=torch.uint8)
    disparity = torch.full((1, HEIGHT, WIDTH), math.nan)
    offset = torch.full((2, HEIGHT, WIDTH), math.nan)
    for k, (top, left, bottom, right) in BOXES.items():
        ids[top:bottom, left:right] = k
        disparity[:, top:bottom, left:right] = DISPARITY[k]
        x, y = centre(BOXES[k])
        offset[0, top:bottom, left:right] = x - torch.arange(left, right)
        offset[1, top:bottom, left:right] = (y - torch.arange(top, bottom))[:, None]
    return ClassMap(ids), Disparity(disparity), InstanceOffset(offset)


def spot(x: float, y: float) -> Image:
    """An image with a soft spot at a point: where it is afterwards is where the point went."""
    ys, xs = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return Image(torch.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * 1.5**2))[None].float())


def place_of(image: Tensor) -> tuple[float, float]:
    weight = image[0].double()
    x = (weight.sum(0) * torch.arange(weight.shape[1])).sum() / weight.sum()
    y = (weight.sum(1) * torch.arange(weight.shape[0])).sum() / weight.sum()
    return x.item(), y.item()


def resize(size: list[int]):
    return lambda x: F.resize(x, size, InterpolationMode.BILINEAR, antialias=True)


def rotate(angle: float, center: list[float] | None = None):
    return lambda x: F.rotate(x, angle, InterpolationMode.BILINEAR, center=center)


CHANGES = {
    # name: (what is done, the size afterwards, the factor of the width)
    "horizontal_flip": (F.horizontal_flip, (48, 64), 1.0),
    "vertical_flip": (F.vertical_flip, (48, 64), 1.0),
    "crop": (lambda x: F.crop(x, 1, 5, 41, 57), (41, 57), 1.0),
    "crop beyond": (lambda x: F.crop(x, -3, -4, 60, 70), (60, 70), 1.0),
    "pad": (lambda x: F.pad(x, [3, 5, 2, 1], fill=0), (54, 69), 1.0),
    "pad two": (lambda x: F.pad(x, [3, 5], fill=0), (58, 70), 1.0),
    "pad one": (lambda x: F.pad(x, 4), (56, 72), 1.0),
    "larger": (resize([96, 128]), (96, 128), 2.0),
    "larger by no whole number": (resize([70, 100]), (70, 100), 100 / 64),
    "smaller": (resize([24, 32]), (24, 32), 0.5),
    "smaller by no whole number": (resize([31, 47]), (31, 47), 47 / 64),
    "wider": (resize([48, 128]), (48, 128), 2.0),
    "higher": (resize([96, 64]), (96, 64), 1.0),
    "shorter side": (resize([24]), (24, 32), 0.5),
    "rotate": (rotate(10), (48, 64), 1.0),
    "rotate the other way": (rotate(-7.5), (48, 64), 1.0),
    "rotate about a point": (rotate(8, [20, 30]), (48, 64), 1.0),
    "half turn": (rotate(180), (48, 64), 1.0),
    "resized crop": (lambda x: F.resized_crop(x, 1, 7, 42, 56, [63, 84]), (63, 84), 1.5),
}


@pytest.mark.parametrize("name", CHANGES)
def test_labels_go_where_the_image_goes(name: str):
    """The scene is changed, the labels are changed: every labelled pixel must point at its instance's centre as
    the changed image shows it, and carry its instance's disparity in the new pixels."""
    change, size, factor = CHANGES[name]
    before = scene()
    ids, disparity, offset = (change(label) for label in before)
    for label, old in zip((ids, disparity, offset), before, strict=True):
        assert type(label) is type(old)
        assert label.dtype == old.dtype
        assert label.shape == (*old.shape[:-2], *size)
    ys, xs = np.mgrid[: size[0], : size[1]]
    for k, box in BOXES.items():
        x, y = place_of(change(spot(*centre(box))))
        where = np.asarray(ids) == k
        assert where.any()
        assert np.allclose(np.asarray(offset)[0][where] + xs[where], x, atol=0.06)
        assert np.allclose(np.asarray(offset)[1][where] + ys[where], y, atol=0.06)
        assert np.allclose(np.asarray(disparity)[0][where], DISPARITY[k] * factor, rtol=1e-6)
        # the centre of the labelled pixels is there too: the sampling is not shifted against the image
        assert np.allclose([xs[where].mean(), ys[where].mean()], (x, y), atol=0.51)
    unlabelled = np.asarray(ids) == IGNORE
    assert np.array_equal(np.isnan(np.asarray(disparity)[0]), unlabelled)
    assert np.array_equal(np.isnan(np.asarray(offset)).all(0), unlabelled)
    assert set(np.unique(np.asarray(ids))) == {1, 2, 3, IGNORE}


@pytest.mark.parametrize("name", CHANGES)
def test_a_class_map_is_sampled_where_a_picture_of_it_would_be(name: str):
    """Away from the edges a class map equals its own picture, changed with torchvision's rules for images."""
    change = CHANGES[name][0]
    classes = torch.arange(3).repeat_interleave(16)[:, None] * 4 + torch.arange(4).repeat_interleave(16)  # tiles
    picture = change(Image(classes[None].float() + 1))[0]  # 0 outside
    label = change(ClassMap(classes.to(torch.uint8))).as_subclass(Tensor).float() + 1
    label[label == IGNORE + 1] = 0
    flat = torch.nn.functional.unfold(picture[None, None], 3, padding=1)[0]  # the neighbourhood of each pixel
    inner = ((flat.amax(0) - flat.amin(0)) < 1e-3).reshape(picture.shape)
    assert inner.float().mean() > 0.1
    assert torch.allclose(label[inner], picture[inner], atol=1e-3)


maps = st.integers(0, 2**31).map(lambda seed: torch.Generator().manual_seed(seed))


def random_labels(generator: torch.Generator, height: int = 12, width: int = 10) -> list[Label]:
    """Offsets and disparities of small dyadic numbers, exact in float32, a fifth of the pixels without a label."""
    numbers = torch.randint(-512, 512, (3, height, width), generator=generator) / 64
    numbers[:, torch.rand(height, width, generator=generator) < 0.2] = math.nan
    classes = torch.randint(0, 19, (height, width), generator=generator).to(torch.uint8)
    return [ClassMap(classes), Disparity(numbers[:1].abs()), InstanceOffset(numbers[1:])]


def same(a: Tensor, b: Tensor) -> bool:
    return type(a) is type(b) and torch.equal(
        torch.nan_to_num(a.as_subclass(Tensor), nan=-1e6), torch.nan_to_num(b.as_subclass(Tensor), nan=-1e6)
    )


@quick
@given(maps)
def test_there_and_back_is_the_identity(generator: torch.Generator):
    for label in random_labels(generator):
        assert same(F.horizontal_flip(F.horizontal_flip(label)), label)
        assert same(F.vertical_flip(F.vertical_flip(label)), label)
        assert same(F.crop(F.pad(label, [3, 1, 4, 2]), 1, 3, 12, 10), label)
        assert same(F.resize(F.resize(label, [24, 20]), [12, 10]), label)
        assert same(F.resize(F.resize(label, [24, 40]), [12, 10]), label)
        assert same(F.rotate(F.rotate(label, 180), 180), label)


@quick
@given(maps)
def test_orders_that_mean_the_same_give_the_same(generator: torch.Generator):
    for label in random_labels(generator):
        assert same(F.rotate(label, 180), F.vertical_flip(F.horizontal_flip(label)))
        assert same(F.horizontal_flip(F.resize(label, [24, 20])), F.resize(F.horizontal_flip(label), [24, 20]))
        assert same(F.crop(F.crop(label, 2, 1, 8, 8), 1, 2, 5, 4), F.crop(label, 3, 3, 5, 4))
        assert same(F.horizontal_flip(F.crop(label, 2, 1, 8, 6)), F.crop(F.horizontal_flip(label), 2, 3, 8, 6))


def test_four_quarter_turns_are_none():
    label = random_labels(torch.Generator().manual_seed(0), 10, 10)[2]
    turned = F.rotate(F.rotate(F.rotate(F.rotate(label, 90), 90), 90), 90)
    assert torch.allclose(turned.as_subclass(Tensor), label.as_subclass(Tensor), atol=1e-4, equal_nan=True)


def test_the_simple_rules_by_hand():
    offset = InstanceOffset(torch.tensor([3.0, -2.0])[:, None, None].expand(2, 4, 6).clone())
    flipped = F.horizontal_flip(offset)
    assert torch.allclose(flipped[0], torch.tensor(-3.0))
    assert torch.allclose(flipped[1], torch.tensor(-2.0))
    assert torch.allclose(F.crop(offset, 1, 2, 2, 3)[0], torch.tensor(3.0))
    turned = F.rotate(InstanceOffset(torch.tensor([3.0, 0.0])[:, None, None].expand(2, 5, 5).clone()), 90)
    assert torch.allclose(turned[:, 2, 2], torch.tensor([0.0, -3.0]), atol=1e-5)  # right becomes up, y is down
    nothing = F.rotate(ClassMap(torch.zeros(8, 8, dtype=torch.uint8)), 45)
    assert nothing[0, 0] == IGNORE
    assert nothing[4, 4] == 0


def test_an_unlabelled_neighbour_never_leaks():
    disparity = torch.full((1, 8, 8), math.nan)
    disparity[:, ::2, ::2] = 8.0
    for size in ([16, 16], [5, 7], [4, 4], [3, 3]):
        values = F.resize(Disparity(disparity), size, antialias=True).as_subclass(Tensor)
        found = values[~values.isnan()]
        assert torch.allclose(found, torch.tensor(8.0 * size[1] / 8))


@pytest.mark.parametrize(
    "transform",
    [
        v2.RandomHorizontalFlip(1),
        v2.RandomVerticalFlip(1),
        v2.Resize((24, 32)),
        v2.RandomCrop((20, 30)),
        v2.RandomCrop((60, 80), pad_if_needed=True),
        v2.Pad(3, fill=7),
        v2.RandomRotation(20, fill=7),
        v2.RandomResizedCrop((30, 30)),
        v2.ScaleJitter((48, 64)),
    ],
    ids=lambda t: type(t).__name__,
)
def test_transform_classes_of_torchvision_do_not_pass_a_label_over(transform: v2.Transform):
    """They leave unknown types as they are, in silence: each of ours must change with its image, alike."""
    ids, disparity, offset = scene()
    torch.manual_seed(3)
    image, ids, disparity, offset = transform((Image(torch.zeros(3, HEIGHT, WIDTH)), ids, disparity, offset))
    assert ids.shape == image.shape[-2:] == disparity.shape[-2:] == offset.shape[-2:]
    points = offset.as_subclass(Tensor) + torch.stack(
        torch.meshgrid(torch.arange(image.shape[2]), torch.arange(image.shape[1]), indexing="xy")
    )
    for k in set(ids.unique().tolist()) - {IGNORE}:
        where = ids == k
        assert torch.allclose(points[:, where], points[:, where][:, :1], atol=1e-3)  # all point at one place
        assert len(disparity[0][where].unique()) == 1


@pytest.mark.parametrize("kind", [ClassMap, Disparity, InstanceOffset])
def test_geometry_without_a_rule_is_an_error_and_no_silence(kind: type[Label]):
    label = kind(torch.zeros(2, 8, 8))
    for transform in (v2.CenterCrop(4), v2.RandomAffine(5), v2.RandomPerspective(p=1), v2.FiveCrop(4), v2.TenCrop(4)):
        with pytest.raises(TypeError, match="has no rule for labels"):
            transform(Image(torch.zeros(3, 8, 8)), label)
    with pytest.raises(TypeError, match="elastic has no rule for labels"):
        v2.ElasticTransform()(Image(torch.zeros(3, 64, 64)), label)
    assert len(REFUSED) == 6


def test_colours_are_no_matter_of_labels():
    label = scene()[2]
    jitter = v2.Compose([v2.ColorJitter(0.5, 0.5), v2.GaussianBlur(3), v2.ToDtype(torch.float64, scale=True)])
    image, after = jitter(Image(torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)), label)
    assert image.dtype == torch.float64
    assert same(after, label)


def test_what_labels_cannot_do_is_said():
    label = scene()[1]
    with pytest.raises(ValueError, match="padding_mode='reflect'"):
        F.pad(label, [1, 1], padding_mode="reflect")
    with pytest.raises(ValueError, match="expand=True"):
        F.rotate(label, 10, expand=True)


def test_a_new_label_type_is_known_by_being_defined():
    class Depth(Label):
        """Metres: enlarging by s divides them by s."""

        @classmethod
        def moved(cls, values, sample, matrix):
            return sample(values) / math.hypot(matrix[0][0], matrix[1][0])

    depth = F.resize(Depth(torch.full((1, 4, 4), 6.0)), [8, 8])
    assert type(depth) is Depth
    assert torch.equal(depth.as_subclass(Tensor), torch.full((1, 8, 8), 3.0))
    assert F.pad(depth, 1).isnan().sum() == 36

    class Forgotten(Label):
        pass

    with pytest.raises(NotImplementedError, match="Forgotten"):
        F.horizontal_flip(Forgotten(torch.zeros(1, 4, 4)))
