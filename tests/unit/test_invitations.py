"""An invitation is read back as it was written; what is none is refused in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedcervix.errors import IdentityError
from fedcervix.transport import identity
from fedcervix.transport.invitations import Invitation
from tests.unit.identities import AUTHORITY, INVITATION, SITE, make_authority


def test_an_invitation_reads_back_as_it_was_written() -> None:
    assert Invitation.parse(INVITATION.to_toml().encode()) == INVITATION


def test_an_invitation_survives_a_windows_mail_client() -> None:
    mailed = b"\xef\xbb\xbf" + INVITATION.to_toml().replace("\n", "\r\n").encode()
    assert Invitation.parse(mailed) == INVITATION


def test_the_invitation_file_tells_its_reader_what_to_do() -> None:
    text = INVITATION.to_toml()
    for words in ("site north", "works once, until 2030-01-08 12:00 UTC", "Keep it secret", "site-agent join FILE"):
        assert words in text


def test_no_secret_key_is_ever_printed() -> None:
    assert "PRIVATE KEY" not in repr(INVITATION) + repr(AUTHORITY)


def test_an_invitation_with_a_foreign_part_is_refused() -> None:
    for part, words in (
        ({"site": "south"}, "not of fedcervix://demo/enroll/south"),
        ({"key_pem": identity.new_key()}, "its key does not belong"),
        ({"authority_pem": make_authority().certificate_pem}, "another authority"),
        ({"certificate_pem": SITE.certificate, "key_pem": SITE.key}, "that of fedcervix://demo/site/north"),
    ):
        with pytest.raises(IdentityError, match=words):
            replace(INVITATION, **part)


@pytest.mark.parametrize("address", ["", "example.org", "example.org:0", "example.org:65536", "http://h:1", "a b:1"])
def test_an_invitation_needs_a_host_and_a_port(address: str) -> None:
    with pytest.raises(IdentityError, match="not a complete invitation: address must be HOST:PORT") as caught:
        replace(INVITATION, address=address)
    assert "cut short or edited" in caught.value.cause
    assert "send it again" in caught.value.next_step


def test_an_invitation_reaches_an_ip_address_too() -> None:
    for address in ("192.0.2.7:8443", "[2001:db8::7]:8443"):
        assert replace(INVITATION, address=address).address == address


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it has no federation, site, address, authority, certificate, key"),
        (b"site = 3", "it has no"),
        (b"\xff\xfe", "decode"),
        (b"a = " + b"[" * 60_000, "not a complete invitation"),
        (b"#" * (64 * 1024 + 1), "65537 bytes"),
        (INVITATION.to_toml().encode()[:-200], "not a complete invitation"),
    ],
    ids=["empty", "wrong type", "binary", "nested", "too long", "cut short"],
)
def test_a_file_that_is_no_invitation_is_explained(content: bytes, words: str) -> None:
    with pytest.raises(IdentityError, match=words) as caught:
        Invitation.parse(content)
    assert "coordinator invite" in caught.value.next_step
