"""Who may connect. Every test writes a real file; two Registry objects stand for two processes."""

from __future__ import annotations

import itertools
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from coordinator.home import registry as registry_module
from coordinator.home.registry import Issued, Registry, SiteEntry
from fedcervix.disk.databases import translated
from fedcervix.disk.reserve import PIECE_BYTES, RESERVE_BYTES, Reserve
from fedcervix.errors import FullDiskError, IdentityError, StorageError

NOW = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
WEEK, YEAR = timedelta(days=7), timedelta(days=365)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry.db")


def issuing(serial: str) -> Callable[[], Issued]:
    return lambda: (f"certificate {serial}".encode(), serial, NOW + YEAR)


def refusing() -> Issued:
    raise AssertionError("nothing may be issued here")


def join(registry: Registry, site: str, invitation: str, serial: str) -> None:
    registry.invite(site, invitation, NOW + WEEK, NOW)
    registry.redeem(invitation, f"key of {serial}", issuing(serial), NOW + HOUR)


# --- joining


def test_an_invited_site_joins_and_is_admitted(registry: Registry) -> None:
    registry.invite("north", "i1", NOW + WEEK, NOW)
    assert registry.redeem("i1", "key", issuing("c1"), NOW) == b"certificate c1"
    registry.roll().admit("c1", "north")


def test_an_unknown_invitation_is_refused(registry: Registry) -> None:
    with pytest.raises(IdentityError, match="does not know this invitation"):
        registry.redeem("i1", "key", refusing, NOW)


def test_an_invitation_works_once(registry: Registry) -> None:
    join(registry, "north", "i1", "c1")
    with pytest.raises(IdentityError, match="already used") as caught:
        registry.redeem("i1", "key of a thief", refusing, NOW + HOUR)
    assert "coordinator revoke north" in caught.value.cause


def test_the_same_key_asking_again_gets_the_same_certificate_again(registry: Registry) -> None:
    """The reply to the first request was lost, and the site asks again; even after the invitation's end."""
    registry.invite("north", "i1", NOW + WEEK, NOW)
    first = registry.redeem("i1", "key", issuing("c1"), NOW)
    assert registry.redeem("i1", "key", refusing, NOW + WEEK + HOUR) == first


def test_an_invitation_is_good_up_to_its_end(registry: Registry) -> None:
    registry.invite("north", "i1", NOW + WEEK, NOW)
    with pytest.raises(IdentityError, match="is expired") as caught:
        registry.redeem("i1", "key", refusing, NOW + WEEK + timedelta(seconds=1))
    assert caught.value.cause == "it was valid until 2030-01-08 12:00 UTC"
    assert "coordinator invite north" in caught.value.next_step
    registry.redeem("i1", "key", issuing("c1"), NOW + WEEK)


def test_a_newer_invitation_replaces_an_open_one(registry: Registry) -> None:
    registry.invite("north", "i1", NOW + WEEK, NOW)
    registry.invite("north", "i2", NOW + WEEK, NOW)
    with pytest.raises(IdentityError, match="is replaced") as caught:
        registry.redeem("i1", "key", refusing, NOW)
    assert "newer invitation" in caught.value.cause


def test_a_failed_issue_leaves_the_invitation_unused(registry: Registry) -> None:
    registry.invite("north", "i1", NOW + WEEK, NOW)
    with pytest.raises(AssertionError, match="nothing may be issued"):
        registry.redeem("i1", "key", refusing, NOW)
    assert registry.redeem("i1", "another key", issuing("c1"), NOW) == b"certificate c1"


def test_a_reinstalled_site_joins_again_and_its_old_certificate_stops_working(registry: Registry) -> None:
    join(registry, "north", "i1", "c1")
    registry.invite("north", "i2", NOW + WEEK, NOW + HOUR)
    registry.roll().admit("c1", "north")  # an invitation alone changes nothing
    registry.redeem("i2", "new key", issuing("c2"), NOW + HOUR)
    registry.roll().admit("c2", "north")
    with pytest.raises(IdentityError, match="is replaced"):
        registry.roll().admit("c1", "north")
    with pytest.raises(IdentityError, match="already used, and the site's certificate is replaced"):
        registry.redeem("i1", "key of c1", refusing, NOW + HOUR)


