"""What a run will take, by what its sites have measured: time as a range, bytes exactly. Pure functions.

Where sites train at once, a round lasts until the slowest one has sent its model, and then until the slowest one has
scored the average. In a ring the hops follow each other, and then all sites score.

With secure sums, a site masks its vector once for each holder before it sends it; then the holders release as many
masks as there are sites; then each site checks the sum and makes the model of it before it scores.

What is not in it: a site that is away, and an attempt that is made again without it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fedcervix.core.pace import NOTHING, SitePace, Span, slowest
from fedcervix.core.plan import Plan

STRAGGLER_TIMES = 3.0
"""a site that takes more than so many times the median of the others is named"""
STRAGGLER_S_MIN = 2.0
"""and that takes at least so long in a round: less than that, nobody waits for"""
BETWEEN_S = Span(0.1, 1.0)
"""of a round: reports, the journal, the coordinator's average of small models"""
AVERAGED_BYTES_PER_S = Span(1e8, 1e9)
"""bytes of models that a coordinator reads, checks and averages a second"""
ROUNDS_LOOKED_AT = 5
"""the last ended ones: by them the time that is left is told"""
DRIFT = 0.1
"""by so much a round may differ from those before it"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteForecast:
    """What a usual round takes at one site: not the first one, in which it fetches the first model, too."""

    site: str
    pace: SitePace
    train: Span
    """seconds; with the making of what is sent"""
    release: Span
    """of a holder's masks, with their way to the coordinator; nothing of any other site"""
    score: Span
    """with the making of the model where it comes as a sum"""
    down: Span
    """of all models that it fetches in a round; 0 where the line was not measured"""
    up: Span
    """of what it sends after a training"""
    down_bytes: int
    up_bytes: int
    straggles: str = ""
    """why it takes much longer than the others, and what to do; empty where it does not"""

    @property
    def whole(self) -> Span:
        """All that it does in a round."""
        return self.train + self.release + self.score + self.down + self.up

    @property
    def line(self) -> Span:
        """What of it is the line's."""
        return self.down + self.up


@dataclass(frozen=True, slots=True, kw_only=True)
class RunForecast:
    """What a run takes. Sites that have measured nothing are not in it."""

    sites: tuple[SiteForecast, ...]
    unmeasured: tuple[str, ...]
    round: Span | None
    """seconds of a usual round; None where no site has measured a step"""
    before: Span
    """seconds that the first round takes longer: images are decoded, the first model is fetched"""
    rounds_least: int
    """that early stopping lets a run have"""
    rounds_most: int

    @property
    def run(self) -> Span | None:
        """Seconds of the whole run: from its shortest course to its longest."""
        if self.round is None:
            return None
        return Span(
            self.round.low * self.rounds_least + self.before.low, self.round.high * self.rounds_most + self.before.high
        )


def forecast(plan: Plan, paces: Mapping[str, SitePace]) -> RunForecast:
    """Return what a run of this plan takes, by what its sites have measured."""
    here = [site for site in plan.sites if site in paces]
    sites = [site_forecast(plan, site, paces[site]) for site in here]
    timed = all(one.pace.step_high_s for one in sites)
    return RunForecast(
        sites=tuple(_with_cure(plan, one, [other for other in sites if other is not one]) for one in sites),
        unmeasured=tuple(site for site in plan.sites if site not in paces),
        round=_round(plan, sites) if sites and timed else None,
        before=slowest(one.pace.decode + one.pace.down_s(one.pace.model_bytes) for one in sites),
        rounds_least=min(plan.rounds_max, 1 + plan.terms.patience_rounds),
        rounds_most=plan.rounds_max,
    )


def site_forecast(plan: Plan, site: str, pace: SitePace) -> SiteForecast:
    """Return what a usual round takes at one site."""
    down, up = moved(plan, site, pace)
    steps, holders = pace.steps * plan.terms.epochs_per_round, len(plan.terms.holders)
    beside_s = pace.task_s + pace.vector_s + pace.mask_s * holders
    return SiteForecast(
        site=site,
        pace=pace,
        train=pace.step.times(steps) + _exactly(beside_s),
        release=_released(plan, site, pace),
        score=pace.score + _exactly(pace.sum_s),
        down=pace.down_s(sum(down)),
        up=pace.up_s(pace.packed_bytes or pace.model_bytes),
        down_bytes=sum(down),
        up_bytes=up,
    )


def _released(plan: Plan, site: str, pace: SitePace) -> Span:
    """Return the seconds in which a holder makes and sends its masks: one for each site, in one vector."""
    if site not in plan.terms.holders:
        return NOTHING
    return _exactly(pace.mask_s * len(plan.sites)) + pace.up_s(pace.packed_bytes or pace.model_bytes)


def _exactly(seconds: float) -> Span:
    return Span(seconds, seconds)


def moved(plan: Plan, site: str, pace: SitePace) -> tuple[tuple[int, int], int]:
    """Return the bytes that a site moves in a usual round: ((to train, to score), back).

    A site that is at work already has the model that it has scored: where all train at once, only the average is
    fetched. In a ring, each site but the first fetches the model of the one before it, and all but the last the result.
    """
    model, packed = pace.model_bytes, pace.packed_bytes or pace.model_bytes
    if not plan.mode_rules.in_turns:
        masks = packed if site in plan.terms.holders else 0
        return (0, packed), packed + masks
    place, last = plan.sites.index(site) if site in plan.sites else 0, len(plan.sites) - 1
    differs = plan.terms.compression == "int8"  # only who has the base can read the packed form
    to_train = 0 if place == 0 else model if differs and place > 1 else packed
    to_score = 0 if place == last else model if differs and place != last - 1 else packed
    if plan.averages:
        to_score = model if differs else packed
    return (to_train, to_score), packed


