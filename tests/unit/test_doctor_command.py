"""`site-agent doctor` and `coordinator doctor`, as they are typed."""

from __future__ import annotations

import json
import os
import socket
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import coordinator.cli
import site_agent.cli
from coordinator.home.founding import Founding
from coordinator.home.founding import create as create_coordinator
from coordinator.home.home import Home
from fedcervix.disk.journal import Journal
from fedcervix.errors import ConfigError, RunError, StorageError
from fedcervix.notify.outbox import Outbox, file_of, store
from fedcervix.notify.webhook import KEY_FILE, make_key
from site_agent import home as homes
from site_agent.home import SiteHome
from tests.unit.test_notify_webhook import notice

NOW = datetime.now(UTC)


@pytest.fixture
def site(tmp_path: Path) -> SiteHome:
    """Make a home of a site that has not joined yet."""
    home = SiteHome(tmp_path / "site")
    homes.create(home)
    return home


def at_site(home: SiteHome, *words: object) -> Result:
    return CliRunner().invoke(site_agent.cli.cli, ["--home", str(home.folder), *map(str, words)])


def states(done: Result) -> dict[str, str]:
    return {one["check"]: one["state"] for one in json.loads(done.stdout)["checks"]}


def test_the_first_fault_is_the_exit_code_and_json_is_json_alone(site: SiteHome) -> None:
    done = at_site(site, "doctor", "--json")
    document = json.loads(done.stdout)
    assert done.exit_code == document["exit_code"] == ConfigError.exit_code
    first = next(one for one in document["checks"] if one["state"] == "fault")
    assert first["check"] == "manifest"
    assert first["cause"]
    assert first["next_step"]
    found = states(done)
    assert (found["home folder"], found["certificate"], found["connection"]) == ("ok", "skipped", "skipped")


def test_the_name_of_the_first_version_still_works_and_says_the_new_one(site: SiteHome) -> None:
    old, new = at_site(site, "check"), at_site(site, "doctor")
    assert old.exit_code == new.exit_code
    assert "note: `check` is now called `doctor`" in old.stderr
    assert [line.split(":")[0] for line in old.stdout.splitlines()] == [
        line.split(":")[0] for line in new.stdout.splitlines()
    ]
    assert "correct the first fault, then: site-agent --home" in new.stderr


def test_a_folder_that_is_no_home_is_told_so_at_once(tmp_path: Path) -> None:
    done = at_site(SiteHome(tmp_path / "none"), "doctor")
    assert isinstance(done.exception, ConfigError)
    assert done.stdout == ""


def test_options_of_the_archive_need_an_archive(site: SiteHome) -> None:
    assert at_site(site, "doctor", "--log", "x.log").exit_code == 2
    assert at_site(site, "doctor", "--allow", "nhs").exit_code == 2


def test_an_archive_that_cannot_be_written_is_said_before_the_checks(site: SiteHome, tmp_path: Path) -> None:
    nowhere = at_site(site, "doctor", "--bundle", tmp_path / "none" / "a.zip")
    no_log = at_site(site, "doctor", "--bundle", tmp_path / "a.zip", "--log", tmp_path / "none.log")
    assert isinstance(nowhere.exception, RunError)
    assert isinstance(no_log.exception, StorageError)
    assert nowhere.stdout == no_log.stdout == "", "no check was made"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Make a coordinator's home."""
    made = Home(tmp_path / "coordinator")
    told = Founding(name="cervix", advertise="localhost:0", bind="127.0.0.1:0", sites=("nhs", "alts"), profile="demo")
    create_coordinator(made, told, NOW)
    return made


def at_coordinator(home: Home) -> tuple[int, dict[str, str]]:
    done = CliRunner().invoke(coordinator.cli.cli, ["--home", str(home.folder), "doctor", "--json"])
    return done.exit_code, states(done)


def test_a_new_coordinator_is_well_and_nothing_is_changed(home: Home) -> None:
    before = {file: file.read_bytes() for file in home.folder.rglob("*") if file.is_file()}
    code, found = at_coordinator(home)
    assert code == 0, found
    assert found["sites"] == found["port"] == found["journal"] == "ok"
    assert {file: file.read_bytes() for file in home.folder.rglob("*") if file.is_file()} == before


def test_a_damaged_journal_is_a_fault(home: Home) -> None:
    Journal(home.journal).close()
    assert at_coordinator(home)[1]["journal"] == "ok"
    content = bytearray(home.journal.read_bytes())
    content[100:4000] = os.urandom(3900)
    home.journal.write_bytes(content)
    code, found = at_coordinator(home)
    assert (code, found["journal"], found["clock"]) == (8, "fault", "skipped")


def test_a_port_that_is_taken_and_keys_that_others_read_are_seen(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        text = home.config_file.read_text()
        home.config_file.write_text(text.replace("127.0.0.1:0", f"127.0.0.1:{other.getsockname()[1]}"))
        home.key_file("authority.key").chmod(0o644)
        code, found = at_coordinator(home)
    assert (code, found["port"], found["address"], found["authority"]) == (11, "fault", "skipped", "warning")
    assert stat.S_IMODE(home.key_file("authority.key").stat().st_mode) == 0o644, "it only looks"


@pytest.mark.parametrize("name", ["webhook.key", "mail.login", "metrics.token", "ledger.key"])
def test_every_secret_that_others_read_is_seen(name: str, home: Home) -> None:
    home.key_file(name).touch(mode=0o600)
    assert at_coordinator(home)[1]["authority"] == "ok"
    home.key_file(name).chmod(0o640)
    assert at_coordinator(home)[1]["authority"] == "warning"


def test_notifications_that_cannot_arrive_are_seen(home: Home) -> None:
    assert at_coordinator(home)[1]["notifications"] == "ok", "off"
    text = home.config_file.read_text()
    assert text.count('# url = ""') == 1
    home.config_file.write_text(text.replace('# url = ""', 'url = "https://hooks.example.org/secret"'))
    code, found = at_coordinator(home)
    assert (code, found["notifications"]) == (ConfigError.exit_code, "fault"), "there is no key yet"
    make_key(home.key_file(KEY_FILE))
    assert at_coordinator(home)[1]["notifications"] == "ok"
    old = NOW.timestamp() - 3600
    store(file_of(home.folder, "webhook"), Outbox(waiting=(notice(at=old),)))
    assert at_coordinator(home) == (0, {**at_coordinator(home)[1], "notifications": "warning"})
    done = CliRunner().invoke(coordinator.cli.cli, ["--home", str(home.folder), "doctor"])
    assert "1 message is not delivered by webhook" in done.stdout
    assert "notify send" in done.stdout
    assert "secret" not in done.stdout


def test_a_clock_before_the_authority_was_made_is_a_fault(home: Home) -> None:
    from coordinator.doctor.coordinator_checks import doctor_of
    from fedcervix.doctor.findings import look_through
    from fedcervix.errors import IdentityError

    looking = doctor_of(home, NOW - timedelta(days=1), lambda: None)
    assert isinstance(dict(look_through(looking.checks(), set()))["authority"], IdentityError)
