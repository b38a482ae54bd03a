"""Joining: everything is checked before anything is written, and before the invitation is used up."""

from __future__ import annotations

import os
import stat
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fedcervix.doctor.findings import CheckWarning, Skipped
from fedcervix.errors import ConfigError, DataError, FedcervixError, LinkError, RunError
from fedcervix.transport import identity
from fedcervix.transport.identity import Identity
from fedcervix.transport.invitations import Invitation
from site_agent import site_toml
from site_agent.cli import cli
from site_agent.doctor.site_checks import doctor_of
from site_agent.federation.joining import check_home
from site_agent.home import SiteHome, create
from site_agent.manifest.manifest_file import read_manifest

NOW = datetime.now(UTC)
NOBODY_LISTENS = "localhost:1"
PATHS = {
    "plain": "/data/manifest.csv",
    "beyond U+FFFF": "/data/𠮷野/manifest.csv",
    "quotes and a backslash": '/data/a "quoted" \\ path/manifest.csv',
    "control characters": "/data/tab\tand\x7fdelete/manifest.csv",
    "a number sign": "/data/# no comment/manifest.csv",
    "a line break": "/data/two\nlines/manifest.csv",
}


class Federation:
    """An authority that invites sites, and certifies them as a coordinator does."""

    def __init__(self, name: str = "cervix") -> None:
        self.name, self.key = name, identity.new_key()
        self.pem = identity.new_authority(name, self.key, NOW)
        self.authority = identity.Authority(self.pem, self.key)

    def certificate(self, role: str, site: str, key: bytes) -> bytes:
        who = Identity(self.name, role, site)  # type: ignore[arg-type]  # roles of the tests are right
        return identity.issue(self.authority, identity.public_key(key), who, NOW, timedelta(days=1))

    def invite(self, site: str) -> Invitation:
        key = identity.new_key()
        return Invitation(self.name, site, NOBODY_LISTENS, self.pem, self.certificate("enroll", site, key), key)

    def joined(self, folder: Path, site: str) -> SiteHome:
        home, key = SiteHome(folder), identity.new_key()
        create(home, coordinator=NOBODY_LISTENS)
        home.key_file("site.key").write_bytes(key)
        home.key_file("site.crt").write_bytes(self.certificate("site", site, key))
        home.key_file("authority.crt").write_bytes(self.pem)
        return home


def manifest(folder: Path, text: str = "image,patient,label\na.png,1,0\n") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.csv").write_text(text)
    return folder / "manifest.csv"


def join(home: SiteHome, invited: Invitation, *options: object) -> Result:
    file = home.folder.parent / "invitation.toml"
    file.write_text(invited.to_toml())
    return CliRunner().invoke(cli, ["--home", str(home.folder), "join", str(file), *map(str, options)])


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_home_of_another_site_is_refused_before_anything_changes(tmp_path: Path) -> None:
    federation = Federation()
    home = federation.joined(tmp_path / "home", "aa")
    before = snapshot(home.folder)
    result = join(home, federation.invite("bb"), "--manifest", manifest(tmp_path / "b"))
    assert isinstance(result.exception, RunError)
    assert "home of site aa" in str(result.exception)
    assert snapshot(home.folder) == before


def test_a_home_of_another_federation_is_refused(tmp_path: Path) -> None:
    home = Federation("one").joined(tmp_path / "home", "aa")
    with pytest.raises(RunError, match="federation one"):
        check_home(home, Federation("two").invite("aa"))


def test_a_federation_that_was_made_anew_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    home = Federation().joined(tmp_path / "home", "aa")
    anew = Federation()
    with pytest.raises(RunError, match="another federation of the same name"):
        check_home(home, anew.invite("aa"))
    home.key_file("site.crt").rename(tmp_path / "site.crt.old")  # what the message advises
    check_home(home, anew.invite("aa"))


def test_the_same_site_may_renew(tmp_path: Path) -> None:
    federation = Federation()
    check_home(federation.joined(tmp_path / "home", "aa"), federation.invite("aa"))


def test_a_coordinator_s_home_is_refused(tmp_path: Path) -> None:
    (tmp_path / "coordinator.toml").write_text("")
    with pytest.raises(RunError, match="home of a coordinator"):
        check_home(SiteHome(tmp_path), Federation().invite("aa"))


def test_a_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        check_home(SiteHome(tmp_path / "home"), Federation().invite("aa"))


