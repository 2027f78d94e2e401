"""Evaluation on crops and mirrored images, against an average taken pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mtlbench.losses import L1, CrossEntropy
from mtlbench.sliding import Sliding
from mtlbench.task import Task

TASKS = {
    "semantic": Task("semantic", 4, CrossEntropy(), []),
    "instance": Task("instance", 2, L1(), [], unflip=lambda x: x * x.new_tensor([-1.0, 1.0])[:, None, None]),
    "disparity": Task("disparity", 1, L1(), []),
}


class Net(nn.Module):
    """Padding and a mean over the crop make every prediction depend on where the crop is."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleDict({n: nn.Conv2d(3, t.channels, 3, padding=1) for n, t in TASKS.items()})
        self.double().eval()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        self.seen.append(tuple(image.shape))
        mean = image.mean((2, 3), keepdim=True)
        return {name: 3 * layer(image) + 5 * layer(mean.expand_as(image)) for name, layer in self.layers.items()}


def starts(side: int, crop: int, stride: int) -> list[int]:
    found = [0]
    while found[-1] + crop < side:
        found.append(min(found[-1] + stride, side - crop))
    return found


def brute_force(net: nn.Module, image: Tensor, crop: tuple[int, int], stride: int, flip: bool, softmax: bool):
    """For every pixel the list of all that was predicted there, and its mean."""
    size = tuple(image.shape[-2:])
    at = [[{name: [] for name in TASKS} for _ in range(size[1])] for _ in range(size[0])]
    for top in starts(size[0], crop[0], stride):
        for left in starts(size[1], crop[1], stride):
            part = image[None, :, top : top + crop[0], left : left + crop[1]]
            for mirrored in (False, True) if flip else (False,):
                for name, p in net(torch.from_numpy(part.numpy()[..., ::-1].copy()) if mirrored else part).items():
                    p = p[0].detach().numpy()
                    if name == "semantic" and softmax:
                        p = np.exp(p) / np.exp(p).sum(0)
                    if mirrored:
                        p = p[..., ::-1] * np.array([-1, 1] if name == "instance" else [1] * len(p))[:, None, None]
                    for y in range(crop[0]):
                        for x in range(crop[1]):
                            at[top + y][left + x][name].append(p[:, y, x])
    mean = {n: np.array([[np.mean(cell[n], 0) for cell in row] for row in at]).transpose(2, 0, 1) for n in TASKS}
    if softmax:
        mean["semantic"] = np.log(mean["semantic"])
    return mean


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize(
    ("crop", "stride"), [(8, 5), (8, None), ([6, 9], 4), (8, 8), (11, None), (500, 300), (None, None)]
)
def test_the_mean_is_that_of_every_pixel(crop, stride, flip: bool, average: str):
    torch.manual_seed(1)
    image = torch.randn(2, 3, 11, 19, dtype=torch.float64)
    sliding = Sliding(crop, stride, flip, average, crops_at_once=3)
    with torch.no_grad():
        found = sliding(Net(), image, TASKS, classes=("semantic",))
    whole = crop is None or crop == 500
    sides = (11, 19) if whole else (crop, crop) if isinstance(crop, int) else tuple(crop)
    step = stride or -(-2 * sides[0] // 3)
    if crop == 11:
        step = 8
    softmax = average == "probabilities" and not (whole and not flip)  # one look is left as it is
    for b in range(2):
        expected = brute_force(Net(), image[b], sides, step, flip, softmax)
        for name in TASKS:
            assert found[name].dtype == torch.float64
            assert np.allclose(found[name][b], expected[name], rtol=1e-10, atol=1e-12), name


def test_mirroring_does_not_wash_out_what_changes_sign():
    """A network that sees dx right in every image, mirrored or not: the average must be what it sees."""
    image = torch.randn(1, 3, 6, 10, dtype=torch.float64)

    def slope(x: Tensor) -> dict[str, Tensor]:
        padded = nn.functional.pad(x[:, :1], (1, 1, 0, 0), mode="replicate")
        dx = padded[..., 2:] - padded[..., :-2]
        return {"instance": torch.cat([dx, x[:, 1:2]], 1), "disparity": x[:, :1]}

    found = Sliding(flip=True)(slope, image, TASKS)
    for name, expected in slope(image).items():
        assert torch.allclose(found[name], expected)
    assert found["instance"].abs().max() > 0.1


def test_how_many_crops_at_once_changes_nothing_but_memory():
    image = torch.randn(3, 3, 9, 14, dtype=torch.float64)
    results = []
    for at_once in (1, 4, 100):
        net = Net()
        with torch.no_grad():
            results.append(Sliding(6, 4, True, crops_at_once=at_once)(net, image, TASKS, ("semantic",)))
        assert all(0 < shape[0] <= at_once and shape[2:] == (6, 6) for shape in net.seen)
        assert sum(shape[0] for shape in net.seen) == 3 * 2 * 3 * 2  # images, rows, columns, mirrored
    for name in TASKS:
        assert torch.allclose(results[0][name], results[1][name])
        assert torch.allclose(results[0][name], results[2][name])


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_every_pixel_is_seen_and_no_crop_twice(side: int, crop: int, stride: int):
    stride = min(stride, crop)
    looks = Sliding(crop, stride)._starts(side, min(crop, side))
    assert looks == sorted(set(looks))
    seen = {pixel for start in looks for pixel in range(start, start + min(crop, side))}
    assert seen == set(range(side))


def test_papers_crops_of_a_street():
    sliding = Sliding(713, None, True)
    assert sliding._starts(1024, 713) == [0, 311]
    assert sliding._starts(2048, 713) == [0, 476, 952, 1335]


def test_a_class_that_no_crop_believes_in_stays_finite():
    def sure(x: Tensor) -> dict[str, Tensor]:
        logits = torch.full((len(x), 4, *x.shape[2:]), -1e4)
        logits[:, 2] = 1e4
        return {"semantic": logits}

    found = Sliding(flip=True)(sure, torch.zeros(1, 3, 4, 4), TASKS, ("semantic",))["semantic"]
    assert found.isfinite().all()
    assert (found.argmax(1) == 2).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"crop": 0}, "evaluation.crop=0"),
        ({"crop": [5]}, r"evaluation.crop=\[5\]"),
        ({"crop": 8, "stride": 9}, "evaluation.stride=9"),
        ({"crop": [8, 4], "stride": 5}, "evaluation.stride=5"),
        ({"stride": 3}, "evaluation.stride=3"),
        ({"crop": 8, "stride": 0}, "evaluation.stride=0"),
        ({"average": "votes"}, "probabilities or logits"),
        ({"crops_at_once": 0}, "crops_at_once=0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict, said: str):
    with pytest.raises(ValueError, match=said):
        Sliding(**options)
