"""The registry in memory: what another process writes counts at once for who is new, and soon for who is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from coordinator.home.registry import Registry, Roll
from coordinator.home.standing import RegistryReader
from fedcervix.errors import IdentityError, StorageError

pytestmark = pytest.mark.timeout(60)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=7)


def join(registry: Registry, site: str, invitation: str, certificate: str) -> None:
    registry.invite(site, invitation, LATER, NOW)
    registry.redeem(invitation, "key", lambda: (b"pem", certificate, LATER), NOW)


def with_standing(folder: Path, test: Callable[[Registry, RegistryReader], Awaitable[None]]) -> None:
    async def whole() -> None:
        standing = RegistryReader(Registry(folder / "registry.db"))
        try:
            await test(Registry(folder / "registry.db"), standing)
        finally:
            standing.close()

    asyncio.run(whole())


def test_who_has_just_joined_is_known(tmp_path: Path) -> None:
    async def test(other_process: Registry, standing: RegistryReader) -> None:
        await standing.look()
        for number in range(3):
            join(other_process, "north", f"i{number}", f"c{number}")
            (await standing.current(f"c{number}")).admit(f"c{number}", "north")

    with_standing(tmp_path, test)


def test_a_revocation_counts_as_soon_as_it_is_told_and_listeners_hear_of_it(tmp_path: Path) -> None:
    async def test(other_process: Registry, standing: RegistryReader) -> None:
        heard: list[Roll] = []
        join(other_process, "north", "i1", "c1")
        await standing.look()
        standing.on_change(heard.append)
        await standing.look_anew()
        assert heard == [], "nothing has changed"
        other_process.revoke("north", NOW)
        standing.roll.admit("c1", "north")
        await standing.look_anew()
        with pytest.raises(IdentityError, match="the certificate of site north is revoked"):
            standing.roll.admit("c1", "north")
        assert len(heard) == 1
        assert heard[0].closed("north") == ["c1", "i1"]

    with_standing(tmp_path, test)


def test_while_the_registry_cannot_be_read_nobody_is_admitted(tmp_path: Path) -> None:
    async def test(other_process: Registry, standing: RegistryReader) -> None:
        join(other_process, "north", "i1", "c1")
        await standing.look()
        (tmp_path / "registry.db").rename(tmp_path / "away")
        await standing.look()
        with pytest.raises(StorageError):
            _ = standing.roll
        (tmp_path / "away").rename(tmp_path / "registry.db")
        await standing.look()
        standing.roll.admit("c1", "north")

    with_standing(tmp_path, test)


def test_an_invitation_is_open_then_used_once_and_then_closed(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.db")
    registry.invite("north", "i1", LATER, NOW)
    assert registry.roll().admit_invitation("i1", NOW) == ""
    with pytest.raises(IdentityError, match="is expired"):
        registry.roll().admit_invitation("i1", LATER + timedelta(seconds=1))
    registry.redeem("i1", "key", lambda: (b"pem", "c1", LATER), NOW)
    assert registry.roll().admit_invitation("i1", NOW) == "c1"
    registry.revoke("north", NOW)
    with pytest.raises(IdentityError, match="was already used, and the site's certificate is revoked"):
        registry.roll().admit_invitation("i1", NOW)
    for serial in ("c1", "nobody"):
        with pytest.raises(IdentityError, match="does not know this invitation"):
            registry.roll().admit_invitation(serial, NOW)
