"""What was read -> what the page shows, part by part, as plain tables (see `fedcervix.page.board`). Pure.

There is no picture here, no path, no name of a file of the site's collection, and no identifier of a woman: nothing of
the manifest is read but to keep its words out of errors (`wording`). Times are Unix seconds, bytes are bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict

from fedcervix.core.collapse import collapse_loss
from fedcervix.page.board import Part
from site_agent.federation.activity import Doing, Note
from site_agent.page.gpus import Gpu
from site_agent.page.headline import headline
from site_agent.page.seen import LeftFor, SeenRun, SeenSite
from site_agent.page.trouble import needed_bytes, troubles
from site_agent.page.wording import Clean, plain

SPANS_MAX = 400
"""of the timeline: the newest ones"""
EPOCHS_MAX = 1000
ROUNDS_MAX = 200
"""of the tables of epochs and rounds: the newest ones"""


def document(seen: SeenSite, clean: Clean) -> dict[str, Part]:
    """Return all parts of the page."""
    found = troubles(seen, clean)
    return {
        "clock": {"now": int(seen.at)},
        "headline": _given(asdict(headline(seen, found))),
        "site": _site(seen),
        "agent": _agent(seen),
        "trouble": {one.key: {**_given(asdict(one)), "rank": rank} for rank, one in enumerate(found)},
        "run": _run(seen.run, seen.doing) if seen.run else {},
        "timeline": _timeline(seen),
        "epochs": _epochs(seen.run) if seen.run else {},
        "rounds": _rounds(seen),
        "left": _left(seen),
        "disk": _disk(seen),
        "gpus": {one.name: _gpu(one) for one in seen.gpus},
        "images": _images(seen.run) if seen.run else {},
        "parts": {f"{one.kind} {plain(one.name)}": _given(asdict(one)) for one in seen.parts},
        "certificates": {one.title: _given(asdict(one)) for one in seen.certificates},
        "partners": _partners(seen),
    }


def _given(values: Mapping[str, object]) -> dict[str, object]:
    """Return what has a value: neither None nor an empty text."""
    return {name: value for name, value in values.items() if value is not None and value != ""}


def _site(seen: SeenSite) -> Part:
    names = ("name", "federation", "coordinator", "command", "version")
    return {name: plain(str(getattr(seen, name))) for name in names}


def _agent(seen: SeenSite) -> Part:
    """What the agent does, in numbers; `state` alone where none runs."""
    doing = seen.doing
    if doing is None:
        return {"state": "unknown" if seen.alive else "off", "alive": seen.alive}
    told: dict[str, object] = {
        "alive": seen.alive,
        "state": doing.state if seen.alive else "off",
        "since": doing.since if seen.alive or doing.ended else doing.written_at,
        "connected": doing.connected and seen.alive,
        "line_since": doing.line_since,
        "ended": plain(doing.ended),
        "round": doing.round,
    }
    if seen.alive:
        told |= {"task": plain(doing.task), "stage": plain(doing.stage), "rest": plain(doing.rest)}
        told |= {"done": doing.done, "of": doing.of, "unit": plain(doing.unit), "heard_at": doing.heard_at}
        told |= {"loss": round(doing.loss, 4), "images_per_s": round(doing.images_per_s, 1)}
        told |= {"ends_at": ends_at(seen)}
    return _given(told)


def ends_at(seen: SeenSite) -> float | None:
    """Return when the present stage ends at its present pace (Unix seconds); None where that is not known."""
    doing = seen.doing
    if doing is None or doing.of <= doing.done or doing.done <= doing.stage_from:
        return None
    pace = (doing.heard_at - doing.stage_since) / (doing.done - doing.stage_from)
    return round(doing.heard_at + pace * (doing.of - doing.done))


def _run(run: SeenRun, doing: Doing | None) -> Part:
    plan = run.plan
    known = {*run.history.train, *run.history.score, *(one.round for one in run.notes)}
    if doing is not None and doing.run == run.name:
        known.add(doing.round)
    return {
        "name": run.name,
        "mode": plan.mode,
        "profile": plan.profile,
        "sites": ", ".join(plan.sites),
        "rounds_max": plan.rounds_max,
        "round": max(known, default=0),
        "epochs_per_round": plan.terms.epochs_per_round,
        "outcome": plain(run.outcome),
        "collapse": collapse_loss(plan.recipe.batch_images, plan.recipe.loss),
        "is_sum": plan.terms.secure_sum,
        "contract": plan.digest[:12],
    }


def _timeline(seen: SeenSite) -> Part:
    """What this site did, span by span; the last one is open, unless no agent runs or the run is over."""
    if seen.run is None:
        return {}
    changes = [one for one in seen.run.notes if one.state]
    spans = {}
    for number, one in enumerate(changes):
        until = changes[number + 1].at if number + 1 < len(changes) else None
        if until is None and not seen.alive and one.state != "off" and seen.doing is not None:
            until = seen.doing.written_at
        if until is None or until > one.at:
            spans[f"{one.at:.3f}"] = _span(one, until)
    if seen.run.outcome:
        spans = {at: span for at, span in spans.items() if "until" in span}
    elif changes and (lost := _lost(seen)):
        spans[f"{lost.at:.3f}"] = _span(lost, None)
    return dict(list(spans.items())[-SPANS_MAX:])


def _lost(seen: SeenSite) -> Note | None:
    """Return since when no agent runs, where the one before was killed and no other has begun."""
    doing = seen.doing
    is_lost = doing is not None and not seen.alive and not doing.ended
    return Note(at=doing.written_at, round=doing.round, state="off") if doing is not None and is_lost else None


def _span(one: Note, until: float | None) -> Part:
    return _given({"at": one.at, "until": until, "state": one.state, "round": one.round})


def _epochs(run: SeenRun) -> Part:
    """The loss of each epoch here; where an epoch was done twice, after a checkpoint, the last one counts."""
    found = {one.epoch: one for one in run.notes if one.epoch}
    rows = {f"{epoch}": {"round": one.round, "loss": one.loss, "at": one.at} for epoch, one in sorted(found.items())}
    return dict(list(rows.items())[-EPOCHS_MAX:])


def _rounds(seen: SeenSite) -> Part:
    if seen.run is None:
        return {}
    history, left = seen.run.history, seen.egress.rounds if seen.egress else {}
    numbers = sorted({*history.train, *history.score, *left})[-ROUNDS_MAX:]
    rows: dict[str, object] = {}
    for number in numbers:
        train, score = history.train.get(number), history.score.get(number)
        row = _given({"left": left[number].bytes, "exact": left[number].is_exact} if number in left else {})
        if train:
            row |= {"train": train.loss, "seconds": train.seconds, "steps": train.steps, "images": train.images}
        if score:
            row |= {"score": score.loss, "scored": score.count}
            row |= {name: score.gauges[name] for name in ("effective_rank",) if name in score.gauges}
        rows[f"{number}"] = row
    return rows


def _left(seen: SeenSite) -> Part:
    if seen.egress is None:
        return {}
    return {"all": _sum(seen.egress.all), "run": _sum(seen.egress.run)}


def _sum(left: LeftFor) -> Part:
    return {"bytes": left.bytes, "exact": left.is_exact, "models": left.models, "reports": left.reports}


def _disk(seen: SeenSite) -> Part:
    if seen.disk is None:
        return {}
    # in steps, so that a page is not told of every block
    step = 2**20
    free = seen.disk.free_bytes // step * step
    return {"free": free, "total": seen.disk.total_bytes, "needed": needed_bytes(seen.run)}


def _gpu(one: Gpu) -> Part:
    return _given(asdict(one) | {"name": plain(one.name)})


def _images(run: SeenRun) -> Part:
    found = run.examined
    if found is None:
        return {}
    counts = {"at": found.at, "images": found.images, "women": found.women, "training": found.training_images}
    return counts | {"unreadable": _counts(found.unreadable_for), "aside": _counts(found.aside_for)}


def _counts(reasons: Mapping[str, int]) -> Part:
    return {plain(reason): count for reason, count in _most(reasons.items())}


def _most(reasons: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    return sorted(reasons, key=lambda one: (-one[1], one[0]))


def _partners(seen: SeenSite) -> Part:
    if seen.run is None:
        return {}
    return {name: {"pinned": name in seen.pins} for name in seen.run.plan.sites if name != seen.name}
