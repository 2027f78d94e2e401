"""An image and its labels, cut, scaled, turned and mirrored together; normalisation.

Only functions of torchvision's v2 are called, never its classes: those leave alone whatever type they do not know.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import Image, TVTensor

from mtlbench.labels import Label, WholeImage

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's images: what pretrained backbones expect."""

MEAN_COLOUR = [round(255 * mean) for mean in MEAN]
"""What an image [3, H, W] uint8 is padded with: zero after normalisation, but for rounding."""

Kind = TypeVar("Kind", bound=TVTensor)


class View(NamedTuple):
    """What is seen of an image: a window of it, scaled to `scaled`, turned, cut to `size`, mirrored.

    top, left, height, width: the window, in pixels of the image; it may reach beyond.
    scaled, size: (height, width) of the window after scaling and of what is left around its centre after turning.
    angle: degrees, counter-clockwise about the window's centre.
    resolution: the part of the scaling that resizes the data set and is no change of the view, factors of (height,
        width): the camera's focal length in pixels goes with it, see `labels.Label.refocused`.
    """

    top: int
    left: int
    height: int
    width: int
    scaled: tuple[int, int]
    size: tuple[int, int]
    angle: float = 0.0
    mirrored: bool = False
    resolution: tuple[float, float] = (1.0, 1.0)


def whole(image: Tensor, size: tuple[int, int] | None) -> View:
    """All of the image [3, H, W], at `size` (height, width) or as it is."""
    height, width = image.shape[-2:]
    size = size or (height, width)
    return View(0, 0, height, width, size, size, resolution=(size[0] / height, size[1] / width))


