"""What one site has measured, as text: `site-agent plan --json` writes it, `coordinator plan` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, StringConstraints

from fedcervix.core.bounds import DIGEST
from fedcervix.core.events import MOMENT_MAX
from fedcervix.core.formats import FIRST, KEY, contents
from fedcervix.core.pace import SitePace
from fedcervix.json_text import parsed
from fedcervix.runtime.typed_json import fields_of, from_json, to_text


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceLine:
    """What one site has measured."""

    site: Annotated[str, StringConstraints(max_length=63)]
    at: Annotated[float, Field(ge=0, le=MOMENT_MAX)]
    """Unix seconds"""
    pace_key: Annotated[str, StringConstraints(pattern=rf"^{DIGEST.pattern}$")]
    """of the recipe that it was measured with, see `fedcervix.core.pace.pace_key`"""
    pace: SitePace


def pace_text(line: PaceLine) -> str:
    """Return what a site has measured as JSON."""
    return to_text({KEY: FIRST, **fields_of(line)}, indent=2)


def parse_pace(text: bytes) -> PaceLine:
    """Return what a site has measured. Raises ValueError."""
    return from_json(PaceLine, contents("what a site has measured", parsed(text)), extra="ignore")
