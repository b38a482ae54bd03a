"""What an agent leaves on the disk of what it does: for each event the right state, and nothing that hinders it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fedcervix.core.events import Answer, Task, TaskKind
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.errors import LinkError, RunError
from fedcervix.runtime.typed_json import to_text
from fedcervix.runtime.worker_protocol import Answers, ErrorParts, WorkProgress
from site_agent.federation import noting, shown
from site_agent.federation.activity import (
    ACTIVITY_FILE,
    Doing,
    Note,
    note,
    notes,
    read_doing,
    read_examined,
    write_doing,
)
from site_agent.federation.noting import Notes, after, lines
from site_agent.home import SiteHome
from site_agent.worker.disk_full_retry import NO_ROOM
from site_agent.worker.preflight import Findings
from tests.e2e.disks import MayNotMountError, fill, small_disk

pytestmark = pytest.mark.timeout(60)
PLAN = Plan(mode="csfssl", sites=("ada", "bob"), profile="paper", terms=Terms(), recipe=Recipe())
RUN = "20261130-120000-csfssl-0badcafe"
BASE = "b" * 64
TRAIN, SCORE = Task(RUN, TaskKind.TRAIN, 3, BASE), Task(RUN, TaskKind.SCORE, 3, BASE)
ADOPT = Task(RUN, TaskKind.ADOPT, 3, BASE)
CUT = shown.Disconnected(LinkError("the line is cut"), works=False)
ATTACHED = shown.Attached(RUN, PLAN)
START = Doing(written_at=0.0, pid=1)


def progress(stage: str = "training", done: int = 1, of: int = 8, **more: object) -> shown.Advanced:
    return shown.Advanced(TRAIN, WorkProgress(stage, done, of, "steps", **more))  # type: ignore[arg-type]


def told(*events: shown.Shown, begin: Doing = START) -> Doing:
    """Return what is being done after events, a second apart from second 1 on."""
    for at, event in enumerate(events, 1):
        begin = after(begin, event, float(at))
    return begin


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((ATTACHED,), "check"),
        ((ATTACHED, shown.Examined(None)), "wait"),
        ((ATTACHED, shown.Resting("round 3: waiting for bob")), "wait"),
        ((ATTACHED, shown.Working(TRAIN)), "train"),
        ((shown.Working(TRAIN), progress("downloading")), "transfer"),
        ((shown.Working(TRAIN), progress("downloading"), progress()), "train"),
        ((shown.Working(SCORE),), "score"),
        ((shown.Working(ADOPT),), "work"),
        ((shown.Working(TRAIN), progress(), shown.TaskFinished(TRAIN, ())), "transfer"),
        ((shown.Working(TRAIN), shown.TaskFinished(TRAIN, ()), shown.Delivered(TRAIN, Answer.ACCEPTED)), "wait"),
        ((shown.Working(TRAIN), progress(NO_ROOM.stage)), "disk"),
        ((ATTACHED, shown.Resting("r"), CUT), "away"),
        ((ATTACHED, shown.Resting("r"), CUT, shown.Reconnected()), "wait"),
        ((shown.Working(TRAIN), replace(CUT, works=True)), "train"),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(type(one).__name__ for one in value),
)
def test_each_event_leads_to_its_state(events: tuple[shown.Shown, ...], state: str) -> None:
    assert told(*events).state == state


def test_a_state_begins_when_it_changes_and_not_with_each_step() -> None:
    doing = told(shown.Working(TRAIN), progress(done=1), progress(done=5, loss=2.5), progress(done=6, loss=2.0))
    assert (doing.since, doing.stage_since, doing.stage_from, doing.done) == (1.0, 2.0, 1, 6)
    assert (doing.heard_at, doing.loss, doing.round, doing.task) == (4.0, 2.0, 3, "train in round 3")


def test_a_cut_line_is_trouble_until_it_is_back_whatever_the_work_does() -> None:
    cut = told(ATTACHED, shown.Working(TRAIN), replace(CUT, works=True), progress(done=2))
    assert (cut.connected, cut.in_trouble, cut.line_since) == (False, True, 3.0)
    back = after(cut, shown.Reconnected(), 9.0)
    assert (back.connected, back.in_trouble, back.line_since) == (True, False, 9.0)
    assert back.trouble is not None  # what went wrong last stays known
    assert back.trouble.what == "the line is cut"


def test_trouble_with_the_work_is_over_when_the_work_goes_on() -> None:
    full = progress(NO_ROOM.stage, trouble=ErrorParts("no room", "the disk is full", "free some"))
    stuck = told(ATTACHED, shown.Working(TRAIN), shown.Trouble(RunError("no room")), full)
    assert (stuck.state, stuck.in_trouble) == ("disk", True)
    assert told(progress(done=3), begin=stuck).in_trouble is False


def test_a_partner_without_a_key_is_trouble_with_the_command_that_ends_it() -> None:
    doing = told(ATTACHED, shown.AwaitsKeys(("bob",), "site-agent unpin"))
    assert doing.in_trouble
    assert doing.trouble is not None
    assert doing.trouble.next_step.endswith("site-agent unpin bob")


def test_a_loss_that_is_no_number_is_not_written() -> None:
    assert told(shown.Working(TRAIN), progress(loss=float("nan"))).loss == 0.0
    ended = progress(loss=float("nan"), epoch=4)
    assert list(lines(START, START, ended, 1.0)) == []


def test_a_line_is_written_for_a_change_and_for_each_epoch_that_has_ended() -> None:
    before = told(shown.Working(TRAIN))
    event = progress(loss=3.25, epoch=7)
    assert list(lines(before, after(before, event, 5.0), event, 5.0)) == [Note(at=5.0, round=3, epoch=7, loss=3.25)]
    done = shown.TaskFinished(TRAIN, ())
    assert list(lines(before, after(before, done, 6.0), done, 6.0)) == [Note(at=6.0, round=3, state="transfer")]


# --- on the disk --------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    home = SiteHome(tmp_path)
    home.run_folder(RUN).mkdir(parents=True)
    return home


def until(found: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_a_run_is_written_down_as_it_happened(home: SiteHome) -> None:
    passed_on: list[shown.Shown] = []
    kept = Notes(home, passed_on.append)
    events = [ATTACHED, shown.Working(TRAIN), progress(), progress(loss=2.0, epoch=9), shown.TaskFinished(TRAIN, ())]
    for event in events:
        kept.show(event)
    until(lambda: (doing := read_doing(home.doing)) is not None and doing.state == "transfer")
    kept.end("OK: done")
    assert passed_on == events
    found = notes(home.run_folder(RUN))
    assert [one.state or one.epoch for one in found] == ["check", "train", 9, "transfer", "off"]
    doing = read_doing(home.doing)
    assert doing is not None
    assert (doing.ended, doing.state, doing.in_trouble) == ("OK: done", "off", False)


def test_what_the_look_at_the_images_found_is_kept_as_counts(home: SiteHome) -> None:
    kept = Notes(home, lambda _event: None)
    found = Findings(
        images=90, training_images=60, women=30, unreadable=2, shared_pictures=0, cost=None, details="",
        remarks=("Jane Doe has 40 images",), unreadable_for={"it ends too early": 2}, aside_for={"green": 3},
    )  # fmt: skip
    kept.show(ATTACHED)
    kept.show(shown.Examined(found))
    kept.end("stopped")
    examined = read_examined(home.run_folder(RUN))
    assert examined is not None
    assert (examined.unreadable_for, examined.aside_for) == ({"it ends too early": 2}, {"green": 3})
    assert "Jane" not in to_text(examined)


def test_an_error_that_ends_the_agent_is_told_with_its_next_step(home: SiteHome) -> None:
    kept = Notes(home, lambda _event: None)
    kept.end("ended with an error", RunError("it broke", cause="a bug", next_step="start again"))
    doing = read_doing(home.doing)
    assert doing is not None
    assert doing.trouble == ErrorParts("it broke", "a bug", "start again")
    assert doing.in_trouble


def test_the_activity_of_a_killed_agent_ends_when_it_was_last_heard_of(home: SiteHome) -> None:
    write_doing(home.doing, replace(told(ATTACHED, shown.Working(TRAIN)), written_at=77.0))
    note(home.run_folder(RUN), Note(at=2.0, round=3, state="train"))
    Notes(home, lambda _event: None).end("stopped")
    assert [(one.at, one.state) for one in notes(home.run_folder(RUN))][:2] == [(2.0, "train"), (77.0, "off")]


def test_lines_wait_for_a_disk_that_cannot_be_written_and_the_agent_does_not(
    home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noting, "WRITE_S", 0.01)
    monkeypatch.setattr(noting, "BEAT_S", 0.01)
    file = home.run_folder(RUN) / ACTIVITY_FILE
    file.mkdir()  # nothing can be appended to it
    kept = Notes(home, lambda _event: None)
    kept.show(ATTACHED)
    kept.show(shown.Working(TRAIN))
    until(lambda: (doing := read_doing(home.doing)) is not None and doing.state == "train")
    file.rmdir()
    until(lambda: len(notes(home.run_folder(RUN))) == 2)
    kept.end("stopped")


def test_torn_lines_cost_themselves(home: SiteHome) -> None:
    folder = home.run_folder(RUN)
    note(folder, Note(at=1.0, state="train"))
    with (folder / ACTIVITY_FILE).open("ab") as file:
        file.write(b'\n{"at": 2.0, "sta\n\x00\x00\n{"at": 3.0, "state": "dancing"}')
    note(folder, Note(at=4.0, state="wait"))
    assert [one.at for one in notes(folder)] == [1.0, 4.0]


@pytest.mark.parametrize("content", [b"", b"\0\0\0", b"{", b"[]", b'{"pid": "x"}'])
def test_a_file_that_says_nothing_is_read_as_nothing(home: SiteHome, content: bytes) -> None:
    home.doing.write_bytes(content)
    assert read_doing(home.doing) is None


def test_the_end_of_each_epoch_leaves_the_worker_however_soon_it_comes() -> None:
    class Lines(list[str]):
        def write(self, text: str) -> None:
            self.append(text)

        def flush(self) -> None:
            pass

    written = Lines()
    said = Answers(written, clock_s=lambda: 100.0)  # type: ignore[arg-type]
    said.begin("training")
    for done in range(1, 7):
        said.progress(WorkProgress("training", done, 9, "steps", 1.0, epoch=done // 2 if done % 2 == 0 else 0))
    assert len(written) == 1 + 3  # the first step, and three epochs


def test_nothing_is_left_running_when_an_agent_has_ended(home: SiteHome) -> None:
    Notes(home, lambda _event: None).end("stopped")
    assert "notes" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.long
def test_on_a_full_disk_the_page_still_hears_what_the_agent_does(tmp_path: Path) -> None:
    try:
        with small_disk(tmp_path / "disk", 1 << 20) as disk:
            file = disk / "doing.json"
            write_doing(file, replace(START, rest="a long reason that is longer than the next one"))
            fill(disk)
            write_doing(file, replace(START, state="disk"))
            doing = read_doing(file)
    except MayNotMountError as error:
        pytest.skip(str(error))
    assert doing is not None
    assert (doing.state, doing.rest) == ("disk", "")
