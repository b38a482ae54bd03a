r"""Names in the cells of a CSV file: any name, so that it can be read back, and none that a spreadsheet calculates.

Rules
1. In the path of a file, every byte that is not part of printable UTF-8 text is written `\xNN`, a backslash `\\`.
2. A path that begins with a sign that makes a spreadsheet calculate (= + - @) begins with `./` instead: the same file.
3. Any other text that begins with such a sign has an apostrophe before it, as spreadsheets write text themselves.
"""

from __future__ import annotations

import os
from pathlib import Path

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""signs after which a spreadsheet calculates; the last four are the same ones, full-width"""


def path_cell(path: Path) -> str:
    """Return the path of a file as it stands in a cell."""
    text = os.fsencode(path).decode("utf-8", "surrogateescape")
    cell = "".join(map(_written, text))
    return f"./{cell}" if cell.startswith(_FORMULA) else cell


def text_cell(text: str) -> str:
    """Return an identifier as it stands in a cell."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _written(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))
