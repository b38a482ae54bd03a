"""What becomes of a line that ends, and when no other one is tried."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fedcervix.core.rounds.instructions import Idle
from fedcervix.errors import FedcervixError, IdentityError, LinkError, RemoteError, StorageError, VersionError
from site_agent.federation.context import AgentContext
from site_agent.federation.inbox import SAID_MAX, Broken, ConnectionLost, CoordinatorSaid, Inbox
from site_agent.federation.listener import Listener
from site_agent.home import SiteHome
from tests.unit.fake_link import Cut, FakeLink

WRONG = IdentityError("the certificate is another authority's")
NOBODY = LinkError("nobody there")


class Line:
    """A listener, and what it finds where it looks why there is no line."""

    def __init__(self, folder: Path, found: FedcervixError | None = None) -> None:
        self.link, self.inbox, self._found = FakeLink(), Inbox(), found
        context = AgentContext(SiteHome(folder), "nhs", self.link, lambda *_: None, self.inbox)
        self.listener = Listener(context, self._look)

    def _look(self) -> None:
        if self._found is not None:
            raise self._found


def test_what_is_said_comes_in_before_the_end_of_the_line(tmp_path: Path) -> None:
    line = Line(tmp_path)
    line.link.say(Idle("waiting"), Cut())
    assert isinstance(line.listener.listen(), ConnectionLost)
    assert line.inbox.take(0.0) == CoordinatorSaid(Idle("waiting"))


@pytest.mark.parametrize("found", [WRONG, LinkError("the name is unknown")])
def test_a_site_that_was_never_let_in_is_told_why_there_is_no_line(tmp_path: Path, found: FedcervixError) -> None:
    line = Line(tmp_path, found)
    line.link.say(NOBODY)
    assert line.listener.listen() == (Broken(found) if found is WRONG else ConnectionLost(found))  # type: ignore[arg-type]


def test_a_site_that_was_let_in_before_does_not_doubt_its_certificate(tmp_path: Path) -> None:
    line = Line(tmp_path, WRONG)
    line.listener.let_in = True
    line.link.say(NOBODY)
    assert line.listener.listen() == ConnectionLost(NOBODY)


@pytest.mark.parametrize("error", [LinkError("cut"), StorageError("the coordinator's disk is full")])
def test_a_line_is_opened_again_until_that_makes_no_sense(tmp_path: Path, error: FedcervixError) -> None:
    line, over = Line(tmp_path), RemoteError("another version of the wire")
    line.link.say(error, over)
    line.listener.run()
    assert [line.inbox.take(0.0), line.inbox.take(0.0)] == [ConnectionLost(error), Broken(over)]  # type: ignore[arg-type]


def test_another_version_is_waited_for_and_not_asked_more_than_once_a_minute(tmp_path: Path) -> None:
    line, other = Line(tmp_path, WRONG), VersionError("another version")
    line.link.say(other, NOBODY)
    lost = line.listener.listen()
    assert lost == ConnectionLost(other), "its certificate is good: nothing else is looked at"
    assert 60.0 <= line.listener.pause_s(lost) <= 90.0
    assert line.listener.pause_s(ConnectionLost(NOBODY)) < 1.0


def test_a_coordinator_that_says_more_than_is_handled_waits(tmp_path: Path) -> None:
    """Before: the inbox took everything, without end."""
    line, said = Line(tmp_path), [Idle(f"reason {number}") for number in range(SAID_MAX + 1)]
    line.link.say(*said, Cut())
    listening = threading.Thread(target=line.listener.listen, daemon=True)
    listening.start()
    listening.join(0.5)
    assert listening.is_alive()
    assert [line.inbox.take(60.0) for _ in said] == [CoordinatorSaid(what) for what in said]
    listening.join(60.0)
    assert not listening.is_alive()
