"""What a site is said to be doing: a word and a mark. The mark is a shape on the page, so colour says nothing alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from coordinator.run.status_document import SiteStatus

Mark = Literal["work", "idle", "done", "warn", "bad", "off"]
"""works; stands by; has finished; may need somebody; needs somebody; takes no part"""

TASKS = {
    "train": "training",
    "score": "scoring",
    "adopt": "receiving the result",
    "make": "making the first model",
    "pass": "passing on a key",
    "exchange": "exchanging secrets",
    "release": "releasing masks",
    "close": "closing an attempt",
}
"""the first word of a task -> what a site does that has it"""


@dataclass(frozen=True, slots=True)
class SiteState:
    """What a site is said to be doing."""

    word: str
    mark: Mark


AWAY = {
    "silent": SiteState("silent", "bad"),
    "failed": SiteState("failed", "bad"),
    "refused": SiteState("refused the plan", "bad"),
    "revoked": SiteState("revoked", "off"),
}
"""presence of a site that is not here -> its state"""


def site_state(site: SiteStatus, *, is_over: bool, is_watched: bool) -> SiteState:
    """Return the state of a site.

    `is_over`: the run has ended. `is_watched`: the document is from a running coordinator, which knows connections.
    """
    if site.presence in AWAY:
        return AWAY[site.presence]
    if is_over:
        return SiteState("finished", "done")
    if not is_watched:
        return SiteState("not known", "off")
    if site.presence == "absent":
        return SiteState("getting ready", "idle") if site.connected else SiteState("not connected yet", "warn")
    if site.line:
        return SiteState("connection cut" if not site.connected else "not heard", "warn")
    task = TASKS.get(site.doing.partition(" ")[0])
    return SiteState(task, "work") if task else SiteState("ready", "idle")
