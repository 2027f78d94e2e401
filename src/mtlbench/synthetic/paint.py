"""Materials, light and the sensor: what a ray caster's hits look like as an 8-bit image."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy import ndarray

from mtlbench.synthetic.raycast import BOX, CYLINDER, ELLIPSOID, PATCH, Hits, turn


class Material(IntEnum):
    """What a surface is made of; the colour is the primitive's."""

    PLAIN = 0
    FACADE = 1
    ASPHALT = 2
    PAVING = 3
    GRASS = 4
    LEAVES = 5
    BRICK = 6
    BARS = 7
    DASHES = 8
    STRIPES = 9
    RAILS = 10
    LAMPS = 11
    SIGN = 12
    DISC = 13
    BICYCLE = 14
    COACH = 15
    CARPET = 16
    BOARDS = 17
    TILES = 18
    SPINES = 19
    SLATS = 20
    PICTURE = 21


_TEXTURE = {
    Material.PLAIN: (2, 0.06),
    Material.FACADE: (1, 0.1),
    Material.ASPHALT: (9, 0.2),
    Material.PAVING: (5, 0.12),
    Material.GRASS: (3, 0.45),
    Material.LEAVES: (4, 0.75),
    Material.BRICK: (4, 0.2),
    Material.BARS: (2, 0.1),
    Material.DASHES: (9, 0.2),
    Material.STRIPES: (9, 0.2),
    Material.RAILS: (9, 0.2),
    Material.LAMPS: (2, 0.0),
    Material.SIGN: (1, 0.0),
    Material.DISC: (1, 0.0),
    Material.BICYCLE: (2, 0.05),
    Material.COACH: (0.5, 0.05),
    Material.CARPET: (30, 0.3),
    Material.BOARDS: (6, 0.15),
    Material.TILES: (3, 0.05),
    Material.SPINES: (8, 0.1),
    Material.SLATS: (4, 0.03),
    Material.PICTURE: (5, 0.1),
}
"""Noise cells per metre, and how much the noise changes a surface's brightness."""
_CELLS, _ROUGHNESS = np.array([_TEXTURE[material] for material in Material], np.float32).T

WHEEL, WHEEL_X = 0.34, 0.52
"""Metres: a bicycle's wheel's radius, and how far its hubs are from its middle."""


@dataclass(frozen=True)
class Light:
    """Of one scene. Colours 0 to 1; haze: optical depth per metre; exposure: a factor on everything."""

    sun: ndarray  # [3] unit vector towards the sun
    direct: float
    ambient: float
    tint: ndarray
    zenith: ndarray
    horizon: ndarray
    clouds: float
    haze: float
    exposure: float
    grain: float  # standard deviation of the sensor's noise


