"""Two agents under one certificate are told apart: one is refused, and the run ends as it would have without it."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from collections.abc import Callable

import pytest

from fedcervix.errors import DuplicateAgentError
from fedcervix.transport import codec
from site_agent.home import SiteHome
from tests.e2e.loopback import Federation, Process
from tests.e2e.relays import Relay

Federate = Callable[..., Federation]

pytestmark = pytest.mark.timeout(120)

TERMS = {"rounds": 3, "epochs_per_round": 1, "patience_rounds": 3}
REFUSED = (
    "another agent of site nhs has been connected since 20",
    'likely cause: the coordinator says "a second machine or a copy',
    "next: stop one",
)
PACE = ("--pace-s", "0.1")


@pytest.fixture
def right(light_right: Callable[..., str]) -> str:
    """Return the right result of the runs of these tests."""
    return light_right("csfssl", **TERMS)


def begin(federation: Federation) -> tuple[Process, Process]:
    """Start a federation whose site alts is at work; return coordinator and alts."""
    coordinator = federation.coordinate("--mode", "csfssl")
    for site in federation.sites:
        federation.enrol(site)
    return coordinator, federation.light("alts", *PACE)


def copied(federation: Federation, name: str) -> SiteHome:
    """Copy the home folder of site nhs, as somebody does who sets up a second machine."""
    home = SiteHome(federation.folder / name)
    shutil.copytree(federation.site("nhs").folder, home.folder, copy_function=copy_if_there)
    return home


def copy_if_there(source: str, target: str) -> None:
    """Copy a file of a home that is in use: one that is being replaced may be gone by now."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(source, target)


def twin(federation: Federation, home: SiteHome) -> Process:
    """Start an agent on a copied home folder."""
    return federation.light("twin", *PACE, home=home)


def assert_refused(agent: Process) -> None:
    assert agent.ended() == DuplicateAgentError.exit_code == 13, agent.text
    for words in REFUSED:
        assert words in agent.text


def assert_right(federation: Federation, right: str) -> None:
    record = federation.record()
    assert (record["outcome"], [line["missing"] for line in record["ledger"]]) == ("OK", [[]] * 3)
    assert federation.result() == right


def test_a_second_agent_is_refused_while_the_first_one_works_and_changes_nothing(
    federate: Federate, right: str
) -> None:
    federation = federate(terms={**TERMS, "lease_s": 3.0})
    coordinator, alts = begin(federation)
    early = copied(federation, "copied-before-the-first-start")
    nhs = federation.light("nhs", *PACE)
    nhs.says("asked to train in round 1")
    late = copied(federation, "copied-while-it-runs")
    alts.signal(signal.SIGSTOP)  # so that the run is not over before the twins have started
    for home in (early, late, early):
        assert_refused(twin(federation, home))
        assert nhs.running()
    alts.signal(signal.SIGCONT)
    federation.finish(coordinator, nhs, alts)
    assert "another agent" not in nhs.text
    assert_right(federation, right)


@pytest.mark.long
def test_a_second_agent_takes_over_once_the_first_one_is_gone(federate: Federate, right: str) -> None:
    federation = federate(terms={**TERMS, "lease_s": 2.0})
    coordinator, alts = begin(federation)
    nhs = federation.light("nhs", *PACE)
    nhs.says("asked to train in round 1")
    second = copied(federation, "copy")
    nhs.kill()
    assert_refused(twin(federation, second))  # its lease still runs
    federation.until("nhs is silent", lambda seen: seen["sites"][0]["presence"] == "silent")
    taking_over = twin(federation, second)
    taking_over.says("asked to train in round 1")
    assert_refused(federation.light("nhs"))  # and now it is the first one that comes too late
    federation.finish(coordinator, taking_over, alts)
    assert_right(federation, right)


def test_an_agent_that_restarts_is_let_in_at_once_though_its_old_line_still_stands(
    federate: Federate, right: str
) -> None:
    federation = federate(terms={**TERMS, "lease_s": 3600.0})
    coordinator, alts = begin(federation)
    relay = Relay(federation.port, holds=True)
    federation.settle("nhs", port=relay.port)
    nhs = federation.light("nhs", *PACE)
    nhs.says("asked to train in round 1")
    second = copied(federation, "copy")
    nhs.kill()
    assert_refused(twin(federation, second))
    assert federation.overview()["sites"][0]["connected"]  # as far as the coordinator knows
    nhs = federation.light("nhs", *PACE)
    nhs.says("asked to train in round 1", timeout_s=10)
    relay.released.set()
    federation.finish(coordinator, nhs, alts)
    relay.close()
    assert_right(federation, right)


@pytest.mark.long
def test_an_agent_that_was_replaced_ends_and_says_why(federate: Federate, right: str) -> None:
    """A machine and its clone: the copy has the folder's number too, so it passes for a restart."""
    federation = federate(terms=TERMS)
    coordinator, alts = begin(federation)
    nhs = federation.light("nhs", *PACE)
    nhs.says("asked to train in round 1")
    clone = copied(federation, "clone")
    known = json.loads(clone.instances.read_text())
    clone.instances.write_text(json.dumps(known | {"folder": clone.folder.stat().st_ino}))
    alts.kill()  # so that the run does not end before all of this is seen
    replacing = twin(federation, clone)
    replacing.says("attached to run")
    assert_refused(nhs)
    assert_refused(federation.light("nhs"))  # a service that starts it again does not fight
    federation.finish(coordinator, replacing, federation.light("alts", *PACE))
    assert_right(federation, right)


def test_no_word_of_a_twin_is_heard(federate: Federate) -> None:
    federation = federate(terms={"lease_s": 3600.0})
    federation.coordinate("--mode", "csfssl")
    federation.enrol("nhs")
    first, second = federation.link("nhs"), federation.link("nhs")
    stream = first.attach()
    assert isinstance(next(stream), codec.Welcome)
    for call in (
        lambda: next(second.attach()),
        lambda: second.report(codec.Ready(federation.overview()["run"], federation.plan("csfssl").digest)),
    ):
        with pytest.raises(DuplicateAgentError, match="another agent of site nhs has been connected"):
            call()
    assert federation.overview()["sites"][0]["presence"] == "absent"
    assert isinstance(second.welcome(), codec.Welcome)  # `site-agent doctor` beside an agent at work
    first.close()
    second.close()
