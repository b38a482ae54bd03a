"""Decisions on models: what they say, who signs them, how they are stored, and attacks on each."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from fedcervix.errors import IdentityError, StorageError
from fedcervix.lineage.decision_store import DecisionStore, StoredDecisions, read_decision
from fedcervix.lineage.decisions import ModelDecision, Ruling, Word, forks, gaps, standing
from fedcervix.lineage.model_facts import ancestry
from fedcervix.lineage.shelf import Voice
from fedcervix.lineage.signed_decisions import SignedDecision, checked_speaker
from fedcervix.transport.identity import SITE_LIFETIME, Authority, Identity
from fedcervix.trust import detached_signatures
from fedcervix.trust.chain import End
from tests.unit.identities import AUTHORITY, NOW, make_authority, make_party

MODEL, OTHER = "a" * 64, "b" * 64
OPERATOR = Identity("demo", "operator")
NORTH = Identity("demo", "site", "north")


def ruling(decision: Word = "retired", model: str = MODEL, who: Identity | None = OPERATOR, **more: str) -> Ruling:
    said = {"why": "its training set held a wrong label", "made_at": NOW.isoformat(), **more}
    return Ruling(decision=decision, model=model, said_by=who.uri if who else "", **said)  # type: ignore[arg-type]


def voice(who: Identity = OPERATOR, authority: Authority = AUTHORITY) -> Voice:
    party = make_party(authority, who)
    return Voice.of(party.key, party.certificate, NOW)


OPERATORS, NORTHS = voice(), voice(NORTH)


def said(decision: Word = "retired", by: Voice = OPERATORS, after: End | None = None, **more: str) -> SignedDecision:
    made = dataclasses.replace(ruling(decision, **more), said_by=by.said_by)
    return by.sign(ModelDecision.of(made, after or End()))


def allowed(_before: StoredDecisions) -> None:
    """Anything may be added."""


@pytest.fixture
def store(tmp_path: Path) -> DecisionStore:
    return DecisionStore(tmp_path / "decisions")


# --- what is said -------------------------------------------------------------------------------------------------


def test_a_decision_is_read_back_from_its_text() -> None:
    one = ModelDecision.of(ruling(person="Dr. Müller", replaced_by=OTHER), End())
    assert ModelDecision.parse(one.text) == one
    assert one.person == "Dr. Müller"
    assert one.text.isascii()
    assert one.name.startswith(f"retired-{MODEL[:12]}-")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("decision", "lifted"),
        ("model", "a" * 63),
        ("replaced_by", MODEL),
        ("replaced_by", "newest"),
        ("why", " "),
        ("why", "x" * 501),
        ("why", "fine\n## Approved"),
        ("person", "\x1b[2J"),
        ("made_at", "2030-01-01"),
        ("person", 7),
        ("entry", "0"),
        ("entry", -1),
        ("format", 2),
        ("more", ""),
    ],
    ids=str,
)
def test_a_text_with_another_value_is_no_decision(key: str, value: object) -> None:
    values = json.loads(ModelDecision.of(ruling(), End()).text) | {key: value}
    with pytest.raises(ValueError, match=r"\w"):
        ModelDecision.parse(json.dumps(values, sort_keys=True, separators=(",", ":")))


def test_a_model_is_a_candidate_then_approved_then_retired_for_good() -> None:
    approved, retired = said("approved").decision, said("retired").decision
    later = said("approved", made_at=(NOW + timedelta(days=9)).isoformat()).decision
    assert standing(MODEL, []).state == "candidate"
    assert standing(OTHER, [approved]).state == "candidate"
    assert standing(MODEL, [approved]).state == "approved"
    for order in ([approved, retired, later], [later, retired], [retired]):
        found = standing(MODEL, order)
        assert (found.state, found.by) == ("retired", retired)


def test_what_a_model_was_made_from_is_followed_and_a_circle_ends() -> None:
    assert ancestry("d", {"d": ["c"], "c": ["b", "a"], "a": ["d"]}) == ("d", "c", "a", "b")


# --- who signs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [OPERATORS, NORTHS], ids=["operator", "site"])
def test_a_signature_holds_for_the_party_that_it_names(by: Voice) -> None:
    one = said(by=by)
    assert one.signer(AUTHORITY.certificate_pem).identity.uri == one.decision.said_by


def forged_text() -> SignedDecision:
    return SignedDecision(ModelDecision.of(ruling(why="another reason"), End()), said().signature)


def name_of_another() -> SignedDecision:
    decision = ModelDecision.of(ruling(who=OPERATOR), End())
    return SignedDecision(decision, detached_signatures.sign(decision.text.encode(), NORTHS.key, NORTHS.certificate))


def other_federation() -> SignedDecision:
    return said(by=voice(authority=make_authority()))


def other_role() -> SignedDecision:
    return said(by=voice(Identity("demo", "coordinator")))


def certificate_of_another_key() -> SignedDecision:
    decision = ModelDecision.of(ruling(), End())
    return SignedDecision(decision, detached_signatures.sign(decision.text.encode(), NORTHS.key, OPERATORS.certificate))


def date_after_the_certificate() -> SignedDecision:
    return said(made_at=(NOW + SITE_LIFETIME + timedelta(days=1)).isoformat())


def attributes() -> SignedDecision:
    """A signature as other programs make it, over attributes and not over the text."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.serialization import pkcs7

    decision = ModelDecision.of(ruling(), End())
    key = serialization.load_pem_private_key(OPERATORS.key, None)
    certificate = x509.load_pem_x509_certificate(OPERATORS.certificate)
    builder = pkcs7.PKCS7SignatureBuilder().set_data(decision.text.encode())
    builder = builder.add_signer(certificate, key, hashes.SHA256())  # type: ignore[arg-type]
    options = [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary]
    return SignedDecision(decision, builder.sign(serialization.Encoding.DER, options))


