"""Messages are delivered at least once, within bounds, and nobody waits for a receiver."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.home.home import Home
from coordinator.notify import notices
from coordinator.notify.happenings import Happenings
from coordinator.notify.undelivered import late_words
from coordinator.run.engine import Engine
from coordinator.run.history import begin_of
from fedcervix.core.events import RunAborted, SiteAttached, SiteFailed, SiteRefused, SiteSilent
from fedcervix.core.rounds.state import Missing, Round, Run
from fedcervix.core.rounds.step import step
from fedcervix.disk.journal import Journal, RunRecord
from fedcervix.errors import LinkError, RemoteError
from fedcervix.models.blobs import BlobStore
from fedcervix.notify.courier import Courier
from fedcervix.notify.line import translated
from fedcervix.notify.notice import Notice
from fedcervix.notify.outbox import ALIKE_PER_HOUR, WAITING_MAX, Outbox, Place, late_messages, load, store
from fedcervix.notify.settings import KINDS
from tests.unit.coordinator_homes import made
from tests.unit.test_notify_webhook import notice

pytestmark = pytest.mark.timeout(60)


class Told:
    """A receiver that takes messages, or raises what it is told to."""

    name, host = "webhook", "here"

    def __init__(self) -> None:
        self.got: list[Notice] = []
        self.raises: dict[str, Exception] = {}
        self.tries = 0

    def send(self, one: Notice) -> str:
        self.tries += 1
        if error := self.raises.get(one.id) or self.raises.get(""):
            raise error
        self.got.append(one)
        return "taken"


class Listed:
    """A source: a list of messages; a place is how many were read."""

    def __init__(self, *items: Notice) -> None:
        self.items = [*items]

    def news(self, place: Place, _now_s: float) -> tuple[tuple[Notice, ...], Place]:
        at = max(place.seq, 0)
        return tuple(self.items[at:]), replace(place, seq=len(self.items))


class World:
    """A courier whose time stands still unless it is moved."""

    def __init__(self, file: Path, source: object, give_up_s: float = 3600.0) -> None:
        self.file, self.source, self.give_up_s, self.now_s, self.told = file, source, give_up_s, 1e9, Told()
        self.restart()

    def restart(self) -> None:
        options = {"clock_s": lambda: self.now_s, "steady_s": lambda: self.now_s}
        self.courier = Courier(self.told, self.source, self.file, give_up_s=self.give_up_s, **options)  # type: ignore[arg-type]
        assert self.courier._load()

    def ids(self) -> list[str]:
        return [one.id for one in self.told.got]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "notify-webhook.json"


def numbered(count: int, **other: object) -> list[Notice]:
    return [notice(id=f"run.{number}.silent", site=f"s{number}", **other) for number in range(count)]


def test_what_happened_is_told_once_also_after_a_restart(file: Path) -> None:
    world = World(file, Listed(*numbered(3)))
    world.courier.step()
    world.restart()
    world.courier.step()
    assert world.ids() == ["run.0.silent", "run.1.silent", "run.2.silent"]


def test_a_process_that_is_killed_before_it_noted_the_delivery_tells_it_again_by_the_same_id(file: Path) -> None:
    world = World(file, Listed(*numbered(1)))
    world.told.raises[""] = LinkError("away")
    world.courier.step()
    before = file.read_bytes()
    world.told.raises.clear()
    world.now_s += 1
    world.courier.step()
    file.write_bytes(before)
    world.restart()
    world.courier.step()
    assert world.ids() == ["run.0.silent", "run.0.silent"]
    assert world.told.got[0] == world.told.got[1]


def test_a_receiver_that_is_away_is_tried_at_growing_pauses_with_one_message(file: Path) -> None:
    world = World(file, Listed(*numbered(5)), give_up_s=1e9)
    world.told.raises[""] = LinkError("away")
    for _ in range(3600):
        world.courier.step()
        world.now_s += 2
    assert 10 <= world.told.tries <= 30
    world.told.raises.clear()
    world.now_s += 900
    world.courier.step()
    assert world.ids() == [f"run.{number}.silent" for number in range(5)]


def test_a_message_that_is_refused_does_not_hold_up_the_next(file: Path) -> None:
    world = World(file, Listed(*numbered(3)))
    world.told.raises["run.0.silent"] = RemoteError("no")
    world.courier.step()
    assert world.ids() == ["run.1.silent", "run.2.silent"]
    assert world.courier.waiting == 1


def test_an_error_that_nobody_has_thought_of_ends_no_thread_and_tells_no_secret(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(file, Listed(*numbered(2)))
    world.told.raises["run.0.silent"] = ValueError("password hunter2")
    world.courier.step()
    assert world.ids() == ["run.1.silent"], "the next message goes on"
    world.source.items.clear()  # type: ignore[attr-defined]
    world.courier._source = None  # type: ignore[assignment]
    world.now_s += 900
    world.courier.step()
    said = capsys.readouterr()
    assert "ValueError" in said.out + said.err
    assert "AttributeError" in said.out + said.err
    assert "hunter2" not in said.out + said.err


def test_messages_that_wait_for_long_are_seen(file: Path) -> None:
    world = World(file, Listed(*numbered(2, at=1e9 - 60)))
    world.told.raises[""] = LinkError("away")
    world.courier.step()
    found = late_messages(file.parent, "webhook")
    assert (found.waiting, found.since) == (2, 1e9 - 60)
    assert late_words((found,), 1e9) == []
    assert late_words((found,), 1e9 + 700) == [
        "2 messages are not delivered by webhook, the oldest since 2001-09-09 01:45 UTC"
    ]
    world.told.raises.clear()
    world.now_s += 900
    world.courier.step()
    assert late_words((late_messages(file.parent, "webhook"),), 1e9 + 900) == []


def test_a_message_is_given_up_after_its_time_and_counted_from_when_it_happened(file: Path) -> None:
    world = World(file, Listed(*numbered(2, at=1e9 - 3000)), give_up_s=3600.0)
    world.told.raises[""] = LinkError("away")
    world.courier.step()
    assert world.courier.waiting == 2
    world.now_s += 700
    world.courier.step()
    assert world.courier.waiting == 0
    assert world.told.tries == 1


def test_what_waits_has_a_bound_and_the_rest_is_counted(file: Path) -> None:
    source = Listed(*numbered(WAITING_MAX + 10))
    world = World(file, source)
    world.told.raises[""] = LinkError("away")
    world.courier.step()
    assert world.courier.waiting == WAITING_MAX
    world.told.raises.clear()
    world.now_s += 900
    world.courier.step()
    source.items.append(notice(id="run.999.silent", site="last"))
    world.courier.step()
    assert "(10 messages before this one were left out" in world.told.got[-1].text
    assert file.stat().st_size < 200_000


def test_a_site_that_comes_and_goes_fills_nobodys_mailbox(file: Path) -> None:
    source = Listed(*(notice(id=f"run.{number}.silent") for number in range(100)))
    world = World(file, source)
    world.courier.step()
    assert len(world.told.got) == ALIKE_PER_HOUR
    source.items.append(notice(id="run.100.failed", kind="failed"))
    world.courier.step()
    assert world.ids()[-1] == "run.100.failed"
    world.now_s += 3601
    source.items.append(notice(id="run.101.silent", at=world.now_s))
    world.courier.step()
    assert world.ids()[-1] == "run.101.silent"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 99}', b'{"waiting": [{"id": "A B"}]}', b"\xff" * 9])
def test_a_damaged_file_is_begun_anew(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    assert load(file) == Outbox()


def test_a_file_gives_back_what_was_written(file: Path) -> None:
    box = Outbox().with_news(numbered(3), Place(7, "run", ("a",), "t"), 1e9)
    store(file, box)
    assert load(file) == box


def test_a_full_disk_does_not_stop_a_message(tmp_path: Path) -> None:
    world = World(tmp_path / "away" / "notify-webhook.json", Listed(*numbered(1)))
    world.courier.step()
    assert world.ids() == ["run.0.silent"]


# --- what the coordinator tells ---


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return made(tmp_path / "home")


class Federation:
    """A journal that is written, and the run as the engine would show it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.journal = Journal(home.journal)
        self.record = RunRecord("run", home.plan("csfssl"), "a" * 64, 1e9)
        self.journal.begin(self.record)
        self.run: Run = begin_of(self.record)
        self.trouble = ""

    def submit(self, event: object) -> None:
        self.journal.append("run", event)  # type: ignore[arg-type]
        self.run, _ = step(self.run, event)  # type: ignore[arg-type]

    def source(self, kinds: tuple[str, ...] = KINDS) -> Happenings:
        return Happenings(self.home, kinds, 1e9, lambda: self.run, lambda: self.trouble)  # type: ignore[arg-type]


