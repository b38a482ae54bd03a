"""The rules H1 to H7: what is refused, in which words; what is written before a site acts; the same answer again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fedcervix.trust.boxes import OwnKey
from fedcervix.trust.contexts import RoundContext, RunContext
from fedcervix.trust.holder_rules import (
    RULES,
    Allowed,
    Decision,
    NotAllowed,
    OwnView,
    Proposal,
    decide_close,
    decide_free,
    decide_learn,
    decide_opening,
    decide_release,
    decide_roster,
    decide_upload,
    sum_before,
)
from fedcervix.trust.sum_closes import ClosedAttempt, may_go_on, signed_close
from fedcervix.trust.sum_lists import SignedRelease, SumList, parts_of, signed_release
from fedcervix.trust.sum_memory import (
    OPEN,
    AttemptClosed,
    BaseFreed,
    BaseVouched,
    Entry,
    HomeRestored,
    MasksReleased,
    OpeningMade,
    RosterJoined,
    SumLearned,
    SumMemory,
    VectorReported,
    recalled,
    remembered,
)
from fedcervix.trust.sum_reports import SumReport, commit_nonce, commitment, three_digits
from fedcervix.trust.sum_roster import checked_roster, signed_opening
from tests.simulation.sum_world import LAYOUT, digest, identity

SITES = ("ada", "bob", "cleo", "dora", "emil")
HOLDERS = ("ada", "bob", "cleo")
"""c + 2 for c = 1"""
RUN = RunContext(federation="cervix", run="r1", plan="a" * 64)
PINS = {site: identity(site).public_key() for site in SITES}
KEYS = {site: OwnKey(site, bytes([place]) * 32) for place, site in enumerate(SITES, 1)}
IMAGES = {"ada": 20, "bob": 30, "cleo": 25, "dora": 40, "emil": 10}
OPENINGS = [signed_opening(identity(site), RUN, KEYS[site], IMAGES[site], bytes(32)) for site in SITES]
ROSTER = checked_roster(RUN, SITES, OPENINGS, PINS)
BASE = digest("base")
FIRST = Proposal(
    RoundContext(
        run=RUN,
        sites=5,
        colluders=1,
        roster=ROSTER.digest,
        round=2,
        base=BASE,
        head=digest("head"),
        layout=LAYOUT,
        width=32,
        holders=HOLDERS,
    )
)


def view(me: str = "ada", memory: SumMemory | None = None, **changed: Any) -> OwnView:
    context = replace(FIRST.context, **changed)
    return OwnView(me, memory or recalled([JOINED]), context, ROSTER, "by-images", PINS)


def line(site: str, proposal: Proposal = FIRST, before: str = "", signer: str = "") -> SumReport:
    commit = digest("commit", site, proposal.context.digest)
    bare = SumReport(site=site, commit=commit, upload=commit, steps=4, norm=1.23, loss=0.5, before=before)
    return bare.signed(identity(signer or site), proposal.context)


def listed(*names: str, proposal: Proposal = FIRST, **changed: Any) -> SumList:
    return SumList(proposal.context.digest, tuple(line(name, proposal, **changed) for name in names))


ALL = listed(*SITES)
FOUR = listed("ada", "bob", "cleo", "dora")


JOINED = RosterJoined("r1", ROSTER.digest)


def memory(*entries: Entry) -> SumMemory:
    return recalled([JOINED, *entries])


def place(proposal: Proposal = FIRST) -> tuple[str, int, str, str]:
    return ("r1", 2, BASE, proposal.context.digest)


def reported(site: str = "ada", proposal: Proposal = FIRST) -> VectorReported:
    return VectorReported(*place(proposal), line(site, proposal).commit)


def released(sums: SumList = ALL) -> MasksReleased:
    weights = {name: IMAGES[name] for name in sums.sites}
    return MasksReleased(*place(), sums.digest, parts_of(weights))


def closed(*remaining: str, proposal: Proposal = FIRST) -> AttemptClosed:
    return AttemptClosed(*place(proposal), remaining)


def again(*remaining: str, proposal: Proposal = FIRST, signers: tuple[str, ...] = ()) -> Proposal:
    """Return the attempt that follows, closed by these holders."""
    closes = tuple(signed_close(identity(one), one, proposal.context, remaining) for one in signers or remaining)
    attempt = ClosedAttempt(proposal.context, closes)
    return Proposal(proposal.context.after_close(remaining), (*proposal.earlier, attempt))


COMMIT = line("ada").commit
SECOND = again("ada", "bob")


# --- what is allowed -------------------------------------------------------------------------------------------------


def test_each_act_is_written_before_and_the_same_again_needs_no_entry() -> None:
    upload = decide_upload(view(), FIRST, COMMIT)
    assert upload == Allowed(reported())
    assert decide_upload(view(memory=memory(reported())), FIRST, COMMIT) == Allowed(None)
    release = decide_release(view(memory=memory(reported())), FIRST, ALL)
    assert release == Allowed(released())
    assert decide_release(view(memory=memory(reported(), released())), FIRST, ALL) == Allowed(None)
    close = decide_close(view(memory=memory(reported())), FIRST, ("ada", "bob"))
    assert close == Allowed(closed("ada", "bob"))
    assert decide_close(view(memory=memory(reported(), closed("ada", "bob"))), FIRST, ("ada", "bob")) == Allowed(None)


def test_a_holder_that_is_late_itself_releases_for_the_others() -> None:
    sums = listed("bob", "cleo", "dora", "emil")
    assert isinstance(decide_release(view(), FIRST, sums), Allowed)


def test_another_attempt_follows_a_close() -> None:
    done = memory(reported(), closed("ada", "bob"))
    commit = line("ada", SECOND).commit
    assert decide_upload(view(memory=done), SECOND, commit) == Allowed(reported("ada", SECOND))
    both = memory(reported(), closed("ada", "bob"), reported("ada", SECOND))
    assert isinstance(decide_release(view(memory=both), SECOND, listed(*SITES, proposal=SECOND)), Allowed)


def test_a_site_that_is_no_holder_goes_on_with_another_attempt_by_what_the_holders_signed() -> None:
    dora = view("dora", memory(reported("dora")))
    assert isinstance(decide_upload(dora, SECOND, line("dora", SECOND).commit), Allowed)


def test_the_same_sites_may_be_summed_over_one_base_again() -> None:
    parts = parts_of(IMAGES)
    known = memory(SumLearned("r0", 5, BASE, parts), reported())
    assert sum_before(view(memory=known)) == parts
    sums = SumList(FIRST.context.digest, tuple(line(site, before=parts if site == "bob" else "") for site in SITES))
    assert isinstance(decide_release(view(memory=known), FIRST, sums), Allowed)


def test_a_base_is_free_again_when_its_round_was_closed() -> None:
    used = VectorReported("r0", 1, BASE, digest("old"), digest("commit"))
    assert isinstance(decide_upload(view(memory=memory(used)), FIRST, COMMIT), NotAllowed)
    assert isinstance(decide_upload(view(memory=memory(used, BaseFreed("r0", 1, BASE))), FIRST, COMMIT), Allowed)


# --- what is not -----------------------------------------------------------------------------------------------------

Case = tuple[str, Callable[[], Decision], str]


def upload(entries: list[Entry], proposal: Proposal = FIRST, commit: str = COMMIT, **seen: Any) -> Decision:
    return decide_upload(view(memory=memory(*entries), **seen), proposal, commit)


def release(entries: list[Entry], sums: SumList = ALL, proposal: Proposal = FIRST, **seen: Any) -> Decision:
    return decide_release(view(memory=memory(*entries), **seen), proposal, sums)


def close(entries: list[Entry], *remaining: str, proposal: Proposal = FIRST) -> Decision:
    return decide_close(view(memory=memory(*entries)), proposal, remaining)


OLD = ("r0", 5, BASE)
SWAPPED = Proposal(replace(FIRST.context, holders=("bob", "cleo", "dora")))
FORGED = again("ada", "bob", signers=("ada",))
CHOSEN = Proposal(replace(FIRST.context, base=digest("chosen")))
CASES: list[Case] = [
    ("H1", lambda: release([reported(), released(FOUR)]), "has released its masks for another list"),
    ("H1", lambda: release([reported(), closed("ada", "bob")]), "has closed the attempt"),
    ("H1", lambda: release([reported()], listed(*SITES, proposal=SECOND), SECOND), "has not closed the attempt before"),
    ("H1", lambda: release([reported()], listed(*SITES, proposal=SWAPPED), SWAPPED), "does not follow those before it"),
    ("H1", lambda: upload([reported()], commit="f" * 64), "has signed another vector"),
    ("H1", lambda: upload([reported(), released()], SECOND), "released or closed the round"),
    ("H1", lambda: upload([reported(), closed("ada", "bob")]), "released or closed the round"),
    ("H1", lambda: upload([reported()], FORGED), "was not closed by c [+] 1 of its holders"),
    ("H1", lambda: upload([reported()], Proposal(SECOND.context)), "does not follow those before it"),
    ("H1", lambda: upload([reported("ada", again("ada", "cleo"))], SECOND), "has signed for another attempt"),
    ("H1", lambda: close([reported(), released()], "ada", "bob"), "has released its masks"),
    ("H1", lambda: close([closed("ada", "bob")], "ada", "cleo"), "has closed the attempt for other holders"),
    ("H1", lambda: close([], "bob", "cleo"), "this one among them"),
    ("H1", lambda: close([], "ada"), "c [+] 1 holders"),
    ("H1", lambda: close([], "ada", "dora"), "c [+] 1 holders"),
    ("H2", lambda: release([reported()], listed("ada", "bob", "cleo")), "has 3 sites; at least 4 hide each other"),
    ("H3", lambda: release([reported()], listed(*SITES, signer="coordinator")), "line of site ada is not signed"),
    ("H3", lambda: release([reported()], replace(ALL, context=SECOND.context.digest)), "is of another attempt"),
    ("H3", lambda: release([]), "the line of this site is not the one that it signed"),
    ("H3", lambda: release([reported()], listed("ada", "bob", "cleo", "gus")), "site gus is not in the roster"),
    ("H5", lambda: upload([VectorReported(*OLD, digest("c"), COMMIT)]), "does not know what became of it"),
    ("H5", lambda: upload([SumLearned(*OLD, digest("p")), SumLearned("r9", 1, BASE, digest("q"))]), "different sites"),
    ("H5", lambda: release([reported(), SumLearned(*OLD, parts_of({"ada": 1}))]), "the difference would give sites"),
    ("H5", lambda: release([replace(reported(), base=digest("b"))]), "knows the round with another base"),
    ("H6", lambda: upload([], CHOSEN), "the coordinator's base is not the one that this site has verified"),
    ("H6", lambda: release([], proposal=CHOSEN), "the coordinator's base"),
    ("H6", lambda: upload([], head=digest("fork")), "the coordinator's head"),
    ("H6", lambda: upload([], layout=digest("other")), "the coordinator's layout"),
    ("H6", lambda: upload([RosterJoined("r1", digest("other"))]), "not the one that this site has joined"),
    ("H6", lambda: decide_upload(view(memory=SumMemory(barred=frozenset({"r9"}))), FIRST, COMMIT), "has joined"),
    ("H7", lambda: upload([OpeningMade("r1", digest("o")), HomeRestored()]), "was restored or copied during run r1"),
    ("H7", lambda: release([OpeningMade("r1", digest("o")), HomeRestored()]), "was restored or copied"),
    ("H7", lambda: close([OpeningMade("r1", digest("o")), HomeRestored()], "ada", "bob"), "was restored or copied"),
]


@pytest.mark.parametrize(("rule", "decide", "words"), CASES, ids=[f"{rule}-{words[:40]}" for rule, _, words in CASES])
def test_what_a_rule_refuses(rule: str, decide: Callable[[], Decision], words: str) -> None:
    found = decide()
    assert isinstance(found, NotAllowed), found
    assert found.rule == rule
    assert re.search(words, found.why), found.why


def test_a_line_that_knows_of_another_sum_stops_a_holder_that_does_not() -> None:
    """A holder of the second run need not have been one of the first; the sites in both remember."""
    sums = SumList(FIRST.context.digest, tuple(line(site, before=digest("parts") * (site == "dora")) for site in SITES))
    found = release([reported()], sums)
    assert isinstance(found, NotAllowed)
    assert found.rule == "H5"


def test_a_site_that_has_nearly_all_images_stops_the_sum() -> None:
    openings = [
        signed_opening(identity(site), RUN, KEYS[site], 1000 if site == "bob" else 20, bytes(32)) for site in SITES
    ]
    roster = checked_roster(RUN, SITES, openings, PINS)
    proposal = Proposal(replace(FIRST.context, roster=roster.digest))
    done = recalled([RosterJoined("r1", roster.digest), reported("ada", proposal)])
    seen = OwnView("ada", done, proposal.context, roster, "by-images", PINS)
    found = decide_release(seen, proposal, listed(*SITES, proposal=proposal))
    assert found == NotAllowed("H4", 'site bob outweighs the others: the plan must say average = "equal"')
    equal = replace(seen, average="equal")
    assert isinstance(decide_release(equal, proposal, listed(*SITES, proposal=proposal)), Allowed)


def test_a_restored_home_begins_no_run_with_a_model_that_nobody_vouches_for() -> None:
    """It may have forgotten a sum over it; the others that remember can be left out of the list (seed 302198)."""
    begun = replace(FIRST.context, round=1)
    seen = view(memory=memory(HomeRestored()), round=1)
    found = decide_upload(seen, Proposal(begun), COMMIT)
    assert isinstance(found, NotAllowed)
    assert found.rule == "H7"
    assert isinstance(decide_upload(view(memory=memory(HomeRestored())), FIRST, COMMIT), Allowed)
    vouched = view(memory=memory(HomeRestored(), BaseVouched(BASE)), round=1)
    assert isinstance(decide_upload(vouched, Proposal(begun), COMMIT), Allowed)


def test_every_rule_stands_in_the_tables() -> None:
    assert {*RULES.upload, *RULES.release, *RULES.close} == {f"H{number}" for number in range(1, 8)}


# --- reports, lists, closes, memory ----------------------------------------------------------------------------------


def test_a_commitment_is_a_hash_of_a_nonce_that_nobody_knows_and_the_vector() -> None:
    nonce = commit_nonce(bytes(32), FIRST.context, digest("model"))
    assert len(nonce) == 32
    committed = commitment(nonce)
    for block in (b"ab", b"c"):
        committed.update(block)
    assert committed.hexdigest() == hashlib.sha256(nonce + b"abc").hexdigest()
    others = [
        commit_nonce(bytes([1]) * 32, FIRST.context, digest("model")),
        commit_nonce(bytes(32), SECOND.context, digest("model")),
        commit_nonce(bytes(32), FIRST.context, digest("another model")),
    ]
    assert len({nonce, *others}) == 4


@pytest.mark.parametrize(("value", "left"), [(0.123456, 0.123), (98765.0, 98800.0), (0.0, 0.0), (1e-9, 1e-9)])
def test_a_figure_leaves_the_site_with_three_digits(value: float, left: float) -> None:
    assert three_digits(value) == left
    with pytest.raises(ValueError, match="three digits"):
        replace(line("ada"), loss=0.1234)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_is_a_number(value: float) -> None:
    with pytest.raises(ValueError):
        replace(line("ada"), norm=value)


def test_a_list_stands_in_one_order_and_names_each_site_once() -> None:
    for names in (("bob", "ada"), ("ada", "ada")):
        with pytest.raises(ValueError, match="alphabetical"):
            listed(*names)
    assert FOUR.digest != ALL.digest
    assert replace(ALL, reports=(replace(ALL.reports[0], steps=5), *ALL.reports[1:])).digest != ALL.digest


def releases(sums: SumList = ALL, holders: tuple[str, ...] = HOLDERS) -> list[SignedRelease]:
    return [signed_release(identity(one), one, FIRST.context, sums, digest("masks")) for one in holders]


def test_a_sum_counts_when_all_holders_signed_its_list() -> None:
    seen = view(memory=memory(reported()))
    learnt = SumLearned("r1", 2, BASE, parts_of(IMAGES))
    assert decide_learn(seen, FIRST, ALL, releases()) == Allowed(learnt)
    assert decide_learn(view(memory=memory(reported(), learnt)), FIRST, ALL, releases()) == Allowed(None)
    mixed = [*releases(holders=HOLDERS[:2]), *releases(FOUR, HOLDERS[2:])]
    forged = [replace(one, signature=releases()[0].signature) for one in releases()]
    for wrong in (releases(holders=HOLDERS[:2]), mixed, forged, releases(FOUR)):
        found = decide_learn(seen, FIRST, ALL, wrong)
        assert isinstance(found, NotAllowed)
        assert "has not signed for the list of round 2" in found.why
    assert isinstance(decide_learn(seen, CHOSEN, listed(*SITES, proposal=CHOSEN), releases()), NotAllowed)


@pytest.mark.parametrize("earlier", [(), again("ada", "bob").earlier])
def test_a_sum_of_an_attempt_with_other_holders_does_not_count(earlier: tuple[ClosedAttempt, ...]) -> None:
    """Two colluding sites could else sign for an attempt that never was, and each site would remember a false list."""
    attempt = replace(FIRST.context, attempt=2, follows=FIRST.context.digest, holders=("dora", "emil"))
    proposal = Proposal(attempt, earlier)
    sums = listed(*SITES, proposal=proposal)
    signed = [signed_release(identity(one), one, attempt, sums, digest("masks")) for one in ("dora", "emil")]
    found = decide_learn(view(), proposal, sums, signed)
    assert found == NotAllowed("H6", "the attempt does not follow those before it")


def test_a_base_is_given_free_when_what_was_signed_for_it_is_closed() -> None:
    assert decide_free(view(memory=memory(reported())), SECOND) == Allowed(BaseFreed("r1", 2, BASE))
    assert decide_free(view(memory=memory(reported(), BaseFreed("r1", 2, BASE))), SECOND) == Allowed(None)
    second = reported("ada", SECOND)
    for entries in ([reported(), released()], [reported(), closed("ada", "bob"), second]):
        assert isinstance(decide_free(view(memory=memory(*entries)), SECOND), NotAllowed)
    assert isinstance(decide_free(view(memory=memory(reported())), FORGED), NotAllowed)


def test_a_run_has_one_opening_and_one_roster() -> None:
    ours, run = OPENINGS[0].digest(RUN), "r1"
    other = signed_opening(identity("ada"), RUN, KEYS["ada"], 21, bytes(32))
    assert decide_opening(SumMemory(), RUN, OPENINGS[0]) == Allowed(OpeningMade(run, ours))
    assert decide_opening(memory(OpeningMade(run, ours)), RUN, OPENINGS[0]) == Allowed(None)
    assert isinstance(decide_opening(memory(OpeningMade(run, ours)), RUN, other), NotAllowed)
    old = decide_opening(memory(HomeRestored()), RUN, OPENINGS[0], drawn_before=True)
    assert isinstance(old, NotAllowed), "the run began after the backup"
    assert old.rule == "H7"
    assert isinstance(decide_opening(memory(HomeRestored()), RUN, OPENINGS[0]), Allowed), "the run begins after it"
    joined = decide_roster(recalled([OpeningMade(run, ours)]), "ada", ROSTER)
    assert joined == Allowed(RosterJoined(run, ROSTER.digest))
    for entries, rule in (
        ([], "H3"),
        ([OpeningMade(run, other.digest(RUN))], "H3"),
        ([OpeningMade(run, ours), RosterJoined(run, digest("r"))], "H6"),
        ([OpeningMade(run, ours), HomeRestored()], "H7"),
    ):
        found = decide_roster(memory(*entries), "ada", ROSTER)
        assert isinstance(found, NotAllowed)
        assert found.rule == rule


@pytest.mark.parametrize(
    ("remaining", "may"),
    [(("ada", "bob"), True), (HOLDERS, True), (("ada",), False), (("bob", "ada"), False), (("ada", "dora"), False)],
)
def test_c_plus_one_holders_of_the_attempt_go_on(remaining: tuple[str, ...], may: bool) -> None:
    assert may_go_on(FIRST.context, remaining) is may


@pytest.mark.parametrize(
    "closes",
    [
        (),
        again("ada", "bob").earlier[0].closes[:1],
        (again("ada", "bob").earlier[0].closes[0], again("ada", "cleo").earlier[0].closes[1]),
        again("ada", "bob", proposal=SECOND).earlier[1].closes,
    ],
    ids=["none", "one of two", "for different holders", "of another attempt"],
)
def test_an_attempt_is_closed_by_all_that_go_on(closes) -> None:
    assert ClosedAttempt(FIRST.context, closes).next_context(PINS) is None


def test_what_a_home_remembers_is_what_its_entries_say() -> None:
    found = memory(OpeningMade("r1", digest("o")), RosterJoined("r1", ROSTER.digest), reported(), closed("ada", "bob"))
    assert found.uses == {BASE: {("r1", 2): OPEN}}
    assert found.rounds[("r1", 2)].contexts == {FIRST.context.digest}
    assert memory(reported(), released()).uses == {BASE: {("r1", 2): parts_of(IMAGES)}}
    assert memory(OpeningMade("r1", digest("o")), HomeRestored(), OpeningMade("r2", digest("o"))).barred == {"r1"}


def test_a_memory_stays_as_it_was_when_another_one_remembers_more() -> None:
    entries = [OpeningMade("r1", "o"), JOINED, reported(), BaseFreed("r1", 2, BASE), HomeRestored(), BaseVouched(BASE)]
    memories = [SumMemory()]
    for entry in entries:
        memories.append(remembered(memories[-1], entry))
    assert memories == [recalled(entries[:known]) for known in range(len(entries) + 1)]


def test_a_hundred_thousand_rounds_are_recalled_before_the_time_limit_of_a_test() -> None:
    entries = [SumLearned("r1", number, f"{number:064x}", "p") for number in range(100_000)]
    assert len(recalled(entries).uses) == 100_000
