"""Why an image file cannot be used, in texts without paths; and the errors of decoders on damaged bytes."""

from __future__ import annotations

import contextlib
import errno
import struct
import zlib
from collections.abc import Iterator

from PIL import UnidentifiedImageError

from fedcervix.disk.descriptors import check_used_up
from fedcervix.errors import DataError

DAMAGE = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(OverflowError, RuntimeError, ZeroDivisionError, struct.error, zlib.error, MemoryError),
)
"""what Pillow's decoders raise on damaged bytes (found by feeding them damaged bytes)"""
FORMATS = ("JPEG", "PNG", "TIFF", "BMP")
"""the formats that are opened, by Pillow's names; of any other name Pillow's `Image.open` makes a KeyError"""
FORMATS_TEXT = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
CLOSED = "this user has no permission to read it"
OPEN_FAILED = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "no such file",
    errno.ENAMETOOLONG: "no such file (its name is too long)",
    errno.EACCES: CLOSED,
    errno.EPERM: CLOSED,
}


class UnreadableError(DataError):
    """An image cannot be used. The reason names no path: it may be counted, logged and shown."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what decoders raise on damaged bytes into UnreadableError.

    Raises StorageError where no more files can be opened: then nothing is wrong with the image.
    """
    try:
        yield
    except UnreadableError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableError(f"not a {FORMATS_TEXT} image, or damaged at its beginning") from error
    except OSError as error:
        check_used_up("an image cannot be opened", error)
        raise UnreadableError(OPEN_FAILED.get(error.errno or 0, "damaged or cut short")) from error
    except DAMAGE as error:
        raise UnreadableError(f"damaged ({type(error).__name__})") from error
