"""The ledger of a run between a coordinator and its sites: what a dishonest coordinator does is found, and named."""

from __future__ import annotations

import base64
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from coordinator.calls.ledger_stream import LedgerStream
from coordinator.run import run_ledger
from coordinator.run.engine import Engine
from coordinator.run.run_ledger import RunLedger
from fedcervix.core.events import (
    AggregateStored,
    Answer,
    ScoreReported,
    SiteAttached,
    SiteFailed,
    SiteRefused,
    SiteRevoked,
    SiteSilent,
    Task,
    event_to_json,
)
from fedcervix.core.rounds.instructions import instruction
from fedcervix.errors import IdentityError, LedgerError, RemoteError, StorageError
from fedcervix.models.blobs import BlobStore
from fedcervix.transport import codec, identity
from fedcervix.trust import ledger as ledgers
from fedcervix.trust.chain import LINKS, End, read, text_of
from fedcervix.trust.fingerprints import Fingerprint
from fedcervix.trust.heads import Head, countersign, sign_head
from fedcervix.trust.key_texts import private_key, public_pem
from fedcervix.trust.ledger import (
    LEDGER,
    NOT_SIGNED,
    Ledger,
    LedgerEntry,
    Signed,
    certificate,
    certified_key,
    event_entry,
    reader,
)
from fedcervix.trust.ledger_verdict import Expected, Stored, verdict
from fedcervix.trust.pins import FormerPin, Pins
from fedcervix.trust.records import RECORD, SAID, place_of, record_of, values_of
from fedcervix.trust.statements import sign
from site_agent import home as homes
from site_agent.commands.verify import verify
from site_agent.federation import site_ledger
from site_agent.federation.privacy import LEAVES
from site_agent.federation.site_ledger import PROOF, SiteLedger
from site_agent.store.egress import Egress
from site_agent.store.ledger_store import LedgerStore
from site_agent.store.run_store import RunStore
from site_agent.store.task_results import TrainResult
from tests.unit.fake_link import digest
from tests.unit.independent_verifier import BrokenError
from tests.unit.independent_verifier import verify as verify_independently
from tests.unit.ledgers import RUN, Ledgers, deliver


@pytest.fixture
def run(tmp_path: Path) -> Ledgers:
    made = Ledgers(tmp_path)
    made.attach()
    return made


def test_a_verifier_that_was_written_from_the_page_alone_agrees(run: Ledgers) -> None:
    """The sites keep the ledger of a whole run, and countersign it; docs/ledger.md says how to check it."""
    sites = {site: run.attached(site) for site in run.sites}
    for _ in range(run.rounds):
        for site, (ledger, stream) in sites.items():
            deliver(ledger, stream)
            run.countersign(ledger, site)
        run.play_round()
    for site, (ledger, stream) in sites.items():
        deliver(ledger, stream)
        run.countersign(ledger, site)
    run.adopt()
    for ledger, stream in sites.values():
        deliver(ledger, stream)
    folder, key = run.run_folder("nhs"), run.site("nhs").known_ledger_key().encode()
    found = verify_independently(folder, key)
    assert found == {0: {"nhs", "alts"}, 1: {"nhs", "alts"}, 2: {"nhs", "alts"}, 3: {"nhs", "alts"}, 4: {"nhs"}}
    file = folder / "ledger.jsonl"
    lines = [line for line in file.read_text().split("\n") if line]
    assert len(lines) == run.ledger.known.end.entries
    for number in (0, 2, 9, len(lines) - 1):
        values = dict(read(lines[number]))
        changed = text_of({**values, "round": values["round"] + 5})  # type: ignore[operator]
        file.write_text("\n".join([*lines[:number], changed, *lines[number + 1 :]]))
        with pytest.raises(BrokenError):
            verify_independently(folder, key)


def test_a_restarted_coordinator_goes_on_with_the_same_chain(run: Ledgers) -> None:
    run.play_round()
    again = RunLedger(run.journal, RUN)
    assert again.known == run.ledger.known
    assert again.known.heads.keys() == {0, 1}
    run.ledger = again
    ledger, stream = run.attached("nhs")
    deliver(ledger, stream)
    run.play_round()
    deliver(ledger, stream)
    assert ledger.kept().entries == run.ledger.known.heads[2].entries


def test_a_restarted_site_goes_on_where_it_was(run: Ledgers) -> None:
    run.play_round()
    deliver(*run.attached("nhs"))
    run.play_round()
    ledger, stream = run.attached("nhs")
    first = stream.next()
    assert first is not None
    assert read(first.lines[0].text)["entry"] == run.ledger.known.heads[1].entries
    ledger.take(first, lambda act: act())
    assert ledger.kept() == codec.LedgerKept(RUN, run.ledger.known.heads[2].entries)


def test_a_stream_that_was_opened_before_the_last_head_came_repeats_what_is_here(run: Ledgers) -> None:
    """The line was cut, and what had come on it was checked only after the next stream had been asked for."""
    ledger, early = run.attached("nhs")
    late = LedgerStream(run.ledger, run.key, ledger.kept())
    run.play_round()
    deliver(ledger, early)
    run.play_round()
    ledger.welcomed(run.welcome(), run.run_folder("nhs"))
    deliver(ledger, late)
    assert ledger.kept().entries == run.ledger.known.heads[2].entries
    whole = LedgerStream(run.ledger, run.key, codec.LedgerKept()).next()
    assert whole is not None
    text = whole.lines[4].text.replace("alts", "alto")
    with pytest.raises(LedgerError, match="entry 4 is not the one that this site has"):
        ledger.take(replace(whole, lines=(*whole.lines[:4], LedgerEntry(text))), lambda act: act())


