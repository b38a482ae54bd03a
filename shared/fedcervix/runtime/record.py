"""A run's record, and the ledger in it: who counted in each round, with what, who did not, and why not.

The coordinator writes the record when the run ends, and sends it to each site that leaves. Coordinator, site and study
read it into these values.

Rules
1. What is read lies within the bounds that stand here. What a coordinator writes does so too.
2. A key that this version does not know is ignored, and one that is missing has the default that stands here. A new key
   has a default, and no default changes: so records of earlier and of later versions are read.
3. The text of a record that was stored or received is the truth. It is copied, and never written anew from these
   values.
4. The fields stand in the order in which they are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, StringConstraints

from fedcervix.core.alarms import WHAT_CHARS_MAX, WORDS_CHARS_MAX
from fedcervix.core.bounds import DIGEST
from fedcervix.core.events import GAUGE_CHARS_MAX, GAUGES_MAX, MOMENT_MAX, REASON_CHARS_MAX, ROUND_MAX
from fedcervix.core.formats import contents
from fedcervix.core.plan import SITES_MAX, Plan, canonical_json
from fedcervix.core.rounds.recording import SOFTWARE_MAX
from fedcervix.core.rounds.state import Outcome
from fedcervix.json_text import parsed
from fedcervix.runtime.typed_json import from_json

COUNT_MAX = 2**40
REASONS_MOST = REASON_CHARS_MAX + 100
"""characters: a reason with the word for how the site was away before it"""
ALARMS_MAX = NOTES_MAX = 16 * SITES_MAX

Site = Annotated[str, StringConstraints(max_length=63)]
Sites = Annotated[tuple[Site, ...], Field(max_length=SITES_MAX)]
Digest = Annotated[str, StringConstraints(pattern=rf"^({DIGEST.pattern})?$")]
"""empty: there is none, or the record does not say"""
Words = Annotated[str, StringConstraints(max_length=100 * SITES_MAX)]
"""of the coordinator; they may name every site"""
Version = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z.+-]{1,40}$")]
Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
Number = Annotated[float, Field(ge=-1e30, le=1e30)]
Length = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Cosine = Annotated[float, Field(ge=-1, le=1)]
Moment = Annotated[float, Field(ge=0, le=MOMENT_MAX)]
"""Unix seconds"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContributionLine:
    """What one site gave to a round."""

    site: Site
    digest: Digest = ""
    """of its model"""
    images: Count
    """that it trained on"""
    steps: Count
    weight: Annotated[float, Field(ge=0, le=COUNT_MAX)] = 0.0
    """its share of the average; in a ring without one, 1"""
    loss: Number = 0.0
    """mean training loss of its last epoch"""
    seconds: Length = 0.0
    """that the training took"""
    norm: Length | None = None
    """what was measured of its step, see `fedcervix.core.measures.Measures`; None where it was not"""
    relative: Length | None = None
    cosine: Cosine | None = None
    distance: Length | None = None
    clipped: Annotated[float, Field(ge=0, le=1)] | None = None
    """by which factor its step was shortened; None where it was not"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingLine:
    """A declared site that gave nothing to a round, and why."""

    site: Site
    reason: Annotated[str, StringConstraints(max_length=REASONS_MOST)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedLine:
    """A model that was accepted and not used."""

    site: Site
    digest: Digest = ""
    norm: Length | None = None
    relative: Length | None = None
    cosine: Cosine | None = None
    distance: Length | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreLine:
    """How a site scored a round's model on its validation images."""

    site: Site
    loss: Number
    """mean of its images"""
    count: Count
    """of its images"""
    gauges: Annotated[
        Mapping[Annotated[str, StringConstraints(max_length=GAUGE_CHARS_MAX)], Number], Field(max_length=GAUGES_MAX)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmLine:
    """What is unusual about a site in a round, see `fedcervix.core.alarms.Alarm`."""

    site: Site
    what: Annotated[str, StringConstraints(max_length=WHAT_CHARS_MAX)]
    words: Annotated[str, StringConstraints(max_length=WORDS_CHARS_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One round."""

    round: Annotated[int, Field(ge=1, le=ROUND_MAX)]
    base: Digest = ""
    """the model that it began with"""
    model: Digest = ""
    """the model that it came to"""
    loss: Number | None
    """mean validation loss of that model; None before it was scored"""
    trimmed: Count = 0
    """values that the trimmed mean left out at each end"""
    begun_at: Moment = 0.0
    ended_at: Moment | None = None
    """None before it has ended"""
    contributions: Annotated[tuple[ContributionLine, ...], Field(max_length=SITES_MAX)]
    missing: Annotated[tuple[MissingLine, ...], Field(max_length=SITES_MAX)]
    dropped: Annotated[tuple[DroppedLine, ...], Field(max_length=SITES_MAX)] = ()
    unusable: Sites = ()
    """sites that could not use the round's model"""
    notes: Annotated[tuple[Words, ...], Field(max_length=NOTES_MAX)] = ()
    scores: Annotated[tuple[ScoreLine, ...], Field(max_length=SITES_MAX)] = ()
    alarms: Annotated[tuple[AlarmLine, ...], Field(max_length=ALARMS_MAX)] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareLine:
    """With which versions of fedcervix a site took part, in the order in which it used them."""

    site: Site
    software: Annotated[tuple[Version, ...], Field(max_length=SOFTWARE_MAX)]


Seconds = Annotated[float, Field(ge=0, le=1e15)]


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePrediction:
    """What a usual round was predicted to take at one site, see `fedcervix.core.forecast`."""

    site: Site
    train_low_s: Seconds = 0.0
    train_high_s: Seconds = 0.0
    score_low_s: Seconds = 0.0
    score_high_s: Seconds = 0.0
    down_low_s: Seconds = 0.0
    """of the models that it fetches; 0 where its line was not measured"""
    down_high_s: Seconds = 0.0
    up_low_s: Seconds = 0.0
    up_high_s: Seconds = 0.0
    down_bytes: Count = 0
    """of these models"""
    up_bytes: Count = 0
    straggler: Annotated[str, StringConstraints(max_length=REASONS_MOST)] = ""
    """why the others wait for it, and what to do; empty where they do not"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPrediction:
    """What a run was predicted to take before its first round, by what its sites had measured."""

    round_low_s: Seconds | None = None
    """of a usual round; None where no step was timed"""
    round_high_s: Seconds | None = None
    before_low_s: Seconds = 0.0
    """that the first round takes longer"""
    before_high_s: Seconds = 0.0
    run_low_s: Seconds | None = None
    """of the whole run: with as few rounds as early stopping allows"""
    run_high_s: Seconds | None = None
    """with all rounds"""
    rounds_least: Count = 0
    unmeasured: Sites = ()
    """sites that have measured nothing, and are not in it"""
    sites: Annotated[tuple[SitePrediction, ...], Field(max_length=SITES_MAX)] = ()


@dataclass(frozen=True, slots=True)
class SiteTraffic:
    """What moved between the coordinator and a site in a round: bytes of models; those sent again count again."""

    site: Site
    down_bytes: Count
    up_bytes: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTraffic:
    """What moved in a round."""

    round: Annotated[int, Field(ge=1, le=ROUND_MAX)]
    sites: Annotated[tuple[SiteTraffic, ...], Field(max_length=SITES_MAX)]

    @property
    def total_bytes(self) -> int:
        """Of all sites."""
        return sum(one.down_bytes + one.up_bytes for one in self.sites)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """A run's record: how the run came about, and how it ended."""

    run: str = ""
    software: Annotated[str, StringConstraints(pattern=r"^(fedcervix [0-9A-Za-z.+-]{1,40})?$")] = ""
    """of the coordinator"""
    sites: Annotated[tuple[SoftwareLine, ...], Field(max_length=SITES_MAX)] = ()
    plan_digest: str = ""
    plan: dict[str, object] | None = None
    """as JSON has it, see `agreed`"""
    outcome: Outcome | None = None
    reason: Words = ""
    """why the run ended so"""
    best_round: Annotated[int, Field(ge=0, le=ROUND_MAX)] = 0
    """whose model is the run's; 0: none"""
    model: Digest | None = None
    adopted: Sites = ()
    """sites that have the model"""
    prediction: RunPrediction | None = None
    """None where no site had measured anything"""
    traffic: Annotated[tuple[RoundTraffic, ...], Field(max_length=ROUND_MAX)] = ()
    """what moved in its rounds, as far as the coordinator has counted it; it does not tell the sites"""
    ledger: Annotated[tuple[LedgerLine, ...], Field(max_length=ROUND_MAX)]

    @property
    def agreed(self) -> Plan:
        """The plan as a value. Raises ValueError where there is none, or none that this version can read."""
        return Plan.parse(canonical_json(self.plan))


def stored_record(text: bytes) -> RecordedRun:
    """Return a record that this institution has stored. Raises ValueError.

    A record of an earlier version may hold a mean loss that is no number: it counts as none.
    """
    return from_json(RecordedRun, contents("the record", parsed(text, parse_constant=lambda _: None)), extra="ignore")
