"""`data check` with a home shows what the site trains on, and changes nothing there."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fedcervix.errors import ConfigError, DataError
from site_agent.cli import cli
from site_agent.data import dataset
from site_agent.home import SiteHome, create
from site_agent.manifest.splits import Kept, format_splits
from tests.unit.test_collection import clinic


def run(*words: object, **environment: str) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], env={"FEDCERVIX_SITE_HOME": None, **environment})


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A collection with a 0/1 column instead of labels."""
    images = tmp_path / "images"
    images.mkdir()
    path = clinic(images, 0, 0, 12)
    lines = path.read_text().splitlines()
    rows = [f"{line.split(',')[0]},{line.split(',')[1]},{k % 2}" for k, line in enumerate(lines[1:])]
    path.write_text("\n".join(["image,patient,hpv", *rows, ""]))
    return path


@pytest.fixture
def home(tmp_path: Path, manifest: Path) -> SiteHome:
    home = SiteHome(tmp_path / "home")
    create(home, manifest=manifest, ignore_columns=["hpv"])
    return home


def test_settings_and_splits_are_those_of_the_site_and_nothing_is_drawn(home: SiteHome, manifest: Path) -> None:
    assert isinstance(run("data", "check", manifest).exception, DataError), "hpv may be meant as label"
    done = run("--home", home.folder, "data", "check", manifest)
    assert done.exit_code == 0, done.output
    assert f"settings: table [data] of {home.config_file}" in done.stdout
    assert f"the splits are those that training uses: {home.splits}" in done.stdout
    assert f"site-agent --home {home.folder} data sheet {manifest} sheet.png" in done.stdout
    assert not home.splits.exists()


def test_a_manifest_that_is_left_out_is_the_sites(home: SiteHome) -> None:
    done = run("data", "check", "--home", home.folder)
    assert done.exit_code == 0, done.output
    assert "24 rows" in done.stdout


def test_the_splits_that_are_kept_are_used_and_left_as_they_are(home: SiteHome) -> None:
    trained = dataset.open_collection(home)
    women = {image.patient for image in trained.images}
    kept = format_splits({woman: Kept("train") for woman in sorted(women)[1:]})
    home.splits.write_text(kept)
    done = run("--home", home.folder, "data", "check")
    assert [word for word in ("train", "valid", "test") if f"│ {word} " in done.stdout] == ["train", "valid"]
    assert home.splits.read_text() == kept


def test_the_environment_names_the_home_as_well(home: SiteHome, manifest: Path, tmp_path: Path) -> None:
    assert run("data", "check", FEDCERVIX_SITE_HOME=str(home.folder)).exit_code == 0
    new = str(tmp_path / "new")
    done = run("data", "check", manifest, "--ignore-column", "hpv", FEDCERVIX_SITE_HOME=new)
    assert done.exit_code == 0, "a collection is checked before the home is made"
    assert f"{new}/site.toml does not exist; the defaults are used" in done.stderr


def test_a_home_that_is_named_and_not_there_is_a_mistake(manifest: Path, tmp_path: Path) -> None:
    done = run("--home", tmp_path / "absent", "data", "check", manifest, "--ignore-column", "hpv")
    assert isinstance(done.exception, ConfigError)
    assert "absent" in done.exception.what


def test_what_the_command_line_says_goes_before_the_home(home: SiteHome, tmp_path: Path) -> None:
    kept = tmp_path / "splits.csv"
    done = run("--home", home.folder, "data", "check", "--splits", kept, "--seed", "3")
    assert done.exit_code == 0, done.output
    assert f"they are saved in {kept}" in done.stdout
    assert (kept.exists(), home.splits.exists()) == (True, False)


def test_the_share_of_unreadable_images_is_the_sites(home: SiteHome, manifest: Path) -> None:
    for name in sorted(path.name for path in manifest.parent.glob("*.png"))[:4]:
        (manifest.parent / name).write_text("no image")
    refused = run("--home", home.folder, "data", "check")
    assert isinstance(refused.exception, DataError)
    text = home.config_file.read_text()
    home.config_file.write_text(text.replace("# unreadable_max = 0.05", "unreadable_max = 0.5"))
    assert run("--home", home.folder, "data", "check").exit_code == 0


def test_a_sheet_is_drawn_with_the_settings_of_the_site(home: SiteHome, manifest: Path, tmp_path: Path) -> None:
    done = run("--home", home.folder, "data", "sheet", manifest, tmp_path / "sheet.png")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "sheet.png").exists()
    assert not home.splits.exists()
