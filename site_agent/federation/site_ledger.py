"""The ledger of the run at this site: every part that comes is checked, kept, and countersigned.

Rules
1. Entries count from the head on that they lead to: it is signed with the ledger key that this site knows. It knows the
   key from its invitation; an older home learns it from the first coordinator that shows one.
2. What is here stays: the ledger that comes goes on from it. A coordinator that shows another one, or a shorter one, is
   not believed, and what it has signed is kept as proof.
3. What the coordinator has accepted from this site stands in the ledger, with this site's signature.
4. No other key is certified for this site, nor for a partner that is pinned here.
5. Before a task of a round comes the head of the round before: a coordinator that keeps the ledger back is not obeyed.
6. Where the plan has secure sums, a round begins only when more than half of all sites, and those that may collude,
   have signed the same ledger.
7. A site signs what it reports, and the last head that it has checked.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NoReturn

from fedcervix.core.events import Event, SiteAttached, SiteRefused, Task
from fedcervix.core.rounds.state import Run
from fedcervix.disk.files import write_whole
from fedcervix.disk.storage import disk
from fedcervix.errors import IdentityError, LedgerError
from fedcervix.transport import codec
from fedcervix.trust.chain import INTEGER_MAX, End, Values, read
from fedcervix.trust.fingerprints import Fingerprint, SiteKeys
from fedcervix.trust.heads import SignedHead, conflict, countersign, may_begin
from fedcervix.trust.key_texts import private_key, public_key
from fedcervix.trust.ledger import LEDGER, Ledger, LedgerEntry
from fedcervix.trust.ledger_run import KnownRound, LedgerRun
from fedcervix.trust.ledger_verdict import unfitting
from fedcervix.trust.pins import Pins
from fedcervix.trust.records import RECORD, place_of, record_of
from fedcervix.trust.statements import PublicKey, sign
from fedcervix.wire import federation_pb2 as wire
from site_agent.home import SiteHome
from site_agent.store import egress
from site_agent.store.egress_account import egressed
from site_agent.store.ledger_store import LedgerStore
from site_agent.store.run_store import RunStore, last_federation

PROOF = "ledger-proof.json"
CAUSE = "the coordinator's home was restored from an old backup or changed, or it is not honest"
PENDING_CHARS_MAX, ENTRY_CHARS = 2**28, 256
"""of the entries that wait for a head, and what each costs beside its text; of 1,000 rounds of 64 sites: 2**27"""

SIGNERS_ROUNDS = 3
"""of how many heads before the newest one it is kept in memory who has signed them"""

WhenThereIsRoom = Callable[[Callable[[], None]], None]
"""does what writes to the disk, and waits where it is full"""


@dataclass(frozen=True, slots=True)
class _Checked:
    """A run's ledger up to a head."""

    ledger: Ledger
    head: SignedHead | None = None
    lines: int = 0
    end_bytes: int = 0
    """where the entries end in their file"""
    told: LedgerRun = field(default_factory=LedgerRun)
    """the run that the entries tell; only where the plan hides something from the coordinator"""

    @property
    def kept(self) -> codec.LedgerKept:
        return codec.LedgerKept(self.ledger.run, self.lines)


