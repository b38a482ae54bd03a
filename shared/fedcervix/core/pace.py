"""How fast a site is, what it has room for, and how fast its line is: measured before round 1, as ranges.

A site measures it (`site_agent.worker.examining`, `site_agent.federation.line_probe`) and sends it with its `Ready`.
`fedcervix.core.forecast` makes a prediction of it. Nothing of the training depends on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from fedcervix.core.bounds import Within, check_values
from fedcervix.core.plan import Recipe, canonical_json, recipe_to_dict

SECONDS_MOST = 1e9
"""30 years"""
BYTES_MOST = 2**60
MODEL_BYTES_MOST = 2**38
BYTES_PER_S_LEAST = 1.0
"""a line that is said to be slower was not measured"""
STEPS_MOST = 10**9
DIGITS = 3
"""of a number that leaves a site: more would describe its machine, and no prediction needs them"""

Seconds = Annotated[float, Within(0, SECONDS_MOST)]
Bytes = Annotated[int, Within(0, BYTES_MOST)]
BytesPerS = Annotated[float, Within(0, BYTES_MOST)]


@dataclass(frozen=True, slots=True)
class Span:
    """A number that is not known exactly: it lies between two others."""

    low: float
    high: float

    def __add__(self, other: Span) -> Span:
        return Span(self.low + other.low, self.high + other.high)

    def times(self, factor: float) -> Span:
        """Return so many of it."""
        return Span(self.low * factor, self.high * factor)

    @property
    def middle(self) -> float:
        """The number in the middle: to compare with, never to be shown alone."""
        return (self.low + self.high) / 2


NOTHING = Span(0.0, 0.0)


def slowest(estimates: Iterable[Span]) -> Span:
    """Return how long it takes until all that run side by side have ended."""
    found = list(estimates)
    return Span(max((one.low for one in found), default=0.0), max((one.high for one in found), default=0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePace:
    """What one site has measured for a plan. 0 in place of what was not measured; it checks itself."""

    steps: Annotated[int, Within(0, STEPS_MOST)] = 0
    """optimiser steps of an epoch"""
    step_low_s: Seconds = 0.0
    """of one optimiser step"""
    step_high_s: Seconds = 0.0
    task_s: Seconds = 0.0
    """of a training beside its steps: the model is loaded, checked and written"""
    score_low_s: Seconds = 0.0
    """of scoring one model"""
    score_high_s: Seconds = 0.0
    decode_low_s: Seconds = 0.0
    """of decoding what is not decoded yet, once, before the first step"""
    decode_high_s: Seconds = 0.0
    down_low: BytesPerS = 0.0
    """bytes a second from the coordinator to the site"""
    down_high: BytesPerS = 0.0
    up_low: BytesPerS = 0.0
    """bytes a second from the site to the coordinator"""
    up_high: BytesPerS = 0.0
    model_bytes: Annotated[int, Within(0, MODEL_BYTES_MOST)] = 0
    """of the file of a model: exact, and the same at every site"""
    packed_bytes: Annotated[int, Within(0, MODEL_BYTES_MOST)] = 0
    """of what travels in its place: its packed form, or the vector of a secure sum; 0 where the model itself does"""
    memory_bytes: Bytes = 0
    """that the training process needs, at most"""
    memory_free_bytes: Bytes = 0
    """that were available before"""
    disk_bytes: Bytes = 0
    """that a run needs in the home folder at once, beside what lies there before it"""
    disk_left_bytes: Bytes = 0
    """of them, what stays when the run is over"""
    disk_free_bytes: Bytes = 0
    gpu: bool = False
    """it trains on a GPU"""
    vector_s: Seconds = 0.0
    """of a secure sum: of making a vector of an update; 0 where the plan has none"""
    mask_s: Seconds = 0.0
    """of one mask of such a vector"""
    sum_s: Seconds = 0.0
    """of checking a sum, and deriving its model"""

    def __post_init__(self) -> None:
        check_values(self)
        for low, high in (("step_low_s", "step_high_s"), ("score_low_s", "score_high_s"), ("down_low", "down_high")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} is at most {high}")
        if self.up_low > self.up_high or self.decode_low_s > self.decode_high_s:
            raise ValueError("the low end of a range is at most its high end")

    @property
    def step(self) -> Span:
        """One step, in seconds."""
        return Span(self.step_low_s, self.step_high_s)

    @property
    def score(self) -> Span:
        """Scoring one model, in seconds."""
        return Span(self.score_low_s, self.score_high_s)

    @property
    def decode(self) -> Span:
        """Decoding before the first step, in seconds."""
        return Span(self.decode_low_s, self.decode_high_s)

    def down_s(self, size_bytes: int) -> Span:
        """Return how long so many bytes take to the site; 0 where the line was not measured."""
        return _transfer(size_bytes, self.down_low, self.down_high)

    def up_s(self, size_bytes: int) -> Span:
        """Return how long so many bytes take to the coordinator; 0 where the line was not measured."""
        return _transfer(size_bytes, self.up_low, self.up_high)


def _transfer(size_bytes: int, low: float, high: float) -> Span:
    return Span(size_bytes / high, size_bytes / low) if low >= BYTES_PER_S_LEAST else NOTHING


def rounded(value: float) -> float:
    """Return a number with three digits."""
    return float(f"{value:.{DIGITS}g}")


SLOWS_NOTHING = (
    "lr",
    "schedule",
    "warmup_epochs",
    "momentum",
    "weight_decay",
    "decay_norms_and_biases",
    "epochs_max",
    "patience_epochs",
    "temperature",
    "start",
    "classifier",
)
"""keys of a recipe on which the time of a step does not depend"""


def pace_key(recipe: Recipe) -> str:
    """Return what is the same for recipes that cost a site the same: SHA-256, hexadecimal."""
    said = {key: value for key, value in recipe_to_dict(recipe).items() if key not in SLOWS_NOTHING}
    return hashlib.sha256(canonical_json(said).encode()).hexdigest()
