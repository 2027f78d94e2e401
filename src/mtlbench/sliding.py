"""Evaluation on overlapping crops and mirrored images, averaged per pixel (IMTL, Liu et al. 2021, Appendix D)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mtlbench.task import Task


@dataclass(frozen=True)
class Sliding:
    """Predictions for whole images from crops of them.

    crop: side or (height, width) of a crop, at most the image's; null: whole images.
    stride: pixels between crops, at most the crop's side; the last crop ends where the image does. null: two
        thirds of the crop, rounded up.
    flip: every crop is predicted mirrored as well; that prediction is mirrored back and corrected by `Task.unflip`.
    average: of the tasks in `classes`, the mean over "probabilities" (softmax of each crop; the result is the
        logarithm of the mean) or over "logits".
    crops_at_once: crops in one forward pass, for memory; the mirrored ones count.

    IMTL leaves the stride and what is averaged unsaid; two thirds and probabilities are those of PSPNet's public
    code (hszhao/semseg). The mean is over everything predicted at a pixel, crops and mirrored crops alike.
    Raises ValueError for values that make no sense.
    """

    crop: int | Sequence[int] | None = None
    stride: int | None = None
    flip: bool = False
    average: str = "probabilities"
    crops_at_once: int = 8

    def __post_init__(self) -> None:
        crop = [self.crop] * 2 if isinstance(self.crop, int) else self.crop
        if crop is not None and (len(crop) != 2 or min(crop) < 1):
            raise ValueError(f"evaluation.crop={self.crop}: a side in pixels, [height, width] or null is expected.")
        if self.stride is not None and (crop is None or not 0 < self.stride <= min(crop)):
            raise ValueError(f"evaluation.stride={self.stride}: 1 to the crop's side ({self.crop}) is expected.")
        if self.average not in ("probabilities", "logits"):
            raise ValueError(f"evaluation.average={self.average}: probabilities or logits is expected.")
        if self.crops_at_once < 1:
            raise ValueError(f"evaluation.crops_at_once={self.crops_at_once}: 1 or more is expected.")

    def __call__(
        self, model: nn.Module, image: Tensor, tasks: Mapping[str, Task], classes: Sequence[str] = ()
    ) -> dict[str, Tensor]:
        """{task: [B, channels, H, W]} for images [B, C, H, W]; all predictions of the model must be maps."""
        size = tuple(image.shape[-2:])
        height, width = self._crop_sides(size)
        if (height, width) == size and not self.flip:
            return model(image)
        corners = [(y, x) for y in self._starts(size[0], height) for x in self._starts(size[1], width)]
        # one entry for each forward pass of one crop of one image: image, corner, mirrored
        looks = [(b, *at, m) for at in corners for m in range(1 + self.flip) for b in range(len(image))]
        total: dict[str, Tensor] = {}
        for i in range(0, len(looks), self.crops_at_once):
            part = looks[i : i + self.crops_at_once]
            crops = [image[b, :, y : y + height, x : x + width] for b, y, x, _ in part]
            crops = [crop.flip(-1) if m else crop for crop, (*_, m) in zip(crops, part, strict=True)]
            for name, prediction in model(torch.stack(crops)).items():
                if name not in total:
                    total[name] = image.new_zeros(len(image), prediction.shape[1], *size)
                prediction = prediction.to(image.dtype)
                if name in classes and self.average == "probabilities":
                    prediction = prediction.softmax(1)
                for one, (b, y, x, m) in zip(prediction, part, strict=True):
                    seen = _unflipped(one, tasks[name]) if m else one
                    total[name][b, :, y : y + height, x : x + width] += seen
        looked = image.new_zeros(size)
        for y, x in corners:
            looked[y : y + height, x : x + width] += 1 + self.flip
        mean = {name: value.div_(looked) for name, value in total.items()}
        if self.average == "probabilities":
            least = torch.finfo(image.dtype).tiny  # a probability that underflowed to 0
            mean.update({name: mean[name].clamp(min=least).log() for name in classes if name in mean})
        return mean

    def _crop_sides(self, size: tuple[int, int]) -> tuple[int, int]:
        if self.crop is None:
            return size
        height, width = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
        return min(height, size[0]), min(width, size[1])

    def _starts(self, side: int, crop: int) -> list[int]:
        """Where crops begin along one side, evenly from 0 on, the last at side - crop."""
        stride = self.stride or -(-2 * crop // 3)
        return [*range(0, side - crop, stride), side - crop]


def _unflipped(prediction: Tensor, task: Task) -> Tensor:
    """A prediction [C, H, W] made from a mirrored crop, as of the crop itself."""
    mirrored = prediction.flip(-1)
    return mirrored if task.unflip is None else task.unflip(mirrored[None])[0]