def test_of_many_keys_at_once_one_wins(registry: Registry) -> None:
    registry.invite("north", "i1", NOW + WEEK, NOW)

    def attempt(number: int) -> bytes | None:
        try:
            return registry.redeem("i1", f"key {number}", issuing(f"c{number}"), NOW)
        except IdentityError:
            return None

    with ThreadPoolExecutor(8) as threads:
        answers = [answer for answer in threads.map(attempt, range(8)) if answer]
    assert len(answers) == 1
    registry.roll().admit(answers[0].decode().removeprefix("certificate "), "north")


# --- renewal

MONTHS = timedelta(days=90)


def renew(registry: Registry, serial: str, new: str, now: datetime) -> bytes:
    """Renew a certificate as one that ends ninety days later."""
    issue = lambda: (f"certificate {new}".encode(), new, now + MONTHS)  # noqa: E731
    return registry.renew(serial, now + MONTHS, MONTHS, issue, now)


@pytest.fixture
def joined(registry: Registry) -> Registry:
    """Return a registry with a site whose certificate ends in ninety days."""
    registry.invite("north", "i1", NOW + WEEK, NOW)
    registry.redeem("i1", "key", lambda: (b"certificate c1", "c1", NOW + MONTHS), NOW)
    return registry


def test_a_renewed_certificate_ends_the_one_before_when_it_is_used(joined: Registry) -> None:
    later = NOW + MONTHS / 2
    assert renew(joined, "c1", "c2", later) == b"certificate c2"
    for serial in ("c1", "c2"):
        joined.roll().admit(serial, "north")
    assert [joined.roll().is_new(serial) for serial in ("c1", "c2", "c9")] == [False, True, False]
    for _ in range(2):
        joined.put_in_force("c2", later)
    joined.roll().admit("c2", "north")
    with pytest.raises(IdentityError, match="is replaced") as caught:
        joined.roll().admit("c1", "north")
    assert "coordinator renew north" in caught.value.next_step
    assert joined.roll().credentials["c2"].key_fingerprint == "key"


def test_to_ask_again_gives_the_same_certificate_again(joined: Registry) -> None:
    assert renew(joined, "c1", "never", NOW + HOUR) == b"certificate c1"
    later = NOW + MONTHS / 2
    assert renew(joined, "c1", "c2", later) == renew(joined, "c1", "c3", later) == b"certificate c2"
    assert renew(joined, "c2", "c3", later) == b"certificate c2"


def test_an_answer_that_was_lost_long_ago_is_replaced(joined: Registry) -> None:
    renew(joined, "c1", "c2", NOW + MONTHS * 0.4)
    assert renew(joined, "c1", "c3", NOW + MONTHS * 0.9) == b"certificate c3"
    assert "c2" not in joined.roll()


def test_a_certificate_that_is_closed_is_not_renewed(joined: Registry) -> None:
    renew(joined, "c1", "c2", NOW + MONTHS / 2)
    joined.put_in_force("c2", NOW + MONTHS / 2)
    with pytest.raises(IdentityError, match="is replaced"):
        renew(joined, "c1", "c3", NOW + MONTHS / 2)
    with pytest.raises(IdentityError, match="does not know"):
        renew(joined, "c9", "c3", NOW + MONTHS / 2)
    joined.revoke("north", NOW + MONTHS / 2)
    with pytest.raises(IdentityError, match="is revoked"):
        renew(joined, "c2", "c3", NOW + MONTHS / 2)


def test_a_revocation_ends_also_what_was_not_used_yet(joined: Registry) -> None:
    renew(joined, "c1", "c2", NOW + MONTHS / 2)
    assert joined.revoke("north", NOW + MONTHS / 2) == 2
    joined.put_in_force("c2", NOW + MONTHS / 2)
    for serial in ("c1", "c2"):
        with pytest.raises(IdentityError, match="is revoked"):
            joined.roll().admit(serial, "north")
    assert {"c1", "c2"} <= {*joined.roll().closed("north")}


def test_joining_anew_ends_both(joined: Registry) -> None:
    renew(joined, "c1", "c2", NOW + MONTHS / 2)
    join(joined, "north", "i2", "c3")
    for serial in ("c1", "c2"):
        with pytest.raises(IdentityError, match="is replaced"):
            joined.roll().admit(serial, "north")