def test_what_waits_for_its_head_is_sent_again_on_the_next_line(run: Ledgers) -> None:
    run.play_round()
    ledger, stream = run.attached("nhs")
    whole = stream.next()
    assert whole is not None
    ledger.take(replace(whole, lines=whole.lines[:4], head=None), lambda act: act())
    assert ledger.kept().entries == 0
    ledger.welcomed(run.welcome(), run.run_folder("nhs"))
    ledger.take(whole, lambda act: act())
    assert ledger.kept().entries == len(whole.lines)


def refused(run: Ledgers, site: str = "nhs") -> LedgerError:
    """Send a site what it does not have; it refuses."""
    with pytest.raises(LedgerError) as caught:
        deliver(*run.attached(site))
    assert (run.run_folder(site) / PROOF).exists()
    return caught.value


def test_an_update_in_the_name_of_a_site_is_found_by_every_site(run: Ledgers) -> None:
    forged = run.update("nhs", "forged")
    number = run.ledger.known.end.entries
    run.submit(forged, run.signed(forged, identity.new_key()))
    run.submit(run.update("alts"))
    finish(run)
    for site in run.sites:
        assert f"entry {number} does not hold: the signature is not that of nhs" in refused(run, site).what


def finish(run: Ledgers) -> None:
    """End a round whose updates are there."""
    run.submit(AggregateStored(run.run.current.number, digest(b"average"), run.at))
    for site in run.sites:
        task = instruction(run.run, site)
        assert isinstance(task, Task)
        run.submit(ScoreReported(site, task, 6.0, 4, 10, (), run.at))


def test_an_update_that_says_something_else_than_the_site_has_signed_is_found(run: Ledgers) -> None:
    honest = run.update("nhs")
    number = run.ledger.known.end.entries
    run.submit(replace(honest, images=1000), run.signed(honest))
    run.submit(run.update("alts"))
    finish(run)
    assert f"entry {number} does not hold: its record says something else: images" in refused(run).what


def test_an_update_without_a_signature_is_found_once_a_site_has_signed(run: Ledgers) -> None:
    signs = run.ledger.known.signs
    run.ledger.known = replace(run.ledger.known, signs=frozenset())  # a dishonest coordinator does not ask
    run.submit(run.update("nhs"), NOT_SIGNED)
    run.ledger.known = replace(run.ledger.known, signs=signs)
    run.submit(run.update("alts"))
    finish(run)
    assert "nhs signs its records, and has not signed this one" in refused(run, "alts").what


def another_certificate(run: Ledgers, site: str) -> None:
    """Let the authority certify another key as that of a site, which then signs in its name."""
    who, run.keys[site] = identity.Identity("cervix", "site", site), identity.new_key()
    key, authority = identity.public_key(run.keys[site]), run.home.authority()
    pem = identity.issue(authority, key, who, datetime.now(UTC), identity.AUTHORITY_LIFETIME)
    run.ledger.note_certificates({site: pem.decode()})


def test_another_key_for_a_partner_that_is_pinned_is_found_at_once(run: Ledgers) -> None:
    number = run.ledger.known.end.entries
    pinned = Fingerprint.of(identity.public_key(run.keys["alts"]))
    another_certificate(run, "alts")
    run.play_round()
    homes.pin(run.site("nhs"), "alts", pinned)
    assert f"entry {number} certifies another key as that of alts than the pinned one" in refused(run).what


def test_a_key_with_which_a_revoked_site_joins_again_is_not_of_this_run(run: Ledgers, tmp_path: Path) -> None:
    """Its partners have pinned the one before, and go on."""
    engine = Engine(run.journal, BlobStore(tmp_path / "blobs"), run.record, clock_s=lambda: 1.0)
    before = engine.ledger.known.keys
    assert engine.submit(SiteRevoked("alts", 1.0)) is Answer.ACCEPTED
    key, who = identity.public_key(identity.new_key()), identity.Identity("cervix", "site", "alts")
    pem = identity.issue(run.home.authority(), key, who, datetime.now(UTC), identity.AUTHORITY_LIFETIME)
    engine.note_certificates({"alts": pem.decode(), "stranger": pem.decode()})
    assert engine.ledger.known.keys == before


def test_verify_compares_the_certified_keys_with_the_pins(run: Ledgers) -> None:
    run.play_round()
    deliver(*run.attached("nhs"))
    verify(run.site("nhs"), RUN)
    homes.pin(run.site("nhs"), "alts", Fingerprint.of(identity.public_key(identity.new_key())))
    with pytest.raises(LedgerError, match=r"site alts has the key .* here, and is pinned to"):
        verify(run.site("nhs"), RUN)


def test_what_a_site_has_countersigned_with_a_key_that_it_lost_later_still_holds(run: Ledgers) -> None:
    run.play_round()
    for site in run.sites:
        ledger, stream = run.attached(site)
        deliver(ledger, stream)
        run.countersign(ledger, site)
    another_certificate(run, "alts")
    run.play_round()
    deliver(*run.attached("nhs"))
    verify(run.site("nhs"), RUN)


