"""TOML to checked values. Every complaint names file, key, what was expected, what was found, and the nearest key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fedcervix.core.plan import Plan, Recipe, Terms, check
from fedcervix.core.profiles import PROFILES
from fedcervix.errors import ConfigError
from fedcervix.runtime.config import apply_profile, build, read_toml

SOURCE = Path("home/coordinator.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    bind: str
    port: int = 8443

    def __post_init__(self) -> None:
        check(self.port > 0, f"port is above 0; found {self.port}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    listen: Listen
    sites: tuple[str, ...] = ()
    share: float = 0.5
    tables: dict[str, Any] = field(default_factory=dict)


def complaint(raw: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        build(Settings, raw, source=SOURCE)
    return caught.value.what


def test_a_table_becomes_a_value_with_its_defaults() -> None:
    raw = {"listen": {"bind": "0.0.0.0"}, "sites": ["ada", "bob"], "tables": {"a": {"b": 1}}}
    assert build(Settings, raw, source=SOURCE) == Settings(
        listen=Listen(bind="0.0.0.0"), sites=("ada", "bob"), tables={"a": {"b": 1}}
    )


def test_a_whole_number_does_for_a_real_one_but_not_the_other_way() -> None:
    assert build(Settings, {"listen": {"bind": "x"}, "share": 1}, source=SOURCE).share == 1.0
    assert complaint({"listen": {"bind": "x", "port": 1.5}}) == (
        "home/coordinator.toml: listen.port: expected a valid integer; found 1.5"
    )


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({}, "key `listen` is missing"),
        ({"listen": {}}, "key `listen.bind` is missing"),
        ({"listen": 5}, "listen: expected an object; found 5"),
        ({"listen": {"bind": "x", "prot": 1}}, "unknown key `listen.prot` (did you mean `port`?)"),
        ({"listen": {"bind": "x"}, "site": []}, "unknown key `site` (did you mean `sites`?)"),
        (
            {"listen": {"bind": "x"}, "zebra": 1},
            "unknown key `zebra` (known: listen, sites, share, tables)",
        ),
        (
            {"listen": {"bind": "x", "port": "8443"}},
            'listen.port: expected a valid integer; found the text "8443": remove the quotation marks',
        ),
        ({"listen": {"bind": "x", "port": True}}, "listen.port: expected a valid integer; found True"),
        ({"listen": {"bind": 5}}, "listen.bind: expected a valid string; found 5"),
        ({"listen": {"bind": "x", "port": 0}}, "listen.port is above 0; found 0"),
        ({"listen": {"bind": "x"}, "sites": "ada"}, "sites: expected a valid array; found 'ada'"),
        ({"listen": {"bind": "x"}, "sites": ["ada", 5]}, "sites.1: expected a valid string; found 5"),
        ({"listen": {"bind": "x"}, "share": float("inf")}, "share: expected a valid number; found 'Infinity'"),
        ({"listen": {"bind": "x"}, "share": float("nan")}, "share: expected a valid number; found 'NaN'"),
        ({"listen": {"bind": "x"}, "share": [float("nan")]}, "share: expected a valid number; found ['NaN']"),
    ],
)
def test_a_complaint_names_file_key_expected_and_found(raw: dict[str, Any], words: str) -> None:
    assert complaint(raw) == f"home/coordinator.toml: {words}"


def test_several_complaints_are_made_at_once_one_line_each() -> None:
    assert complaint({"listen": {"bind": 5, "prot": 1}, "share": "x"}).splitlines() == [
        "home/coordinator.toml: listen.bind: expected a valid string; found 5",
        "home/coordinator.toml: unknown key `listen.prot` (did you mean `port`?)",
        "home/coordinator.toml: share: expected a valid number; found 'x'",
    ]


def test_a_complaint_says_what_to_do() -> None:
    with pytest.raises(ConfigError) as caught:
        build(Settings, {}, source=SOURCE)
    assert caught.value.explain().splitlines()[1:] == [
        "  likely cause: a key that was deleted or misspelt",
        "  next: edit home/coordinator.toml (every key is explained in docs/configuration.md)",
    ]


# --- files --------------------------------------------------------------------------------------------------------


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text('[listen]\nbind = "é"\n', encoding="utf-8")
    assert read_toml(tmp_path / "x.toml") == {"listen": {"bind": "é"}}


def test_a_missing_file_names_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"x\.toml does not exist") as caught:
        read_toml(tmp_path / "x.toml", hint="coordinator init HOME")
    assert caught.value.next_step == "coordinator init HOME"


@pytest.mark.parametrize("content", [b"[listen\n", b"a = \n", b"a = 1\na = 2\n", b"a = 'x\n"])
def test_a_file_that_is_not_toml_names_the_place(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.toml is not valid TOML: ") as caught:
        read_toml(tmp_path / "x.toml")
    assert caught.value.next_step.startswith("edit ")


@pytest.mark.parametrize("text", ["a = 1\na = 2\n", "[a]\n[a]\n"])
def test_a_key_that_is_there_twice_is_called_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_toml(tmp_path / "x.toml")
    assert "twice" in caught.value.cause


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*: Is a directory") as caught:
        read_toml(tmp_path)
    assert "names a folder" in caught.value.cause
    assert caught.value.next_step.startswith("check the path: ls -la ")


# --- profiles -----------------------------------------------------------------------------------------------------


def profile(name: str = "paper", recipe: dict[str, Any] | None = None, terms: dict[str, Any] | None = None) -> Any:
    return apply_profile(name, recipe or {}, terms or {}, source=SOURCE)


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_without_overrides_is_itself(name: str) -> None:
    assert profile(name) == PROFILES[name]


def test_single_keys_are_laid_over_a_profile_table_by_table() -> None:
    found = profile("recommended", {"lr": 0.5, "augment": {"shift": 0.2}}, {"rounds": 7, "lease_s": 30})
    assert found.recipe.lr == 0.5
    assert (found.recipe.augment.shift, found.recipe.augment.rotation_deg) == (0.2, 180.0)
    assert (found.terms.rounds, found.terms.lease_s) == (7, 30.0)


def test_a_whole_number_for_seconds_gives_the_same_contract_as_a_real_one() -> None:
    def digest(lease_s: float) -> str:
        terms = profile(terms={"lease_s": lease_s}).terms
        return Plan(mode="csfssl", sites=("ada",), profile="paper", terms=terms, recipe=Recipe()).digest

    assert digest(60) == digest(60.0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "papre"}, "profile must be one of paper, recommended, demo; found 'papre' (did you mean `paper`?)"),
        ({"name": "x"}, "profile must be one of paper, recommended, demo; found 'x' (known: paper, recommended, demo)"),
        ({"recipe": {"temprature": 1}}, "unknown key `recipe.temprature` (did you mean `temperature`?)"),
        ({"recipe": {"augment": {"zom_min": 1}}}, "unknown key `recipe.augment.zom_min` (did you mean `zoom_min`?)"),
        ({"recipe": {"augment": 5}}, "recipe.augment: expected an object; found 5"),
        ({"recipe": {"head": "rely"}}, "recipe.head: expected 'relu', 'linear' or 'mlp'; found 'rely'"),
        ({"recipe": {"lr": float("inf")}}, "recipe.lr: expected a valid number; found 'Infinity'"),
        ({"recipe": {"lr": -1}}, "recipe.lr must be above 0; found -1.0"),
        ({"recipe": {"classifier": {"momentum": 1}}}, "recipe.classifier.momentum must be 0 to below 1; found 1.0"),
        ({"recipe": {"precision": "half"}}, "recipe.precision: expected 'float32', 'bfloat16' or 'auto'; found 'half'"),
        ({"recipe": {"schedule": "step"}}, "recipe.schedule: expected 'constant' or 'cosine'; found 'step'"),
        ({"recipe": {"warmup_epochs": -1}}, "recipe.warmup_epochs must be 0 to 1000; found -1.0"),
        (
            {"recipe": {"proximal": "0.1"}},
            'recipe.proximal: expected a valid number; found the text "0.1": remove the quotation marks',
        ),
        ({"terms": {"server_momentum": 1}}, "terms.server_momentum must be 0 to below 1; found 1.0"),
        ({"terms": {"grace_s": float("inf")}}, "terms.grace_s: expected a valid number; found 'Infinity'"),
        ({"terms": {"quorum": 0}}, "terms.quorum must be 1 or more; found 0"),
        ({"terms": {"rounds": 2.5}}, "terms.rounds: expected a valid integer; found 2.5"),
    ],
)
def test_complaints_about_overrides(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        profile(**given)
    assert caught.value.what == f"home/coordinator.toml: {words}"


def test_every_plan_that_a_configuration_gives_has_a_contract() -> None:
    found = profile("demo")
    assert isinstance(found.terms, Terms)
    assert Plan(mode="csfssl", sites=("ada",), profile="demo", terms=found.terms, recipe=found.recipe).digest


def test_a_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    """Notepad and PowerShell write one."""
    (tmp_path / "x.toml").write_bytes(b"\xef\xbb\xbf[listen]\r\nbind = '\xc3\xa9'\r\n")
    assert read_toml(tmp_path / "x.toml") == {"listen": {"bind": "é"}}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("[a]\nb = 'é'\n".encode("utf-16"), "UTF-16 (line 1)"),
        ("[a]\nb = 'é'\n".encode("cp1252"), "an encoding that is not UTF-8 (line 2)"),
    ],
)
def test_another_encoding_is_named(tmp_path: Path, content: bytes, found: str) -> None:
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(ConfigError, match="is written in") as caught:
        read_toml(tmp_path / "x.toml")
    assert found in caught.value.what
    assert "UTF-8" in caught.value.next_step


@pytest.mark.parametrize("content", ["a = " + "[" * 5000, "a = " + "9" * 5000, "a = 1\x00"])
def test_no_content_is_too_strange_for_words(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.toml").write_text(content)
    with pytest.raises(ConfigError, match="is not valid TOML"):
        read_toml(tmp_path / "x.toml")
