"""What a site and a holder do, and refuse to do, in a secure sum: the rules H1 to H7 as tables of pure checks.

    H1   one list for a round, ever; one report of a site for an attempt; a closed attempt stays closed
    H2   |U| >= max(3, c + 2) and 2 |U| > K + c, K the plan's roster
    H3   every line is signed by a pinned key, and the own line is the one that this site signed
    H4   no site outweighs the others that do not collude (`sum_roster.outweighs`)
    H5   one base for a round; all sums over a base have the same sites and weights, whatever run they are of
    H6   base, head, roster and plan are those that this site has verified itself
    H7   a home that was restored or copied takes no part in the runs that it had begun before, nor in the first round
         of another one unless somebody vouches for its first model

How to think about it. A holder's masks of a round are a secret that opens one sum. An honest holder opens one for each
round (H1), of enough sites (H2, H4) that exist (H3), and never two that differ (H5, H6); nobody can make it forget
that (H7). One honest holder is enough.

A decision is `Allowed` with the entry to write to the disk *before* acting, or with none where the same was decided
before; or it is `NotAllowed`, with the rule and a sentence. Deciding twice gives the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

from fedcervix.core.plan import Average
from fedcervix.core.sum_plan import sites_min
from fedcervix.trust.contexts import RoundContext, RunContext
from fedcervix.trust.sum_closes import ClosedAttempt, may_go_on
from fedcervix.trust.sum_lists import SignedRelease, SumList, parts_of, released_fault
from fedcervix.trust.sum_memory import (
    OPEN,
    AttemptClosed,
    BaseFreed,
    Entry,
    MasksReleased,
    OpeningMade,
    RosterJoined,
    RoundMemory,
    SumLearned,
    SumMemory,
    VectorReported,
)
from fedcervix.trust.sum_roster import Opening, PinnedKeys, SumRoster, outweighs


@dataclass(frozen=True, slots=True)
class Allowed:
    """The site may act, once `entry` is on its disk. None: it is there already."""

    entry: Entry | None


@dataclass(frozen=True, slots=True)
class NotAllowed:
    """The site does not act. `why`: a sentence for people."""

    rule: str
    why: str


Decision = Allowed | NotAllowed


@dataclass(frozen=True, slots=True)
class OwnView:
    """What a site knows of the present round by itself: nothing in it is the coordinator's word alone."""

    me: str
    memory: SumMemory
    context: RoundContext
    """of the first attempt: the base is the result of the last verified head, or a first model that it knows"""
    roster: SumRoster
    average: Average
    pins: PinnedKeys

    @property
    def standing(self) -> RoundMemory:
        """What it has done in this round."""
        return self.memory.rounds.get(self.place, RoundMemory(self.context.base))

    @property
    def place(self) -> tuple[str, int]:
        """Run and round."""
        return (self.context.run.run, self.context.round)


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the coordinator says that the attempt is, and how those before it were closed."""

    context: RoundContext
    earlier: tuple[ClosedAttempt, ...] = ()


# --- a run begins ----------------------------------------------------------------------------------------------------


def decide_opening(memory: SumMemory, run: RunContext, opening: Opening, *, drawn_before: bool = False) -> Decision:
    """Decide whether this site signs an opening: one for a run, ever.

    `drawn_before`: its secrets lay on the disk already. A journal from a backup does not name the runs that began after
    it; secrets that it does not know of tell of such a run.
    """
    known, digest = memory.openings.get(run.run), opening.digest(run)
    if run.run in memory.barred or (memory.restored and drawn_before and known is None):
        return NotAllowed("H7", _restored(run.run))
    if known not in (None, digest):
        return NotAllowed("H1", f"this site has signed another opening of run {run.run}")
    return Allowed(None if known else OpeningMade(run.run, digest))


def decide_roster(memory: SumMemory, me: str, roster: SumRoster) -> Decision:
    """Decide whether this site takes a checked roster: one for a run, ever, and with the opening that it signed."""
    run = roster.run
    if run.run in memory.barred:
        return NotAllowed("H7", _restored(run.run))
    if memory.openings.get(run.run) != roster.of(me).digest(run):
        return NotAllowed("H3", f"the roster of run {run.run} has another opening of this site than the one it signed")
    known = memory.rosters.get(run.run)
    if known not in (None, roster.digest):
        return NotAllowed("H6", f"this site has joined another roster of run {run.run}")
    return Allowed(None if known else RosterJoined(run.run, roster.digest))


def _restored(run: str) -> str:
    return f"this home was restored or copied during run {run}, and does not know what it has released in it"


# --- what all acts have in common ------------------------------------------------------------------------------------


def _takes_part(view: OwnView, _: Proposal, __: object) -> str:
    run, memory = view.context.run.run, view.memory
    if run in memory.barred:
        return _restored(run)
    if memory.restored and view.context.round == 1 and view.context.base not in memory.vouched:
        return "this home was restored or copied, and does not know whether the first model was in a sum before"
    return ""


def _is_what_i_see(view: OwnView, proposal: Proposal, _: object) -> str:
    seen = replace(proposal.context, attempt=1, follows="", holders=view.context.holders)
    for each in fields(seen):
        if getattr(seen, each.name) != getattr(view.context, each.name):
            return f"the coordinator's {each.name} is not the one that this site has verified"
    if not view.memory.rosters.get(view.context.run.run) == view.roster.digest == view.context.roster:
        return "the run's roster is not the one that this site has joined"
    return ""


def _attempts_fault(view: OwnView, proposal: Proposal) -> str:
    """Say why the attempts before this one do not lead from the plan's holders to it; empty: they do."""
    expected = replace(proposal.context, attempt=1, follows="", holders=view.context.holders)
    for attempt in proposal.earlier:
        following = attempt.next_context(view.pins)
        if attempt.context != expected or following is None:
            return "an attempt before was not closed by c + 1 of its holders"
        expected = following
    return "" if proposal.context == expected else "the attempt does not follow those before it"


