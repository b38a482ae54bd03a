"""What a site asks of the coordinator, and the engine's answer. Who may ask is known before (`dispatch`).

Rules
1. What a behaviour raises is an error of ours; the dispatcher turns it into a status code.
2. Small calls are functions, and run on a thread; they wait for nobody. What goes on for long is a coroutine, which
   waits for a peer without a thread, and has its work done piece by piece (`coordinator.calls.work`).
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any

from coordinator.calls.calls import Call, Headers, natural
from coordinator.calls.ledger_stream import LedgerStream
from coordinator.calls.probes import Probes
from coordinator.calls.transfers import Transfers, of_size
from coordinator.calls.work import WorkThreads
from coordinator.home.home import Home
from coordinator.home.registry import Registry, Roll
from coordinator.home.standing import RegistryReader
from coordinator.run.engine import Engine
from coordinator.run.incoming import derived_from
from coordinator.run.results import ledger, record
from coordinator.run.secure_rounds import PaperStream
from coordinator.run.streams import Bell, KeysChanged, RosterKeys, Stream, instructions
from fedcervix.core.compression import Packed, packed_form
from fedcervix.core.events import (
    Answer,
    BoxesStored,
    CloseSigned,
    Event,
    ModelAdopted,
    ModelUnusable,
    ReleaseStored,
    Rewrapped,
    ScoreReported,
    SiteFailed,
    SiteOpened,
    SiteRefused,
    Task,
    UpdateStored,
)
from fedcervix.core.plan import SITES_MAX
from fedcervix.core.rounds.instructions import REVOKED_HERE, Finish, Instruction, instruction
from fedcervix.core.rounds.objections import objection
from fedcervix.core.rounds.state import Presence, Round, Run
from fedcervix.core.rounds.step import answer_to
from fedcervix.errors import BusyError, IdentityError, RemoteError, RunError, StorageError, VersionError
from fedcervix.models.blobs import BlobStore
from fedcervix.runtime.budgets import Budget
from fedcervix.runtime.log import logger
from fedcervix.runtime.record import LedgerLine
from fedcervix.runtime.typed_json import to_text
from fedcervix.transport import codec, identity, renewal, rpc
from fedcervix.transport.versions import HERE, Build, agreed
from fedcervix.trust.fingerprints import SiteKeys
from fedcervix.trust.key_texts import private_key
from fedcervix.trust.ledger import NOT_SIGNED, Signed
from fedcervix.trust.seals import shown_to
from fedcervix.trust.sum_papers import opening_event
from fedcervix.wire import federation_pb2 as wire

RECORD_LINE_CHARS_MIN = 150
"""of one contribution in a record: one that is sure to be too long is not written out for every site"""
THREADS = 8
AHEAD_BYTES_MAX = 2 << 20
"""of a model that are read at once for a site, less where there are many: a turn of a thread costs more than a chunk"""
EACH = 2
"""threads of one certificate at most"""
RENEWALS, RENEWALS_PER_S = 20, 1 / 60
"""calls of Renew of one site: at once, and a second"""


class Service:
    """Behaviours of the methods that sites call."""

    def __init__(self, home: Home, registry: Registry, engine: Engine, blobs: BlobStore) -> None:
        self._home, self._registry, self._engine, self._blobs = home, registry, engine, blobs
        config = home.config()
        self._federation, self._lifetime = config.federation.name, config.certificates.site
        self._transfers, self.work = Transfers(), WorkThreads("site", THREADS, each=EACH)
        self._build = replace(HERE, plan_format=engine.run.plan.format)
        self._chunk_bytes = rpc.chunk_bytes(len(engine.run.plan.sites))
        self._probes = Probes(self.work, self._transfers, self._chunk_bytes)
        self._ahead_bytes = min(AHEAD_BYTES_MAX, rpc.UPLOADS_BYTES // len(engine.run.plan.sites))
        self._log = logger(run=engine.run.run)
        self._ledger_key = private_key(home.pem("ledger.key")) if engine.ledger.known.plan else None
        self._renewals: dict[str, Budget] = {}
        self._clocks: dict[str, str] = {}
        """what is said of a site's clock"""
        self._ledger_lock = threading.Lock()
        self._ledger: tuple[tuple[Round, ...] | None, tuple[LedgerLine, ...]] = (None, ())
        """what was made last, and of which rounds"""
        self._roll: Roll | None = None
        self._keys: SiteKeys = {}
        """of the plan's sites, by that roll"""

    def behaviours(self, bell: Bell, standing: RegistryReader) -> dict[rpc.Method, Any]:
        """Return what answers each method; `bell` rings at every change, also of the registry."""

        def keys() -> SiteKeys:
            return self._keys_of(standing.roll)

        return {
            rpc.ENROLL: self.enroll,
            rpc.RENEW: self.renew,
            rpc.ATTACH: lambda request, call: self.attach(request, call, bell, RosterKeys(keys)),
            rpc.REPORT: self.report,
            rpc.OFFER: self.offer,
            rpc.PACKED: self.packed,
            rpc.FETCH: self.fetch,
            rpc.PUSH: self.push,
            rpc.PROBE_DOWN: self._probes.down,
            rpc.PROBE_UP: self._probes.up,
        }

    def check_roster(self, site: str) -> None:
        """Raise IdentityError for a site that is not declared in the plan."""
        if site not in self._engine.run.plan.sites:
            raise IdentityError(
                f"site {site} is not in the roster of run {self._engine.run.run}",
                cause="[run] sites in coordinator.toml did not name it when the run began",
                next_step="ask the coordinator's operator",
            )

    def _agent(self, call: Call) -> str:
        """Return the calling site. Raises DuplicateAgentError where another process of its agent acts for it."""
        self._engine.sites.check_instance(call.site, call.instance)
        return call.site

    # --- enrolment ---

    def enroll(self, request: wire.EnrollRequest, call: Call) -> wire.EnrollReply:
        """Trade an invitation for a site's certificate."""
        invitation, now = call.certificate, datetime.now(UTC)
        key = identity.check_request(request.request_pem, self._registry.challenge(invitation.serial))
        who = identity.Identity(self._federation, "site", invitation.identity.name)
        issue = partial(self._issued, self._home.authority(), key, who, now)
        pem = self._registry.redeem(invitation.serial, identity.key_fingerprint(key), issue, now)
        self._engine.note_certificates({who.name: pem.decode()})
        self._log.info("site joined", site=who.name)
        return wire.EnrollReply(certificate_pem=pem)

    def renew(self, request: wire.RenewRequest, call: Call) -> wire.RenewReply:
        """Give a site a certificate that lives longer than the one with which it calls, for the same key.

        Raises RemoteError for another key, BusyError, IdentityError, StorageError.
        """
        present, now = call.certificate, datetime.now(UTC)
        budget = self._renewals.setdefault(call.site, Budget(RENEWALS_PER_S, RENEWALS))
        if not budget.take(time.monotonic()):
            raise BusyError(
                f"{call.site} has asked for too many renewals of its certificate",
                cause="an agent asks for one a few times in the life of a certificate",
                next_step="no action is needed: it is tried again automatically",
            )
        key = identity.check_request(request.request_pem)
        if identity.key_fingerprint(key) != present.key_fingerprint:
            raise RemoteError(
                "a certificate is renewed for its own key; the request is for another one",
                cause="the site's key file was changed while its agent ran",
            )
        authority, lifetime = self._home.authority(), self._lifetime
        until = min(now + lifetime, identity.identify(authority.certificate_pem).not_after)
        issue = partial(self._issued, authority, key, present.identity, now)
        pem = self._registry.renew(present.serial, until, lifetime, issue, now)
        return wire.RenewReply(certificate_pem=pem)

    def _issued(
        self, authority: identity.Authority, key: identity.PublicKey, who: identity.Identity, now: datetime
    ) -> tuple[bytes, str, datetime]:
        pem = identity.issue(authority, key, who, now, self._lifetime)
        made = identity.identify(pem)
        self._log.info("certificate issued", site=who.name, serial=made.serial, until=made.not_after.isoformat())
        return pem, made.serial, made.not_after

    # --- control plane ---

    async def attach(
        self, request: wire.AttachRequest, call: Call, bell: Bell, roster: RosterKeys
    ) -> AsyncIterator[Headers | wire.FromCoordinator]:
        """Say what the run is, then what to do, each time that changes. Raises a FedcervixError."""
        site = call.site
        self._compare_clocks(site, request)
        build, run = codec.read_build(request), self._engine.run
        yield Headers({rpc.VERSIONS_KEY: codec.write_versions(self._build)})
        version = await self.work.do(call.serial, self._agreed, site, build, request.look)

        def welcome() -> wire.FromCoordinator:
            key = self._engine.ledger.known.ledger_key
            said = codec.Welcome(self._federation, run.run, run.plan, version, time.time(), roster.keys, key)
            return codec.write_welcome(said)

        if request.look:
            _check_not_revoked(run, site)
            yield welcome()
            return
        claim = codec.read_claim(request.instance, request.succeeds)
        await self.work.do(call.serial, self._engine.sites.admit, site, claim, build)
        self._log.info("site connected", site=site, software=build.software, wire_version=version)
        yield welcome()
        stream = Stream(site, claim.instance)
        last: Instruction | None = None
        ledger = LedgerStream(self._engine.ledger, self._ledger_key, codec.read_kept(request))
        shown = PaperStream(lambda: self._engine.run, site)
        try:
            await self.work.do(call.serial, self._engine.sites.open_stream, stream)
            async for news in self._news(stream, bell, call, roster):
                if isinstance(news, KeysChanged):
                    yield welcome()
                    continue
                last = news
                while isinstance(last, Task | Finish) and (part := await self.work.do(call.serial, ledger.next)):
                    yield codec.write_ledger(part)
                for paper in shown.due(last):
                    yield codec.write_paper(paper)
                told = await self.work.do(call.serial, self._with_record, last) if isinstance(last, Finish) else last
                yield codec.write_instruction(told, version)
                if isinstance(last, Finish):
                    await self.work.do(call.serial, self._engine.sites.dismiss, site)
        finally:
            self.work.later(self._engine.sites.close_stream, stream, last)

    def _compare_clocks(self, site: str, request: wire.AttachRequest) -> None:
        """Note how far a site's clock is off, to a second or so: certificates are checked by it. Raises RemoteError."""
        words = renewal.skew(f"site {site}", codec.read_clock(request, time.time()))
        if words and not self._clocks.get(site):
            self._log.warning("clocks differ", site=site, what=words)
        self._clocks[site] = words

    def clocks(self) -> list[str]:
        """Return the warnings to the operator about sites' clocks."""
        return [words for words in self._clocks.values() if words]

    def _agreed(self, site: str, build: Build, look: bool) -> int:
        """Return the version of the wire to speak with a site, whose certificate then stands in the ledger.

        Raises VersionError, StorageError; the operator sees that the site waits.
        """
        self._engine.note_certificates(self._registry.certificates())
        try:
            return agreed(build, self._build, at="coordinator")
        except VersionError as error:
            if not look:
                self._engine.sites.outdated(site, build, f"{error.what}; {error.next_step}")
            raise

    def _keys_of(self, roll: Roll) -> SiteKeys:
        """Return the keys of the run's sites that may connect: the same object as long as none of them has changed.

        A site that was revoked in this run takes part from the next one on, also where it has joined again with a new
        key: that key is not of this run. On the event loop alone.
        """
        if roll is not self._roll:
            run, found = self._engine.run, roll.certificates
            here = [site for site in run.plan.sites if site in found]
            keys = {site: _certified(found[site]) for site in here if run.site(site).presence is not Presence.REVOKED}
            self._roll, self._keys = roll, self._keys if keys == self._keys else keys
        return self._keys

    def _news(
        self, stream: Stream, bell: Bell, call: Call, roster: RosterKeys
    ) -> AsyncIterator[Instruction | KeysChanged]:
        return instructions(self._engine, stream, bell, call.insist, roster)

    def _with_record(self, news: Finish) -> Finish:
        """Let a site that leaves know who counted in each round: its own report says so."""
        run = self._engine.run
        lines = sum(len(round_.contributions) for round_ in run.rounds)
        if lines * RECORD_LINE_CHARS_MIN > codec.RECORD_CHARS_MAX:
            return news
        text = to_text(record(run, self._ledger_of(run), self._engine.paces.known))
        return replace(news, record=text if len(text) <= codec.RECORD_CHARS_MAX else "")

    def _ledger_of(self, run: Run) -> tuple[LedgerLine, ...]:
        """Return a run's ledger, made once: of many rounds and sites it takes a second, and all sites leave at once."""
        with self._ledger_lock:
            rounds, lines = self._ledger
            if rounds is not run.rounds:
                lines = ledger(run)
                self._ledger = run.rounds, lines
            return lines

    def report(self, message: wire.FromSite, call: Call) -> wire.ReportReply:
        """Take in what a site has done."""
        site = self._agent(call)
        at, version = datetime.now(UTC).timestamp(), self._engine.sites.wire_version(site)
        report = codec.read_report(message, site=site, at=at)
        if isinstance(report, codec.Progress):
            self._engine.sites.heard(site, report)
        answer = self._take(report, site, at, self._signed(message, report, site, at))
        if answer is Answer.REFUSED and isinstance(report, UpdateStored | ScoreReported):
            return codec.write_answer(answer, objection(self._engine.run, report), version)
        outcome = self._engine.run.outcome if isinstance(report, ModelAdopted) else None
        return codec.write_answer(answer, outcome.value if outcome and answer in KNOWN else "", version)

    def _signed(self, message: wire.FromSite, report: codec.Report, site: str, at: float) -> Signed:
        """Return what a site has signed with a report, and keep its word on the ledger. Raises RemoteError."""
        ledger, of_sites = self._engine.ledger, self._engine.sites
        match report:
            case codec.Ping() | codec.Progress() | codec.Stopped():
                return NOT_SIGNED
            case codec.Ready():
                event: Event = of_sites.attached(site, at)
            case codec.Refusal(_, reason):
                event = SiteRefused(site, reason, at)
            case _:
                event = report
        signed = ledger.checked(event, codec.read_signed(message))
        if found := codec.read_countersigned(message, site):
            ledger.countersigned(site, found.head, found.signature)
        return signed

    def _take(self, report: codec.Report, site: str, at: float, signed: Signed) -> Answer:
        match report:
            case codec.Ping() | codec.Progress():
                return Answer.ACCEPTED
            case codec.Stopped():
                self._engine.sites.stopped(site)
                return Answer.ACCEPTED
            case codec.Ready():
                return self._take_ready(report, site, at, signed)
            case codec.Refusal(run, reason):
                refused = SiteRefused(site, reason, at)
                return self._engine.submit(refused, signed) if self._is_current(run) else Answer.STALE
            case UpdateStored():
                if report.masked is not None and answer_to(self._engine.run, report) is Answer.ACCEPTED:
                    self._engine.secrets.check(report)
                return self._engine.models.take_update(report, signed)
            case Rewrapped():
                return self._engine.models.take_passed_on(report, signed)
            case BoxesStored() | ReleaseStored() | CloseSigned():
                return self._take_signed(report, signed)
            case ScoreReported() | ModelUnusable() | ModelAdopted() | SiteFailed():
                return self._engine.submit(report, signed)

    def _take_signed(
        self, event: BoxesStored | ReleaseStored | CloseSigned | SiteOpened, signed: Signed = NOT_SIGNED
    ) -> Answer:
        """Submit what a site has signed for the others. Raises RemoteError where it does not hold."""
        answer = answer_to(self._engine.run, event)
        if answer is not Answer.ACCEPTED:
            return answer
        self._engine.secrets.check(event)
        if isinstance(event, ReleaseStored):
            return self._engine.models.take_release(event, signed)
        return self._engine.submit(event, signed)

    def _take_ready(self, ready: codec.Ready, site: str, at: float, signed: Signed) -> Answer:
        plan = self._engine.run.plan
        if not self._is_current(ready.run):
            return Answer.STALE
        if ready.plan_digest != plan.digest:
            raise RunError("the site has accepted a different plan", cause="the two sides run different versions")
        self._open(ready, site, at)
        if ready.pace is not None:
            self._engine.paces.note(self._engine.run, site, ready.pace, at)
        return self._engine.submit(self._engine.sites.attached(site, at), signed)

    def _open(self, ready: codec.Ready, site: str, at: float) -> None:
        """Take in what a site opens the run with. Raises RemoteError, RunError where it has opened it before."""
        hides = self._engine.run.plan.hides_from_coordinator
        if hides is not (ready.opening is not None):
            raise RemoteError(
                "a site opens a run with its own key if the plan hides something from the coordinator, and only then",
                cause="the two sides run different versions",
                next_step="install the same version of fedcervix on both sides",
            )
        opened = opening_event(ready.opening, at) if ready.opening else None
        if opened is not None and self._take_signed(opened) is Answer.REFUSED:
            raise RunError(
                f"site {site} has opened this run with another key before",
                cause="its home was restored from a backup, or copied: the secrets of a run are in no backup",
                next_step="the site takes part again in the next run",
            )
        if opened is not None and not self._engine.run.rounds and (words := self._engine.secrets.imbalance()):
            self._engine.abort(words)

    def _is_current(self, run: str) -> bool:
        return run == self._engine.run.run

    # --- data plane ---

    def offer(self, request: wire.OfferRequest, call: Call) -> wire.OfferReply:
        """Say from which byte a model is wanted."""
        site = self._agent(call)
        digest, size_bytes = codec.read_offer(request)
        return wire.OfferReply(offset=self._wanted_from(site, digest, size_bytes), chunk_bytes=self._chunk_bytes)

    def _wanted_from(self, site: str, digest: str, size_bytes: int) -> int:
        """Return from which byte a model is wanted. Raises RunError where none is, RemoteError, StorageError.

        The answer does not depend on what other sites have sent (see fedcervix.models.blobs, rule 3).
        """
        self._check_size(size_bytes)
        return self._engine.models.expect(site, digest, size_bytes)

    def _check_size(self, size_bytes: int) -> None:
        bound = self._engine.models.bytes_max(self._engine.run)
        if size_bytes > bound:
            raise RemoteError(f"a model of {size_bytes:,} bytes does not belong to this run (at most {bound:,} bytes)")

    async def push(self, chunks: AsyncIterator[bytes], call: Call) -> wire.PushReply:
        """Take in a model, from the offset that `offer` gave. Raises RunError, RemoteError, StorageError."""
        await self.work.do(call.serial, self._agent, call)
        digest = codec.read_digest(call.headers.get(rpc.DIGEST_KEY, ""))
        offset, size_bytes = (natural(call.headers.get(key, "")) for key in (rpc.OFFSET_KEY, rpc.SIZE_KEY))
        incoming = self._blobs.incoming(digest, call.site, offset=offset, size_bytes=size_bytes)
        seen = await self.work.do(call.serial, self._engine.models.arriving, call.site, size_bytes)

        def begin() -> bool:
            # Whoever pushes without having asked is held to the same.
            here = self._wanted_from(call.site, digest, size_bytes) == size_bytes
            if not here:
                incoming.open()
            return here

        def take(chunk: bytes) -> None:
            self._goes_on(call)
            self._engine.moved(call.site, received_bytes=len(chunk))
            seen.see(chunk)
            incoming.write(chunk)

        def settle() -> bool:
            here = incoming.settle()
            if here and seen.sound:
                self._engine.models.note_arrived(call.site, digest, seen)
            return here

        with self._transfers.newest(call.site, "push", call.task):
            try:
                here = await self.work.do(call.serial, begin)
                if not here:
                    async for chunk in of_size(chunks):
                        await self.work.do(call.serial, take, chunk)
                    here = await self.work.do(call.serial, settle)
            finally:
                self.work.later(incoming.close)
                self.work.later(seen.close)
        if not here:
            raise RunError("the transfer ended early", next_step="offer it again, and continue from the given offset")
        return wire.PushReply(size_bytes=size_bytes)

    def packed(self, request: wire.PackedRequest, call: Call) -> wire.PackedReply:
        """Say in which packed form a site may have the model of its task. Raises RunError."""
        site = self._agent(call)
        digest = codec.read_digest(request.digest)
        if digest != self._task(site).base:
            raise RunError(f"the model {digest[:12]} is not for this site now", cause="the run is at a later step")
        form = self._form(site, digest)
        sealed = form is not None and self._engine.run.plan.terms.sealed
        return codec.write_packed(form, shown_to(self._engine.run, site, digest) if sealed else ())

    def _form(self, site: str, model: str) -> Packed | None:
        form = packed_form(self._engine.run, site, model)
        return form if form and self._blobs.has(form.digest) else None

    async def fetch(self, request: wire.BlobRequest, call: Call) -> AsyncIterator[Headers | bytes]:
        """Send a model from an offset; its size goes before it."""
        digest, size_bytes = await self.work.do(call.serial, self._to_fetch, request, call)
        yield Headers({rpc.SIZE_KEY: str(size_bytes)})
        chunk_bytes = codec.read_chunk_bytes(request.chunk_bytes, self._chunk_bytes)
        chunks = self._blobs.chunks(digest, request.offset, chunk_bytes)

        def following() -> list[bytes]:
            self._goes_on(call)
            return list(islice(chunks, max(1, self._ahead_bytes // chunk_bytes)))

        with self._transfers.newest(call.site, "fetch", call.task):
            while some := await self.work.do(call.serial, following):
                for chunk in some:
                    yield chunk
                    self._engine.moved(call.site, sent_bytes=len(chunk))

    def _to_fetch(self, request: wire.BlobRequest, call: Call) -> tuple[str, int]:
        """Return which model a site may have, and its bytes. Raises RunError where it is not the one asked for."""
        site = self._agent(call)
        digest = codec.read_digest(request.digest)
        base = self._task(site).base
        form = self._form(site, base)
        sums = derived_from(self._engine.run)
        if digest not in {base, form.digest if form else base, *sums} or not self._blobs.has(digest):
            raise RunError(f"the model {digest[:12]} is not for this site now", cause="the run is at a later step")
        size_bytes = self._blobs.size_bytes(digest)
        codec.check_offset(request.offset, size_bytes)
        self._engine.ledger.note_reader(site, base)
        return digest, size_bytes

    def _task(self, site: str) -> Task:
        """Return what the site is asked to do: it sends and fetches only the models of that. Raises RunError."""
        asked = instruction(self._engine.run, site)
        if not isinstance(asked, Task):
            raise RunError("no task is open for this site now", cause="the run is at a later step")
        return asked

    def _goes_on(self, call: Call) -> None:
        """A chunk is a sign of life; what is left is neither sent nor taken once another process acts for the site.

        Nor once the site is revoked. Raises DuplicateAgentError, IdentityError.
        """
        self._engine.sites.check_instance(call.site, call.instance)
        call.insist()


@functools.lru_cache(SITES_MAX)  # the registry is read again at every change
def _certified(certificate_pem: bytes) -> identity.PublicKey:
    """Return the key of a certificate that the registry has. Raises StorageError where it is none."""
    try:
        return identity.certified_key(certificate_pem)
    except IdentityError as error:
        raise StorageError(
            f"the registry has a certificate that cannot be read: {error.what}",
            cause="its file is damaged",
            next_step="restore the coordinator's home folder from a backup",
        ) from error


def _check_not_revoked(run: Run, site: str) -> None:
    if run.site(site).presence is Presence.REVOKED:
        raise RunError(
            f"site {site} cannot take part in run {run.run}, although its certificate is valid again",
            cause=f"{REVOKED_HERE}; an invitation takes effect from the next run on",
            next_step="wait for the next run; the service can stay enabled",
        )


KNOWN = (Answer.ACCEPTED, Answer.DUPLICATE)
