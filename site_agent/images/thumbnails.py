"""The fingerprint of a picture, to find it again under another name (see `duplicates`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from site_agent.images.surround import scene_box

THUMBNAIL_PX = 16
FLAT_BELOW = 1.0
"""mean structure, in grey levels, below which a thumbnail shows nothing that could be recognised"""


def thumbnail(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return the structure of the scene in an (H, W, 3) picture as 256 bytes: 16 x 16 grey minus its blur, around 128.

    A surround that all pictures of a device share is cut off. Lighting and the bright-in-the-middle layout that all
    cervix images share are blurred away; what is left tells one scene from another and survives new compression,
    resizing and slight cropping. Empty if nothing is left: such a picture is like no other.
    """
    box = scene_box(pixels)
    if box is None:
        return b""
    size = (THUMBNAIL_PX, THUMBNAIL_PX)
    grey = Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.BOX, box=box)
    structure = np.asarray(grey, np.float32) - np.asarray(grey.filter(ImageFilter.BoxBlur(3)), np.float32)
    if np.abs(structure).mean() < FLAT_BELOW:
        return b""
    return np.clip(np.rint(structure + 128), 0, 255).astype(np.uint8).tobytes()
