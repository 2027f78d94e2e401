"""Parametric faces: which of CelebA's 40 attributes a face has, where its parts are, and its five landmarks.

Frontal faces of 178 x 218 pixels, aligned as CelebA's are, so that the eyes are always near the same place. Each
attribute changes something that can be seen (`face_paint.py` says what); where it cannot (bangs under a hat), a face
does not have both. "Left" is the left of the image, as in CelebA's lists. The centre of the first pixel is (0, 0).
"""

from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 178, 218

COLOURS = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", None)
BEARDS = ("5_o_Clock_Shadow", "Goatee", "Mustache", "Sideburns")


@dataclass(frozen=True)
class Face:
    """has: names of the attributes; style: [0, 1) numbers of what no attribute says (skin, light, pose, clothes);
    seed: of the textures. full_beard: a beard that is none of the four kinds (No_Beard is then -1 as well)."""

    has: frozenset[str]
    style: dict[str, float]
    seed: int
    full_beard: bool = False

    def between(self, name: str, low: float, high: float) -> float:
        return low + (high - low) * self.style[name]


STYLES = (
    "skin", "hair", "iris", "yaw", "eye_x", "eye_y", "spread", "mouth_y", "tilt", "light", "cloth", "cloth_light",
    "behind", "behind_light", "accent",
)  # fmt: skip


def face(rng: np.random.Generator, without: str | None = None) -> Face:
    """A face drawn at random; attributes depend on each other much as in CelebA. `without`: never this one."""
    has, full_beard = _attributes(rng)
    style = dict(zip(STYLES, rng.random(len(STYLES)).tolist(), strict=True))
    return Face(frozenset(has - {without}), style, int(rng.integers(2**31)), full_beard)


def _attributes(rng: np.random.Generator) -> tuple[set[str], bool]:
    """Which attributes, and whether there is a full beard. Rare ones are more frequent than in CelebA."""

    def maybe(name: str, chance: float) -> bool:
        if rng.random() < chance:
            has.add(name)
        return name in has

    has: set[str] = set()
    male, young = maybe("Male", 0.45), maybe("Young", 0.65)
    if not maybe("Wearing_Hat", 0.12) and not maybe("Bald", 0.2 * male) and not maybe("Receding_Hairline", 0.2):
        maybe("Bangs", 0.3)
    if "Bald" not in has:
        chances = (0.26, 0.2, 0.24, 0.05, 0.25) if young else (0.15, 0.12, 0.15, 0.4, 0.18)
        has |= {COLOURS[rng.choice(len(COLOURS), p=chances)]} - {None}
        has |= {("Straight_Hair", "Wavy_Hair", None)[rng.choice(3, p=(0.33, 0.37, 0.3))]} - {None}
    full_beard = False
    if male:
        if not maybe("5_o_Clock_Shadow", 0.25):
            full_beard = bool(rng.random() < 0.15)
        if not full_beard:
            maybe("Goatee", 0.2)
            maybe("Sideburns", 0.25)
        maybe("Mustache", 0.22)
    if not full_beard and not has.intersection(BEARDS):
        has.add("No_Beard")
    makeup = maybe("Heavy_Makeup", 0.0 if male else 0.5)
    maybe("Wearing_Lipstick", 0.0 if male else 0.75 if makeup else 0.35)
    maybe("Wearing_Earrings", 0.08 if male else 0.4)
    if not maybe("Wearing_Necktie", 0.3 if male else 0.03):
        maybe("Wearing_Necklace", 0.06 if male else 0.35)
    if not maybe("Arched_Eyebrows", 0.15 if male else 0.45):
        maybe("Bushy_Eyebrows", 0.35 if male else 0.1)
    chubby = maybe("Chubby", 0.18)
    maybe("Double_Chin", 0.6 if chubby else 0.08)
    maybe("Oval_Face", 0.1 if chubby else 0.35)
    maybe("Pointy_Nose", 0.1 if maybe("Big_Nose", 0.27) else 0.3)
    if maybe("Smiling", 0.48):
        maybe("High_Cheekbones", 0.65)
    else:
        maybe("High_Cheekbones", 0.2)
    for name, chance in (
        ("Attractive", 0.6 if young else 0.25),
        ("Bags_Under_Eyes", 0.15 if young else 0.35),
        ("Big_Lips", 0.3),
        ("Blurry", 0.1),
        ("Eyeglasses", 0.15),
        ("Mouth_Slightly_Open", 0.48),
        ("Narrow_Eyes", 0.2),
        ("Pale_Skin", 0.12),
        ("Rosy_Cheeks", 0.05 if male else 0.2),
    ):
        maybe(name, chance)
    return has, full_beard


@dataclass(frozen=True)
class Shape:
    """Where the parts of a face are, in pixels.

    x: the middle; half: half the width of the face at the height `middle`; chin: its lowest point; jaw: the exponent of
    its lower outline, 2 an ellipse, more is squarer. eyes and mouth: left and right points; nose: its tip.
    """

    x: float
    middle: float
    half: float
    chin: float
    jaw: float
    eyes: tuple[tuple[float, float], tuple[float, float]]
    nose: tuple[float, float]
    mouth: tuple[tuple[float, float], tuple[float, float]]
    neck: float


def shape(one: Face) -> Shape:
    has = one.has
    yaw = one.between("yaw", -1, 1)
    x = 88.0 + 2.5 * yaw
    half = 43.0 + 2.5 * ("Male" in has) + 6.5 * ("Chubby" in has) - 2.5 * ("Oval_Face" in has)
    middle = 88.0 + one.between("eye_x", -1.5, 1.5)
    apart, level = 18.5 + one.between("spread", 0, 2), 111 + one.between("eye_y", -1.5, 1.5)
    tilt = one.between("tilt", -1, 1)
    corner = 15.5 + 5 * ("Smiling" in has)
    mouth_x, mouth_y = 88.0 + 3 * yaw, 157 + one.between("mouth_y", -2, 2) - 4 * ("Smiling" in has)
    return Shape(
        x=x,
        middle=118.0,
        half=half,
        chin=190.0 if "Oval_Face" in has else 184.0,
        jaw=(2.0 if "Oval_Face" in has else 2.7) + 0.4 * ("Male" in has),
        eyes=((middle - apart, level - 0.5 * tilt), (middle + apart, level + 0.5 * tilt)),
        nose=(88.0 + 5 * yaw, 136 + one.between("mouth_y", -1.5, 1.5)),
        mouth=((mouth_x - corner, mouth_y - tilt), (mouth_x + corner, mouth_y + tilt)),
        neck=18.0 + 8 * ("Male" in has) + 3 * ("Chubby" in has),
    )


def landmarks(one: Face) -> list[tuple[int, int]]:
    """(x, y) of eyes, nose and corners of the mouth to whole pixels, as in CelebA's list; all are in the frame."""
    parts = shape(one)
    return [(round(x), round(y)) for x, y in (*parts.eyes, parts.nose, *parts.mouth)]