def test_a_countersignature_over_another_ledger_is_found(run: Ledgers) -> None:
    """It shows that another site was shown another ledger."""
    run.play_round()
    ledger, stream = run.attached("nhs")
    whole = stream.next()
    assert whole is not None
    assert whole.head is not None
    other = replace(whole.head.head, end=replace(whole.head.head.end, hash="f" * 64))
    signature = countersign(private_key(run.keys["alts"]), "alts", other)
    with pytest.raises(LedgerError, match="of alts over the head of round 1 is over a head that this ledger does not"):
        ledger.take(replace(whole, countersigned=(codec.Countersigned("alts", other, signature),)), lambda act: act())
    signature = countersign(private_key(run.keys["nhs"]), "alts", whole.head.head)
    forged = codec.Countersigned("alts", whole.head.head, signature)
    for said, why in (((forged,), "does not hold"), ((forged,) * 3, "more countersignatures than sites")):
        ledger, _ = run.attached("nhs")
        with pytest.raises(LedgerError, match=why):
            ledger.take(replace(whole, countersigned=said), lambda act: act())


def test_a_line_that_was_cut_while_the_ledger_waited_for_the_disk_accuses_nobody(run: Ledgers) -> None:
    """The next line asks for what was not checked yet when it began: so entries that are here come once more."""
    run.play_round()
    ledger, stream = run.attached("nhs")
    waits = stream.next()
    assert waits is not None
    again = LedgerStream(run.ledger, run.key, ledger.kept())  # the listener has dialled again
    ledger.welcomed(run.welcome(), run.run_folder("nhs"))  # of the line before: a key was told
    ledger.take(replace(waits, lines=waits.lines[:5], head=None), lambda act: act())
    ledger.take(replace(waits, lines=waits.lines[5:]), lambda act: act())
    ledger.welcomed(run.welcome(), run.run_folder("nhs"))
    run.play_round()
    deliver(ledger, again)
    assert ledger.kept().entries == run.ledger.known.heads[2].entries


def test_an_entry_that_comes_once_more_is_the_same(run: Ledgers) -> None:
    run.play_round()
    ledger, stream = run.attached("nhs")
    whole = stream.next()
    assert whole is not None
    ledger.take(whole, lambda act: act())
    changed = text_of({**read(whole.lines[3].text), "round": 1})
    with pytest.raises(LedgerError, match="entry 3 is not the one that this site has"):
        ledger.take(replace(whole, lines=(*whole.lines[:3], LedgerEntry(changed))), lambda act: act())


def test_a_ledger_that_is_kept_back_is_found_at_the_next_task(run: Ledgers) -> None:
    ledger, stream = run.attached("nhs")
    task = instruction(run.run, "nhs")
    assert isinstance(task, Task)
    with pytest.raises(LedgerError, match="the ledger of the rounds before it has not come"):
        ledger.check_told(task)
    deliver(ledger, stream)
    ledger.check_told(task)
    with pytest.raises(LedgerError, match="the ledger of the rounds before it has not come"):
        ledger.check_told(replace(task, round=2))
    with pytest.raises(LedgerError, match="the ledger of the rounds before it has not come"):
        ledger.check_told(replace(task, run=RUN.replace("2030", "2031")))


def test_a_run_does_not_lose_its_ledger(run: Ledgers) -> None:
    ledger, stream = run.attached("nhs")
    with pytest.raises(LedgerError, match="keeps no ledger; this site has 0 entries of it"):
        ledger.welcomed(run.welcome(ledger_key=""), run.run_folder("nhs"))
    ledger, stream = run.attached("nhs")
    deliver(ledger, stream)
    with pytest.raises(LedgerError, match="keeps no ledger; this site has"):
        run.attached("nhs", ledger_key="")


def test_entries_without_a_head_do_not_fill_the_memory(run: Ledgers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_ledger, "PENDING_CHARS_MAX", 8000)
    run.play_round()
    ledger, stream = run.attached("nhs")
    whole = stream.next()
    assert whole is not None
    with pytest.raises(LedgerError, match="there is no head after"):
        ledger.take(replace(whole, head=None), lambda act: act())


def test_a_large_part_that_does_not_hold_is_kept_as_proof_and_two_heads_stay(run: Ledgers) -> None:
    run.play_round()
    ledger, stream = run.attached("nhs")
    whole = stream.next()
    assert whole is not None
    ledger.take(whole, lambda act: act())
    large = LedgerEntry(text_of({"text": "x" * 2**19}))
    with pytest.raises(LedgerError, match="does not hold"):
        ledger.take(codec.LedgerPart((large,) * 3), lambda act: act())
    file = run.run_folder("nhs") / PROOF
    assert file.stat().st_size > 3 * 2**19
    assert whole.head is not None
    other = sign_head(run.key, replace(whole.head.head, end=replace(whole.head.head.end, hash="f" * 64)))
    ledger, _ = run.attached("nhs")
    with pytest.raises(LedgerError, match="both heads prove it"):
        ledger.take(codec.LedgerPart((), other), lambda act: act())
    two = file.read_bytes()
    ledger, _ = run.attached("nhs")
    with pytest.raises(LedgerError, match="does not hold"):
        ledger.take(codec.LedgerPart((large,)), lambda act: act())
    assert file.read_bytes() == two


def pass_over(run: Ledgers) -> None:
    """Let a round end in which nobody has given anything."""
    run.ledger._add(lambda known: [reader(known.round + 1, "alts", digest(b"model"))])


