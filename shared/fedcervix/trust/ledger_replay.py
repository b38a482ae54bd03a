"""The events of a ledger, played once more: each must be one that could happen then, and lead to the round it names.

Signatures prove who said what. That the coordinator made of it what the rules of a run make of it, the state machine
proves (`fedcervix.core.rounds`): an average before the updates, an update that is written twice, an end that the rounds
do not lead to.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedcervix.core.events import event_from_json
from fedcervix.core.plan import Plan, check
from fedcervix.core.rounds.state import Phase, Run, begin
from fedcervix.core.rounds.step import step
from fedcervix.trust.chain import Values

OVER = (Phase.PUBLISHING, Phase.FINISHED, Phase.ABORTED)
"""the last round is over"""


def round_of(run: Run) -> int:
    """Return the number of the round in progress; once the last one is over, one more."""
    return len(run.rounds) + (run.phase in OVER)


@dataclass(frozen=True, slots=True)
class Replay:
    """A run as it stands after the entries so far; None before the first one."""

    run: Run | None = None

    def follow(self, values: Values) -> Replay:
        """Return the run after one more entry, whose form is right. Raises ValueError where it could not follow."""
        if self.run is None:
            return Replay(_begun(values))
        kind, run = values["kind"], self.run
        if kind == "event":
            run, answer = step(self.run, event_from_json(str(values["event"])))
            check(run is not self.run, f"by the rules of a run it could not happen then ({answer})")
        elif kind == "end":
            _check_end(run, values)
        check(values["round"] == round_of(run), f"it says round {values['round']}; the run is in round {round_of(run)}")
        return Replay(run)


def _begun(values: Values) -> Run:
    plan = Plan.parse(str(values["plan"]))
    return begin(str(values["run"]), plan, base=str(values["base"]), at=float.fromhex(str(values["at"])))


def _check_end(run: Run, values: Values) -> None:
    """Raise ValueError where a run did not end so."""
    outcome = run.outcome.value if run.outcome else ""
    expected = {"outcome": outcome, "reason": run.reason, "model": result_of(run)}
    other = [name for name, value in expected.items() if values.get(name) != value]
    check(run.ended, "the run had not ended")
    check(not other, f"the run ended with another {', '.join(other)}")


def result_of(run: Run) -> str:
    """Return the digest of a run's result; nothing where there is none."""
    return run.best.candidate if run.best_round else ""
