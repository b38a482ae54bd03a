"""What the documents say of keys, commands and files is so."""

import dataclasses
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from cervix_study import settings as study_settings
from cervix_study.cli import cli as study_cli
from cervix_study.records import Hypothesis
from coordinator.cli import cli as coordinator_cli
from coordinator.home import home as coordinator_home
from fedcervix.core.plan import Augment, ClassifierRecipe, Recipe, Terms
from fedcervix.core.profiles import PROFILES
from fedcervix.core.rounds.state import Outcome
from fedcervix.errors import EXIT_CODES, EXIT_OF_OUTCOME
from fedcervix.notify import settings as notify_settings
from site_agent import home as site_home
from site_agent.cli import cli as site_cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)?(#[^)\s]+)?\)")
FENCE = re.compile(r"```sh\n(.*?)```", re.DOTALL)
SECTIONS = [
    coordinator_home.FederationSection,
    coordinator_home.ListenSection,
    coordinator_home.RunSection,
    notify_settings.NotifySection,
    notify_settings.WebhookSection,
    notify_settings.MailSection,
    site_home.LinkSection,
    site_home.DataSection,
    site_home.HardwareSection,
    site_home.Policy,
]


def anchor(heading: str) -> str:
    kept = re.sub(r"[^\w\s-]", "", heading.strip().lower())
    return "#" + kept.replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {anchor(line.lstrip("#")) for line in page.read_text().splitlines() if line.startswith("#")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, part in LINK.findall(page.read_text()):
        if target.startswith("http"):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.name}: {target}"
        if part and file.suffix == ".md":
            assert part in anchors(file), f"{page.name}: {target}{part}"


@pytest.mark.parametrize("schema", [Terms, Recipe, Augment, ClassifierRecipe, *SECTIONS], ids=lambda s: s.__name__)
def test_every_key_is_explained(schema: type) -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    missing = [f.name for f in dataclasses.fields(schema) if f"`{f.name}`" not in text and f".{f.name}]" not in text]
    assert missing == []


STUDY_SECTIONS = [
    study_settings.SiteSection,
    study_settings.Axes,
    Hypothesis,
    study_settings.NamedSection,
    study_settings.StudyDataSection,
    study_settings.MachineSection,
]


@pytest.mark.parametrize("schema", STUDY_SECTIONS, ids=lambda s: s.__name__)
def test_every_key_of_a_study_is_explained(schema: type) -> None:
    text = (ROOT / "docs" / "study.md").read_text()
    assert [field.name for field in dataclasses.fields(schema) if f"`{field.name}`" not in text] == []


@pytest.mark.parametrize("file", sorted((ROOT / "studies").glob("*.toml")), ids=lambda file: file.name)
def test_the_studies_to_copy_can_be_read(file: Path) -> None:
    found = study_settings.read(file)
    assert found.settings.name == file.stem
    assert f"`{file.name}`" in (ROOT / "docs" / "study.md").read_text() or file.stem == "phantom-mini"


def row_of(key: str, section: str) -> list[str]:
    """Return the cells of a key's row in a section of the page of keys."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    [part] = [p for p in re.split(r"\n(?=#+ )", text) if p.startswith(f"### [{section}]\n")]
    [row] = [line for line in part.splitlines() if line.startswith(f"| `{key}` |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def value_in(cell: str) -> object:
    return None if cell == "*unset*" else tomllib.loads(f"value = {cell.strip('`')}")["value"]


@pytest.mark.parametrize(
    ("section", "part"),
    [
        ("run.terms", lambda p: p.terms),
        ("run.recipe", lambda p: p.recipe),
        ("run.recipe.augment", lambda p: p.recipe.augment),
        ("run.recipe.classifier", lambda p: p.recipe.classifier),
    ],
)
def test_the_values_of_each_profile_are_right(section: str, part) -> None:
    for field in dataclasses.fields(part(PROFILES["paper"])):
        values = [getattr(part(PROFILES[name]), field.name) for name in ("paper", "recommended", "demo")]
        if not dataclasses.is_dataclass(values[0]):
            shown = [value_in(cell) for cell in row_of(field.name, section)[2:5]]
            assert shown == [list(value) if isinstance(value, tuple) else value for value in values]


def test_the_exit_codes_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "running.md").read_text()
    listed = {int(code) for code in re.findall(r"^\| `?(\d+)`? \|", text, re.MULTILINE)}
    assert listed == set(EXIT_CODES)
    assert set(EXIT_OF_OUTCOME) == set(Outcome)
    assert set(EXIT_OF_OUTCOME.values()) <= listed


PROGRAMS: dict[str, click.Command] = {
    "coordinator": coordinator_cli,
    "site-agent": site_cli,
    "cervix-study": study_cli,
}


def commands() -> list[tuple[str, str]]:
    return [
        (page.name, line)
        for page in PAGES
        for block in FENCE.findall(page.read_text())
        for line in block.replace("\\\n", " ").splitlines()
        if line.split(maxsplit=1)[:1] in (["coordinator"], ["site-agent"], ["cervix-study"])
    ]


@pytest.mark.parametrize(("page", "line"), commands(), ids=lambda value: value[:60])
def test_every_command_exists_with_its_options(page: str, line: str) -> None:
    program, *words = shlex.split(line, comments=True)
    command: click.Command = PROGRAMS[program]
    context = click.Context(command, info_name=program)
    while words and isinstance(command, click.Group):
        known = {option for parameter in command.params for option in parameter.opts}
        if words[0].startswith("-"):
            assert words[0] in known, f"{page}: {line}"
            takes = next(p for p in command.params if words[0] in p.opts)
            words = words[1:] if getattr(takes, "is_flag", False) else words[2:]
            continue
        below = command.get_command(context, words[0])
        assert below is not None, f"{page}: {line}"
        command, words = below, words[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("--") and word != "--help":
            assert word.split("=")[0] in known, f"{page}: {line}"