def accept(run: Ledgers, ledger: SiteLedger, word: str) -> None:
    """Let the coordinator say that it has accepted an update of nhs."""
    message = codec.write_report(run.update("nhs", word), 0.0)
    ledger.sign(message)
    ledger.accepted(message)


@pytest.mark.parametrize("restarted", [False, True])
def test_an_accepted_update_that_is_left_out_is_found_by_its_site(run: Ledgers, restarted: bool) -> None:
    ledger, stream = run.attached("nhs")
    deliver(ledger, stream)
    accept(run, ledger, "left out")
    pass_over(run)
    if restarted:
        ledger, stream = run.attached("nhs")
    with pytest.raises(LedgerError, match="the update of this site in round 1 is missing in the ledger"):
        deliver(ledger, stream)


def test_an_answer_that_comes_after_the_head_of_its_round_counts_too(run: Ledgers) -> None:
    ledger, stream = run.attached("nhs")
    update = run.update("nhs", "left out")
    pass_over(run)
    deliver(ledger, stream)
    message = codec.write_report(update, 0.0)
    ledger.sign(message)
    ledger.accepted(message)
    pass_over(run)
    with pytest.raises(LedgerError, match="the update of this site in round 1 is missing in the ledger"):
        deliver(ledger, stream)


def test_where_the_coordinator_was_restored_within_a_round_the_second_answer_counts(run: Ledgers) -> None:
    """The site has trained again, in another time: it has signed two updates of one task."""
    ledger, stream = run.attached("nhs")
    deliver(ledger, stream)
    accept(run, ledger, "before the restore")
    run.play_round()
    deliver(ledger, stream)
    run.play_round()
    deliver(ledger, stream)
    assert ledger.kept().entries == run.ledger.known.heads[2].entries


def test_what_is_stored_is_not_read_again_at_each_head(run: Ledgers) -> None:
    """A run of 64 sites has 143 KB of entries a round."""
    ledger, stream = run.attached("nhs")
    deliver(ledger, stream)
    store = LedgerStore(run.run_folder("nhs"))
    with store.entries.open("r+b") as file:
        file.write(b"x" * 10)  # whoever reads it finds nothing that holds
    run.play_round()
    deliver(ledger, stream)
    content = store.entries.read_bytes()
    assert content.startswith(b"x" * 10)
    assert content.endswith(run.texts(run.ledger.known.heads[1].entries)[-1].encode())


def test_entries_that_were_stored_without_their_head_are_replaced(run: Ledgers) -> None:
    ledger, stream = run.attached("nhs")
    deliver(ledger, stream)
    store = LedgerStore(run.run_folder("nhs"))
    with store.entries.open("a") as file:
        file.write('\n{"entry":99}\n{"torn')
    run.play_round()
    deliver(ledger, stream)
    assert [line.text for line in store.read().lines] == run.texts(run.ledger.known.heads[1].entries)
    assert store.read(whole=True).lines == store.read().lines


def test_a_ledger_whose_end_is_cut_off_while_the_agent_runs_is_not_continued(run: Ledgers) -> None:
    ledger, stream = run.attached("nhs")
    deliver(ledger, stream)
    store = LedgerStore(run.run_folder("nhs"))
    os.truncate(store.entries, 100)
    run.play_round()
    with pytest.raises(StorageError, match="its end was cut off while the agent ran"):
        deliver(ledger, stream)


def test_a_line_of_signatures_that_says_nonsense_is_passed_over(run: Ledgers) -> None:
    ledger, stream = run.attached("nhs")
    deliver(ledger, stream)
    store = LedgerStore(run.run_folder("nhs"))
    before = store.read()
    with store.signatures.open("a") as file:
        file.write('\n{"entry":[1],"signature":"00"}\n{"entry":{},"signature":"00"}\n{"head":[],"signature":"00"}')
    assert store.read() == before


# --- keys that change ---


def joined_again(run: Ledgers, site: str) -> Fingerprint:
    """Let a site lose its key, and be certified with a new one; return that one."""
    another_certificate(run, site)
    return Fingerprint.of(identity.public_key(run.keys[site]))


def pinned(run: Ledgers) -> Fingerprint:
    """Let nhs pin alts; return the pin."""
    found = Fingerprint.of(identity.public_key(run.keys["alts"]))
    homes.pin(run.site("nhs"), "alts", found)
    return found


def test_a_partner_that_was_pinned_again_does_not_spoil_the_ledgers_of_before(run: Ledgers) -> None:
    pinned(run)
    run.play_round()
    deliver(*run.attached("nhs"))
    homes.pin(run.site("nhs"), "alts", joined_again(run, "alts"))
    run.play_round()
    deliver(*run.attached("nhs"))
    verify(run.site("nhs"), RUN)
    shutil.rmtree(run.run_folder("nhs"))  # the site meets all of it once more
    deliver(*run.attached("nhs"))
    verify(run.site("nhs"), RUN)


def test_a_key_between_two_pins_is_refused(run: Ledgers) -> None:
    """K, then K' with records that K' has signed, then the key that is pinned now."""
    pinned(run)
    another_certificate(run, "alts")
    homes.pin(run.site("nhs"), "alts", joined_again(run, "alts"))
    run.play_round()
    assert "certifies another key as that of alts than the pinned one" in refused(run).what


