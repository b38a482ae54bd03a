"""What `deploy/` tells an operator is true: samples load, units and commands exist, tables are complete."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from coordinator.cli import cli as coordinator
from coordinator.home.home import Home
from fedcervix.core.plan import Augment, ClassifierRecipe, Recipe, Terms
from fedcervix.core.profiles import PROFILES
from fedcervix.core.rounds.state import Outcome, Phase, Presence
from fedcervix.errors import EXIT_CODES
from site_agent.cli import cli as site_agent
from site_agent.home import DataSection, HardwareSection, LinkSection, Policy, SiteHome
from tests.unit.test_privacy import OUTWARD_KEYS
from tools.constraints import FROM_TORCH, read
from tools.constraints import PROFILES as PACKAGED

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RUNBOOK = (DEPLOY / "RUNBOOK.md").read_text("utf-8")
COMMANDS = {"coordinator": coordinator, "site-agent": site_agent}
SERVICE_COMMANDS = {"coordinator": "coordinator", "site": "site-agent"}
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
    "packages"
]


# --- sample configurations ----------------------------------------------------------------------------------------


def uncommented(sample: str) -> str:
    """A sample with every `# key = value` line taken for real."""
    return re.sub(r"(?m)^# ([a-z_]+ = )", r"\1", (DEPLOY / "samples" / sample).read_text("utf-8"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    shutil.copy(DEPLOY / "samples" / "coordinator.toml", tmp_path)
    return Home(tmp_path)


@pytest.fixture
def site_home(tmp_path: Path) -> SiteHome:
    shutil.copy(DEPLOY / "samples" / "site.toml", tmp_path)
    return SiteHome(tmp_path)


def test_the_sample_of_a_coordinator_is_the_papers_plan(home: Home) -> None:
    plan = home.plan("csfssl")

    assert (plan.sites, plan.profile) == (("nhs", "alts"), "paper")
    assert (plan.recipe, plan.terms) == (PROFILES["paper"].recipe, PROFILES["paper"].terms)


def test_every_key_behind_a_hash_stands_at_its_default(home: Home) -> None:
    home.config_file.write_text(uncommented("coordinator.toml"))
    plan = home.plan("ppfssl")

    assert plan.recipe == Recipe()
    assert plan.terms == Terms(quorum=2)  # its default, "left out", cannot be written down


def test_the_sample_of_a_coordinator_has_every_key() -> None:
    run = tomllib.loads(uncommented("coordinator.toml"))["run"]
    recipe = run["recipe"]

    assert run["terms"].keys() == names(Terms)
    assert recipe.keys() == names(Recipe)
    assert recipe["augment"].keys() == names(Augment)
    assert recipe["classifier"].keys() == names(ClassifierRecipe)


def test_the_sample_of_a_site_loads_with_the_defaults(site_home: SiteHome) -> None:
    config = site_home.config()

    assert config.policy == Policy()
    assert config.hardware == HardwareSection()
    assert site_home.manifest() == Path("/srv/cervix/manifest.csv")


def test_the_sample_of_a_site_has_every_key_at_its_default(site_home: SiteHome) -> None:
    loaded = site_home.config()
    site_home.config_file.write_text(uncommented("site.toml"))
    sections = tomllib.loads(uncommented("site.toml"))

    assert site_home.config() == loaded
    for name, schema in (
        ("link", LinkSection),
        ("data", DataSection),
        ("hardware", HardwareSection),
        ("policy", Policy),
    ):
        assert sections[name].keys() == names(schema)


def names(schema: type) -> set[str]:
    return {field.name for field in dataclasses.fields(schema)}  # type: ignore[arg-type]


# --- systemd units ------------------------------------------------------------------------------------------------

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def settings(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def test_there_is_a_unit_for_each_role_and_for_each_page() -> None:
    assert [unit.name for unit in UNITS] == [
        "fedcervix-coordinator.service",
        "fedcervix-page.service",
        "fedcervix-site-page.service",
        "fedcervix-site.service",
    ]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_a_console_script_with_options_that_exist(unit: Path) -> None:
    program, *arguments = shlex.split(settings(unit)["ExecStart"][0])

    assert Path(program).name in SCRIPTS
    parse(COMMANDS[Path(program).name], arguments)


def person_acts() -> dict[str, set[int]]:
    """Return, by role, the codes after which a restart does not help: all that the runbook's sentence leaves out."""
    sentence = re.search(
        r"After the codes ([\d, and]+) the unit starts .*? A site's unit does this\s+after ([\d and]+), too",
        RUNBOOK,
        re.DOTALL,
    )
    assert sentence is not None
    again, at_sites = (set(map(int, re.findall(r"\d+", codes))) for codes in sentence.groups())
    all_others = EXIT_CODES.keys() - again - {0, 20, 130, 141}  # ended well, or somebody stopped it
    return {"coordinator": all_others, "site": all_others - at_sites}


