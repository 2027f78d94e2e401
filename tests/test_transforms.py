"""Random views of an image and its labels, against where the image itself says each pixel comes from."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import Image

from mtlbench.labels import ClassMap, Disparity, InstanceOffset
from mtlbench.task import IGNORE
from mtlbench.transforms import (
    DEVIATION,
    MEAN,
    MEAN_COLOUR,
    Augmentation,
    View,
    normalise,
    see,
    sides,
    whole,
)

HEIGHT, WIDTH = 60, 120
CENTRES = {1: (30.0, 20.0), 2: (85.5, 35.5)}
BOXES = {1: (11, 21, 30, 40), 2: (26, 71, 46, 101)}  # id: top, left, bottom, right, around the centres
DISPARITY = {1: 12.0, 2: 5.0}

quick = settings(deadline=None, derandomize=True, max_examples=40)


def scene() -> tuple[Image, dict[str, ClassMap | Disparity | InstanceOffset]]:
    """An image whose red is twice x and whose green is four times y, so that each pixel says where it is from; blue
    is 200, the mean colour's is 104: padding shows. In floating point, so that it says so exactly. And two
    instances on unlabelled ground."""
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    image = torch.from_numpy(np.stack([2 * xs, 4 * ys, np.full_like(xs, 200)])).float()
    ids = torch.full((HEIGHT, WIDTH), IGNORE, dtype=torch.uint8)
    disparity = torch.full((1, HEIGHT, WIDTH), math.nan)
    offset = torch.full((2, HEIGHT, WIDTH), math.nan)
    for k, (top, left, bottom, right) in BOXES.items():
        ids[top:bottom, left:right] = k
        disparity[:, top:bottom, left:right] = DISPARITY[k]
        offset[0, top:bottom, left:right] = CENTRES[k][0] - torch.arange(left, right)
        offset[1, top:bottom, left:right] = (CENTRES[k][1] - torch.arange(top, bottom))[:, None]
    labels = {"semantic": ClassMap(ids), "instance": InstanceOffset(offset), "disparity": Disparity(disparity)}
    return Image(image), labels


def origin(image: Tensor) -> np.ndarray:
    """The affine map [2, 3] from a point of the old image to the new one, fitted to what the new one shows."""
    red, green, blue = np.asarray(image).astype(float)
    shows = blue >= 199.5
    shows[[0, -1]] = shows[:, [0, -1]] = False
    # pixels at the very border of the old image are mixed or cut off: the fit leaves them out
    shows &= (red > 4) & (red < 2 * WIDTH - 6) & (green > 8) & (green < 4 * HEIGHT - 12)
    ys, xs = np.nonzero(shows)
    old = np.stack([red[shows] / 2, green[shows] / 4, np.ones(len(xs))], axis=1)
    solution, *_ = np.linalg.lstsq(old, np.stack([xs, ys], axis=1).astype(float), rcond=None)
    return solution.T


def check(image: Tensor, labels: dict[str, Tensor], slack: float = 0.1) -> None:
    """Every label agrees with the image: what is labelled, the centre that it points at, the scaled disparity."""
    to_new = origin(image)
    to_old = np.linalg.inv(np.vstack([to_new, [0, 0, 1]]))[:2]
    ids, offset, disparity = (np.asarray(labels[name]) for name in ("semantic", "instance", "disparity"))
    assert ids.shape == offset.shape[1:] == disparity.shape[1:] == tuple(image.shape[-2:])
    ys, xs = np.mgrid[: ids.shape[0], : ids.shape[1]]
    x, y = np.einsum("ij,jhw->ihw", to_old, np.stack([xs, ys, np.ones_like(xs)]))
    enlarged = np.hypot(*to_new[:, 0])
    expected = np.full(ids.shape, IGNORE)
    certain = np.ones(ids.shape, dtype=bool)
    for k, (top, left, bottom, right) in BOXES.items():
        inside = np.minimum.reduce([x - left + 0.5, right - 0.5 - x, y - top + 0.5, bottom - 0.5 - y])
        expected[inside > 0] = k
        certain &= np.abs(inside) > 0.5 + 0.75 / enlarged  # half a pixel of the old image, and of the new one, turned
    assert (ids == expected)[certain].all()
    assert np.array_equal(np.isnan(disparity[0]), ids == IGNORE)
    assert np.array_equal(np.isnan(offset).any(0), ids == IGNORE)
    for k, centre in CENTRES.items():
        where = ids == k
        if where.any():
            cx, cy = to_new @ [*centre, 1]
            assert np.abs(offset[0][where] + xs[where] - cx).max() < slack
            assert np.abs(offset[1][where] + ys[where] - cy).max() < slack
            assert np.allclose(disparity[0][where], DISPARITY[k] * enlarged, rtol=0.01)


def test_the_defaults_change_nothing():
    image, labels = scene()
    seen, changed = Augmentation()(image, labels)
    assert torch.equal(seen, image)
    for name, label in labels.items():
        assert type(changed[name]) is type(label)
        assert torch.allclose(changed[name].as_subclass(Tensor), label.as_subclass(Tensor), equal_nan=True)


def test_one_whole_view_is_all_of_the_image_at_a_size():
    image, labels = scene()
    view = whole(image, (30, 60))
    small = {name: see(label, view) for name, label in labels.items()}
    check(see(image, view), small)
    assert small["disparity"][0, 10, 15] == DISPARITY[1] / 2
    assert see(image, whole(image, None)).shape == image.shape


@pytest.mark.parametrize(
    "view",
    [
        View(5, 10, 40, 80, (40, 80), (40, 80)),
        View(5, 10, 40, 80, (80, 160), (80, 160)),
        View(-10, -20, 80, 160, (40, 80), (40, 80)),
        View(0, 0, 60, 120, (60, 120), (60, 120), mirrored=True),
        View(0, 0, 60, 120, (60, 120), (60, 120), angle=10.0),
        View(0, 0, 60, 120, (60, 120), (40, 80), angle=-10.0),
        View(-6, 4, 50, 100, (75, 150), (57, 120), angle=7.0, mirrored=True),
        View(4, 8, 48, 100, (48, 50), (48, 50)),
    ],
    ids=["cut", "enlarged", "padded", "mirrored", "turned", "turned and cut", "all", "narrowed"],
)
def test_a_view_changes_labels_as_it_changes_the_image(view: View):
    image, labels = scene()
    seen, changed = see(image, view), {name: see(label, view) for name, label in labels.items()}
    assert tuple(seen.shape[-2:]) == view.size
    check(seen, changed)


@quick
@given(st.integers(0, 2**31))
def test_random_views_change_labels_as_they_change_the_image(seed: int):
    image, labels = scene()
    torch.manual_seed(seed)
    augmentation = Augmentation([40, 50], (0.5, 2.0), (-10.0, 10.0), 0.7, 0.5)
    seen, changed = augmentation(image, labels)
    assert seen.shape == (3, 40, 50)
    check(seen, changed)


@quick
@given(st.integers(0, 2**31), st.sampled_from([None, 30, 713]))
def test_random_views_at_another_size_are_scaled_once(seed: int, crop: int | None):
    image, labels = scene()
    torch.manual_seed(seed)
    seen, changed = Augmentation(crop, (0.8, 1.2), (-10.0, 10.0), 0.5, 0.5)(image, labels, size=(40, 80))
    assert seen.shape == (3, *sides(crop, (40, 80)))
    check(seen, changed)
    where = changed["semantic"] == 1
    if where.any():
        ratio = changed["disparity"][0][where].unique().item() / DISPARITY[1]
        assert 0.8 * 2 / 3 * 0.97 < ratio < 1.2 * 2 / 3 * 1.03


def test_a_crop_is_at_most_as_large_as_the_image():
    assert sides(713, (1024, 2048)) == (713, 713)
    assert sides(713, (256, 512)) == (256, 512)
    assert sides(300, (256, 512)) == (256, 300)
    assert sides([50, 90], (256, 512)) == (50, 90)
    assert sides(None, (256, 512)) == (256, 512)


def test_what_scaling_leaves_smaller_is_padded_around():
    image, labels = scene()
    seen, changed = Augmentation(crop=713, scale=(0.5, 0.5))(image, labels)
    assert seen.shape == (3, HEIGHT, WIDTH)
    inner = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    inner[HEIGHT // 4 : 3 * HEIGHT // 4, WIDTH // 4 : 3 * WIDTH // 4] = True
    outer = torch.nn.functional.max_pool2d(inner[None].float(), 3, 1, 1)[0] == 0  # without the mixed rim
    padding = seen.as_subclass(Tensor)[:, outer]
    assert torch.allclose(padding, torch.tensor(MEAN_COLOUR).float()[:, None].expand_as(padding))
    assert normalise(F.to_dtype(seen, torch.uint8))[:, outer].abs().max() < 0.01
    assert (seen[2][inner] >= 150).all()
    for name, label in changed.items():
        values = label.as_subclass(Tensor)[..., ~inner]
        assert (values == IGNORE).all() if name == "semantic" else values.isnan().all()
    check(seen, changed)


def test_turning_takes_corners_from_the_image_where_it_has_them():
    image = Image(torch.full((3, 200, 200), 250, dtype=torch.uint8))
    view = View(0, 0, 200, 200, (200, 200), (200, 200))
    for seed in range(20):
        torch.manual_seed(seed)
        view, _ = Augmentation(60, (1.0, 1.0), (10.0, 10.0), 1.0).draw((200, 200))
        if 12 <= view.top <= 200 - 90 and 12 <= view.left <= 200 - 90:
            assert (see(image, view) == 250).all()
    assert view.angle == 10.0
    assert view.scaled > view.size


def draws(augmentation: Augmentation, count: int = 2000, image=(60, 120), size=None) -> list[tuple[View, bool]]:
    torch.manual_seed(0)
    return [augmentation.draw(image, size) for _ in range(count)]


def test_what_is_drawn_has_the_bounds_and_shares_that_were_asked_for():
    views = draws(Augmentation(30, (0.5, 2.0), (-10.0, 10.0), 0.25, 0.5, 0.75))
    scales = np.array([view.size[0] / view.height for view, _ in views if not view.angle])
    assert scales.min() >= 0.5
    assert scales.max() <= 2.01
    assert abs(scales.mean() - 1.25) < 0.05  # uniform in s
    angles = np.array([view.angle for view, _ in views])
    assert abs((angles != 0).mean() - 0.25) < 0.04
    assert np.abs(angles).max() <= 10
    assert angles.min() < -9
    assert angles.max() > 9
    assert abs(np.mean([view.mirrored for view, _ in views]) - 0.5) < 0.04
    assert abs(np.mean([blurred for _, blurred in views]) - 0.75) < 0.04


def test_crops_lie_anywhere_in_the_image_and_never_beyond():
    views = [view for view, _ in draws(Augmentation(40, (1.0, 1.0)))]
    assert {view.top for view in views} == set(range(21))
    assert {view.left for view in views} == set(range(81))
    enlarged = [view for view, _ in draws(Augmentation(40, (1.0, 2.0)))]
    assert all(0 <= v.top <= 60 - v.height and 0 <= v.left <= 120 - v.width for v in enlarged)


def test_the_same_seed_draws_the_same_whatever_else_is_switched_on():
    plain = draws(Augmentation(40, (1.0, 1.0), flip_probability=0.5), 50)
    more = draws(Augmentation(40, (1.0, 1.0), (-5.0, 5.0), 0.0, 0.5, 1.0), 50)
    assert [view for view, _ in plain] == [view for view, _ in more]
    assert all(blurred for _, blurred in more)


def test_turning_keeps_the_crop_where_it_would_have_been():
    straight = draws(Augmentation(40, (0.8, 2.0)), 100)
    turned = draws(Augmentation(40, (0.8, 2.0), (-10.0, 10.0), 1.0), 100)
    for (a, _), (b, _) in zip(straight, turned, strict=True):
        assert b.height > a.height
        assert abs((a.top + a.height / 2) - (b.top + b.height / 2)) <= 0.5
        assert abs((a.left + a.width / 2) - (b.left + b.width / 2)) <= 0.5


def test_a_mirrored_view_is_mirrored_and_nothing_else():
    image, labels = scene()
    seen, changed = Augmentation(flip_probability=1.0)(image, labels)
    assert torch.equal(seen, image.flip(-1))
    assert torch.equal(changed["semantic"], labels["semantic"].flip(-1))
    assert (changed["instance"][0, 20, WIDTH - 1 - 25], changed["instance"][1, 20, WIDTH - 1 - 25]) == (-5, 0)


def test_blur_is_of_the_image_alone():
    image, labels = scene()
    image[:, ::2] = 0
    torch.manual_seed(0)
    sharp, plain = Augmentation(40, flip_probability=0.5)(image, labels)
    torch.manual_seed(0)
    soft, same = Augmentation(40, flip_probability=0.5, blur_probability=1.0)(image, labels)
    assert torch.equal(soft, F.gaussian_blur(sharp, [5, 5], [1.1, 1.1]))
    assert soft.float().std() < 0.8 * sharp.float().std()
    for name in labels:
        assert torch.allclose(plain[name].as_subclass(Tensor), same[name].as_subclass(Tensor), equal_nan=True)


def test_normalisation_is_of_imagenet():
    image = Image(torch.tensor([0, 128, 255], dtype=torch.uint8)[None, None].expand(3, 2, 3).clone())
    found = normalise(image)
    assert type(found) is Tensor
    assert found.dtype == torch.float32
    for c in range(3):
        assert torch.allclose(found[c, 0], (torch.tensor([0, 128, 255]) / 255 - MEAN[c]) / DEVIATION[c])
    assert image.max() == 255  # the image itself is left alone


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"crop": 0}, "augmentation.crop=0"),
        ({"crop": [5]}, r"augmentation.crop=\[5\]"),
        ({"crop": [1, 2, 3]}, "augmentation.crop"),
        ({"scale": (0.0, 1.0)}, "0 < least"),
        ({"scale": (2.0, 1.0)}, "least <= most"),
        ({"rotate": (-90.0, 90.0)}, "-45 to 45"),
        ({"flip_probability": 1.5}, "flip_probability=1.5"),
        ({"rotate_probability": -1}, "rotate_probability=-1"),
        ({"blur_kernel": 4}, "odd side"),
        ({"blur_sigma": 0.0}, "above 0"),
        ({"interpolation": "nearest"}, "bilinear or bicubic"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, said: str):
    with pytest.raises(ValueError, match=said):
        Augmentation(**options)
