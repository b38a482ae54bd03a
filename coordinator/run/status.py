"""Says how a run stands: `overview` makes the document, `ledger_line` the line of a round in it and in the record.

Texts that sites have said are cut to a length and freed of control characters, so that the document without its ledger
has a bound (see `coordinator.run.changes`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from coordinator.alarms.alarm_sources import alarms
from coordinator.limits.admission import NOTHING, Held
from coordinator.run.liveness import STOPPED, Line
from coordinator.run.prediction import prediction_status
from coordinator.run.status_document import FailureStatus, SiteStatus, StatusDocument, WaitStatus
from fedcervix.core.collapse import collapse_loss
from fedcervix.core.events import LOSS_MAX, SiteFailed
from fedcervix.core.measures import Measures, clip_scales, trimmed_per_side
from fedcervix.core.pace import SitePace
from fedcervix.core.plan import Plan
from fedcervix.core.rounds.coordinator_work import weights
from fedcervix.core.rounds.instructions import instruction
from fedcervix.core.rounds.scores import mean_loss
from fedcervix.core.rounds.state import Phase, Presence, Round, Run
from fedcervix.core.rounds.waits import OnTimeout, Wait, waits
from fedcervix.printable import in_columns
from fedcervix.runtime.record import (
    AlarmLine,
    ContributionLine,
    DroppedLine,
    LedgerLine,
    MissingLine,
    RoundTraffic,
    ScoreLine,
)
from fedcervix.runtime.worker_protocol import WorkProgress
from fedcervix.transport.backoff import SIGN_S

LINE_CUT = "its connection is cut"
UPGRADE = "waits for an upgrade"
UNHEARD = "no message comes from it"
UNHEARD_S = 2 * SIGN_S
"""two signs of life that did not come"""
NOT_BACK = "it has not connected since the coordinator started"
REASON_CHARS_MAX = 700
"""of a site's reason; the whole of a failure stands under `failures`"""
TRAFFIC_ROUNDS = 12
"""of which it says what moved; the record has all"""
WAIT_CHARS_MAX = 300
"""of the reason of a wait, or of a site's absence from a round"""

MEASURES = tuple(field.name for field in dataclasses.fields(Measures))
"""of a step, as they stand in the ledger"""


def overview(
    run: Run,
    lines: Mapping[str, Line],
    held: Mapping[str, Held] = MappingProxyType({}),
    *,
    now: float,
    trouble: str = "",
    since: int = 0,
    paces: Mapping[str, SitePace] = MappingProxyType({}),
    traffic: tuple[RoundTraffic, ...] = (),
) -> StatusDocument:
    """Return the document.

    `lines`: how each site's line is, and `held`: what it holds of the listener; empty where no coordinator is running.
    `since`: the ledger begins with the round after this one. `paces`: what sites have measured. `traffic`: what moved.
    """
    recipe = run.plan.recipe
    sites = {name: _site(run, name, lines.get(name), held.get(name, NOTHING), now) for name in run.plan.sites}
    return StatusDocument(
        run=run.run,
        mode=run.plan.mode,
        profile=run.plan.profile,
        plan=run.plan.digest,
        phase=run.phase.value,
        since=run.since,
        now=now,
        round=len(run.rounds),
        rounds_max=run.plan.rounds_max,
        best_round=run.best_round,
        outcome=run.outcome.value if run.outcome else None,
        reason=run.reason,
        trouble=trouble,
        sites=tuple(sites.values()),
        waits=tuple(_wait(wait, sites[wait.site]) for wait in waits(run)),
        ledger=tuple(_shortened(ledger_line(run, round_)) for round_ in run.rounds[since:]),
        failures=_failures(run),
        prediction=prediction_status(run, paces, now),
        traffic=traffic[-TRAFFIC_ROUNDS:],
        collapse_loss=collapse_loss(recipe.batch_images, recipe.loss) if recipe.batch_images > 1 else 0.0,
    )


def _failures(run: Run) -> tuple[FailureStatus, ...]:
    mended = {(mended.site, mended.incident): mended.at for mended in run.mended}
    return tuple(_failure(failure, mended.get((failure.site, failure.incident))) for failure in run.failures)


def _failure(failure: SiteFailed, mended_at: float | None) -> FailureStatus:
    return FailureStatus(
        site=failure.site,
        stage=shown(failure.stage),
        hint=shown(failure.hint),
        incident=shown(failure.incident),
        at=failure.at,
        kind=shown(failure.kind),
        goes_on=failure.goes_on,
        mended_at=mended_at,
    )


def _shortened(line: LedgerLine) -> LedgerLine:
    missing = (replace(one, reason=shown(one.reason, WAIT_CHARS_MAX)) for one in line.missing)
    return replace(line, missing=tuple(missing))


def shown(words: str, chars_max: int = REASON_CHARS_MAX) -> str:
    """Return what a site said, cut to a length, without what would move the cursor or begin a line."""
    plain = in_columns(words[: chars_max + 1])
    return plain if len(plain) <= chars_max else f"{plain[: chars_max - 3]}..."


