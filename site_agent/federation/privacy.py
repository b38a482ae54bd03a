"""What may leave a hospital in a report: the fields of `LEAVES`. Every report goes through `outgoing`.

What else leaves (weights, enrolment, versions): docs/security.md, "What leaves a hospital".

Rules
1. The list says what may pass, not what may not: an unknown field or gauge stays at home.
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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

from fedcervix.core.bounds import DIGEST
from fedcervix.core.events import (
    RUN_NAME,
    BoxesStored,
    CloseSigned,
    Masked,
    ModelAdopted,
    ModelUnusable,
    ReleaseStored,
    Rewrapped,
    ScoreReported,
    Seal,
    SiteFailed,
    Task,
    UpdateStored,
)
from fedcervix.core.pace import SitePace, rounded
from fedcervix.core.plan import SITE_NAME
from fedcervix.transport import codec
from fedcervix.trust.sealed_models import Header
from fedcervix.trust.sum_roster import Opening

GAUGES = frozenset({"zero_rows", "dead_units", "unit_std", "effective_rank", "alignment", "uniformity"})
"""The collapse gauges that a site reports (see `site_agent.training.collapse_metrics`)."""

INTEGER_MAX = 2**53
"""Beyond it an integer is no count of ours, and no double either."""

MESSAGE_CHARACTERS_MAX = 300
TEXT_CHARACTERS_MAX = 4000
SHORT_SECRET_CHARACTERS = 2

MARK = "***"
HEXADECIMAL = re.compile("[0-9a-f]*")
UNIT = re.compile("steps|images|bytes")
INCIDENT = re.compile(r"INC(-[0-9A-F]{4}){2}")

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
    if text.isascii() and text.isprintable():
        return " ".join(text.split())  # the same, at once: a manifest has some hundred thousand words
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


def gauges(measured: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """Return the gauges that may leave, sorted by name: those of `GAUGES` that are finite numbers."""
    allowed = {name: _number(measured[name]) for name in sorted(GAUGES & measured.keys())}
    return tuple((name, float(value)) for name, value in allowed.items() if value is not None)


def _number(value: object) -> float | int | None:
    if isinstance(value, np.integer | np.floating):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    # bool is an int to Python, but no number to report
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) <= INTEGER_MAX else None
    return None


# --- what leaves of each report: a rule returns what leaves of a value ----------------------------------------------


Rule = Callable[[Any], Any]


def matching(pattern: re.Pattern[str]) -> Rule:
    """A text of this form; empty in place of anything else."""
    return lambda value: value if pattern.fullmatch(value) else ""


def number(value: object) -> float | int:
    """A finite real number; 0 in place of anything else."""
    return _number(value) or 0


def class_name(value: str) -> str:
    """The name of a class of errors; empty in place of anything else."""
    return value if value.isascii() and value.isidentifier() else ""


def text(value: str) -> str:
    """Text after `scrub`. The site's secrets are known, and taken out, only where a failure is recorded."""
    return scrub(value, ())


def objections(value: str) -> str:
    """What the policy does not allow: words, figures and digests of policy and plan, on one line, without paths."""
    return PATH.sub(MARK, _one_line(value))


def task(value: Task) -> Task:
    """The task as the coordinator gave it: run, kind, round, digest. It checks itself when it is built."""
    return value


def seal(value: Seal | None) -> Seal | None:
    """What this site has signed of a model under seal: a header with nothing else in it, digests and boxes.

    Raises TypeError, ValueError for anything else.
    """
    if value is not None:
        if not isinstance(value, Seal):
            raise TypeError("not a seal")
        Header.parse(value.header)
    return value


def signed(value: Opening | Masked | None) -> Opening | Masked | None:
    """What the site signs of a secure sum: keys, digests and rounded figures. It checks itself when it is built."""
    return value if isinstance(value, Opening | Masked) else None


def pace(value: SitePace | None) -> SitePace | None:
    """What the site has measured before round 1: finite numbers within bounds, with three digits, and one bit.

    The bytes of a model's file keep all digits: they follow from the plan. Of anything else, nothing leaves.
    """
    if not isinstance(value, SitePace):
        return None
    return SitePace(**{field.name: _of_pace(field.name, getattr(value, field.name)) for field in fields(SitePace)})


def _of_pace(name: str, value: object) -> Any:
    if name == "gpu":
        return yes_or_no(value)
    found = number(value)
    if name in ("model_bytes", "packed_bytes", "steps"):
        return int(found)
    return int(rounded(found)) if isinstance(value, int) else rounded(found)


def boxes(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """What only another site can read: its name, and hexadecimal digits."""
    return tuple((name, box) for name, box in pairs if SITE_NAME.fullmatch(name) and hexadecimal(box))


def hexadecimal(value: str) -> str:
    """A signature, or a box, in hexadecimal; empty in place of anything else."""
    return value if HEXADECIMAL.fullmatch(value) else ""


def site_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of sites of the plan, as the coordinator gave them."""
    return tuple(name for name in names if SITE_NAME.fullmatch(name))


def yes_or_no(value: object) -> bool:
    """One bit."""
    return value is True


LEAVES: Mapping[type, Mapping[str, Rule]] = {
    codec.Ping: {},
    codec.Stopped: {},
    codec.Ready: {"run": matching(RUN_NAME), "plan_digest": matching(DIGEST), "opening": signed, "pace": pace},
    codec.Refusal: {"run": matching(RUN_NAME), "reason": objections},
    codec.Progress: {
        "task": task,
        "stage": text,
        "done": number,
        "of": number,
        "unit": matching(UNIT),
        "loss": number,
        "images_per_s": number,
    },
    UpdateStored: {
        "task": task,
        "digest": matching(DIGEST),
        "images": number,
        "steps": number,
        "loss": number,
        "seconds": number,
        "packed": matching(DIGEST),
        "seal": seal,
        "masked": signed,
    },
    BoxesStored: {"task": task, "roster": matching(DIGEST), "boxes": boxes},
    ReleaseStored: {"task": task, "listed": matching(DIGEST), "masks": matching(DIGEST), "signature": hexadecimal},
    CloseSigned: {"task": task, "remaining": site_names, "signature": hexadecimal},
    ScoreReported: {
        "task": task,
        "loss_sum": number,
        "count": number,
        "images": number,
        "gauges": lambda pairs: gauges(dict(pairs)),
    },
    ModelUnusable: {"task": task, "steps": number},
    ModelAdopted: {"task": task},
    Rewrapped: {"task": task, "seal": seal},
    SiteFailed: {"stage": text, "hint": text, "incident": matching(INCIDENT), "kind": class_name, "goes_on": yes_or_no},
}
"""What leaves of each report, field by field, and as what. No other field is written into a message."""


def outgoing(report: codec.Report) -> codec.Report:
    """Return a report as it may leave the hospital. What is not allowed is replaced by 0 or by an empty text.

    The coordinator refuses a report in which something necessary is missing.
    """
    return replace(report, **{name: rule(getattr(report, name)) for name, rule in LEAVES[type(report)].items()})
