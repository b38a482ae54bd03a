"""The archive for support holds nothing that could name anybody, whatever a home is full of."""

from __future__ import annotations

import io
import json
import stat
import traceback
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import pytest
from click.testing import CliRunner, Result

import coordinator.cli
import site_agent.cli
from coordinator.home.founding import Founding
from coordinator.home.founding import create as create_coordinator
from coordinator.home.home import Home
from coordinator.home.registry import Registry
from fedcervix.disk.journal import Journal
from fedcervix.doctor import bundle
from fedcervix.doctor.findings import CheckResult
from fedcervix.doctor.own_words import HOLE, SourceTexts, own_trace, own_words, source_of
from fedcervix.doctor.plain_values import plain
from fedcervix.errors import RunError, StorageError
from fedcervix.transport import identity, invitations
from site_agent import home as homes
from site_agent.federation import incidents
from site_agent.home import SiteHome
from tests.unit.sites import plan_of

NOW = datetime.now(UTC)
CANARIES = (
    "Rosalind", "Quetzal", "1987654321", "MRN-55512", "kanarie", "sentinel.example", "secret-token-xyzzy", "gyn-ward-7",
    "zaphod", "brentano",
)  # fmt: skip
"""a name of a woman, of an image, two identifiers, a folder, a host, a token, a computer, a user, a site"""

SOURCE = source_of(
    [
        (
            "site_agent/a.py",
            '''
class OddError(Exception):
    """Docstrings are no texts of the program."""

def read(path, why):
    raise OddError(f"cannot read {path}: {why}")

SAID = "the disk is full, or nearly"
GREEN = "green"
TOLD = "the certificate of {site} has expired"
LONG = f"trained {1} rounds, " + "and all is well"
''',
        )
    ]
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("the disk is full, or nearly", "the disk is full, or nearly"),
        (
            "cannot read /home/Rosalind/1.png: the disk is full, or nearly",
            f"cannot read {HOLE}: the disk is full, or nearly",
        ),
        ("cannot read /a: No such file or directory", f"cannot read {HOLE}: No such file or directory"),
        ("the certificate of Rosalind has expired", f"the certificate of {HOLE} has expired"),
        ("trained 1987654321 rounds, and all is well", f"trained {HOLE} rounds, and all is well"),
        ("green", HOLE),
        ("Rosalind", HOLE),
        ("the disk is full, or nearly, says Rosalind", HOLE),
        ("Docstrings are no texts of the program.", HOLE),
        ("one\nthe disk is full, or nearly", f"{HOLE}\nthe disk is full, or nearly"),
        ("", ""),
    ],
    ids=range(11),
)
def test_of_a_text_only_what_stands_in_the_source_passes(text: str, said: str) -> None:
    assert own_words(text, (), SOURCE) == said


def test_a_person_may_let_a_word_pass() -> None:
    text = "the certificate of nhs has expired"
    assert own_words(text, ("nhs",), SOURCE) == text
    assert own_words("the certificate of nhsx has expired", ("nhs",), SOURCE) != text


def test_a_text_of_any_length_and_depth_is_answered() -> None:
    nested = "cannot read " * 200 + ": the disk is full, or nearly"
    assert own_words(nested, (), SOURCE).endswith(": the disk is full, or nearly")
    assert len(own_words(nested * 100, (), SOURCE)) < 10_000
    assert len(own_words("a: " * 100_000, (), SOURCE)) < 10_000


def test_of_a_trace_our_own_frames_pass() -> None:
    trace = (
        'Traceback (most recent call last):\n  File "/home/Rosalind/site_agent/a.py", line 7, in read\n'
        '    raise OddError(f"cannot read {path}")\n  File "/home/Rosalind/torch/x.py", line 9, in read\n'
        '  File "/x/site_agent/a.py", line 3, in Rosalind\n'
        "site_agent.a.OddError: cannot read Rosalind\nRosalind: x\nKeyError: 'Rosalind'\n"
    )
    assert own_trace(trace, SOURCE) == ("site_agent/a.py:7 read", "OddError", "KeyError")


def test_without_a_source_nothing_passes() -> None:
    empty = SourceTexts({}, frozenset(), frozenset(), frozenset())
    assert own_words("the disk is full, or nearly", (), empty) == HOLE


# --- values -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inner:
    host: str = "sentinel.example"
    choice: Literal["a", "b"] = "a"


