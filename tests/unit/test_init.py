"""`coordinator init`: all of a home or nothing, and every key of the chosen profile behind a `#`."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest
from cryptography import x509

from coordinator.home import founding
from coordinator.home.founding import Founding
from coordinator.home.home import Home
from coordinator.home.template import REMARKS, coordinator_toml
from fedcervix.core.plan import Augment, ClassifierRecipe, Recipe, Terms
from fedcervix.core.profiles import PROFILES
from fedcervix.errors import ConfigError, FedcervixError, RunError, StorageError
from tests.unit.coordinator_homes import made


def uncommented(text: str) -> str:
    """The text with every `# key = value` line taken for real, but `base`, which names no file."""
    return re.sub(r"(?m)^# (?!base)([a-z_]+ = )", r"\1", text)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_key_behind_a_hash_stands_at_the_default_of_the_chosen_profile(tmp_path: Path, profile: str) -> None:
    home = made(tmp_path / "home", profile=profile)
    plain = home.plan("csfssl")
    home.config_file.write_text(uncommented(home.config_file.read_text()))
    plan = home.plan("csfssl")
    quorum = dataclasses.replace(plan.terms, quorum=None)  # its default, "left out", cannot be written down
    assert dataclasses.replace(plan, terms=quorum) == plain
    assert (plain.recipe, plain.terms) == (PROFILES[profile].recipe, PROFILES[profile].terms)


def test_every_key_there_is_is_written_and_every_remark_is_of_a_key() -> None:
    text = coordinator_toml(name="n", bind="b:1", advertise="a:1", sites=("x",), profile="paper")
    run = tomllib.loads(uncommented(text))["run"]
    recipe = run["recipe"]
    for table, schema in ((run["terms"], Terms), (recipe, Recipe)):
        assert table.keys() == {field.name for field in dataclasses.fields(schema)}
    assert recipe["augment"].keys() == {field.name for field in dataclasses.fields(Augment)}
    assert recipe["classifier"].keys() == {field.name for field in dataclasses.fields(ClassifierRecipe)}
    for path in REMARKS:
        table = tomllib.loads(uncommented(text).replace("# base", "base"))
        for part in path.split("."):
            table = table[part]


WRONG = [
    ({"name": "Cervix 1"}, "--name", "cervix-1"),
    ({"sites": ("NHS", "alts")}, "--sites", "nhs,alts"),
    ({"sites": ("nhs", "nhs")}, "--sites", ""),
    ({"sites": ()}, "--sites", ""),
    ({"profile": "papper"}, "--profile", "paper"),
    ({"advertise": "::1:18446"}, "--advertise", ""),
    ({"advertise": "https://federation.example.org"}, "--advertise", ""),
    ({"bind": "[::1]"}, "--bind", ""),
    ({"bind": '127.0.0.1:8443"\n'}, "--bind", ""),
]


@pytest.mark.parametrize(("told", "option", "mended"), WRONG)
def test_a_mistake_is_named_before_anything_is_written(
    tmp_path: Path, told: dict[str, str], option: str, mended: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        made(tmp_path / "above" / "home", **told)
    assert caught.value.what.startswith(option)
    assert mended in caught.value.next_step
    assert list(tmp_path.iterdir()) == []
    made(tmp_path / "above" / "home")  # and the right command works


@pytest.mark.parametrize("there", [False, True], ids=["no folder", "an empty folder"])
def test_what_breaks_while_it_is_written_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """A disk that fills up at the last file."""
    home = tmp_path / "above" / "home"
    if there:
        home.mkdir(parents=True)

    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(founding, "certify_self", full)
    with pytest.raises(StorageError):
        made(home)
    assert [path.name for path in tmp_path.rglob("*")] == (["above", "home"] if there else [])
    monkeypatch.undo()
    assert made(home).plan("csfssl").sites == ("nhs", "alts")


def test_a_folder_that_is_there_and_empty_is_filled(tmp_path: Path) -> None:
    """A mount point cannot be replaced."""
    assert sorted(path.name for path in made(tmp_path).folder.iterdir()) == ["coordinator.toml", "keys"]


def test_a_home_is_never_made_over_something_else(tmp_path: Path) -> None:
    made(tmp_path / "home")
    with pytest.raises(RunError, match="is already a coordinator's home"):
        made(tmp_path / "home")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "site.toml").touch()
    with pytest.raises(RunError, match=r"is not empty: site.toml"):
        made(tmp_path / "site")
    (tmp_path / "file").touch()
    with pytest.raises(FedcervixError):
        made(tmp_path / "file")


def test_only_its_owner_can_read_a_home(tmp_path: Path) -> None:
    home = made(tmp_path / "home")
    for path in (home.folder, *home.folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize(
    ("advertise", "bind", "ips"),
    [
        ("[2001:db8::7]:8443", "[::]:8443", {"2001:db8::7", "::1", "127.0.0.1"}),
        ("federation.example.org:8443", "192.0.2.7:8443", {"192.0.2.7", "::1", "127.0.0.1"}),
    ],
)
def test_the_certificate_names_every_host_that_is_dialled(
    tmp_path: Path, advertise: str, bind: str, ips: set[str]
) -> None:
    """By sites the advertised one, by commands on this machine the one that is listened on."""
    home = made(tmp_path / "home", advertise=advertise, bind=bind)
    certificate = x509.load_pem_x509_certificate(home.pem("server.crt"))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(ip) for ip in names.get_values_for_type(x509.IPAddress)} == ips
    assert home.address() == advertise


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ((), "does not exist"),
        (("x",), "holds no coordinator.toml"),
        (("site.toml",), "is a site's home"),
        (("keys/authority.key",), "holds a federation's keys, but no coordinator.toml"),
    ],
)
def test_what_is_no_home_is_named_for_what_it_is(tmp_path: Path, content: tuple[str, ...], words: str) -> None:
    for name in content:
        (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / name).touch()
    with pytest.raises(ConfigError) as caught:
        Home(tmp_path / "home").config()
    assert words in caught.value.what


def test_founding_is_checked_when_it_is_built() -> None:
    with pytest.raises(ConfigError):
        Founding(name="", advertise="a:1", bind="b:1", sites=("x",), profile="paper")
