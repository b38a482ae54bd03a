"""What a command loads before it works: help, completion, mistakes and status wait for no library, and take no memory.

Every command of every program is found by itself. `benchmarks/startup.py` measures the seconds.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

import cervix_study.cli
import coordinator.cli
import site_agent.cli
from fedcervix.extras import EXTRA_OF
from site_agent.data.collection import UNREADABLE_MAX
from site_agent.phantom import INSTITUTIONS
from site_agent.phantom.scene import LOOKS

ROOT = Path(__file__).parents[2]
PROGRAMS: dict[str, tuple[str, click.Group]] = {
    "site-agent": ("site_agent.cli", site_agent.cli.cli),
    "coordinator": ("coordinator.cli", coordinator.cli.cli),
    "cervix-study": ("cervix_study.cli", cervix_study.cli.cli),
}
TRAINER = {"torch", "torchvision", "sklearn", "scipy", "matplotlib", "jinja2", "onnx", "onnxruntime", "submitit"}
LIBRARIES = TRAINER | {"numpy", "PIL", "pydantic", "cryptography", "grpc", "google.protobuf", "structlog", "rich"}
MEMORY_MB_MAX = 100

PROGRAM = """
import importlib, json, sys
module, name, calls = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
seen = []
for words in calls:
    sys.argv = [name, *words]
    code = 0
    try:
        importlib.import_module(module).main()
    except SystemExit as done:
        code = done.code
    with open("/proc/self/status") as status:
        peak_kb = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    seen.append({"code": code, "modules": sorted(sys.modules), "mb": peak_kb / 1024})
with open(sys.argv[0] + ".json", "w") as out:
    json.dump(seen, out)
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a process looked like after a command."""

    code: int
    modules: frozenset[str]
    mb: float
    said: str


def call(program: str, calls: list[list[str]], folder: Path, **environment: str) -> list[Seen]:
    """Call a program several times in one process."""
    module, _ = PROGRAMS[program]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, module, program, json.dumps(calls)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    found: list[dict[str, Any]] = json.loads((folder / f"{program}.json").read_text())
    return [Seen(one["code"], frozenset(one["modules"]), one["mb"], done.stdout + done.stderr) for one in found]


def helps(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[list[str]]:
    """Yield the words that ask for the help of a program and of each of its commands."""
    yield [*words, "--help"]
    for name, inner in command.commands.items() if isinstance(command, click.Group) else ():
        yield from helps(inner, (*words, name))


def assert_light(seen: Seen, words: object, absent: set[str] = LIBRARIES) -> None:
    assert not absent & seen.modules, f"{words} loads {sorted(absent & seen.modules)}"
    assert seen.mb < MEMORY_MB_MAX, f"{words} takes {seen.mb:.0f} MB"


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_and_mistakes_load_nothing(program: str, tmp_path: Path) -> None:
    asked = list(helps(PROGRAMS[program][1]))
    wrong = [[*words[:-1], "--no-such-option"] for words in asked] + [["--version"], ["no-such-command"], ["-h"]]
    seen = call(program, asked + wrong, tmp_path)
    for words, one in zip(asked + wrong, seen, strict=True):
        assert one.code == (2 if "no-such" in words[-1] else 0), words
        assert_light(one, words)


@pytest.mark.parametrize(
    ("program", "words", "found"),
    [
        ("site-agent", "site-agent ", "join"),
        ("site-agent", "site-agent data ", "sheet"),
        ("site-agent", "site-agent pretrain --re", "--recipe"),
        ("coordinator", "coordinator st", "status"),
        ("cervix-study", "cervix-study ", "report"),
    ],
)
def test_completion_loads_nothing(program: str, words: str, found: str, tmp_path: Path) -> None:
    asked = {
        f"_{program.upper().replace('-', '_')}_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    [seen] = call(program, [[]], tmp_path, **asked)
    assert found in seen.said
    assert_light(seen, words)


AT_THE_SITE = ([], ["check"], ["pretrain"], ["finetune"], ["sweep"], ["evaluate"], ["predict", "ssl", "x.png"])


def test_what_a_site_lacks_is_said_without_the_trainer(tmp_path: Path) -> None:
    """Nothing is there; then a home that has not joined; then no invitation and no manifest."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "site.toml").touch()
    nothing = [["--home", "none", *words] for words in AT_THE_SITE]
    new = [["--home", "home", *words] for words in ([], ["check"], ["evaluate"])]
    data = [["data", name, "none.csv", *more] for name, more in (("check", []), ("sheet", ["x.png"]))]
    others = [["join", "none.toml", "--home", "none"], *data]
    seen = call("site-agent", [*nothing, *new, *others], tmp_path)
    assert [one.code for one in seen] == [3] * len(nothing) + [3, 3, 10, 8, 4, 4]
    for words, one in zip([*nothing, *new, *others], seen, strict=True):
        assert_light(one, words, TRAINER)


