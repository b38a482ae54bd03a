"""The stage of an examination that the texts of a header name: words in six languages, compared without accents.

A text that names two stages, or none, says nothing: the stage is then unknown. So does one with a word such as before
or without: "before acetic acid" is no picture after it, and may be one after iodine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from site_agent.manifest.spreadsheet import without_accents

WORDS: Final = {
    "acetic": re.compile(r"acetic|aceto|\bvia\b|essigsaure|acetique|acetico|\baw\b|post[- ]?aa\b"),
    "iodine": re.compile(r"iodine|lugol|\bvili\b|schiller|\bjod|\biode\b|\byodo\b|\biodo\b"),
    "green": re.compile(r"green|grun|\bvert\b|\bverde\b|red[- ]free"),
    "native": re.compile(r"native|nativ\b|saline|unstained|kochsalz|serum physio|salina|salino|\bpre[- ]?aa\b"),
}

NOT_YET: Final = re.compile(
    r"\b(before|without|prior|pre(?![- ]?aa\b)|not?(?= (acetic|aceto|acid|iodine|lugol|green|filter))|vor|ohne|avant"
    r"|sans|antes|sin|sem|prima|senza)\b"
)
"""words after which a stage is named that is not this picture's"""


def named_stage(remarks: Iterable[str]) -> str:
    """Return the stage that texts name, as a manifest writes it; "" where it is not clear."""
    text = " ".join(without_accents(remark.lower()) for remark in remarks)
    named = [stage for stage, words in WORDS.items() if words.search(text)]
    return named[0] if len(named) == 1 and not NOT_YET.search(text) else ""