@dataclass
class Outer:
    number: int = 3
    share: Annotated[float, "bounds"] = 0.5
    on: bool | None = True
    lied: int = "Rosalind"  # type: ignore[assignment]  # of a type that was not checked
    text: str = "Rosalind"
    none: str = ""
    some: tuple[str, ...] = ("Rosalind", "nhs")
    choices: tuple[Literal["x", "y"], ...] = ("x",)
    mixed: Literal["auto"] | str = "Rosalind"
    inner: Inner = Inner()
    table: dict[str, str] = field(default_factory=lambda: {"Rosalind": "Rosalind"})


def test_the_type_of_a_field_decides_what_passes() -> None:
    assert plain(Outer(), ("nhs",)) == {
        "number": 3,
        "share": 0.5,
        "on": True,
        "lied": "(set)",
        "text": "(set)",
        "none": "(empty)",
        "some": ["nhs", "(1 more values)"],
        "choices": ["x"],
        "mixed": "(set)",
        "inner": {"host": "(set)", "choice": "a"},
        "table": "(1 entries)",
    }
    assert plain(replace(Outer(), mixed="auto"))["mixed"] == "auto"


# --- whole archives -----------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "gyn-ward-7" / "Rosalind kanarie"
    folder.mkdir(parents=True)
    return folder


def keys_of(home: SiteHome) -> None:
    """Make keys and certificates of a site called brentano."""
    authority_key, key = identity.new_key(), identity.new_key()
    pem = identity.new_authority("kanarie", authority_key, NOW)
    who = identity.Identity("kanarie", "site", "brentano")
    authority = identity.Authority(pem, authority_key)
    home.key_file("site.key").write_bytes(key)
    home.key_file("authority.crt").write_bytes(pem)
    certificate = identity.issue(authority, identity.public_key(key), who, NOW, timedelta(days=90))
    home.key_file("site.crt").write_bytes(certificate)
    guest = identity.Identity("kanarie", "enroll", "brentano")
    pass_ = identity.issue(authority, identity.public_key(key), guest, NOW, timedelta(days=7))
    invited = invitations.Invitation("kanarie", "brentano", "sentinel.example:8443", pem, pass_, key)
    (home.folder / "brentano.invitation.toml").write_text(invited.to_toml())


@pytest.fixture
def site(place: Path) -> SiteHome:
    """Make a home that is full of canaries."""
    home = SiteHome(place / "home of zaphod")
    (place / "Quetzal").mkdir()
    rows = ["image,patient,label,Rosalind", "Quetzal/Rosalind-1987654321.png,MRN-55512,zaphod,kanarie"]  # no label
    (place / "manifest.csv").write_text("\n".join(rows))
    homes.create(home, coordinator="sentinel.example:1", manifest=place / "manifest.csv", ignore_columns=("Rosalind",))
    text = home.config_file.read_text()
    home.config_file.write_text(text + "\n")
    keys_of(home)
    incidents.record(
        home, "brentano", StorageError(f"cannot read {place}/Rosalind.png: zaphod", cause="MRN-55512"), at=7.0
    )
    try:
        json.loads("{Rosalind")
    except ValueError as wrong:
        trace = "".join(traceback.format_exception(wrong))
        (home.incidents / "INC-0123-4567.txt").write_text(f"zaphod\n  likely cause: kanarie\nwhile: x\n\n{trace}")
    (home.incidents / "INC-Rosalind.txt").write_text("Rosalind")
    for name in ("Rosalind-run", "20300101-120000-csfssl-0123abcd"):
        run = home.run_folder(name)
        run.mkdir(parents=True)
        (run / "plan.json").write_text(replace(plan_of(1), sites=("brentano", "zaphod")).canonical())
        (run / "outcome.txt").write_text("Rosalind" if "Ros" in name else "OK")
        (run / "history.jsonl").write_text('\n{"part": "Rosalind"}')
    (place / "agent.log").write_text("\n".join(log()))
    return home


def log() -> Iterator[str]:
    yield "12:00:00  site brentano of federation kanarie, coordinator sentinel.example:8443"
    yield "12:00:01  Rosalind Quetzal wrote this by hand"
    yield "12:00:02  sentinel.example:8443 cannot be reached (Connection refused); trying again automatically"
    yield '{"event": "update stored", "site": "brentano", "level": "info", "timestamp": "2030-01-01T12:03:04.567890Z"}'
    yield '{"event": "Rosalind", "what": "secret-token-xyzzy", "level": "Rosalind", "timestamp": "Rosalind"}'
    yield '  File "/home/zaphod/site_agent/home.py", line 12, in config'
    yield "-----BEGIN PRIVATE KEY-----"
    yield "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg"
    yield "{Rosalind"
    yield "\x00\xff Rosalind"


