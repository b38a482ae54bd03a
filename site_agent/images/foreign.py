"""Recognises files that are no image which is read here by their content, and says what to do with them."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

HEAD_BYTES = 512

_PICTURES: tuple[tuple[int, bytes], ...] = (
    (0, b"\xff\xd8\xff"),
    (0, b"\x89PNG\r\n\x1a\n"),
    *((0, magic) for magic in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    (0, b"BM"),
)
"""(offset, bytes found there) of the formats that are read"""
_HEIC = (b"heic", b"heix", b"heif", b"hevc", b"mif1", b"msf1")
_KINDS: tuple[tuple[int, bytes, str], ...] = (
    (128, b"DICM", "a DICOM file: export it as PNG or TIFF"),
    (8, b"WEBP", "a WebP picture: save it as PNG"),
    *((4, b"ftyp" + brand, "a HEIC picture: save it as PNG") for brand in _HEIC),
    (4, b"ftypavif", "an AVIF picture: save it as PNG"),
    (4, b"ftyp", "a video: export its frames as PNG"),
    (8, b"AVI ", "a video: export its frames as PNG"),
    (0, b"\x1a\x45\xdf\xa3", "a video: export its frames as PNG"),
    (4, b"jP  ", "a JPEG 2000 picture: save it as PNG"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture: save it as PNG"),
    (0, b"\xff\x0a", "a JPEG XL picture: save it as PNG"),
    (4, b"JXL ", "a JPEG XL picture: save it as PNG"),
    (0, b"GIF8", "a GIF picture: save it as PNG"),
    (0, b"8BPS", "a Photoshop file: save it as PNG"),
    (0, b"%PDF", "a PDF file: export its pictures as PNG"),
    (0, b"PK\x03\x04", "an archive or an office document: take the pictures out of it"),
    (0, b"7z\xbc\xaf", "an archive: take the pictures out of it"),
    (0, b"Rar!", "an archive: take the pictures out of it"),
    (0, b"\x1f\x8b", "a compressed file: take the pictures out of it"),
)
"""(offset, bytes found there, what the file is and what to do)"""


def reason(file: BinaryIO) -> str:
    """Return what a file is, and what to do; empty where that is not known."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    return next((kind for offset, magic, kind in _KINDS if head.startswith(magic, offset)), "")


def looks_like_a_picture(head: bytes) -> bool:
    """Return whether a file that begins so claims to be of a format that is read."""
    return any(head.startswith(magic, offset) for offset, magic in _PICTURES)


def head_of(path: Path) -> bytes:
    """Return how a file begins; nothing where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""
