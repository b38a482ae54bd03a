"""The run that a ledger tells: its events, one after the other, give the state that the coordinator has.

A site that has checked every entry so knows by itself with which model a round begins (docs/secure-sums.md, rule H6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast

from fedcervix.core.events import event_from_json
from fedcervix.core.plan import Plan
from fedcervix.core.rounds.coordinator_work import last_step
from fedcervix.core.rounds.state import Run, begin
from fedcervix.core.rounds.step import step
from fedcervix.trust.chain import End, Values, read


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
        """Return what one more entry, which holds, makes of it."""
        values = read(entry)
        if values["kind"] == "genesis":
            return LedgerRun(_begun(values))
        if values["kind"] != "event" or self.state is None:
            return self
        return LedgerRun(step(self.state, event_from_json(str(values["event"])))[0])

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