@pytest.mark.parametrize(
    ("text", "error"),
    [(None, DataError), ("", DataError), ("file,woman\na.png,1\n", DataError)],
    ids=["absent", "empty", "other columns"],
)
def test_a_manifest_that_cannot_be_read_costs_no_invitation(
    text: str | None, error: type[FedcervixError], tmp_path: Path
) -> None:
    """The line would be tried after the manifest: nobody listens there, which is another error."""
    file = tmp_path / "none.csv" if text is None else manifest(tmp_path / "data", text)
    home = SiteHome(tmp_path / "home")
    result = join(home, Federation().invite("aa"), "--manifest", file)
    assert isinstance(result.exception, error)
    assert not home.folder.exists()


@pytest.mark.parametrize("joined", [True, False], ids=["a site that works", "a new home"])
def test_nothing_but_the_new_key_is_written_before_the_certificate_has_arrived(joined: bool, tmp_path: Path) -> None:
    """Nobody listens at the invitation's address: a site that works goes on with its own."""
    federation, home = Federation(), SiteHome(tmp_path / "home")
    if joined:
        home = federation.joined(tmp_path / "home", "aa")
        create(home, coordinator="works.example.org:8443", manifest=Path("/ours.csv"))
    before = snapshot(home.folder)
    options = ("--manifest", manifest(tmp_path / "b"), "--threads", 1)
    failed = join(home, federation.invite("aa"), *options)
    assert isinstance(failed.exception, LinkError)
    after = snapshot(home.folder)
    assert after.pop("keys/site.key.new")
    assert b'"what":"enrol"' in after.pop("egress.jsonl")
    before.pop("egress.jsonl", None)
    assert after == before


def test_the_address_of_the_invitation_is_written_at_a_renewal(tmp_path: Path) -> None:
    home = Federation().joined(tmp_path / "home", "aa")
    create(home, coordinator="elsewhere.example.org:8443")
    assert home.config().link.coordinator == "elsewhere.example.org:8443"


def test_everything_else_in_site_toml_stays_as_the_engineer_wrote_it(tmp_path: Path) -> None:
    home = SiteHome(tmp_path)
    home.config_file.write_text(
        '# ours\n[data]\nmanifest = "old.csv"   # on the share\nunreadable_max = 0.2\n\n[hardware]\ndevice = "cpu"\n'
    )
    create(home, coordinator="a.example.org:1", manifest=Path("/new.csv"))
    lines = home.config_file.read_text().splitlines()
    assert lines[:2] == ["# ours", "[data]"]
    assert lines[2].startswith('manifest = "/new.csv"')
    assert lines[2].endswith("# on the share")
    assert (home.config().data.unreadable_max, home.config().hardware.device) == (0.2, "cpu")
    assert home.config().link.coordinator == "a.example.org:1"


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_what_is_written_is_read_back_the_same(path: str) -> None:
    text = site_toml.with_values(site_toml.TEMPLATE, {("data", "manifest"): path}, source=Path("site.toml"))
    assert tomllib.loads(text)["data"]["manifest"] == path
    again = site_toml.with_values(text, {("data", "manifest"): "other.csv"}, source=Path("site.toml"))
    assert tomllib.loads(again)["data"]["manifest"] == "other.csv"


def test_a_path_that_is_not_utf8_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    home = SiteHome(tmp_path / "home")
    result = join(home, Federation().invite("aa"), "--manifest", manifest(folder))
    assert isinstance(result.exception, ConfigError)
    assert "UTF-8" in result.exception.cause
    assert not home.config_file.exists()


@pytest.mark.parametrize(
    "text",
    [
        'data = {manifest = "a.csv"}\n',
        '[data]\nmanifest = """\nmanifest = "b"\n"""\n',
        '[data]\n"manifest" = "a.csv"\n',
    ],
    ids=["an inline table", "a text of several lines", "a quoted key"],
)
def test_a_file_written_in_an_unknown_way_is_left_as_it_is(text: str, tmp_path: Path) -> None:
    home = SiteHome(tmp_path)
    home.config_file.write_text(text)
    with pytest.raises(ConfigError, match="cannot be changed"):
        create(home, manifest=Path("/new.csv"))
    assert home.config_file.read_text() == text


def test_a_broken_site_toml_costs_no_invitation(tmp_path: Path) -> None:
    home = SiteHome(tmp_path / "home")
    home.folder.mkdir()
    home.config_file.write_text("[hardware]\ndevices = 1\n")
    result = join(home, Federation().invite("aa"))
    assert isinstance(result.exception, ConfigError)


