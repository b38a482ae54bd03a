"""The operator's calls to the running coordinator, on a listener that only this machine can reach."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from coordinator.calls.calls import Call
from coordinator.calls.work import WorkThreads
from coordinator.limits.admission import Held, alarm
from coordinator.run.changes import BRIEF_ROUNDS, brief, changes, ended_rounds, parts
from coordinator.run.engine import Engine
from coordinator.run.status import overview
from coordinator.run.status_document import StatusDocument
from coordinator.run.streams import Bell, looks
from fedcervix.core.events import SiteRevoked
from fedcervix.errors import RemoteError, RunError
from fedcervix.transport import rpc
from fedcervix.wire import federation_pb2 as wire

THREADS = 4
WATCHERS_MAX = 8
"""each one needs a new status at every change"""


class Outside(Protocol):
    """What is known about callers, and what can be done against them."""

    def held(self) -> dict[str, Held]:
        """Return what each site holds of the public listener."""

    def trouble(self) -> str:
        """Return the warning to the operator about connections without calls; empty if nothing is wrong."""

    async def revoked(self, site: str) -> None:
        """Apply a revocation now: the site's open calls and connections are closed."""


CLOSING = (
    "the run is aborted as soon as its holders have promised never to release the masks of this round (see "
    "`coordinator status`), so that another run may begin with the same model; the same command again ends it at once"
)


class Control:
    """Behaviours of the operator's methods."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.work = WorkThreads("operator", THREADS, each=THREADS)
        self._watchers = 0

    def behaviours(self, bell: Bell, outside: Outside) -> dict[rpc.Method, Any]:
        """Return what answers each method; `bell` rings at every change."""
        return {
            rpc.OVERVIEW: partial(self.overview, outside=outside),
            rpc.WATCH: partial(self.watch, bell=bell, outside=outside),
            rpc.COMMAND: partial(self.command, outside=outside),
        }

    async def overview(self, _request: wire.OverviewRequest, call: Call, outside: Outside) -> wire.OverviewReply:
        """Send the status, with the last rounds."""
        since = max(0, len(self._engine.run.rounds) - BRIEF_ROUNDS)
        held, told = outside.held(), outside.trouble()
        picture = partial(self._picture, held, told, since=since)
        return await self.work.do(call.serial, lambda: wire.OverviewReply(json=brief(picture())))

    async def watch(
        self, request: wire.OverviewRequest, call: Call, bell: Bell, outside: Outside
    ) -> AsyncIterator[wire.OverviewReply]:
        """Send the status, with the rounds that the operator does not have; then the changes. Raises RunError."""
        if self._watchers >= WATCHERS_MAX:
            raise RunError(
                f"{WATCHERS_MAX} commands `coordinator status --watch` are running already",
                next_step="coordinator status, without --watch and --json",
            )
        self._watchers += 1
        try:
            before: StatusDocument | None = None
            since = request.known_rounds if request.run == self._engine.run.run else 0
            async for _ in looks(self._engine, bell):
                after = await self.work.do(call.serial, self._picture, outside.held(), outside.trouble(), since=since)
                for text, more in parts(changes(before, after)):
                    yield wire.OverviewReply(json=text, more=more)
                before, since = after, max(since, ended_rounds(after))
        finally:
            self._watchers -= 1

    def _picture(self, held: Mapping[str, Held], told: str, *, since: int) -> StatusDocument:
        now, engine = datetime.now(UTC).timestamp(), self._engine
        trouble = "\n".join(filter(None, (engine.trouble, alarm(held), told)))
        known, moved = engine.paces.known, engine.traffic.rounds
        return overview(
            engine.run, engine.lines(), held, now=now, trouble=trouble, since=since, paces=known, traffic=moved
        )

    async def command(self, request: wire.CommandRequest, call: Call, outside: Outside) -> wire.CommandReply:
        """Do what the operator asks. Raises RemoteError, StorageError."""
        match request.WhichOneof("what"):
            case "stop":
                await self.work.do(call.serial, self._engine.stop)
                return wire.CommandReply(text="stopping; `coordinator start` continues the run")
            case "abort":
                why = f"aborted by the operator: {request.abort[:400]}"
                await self.work.do(call.serial, self._engine.abort, why)
                return wire.CommandReply(text=CLOSING if self._engine.run.ending else "the run is aborted")
            case "revoked":
                await outside.revoked(request.revoked)
                if request.revoked in self._engine.run.plan.sites:
                    gone = SiteRevoked(request.revoked, datetime.now(UTC).timestamp())
                    await self.work.do(call.serial, self._engine.submit, gone)
                return wire.CommandReply(text=f"{request.revoked} is refused from now on; its connections are closed")
            case _:
                raise RemoteError("an empty command")