def _site(run: Run, name: str, line: Line | None, held: Held, now: float) -> SiteStatus:
    site = run.site(name)
    lost, lost_for_s = _lost(line)
    asked = instruction(run, name) if run.phase is not Phase.ABORTED else None
    said = line.progress if line else None
    progress = said if said and said.task == asked else WorkProgress("")
    return SiteStatus(
        site=name,
        presence=site.presence.value,
        since=site.since,
        reason=shown(site.reason),
        connected=bool(line and line.connected),
        cut_at=now - lost_for_s if lost_for_s is not None else None,
        line=lost if site.presence in (Presence.PRESENT, Presence.SILENT) or (line and line.upgrade) else "",
        software=(line.software if line else "") or "".join(site.software[-1:]),
        doing=str(asked) if asked is not None else "",
        stage=shown(progress.stage),
        done=progress.done,
        of=progress.of,
        unit=shown(progress.unit),
        loss=progress.loss,
        images_per_s=progress.images_per_s,
        set_aside=line.set_aside if line else 0,
        lease_ends_at=now + line.lease_ends_in_s if line and line.lease_ends_in_s is not None else None,
        calls_open=held.open,
        calls_refused=held.refused,
        connections=held.connections,
        heard_at=_heard(line, now),
        received_bytes=line.received_bytes if line else 0,
        sent_bytes=line.sent_bytes if line else 0,
    )


def _heard(line: Line | None, now: float) -> float | None:
    """Return when a site was last heard. To the second: two clocks agree no better, and what changed is sent again."""
    if line is None or (line.cut_for_s is None and not line.connected):
        return None
    return float(round(now - line.unheard_for_s))


def _lost(line: Line | None) -> tuple[str, float | None]:
    """Say what is wrong with a line, and for how many seconds; ("", None) where nothing is."""
    if line is None:
        return "", None
    if line.stopped:
        return STOPPED, line.cut_for_s or line.unheard_for_s
    if line.upgrade:
        return shown(f"{UPGRADE}: {line.upgrade}"), line.cut_for_s
    if line.connected:
        return (UNHEARD, line.unheard_for_s) if line.unheard_for_s > UNHEARD_S else ("", None)
    return NOT_BACK if line.cut_for_s is None else LINE_CUT, line.cut_for_s


GETS_READY = "connected; it checks its images and hardware before it is ready"


def _wait(wait: Wait, site: SiteStatus) -> WaitStatus:
    """Who is waited for; one that works, but whose line is cut, for no longer than its lease."""
    down, reason = bool(site.line), shown(wait.reason, WAIT_CHARS_MAX)
    if site.presence == Presence.ABSENT and site.connected:
        reason = GETS_READY
    return WaitStatus(
        site=wait.site,
        reason=f"{reason}; {site.line}" if down else reason,
        since=wait.since,
        cut_at=site.cut_at if down else None,
        until=site.lease_ends_at if down and wait.then is OnTimeout.LEASE else wait.until,
        then=wait.then.value,
    )


def ledger_line(run: Run, round_: Round) -> LedgerLine:
    """Return one round of the roster ledger: who counted, with what, who did not, and why not.

    `dropped`: models that were accepted but later not used; `unusable`: who could not use the round's model.
    """
    scorers, clipped = [score.site for score in round_.scores], _clipped(run, round_)
    return LedgerLine(
        round=round_.number,
        base=round_.base,
        model=round_.candidate,
        loss=_bounded(mean_loss(run, round_, scorers)) if scorers else None,
        trimmed=trimmed_per_side(run.plan.terms, len(round_.contributions)),
        begun_at=round_.begun_at,
        ended_at=round_.ended_at or None,
        contributions=tuple(
            ContributionLine(
                site=update.site,
                digest=update.digest,
                images=update.images,
                steps=update.steps,
                weight=weight,
                loss=_bounded(update.loss),
                seconds=update.seconds,
                **_measured(round_.measured.get(update.site)),
                clipped=clipped.get(update.site),
            )
            for update, weight in zip(round_.contributions, shares(run.plan, round_), strict=True)
        ),
        missing=tuple(MissingLine(site=missing.site, reason=missing.reason) for missing in round_.missing),
        dropped=tuple(
            DroppedLine(site=update.site, digest=update.digest, **_measured(round_.measured.get(update.site)))
            for update in round_.dropped
        ),
        unusable=tuple(said.site for said in round_.unusable),
        notes=round_.notes,
        scores=tuple(
            ScoreLine(site=s.site, loss=_bounded(s.loss), count=s.count, gauges=dict(s.gauges)) for s in round_.scores
        ),
        alarms=tuple(AlarmLine(site=a.site, what=a.what, words=a.words) for a in alarms(run, round_)),
    )


def _bounded(loss: float) -> float:
    """Return a loss as it could be received today: old journals hold some that were not bounded."""
    return max(-LOSS_MAX, min(loss, LOSS_MAX))


def _measured(measures: Measures | None) -> dict[str, float | None]:
    """Return what was measured of a step, to six digits; None where it was not."""
    found = {name: getattr(measures, name, None) for name in MEASURES}
    return {name: None if value is None else float(f"{value:.6g}") for name, value in found.items()}


def _clipped(run: Run, round_: Round) -> dict[str, float]:
    """Return by which factor steps were shortened, by site; empty where none was."""
    measured = [round_.measured.get(update.site) for update in round_.contributions]
    scales = clip_scales([found.norm for found in measured if found], run.plan.terms.clip)
    sites = [update.site for update, found in zip(round_.contributions, measured, strict=True) if found]
    return {site: float(f"{scale:.6g}") for site, scale in zip(sites, scales, strict=False) if scale < 1}


def shares(plan: Plan, round_: Round) -> list[float]:
    """Return each contribution's share of the average; in a ring without one, every hop counts wholly."""
    counts = weights(plan, round_)
    return [count / sum(counts) for count in counts] if plan.averages else counts