def _chain_fault(view: OwnView, proposal: Proposal) -> str:
    """Say why the attempts do not lead from what this site did to this one; empty: they do."""
    passed = {attempt.context.digest for attempt in proposal.earlier} | {proposal.context.digest}
    if fault := _attempts_fault(view, proposal):
        return fault
    strange = view.standing.contexts - passed
    return "this site has signed for another attempt, which is not among those that were closed" if strange else ""


def _one_base(view: OwnView, proposal: Proposal, _: object) -> str:
    known = view.memory.rounds.get(view.place)
    if known and known.base != proposal.context.base:
        return "this site knows the round with another base"
    if OPEN in view.memory.used_elsewhere(proposal.context.base, view.place):
        return "this site gave a vector for the same base in another round, and does not know what became of it"
    return ""


# --- a site uploads its vector ---------------------------------------------------------------------------------------


def _one_report(view: OwnView, proposal: Proposal, commit: str) -> str:
    if fault := _chain_fault(view, proposal):
        return fault
    context = proposal.context.digest
    if context in dict(view.standing.closed) or view.standing.released:
        return "this site has released or closed the round"
    if dict(view.standing.reported).get(context, commit) != commit:
        return "this site has signed another vector for the same attempt"
    return ""


def _one_sum_before(view: OwnView, proposal: Proposal, commit: str) -> str:
    several = len(view.memory.used_elsewhere(proposal.context.base, view.place)) > 1
    return _one_base(view, proposal, commit) or ("the base was summed over different sites" if several else "")


def sum_before(view: OwnView) -> str:
    """Return what the report says of earlier sums over the base: the digest of their parts, empty where none is."""
    return min(view.memory.used_elsewhere(view.context.base, view.place) - {OPEN}, default="")


# --- a holder releases its masks -------------------------------------------------------------------------------------


def _one_list(view: OwnView, proposal: Proposal, listed: SumList) -> str:
    if fault := _chain_fault(view, proposal):
        return fault
    context, closed = proposal.context.digest, dict(view.standing.closed)
    if context in closed:
        return "this holder has closed the attempt"
    if proposal.context.follows and proposal.context.follows not in closed:
        return "this holder has not closed the attempt before"
    if view.me not in proposal.context.holders:
        return "this site is no holder of the attempt"
    if view.standing.released not in (None, (context, listed.digest)):
        return "this holder has released its masks for another list of the round"
    return ""


def _enough_sites(_: OwnView, proposal: Proposal, listed: SumList) -> str:
    least = sites_min(proposal.context.sites, proposal.context.colluders)
    if len(listed.sites) < least:
        return f"the list has {len(listed.sites)} sites; at least {least} hide each other"
    return ""


def _signed_lines(view: OwnView, proposal: Proposal, listed: SumList) -> str:
    context = proposal.context
    if listed.context != context.digest:
        return "the list is of another attempt"
    for line in listed.reports:
        if line.site not in view.roster.names:
            return f"site {line.site} is not in the roster"
        if line.site not in view.pins or not line.holds(view.pins[line.site], context):
            return f"the line of site {line.site} is not signed by its pinned key for this attempt"
        if line.site == view.me and (context.digest, line.commit) not in view.standing.reported:
            return "the line of this site is not the one that it signed"
    return ""


def _weights(view: OwnView, listed: SumList) -> dict[str, int]:
    return {site: weight for site, weight in view.roster.weights(view.average).items() if site in listed.sites}


def _hidden(view: OwnView, proposal: Proposal, listed: SumList) -> str:
    site = outweighs(_weights(view, listed), proposal.context.colluders)
    return f'site {site} outweighs the others: the plan must say average = "equal"' if site else ""


def _same_parts(view: OwnView, proposal: Proposal, listed: SumList) -> str:
    if fault := _one_base(view, proposal, listed):
        return fault
    parts = parts_of(_weights(view, listed))
    known = {line.site for line in listed.reports if line.before not in ("", parts)}
    if view.memory.used_elsewhere(proposal.context.base, view.place) - {parts}:
        known.add(view.me)
    if known:
        who = ", ".join(sorted(known))
        return f"{who}: the same base was summed over other sites or weights; the difference would give sites away"
    return ""


