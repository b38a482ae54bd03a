"""Which versions of the wire this software speaks, and whether two ends can work together.

Rules
1. The wire's version is raised where an end of the version before could not take part. A new field does not raise it; a
   new kind of message does, and is used only where the version that was agreed has it (see `codec.SINCE`).
2. The coordinator speaks its newest version and the one before it, so that sites need not be upgraded on one day.
3. All sites of a run compute alike, and so does its coordinator (see fedcervix.core.numerics).
4. A site reads the format of the run's plan (see fedcervix.core.plan_formats).
5. Two ends that cannot work together are no failure: the site waits until one of the two is upgraded.
6. Each end compares the same numbers, and says in its own words what they mean. What the other end calls its software
   is a text of its choice, and part of no advice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from fedcervix import __version__
from fedcervix.core.numerics import NUMERICS
from fedcervix.core.plan import check
from fedcervix.core.plan_formats import FORMAT
from fedcervix.errors import VersionError

WIRE_VERSIONS = (2,)
"""that this software speaks, oldest first: docs/wire.md lists what each one brought"""
SOFTWARE = re.compile(r"[0-9A-Za-z.+-]{1,40}")
"""a version of fedcervix, such as 0.1.0"""

End = Literal["site", "coordinator"]


@dataclass(frozen=True, slots=True)
class Build:
    """What the software of one end speaks, and how it computes."""

    software: str = __version__
    """its version, as that end says; empty where it does not say it"""
    wire_min: int = WIRE_VERSIONS[0]
    wire_max: int = WIRE_VERSIONS[-1]
    numerics: int = NUMERICS
    plan_format: int = FORMAT
    """the latest that it reads; of a coordinator that speaks to a site: that of its run's plan"""

    def __post_init__(self) -> None:
        check(not self.software or SOFTWARE.fullmatch(self.software) is not None, "not a version of fedcervix")
        check(0 <= self.wire_min <= self.wire_max, "the lowest version of the protocol is above the highest")

    @property
    def wire(self) -> str:
        """Words for the versions of the wire that it speaks."""
        spoken = sorted({self.wire_min, self.wire_max})
        return f"version{'s' if len(spoken) > 1 else ''} {' to '.join(map(str, spoken))}"


HERE = Build()


def newest_common(one: Build, other: Build) -> int:
    """Return the newest version of the wire that both ends speak; 0 where there is none."""
    newest = min(one.wire_max, other.wire_max)
    return newest if newest >= max(one.wire_min, other.wire_min) else 0


def agreed(site: Build, coordinator: Build, *, at: End) -> int:
    """Return the version of the wire to speak. Raises VersionError, in the words of the end `at` which this is asked.

    A run keeps its plan and its numerics. So where these are what differs, another version belongs at the site.
    """
    gap = _gap(site, coordinator)
    if gap is None:
        return newest_common(site, coordinator)
    ours = site if at == "site" else coordinator
    named = {end: f"this {end} (fedcervix {ours.software})" if end == at else f"the {end}" for end in _ENDS}
    raise VersionError(
        gap.what.format(**named),
        cause=gap.cause,
        next_step=_ADVICE[at, gap.install_at].format(needed=gap.needed, software=ours.software),
    )


@dataclass(frozen=True, slots=True)
class _Gap:
    """Why two ends cannot work together; its texts hold numbers alone of what the other end has said."""

    what: str
    cause: str
    install_at: End
    """where another version belongs"""
    needed: str
    """what that version does"""


_ENDS: tuple[End, End] = ("site", "coordinator")
_WAITS = "until then a running agent waits, and tries again by itself"
_ADVICE: dict[tuple[End, End], str] = {
    ("site", "site"): f"ask the coordinator's operator which fedcervix to install here: one that {{needed}}; {_WAITS}",
    ("site", "coordinator"): f"ask the coordinator's operator to install a fedcervix that {{needed}}; {_WAITS}",
    ("coordinator", "site"): "install a fedcervix at the site that {needed}, as fedcervix {software} here does",
    ("coordinator", "coordinator"): "install a fedcervix at the coordinator that {needed}",
}
"""by who says it, and by where another version belongs"""


def _gap(site: Build, coordinator: Build) -> _Gap | None:
    if not newest_common(site, coordinator):
        ahead = site.wire_min > coordinator.wire_max
        behind: End = "coordinator" if ahead else "site"
        return _Gap(
            f"{{site}} speaks {site.wire} of the protocol, {{coordinator}} {coordinator.wire}",
            f"the software of the {behind} is too old for the other side",
            behind,
            f"speaks version {site.wire_min if ahead else coordinator.wire_min} of the protocol",
        )
    if site.plan_format < coordinator.plan_format:
        return _Gap(
            f"the plan of the run has format {coordinator.plan_format}; {{site}} reads formats up to "
            f"{site.plan_format}",
            "the plan uses what the site's version does not know",
            "site",
            f"reads plans of format {coordinator.plan_format}",
        )
    if site.numerics != coordinator.numerics:
        return _Gap(
            f"{{site}} computes with numerics {site.numerics}, the run with numerics {coordinator.numerics}",
            "the same work gives other numbers there; one run must not mix the two",
            "site",
            f"computes with numerics {coordinator.numerics}",
        )
    return None
