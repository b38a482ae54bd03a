"""The text of `site.toml`: how a new one begins, and how single keys of an existing one are set.

Rules
1. A command writes its options into the file, also if the file existed before.
2. Comments and every other line stay as the engineer wrote them.
3. The new text is read back before it replaces the old one: a file that cannot be read is never written.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from fedcervix.errors import ConfigError
from fedcervix.json_text import shallow

Value = str | int | list[str]
Key = tuple[str, str]
"""table and key"""

TEMPLATE = resources.files(__package__).joinpath("site_template.toml").read_text("utf-8")
"""every key with its default"""

_TABLE = re.compile(r"\s*\[([A-Za-z0-9_.-]+)\]\s*(#.*)?")


def with_values(text: str, values: Mapping[Key, Value], *, source: Path) -> str:
    """Return the text with these keys set, everything else as it was. Raises ConfigError where that fails."""
    lines = text.splitlines()
    for (table, key), value in values.items():
        _check_encodes(value, source)
        lines = _set(lines, table, key, f"{key} = {literal(value)}")
    new = "\n".join(lines) + "\n"
    _check_read_back(new, values, source)
    return new


def literal(value: Value) -> str:
    """Return a value as TOML writes it: as JSON, but for the one control character that JSON leaves as it is."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")


def _set(lines: list[str], table: str, key: str, setting: str) -> list[str]:
    """Replace the line that sets the key, else the commented default, else add a line to the table."""
    begin, end = _table(lines, table)
    if begin is None:
        return [*lines, "", f"[{table}]", setting]
    for pattern in (rf"\s*{key}\s*=", rf"#\s*{key}\s*="):
        for number in range(begin, end):
            if re.match(pattern, lines[number]):
                return [*lines[:number], _with_comment(setting, lines[number]), *lines[number + 1 :]]
    return [*lines[:begin], setting, *lines[begin:]]


def _table(lines: list[str], table: str) -> tuple[int | None, int]:
    """Return the numbers of the table's first line below its heading, and of the first line after it."""
    begin = None
    for number, line in enumerate(lines):
        match = _TABLE.fullmatch(line)
        if match and begin is not None:
            return begin, number
        if match and match[1] == table:
            begin = number + 1
    return begin, len(lines)


def _with_comment(setting: str, line: str) -> str:
    """Keep the comment behind a value in its column; a value that holds `#` itself has none that is found safely."""
    value, mark, comment = line.lstrip("# ").partition("#")
    if not mark or value.count('"') % 2:
        return setting
    column = line.index("#", len(line) - len(comment) - 1)
    return f"{f'{setting} ':<{column}}#{comment}" if comment else setting


def _check_encodes(value: Value, source: Path) -> None:
    try:
        str(value).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{source} cannot hold the path {value!r}",
            cause="the path is not written in UTF-8, and a TOML file may contain only UTF-8",
            next_step="give the folder or file a name in UTF-8 (mv), then the same command again",
        ) from error


def _check_read_back(text: str, values: Mapping[Key, Value], source: Path) -> None:
    try:
        raw = shallow(tomllib.loads(text.encode().decode()))
        found = {(table, key): raw[table][key] for table, key in values}
        wrong = "" if found == dict(values) else "a key is in it twice"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        wrong = str(error)
    if wrong:
        raise ConfigError(
            f"{source} cannot be changed by this command: {wrong}",
            cause="it is written in a way that this command does not know",
            next_step=f"edit {source}: " + "; ".join(f"[{t}] {k} = {literal(v)}" for (t, k), v in values.items()),
        )