def test_a_key_that_was_given_up_does_not_come_back(run: Ledgers) -> None:
    pinned(run)
    old, before = run.keys["alts"], run.certificates["alts"]
    homes.pin(run.site("nhs"), "alts", joined_again(run, "alts"))
    run.keys["alts"] = old
    made = identity.identify(before.encode())
    who = identity.Identity("cervix", "site", "alts")
    pem = identity.issue(run.home.authority(), identity.public_key(old), who, made.not_before, timedelta(days=30))
    run.ledger.note_certificates({"alts": pem.decode()})
    run.play_round()
    assert "certifies another key as that of alts than the pinned one" in refused(run).what


def test_a_pin_that_ended_before_a_run_began_does_not_hold_in_it(run: Ledgers) -> None:
    found = pinned(run)
    pins = Pins({"alts": Fingerprint(bytes(32))}, before={"alts": (FormerPin(found, until=100.0),)})
    assert pins.fits("alts", [found], begun_at=99.0)
    assert not pins.fits("alts", [found], begun_at=101.0)


def requested(run: Ledgers, site: str, at: float) -> None:
    """Let a home have asked then for a certificate of the key that its site has now, as its egress ledger has it."""
    key = Fingerprint.of(identity.public_key(run.keys[site])).hex
    Egress(run.site(site).egress, "localhost:1", lambda: at).request("enrol", b"please", key)


@pytest.mark.parametrize(("joined_at", "is_found"), [(1e5, True), (2e6, False)])
def test_a_key_that_a_site_has_never_had_is_found_by_it(tmp_path: Path, joined_at: float, is_found: bool) -> None:
    """Before alts has attached, the coordinator certifies a key of its own for it, and then the one of alts.

    A site that joined after the run had begun may have lost a home with another key: it cannot know.
    """
    run = Ledgers(tmp_path)
    run.record = replace(run.record, begun_at=1e6)
    key, real = run.keys["alts"], run.certificates["alts"]
    requested(run, "alts", joined_at)
    run.certificates["alts"] = ""
    run.begin("another.db")
    another_certificate(run, "alts")
    run.keys["alts"] = key
    run.ledger.note_certificates({"alts": real})
    run.attach()
    if is_found:
        assert "entry 2 certifies another key as that of this site" in refused(run, "alts").what
    else:
        deliver(*run.attached("alts"))
    deliver(*run.attached("nhs"))


def test_a_key_that_a_site_had_before_it_joined_again_is_its_own(tmp_path: Path) -> None:
    run = Ledgers(tmp_path)
    run.record = replace(run.record, begun_at=1e6)
    requested(run, "alts", 1e5)
    run.begin("another.db")
    another_certificate(run, "alts")
    run.site("alts").key_file("site.key").write_bytes(run.keys["alts"])
    requested(run, "alts", 2e6)
    run.attach()
    deliver(*run.attached("alts"))


@pytest.mark.parametrize("worked", [False, True])
def test_a_result_that_a_site_has_not_given_is_found_by_it(tmp_path: Path, worked: bool) -> None:
    """Before a site has signed anything, the coordinator writes results in its name as of an earlier version.

    A site that has worked for the run may have done so with an earlier version.
    """
    run = Ledgers(tmp_path)
    for site in run.sites:
        run.submit(SiteAttached(site, run.at), NOT_SIGNED)
    number = run.ledger.known.end.entries
    run.submit(run.update("alts", "invented"), NOT_SIGNED)
    run.submit(run.update("nhs"))
    finish(run)
    if worked:
        RunStore(run.run_folder("alts")).note(
            1, TrainResult(digest=digest(b"m"), images=1, steps=1, loss=1.0, seconds=1.0)
        )
        deliver(*run.attached("alts"))
    else:
        found = refused(run, "alts").what
        assert f"entry {number} holds a result of this site, which has given none" in found
    deliver(*run.attached("nhs"))


def test_a_new_run_without_a_ledger_is_refused_where_the_coordinator_can_keep_one(run: Ledgers) -> None:
    ledger = SiteLedger(run.site("nhs"), "nhs")
    ledger.check_kept(run.welcome(ledger_key=""))  # nobody knows a ledger key here
    run.site("nhs").key_file("ledger.pub").write_text(run.ledger.known.ledger_key)
    ledger.check_kept(run.welcome())
    with pytest.raises(LedgerError, match=r"the new run .* keeps no ledger; it has kept one before"):
        ledger.check_kept(run.welcome(ledger_key=""))
    run.run_folder("nhs")
    ledger.check_kept(run.welcome(ledger_key=""))  # it began before the upgrade


def test_a_reader_that_never_ends_does_not_keep_a_site_at_work(run: Ledgers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "READERS_MAX", 3)
    for number in range(3):
        run.ledger.note_reader("nhs", digest(b"%d" % number))
    with pytest.raises(ValueError, match="more models were read in this round"):
        run.ledger.note_reader("nhs", digest(b"more"))


# --- what only the whole ledger shows ---


def whole(run: Ledgers) -> Stored:
    """Return the ledger of a coordinator as a verifier gets it."""
    entries = [LedgerEntry(*found) for found in run.journal.ledger(RUN)]
    heads = [sign_head(run.key, Head(RUN, round_, end)) for round_, end in run.ledger.known.heads.items()]
    return Stored(entries[: max(head.head.end.entries for head in heads)], heads, [])


def fault_of(run: Ledgers) -> str:
    pass_over(run)
    return verdict(whole(run), Expected(RUN, public_pem(run.key.public_key()))).fault