def see(x: Kind, view: View, interpolation: str = "bilinear") -> Kind:
    """The view of an image or a label. What the image did not cover is MEAN_COLOUR, or the label's `fill`.

    Raises TypeError for anything else: torchvision's functions would take a plain tensor for an image.
    """
    if not isinstance(x, Image | Label):
        raise TypeError(f"a view is of an image or a label, one of mtlbench.labels, not of a {type(x).__name__}.")
    if isinstance(x, WholeImage):
        return x
    x = _cut(x, view.top, view.left, view.height, view.width)
    if isinstance(x, Label) and view.resolution != (1.0, 1.0):
        x = x.at_resolution(view.resolution)
    if _size(x) != view.scaled:
        x = F.resize(x, list(view.scaled), InterpolationMode(interpolation), antialias=True)
    if view.angle:
        x = F.rotate(x, view.angle, InterpolationMode.BILINEAR, fill=MEAN_COLOUR)
    if view.scaled != view.size:
        (height, width), (h, w) = view.scaled, view.size
        x = _cut(x, (height - h) // 2, (width - w) // 2, h, w)
    return F.horizontal_flip(x) if view.mirrored else x


def needed(view: View, size: tuple[int, int]) -> tuple[View, tuple[slice, slice]]:
    """The rows and columns of an image of `size` that a view shows, and the view of these alone."""
    (top, bottom), (left, right) = (
        (max(0, first), min(side, first + extent))
        for first, extent, side in zip((view.top, view.left), (view.height, view.width), size, strict=True)
    )
    return view._replace(top=view.top - top, left=view.left - left), (slice(top, bottom), slice(left, right))


def _size(x: TVTensor) -> tuple[int, int]:
    return x.canvas if isinstance(x, Label) else tuple(x.shape[-2:])


def _cut(x: Kind, top: int, left: int, height: int, width: int) -> Kind:
    (rows, columns), bottom, right = _size(x), top + height, left + width
    beyond = [max(0, -left), max(0, -top), max(0, right - columns), max(0, bottom - rows)]
    top, left = max(0, top), max(0, left)
    inside = min(bottom, rows) - top, min(right, columns) - left
    if (top, left, *inside) != (0, 0, rows, columns):
        x = F.crop(x, top, left, *inside)
    return F.pad(x, beyond, fill=MEAN_COLOUR) if any(beyond) else x


def normalise(image: Tensor) -> Tensor:
    """uint8 [3, H, W] to float32: (value / 255 - MEAN) / DEVIATION."""
    scaled = F.to_dtype(image.as_subclass(Tensor), torch.float32, scale=True)
    return F.normalize(scaled, list(MEAN), list(DEVIATION), inplace=True)


def sides(crop: int | Sequence[int] | None, size: tuple[int, int]) -> tuple[int, int]:
    """A crop's (height, width), at most those of `size`; all of `size` for None."""
    if crop is None:
        return size
    height, width = (crop, crop) if isinstance(crop, int) else crop
    return min(height, size[0]), min(width, size[1])


@dataclass(frozen=True)
class Augmentation:
    """Random scale, crop, rotation, flip and blur of an image with its labels; the defaults change nothing.

    Draws from torch's global generator, always the same number of times.

    crop: side or (height, width) of what is trained on, at most the image's; null: as large as the image.
    scale: bounds of a uniform factor s. What s makes smaller than the crop is padded around it.
    rotate: bounds in degrees of a uniform angle, about the crop's centre (so that corners come from the
        image where it has them), used with probability `rotate_probability`.
    flip_probability: of mirroring left and right.
    blur_probability, blur_kernel, blur_sigma: of a Gaussian blur of the image; side of its kernel and standard
        deviation, in pixels of the crop.
    interpolation: of the image under scaling, bilinear or bicubic; labels are always sampled.

    IMTL (Liu et al. 2021, Appendix D) gives 713, [0.5, 2], [-10, 10] and "Gaussian blur (with a radius of 5)";
    it leaves unsaid the order, every probability, and what the radius means. The public code of PSPNet (hszhao/semseg,
    with the same four numbers) has RandomGaussianBlur(radius=5), a kernel of 5 pixels, which in OpenCV is a
    standard deviation of 1.1, and 0.5 for each probability. Pillow's radius of 5 is blur_kernel=31 blur_sigma=5.

    Raises ValueError for values that make no sense.
    """

    crop: int | Sequence[int] | None = None
    scale: Sequence[float] = (1.0, 1.0)
    rotate: Sequence[float] = (0.0, 0.0)
    rotate_probability: float = 0.0
    flip_probability: float = 0.0
    blur_probability: float = 0.0
    blur_kernel: int = 5
    blur_sigma: float = 1.1
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        crop = [self.crop] * 2 if isinstance(self.crop, int) else self.crop
        if crop is not None and (len(crop) != 2 or min(crop) < 1):
            raise ValueError(f"augmentation.crop={self.crop}: a side in pixels, [height, width] or null is expected.")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"augmentation.scale={self.scale}: [least, most] with 0 < least <= most is expected.")
        if len(self.rotate) != 2 or not -45 <= self.rotate[0] <= self.rotate[1] <= 45:
            raise ValueError(f"augmentation.rotate={self.rotate}: [least, most] within -45 to 45 degrees is expected.")
        for name in ("rotate_probability", "flip_probability", "blur_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augmentation.{name}={getattr(self, name)}: 0 to 1 is expected.")
        if self.blur_kernel < 1 or self.blur_kernel % 2 == 0 or self.blur_sigma <= 0:
            raise ValueError(
                f"augmentation.blur_kernel={self.blur_kernel} blur_sigma={self.blur_sigma}: an odd side and "
                f"a standard deviation above 0 are expected."
            )
        if self.interpolation not in ("bilinear", "bicubic"):
            raise ValueError(f"augmentation.interpolation={self.interpolation}: bilinear or bicubic is expected.")

    def __call__(
        self, image: Image, labels: Mapping[str, Label], size: tuple[int, int] | None = None
    ) -> tuple[Image, dict[str, Label]]:
        """image [3, H, W] uint8 and labels as seen at random; `size`: of the whole image at scale 1, null: its own."""
        return self.apply(image, labels, *self.draw(tuple(image.shape[-2:]), size))

    def apply(
        self, image: Image, labels: Mapping[str, Label], view: View, blurred: bool
    ) -> tuple[Image, dict[str, Label]]:
        """What `draw` has drawn. Draws nothing."""
        seen = see(image, view, self.interpolation)
        if blurred:
            seen = F.gaussian_blur(seen, [self.blur_kernel] * 2, [self.blur_sigma] * 2)
        return seen, {name: see(label, view) for name, label in labels.items()}

    def draw(self, image: tuple[int, int], size: tuple[int, int] | None = None) -> tuple[View, bool]:
        """A random view of an image of (height, width), and whether it is blurred.

        The window is cut out of the image before anything is scaled, so that one scaling, of no more than is
        seen, does it all; its sides are whole pixels, so that s is exact to one part in the window's side.
        """
        s, turn, degrees, mirror, blur, y, x = torch.rand(7, dtype=torch.float64).tolist()
        s = self.scale[0] + s * (self.scale[1] - self.scale[0])
        angle = self.rotate[0] + degrees * (self.rotate[1] - self.rotate[0]) if turn < self.rotate_probability else 0.0
        seen = sides(self.crop, size or image)
        scaled = _room_to_turn(seen, angle)
        window, start = [], []
        for i, place in enumerate((y, x)):
            factor = s * (size[i] / image[i] if size else 1.0)
            inner, outer = max(1, round(seen[i] / factor)), max(1, round(scaled[i] / factor))
            free = image[i] - inner  # below 0: the image is the smaller one, and stays in the middle
            first = int(place * (free + 1)) if free >= 0 else free // 2
            start.append(first - (outer - inner) // 2)
            window.append(outer)
        resolution = (size[0] / image[0], size[1] / image[1]) if size else (1.0, 1.0)
        view = View(*start, *window, scaled, seen, angle, mirror < self.flip_probability, resolution)
        return view, blur < self.blur_probability


def _room_to_turn(size: tuple[int, int], angle: float) -> tuple[int, int]:
    """Sides of the upright rectangle out of which `size` can be cut after turning by `angle` degrees."""
    c, s = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    needed = size[0] * c + size[1] * s, size[1] * c + size[0] * s
    # an even margin keeps the centre where it is
    return tuple(
        side + 2 * math.ceil((need - side) / 2) if angle else side for side, need in zip(size, needed, strict=True)
    )
