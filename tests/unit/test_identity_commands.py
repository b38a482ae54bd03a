"""How people let a site know its partners: `identity`, `pin`, `unpin`, `pins`; and `coordinator sites`."""

from __future__ import annotations

import json
import shlex
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec

import coordinator.cli
from coordinator.home.registry import Registry
from fedcervix.errors import ConfigError
from fedcervix.trust.fingerprints import Fingerprint
from site_agent.cli import cli
from site_agent.home import SiteHome
from site_agent.store.run_store import RunStore
from tests.unit.coordinator_homes import made
from tests.unit.fake_link import RUN, plan
from tests.unit.test_joining import Federation

KEY = ec.derive_private_key(5, ec.SECP256R1()).public_key()
ALTS, OTHER = Fingerprint.of(KEY), Fingerprint(bytes(32))
TYPO = " ".join(ALTS.words).replace(ALTS.words[4], "x" + ALTS.words[4], 1)


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    return Federation().joined(tmp_path / "home", "nhs")


def call(home: SiteHome, *words: str) -> Result:
    return CliRunner().invoke(cli, ["--home", str(home.folder), *words])


def test_a_site_shows_its_key_in_both_forms(home: SiteHome) -> None:
    own = Fingerprint(bytes.fromhex(home.certificate().key_fingerprint))
    text = call(home, "identity").output
    assert "site nhs of federation cervix; certificate until 20" in text
    for line in own.lines():
        assert f"  {line}\n" in text
    document = json.loads(call(home, "identity", "--json").output)
    assert (document["site"], document["federation"], document["fingerprint"]) == ("nhs", "cervix", own.hex)
    assert Fingerprint.parse(" ".join(document["words"])) == own


def test_what_one_site_shows_another_one_can_type(home: SiteHome) -> None:
    for typed in (ALTS.hex, ALTS.groups, " ".join(ALTS.words), "  ".join(ALTS.words).upper()):
        result = call(home, "pin", "alts", *shlex.split(typed))
        assert result.exit_code == 0, result.output
        assert f"alts: pinned: {ALTS.groups}" in result.output
        assert tomllib.loads(home.config_file.read_text())["pins"] == {"alts": ALTS.groups}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("pin", "alts", *TYPO.split()), f"word 5, 'x{ALTS.words[4]}', is not in the word list: did you mean"),
        (("pin", "alts", ALTS.hex[:-2]), "64 hexadecimal digits; found 62"),
        (("pin", "Alts", ALTS.hex), "a name is 1 to 63 characters"),
        (("pin", "alts"), "Missing argument"),
    ],
)
def test_what_is_mistyped_is_named_and_nothing_is_written(home: SiteHome, words: tuple[str, ...], says: str) -> None:
    before = home.config_file.read_text()
    result = call(home, *words)
    assert isinstance(result.exception, click.UsageError | SystemExit)
    assert says in " ".join(result.output.split()) + str(result.exception)
    assert home.config_file.read_text() == before


def test_a_site_does_not_pin_itself(home: SiteHome) -> None:
    error = call(home, "pin", "nhs", ALTS.hex).exception
    assert isinstance(error, ConfigError)
    assert error.next_step.endswith(home.command("identity"))


def test_one_key_is_not_pinned_under_two_names(home: SiteHome) -> None:
    call(home, "pin", "alts", ALTS.hex)
    error = call(home, "pin", "cuba", ALTS.hex).exception
    assert isinstance(error, ConfigError)
    assert "pinned already, as the one of alts" in error.what
    own = home.certificate().key_fingerprint
    error = call(home, "pin", "cuba", own).exception
    assert isinstance(error, ConfigError)
    assert "of this site itself, not of cuba" in error.what
    assert home.pins().keys == {"alts": ALTS}


def test_a_pin_that_replaces_another_one_says_so(home: SiteHome) -> None:
    call(home, "pin", "alts", OTHER.hex)
    assert f"was pinned before, to another key: {OTHER.groups}" in call(home, "pin", "alts", ALTS.hex).output
    assert "another key" not in call(home, "pin", "alts", ALTS.hex).output


def test_a_pin_is_taken_back(home: SiteHome) -> None:
    call(home, "pin", "alts", ALTS.hex)
    assert "not pinned any more" in call(home, "unpin", "alts").output
    assert home.pins().keys == {}
    error = call(home, "unpin", "alts").exception
    assert isinstance(error, ConfigError)
    assert error.what == "alts is not pinned here"


def test_a_pin_that_a_person_has_written_in_another_way_is_left_to_that_person(home: SiteHome) -> None:
    text = home.config_file.read_text().partition("[pins]")[0]
    home.config_file.write_text(f'pins.alts = "{ALTS.hex}"\n' + text)
    assert home.pins().keys == {"alts": ALTS}
    error = call(home, "unpin", "alts").exception
    assert isinstance(error, ConfigError)
    assert "does not find the line" in error.what
    assert home.pins().keys == {"alts": ALTS}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('alts = "topmost"', "pins.alts: a fingerprint has 32 words; found 1"),
        ('alts = ""', "pins.alts: a fingerprint has 32 words; found 0"),
        (f'"al ts" = "{ALTS.hex}"', "pins.al ts: not a site's name"),
        ("alts = 3", "pins.alts: expected a valid string; found 3"),
    ],
)
def test_a_wrong_line_of_site_toml_is_named(home: SiteHome, line: str, says: str) -> None:
    home.config_file.write_text(f"[pins]\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        home.config()
    assert says in caught.value.what


def test_partners_are_listed_with_the_keys_of_the_last_run(home: SiteHome) -> None:
    assert "no partner is pinned here" in call(home, "pins").output
    store = RunStore(home.run_folder(RUN))
    store.open(plan())
    assert "alts: not pinned; no key of it was told yet" in call(home, "pins").output
    store.keep_keys({"alts": KEY})
    assert f"alts: not pinned; in run {RUN}: {ALTS.groups}" in call(home, "pins").output
    call(home, "pin", "alts", OTHER.hex)
    assert f"alts: pinned: {OTHER.groups}; ANOTHER KEY in run {RUN}: {ALTS.groups}" in call(home, "pins").output
    call(home, "pin", "alts", ALTS.hex)
    assert f"alts: pinned: {ALTS.groups}; the same in run {RUN}" in call(home, "pins").output
    assert "nhs" not in call(home, "pins").output.replace(str(home.folder), "")
    assert f"run {RUN} has no site of this name: is it misspelt?" in call(home, "pin", "atls", OTHER.hex).output


def test_the_operator_can_read_out_the_key_of_a_site_that_has_joined(tmp_path: Path) -> None:
    home, now = made(tmp_path), datetime.now(UTC)
    end = now + timedelta(days=90)
    registry = Registry(home.registry)
    registry.invite("alts", "1", end, now)
    registry.redeem("1", ALTS.hex, lambda: (b"certificate", "2", end), now)
    registry.invite("nhs", "3", end, now)
    text = CliRunner().invoke(coordinator.cli.cli, ["--home", str(home.folder), "sites"]).output
    assert "alts: joined; its certificate is from" in text
    assert text.count("  ") == len(ALTS.lines())
    for line in ALTS.lines():
        assert f"  {line}\n" in text
    assert f"nhs: invited {now:%Y-%m-%d %H:%M}; the invitation can be used until" in text
