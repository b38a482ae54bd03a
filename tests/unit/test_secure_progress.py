"""Signs of life of a site that trains: in a run with secure sums they hold no loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedcervix.core import session
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.federation.accounting import Accounting
from site_agent.federation.context import AgentContext
from site_agent.federation.inbox import Job, Participation
from site_agent.federation.job_runner import JobRunner
from site_agent.home import SiteHome, create
from site_agent.store.run_store import RunStore
from tests.unit.agents import FakeWorker
from tests.unit.fake_link import RUN, TRAIN, FakeLink, plan


class Diary:
    """Stands in for the reporter."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def heard(self, progress: Any) -> None:
        self.losses.append(progress.loss)

    def __getattr__(self, _name: str) -> Any:
        return lambda *_: None


class Secure:
    """Stands in for a run with secure sums."""

    def made(self, _task: object) -> None: ...


class Trainer(FakeWorker):
    """Says its loss."""

    def do(self, task: Any, _plan: Any, on_progress: Any, cancelled: Any, *, roster: str = "") -> Any:
        on_progress(WorkProgress("training", 1, 2, "steps", loss=1.23456))
        return super().do(task, _plan, on_progress, cancelled, roster=roster)


@pytest.mark.parametrize(("secure", "loss"), [(None, 1.23456), (Secure(), 0.0)])
def test_the_losses_of_batches_do_not_leave_in_a_secure_run(tmp_path: Path, secure: Any, loss: float) -> None:
    home, link, diary = SiteHome(tmp_path), FakeLink(), Diary()
    create(home)
    context = AgentContext(home, "nhs", link, lambda _: None)
    runner = JobRunner(context, Trainer(home), Accounting(home, link), diary)  # type: ignore[arg-type]
    run = Participation(plan(), RunStore(home.run_folder(RUN)), secure)
    runner._made(Job(session.Work(TRAIN), run), TRAIN)
    assert diary.losses[0] == loss
