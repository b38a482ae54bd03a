"""One frame of a DICOM file as 8-bit RGB.

What is deliberately done with
- YBR            converted to RGB by pydicom
- palette        looked up; of 16-bit entries the high byte
- 16-bit colour  the bits that are used, by their high byte
- grey           the window that the header names (its first), else all values that the used bits can say
- MONOCHROME1    inverted
- colour profile ignored, as in other files: the network sees the device's own colours

A cine is read frame by frame. The functions run in a process of its own (`frame_process`): files may be hostile.
Sources: DICOM PS3.3, C.7.6.3.1 (pixels), C.11.2.1.2.1 (window), C.7.9 (palette).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array

from site_agent.dicom.headers import RefusedError
from site_agent.dicom.quiet import quiet
from site_agent.images.samples import Pixels

PALETTE = [0x00281100 + colour + table for colour in (1, 2, 3) for table in (0, 0x100, 0x120)]
WINDOW = [0x00281050, 0x00281051, 0x00281052, 0x00281053]
"""tags that the values need besides the description of the pixels"""
SHARPNESS_PX = 512
"""longer side, at which sharpness is measured"""


def frame(path: Path, index: int) -> Pixels:
    """Return frame `index` (from 0) as (H, W, 3) 8-bit RGB. Raises RefusedError, OSError, MemoryError."""
    header = Dataset()
    with quiet():
        try:
            values = pixel_array(path, ds_out=header, specific_tags=[*PALETTE, *WINDOW], index=index)
            return _rgb(values, header)
        except (MemoryError, RefusedError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno:
                raise  # the disk; without a number it is Pillow's, of the picture
            raise RefusedError(_why(error)) from error


def reduced(pixels: Pixels, side_max_px: int) -> Pixels:
    """Return a picture whose longer side has at most so many pixels; the same where it has no more."""
    height, width = pixels.shape[:2]
    share = side_max_px / max(height, width)
    if share >= 1:
        return pixels
    size = (max(1, round(width * share)), max(1, round(height * share)))
    found: Pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    return found


def sharpness(pixels: Pixels) -> float:
    """Return the variance of the Laplacian of the grey picture, at `SHARPNESS_PX` (Pertuz et al. 2013, LAP4)."""
    grey = reduced(pixels, SHARPNESS_PX).astype(np.float32).mean(axis=2)
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return float(laplacian.var())


def _why(error: Exception) -> str:
    """Return a reason in our own words: those of pydicom may quote the file."""
    if isinstance(error, NotImplementedError):
        return "compressed in a way that is not read"
    if isinstance(error, AttributeError):
        return "no pixels, or no description of them"
    return "damaged pixels, or compressed in a way that is not read"


def _rgb(values: NDArray[Any], header: Dataset) -> Pixels:
    kind = str(header.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        found = apply_color_lut(values, header)
        return np.ascontiguousarray(found if found.dtype == np.uint8 else _high_byte(found, 16))
    if values.ndim == 3 and values.shape[2] == 3:
        stored = int(header.get("BitsStored", 8 * values.dtype.itemsize))
        return np.ascontiguousarray(values if values.dtype == np.uint8 else _high_byte(values, stored))
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise RefusedError("pixels of an unknown kind")
    grey = _grey(values, header)
    return np.repeat((255 - grey if kind == "MONOCHROME1" else grey)[..., None], 3, axis=2)


def _high_byte(values: NDArray[Any], stored: int) -> Pixels:
    if values.dtype.kind != "u" or not 8 <= stored <= 16:
        raise RefusedError("pixels of an unknown kind")
    found: Pixels = np.minimum(values >> (stored - 8), 255).astype(np.uint8)
    return found


def _grey(values: NDArray[Any], header: Dataset) -> Pixels:
    low, high = _window(header) or _range(values, header)
    share = (values.astype(np.float64) - low) / (high - low)
    return np.round(255 * share.clip(0, 1)).astype(np.uint8)


def _range(values: NDArray[Any], header: Dataset) -> tuple[float, float]:
    stored = int(header.get("BitsStored", 8 * values.dtype.itemsize))
    if not 1 <= stored <= 16:
        raise RefusedError("pixels of an unknown kind")
    low = -(2.0 ** (stored - 1)) if values.dtype.kind == "i" else 0.0
    return low, low + 2.0**stored - 1


def _window(header: Dataset) -> tuple[float, float] | None:
    """Return the stored values that become black and white, by the header's first window (PS3.3, C.11.2.1.2.1)."""
    centre, width = _first(header, "WindowCenter"), _first(header, "WindowWidth")
    slope, intercept = _first(header, "RescaleSlope") or 1.0, _first(header, "RescaleIntercept") or 0.0
    if centre is None or width is None or not width > 1 or not slope > 0:
        return None
    low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    return (low - intercept) / slope, (high - intercept) / slope


def _first(header: Dataset, keyword: str) -> float | None:
    value = header.get(keyword)
    found = value[0] if isinstance(value, (list, tuple)) or hasattr(value, "append") else value
    number = None if found is None or found == "" else float(found)
    return number if number is not None and np.isfinite(number) else None
