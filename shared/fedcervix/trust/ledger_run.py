"""The run that a ledger tells: its events, one after the other, give the state that the coordinator has.

Signatures prove who said what. That the coordinator has made of it what the rules of a run make of it, the state
machine proves (`fedcervix.core.rounds`): no average before the updates, no update twice, no end to which the rounds do
not lead.

A site that has checked every entry so knows by itself with which model a round begins (docs/secure-sums.md, rule H6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from fedcervix.core.events import event_from_json
from fedcervix.core.plan import Plan, check
from fedcervix.core.rounds.coordinator_work import last_step
from fedcervix.core.rounds.state import Phase, Run, begin
from fedcervix.core.rounds.step import step
from fedcervix.trust.chain import End, Values, read

OVER = (Phase.PUBLISHING, Phase.FINISHED, Phase.ABORTED)
"""the last round is over"""


@dataclass(frozen=True, slots=True)
class KnownRound:
    """A round as its ledger tells it, up to the head before it."""

    round: int
    base: str
    """digest of the model that it begins with"""
    head: str
    """hash of the last entry before it"""
    last_step: tuple[str, str] | None = None
    """for server momentum: the models with which this round and the one before began; None where there is no step"""


@dataclass(frozen=True, slots=True)
class LedgerRun:
    """The run after the entries so far."""

    state: Run | None = None

    def follow(self, entry: str) -> LedgerRun:
        """Return what one more entry, whose form is right, makes of it. Raises ValueError where it could not follow."""
        values = read(entry)
        kind, before = values["kind"], self.state
        if kind == "genesis" or before is None:
            return LedgerRun(_begun(values))
        run = before
        if kind == "event":
            run, answer = step(before, event_from_json(str(values["event"])))
            check(run is not before, f"by the rules of a run it could not happen then ({answer})")
        elif kind == "end":
            _check_end(run, values)
        check(values["round"] == round_of(run), f"it says round {values['round']}; the run is in round {round_of(run)}")
        return LedgerRun(run)

    def known_round(self, heads: Mapping[int, End], number: int) -> KnownRound | None:
        """Return a round that has begun, the head before which is here; None: it has not, or the head is not here.

        `heads`: by round, as `Ledger.heads` has them.
        """
        if self.state is None or not 1 <= number <= len(self.state.rounds) or number - 1 not in heads:
            return None
        then = replace(self.state, rounds=self.state.rounds[:number])
        return KnownRound(number, then.current.base, heads[number - 1].hash, last_step(then))


def _begun(genesis: Values) -> Run:
    name, plan, base = (cast(str, genesis[key]) for key in ("run", "plan", "base"))
    return begin(name, Plan.parse(plan), base=base, at=float.fromhex(cast(str, genesis["at"])))


def _check_end(run: Run, values: Values) -> None:
    """Raise ValueError where a run did not end so."""
    outcome = run.outcome.value if run.outcome else ""
    expected = {"outcome": outcome, "reason": run.reason, "model": result_of(run)}
    other = [name for name, value in expected.items() if values.get(name) != value]
    check(run.ended, "the run had not ended")
    check(not other, f"the run ended with another {', '.join(other)}")


def round_of(run: Run) -> int:
    """Return the number of the round in progress; once the last one is over, one more."""
    return len(run.rounds) + (run.phase in OVER)


def result_of(run: Run) -> str:
    """Return the digest of a run's result; nothing where there is none."""
    return run.best.candidate if run.best_round else ""
