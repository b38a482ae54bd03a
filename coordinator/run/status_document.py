"""How a run stands, as values: what `coordinator status --json` prints, `--watch` is sent, and a person is shown.

Times are Unix seconds; `*_s` are durations in seconds. The fields stand in the order in which they are written.
docs/running.md says what each means.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedcervix.core.events import SiteFailed
from fedcervix.runtime.record import LedgerLine, RoundTraffic, RunPrediction


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteStatus:
    """How a site stands."""

    site: str
    presence: str
    since: float
    reason: str
    connected: bool
    cut_at: float | None
    """when its connection ended; None where it is connected, or was not since the coordinator started"""
    line: str
    """what is wrong with its connection, in words"""
    software: str = ""
    """version of fedcervix"""
    doing: str
    stage: str
    """how far it is with it, in this and the next five; empty and 0 where it has not said"""
    done: int
    of: int
    unit: str
    loss: float
    images_per_s: float
    set_aside: int
    """its reports that were not written down"""
    lease_ends_at: float | None
    """None where no lease runs"""
    calls_open: int
    calls_refused: int
    """in the last minute"""
    connections: int
    heard_at: float | None = None
    """when it last gave a sign of life, to the second; None where it has not since the coordinator started"""
    received_bytes: int = 0
    """of models that it has sent since the coordinator started; bytes that were sent again count again"""
    sent_bytes: int = 0
    """of models that it was sent"""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitStatus:
    """A site that the run waits for."""

    site: str
    reason: str
    since: float
    cut_at: float | None
    """as of the site; None where its line is good"""
    until: float | None
    """None as long as it shows signs of life"""
    then: str
    """what follows"""


@dataclass(frozen=True, slots=True)
class FailureStatus(SiteFailed):
    """What broke at a site."""

    mended_at: float | None = None
    """when the site came back"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionStatus(RunPrediction):
    """What the run was predicted to take, and the time that is left of it."""

    left_low_s: float | None = None
    """None where nothing is known, and once the run has ended"""
    left_high_s: float | None = None
    left_from: str = ""
    """measured: by what the sites have measured; rounds: by the rounds that have ended"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusDocument:
    """How a run stands."""

    run: str
    mode: str
    profile: str
    plan: str
    """digest"""
    phase: str
    since: float
    now: float
    round: int
    """0 before the first"""
    rounds_max: int
    best_round: int
    outcome: str | None
    reason: str
    trouble: str
    sites: tuple[SiteStatus, ...]
    waits: tuple[WaitStatus, ...]
    ledger: tuple[LedgerLine, ...]
    """of all rounds, or of the last ones"""
    failures: tuple[FailureStatus, ...]
    prediction: PredictionStatus | None = None
    """None where no site has measured anything"""
    traffic: tuple[RoundTraffic, ...] = ()
    """what moved in the last rounds that have ended"""
    collapse_loss: float = 0.0
    """the loss of a model that tells no image from another, by the plan; 0: not known"""