def test_a_site_that_renews_for_years_leaves_a_few_rows(joined: Registry) -> None:
    now, serial = NOW, "c1"
    for number in range(2, 30):
        now, new = now + MONTHS / 2, f"c{number}"
        renew(joined, serial, new, now)
        joined.put_in_force(new, now)
        serial = new
    assert len(joined.roll().credentials) <= 6
    joined.roll().admit(serial, "north")


def test_an_invitation_that_renews_is_for_one_key(joined: Registry) -> None:
    joined.invite("north", "i2", NOW + WEEK, NOW, "key")
    assert (joined.challenge("i1"), joined.challenge("i2")) == ("", "i2")
    with pytest.raises(IdentityError, match="for another key than the one that asks") as caught:
        joined.redeem("i2", "key of a thief", refusing, NOW)
    assert "coordinator invite north" in caught.value.next_step
    for _ in range(2):  # the first answer was lost
        assert joined.redeem("i2", "key", issuing("c2"), NOW) == b"certificate c2"
    joined.roll().admit("c2", "north")
    with pytest.raises(IdentityError, match="is replaced"):
        joined.roll().admit("c1", "north")


def test_the_operator_is_told_of_certificates_that_were_not_renewed(joined: Registry) -> None:
    sites = ("north", "south")
    assert joined.roll().warnings(sites, NOW + MONTHS / 2) == []
    [late] = joined.roll().warnings(sites, NOW + MONTHS * 0.7)
    assert "was not renewed yet" in late
    [ended] = joined.roll().warnings(sites, NOW + MONTHS * 1.1)
    assert "has expired" in ended
    assert "coordinator renew north" in ended


FIRST_FORMAT = """
CREATE TABLE credentials (
    serial          TEXT PRIMARY KEY,
    site            TEXT NOT NULL,
    role            TEXT NOT NULL CHECK (role IN ('enroll', 'site')),
    state           TEXT NOT NULL CHECK (state IN ('valid', 'used', 'replaced', 'revoked')),
    since           TEXT NOT NULL,
    not_after       TEXT NOT NULL,
    invitation      TEXT UNIQUE REFERENCES credentials (serial),
    key_fingerprint TEXT,
    certificate     BLOB
) WITHOUT ROWID;
CREATE UNIQUE INDEX one_valid ON credentials (site, role) WHERE state = 'valid';
INSERT INTO credentials VALUES
    ('i1', 'north', 'enroll', 'used', '2030-01-01T12:00:00+00:00', '2030-01-08T12:00:00+00:00', NULL, NULL, NULL),
    ('c1', 'north', 'site', 'valid', '2030-01-01T12:00:00+00:00', '2030-04-01T12:00:00+00:00', 'i1', 'key', X'01'),
    ('i2', 'south', 'enroll', 'revoked', '2030-01-01T12:00:00+00:00', '2030-01-08T12:00:00+00:00', NULL, NULL, NULL);
PRAGMA user_version = 1;
"""


def test_a_registry_of_the_first_format_is_brought_up_to_date(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "registry.db") as db:
        db.executescript(FIRST_FORMAT)
    db.close()
    registry = Registry(tmp_path / "registry.db")
    registry.roll().admit("c1", "north")
    assert [(entry.site, entry.state) for entry in registry.sites()] == [("north", "joined"), ("south", "revoked")]
    renew(registry, "c1", "c2", NOW + MONTHS / 2)
    registry.put_in_force("c2", NOW + MONTHS / 2)
    registry.roll().admit("c2", "north")
    assert (tmp_path / "registry.db.format-1").exists()
    with pytest.raises(StorageError), registry._transaction() as connection:
        connection.execute("UPDATE credentials SET state = 'valid' WHERE serial = 'c1'")


# --- admission and revocation


def test_an_unknown_certificate_is_refused(registry: Registry) -> None:
    join(registry, "north", "i1", "c1")
    with pytest.raises(IdentityError, match="does not know this certificate"):
        registry.roll().admit("c9", "north")


def test_a_certificate_admits_no_other_site(registry: Registry) -> None:
    join(registry, "north", "i1", "c1")
    join(registry, "south", "i2", "c2")
    with pytest.raises(IdentityError):
        registry.roll().admit("c1", "south")


