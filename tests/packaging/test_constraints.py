"""The constraint files hold all that pyproject.toml asks for, with hashes, in the versions that the tests run with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tools.constraints import ALL, CUDA, FOLDER, FROM_TORCH, PROFILES, pins, read

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]


def asked(extras: tuple[str, ...]) -> list[Requirement]:
    """What pyproject.toml asks for, with the extras of these extras."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    for extra in extras:
        for line in PROJECT["optional-dependencies"][extra]:
            wanted = Requirement(line)
            found += asked(tuple(wanted.extras)) if wanted.name == PROJECT["name"] else [wanted]
    return found


@pytest.mark.parametrize("name", ALL)
def test_each_requirement_has_a_version_that_pyproject_admits(name: str) -> None:
    profile = ALL[name]
    held = read(name)
    apart = () if profile.cuda else FROM_TORCH
    for wanted in asked(profile.extras):
        if wanted.name not in apart:
            assert wanted.name in held, f"{wanted.name} is not in {name}.txt: make constraints"
            assert all(wanted.specifier.contains(version) for version in held[wanted.name]), wanted


@pytest.mark.parametrize("name", ALL)
def test_each_version_has_hashes_and_no_file_names_an_index(name: str) -> None:
    text = (FOLDER / f"{name}.txt").read_text("utf-8")
    entries = re.split(r"(?m)^(?=[a-z])", text.replace("\\\n", " "))
    assert not re.search(r"(?m)://|--index|--extra|--find|^ *#", text)
    assert all("--hash=sha256:" in entry for entry in entries if entry.strip())


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_has_no_version_that_the_tests_do_not_run_with(name: str) -> None:
    tested = read("dev")
    assert {package: versions for package, versions in read(name).items() if not versions <= tested[package]} == {}


def test_a_site_without_a_gpu_gets_what_a_site_with_one_gets_less_cuda() -> None:
    with_gpu, without = read("site-cuda"), read("site-cpu")
    assert {name for name in with_gpu if name not in without} == {
        name for name in with_gpu if CUDA.fullmatch(name) or name in FROM_TORCH
    }
    assert without.items() <= with_gpu.items()
    assert not any(CUDA.fullmatch(name) for name in read("coordinator"))


def test_versions_of_several_pythons_are_all_read() -> None:
    text = "numpy==1.0 ; python_full_version < '3.12' \\\n    --hash=sha256:aa\nnumpy==2.0 \\\n    --hash=sha256:bb\n"
    assert pins(text) == {"numpy": {"1.0", "2.0"}}