PERSON_ACTS = person_acts()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_knows_its_exit_codes(unit: Path) -> None:
    found = settings(unit)
    final = {int(code) for code in found["RestartPreventExitStatus"][0].split()}

    assert found["SuccessExitStatus"] == ["20 130"]
    assert final == PERSON_ACTS["site" if "site" in unit.stem else "coordinator"]


def test_the_coordinators_unit_never_begins_a_run() -> None:
    """A mode in the unit would begin another run at the first reboot after the present one is over."""
    assert "--mode" not in settings(DEPLOY / "systemd" / "fedcervix-coordinator.service")["ExecStart"][0]


def test_only_the_agent_is_told_to_stop_and_it_outlives_a_worker_without_memory() -> None:
    found = settings(DEPLOY / "systemd" / "fedcervix-site.service")

    assert (found["KillMode"], found["KillSignal"], found["OOMPolicy"]) == (["mixed"], ["SIGTERM"], ["continue"])


def test_a_sites_page_sees_who_holds_the_agents_lock_and_writes_nothing() -> None:
    """`ProcSubset=pid` hides /proc/locks and the machine's boot number: a killed agent would count as running."""
    found = settings(DEPLOY / "systemd" / "fedcervix-site-page.service")

    assert "ProcSubset" not in found
    assert "ReadWritePaths" not in found
    assert found["ProtectSystem"] == ["strict"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_finds_nothing_to_complain_of(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    installed = tmp_path / unit.name
    installed.write_text(re.sub(r"(?m)^(ExecStart=)\S+", rf"\g<1>{program}", unit.read_text()))

    # man=no: a machine without manual pages is no fault of the unit
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", installed], capture_output=True, text=True)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_bounds_what_a_flood_can_use_up(unit: Path) -> None:
    found = settings(unit)

    assert int(found["LimitNOFILE"][0]) >= 65_536
    assert int(found["TasksMax"][0]) >= 2048
    assert found["MemoryMax"]
    assert found["LimitCORE"] == ["0"], "memory holds images, weights and keys"


# --- images and compose -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["coordinator", "site"])
def test_the_build_sees_every_package_and_nothing_else_of_the_checkout(role: str) -> None:
    lines = (DEPLOY / f"{role}.Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}

    assert "*" in lines
    assert {package.split("/")[0] for package in PACKAGES} <= allowed
    assert {"pyproject.toml", "README.md"} <= allowed
    assert "deploy/constraints" in allowed
    assert not allowed & {"tests", "docs", "deploy", "demo", ".git", "."}


@pytest.mark.parametrize("role", ["coordinator", "site"])
def test_an_image_runs_as_nobody_special_and_starts_a_console_script(role: str) -> None:
    text = (DEPLOY / f"{role}.Dockerfile").read_text()
    (entry,) = re.findall(r'(?m)^ENTRYPOINT \["(.*)"\]$', text)

    assert entry == SERVICE_COMMANDS[role]
    assert re.findall(r"(?m)^USER (.*)$", text) == ["10001:10001"]
    assert re.findall(r"(?m)^EXPOSE (.*)$", text) == (["8443"] if role == "coordinator" else [])
    assert "STOPSIGNAL SIGTERM" in text


def test_the_coordinators_image_gets_no_extras() -> None:
    text = (DEPLOY / "coordinator.Dockerfile").read_text()

    assert "[site]" not in text
    assert not re.search(r"(?m)^[^#]*torch", text)


def test_the_torch_that_a_site_without_a_gpu_installs_is_the_one_that_the_tests_run_with() -> None:
    text = (DEPLOY / "site.Dockerfile").read_text()
    held = read("site-cuda")

    (named,) = re.findall(r'TORCH="(.+)"', text)
    versions = [f"{name}=={version}" for name in FROM_TORCH for version in held[name]]
    assert named.split() == [f"{version}+cpu" for version in versions]
    assert " ".join(versions) in RUNBOOK
    (usual,) = re.findall(r"(?m)^ARG PROFILE=(.*)$", text)
    assert usual in PACKAGED


def blocks(text: str) -> Any:
    """Read the YAML that compose.yaml is written in: mappings and lists of scalars, two spaces a level."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    value, rest = block(lines, 0)
    assert not rest, f"not in its place: {rest[0]}"
    return value


def block(lines: list[str], depth: int) -> tuple[Any, list[str]]:
    indent = "  " * depth
    items: list[str] = []
    table: dict[str, Any] = {}
    while lines and lines[0].startswith(indent) and lines[0][len(indent)] != " ":
        line, lines = lines[0].strip(), lines[1:]
        if line.startswith("- "):
            items.append(line[2:].strip('"'))
            continue
        key, colon, value = line.partition(":")
        assert colon, f"neither a key nor an item: {line}"
        assert key not in table, f"twice: {key}"
        table[key] = value.strip().strip('"')
        if not table[key]:
            table[key], lines = block(lines, depth + 1)
    assert not (items and table), "a list and a mapping in one"
    return items or table, lines


COMPOSE = (DEPLOY / "compose.yaml").read_text()


@pytest.mark.parametrize("service", ["coordinator", "site"])
def test_a_service_is_locked_down_and_keeps_its_state_outside(service: str) -> None:
    found = blocks(COMPOSE)["services"][service]

    assert (found["read_only"], found["cap_drop"], found["security_opt"]) == (
        "true",
        ["ALL"],
        ["no-new-privileges:true"],
    )
    assert found["tmpfs"] == ["/tmp"]
    assert found["restart"].startswith("on-failure")
    assert found["profiles"] == [service]
    assert any(volume.endswith(":/var/lib/fedcervix") for volume in found["volumes"])
    assert (DEPLOY.parent / found["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("service", ["coordinator", "site"])
def test_a_service_is_bounded_in_what_it_can_use_up(service: str) -> None:
    found = blocks(COMPOSE)["services"][service]

    assert found["mem_limit"] == found["memswap_limit"]
    assert int(found["pids_limit"]) >= 2048
    assert found["ulimits"] == {"nofile": "65536", "core": "0"}


@pytest.mark.parametrize("role", ["coordinator", "site"])
def test_the_base_image_can_be_named_by_its_digest(role: str) -> None:
    text = (DEPLOY / f"{role}.Dockerfile").read_text()

    assert set(re.findall(r"(?m)^FROM (\S+)", text)) == {"${BASE}"}
    assert "@sha256:" in text


def test_a_hospital_opens_no_port_and_its_images_are_read_only() -> None:
    services = blocks(COMPOSE)["services"]

    assert services["coordinator"]["ports"] == ["8443:8443"]
    assert "ports" not in services["site"]
    assert any(volume.endswith(":/data:ro") for volume in services["site"]["volumes"])


# --- the runbook --------------------------------------------------------------------------------------------------


def test_the_runbooks_exit_codes_are_the_programs() -> None:
    section = RUNBOOK.partition("## 12. Exit codes")[2].partition("\n## ")[0]
    rows = re.findall(r"(?m)^\| (\d+) \| (.*?) \| (.+) \|$", section)

    assert {int(code): meaning for code, meaning, _ in rows} == EXIT_CODES


@pytest.mark.parametrize("words", [Phase, Presence, Outcome])
def test_the_runbook_explains_every_state_and_no_other(words: type[Phase | Presence | Outcome]) -> None:
    first_cells = re.findall(r"(?m)^\| `(\w+)` \|", RUNBOOK)

    assert {word.value for word in words} <= set(first_cells)
    assert set(first_cells) == {word.value for group in (Phase, Presence, Outcome) for word in group}


def test_the_runbook_names_every_number_that_leaves_a_hospital() -> None:
    section = RUNBOOK.partition("## 14. What leaves a hospital")[2]
    numbers = re.search(r"- \*\*these numbers\*\*(.*?);", section, re.DOTALL)

    assert numbers is not None
    assert set(re.findall(r"`(\w+)`", numbers[1])) == OUTWARD_KEYS


def command_lines() -> Iterator[str]:
    """The lines of the runbook's shell blocks that call one of our commands, straight or in a container."""
    for shell in re.findall(r"(?ms)^```sh\n(.*?)^```$", RUNBOOK):
        yield from (
            line for line in shell.splitlines() if re.match(r"coordinator\b|site-agent\b|docker compose ", line)
        )


def test_the_runbook_shows_every_step_of_a_federation() -> None:
    shown = "\n".join(command_lines())

    for command in (
        "coordinator init",
        "coordinator begin",
        "coordinator runs",
        "coordinator invite",
        "site-agent join",
        "site-agent doctor",
    ):
        assert command in shown


@pytest.mark.parametrize("line", sorted(set(command_lines())))
def test_every_command_of_the_runbook_exists(line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] != "docker":
        parse(COMMANDS[words[0]], words[1:])
        return
    service = next(k for k, word in enumerate(words) if word in SERVICE_COMMANDS)
    inside = words[service + 1 :]
    if words[2] == "run":  # the image's entry point is the command
        parse(COMMANDS[SERVICE_COMMANDS[words[service]]], inside)
    elif words[2] == "exec":
        parse(COMMANDS[inside[0]], inside[1:])
    else:
        assert words[2] in ("build", "up")


def test_a_wrong_command_would_be_noticed() -> None:
    for wrong in (["begins"], ["begin"], ["start", "--mod", "csfssl"], ["start", "--mode", "fedavg"], ["invite"]):
        with pytest.raises((click.UsageError, AssertionError)):
            parse(coordinator, wrong)


def parse(command: click.Command, arguments: list[str]) -> None:
    """Read a command line as the program would, without running it. Raises click.UsageError, AssertionError."""
    if not isinstance(command, click.Group):
        command.make_context(command.name, list(arguments))
        return
    context = click.Context(command, info_name=command.name)
    _, rest, _ = command.make_parser(context).parse_args(list(arguments))
    if not rest:
        assert command.invoke_without_command or "--version" in arguments, f"{command.name} wants a command"
        return
    below = command.get_command(context, rest[0])
    assert below is not None, f"{command.name} has no command {rest[0]}"
    parse(below, rest[1:])


def test_every_file_that_the_runbook_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", RUNBOOK)

    assert links
    assert all((DEPLOY / link).is_file() for link in links)
    headings = {
        re.sub(r"[^\w -]", "", line[3:].lower()).replace(" ", "-") for line in RUNBOOK.splitlines() if line[:3] == "## "
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOK)) <= set(headings)


def test_nothing_in_deploy_is_for_root_or_names_a_package_index() -> None:
    texts = {path: path.read_text() for path in DEPLOY.rglob("*") if path.is_file() and os.access(path, os.R_OK)}

    assert not [path for path, text in texts.items() if re.search(r"index-url[= ]+http|--trusted-host", text)]
    assert [settings(unit)["User"] for unit in UNITS] == [["fedcervix"]] * len(UNITS)
