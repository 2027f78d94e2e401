"""The contact sheet: images with every target drawn as people expect it, on disk and as an epoch trains on them."""

from typing import Any

import torch
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from torch import Tensor

from mtlbench.dataset import MultiTaskDataset, Split
from mtlbench.inspecting.drawing import INK, Panel, draw_label, draw_words, whole_image
from mtlbench.labels import Label, WholeImage
from mtlbench.seeds import seed_of

PANEL = (300, 260)
"""Largest height and width of a panel, in pixels."""

LINE, GAP = 16, 8


def draw(dataset: MultiTaskDataset, split: Split, count: int) -> Pillow.Image:
    """`count` images spread over a training split, each in two rows: as on disk, and as the first epoch sees it."""
    rows: list[tuple[str, list[Panel]]] = []
    count = min(count, len(split))
    for index in (i * len(split) // count for i in range(count)):
        for said, image, labels in _stages(dataset, split, index):
            rows.append((f"image {index}: {said}", _panels(dataset, image, labels)))
    return _arranged(rows, "striped: no label" + " · synthetic data" * dataset.synthetic)


def _stages(dataset: MultiTaskDataset, split: Split, index: int) -> Any:
    """(what it is, image, labels) before and after augmentation; in-memory splits have one stage."""
    if not hasattr(split, "read"):
        image, targets = split[(0, index)]
        low, high = image.min(), image.max()
        yield "as trained on", 255 * (image - low) / (high - low).clamp(min=1e-9), targets
        return
    image, labels = split.read(index)
    yield "on disk", image, labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(dataset.seed, "augment", 0, index))
        yield "in the first epoch", *dataset.augmentation(image, labels, dataset.size)


def _panels(dataset: MultiTaskDataset, image: Tensor, labels: dict[str, Any]) -> list[Panel]:
    shown = image.as_subclass(Tensor).float().clamp(0, 255).byte()
    shown = shown.expand(3, *shown.shape[-2:]).permute(1, 2, 0).numpy()
    panels = [Panel("image", shown, " x ".join(map(str, shown.shape[:2])))]
    words = {}
    for name, label in labels.items():
        if isinstance(label, WholeImage) or not isinstance(label, Label):
            words |= whole_image(name, label, dataset.words.get(name, ()))
        else:
            panels.append(draw_label(name, label, dataset.tasks[name], shown, dataset.colours.get(name)))
    return [*panels, draw_words(words, PANEL)] if words else panels


def _arranged(rows: list[tuple[str, list[Panel]]], note: str) -> Pillow.Image:
    font = ImageFont.load_default(13)
    scaled = [(said, [(panel, _fitted(panel)) for panel in panels]) for said, panels in rows]
    columns = max(len(panels) for _, panels in scaled)
    widths = [max(p[i][1].width for _, p in scaled if i < len(p)) for i in range(columns)]
    widths = [max(width, 150) for width in widths]
    heights = [max(picture.height for _, picture in panels) + 3 * LINE + GAP for _, panels in scaled]
    page = Pillow.new("RGB", (sum(widths) + GAP * (columns + 1), sum(heights) + LINE + 2 * GAP), "white")
    pen, top = ImageDraw.Draw(page), GAP
    for (said, panels), height in zip(scaled, heights, strict=True):
        left = GAP
        for i, (panel, picture) in enumerate(panels):
            title = panel.title if i else said
            pen.text((left, top), _cut(title, widths[i], font), INK, font)
            page.paste(picture, (left, top + LINE + 2))
            under = top + LINE + 4 + picture.height
            if panel.scale is not None:
                page.paste(Pillow.fromarray(panel.scale).resize((min(60, picture.width), 10)), (left, under + 2))
            pen.text((left + (66 if panel.scale is not None else 0), under), panel.caption, INK, font)
            left += widths[i] + GAP
        top += height
    pen.text((GAP, top), note, INK, font)
    return page


def _fitted(panel: Panel) -> Pillow.Image:
    """At most PANEL; maps are sampled, so that no colour is shown that stands for nothing."""
    picture = Pillow.fromarray(panel.pixels)
    factor = min(PANEL[0] / picture.height, PANEL[1] / picture.width)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    smooth = panel.title == "image" and factor < 1
    return picture.resize(size, Pillow.Resampling.BOX if smooth else Pillow.Resampling.NEAREST)


def _cut(text: str, width: int, font: Any) -> str:
    while font.getlength(text) > width and len(text) > 3:
        text = text[:-2].rstrip("…") + "…"
    return text
