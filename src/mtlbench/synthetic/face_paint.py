"""Faces drawn: what each of the 40 attributes looks like.

Drawn from the back to the front at twice the size and then halved. Some attributes are a convention here: "Attractive"
is long lashes and light in the eyes and on the forehead, "Young" is no lines, "Male" a broad neck and short hair.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy import ndarray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from mtlbench.synthetic.faces import HEIGHT, WIDTH, Face, Shape, shape

FINE = 2
"""Pixels drawn for one that is written, a side."""

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]] | ndarray

HAIR = {
    "Black_Hair": ((22, 20, 24), (40, 36, 38)),
    "Blond_Hair": ((226, 190, 110), (246, 224, 160)),
    "Brown_Hair": ((88, 54, 28), (122, 78, 42)),
    "Gray_Hair": ((150, 152, 158), (205, 206, 212)),
}
"""Darkest and lightest."""

OTHER_HAIR = ((142, 50, 22), (176, 74, 36))


class Canvas:
    """A picture that shapes are painted on, given in pixels of the final image."""

    def __init__(self, background: ndarray):
        self.image = Image.fromarray(background)
        self.size = self.image.size

    def mask(self, draw: Callable[[ImageDraw.ImageDraw], None]) -> Image.Image:
        mask = Image.new("L", self.size, 0)
        draw(ImageDraw.Draw(mask))
        return mask

    def outline(self, points: Points) -> Image.Image:
        return self.mask(lambda d: d.polygon(fine(points), fill=255))

    def paint(
        self,
        mask: Image.Image,
        colour: Colour,
        opacity: float = 1.0,
        soft: float = 0.0,
        at: tuple[int, int] = (0, 0),
    ) -> None:
        """The colour where the mask is, `soft` pixels of blur at its edges; `at`: of the mask's corner."""
        if soft:
            mask = mask.filter(ImageFilter.GaussianBlur(soft * FINE))
        if opacity < 1:
            mask = mask.point(lambda value: int(value * opacity))
        self.image.paste(colour, at, mask)

    def fill(self, points: Points, colour: Colour, opacity: float = 1.0, soft: float = 0.0) -> None:
        self._shape(points, lambda draw, at: draw.polygon(at, fill=255), colour, 0, opacity, soft)

    def oval(self, x: float, y: float, a: float, b: float, colour: Colour, opacity: float = 1, soft: float = 0) -> None:
        self.fill(arc(x, y, a, b), colour, opacity, soft)

    def line(self, points: Points, colour: Colour, width: float, opacity: float = 1.0, soft: float = 0.0) -> None:
        pixels = max(1, round(width * FINE))
        self._shape(
            points, lambda draw, at: draw.line(at, fill=255, width=pixels, joint="curve"), colour, width, opacity, soft
        )

    def _shape(self, points: Points, draw: Callable, colour: Colour, width: float, opacity: float, soft: float) -> None:
        """Painted through a mask of the part of the picture that it can reach: most shapes are small."""
        at, reach = np.array(fine(points)), FINE * (width + 4 * soft) + 2
        left, top = np.floor(at.min(0) - reach).astype(int).tolist()
        right, bottom = np.ceil(at.max(0) + reach).astype(int).tolist()
        mask = Image.new("L", (right - left, bottom - top), 0)
        draw(ImageDraw.Draw(mask), [(x - left, y - top) for x, y in at])
        self.paint(mask, colour, opacity, soft, (left, top))


def fine(points: Points) -> list[tuple[float, float]]:
    """Points of the final image in pixels of the canvas: centres of pixels stay what they are."""
    return [(FINE * (x + 0.5) - 0.5, FINE * (y + 0.5) - 0.5) for x, y in points]


def arc(x: float, y: float, a: float, b: float, start: float = 0, end: float = 360, power: float = 2) -> ndarray:
    """Points of an ellipse with half axes a and b, or of |dx/a|^power + |dy/b|^power = 1; degrees, clockwise from
    the right as seen."""
    angle = np.radians(np.linspace(start, end, 49))
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([x + a * np.sign(c) * np.abs(c) ** (2 / power), y + b * np.sign(s) * np.abs(s) ** (2 / power)], 1)


def mix(one: Colour, other: Colour, share: float) -> Colour:
    """`share` of the other colour."""
    return tuple(round(a + (b - a) * share) for a, b in zip(one, other, strict=True))


