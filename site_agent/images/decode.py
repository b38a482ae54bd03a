"""One image file -> one array of 8-bit RGB, whatever the hospital's devices wrote.

What is deliberately done with
- EXIF orientation   applied, so that up is up (a damaged EXIF block counts as none)
- grey, 1 bit        copied to all three channels; white-is-zero is inverted
- alpha              composited on black, the surround of a cervigram; 0 in every pixel counts as no alpha
- palette            looked up, its transparency as alpha
- CMYK               converted to RGB; a JPEG's is inverted, as Adobe writes it
- 16 bits            the whole range 0..65535 becomes 0..255, never clipped; grey is rounded, colour keeps its high byte
- 9 to 15 bits in 16 scaled by their own range where the file states it: PNG's sBIT, TIFF's MaxSampleValue
- several pages      the first
- colour profiles    ignored: the network sees the device's own colours
- signed, float, 32-bit grey above 65535, LAB, sensor data, other inks than CMYK: refused, there is no agreed scale
- damage             refused wherever it can be detected: libjpeg's warnings, checksums of PNG, absent strips of TIFF

Only `unreadable.FORMATS` are opened (`jpegs`, `pngs`, `tiffs`). The size is read from the header before anything is
decoded: more than PIXELS_MAX pixels are refused, and so is a side below SIDE_MIN_PX, on which nothing can be
recognised. The threads of a process have PIXELS_MAX pixels open together, so that many cores do not take much memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from fedcervix.core.plan import Fit
from site_agent.images import foreign, jpegs, pngs, tiffs
from site_agent.images.samples import Decoded, Pixels, of_image
from site_agent.images.unreadable import DAMAGE, FORMATS, OPEN_FAILED, UnreadableError, translated

OnCount = Callable[[int, int], None]
"""called with (done, total) after every image"""

Item = TypeVar("Item")
Result = TypeVar("Result")

PIXELS_MAX = 100_000_000
"""100 megapixels: far above any colposcope, far below what exhausts a machine"""
SIDE_MIN_PX = 16
"""of the shorter side: below the grid of a thumbnail there is nothing to tell one picture from another"""
THREADS_MAX = 8
AHEAD = 64
"""items that `each` has begun or lined up"""

_ORIENTATION: Final = 0x0112
_TURNS: dict[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class _Room:
    """Lets the threads of this process have so many pixels open at once; a picture larger than that goes alone."""

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self._taken = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Wait until others have closed enough pictures (they wait for nothing, so the wait ends)."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= self._pixels)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


_ROOM = _Room(PIXELS_MAX)


def _load_bmp(image: Image.Image, _: BinaryIO) -> Decoded:
    image.load()
    return of_image(image)


_LOADERS: Final[Mapping[str, Callable[[Any, BinaryIO], Decoded]]] = {
    "JPEG": jpegs.load,
    "MPO": jpegs.load,  # a JPEG that is followed by others; Pillow names it so
    "PNG": pngs.load,
    "TIFF": tiffs.load,
    "BMP": _load_bmp,
}


@contextlib.contextmanager
def opened(path: Path, *, pixels_max: int = PIXELS_MAX, side_min_px: int = SIDE_MIN_PX) -> Iterator[Decoded]:
    """Open an image, upright, for as long as it is looked at. Raises UnreadableError.

    All pictures open in this process, and what decoding them takes, stay within 24 bytes x PIXELS_MAX; 24 are taken by
    16-bit colour whose used bits are stated, 4 by a JPEG.
    """
    _check_file(path)
    with contextlib.ExitStack() as closing:
        with translated():
            file = closing.enter_context(path.open("rb"))
            image = closing.enter_context(contextlib.closing(_open(file)))
        _check_size(image, pixels_max, side_min_px)
        closing.enter_context(_ROOM.of(image.width * image.height))
        with translated():
            found = _upright(image, file)
        image.close()  # `found` is a copy
        yield found


def decode(path: Path, *, pixels_max: int = PIXELS_MAX, side_min_px: int = SIDE_MIN_PX) -> Pixels:
    """Return the image as (H, W, 3) 8-bit RGB, upright. Raises UnreadableError."""
    with opened(path, pixels_max=pixels_max, side_min_px=side_min_px) as found:
        return found.pixels


def _open(file: BinaryIO) -> Image.Image:
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        if reason := tiffs.reason(file) or jpegs.reason(file) or foreign.reason(file):
            raise UnreadableError(reason) from None
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableError(f"larger than {PIXELS_MAX:,} pixels") from error
    except OSError as error:
        if str(error).startswith("Unsupported BMP"):
            raise UnreadableError("an unsupported kind of BMP") from error
        raise


def square(pixels: Pixels, side_px: int, fit: Fit) -> Pixels:
    """Return (side_px, side_px, 3): both sides scaled (`squash`), or the central square scaled (`crop`).

    Antialiased bicubic: every pixel of the source has its say, however much the image shrinks.
    """
    height, width = pixels.shape[:2]
    box = (0.0, 0.0, float(width), float(height))
    if fit == "crop":
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((side_px, side_px), Image.Resampling.BICUBIC, box=box))


def pixel_digest(pixels: Pixels) -> str:
    """Return the SHA-256 of shape and bytes: equal exactly when the decoded pictures are equal."""
    digest = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def silent(done: int, total: int) -> None:
    """Report progress to nobody."""


def each(work: Callable[[Item], Result], items: Sequence[Item], on_progress: OnCount = silent) -> list[Result]:
    """Return `work` of every item, in order, by a few threads (Pillow decodes without the interpreter's lock).

    The first exception of `work` is raised, and what had not begun is not begun. No more than AHEAD items wait at a
    time. Pillow's warnings about odd metadata are silenced meanwhile: they name paths, and the picture is either
    usable or refused.
    """
    results: list[Result] = []
    begun: deque[Future[Result]] = deque()

    def take() -> None:
        results.append(begun.popleft().result())
        on_progress(len(results), len(items))

    with warnings.catch_warnings(), ThreadPoolExecutor(min(THREADS_MAX, os.cpu_count() or 1)) as pool:
        warnings.filterwarnings("ignore", module="PIL")
        try:
            for item in items:
                if len(begun) == AHEAD:
                    take()
                begun.append(pool.submit(work, item))
            while begun:
                take()
        finally:
            pool.shutdown(cancel_futures=True)
    return results


def _check_file(path: Path) -> None:
    """Raise UnreadableError unless the path is a file with content (opening a pipe would wait for ever)."""
    try:
        found = path.stat()
    except OSError as error:
        raise UnreadableError(OPEN_FAILED.get(error.errno or 0, "cannot be opened")) from error
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableError("not a file")
    if found.st_size == 0:
        raise UnreadableError("an empty file")


def _check_size(image: Image.Image, pixels_max: int, side_min_px: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise UnreadableError("an image without pixels")
    if min(width, height) < side_min_px:
        raise UnreadableError(f"a side of less than {side_min_px} pixels")
    if width * height > pixels_max:
        raise UnreadableError(f"larger than {pixels_max:,} pixels")


def _upright(image: Image.Image, file: BinaryIO) -> Decoded:
    found = _LOADERS[image.format or ""](image, file)
    turn = None if image.format == "TIFF" else _TURNS.get(_orientation(image))  # Pillow turns a TIFF itself
    return found if turn is None else replace(found, pixels=np.asarray(Image.fromarray(found.pixels).transpose(turn)))


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 where there is none that can be read."""
    try:
        found: Any = image.getexif().get(_ORIENTATION, 1)
    except DAMAGE:
        return 1  # the picture itself is fine
    return found if isinstance(found, int) else 1
