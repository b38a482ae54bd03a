"""How a device photographs the scene: pose, light, reflections, optics, sensor.

Two photographs of one visit share the scene and differ in everything that is drawn here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from site_agent.phantom.noise import Colour, Painting, Plane, field, generator, shade, step
from site_agent.phantom.scene import REACH, SIDE_PX


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """One device. Lengths in pixels of its own frame; colours are gains around 1."""

    width_px: int
    height_px: int
    view: float
    """half of the frame's shorter side at zoom 1, in cervix radii"""
    gain: Colour
    """of the channels: the white point"""
    gamma: float
    """exponent on intensities in [0, 1]; above 1 darkens"""
    saturation: float
    colour_wander: float
    """standard deviation of a channel's gain between photographs"""
    softness: float
    """1: a binomial blur over 3 x 3 pixels; 0: none; below 0: sharpened by the device's own software"""
    vignette: float
    """share of the light lost in the corners"""
    grain: float
    """standard deviation of the sensor's or film's noise, of 255"""
    ring_light: bool
    """reflections lie on a ring around the centre; else in a few patches, as from a flash"""
    round_mask: bool
    """black outside a circle that cuts the corners"""
    jpeg_quality: int


CERVIGRAPH = Camera(
    width_px=384,
    height_px=288,
    view=0.94,
    gain=(1.09, 1.01, 0.96),
    gamma=0.92,
    saturation=0.98,
    colour_wander=0.045,
    softness=1.0,
    vignette=0.42,
    grain=3.5,
    ring_light=False,
    round_mask=False,
    jpeg_quality=91,
)
"""a film camera with a ring flash: warm, soft, grainy, dark towards the corners"""

COLPOSCOPE = Camera(
    width_px=320,
    height_px=320,
    view=0.96,
    gain=(0.90, 1.00, 1.02),
    gamma=1.16,
    saturation=0.88,
    colour_wander=0.03,
    softness=-0.9,
    vignette=0.12,
    grain=2.0,
    ring_light=True,
    round_mask=True,
    jpeg_quality=82,
)
"""a digital colposcope: cool and greenish, sharpened, a circular field of view"""


def second(camera: Camera) -> Camera:
    """Return another device of the same make, as a site buys it years later: bluer, darker, paler."""
    red, green, blue = camera.gain
    return dataclasses.replace(
        camera,
        gain=(red * 0.86, green * 1.02, blue * 1.16),
        gamma=camera.gamma * 1.12,
        saturation=camera.saturation * 0.85,
    )


UNLIT: Colour = (34, 26, 24)
"""what lies outside the painted canvas"""


def photograph(painting: Painting, camera: Camera, seed: int) -> Image.Image:
    """Return one photograph of the painting: RGB, the camera's size."""
    rng = generator(seed)
    frame = _posed(painting, camera, rng)
    shade(frame, _light(camera, rng))
    _reflections(frame, camera, rng)
    return _developed(frame, camera, rng)


def _coordinates(camera: Camera) -> tuple[Plane, Plane]:
    """Return x and y of every pixel; 1 is half of the shorter side."""
    half = min(camera.width_px, camera.height_px) / 2
    x = (np.arange(camera.width_px, dtype=np.float32) + 0.5 - camera.width_px / 2) / half
    y = (np.arange(camera.height_px, dtype=np.float32) + 0.5 - camera.height_px / 2) / half
    return x.astype(np.float32)[None, :], y.astype(np.float32)[:, None]


def _posed(painting: Painting, camera: Camera, rng: np.random.Generator) -> Painting:
    """Look at the canvas from a slightly different place each time."""
    turn, zoom = rng.normal(0, 0.14), math.exp(rng.normal(0, 0.10))
    shift_x, shift_y = rng.normal(0, 0.07, 2)
    canvas_px_per_px = camera.view / zoom / (min(camera.width_px, camera.height_px) / 2) * SIDE_PX / (2 * REACH)
    cos, sin = math.cos(turn) * canvas_px_per_px, math.sin(turn) * canvas_px_per_px
    middle_x, middle_y = camera.width_px / 2, camera.height_px / 2
    centre = SIDE_PX / 2
    matrix = (
        cos, -sin, centre + shift_x * SIDE_PX / (2 * REACH) - cos * middle_x + sin * middle_y,
        sin, cos, centre + shift_y * SIDE_PX / (2 * REACH) - sin * middle_x - cos * middle_y,
    )  # fmt: skip
    size = (camera.width_px, camera.height_px)
    return np.stack([_looked_at(plane, matrix, size, dark) for plane, dark in zip(painting, UNLIT, strict=True)])