@contextmanager
def federation(home: Home) -> Iterator[Federation]:
    found = Federation(home)
    with closing(found.journal):
        yield found


def test_each_kind_is_told_with_what_to_do_and_in_order(home: Home) -> None:
    with federation(home) as fed:
        source = fed.source()
        [began], place = source.news(Place(), 1e9)
        assert began.id == "run.0.began"
        fed.submit(SiteAttached("nhs", 1e9))
        fed.submit(SiteSilent("nhs", 1e9, "its engineer stopped it"))
        fed.submit(SiteRefused("alts", "the plan is /too/large <b>", 1e9))
        fed.submit(SiteFailed("nhs", "training", "out of memory", "20261130-ab12", 1e9))
        fed.trouble = f"cannot write {home.folder}/journal.db: no space\n  next: df"
        found, place = source.news(place, 1e9)
        fed.submit(RunAborted("enough", 1e9))
        last, place = source.news(place, 1e9)
    assert [one.id for one in found[:3]] == ["run.2.silent", "run.3.refused", "run.4.failed"]
    assert re.fullmatch(r"run\.4\.[0-9a-f]{8}\.trouble", found[3].id)
    assert [one.id for one in last] == ["run.5.ended"]
    assert last[0].title == "run run has ended: ABORTED"
    silent, refused, failed, trouble = (one.text for one in found)
    assert '"its engineer stopped it"' in silent
    assert '"the plan is (...)"' in refused
    assert "20261130-ab12" in failed
    assert trouble == "The coordinator says: cannot write (...) no space"
    for one in (began, *found, *last):
        assert str(home.folder) not in one.words
        assert one.next_step
    assert source.news(place, 1e9)[0] == ()