@pytest.mark.parametrize(
    "made",
    [
        forged_text,
        name_of_another,
        other_federation,
        other_role,
        certificate_of_another_key,
        date_after_the_certificate,
        attributes,
        lambda: SignedDecision(said().decision, b""),
        lambda: SignedDecision(said().decision, b"no DER"),
        lambda: SignedDecision(said().decision, said().signature + b"\x00"),
        lambda: SignedDecision(said().decision, bytes(20_000)),
    ],
    ids=[
        "forged-text", "name-of-another", "other-federation", "other-role", "certificate-of-another-key",
        "date-after-the-certificate", "attributes", "unsigned", "no-der", "more-behind", "too-long",
    ],
)  # fmt: skip
def test_what_nobody_has_signed_is_not_proved(made) -> None:
    with pytest.raises(IdentityError, match="is not proved"):
        made().signer(AUTHORITY.certificate_pem)


def test_no_changed_byte_of_a_signature_passes_and_none_is_a_traceback() -> None:
    one = said()
    for at in range(len(one.signature)):
        changed = bytearray(one.signature)
        changed[at] ^= 0x41
        with pytest.raises(IdentityError):
            SignedDecision(one.decision, bytes(changed)).signer(AUTHORITY.certificate_pem)
    for size in range(len(one.signature)):
        with pytest.raises(ValueError, match=r"\w"):
            detached_signatures.signer(one.decision.text.encode(), one.signature[:size])


