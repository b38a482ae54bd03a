"""The parts of the page that follow from a status document and the run's plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coordinator.page.attention import LEVELS, Attention, attention, in_order
from coordinator.page.round_parts import COLUMNS, RoundParts
from coordinator.page.site_states import SiteState, site_state
from coordinator.run.status_document import FailureStatus, SiteStatus, StatusDocument, WaitStatus
from fedcervix.core.collapse import collapse_loss
from fedcervix.core.plan import Plan
from fedcervix.page.board import Part

PACE_ROUNDS = 5
"""the time left follows from so many rounds that ended last"""
SHARE_OF_BYTES = {"none": 1.0, "bfloat16": 0.5, "int8": 0.25}
"""of a model's bytes that travel, at least"""


@dataclass(frozen=True, slots=True)
class StatusContext:
    """What is known beside the document."""

    plan: Plan | None
    """None where this version cannot read it"""
    model_bytes: int | None = None
    """of one model, as it is stored"""
    certificates: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """what each is of, and when it ends"""
    source: str = ""
    """why the document is not from a running coordinator; empty where it is"""
    wrote_at: float | None = None
    """when the newest event was written into the journal"""
    unread: tuple[Attention, ...] = ()
    """what of the home cannot be read"""


def filled(fields: Mapping[str, object]) -> dict[str, object]:
    """Return the fields that say something: neither None, nor an empty text or list."""
    return {name: value for name, value in fields.items() if value is not None and value not in ("", [], {}, ())}


def whole_s(moment: float | None) -> int | None:
    """Return a moment to the second: it is computed anew for each document, and would differ by milliseconds."""
    return None if moment is None else round(moment)


class StatusParts:
    """Makes the parts; remembers what it made of rounds that have ended."""

    def __init__(self) -> None:
        self._rounds = RoundParts()

    def of(self, d: StatusDocument, around: StatusContext) -> dict[str, Part]:
        """Return the parts by name."""
        plan = around.plan
        collapse = collapse_loss(plan.recipe.batch_images, plan.recipe.loss) if plan else float("inf")
        found = attention(
            d,
            collapse=collapse,
            certificates=around.certificates,
            source=around.source,
            wrote_at=around.wrote_at,
        )
        found = in_order([*found, *around.unread])
        return {
            "clock": {"now": round(d.now)},
            "source": filled({"away": around.source}),
            "run": _run(d, plan, collapse if plan else None),
            "headline": headline(d, found, around.source),
            "attention": {f"{place:02}": _attention(one) for place, one in enumerate(found)},
            "sites": {site.site: _site(site, place, d, around.source) for place, site in enumerate(d.sites)},
            "waits": {wait.site: _wait(wait) for wait in d.waits},
            "rounds": self._rounds.of(d.ledger, len(d.sites)),
            "failures": {f"{place:03}": _failure(one) for place, one in enumerate(d.failures)},
            "pace": pace(d, plan, around.model_bytes),
            "prediction": prediction(d),
        }


def _run(d: StatusDocument, plan: Plan | None, collapse: float | None) -> Part:
    shape = None if plan is None else "ring" if plan.mode_rules.in_turns else "star"
    return filled(
        {
            "run": d.run,
            "mode": d.mode,
            "profile": d.profile,
            "plan": d.plan[:12],
            "phase": d.phase,
            "since": whole_s(d.since) or None,
            "round": d.round,
            "rounds_max": d.rounds_max,
            "best_round": d.best_round or None,
            "outcome": d.outcome,
            "reason": d.reason,
            "shape": shape,
            "holder": holder(d, plan),
            "columns": list(COLUMNS),
            "collapse": None if collapse is None else round(collapse, 4),
            "patience": plan.terms.patience_rounds if plan else None,
            "quorum": plan.terms.quorum if plan else None,
            "sealed": (plan.terms.sealed or None) if plan else None,
            "secure_sum": (plan.terms.secure_sum or None) if plan else None,
        }
    )


def holder(d: StatusDocument, plan: Plan | None) -> str:
    """Return the site that holds the model in a ring; empty where the coordinator or all sites have it."""
    in_turn = plan is not None and plan.mode_rules.in_turns and d.phase == "training" and not d.outcome
    return d.waits[0].site if in_turn and d.waits else ""


PHASES = {
    "gathering": "waiting for sites to connect",
    "seeding": "the first model is made",
    "training": "training",
    "releasing": "masks are released",
    "closing": "an attempt is closed",
    "aggregating": "the coordinator averages",
    "scoring": "the sites score the new model",
    "publishing": "the sites receive the result",
}


ENDED = {"OK": ("done", "The run is finished"), "DEGRADED": ("warn", "The run is finished, with gaps")}