def test_a_study_that_is_wrong_or_missing_is_said_without_the_trainer(tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text("nam = 3")
    calls = [["run", "none.toml"], ["run", "wrong.toml"], ["report", "none"], ["export", "none", "-o", "out"]]
    seen = call("cervix-study", calls, tmp_path)
    assert [one.code for one in seen] == [3, 3, 8, 10]
    for words, one in zip(calls, seen, strict=True):
        assert_light(one, words, TRAINER)


def test_a_coordinators_status_loads_neither_its_engine_nor_numbers(tmp_path: Path) -> None:
    calls = [["--home", "none", "status"], ["status", "--home", "home", "--json"], ["runs", "--home", "home"]]
    subprocess.run(
        [sys.executable, "-m", "coordinator", "--home", "home", "init"], cwd=tmp_path, capture_output=True, check=True
    )
    for words, one in zip(calls, call("coordinator", calls, tmp_path), strict=True):
        assert_light(one, words, TRAINER | {"numpy", "cryptography", "grpc"})


def test_a_study_is_reported_without_torch() -> None:
    modules = "cervix_study.analysis.analysis, cervix_study.report.compose"
    program = f"import sys, {modules}; print({{'torch', 'sklearn'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.strip() == "set()"


def test_what_is_declared_apart_from_the_work_is_what_the_work_has() -> None:
    assert site_agent.cli.UNREADABLE_MAX == UNREADABLE_MAX
    assert set(site_agent.cli.INSTITUTIONS) == set(INSTITUTIONS)
    assert tuple(LOOKS) == site_agent.cli.DRAWN_STAGES


# --- without the packages -----------------------------------------------------------------------------------------

LIGHT = """
import importlib.abc, sys
lacking = set(sys.argv[1].split(","))
class Light(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in lacking:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Light())
module, sys.argv = sys.argv[2], sys.argv[3:]
__import__(module, fromlist=["main"]).main()
"""
SITE = "jinja2,matplotlib,PIL,sklearn,scipy,torch,torchvision"


def light(lacking: str, program: str, words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Call a program where packages are not installed."""
    command = [sys.executable, "-c", LIGHT, lacking, PROGRAMS[program][0], program, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize(
    ("lacking", "extra", "program", "words"),
    [
        (SITE, "site", "site-agent", ["data", "check", "manifest.csv"]),
        (SITE, "site", "site-agent", ["--home", ".", "pretrain"]),
        (SITE, "site", "site-agent", ["--home", ".", "finetune"]),
        (SITE, "site", "site-agent", ["--home", ".", "sweep"]),
        (SITE, "site", "cervix-study", ["run", str(ROOT / "studies" / "phantom-mini.toml")]),
    ],
)
def test_a_missing_extra_is_one_line_that_works_in_this_checkout(
    lacking: str, extra: str, program: str, words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "site.toml").write_text("[data]\nmanifest = 'manifest.csv'\n")
    (tmp_path / "manifest.csv").write_text("image,patient,label\n")
    done = light(lacking, program, words, tmp_path)
    [line] = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (3, "")
    assert line.endswith(f"is not installed; next: {sys.executable} -m pip install '{ROOT}[{extra}]'")
    assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text()


def test_the_extra_of_a_package_is_the_one_that_brings_it() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    distributions = importlib.metadata.packages_distributions()
    for package, extra in EXTRA_OF.items():
        if package in distributions:  # a slim environment has not all of them
            named = {re.split(r"[<>=]", requirement)[0].lower() for requirement in extras[extra]}
            assert named & {name.lower().replace("_", "-") for name in distributions[package]}, package


def test_check_says_that_torch_is_missing(tmp_path: Path) -> None:
    (tmp_path / "site.toml").touch()
    done = light("torch", "site-agent", ["--home", ".", "doctor"], tmp_path)
    assert "FAULT   hardware: torch is not installed; next: " in done.stdout
    assert done.stderr.count("\n") == 1


# --- as it is called ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_is_also_called_as_a_module(program: str) -> None:
    for module in (PROGRAMS[program][0].partition(".")[0], PROGRAMS[program][0]):
        done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, timeout=100, check=True)
        assert done.stdout.strip()


def test_a_command_nearly_right_is_told_the_right_one(tmp_path: Path) -> None:
    for program, wrong, right in (("site-agent", "cheque", "check"), ("coordinator", "statsu", "status")):
        [seen] = call(program, [[wrong]], tmp_path)
        assert (seen.code, right in seen.said) == (2, True), seen.said


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_older_python_is_told_in_one_line(program: str) -> None:
    """What it would read first is in no newer syntax, so this one can stand in for it."""
    package = PROGRAMS[program][0].partition(".")[0]
    older = f"import sys; sys.version_info = (3, 8, 18); import {package}"
    done = subprocess.run([sys.executable, "-c", older], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"error: {program} needs Python 3.11 or newer; next: ")
    ast.parse((ROOT / package / "__init__.py").read_text(), feature_version=(3, 7))
