"""What a site signs: a record of each report that becomes an event of the run.

A record is a text of `fedcervix.trust.chain`. Site and coordinator make its values of the same event, each for itself:
so the signature covers what the event says. What the coordinator adds to an event (times, measures) is not in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fedcervix.core.events import (
    BoxesStored,
    CloseSigned,
    Event,
    Masked,
    ModelAdopted,
    ModelUnusable,
    ReleaseStored,
    Rewrapped,
    ScoreReported,
    Seal,
    SiteAttached,
    SiteFailed,
    SiteRefused,
    Task,
    UpdateStored,
)
from fedcervix.trust.chain import End, Value, Values, real, text_of
from fedcervix.trust.heads import Head
from fedcervix.trust.statements import digest_of

RECORD = "fedcervix record 1"
"""tag of a signature over a record"""
BOXES = "fedcervix boxes 1"
"""tag of the digest that stands for boxes in a record"""
SIGNED_CHARS_MAX = 8192

SAID: Mapping[type[Event], tuple[str, tuple[str, ...]]] = {
    SiteAttached: ("ready", ()),
    SiteRefused: ("refusal", ("reason",)),
    UpdateStored: ("update", ("task", "digest", "images", "steps", "loss", "seconds", "packed", "masked", "seal")),
    BoxesStored: ("boxes", ("task", "roster", "boxes")),
    ReleaseStored: ("release", ("task", "listed", "masks", "signature")),
    CloseSigned: ("close", ("task", "remaining", "signature")),
    ScoreReported: ("score", ("task", "loss_sum", "count", "images", "gauges")),
    ModelUnusable: ("unusable", ("task", "steps")),
    ModelAdopted: ("adopted", ("task",)),
    Rewrapped: ("rewrapped", ("task", "seal")),
    SiteFailed: ("failure", ("stage", "hint", "incident", "kind", "goes_on")),
}
"""event -> what its record calls it, and the fields that the site itself says"""


def values_of(event: Event, run: str, plan_digest: str) -> Values:
    """Return what a site says with an event: the values of its record. Raises KeyError where no site says it."""
    what, fields = SAID[type(event)]
    said = {name: _value(found) for name in fields if (found := getattr(event, name)) is not None}
    return {"run": run, "plan": plan_digest, "site": event.site, "what": what, **said}  # type: ignore[union-attr]


def record_of(event: Event, run: str, plan_digest: str, place: Values | None = None) -> str:
    """Return the record of an event: the text that a site signs. `place`: where it stands, see `place_of`."""
    return text_of({**values_of(event, run, plan_digest), **(place or {})})


def place_of(head: Head | None, egress: End | None) -> Values:
    """Return where a record stands: after the last head that its site has checked, and in what has left the site.

    So it cannot be said again later as if it were new, and the site's own ledger is fixed by those of its partners.
    """
    checked: Values = {"head": {"round": head.round, "hash": head.end.hash}} if head else {}
    left: Values = {"egress": {"entries": egress.entries, "hash": egress.hash}} if egress else {}
    return {**checked, **left}


def _value(found: Any) -> Value:
    """Return a field of an event as a record has it."""
    if isinstance(found, Task):
        later: Values = {"attempt": found.attempt} if found.attempt > 1 else {}
        passed_on: Values = {"readers": [*found.readers]} if found.readers else {}
        return {"kind": found.kind.value, "round": found.round, "base": found.base, **later, **passed_on}
    if isinstance(found, Masked | Seal):
        return {name: _value(value) for name, value in dataclasses.asdict(found).items()}
    if isinstance(found, tuple):
        return _values(found)
    return real(found) if isinstance(found, float) else found


def _values(found: tuple[Any, ...]) -> Value:
    """Return gauges by name; of boxes, which are many, the digest; names as they are."""
    if found and all(isinstance(one, str) for one in found):
        return list(found)
    if found and all(isinstance(value, str) for _, value in found):
        return digest_of(BOXES, *(text for pair in found for text in pair))
    return {name: real(number) for name, number in found}
