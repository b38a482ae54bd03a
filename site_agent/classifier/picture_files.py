"""The files below folders that may be pictures: none is left out without being counted.

Rules
1. A file that is named is listed, whatever it is.
2. Below a folder, hidden files and files of kinds that are no pictures (tables, text, settings) are skipped and
   counted, unless they hold an image all the same.
3. Linked folders are followed. A folder that was listed already is not listed again: links may form a circle.
4. What cannot be listed stands in the list with the reason.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedcervix.errors import DataError
from site_agent.classifier.csv_names import path_cell
from site_agent.images.foreign import head_of, looks_like_a_picture

NO_PICTURES = frozenset(
    (
        *("csv", "tsv", "txt", "md", "log", "json", "jsonl", "xml", "yaml", "yml", "toml", "ini", "cfg"),
        *("xls", "xlsx", "ods", "doc", "docx", "odt", "rtf", "pdf", "ppt", "pptx", "htm", "html", "css", "js", "py"),
        *("db", "sqlite", "sh", "bat", "ps1", "exe", "dll", "lnk", "url", "md5", "sha1", "sha256", "safetensors"),
    )
)
"""endings of names"""
HIDDEN, AGAIN = "hidden", "folders that were listed already"


@dataclass(frozen=True, slots=True)
class Found:
    """One file, or something that cannot be listed."""

    path: Path
    problem: str = ""
    """why it cannot be listed"""


@dataclass(frozen=True, slots=True)
class Listing:
    """What is below the named files and folders, in order."""

    files: tuple[Found, ...]
    passed_over: Mapping[str, int]
    """ending of the name, `hidden`, or `folders that were listed already` -> how many"""


def list_files(named: Iterable[Path]) -> Listing:
    """List the files that may be pictures. Raises DataError where a named path does not exist."""
    walk = _Walk()
    files: dict[Path, Found] = {}
    for path in named:
        folder = os.path.isdir(path)  # noqa: PTH112  (is_dir raises where this user may not enter)
        for found in walk.below(path) if folder else [_named(path)]:
            files.setdefault(found.path, found)
    return Listing(tuple(files.values()), dict(walk.passed_over))


def _named(path: Path) -> Found:
    if not os.path.lexists(path):
        raise DataError(
            f"{path_cell(path)} does not exist",
            cause="the path is misspelt, or this user has no permission to open its folder",
            next_step=f"ls {shlex.quote(path_cell(path.parent))}",
        )
    return Found(path)


@dataclass(slots=True)
class _Walk:
    """A walk through folders, with what it has passed."""

    passed_over: Counter[str] = field(default_factory=Counter)
    entered: set[tuple[int, int]] = field(default_factory=set)
    """(device, inode) of the folders"""

    def below(self, top: Path) -> Iterator[Found]:
        """Yield what is below a folder, in the order of the names."""
        if not self._enters(top):
            return
        failed: list[OSError] = []
        for folder, folders, names in os.walk(top, followlinks=True, onerror=failed.append):
            yield from (_not_listed(error) for error in failed)
            failed.clear()
            here = Path(folder)
            folders[:] = [name for name in sorted(folders) if not self._hidden(name) and self._enters(here / name)]
            yield from (Found(here / name) for name in sorted(names) if self._may_be_a_picture(here / name))
        yield from (_not_listed(error) for error in failed)

    def _enters(self, folder: Path) -> bool:
        """Note a folder; return whether it is seen for the first time."""
        try:
            found = folder.stat()
        except OSError:
            return True  # os.walk says what is wrong with it
        key = (found.st_dev, found.st_ino)
        known = key in self.entered
        self.passed_over[AGAIN] += known
        self.entered.add(key)
        return not known

    def _hidden(self, name: str) -> bool:
        hidden = name.startswith(".")
        self.passed_over[HIDDEN] += hidden
        return hidden

    def _may_be_a_picture(self, path: Path) -> bool:
        if self._hidden(path.name):
            return False
        ending = path.suffix.casefold().removeprefix(".")
        is_file = os.path.isfile(path)  # noqa: PTH113  (as above); to open a pipe would wait for ever
        if ending not in NO_PICTURES or (is_file and looks_like_a_picture(head_of(path))):
            return True
        self.passed_over[f".{ending}"] += 1
        return False


def _not_listed(error: OSError) -> Found:
    return Found(Path(error.filename), f"this folder cannot be listed ({error.strerror or type(error).__name__})")
