"""What is kept of a picture to find it again: the scene, and nothing of what a device puts around it."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from site_agent.data.duplicates import near_duplicates
from site_agent.images.samples import Pixels
from site_agent.images.surround import scene_box
from site_agent.images.thumbnails import thumbnail
from tests.unit.scenes import compressed, cropped, field, framed, halved, scene

Change = Callable[[Pixels], Pixels]

SURROUNDS: dict[str, Change] = {
    "field of 60 %": lambda pixels: field(pixels, 60),
    "field of 50 %": lambda pixels: field(pixels, 50),
    "field of 45 %": lambda pixels: field(pixels, 45),
    "field of 40 %": lambda pixels: field(pixels, 40),
    "field cut by the border": lambda pixels: field(pixels, 90),
    "field in a noisy surround": lambda pixels: noisy(field(pixels, 50)),
    "field in grey": lambda pixels: field(pixels, 50, 128),
    "field in white": lambda pixels: field(pixels, 50, 255),
    "field and text": lambda pixels: written(field(pixels, 50)),
    "letterbox": lambda pixels: framed(pixels, 60, 0),
    "pillarbox": lambda pixels: framed(pixels, 0, 120),
    "rectangle": lambda pixels: framed(pixels, 150, 240),
    "field in a letterbox": lambda pixels: framed(field(pixels, 60), 60, 0),
}
COPIES: dict[str, Change] = {"compressed": compressed, "halved": halved, "cropped": cropped}


def noisy(pixels: Pixels) -> Pixels:
    return np.clip(pixels + np.random.default_rng(0).normal(6, 4, pixels.shape), 0, 255).astype(np.uint8)


def written(pixels: Pixels) -> Pixels:
    """A time in one corner, a mark in another."""
    image = Image.fromarray(pixels)
    pen = ImageDraw.Draw(image)
    pen.text((6, 6), "2024-01-31 10:22:07", fill="white", font=ImageFont.load_default(14))
    pen.rectangle(
        (pixels.shape[1] - 30, pixels.shape[0] - 24, pixels.shape[1] - 12, pixels.shape[0] - 12), fill="white"
    )
    return np.asarray(image)


@pytest.mark.parametrize("surround", SURROUNDS.values(), ids=SURROUNDS)
def test_a_surround_makes_no_two_scenes_alike(surround: Change) -> None:
    pictures = [thumbnail(compressed(surround(scene(seed)), 90)) for seed in range(16)]
    assert all(pictures)
    assert near_duplicates(pictures, [str(k) for k in range(16)]) == ()


@pytest.mark.parametrize("surround", SURROUNDS.values(), ids=SURROUNDS)
@pytest.mark.parametrize("copy", COPIES.values(), ids=COPIES)
def test_a_copy_is_found_in_a_surround(copy: Change, surround: Change) -> None:
    for seed in range(4):
        picture = compressed(surround(scene(seed)), 90)
        assert near_duplicates([thumbnail(picture), thumbnail(copy(picture))], "AB") == ((0, 1),)


@pytest.mark.parametrize(("rows", "columns"), [(60, 0), (0, 120), (150, 240)])
def test_a_copy_whose_surround_was_cut_away_is_found(rows: int, columns: int) -> None:
    for seed in range(4):
        pair = [scene(seed), compressed(framed(scene(seed), rows, columns), 90)]
        assert near_duplicates([thumbnail(picture) for picture in pair], "AB") == ((0, 1),)


def test_of_a_round_field_the_inner_square_is_looked_at() -> None:
    left, top, right, bottom = scene_box(field(scene(0), 60)) or (0, 0, 0, 0)
    side = 0.6 * 320 / 2**0.5
    assert [left, right] == pytest.approx([160 - side / 2, 160 + side / 2], abs=8)
    assert [top, bottom] == pytest.approx([120 - side / 2, 120 + side / 2], abs=8)


def test_bars_are_cut_off_to_the_pixel() -> None:
    found = scene_box(framed(scene(0), 60, 120))
    assert found == pytest.approx((120, 60, 120 + 320, 60 + 240), abs=1)


def test_dark_tissue_and_a_vignette_are_no_surround() -> None:
    pixels = scene(0)
    y, x = np.mgrid[-1:1:240j, -1:1:320j]
    vignette = np.clip(1.4 - 1.2 * np.hypot(y, x), 0, 1)[..., None]
    for picture in (pixels, (pixels * vignette).astype(np.uint8)):
        assert scene_box(picture) == (0, 0, 320, 240)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_empty_picture_shows_nothing_with_text_or_without(level: int) -> None:
    empty = np.full((240, 320, 3), level, np.uint8)
    assert thumbnail(empty) == b""
    if level != 255:
        assert thumbnail(written(empty)) == b""


def test_a_thumbnail_has_256_bytes_for_each_crop() -> None:
    assert len(thumbnail(scene(0))) == 4 * 256
    assert len(thumbnail(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))) == 4 * 256
