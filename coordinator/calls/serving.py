"""The listeners: one that sites reach, one for the operator; and the event loop that carries both.

loop        one thread: all connections, the admission of calls, streams
site        a few threads: what sites ask of the engine and the disk (see coordinator.calls.work)
operator    a few more, for the operator, and for the coordinator's own certificates
registry    one that reads the registry
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio

from coordinator.calls.connections import Connections
from coordinator.calls.control import Control
from coordinator.calls.dispatch import Dispatcher, OperatorsGate, SitesGate
from coordinator.calls.local_sockets import placed, reachable
from coordinator.calls.service import Service
from coordinator.home.home import Home
from coordinator.home.own_certificates import OwnCertificates
from coordinator.home.registry import Registry, Roll
from coordinator.home.standing import RegistryReader
from coordinator.limits.admission import NOTHING, Admission, Held
from coordinator.limits.descriptor_shares import bounds
from coordinator.run.engine import Engine
from coordinator.run.streams import Bell
from fedcervix.disk.descriptors import USED_UP, raise_limit
from fedcervix.errors import FedcervixError, RunError, StorageError
from fedcervix.runtime.log import logger
from fedcervix.transport import rpc
from fedcervix.transport.address import Address

STOP_GRACE = timedelta(seconds=5)
WORDS_S = 2.0
"""from a revocation to the end of the site's connections: its streams end at once, and say why"""

WARNINGS_MAX = 10
"""about sites' certificates and clocks, in the status"""

R = TypeVar("R")


class _Outside:
    """What the operator sees of the public listener, and does to it."""

    def __init__(
        self, standing: RegistryReader, admission: Admission, lines: Connections, warnings: Callable[[Roll], list[str]]
    ) -> None:
        self._standing, self._admission, self._lines, self._warnings = standing, admission, lines, warnings

    def held(self) -> dict[str, Held]:
        lines = self._lines.counts().of
        found = self._admission.held(time.monotonic())
        sites = found.keys() | lines.keys()
        return {site: replace(found.get(site, NOTHING), connections=lines.get(site, 0)) for site in sites}

    def trouble(self) -> str:
        with contextlib.suppress(StorageError):  # who reads the status reads of that in another place
            return "\n".join(filter(None, (self._lines.trouble(), *self._warnings(self._standing.roll))))
        return self._lines.trouble()

    async def revoked(self, site: str) -> None:
        await self._standing.shut_out(site)
        asyncio.get_running_loop().call_later(WORDS_S, self._cut, self._standing.roll.closed(site))

    def _cut(self, serials: list[str]) -> None:
        for serial in serials:
            self._lines.cut_serial(serial)


