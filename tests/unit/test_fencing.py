"""Which process of an agent acts for its site: the rules at the coordinator, and what a home folder remembers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from coordinator.run.fencing import Acting, admit, is_answered, refusal
from fedcervix.errors import FullDiskError, RemoteError, StorageError
from fedcervix.transport.codec import SUCCEEDS_MAX, InstanceClaim, read_claim
from site_agent.federation.fencing import succeed
from site_agent.home import SiteHome
from site_agent.home import create as create_home

ADA, BOB, CLE = ("a" * 32, "b" * 32, "c" * 32)
ACTING = Acting(ADA, 5.0)

# --- the rules ---------------------------------------------------------------------------------------------------


def test_whoever_comes_first_acts() -> None:
    assert admit(None, InstanceClaim(ADA), alive=True, at=7.0) == Acting(ADA, 7.0)


@pytest.mark.parametrize("alive", [True, False])
def test_the_same_process_goes_on_and_acts_since_it_began(alive: bool) -> None:
    assert admit(ACTING, InstanceClaim(ADA), alive=alive, at=7.0) is ACTING


@pytest.mark.parametrize("succeeds", [(ADA,), (CLE, ADA)])
def test_a_restart_takes_over_at_once_also_when_it_was_not_the_first_one(succeeds: tuple[str, ...]) -> None:
    assert admit(ACTING, InstanceClaim(BOB, succeeds), alive=True, at=7.0) == Acting(BOB, 7.0)


@pytest.mark.parametrize("succeeds", [(), (CLE,)])
def test_a_twin_is_refused_while_the_first_one_lives(succeeds: tuple[str, ...]) -> None:
    assert admit(ACTING, InstanceClaim(BOB, succeeds), alive=True, at=7.0) is None
    assert admit(ACTING, InstanceClaim(BOB, succeeds), alive=False, at=7.0) == Acting(BOB, 7.0)


def test_who_was_replaced_does_not_come_back_while_its_successor_lives() -> None:
    now = admit(ACTING, InstanceClaim(BOB, (ADA,)), alive=True, at=7.0)
    assert admit(now, InstanceClaim(ADA), alive=True, at=8.0) is None
    assert admit(now, InstanceClaim(CLE, (ADA,)), alive=True, at=8.0) is None  # nor by being started again


def test_calls_are_answered_of_the_one_that_acts_or_while_none_does() -> None:
    """A coordinator that has just restarted hears reports of a site before the site has attached again."""
    assert [is_answered(None, ADA), is_answered(ACTING, ADA), is_answered(ACTING, BOB)] == [True, True, False]


def test_a_twin_is_told_what_happened_why_and_what_to_do() -> None:
    error = refusal("nhs", Acting(ADA, 1893456000.0), 60.0)
    assert "another agent of site nhs has been connected since 2030-01-01 00:00:00 UTC" in error.what
    assert "a second machine or a copy of the home folder" in error.cause
    assert "stop one of the two; this one can start 60 s after" in error.next_step


@pytest.mark.parametrize(
    ("instance", "succeeds"), [("", ()), ("A" * 32, ()), (ADA + "a", ()), (ADA, ("x",)), (ADA, (BOB,) * 17)]
)
def test_a_claim_that_is_none_is_the_other_side_s_fault(instance: str, succeeds: tuple[str, ...]) -> None:
    with pytest.raises(RemoteError):
        read_claim(instance, succeeds)


# --- what a home folder remembers --------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    made = SiteHome(tmp_path / "site")
    create_home(made)
    return made


def test_each_process_succeeds_those_before_it_newest_first(home: SiteHome) -> None:
    first, second, third = (succeed(home) for _ in range(3))
    assert len({first.instance, second.instance, third.instance}) == 3
    assert (first.succeeds, second.succeeds) == ((), (first.instance,))
    assert third.succeeds == (second.instance, first.instance)


def test_the_list_has_a_bound(home: SiteHome) -> None:
    made = [succeed(home) for _ in range(SUCCEEDS_MAX + 4)]
    assert made[-1].succeeds == tuple(claim.instance for claim in made[-2 : -SUCCEEDS_MAX - 2 : -1])


def test_a_copied_home_folder_succeeds_nobody_and_a_moved_one_does(home: SiteHome, tmp_path: Path) -> None:
    first = succeed(home)
    shutil.copytree(home.folder, tmp_path / "copy")
    assert succeed(SiteHome(tmp_path / "copy")).succeeds == ()
    home.folder.rename(tmp_path / "moved")
    assert succeed(SiteHome(tmp_path / "moved")).succeeds == (first.instance,)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"folder": NUMBER}', '{"folder": NUMBER, "instances": ["x", 3]}'])
def test_a_damaged_file_is_said_as_such(home: SiteHome, text: str) -> None:
    home.instances.write_text(text.replace("NUMBER", str(home.folder.stat().st_ino)))
    with pytest.raises(StorageError, match=r"instances\.json is damaged"):
        succeed(home)


def test_on_a_full_disk_a_process_writes_itself_over_the_one_before(
    home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = [succeed(home)]

    def full(path: Path, _data: bytes) -> None:
        raise FullDiskError(f"cannot write {path}")

    monkeypatch.setattr("site_agent.federation.fencing.write_whole", full)
    for _ in range(SUCCEEDS_MAX + 2):
        claims.append(succeed(home))
        assert claims[-1].succeeds[0] == claims[-2].instance
    assert len(claims[-1].succeeds) == SUCCEEDS_MAX
    home.instances.unlink()
    assert succeed(home).succeeds == ()
    assert not home.instances.exists()
