"""What the metrics need besides the status: the disk, the certificates, and whether the coordinator answers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from coordinator.home.founding import OWN
from coordinator.home.home import Home
from coordinator.home.registry import Registry
from coordinator.notify.undelivered import undelivered
from fedcervix.disk.storage import disk
from fedcervix.monitoring.home_metrics import HomeFacts, Validity
from fedcervix.notify.outbox import LateMessages
from fedcervix.transport import identity


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorFacts(HomeFacts):
    """What is known of a coordinator's home folder and its machine at a moment."""

    federation: str
    answers: bool
    """the coordinator answers its operator"""
    undelivered: tuple[LateMessages, ...] = ()
    """of each receiver of notifications"""


def facts(home: Home, now: datetime, *, answers: bool) -> CoordinatorFacts:
    """Look at a home folder. Raises ConfigError, IdentityError, StorageError."""
    config = home.config()
    with disk(home.folder, "read"):
        room = shutil.disk_usage(home.folder)
    return CoordinatorFacts(
        now=now.timestamp(),
        federation=config.federation.name,
        answers=answers,
        certificates=(*_own(home), *_of_sites(home, config.run.sites)),
        disk_free_bytes=room.free,
        disk_size_bytes=room.total,
        undelivered=undelivered(home),
    )


def _own(home: Home) -> Iterator[Validity]:
    for name in ("authority", *OWN):
        found = identity.identify(home.pem(f"{name}.crt"))
        yield Validity(name, "", found.not_before.timestamp(), found.not_after.timestamp())


def _of_sites(home: Home, sites: tuple[str, ...]) -> Iterator[Validity]:
    if not home.has(home.registry):
        return
    roll = Registry(home.registry).roll()
    for site in sites:
        if found := roll.certificate(site):
            yield Validity("site", site, found.since.timestamp(), found.not_after.timestamp())
