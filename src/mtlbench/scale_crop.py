"""The augmentation of the MTAN family: a window of one of a few scales, at the image's size, mirrored or not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as nnF
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import Image

from mtlbench.labels import Label
from mtlbench.transforms import View, see


@dataclass(frozen=True)
class ScaleCrop:
    """A window of int(H / s) x int(W / s) at a random place, s one of `scales`, resized to H x W; mirrored at random.

    LibMTL (examples/nyu), CAGrad, Nash-MTL and Auto-Lambda have [1, 1.2, 1.5] and 0.5, and so has Elich et al. 2023
    by its reference to CAGrad's code; the survey (Vandenhende et al. 2021, Appendix B.1) has the same scales.
    Labels are sampled; what becomes of their values is theirs to say, with the true ratio of the sides for s. Those
    that are `blended` are interpolated like the image, (0, 0, 0) where there is no label; what is not all zero is one.

    align_corners: of the interpolation, as in that code.
    Draws from torch's global generator, always the same number of times. Raises ValueError for what makes no sense.
    """

    scales: Sequence[float] = (1.0, 1.2, 1.5)
    flip_probability: float = 0.5
    align_corners: bool = True

    def __post_init__(self) -> None:
        if not self.scales or not all(s >= 1 for s in self.scales):
            raise ValueError(f"augmentation.scales={self.scales}: numbers of 1 or more are expected.")
        if not 0 <= self.flip_probability <= 1:
            raise ValueError(f"augmentation.flip_probability={self.flip_probability}: 0 to 1 is expected.")

    def __call__(
        self, image: Image, labels: Mapping[str, Label], size: tuple[int, int] | None = None
    ) -> tuple[Image, dict[str, Label]]:
        """image [3, H, W] and labels as seen at random; `size`: of the whole image at scale 1, null: its own."""
        return self.apply(image, labels, *self.draw(tuple(image.shape[-2:]), size))

    def draw(self, image: tuple[int, int], size: tuple[int, int] | None = None) -> tuple[View, bool]:
        """A random view of an image of (height, width); false: it is not blurred."""
        which, y, x, mirror = torch.rand(4, dtype=torch.float64).tolist()
        s = self.scales[int(which * len(self.scales))]
        window = [int(side / s) for side in image]
        start = [int(place * (side - own + 1)) for place, side, own in zip((y, x), image, window, strict=True)]
        size = size or image
        resolution = (size[0] / image[0], size[1] / image[1])
        return View(*start, *window, size, size, 0.0, mirror < self.flip_probability, resolution), False

    def apply(
        self, image: Image, labels: Mapping[str, Label], view: View, blurred: bool
    ) -> tuple[Image, dict[str, Label]]:
        """What `draw` has drawn. Draws nothing."""
        assert not blurred
        seen = self._interpolated(image.as_subclass(Tensor), view)
        if image.dtype == torch.uint8:
            seen = seen.round().to(torch.uint8)
        found = {name: self._blended(x, view) if x.blended else see(x, view) for name, x in labels.items()}
        return Image(seen.flip(-1) if view.mirrored else seen), found

    def _interpolated(self, values: Tensor, view: View) -> Tensor:
        """The window of values [C, H, W], float32, at the size of the view, not mirrored."""
        cut = values[..., view.top : view.top + view.height, view.left : view.left + view.width].to(torch.float32)
        if (view.height, view.width) == view.size:
            return cut
        return nnF.interpolate(cut[None], view.size, mode="bilinear", align_corners=self.align_corners)[0]

    def _blended(self, label: Label, view: View) -> Label:
        seen = self._interpolated(label.as_subclass(Tensor).nan_to_num(0.0), view)
        seen = torch.where((seen != 0).any(0), seen, torch.nan)
        wrapped = tv_tensors.wrap(seen, like=label)
        return F.horizontal_flip(wrapped) if view.mirrored else wrapped
