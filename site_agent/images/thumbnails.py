"""The fingerprint of a picture, to find it again under another name (see `duplicates`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from site_agent.images.surround import Box, scene_box

THUMBNAIL_PX = 16
CROPS = (0.0, 0.015, 0.03, 0.045)
"""A fingerprint has a thumbnail of the scene and of what is left of it without so much of every side: one of them is
like a copy from which up to 5 % of every side was cut."""
FLAT_BELOW = 1.0
"""mean structure, in grey levels, below which a thumbnail shows nothing that could be recognised"""


def thumbnail(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return the structure of the scene in an (H, W, 3) picture: 256 bytes for each of `CROPS`.

    256 bytes are 16 x 16 grey minus its blur, around 128.

    A surround that all pictures of a device share is cut off. Lighting and the bright-in-the-middle layout that all
    cervix images share are blurred away; what is left tells one scene from another and survives new compression,
    and resizing. Empty if nothing is left: such a picture is like no other.
    """
    box = scene_box(pixels)
    if box is None:
        return b""
    grey = Image.fromarray(pixels).convert("L")
    structures = [_structure(grey, _less(box, share)) for share in CROPS]
    if min(np.abs(structure).mean() for structure in structures) < FLAT_BELOW:
        return b""
    return np.clip(np.rint(np.stack(structures) + 128), 0, 255).astype(np.uint8).tobytes()


def _less(box: Box, share: float) -> Box:
    """Return the box without a share of every side."""
    left, top, right, bottom = box
    width, height = share * (right - left), share * (bottom - top)
    return left + width, top + height, right - width, bottom - height


def _structure(grey: Image.Image, box: Box) -> npt.NDArray[np.float32]:
    small = grey.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX, box=box)
    return np.asarray(small, np.float32) - np.asarray(small.filter(ImageFilter.BoxBlur(3)), np.float32)