def test_an_alarm_is_told_when_its_round_has_ended_and_not_again_while_it_lasts(home: Home) -> None:
    def round_(number: int, *unusual: str) -> Round:
        missing = tuple(Missing(site, "its update spoils the model", suspected=True) for site in unusual)
        return Round(number, base="", begun_at=1e9, missing=missing, ended_at=1e9 + number)

    with federation(home) as fed:
        source = fed.source(("alarm",))
        fed.run = replace(fed.run, rounds=(round_(1, "alts"), round_(2)))
        found, place = source.news(Place(), 1e9)
        assert found == (), "it began before anybody was told"
        told = []
        for rounds in ((3, "nhs"), (4, "nhs"), (5, "nhs", "alts"), (6,)):
            fed.run = replace(fed.run, rounds=(*fed.run.rounds, round_(*rounds)))
            found, place = source.news(place, 1e9)
            told.append([(one.id, one.site, one.title) for one in found])
            assert source.news(place, 1e9)[0] == (), "once"
    assert told == [
        [],
        [("run.3.alarm", "nhs", "something is unusual about site nhs")],
        [],
        [("run.5.alarm", "alts", "something is unusual about site alts")],
    ]


def test_a_restart_between_two_looks_tells_the_same_ids(home: Home) -> None:
    with federation(home) as fed:
        _, place = fed.source().news(Place(), 1e9)
        fed.submit(SiteAttached("nhs", 1e9))
        fed.submit(SiteSilent("nhs", 1e9))
        once, _ = fed.source().news(place, 1e9)
        again, place = fed.source().news(place, 1e9 + 60)
        assert [one.id for one in once] == [one.id for one in again] == ["run.2.silent"]
        fed.submit(RunAborted("enough", 1e9))
        [end], place = fed.source().news(place, 1e9)
        assert (end.id, fed.source().news(place, 1e9)[0]) == ("run.3.ended", ())


def test_the_first_start_tells_nothing_of_what_was(home: Home) -> None:
    with federation(home) as fed:
        for _ in range(5):
            fed.submit(SiteAttached("nhs", 1e9))
            fed.submit(SiteSilent("nhs", 1e9))
        found, place = fed.source().news(Place(), 1e9)
    assert [one.kind for one in found] == ["began"]
    assert place.seq == 10


def test_a_run_that_had_ended_before_the_first_look_is_no_news(home: Home) -> None:
    with federation(home) as fed:
        fed.submit(RunAborted("enough", 1e9))
        found, place = fed.source().news(Place(), 1e9)
        assert (found, fed.source().news(place, 1e9)[0]) == ((), ())


