"""What the operator sees of a line that was cut, in the document and in the picture."""

from __future__ import annotations

import time

import pytest
from rich.console import Console

from coordinator.commands.status_view import render
from coordinator.limits.admission import Held
from coordinator.run.liveness import Line
from coordinator.run.status import overview
from coordinator.run.status_document import StatusDocument
from fedcervix.core.events import SiteAttached, SiteFailed, SiteSilent, UpdateStored
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.instructions import instruction
from fedcervix.core.rounds.state import Run, begin
from fedcervix.core.rounds.step import step
from fedcervix.printable import printable
from fedcervix.transport.codec import Progress

NOW = 1_893_456_000.0
SITES = ("ada", "bob")
OPEN = Line(True, None, 1.0, 40.0, None)
CUT = Line(False, 7.0, 7.0, 40.0, None)
NEVER = Line(False, None, 7.0, 40.0, None)
UNHEARD = Line(True, None, 8.5, 40.0, None)


def training() -> Run:
    """Return a run whose sites train."""
    plan = Plan(mode="csfssl", sites=SITES, profile="paper", terms=Terms(), recipe=Recipe())
    run = begin("run", plan, base="5" * 64, at=NOW - 100)
    for site in SITES:
        run, _ = step(run, SiteAttached(site, NOW - 50))
    return run


def seen(run: Run, **lines: Line) -> StatusDocument:
    return overview(run, lines, now=NOW)


def drawn(document: StatusDocument) -> str:
    console = Console(width=240)
    with console.capture() as capture:
        console.print(render(document))
    return capture.get()


def test_times_are_utc_wherever_the_operator_is(monkeypatch: pytest.MonkeyPatch) -> None:
    document = seen(training(), ada=OPEN, bob=OPEN)
    here = drawn(document)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert drawn(document) == here
    finally:
        monkeypatch.undo()
        time.tzset()
    assert "all times are UTC, now 2030-01-01 00:00" in here


def test_an_open_line_is_not_spoken_of() -> None:
    document = seen(training(), ada=OPEN, bob=OPEN)
    ada, _ = document.sites
    assert (ada.connected, ada.cut_at, ada.line) == (True, None, "")
    assert [wait.reason for wait in document.waits] == ["working: train in round 1"] * 2
    assert [(wait.until, wait.cut_at) for wait in document.waits] == [(None, None)] * 2
    assert "line" not in drawn(document).replace("deadline", "")


def test_a_line_that_was_cut_is_named_with_its_time_and_its_lease() -> None:
    document = seen(training(), ada=CUT, bob=OPEN)
    ada, bob = document.sites
    assert (ada.presence, ada.connected, ada.cut_at, ada.line) == (
        "present",
        False,
        NOW - 7,
        "its connection is cut",
    )
    assert bob.line == ""
    wait, other = document.waits
    assert wait.reason == "working: train in round 1; its connection is cut"
    assert (wait.cut_at, wait.until, wait.then) == (NOW - 7, NOW + 40, "its lease runs out")
    assert (other.reason, other.until) == ("working: train in round 1", None)
    text = drawn(document)
    assert (
        text.count("its connection is cut since 2029-12-31") + text.count("its connection is cut since 2030-01-01") == 2
    )


def test_a_site_of_which_nothing_is_heard_is_named_before_its_line_is_cut() -> None:
    document = seen(training(), ada=UNHEARD, bob=OPEN)
    ada, bob = document.sites
    assert (ada.presence, ada.connected, ada.cut_at, ada.line) == (
        "present",
        True,
        NOW - 8.5,
        "no message comes from it",
    )
    assert bob.line == ""
    assert document.waits[0].until == NOW + 40
    assert drawn(document).count("no message comes from it since 20") == 2


def test_a_site_that_waits_for_an_upgrade_is_said_to_also_before_it_was_let_in() -> None:
    words = "it speaks version 3; install fedcervix 0.2.0 at the coordinator"
    plan = Plan(mode="csfssl", sites=SITES, profile="paper", terms=Terms(), recipe=Recipe())
    refused = Line(False, None, 1.0, None, None, software="0.2.0", upgrade=words)
    document = seen(begin("run", plan, base="5" * 64, at=NOW - 100), ada=refused)
    assert [site.line for site in document.sites] == [f"waits for an upgrade: {words}", ""]
    assert [site.software for site in document.sites] == ["0.2.0", ""]
    assert f"waits for an upgrade: {words}" in " ".join(drawn(document).split())