def test_a_home_is_its_owner_s_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create(SiteHome(tmp_path / "home"))
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(found.stat().st_mode) for found in (tmp_path / "home").rglob("*") if found.is_dir()}
    assert modes | {stat.S_IMODE((tmp_path / "home").stat().st_mode)} == {0o700}
    assert stat.S_IMODE((tmp_path / "home" / "site.toml").stat().st_mode) == 0o600


def test_a_column_that_only_looks_like_a_label_is_named_before_the_invitation_is_used_and_can_be_ignored(
    tmp_path: Path,
) -> None:
    home, invitation = SiteHome(tmp_path / "home"), Federation().invite("aa")
    named = manifest(tmp_path / "data", "image,patient,hpv,smoker\na.png,p1,0,1\n")
    refused = join(home, invitation, "--manifest", named)
    assert isinstance(refused.exception, DataError)
    assert "--ignore-column hpv" in refused.exception.next_step
    assert not home.folder.exists()
    tried = join(home, invitation, "--manifest", named, "--ignore-column", "hpv", "--ignore-column", "smoker")
    assert isinstance(tried.exception, LinkError)  # nobody listens: the manifest has passed
    create(home, manifest=named, ignore_columns=["hpv", "smoker"])
    again = join(home, invitation, "--manifest", named)  # what the home knows is not asked again
    assert isinstance(again.exception, LinkError)


def test_a_manifest_that_can_be_read_passes(tmp_path: Path) -> None:
    read_manifest(manifest(tmp_path / "data"))


def test_a_join_that_was_killed_before_its_last_file_can_be_repeated(tmp_path: Path) -> None:
    """The certificate is written last: until it is there, the home is free for the same invitation."""
    federation = Federation()
    home = federation.joined(tmp_path / "home", "aa")
    home.key_file("site.crt").unlink()
    check_home(home, federation.invite("aa"))


def test_what_is_advised_for_a_federation_made_anew_keeps_the_key_of_the_women(tmp_path: Path) -> None:
    """That key says whose pictures made a model: without it, every model of this home would be refused."""
    home = Federation().joined(tmp_path / "home", "aa")
    with pytest.raises(RunError) as refused:
        check_home(home, Federation().invite("aa"))
    assert str(home.key_file("site.crt")) in refused.value.next_step
    assert f"mv {home.key_file('')} " not in refused.value.next_step


def checked(home: SiteHome) -> dict[str, object]:
    return dict(doctor_of(home, NOW).examine(lambda _: None))


def test_a_check_without_the_key_says_so_once_and_tries_the_rest(tmp_path: Path) -> None:
    home = Federation().joined(tmp_path / "home", "aa")
    home.key_file("site.key").unlink()
    rows = checked(home)
    missing = rows["keys"]
    assert isinstance(missing, ConfigError)
    assert missing.what.startswith(f"{home.key_file('site.key')} is missing")
    assert "restore" in missing.next_step
    for name in ("certificate", "connection", "coordinator"):
        assert isinstance(rows[name], Skipped), name
    assert "hardware" in rows
    with pytest.raises(ConfigError, match=r"site.key is missing"):
        home.own_files()


def test_a_check_that_cannot_connect_says_why_once(tmp_path: Path) -> None:
    rows = checked(Federation().joined(tmp_path / "home", "aa"))
    assert rows["home folder"] == f"{tmp_path / 'home'} can be written, and has locks"
    assert isinstance(rows["keys"], CheckWarning)  # the test has written them for everybody
    failed = rows["connection"]
    assert isinstance(failed, LinkError)
    assert failed.next_step.startswith("compare [link] coordinator in site.toml with the invitation")
    assert rows["coordinator"] == Skipped("the connection must be right first")


@pytest.mark.parametrize("name", ["authority.crt", "site.crt", "site.key"])
@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_damaged_key_file_fails_a_check_and_stops_none(name: str, content: bytes, tmp_path: Path) -> None:
    home = Federation().joined(tmp_path / "home", "aa")
    home.key_file(name).write_bytes(content)
    rows = checked(home)
    problems = [row for row in rows.values() if isinstance(row, FedcervixError) and not isinstance(row, ConfigError)]
    assert len(problems) == 1
    assert problems[0].next_step
    assert "a bug" not in problems[0].cause
    assert "hardware" in rows