def paint(one: Face) -> ndarray:
    """The picture of a face, [218, 178, 3] uint8."""
    rng = np.random.default_rng(one.seed)
    brush = Painter(one, shape(one), Canvas(background(one)), rng)
    for step in (
        brush.hair_behind, brush.neck, brush.clothes, brush.ears, brush.head, brush.age, brush.cheeks, brush.eyes,
        brush.beard, brush.nose, brush.mouth, brush.mustache, brush.hair_before, brush.brows, brush.glasses,
        brush.jewels, brush.hat,
    ):  # fmt: skip
        step()
    return finish(brush.canvas.image, one, rng)


def background(one: Face) -> ndarray:
    top = np.array(hue(one.style["behind"], 0.35, one.between("behind_light", 0.45, 0.9)), float)
    bottom = np.array(hue(one.style["behind"] + 0.08, 0.45, one.between("behind_light", 0.3, 0.7)), float)
    share = np.linspace(0, 1, HEIGHT * FINE)[:, None, None]
    return np.broadcast_to(top + (bottom - top) * share, (HEIGHT * FINE, WIDTH * FINE, 3)).astype(np.uint8)


def hue(turn: float, saturation: float, value: float) -> Colour:
    """A colour by its place on the circle of hues, 0 to 1."""
    channel = [1 - saturation * max(0, min(k := (n + 6 * turn) % 6, 4 - k, 1)) for n in (5, 3, 1)]
    return tuple(round(255 * value * c) for c in channel)


def finish(image: Image.Image, one: Face, rng: np.random.Generator) -> ndarray:
    """Halved, lit from one side, out of focus where it is blurry, with a little noise."""
    small = image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    if "Blurry" in one.has:
        small = small.filter(ImageFilter.GaussianBlur(2.4))
    side = one.between("light", -0.14, 0.14)
    light = 1 + side * np.linspace(-1, 1, WIDTH)[None, :, None]
    noise = rng.normal(0, 0.8 if "Blurry" in one.has else 2.5, (HEIGHT, WIDTH, 3))
    return np.clip(np.asarray(small) * light + noise + 0.5, 0, 255).astype(np.uint8)


