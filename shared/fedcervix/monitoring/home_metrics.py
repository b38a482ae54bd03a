"""The metrics that a coordinator and a site both have. `role` tells them apart where one machine has both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fedcervix import __version__
from fedcervix.monitoring.declared import Declared, Sample

BUILD = Declared("build_info", "1; the version of fedcervix that wrote these metrics.", ("role", "version"))
GENERATED = Declared("generated_timestamp_seconds", "When these metrics were made.", ("role",))
DISK_FREE = Declared("disk_free_bytes", "Free bytes on the disk of the home folder, for this user.", ("role",))
DISK_SIZE = Declared("disk_size_bytes", "Bytes on the disk of the home folder.", ("role",))
CERTIFICATE_SINCE = Declared(
    "certificate_not_before_timestamp_seconds", "When the certificate became valid.", ("role", "owner", "site")
)
CERTIFICATE_UNTIL = Declared(
    "certificate_not_after_timestamp_seconds", "When the certificate ends.", ("role", "owner", "site")
)
COMMON = (BUILD, GENERATED, DISK_FREE, DISK_SIZE, CERTIFICATE_SINCE, CERTIFICATE_UNTIL)


@dataclass(frozen=True, slots=True)
class Validity:
    """A certificate that is in force: whose, from when and until when (Unix seconds)."""

    owner: str
    """authority, server, operator or site"""
    site: str
    """empty where no site owns it"""
    since: float
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeFacts:
    """What is known of a home folder and its machine at a moment."""

    now: float
    """Unix seconds"""
    certificates: tuple[Validity, ...]
    disk_free_bytes: int | None
    disk_size_bytes: int | None


def of_home(role: str, facts: HomeFacts) -> Iterator[Sample]:
    """Yield the values that every role has; `role`: coordinator or agent."""
    yield BUILD.of(1, role, __version__)
    yield GENERATED.of(facts.now, role)
    yield DISK_FREE.of(facts.disk_free_bytes, role)
    yield DISK_SIZE.of(facts.disk_size_bytes, role)
    for one in facts.certificates:
        yield CERTIFICATE_SINCE.of(one.since, role, one.owner, one.site)
        yield CERTIFICATE_UNTIL.of(one.until, role, one.owner, one.site)
