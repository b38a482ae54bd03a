"""A site's certificate, stepped: what the agent asks, writes, uses and says (see also tests/e2e/test_renewal.py)."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from fedcervix.errors import LinkError, NoSuchMethodError
from fedcervix.transport import identity
from site_agent.federation import shown
from site_agent.federation.context import AgentContext
from site_agent.federation.renewing import Renewing
from site_agent.home import BEFORE, RENEWED, SiteHome, create
from tests.unit.fake_link import FakeLink
from tests.unit.identities import AUTHORITY, NORTH, NOW

DAY = timedelta(days=1)


class Stepped:
    """The renewing of one site, at the moments that a test names."""

    def __init__(self, folder: Path) -> None:
        self.home, self.link, self.said = SiteHome(folder), FakeLink(), list[str]()
        self.at = NOW
        create(self.home)
        key = identity.new_key()
        self.home.key_file("site.key").write_bytes(key)
        self.home.key_file("site.crt").write_bytes(self.certificate())
        self.home.key_file("authority.crt").write_bytes(AUTHORITY.certificate_pem)
        context = AgentContext(self.home, "north", self.link, self.show, clock_s=lambda: self.at.timestamp())
        self.renewing = Renewing(context)

    def show(self, what: shown.Shown) -> None:
        self.said.append(str(what))

    def certificate(self, key: bytes = b"") -> bytes:
        public = identity.public_key(key or self.home.pem("site.key"))
        return identity.issue(AUTHORITY, public, NORTH, self.at, identity.SITE_LIFETIME)

    def step(self, day: int) -> float:
        self.at = NOW + day * DAY
        return self.renewing._step()

    def files(self) -> set[str]:
        return {file.name for file in self.home.key_file("").glob("site.crt*")}


@pytest.fixture
def site(tmp_path: Path) -> Stepped:
    site = Stepped(tmp_path / "site")
    site.link.renews = lambda _request: site.certificate()
    return site


def test_nothing_is_asked_before_half_of_the_life(site: Stepped) -> None:
    assert site.step(44) == 3600
    assert site.link.told == []


def test_it_is_asked_written_used_and_only_then_the_site_s_certificate(site: Stepped) -> None:
    old = site.home.pem("site.crt")
    site.step(55)
    [(_, request), (_, new)] = site.link.told
    assert identity.check_request(request) == identity.public_key(site.home.pem("site.key"))
    assert [*site.home.certificates()] == [RENEWED, "site.crt"]
    assert site.home.pem(RENEWED) == new
    site.renewing.accepted()
    assert site.home.pem("site.crt") == new
    assert site.home.pem(BEFORE) == old
    assert site.files() == {"site.crt", BEFORE}
    site.step(56)
    assert len(site.link.told) == 2, "it is good for ninety days"


def test_a_coordinator_that_cannot_renew_is_asked_again_and_named_when_it_is_late(site: Stepped) -> None:
    def cannot(_request: bytes) -> bytes:
        raise NoSuchMethodError("this coordinator does not have this method here")

    site.link.renews = cannot
    assert site.step(55) == 6 * 3600
    assert site.said == []
    for _ in range(3):
        site.step(61)
    [said] = site.said
    assert "ends at 2030-04-01 12:00 UTC and was not renewed yet" in said
    assert "does not have this method" in said


def test_one_that_is_not_valid_yet_is_not_taken(site: Stepped) -> None:
    def ahead(_request: bytes) -> bytes:
        site.at += DAY
        made = site.certificate()
        site.at -= DAY
        return made

    site.link.renews = ahead
    site.step(61)
    assert site.files() == {"site.crt"}
    assert "clock" in site.said[0]


def test_a_line_that_is_down_is_no_end(site: Stepped) -> None:
    def cut(_request: bytes) -> bytes:
        raise LinkError("cut")

    site.link.renews = cut
    site.step(61)
    site.link.renews = lambda _request: site.certificate()
    site.step(62)
    assert site.home.certificates()[0] == RENEWED


def test_a_certificate_for_another_key_or_no_later_one_is_not_taken(site: Stepped) -> None:
    for answer in (site.certificate(identity.new_key()), site.home.pem("site.crt"), b"", b"no certificate"):
        site.link.renews = lambda _request, answer=answer: answer  # type: ignore[misc]
        site.step(61)
        assert site.files() == {"site.crt"}
    assert not any(told[0] == "use" for told in site.link.told)


def test_a_refused_certificate_is_given_up_for_the_one_before_and_the_last_one_is_not(site: Stepped) -> None:
    old = site.home.pem("site.crt")
    site.step(55)
    assert site.renewing.refused()
    assert site.link.told[-1] == ("use", old)
    assert not site.renewing.refused(), "there is no other one"
    site.renewing.accepted()
    assert site.files() == {"site.crt"}
    assert site.home.pem("site.crt") == old


def test_one_from_before_the_present_one_comes_back_where_the_coordinator_knows_no_other(site: Stepped) -> None:
    old = site.home.pem("site.crt")
    site.step(55)
    site.renewing.accepted()
    assert site.renewing.refused()
    for _ in range(2):
        site.renewing.accepted()
        assert site.home.pem("site.crt") == old
        assert site.files() == {"site.crt"}
    site.step(56)
    assert site.home.certificates() == [RENEWED, "site.crt"]


def test_files_of_an_earlier_key_or_damaged_ones_do_not_count(site: Stepped) -> None:
    site.at = NOW + DAY
    site.home.key_file(RENEWED).write_bytes(site.certificate(identity.new_key()))
    site.home.key_file(BEFORE).write_bytes(b"")
    assert site.home.certificates() == ["site.crt"]
    site.home.key_file(RENEWED).write_bytes(site.certificate())
    assert site.home.certificate().not_before > NOW
    assert site.home.own_files()[0].name == RENEWED