def _round(plan: Plan, sites: Sequence[SiteForecast]) -> Span:
    """Return the seconds of a usual round: the slowest site, or in a ring the sum of all hops."""
    scoring = slowest(one.pace.down_s(moved(plan, one.site, one.pace)[0][1]) + one.score for one in sites)
    trained = [one.pace.down_s(moved(plan, one.site, one.pace)[0][0]) + one.train + one.up for one in sites]
    if plan.mode_rules.in_turns:
        hops = sum(trained, NOTHING) + BETWEEN_S.times(len(sites))
        return hops + scoring + (_averaging(sites) if plan.averages else NOTHING)
    return slowest(trained) + slowest(one.release for one in sites) + _averaging(sites) + scoring + BETWEEN_S


def _averaging(sites: Sequence[SiteForecast]) -> Span:
    size_bytes = sum(one.pace.model_bytes for one in sites)
    return Span(size_bytes / AVERAGED_BYTES_PER_S.high, size_bytes / AVERAGED_BYTES_PER_S.low)


# --- who the others wait for --------------------------------------------------------------------------------------


def _with_cure(plan: Plan, one: SiteForecast, others: Sequence[SiteForecast]) -> SiteForecast:
    if not others or one.whole.middle < STRAGGLER_S_MIN:
        return one
    usual_s = statistics.median(other.whole.middle for other in others)
    if one.whole.middle <= STRAGGLER_TIMES * usual_s:
        return one
    times = one.whole.middle / max(usual_s, 1e-3)
    words = f"{one.site} takes {times:.0f} times as long in a round as the other sites. {_cure(plan, one, others)}"
    return replace(one, straggles=words)


def _cure(plan: Plan, one: SiteForecast, others: Sequence[SiteForecast]) -> str:
    """Say what makes a site slow, by what weighs most, and which options change it."""
    usual_steps = max(1, statistics.median(other.pace.steps for other in others))
    usual_step_s = statistics.median(other.pace.step.middle for other in others)
    if one.line.middle > one.whole.middle - one.line.middle:
        wanted = "bfloat16" if plan.terms.compression == "none" else "int8"
        if plan.terms.compression == "int8":
            return "Its line is slow, and models are compressed already: a faster line, or more epochs_per_round"
        return f'Its line is slow: compression = "{wanted}" under [run.terms] needs fewer bytes'
    if one.pace.steps > STRAGGLER_TIMES * usual_steps:
        return (
            f"It has more images: {one.pace.steps:,} steps in an epoch, {usual_steps:,.0f} at the others. "
            + _fewer_steps(plan)
        )
    if one.pace.step.middle > STRAGGLER_TIMES * usual_step_s and not one.pace.gpu:
        return (
            f"One step takes {one.pace.step.middle:.2g} s there, {usual_step_s:.2g} s at the others: it trains on the "
            'CPU. A GPU ([hardware] device = "cuda" in its site.toml); or a smaller network or image for all: '
            "architecture, image_px under [run.recipe]"
        )
    return f"It has more steps, and they are slower. {_fewer_steps(plan)}"


def _fewer_steps(plan: Plan) -> str:
    larger = f"a larger batch_images under [run.recipe] (now {plan.recipe.batch_images})"
    if plan.terms.epochs_per_round > 1:
        fewer = f"Fewer epochs_per_round under [run.terms] (now {plan.terms.epochs_per_round})"
        return f"{fewer} make rounds shorter; {larger} makes fewer steps of the same images"
    return f"{larger[0].upper()}{larger[1:]} makes fewer steps of the same images; or fewer images there"


# --- afterwards ---------------------------------------------------------------------------------------------------


def left_s(predicted: RunForecast, ended_s: Sequence[float], in_round_s: float, idle_rounds: int) -> Span | None:
    """Return the seconds that a run still takes: from its shortest course to its longest; None where nothing is known.

    `ended_s`: of each round that has ended; `in_round_s`: since the round in progress began; `idle_rounds`: ended ones
    since the best. The rounds that were seen count more than what was predicted: from the second one on, the
    prediction is theirs.
    """
    usual = seen(ended_s) or predicted.round
    if usual is None:
        return None
    done = len(ended_s)
    patience = predicted.rounds_least - 1
    most = max(0, predicted.rounds_most - done)
    least = min(most, max(1, patience - idle_rounds) if done else predicted.rounds_least)
    before = predicted.before if done == 0 else NOTHING
    return Span(
        max(0.0, usual.low * least + before.low - in_round_s), max(0.0, usual.high * most + before.high - in_round_s)
    )


def seen(ended_s: Sequence[float]) -> Span | None:
    """Return what a usual round takes by those that have ended; None before the second. The first one decodes."""
    usual = [one for one in ended_s[1:] if math.isfinite(one) and one > 0][-ROUNDS_LOOKED_AT:]
    return Span(min(usual) * (1 - DRIFT), max(usual) * (1 + DRIFT)) if usual else None