def lattice(i: ndarray, j: ndarray, salt: ndarray | int) -> ndarray:
    """Reproducible random numbers in [0, 1) of whole coordinates, float32."""
    h = i.astype(np.int32).view(np.uint32) * np.uint32(0x9E3779B1)
    h = h + j.astype(np.int32).view(np.uint32) * np.uint32(0x85EBCA77) + np.asarray(salt, np.uint32)
    h = (h ^ (h >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    h = (h ^ (h >> np.uint32(12))) * np.uint32(0x297A2D39)
    return ((h ^ (h >> np.uint32(15))) >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def noise(a: ndarray, b: ndarray, salt: ndarray | int) -> ndarray:
    """Smooth noise in [0, 1) with cells of size 1."""
    i, j = np.floor(a), np.floor(b)
    x, y = a - i, b - j
    x, y = x * x * (3 - 2 * x), y * y * (3 - 2 * y)
    top = lattice(i, j, salt) * (1 - x) + lattice(i + 1, j, salt) * x
    bottom = lattice(i, j + 1, salt) * (1 - x) + lattice(i + 1, j + 1, salt) * x
    return top * (1 - y) + bottom * y


def cut(primitive, points: ndarray, direction: ndarray) -> ndarray | bool:
    """Which points [3, n] of a primitive are there: bicycles and discs have holes, foliage a ragged rim."""
    x, y, z = points
    half = primitive["half"]
    match primitive["material"]:
        case Material.DISC:
            return (x / half[0]) ** 2 + (y / half[1]) ** 2 <= 1
        case Material.BICYCLE:
            wheels = (np.abs(x) - WHEEL_X) ** 2 + (y + half[1] - WHEEL) ** 2 <= WHEEL**2
            frame = (np.abs(y - 0.02) < 0.07) & (np.abs(x) < WHEEL_X)
            posts = ((np.abs(x + 0.3) < 0.13) | (np.abs(x - 0.42) < 0.06)) & (y > 0)
            return wheels | frame | posts
        case Material.LEAVES:
            normal = points / half[:, None] ** 2
            lengths = np.sqrt((normal**2).sum(0) * (direction**2).sum(0))
            facing = np.abs((normal * direction).sum(0)) / np.maximum(lengths, 1e-9)
            salt = int(abs(primitive["centre"][2]) * 977)
            return facing > 0.9 * noise(x * 4 + z * 3, y * 4, salt)
    return True


def coordinates(which: ndarray, local: ndarray) -> tuple[ndarray, ndarray]:
    """Metres along a surface: (a, b), b upwards from a primitive's foot on what is upright."""
    shape, half = which["shape"], which["half"].T
    a, b = local[0].copy(), local[1] + half[1]
    patch = shape == PATCH
    a[patch] += which["centre"][patch, 0]
    b[patch] = local[2, patch] + which["centre"][patch, 2]
    axis = np.abs(local / np.maximum(half, 1e-6)).argmax(0)
    side = (shape == BOX) & (axis == 0)
    a[side] = local[2, side]
    lid = (shape == BOX) & (axis == 1)
    b[lid] = local[2, lid]
    turned = (shape == ELLIPSOID) | (shape == CYLINDER)
    a[turned] = np.arctan2(local[0, turned], local[2, turned]) * half[0, turned]
    return a, b


def albedo(which: ndarray, local: ndarray, normal: ndarray, salt: ndarray) -> ndarray:
    """Colours of surface points [3, n]: the primitives' own, a texture, and what is painted or built on them."""
    a, b = coordinates(which, local)
    material = which["material"]
    cells = _CELLS[material]
    texture = 0.6 * noise(a * cells, b * cells, salt) + 0.4 * noise(a * cells * 3.1, b * cells * 3.1, salt)
    colour = which["colour"].T * (1 + _ROUGHNESS[material] * 2 * (texture - 0.5))
    upright = np.abs(normal[1]) < 0.5
    _paint_walls(colour, material, a, b, upright, salt)
    _paint_ground(colour, material, a, b, local[0], texture)
    _paint_things(colour, material, b, local, upright, which["half"])
    _paint_rooms(colour, material, a, b, upright, salt)
    return colour


def _put(colour: ndarray, where: ndarray, value) -> None:
    colour[:, where] = np.asarray(value, np.float32).reshape(3, -1)


def _paint_walls(colour, material, a, b, upright, salt) -> None:
    """Windows of houses and coaches, joints of bricks, bars of fences."""
    facade = (material == Material.FACADE) & upright
    storey, bay = np.mod(b, 3.1), np.mod(a, 2.6)
    window = facade & (bay > 0.9) & (storey > 1.1) & (storey < 2.7)
    pane = lattice(np.floor(a / 2.6), np.floor(b / 3.1), salt)
    _put(colour, window, np.outer([0.30, 0.36, 0.42], 0.5 + 0.9 * pane[window] ** 2))
    colour[:, facade & (storey < 0.12)] *= 0.75
    coach = (material == Material.COACH) & upright & (b > 1.3) & (b < 2.4) & (np.mod(a, 1.6) > 0.12)
    _put(colour, coach, [0.1, 0.12, 0.15])
    row = np.floor(b / 0.3)
    joint = (np.mod(b, 0.3) < 0.05) | (np.mod(a + row * 0.3, 0.6) < 0.05)
    colour[:, (material == Material.BRICK) & joint] *= 0.7
    colour[:, (material == Material.BARS) & (np.mod(a, 0.34) < 0.16)] *= 0.35


def _paint_ground(colour, material, a, b, x, texture) -> None:
    """Joints of paving, lines and zebra stripes, rails."""
    joint = (np.mod(a, 0.8) < 0.06) | (np.mod(b, 0.8) < 0.06)
    colour[:, (material == Material.PAVING) & joint] *= 0.72
    dashes = (material == Material.DASHES) & (np.mod(b, 7) < 3)
    stripes = (material == Material.STRIPES) & (np.mod(a, 1.1) < 0.55)
    white = dashes | stripes
    _put(colour, white, np.outer([0.8, 0.8, 0.78], 0.8 + 0.4 * texture[white]))
    _put(colour, (material == Material.RAILS) & (np.abs(np.abs(x) - 0.72) < 0.07), [0.62, 0.62, 0.65])


def _paint_things(colour, material, b, local, upright, half) -> None:
    """Lamps of traffic lights, rims of signs, spokes of bicycles."""
    third = b / np.maximum(2 * half[:, 1], 1e-6) * 3
    lamps = (material == Material.LAMPS) & upright & (np.abs(third % 1 - 0.5) < 0.38)
    for level, lit in enumerate(([0.1, 0.9, 0.5], [0.9, 0.65, 0.1], [0.95, 0.12, 0.1])):
        _put(colour, lamps & (np.floor(third) == level), lit)
    x, y = local[0] / half[:, 0], local[1] / np.maximum(half[:, 1], 1e-6)
    square = (material == Material.SIGN) & (np.maximum(np.abs(x), np.abs(y)) > 0.8)
    disc = (material == Material.DISC) & (x * x + y * y > 0.55)
    _put(colour, square | disc, [0.9, 0.9, 0.88])
    hub = np.hypot(np.abs(local[0]) - WHEEL_X, b - WHEEL)
    spokes = (material == Material.BICYCLE) & (b < 2 * WHEEL) & (hub < WHEEL - 0.06)
    colour[:, spokes] = 0.5 * colour[:, spokes] + 0.2


def _paint_rooms(colour, material, a, b, upright, salt) -> None:
    """Boards and tiles of floors, backs of books, slats of blinds, pictures."""
    boards = material == Material.BOARDS
    colour[:, boards] *= 0.8 + 0.4 * lattice(np.floor(a / 0.14), np.floor(b / 1.9), salt)[boards]
    colour[:, boards & (np.mod(a, 0.14) < 0.008)] *= 0.6
    joint = (np.mod(a, 0.3) < 0.014) | (np.mod(b, 0.3) < 0.014)
    colour[:, (material == Material.TILES) & joint] *= 0.7
    spines = np.flatnonzero((material == Material.SPINES) & upright)
    book = np.floor(a[spines] / 0.045)
    for channel in range(3):
        colour[channel, spines] *= 0.25 + 1.3 * lattice(book, book * 0 + channel, salt[spines])
    colour[:, (material == Material.SLATS) & (np.mod(b, 0.07) < 0.02)] *= 0.55
    art = np.flatnonzero(material == Material.PICTURE)
    for channel in range(3):
        colour[channel, art] *= 0.3 + 1.5 * noise(a[art] * 9, b[art] * 9, salt[art] + np.uint32(channel))


def develop(
    hits: Hits,
    which: ndarray,
    local: ndarray,
    normal: ndarray,
    rays: ndarray,
    light: Light,
    shadows: ndarray,
    salt: int,
) -> ndarray:
    """The image, float32 [3, height, width], 1 is white: surfaces, shadows, haze, sky."""
    seen = hits.primitive >= 0
    own = (hits.primitive[seen] * 7919 + salt).astype(np.uint32)
    colour = albedo(which, local, normal, own)
    shade = light.ambient * (0.8 + 0.2 * normal[1]) + light.direct * np.maximum(light.sun @ normal, 0)
    flat = np.flatnonzero(which["shape"] == PATCH)
    shade[flat] *= _shadow(local[[0, 2]][:, flat] + which["centre"][flat][:, [0, 2]].T, shadows)
    colour *= shade * light.tint[:, None]
    sky = _sky(rays, light, salt)
    distance = hits.depth[seen] * np.sqrt((rays[:, seen] ** 2).sum(0))
    through = np.exp(-light.haze * distance)
    sky[:, seen] = colour * through + light.horizon[:, None] * (1 - through)
    return sky * np.float32(light.exposure)


def _sky(rays: ndarray, light: Light, salt: int) -> ndarray:
    up = np.clip(rays[1] / np.sqrt((rays**2).sum(0)), 0.01, 1)
    high = np.clip(up * 2.2, 0, 1) ** 0.6
    a, b = rays[0] / up * 0.4, np.sqrt(rays[0] ** 2 + rays[2] ** 2) / up * 0.4
    cloud = np.clip(noise(a, b, salt) * 0.6 + noise(a * 2.7, b * 2.7, salt) * 0.4 - 1 + light.clouds, 0, 1) * 1.6
    cloud = np.clip(cloud, 0, 0.9) * high
    blue = light.horizon[:, None, None] * (1 - high) + light.zenith[:, None, None] * high
    return (blue * (1 - cloud) + np.float32(0.93) * cloud).astype(np.float32)


def _shadow(ground: ndarray, shadows: ndarray) -> ndarray:
    """How much light reaches ground points [2, n] past things standing on it [m: x, z, half x, half z, heading]."""
    light = np.ones(ground.shape[1], np.float32)
    for x, z, half_x, half_z, heading in shadows:
        near = np.flatnonzero(
            (np.abs(ground[0] - x) < half_x + half_z + 1) & (np.abs(ground[1] - z) < half_x + half_z + 1)
        )
        dx, dz = turn(heading, ground[0, near] - x, ground[1, near] - z)
        beyond = np.maximum(np.maximum(np.abs(dx) - half_x, np.abs(dz) - half_z), 0)
        light[near] *= 1 - np.float32(0.62) * np.exp(-((beyond / 0.25) ** 2))
    return light


def expose(image: ndarray, light: Light, rng: np.random.Generator) -> ndarray:
    """The sensor: a slight blur, darker corners, noise; uint8 [height, width, 3]."""
    for axis in (1, 2):
        padded = np.pad(image, [(0, 0)] + [(1, 1) if k == axis else (0, 0) for k in (1, 2)], mode="edge")
        first, last = np.delete(padded, [-1, -2], axis), np.delete(padded, [0, 1], axis)
        image = 0.6 * image + 0.2 * (first + last)
    height, width = image.shape[1:]
    v = (np.arange(height, dtype=np.float32)[:, None] / height - 0.5) ** 2
    u = (np.arange(width, dtype=np.float32)[None] / width - 0.5) ** 2
    image = image * (1 - 0.35 * (u + v)) + rng.standard_normal(image.shape, np.float32) * np.float32(light.grain)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0)