class SiteLedger:
    """One agent's ledger. `take` and `welcomed` are called by the loop; the rest may be called from any thread."""

    def __init__(self, home: SiteHome, site: str) -> None:
        """Go on with the ledger of the last run. Raises StorageError."""
        self._home, self._site, self._key = home, site, private_key(home.pem("site.key"))
        self._welcome: codec.Welcome | None = None
        last = last_federation(home, any_readable=True)
        self._folder = last.run_store.folder if last else home.folder
        self._hashes: list[str] = []
        self._signers: dict[int, dict[str, PublicKey]] = {}
        """by round of a head, who has countersigned it, with which key; of the last rounds"""
        self._read_pins: tuple[tuple[int, int, int], Pins] | None = None
        self._found: set[Result] = set()
        """results of this site that stand in the ledger"""
        self._owed: set[Result] = set()
        """results that the coordinator has accepted, and that were not looked for yet"""
        self._checked = self._stored() if last else _Checked(Ledger())
        self._begin()

    # --- what comes ---

    def _begin(self) -> None:
        """Wait for what follows what is checked."""
        self._now, self._told = self._checked.ledger, self._checked.told
        """with the entries that wait for their head"""
        self._pending: list[LedgerEntry] = []
        self._room_chars = PENDING_CHARS_MAX
        """left for more of them"""

    def kept(self) -> codec.LedgerKept:
        """Return how far the ledger is here: the next stream goes on from there.

        The part before may still wait for the loop. So entries that are here may come once more.
        """
        return self._checked.kept

    def welcomed(self, welcome: codec.Welcome, folder: Path) -> str:
        """Hear of a run, whose folder this is; return what is to be told a person, or nothing.

        Raises IdentityError where the ledger key is not the one that this site knows, LedgerError where the run has no
        ledger any more, StorageError.
        """
        before = self._welcome if self._welcome and self._welcome.run == welcome.run else None
        self._welcome = welcome
        if folder != self._folder:
            self._folder = folder
            self._checked = self._stored()
            self._begin()
        if welcome.ledger_key:
            return self._pin(welcome.ledger_key)
        if self._checked.lines or (before and before.ledger_key):
            raise LedgerError(
                f"the coordinator says that run {welcome.run} keeps no ledger; this site has "
                f"{self._checked.lines} entries of it",
                cause=CAUSE,
                next_step="compare with the other sites and the coordinator's operator",
            )
        return "" if before else f"run {welcome.run} keeps no ledger: it began with an earlier version"

    def check_kept(self, welcome: codec.Welcome) -> None:
        """Raise LedgerError where a run that this site has never heard of keeps no ledger, though its coordinator can.

        To be called before anything is written down of the run.
        """
        known = self._home.run_folder(welcome.run).exists()
        if welcome.ledger_key or known or not self._home.known_ledger_key():
            return
        raise LedgerError(
            f"the coordinator says that the new run {welcome.run} keeps no ledger; it has kept one before",
            cause="the run began with an earlier version, before this site joined; or the coordinator is not honest",
            next_step="ask the coordinator's operator for a new run: coordinator start --new",
        )

    def check_told(self, task: Task) -> None:
        """Raise LedgerError where a task comes before the head of the round before it (rule 5)."""
        if self._welcome is None or not self._welcome.ledger_key or task.round == 0:
            return
        head = self._checked.head.head if self._checked.head else None
        if head is None or head.run != task.run or head.round < task.round - 1:
            raise LedgerError(
                f"asked to {task}, and the ledger of the rounds before it has not come",
                cause="the coordinator keeps the ledger back from this site: it is faulty, or it is not honest",
                next_step="compare with the other sites and the coordinator's operator",
            )

    def known_round(self, number: int) -> KnownRound | None:
        """Return with which model a round begins; None: it has not begun, or the ledger of the run is not here so far.

        Only in a run whose plan hides something from the coordinator.
        """
        checked = self._checked
        return checked.told.known_round(checked.ledger.heads, number)

    def told(self) -> Run | None:
        """Return the run as it stands by the ledger, up to the last head that was checked; None: nothing is here.

        Only in a run whose plan hides something from the coordinator.
        """
        return self._checked.told.state

    def began_with(self, model: str, before: int) -> bool:
        """Say whether a round before this one began with a model. In runs as `known_round`."""
        state = self._checked.told.state
        return state is not None and any(one.base == model for one in state.rounds[: max(0, before - 1)])

    def was_trained_from(self, model: str) -> bool:
        """Say whether sites have signed updates that they trained from a model. In runs as `known_round`."""
        state = self._checked.told.state
        return state is not None and any(one.base == model and one.contributions for one in state.rounds)

    def check_countersigned(self, task: Task, colluders: int, keys: SiteKeys) -> None:
        """Raise LedgerError where too few sites have signed the ledger for a task's round to begin (rule 6).

        `colluders`: how many sites may collude with the coordinator. Only signatures with these keys count. Where each
        round takes more than half of all sites and colluders, an honest coordinator always has enough of them: whoever
        took part in a round has signed the head before it. With too few, either the coordinator shows two ledgers, or
        the sites that lack were away: a new connection brings what they have signed since.
        """
        plan, round_ = self._checked.ledger.plan, task.round - 2
        signed = {site for site, key in self._signers.get(round_, {}).items() if keys.get(site) == key}
        sites = plan.sites if plan else ()
        if may_begin(task.round, {round_: signed}, sites, colluders):
            return
        lacking = ", ".join(sorted(set(sites) - signed))
        raise LedgerError(
            f"asked to {task}, and {len(signed)} of {len(sites)} sites have signed the head of round {round_}; "
            f"more than {(len(sites) + colluders) / 2:g} are needed; no signature by the known key of: {lacking}",
            cause="these sites were away, or the coordinator shows them another ledger",
            next_step=f"telephone them, and compare the output of: site-agent verify {task.run}; where it is the same, "
            f"start the agent again: {self._home.command()}",
        )

    def take(self, part: codec.LedgerPart, when_there_is_room: WhenThereIsRoom) -> None:
        """Check a part of the ledger; with its head, keep it. Raises LedgerError, StorageError."""
        if self._welcome is None or not self._welcome.ledger_key:
            self._refuse(part, "entries of a ledger came, although the run keeps none")
        for line in part.lines:
            self._follow(part, line)
        if part.head is not None:
            self._take_head(part, part.head, when_there_is_room)

    def _follow(self, part: codec.LedgerPart, line: LedgerEntry) -> None:
        before = self._now
        try:
            self._now = before.follow(line)
        except ValueError as error:
            if (number := _number(line)) >= before.end.entries:
                self._refuse(part, f"entry {before.end.entries} does not hold: {error}")
            if LEDGER.hash(line.text) != self._hashes[number]:
                self._refuse(part, f"entry {number} is not the one that this site has")
            return
        self._pending.append(line)
        self._found |= _results([line], self._site)
        self._hashes.append(self._now.end.hash)
        self._room_chars -= len(line.text) + ENTRY_CHARS
        if self._room_chars < 0:
            self._refuse(part, f"there is no head after {len(self._pending)} entries")
        if before.run == "":
            self._check_genesis(part, self._now)
        if self._site in self._now.unsigned and self._site not in before.unsigned and not self._worked_before():
            self._refuse(part, f"entry {before.end.entries} holds a result of this site, which has given none")
        if self._now.plan is not None and self._now.plan.hides_from_coordinator:
            self._replay(part, line)
        if self._now.keys is not before.keys:
            self._check_certified(part, before, self._now)

    def _replay(self, part: codec.LedgerPart, line: LedgerEntry) -> None:
        """Follow the run that the ledger tells."""
        try:
            self._told = self._told.follow(line.text)
        except ValueError as error:
            self._refuse(part, f"entry {self._now.end.entries - 1} does not hold: {error}")

    def _worked_before(self) -> bool:
        """Say whether this site has worked for the run: then maybe with an earlier version, which signs nothing."""
        return RunStore(self._folder).has_worked()

    def _check_certified(self, part: codec.LedgerPart, before: Ledger, now: Ledger) -> None:
        """Compare the keys that an entry certifies with what this site knows (rule 4)."""
        number, own = before.end.entries, self._key.public_key()
        if site := unfitting(before, now, self._pins()):
            self._refuse(part, f"entry {number} certifies another key as that of {site} than the pinned one")
        found = now.keys.get(self._site, own)
        if found != own and (before.keys.get(self._site) == own or self._is_foreign(found, now.begun_at)):
            self._refuse(part, f"entry {number} certifies another key as that of this site")

    def _is_foreign(self, key: PublicKey, begun_at: float) -> bool:
        """Say whether this site has never had a key, in a run that began after it had joined. Raises StorageError."""
        try:
            return egressed(egress.entries(self._home.egress)).never_had(Fingerprint.of(key).hex, begun_at)
        except ValueError:
            return False  # `verify` says what is wrong with that ledger

    def _pins(self) -> Pins:
        """Return the pins. A person may change them at any time; the file is read again when it has changed."""
        with disk(self._home.config_file, "read"):
            found = self._home.config_file.stat()
        seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        if self._read_pins is None or self._read_pins[0] != seen:
            self._read_pins = seen, self._home.pins()
        return self._read_pins[1]

    def _check_genesis(self, part: codec.LedgerPart, now: Ledger) -> None:
        """Compare the first entry with what this site knows."""
        welcome = self._welcome
        assert welcome is not None
        authority = self._home.pem("authority.crt").decode().strip()
        pairs = {
            "run": (now.run, welcome.run),
            "plan": (now.plan, welcome.plan),
            "federation": (now.federation, welcome.federation),
            "authority": (now.authority.strip(), authority),
            "ledger key": (now.ledger_key.strip(), welcome.ledger_key.strip()),
        }
        other = [name for name, (found, known) in pairs.items() if found != known]
        if other:
            self._refuse(part, f"entry 0 has another {', '.join(other)} than this site knows")

    def _take_head(self, part: codec.LedgerPart, signed: SignedHead, when_there_is_room: WhenThereIsRoom) -> None:
        head, now = signed.head, self._now
        if signed == self._checked.head and not self._pending:  # a new stream begins with it
            self._check_countersigned(part, now)
            return
        if not now.run or not signed.holds(public_key(now.ledger_key)):
            self._refuse(part, f"the head of round {head.round} is not signed with the ledger key")
        if head.end.entries < self._checked.lines:
            self._refuse(part, f"the ledger has {head.end.entries} entries; this site has {self._checked.lines} of it")
        if (head.run, head.end, now.heads.get(head.round)) != (now.run, now.end, head.end):
            self._refuse(part, f"the head of round {head.round} is not where entry {now.end.entries - 1} leads to")
        self._check_said(part, head.round)
        self._check_countersigned(part, now)
        store, before, lines = LedgerStore(self._folder), self._checked, tuple(self._pending)
        own = codec.Countersigned(self._site, head, countersign(self._key, self._site, head))
        over, end_bytes = (*part.countersigned, own), before.end_bytes

        def keep() -> None:
            nonlocal end_bytes
            end_bytes = store.add(before.lines, before.end_bytes, lines, signed, over)

        when_there_is_room(keep)
        self._note_signer(own, self._key.public_key())
        self._checked = _Checked(now, signed, now.end.entries, end_bytes, self._told)
        self._begin()

    def _check_countersigned(self, part: codec.LedgerPart, now: Ledger) -> None:
        """Check what other sites have signed: it may be over another ledger than the one that is shown here."""
        if now.plan is not None and len(part.countersigned) > len(now.plan.sites):
            self._refuse(part, "there are more countersignatures than sites")
        for one in part.countersigned:
            try:
                self._note_signer(one, now.countersigner(one.site, one.head, one.signature))
            except ValueError as error:
                self._refuse(part, str(error))

    def _note_signer(self, one: codec.Countersigned, key: PublicKey) -> None:
        """Remember who has signed a head; of all rounds but the last ones, nobody asks any more."""
        self._signers.setdefault(one.head.round, {})[one.site] = key
        for old in [round_ for round_ in self._signers if round_ < max(self._signers) - SIGNERS_ROUNDS]:
            del self._signers[old]

    def _check_said(self, part: codec.LedgerPart, round_: int) -> None:
        """Find what the coordinator has accepted from this site, in the rounds that are over.

        A result counts by its task: where the coordinator was restored within a round, this site has answered twice.
        """
        owed = {result for result in list(self._owed) if result.round <= round_}  # another thread adds to it
        for result in sorted(owed - self._found):
            what = f"the {result.what} of this site in round {result.round}"
            self._refuse(part, f"{what} is missing in the ledger, although the coordinator has accepted it")
        self._owed -= owed

    def _refuse(self, part: codec.LedgerPart, why: str) -> NoReturn:
        """Keep what the coordinator has sent. Raises LedgerError, StorageError."""
        mine, theirs = self._checked.head, part.head
        file = self._folder / PROOF
        proof: dict[str, Values] = {"sentence": {"why": why}, "ledger_key": {"pem": self._now.ledger_key}}
        for name, signed in (("kept", mine), ("sent", theirs)):
            if signed is not None:
                proof[name] = {"head": signed.head.text, "signature": signed.signature.hex()}
        sent = [{"text": line.text, "signature": line.signature.hex()} for line in (*self._pending, *part.lines)]
        two = mine and theirs and self._now.ledger_key and conflict(mine, theirs, public_key(self._now.ledger_key))
        if two or not file.exists():  # two heads are proof for everybody, and stay
            write_whole(file, json.dumps({**proof, "lines": sent}, sort_keys=True, allow_nan=False).encode())
        raise LedgerError(
            f"the ledger of the run does not hold: {why}"
            + ("; the coordinator has signed two ledgers, and both heads prove it" if two else ""),
            cause=CAUSE,
            next_step=f"compare with the other sites and the coordinator's operator; what was sent: {file}",
        )

    # --- keys ---

    def _pin(self, key: str) -> str:
        """Compare a ledger key with the one that this site knows, or learn it. Raises IdentityError, StorageError."""
        _check_key(key)
        file = self._home.key_file("ledger.pub")
        known = self._home.known_ledger_key()
        if not known:
            write_whole(file, key.encode())
            return f"the coordinator's ledger key is kept from now on: {file}"
        if known.strip() != key.strip():
            raise IdentityError(
                "the coordinator shows another ledger key than the one that this site knows",
                cause="its home was set up again, or somebody else answers in its place",
                next_step=f"ask the coordinator's operator; only if the key was made anew: rm {file}",
            )
        return ""

    def _stored(self) -> _Checked:
        """Return the ledger of the run in the folder. Raises LedgerError where what is stored does not hold."""
        stored, ledger = LedgerStore(self._folder).read(), Ledger()
        for line in stored.lines:
            try:
                ledger = ledger.follow(line, signatures=False)
            except ValueError as error:
                raise self._changed(f"entry {ledger.end.entries}: {error}") from error
        self._hashes = [LEDGER.hash(line.text) for line in stored.lines]
        """of the entries, by number"""
        head = max(stored.heads, key=lambda one: one.head.end.entries, default=None)
        self._signers = {}
        newest = head.head.round if head else 0
        for one in stored.countersigned:
            if one.head.round >= newest - SIGNERS_ROUNDS:
                with contextlib.suppress(ValueError):  # the file was changed: it does not count
                    self._note_signer(one, ledger.countersigner(one.site, one.head, one.signature))
        self._found = _results(stored.lines, self._site)
        self._owed = {result for record in LedgerStore(self._folder).said() if (result := _result(record, self._site))}
        try:
            told = _told(ledger, stored.lines)
        except ValueError as error:
            raise self._changed(str(error)) from error
        return _Checked(ledger, head, len(stored.lines), stored.end_bytes, told)

    def _changed(self, why: str) -> LedgerError:
        return LedgerError(
            f"what is stored of the ledger does not hold: {why}; {LedgerStore(self._folder).entries}",
            cause="the file was changed by hand, or the disk is failing",
            next_step=f"look which entry it is: {self._home.command(f'verify {self._folder.name}')}",
        )

    # --- what is signed ---

    def sign(self, message: wire.FromSite, egress: End | None = None) -> None:
        """Add to a report what this site signs: its record, and the last head. Signs of life have neither.

        `egress`: where the ledger of what has left this site ends.
        """
        welcome = self._welcome
        event = _event(codec.read_report(message, site=self._site, at=0.0), self._site)
        if welcome is None or not welcome.ledger_key or event is None:
            return
        checked = self._checked
        head = checked.head.head if checked.head and checked.ledger.run == welcome.run else None
        record = record_of(event, welcome.run, welcome.plan.digest, place_of(head, egress))
        message.record, message.signature = record.encode(), sign(self._key, RECORD, record)
        if head is not None:
            message.head = head.text.encode()
            message.countersignature = countersign(self._key, self._site, head)

    def accepted(self, message: wire.FromSite) -> None:
        """Note a report that the coordinator has accepted. Raises StorageError."""
        if message.record and message.WhichOneof("what") in ("update", "score"):
            record = message.record.decode()
            LedgerStore(self._folder).note_said(record)
            if result := _result(record, self._site):
                self._owed.add(result)


