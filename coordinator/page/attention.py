"""What a person should look at, the most urgent first, and whether a person is needed now.

Everything here is said in words that a tired operator acts on: what it is, since when, what follows when, what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from coordinator.run.status_document import FailureStatus, SiteStatus, StatusDocument, WaitStatus
from fedcervix.errors import FedcervixError
from fedcervix.runtime.printing import utc

Level = Literal["bad", "warn", "note"]
"""a person is needed; may be needed soon; should know"""
LEVELS: tuple[Level, ...] = ("bad", "warn", "note")
ITEMS_MAX = 40
ALIKE_MAX = 2
"""sites of which the same is said one by one"""
CERTIFICATE_DAYS = 14.0
"""left, from which on a certificate is spoken of: it renews itself much earlier"""
RANK_MIN = 1.5
"""effective rank below which representations lie almost on one line"""
COLLAPSE_SHARE = 0.99
"""of the collapse loss, from which on a loss is called collapsed"""
DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """One thing to look at. Times are Unix seconds."""

    level: Level
    what: str
    why: str = ""
    do: str = ""
    site: str = ""
    since: float | None = None
    until: float | None = None
    then: str = ""
    """what follows at `until`"""


def unread(what: str, error: FedcervixError) -> Attention:
    """Return that a part of the home cannot be read: the page has less to show, and the run may go on."""
    return Attention(level="warn", what=what, why=error.what, do=error.next_step)


def attention(
    document: StatusDocument,
    *,
    collapse: float,
    certificates: Mapping[str, float],
    source: str = "",
    wrote_at: float | None = None,
) -> list[Attention]:
    """Return what to look at, the most urgent first.

    `collapse`: the loss of a collapsed model. `certificates`: what each is of, and when it ends. `source`: why the
    document is not from a running coordinator; empty where it is. `wrote_at`: when its journal was last written.
    """
    found = [
        *_of_coordinator(document, source, wrote_at),
        *_of_sites(document, source),
        *_of_models(document, collapse),
        *_of_certificates(certificates, document.now),
        *_of_reports(document),
        *_of_failures(document),
    ]
    return in_order(found)


def in_order(found: Sequence[Attention]) -> list[Attention]:
    """Return the most urgent first, with a bound."""
    return sorted(found, key=lambda one: LEVELS.index(one.level))[:ITEMS_MAX]


def _of_coordinator(d: StatusDocument, source: str, wrote_at: float | None) -> Iterator[Attention]:
    if d.outcome == "ABORTED":
        yield Attention(level="bad", what="The run was aborted", why=d.reason, since=d.since or None)
    if d.outcome == "DEGRADED":
        yield Attention(level="warn", what="The run ended, and a site is missing from a round", why=d.reason)
    if source and not d.outcome:
        do = "Start it again: systemctl start fedcervix-coordinator, or by hand as said above. Nothing is lost."
        last = f"Its journal was last written at {utc(wrote_at, '%Y-%m-%d %H:%M:%S')} UTC; " if wrote_at else ""
        yield Attention(level="bad", what="The coordinator is away", why=f"{last}{source}", do=do)
    if d.trouble and d.trouble != source:
        yield from _troubles(d.trouble)


def _troubles(words: str) -> Iterator[Attention]:
    """Take the lines of `FedcervixError.explain` apart: what, likely cause, next."""
    for block in re.split(r"\n(?! )", words):
        what, *rest = block.split("\n")
        parts = dict(part for line in rest if len(part := line.strip().partition(": ")[::2]) == 2)
        cause = parts.get("likely cause", "")
        why = f"{what}. Likely cause: {cause}." if cause else what
        yield Attention(level="bad", what="The coordinator has trouble", why=why, do=parts.get("next", ""))


def grouped(found: Sequence[Attention]) -> list[Attention]:
    """Return as one what is said of more than `ALIKE_MAX` sites: whoever looks has one thing to do, not many."""
    kinds: dict[tuple[Level, str], list[Attention]] = {}
    for one in found:
        kinds.setdefault((one.level, one.do), []).append(one)
    return [one for alike in kinds.values() for one in (alike if len(alike) <= ALIKE_MAX else [_joined(alike)])]


def _joined(alike: Sequence[Attention]) -> Attention:
    names = ", ".join(one.site for one in alike)
    rest = {one.what.removeprefix(one.site).lstrip(": ") for one in alike}
    how = rest.pop() if len(rest) == 1 else "are away"
    for single, many in (("is ", "are "), ("has ", "have "), ("its ", "with their "), ("unusual ", "with unusual ")):
        how = many + how.removeprefix(single) if how.startswith(single) else how
    whys = {one.why for one in alike}
    why = f"{names}: {whys.pop()}" if len(whys) == 1 and "" not in whys else names
    untils = [one.until for one in alike if one.until is not None]
    first = min(alike, key=lambda one: one.until or float("inf"))
    return replace(
        first,
        what=f"{len(alike)} sites {how}",
        why=why,
        site="",
        since=min((one.since for one in alike if one.since is not None), default=None),
        until=min(untils, default=None),
    )


DO: Mapping[str, str] = {
    "silent": "Call the site: does its machine run, and the agent? The agent goes on where it was.",
    "failed": "The site's engineer reads the file of this number in incidents/ there, and starts the agent again.",
    "refused": "The site's policy does not allow the plan: talk to the site.",
    "cut": "Usually the network. The agent connects again without a person.",
    "absent": "The site's engineer starts the agent. If the site never joined, it needs an invitation.",
}


ALL_SILENT = (
    "All sites at once: look at this end first. coordinator doctor says whether the address that the sites know leads "
    "here. The agents go on where they were."
)


def _of_sites(d: StatusDocument, source: str) -> list[Attention]:
    found = grouped([one for site in d.sites if (one := _of_site(d, site, source)) is not None])
    if len(d.sites) > ALIKE_MAX and all(site.presence == "silent" for site in d.sites if site.presence != "revoked"):
        return [replace(one, do=ALL_SILENT) for one in found]
    return found


def _of_site(d: StatusDocument, site: SiteStatus, source: str) -> Attention | None:
    if d.outcome is not None or site.presence == "revoked":
        return None
    wait = next((wait for wait in d.waits if wait.site == site.site), None)
    if site.presence in ("silent", "failed", "refused"):
        word = "refused the plan" if site.presence == "refused" else f"is {site.presence}"
        word = "has failed" if site.presence == "failed" else word
        failure = _open_failure(d.failures, site.site)
        why = f"{failure.hint} ({failure.incident})" if failure else site.reason
        if wait is None:
            why = f"{why}. The run goes on without it." if why else "The run goes on without it."
        return _with_wait("bad" if wait else "warn", f"{site.site} {word}", why, DO[site.presence], site, wait)
    if source:
        return None
    if site.presence == "absent":
        if wait is None or site.connected:
            return None
        how = "is not connected yet" if site.cut_at is None else "is not connected any more"
        return _with_wait("warn", f"{site.site} {how}", "", DO["absent"], site, wait, since=site.cut_at)
    if site.line:
        return _with_wait("warn", f"{site.site}: {site.line}", "", DO["cut"], site, wait, since=site.cut_at)
    return None


def _with_wait(
    level: Level,
    what: str,
    why: str,
    do: str,
    site: SiteStatus,
    wait: WaitStatus | None,
    *,
    since: float | None = None,
) -> Attention:
    return Attention(
        level=level,
        what=what,
        why=why,
        do=do,
        site=site.site,
        since=since or site.since or None,
        until=wait.until if wait else None,
        then=wait.then if wait else "",
    )


def _open_failure(failures: Sequence[FailureStatus], site: str) -> FailureStatus | None:
    return next((one for one in reversed(failures) if one.site == site and _is_open(one)), None)


def _is_open(failure: FailureStatus) -> bool:
    return not failure.goes_on and failure.mended_at is None


def _of_models(d: StatusDocument, collapse: float) -> Iterator[Attention]:
    """Say what is wrong with the newest model that was scored."""
    line = next((line for line in reversed(d.ledger) if line.loss is not None), None)
    if line is None:
        return
    if line.loss is not None and line.loss >= COLLAPSE_SHARE * collapse:
        why = f"round {line.round}: loss {line.loss:.3f}; a model that tells no images apart has {collapse:.3f}"
        do = "In the first rounds this is usual. If it stays so, end the run and change the recipe."
        yield Attention(level="warn", what="The loss is that of a collapsed model", why=why, do=do)
    low = [one.site for one in line.scores if one.gauges.get("effective_rank", RANK_MIN) < RANK_MIN]
    if low:
        why = f"round {line.round}: effective rank below {RANK_MIN:g} at {', '.join(low)}"
        yield Attention(level="warn", what="Representations lie almost on one line", why=why)
    do = "Compare with the rounds before; docs/security.md says what an update can do."
    alarms = (
        Attention(level="warn", what=f"{one.site}: unusual {one.what}", why=one.words, do=do, site=one.site)
        for one in d.ledger[-1].alarms or line.alarms
    )
    yield from grouped([*alarms])


def _of_certificates(certificates: Mapping[str, float], now: float) -> Iterator[Attention]:
    for of, ends in certificates.items():
        left = (ends - now) / DAY_S
        if left < CERTIFICATE_DAYS:
            what = f"The certificate of {of} has ended" if left < 0 else f"The certificate of {of} ends soon"
            do = f"coordinator renew {of} makes a file for the site" if left < 0 and of[:4] != "this" else ""
            yield Attention(level="bad" if left < 2 else "warn", what=what, do=do, until=ends)


def _of_reports(d: StatusDocument) -> Iterator[Attention]:
    for site in d.sites:
        if site.set_aside:
            why = f"{site.set_aside} reports were not written down: it sends more than it may"
            yield Attention(level="note", what=f"{site.site}: reports set aside", why=why, site=site.site)
        if site.calls_refused:
            why = f"{site.calls_refused} calls were refused in the last minute"
            yield Attention(level="note", what=f"{site.site} calls too often", why=why, site=site.site)


def _of_failures(d: StatusDocument) -> Iterator[Attention]:
    """Problems that a site goes on from by itself, while they are new: those of this round."""
    begun = d.ledger[-1].begun_at if d.ledger else 0.0
    for one in d.failures:
        if one.goes_on and one.at >= begun and d.outcome is None:
            why = f"{one.hint} ({one.incident})"
            what = f"{one.site} had a problem and continues"
            yield Attention(level="note", what=what, why=why, site=one.site, since=one.at)
