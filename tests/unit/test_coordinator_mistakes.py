"""What people get wrong at the coordinator: each mistake is answered in three lines, and changes nothing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import json
import os
import pkgutil
import shlex
import sqlite3
import subprocess
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import coordinator.commands
from coordinator.cli import cli
from coordinator.home.home import Home
from coordinator.home.registry import Registry
from coordinator.run import history, results
from fedcervix.core.events import RUN_OF_COORDINATOR, Event, RunAborted, SiteAttached
from fedcervix.core.numerics import NUMERICS
from fedcervix.disk import locks
from fedcervix.disk.journal import Journal
from fedcervix.errors import FedcervixError
from fedcervix.models.blobs import BlobStore
from tests.unit.coordinator_homes import let_in, made, no_room

NOBODY = 65_534
root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


def call(*words: object, home: Home | None = None) -> Result:
    """Give a command; a bug would be an exception that is none of ours."""
    at = ["--home", str(home.folder)] if home else []
    return CliRunner().invoke(cli, [*at, *map(str, words)])


def refused(*words: object, home: Home | None = None) -> FedcervixError:
    """Give a command that is refused; return the error with its three lines."""
    error = call(*words, home=home).exception
    assert isinstance(error, FedcervixError), f"{words}: {error!r}"
    assert error.what, words
    assert error.cause, words
    assert error.next_step, words
    return error


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Return every file below a folder with its content."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.chdir(tmp_path)
    return made(tmp_path / "home")


def begun(home: Home, mode: str = "csfssl") -> str:
    """Begin a run; return its name."""
    assert call("begin", "--mode", mode, "--new", home=home).exit_code == 0
    with_journal = Journal(home.journal)
    name = with_journal.runs()[-1].run
    with_journal.close()
    return name


COMMANDS = [
    ("invite", "nhs"),
    ("begin", "--mode", "csfssl"),
    ("start",),
    ("start", "--mode", "csfssl"),
    ("runs",),
    ("status",),
    ("status", "--json"),
    ("status", "--watch"),
    ("status", "20300101-000000-csfssl-00000000"),
    ("revoke", "nhs"),
    ("abort",),
    ("stop",),
    ("export", "20300101-000000-csfssl-00000000", "out"),
]
HOMES = {
    "no folder": (),
    "an empty folder": (".",),
    "a site's home": ("site.toml",),
    "half a home": ("keys/authority.key",),
    "a file": None,
}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("kind", HOMES)
def test_every_command_says_what_a_folder_is_that_is_no_home(tmp_path: Path, kind: str, words: tuple[str, ...]) -> None:
    folder, content = tmp_path / "home", HOMES[kind]
    if content is None:
        folder.touch()
    for name in content or ():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).mkdir(exist_ok=True) if name == "." else (folder / name).touch()
    before = snapshot(tmp_path)
    error = refused(*words, home=Home(folder))
    assert error.exit_code == 3
    assert str(folder) in error.what
    assert snapshot(tmp_path) == before


@root
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_wrong_user_is_told_who_owns_the_home(home: Home, words: tuple[str, ...]) -> None:
    begun(home)
    let_in(home.folder.parent)
    os.seteuid(NOBODY)
    try:
        error = refused(*words, home=home)
    finally:
        os.seteuid(0)
    assert error.exit_code in (3, 8)
    assert error.cause == f"{home.folder} belongs to user root; this command runs as user nobody"


@root
@pytest.mark.parametrize("words", [("status",), ("abort",), ("stop",), ("revoke", "nhs"), ("start",)], ids=" ".join)
def test_status_never_says_not_running_because_it_may_not_look(home: Home, words: tuple[str, ...]) -> None:
    """The folder can be entered, its files cannot be read."""
    begun(home)
    let_in(home.folder)
    with home.locked():
        os.seteuid(NOBODY)
        try:
            error = refused(*words, home=home)
        finally:
            os.seteuid(0)
    assert "belongs to user root; this command runs as user nobody" in error.cause
    assert "not running" not in error.explain()


@pytest.mark.parametrize("words", [("invite", "nhs"), ("begin", "--mode", "csfssl"), ("start", "--mode", "csfssl")])
def test_a_full_disk_is_named_and_nothing_is_half_done(home: Home, words: tuple[str, ...]) -> None:
    Registry(home.registry)
    with no_room():
        error = call(*words, home=home).exception
    assert isinstance(error, FedcervixError), repr(error)
    assert error.exit_code == 8
    assert not list(home.folder.parent.glob("*.invitation.toml*"))
    assert Registry(home.registry).sites() == []
    assert call("runs", home=home).exit_code == 0


def test_a_full_disk_at_init_leaves_no_home(tmp_path: Path) -> None:
    with no_room():
        error = call("init", tmp_path / "home").exception
    assert isinstance(error, FedcervixError), repr(error)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks.fcntl, "flock", none)
    for words in (("start", "--mode", "csfssl"), ("begin", "--mode", "csfssl")):
        assert "does not support locks" in refused(*words, home=home).what


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("status",), ("export",)])
def test_a_wrong_name_of_a_run_names_the_near_one(home: Home, words: tuple[str, ...]) -> None:
    name = begun(home)
    for wrong in (name[:-1], name.replace("csfssl", "cfssl"), name[:8]):
        error = refused(*words, wrong, home=home)
        assert f"did you mean {name}?" in error.what
        assert error.next_step == home.command("runs")


@pytest.mark.parametrize("words", [("begin", "--mode", "csfssl"), ("invite", "nhs"), ("start", "--mode", "csfssl")])
def test_a_missing_authority_key_is_restored_and_no_new_federation_made(words: tuple[str, ...], home: Home) -> None:
    home.key_file("authority.key").unlink()
    error = refused(*words, home=home)
    assert error.what.startswith(f"{home.key_file('authority.key')} is missing")
    assert "from your backup; do not run `init` again" in error.next_step


def test_an_unknown_site_is_named(home: Home) -> None:
    assert "is not in the roster: nhs, alts" in refused("invite", "nsh", home=home).what
    assert refused("revoke", "nsh", home=home).cause == "no site has been invited yet; the roster is nhs, alts"
    assert call("invite", "nhs", home=home).exit_code == 0
    error = refused("revoke", "nsh", home=home)
    assert "nhs" in error.cause + error.next_step


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("begin",), "--mode"),
        (("init", "another"), "two folders are named"),
        (("begin", "--mode", "fedavg"), "csfssl"),
        (("invite",), "SITE"),
        (("status", "a", "b"), "unexpected"),
        (("stats",), "No such command"),
        (("start", "--port", "1"), "No such option"),
    ],
)
def test_a_wrong_command_line_is_click_s(home: Home, words: tuple[str, ...], said: str) -> None:
    done = call(*words, home=home)
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize("bind", ["::1:8443", "8443", "https://x:8443"])
def test_a_wrong_address_to_listen_on_is_refused(home: Home, bind: str) -> None:
    assert "--bind must be HOST:PORT" in refused("start", "--mode", "csfssl", "--bind", bind, home=home).what
    assert "no run has begun" in call("runs", home=home).output


def test_an_address_that_is_not_this_machine_s_begins_no_run(home: Home) -> None:
    error = refused("start", "--mode", "csfssl", "--bind", "192.0.2.7:8443", home=home)
    assert "cannot listen on 192.0.2.7:8443" in error.what
    assert "not this machine's" in error.cause
    assert "no run has begun" in call("runs", home=home).output


def test_a_configuration_with_a_byte_order_mark_is_read(home: Home) -> None:
    home.config_file.write_bytes(b"\xef\xbb\xbf" + home.config_file.read_bytes().replace(b"\n", b"\r\n"))
    assert begun(home)


# --- runs -----------------------------------------------------------------------------------------------------------


def test_begin_makes_a_run_without_listening_and_start_would_go_on_with_it(home: Home) -> None:
    name = begun(home, "ppfssl")
    assert "unfinished" in call("runs", home=home).output
    [entry] = json.loads(call("runs", "--json", home=home).output)
    assert (entry["run"], entry["mode"], entry["outcome"], entry["model"]) == (name, "ppfssl", "unfinished", False)
    with_journal = Journal(home.journal)
    last = history.unfinished(home, with_journal)
    with_journal.close()
    assert last is not None
    assert last.run == name


def test_a_second_begin_does_not_abandon_the_first_run_unasked(home: Home) -> None:
    name = begun(home)
    error = refused("begin", "--mode", "ppfssl", home=home)
    assert f"run {name} is unfinished" in error.what
    assert len(json.loads(call("runs", "--json", home=home).output)) == 1


def happened(home: Home, *events: Event) -> str:
    """Let something happen in the last run, of which this returns the name."""
    with contextlib.closing(Journal(home.journal)) as journal:
        run = journal.runs()[-1].run
        for event in events:
            journal.append(run, event)
    return run


@pytest.mark.parametrize("words", [("start",), ("start", "--mode", "csfssl"), ("begin", "--mode", "csfssl")])
def test_a_run_of_a_version_that_computes_otherwise_is_not_gone_on_with(home: Home, words: tuple[str, ...]) -> None:
    """Before: sites were refused at Attach, but the coordinator averaged what it had in its own numbers."""
    begun(home)
    run = happened(home, SiteAttached("nhs", 1.0, "0.9.0", NUMERICS + 1))
    before = snapshot(home.folder)
    error = refused(*words, home=home)
    left = {path: content for path, content in snapshot(home.folder).items() if not path.endswith(("-shm", "-wal"))}
    assert f"run {run} was begun with numerics {NUMERICS + 1}" in error.what
    assert f"computes with numerics {NUMERICS}" in error.what
    assert "install the earlier version here again" in error.next_step
    assert left == before, "that version goes on"
    program, *command = shlex.split(error.next_step.rpartition(": ")[2])
    assert (program, call(*command).exception) == ("coordinator", None)
    begun(home, "ppfssl")


def test_a_run_of_other_numerics_is_given_up_or_if_it_has_ended_stored(home: Home) -> None:
    begun(home)
    happened(home, SiteAttached("nhs", 1.0, "0.9.0", NUMERICS + 1))
    begun(home, "ppfssl")
    happened(home, SiteAttached("nhs", 1.0, "0.9.0", NUMERICS + 1), RunAborted("enough", 2.0))
    history.check_numerics(home)


def test_a_run_that_is_abandoned_has_an_outcome_and_a_record(home: Home) -> None:
    first, second = begun(home), begun(home, "ppfssl")
    one, other = json.loads(call("runs", "--json", home=home).output)
    assert (one["run"], one["outcome"], other["run"], other["outcome"]) == (first, "ABORTED", second, "unfinished")
    assert "abandoned by the operator" in one["reason"]
    assert "ABORTED" in call("status", first, home=home).output
    assert "the coordinator is not running" not in call("status", first, home=home).output


def test_two_runs_of_one_plan_within_one_second_have_two_names(home: Home) -> None:
    plan = home.plan("csfssl")
    first = history.new_record(plan, "", 1_780_000_000.2)
    second = history.new_record(plan, "", 1_780_000_000.7, taken={first.run})
    third = history.new_record(plan, "", 1_780_000_000.9, taken={first.run, second.run})
    assert len({first.run, second.run, third.run}) == 3
    assert all(RUN_OF_COORDINATOR.fullmatch(one.run) for one in (first, second, third))
    assert third.begun_at == 1_780_000_000.9
    assert len({begun(home) for _ in range(3)}) == 3


def test_abort_ends_a_run_also_while_no_coordinator_runs(home: Home) -> None:
    name = begun(home)
    assert call("abort", "--reason", "wrong roster", home=home).exit_code == 0
    assert "wrong roster" in call("status", name, home=home).output
    assert "no unfinished run" in refused("abort", home=home).what


def test_an_exported_run_without_a_model_says_so_and_names_only_what_it_wrote(home: Home) -> None:
    name = begun(home)
    call("abort", home=home)
    done = call("export", name, "out", home=home)
    assert done.exit_code == 0
    assert results.MODEL_FILE not in done.output
    assert f"wrote out/{results.RECORD_FILE}" in done.output
    assert "has no model" in done.output
    assert [path.name for path in Path("out").iterdir()] == [results.RECORD_FILE]


def test_an_export_overwrites_no_other_file(home: Home) -> None:
    name = begun(home)
    assert "is not finished" in refused("export", name, "out", home=home).what
    call("abort", home=home)
    assert call("export", name, home=home).exit_code == 0  # to a folder of the run's name
    assert call("export", name, home=home).exit_code == 0  # the same again
    (Path(name) / results.RECORD_FILE).write_text("mine")
    error = refused("export", name, home=home)
    assert "is a different file: nothing was written" in error.what
    assert (Path(name) / results.RECORD_FILE).read_text() == "mine"


def test_a_model_that_was_stored_is_exported(home: Home) -> None:
    name = begun(home)
    call("abort", home=home)
    record = home.results / name / results.RECORD_FILE
    known = json.loads(record.read_text()) | {"model": hashlib.sha256(b"model").hexdigest()}
    record.write_text(json.dumps(known))
    results.model_of(home.results, name).write_bytes(b"model")
    assert "cervix-model.safetensors and" in call("export", name, "out", home=home).output
    assert (Path("out") / results.MODEL_FILE).read_bytes() == b"model"
    results.model_of(home.results, name).write_bytes(b"other")
    assert "its digest is not that of the record" in refused("export", name, "elsewhere", home=home).what


def test_a_damaged_record_is_named(home: Home) -> None:
    name = begun(home)
    call("abort", home=home)
    (home.results / name / results.RECORD_FILE).write_text("{")
    assert "is damaged" in refused("export", name, home=home).what


def test_what_cannot_be_asked_says_what_to_ask_instead(home: Home) -> None:
    assert "no run has begun here yet" in refused("status", home=home).what
    assert "no unfinished run" in refused("start", home=home).what
    assert "no coordinator is running" in refused("stop", home=home).what
    assert "no run has begun" in call("export", home=home).output


# --- invitations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["mine.toml", "/dev/full", "home/coordinator.toml"])
def test_an_invitation_overwrites_no_other_file(home: Home, out: str) -> None:
    Path("mine.toml").write_text("mine = 1")
    before = snapshot(home.folder.parent)
    assert "is not an invitation of nhs: nothing was written" in refused("invite", "nhs", "--out", out, home=home).what
    assert snapshot(home.folder.parent) == before


def test_a_second_invitation_says_that_the_first_one_stops_working(home: Home) -> None:
    assert "no longer works" not in call("invite", "nhs", home=home).output
    assert "note: the earlier invitation of nhs no longer works" in call("invite", "nhs", home=home).output


def test_an_invitation_does_not_overwrite_that_of_another_site(home: Home) -> None:
    assert call("invite", "alts", home=home).exit_code == 0
    before = snapshot(home.folder.parent)
    error = refused("invite", "nhs", "--out", "alts.invitation.toml", home=home)
    assert "is not an invitation of nhs: nothing was written" in error.what
    assert snapshot(home.folder.parent) == before


def test_an_invitation_is_its_owners_alone_whatever_lay_there(home: Home) -> None:
    assert call("invite", "nhs", home=home).exit_code == 0
    Path("nhs.invitation.toml").chmod(0o644)
    assert call("invite", "nhs", home=home).exit_code == 0
    Path("folder").mkdir()
    assert call("invite", "nhs", "--out", "folder", home=home).exit_code == 0
    for file in (Path("nhs.invitation.toml"), Path("folder/nhs.invitation.toml")):
        assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o777, 0o707, 0o773])
@pytest.mark.parametrize("above", ["", "inner"])
def test_no_invitation_is_laid_where_others_could_replace_it(home: Home, mode: int, above: str) -> None:
    folder = Path("shared").absolute()
    (folder / above).mkdir(parents=True)
    folder.chmod(mode)
    error = refused("invite", "nhs", "--out", str(folder / above), home=home)
    assert (error.exit_code, str(folder) in error.what) == (8, True)
    assert "every user of this machine can write" in error.what
    assert not [*folder.rglob("*.toml")]
    assert not home.registry.exists()
    subprocess.run(error.next_step.partition(", or ")[0], shell=True, check=True)
    assert call("invite", "nhs", "--out", str(folder / above), home=home).exit_code == 0


def test_an_invitation_may_lie_in_a_folder_where_nobody_replaces_the_file_of_another(home: Home) -> None:
    """As in /tmp: the file is 0600, and the sticky bit keeps others from renaming it."""
    Path("sticky").mkdir()
    Path("sticky").chmod(0o1777)
    assert call("invite", "nhs", "--out", "sticky", home=home).exit_code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make the folder of another user")
def test_no_invitation_is_laid_into_the_folder_of_another_user(home: Home) -> None:
    """In /tmp somebody may have made a folder of the name that was given."""
    Path("theirs").mkdir()
    os.chown("theirs", 65_534, 65_534)
    assert "who owns the folder, can write" in refused("invite", "nhs", "--out", "theirs", home=home).what
    os.chown("theirs", 0, 65_534)
    Path("theirs").chmod(0o775)
    assert "group nogroup can write" in refused("invite", "nhs", "--out", "theirs", home=home).what


def test_an_invitation_into_a_folder_that_is_missing_changes_nothing(home: Home) -> None:
    assert refused("invite", "nhs", "--out", "nowhere/x.toml", home=home).exit_code == 8
    assert not home.registry.exists()


# --- while a coordinator runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("begin", "--mode", "csfssl"), ("start",), ("init", "home")], ids=" ".join)
def test_a_home_that_is_held_is_left_alone(home: Home, words: tuple[str, ...]) -> None:
    begun(home)
    with home.locked():
        error = refused(*words, home=home)
    assert error.exit_code == 11
    assert "already" in error.what


def test_a_coordinator_that_is_only_starting_is_not_said_to_be_away(home: Home) -> None:
    begun(home)
    with home.locked():
        assert "the coordinator is starting" in call("status", home=home).output


def test_what_a_killed_coordinator_left_is_not_taken_for_the_one_that_starts(home: Home) -> None:
    home.running.write_text(json.dumps({"pid": 1, "port": 1, "address": "localhost:1"}))
    with home.locked():
        assert home.is_running()
        assert home.read_running() is None


def test_an_ended_run_whose_record_was_lost_is_stored_again(home: Home) -> None:
    name = begun(home)
    journal = Journal(home.journal)
    journal.append(name, RunAborted("by hand", time.time()))
    history.abandon(home, journal, BlobStore(home.blobs), journal.runs()[-1], time.time())
    journal.close()
    assert results.read(home.results, name).reason == "by hand"


@pytest.mark.parametrize("begun_at", [1e300, -1e300, -5.0, float("inf"), float("-inf")])
def test_a_run_whose_time_is_none_is_listed_and_shown(home: Home, begun_at: float) -> None:
    """Before: a traceback. SQLite holds no NaN: it would be NULL, which the column refuses."""
    name = begun(home)
    with contextlib.closing(sqlite3.connect(home.journal)) as db, db:
        db.execute("UPDATE runs SET begun_at = ?", (begun_at,))
    assert "│ ? " in call("runs", home=home).output
    assert "gathering for ?;" in call("status", home=home).output
    [listed] = json.loads(call("runs", "--json", home=home).output)
    shown = json.loads(call("status", "--json", home=home).output)
    assert (listed["run"], listed["begun_at"], shown["run"], shown["since"]) == (name, 0, name, 0)


def test_a_run_whose_record_or_journal_is_damaged_is_listed_as_such(home: Home) -> None:
    name = begun(home)
    file = home.results / name / results.RECORD_FILE
    file.parent.mkdir(parents=True)
    file.write_text('{"ledger": 7}')
    [listed] = json.loads(call("runs", "--json", home=home).output)
    assert (listed["run"], listed["outcome"]) == (name, "unreadable")
    assert "record.json is damaged" in listed["reason"]
    assert "rm " in listed["reason"]
    file.unlink()
    with contextlib.closing(sqlite3.connect(home.journal)) as db, db:
        event = '{"event": "Tick", "at": 1e300}'
        db.execute("INSERT INTO events (run, event) VALUES (?, ?)", (name, event))
    [listed] = json.loads(call("runs", "--json", home=home).output)
    assert listed["outcome"] == "unreadable"
    assert "cannot read: at must be 0 to 1e+11; found 1e+300" in listed["reason"]
    assert "unreadable" in call("runs", home=home).output


def test_each_command_of_the_program_is_worked_by_a_function_of_its_name() -> None:
    names = [found.name for found in pkgutil.iter_modules(coordinator.commands.__path__)]
    modules = [importlib.import_module(f"coordinator.commands.{name}") for name in names]
    single = [name for name, command in cli.commands.items() if not isinstance(command, click.Group)]
    assert [name for name in single if not any(callable(getattr(one, name, None)) for one in modules)] == []
