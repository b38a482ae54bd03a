"""What is read from a site's home, and from its machine, as values: the page is a function of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fedcervix.core.plan import Plan
from fedcervix.errors import FedcervixError
from site_agent.federation.activity import Doing, ExaminedSite, Note
from site_agent.page.gpus import Gpu
from site_agent.store.task_results import History


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRun:
    """A run that this site takes part in, or took part in last."""

    name: str
    plan: Plan
    outcome: str = ""
    """as the coordinator told it; empty while the run goes on"""
    notes: tuple[Note, ...] = ()
    history: History = field(default_factory=History)
    examined: ExaminedSite | None = None
    model_bytes: int = 0
    """of one model; 0: none was here yet"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftFor:
    """What left this site for something."""

    bytes: int = 0
    is_exact: bool = True
    """False: at most so many"""
    models: int = 0
    reports: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenEgress:
    """The egress ledger, summed up."""

    all: LeftFor = field(default_factory=LeftFor)
    rounds: Mapping[int, LeftFor] = field(default_factory=dict)
    """of the run that is shown"""
    run: LeftFor = field(default_factory=LeftFor)
    """that run"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenCertificate:
    """A certificate of this site's home."""

    title: str
    not_after: float
    """Unix seconds"""
    not_before: float = 0.0
    warning: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenDisk:
    """The disk of the home folder."""

    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPart:
    """A model, classifier or report of this site: a folder of its home."""

    kind: Literal["model", "classifier", "report"]
    name: str
    made_at: float
    """Unix seconds"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenSite:
    """Everything that the page shows, at one moment."""

    at: float
    """Unix seconds"""
    name: str = ""
    federation: str = ""
    coordinator: str = ""
    command: str = "site-agent"
    """that starts the agent of this home"""
    version: str = ""
    alive: bool = False
    """an agent works on this home"""
    pid: int | None = None
    doing: Doing | None = None
    run: SeenRun | None = None
    incident: str = ""
    """number of the newest failure"""
    incident_at: float = 0.0
    disk: SeenDisk | None = None
    gpus: tuple[Gpu, ...] = ()
    gpus_silent_s: float = 0.0
    certificates: tuple[SeenCertificate, ...] = ()
    pins: frozenset[str] = frozenset()
    """names of the partners that are pinned"""
    egress: SeenEgress | None = None
    parts: tuple[SeenPart, ...] = ()
    faults: tuple[FedcervixError, ...] = ()
    """what could not be read"""
