"""The operator's side of the protocol: how a command calls the coordinator that runs on this machine."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from coordinator.calls.local_sockets import reachable
from coordinator.home.home import Home, RunningProcess
from coordinator.run.changes import ended_rounds, told
from coordinator.run.history import stands
from coordinator.run.status_document import StatusDocument
from fedcervix.errors import LinkError, RunError
from fedcervix.runtime.typed_json import from_text
from fedcervix.transport import rpc
from fedcervix.transport.backoff import Pauses
from fedcervix.wire import federation_pb2 as wire

ANSWER_S = 10.0
WHOLE_S = 60.0
"""for all rounds of a long run"""
KEYS = {"authority_pem": "authority.crt", "certificate_pem": "operator.crt", "key_pem": "operator.key"}


def ask(home: Home, method: rpc.Method, request: Any, read: Callable[[Any], Any] = lambda reply: reply) -> Any | None:
    """Call the running coordinator as its operator; None where none is running. Raises a FedcervixError.

    `read` makes a value of the answer, or raises ValueError.
    """
    running = home.read_running()
    if running is None:
        return None
    with _line(home, running) as channel:
        try:
            return read(rpc.stub(channel, method)(request, timeout=ANSWER_S, wait_for_ready=True))
        except grpc.RpcError as error:
            raise rpc.translate(error, running.operator, next_step=home.command("status"), own=True) from error


def picture(home: Home, *, whole: bool) -> StatusDocument | None:
    """Return the status that the running coordinator reports.

    None if none is running. `whole`: with all rounds; else with the last ones.
    """
    if whole:
        return picture_since(home, None)
    return ask(home, rpc.OVERVIEW, wire.OverviewRequest(), lambda reply: from_text(StatusDocument, reply.json))


def picture_since(home: Home, known: StatusDocument | None) -> StatusDocument | None:
    """Return the status with all rounds. Those that ended before `known`, an earlier status, are not sent again.

    None if no coordinator is running. Raises a FedcervixError.
    """
    running = home.read_running()
    return None if running is None else next(_told(home, running, known, WHOLE_S), None)


def pictures(home: Home) -> Iterator[StatusDocument]:
    """Yield the status at each change, until the run has ended; from the journal while no coordinator runs."""
    pauses, awhile = Pauses(), threading.Event()
    known: StatusDocument | None = None
    while True:
        for document in watched(home, known):
            pauses.reset()
            known = document
            yield known
        known = stands(home)
        yield known
        if known.outcome and home.read_running() is None:
            return
        awhile.wait(pauses.next_s())


def watched(home: Home, known: StatusDocument | None) -> Iterator[StatusDocument]:
    """Yield what the running coordinator reports, until it ends; nothing if none is running. Raises a FedcervixError.

    `known`: what the caller knows already.
    """
    running = home.read_running()
    if running is None:
        return
    with contextlib.suppress(LinkError):  # it was stopped or killed
        yield from _told(home, running, known, None)


def _told(
    home: Home, running: RunningProcess, known: StatusDocument | None, timeout_s: float | None
) -> Iterator[StatusDocument]:
    """Yield the status after each change that a running coordinator reports. Raises a FedcervixError."""
    request = wire.OverviewRequest(run=known.run if known else "", known_rounds=ended_rounds(known))
    with _line(home, running) as channel:
        replies = rpc.calls(rpc.stub(channel, rpc.WATCH)(request, timeout=timeout_s), running.operator, own=True)
        yield from told(((reply.json, reply.more) for reply in replies), known)


@contextlib.contextmanager
def _line(home: Home, running: RunningProcess) -> Iterator[grpc.Channel]:
    """Yield a channel to a running coordinator. Raises RunError where it is of another version."""
    if not running.operator:
        raise _of_another_version(home, running, "does not understand the commands of this version")
    keys = {part: home.pem(file) for part, file in KEYS.items()}
    with reachable(Path(running.operator)) as name, rpc.channel(f"unix:{name}", **keys, here=True) as channel:
        try:
            yield channel
        except ValueError as error:
            raise _of_another_version(home, running, f"reports what this version cannot read: {error}") from error


def _of_another_version(home: Home, running: RunningProcess, how: str) -> RunError:
    return RunError(
        f"the coordinator that runs here (pid {running.pid}) {how}",
        cause="another version of fedcervix was installed while it ran",
        next_step=f"end it (kill {running.pid}), then {home.command('start')}",
    )
