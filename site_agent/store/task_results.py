"""What a federation's task gave at this site: numbers that the worker finds, the history keeps, and reports show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from site_agent.store.audit_sheets import AuditSheet


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """A model that was made, or trained for one round."""

    digest: str
    images: int
    steps: int
    loss: float
    """of the last epoch"""
    seconds: float
    gauges: Mapping[str, float] = field(default_factory=dict)
    """see `site_agent.training.collapse_metrics`; empty for a first model"""
    precision: str = ""
    said: tuple[str, ...] = ()
    """lines for a person at the site"""
    base: str = ""
    """digest of the model that it was trained from; empty for a first model, and in notes of earlier versions"""
    audit: AuditSheet | None = None
    """what an attacker would learn from it; None where nobody asked"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreResult:
    """A model's loss on this site's validation images."""

    loss_sum: float
    count: int
    images: int
    """that this site trains on"""
    gauges: Mapping[str, float]
    knn_auc: float | None = None
    """None where features are not finite numbers, or the site has too few labels"""
    said: tuple[str, ...] = ()

    @property
    def loss(self) -> float:
        """Return the mean loss."""
        return self.loss_sum / max(1, self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusableResult:
    """A model that gives no finite loss at this site. That is a result too: all sites decide what follows."""

    steps: int
    """that training took before"""
    said: tuple[str, ...] = ()


TaskResult = TrainResult | ScoreResult | UnusableResult


@dataclass(frozen=True, slots=True)
class History:
    """What the rounds of a run gave at this site, by round."""

    train: Mapping[int, TrainResult] = field(default_factory=dict)
    score: Mapping[int, ScoreResult] = field(default_factory=dict)
