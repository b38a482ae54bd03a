"""The gate: what a picture shows, what it is unsure of, and that only a site's policy sets a picture aside."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image as Pillow
from PIL import ImageFilter

from fedcervix.errors import ConfigError, DataError
from site_agent.cli import cli, data
from site_agent.data import dataset
from site_agent.data.collection import IndexSettings, SetAsideImage, index
from site_agent.data.remarks import remarks
from site_agent.home import FindingName, SiteHome, create
from site_agent.images.appearance import Appearance, Pixels, appearance
from site_agent.images.gate import FINDINGS, findings
from site_agent.images.quality import CHECKS
from tests.unit.test_details import collection_of

HEIGHT, WIDTH = 240, 320
PINK, SILVER, BLACK = (205, 125, 120), (190, 188, 180), (20, 16, 16)
Colour = tuple[int, int, int]
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH]


def painted(*layers: tuple[np.ndarray | bool, Colour], seed: int = 0) -> Pixels:
    """Paint layers (where, colour), each with the texture of tissue and the noise of a camera."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 12, (HEIGHT // 4, WIDTH // 4)).repeat(4, 0).repeat(4, 1)[..., None]
    canvas = np.zeros((HEIGHT, WIDTH, 3))
    for where, colour in layers:
        canvas[np.broadcast_to(where, (HEIGHT, WIDTH))] = colour
    return np.clip(canvas + coarse + rng.normal(0, 4, canvas.shape), 0, 255).astype(np.uint8)


def disc(x: float, y: float, radius: float) -> np.ndarray:
    return np.asarray((X - x) ** 2 + (Y - y) ** 2 < radius**2)


def cervix(seed: int = 0, x: float = 165, y: float = 125, tissue: Colour = PINK, patch: Colour | None = None) -> Pixels:
    """A cervix in a metal tube, with the os in its middle and marks of its own; `patch` colours a large one."""
    rng = np.random.default_rng(1000 + seed)
    deep = (int(0.8 * tissue[0]), int(0.7 * tissue[1]), int(0.7 * tissue[2]))
    marks = [(disc(*rng.normal((x, y), 45), rng.uniform(12, 30)) & disc(x, y, 95), deep) for _ in range(8)]
    white = [(disc(x - 30, y, 50), patch)] if patch else []
    ring, body = (disc(x, y, 118), SILVER), (disc(x, y, 95), tissue)
    return painted((True, BLACK), ring, body, *marks, *white, (disc(x, y, 12), BLACK), seed=seed)


def blurred(pixels: Pixels) -> Pixels:
    return np.asarray(Pillow.fromarray(pixels).filter(ImageFilter.GaussianBlur(9)))


def test_the_box_of_a_cervix_in_its_speculum_holds_it_and_little_else() -> None:
    found = appearance(cervix()).cervix
    assert found is not None
    x, y, w, h = found
    true = (165 - 95, 125 - 95, 190, 190)
    overlap = (min(x + w, true[0] + 190) - max(x, true[0])) * (min(y + h, true[1] + 190) - max(y, true[1]))
    assert overlap / (w * h + 190 * 190 - overlap) > 0.8


HAND = painted((True, (150, 120, 90)), (disc(160, 120, 100), (196, 150, 116)))
UNSURE: dict[str, Pixels] = {
    "tissue everywhere": painted((True, PINK)),
    "grey": np.repeat(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8), 3, axis=2),
    "black": np.zeros((HEIGHT, WIDTH, 3), np.uint8),
    "white": np.full((HEIGHT, WIDTH, 3), 255, np.uint8),
    "a hand": HAND,
    "in a corner": painted((True, BLACK), (disc(30, 30, 60), PINK)),
    "a speck": painted((True, SILVER), (disc(160, 120, 30), PINK)),
    "a strip": painted((True, SILVER), (np.broadcast_to(abs(Y - 120) < 45, (HEIGHT, WIDTH)), PINK)),
    "tiny": cervix()[112:128, 156:172],
    "one row": cervix()[120:121],
}


@pytest.mark.parametrize("name", list(UNSURE))
def test_the_detector_is_unsure_of_what_is_no_cervix_in_a_speculum(name: str) -> None:
    assert appearance(UNSURE[name]).cervix is None


@pytest.mark.parametrize(
    ("pixels", "stage"),
    [
        (cervix(), ""),
        (cervix(patch=(240, 215, 210)), ""),  # white with acetic acid
        (cervix(tissue=(110, 150, 140)), "green"),
        (cervix(tissue=(170, 95, 30)), "iodine"),
        (cervix(tissue=(60, 30, 10)), "iodine"),
        (cervix(tissue=(200, 100, 170)), ""),  # a device of purple light
        (painted((True, (20, 130, 200)), (disc(160, 120, 70), PINK)), ""),  # blue plastic is no filter
        (UNSURE["grey"], ""),
        (UNSURE["black"], ""),
        (UNSURE["white"], ""),
        (UNSURE["tiny"], ""),
    ],
)
def test_a_stage_is_said_only_where_the_colours_leave_no_doubt(pixels: Pixels, stage: str) -> None:
    assert appearance(pixels).stage == stage


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (cervix(), set()),
        (cervix(patch=(240, 215, 210)), set()),  # acetowhite is what the label is about
        (cervix(tissue=(170, 20, 30)), set()),  # and so may blood be
        (blurred(cervix()), {"blurred"}),
        ((cervix() * 0.15).astype(np.uint8), {"dark"}),
        (UNSURE["grey"], {"colourless"}),
        (UNSURE["black"], {"colourless", "blurred", "dark"}),
        (UNSURE["white"], {"colourless", "blurred", "overexposed", "glare"}),
        (cervix(tissue=(110, 150, 140)), {"green"}),
        (cervix(tissue=(170, 95, 30)), {"iodine"}),
    ],
)
def test_a_finding_is_a_reason_to_look(pixels: Pixels, expected: set[str]) -> None:
    found = set(findings(appearance(pixels)))
    assert expected <= found
    assert bool(expected) == bool(found)


