"""Depths, normals, landmarks and Taskonomy's domains under each change of geometry: shape, content, no silence."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import Image

from mtlbench import labels as types
from mtlbench.labels import (
    INVERSE_DEPTH,
    METRIC_DEPTH,
    NORMALS,
    BlendedNormals,
    ClassMap,
    Curvature,
    Disparity,
    DividedInverseDepth,
    Edges,
    EuclideanDepth,
    InstanceOffset,
    InverseDepth,
    KeypointMap,
    Label,
    Landmarks,
    MetricDepth,
    Normals,
    Reshading,
    Scalars,
    UnscaledInverseDepth,
    UnscaledMetricDepth,
    UnscaledNormals,
    WholeImage,
    partners,
)
from mtlbench.transforms import View, see, whole
from test_labels import BOXES, CHANGES, HEIGHT, WIDTH, place_of, same, spot

FACTOR = {
    # what enlarging the width by s does to a value
    InverseDepth: lambda s: s,
    DividedInverseDepth: lambda s: 1 / s,
    UnscaledInverseDepth: lambda s: 1.0,
    MetricDepth: lambda s: 1 / s,
    EuclideanDepth: lambda s: 1 / s,
    UnscaledMetricDepth: lambda s: 1.0,
    Disparity: lambda s: s,
    Scalars: lambda s: 1.0,
    Edges: lambda s: 1.0,
    KeypointMap: lambda s: 1.0,
    Reshading: lambda s: 1.0,
    Curvature: lambda s: 1.0,
}
CHANNELS = {Curvature: 2, Reshading: 3}
NAMES = ("lefteye_x", "righteye_x", "nose_x", "leftmouth_x", "rightmouth_x")


def boxes(values: dict[int, list[float]]) -> Tensor:
    """Each box of the scene filled with its values [C, H, W], NaN elsewhere."""
    filled = torch.full((len(values[1]), HEIGHT, WIDTH), math.nan)
    for k, (top, left, bottom, right) in BOXES.items():
        filled[:, top:bottom, left:right] = torch.tensor(values[k])[:, None, None]
    return filled


def ids() -> ClassMap:
    return ClassMap(boxes({k: [k] for k in BOXES})[0].nan_to_num(255).to(torch.uint8))


def test_every_type_is_tested_here_or_beside():
    defined = {x for x in vars(types).values() if isinstance(x, type) and issubclass(x, Label)}
    assert defined == {
        *FACTOR, *NORMALS.values(), Normals, ClassMap, InstanceOffset, Landmarks, WholeImage, Label
    }  # fmt: skip
    assert set(INVERSE_DEPTH) == {"mul", "div", "none"}
    assert set(METRIC_DEPTH) == {"div", "none"}
    assert {"imtl": Normals, "none": UnscaledNormals, "mtan": BlendedNormals} == NORMALS


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("kind", FACTOR, ids=lambda kind: kind.__name__)
def test_values_are_multiplied_by_what_the_type_says(kind: type[Label], name: str):
    change, size, s = CHANGES[name]
    channels = CHANNELS.get(kind, 1)
    values = {k: [k + 0.25 * c for c in range(channels)] for k in BOXES}
    found = change(kind(boxes(values)))
    assert type(found) is kind
    assert found.shape == (channels, *size)
    where = change(ids()).as_subclass(Tensor)
    for k in BOXES:
        expected = FACTOR[kind](s) * torch.tensor(values[k])
        inside = found.as_subclass(Tensor)[:, where == k]
        assert inside.numel()
        assert torch.allclose(inside, expected[:, None].expand_as(inside), rtol=1e-6)
    assert torch.equal(found.isnan().all(0), where == 255)


VECTORS = {1: [0.48, -0.6, 0.64], 2: [-0.36, 0.48, 0.8], 3: [0.0, 0.0, 1.0]}


def linear_part(change) -> np.ndarray:
    """The linear part [2, 2] of the map of the plane, from where three spots of an image go."""
    origin, right, below = (np.array(place_of(change(spot(x, y)))) for x, y in ((28, 24), (36, 24), (28, 32)))
    return np.stack([(right - origin) / 8, (below - origin) / 8], 1)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("kind", [Normals, UnscaledNormals, BlendedNormals], ids=lambda kind: kind.__name__)
def test_normals_turn_with_the_image(kind: type[Label], name: str):
    change, size, _ = CHANGES[name]
    found = change(kind(boxes(VECTORS)))
    assert type(found) is kind
    assert found.shape == (3, *size)
    where = change(ids()).as_subclass(Tensor)
    linear = linear_part(change)
    if kind is not Normals:
        linear = linear / np.linalg.norm(linear, axis=0)  # what turns and mirrors, without what scales
    for k, vector in VECTORS.items():
        expected = np.array([*np.linalg.inv(linear).T @ vector[:2], vector[2]])
        expected /= np.linalg.norm(expected)
        inside = np.asarray(found)[:, where == k]
        assert inside.size
        assert np.abs(inside - expected[:, None]).max() < 0.02  # the spots' places are sure to 0.06 pixels of 8
        assert np.allclose(np.linalg.norm(inside, axis=0), 1, atol=1e-6)
    assert torch.equal(found.isnan().all(0), where == 255)


def test_normals_by_hand():
    normal = Normals(torch.tensor([0.48, -0.6, 0.64])[:, None, None].expand(3, 4, 4).clone())
    assert torch.equal(F.horizontal_flip(normal)[:, 0, 0], torch.tensor([-0.48, -0.6, 0.64]))
    assert torch.equal(F.vertical_flip(normal)[:, 0, 0], torch.tensor([0.48, 0.6, 0.64]))
    quarter = F.rotate(normal, 90)[:, 1, 1]  # counter-clockwise, y down: right becomes up, down becomes right
    assert torch.allclose(quarter, torch.tensor([-0.6, -0.48, 0.64]), atol=1e-6)
    larger = F.resize(normal, [8, 8])[:, 0, 0]
    scaled = torch.tensor([0.48, -0.6, 2 * 0.64])
    assert torch.allclose(larger, scaled / scaled.norm(), atol=1e-6)  # (x, y, s z) / |(x, y, s z)|
    unscaled = UnscaledNormals(normal.as_subclass(Tensor))
    assert torch.equal(F.resize(unscaled, [8, 8])[:, 0, 0], torch.tensor([0.48, -0.6, 0.64]))


@pytest.mark.parametrize("name", CHANGES)
def test_landmarks_go_where_the_image_goes(name: str):
    change, (height, width), _ = CHANGES[name]
    points = torch.tensor([[22.0, 20.0], [42.0, 19.5], [31.5, 24.0], [25.0, 33.0], [math.nan, math.nan]])
    found = change(Landmarks(points, (HEIGHT, WIDTH), partners(NAMES)))
    assert type(found) is Landmarks
    assert found.shape == (5, 2)
    assert found.canvas == (height, width)
    mirrored = np.linalg.det(linear_part(change)) < 0
    assert mirrored == name.endswith("flip")
    for i in range(4):
        x, y = place_of(change(spot(*points[i].tolist())))
        j = partners(NAMES)[i] if mirrored else i
        assert np.allclose(np.asarray(found)[j], (x, y), atol=0.06), i
    assert found[3 if mirrored else 4].isnan().all()  # the point without a label, at its partner's place


def test_landmarks_outside_are_no_labels_and_know_their_image():
    points = Landmarks(torch.tensor([[2.0, 3.0], [-0.5, 5.0], [9.5, 7.5]]), (8, 10))
    assert torch.equal(F.crop(points, 0, 0, 8, 10).as_subclass(Tensor), points.as_subclass(Tensor))  # edges count
    cropped = F.crop(points, 1, 1, 6, 6)
    assert cropped.canvas == (6, 6)
    assert torch.equal(cropped[0], torch.tensor([1.0, 2.0]))
    assert cropped[1:].isnan().all()
    for again in (points.clone(), points.to(torch.float64), points.detach(), copy.deepcopy(points)):
        assert type(again) is Landmarks
        assert (again.canvas, again.partners) == ((8, 10), (0, 1, 2))
    assert partners(["lefteye", "righteye", "nose"]) == (1, 0, 2)
    with pytest.raises(ValueError, match="lefteye has no partner righteye"):
        partners(["lefteye", "nose"])
    with pytest.raises(ValueError, match=r"found \[3\]"):
        Landmarks(torch.zeros(3), (4, 4))
    with pytest.raises(ValueError, match="must be an order of them"):
        Landmarks(torch.zeros(2, 2), (4, 4), (0, 0))


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_said_of_the_whole_image_stays(name: str):
    attributes = WholeImage(torch.tensor([0, 1, 255], dtype=torch.uint8))
    found = CHANGES[name][0](attributes)
    assert type(found) is WholeImage
    assert torch.equal(found.as_subclass(Tensor), attributes.as_subclass(Tensor))
    assert see(attributes, View(3, 4, 10, 10, (20, 20), (16, 16), 5.0, True)) is attributes


def one_of_each(generator: torch.Generator) -> list[Label]:
    """Small dyadic numbers, exact in float32; a fifth without a label; 12 x 10 pixels."""
    numbers = torch.randint(-512, 512, (3, 12, 10), generator=generator) / 64
    numbers[:, torch.rand(12, 10, generator=generator) < 0.2] = math.nan
    points = torch.randint(0, 72, (5, 2), generator=generator) / 8
    found: list[Label] = [kind(numbers[: CHANNELS.get(kind, 1)]) for kind in FACTOR]
    found += [kind(numbers / 8) for kind in (UnscaledNormals, BlendedNormals)]
    unit = torch.tensor([[0.0, 0.6, 0.8], [-0.8, 0.0, 0.6], [0.28, -0.96, 0.0]])
    found.append(Normals(unit[torch.randint(0, 3, (12, 10), generator=generator)].permute(2, 0, 1)))
    return [*found, Landmarks(points, (12, 10), partners(NAMES)), WholeImage(torch.arange(3))]


@pytest.mark.parametrize("seed", range(3))
def test_there_and_back_is_the_identity(seed: int):
    for label in one_of_each(torch.Generator().manual_seed(seed)):
        assert same(F.horizontal_flip(F.horizontal_flip(label)), label), type(label)
        assert same(F.vertical_flip(F.vertical_flip(label)), label), type(label)
        assert same(F.crop(F.pad(label, [3, 1, 4, 2]), 1, 3, 12, 10), label), type(label)
        there = F.rotate(F.vertical_flip(F.horizontal_flip(label)), 180)
        back = F.resize(F.resize(label, [24, 20]), [12, 10])
        for found in (there, back):
            near = torch.allclose(found.as_subclass(Tensor), label.as_subclass(Tensor), atol=2e-6, equal_nan=True)
            assert near, type(label)


@pytest.mark.parametrize("kind", [*FACTOR, Normals, UnscaledNormals, BlendedNormals], ids=lambda kind: kind.__name__)
def test_geometry_without_a_rule_is_an_error_and_no_silence(kind: type[Label]):
    label = kind(torch.zeros(3, 8, 8))
    for transform in (v2.CenterCrop(4), v2.RandomAffine(5), v2.RandomPerspective(p=1), v2.FiveCrop(4), v2.TenCrop(4)):
        with pytest.raises(TypeError, match="has no rule for labels"):
            transform(Image(torch.zeros(3, 8, 8)), label)


@pytest.mark.parametrize("transform", [v2.RandomHorizontalFlip(1), v2.RandomCrop((6, 5)), v2.Resize((16, 12))])
def test_transform_classes_of_torchvision_change_each_type(transform: v2.Transform):
    for label in one_of_each(torch.Generator().manual_seed(5))[:-1]:
        torch.manual_seed(1)
        image, changed = transform((Image(torch.zeros(3, 12, 10)), label))
        assert changed.canvas == tuple(image.shape[-2:]), type(label)
        assert not same(changed, label), type(label)


def test_a_view_of_what_is_no_label_is_refused():
    for plain in (torch.zeros(1, 8, 8), np.zeros((8, 8))):
        with pytest.raises(TypeError, match="an image or a label"):
            see(plain, View(0, 0, 8, 8, (4, 4), (4, 4)))


def test_resizing_a_whole_data_set_keeps_metres_and_angles():
    """The focal length goes with the image: what is in pixels changes, what is in metres or angles does not."""
    half = whole(Image(torch.zeros(3, HEIGHT, WIDTH)), (HEIGHT // 2, WIDTH // 4))
    assert half.resolution == (0.5, 0.25)
    for kind in FACTOR:
        if kind not in CHANNELS:
            found = see(kind(boxes({k: [float(k)] for k in BOXES})), half).as_subclass(Tensor)
            expected = torch.tensor([1.0, 2.0, 3.0]) * (0.25 if kind is Disparity else 1.0)
            assert torch.allclose(found[~found.isnan()].unique(), expected), kind
    for kind in (Normals, UnscaledNormals):
        found = see(kind(boxes(VECTORS)), half).as_subclass(Tensor)
        mine = found[:, ~found.isnan().any(0)]
        nearest = torch.cdist(mine.T, torch.tensor(list(VECTORS.values()))).amin(1)
        assert nearest.max() < 1e-6
    point = see(Landmarks(torch.tensor([[40.0, 20.0]]), (HEIGHT, WIDTH)), half)
    assert torch.allclose(
        point.as_subclass(Tensor), torch.tensor([[9.625, 9.75]])
    )  # pixel centres: (x + 1/2) / 4 - 1/2
    # a zoom by 2 within it is one
    zoom = View(HEIGHT // 4, WIDTH // 4, HEIGHT // 2, WIDTH // 2, (24, 32), (24, 32), resolution=(0.5, 0.5))
    depth = see(MetricDepth(torch.full((1, HEIGHT, WIDTH), 6.0)), zoom)
    assert torch.equal(depth.as_subclass(Tensor), torch.full((1, 24, 32), 3.0))
    inverse = see(InverseDepth(torch.full((1, HEIGHT, WIDTH), 0.25)), zoom)
    assert torch.equal(inverse.as_subclass(Tensor), torch.full((1, 24, 32), 0.5))
