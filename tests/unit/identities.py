"""Parties of a federation with real keys and certificates, all of one time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fedcervix.transport import identity, invitations
from fedcervix.transport.identity import Authority, Identity
from fedcervix.transport.invitations import Invitation

NOW = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
NORTH = Identity("demo", "site", "north")
SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Party:
    """A key and the certificate that was issued for it."""

    key: bytes
    certificate: bytes


def make_authority(now: datetime = NOW) -> Authority:
    key = identity.new_key()
    return Authority(identity.new_authority("demo", key, now), key)


def make_party(
    authority: Authority, who: Identity, now: datetime = NOW, lifetime: timedelta = identity.SITE_LIFETIME
) -> Party:
    key = identity.new_key()
    hosts = ("localhost", "127.0.0.1") if who.role == "coordinator" else ()
    return Party(key, identity.issue(authority, identity.public_key(key), who, now, lifetime, hosts))


def make_invitation(authority: Authority) -> Invitation:
    guest = make_party(authority, Identity("demo", "enroll", "north"), lifetime=invitations.LIFETIME)
    return Invitation(
        "demo", "north", "federation.example.org:8443", authority.certificate_pem, guest.certificate, guest.key
    )


AUTHORITY = make_authority()
SITE = make_party(AUTHORITY, NORTH)
INVITATION = make_invitation(AUTHORITY)