def test_an_invitation_admits_nobody(registry: Registry) -> None:
    registry.invite("north", "i1", NOW + WEEK, NOW)
    with pytest.raises(IdentityError):
        registry.roll().admit("i1", "north")


def test_revoking_ends_the_certificate_and_the_open_invitation(registry: Registry) -> None:
    join(registry, "north", "i1", "c1")
    registry.invite("north", "i2", NOW + WEEK, NOW)
    assert registry.revoke("north", NOW) == 2
    with pytest.raises(IdentityError, match="is revoked"):
        registry.roll().admit("c1", "north")
    with pytest.raises(IdentityError, match="is revoked"):
        registry.redeem("i2", "key", refusing, NOW)
    with pytest.raises(IdentityError, match="the site's certificate is revoked"):
        registry.redeem("i1", "key of c1", refusing, NOW)
    assert registry.revoke("north", NOW) == 0


def test_revoking_one_site_leaves_the_others(registry: Registry) -> None:
    join(registry, "north", "i1", "c1")
    join(registry, "south", "i2", "c2")
    registry.revoke("north", NOW)
    registry.roll().admit("c2", "south")


def test_a_revoked_site_comes_back_by_a_new_invitation(registry: Registry) -> None:
    join(registry, "north", "i1", "c1")
    registry.revoke("north", NOW)
    join(registry, "north", "i2", "c2")
    registry.roll().admit("c2", "north")
    with pytest.raises(IdentityError, match="is revoked"):
        registry.roll().admit("c1", "north")


def test_revoking_a_misspelt_site_suggests_the_nearest(registry: Registry) -> None:
    join(registry, "north", "i1", "c1")
    join(registry, "south", "i2", "c2")
    with pytest.raises(IdentityError, match="no site is named 'nroth'") as caught:
        registry.revoke("nroth", NOW)
    assert caught.value.cause == "the invited sites are north, south"
    assert caught.value.next_step == "did you mean `north`?"


def test_revoking_in_an_empty_registry_says_so(registry: Registry) -> None:
    with pytest.raises(IdentityError) as caught:
        registry.revoke("north", NOW)
    assert caught.value.cause == "no site has been invited yet"


def test_sites_are_listed_with_their_state(registry: Registry) -> None:
    registry.invite("west", "i3", NOW + WEEK, NOW)
    join(registry, "south", "i2", "c2")
    registry.revoke("south", NOW + 2 * HOUR)
    join(registry, "north", "i1", "c1")
    assert registry.sites() == [
        SiteEntry("north", "joined", NOW + HOUR, NOW + YEAR, "key of c1"),
        SiteEntry("south", "revoked", NOW + 2 * HOUR, NOW + YEAR, "key of c2"),
        SiteEntry("west", "invited", NOW, NOW + WEEK),
    ]


def test_a_joined_site_with_a_second_invitation_is_still_joined(registry: Registry) -> None:
    join(registry, "north", "i1", "c1")
    registry.invite("north", "i2", NOW + WEEK, NOW + 2 * HOUR)
    assert [entry.state for entry in registry.sites()] == ["joined"]


def test_a_revoked_site_with_a_new_invitation_is_invited(registry: Registry) -> None:
    join(registry, "north", "i1", "c1")
    registry.revoke("north", NOW + 2 * HOUR)
    registry.invite("north", "i2", NOW + WEEK, NOW + 3 * HOUR)
    assert registry.sites() == [SiteEntry("north", "invited", NOW + 3 * HOUR, NOW + WEEK)]


# --- several processes


def test_two_processes_see_each_other_at_once(tmp_path: Path) -> None:
    coordinator, command = (Registry(tmp_path / "registry.db") for _ in range(2))
    command.invite("north", "i1", NOW + WEEK, NOW)
    coordinator.redeem("i1", "key", issuing("c1"), NOW)
    assert [entry.state for entry in command.sites()] == ["joined"]
    coordinator.roll().admit("c1", "north")
    command.revoke("north", NOW)
    with pytest.raises(IdentityError, match="is revoked"):
        coordinator.roll().admit("c1", "north")


def test_a_reader_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.db")
    join(registry, "north", "i1", "c1")
    registry.invite("south", "i2", NOW + WEEK, NOW)

    def issue() -> Issued:  # runs while the write lock is held
        Registry.roll(registry).admit("c1", "north")
        return issuing("c2")()

    registry.redeem("i2", "key", issue, NOW)
    registry.roll().admit("c2", "south")