def test_an_honest_run_holds_to_its_end(run: Ledgers) -> None:
    for _ in range(run.rounds):
        run.play_round()
    run.adopt()
    found = verdict(whole(run), Expected(RUN, public_pem(run.key.public_key())))
    assert (found.fault, found.ledger.ended) == ("", True)
    assert found.run == run.run


def test_an_event_that_the_rules_of_a_run_do_not_allow_is_found(run: Ledgers) -> None:
    """All that is signed in it holds: the coordinator has averaged before anybody has given anything."""
    number = run.ledger.known.end.entries
    run.ledger.append(run.run, AggregateStored(1, digest(b"of nothing"), 2.0), NOT_SIGNED)
    assert fault_of(run).startswith(f"entry {number} does not hold: by the rules of a run it could not happen then")


def test_an_update_that_is_written_twice_is_found(run: Ledgers) -> None:
    update = run.update("nhs")
    run.submit(update)
    number = run.ledger.known.end.entries
    run.ledger.append(run.run, update, run.signed(update))
    assert fault_of(run).startswith(f"entry {number} does not hold: by the rules of a run it could not happen then")


def test_a_round_that_ends_without_an_event_is_found(run: Ledgers) -> None:
    number = run.ledger.known.end.entries
    assert fault_of(run) == f"entry {number} does not hold: it says round 2; the run is in round 1"


@pytest.mark.parametrize(("name", "value"), [("model", digest(b"other")), ("outcome", "ABORTED"), ("reason", "other")])
def test_an_end_that_the_rounds_do_not_lead_to_is_found(run: Ledgers, name: str, value: str) -> None:
    for _ in range(run.rounds):
        run.play_round()
    run.adopt()
    stored = whole(run)
    *others, last = stored.entries
    end = run.ledger.known.heads[run.rounds]
    values = {key: found for key, found in read(last.text).items() if key not in LINKS}
    before = End(len(others), LEDGER.hash(others[-1].text))
    text, over = LEDGER.append(before, {**values, name: value})
    assert end.entries < over.entries
    heads = [*stored.heads[:-1], sign_head(run.key, Head(RUN, run.rounds + 1, over))]
    found = verdict(Stored([*others, LedgerEntry(text)], heads, []), Expected(RUN))
    assert found.fault == f"entry {len(others)} does not hold: the run ended with another {name}"


def test_a_refusal_that_is_said_again_in_the_name_of_its_site_is_found(run: Ledgers) -> None:
    refusal = SiteRefused("nhs", "no", 2.0)
    record = record_of(refusal, RUN, run.plan.digest, place_of(None, End(7, "a" * 64)))
    signed = Signed(record, sign(private_key(run.keys["nhs"]), RECORD, record))
    first = run.ledger.known.end.entries
    run.submit(refusal, signed)
    run.submit(SiteAttached("nhs", 3.0))
    run.submit(replace(refusal, at=4.0), signed)
    assert fault_of(run) == f"entry {first + 2} does not hold: it holds the record of entry {first} once more"


def test_a_record_that_names_a_head_of_another_ledger_is_refused(run: Ledgers) -> None:
    run.play_round()
    failed = SiteFailed("nhs", "agent", "a hint", "INC-0000-0000", 2.0)
    for hash_, holds in ((run.ledger.known.heads[1].hash, True), ("f" * 64, False)):
        record = record_of(failed, RUN, run.plan.digest, place_of(Head(RUN, 1, End(5, hash_)), None))
        signed = Signed(record, sign(private_key(run.keys["nhs"]), RECORD, record))
        if holds:
            assert run.ledger.checked(failed, signed) == signed
        else:
            with pytest.raises(RemoteError, match="names a head that this ledger does not have"):
                run.ledger.checked(failed, signed)


def test_every_report_names_the_last_head_and_what_has_left(run: Ledgers) -> None:
    ledger, stream = run.attached("nhs")
    deliver(ledger, stream)
    message = codec.write_report(codec.Refusal(RUN, "no"), 0.0)
    ledger.sign(message, End(3, "b" * 64))
    found = read(message.record.decode())
    assert found["head"] == {"round": 0, "hash": run.ledger.known.heads[0].hash}
    assert found["egress"] == {"entries": 3, "hash": "b" * 64}


def test_two_ledgers_are_found_and_both_heads_are_proof(run: Ledgers) -> None:
    run.play_round()
    deliver(*run.attached("nhs"))
    run.journal.close()
    run.begin("another.db")
    run.attach()
    run.play_round("other")
    error = refused(run)
    assert "the coordinator has signed two ledgers, and both heads prove it" in error.what
    proof = read((run.run_folder("nhs") / PROOF).read_text())
    assert {"kept", "sent", "lines", "ledger_key"} <= proof.keys()


def test_a_ledger_that_parts_from_the_one_that_is_here_is_found_at_the_next_head(run: Ledgers) -> None:
    run.play_round()
    deliver(*run.attached("nhs"))
    number = run.ledger.known.heads[1].entries
    run.journal.close()
    run.begin("another.db")
    run.attach()
    run.play_round("other")
    run.play_round()
    assert f"entry {number} does not hold: it does not follow the entry before" in refused(run).what


def test_a_coordinator_that_was_restored_from_an_earlier_round_is_not_believed(run: Ledgers) -> None:
    run.play_round()
    run.play_round()
    deliver(*run.attached("nhs"))
    count = run.ledger.known.heads[2].entries
    run.journal.close()
    run.begin("another.db")
    run.attach()
    run.play_round()
    assert f"entries; this site has {count} of it" in refused(run).what


