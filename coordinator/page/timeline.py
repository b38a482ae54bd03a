"""What each site did when: spans of time, made of a run's events in the journal.

| kind | from | to |
|---|---|---|
| `train` | the event's time, less the seconds that the site says training took | its update was stored |
| `move` | it was asked | training began: it fetched the model, or waited for its turn at the network |
| `score` | there was a model to score | its score was stored |
| `adopt` | the run had its result | it has the result |
| `cut` | its round began (in a star) | it was found silent or failed before it gave anything: this work may be lost |
| `silent`, `failed` | it was found so | it came back |

Times are the coordinator's. What goes on now is not in the journal: the page draws it from the site's state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from fedcervix.core.events import (
    AggregateStored,
    Event,
    ModelAdopted,
    ScoreReported,
    SiteAttached,
    SiteFailed,
    SiteRevoked,
    SiteSilent,
    UpdateStored,
)
from fedcervix.page.board import Part

SPANS_MAX = 60
"""of each site: the newest"""

Span = tuple[str, float, float]
"""kind, from, to (Unix seconds)"""


class Timeline:
    """The spans of a run's sites; it takes the events in order."""

    def __init__(self, sites: Sequence[str], *, in_turns: bool) -> None:
        self._in_turns = in_turns
        self._spans: dict[str, deque[tuple[int, Span]]] = {site: deque(maxlen=SPANS_MAX) for site in sites}
        self._free = dict.fromkeys(sites, 0.0)
        """since when a site does nothing that is known"""
        self._away: dict[str, tuple[str, float]] = {}
        self._model_at, self._scored_at = 0.0, 0.0
        """when the newest model was there, and when one was last scored: a round begins after that"""
        self._count = 0

    def take(self, event: Event) -> None:
        """Take the next event."""
        site = getattr(event, "site", None)
        if site is not None and site not in self._spans:
            return
        match event:
            case SiteAttached():
                self._back(event.site, event.at)
            case SiteSilent():
                self._lost(event.site, "silent", event.at)
            case SiteFailed(goes_on=False) | SiteRevoked():
                self._lost(event.site, "failed", event.at)
            case UpdateStored():
                began = max(self._free[event.site], event.at - event.seconds)
                asked = max(self._free[event.site], self._model_at, self._scored_at)
                self._add(event.site, "move", asked, began)
                self._add(event.site, "train", began, event.at)
                if self._in_turns:
                    self._model_at = event.at
            case AggregateStored():
                self._model_at = event.at
            case ScoreReported():
                self._add(event.site, "score", max(self._free[event.site], self._model_at), event.at)
                self._scored_at = event.at
            case ModelAdopted():
                self._add(event.site, "adopt", max(self._free[event.site], self._model_at), event.at)

    def _add(self, site: str, kind: str, begin: float, end: float) -> None:
        if 0 < begin < end:
            self._count += 1
            self._spans[site].append((self._count, (kind, begin, end)))
        self._free[site] = max(self._free[site], end)

    def _lost(self, site: str, kind: str, at: float) -> None:
        asked = max(self._model_at, self._scored_at)
        if site not in self._away and not self._in_turns and self._free[site] <= asked:
            self._add(site, "cut", asked, at)
        self._away.setdefault(site, (kind, at))

    def _back(self, site: str, at: float) -> None:
        kind, since = self._away.pop(site, ("", at))
        self._add(site, kind, since, at)

    def part(self) -> Part:
        """Return {site: {number: [kind, from, to]}}. A span that goes on has no end."""
        return {site: {**self._ended(site), **self._open(site)} for site in self._spans}

    def _ended(self, site: str) -> dict[str, object]:
        return {str(number): [kind, round(a, 1), round(b, 1)] for number, (kind, a, b) in self._spans[site]}

    def _open(self, site: str) -> dict[str, object]:
        kind, since = self._away.get(site, ("", 0.0))
        return {"now": [kind, round(since, 1)]} if kind else {}
