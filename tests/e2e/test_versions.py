"""Sites and coordinators of versions that follow each other end with the model of one version; others wait.

The sites do arithmetic in place of training (see light_site.py): their one right result depends on the wire alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedcervix import __version__
from fedcervix.core.modes import Mode
from fedcervix.core.numerics import NUMERICS
from fedcervix.errors import RunError
from tests.e2e.loopback import Federation, until
from tests.e2e.next_version import MORE_FIELDS, NEXT, SOFTWARE, TODAY, Version, make, speaks
from tests.unit.next_version import computes

pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")

Federate = Callable[..., Federation]
Once = Callable[[str, Callable[[Path], None]], Path]

pytestmark = pytest.mark.timeout(120)

AVERAGED = ("csfssl", pytest.param("ppfssl", marks=pytest.mark.long))
RING = (pytest.param("csfssl", marks=pytest.mark.long), "ppfssl")
"""each test has one mode in `make test`, the other in `make long`"""
BOTH = (*MORE_FIELDS, speaks(NEXT - 1, NEXT))
AHEAD = (*MORE_FIELDS, speaks(NEXT))
PACE = ("--pace-s", "0.05")
SLOWLY = ("--pace-s", "0.2")
"""a second for each task: on a busy machine, too, a phase is not over before its kill"""
SOON = ("--upgrade-s", "0.2")


@pytest.fixture(scope="session")
def next_one(once: Once) -> Version:
    """Return the next version, which speaks this one's wire, too."""
    return Version(once("next-version", lambda folder: make(folder / "packages", *BOTH)) / "packages")


@pytest.fixture(scope="session")
def ahead(once: Once) -> Version:
    """Return a version that does not speak this one's wire any more."""
    return Version(once("version-ahead", lambda folder: make(folder / "packages", *AHEAD)) / "packages")


@pytest.fixture
def right(once: Once, next_one: Version, federate: Federate) -> Callable[[Mode], str]:
    """Return what says the result of a federation all of which is the next version."""

    def result(mode: Mode) -> str:
        def fill(folder: Path) -> None:
            federation = federate()
            printed = ended(federation, mode, next_one, next_one, next_one)
            assert len(re.findall(rf"wire_version\W+{NEXT}\b", printed)) == len(federation.sites), printed
            assert software(federation) == {site: [SOFTWARE] for site in federation.sites}
            (folder / "digest").write_text(federation.result())

        return (once(f"right-of-next-version-{mode}", fill) / "digest").read_text()

    return result


def ended(federation: Federation, mode: Mode, coordinator: Version, *sites: Version) -> str:
    """Run a federation to its end; return what its coordinator has printed."""
    process = coordinator.coordinate(federation, mode)
    for site in federation.sites:
        federation.enrol(site)
    agents = [version.light(federation, site) for version, site in zip(sites, federation.sites, strict=True)]
    federation.finish(process, *agents)
    assert not any("record" in agent.text and "not saved" in agent.text for agent in agents), federation.texts()
    return process.text


def software(federation: Federation) -> dict[str, list[str]]:
    return {line["site"]: line["software"] for line in federation.record()["sites"]}


@pytest.mark.parametrize("mode", AVERAGED)
def test_sites_of_today_and_a_coordinator_of_the_next_version_end_with_its_model(
    mode: Mode, federate: Federate, next_one: Version, right: Callable[[Mode], str]
) -> None:
    federation = federate()
    ended(federation, mode, next_one, TODAY, TODAY)
    assert federation.result() == right(mode)
    assert federation.record()["software"] == f"fedcervix {SOFTWARE}"
    assert software(federation) == {site: [__version__] for site in federation.sites}


@pytest.mark.parametrize("mode", RING)
def test_either_side_may_be_upgraded_first_and_one_site_before_the_other(
    mode: Mode, federate: Federate, next_one: Version, right: Callable[[Mode], str]
) -> None:
    for coordinator in (next_one, TODAY):
        federation = federate()
        ended(federation, mode, coordinator, TODAY, next_one)
        assert federation.result() == right(mode)
        assert software(federation) == {"nhs": [__version__], "alts": [SOFTWARE]}


def waits(federation: Federation, site: str, *words: str) -> None:
    """Wait until the operator sees that a site waits for an upgrade, and of what."""

    def line(document: dict[str, Any]) -> str:
        return next(str(one["line"]) for one in document["sites"] if one["site"] == site)

    federation.until(f"{site} waits", lambda seen: all(word in line(seen) for word in ("waits for an upgrade", *words)))


def test_a_site_that_is_ahead_waits_until_the_coordinator_is_upgraded(
    federate: Federate, next_one: Version, ahead: Version, right: Callable[[Mode], str]
) -> None:
    federation = federate()
    old = TODAY.coordinate(federation, "csfssl")
    for site in federation.sites:
        federation.enrol(site)
    agents = [ahead.light(federation, "nhs", *SOON), TODAY.light(federation, "alts")]
    waits(federation, "nhs", f"install a fedcervix at the coordinator that speaks version {NEXT} of the protocol")
    install = f"this site (fedcervix {SOFTWARE}) speaks version {NEXT} of the protocol, the coordinator version"
    agents[0].says(install)
    agents[0].says("ask the coordinator's operator to install a fedcervix")
    old.kill()
    federation.finish(next_one.coordinate(federation), *agents)
    assert federation.result() == right("csfssl")
    assert agents[0].text.count(install) == 1, "it is said once"


