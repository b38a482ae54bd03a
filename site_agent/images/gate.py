"""What the gate finds in a picture that it could be set aside for. One table, pure functions of its appearance.

Nothing is set aside by itself: `site-agent data check` counts, `data sheet --findings` shows, and `set_aside` in table
[data] of site.toml says which findings put a picture aside. Every limit is far from what photographs of public atlases
have (docs/decisions.md): a finding is a reason to look, and white tissue or blood is none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from site_agent.images.appearance import Appearance

COLOURLESS_BELOW = 0.05
"""share of the middle that is redder than grey"""
BLURRED_BELOW = 1.5
"""grey levels of fine structure: a sharp picture of smooth tissue has 2 and more"""
DARK_BELOW = 40
OVEREXPOSED_FROM = 0.5
"""share of the middle in which a channel is at its end"""
GLARE_FROM = 0.25
"""share of the middle that is white light"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a picture may be set aside for."""

    name: str
    heading: str
    """follows the number of pictures"""
    holds: Callable[[Appearance], bool]


FINDINGS: Final = (
    Finding("green", "pictures through a green filter, by their colours", lambda seen: seen.stage == "green"),
    Finding("iodine", "pictures after iodine, by their colours", lambda seen: seen.stage == "iodine"),
    Finding(
        "colourless",
        "pictures with hardly anything red in the middle, however pale (grey pictures, a green filter)",
        lambda seen: not seen.stage and seen.warm < COLOURLESS_BELOW,
    ),
    Finding("blurred", "blurred pictures", lambda seen: seen.sharpness < BLURRED_BELOW),
    Finding("dark", "dark pictures", lambda seen: seen.brightness < DARK_BELOW),
    Finding(
        "overexposed",
        "overexposed pictures (half of the middle is at the end of a channel)",
        lambda seen: seen.clipped >= OVEREXPOSED_FROM,
    ),
    Finding(
        "glare",
        "pictures with glare (a quarter of the middle is white light)",
        lambda seen: seen.specular >= GLARE_FROM,
    ),
)


def findings(seen: Appearance) -> tuple[str, ...]:
    """Return the names of what holds for a picture."""
    return tuple(finding.name for finding in FINDINGS if finding.holds(seen))
