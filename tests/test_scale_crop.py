"""The MTAN family's augmentation, against its code's own steps."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as nnF
from torch import Tensor
from torchvision.tv_tensors import Image

from mtlbench.labels import BlendedNormals, ClassMap, DividedInverseDepth, InverseDepth, MetricDepth, Normals
from mtlbench.scale_crop import ScaleCrop
from mtlbench.task import IGNORE

HEIGHT, WIDTH = 24, 36


def scene() -> tuple[Image, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    image = Image(255 * torch.rand(3, HEIGHT, WIDTH, generator=generator))
    normals = nnF.normalize(torch.randn(3, HEIGHT, WIDTH, generator=generator), dim=0)
    normals[:, :4, :6] = torch.nan
    depth = 1 + torch.rand(1, HEIGHT, WIDTH, generator=generator)
    classes = torch.randint(0, 5, (HEIGHT, WIDTH), generator=generator).to(torch.uint8)
    classes[0] = IGNORE
    return image, {"classes": classes, "depth": depth, "normals": normals}


def by_the_code(image, classes, depth, normals, s, top, left, mirrored):
    """RandomScaleCrop and the flip of CAGrad and LibMTL, whose invalid normals are 0."""
    height, width = classes.shape
    h, w = int(height / s), int(width / s)

    def cut(x: Tensor) -> Tensor:
        return x[..., top : top + h, left : left + w][None]

    image = nnF.interpolate(cut(image), (height, width), mode="bilinear", align_corners=True)[0]
    classes = nnF.interpolate(cut(classes[None].float()), (height, width), mode="nearest")[0, 0]
    depth = nnF.interpolate(cut(depth), (height, width), mode="nearest")[0] / s
    normals = nnF.interpolate(cut(normals.nan_to_num(0)), (height, width), mode="bilinear", align_corners=True)[0]
    if mirrored:
        image, classes, depth, normals = (x.flip(-1) for x in (image, classes, depth, normals))
        normals[0] *= -1
    return image, classes, depth, normals


def test_it_is_what_the_public_code_does():
    augmentation, found = ScaleCrop(), Counter()
    image, plain = scene()
    labels = {
        "classes": ClassMap(plain["classes"]),
        "depth": MetricDepth(plain["depth"]),
        "normals": BlendedNormals(plain["normals"]),
    }
    torch.manual_seed(0)
    for _ in range(60):
        view, blurred = augmentation.draw((HEIGHT, WIDTH))
        s = HEIGHT / view.height
        found[round(s, 1), view.mirrored] += 1
        assert 0 <= view.top <= HEIGHT - view.height
        assert 0 <= view.left <= WIDTH - view.width
        seen, changed = augmentation.apply(image, labels, view, blurred)
        theirs = by_the_code(image, *plain.values(), s, view.top, view.left, view.mirrored)
        assert torch.allclose(seen.as_subclass(Tensor), theirs[0], atol=1e-3)
        normals = changed["normals"].as_subclass(Tensor)
        assert torch.allclose(normals.nan_to_num(0), theirs[3], atol=1e-5)
        if s == 1 or s == 1.5:  # in between nearest samples the middle of a pixel, theirs its corner
            agree = (changed["classes"].as_subclass(Tensor) == theirs[1]).float().mean()
            assert agree > (0.99 if s == 1 else 0.4)
        same = changed["depth"].as_subclass(Tensor).unique()
        assert torch.isin((same * s * 1e4).round(), (plain["depth"] * 1e4).round()).float().mean() > 0.9
    assert {s for s, _ in found} == {1.0, 1.2, 1.5}
    assert {mirrored for _, mirrored in found} == {False, True}


def test_values_follow_their_type():
    image, plain = scene()
    flat = torch.full((1, HEIGHT, WIDTH), 3.0)
    labels = {"m": MetricDepth(flat), "i": InverseDepth(flat), "d": DividedInverseDepth(flat)}
    labels["n"] = Normals(plain["normals"])
    augmentation = ScaleCrop([1.5], 0.0)
    _, changed = augmentation(image, labels)
    assert [changed[k].unique().item() for k in "mid"] == pytest.approx([2.0, 4.5, 2.0])
    lengths = changed["n"].norm(dim=0)
    assert torch.allclose(lengths[~lengths.isnan()], torch.ones(()))
    _, changed = augmentation(image, labels, (HEIGHT // 2, WIDTH // 2))  # a smaller data set has the same depths
    assert [changed[k].unique().item() for k in "mid"] == pytest.approx([2.0, 4.5, 2.0])
    assert changed["m"].shape == (1, HEIGHT // 2, WIDTH // 2)


def test_eight_bits_stay_eight_bits_and_scale_one_changes_nothing():
    image, plain = scene()
    grey = Image(image.as_subclass(Tensor).to(torch.uint8))
    seen, changed = ScaleCrop([1.0], 0.0)(grey, {"classes": ClassMap(plain["classes"])})
    assert torch.equal(seen, grey)
    assert torch.equal(changed["classes"].as_subclass(Tensor), plain["classes"])
    assert ScaleCrop([1.5], 1.0)(grey, {})[0].dtype == torch.uint8


@pytest.mark.parametrize(
    "options", [{"scales": []}, {"scales": [0.5]}, {"scales": [float("nan")]}, {"flip_probability": 2}]
)
def test_values_that_make_no_sense_are_named(options: dict):
    with pytest.raises(ValueError, match=f"augmentation.{next(iter(options))}="):
        ScaleCrop(**options)
