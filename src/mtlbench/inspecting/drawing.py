"""A label as a picture, by its type."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from torch import Tensor

from mtlbench import labels as types
from mtlbench.labels import Label, Landmarks
from mtlbench.task import IGNORE, Task

INK = (20, 20, 20)
METRES, PIXELS = "m", "px"


@dataclass
class Panel:
    """pixels [H, W, 3] uint8; scale: the colours [1, N, 3] between the two ends that the caption gives."""

    title: str
    pixels: np.ndarray
    caption: str = ""
    scale: np.ndarray | None = None


def draw_label(
    name: str, label: Label, task: Task, image: np.ndarray, colours: Sequence[Sequence[int]] | None = None
) -> Panel:
    """The panel of a label of an image [H, W, 3]. Raises ValueError for a type that has no drawing."""
    for kind, drawing in DRAWINGS.items():
        if isinstance(label, kind):
            return drawing(name, label, task=task, image=image, colours=colours)
    raise ValueError(f"{name}: there is no drawing for labels of the type {type(label).__name__}.")


def palette(count: int, colours: Sequence[Sequence[int]] | None = None) -> np.ndarray:
    """`count` colours [N, 3] that can be told apart: those given, or the bits of the number (PASCAL VOC's), from 1."""
    if colours is not None:
        return np.array(colours, np.uint8)
    numbers = np.arange(1, count + 1)
    bits = [(numbers[:, None] >> np.array([3 * k, 3 * k + 1, 3 * k + 2])) & 1 for k in range(3)]
    return sum(part << (7 - k) for k, part in enumerate(bits)).astype(np.uint8)


def stripes(height: int, width: int) -> np.ndarray:
    """What no label looks like [H, W, 3]."""
    period = max(4, min(height, width) // 24)
    y, x = np.mgrid[:height, :width]
    return np.where(((x + y) // period % 2)[..., None], np.uint8(205), np.uint8(235)).repeat(3, 2)


def _numbers(label: Tensor) -> np.ndarray:
    return label.as_subclass(Tensor).float().numpy()


def _masked(colours: np.ndarray, valid: np.ndarray) -> np.ndarray:
    return np.where(valid[..., None], colours.astype(np.uint8), stripes(*valid.shape))


def _range(values: np.ndarray) -> tuple[float, float]:
    """The least and the 99.5th percentile, so that a few outliers do not make all else one colour."""
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 0.0
    return float(known.min()), float(np.percentile(known, 99.5))


def _mapped(values: np.ndarray, low: float, high: float, name: str) -> np.ndarray:
    share = np.nan_to_num((values - low) / max(high - low, 1e-12))
    return matplotlib.colormaps[name](np.clip(share, 0, 1), bytes=True)[..., :3]


def draw_scalars(name: str, label: Label, colormap: str = "turbo", unit: str = "", **_: Any) -> Panel:
    """One number a pixel: a colour map with its scale."""
    values = _numbers(label)[0]
    low, high = _range(values)
    pixels = _masked(_mapped(values, low, high, colormap), np.isfinite(values))
    ramp = _mapped(np.linspace(low, high, 64)[None], low, high, colormap)
    caption = f"{low:.3g} to {high:.3g} {unit}".rstrip() if np.isfinite(values).any() else "no label"
    return Panel(name, pixels, caption, ramp)


def draw_classes(
    name: str, label: Label, task: Task, colours: Sequence[Sequence[int]] | None = None, **_: Any
) -> Panel:
    numbers = _numbers(label).astype(int)
    numbers = numbers[0] if numbers.ndim == 3 else numbers
    count = max(2, task.channels)
    table = np.zeros((256, 3), np.uint8)
    table[:count] = palette(count, colours)[:count]
    found = len(np.unique(numbers[numbers != IGNORE]))
    return Panel(name, _masked(table[numbers], numbers != IGNORE), f"{found} of {count} classes")


def draw_normals(name: str, label: Label, **_: Any) -> Panel:
    """x to the right as red, y upwards as green, z towards the viewer as blue: a wall seen from the front is bluish."""
    x, y, z = _numbers(label)
    valid = np.isfinite(x)
    towards = np.sign(np.median(z[valid])) if valid.any() else 1.0
    shown = np.stack([x, -y, towards * z], -1)
    return Panel(name, _masked(np.nan_to_num(127.5 + 127.5 * np.clip(shown, -1, 1)), valid), "right, up, to viewer")


def draw_offsets(name: str, label: Label, **_: Any) -> Panel:
    """The direction as a hue, the length as its strength: white is the centre."""
    x, y = _numbers(label)
    valid = np.isfinite(x)
    _, longest = _range(np.hypot(x, y))
    pixels = _masked(wheel(np.nan_to_num(x), np.nan_to_num(y), max(longest, 1e-9)), valid)
    if not valid.any():
        return Panel(name, pixels, "no label")
    side = max(9, min(pixels.shape[:2]) // 5)
    reach = np.linspace(-1.1, 1.1, side)
    inside = np.hypot(*np.meshgrid(reach, reach)) <= 1
    legend = wheel(*np.meshgrid(reach, reach), 1.0)
    corner = pixels[-side:, -side:]
    corner[inside] = legend[inside]
    return Panel(name, pixels, f"wheel: up to {longest:.3g} px")


def wheel(x: np.ndarray, y: np.ndarray, longest: float) -> np.ndarray:
    """Colours [H, W, 3] uint8 of vectors of up to `longest`."""
    hue = (np.arctan2(y, x) / (2 * np.pi)) % 1
    strength = np.clip(np.hypot(x, y) / longest, 0, 1)
    hsv = np.stack([hue, strength, np.ones_like(hue)], -1)
    return np.rint(255 * matplotlib.colors.hsv_to_rgb(hsv)).astype(np.uint8)


def draw_curvature(name: str, label: Label, **_: Any) -> Panel:
    """The two principal curvatures as red and green; grey of the middle is flat where the files are centred."""
    values = _numbers(label)
    valid = np.isfinite(values).all(0)
    shown = np.full((*valid.shape, 3), 127.0)
    captions = []
    for i in range(2):
        low, high = _range(values[i])
        shown[..., i] = np.nan_to_num(255 * np.clip((values[i] - low) / max(high - low, 1e-12), 0, 1))
        captions.append(f"{low:.3g} to {high:.3g}")
    return Panel(name, _masked(shown, valid), ", ".join(captions))


def draw_grey(name: str, label: Label, **_: Any) -> Panel:
    return draw_scalars(name, label, colormap="grey")


def draw_points(name: str, label: Landmarks, image: np.ndarray, **_: Any) -> Panel:
    """The points, numbered, on the image, enlarged so that they can be told apart."""
    factor = max(1, round(300 / min(image.shape[:2])))
    picture = Pillow.fromarray(image).resize((image.shape[1] * factor, image.shape[0] * factor))
    pen, points = ImageDraw.Draw(picture), _numbers(label)
    radius = max(2, min(picture.size) // 60)
    table = palette(len(points))
    font = ImageFont.load_default(4 * radius)
    for number, (x, y) in enumerate(points):
        if np.isfinite(x) and np.isfinite(y):
            x, y = (x + 0.5) * factor, (y + 0.5) * factor
            box = (x - radius, y - radius, x + radius, y + radius)
            pen.ellipse(box, tuple(table[number].tolist()), "white")
            pen.text((x + radius, y - 3 * radius), str(number), "white", font, stroke_width=1, stroke_fill="black")
    known = int(np.isfinite(points).all(1).sum())
    return Panel(name, np.array(picture), f"{known} of {len(points)} points")


def whole_image(name: str, label: Tensor, words: Sequence[str]) -> dict[str, str]:
    """{what is said of the image: its value}: a class, or those of many that hold, or the three most probable."""
    values = label.as_subclass(Tensor)
    if values.ndim == 0 and not values.is_floating_point():
        number = int(values)
        return {name: "-" if number == IGNORE else words[number] if number < len(words) else str(number)}
    flat = values.flatten().float()
    names = [words[i] if i < len(words) else str(i) for i in range(len(flat))]
    if not values.is_floating_point():
        return {name: ", ".join(n for n, value in zip(names, flat.tolist(), strict=True) if value == 1) or "none"}
    if flat.isnan().all():
        return {name: "-"}
    best = flat.nan_to_num(0).topk(min(3, len(flat)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return {name: ", ".join(f"{names[i]} {value:.3g}" for i, value in pairs)}


def draw_words(words: dict[str, str], size: tuple[int, int]) -> Panel:
    """What is said of the image as a whole; of many tasks of two classes, those that hold."""
    yes = [name for name, value in words.items() if value == "1"]
    rest = {name: value for name, value in words.items() if value not in ("0", "1")}
    if len(words) <= 8:
        lines = [f"{name}: {value}" for name, value in words.items()]
    else:
        lines = [f"{name}: {value}" for name, value in rest.items()] + [f"{len(yes)} of {len(words)}:", *yes]
    font = ImageFont.load_default(13)
    wrapped = [part for line in lines for part in _wrapped(line, size[1], font)]
    picture = Pillow.new("RGB", (size[1], max(size[0], 16 * len(wrapped))), (250, 250, 250))
    ImageDraw.Draw(picture).multiline_text((4, 2), "\n".join(wrapped), INK, font, spacing=2)
    return Panel("of the whole image", np.array(picture))


def _wrapped(line: str, width: int, font: Any) -> list[str]:
    parts = [""]
    for word in line.split(" "):
        longer = f"{parts[-1]} {word}".strip()
        if parts[-1] and font.getlength(longer) > width - 8:
            parts.append(f"  {word}")
        else:
            parts[-1] = longer
    return parts


def _turbo(unit: str) -> Any:
    return lambda name, label, **rest: draw_scalars(name, label, unit=unit)


DRAWINGS: dict[type[Label], Any] = {
    types.ClassMap: draw_classes,
    types.InstanceOffset: draw_offsets,
    types.Normals: draw_normals,
    types.UnscaledNormals: draw_normals,
    types.Curvature: draw_curvature,
    types.Edges: draw_grey,
    types.KeypointMap: draw_grey,
    types.Reshading: draw_grey,
    types.Landmarks: draw_points,
    types.Disparity: _turbo(PIXELS),
    types.DividedInverseDepth: _turbo(""),
    types.InverseDepth: _turbo(""),
    types.MetricDepth: _turbo(METRES),
    types.UnscaledMetricDepth: _turbo(METRES),
    types.UnscaledInverseDepth: _turbo(""),
}
"""Each type with its drawing; of a type and its subclass the subclass is first."""