def test_what_was_measured_is_the_same_from_the_cache(tmp_path: Path) -> None:
    manifest = site(tmp_path)
    settings = IndexSettings(cache_folder=tmp_path / "cache")
    first, again = index(manifest, settings), index(manifest, settings)
    assert (first.images, first.odd_images) == (again.images, again.odd_images)
    assert any(image.cervix for image in first.images)
    seen = appearance(cervix())
    assert Appearance.of(json.loads(json.dumps(dataclasses.astuple(seen)))) == seen


# --- a site -----------------------------------------------------------------------------------------------------------

ODD: dict[str, Callable[[int], Pixels]] = {
    "blurred": lambda seed: blurred(cervix(seed)),
    "green": lambda seed: cervix(seed, tissue=(110, 150, 140)),
    "iodine": lambda seed: cervix(seed, tissue=(170, 95, 30)),
}


def site(folder: Path, stage: str = "", split: str = "train") -> Path:
    """Write twelve pictures of a woman; of the last three, one is blurred, one is green, one is brown."""
    names = [f"{k}.png" for k in range(9)] + [f"{name}.png" for name in ODD]
    rows = [{"image": name, "patient": "P1", "split": split, "label": "", "stage": stage} for name in names]
    folder.mkdir(exist_ok=True)
    manifest = collection_of(folder / "images", rows)
    for k, name in enumerate(names):
        drawn = ODD.get(name.removesuffix(".png"), cervix)(k)
        Pillow.fromarray(drawn).save(folder / "images" / name)
    return manifest


def test_nothing_is_set_aside_without_a_policy(tmp_path: Path) -> None:
    found = index(site(tmp_path))
    assert (len(found.images), found.set_aside) == (12, ())
    assert found.odd_images == {name: (f"{name}.png",) for name in ODD}
    assert [image.stage for image in found.images] == [""] * 10 + ["green", "iodine"]


def test_the_policy_sets_aside_what_it_names_and_says_so(tmp_path: Path) -> None:
    home = SiteHome(tmp_path / "home")
    create(home, manifest=site(tmp_path))
    text = home.config_file.read_text()
    home.config_file.write_text(text.replace("# set_aside = []", 'set_aside = ["blurred", "iodine"]'))
    result = CliRunner().invoke(cli, ["--home", str(home.folder), "data", "check"])
    assert "2 pictures set aside, as set_aside in table [data] of site.toml says" in result.output
    assert "blurred.png: blurred" in result.output
    assert "1 picture after iodine, by their colours [iodine]" in result.output
    found = index(home.manifest(), IndexSettings(set_aside=("blurred", "iodine")))
    digests = {image.path: image.digest for image in index(home.manifest()).images}
    assert found.set_aside == tuple(
        SetAsideImage(f"{name}.png", (name,), digests[f"{name}.png"], "train") for name in ("blurred", "iodine")
    )
    assert (len(found.images), found.rows) == (10, 12)


def test_a_test_woman_s_picture_that_is_set_aside_trains_at_no_other_site(tmp_path: Path) -> None:
    """Before: a site's policy hid it, and with it that another site's training picture is the same."""
    trains, tests = index(site(tmp_path / "a")), site(tmp_path / "b", split="test")
    hidden = index(tests, IndexSettings(set_aside=("blurred",)))
    assert len(hidden.images) == 11
    assert dataset.pooled_images([trains, hidden], "train") == ([], [])


def test_a_stage_that_the_colours_contradict_is_told(tmp_path: Path) -> None:
    found = index(site(tmp_path, stage="iodine"))
    assert found.other_stage == ("green.png",)
    assert {image.stage for image in found.images} == {"iodine"}  # the manifest is believed
    assert any("another stage than the manifest says" in one.heading for one in remarks(found))


def test_a_sheet_shows_what_was_found_to_its_owner_only(tmp_path: Path) -> None:
    manifest, picture = site(tmp_path), tmp_path / "sheet.png"
    result = CliRunner().invoke(data, ["sheet", str(manifest), str(picture), "--findings"])
    assert result.exit_code == 0, result.output
    assert "data sheet" in (told := CliRunner().invoke(data, ["check", str(manifest)]).output)
    assert told.rstrip().endswith("--findings"), "what was found is what to look at first"
    assert "write its word in [brackets] into set_aside" in told
    assert picture.stat().st_mode & 0o077 == 0
    with Pillow.open(picture) as drawn:
        assert drawn.height > 3 * 128


def test_where_nothing_was_found_no_sheet_is_drawn(tmp_path: Path) -> None:
    manifest = site(tmp_path)
    lines = [line for line in manifest.read_text().splitlines() if not line.startswith(tuple(ODD))]
    manifest.write_text("\n".join(lines))
    checked = CliRunner().invoke(data, ["check", str(manifest)]).output
    assert ("set_aside" in checked, "next: look at the pictures: " in checked) == (False, True)
    result = CliRunner().invoke(data, ["sheet", str(manifest), str(tmp_path / "sheet.png"), "--findings"])
    assert isinstance(result.exception, DataError)
    assert not (tmp_path / "sheet.png").exists()


def test_a_policy_knows_every_finding_and_no_other(tmp_path: Path) -> None:
    assert set(get_args(FindingName)) == {check.name for check in (*CHECKS, *FINDINGS)}
    home = SiteHome(tmp_path)
    create(home)
    home.config_file.write_text('[data]\nset_aside = ["blurry"]\n')
    with pytest.raises(ConfigError, match="set_aside"):
        home.config()