class Serving:
    """A coordinator that listens. From `start` on, until `stop`."""

    dispatcher = Dispatcher

    def __init__(self, home: Home, registry: Registry, engine: Engine, service: Service, control: Control) -> None:
        self._home, self._engine, self._service = home, engine, service
        self._bounds = bounds(raise_limit(), len(engine.run.plan.sites))
        self._lines = Connections(self._bounds)
        self._registry, self._control = registry, control
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop", daemon=True)
        self._servers: list[grpc.aio.Server] = []
        self._certificates = OwnCertificates(home)
        self._renewing: asyncio.Task[None] | None = None
        self._stack = contextlib.ExitStack()
        self.port = 0
        self.operator = home.operator_socket
        """where the operator's commands find it"""

    def start(self, to: Address) -> None:
        """Listen. Raises RunError where the port is taken."""
        sites = len(self._engine.run.plan.sites)
        self._thread.start()
        try:
            self._on_loop(self._start(to, sites))
        except BaseException:
            self.stop(None)
            raise

    def stop(self, grace_s: float | None) -> None:
        """Take no new calls, let those that are open end, and end."""
        self._on_loop(self._stop(grace_s))
        self._lines.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._stack.close()
        self._service.work.close()
        self._control.work.close()

    def _on_loop(self, work: Coroutine[Any, Any, R]) -> R:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _start(self, to: Address, sites: int) -> None:
        bell, standing, admission = Bell(self._loop), RegistryReader(self._registry), Admission()
        self._stack.callback(standing.close)
        self._engine.on_change(bell.ring)
        standing.on_change(lambda _: bell.ring())
        federation = self._home.config().federation.name
        outside = _Outside(standing, admission, self._lines, self._warnings)
        await standing.look()
        gate = SitesGate(federation, standing, self._service.check_roster)
        behaviours = self._service.behaviours(bell, standing)
        public = self.dispatcher(behaviours, gate, self._service.work, self._lines, admission)
        options = [*rpc.server_options(sites), (rpc.CONNECTIONS_MAX, self._bounds.at_one_listener(to))]
        self.port = await self._listen(rpc.SITES, public, str(to), options)
        self._lines.start(self.port)
        operator = self.dispatcher(
            self._control.behaviours(bell, outside),
            OperatorsGate(federation),
            self._control.work,
            self._lines,
            Admission(),
        )
        self.operator = self._stack.enter_context(placed(self._home.operator_socket))
        name = self._stack.enter_context(reachable(self.operator))
        await self._listen(rpc.OPERATOR, operator, f"unix:{name}", rpc.server_options(1))
        self._renewing = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        """Renew the coordinator's own certificates whenever they are due."""
        pause_s, own, said = 0.0, self._certificates, list[str]()
        while True:
            await asyncio.sleep(pause_s)
            try:
                step = partial(own.step_s, datetime.now(UTC))
                pause_s = await self._control.work.do("own certificates", self._home.reserve.spend, step)
            except FedcervixError as error:
                logger().warning("own certificates not renewed", what=error.what, next_step=error.next_step)
                pause_s = own.again_s
            warnings = own.warnings(datetime.now(UTC))
            for words in set(warnings).difference(said):
                logger().warning("certificates", what=words)
            said = warnings

    def _warnings(self, roll: Roll) -> list[str]:
        now, sites = datetime.now(UTC), self._engine.run.plan.sites
        of_sites = [*roll.warnings(sites, now), *self._service.clocks()]
        more = len(of_sites) - WARNINGS_MAX
        return [
            *self._certificates.warnings(now),
            *of_sites[:WARNINGS_MAX],
            *([f"and {more} more warnings of this kind"] if more > 0 else []),
        ]

    async def _listen(
        self, methods: Iterable[rpc.Method], dispatcher: Dispatcher, to: str, options: list[tuple[str, int]]
    ) -> int:
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((rpc.Served(methods, dispatcher.answer),))
        try:
            port = server.add_secure_port(to, self._certificates.server.credentials())
        except RuntimeError as error:
            raise _taken(to, self._home.config_file, 0) from error
        await server.start()
        self._servers.append(server)
        return port

    async def _stop(self, grace_s: float | None) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))


def check_free(to: Address, config_file: Path) -> None:
    """Raise RunError where the port is taken: before a run is begun, not after."""
    family = socket.AF_INET6 if ":" in to.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((to.host, to.port))
    except OSError as error:
        raise _taken(to, config_file, error.errno or 0) from error


CANNOT_LISTEN = {
    **USED_UP,
    errno.EADDRINUSE: ("another program uses this port", "find that program (ss -ltnp)"),
    errno.EADDRNOTAVAIL: ("the address is not this machine's", "list the addresses of this machine (ip address)"),
    errno.EACCES: ("only root may use ports below 1024", "take a port above 1023"),
    errno.EAFNOSUPPORT: ("this machine has no IPv6", "take an IPv4 address, such as 0.0.0.0"),
}
UNKNOWN_CAUSE = ("another program uses this port, or the address is not this machine's", "find that program (ss -ltnp)")


def _taken(to: Address | str, config_file: Path, number: int) -> RunError:
    cause, look = CANNOT_LISTEN.get(number, UNKNOWN_CAUSE)
    return RunError(
        f"cannot listen on {to}",
        cause=cause,
        next_step=f"{look}, or set [listen] bind in {config_file}; then start again",
    )