def test_a_site_that_is_behind_waits_until_it_is_upgraded(
    federate: Federate, next_one: Version, ahead: Version, right: Callable[[Mode], str]
) -> None:
    federation = federate()
    coordinator = ahead.coordinate(federation, "csfssl")
    for site in federation.sites:
        federation.enrol(site)
    behind, other = TODAY.light(federation, "nhs", *SOON), next_one.light(federation, "alts")
    waits(federation, "nhs", "install a fedcervix at the site", f"as fedcervix {SOFTWARE} here does")
    behind.says("ask the coordinator's operator which fedcervix to install here")
    behind.kill()
    federation.finish(coordinator, other, next_one.light(federation, "nhs"))
    assert federation.result() == right("csfssl")
    assert software(federation) == {site: [SOFTWARE] for site in federation.sites}


def test_a_site_that_computes_otherwise_waits_and_the_run_keeps_its_numbers(
    federate: Federate, tmp_path: Path, right: Callable[[Mode], str]
) -> None:
    """A coordinator that is upgraded meanwhile refuses to go on; the version that began the run does."""
    make(tmp_path / "packages", *MORE_FIELDS, computes(NUMERICS + 1, SOFTWARE))
    otherwise = Version(tmp_path / "packages")
    federation = federate()
    coordinator = TODAY.coordinate(federation, "csfssl")
    for site in federation.sites:
        federation.enrol(site)
    alts, nhs = TODAY.light(federation, "alts", *SOON), otherwise.light(federation, "nhs", *SOON)
    waits(federation, "nhs", f"computes with numerics {NUMERICS + 1}", f"as fedcervix {__version__} here does")
    until("alts is there", lambda: federation.events("SiteAttached") == 1)
    coordinator.kill()
    upgraded = otherwise.coordinate(federation, listening=False)
    assert upgraded.ended() == RunError.exit_code, upgraded.text
    upgraded.says(f"was begun with numerics {NUMERICS}; this fedcervix {SOFTWARE} computes with")
    nhs.kill()
    federation.finish(TODAY.coordinate(federation), alts, TODAY.light(federation, "nhs"))
    assert federation.result() == right("csfssl")


@pytest.mark.parametrize("mode", AVERAGED)
def test_all_sides_are_upgraded_one_after_the_other_in_the_middle_of_a_run(
    mode: Mode, federate: Federate, next_one: Version, right: Callable[[Mode], str]
) -> None:
    """Each of them by `kill -9`, while there is work."""
    federation = federate()
    coordinator = TODAY.coordinate(federation, mode)
    for site in federation.sites:
        federation.enrol(site)
    nhs, alts = (TODAY.light(federation, site, *PACE) for site in federation.sites)
    until("the first update is there", lambda: federation.events("UpdateStored"), seen=federation.texts)
    coordinator.kill()
    coordinator = next_one.coordinate(federation)
    federation.kill_site(nhs)
    nhs = next_one.light(federation, "nhs", *PACE)
    until("the first round is scored", lambda: federation.events("ScoreReported"), seen=federation.texts)
    federation.kill_site(alts)
    federation.finish(coordinator, nhs, next_one.light(federation, "alts"))
    assert federation.result() == right(mode)
    assert software(federation) == {site: [__version__, SOFTWARE] for site in federation.sites}


PHASES: dict[Mode, tuple[tuple[str, int], ...]] = {
    "csfssl": (
        ("SiteAttached", 1),
        ("UpdateStored", 1),
        ("UpdateStored", 2),
        ("AggregateStored", 1),
        ("ScoreReported", 1),
        ("AggregateStored", 2),
    ),
    "ppfssl": (
        ("SiteAttached", 1),
        ("UpdateStored", 1),
        ("UpdateStored", 2),
        ("ScoreReported", 1),
    ),
}
"""so many events of a kind are journaled: gathering, seeding, training, averaging, scoring; publishing follows"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", RING)
@pytest.mark.long
def test_what_is_killed_in_any_phase_goes_on_in_another_version(
    mode: Mode, federate: Federate, next_one: Version, right: Callable[[Mode], str]
) -> None:
    """The coordinator and a site: up to the next version and back again, phase by phase."""
    federation = federate()
    coordinator = TODAY.coordinate(federation, mode)
    for site in federation.sites:
        federation.enrol(site)
    agents = {site: TODAY.light(federation, site, *SLOWLY) for site in federation.sites}
    for at, (kind, count) in enumerate(PHASES[mode]):
        until(f"{kind} number {count}", lambda: federation.events(kind) >= count, seen=federation.texts)  # noqa: B023
        version = next_one if at % 2 == 0 else TODAY
        coordinator.kill()
        site = federation.sites[at // 2 % len(federation.sites)]
        federation.kill_site(agents[site])
        agents[site] = version.light(federation, site, *SLOWLY)
        coordinator = version.coordinate(federation)
    until("one site has scored the last round", lambda: federation.events("ScoreReported") >= 3, seen=federation.texts)
    left = federation.last("ScoreReported")["site"]
    federation.kill_site(agents[left])  # so publishing waits for it
    until("the other has adopted", lambda: federation.events("ModelAdopted"), seen=federation.texts)
    coordinator.kill()
    coordinator, agents[left] = next_one.coordinate(federation), next_one.light(federation, left)
    federation.finish(coordinator, *agents.values())
    assert federation.result() == right(mode)
