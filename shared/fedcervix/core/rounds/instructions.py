"""What a site should be doing now, as a function of the state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fedcervix.core.events import Task, TaskKind
from fedcervix.core.rounds.holders import all_opened, attempt, has_boxed
from fedcervix.core.rounds.participants import listed, may_read, names_of, open_sites, rewrap
from fedcervix.core.rounds.readers import giver
from fedcervix.core.rounds.state import Outcome, Phase, Presence, Run


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do for the site at the moment, and why."""

    reason: str

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class Finish:
    """The site's part in the run is over."""

    outcome: Outcome
    reason: str
    record: str = ""
    """the run's record as JSON, put in where it is sent"""

    def __str__(self) -> str:
        return f"{self.outcome}: {self.reason}"


Instruction = Task | Idle | Finish
REVOKED_HERE = "the operator revoked this site during this run, so it cannot take part in it"


def instruction(run: Run, site: str) -> Instruction:
    """Return what the site should be doing now."""
    if run.site(site).presence is Presence.REVOKED:
        return _instruct_revoked(run)
    if run.outcome is not None and (run.ended or site in run.adopted):
        return Finish(run.outcome, run.reason)
    if (task := rewrap(run)) is not None:
        return _instruct_rewrap(run, site, task)
    return _INSTRUCT[run.phase](run, site)


def _instruct_rewrap(run: Run, site: str, task: Task) -> Instruction:
    asked = giver(run, task.base)
    if asked is not None and asked.name == site:
        return task
    return Idle(f"waiting for {listed(open_sites(run))} to {task}")


def _instruct_revoked(run: Run) -> Instruction:
    """The run goes on without the site, which may have a new certificate by now."""
    if run.outcome is not None and run.ended:
        return Finish(run.outcome, f"{run.reason}; {REVOKED_HERE}")
    return Idle(f"{REVOKED_HERE}: it waits for the next run, leave this program running")


def _instruct_gathering(run: Run, site: str) -> Instruction:
    if all_opened(run) and not has_boxed(run, site):
        return Task(run.run, TaskKind.BOX, 0, "")
    return Idle(f"waiting for {listed(open_sites(run))} to attach")


def _instruct_seeding(run: Run, site: str) -> Instruction:
    asked = open_sites(run)[0].name
    return Task(run.run, TaskKind.SEED, 0, "") if site == asked else Idle(f"{asked} makes the first model")


def _instruct_training(run: Run, site: str) -> Instruction:
    if run.current.has(site):
        return Idle(f"round {run.current.number}: waiting for {listed(open_sites(run))}")
    if run.current.missed(site):
        return Idle(f"round {run.current.number} was closed without this site; it takes part again in the next round")
    if site not in names_of(open_sites(run)):
        return Idle(f"round {run.current.number}: {listed(open_sites(run))} holds the model")
    if not may_read(run, site, run.model):  # nor is it there: else the key would be on its way
        return Idle(f"round {run.current.number}: this site cannot read the model yet")
    return Task(run.run, TaskKind.TRAIN, run.current.number, run.model, attempt(run))


def _instruct_releasing(run: Run, site: str) -> Instruction:
    waited = open_sites(run)
    if site in names_of(waited) and run.site(site).presence is Presence.PRESENT:
        return holder_task(run, TaskKind.RELEASE)
    return Idle(f"round {run.current.number}: waiting for the masks of {listed(waited)}")


def _instruct_closing(run: Run, site: str) -> Instruction:
    waited = open_sites(run)
    if site in names_of(waited):
        return holder_task(run, TaskKind.CLOSE)
    return Idle(f"round {run.current.number}: waiting for {listed(waited)} to close attempt {attempt(run)}")


def holder_task(run: Run, kind: TaskKind) -> Task:
    """Return what a holder is asked to do in the present attempt."""
    return Task(run.run, kind, run.current.number, run.current.base, attempt(run))


def _instruct_aggregating(run: Run, _site: str) -> Instruction:
    return Idle(f"round {run.current.number}: the coordinator is averaging")


def _instruct_scoring(run: Run, site: str) -> Instruction:
    if run.current.judged(site) or not may_read(run, site, run.current.candidate):
        return Idle(f"round {run.current.number}: waiting for the score of {listed(open_sites(run))}")
    return Task(run.run, TaskKind.SCORE, run.current.number, run.current.candidate)


def _instruct_publishing(run: Run, _site: str) -> Instruction:
    return Task(run.run, TaskKind.ADOPT, run.best_round, run.best.candidate)


_INSTRUCT: Mapping[Phase, Callable[[Run, str], Instruction]] = {
    Phase.GATHERING: _instruct_gathering,
    Phase.SEEDING: _instruct_seeding,
    Phase.TRAINING: _instruct_training,
    Phase.RELEASING: _instruct_releasing,
    Phase.CLOSING: _instruct_closing,
    Phase.AGGREGATING: _instruct_aggregating,
    Phase.SCORING: _instruct_scoring,
    Phase.PUBLISHING: _instruct_publishing,
}
