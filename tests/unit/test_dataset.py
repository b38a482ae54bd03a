"""A site's images as its trainers take them: in memory as far as the site allows, and pooled without a copy."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedcervix.core.plan import Recipe
from fedcervix.errors import ConfigError
from site_agent.data import dataset
from site_agent.data.image_sets import Images
from site_agent.data.pixel_arrays import Gathered
from site_agent.home import SiteHome, create

RECIPE = Recipe(architecture="resnet18", image_px=32)


def site(folder: Path, images_in_memory_gib: float, seed: int = 0) -> SiteHome:
    """Write 15 women (five cases, five controls, five without a label) with two photographs each, and a home."""
    rng, lines = np.random.default_rng(seed), ["image,patient,label"]
    folder.mkdir()
    for k in range(30):
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / f"{k}.png")
        lines.append(f"{k}.png,{folder.name}-{k // 2},{('1', '0', '')[k // 10]}")
    (folder / "manifest.csv").write_text("\n".join(lines))
    home = SiteHome(folder / "home")
    create(home, manifest=folder / "manifest.csv")
    text = home.config_file.read_text()
    assert "# images_in_memory_gib = 4.0 " in text
    home.config_file.write_text(
        text.replace("# images_in_memory_gib = 4.0 ", f"images_in_memory_gib = {images_in_memory_gib}")
    )
    return home


@pytest.mark.parametrize(("gib", "kind"), [(4.0, np.ndarray), (0, Gathered)])
def test_the_site_says_how_much_is_held_in_memory(tmp_path: Path, gib: float, kind: type) -> None:
    home = site(tmp_path / "a", gib)
    collection = dataset.open_collection(home)
    train = dataset.contrastive(home, collection, RECIPE, "train")
    known = dataset.labelled(home, collection, RECIPE, "train")
    assert isinstance(train.pixels, kind)
    assert isinstance(known.pixels, kind)
    assert train.pixels.shape == (len(collection.contrastive("train")), 32, 32, 3)
    assert train.patients == tuple(image.woman for image in collection.contrastive("train"))
    assert known.labels.tolist() == [image.label for image in collection.labelled("train")]


@pytest.mark.parametrize("gib", [4.0, 0])
def test_an_image_is_decoded_once_where_the_recipe_is_known_when_it_is_indexed(tmp_path: Path, gib: float) -> None:
    """Afterwards the files are not needed; the squares are those that a later decoding gives, bit for bit."""
    for name in ("twice", "once"):
        (tmp_path / name).mkdir()
    twice, once = site(tmp_path / "twice" / "a", gib), site(tmp_path / "once" / "a", gib)
    plain = dataset.open_collection(twice)
    found = dataset.open_collection(once, recipes=[RECIPE, dataclasses.replace(RECIPE, image_px=40, fit="crop")])
    assert [image.digest for image in found.images] == [image.digest for image in plain.images]
    for file in (tmp_path / "once" / "a").glob("*.png"):
        file.unlink()
    for recipe in (RECIPE, dataclasses.replace(RECIPE, image_px=40, fit="crop")):
        squares = dataset.contrastive(once, found, recipe, "train", lambda _done, _of: pytest.fail("decoded"))
        expected = dataset.contrastive(twice, plain, recipe, "train")
        everything = np.arange(len(expected))
        np.testing.assert_array_equal(squares.pixels[everything], expected.pixels[everything])
    assert dataset.labelled(once, found, RECIPE, "test").pixels.shape[0] == len(found.labelled("test"))


def test_more_memory_than_there_can_be_is_refused(tmp_path: Path) -> None:
    for wrong in (-1.0, 4097.0):
        home = site(tmp_path / str(wrong), wrong)
        with pytest.raises(ConfigError, match="images_in_memory_gib must be 0 to 4096"):
            home.config()


@pytest.mark.parametrize("gib", [(4.0, 4.0), (0, 0), (0, 4.0)])
def test_pooled_sites_are_one_collection_and_no_picture_is_copied(tmp_path: Path, gib: tuple[float, float]) -> None:
    parts = []
    for name, size in zip("ab", gib, strict=True):
        home = site(tmp_path / name, size, seed=ord(name))
        parts.append(dataset.contrastive(home, dataset.open_collection(home), RECIPE, "train"))
    whole = dataset.joined(parts)
    assert isinstance(whole.pixels, Gathered)
    for part, source in zip(parts, whole.pixels.sources, strict=True):
        own = part.pixels.sources[0] if isinstance(part.pixels, Gathered) else part.pixels
        assert np.shares_memory(source, own)
    everything = np.arange(len(whole))
    pictures = np.concatenate([part.pixels[np.arange(len(part))] for part in parts])
    np.testing.assert_array_equal(whole.pixels[everything], pictures)
    assert whole.patients == parts[0].patients + parts[1].patients
    assert whole.runs == (len(parts[0]), len(parts[1]))
    assert dataset.joined([whole, parts[0]]).runs == (*whole.runs, len(parts[0]))


def test_one_site_is_what_it_is(tmp_path: Path) -> None:
    home = site(tmp_path / "a", 4.0)
    images = dataset.contrastive(home, dataset.open_collection(home), RECIPE, "valid")
    assert dataset.joined([images]) == images
    assert images.runs == ()
    with pytest.raises(ValueError, match="runs of"):
        Images(images.pixels, images.patients, runs=(1,))
