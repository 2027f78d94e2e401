"""The loader that a user of torchvision writes for the same files: Pillow, tv_tensors, functions of transforms.v2.

Labels are masks that are cut, scaled, turned and mirrored with the image; nothing is computed from them.
"""

from collections.abc import Sequence
from pathlib import Path

import PIL.Image
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import Image, Mask

from mtlbench.transforms import DEVIATION, MEAN, Augmentation, View


def decoded(files: Sequence[Path]) -> list[Tensor]:
    """The first file as an image, all others as masks; 16 bits as int32, which torchvision can resize."""
    found = []
    for path in files:
        with PIL.Image.open(path) as image:
            tensor = F.pil_to_tensor(image if found else image.convert("RGB"))
        if tensor.dtype not in (torch.uint8, torch.int32):
            tensor = tensor.to(torch.int32)
        found.append(Mask(tensor) if found else Image(tensor))
    return found


def item(files: Sequence[Path], view: View, blurred: bool, augmentation: Augmentation | None) -> tuple[Tensor, list]:
    """(image [3, h, w] float32, masks) of the view."""
    samples = decoded(files)
    box = view.top, view.left, view.height, view.width
    seen = [F.resized_crop(x, *box, list(view.scaled), antialias=True) for x in samples]
    if view.angle:
        seen = [F.rotate(x, view.angle, v2.InterpolationMode.BILINEAR) for x in seen]
    if view.scaled != view.size:
        seen = [F.center_crop(x, list(view.size)) for x in seen]
    if view.mirrored:
        seen = [F.horizontal_flip(x) for x in seen]
    image, *masks = seen
    if blurred and augmentation is not None:
        image = F.gaussian_blur(image, [augmentation.blur_kernel] * 2, [augmentation.blur_sigma] * 2)
    image = F.normalize(F.to_dtype(image, torch.float32, scale=True), list(MEAN), list(DEVIATION))
    return image.as_subclass(Tensor), [mask.as_subclass(Tensor) for mask in masks]
