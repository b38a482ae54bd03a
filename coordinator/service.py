"""The coordinator's side of the wire: who is calling, what they may, and the engine's answer.

Rules
1. The caller's name is read from the verified certificate, and checked against the registry at every call.
2. A behaviour raises errors of ours; `_guarded` is the one place that turns them into status codes.
3. No behaviour waits for anything but the caller's own stream.
"""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import grpc

from coordinator.changes import BRIEF_ROUNDS, Document, brief, changes, ended_rounds, parts
from coordinator.connections import Connections
from coordinator.descriptors import bounds
from coordinator.engine import Engine
from coordinator.home import Home
from coordinator.overview import overview
from coordinator.registry import Registry
from coordinator.results import record
from coordinator.transfers import Transfers
from fedcervix import codec, identity, rpc
from fedcervix.address import Address
from fedcervix.arriving import Arriving
from fedcervix.blobs import BlobStore
from fedcervix.descriptors import USED_UP, raise_limit
from fedcervix.economy import Packed, packed_form
from fedcervix.errors import FedcervixError, IdentityError, RemoteError, RunError, StorageError
from fedcervix.events import (
    Answer,
    ModelAdopted,
    ScoreReported,
    SiteAttached,
    SiteFailed,
    SiteRefused,
    SiteRevoked,
    Task,
    TaskKind,
    UpdateStored,
)
from fedcervix.log import logger
from fedcervix.rounds import Instruction, Leave, Presence, instruction
from fedcervix.wire import federation_pb2 as wire

RECORD_LINE_CHARS_MIN = 150
"""of one contribution in a record: one that is sure to be too long is not written out for every site"""
WATCHERS_MAX = 8
"""each holds a thread"""

identify = lru_cache(maxsize=1024)(identity.identify)