def test_processes_that_start_together_make_one_registry(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        registries = list(threads.map(lambda _: Registry(tmp_path / "registry.db"), range(8)))
    join(registries[0], "north", "i1", "c1")
    registries[7].roll().admit("c1", "north")


def test_nothing_is_lost_over_a_restart(tmp_path: Path) -> None:
    join(Registry(tmp_path / "registry.db"), "north", "i1", "c1")
    Registry(tmp_path / "registry.db").roll().admit("c1", "north")


# --- the disk


def test_the_registry_is_for_its_owner_only(tmp_path: Path, registry: Registry) -> None:
    assert stat.S_IMODE((tmp_path / "registry.db").stat().st_mode) == 0o600


def test_another_file_in_its_place_is_reported_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"not a database, but something long enough to be taken for the header of one" * 20)
    before = path.read_bytes()
    with pytest.raises(StorageError, match="not a database") as caught:
        Registry(path)
    assert "backup" in caught.value.next_step
    assert path.read_bytes() == before


def test_a_missing_home_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        Registry(tmp_path / "nowhere" / "registry.db")
    assert f"ls -la {tmp_path}" in caught.value.next_step


def test_a_registry_that_vanishes_is_an_error_and_not_an_empty_one(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "registry.db").unlink()
    with pytest.raises(StorageError, match="unable to open"):
        registry.sites()
    assert not (tmp_path / "registry.db").exists()


def test_a_registry_of_a_newer_version_is_left_alone(tmp_path: Path, registry: Registry) -> None:
    connection = sqlite3.connect(tmp_path / "registry.db")
    connection.execute(f"PRAGMA user_version = {registry_module.SCHEMA.format + 1}")
    connection.close()
    with pytest.raises(StorageError, match=r"registry.db has format 3; fedcervix .* reads formats up to 2$"):
        Registry(tmp_path / "registry.db")


def test_a_full_disk_is_named_as_the_cause(tmp_path: Path) -> None:
    """A database limited to one page gives the very error that a full disk gives."""
    connection = sqlite3.connect(tmp_path / "small.db")
    connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StorageError, match="is full") as caught, translated(tmp_path / "small.db", "the registry"):
        connection.execute("CREATE TABLE one (x)")
    connection.close()
    assert caught.value.cause == "the disk is full"
    assert "df -h" in caught.value.next_step


def test_a_file_that_may_not_be_written_is_reported(tmp_path: Path, registry: Registry) -> None:
    connection = sqlite3.connect(f"{(tmp_path / 'registry.db').as_uri()}?mode=ro", uri=True)
    with pytest.raises(StorageError, match="readonly") as caught, translated(tmp_path / "registry.db", "the registry"):
        connection.execute("DELETE FROM credentials")
    connection.close()
    assert "read-only" in caught.value.cause


# --- any sequence of calls


@pytest.mark.parametrize(("column", "value"), [("site", b"nhs"), ("site", "../x"), ("not_after", "noon"), ("since", 5)])
def test_a_value_that_no_column_holds_is_a_damaged_registry(
    registry: Registry, tmp_path: Path, column: str, value: object
) -> None:
    registry.invite("nhs", "aa", NOW, NOW)
    with sqlite3.connect(next(tmp_path.glob("*.db"))) as db:
        db.execute(f"UPDATE credentials SET {column} = ?", (value,))
    with pytest.raises(StorageError, match=f"a value in the column {column}"):
        registry.sites()


