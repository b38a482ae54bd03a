"""How things stand, as one JSON-able document: what `coordinator status --json` prints and `--watch` draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.liveness import Sign
from fedcervix.plan import Plan
from fedcervix.rounds import Phase, Round, Run, instruction, mean_loss, waits, weights


def overview(
    run: Run, signs: Mapping[str, tuple[Sign, float | None]], *, now: float, trouble: str = ""
) -> dict[str, Any]:
    """Return the document. Times are Unix seconds; `*_s` are durations in seconds."""
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
        "sites": [_site(run, name, signs, now) for name in run.plan.sites],
        "waits": [
            {"site": w.site, "reason": w.reason, "since": w.since, "until": w.until, "then": w.then.value}
            for w in waits(run)
        ],
        "ledger": [ledger_line(run, round_) for round_ in run.rounds],
        "failures": [
            {"site": f.site, "stage": f.stage, "hint": f.hint, "incident": f.incident, "at": f.at} for f in run.failures
        ],
    }


def _site(run: Run, name: str, signs: Mapping[str, tuple[Sign, float | None]], now: float) -> dict[str, Any]:
    site = run.site(name)
    sign, lease_s = signs.get(name, (None, None))
    progress = sign.progress if sign else None
    asked = instruction(run, name) if run.phase is not Phase.ABORTED else None
    current = progress is not None and progress.task == asked
    return {
        "site": name,
        "presence": site.presence.value,
        "since": site.since,
        "reason": site.reason,
        "connected": bool(sign and sign.streams),
        "doing": str(asked) if asked is not None else "",
        "stage": progress.stage if current and progress else "",
        "done": progress.done if current and progress else 0,
        "of": progress.of if current and progress else 0,
        "unit": progress.unit if current and progress else "",
        "loss": progress.loss if current and progress else 0.0,
        "images_per_s": progress.images_per_s if current and progress else 0.0,
        "lease_ends_at": None if lease_s is None else now + lease_s,
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