def _looked_at(plane: Plane, matrix: Sequence[float], size_px: tuple[int, int], outside: float) -> Plane:
    canvas = Image.fromarray(np.clip(plane, 0, 255).astype(np.uint8))
    posed = canvas.transform(size_px, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=outside)
    return np.asarray(posed, dtype=np.float32)


def _light(camera: Camera, rng: np.random.Generator) -> Plane:
    """Return the illumination: uneven, falling off towards the corners, of varying strength."""
    x, y = _coordinates(camera)
    tilt_x, tilt_y = rng.normal(0, 0.10), rng.normal(0, 0.10)
    strength = math.exp(rng.normal(0.04, 0.12))
    fall = 1 - camera.vignette * np.minimum((x * x + y * y) / 2.8, 1)
    return np.asarray(strength * (1 + tilt_x * x + tilt_y * y) * fall, dtype=np.float32)


def _reflections(frame: Painting, camera: Camera, rng: np.random.Generator) -> None:
    """Add specular highlights: clusters of white specks where the wet surface faces the lamp."""
    x, y = _coordinates(camera)
    size = (camera.width_px, camera.height_px)
    facing = np.full((camera.height_px, camera.width_px), -4, dtype=np.float32)
    for _ in range(int(rng.integers(2, 6))):
        spot_x, spot_y = _reflection_place(camera, rng)
        spread = rng.uniform(0.06, 0.22)
        away = ((x - spot_x) ** 2 + ((y - spot_y) * rng.uniform(0.6, 1.4)) ** 2) / spread**2
        np.maximum(facing, rng.uniform(0.6, 1.3) - away, out=facing)
    specks = field(rng, size, 100, 64) + 0.6 * field(rng, size, 30, 22)
    frame += np.float32(rng.uniform(5, 40)) * step(-0.5, 1.2, facing)  # the sheen around them
    frame += np.float32(rng.uniform(120, 230)) * step(1.7, 2.3, specks + 1.3 * facing)


def _reflection_place(camera: Camera, rng: np.random.Generator) -> tuple[float, float]:
    angle = rng.uniform(0, 2 * np.pi)
    distance = rng.normal(0.42, 0.06) if camera.ring_light else abs(rng.normal(0, 0.45))
    return float(distance * math.cos(angle)), float(distance * math.sin(angle))


def _developed(frame: Painting, camera: Camera, rng: np.random.Generator) -> Image.Image:
    """Turn light into an image: blur, white point, saturation, gamma, grain, mask."""
    grey = frame.mean(axis=0)
    gains = np.array(camera.gain, dtype=np.float32) * np.exp(rng.normal(0, camera.colour_wander, 3))
    colour = (grey + np.float32(camera.saturation) * (frame - grey)) * gains.astype(np.float32)[:, None, None]
    colour += np.float32(camera.grain) * field(rng, (camera.width_px, camera.height_px), camera.width_px // 2)
    planes = [Image.fromarray(plane) for plane in np.clip(colour, 0, 255).astype(np.uint8)]
    exponent = camera.gamma * math.exp(rng.normal(0, 0.06))
    curve = [round(255 * (level / 255) ** exponent) for level in range(256)]
    image = Image.merge("RGB", planes).point(curve * 3)
    if camera.round_mask:
        image.paste((0, 0, 0), mask=_outside_circle(camera, rng))
    return image.filter(_focus(camera.softness + float(rng.normal(0, 0.15))))


def _outside_circle(camera: Camera, rng: np.random.Generator) -> Image.Image:
    x, y = _coordinates(camera)
    dx, dy, radius = x - rng.normal(0, 0.03), y - rng.normal(0, 0.03), rng.uniform(1.06, 1.2)
    return Image.fromarray((dx * dx + dy * dy > radius * radius).astype(np.uint8) * 255)


def _focus(softness: float) -> ImageFilter.Kernel:
    """Return the kernel that is `softness` of the way from the identity to a binomial blur."""
    corner, edge = softness / 16, softness / 8
    centre = 1 - 4 * (corner + edge)
    return ImageFilter.Kernel((3, 3), (corner, edge, corner, edge, centre, edge, corner, edge, corner), scale=1)