def test_the_end_is_told_also_where_it_is_journaled_while_the_courier_looks(home: Home) -> None:
    """The state is read before the journal: what ends the run may be in the rows, and not yet in the state."""
    with federation(home) as fed:
        _, place = fed.source().news(Place(), 1e9)
        before = fed.run
        fed.submit(RunAborted("enough", 1e9))
        after, fed.run = fed.run, before
        found, place = fed.source().news(place, 1e9)
        fed.run = after
        later, _ = fed.source().news(place, 1e9)
    assert [one.id for one in (*found, *later)] == ["run.1.ended"]


def test_only_what_was_chosen_is_told(home: Home) -> None:
    with federation(home) as fed:
        _, place = fed.source(("failed",)).news(Place(), 1e9)
        fed.submit(SiteAttached("nhs", 1e9))
        fed.submit(SiteSilent("nhs", 1e9))
        fed.submit(SiteFailed("nhs", "training", "", "x-1", 1e9))
        found, _ = fed.source(("failed",)).news(place, 1e9)
    assert [one.kind for one in found] == ["failed"]


def test_trouble_is_told_when_it_begins_and_when_it_comes_back_and_not_at_each_number(home: Home) -> None:
    with federation(home) as fed:
        source = fed.source(("trouble",))
        _, place = source.news(Place(), 1e9)
        told = []
        for words in ("", "3 of 16 MiB are left", "2 of 16 MiB are left", "", "1 of 16 MiB are left", "another"):
            fed.trouble = words
            found, place = source.news(place, 1e9)
            told.append(len(found))
    assert told == [0, 1, 0, 0, 1, 1]


def test_two_troubles_at_one_number_have_two_ids(home: Home) -> None:
    with federation(home) as fed:
        source = fed.source(("trouble",))
        fed.trouble = "the disk is full"
        [one], place = source.news(Place(), 1e9)
        fed.trouble = "the disk has failed"
        [two], _ = source.news(place, 1e9)
    assert one.id != two.id


def test_what_is_told_is_read_without_the_engines_lock(home: Home) -> None:
    with federation(home) as fed:
        engine = Engine(fed.journal, BlobStore(home.blobs), fed.record)
        source = Happenings(home, KINDS, 1e9, lambda: engine.run, lambda: engine.trouble)
        found: list[object] = []
        with engine._state.changed:
            thread = threading.Thread(target=lambda: found.append(source.news(Place(), 1e9)), daemon=True)
            thread.start()
            thread.join(30)
            assert found, "it waits for the engine"


def test_a_name_server_that_refuses_the_name_is_a_line_error() -> None:
    with pytest.raises(LinkError, match="has no address"), translated("a..b"):
        "a..b".encode("idna")


def test_a_certificate_that_was_not_renewed_is_told_once(home: Home) -> None:
    with federation(home) as fed:
        later_s = 1e9 + 60 * 365 * 86400
        found, place = fed.source(("certificate",)).news(Place(), later_s)
        again, _ = fed.source(("certificate",)).news(place, later_s + 7200)
    assert found
    assert all("certificate" in one.text or "authority" in one.text for one in found)
    assert again == ()


def test_words_for_a_certificate_hold_no_path() -> None:
    assert "(...)" in notices.certificate("cervix", "ends soon (deploy/RUNBOOK.md, chapter 9)", 1e9).text


def test_a_receiver_that_never_answers_delays_nothing_of_the_run(home: Home) -> None:
    """Its courier hangs in `send`; the journal is written meanwhile, and the end waits no longer than it was told."""
    reached, released = threading.Event(), threading.Event()

    class Hanging(Told):
        def send(self, one: Notice) -> str:
            reached.set()
            assert released.wait(30)
            return super().send(one)

    with federation(home) as fed:
        courier = Courier(Hanging(), fed.source(), home.folder / "notify-webhook.json", give_up_s=1e9)
        courier.start()
        assert reached.wait(30)
        for _ in range(20):
            fed.submit(SiteAttached("nhs", 1e9))
            fed.submit(SiteSilent("nhs", 1e9))
        courier.end_within(0.2)
        courier.join()
        assert courier.waiting == 1
        released.set()
        courier._thread.join(30)
    assert load(home.folder / "notify-webhook.json").place.run == "run"
