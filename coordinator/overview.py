"""How things stand, as one JSON-able document: what `coordinator status --json` prints and `--watch` draws."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from coordinator.liveness import Line
from fedcervix.plan import Plan
from fedcervix.rounds import Phase, Presence, Round, Run, Then, Wait, instruction, mean_loss, waits, weights
from fedcervix.rpc import SIGN_S

LINE_CUT = "its line is cut"
UNHEARD = "nothing is heard of it"
UNHEARD_S = 2 * SIGN_S
"""two signs of life that did not come"""
NOT_BACK = "it has not connected since the coordinator was started"


def overview(run: Run, lines: Mapping[str, Line], *, now: float, trouble: str = "") -> dict[str, Any]:
    """Return the document. Times are Unix seconds; `*_s` are durations in seconds.

    `lines`: how each site's line is; empty where no coordinator is running.
    """
    sites = [_site(run, name, lines.get(name), now) for name in run.plan.sites]
    return {
        "run": run.run,
        "mode": run.plan.mode,
        "profile": run.plan.profile,
        "plan": run.plan.digest,
        "phase": run.phase.value,
        "since": run.since,
        "now": now,
        "round": len(run.rounds),
        "rounds_max": run.plan.rounds_max,
        "best_round": run.best_round,
        "outcome": run.outcome.value if run.outcome else None,
        "reason": run.reason,
        "trouble": trouble,
        "sites": sites,
        "waits": [_wait(wait, site) for wait in waits(run) for site in sites if site["site"] == wait.site],
        "ledger": [ledger_line(run, round_) for round_ in run.rounds],
        "failures": [dataclasses.asdict(failure) for failure in run.failures],
    }


def _site(run: Run, name: str, line: Line | None, now: float) -> dict[str, Any]:
    site = run.site(name)
    lost, lost_for_s = _lost(line)
    progress = line.progress if line else None
    asked = instruction(run, name) if run.phase is not Phase.ABORTED else None
    current = progress is not None and progress.task == asked
    return {
        "site": name,
        "presence": site.presence.value,
        "since": site.since,
        "reason": site.reason,
        "connected": bool(line and line.connected),
        "cut_at": now - lost_for_s if lost_for_s is not None else None,
        "line": lost if site.presence in (Presence.PRESENT, Presence.SILENT) else "",
        "doing": str(asked) if asked is not None else "",
        "stage": progress.stage if current and progress else "",
        "done": progress.done if current and progress else 0,
        "of": progress.of if current and progress else 0,
        "unit": progress.unit if current and progress else "",
        "loss": progress.loss if current and progress else 0.0,
        "images_per_s": progress.images_per_s if current and progress else 0.0,
        "lease_ends_at": now + line.lease_ends_in_s if line and line.lease_ends_in_s is not None else None,
    }


def _lost(line: Line | None) -> tuple[str, float | None]:
    """Say what is wrong with a line, and for how many seconds; ("", None) where nothing is."""
    if line is None:
        return "", None
    if line.connected:
        return (UNHEARD, line.unheard_for_s) if line.unheard_for_s > UNHEARD_S else ("", None)
    return NOT_BACK if line.cut_for_s is None else LINE_CUT, line.cut_for_s


def _wait(wait: Wait, site: dict[str, Any]) -> dict[str, Any]:
    """Who is waited for; one that works, but whose line is cut, for no longer than its lease."""
    down = bool(site["line"])
    return {
        "site": wait.site,
        "reason": f"{wait.reason}; {site['line']}" if down else wait.reason,
        "since": wait.since,
        "cut_at": site["cut_at"] if down else None,
        "until": site["lease_ends_at"] if down and wait.then is Then.LEASE else wait.until,
        "then": wait.then.value,
    }


def ledger_line(run: Run, round_: Round) -> dict[str, Any]:
    """Return one round of the roster ledger: who counted, with what, who did not, and why not."""
    scorers = [score.site for score in round_.scores]
    return {
        "round": round_.number,
        "base": round_.base,
        "model": round_.candidate,
        "loss": mean_loss(run, round_, scorers) if scorers else None,
        "begun_at": round_.begun_at,
        "ended_at": round_.ended_at or None,
        "contributions": [
            {
                "site": update.site,
                "digest": update.digest,
                "images": update.images,
                "steps": update.steps,
                "weight": weight,
                "loss": update.loss,
                "seconds": update.seconds,
            }
            for update, weight in zip(round_.contributions, shares(run.plan, round_), strict=True)
        ],
        "missing": [{"site": missing.site, "reason": missing.reason} for missing in round_.missing],
        "scores": [{"site": s.site, "loss": s.loss, "count": s.count, "gauges": dict(s.gauges)} for s in round_.scores],
    }


def shares(plan: Plan, round_: Round) -> list[float]:
    """Return each contribution's share of the average; in a ring without one, every hop counts wholly."""
    counts = weights(plan, round_)
    averaged = plan.mode == "csfssl" or plan.terms.ring_result == "cycle-average"
    return [count / sum(counts) for count in counts] if averaged else counts