def test_a_site_that_has_not_come_back_to_a_restarted_coordinator_is_said_as_such() -> None:
    document = seen(training(), ada=NEVER, bob=OPEN)
    assert document.sites[0].line == "it has not connected since the coordinator started"
    assert "it has not connected since the coordinator started" in drawn(document)


def test_a_silent_site_s_wait_is_that_of_the_rules() -> None:
    run, _ = step(training(), SiteSilent("ada", NOW - 5))
    document = seen(run, ada=CUT, bob=OPEN)
    wait = document.waits[0]
    assert wait.reason == "silent: no sign of life; its connection is cut"
    assert wait.until > NOW + 40  # not that of a lease which is over


@pytest.mark.parametrize("document", [overview(training(), {}, now=NOW)])
def test_where_no_coordinator_runs_nothing_is_said_of_lines(document: StatusDocument) -> None:
    assert [site.line for site in document.sites] == ["", ""]
    assert drawn(document)


def test_progress_is_shown_while_it_is_of_what_the_site_is_asked() -> None:
    run = training()
    task = instruction(run, "ada")
    progress = Progress(task, "training", 3, 5, "steps", 0.5, 9.0)  # type: ignore[arg-type]
    working = Line(True, None, 1.0, 40.0, progress)
    assert seen(run, ada=working, bob=OPEN).sites[0].done == 3
    run, _ = step(run, UpdateStored("ada", task, "d" * 64, 1, 1, 1.0, 1.0, NOW))  # type: ignore[arg-type]
    assert seen(run, ada=working, bob=OPEN).sites[0].done == 0


@pytest.mark.parametrize("words", ["[/x]", "[red]", "\x1b[2J", "\rnothing is wrong", "a\nb"])
def test_what_a_site_says_is_shown_and_not_obeyed(words: str) -> None:
    run = training()
    progress = Progress(instruction(run, "ada"), words, 3, 5, words, 0.5, 9.0)  # type: ignore[arg-type]
    run, _ = step(run, SiteFailed("bob", words, words, "incident", NOW, words))
    text = drawn(seen(run, ada=Line(True, None, 1.0, 40.0, progress), bob=OPEN))
    safe = printable(words)
    assert f"{safe} 3/5 {safe}" in text
    assert text.count(safe) > 4, "the failure and the wait for it"
    assert all(letter.isprintable() for letter in text.replace("\n", ""))


@pytest.mark.parametrize("letter", ["\ud7ff", "\ue000", "\u0378", "\uffff", "\U000e01f0", "\U0010ffff"])
def test_the_columns_of_a_table_stay_whatever_letters_a_site_uses(letter: str) -> None:
    """Of what is not assigned, rich takes some as 0 columns wide, and a terminal shows a box."""
    text, plain = (
        drawn(seen(step(training(), SiteFailed("bob", "training", one * 9, "incident", NOW))[0], ada=OPEN, bob=OPEN))
        for one in (letter, "x")
    )
    assert text.count("?" * 9) == plain.count("x" * 9) == 2, "the failure and the wait for it"
    assert [len(line) for line in text.splitlines()] == [len(line) for line in plain.splitlines()]


# --- who holds the coordinator ------------------------------------------------------------------------------------


def test_a_site_that_holds_much_of_the_coordinator_is_named() -> None:
    held = {"ada": Held(open=40, refused=4_000, connections=3), "bob": Held(open=3, connections=1)}
    document = overview(training(), {"ada": OPEN, "bob": OPEN}, held, now=NOW)
    ada, bob = document.sites
    assert (ada.calls_open, ada.calls_refused, ada.connections) == (40, 4_000, 3)
    assert (bob.calls_open, bob.calls_refused, bob.connections) == (3, 0, 1)
    screen = drawn(document)
    assert "40 calls open, 4000 refused in the last minute, 3 connections" in screen
    assert "3 calls open" not in screen
