"""`make lint` fails for a hole that is known, and says so where nobody could be asked."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.audit import verdict

ROOT = Path(__file__).parents[2]
SOUND: dict[str, Any] = {"name": "rich", "version": "15.0", "vulns": []}
HOLED: dict[str, Any] = {
    "name": "pillow",
    "version": "12.2",
    "vulns": [{"id": "CVE-1", "fix_versions": ["13.0"]}, {"id": "CVE-2", "fix_versions": []}],
}
UNKNOWN: dict[str, Any] = {"name": "torch", "skip_reason": "not found"}


def said(*packages: dict[str, Any]) -> tuple[int, str]:
    return verdict(json.dumps({"dependencies": packages}), "")


def test_a_known_hole_is_named_with_the_version_that_mends_it() -> None:
    code, words = said(SOUND, HOLED, UNKNOWN)
    assert code == 1
    assert "pillow 12.2: CVE-1, fixed in 13.0" in words
    assert "CVE-2, fixed in no version yet" in words
    assert "2 known holes in 2 of 3 packages" in words


def test_no_hole_is_no_failure() -> None:
    assert said(SOUND) == (0, "pip-audit: 0 known holes in 1 of 1 packages asked about")


@pytest.mark.parametrize("found", ["", "[]", "{}", json.dumps({"dependencies": [UNKNOWN]})])
def test_where_nobody_can_be_asked_it_is_skipped_in_words(found: str) -> None:
    code, words = verdict(found, "Traceback\nConnectionError: no route")
    assert (code, "skipped" in words) == (0, True)


FLOORS = {"cryptography": (48, 0, 1), "pillow": (13, 0), "onnx": (1, 21), "torch": (2, 13), "jinja2": (3, 1, 6)}


@pytest.mark.parametrize(("package", "floor"), FLOORS.items())
def test_the_lowest_versions_admit_no_hole_that_was_known(package: str, floor: tuple[int, ...]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    [found] = [match[1] for line in lines if (match := re.fullmatch(rf"{package}>=([\d.]+)", line))]
    assert tuple(map(int, found.split("."))) >= floor