def test_another_certificate_in_the_name_of_this_site_is_found_by_it(run: Ledgers) -> None:
    number = run.ledger.known.end.entries
    another_certificate(run, "nhs")
    run.play_round()
    assert f"entry {number} certifies another key as that of this site" in refused(run).what


def test_another_ledger_key_is_refused(run: Ledgers) -> None:
    run.attached("nhs")
    other = public_pem(identity.public_key(identity.new_key()))
    with pytest.raises(IdentityError, match="another ledger key"):
        run.attached("nhs", ledger_key=other)
    with pytest.raises(IdentityError, match="a ledger key that is none"):
        run.attached("alts", ledger_key="no key")


def test_a_run_without_a_ledger_is_said_once_and_goes_on(run: Ledgers) -> None:
    ledger, _ = run.attached("nhs", ledger_key="")
    assert run.countersign(ledger, "nhs").record == b""
    assert ledger.welcomed(run.welcome(ledger_key=""), run.run_folder("nhs")) == ""


def test_a_report_that_is_not_signed_by_its_site_is_refused(run: Ledgers) -> None:
    update = run.update("nhs")
    assert run.ledger.checked(update, run.signed(update)) == run.signed(update)
    for wrong in (NOT_SIGNED, run.signed(update, identity.new_key()), run.signed(replace(update, images=11))):
        with pytest.raises(RemoteError, match="does not hold"):
            run.ledger.checked(update, wrong)
    assert run.ledger.checked(SiteSilent("nhs", 1.0), NOT_SIGNED) == NOT_SIGNED
    assert run.ledger.checked(SiteAttached("nhs", 1.0), NOT_SIGNED) == NOT_SIGNED


def test_a_site_of_an_earlier_version_takes_part_without_signatures(tmp_path: Path) -> None:
    run = Ledgers(tmp_path)
    for site in run.sites:
        run.submit(SiteAttached(site, run.at), NOT_SIGNED)
    for site in run.sites:
        update = run.update(site)
        assert run.ledger.checked(update, NOT_SIGNED) == NOT_SIGNED
        run.submit(update, NOT_SIGNED)
    assert run.ledger.known.unsigned == set(run.sites)


def test_a_countersignature_over_another_head_is_refused(run: Ledgers) -> None:
    run.play_round()
    ledger, stream = run.attached("nhs")
    deliver(ledger, stream)
    found = codec.read_countersigned(run.countersign(ledger, "nhs"), "nhs")
    assert found is not None
    assert run.ledger.countersignatures(0) == [(1, "nhs", found.signature)]
    with pytest.raises(RemoteError, match="countersigned a head that this ledger does not have"):
        run.ledger.countersigned("alts", found.head, found.signature)


def test_a_long_ledger_goes_in_several_messages(run: Ledgers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_ledger, "PART_CHARS_MAX", 3000)
    for _ in range(run.rounds):
        run.play_round()
    ledger, stream = run.attached("nhs")
    first = stream.next()
    assert first is not None
    assert first.head is None
    ledger.take(first, lambda act: act())
    deliver(ledger, stream)
    assert ledger.kept().entries == run.ledger.known.heads[3].entries


def test_what_all_sites_are_sent_is_made_once(run: Ledgers) -> None:
    run.play_round()
    one, other = (LedgerStream(run.ledger, run.key, codec.LedgerKept()) for _ in range(2))
    assert one.next() is (part := other.next())
    assert part is not None
    ledger, stream = run.attached("nhs")
    deliver(ledger, stream)
    run.countersign(ledger, "nhs")
    run.play_round()
    found = LedgerStream(run.ledger, run.key, codec.LedgerKept()).next()
    assert found is not None
    assert [signed.site for signed in found.countersigned] == ["nhs"]


def test_a_countersignature_is_written_with_the_event_that_follows(run: Ledgers) -> None:
    run.play_round()
    ledger, stream = run.attached("nhs")
    deliver(ledger, stream)
    run.countersign(ledger, "nhs")
    assert run.journal.countersignatures(RUN) == []
    assert [(round_, site) for round_, site, _ in run.ledger.countersignatures(0)] == [(1, "nhs")]
    run.play_round()
    assert run.journal.countersignatures(RUN) == run.ledger.countersignatures(0)
    assert RunLedger(run.journal, RUN).countersignatures(0) == run.ledger.countersignatures(0)


def test_a_power_cut_between_entries_and_head_costs_nothing(run: Ledgers) -> None:
    run.play_round()
    ledger, stream = run.attached("nhs")
    deliver(ledger, stream)
    store = LedgerStore(run.run_folder("nhs"))
    before = store.read()
    with store.entries.open("a") as file:
        file.write('\n{"entry":99,"torn')
    with store.signatures.open("a") as file:
        file.write('\n{"entry":99,"si')
    assert store.read() == before
    run.play_round()
    deliver(*run.attached("nhs"))
    assert len(store.read().lines) == run.ledger.known.heads[2].entries


def test_a_site_signs_what_leaves_of_a_report_and_nothing_else() -> None:
    for kind, (_, fields) in SAID.items():
        if kind in LEAVES:
            assert set(fields) == set(LEAVES[kind]), kind


