"""Which file a manifest's line means, where the name on the disk is written in another way.

One name has two Unicode forms: `ä` as one character (NFC) or as `a` and two dots (NFD, as older Macs write it). Both
look the same, and to the disk they are two names. And where the machine's locale is not UTF-8, Python reads the names
of the disk in another alphabet. So a file that is not there is looked for in its folder under the same name in another
form; there must be exactly one. A name that is only similar (upper or lower case, another suffix) is not taken: it is
named.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from pathlib import Path, PurePosixPath


class FileNames:
    """The names in the folders of a collection; each folder is listed once, and only if a file in it is missed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listed: dict[str, tuple[str, ...]] = {}

    def found(self, image: str) -> str:
        """Return the path of an image as the disk has it; the same path where there is no such file."""
        if os.path.lexists(self._folder / image):
            return image
        found = PurePosixPath()
        for part in PurePosixPath(image).parts:
            same = [name for name in self._names(found) if _form(name) == _form(part)]
            if len(same) != 1:
                return image
            found /= same[0]
        return str(found)

    def similar(self, image: str) -> str:
        """Return the name of a file that may be meant by one that is not there; empty where there is none."""
        path = PurePosixPath(image)
        folder = self._similar_folder(path.parent)
        names = [name for name in self._names(folder) if folder / name != path]
        same = (name for form in (_folded, _in_latin_1, _stem) for name in names if form(name) == form(path.name))
        moved = folder != PurePosixPath(self.found(str(path.parent)))
        return next((_printable(str(folder / name) if moved else name) for name in same), "")

    def _similar_folder(self, path: PurePosixPath) -> PurePosixPath:
        """Return a folder as the disk has it, upper and lower case aside; the same path where there is none."""
        found = PurePosixPath(self.found(str(path)))
        if (self._folder / found).is_dir():
            return found
        found = PurePosixPath()
        for part in path.parts:
            same = [name for name in self._names(found) if _folded(name) == _folded(part)]
            if len(same) != 1:
                return path
            found /= same[0]
        return found

    def _names(self, below: PurePosixPath) -> tuple[str, ...]:
        key = str(below)
        if key not in self._listed:
            try:
                self._listed[key] = tuple(sorted(path.name for path in (self._folder / below).iterdir()))
            except OSError:
                self._listed[key] = ()
        return self._listed[key]


def _form(name: str) -> str:
    """Return a name in one form, whatever alphabet the machine's locale reads it in."""
    with contextlib.suppress(UnicodeError):
        name = os.fsencode(name).decode()
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", _form(name)).casefold()


def _in_latin_1(name: str) -> str:
    """Return a name whose bytes on the disk are not UTF-8 as an older system wrote it."""
    return _folded(os.fsencode(name).decode("latin-1") if name != _printable(name) else name)


def _stem(name: str) -> str:
    return PurePosixPath(_folded(name)).stem


def _printable(name: str) -> str:
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