class Service:
    """Behaviours of all methods."""

    def __init__(self, home: Home, registry: Registry, engine: Engine, blobs: BlobStore) -> None:
        self._home, self._registry, self._engine, self._blobs = home, registry, engine, blobs
        self._federation = home.config().federation.name
        self._transfers = Transfers()
        self._chunk_bytes = rpc.chunk_bytes(len(engine.run.plan.sites))
        self._watchers = threading.BoundedSemaphore(WATCHERS_MAX)
        self._log = logger(run=engine.run.run)
        self.bounds = bounds(raise_limit(), len(engine.run.plan.sites))
        self.connections = Connections(self.bounds)

    def behaviours(self) -> dict[rpc.Method, Callable[..., Any]]:
        """Return what answers each method."""
        return {
            rpc.ENROLL: _guarded(self.enroll),
            rpc.ATTACH: _guarded_stream(self.attach),
            rpc.REPORT: _guarded(self.report),
            rpc.OFFER: _guarded(self.offer),
            rpc.PACKED: _guarded(self.packed),
            rpc.FETCH: _guarded_stream(self.fetch),
            rpc.PUSH: _guarded(self.push),
            rpc.OVERVIEW: _guarded(self.overview),
            rpc.WATCH: _guarded_stream(self.watch),
            rpc.COMMAND: _guarded(self.command),
        }

    # --- who is calling ---

    def _caller(self, context: grpc.ServicerContext, role: str) -> identity.Certificate:
        """Return the verified certificate of the caller. Raises IdentityError."""
        pem = context.auth_context().get("x509_pem_cert", [b""])[0]
        certificate = identify(pem)
        who = certificate.identity
        if who.federation != self._federation or who.role != role:
            raise IdentityError(
                f"this call is not for {who.uri}", cause=f"it takes a certificate with the role {role!r}"
            )
        return certificate

    def _site(self, context: grpc.ServicerContext) -> str:
        """Return the name of the calling site: declared in the plan, its certificate not revoked."""
        certificate = self._caller(context, "site")
        site = certificate.identity.name
        with self._known(context, certificate):
            self._registry.admit(certificate.serial, site)
        if site not in self._engine.run.plan.sites:
            raise IdentityError(
                f"site {site} is not in the roster of run {self._engine.run.run}",
                cause="coordinator.toml, [run] sites, did not name it when the run began",
                next_step="ask the coordinator's operator",
            )
        return site

    @contextlib.contextmanager
    def _known(self, context: grpc.ServicerContext, certificate: identity.Certificate) -> Iterator[None]:
        """Let the connection stay open if the certificate is accepted within; else close it soon."""
        try:
            yield
        except IdentityError:
            self.connections.refused(context.peer())
            raise
        self.connections.authenticated(context.peer(), certificate.identity.name, certificate.serial)

    def _agent(self, context: grpc.ServicerContext) -> tuple[str, str]:
        """Return the calling site, and which process of its agent calls: the one that acts for it."""
        site = self._site(context)
        instance = codec.read_claim(_headers(context).get(rpc.INSTANCE_KEY, "")).instance
        self._engine.heed(site, instance)
        return site, instance

    def _operator(self, context: grpc.ServicerContext) -> None:
        with self._known(context, self._caller(context, "operator")):
            pass

    # --- enrolment ---

    def enroll(self, request: wire.EnrollRequest, context: grpc.ServicerContext) -> wire.EnrollReply:
        """Trade an invitation for a site's certificate."""
        invitation = self._caller(context, "enroll")
        key = identity.check_request(request.request_pem)
        now = datetime.now(UTC)
        who = identity.Identity(self._federation, "site", invitation.identity.name)

        def issue() -> tuple[bytes, str, datetime]:
            pem = identity.issue(self._home.authority(), key, who, now, identity.SITE_LIFETIME)
            made = identity.identify(pem)
            return pem, made.serial, made.not_after

        with self._known(context, invitation):
            pem = self._registry.redeem(invitation.serial, identity.key_fingerprint(key), issue, now)
        self._log.info("site joined", site=who.name)
        return wire.EnrollReply(certificate_pem=pem)

    # --- control plane ---

    def attach(self, request: wire.AttachRequest, context: grpc.ServicerContext) -> Iterator[wire.FromCoordinator]:
        """Say what the run is, then what to do, each time that changes."""
        site = self._site(context)
        if request.wire_version != codec.WIRE_VERSION:
            raise RemoteError(
                f"site {site} speaks version {request.wire_version} of the wire, this coordinator {codec.WIRE_VERSION}",
                next_step="install the same version of fedcervix on both sides",
            )
        run = self._engine.run
        welcome = codec.write_welcome(codec.Welcome(self._federation, run.run, run.plan))
        if request.look:
            yield welcome
            return
        claim = codec.read_claim(request.instance, request.succeeds)
        self._engine.admit(site, claim)
        context.add_callback(self._engine.wake)
        self._log.info("line open", site=site, software=request.software_version[:64])
        yield welcome
        for news in self._engine.instructions(site, claim.instance, lambda: self._may_listen(context)):
            yield codec.write_instruction(self._with_record(news))

    def _with_record(self, news: Instruction) -> Instruction:
        """Let a site that leaves know who counted in each round: its own report says so."""
        run = self._engine.run
        lines = sum(len(round_.contributions) for round_ in run.rounds)
        if not isinstance(news, Leave) or lines * RECORD_LINE_CHARS_MIN > codec.RECORD_CHARS_MAX:
            return news
        text = json.dumps(record(run))
        return replace(news, record=text if len(text) <= codec.RECORD_CHARS_MAX else "")

    def _may_listen(self, context: grpc.ServicerContext) -> bool:
        """Say whether a stream is still open. Raises IdentityError once its site is revoked: that cuts the stream."""
        return context.is_active() and bool(self._site(context))

    def report(self, message: wire.FromSite, context: grpc.ServicerContext) -> wire.ReportReply:
        """Take in what a site has done."""
        site, _ = self._agent(context)
        at = datetime.now(UTC).timestamp()
        report = codec.read_report(message, site=site, at=at)
        if isinstance(report, codec.Progress):
            self._engine.heard(site, report)
        answer = self._take(report, site, at)
        outcome = self._engine.run.outcome if isinstance(report, ModelAdopted) else None
        return codec.write_answer(answer, outcome.value if outcome and answer in KNOWN else "")

    def _take(self, report: codec.Report, site: str, at: float) -> Answer:
        match report:
            case codec.Here() | codec.Progress():
                return Answer.ACCEPTED
            case codec.Stopped():
                self._engine.stopped(site)
                return Answer.ACCEPTED
            case codec.Ready():
                return self._take_ready(report, site, at)
            case codec.Refusal(run, reason):
                return self._engine.submit(SiteRefused(site, reason, at)) if self._is_current(run) else Answer.STALE
            case UpdateStored():
                return self._engine.take_update(report)
            case ScoreReported() | ModelAdopted() | SiteFailed():
                return self._engine.submit(report)

    def _take_ready(self, ready: codec.Ready, site: str, at: float) -> Answer:
        plan = self._engine.run.plan
        if not self._is_current(ready.run):
            return Answer.STALE
        if ready.plan_digest != plan.digest:
            raise RunError("the site has accepted another plan", cause="the two sides run different versions")
        return self._engine.submit(SiteAttached(site, at))

    def _is_current(self, run: str) -> bool:
        return run == self._engine.run.run

    # --- data plane ---

    def offer(self, request: wire.OfferRequest, context: grpc.ServicerContext) -> wire.OfferReply:
        """Say from which byte a model is wanted."""
        site, _ = self._agent(context)
        digest, size_bytes = codec.read_offer(request)
        return wire.OfferReply(offset=self._wanted_from(site, digest, size_bytes), chunk_bytes=self._chunk_bytes)

    def _wanted_from(self, site: str, digest: str, size_bytes: int) -> int:
        """Return from which byte a model is wanted. Raises RunError where none is, RemoteError, StorageError.

        The answer does not depend on what other sites have sent (see fedcervix.blobs, rule 3).
        """
        self._check_size(size_bytes)
        if not self._blobs.brought(digest, site) and self._task(site).kind not in (TaskKind.SEED, TaskKind.TRAIN):
            raise RunError("no model is wanted from this site now", cause="the run has moved on")
        return self._blobs.expect(digest, site, size_bytes=size_bytes)

    def _check_size(self, size_bytes: int) -> None:
        layout = self._engine.run.layout
        bound = codec.model_bytes_max(self._blobs.size_bytes(layout) if layout else 0)
        if size_bytes > bound:
            raise RemoteError(f"a model of {size_bytes:,} bytes is not this run's (at most {bound:,})")

    def push(self, chunks: Iterator[bytes], context: grpc.ServicerContext) -> wire.PushReply:
        """Take in a model, from the offset that `offer` gave."""
        site, instance = self._agent(context)
        headers = _headers(context)
        digest = codec.read_digest(headers.get(rpc.DIGEST_KEY, ""))
        offset, size_bytes = (_natural(headers.get(key, "")) for key in (rpc.OFFSET_KEY, rpc.SIZE_KEY))
        arriving = self._signs_of(context, site, instance, _until_cut(chunks))
        with self._transfers.newest(site, "push", context):
            # Whoever pushes without having asked is held to the same.
            here = self._wanted_from(site, digest, size_bytes) == size_bytes
            if not here and context.is_active():  # else a newer one has begun
                seen = Arriving(size_bytes)
                here = self._blobs.receive(digest, site, seen.watch(arriving), offset=offset, size_bytes=size_bytes)
                if here and seen.sound:
                    self._engine.arrived_sound(site, digest)
        if not here:
            raise RunError("the transfer ended early", next_step="offer it again, and go on from the offset given")
        return wire.PushReply(size_bytes=size_bytes)

    def packed(self, request: wire.PackedRequest, context: grpc.ServicerContext) -> wire.PackedReply:
        """Say in which packed form a site may have the model of its task."""
        site, _ = self._agent(context)
        digest = codec.read_digest(request.digest)
        if digest != self._task(site).base:
            raise RunError(f"the model {digest[:12]} is not for this site now", cause="the run has moved on")
        return codec.write_packed(self._form(site, digest))

    def _form(self, site: str, model: str) -> Packed | None:
        form = packed_form(self._engine.run, site, model)
        return form if form and self._blobs.has(form.digest) else None

    def fetch(self, request: wire.BlobRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Send a model from an offset; its size goes before it."""
        site, instance = self._agent(context)
        digest = codec.read_digest(request.digest)
        base = self._task(site).base
        form = self._form(site, base)
        if digest not in (base, form.digest if form else base) or not self._blobs.has(digest):
            raise RunError(f"the model {digest[:12]} is not for this site now", cause="the run has moved on")
        context.send_initial_metadata(((rpc.SIZE_KEY, str(self._blobs.size_bytes(digest))),))
        chunk_bytes = codec.read_chunk_bytes(request.chunk_bytes, self._chunk_bytes)
        chunks = self._blobs.chunks(digest, request.offset, chunk_bytes)
        with self._transfers.newest(site, "fetch", context):
            yield from self._signs_of(context, site, instance, chunks)

    def _task(self, site: str) -> Task:
        """Return what the site is asked to do: it sends and fetches only the models of that. Raises RunError."""
        asked = instruction(self._engine.run, site)
        if not isinstance(asked, Task):
            raise RunError("this site is asked for nothing now", cause="the run has moved on")
        return asked

    def _signs_of(
        self, context: grpc.ServicerContext, site: str, instance: str, chunks: Iterator[bytes]
    ) -> Iterator[bytes]:
        """Each chunk is a sign of life; what is left is neither sent nor taken once another process acts for the site.

        Nor once the site is revoked. Raises TwinError, IdentityError.
        """
        for chunk in chunks:
            self._engine.heed(site, instance)
            if self._engine.run.site(site).presence is Presence.REVOKED:
                self._site(context)
            yield chunk

    # --- the operator ---

    def overview(self, _request: wire.OverviewRequest, context: grpc.ServicerContext) -> wire.OverviewReply:
        """Say how things stand, with the last rounds."""
        self._operator(context)
        rounds = len(self._engine.run.rounds)
        return wire.OverviewReply(json=brief(self._picture(since=max(0, rounds - BRIEF_ROUNDS))))

    def watch(self, request: wire.OverviewRequest, context: grpc.ServicerContext) -> Iterator[wire.OverviewReply]:
        """Say how things stand, with the rounds that the operator does not know; then what changes."""
        self._operator(context)
        if not self._watchers.acquire(blocking=False):
            raise RunError(
                f"{WATCHERS_MAX} are watching already", next_step="coordinator status, without --watch and --json"
            )
        try:
            context.add_callback(self._engine.wake)
            before: Document = {}
            since = request.known_rounds if request.run == self._engine.run.run else 0
            for _ in self._engine.changes(context.is_active):
                after = self._picture(since=since)
                for text, more in parts(changes(before, after)):
                    yield wire.OverviewReply(json=text, more=more)
                before, since = after, max(since, ended_rounds(after))
        finally:
            self._watchers.release()

    def _picture(self, *, since: int) -> Document:
        now, engine = datetime.now(UTC).timestamp(), self._engine
        return overview(engine.run, engine.lines(), now=now, trouble=engine.trouble, since=since)

    def command(self, request: wire.CommandRequest, context: grpc.ServicerContext) -> wire.CommandReply:
        """Do what the operator asks."""
        self._operator(context)
        match request.WhichOneof("what"):
            case "stop":
                self._engine.stop()
                return wire.CommandReply(text="stopping; `coordinator start` goes on with the run")
            case "abort":
                self._engine.abort(f"aborted by the operator: {request.abort[:400]}")
                return wire.CommandReply(text="the run is aborted")
            case "revoked":
                if request.revoked in self._engine.run.plan.sites:
                    self._engine.submit(SiteRevoked(request.revoked, datetime.now(UTC).timestamp()))
                self._engine.wake()
                return wire.CommandReply(text=f"the streams of {request.revoked} are cut")
            case _:
                raise RemoteError("an empty command")


def _until_cut(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what arrives; a cut line ends it early, and what has arrived is kept."""
    with contextlib.suppress(grpc.RpcError):
        yield from chunks


def _headers(context: grpc.ServicerContext) -> dict[str, str]:
    return {key: str(value) for key, value in context.invocation_metadata()}


def _natural(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise RemoteError("offset and size are natural numbers")
    return int(text)


def _guarded(behaviour: Callable[[Any, grpc.ServicerContext], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
    """Turn errors of ours into status codes: here is the seam."""

    def call(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return behaviour(request, context)
        except FedcervixError as error:
            _log_error(error)
            rpc.abort(context, error)

    return call


def _guarded_stream(
    behaviour: Callable[[Any, grpc.ServicerContext], Iterator[Any]],
) -> Callable[[Any, grpc.ServicerContext], Iterator[Any]]:
    """The same for a reply that streams."""

    def call(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from behaviour(request, context)
        except FedcervixError as error:
            _log_error(error)
            rpc.abort(context, error)

    return call


def _log_error(error: FedcervixError) -> None:
    if isinstance(error, StorageError):
        logger().error("storage", what=error.what, cause=error.cause, next_step=error.next_step)
    else:
        logger().warning("call refused", what=error.what)


KNOWN = (Answer.ACCEPTED, Answer.DUPLICATE)
CALLS_BESIDE_STREAMS = 16
STOP_GRACE = timedelta(seconds=5)


def serve(home: Home, service: Service, *, to: Address, sites: int) -> tuple[grpc.Server, int]:
    """Start listening; return the server and its port. Raises RunError where the port is taken."""
    # A site holds one stream and makes at most two calls beside it.
    workers = ThreadPoolExecutor(max_workers=3 * sites + WATCHERS_MAX + CALLS_BESIDE_STREAMS, thread_name_prefix="rpc")
    options = [*rpc.server_options(sites), (rpc.CONNECTIONS_MAX, service.bounds.in_all)]
    server = grpc.server(workers, options=options)
    server.add_generic_rpc_handlers(rpc.handlers(service.behaviours()))
    credentials = rpc.server_credentials(
        authority_pem=home.pem("authority.crt"),
        certificate_pem=home.pem("server.crt"),
        key_pem=home.pem("server.key"),
    )
    try:
        port = server.add_secure_port(str(to), credentials)
    except RuntimeError as error:
        raise _taken(to, home.config_file, 0) from error
    server.start()
    service.connections.start(port)
    return server, port


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
    errno.EADDRINUSE: ("another program uses this port", "see who does (ss -ltnp)"),
    errno.EADDRNOTAVAIL: ("the address is not this machine's", "see which are (ip address)"),
    errno.EACCES: ("ports below 1024 are for root alone", "take a port above 1023"),
    errno.EAFNOSUPPORT: ("this machine has no IPv6", "take an IPv4 address, such as 0.0.0.0"),
}
UNKNOWN_CAUSE = ("another program uses this port, or the address is not this machine's", "see who does (ss -ltnp)")


def _taken(to: Address, config_file: Path, number: int) -> RunError:
    cause, look = CANNOT_LISTEN.get(number, UNKNOWN_CAUSE)
    return RunError(
        f"cannot listen on {to}",
        cause=cause,
        next_step=f"{look}, or set [listen] bind in {config_file}; then start again",
    )