def test_nobody_signs_with_a_certificate_that_has_ended_or_of_another_key() -> None:
    party, other = make_party(AUTHORITY, OPERATOR), make_party(AUTHORITY, OPERATOR)
    with pytest.raises(IdentityError, match="has expired"):
        checked_speaker(party.key, party.certificate, NOW + timedelta(days=999))
    with pytest.raises(IdentityError, match="does not belong"):
        checked_speaker(other.key, party.certificate, NOW)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_says_the_same(tmp_path: Path) -> None:
    one = said()
    (tmp_path / "authority.crt").write_bytes(AUTHORITY.certificate_pem)
    (tmp_path / "d.p7s").write_bytes(one.signature)
    words = [
        "cms",
        "-verify",
        "-binary",
        "-inform",
        "DER",
        "-in",
        "d.p7s",
        "-content",
        "d.json",
        "-CAfile",
        "authority.crt",
    ]
    words += ["-purpose", "any", "-no_check_time", "-out", "text", "-signer", "signer.crt"]
    for text, code in ((one.decision.text, 0), (one.decision.text + " ", 4)):
        (tmp_path / "d.json").write_text(text)
        done = subprocess.run(["openssl", *words], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == code, done.stderr
    names = ["openssl", "x509", "-in", "signer.crt", "-noout", "-ext", "subjectAltName"]
    assert b"URI:fedcervix://demo/operator" in subprocess.run(names, cwd=tmp_path, capture_output=True).stdout


# --- the folder ---------------------------------------------------------------------------------------------------


def test_decisions_of_one_party_follow_each_other(store: DecisionStore) -> None:
    first = store.decide(ruling("approved"), OPERATORS.sign, allowed).decision
    second = store.decide(ruling("retired"), OPERATORS.sign, allowed).decision
    other = store.decide(ruling("approved", OTHER, NORTH), NORTHS.sign, allowed).decision
    assert (first.entry, second.entry, second.previous, other.entry) == (0, 1, first.hash, 0)
    assert gaps(store.read().by(OPERATOR.uri)) == []
    store.file(first).unlink()
    store.file(first).with_suffix(".p7s").unlink()
    assert "decision 0 of this home is missing" in gaps(store.read().by(OPERATOR.uri))[0]


def test_two_who_decide_at_the_same_moment_leave_the_model_retired_and_the_chain_whole(store: DecisionStore) -> None:
    words: list[Word] = ["approved", "retired", "approved", "approved", "approved", "approved"]
    with ThreadPoolExecutor(len(words)) as people:
        list(people.map(lambda word: store.decide(ruling(word), OPERATORS.sign, allowed), words))
    found = store.read()
    assert sorted(one.entry for one in found.by(OPERATOR.uri)) == [*range(len(words))]
    assert gaps(found.by(OPERATOR.uri)) == []
    assert found.standing(MODEL, site="north").state == "retired"


def test_an_old_approval_that_comes_again_changes_nothing(store: DecisionStore) -> None:
    approved = store.decide(ruling("approved"), OPERATORS.sign, allowed)
    store.decide(ruling("retired"), OPERATORS.sign, allowed)
    assert not store.add(approved)
    assert store.read().standing(MODEL, site="north", proved=[approved.decision.text]).state == "retired"


def test_a_home_of_before_is_retired_again_by_the_copies_and_says_what_happened(store: DecisionStore) -> None:
    first = store.decide(ruling("retired"), OPERATORS.sign, allowed)
    shutil.rmtree(store.folder)  # the backup was made before
    store.decide(ruling("approved"), OPERATORS.sign, allowed)
    assert store.add(first)
    assert store.read().standing(MODEL, site=None).state == "retired"
    assert gaps(store.read().by(OPERATOR.uri)) == []
    assert "restored from a backup" in forks(store.read().by(OPERATOR.uri))[0]


def test_an_edited_retirement_still_retires_and_an_edited_approval_does_not_approve(store: DecisionStore) -> None:
    for word in ("retired", "approved"):
        file = store.file(store.decide(ruling(word), OPERATORS.sign, allowed).decision)  # type: ignore[arg-type]
        file.write_text(file.read_text().replace(MODEL, OTHER))
        with pytest.raises(StorageError, match="is damaged"):
            read_decision(file)
        found = store.read()
        assert len(found.damaged) == (1 if word == "retired" else 2)
        assert found.standing(MODEL, site="north").state == "retired"
        assert found.standing(OTHER, site="north").state == "candidate"


def test_a_text_that_was_deleted_leaves_its_signature_which_still_retires(store: DecisionStore) -> None:
    store.file(store.decide(ruling("retired"), OPERATORS.sign, allowed).decision).unlink()
    assert store.read().standing(MODEL, site="north").state == "retired"


def test_a_good_copy_mends_a_damaged_one(store: DecisionStore) -> None:
    one = store.decide(ruling("retired"), OPERATORS.sign, allowed)
    store.file(one.decision).write_text("{}")
    store.file(one.decision).with_suffix(".p7s").write_bytes(b"")
    assert store.add(one)
    assert store.read().decisions == (one,)


@pytest.mark.parametrize(
    ("who", "site", "binds"),
    [(OPERATOR, "north", True), (OPERATOR, None, True), (NORTH, "north", True), (NORTH, "south", False),
     (NORTH, None, False), (NORTH, "", False), (None, "north", True)],
    ids=["operator-site", "operator-coordinator", "own", "another-site", "site-coordinator", "not-joined", "no-key"],
)  # fmt: skip
def test_the_operator_binds_everybody_and_a_site_itself(
    store: DecisionStore, who: Identity | None, site: str | None, binds: bool
) -> None:
    store.decide(ruling("retired", who=who), lambda one: SignedDecision(one, b""), allowed)
    assert store.read().standing(MODEL, site=site).state == ("retired" if binds else "candidate")


def test_an_approval_that_is_not_proved_counts_for_nothing(store: DecisionStore) -> None:
    store.decide(ruling("approved"), lambda one: SignedDecision(one, b""), allowed)
    assert store.read().standing(MODEL, site="north").state == "candidate"
