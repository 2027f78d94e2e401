"""Label types that know what a change of the image does to their values.

They are torchvision tv_tensors, so its v2 functions treat an image and its labels alike. A change of geometry
is nearest-neighbour sampling (values of two pixels are never mixed, and invalid ones never leak into valid
ones) and an affine map of the plane; a label type adds one method, `moved`, that says what the map does to
the values. Points are (x, y), x right and y down; the centre of the first pixel is (0, 0).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from mtlbench.task import IGNORE

Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]
"""((a, b, e), (c, d, f)): the point (x, y) of the old image is at (a x + b y + e, c x + d y + f) of the new one."""


class Label(tv_tensors.TVTensor):
    """A label of one image, [..., H, W]. A subclass is known to every function in `GEOMETRY` by being defined.

    fill: the value of places that the old image did not cover; `fill` arguments meant for images are ignored.
    """

    fill: ClassVar[float] = math.nan

    @classmethod
    def moved(cls, values: Tensor, sample: Callable[[Tensor], Tensor], matrix: Matrix) -> Tensor:
        """The values [C, h, w] in the new image, of those [C, H, W] in the old one.

        `sample` brings any map [C, H, W] to the new image by nearest neighbour, `fill` where nothing was.
        """
        raise NotImplementedError(f"{cls.__name__} does not say what happens to its values.")

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for function, geometry in GEOMETRY.items():
            F.register_kernel(function, cls)(partial(_move, geometry))
        F.register_kernel(F.resized_crop, cls)(_resized_crop)
        for function in REFUSED:
            # a class of torchvision's v2 transforms leaves alone, in silence, whatever has no kernel
            F.register_kernel(function, cls)(partial(_refuse, function.__name__))


def _move(geometry: Callable[..., tuple[Callable, Matrix]], label: Label, *args: Any, **kwargs: Any) -> Label:
    values = label.as_subclass(Tensor)
    values = values.reshape(-1, *label.shape[-2:])  # the functions of torchvision want a channel dimension
    sample, matrix = geometry(tuple(values.shape[-2:]), label.fill, *args, **kwargs)
    moved = label.moved(values, sample, matrix)
    return tv_tensors.wrap(moved.reshape(*label.shape[:-2], *moved.shape[-2:]), like=label)


Size = tuple[int, int]
"""(height, width)"""


def _horizontal_flip(old: Size, empty: float, /) -> tuple[Callable, Matrix]:
    return lambda x: x.flip(-1), ((-1, 0, old[1] - 1), (0, 1, 0))


def _vertical_flip(old: Size, empty: float, /) -> tuple[Callable, Matrix]:
    return lambda x: x.flip(-2), ((1, 0, 0), (0, -1, old[0] - 1))


def _crop(old: Size, empty: float, /, top: int, left: int, height: int, width: int) -> tuple[Callable, Matrix]:
    beyond = [-left, left + width - old[1], -top, top + height - old[0]]  # negative: inside the image

    def sample(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x, beyond, value=empty)

    return sample, ((1, 0, -left), (0, 1, -top))


def _pad(
    old: Size, empty: float, /, padding: int | Sequence[int], fill: Any = None, padding_mode: str = "constant"
) -> tuple[Callable, Matrix]:
    if padding_mode != "constant":
        raise ValueError(f"Labels are padded with their own value, not with padding_mode={padding_mode!r}.")
    sides = [padding] if isinstance(padding, int) else list(padding)
    left, top, right, bottom = sides * (4 // len(sides))
    return _crop(old, empty, -top, -left, old[0] + top + bottom, old[1] + left + right)


def _resize(
    old: Size,
    empty: float,
    /,
    size: Any,
    interpolation: Any = None,
    max_size: int | None = None,
    antialias: Any = None,
) -> tuple[Callable, Matrix]:
    nearest = InterpolationMode.NEAREST_EXACT  # the other one samples the first pixel of each block, not the middle

    def sample(x: Tensor) -> Tensor:
        return F.resize(x, size, nearest, max_size, antialias=False)

    height, width = sample(torch.empty(1, *old, device="meta")).shape[-2:]
    sx, sy = width / old[1], height / old[0]
    return sample, ((sx, 0, (sx - 1) / 2), (0, sy, (sy - 1) / 2))


def _rotate(
    old: Size,
    empty: float,
    /,
    angle: float,
    interpolation: Any = None,
    expand: bool = False,
    center: Sequence[float] | None = None,
    fill: Any = None,
) -> tuple[Callable, Matrix]:
    """By `angle` degrees, counter-clockwise as seen, about `center` (torchvision's: pixel centres at 0.5)."""
    if expand:
        raise ValueError("Labels are rotated on the same canvas: expand=True is not supported.")

    def sample(x: Tensor) -> Tensor:
        return F.rotate(x, angle, InterpolationMode.NEAREST, center=center, fill=empty)

    mx, my = (m - 0.5 for m in (center or (old[1] / 2, old[0] / 2)))
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return sample, ((c, s, mx - c * mx - s * my), (-s, c, my + s * mx - c * my))


GEOMETRY = {
    F.horizontal_flip: _horizontal_flip,
    F.vertical_flip: _vertical_flip,
    F.crop: _crop,
    F.pad: _pad,
    F.resize: _resize,
    F.rotate: _rotate,
}
"""torchvision's functions, and for each the sampling and the map of the plane."""

REFUSED = (F.affine, F.center_crop, F.elastic, F.five_crop, F.perspective, F.ten_crop)
"""Functions of geometry without a rule here: they raise TypeError for labels."""


def _resized_crop(
    label: Label, top: int, left: int, height: int, width: int, size: Sequence[int], *_: Any, **__: Any
) -> Label:
    return F.resize(F.crop(label, top, left, height, width), size)


def _refuse(function: str, *_: Any, **__: Any) -> None:
    known = ", ".join(f.__name__ for f in (*GEOMETRY, F.resized_crop))
    raise TypeError(f"{function} has no rule for labels; there is one for {known}.")


class ClassMap(Label):
    """A class per pixel, [H, W] integers; IGNORE = no label. Its values never change."""

    fill = IGNORE

    @classmethod
    def moved(cls, values: Tensor, sample: Callable[[Tensor], Tensor], matrix: Matrix) -> Tensor:
        return sample(values)


class Disparity(Label):
    """Disparity [1, H, W] in pixels of the image's width, NaN = no label.

    Enlarging by s multiplies it by s (IMTL, Liu et al. 2021, Appendix D), of the two factors the one of the
    width. A rotation or a flip leaves it as it is.
    """

    @classmethod
    def moved(cls, values: Tensor, sample: Callable[[Tensor], Tensor], matrix: Matrix) -> Tensor:
        (a, _, _), (c, _, _) = matrix
        return sample(values) * math.hypot(a, c)


class InstanceOffset(Label):
    """Centre of a pixel's instance minus the pixel, [2, H, W] (dx, dy) in pixels, NaN = no instance.

    The centre is what is sampled: it is one point for the whole instance, inside the image or not, so that
    sampling is exact, and the map of the plane takes it where it belongs. Only then is the pixel subtracted.
    (Enlarging by s multiplies offsets by s, a flip negates dx, a rotation turns them, a crop changes nothing.)
    """

    @classmethod
    def moved(cls, values: Tensor, sample: Callable[[Tensor], Tensor], matrix: Matrix) -> Tensor:
        x, y = sample(values + _pixels(values))
        (a, b, e), (c, d, f) = matrix
        centre = torch.stack([a * x + b * y + e, c * x + d * y + f])
        return centre - _pixels(centre)


def _pixels(like: Tensor) -> Tensor:
    """The points [2, H, W] of all pixels."""
    height, width = like.shape[-2:]
    y = torch.arange(height, dtype=like.dtype, device=like.device)
    x = torch.arange(width, dtype=like.dtype, device=like.device)
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
