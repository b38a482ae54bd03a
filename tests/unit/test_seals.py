"""Seals: what the coordinator finds wrong without a key, and what a site refuses before it opens anything."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fedcervix.core.events import Seal, SiteAttached, SiteOpened, Task, TaskKind, UpdateStored
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.readers import beginnings
from fedcervix.core.rounds.state import Outcome, Run, begin
from fedcervix.core.rounds.step import step
from fedcervix.errors import RemoteError
from fedcervix.trust.boxes import OwnKey
from fedcervix.trust.sealed_models import Header, content_key
from fedcervix.trust.seals import (
    Known,
    Signed,
    checked,
    is_signed,
    opened_key,
    passed_on_faults,
    shown_to,
    signed_seal,
    update_faults,
)

SITES = A, B, C = ("ada", "bob", "cleo")
PLAN = Plan(mode="ppfssl", sites=SITES, profile="paper", terms=Terms(rounds=2, sealed=True), recipe=Recipe())
IDENTITIES = {site: ec.generate_private_key(ec.SECP256R1()) for site in SITES}
KEYS = {site: key.public_key() for site, key in IDENTITIES.items()}
OWN = {site: OwnKey(site, bytes([number]) * 32) for number, site in enumerate(SITES, start=1)}
SECRETS = {site: bytes([number]) * 32 for number, site in enumerate(SITES, start=4)}


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def header_of(site: str, round_: int, hop: int, base: str, **changes: object) -> Header:
    made = digest(f"{site} {round_}")
    header = Header("cervix", "run", PLAN.digest, round_, hop, site, base, made, made, 100)
    return replace(header, **changes)  # type: ignore[arg-type]


def seal_of(header: Header, *readers: str, by: str = "") -> Seal:
    """Return a seal of a file with this header, signed by its sender or by another site."""
    key = content_key(SECRETS[header.sender], header)
    site = by or header.sender
    return signed_seal(
        IDENTITIES[site], OWN[site], header, digest(header.text), key, [OWN[name].public for name in readers]
    )


def update(site: str, task: Task, header: Header, *readers: str) -> UpdateStored:
    seal = seal_of(header, *readers)
    images = 0 if task.kind is TaskKind.SEED else 1
    return UpdateStored(site, task, header.digest, images, 1, 0.5, 1.0, 0.0, seal.file, seal=seal)


def hop(run: Run, site: str, number: int) -> UpdateStored:
    task = Task("run", TaskKind.TRAIN, run.current.number, run.model)
    following = SITES[(SITES.index(site) + 1) % 3]
    return update(site, task, header_of(site, task.round, number, task.base), following)


def run_with(*sites: str) -> Run:
    """Return a run of which the first model and some hops of the first round are there."""
    run = begin("run", PLAN, base="", at=0.0)
    for site in SITES:
        run, _ = step(run, SiteOpened(site, OWN[site].public.key.hex(), 10, "0" * 64, "30", 0.0))
        run, _ = step(run, SiteAttached(site, 0.0))
    run, _ = step(run, update(A, Task("run", TaskKind.SEED, 0, ""), header_of(A, 0, 0, ""), B))
    for number, site in enumerate(sites, start=1):
        run, _ = step(run, hop(run, site, number))
    return run


FIRST = run_with()
"""as the ledger of the first model leaves it: what sites have verified when the first round begins"""
KNOWN = Known("cervix", "run", PLAN.digest, KEYS, beginnings(FIRST, 1))


def task_of(run: Run) -> Task:
    return Task("run", TaskKind.TRAIN, 1, run.model)


def test_the_first_model_and_every_hop_are_found_right_and_their_keys_open() -> None:
    for hops, reader in (((), A), ((A,), B), ((A, B), C)):
        run = run_with(*hops)
        given = checked(shown_to(run, reader, run.model), task_of(run), KNOWN)
        assert (given.header.digest, given.passed_on) == (run.model, None)
        if given.header.sender != reader:
            found = opened_key(OWN[reader], OWN[given.header.sender].public, given.header, given.seal)
            assert found == content_key(SECRETS[given.header.sender], given.header)


def test_a_key_that_was_passed_on_opens_whoever_passed_it_on() -> None:
    run = run_with(A)
    made = shown_to(run, B, run.model)
    header = header_of(A, 1, 1, FIRST.model)
    for giver in (A, B):
        seal = seal_of(header, C, by=giver)
        assert passed_on_faults(run, giver, run.model, seal, KEYS[giver]) == []
        given = checked((*made, (giver, seal)), task_of(run), KNOWN)
        assert given.passed_on == (giver, seal)
        assert opened_key(OWN[C], OWN[giver].public, header, seal) == content_key(SECRETS[A], header)


def test_a_box_opens_for_its_reader_alone() -> None:
    header = header_of(A, 1, 1, FIRST.model)
    seal = seal_of(header, B)
    for reader, sender, of in ((C, A, header), (B, C, header), (B, A, replace(header, hop=2))):
        with pytest.raises(RemoteError, match="does not open"):
            opened_key(OWN[reader], OWN[sender].public, of, seal)


Shown = tuple[Signed, ...]


def _other_header(**changes: object) -> Callable[[Shown], Shown]:
    """The last hop with another header, which its site has signed."""
    return lambda shown: (*shown[:-1], (B, seal_of(replace(Header.parse(shown[-1][1].header), **changes), C)))  # type: ignore[arg-type]


FORGED: dict[str, Callable[[Shown], Shown]] = {
    "another federation": _other_header(federation="other"),
    "another run": _other_header(run="earlier"),
    "another plan": _other_header(plan="0" * 64),
    "another round": _other_header(round=2),
    "another hop": _other_header(hop=1),
    "another base": _other_header(base="0" * 64),
    "the first model as base": _other_header(base=FIRST.model),
    "another model": _other_header(digest="0" * 64),
    "another sender": _other_header(sender=C),
    "nothing": lambda _: (),
    "the hop before it alone": lambda shown: shown[:1],
    "without the hop before it": lambda shown: shown[1:],
    "hops swapped": lambda shown: (shown[1], shown[0]),
    "a hop twice": lambda shown: (shown[0], shown[0], shown[1]),
    "signed by another site": lambda shown: (shown[0], (B, seal_of(Header.parse(shown[1][1].header), C, by=C))),
    "a signature over another file": lambda shown: (shown[0], (B, replace(shown[1][1], file="0" * 64))),
    "another box": lambda shown: (shown[0], (B, replace(shown[1][1], boxes=((C, "0" * 96),)))),
    "another reader": lambda shown: (shown[0], (B, replace(shown[1][1], boxes=((A, shown[1][1].boxes[0][1]),)))),
    "no header": lambda shown: (shown[0], (B, replace(shown[1][1], header="{}"))),
    "passed on with another file": lambda shown: (
        *shown,
        (C, replace(seal_of(Header.parse(shown[1][1].header), A, by=C), file="0" * 64)),
    ),
    "passed on by a stranger": lambda shown: (*shown, ("mallory", shown[1][1])),
}


@pytest.mark.parametrize("what", FORGED)
def test_what_is_not_the_model_of_the_task_is_refused(what: str) -> None:
    run = run_with(A, B)
    shown = shown_to(run, C, run.model)
    assert checked(shown, task_of(run), KNOWN)
    with pytest.raises(RemoteError, match="refused"):
        checked(FORGED[what](shown), task_of(run), KNOWN)


def test_a_model_of_an_earlier_round_is_not_taken_for_one_of_this_round() -> None:
    """By the ledger, the second round began with cleo's model; ada's of the first round had a box for bob as well."""
    first = run_with(A)
    replayed = Task("run", TaskKind.TRAIN, 2, first.model)
    known = replace(KNOWN, beginnings=(digest(f"{C} 1"),))
    with pytest.raises(RemoteError, match="may begin"):
        checked(shown_to(first, B, first.model), replayed, known)


def test_a_pin_counts_and_not_what_the_coordinator_certifies() -> None:
    run = run_with(A)
    for keys in ({**KEYS, A: KEYS[C]}, {B: KEYS[B], C: KEYS[C]}):
        with pytest.raises(RemoteError, match="pinned key of ada"):
            checked(shown_to(run, B, run.model), task_of(run), replace(KNOWN, keys=keys))


def test_a_round_begins_with_what_the_ledger_says() -> None:
    run = run_with(A, B, C)
    assert beginnings(FIRST, 1) == (FIRST.model,)
    assert beginnings(run, 1) == (*(digest(f"{site} 1") for site in (C, B, A)), FIRST.model)
    assert beginnings(FIRST, 2) == (FIRST.model,)


def test_of_a_run_that_is_over_only_the_result_is_adopted() -> None:
    run = run_with(A, B, C)
    over = replace(run, outcome=Outcome.OK, best_round=1, rounds=(replace(run.rounds[0], candidate=run.model),))
    assert beginnings(over, 1) == (run.model,)
    assert beginnings(replace(over, best_round=0), 1) == ()


def test_the_coordinator_finds_what_does_not_fit_without_any_key() -> None:
    run = run_with(A)
    sound = hop(run, B, 2)
    assert update_faults(run, "cervix", sound, KEYS[B]) == []
    header = header_of(B, 1, 2, run.model)
    for change in ({"federation": "x"}, {"run": "x"}, {"plan": "0" * 64}, {"round": 2}, {"hop": 1}, {"base": "0" * 64}):
        faults = update_faults(run, "cervix", update(B, sound.task, replace(header, **change), C), KEYS[B])
        assert faults == [f"its header has another {next(iter(change))}"]
    assert update_faults(run, "cervix", replace(sound, digest="0" * 64), KEYS[B]) == ["its header has another digest"]
    assert "one box, for cleo" in update_faults(run, "cervix", update(B, sound.task, header, A, C), KEYS[B])[0]
    assert "not signed by bob" in update_faults(run, "cervix", sound, KEYS[C])[0]
    assert "not under seal" in update_faults(run, "cervix", replace(sound, seal=None), KEYS[B])[0]


def test_a_seal_says_who_signed_it() -> None:
    seal = seal_of(header_of(A, 1, 1, FIRST.model), B)
    assert is_signed(A, seal, KEYS[A])
    assert not is_signed(B, seal, KEYS[A])
    assert seal == seal_of(header_of(A, 1, 1, FIRST.model), B), "made again, it is the same"
