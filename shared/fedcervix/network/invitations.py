"""The secret file with which a hospital joins the federation: good once, for seven days, for the call Enroll alone.

Bytes to values, as in `fedcervix.network.identity`: whatever a file holds gives an invitation or an IdentityError.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from datetime import timedelta

from fedcervix.errors import IdentityError
from fedcervix.network.address import EXAMPLES, Address
from fedcervix.network.identity import Identity, check_issuer, identify, matches, moment

LIFETIME = timedelta(days=7)
BYTES_MAX = 64 * 1024

TEXT = """\
# Invitation of site {site} to the federation {federation}.
#
# It works once, until {until}. Keep it secret: whoever uses it first becomes {site}.
# Send it over a channel you trust, and delete it once it has been used.
#
# On the site's machine:
#
#     site-agent join FILE
#
# This makes the site's own key on that machine and obtains its certificate. Nothing in this file needs editing.

federation = "{federation}"
site = "{site}"
address = "{address}"

# Proves to the site that it speaks with the right coordinator.
authority = '''
{authority}'''

# Proves to the coordinator that the site was invited. Good for joining and nothing else.
certificate = '''
{certificate}'''

# SECRET
key = '''
{key}'''
"""
KEYS = ("federation", "site", "address", "authority", "certificate", "key")


@dataclass(frozen=True, slots=True)
class Invitation:
    """What a site needs to join: where the coordinator is, how to know it, and a certificate for that one call."""

    federation: str
    site: str
    address: str
    """HOST:PORT"""
    authority_pem: bytes
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_address(self.address)
        check_issuer(self.certificate_pem, self.authority_pem)
        expected = Identity(self.federation, "enroll", self.site)
        found = identify(self.certificate_pem).identity
        if found != expected:
            raise _incomplete(f"its certificate is that of {found.uri}, not of {expected.uri}")
        if not matches(self.key_pem, self.certificate_pem):
            raise _incomplete("its key does not belong to its certificate")

    def to_toml(self) -> str:
        """Return the text of the invitation file, commented for the person who receives it."""
        return TEXT.format(
            federation=self.federation,
            site=self.site,
            address=self.address,
            until=moment(identify(self.certificate_pem).not_after),
            authority=self.authority_pem.decode(),
            certificate=self.certificate_pem.decode(),
            key=self.key_pem.decode(),
        )

    @classmethod
    def parse(cls, content: bytes) -> Invitation:
        """Read the content of an invitation file. Raises IdentityError that says what is wrong with it."""
        if len(content) > BYTES_MAX:
            raise _incomplete(f"it has {len(content)} bytes; an invitation has at most {BYTES_MAX}")
        try:
            raw = tomllib.loads(content.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:  # not TOML, not text
            raise _incomplete(str(error)[:200]) from error
        missing = [key for key in KEYS if not isinstance(raw.get(key), str)]
        if missing:
            raise _incomplete(f"it has no {', '.join(missing)}")
        values = [raw[key] for key in KEYS]
        return cls(*values[:3], *(text.encode() for text in values[3:]))


def _check_address(address: str) -> None:
    try:
        Address.parse(address)
    except ValueError as error:
        raise IdentityError(
            f"not an address: {address[:100]!r}",
            cause=f"an address {error}",
            next_step=f"write it as the sites reach it, such as {EXAMPLES}",
        ) from error


def _incomplete(what: str) -> IdentityError:
    return IdentityError(
        f"this is not a complete invitation: {what}",
        cause="the file is another one, or was cut short or edited on its way",
        next_step="ask the coordinator's operator to send it again, or for a new one (`coordinator invite SITE`)",
    )
