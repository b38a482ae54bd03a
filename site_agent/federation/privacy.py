"""What may leave a hospital: weights, the numbers of `OUTWARD_KEYS`, and messages that went through `scrub`.

Rules
1. The list says what may pass, not what may not: an unknown number stays at home.
2. A message is for finding the fault, not for describing the data. Where a word might name a woman, a file or a
   machine, it goes; a word too many is better lost than one kept.
3. The full text stays at the site under an incident number, which is all that the two sides need to talk about it.

What `scrub` cannot do is recognise a name that looks like an ordinary word and is quoted nowhere: patient identifiers
and folder names are therefore handed to it as `secrets`.
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping

import numpy as np

OUTWARD_KEYS = frozenset(
    {
        "images",
        "steps",
        "epoch",
        "epochs",
        "round",
        "loss",
        "loss_sum",
        "count",
        "images_per_s",
        "seconds",
        # collapse gauges
        "zero_rows",
        "dead_units",
        "unit_std",
        "effective_rank",
        "alignment",
        "uniformity",
    }
)
"""The only numbers that a site reports, by name."""

INTEGER_MAX = 2**53
"""Beyond it an integer is no count of ours, and no double either."""

MESSAGE_CHARACTERS_MAX = 300
TEXT_CHARACTERS_MAX = 4000
SHORT_SECRET_CHARACTERS = 2

MARK = "***"

EXTENSIONS = (
    "bmp|csv|dcm|dicom|gif|hdr|heic|heif|img|j2k|jp2|jpe?g|mha|nii|nrrd|npy|npz|parquet|png|svs|tiff?|tsv|webp|xlsx?"
)

QUOTED = re.compile(
    r"""
      (?<!\w)[bBfFrRuU]{0,2}'(?:[^']|'(?=\w))*(?:'|$)     # an apostrophe inside a word neither opens nor closes
    | "[^"]*(?:"|$)                                        # a quotation that is never closed lasts to the end
    | `[^`]*(?:`|$)
    | [‘‚][^’]*(?:’|$)
    | [“„][^”“]*(?:[”“]|$)
    | «[^»]*(?:»|$)
    """,
    re.VERBOSE,
)

# From the first word with a separator to the last one (a folder may be called "Doe, Jane"), and on to a colon that
# ends a word: what follows a path may still belong to it.
PATH = re.compile(r"(?<!\S)[^\s\\/]*[\\/](?:.*[\\/])?(?:(?!:(?:\s|$)).)*")

FILE = re.compile(rf"\.(?:{EXTENSIONS})(?![A-Za-z0-9])", re.IGNORECASE)

WORDS = tuple(
    re.compile(pattern)
    for pattern in (
        r"@",  # e-mail addresses, user@host
        r"\d(?:-?\d){4,}",  # record numbers, telephone numbers
        r"\d{1,4}[-.]\d{1,2}[-.]\d{1,4}",  # dates
        r"\d+(?:\.\d+){3,}",  # IPv4, DICOM UIDs
        r"(?:[0-9A-Fa-f]*:){2,}[0-9A-Fa-f]*",  # IPv6, MAC addresses, times of day
        r"\w[\w-]*\.[^\W\d_]{2,}",  # host.domain, name.ext
        r"[^\W\d_]\w*-[\w-]*\d|[^\W\d_][\w.-]*:\d{2,5}(?!\d)",  # srv-ct-03, host:50051
    )
)
"""A word in which one of these is found is replaced as a whole."""

ENDING = re.compile(r"[.,:;!?)\]]*$")


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Return `text` on one line of at most 300 printable characters, with what could name someone replaced by `***`.

    `secrets` are texts that must not pass in any case: patient identifiers, folder names. Longer ones are replaced
    wherever they stand, in upper or lower case; those of one or two characters where they stand alone, or every
    number would vanish with patient 7. Paths, file names, quotations, addresses, host names, dates and runs of five
    digits go unasked.
    """
    line = _shorten(_without(_one_line(text), secrets))
    line = PATH.sub(MARK, QUOTED.sub(MARK, line))
    line = " ".join(_scrub_words(line.split()))
    if len(line) > MESSAGE_CHARACTERS_MAX:
        line = line[: MESSAGE_CHARACTERS_MAX - 3] + "..."
    return line


def _one_line(text: str) -> str:
    """Bring a text to one form, so that no accent, ligature or invisible character hides a secret."""
    # Twice, because removing a character can bring together what composes.
    visible = (c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    printable = (c if c.isprintable() else " " for c in unicodedata.normalize("NFKC", "".join(visible)))
    return " ".join("".join(printable).split())


def _without(line: str, secrets: Iterable[str]) -> str:
    folded = line.casefold()
    tidy = {_one_line(secret) for secret in secrets}
    found = [secret for secret in tidy if any(map(str.isalnum, secret)) and secret.casefold() in folded]
    if not found:
        return line
    longest_first = sorted(found, key=lambda secret: (-len(secret), secret))
    return re.sub("|".join(map(_secret_pattern, longest_first)), MARK, line, flags=re.IGNORECASE)


def _secret_pattern(secret: str) -> str:
    pattern = re.escape(secret)
    return rf"(?<![^\W_]){pattern}(?![^\W_])" if len(secret) <= SHORT_SECRET_CHARACTERS else pattern


def _shorten(line: str) -> str:
    """Bound the work that follows; cut at a space, because half an address is not recognised as one."""
    return line if len(line) <= TEXT_CHARACTERS_MAX else line[:TEXT_CHARACTERS_MAX].rpartition(" ")[0]


def _scrub_words(words: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for word in words:
        if FILE.search(word):
            # "Jane Doe 2.png" is three words; its first ones are known by their capitals and digits.
            while kept and (kept[-1][0].isupper() or kept[-1][0].isdigit()):
                kept.pop()
        if FILE.search(word) or any(pattern.search(word) for pattern in WORDS):
            word = MARK + ENDING.search(word)[0]  # type: ignore[index]
        if not (kept and kept[-1] == word == MARK):
            kept.append(word)
    return kept


def incident_number(text: str, at: float) -> str:
    """Name one failure, e.g. `INC-7F3A-21C4`: four digits of the trace's hash, four of the time's (`at`, seconds).

    The same fault keeps its first four, so a site sees at a glance that it has come back. To be put beside a scrubbed
    message, not into it: it looks too much like a record number to pass `scrub`.
    """
    fault, moment = (
        hashlib.sha256(part.encode(errors="replace")).hexdigest()[:4].upper() for part in (text, repr(float(at)))
    )
    return f"INC-{fault}-{moment}"


def outward(values: Mapping[str, object]) -> dict[str, float | int]:
    """Return the numbers that may leave: those of `OUTWARD_KEYS` that are finite reals. The rest is left out."""
    allowed = {key: _number(values[key]) for key in sorted(OUTWARD_KEYS & values.keys())}
    return {key: number for key, number in allowed.items() if number is not None}


def _number(value: object) -> float | int | None:
    if isinstance(value, np.integer | np.floating):
        value = value.item()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    # bool is an int to Python, but no number to report
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value) if abs(value) <= INTEGER_MAX else None
    return None
