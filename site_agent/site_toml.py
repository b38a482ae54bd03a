"""The text of `site.toml`: how a new one begins, and how single keys of an existing one are set.

Rules
1. A command writes its options into the file, also if the file existed before.
2. Comments and every other line stay as the engineer wrote them.
3. The new text is read back before it replaces the old one: a file that cannot be read is never written.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from fedcervix.errors import ConfigError

Value = str | int | list[str]
Key = tuple[str, str]
"""table and key"""

TEMPLATE = """\
# Configuration of a fedcervix site. Every key is explained in docs/configuration.md.

[link]
coordinator = ""            # HOST:PORT; the only address this machine connects to

[data]
manifest = ""               # CSV: image, patient, label (0 control, 1 case, empty), optionally split
# unreadable_max = 0.05       # refuse the collection when more than this share of images cannot be read
# split_seed = 0              # decides which women are in train, valid and test
# not_same = ""               # CSV: pairs of images that look alike but show two women (data check --write-pairs)
# ignore_columns = []         # columns of the manifest that only look like label or split

[hardware]
# device = "auto"             # auto, cpu or cuda
# threads = 0                 # 0: all cores
# processes = 1               # training processes; 0: one per GPU
# launcher = []               # how several hosts train together: docs/running.md
# checkpoint_s = 60.0         # least time between two checkpoints of a round in progress
# images_in_memory_gib = 4.0  # decoded images of one part (train, valid, test); more than that stay on the disk
# imagenet_weights = ""       # file with ImageNet weights (a federation downloads none); empty: torchvision's
# acceleration = "auto"       # auto (graph on a GPU), eager, graph or compile
# deterministic = "auto"      # auto (on for the CPU), on or off: equal runs give equal bits

[policy]                      # what this site allows a federation to ask; anything else is refused
# modes = ["csfssl", "ppfssl"]
# sites = []                  # partners allowed in the roster; empty: any
# rounds_max = 1000
# epochs_max = 10000
# plan = ""                   # SHA-256 of the only plan allowed; empty: any plan that fits the rest
# architectures = ["resnet18", "resnet50"]
# image_px_max = 512
# width_max = 1024
# batch_images_max = 1024
# share_max = 1.0             # largest share of an average by images that a plan may give one site; 1: any
# runs_per_month = 300        # of all runs together, in 30 days
# rounds_per_month = 10000
# epochs_per_month = 30000
# upload_gib_per_month = 2000
"""

_TABLE = re.compile(r"\s*\[([A-Za-z0-9_.-]+)\]\s*(#.*)?")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def with_values(text: str, values: Mapping[Key, Value], *, source: Path) -> str:
    """Return the text with these keys set, everything else as it was. Raises ConfigError where that fails."""
    lines = text.splitlines()
    for (table, key), value in values.items():
        lines = _set(lines, table, key, f"{key} = {literal(value)}")
    new = "\n".join(lines) + "\n"
    _check_read_back(new, values, source)
    return new


def literal(value: Value) -> str:
    """Return a value as TOML writes it (TOML 1.0, basic strings)."""
    if isinstance(value, list):
        return f"[{', '.join(map(literal, value))}]"
    return f'"{"".join(map(_escaped, value))}"' if isinstance(value, str) else str(value)


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return f"\\u{ord(character):04x}" if ord(character) < 0x20 or ord(character) == 0x7F else character


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


def _check_read_back(text: str, values: Mapping[Key, Value], source: Path) -> None:
    try:
        raw = tomllib.loads(text.encode().decode())
        found = {(table, key): raw[table][key] for table, key in values}
    except (ValueError, KeyError, TypeError) as error:
        wrong = next((value for value in values.values() if not _is_text(value)), None)
        if wrong is not None:
            raise ConfigError(
                f"{source} cannot hold the path {wrong!r}",
                cause="the path is not written in UTF-8, and a TOML file holds nothing else",
                next_step="give the folder or file a name in UTF-8 (mv), then the same command again",
            ) from error
        raise ConfigError(
            f"{source} cannot be changed by this command: {error}",
            cause="it is written in a way that this command does not know",
            next_step=f"edit {source}: " + "; ".join(f"[{t}] {k} = {literal(v)}" for (t, k), v in values.items()),
        ) from error
    if found != dict(values):
        raise ConfigError(
            f"{source} cannot be changed by this command",
            cause="a key is in it twice, or in a way that this command does not know",
            next_step=f"edit {source}: " + "; ".join(f"[{t}] {k} = {literal(v)}" for (t, k), v in values.items()),
        )


def _is_text(value: Value) -> bool:
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True
