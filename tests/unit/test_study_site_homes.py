"""Phantoms that a study has drawn already are taken, and others are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cervix_study.data.site_homes import DRAWN, manifest_of
from cervix_study.study_paths import Places
from fedcervix.errors import ConfigError
from tests.unit.study_cases import asked

FROM = {"institution": "nhs", "women": 12, "test_women": 0, "seed": 0, "unlabelled_per_labelled": None}


def manifest(folder: Path, drawn: dict[str, object]) -> Path:
    """Return the manifest of site nhs, whose phantoms are there already."""
    study, places = asked(folder), Places(folder)
    [site] = [site for site in study.settings.sites if site.name == "nhs"]
    places.phantom("nhs").mkdir(parents=True)
    (places.phantom("nhs") / DRAWN).write_text(json.dumps(drawn))
    return manifest_of(study, places, site, lambda _what, _done, _of: pytest.fail("drawn anew"))


def test_what_was_drawn_as_it_is_asked_for_is_taken(tmp_path: Path) -> None:
    assert manifest(tmp_path, FROM) == Places(tmp_path).phantom("nhs") / "manifest.csv"


def test_what_was_drawn_before_there_were_test_women_has_none(tmp_path: Path) -> None:
    manifest(tmp_path, {key: value for key, value in FROM.items() if key != "test_women"})


@pytest.mark.parametrize(
    "change",
    [{"women": 13}, {"test_women": 9}, {"seed": 1}, {"institution": "alts"}, {"stages": ["native"]}, {"devices": 2}],
)
def test_other_phantoms_are_refused(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="holds other phantoms"):
        manifest(tmp_path, FROM | change)
