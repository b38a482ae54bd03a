"""What a federation has of this site is written down before it has it, and refused where the policy sets an end.

Two notes are kept: what was asked in a run (`asked`), and what all runs of a month have had (`account`).
"""

from __future__ import annotations

import contextlib
import threading
from typing import NoReturn

from fedcervix.core import session
from fedcervix.core.events import ModelUnusable, Task, TaskKind
from fedcervix.errors import FedcervixError, PolicyError
from fedcervix.transport import codec
from site_agent.federation import account, asked
from site_agent.federation.inbox import Participation
from site_agent.federation.link import Link
from site_agent.home import SiteHome

NOT_HONEST = "the coordinator was restored from an old backup, or it is not honest"
NEW_RUN = "ask the coordinator's operator for a new run: coordinator start --new"


class Accounting:
    """One agent's notes. May be used from any thread."""

    def __init__(self, home: SiteHome, link: Link) -> None:
        self._home, self._link = home, link
        self._lock = threading.RLock()

    def refuse(
        self,
        run: str,
        what: str,
        against: list[str],
        *,
        told: list[str] | None = None,
        cause: str = "",
        next_step: str = "",
    ) -> NoReturn:
        """End because of the policy, and tell the coordinator why. Raises PolicyError.

        `told` is for the coordinator where it need not know what is against it.
        """
        with contextlib.suppress(FedcervixError):  # if it cannot be told, the operator sees an absent site
            self._link.report(codec.Refusal(run, "; ".join(told or against)))
        raise PolicyError(
            f"{what}:\n" + "\n".join(f"  - {line}" for line in against),
            cause=cause or f"[policy] in {self._home.config_file}",
            next_step=next_step or "agree with the coordinator's operator, then change the policy or the plan",
        )

    def begin_run(self, run: str) -> None:
        """Count a run that is opened. Raises PolicyError, StorageError."""
        self._spend(run, account.Spent(runs=1))

    def begin_work(self, run: Participation, task: Task) -> None:
        """Write down that a task is begun. Raises PolicyError where it is one too many, StorageError."""
        with self._lock:  # work of a run that was abandoned may end beside that of the next one
            noted = asked.Asked(run.run_store.folder)
            turns = noted.turns()
            turn = turns.get(asked.key(task))
            if asked.begun(turn, task.base) == turn:
                return
            if why := asked.objection(turns, task, run.plan):
                self.refuse(task.run, "this site refuses the task", [why], cause=NOT_HONEST, next_step=NEW_RUN)
            if task.kind is TaskKind.TRAIN:
                rounds = 0 if asked.is_replacement(turn) else 1  # the epochs are trained all the same
                self._spend(task.run, account.Spent(rounds=rounds, epochs=run.plan.terms.epochs_per_round))
            noted.note("begun", task)

    def withdraw(self, run: Participation, task: Task) -> None:
        """Write down that work is given up because the coordinator wants something else. Raises StorageError."""
        with self._lock:
            if asked.key(task) in asked.Asked(run.run_store.folder).turns():
                self._note(run, "withdrawn", task)

    def begin_answer(self, run: Participation, result: session.Result) -> None:
        """Write down that a task is answered, before anything of it leaves. Raises StorageError.

        A site that could not train has given no model: in a ring it may be asked again, from the model before.
        """
        gave_none = isinstance(result, ModelUnusable) and result.task.kind is TaskKind.TRAIN
        self._note(run, "unusable" if gave_none else "answered", result.task)

    def _note(self, run: Participation, change: asked.Change, task: Task) -> None:
        """Write down what becomes of a task, where that is not written already. Raises StorageError."""
        with self._lock:
            noted = asked.Asked(run.run_store.folder)
            turn = noted.turns().get(asked.key(task))
            if asked.CHANGES[change](turn, task.base) != turn:
                noted.note(change, task)

    def begin_upload(self, run: str, size_bytes: int) -> None:
        """Count bytes of a model, before the first of them leaves. Raises PolicyError, StorageError."""
        self._spend(run, account.Spent(bytes=size_bytes))

    def give_back(self, size_bytes: int) -> None:
        """Bytes that were counted have not left: the connection was cut. Raises StorageError."""
        with self._lock:
            account.give_back(self._home.account, size_bytes)

    def _spend(self, run: str, more: account.Spent) -> None:
        """Count what a federation has of this site, before it has it. Raises PolicyError, StorageError."""
        with self._lock:
            against = account.spend(self._home.account, self._home.config().policy, more)
        if against:
            self.refuse(run, "this site's policy allows no more", against)
