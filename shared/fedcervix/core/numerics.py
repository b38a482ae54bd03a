"""How this software computes: a number for all versions that give the same bits.

Rules
1. A row is added by hand where the golden digests change: the same work then gives other numbers, in the last bit even.
2. All sites of a run compute alike, and so does its coordinator (`fedcervix.transport.versions`).
3. What is kept to be used again is named after the way it was computed, not after the version that computed it: a cell
   of a study or of a sweep, a checkpoint. So an upgrade that computes alike goes on with it.
"""

from __future__ import annotations

from typing import Final

SINCE: Final = {1: "0.1.0"}
"""which version was the first to compute so"""
NUMERICS: Final = max(SINCE)
FIRST_ALIKE: Final = SINCE[NUMERICS]
"""the first version that computed as this one does: it stands in those names"""
