"""Which versions of the wire this software speaks, how it computes, and whether two ends can work together.

Rules
1. The wire's version is raised where an end of the version before could not take part. A new field does not raise it; a
   new method and a new kind of message do, and are used only where the version that was agreed has them.
2. The coordinator speaks its newest version and the one before it, so that sites need not be upgraded on one day.
3. `NUMERICS` is raised by hand where the golden digests change: the same work then gives other numbers. All sites of a
   run compute alike, and so does its coordinator.
4. A site reads the format of the run's plan (see fedcervix.core.plan_formats).
5. Two ends that cannot work together are no failure: the site waits until one of the two is upgraded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fedcervix import __version__
from fedcervix.core.plan import check
from fedcervix.core.plan_formats import FORMAT
from fedcervix.errors import VersionError

WIRE_VERSIONS = (2,)
"""that this software speaks, oldest first: docs/wire.md lists what each one brought"""
NUMERICS = 1
SOFTWARE = re.compile(r"[0-9A-Za-z.+-]{1,40}")
"""a version of fedcervix, such as 0.1.0"""


@dataclass(frozen=True, slots=True)
class Build:
    """What the software of one end speaks, and how it computes."""

    software: str = __version__
    """its version; empty where that is not known"""
    wire_min: int = WIRE_VERSIONS[0]
    wire_max: int = WIRE_VERSIONS[-1]
    numerics: int = NUMERICS
    plan_format: int = FORMAT
    """the latest that it reads"""

    def __post_init__(self) -> None:
        check(not self.software or SOFTWARE.fullmatch(self.software) is not None, "not a version of fedcervix")
        check(0 <= self.wire_min <= self.wire_max, "the lowest version of the protocol is above the highest")

    @property
    def name(self) -> str:
        """Words for it."""
        return f"fedcervix {self.software}" if self.software else "software of an unknown version"

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


def agreed(site: Build, coordinator: Build, *, numerics: int, plan_format: int) -> int:
    """Return the version of the wire to speak. Raises VersionError, which says what to install where.

    `numerics`, `plan_format`: of the run, which keeps both. So there the site gives way, or the coordinator goes back.
    """
    version = newest_common(site, coordinator)
    if not version:
        ahead = site.wire_min > coordinator.wire_max
        newer, older = (site, "the coordinator") if ahead else (coordinator, "the site")
        raise VersionError(
            f"the site ({site.name}) speaks {site.wire} of the protocol, "
            f"the coordinator ({coordinator.name}) {coordinator.wire}",
            cause=f"the software of {older} is too old for the other side",
            next_step=f"install {newer.name if newer.software else 'a newer fedcervix'} at {older}",
        )
    if site.plan_format < plan_format:
        raise VersionError(
            f"the site ({site.name}) reads plans up to format {site.plan_format}, that of the run has {plan_format}",
            cause="the plan uses what the site's version does not know",
            next_step=f"install {coordinator.name} at the site",
        )
    if coordinator.numerics != numerics:
        raise VersionError(
            f"the run began with numerics {numerics}, the coordinator ({coordinator.name}) computes with "
            f"numerics {coordinator.numerics}",
            cause="the coordinator was upgraded during the run; one run must not mix the two",
            next_step="install the earlier version at the coordinator to finish the run, or end the run there",
        )
    if site.numerics != numerics:
        raise VersionError(
            f"the site ({site.name}) computes with numerics {site.numerics}, the run with numerics {numerics}",
            cause="the same work gives other numbers there; one run must not mix the two",
            next_step=f"install {coordinator.name} at the site",
        )
    return version