def next_entry(run: Ledgers, **values: object) -> LedgerEntry:
    return LedgerEntry(LEDGER.append(run.ledger.known.end, values)[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [[], {}, None, 1])
def test_a_kind_that_is_no_text_is_refused(run: Ledgers, kind: object) -> None:
    with pytest.raises(ValueError, match="it has no kind"):
        run.ledger.known.follow(next_entry(run, kind=kind, round=1))


def test_one_entry_cannot_end_more_rounds_than_the_plan_has(run: Ledgers) -> None:
    """Each would be a head in memory: with the largest number, one entry would fill the memory of a site."""
    for number in (run.rounds + 2, 2**53 - 1):
        with pytest.raises(ValueError, match="it is of a round that the plan does not have"):
            run.ledger.known.follow(next_entry(run, kind="reader", round=number, site="nhs", model=digest(b"m")))
    genesis = {key: value for key, value in read(next(run.journal.ledger(RUN))[0]).items() if key not in LINKS}
    with pytest.raises(ValueError, match="it is of a round that the plan does not have"):
        Ledger().follow(LedgerEntry(LEDGER.append(End(), {**genesis, "round": 2**53 - 1})[0]))


def test_an_unsigned_result_of_another_run_is_no_way_around_the_signature(run: Ledgers) -> None:
    update = run.update("nhs")
    other = replace(update, task=replace(update.task, run=RUN.replace("2030", "2031")))
    entry = next_entry(run, **event_entry(1, event_to_json(other), ""))
    with pytest.raises(ValueError, match="it is of another run"):
        run.ledger.known.follow(entry)


def test_nobody_outside_the_plan_has_a_part_in_the_ledger(run: Ledgers) -> None:
    key, who = identity.public_key(identity.new_key()), identity.Identity("cervix", "site", "ghost")
    pem = identity.issue(run.home.authority(), key, who, datetime.now(UTC), identity.AUTHORITY_LIFETIME).decode()
    ghost = replace(run.update("nhs"), site="ghost")
    drafts = (certificate(1, "ghost", pem), reader(1, "ghost", digest(b"m")), event_entry(1, event_to_json(ghost), ""))
    for values in drafts:
        with pytest.raises(ValueError, match="its site is not in the plan"):
            run.ledger.known.follow(next_entry(run, **values))


def test_verify_says_where_it_does_not_know_whose_heads_these_are(
    run: Ledgers, capsys: pytest.CaptureFixture[str]
) -> None:
    run.play_round()
    deliver(*run.attached("nhs"))
    verify(run.site("nhs"), RUN)
    assert "anybody may have signed" not in capsys.readouterr().out
    run.site("nhs").key_file("ledger.pub").unlink()
    verify(run.site("nhs"), RUN)
    assert "anybody may have signed these heads" in capsys.readouterr().out


def test_an_event_that_can_be_read_in_two_ways_is_refused(run: Ledgers) -> None:
    text = event_to_json(SiteSilent("nhs", 1.0)).replace("{", '{"site":"alts",', 1)
    with pytest.raises(ValueError, match="a key occurs twice"):
        run.ledger.known.follow(next_entry(run, **event_entry(1, text, "")))


def test_a_certificate_of_two_sites_is_of_none(run: Ledgers) -> None:
    authority = run.home.authority()
    issuer, signer = (
        x509.load_pem_x509_certificate(authority.certificate_pem),
        private_key(run.home.pem("authority.key")),
    )
    uris = [x509.UniformResourceIdentifier(f"fedcervix://cervix/site/{site}") for site in run.sites]
    made = x509.CertificateBuilder(issuer.subject, issuer.subject, signer.public_key(), 1)
    made = made.not_valid_before(issuer.not_valid_before_utc).not_valid_after(issuer.not_valid_after_utc)
    signed = made.add_extension(x509.SubjectAlternativeName(uris), critical=False).sign(signer, hashes.SHA256())
    pem = signed.public_bytes(Encoding.PEM).decode()
    with pytest.raises(ValueError, match="is not that of fedcervix://cervix/site/nhs alone"):
        run.ledger.known.follow(next_entry(run, **certificate(1, "nhs", pem)))


def test_a_record_that_only_python_takes_for_the_event_is_refused(run: Ledgers) -> None:
    update = replace(run.update("nhs"), steps=1)
    record = text_of({**values_of(update, RUN, run.plan.digest), "steps": True})
    signed = Signed(record, sign(private_key(run.keys["nhs"]), RECORD, record))
    with pytest.raises(ValueError, match="its record says something else: steps"):
        run.ledger.known.check_record(update, signed)


def test_a_certificate_with_one_extension_twice_is_refused_like_any_other(run: Ledgers) -> None:
    key, now = identity.new_key(), datetime.now(UTC)
    who = identity.Identity("cervix", "site", "nhs")
    pem = identity.issue(run.home.authority(), identity.public_key(key), who, now, identity.AUTHORITY_LIFETIME)
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    names, usage = (bytes.fromhex(f"0603551d{number}") for number in ("11", "0f"))
    assert names in der
    assert usage in der
    twice = base64.encodebytes(der.replace(usage, names)).decode()
    text = f"-----BEGIN CERTIFICATE-----\n{twice}-----END CERTIFICATE-----\n"
    with pytest.raises(ValueError, match="was not issued by the authority"):
        certified_key(text, run.ledger.known.authority, "fedcervix://cervix/site/nhs")


def test_an_unknown_kind_of_entry_is_refused() -> None:
    entry = LedgerEntry(LEDGER.append(End(), {"kind": "other", "round": 0})[0])
    with pytest.raises(ValueError, match="the genesis is the first entry"):
        Ledger().follow(entry)
