"""What a site, or who watches, is told as it changes: all on one event loop, where no thread waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from coordinator.run.streams import PICTURE_S, Bell, KeysChanged, RosterKeys, Stream, instructions, looks, news
from fedcervix.core.events import SiteAttached, SiteSilent, Task, TaskKind, UpdateStored
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.instructions import Finish, Idle
from fedcervix.core.rounds.state import Outcome, Phase, Run, begin
from fedcervix.core.rounds.step import step
from fedcervix.errors import IdentityError
from fedcervix.trust.fingerprints import SiteKeys

SITES = ("ada", "bob", "cy")
PLAN = Plan(mode="csfssl", sites=SITES, profile="paper", terms=Terms(rounds=2), recipe=Recipe())

NO_KEYS: SiteKeys = {}
UNCHANGED = RosterKeys(lambda: NO_KEYS)

pytestmark = pytest.mark.timeout(60)


@dataclass
class Told:
    """The engine, as streams know it; and what changes it."""

    run: Run = field(default_factory=lambda: begin("run", PLAN, base="0" * 64, at=0.0))
    stopping: bool = False
    newest: dict[str, Stream] = field(default_factory=dict)

    def listens(self, stream: Stream) -> bool:
        return self.newest.get(stream.site) is stream

    def open(self, site: str) -> Stream:
        self.newest[site] = stream = Stream(site, "0" * 32)
        return stream

    def attach(self, *sites: str) -> None:
        for site in sites:
            self.run, _ = step(self.run, SiteAttached(site, 0.0))

    def update(self, site: str) -> None:
        task = Task("run", TaskKind.TRAIN, 1, self.run.model)
        self.run, _ = step(self.run, UpdateStored(site, task, site[0] * 64, 10, 1, 0.5, 1.0, 0.0))


def in_a_loop(test: Callable[[Told, Bell], Awaitable[None]]) -> None:
    async def whole() -> None:
        await test(Told(), Bell(asyncio.get_running_loop()))

    asyncio.run(whole())


async def quiet(ready: asyncio.Task[object]) -> bool:
    """Say whether a coroutine still waits after everything that was ready has run."""
    for _ in range(10):
        await asyncio.sleep(0)
    return not ready.done()


def following(told: AsyncIterator[object]) -> asyncio.Task[object]:
    async def one() -> object:
        return await anext(told, None)

    return asyncio.create_task(one())


def test_work_is_told_at_once_and_the_reasons_for_standing_by_are_told_together() -> None:
    """Each is a message to each site, at each word of each site: that grew with the square of the sites."""

    async def test(told: Told, bell: Bell) -> None:
        told.attach("ada")
        heard = instructions(told, told.open("ada"), bell, lambda: None, UNCHANGED, calm_s=60.0)
        assert isinstance(await anext(heard), Idle)
        waits = following(heard)
        told.attach("bob")
        bell.ring()
        assert await quiet(waits), "another reason to stand by"
        told.attach("cy")
        bell.ring()
        assert isinstance(await waits, Task)
        told.update("ada")
        assert isinstance(await anext(heard), Idle), "the first reason after work is told at once"

    in_a_loop(test)


def test_the_last_reason_is_told_when_the_calm_is_over() -> None:
    async def test(told: Told, bell: Bell) -> None:
        told.attach("ada")
        heard = instructions(told, told.open("ada"), bell, lambda: None, UNCHANGED, calm_s=0.05)
        await anext(heard)
        told.attach("bob")
        assert await anext(heard) == news(told.run, "ada", None)

    in_a_loop(test)


def test_another_key_is_told_at_once_and_before_what_follows_from_it() -> None:
    async def test(told: Told, bell: Bell) -> None:
        keys = [NO_KEYS]
        told.attach("ada", "bob")
        roster = RosterKeys(lambda: keys[0])
        heard = instructions(told, told.open("ada"), bell, lambda: None, roster, calm_s=60.0)
        assert isinstance(await anext(heard), Idle)
        waits = following(heard)
        keys[0] = {"cy": ec.derive_private_key(7, ec.SECP256R1()).public_key()}
        told.attach("cy")
        bell.ring()
        assert await waits == KeysChanged()
        assert roster.keys is keys[0]
        assert isinstance(await anext(heard), Task)

    in_a_loop(test)


def test_a_change_from_another_thread_wakes_whoever_waits() -> None:
    async def test(told: Told, bell: Bell) -> None:
        told.attach("ada", "bob")
        heard = instructions(told, told.open("ada"), bell, lambda: None, UNCHANGED)
        await anext(heard)
        waits = following(heard)
        assert await quiet(waits)

        def change() -> None:
            told.attach("cy")
            bell.ring()

        threading.Thread(target=change).start()
        assert isinstance(await waits, Task)

    in_a_loop(test)


def test_a_newer_stream_ends_the_older_one() -> None:
    async def test(told: Told, bell: Bell) -> None:
        told.attach("ada")
        heard = instructions(told, told.open("ada"), bell, lambda: None, UNCHANGED)
        await anext(heard)
        waits = following(heard)
        told.open("ada")
        bell.ring()
        assert await waits is None

    in_a_loop(test)


def test_who_may_not_listen_any_more_is_told_why() -> None:
    async def test(told: Told, bell: Bell) -> None:
        told.attach("ada")
        revoked = False

        def may_listen() -> None:
            if revoked:
                raise IdentityError("revoked")

        heard = instructions(told, told.open("ada"), bell, may_listen, UNCHANGED)
        await anext(heard)
        waits = following(heard)
        assert await quiet(waits)
        revoked = True
        bell.ring()
        with pytest.raises(IdentityError):
            await waits

    in_a_loop(test)


@pytest.mark.parametrize("end", ["process", "run"])
def test_a_stream_ends_with_the_process_and_with_the_run(end: str) -> None:
    async def test(told: Told, bell: Bell) -> None:
        told.attach("ada")
        heard = instructions(told, told.open("ada"), bell, lambda: None, UNCHANGED)
        await anext(heard)
        waits = following(heard)
        if end == "process":
            told.stopping = True
        else:
            told.run = replace(told.run, outcome=Outcome.ABORTED, phase=Phase.ABORTED)
        bell.ring()
        last = await waits
        assert last is None if end == "process" else isinstance(last, Finish)
        assert await anext(heard, None) is None

    in_a_loop(test)


def test_a_silent_site_is_told_nothing() -> None:
    told = Told()
    told.attach("ada", "bob")
    told.run, _ = step(told.run, SiteSilent("ada", 0.0))
    assert news(told.run, "ada", None) is None
    assert news(told.run, "bob", None) is not None


def test_whoever_watches_sees_every_change_and_the_last_one() -> None:
    async def test(told: Told, bell: Bell) -> None:
        clock_s = asyncio.get_running_loop().time
        seen = looks(told, bell)
        await anext(seen)
        bell.ring()
        await quiet(asyncio.create_task(asyncio.sleep(0)))
        begun_s = clock_s()
        await anext(seen)
        assert clock_s() - begun_s < PICTURE_S, "the change came while it was busy"
        await anext(seen)
        assert clock_s() - begun_s >= 0.9 * PICTURE_S, "nothing has happened since"
        told.stopping = True
        await anext(seen)
        assert await anext(seen, None) is None

    in_a_loop(test)
