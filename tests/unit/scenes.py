"""Generated pictures for tests of likeness: scenes, and what devices put around them."""

import io

import numpy as np
from PIL import Image

from site_agent.images.samples import Pixels

HEIGHT_PX, WIDTH_PX = 240, 320


def scene(seed: int) -> Pixels:
    """A smooth random scene of 240 x 320."""
    rough = np.random.default_rng(seed).integers(50, 256, (12, 16, 3), np.uint8)
    return np.asarray(Image.fromarray(rough).resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BICUBIC))


def field(pixels: Pixels, percent: int, level: int = 0) -> Pixels:
    """Only what lies in a centred circle, `percent` of the width wide."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[:height, :width]
    inside = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2) < percent / 200 * width
    return np.where(inside[..., None], pixels, np.uint8(level))


def framed(pixels: Pixels, rows: int, columns: int, level: int = 0) -> Pixels:
    """With bars of so many pixels above and below, left and right."""
    return np.pad(pixels, ((rows, rows), (columns, columns), (0, 0)), constant_values=level)


def compressed(pixels: Pixels, quality: int = 75) -> Pixels:
    """As a JPEG shows it."""
    raw = io.BytesIO()
    Image.fromarray(pixels).save(raw, "JPEG", quality=quality)
    return np.asarray(Image.open(raw))


def halved(pixels: Pixels) -> Pixels:
    """Half as high and half as wide."""
    height, width = pixels.shape[:2]
    return np.asarray(Image.fromarray(pixels).resize((width // 2, height // 2)))


def cropped(pixels: Pixels) -> Pixels:
    """Without 1 % on every side."""
    rows, columns = (max(1, round(side / 100)) for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[rows:-rows, columns:-columns])