def call(cli: object, *words: object, code: int | None = None) -> Result:
    done = CliRunner().invoke(cli, [*map(str, words)])  # type: ignore[arg-type]
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert code in (None, done.exit_code), done.output
    return done


def content(file: Path) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(file.read_bytes())) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def assert_clean(found: dict[str, str], home: Path) -> None:
    for name, text in found.items():
        for canary in (*CANARIES, str(home), home.name, "BEGIN", "MIGH"):
            assert canary.lower() not in f"{name}\n{text}".lower(), f"{canary} in {name}"


@pytest.mark.timeout(300)
def test_the_archive_of_a_site_names_nobody(site: SiteHome, place: Path) -> None:
    file = place / "support.zip"
    options = ("doctor", "--bundle", file, "--log", place / "agent.log")
    done = call(site_agent.cli.cli, "--home", site.folder, *options)
    found = content(file)
    assert_clean(found, site.folder)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    listed = found["MANIFEST.txt"]
    assert listed.strip() in done.output, "it is shown before it is written"
    assert done.output.index(listed.strip()) < done.output.index("wrote ")
    for name in found:
        assert f"  {name} " in listed
    said = [line["says"] for line in json.loads(found["log.json"])]
    assert said[2] == f"{HOLE} cannot be reached (Connection refused); trying again automatically"
    assert said[3] == "update stored"
    assert said[5] == "site_agent/home.py:12 config"
    assert said[6:] == [HOLE] * 4
    [written, made] = sorted(json.loads(found["incidents.json"]), key=lambda one: str(one["says"]), reverse=True)
    assert {written["incident"], made["incident"]} > {"INC-0123-4567"}
    runs = json.loads(found["runs.json"])["runs"]
    assert [one["run"] for one in runs] == ["20300101-120000-csfssl-0123abcd", "(another form)"]
    assert [one["outcome"] for one in runs] == ["OK", "(another)"]
    assert json.loads(found["configuration.json"])["link"] == {"coordinator": "(set)"}
    states = {one["check"]: one["state"] for one in json.loads(found["checks.json"])}
    assert states["manifest"] == "fault"
    assert states["connection"] == "fault"

    again = CliRunner().invoke(site_agent.cli.cli, ["--home", str(site.folder), "doctor", "--bundle", str(file)])
    assert isinstance(again.exception, RunError)
    assert "exists already" in again.exception.what


@pytest.mark.timeout(300)
def test_what_a_person_lets_pass_is_in_the_archive_and_in_its_list(site: SiteHome, place: Path) -> None:
    file = place / "support.zip"
    call(site_agent.cli.cli, "--home", site.folder, "doctor", "--bundle", file, "--allow", "sentinel.example:1")
    found = content(file)
    assert json.loads(found["configuration.json"])["link"] == {"coordinator": "sentinel.example:1"}
    assert "with --allow: sentinel.example:1" in found["MANIFEST.txt"]
    assert "brentano" not in "".join(found.values())


@pytest.mark.timeout(300)
def test_the_archive_of_a_coordinator_names_nobody(place: Path) -> None:
    home = Home(place / "home of zaphod")
    told = Founding(
        name="kanarie",
        advertise="sentinel.example:8443",
        bind="127.0.0.1:0",
        sites=("brentano", "zaphod"),
        profile="demo",
    )
    create_coordinator(home, told, NOW)
    Registry(home.registry).invite("brentano", "1987654321", NOW + timedelta(days=1), NOW)
    Journal(home.journal).close()
    file = place / "support.zip"
    done = call(coordinator.cli.cli, "--home", home.folder, "doctor", "--bundle", file, code=0)
    found = content(file)
    assert_clean(found, home.folder)
    assert "brentano invited" in done.output
    assert json.loads(found["certificates.json"])["sites"][0]["state"] == "invited"
    assert json.loads(found["configuration.json"])["plan"]["sites"] == "(2 values)"


def test_names_of_files_stand_in_the_source_and_texts_are_json() -> None:
    checks = (CheckResult("a", "fault", "Rosalind", "Rosalind", "Rosalind", 3),)
    for file in (bundle.versions_file("site", NOW), bundle.checks_file(checks, ())):
        json.loads(file.text())
        assert file.purpose
        assert "Rosalind" not in file.text()


@pytest.mark.parametrize(
    ("version", "passes"),
    [("2.14.1", True), ("2.14.1+cu130", True), ("1.0rc1", True), ("1.0.post2", True), ("2.1+charite.berlin", False)],
    ids=["plain", "cuda", "candidate", "post", "a build of a hospital"],
)
def test_a_version_names_no_hospital(version: str, *, passes: bool) -> None:
    assert (bundle.version_of(version) == version) is passes