class AnySequence(RuleBasedStateMachine):
    """Random invitations, redemptions and revocations of two sites, against the rules of the module's docstring."""

    folder: Path
    numbers = itertools.count()
    sites = st.sampled_from(["north", "south"])

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry(self.folder / f"{next(self.numbers)}.db")
        self.open: dict[str, str] = {}  # site -> the invitation that works
        self.joined: dict[str, str] = {}  # site -> the certificate that works
        self.renewed: dict[str, str] = {}  # site -> one that works as well, and was not used yet
        self.issued: list[tuple[str, str]] = []  # every (site, certificate) ever

    @rule(site=sites)
    def invite(self, site: str) -> None:
        self.open[site] = f"i{next(self.numbers)}"
        self.registry.invite(site, self.open[site], NOW + WEEK, NOW)

    @rule(site=sites)
    def redeem(self, site: str) -> None:
        if site in self.open:
            serial = f"c{next(self.numbers)}"
            self.registry.redeem(self.open.pop(site), serial, issuing(serial), NOW)
            self.joined[site] = serial
            self.renewed.pop(site, None)
            self.issued.append((site, serial))

    @rule(site=sites)
    def renew(self, site: str) -> None:
        if site in self.joined:
            serial, before = f"c{next(self.numbers)}", self.renewed.get(site, self.joined[site])
            until = NOW + YEAR * (2 if site not in self.renewed else 1)
            issue = lambda: (f"certificate {serial}".encode(), serial, until)  # noqa: E731
            made = self.registry.renew(self.joined[site], until, YEAR, issue, NOW)
            if made == f"certificate {serial}".encode():
                assert before == self.joined[site], "asked again, it gives the same one"
                self.renewed[site] = serial
                self.issued.append((site, serial))

    @rule(site=sites)
    def use(self, site: str) -> None:
        if site in self.renewed:
            self.joined[site] = self.renewed.pop(site)
            self.registry.put_in_force(self.joined[site], NOW)

    @rule(site=sites)
    def revoke(self, site: str) -> None:
        if any(entry.site == site for entry in self.registry.sites()):
            ended = [which.pop(site, None) for which in (self.open, self.joined, self.renewed)]
            assert self.registry.revoke(site, NOW) == sum(serial is not None for serial in ended)

    @invariant()
    def exactly_the_latest_certificate_of_a_joined_site_is_admitted(self) -> None:
        for site, serial in self.issued:
            if serial in (self.joined.get(site), self.renewed.get(site)):
                self.registry.roll().admit(serial, site)
            else:
                with pytest.raises(IdentityError):
                    self.registry.roll().admit(serial, site)


def test_the_rules_hold_after_any_sequence_of_calls(tmp_path: Path) -> None:
    AnySequence.folder = tmp_path
    run_state_machine_as_test(AnySequence, settings=settings(max_examples=15, stateful_step_count=15, deadline=None))


# --- a full disk --------------------------------------------------------------------------------------------------


def test_a_site_that_is_shut_out_is_refused_until_it_has_a_new_certificate(registry: Registry) -> None:
    join(registry, "north", "i1", "c1")
    join(registry, "south", "i2", "c2")
    registry.shut_out("north")
    with pytest.raises(IdentityError, match="the certificate of site north is revoked"):
        registry.roll().admit("c1", "north")
    registry.roll().admit("c2", "south")
    with pytest.raises(IdentityError, match="the certificate of site north is revoked"):
        renew(registry, "c1", "c4", NOW + YEAR)
    join(registry, "north", "i3", "c3")
    registry.roll().admit("c3", "north")


def test_a_registry_without_room_takes_of_the_reserve(registry: Registry, tmp_path: Path) -> None:
    join(registry, "north", "i1", "c1")
    reserve = Reserve.beside(tmp_path / "registry.db")
    reserve.make()
    full = iter([True, True, False])
    closing = registry_module._close

    def closes(*args: Any, **kwargs: Any) -> int:
        if next(full, False):
            raise FullDiskError("no room")
        return closing(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry_module, "_close", closes)
        assert registry.revoke("north", NOW) == 1
    assert reserve.left_bytes() == RESERVE_BYTES - 2 * PIECE_BYTES


LOCKS = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1], timeout=0.1, isolation_level=None) as other:
    other.execute("BEGIN IMMEDIATE")
"""


def test_whoever_looks_at_the_file_leaves_the_lock_of_a_transaction_alone(tmp_path: Path) -> None:
    """The system drops all locks of a process on a file where it closes the file: two processes would write at once."""
    registry = Registry(tmp_path / "registry.db")
    before = registry.mark()

    def issue() -> Issued:
        registry.mark()
        words = [sys.executable, "-c", LOCKS, str(tmp_path / "registry.db")]
        other = subprocess.run(words, capture_output=True, text=True, check=False)
        assert "database is locked" in other.stderr
        return b"certificate", "made", NOW + YEAR

    registry.invite("nhs", "invitation", NOW + WEEK, NOW)
    registry.redeem("invitation", "key", issue, NOW)
    assert registry.mark() != before