# --- a holder closes an attempt --------------------------------------------------------------------------------------


def _one_close(view: OwnView, proposal: Proposal, remaining: tuple[str, ...]) -> str:
    if fault := _chain_fault(view, proposal):
        return fault
    if view.standing.released:
        return "this holder has released its masks for a list of the round"
    if view.me not in remaining or not may_go_on(proposal.context, remaining):
        return "c + 1 holders of the attempt or more close it, this one among them"
    if dict(view.standing.closed).get(proposal.context.digest, remaining) != remaining:
        return "this holder has closed the attempt for other holders"
    return ""


# --- the tables ------------------------------------------------------------------------------------------------------

Asked = TypeVar("Asked")
Table = Mapping[str, Callable[[OwnView, Proposal, Asked], str]]


@dataclass(frozen=True, slots=True)
class SumRules:
    """For each act, the checks by the name of their rule, in the order in which they are made."""

    upload: Table[str] = field(
        default_factory=lambda: {
            "H7": _takes_part,
            "H6": _is_what_i_see,
            "H1": _one_report,
            "H5": _one_sum_before,
        }
    )
    release: Table[SumList] = field(
        default_factory=lambda: {
            "H7": _takes_part,
            "H6": _is_what_i_see,
            "H1": _one_list,
            "H3": _signed_lines,
            "H2": _enough_sites,
            "H4": _hidden,
            "H5": _same_parts,
        }
    )
    close: Table[tuple[str, ...]] = field(
        default_factory=lambda: {"H7": _takes_part, "H6": _is_what_i_see, "H1": _one_close}
    )


RULES = SumRules()


def decide_upload(view: OwnView, proposal: Proposal, commit: str, rules: SumRules = RULES) -> Decision:
    """Decide whether this site signs and uploads the vector of a commitment."""
    context = proposal.context.digest
    entry = VectorReported(*view.place, proposal.context.base, context, commit)
    done = (context, commit) in view.standing.reported
    return _decision(_named(rules.upload, view, proposal, commit), None if done else entry)


def decide_release(view: OwnView, proposal: Proposal, listed: SumList, rules: SumRules = RULES) -> Decision:
    """Decide whether this holder releases its masks for a list."""
    context, parts = proposal.context.digest, parts_of(_weights(view, listed))
    entry = MasksReleased(*view.place, proposal.context.base, context, listed.digest, parts)
    done = view.standing.released == (context, listed.digest)
    return _decision(_named(rules.release, view, proposal, listed), None if done else entry)


def decide_close(view: OwnView, proposal: Proposal, remaining: tuple[str, ...], rules: SumRules = RULES) -> Decision:
    """Decide whether this holder closes an attempt, which the remaining holders then do again."""
    context = proposal.context.digest
    entry = AttemptClosed(*view.place, proposal.context.base, context, remaining)
    done = (context, remaining) in view.standing.closed
    return _decision(_named(rules.close, view, proposal, remaining), None if done else entry)


def decide_learn(view: OwnView, proposal: Proposal, listed: SumList, releases: Sequence[SignedRelease]) -> Decision:
    """Decide whether a published sum is the round's, whose sites and weights this site then remembers.

    All holders have signed for its list. So it is the only sum of the round, whatever the coordinator says.
    """
    if fault := _is_what_i_see(view, proposal, listed) or _attempts_fault(view, proposal):
        return NotAllowed("H6", fault)
    if fault := released_fault(proposal.context, listed, releases, view.pins):
        return NotAllowed("H3", fault)
    parts = parts_of(_weights(view, listed))
    known = view.memory.uses.get(proposal.context.base, {}).get(view.place)
    return Allowed(None if known == parts else SumLearned(*view.place, proposal.context.base, parts))


def decide_free(view: OwnView, following: Proposal) -> Decision:
    """Decide whether the base of a round may be used in another run: all attempts that this site signed for are closed.

    `following`: the attempt that would follow the last one, which nobody begins.
    """
    base = view.context.base
    if fault := _chain_fault(view, following):
        return NotAllowed("H1", fault)
    if following.context.digest in view.standing.contexts or view.standing.released:
        return NotAllowed("H5", "this site has released its masks, or has begun the attempt")
    is_open = view.memory.uses.get(base, {}).get(view.place) == OPEN
    return Allowed(BaseFreed(*view.place, base) if is_open else None)


def _named(table: Table[Asked], view: OwnView, proposal: Proposal, asked: Asked) -> Iterator[NotAllowed]:
    """Yield what the rules find."""
    return (NotAllowed(rule, why) for rule, check in table.items() if (why := check(view, proposal, asked)))


def _decision(found: Iterator[NotAllowed], entry: Entry | None) -> Decision:
    return next(found, None) or Allowed(entry)
