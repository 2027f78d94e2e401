"""What all labels have in common: torchvision's functions of geometry as a sampling and a map of the plane."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]
"""((a, b, e), (c, d, f)): the point (x, y) of the old image is at (a x + b y + e, c x + d y + f) of the new one."""


Size = tuple[int, int]
"""(height, width)"""

Sample = Callable[[Tensor], Tensor]
"""Brings any map [C, H, W] of the old image to the new one by nearest neighbour."""


class Label(tv_tensors.TVTensor):
    """A label of one image, [..., H, W]. A subclass is known to every function in `GEOMETRY` by being defined.

    fill: the value of places that the old image did not cover; `fill` arguments meant for images are ignored.
    blended: public code interpolates this type as it does the image, see `scale_crop.ScaleCrop`.
    """

    fill: ClassVar[float] = math.nan
    blended: ClassVar[bool] = False

    @property
    def canvas(self) -> Size:
        """The size of the image that this is a label of."""
        return tuple(self.shape[-2:])

    @classmethod
    def moved(cls, values: Tensor, sample: Sample, matrix: Matrix) -> Tensor:
        """The values [C, h, w] in the new image, of those [C, H, W] in the old one.

        `sample` brings any map [C, H, W] to the new image by nearest neighbour, `fill` where nothing was.
        """
        raise NotImplementedError(f"{cls.__name__} does not say what happens to its values.")

    @classmethod
    def refocused(cls, values: Tensor, resolution: tuple[float, float]) -> Tensor:
        """The values [C, H, W] before the whole image is resized by the factors `resolution` of height and width.

        `moved` takes what happens to an image for a camera that keeps its focal length in pixels. Where an image is
        resized as a whole the focal length goes with it: what is in pixels changes, what is in metres does not.
        """
        return values

    def under(self, sample: Sample, matrix: Matrix) -> "Label":
        """This label in the new image."""
        values = self.as_subclass(Tensor)
        values = values.reshape(-1, *self.shape[-2:])  # the functions of torchvision want a channel dimension
        moved = self.moved(values, sample, matrix)
        return tv_tensors.wrap(moved.reshape(*self.shape[:-2], *moved.shape[-2:]), like=self)

    def at_resolution(self, resolution: tuple[float, float]) -> "Label":
        """This label, `refocused`."""
        values = self.as_subclass(Tensor)
        refocused = self.refocused(values.reshape(-1, *self.shape[-2:]), resolution)
        return tv_tensors.wrap(refocused.reshape(self.shape), like=self)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for function, geometry in GEOMETRY.items():
            F.register_kernel(function, cls)(partial(_move, geometry))
        F.register_kernel(F.resized_crop, cls)(_resized_crop)
        for function in REFUSED:
            # a class of torchvision's v2 transforms leaves alone, in silence, whatever has no kernel
            F.register_kernel(function, cls)(partial(_refuse, function.__name__))


def _move(geometry: Callable[..., tuple[Sample, Matrix]], label: Label, *args: Any, **kwargs: Any) -> Label:
    return label.under(*geometry(label.canvas, label.fill, *args, **kwargs))


def _horizontal_flip(old: Size, empty: float, /) -> tuple[Sample, Matrix]:
    return lambda x: x.flip(-1), ((-1, 0, old[1] - 1), (0, 1, 0))


def _vertical_flip(old: Size, empty: float, /) -> tuple[Sample, Matrix]:
    return lambda x: x.flip(-2), ((1, 0, 0), (0, -1, old[0] - 1))


def _crop(old: Size, empty: float, /, top: int, left: int, height: int, width: int) -> tuple[Sample, Matrix]:
    beyond = [-left, left + width - old[1], -top, top + height - old[0]]  # negative: inside the image

    def sample(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x, beyond, value=empty)

    return sample, ((1, 0, -left), (0, 1, -top))


def _pad(
    old: Size, empty: float, /, padding: int | Sequence[int], fill: Any = None, padding_mode: str = "constant"
) -> tuple[Sample, Matrix]:
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
) -> tuple[Sample, Matrix]:
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
) -> tuple[Sample, Matrix]:
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
