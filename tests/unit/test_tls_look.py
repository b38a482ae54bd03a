"""The plain look at what answers: a clock that is wrong is named as the cause, at either end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from fedcervix.errors import IdentityError, LinkError
from fedcervix.transport import rpc
from fedcervix.transport.identity import Identity
from site_agent.federation import tls
from tests.unit.identities import Party, make_authority, make_party

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
AUTHORITY = make_authority(NOW - 9 * DAY)
NORTH = Identity("demo", "site", "north")


def party(who: Identity, days: int) -> Party:
    """Return a party whose certificate is good for a day, from so many days ago on."""
    return make_party(AUTHORITY, who, NOW - days * DAY, DAY)


@contextmanager
def coordinator(days: int) -> Iterator[str]:
    """Yield the address of a server whose certificate is of that day."""
    keys = party(Identity("demo", "coordinator"), days)
    server = grpc.server(ThreadPoolExecutor(1))
    credentials = rpc.server_credentials(
        authority_pem=AUTHORITY.certificate_pem, certificate_pem=keys.certificate, key_pem=keys.key
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(None).wait()


def look(address: str, folder: Path, days: int) -> str:
    """Look with a site's certificate of that day."""
    keys = party(NORTH, days)
    files = folder / "site.crt", folder / "site.key"
    for file, content in zip(files, (keys.certificate, keys.key), strict=True):
        file.write_bytes(content)
    return tls.look(address, AUTHORITY.certificate_pem, files)


def test_two_that_are_valid_now_meet(tmp_path: Path) -> None:
    with coordinator(0) as address:
        assert look(address, tmp_path, 0) == "TLSv1.3"


@pytest.mark.parametrize(("days", "words"), [(3, "certificate has expired"), (-3, "certificate is not yet valid")])
def test_a_coordinator_out_of_its_time_is_a_wrong_clock_and_not_another_federation(
    tmp_path: Path, days: int, words: str
) -> None:
    with coordinator(days) as address, pytest.raises(IdentityError, match=f"is not valid now .{words}") as caught:
        look(address, tmp_path, 0)
    assert "this machine's clock says" in caught.value.cause
    assert "timedatectl" in caught.value.next_step


@pytest.mark.parametrize("days", [3, -3])
def test_a_site_out_of_its_time_is_named_with_the_clock_and_the_renewal(tmp_path: Path, days: int) -> None:
    with (
        coordinator(0) as address,
        pytest.raises((LinkError, IdentityError), match="does not accept this site's certificate") as caught,
    ):
        look(address, tmp_path, days)
    assert "clock" in caught.value.cause
    assert "coordinator renew SITE" in caught.value.next_step