class Painter:
    """One face; each method paints one part. Colours follow from its attributes and its style."""

    def __init__(self, one: Face, at: Shape, canvas: Canvas, rng: np.random.Generator):
        self.one, self.has, self.at, self.canvas, self.rng = one, one.has, at, canvas, rng
        pale = "Pale_Skin" in self.has
        self.skin = (252, 232, 222) if pale else mix((232, 182, 148), (122, 78, 54), one.style["skin"])
        self.shade, self.deep = mix(self.skin, (70, 30, 20), 0.25), mix(self.skin, (36, 10, 8), 0.62)
        dark, light = next((HAIR[name] for name in HAIR if name in self.has), OTHER_HAIR)
        self.hair = mix(dark, light, one.style["hair"])
        self.short = "Male" in self.has
        low = at.chin - at.middle
        self.face = np.concatenate(
            [arc(at.x, at.middle, at.half, 66, 180, 360), arc(at.x, at.middle, at.half, low, 0, 180, at.jaw)]
        )
        self.face_mask = canvas.outline(self.face)

    def within(self, mask: Image.Image) -> Image.Image:
        """The part of a mask that is on the face."""
        return ImageChops.multiply(mask, self.face_mask)

    def strands(self, mask: Image.Image) -> None:
        """Lines in the hair: straight, wavy, or none."""
        wavy = 7.0 if "Wavy_Hair" in self.has else 0.0
        if not wavy and "Straight_Hair" not in self.has:
            return
        y = np.linspace(20, HEIGHT, 40)
        lines = self.canvas.mask(lambda d: None)
        draw = ImageDraw.Draw(lines)
        for start in np.arange(12, WIDTH - 10, 4.5) + self.rng.uniform(-1, 1):
            spread = (start - self.at.x) * 0.18 * (y - 60) / 100
            draw.line(fine(np.stack([start + spread + wavy * np.sin(y / 6 + start / 30), y], 1)), fill=255, width=FINE)
        contrast = (20, 14, 12) if sum(self.hair) > 330 else (235, 205, 170)
        self.canvas.paint(ImageChops.multiply(lines, mask), contrast, 0.5)

    def hair_behind(self) -> None:
        """Long unless Male; with a wavy outline, straight to the shoulders, or a cap that ends at the ears."""
        if "Bald" in self.has:
            return
        at, wide = self.at, self.at.half + 9
        textured = "Straight_Hair" in self.has or "Wavy_Hair" in self.has
        end = (128 if self.short else 206) if textured else (108 if self.short else 150)
        y = np.linspace(104, end, 40)
        wave = 4.5 * np.sin(y / 5.5) if "Wavy_Hair" in self.has else 0 * y
        out = wide + (0 if self.short else 0.1 * (y - 104)) + wave
        down, up = np.stack([at.x + out, y], 1), np.stack([at.x - out, y], 1)[::-1]
        mask = self.canvas.outline(np.concatenate([arc(at.x, 104, wide, 66, 180, 360), down, up]))
        self.canvas.paint(mask, mix(self.hair, (0, 0, 0), 0.22))
        self.strands(mask)

    def neck(self) -> None:
        x, half = self.at.x, self.at.neck
        self.canvas.fill([(x - half, 150), (x + half, 150), (x + half + 5, 218), (x - half - 5, 218)], self.shade)

    def clothes(self) -> None:
        x, rise, broad = self.at.x, 199 - 6 * self.short, self.at.neck
        cloth = hue(self.one.style["cloth"], 0.5, self.one.between("cloth_light", 0.25, 0.85))
        hang = [(0, 219), (0, 212 - 8 * self.short), (x - broad - 6, rise), (x, 216), (x + broad + 6, rise)]
        self.canvas.fill([*hang, (WIDTH, 212 - 8 * self.short), (WIDTH, 219)], cloth)
        if "Wearing_Necktie" in self.has:
            for side in (-1, 1):
                collar = [(x, 207), (x + side * (broad + 6), 190), (x + side * (broad + 13), 219), (x, 219)]
                self.canvas.fill(collar, (240, 240, 244))
                self.canvas.line([(x, 207), (x + side * (broad + 6), 190)], (170, 170, 180), 1.2)
            tie = hue(self.one.style["accent"], 0.85, 0.6)
            self.canvas.fill(
                [(x - 8, 201), (x + 8, 201), (x + 5, 209), (x + 11, 219), (x - 11, 219), (x - 5, 209)], tie
            )

    def ears(self) -> None:
        for side in (-1, 1):
            self.canvas.oval(self.at.x + side * (self.at.half + 1), 118, 6, 12, self.shade)

    def head(self) -> None:
        if "Double_Chin" in self.has:
            self.canvas.oval(self.at.x, self.at.chin - 3, 31, 19, self.skin)
            self.canvas.line(arc(self.at.x, self.at.chin - 3, 30, 18, 25, 155), self.deep, 2.2, 0.85)
        self.canvas.paint(self.face_mask, self.skin)
        low = self.at.chin - self.at.middle
        rim = arc(self.at.x, self.at.middle, self.at.half - 1, low - 1, 8, 172, self.at.jaw)
        self.canvas.paint(
            self.within(self.canvas.mask(lambda d: d.line(fine(rim), fill=255, width=5))), self.deep, 0.45, 1
        )
        if "Attractive" in self.has:
            light = mix(self.skin, (255, 255, 255), 0.75)
            self.canvas.oval(self.at.x, 86, 15, 8, light, 0.75, 4)
            self.canvas.oval(self.at.nose[0], 120, 2, 11, light, 0.8, 1.5)

    def age(self) -> None:
        """Lines of the forehead, beside the nose and beside the eyes."""
        if "Young" in self.has:
            return
        x, (nose_x, nose_y) = self.at.x, self.at.nose
        for y, half in ((80, 18), (86, 21), (92, 17)):
            self.canvas.line(arc(x, y + 5, half, 5, 200, 340), self.deep, 1.2, 0.75)
        for side, (eye_x, eye_y), corner in zip((-1, 1), self.at.eyes, self.at.mouth, strict=True):
            fold = [
                (nose_x + side * 12, nose_y + 1),
                (corner[0] + side * 4, corner[1] - 9),
                (corner[0] + side * 6, corner[1] + 2),
            ]
            self.canvas.line(fold, self.deep, 1.5, 0.8)
            for slope in (-4, 0, 4):
                start = eye_x + side * 12
                self.canvas.line([(start, eye_y + slope / 2), (start + side * 6, eye_y + slope)], self.deep, 1.1, 0.8)

    def cheeks(self) -> None:
        for side in (-1, 1):
            x = self.at.x + side * (self.at.half - 17)
            if "High_Cheekbones" in self.has:
                bone = [(x + side * 15, 129), (x + side * 14, 139), (x - side * 5, 152), (x - side * 2, 143)]
                self.canvas.paint(self.within(self.canvas.outline(bone)), self.deep, 0.6, 1.3)
                self.canvas.oval(x, 129, 8, 3, mix(self.skin, (255, 255, 255), 0.6), 0.7, 1.5)
            if "Rosy_Cheeks" in self.has:
                self.canvas.oval(x, 140, 11, 8, (236, 70, 96), 0.55, 2.5)
            if "Chubby" in self.has:
                self.canvas.line(
                    arc(x - side * 1, 143, 17, 20, 20, 110) if side > 0 else arc(x + 1, 143, 17, 20, 70, 160),
                    self.deep,
                    1.4,
                    0.35,
                    0.8,
                )

    def eyes(self) -> None:
        narrow = "Narrow_Eyes" in self.has
        iris = hue((0.08, 0.56, 0.3)[int(3 * self.one.style["iris"])], 0.6, 0.45)
        for side, (x, y) in zip((-1, 1), self.at.eyes, strict=True):
            if "Heavy_Makeup" in self.has:
                shadow = hue(0.72 + 0.2 * self.one.style["accent"], 0.6, 0.55)
                self.canvas.fill([*arc(x, y, 11, 10, 180, 360), (x + side * 15, y - 4)], shadow, 0.8, 0.8)
            if "Bags_Under_Eyes" in self.has:
                self.canvas.fill(
                    [*arc(x, y + 4, 9, 8, 0, 180), *arc(x, y + 4, 9, 3.5, 180, 0)],
                    mix(self.deep, (60, 30, 80), 0.4),
                    0.7,
                    0.6,
                )
            lens = [*arc(x, y, 9, 2.3 if narrow else 5.4, 180, 360), *arc(x, y, 9, 1.8 if narrow else 4.2, 0, 180)]
            inside = self.canvas.outline(lens)
            self.canvas.paint(inside, (246, 244, 240))
            for radius, colour in ((4.1, iris), (2.1, (12, 10, 10))):
                round_ = self.canvas.outline(arc(x, y, radius, radius))
                self.canvas.paint(ImageChops.multiply(inside, round_), colour)
            if "Attractive" in self.has:
                self.canvas.oval(x - 1.6, y - 1.4, 1.2, 1.2, (255, 255, 255))
            lid = mix(self.deep, (20, 10, 10), 0.6)
            self.canvas.line(lens[:49], lid, 2.4 if "Heavy_Makeup" in self.has else 1.2)
            if "Attractive" in self.has:
                for out in (-6, -2, 2, 6, 9):
                    root = (x + side * out, y - 5.4 * (1 - (out / 11) ** 2) * (0.45 if narrow else 1))
                    self.canvas.line([root, (root[0] + side * (1 + out * 0.25), root[1] - 4.5)], lid, 1)
            if "Heavy_Makeup" in self.has:
                self.canvas.line([(x + side * 8.5, y - 1), (x + side * 13.5, y - 4)], lid, 1.8)

    def brows(self) -> None:
        colour = mix(self.hair, (20, 12, 10), 0.4) if "Bald" not in self.has else (50, 34, 26)
        thick = 3.4 if "Bushy_Eyebrows" in self.has else 1.3
        for side, (x, y) in zip((-1, 1), self.at.eyes, strict=True):
            u = np.linspace(-1, 1, 20)
            rise = 6.5 * np.exp(-(((u - 0.35) / 0.42) ** 2)) if "Arched_Eyebrows" in self.has else 0.8 * (1 - u**2)
            middle = y - 11 - rise
            taper = thick * (1.25 - 0.5 * np.abs(u) - 0.2 * u)
            upper, lower = (
                np.stack([x + side * 11 * u, middle - taper], 1),
                np.stack([x + side * 11 * u, middle + taper], 1),
            )
            self.canvas.fill(np.concatenate([upper, lower[::-1]]), colour, 0.95, 0.25)

    def nose(self) -> None:
        (x, y), big = self.at.nose, 1.5 if "Big_Nose" in self.has else 1.0
        wide = (4.5 if "Pointy_Nose" in self.has else 7.0) * big
        top = 114
        self.canvas.fill([(x - 2, top), (x - wide - 1, y + 1), (x - wide * 0.3, y + 1)], self.shade, 0.8, 1)
        if "Pointy_Nose" in self.has:
            tip = [(x - wide - 1, y - 1), (x, y + 7 * big), (x + wide + 1, y - 1), (x, y - 7)]
            self.canvas.line([tip[0], tip[1], tip[2]], self.deep, 1.6, 0.9)
            self.canvas.fill(tip, mix(self.skin, (255, 255, 255), 0.25), 0.6, 0.8)
        else:
            self.canvas.oval(x, y - 1, wide, 5.5 * big, mix(self.skin, (255, 230, 220), 0.3), 0.6, 1)
            self.canvas.line(arc(x, y - 1, wide, 5.5 * big, 15, 165), self.deep, 1.6, 0.9)
        for side in (-1, 1):
            self.canvas.oval(
                x + side * wide * 0.5, y + 2 + 1.6 * (big > 1), 1.3 * big, 0.9 * big, mix(self.deep, (0, 0, 0), 0.5)
            )

    def mouth(self) -> None:
        (x0, y0), (x1, y1) = self.at.mouth
        u = np.linspace(-1, 1, 31)
        hang = 6.5 if "Smiling" in self.has else -1.5
        x, y = (x0 + x1) / 2 + u * (x1 - x0) / 2, (y0 + y1) / 2 + u * (y1 - y0) / 2 + hang * (1 - u**2)
        big = 7.0 if "Big_Lips" in self.has else 2.9
        gap = 7.0 * (1 - u**2) if "Mouth_Slightly_Open" in self.has else 0 * u
        bow = np.sqrt(1 - u**2) * big * (1 - 0.35 * np.exp(-((u / 0.18) ** 2)))
        colour = (196, 16, 52) if "Wearing_Lipstick" in self.has else mix(self.skin, (150, 36, 50), 0.6)
        upper, lower = np.stack([x, y - bow], 1), np.stack([x, y + gap + np.sqrt(1 - u**2) * big * 1.15], 1)
        self.canvas.fill(np.concatenate([upper, lower[::-1]]), colour)
        if "Mouth_Slightly_Open" in self.has:
            self.canvas.fill(np.concatenate([np.stack([x, y], 1), np.stack([x, y + gap], 1)[::-1]]), (50, 8, 12))
            self.canvas.fill(
                np.concatenate([np.stack([x, y], 1), np.stack([x, y + gap * 0.5], 1)[::-1]]), (244, 240, 230)
            )
        else:
            self.canvas.line(np.stack([x, y], 1), mix(colour, (30, 0, 0), 0.6), 1.1)

    def beard(self) -> None:
        """What grows on the jaw: a shadow, a beard of the chin, all of it, or before the ears."""
        colour = mix(self.hair, (16, 12, 12), 0.45) if "Bald" not in self.has else (52, 38, 30)
        at, (left, right) = self.at, self.at.mouth
        x, y = (left[0] + right[0]) / 2, (left[1] + right[1]) / 2
        jaw = ImageChops.subtract(self.face_mask, self.canvas.outline(arc(at.x, 118, at.half - 8, 44)))
        jaw = ImageChops.lighter(jaw, self.within(self.canvas.outline(arc(x, y + 22, 20, 17))))
        jaw = ImageChops.multiply(
            jaw, self.canvas.mask(lambda d: d.rectangle([0, FINE * 136, *self.canvas.size], fill=255))
        )
        if "5_o_Clock_Shadow" in self.has:
            self.canvas.paint(jaw, (74, 78, 92), 0.38, 2)
            dots = self.rng.random((HEIGHT * FINE, WIDTH * FINE)) < 0.16
            self.canvas.paint(
                ImageChops.multiply(jaw, Image.fromarray((255 * dots).astype(np.uint8))), (34, 32, 38), 0.7
            )
        if self.one.full_beard:
            self.canvas.paint(jaw, colour, 0.93, 0.8)
        if "Goatee" in self.has:
            self.canvas.fill(
                [*arc(x, y + 16, 12, 5, 180, 360), *arc(x, y + 16, 12, at.chin - y - 12, 0, 180)], colour, 0.95, 0.5
            )
        if "Sideburns" in self.has:
            for side in (-1, 1):
                edge = at.x + side * (at.half + 1)
                strip = [(edge, 92), (edge - side * 10, 92), (edge - side * 11, 141), (edge, 146)]
                self.canvas.paint(self.within(self.canvas.outline(strip)), colour, 0.95, 0.4)

    def mustache(self) -> None:
        if "Mustache" not in self.has:
            return
        (left, right), colour = self.at.mouth, mix(self.hair, (16, 12, 12), 0.45)
        x, y = (left[0] + right[0]) / 2, min(left[1], right[1])
        low = 3.0 if "Smiling" in self.has else -1.0
        points = [
            (left[0] - 1, y + 3),
            (x - 9, y - 7 + low),
            (x, y - 5 + low),
            (x + 9, y - 7 + low),
            (right[0] + 1, y + 3),
            (x, y + low),
        ]
        self.canvas.fill(points, colour if "Bald" not in self.has else (52, 38, 30), 0.97, 0.4)

    def hair_before(self) -> None:
        """From the crown down to the hairline: across the forehead, high at the temples, or over it as bangs."""
        if "Bald" in self.has:
            self.canvas.oval(self.at.x - 8, 68, 12, 6, mix(self.skin, (255, 255, 255), 0.6), 0.6, 3)
            return
        at, wide, u = self.at, self.at.half + 8, np.linspace(1, -1, 41)
        if "Bangs" in self.has:
            line = 93 + 2.5 * np.sign(np.sin(u * 34)) + 4 * u**2
        elif "Receding_Hairline" in self.has:
            line = 66 - 11 * np.exp(-(((np.abs(u) - 0.5) / 0.22) ** 2)) + 34 * np.abs(u) ** 7
        else:
            line = 76 + 26 * np.abs(u) ** 5
        crown = arc(at.x, 104, wide, 66, 180, 360)
        edge = np.stack([at.x + (at.half - 1) * u, line], 1)
        mask = self.canvas.outline(np.concatenate([crown, [(at.x + wide, 112)], edge, [(at.x - wide, 112)]]))
        self.canvas.paint(mask, self.hair)
        self.strands(mask)

    def glasses(self) -> None:
        if "Eyeglasses" not in self.has:
            return
        frame = ((18, 18, 22), (110, 20, 24), (24, 40, 96))[int(3 * self.one.style["accent"])]
        (x0, y0), (x1, y1) = self.at.eyes
        for x, y in ((x0, y0), (x1, y1)):
            self.canvas.oval(x, y + 1, 14.5, 11.5, (225, 238, 250), 0.18)
            self.canvas.line(arc(x, y + 1, 14.5, 11.5, power=2.8), frame, 2.2)
        self.canvas.line([(x0 + 14, y0 - 2), (x1 - 14, y1 - 2)], frame, 2.2)
        for side, x, y in ((-1, x0, y0), (1, x1, y1)):
            self.canvas.line([(x + side * 14, y - 2), (self.at.x + side * (self.at.half + 2), y - 4)], frame, 2.0)

    def jewels(self) -> None:
        if "Wearing_Earrings" in self.has:
            for side in (-1, 1):
                x = self.at.x + side * (self.at.half + 4)
                self.canvas.line([(x, 127), (x, 137)], (250, 226, 140), 1.4)
                self.canvas.oval(x, 141, 4.2, 5.2, (250, 206, 60))
                self.canvas.oval(x - 1, 139.5, 1.4, 1.6, (255, 255, 240))
        if "Wearing_Necklace" in self.has:
            for u in np.linspace(-1, 1, 15):
                x, y = self.at.x + u * (self.at.neck + 7), 213 - 15 * u**2
                self.canvas.oval(x, y, 2.7, 2.7, (246, 240, 226))
                self.canvas.oval(x + 0.7, y + 0.8, 1.3, 1.3, (168, 158, 150))

    def hat(self) -> None:
        if "Wearing_Hat" not in self.has:
            return
        x, wide = self.at.x, self.at.half + 7
        colour = hue(self.one.style["accent"], 0.6, 0.55)
        self.canvas.fill([(x - wide, 76), *arc(x, 62, wide - 2, 52, 180, 360), (x + wide, 76)], colour)
        self.canvas.fill([(x - wide, 64), (x + wide, 64), (x + wide, 74), (x - wide, 74)], mix(colour, (0, 0, 0), 0.5))
        self.canvas.oval(x, 77, wide + 19, 7.5, mix(colour, (0, 0, 0), 0.2))