def _event(report: codec.Report, site: str) -> Event | None:
    """Return the event that a report becomes; None where it becomes none."""
    match report:
        case codec.Ping() | codec.Progress() | codec.Stopped():
            return None
        case codec.Ready():
            return SiteAttached(site, 0.0)
        case codec.Refusal(_, reason):
            return SiteRefused(site, reason, 0.0)
        case _:
            return report


def _told(ledger: Ledger, lines: Iterable[LedgerEntry]) -> LedgerRun:
    """Return the run that entries tell, where the plan hides something from the coordinator. Raises ValueError."""
    found = LedgerRun()
    if ledger.plan is not None and ledger.plan.hides_from_coordinator:
        for line in lines:
            found = found.follow(line.text)
    return found


def _number(line: LedgerEntry) -> int:
    """Return the number of an entry, as it says itself; that of none where it says none."""
    try:
        found = read(line.text).get("entry")
    except ValueError:
        found = None
    return found if type(found) is int and found >= 0 else INTEGER_MAX


class Result(NamedTuple):
    """What a site has said of a task."""

    round: int
    what: str
    task: str


def _results(lines: Iterable[LedgerEntry], site: str) -> set[Result]:
    """Return what the entries hold of a site's results."""
    signed = (line.text for line in lines if line.signature and site in line.text)
    return {result for text in signed if (result := _result(str(read(text).get("record", "{}")), site))}


def _result(record: str, site: str) -> Result | None:
    """Return of which task a record holds a site's result; None where it holds none."""
    values = read(record)
    task = values.get("task")
    if values.get("site") != site or not isinstance(task, dict) or type(task.get("round")) is not int:
        return None
    return Result(task["round"], str(values.get("what")), str(task.get("kind")))


def _check_key(pem: str) -> None:
    try:
        public_key(pem)
    except ValueError as error:
        raise IdentityError(f"the coordinator shows a ledger key that is none: {error}", cause=CAUSE) from error
