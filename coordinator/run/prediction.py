"""What a run takes, as the status document and the record have it: the prediction, and the time that is left."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.run.status_document import PredictionStatus
from fedcervix.core.forecast import RunForecast, SiteForecast, forecast, left_s, seen
from fedcervix.core.pace import SitePace, Span
from fedcervix.core.rounds.state import Run
from fedcervix.runtime.quantities import durations
from fedcervix.runtime.record import RunPrediction, SitePrediction


def prediction(run: Run, paces: Mapping[str, SitePace]) -> RunPrediction | None:
    """Return what a run was predicted to take; None where no site has measured anything."""
    return told_of(forecast(run.plan, paces)) if paces else None


def told_of(found: RunForecast) -> RunPrediction:
    """Return a prediction as it is recorded."""
    whole = found.run
    return RunPrediction(
        round_low_s=_tenths(found.round.low) if found.round else None,
        round_high_s=_tenths(found.round.high) if found.round else None,
        before_low_s=_tenths(found.before.low),
        before_high_s=_tenths(found.before.high),
        run_low_s=_tenths(whole.low) if whole else None,
        run_high_s=_tenths(whole.high) if whole else None,
        rounds_least=found.rounds_least,
        unmeasured=found.unmeasured,
        sites=tuple(map(site_prediction, found.sites)),
    )


def prediction_status(run: Run, paces: Mapping[str, SitePace], now: float) -> PredictionStatus | None:
    """Return the same with the time that is left; without a measurement, from the second round on."""
    ended = ended_s(run)
    predicted = forecast(run.plan, paces)
    if not paces and not seen(ended):
        return None
    in_round_s = now - run.current.begun_at if run.rounds and not run.current.ended_at else 0.0
    idle = len(ended) - min(run.best_round, len(ended))
    left = None if run.outcome else left_s(predicted, ended, max(0.0, in_round_s), idle)
    told = told_of(predicted)
    return PredictionStatus(
        round_low_s=told.round_low_s,
        round_high_s=told.round_high_s,
        before_low_s=told.before_low_s,
        before_high_s=told.before_high_s,
        run_low_s=told.run_low_s,
        run_high_s=told.run_high_s,
        rounds_least=told.rounds_least,
        unmeasured=told.unmeasured,
        sites=told.sites,
        left_low_s=_tenths(left.low) if left else None,
        left_high_s=_tenths(left.high) if left else None,
        left_from="" if left is None else "rounds" if seen(ended) else "measured",
    )


def ended_s(run: Run) -> list[float]:
    """Return how long each round took that has ended, in seconds."""
    return [one.ended_at - one.begun_at for one in run.rounds if one.ended_at]


def ended_rounds(run: Run) -> int:
    """Return how many rounds have ended."""
    return len(run.rounds) - bool(run.rounds and not run.current.ended_at)


def words_of(found: RunPrediction, rounds_max: int) -> str:
    """Return a prediction in one sentence; empty where no step was timed."""
    if found.round_low_s is None or found.round_high_s is None or found.run_low_s is None or found.run_high_s is None:
        return ""
    fewest = f"{found.rounds_least} to " if found.rounds_least < rounds_max else ""
    text = f"a round takes {durations(Span(found.round_low_s, found.round_high_s))}"
    text += f", the run of {fewest}{rounds_max} rounds {durations(Span(found.run_low_s, found.run_high_s))}"
    return text + (f"; without {', '.join(found.unmeasured)}, not measured" if found.unmeasured else "")


SECONDS_MOST = 1e15
"""that a record holds: a site may have said what it likes"""


def _tenths(seconds: float) -> float:
    return round(min(seconds, SECONDS_MOST), 1)


def site_prediction(one: SiteForecast) -> SitePrediction:
    """Return what is told of one site."""
    times = {
        f"{name}_{end}_s": round(min(getattr(getattr(one, name), end), SECONDS_MOST), 3)
        for name in ("train", "score", "down", "up")
        for end in ("low", "high")
    }
    return SitePrediction(
        site=one.site, **times, down_bytes=one.down_bytes, up_bytes=one.up_bytes, straggler=one.straggles
    )
