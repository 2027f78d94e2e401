"""Labels that are no map of the image: points in it, and what is said of it as a whole."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors

from mtlbench.labels.geometry import Label, Matrix, Sample, Size


class WholeImage(Label):
    """A label of the image as a whole, of any shape: attributes, a class, probabilities. No geometry changes it.

    (Mirroring a face changes none of CelebA's 40 attributes.)
    """

    @property
    def canvas(self) -> Size:
        return 1, 1

    def under(self, sample: Sample, matrix: Matrix) -> "WholeImage":
        return tv_tensors.wrap(self.as_subclass(Tensor).clone(), like=self)

    def at_resolution(self, resolution: tuple[float, float]) -> "WholeImage":
        return self


def partners(names: Sequence[str]) -> tuple[int, ...]:
    """For each named point the number of the one that it is in a mirror: "lefteye" is "righteye" and so on.

    A name without left or right is its own partner. Raises ValueError where the other side is not there.
    """
    found = []
    for name in names:
        other = name.replace("left", "\0").replace("right", "left").replace("\0", "right")
        if other not in names:
            raise ValueError(f"The landmark {name} has no partner {other} among {', '.join(names)}.")
        found.append(list(names).index(other))
    return tuple(found)


class Landmarks(Label):
    """Points [P, 2] of (x, y) in pixels, NaN = no label, of an image of `canvas` (height, width).

    A point goes where its pixel goes; outside the new image it has no label. Where the map mirrors the image, left is
    right: point i becomes point `partners[i]`, see the function of that name.
    """

    _canvas: Size
    partners: tuple[int, ...]

    def __new__(cls, points: Any, canvas: Size, partners: Sequence[int] | None = None) -> "Landmarks":
        tensor = cls._to_tensor(points, dtype=None, device=None, requires_grad=None)
        if tensor.ndim != 2 or tensor.shape[1] != 2 or not tensor.is_floating_point():
            raise ValueError(f"Landmarks are [points, 2] floats; found {list(tensor.shape)} {tensor.dtype}.")
        partners = tuple(range(len(tensor)) if partners is None else partners)
        if sorted(partners) != list(range(len(tensor))):
            raise ValueError(f"The partners of {len(tensor)} landmarks must be an order of them, not {partners}.")
        return cls._of(tensor, canvas, partners)

    @classmethod
    def _of(cls, points: Tensor, canvas: Size, partners: tuple[int, ...]) -> "Landmarks":
        landmarks = points.as_subclass(cls)
        landmarks._canvas, landmarks.partners = tuple(canvas), partners
        return landmarks

    @classmethod
    def _wrap_output(cls, output: Tensor, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Tensor:
        # clone(), to() and detach() keep the type: they must keep what belongs to it
        first = next((x for x in args if isinstance(x, Landmarks)), None)
        if first is not None and isinstance(output, Tensor):
            return cls._of(output, first._canvas, first.partners)
        return output

    @property
    def canvas(self) -> Size:
        return self._canvas

    def under(self, sample: Sample, matrix: Matrix) -> "Landmarks":
        (a, b, e), (c, d, f) = matrix
        x, y = self.as_subclass(Tensor).unbind(1)
        points = torch.stack([a * x + b * y + e, c * x + d * y + f], 1)
        if a * d - b * c < 0:
            points = points[list(self.partners)]
        height, width = sample(torch.empty(1, *self.canvas, device="meta")).shape[-2:]
        edge = points.new_tensor([width - 0.5, height - 0.5])
        inside = ((points >= -0.5) & (points <= edge)).all(1, keepdim=True)
        return self._of(points.where(inside, points.new_tensor(float("nan"))), (height, width), self.partners)

    def at_resolution(self, resolution: tuple[float, float]) -> "Landmarks":
        return self
