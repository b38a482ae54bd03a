"""The picture as its writer meant it, over the grid of what TIFF, PNG, BMP and JPEG can be; or a reason.

Every file is written byte by byte (`picture_files`), so every sample is known. TIFFs are compared with a second decoder
as well (tifffile), and JPEGs with Pillow, which decodes with another build of libjpeg-turbo.
"""

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from picture_files import Bmp, Png, Samples, Tiff, scene
from site_agent import quality
from site_agent.images import Pixels, UnreadableError, opened
from site_agent.samples import Decoded

HEIGHT, WIDTH = 37, 53


def decoded(folder: Path, data: bytes) -> Decoded:
    (folder / "a").write_bytes(data)
    with opened(folder / "a") as found:
        return found


def refused(folder: Path, data: bytes) -> str:
    with pytest.raises(UnreadableError) as caught:
        decoded(folder, data)
    return caught.value.reason