def headline(d: StatusDocument, found: Sequence[Attention], source: str) -> Part:
    """Return in words how things stand, and whether a person is needed: level `bad`, `warn`, `ok` or `done`."""
    levels = [one.level for one in found]
    worst = next((level for level in LEVELS[:2] if level in levels), "ok")
    if d.outcome:
        level, words = ENDED.get(d.outcome, ("bad", "The run was aborted"))
        return {"level": level, "words": words, "more": d.reason}
    if source:
        return {"level": "bad", "words": "The coordinator is away", "more": "This is what its journal says."}
    counts = {level: levels.count(level) for level in LEVELS}
    words = {
        "bad": f"{_things(counts['bad'])} a person",
        "warn": f"{_things(counts['warn'])} a look",
        "ok": "All is well",
    }[worst]
    doing = PHASES.get(d.phase, d.phase)
    more = f"Round {d.round} of at most {d.rounds_max}: {doing}." if d.round else f"Before round 1: {doing}."
    return {"level": worst, "words": words, "more": more}


def _things(count: int) -> str:
    return "One thing needs" if count == 1 else f"{count} things need"


def _attention(one: Attention) -> Part:
    moments = {name: whole_s(getattr(one, name)) for name in ("since", "until")}
    return filled({**dataclasses.asdict(one), **moments})


def _site(site: SiteStatus, place: int, d: StatusDocument, source: str) -> Part:
    state = site_state(site, is_over=d.outcome is not None, is_watched=not source)
    works = state.mark == "work"
    return filled(
        {
            "place": place,
            "word": state.word,
            "mark": state.mark,
            "since": whole_s(_since(site, d, state)) or None,
            "reason": site.reason,
            "line": site.line,
            "doing": site.doing if site.presence == "present" and not d.outcome else "",
            **({"stage": site.stage, "done": site.done, "of": site.of, "unit": site.unit} if works else {}),
            **({"loss": round(site.loss, 4) or None, "rate": round(site.images_per_s) or None} if works else {}),
            "software": site.software,
            "received": site.received_bytes or None,
            "sent": site.sent_bytes or None,
        }
    )


def _since(site: SiteStatus, d: StatusDocument, state: SiteState) -> float | None:
    """Return since when a site is in the state that is shown; None where only its presence has a time."""
    if site.presence != "present":
        return site.since
    if site.line:
        return site.cut_at
    return next((wait.since for wait in d.waits if wait.site == site.site), None) if state.mark == "work" else None


def _wait(wait: WaitStatus) -> Part:
    return filled(
        {
            "reason": wait.reason,
            "since": whole_s(wait.since) or None,
            "until": whole_s(wait.until),
            "then": wait.then,
        }
    )


def _failure(one: FailureStatus) -> Part:
    moments = {"at": whole_s(one.at), "mended_at": whole_s(one.mended_at)}
    words = {name: getattr(one, name) for name in ("site", "stage", "hint", "incident", "kind")}
    return filled({**words, "goes_on": one.goes_on or None, **moments})


def prediction(d: StatusDocument) -> Part:
    """Return what was predicted before round 1, what is left by it, and the sites that the others would wait for."""
    said = d.prediction
    if said is None:
        return {}
    left = {"left_low_s": said.left_low_s, "left_high_s": said.left_high_s}
    found = {
        "round_low_s": said.round_low_s,
        "round_high_s": said.round_high_s,
        **{name: None if value is None else round(value, -1) for name, value in left.items()},
        "stragglers": {site.site: site.straggler for site in said.sites if site.straggler},
        "unmeasured": ", ".join(said.unmeasured),
    }
    return filled(found)


def pace(d: StatusDocument, plan: Plan | None, model_bytes: int | None) -> Part:
    """Return how long rounds take, what is left, and how many bytes travel.

    `left_least_s`, `left_most_s`: if all rounds take place, by the fastest and the slowest of the last ones. The bytes
    that are expected are those of models that arrive whole: each site fetches one model a round and sends one.
    `received_bytes`, `sent_bytes`: of models, as they were counted since the coordinator started.
    """
    ended = [line.ended_at - line.begun_at for line in d.ledger if line.ended_at and line.begun_at]
    last = ended[-PACE_ROUNDS:]
    left = d.rounds_max - len(ended)
    found: dict[str, object] = {"rounds_ended": len(ended)}
    if last:
        found |= {"round_least_s": round(min(last), 1), "round_most_s": round(max(last), 1)}
    if last and not d.outcome:
        found |= {"left_least_s": round(min(last) * left), "left_most_s": round(max(last) * left)}
    if plan is not None and model_bytes:
        each = model_bytes * SHARE_OF_BYTES[plan.terms.compression]
        found |= {
            "model_bytes": model_bytes,
            "round_bytes": round(2 * len(d.sites) * each),
        }
        if last and not d.outcome:
            found["left_bytes"] = round(2 * len(d.sites) * each) * left
    moved = {
        "received_bytes": sum(site.received_bytes for site in d.sites),
        "sent_bytes": sum(site.sent_bytes for site in d.sites),
    }
    if any(moved.values()):
        found |= moved
    return found
