"""What is odd about pictures that can be read, and that `site-agent data check` says so."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from site_agent.cli import data
from site_agent.data.collection import IndexSettings, index
from site_agent.images.quality import CHECKS, oddities
from site_agent.images.samples import Decoded, Pixels
from tests.unit.picture_files import Bmp, Png, Tiff, scene

HEIGHT, WIDTH = 240, 320


def photograph(seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(20, 236, (HEIGHT, WIDTH, 3), np.uint8)


def rows_of(value: int, rows: slice) -> Pixels:
    """A picture with some rows of one grey, with what JPEG makes of it."""
    pixels = photograph()
    pixels[rows] = value
    pixels[rows, ::3] += 2
    return pixels


def in_the_middle(size: int) -> Pixels:
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[100 : 100 + size, 100 : 100 + size] = photograph()[:size, :size]
    return pixels


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (photograph(), ()),
        (np.full((HEIGHT, WIDTH, 3), (90, 120, 200), np.uint8), ("flat",)),
        (np.zeros((HEIGHT, WIDTH, 3), np.uint8), ("flat", "black")),
        (photograph() // 16, ("black",)),
        (in_the_middle(15), ("black", "half-empty")),
        (in_the_middle(120), ("half-empty",)),  # a round field, or a letterbox
        (rows_of(128, slice(HEIGHT // 2, None)), ("half-empty",)),
        (rows_of(128, slice(HEIGHT - HEIGHT // 8, None)), ("half-empty",)),
        (rows_of(0, slice(0, HEIGHT // 2)), ("half-empty",)),  # a BMP is written from its bottom
        (rows_of(128, slice(HEIGHT - HEIGHT // 8 + 1, None)), ()),
        (rows_of(128, slice(100, 200)), ()),
        (rows_of(128, slice(HEIGHT // 2, None)).transpose(1, 0, 2), ("half-empty",)),  # turned by its orientation
        (np.rot90(rows_of(0, slice(HEIGHT // 2, None))), ("half-empty",)),
    ],
)
def test_flat_black_and_half_empty_pictures_are_told(pixels: Pixels, expected: tuple[str, ...]) -> None:
    assert oddities(Decoded(pixels)) == expected


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (500, 1, 3), (16, 16, 3)])
def test_pictures_of_any_size_are_looked_at(shape: tuple[int, int, int]) -> None:
    assert "flat" in oddities(Decoded(np.full(shape, 77, np.uint8)))


def collection(folder: Path) -> Path:
    """Twenty pictures that are fine, and one or two of every odd kind."""
    files = {f"fine-{k}.png": Png().of(photograph(k)) for k in range(20)}
    clear = scene(48, 64, 4, 8)
    clear[:, :, 3] = 0
    files |= {
        "grabbed.bmp": Bmp(header_bytes=108).of(clear),
        "ten-bits.png": Png(bits=16).of(scene(48, 64, 3, 10).astype(np.uint16)),
        "twelve-bits.tif": Tiff(bits=16).of(scene(48, 64, 3, 12).astype(np.uint16)),
        "cap-on.png": Png().of(np.full((48, 64, 3), 3, np.uint8)),
        "half.bmp": Bmp().of(rows_of(0, slice(0, HEIGHT // 2))),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    two = [Image.fromarray(photograph(99)), Image.fromarray(photograph(98))]
    two[0].save(folder / "pages.tif", save_all=True, append_images=two[1:])
    rows = [f"{name},{name}" for name in (*files, "pages.tif")]
    (folder / "manifest.csv").write_text("\n".join(["image,patient", *rows]))
    return folder / "manifest.csv"


EXPECTED = {
    "flat": ("cap-on.png",),
    "black": ("cap-on.png",),
    "transparent": ("grabbed.bmp",),
    "narrow": ("ten-bits.png", "twelve-bits.tif"),
    "half-empty": ("half.bmp",),
    "pages": ("pages.tif",),
}


def test_a_collection_knows_its_odd_pictures_also_when_it_looks_again(tmp_path: Path) -> None:
    manifest = collection(tmp_path)
    for _ in ("decoded", "from the cache"):
        found = index(manifest, IndexSettings(cache_folder=tmp_path / "cache"))
        odd = {check.name: found.odd_images[check.name] for check in CHECKS}
        assert (odd, found.quarantined) == (EXPECTED, ())
    assert len(found.images) == 26  # they stay in use


def test_data_check_counts_odd_pictures_and_names_them(tmp_path: Path) -> None:
    result = CliRunner().invoke(data, ["check", str(collection(tmp_path))])
    assert result.exit_code == 0, result.output
    for check in CHECKS:
        names = EXPECTED[check.name]
        one = check.heading.replace("pictures", "picture", 1).replace("files", "file", 1)
        heading = f"1 {one}" if len(names) == 1 else f"{len(names)} {check.heading}"
        listed = result.output.split(heading)[1].split("\n")[1 : 1 + len(names)]
        assert [name.strip() for name in listed] == list(names)


def test_data_check_says_nothing_of_a_collection_that_is_fine(tmp_path: Path) -> None:
    manifest = collection(tmp_path)
    fine = [line for line in manifest.read_text().splitlines() if line.startswith(("image", "fine"))]
    manifest.write_text("\n".join(fine))
    result = CliRunner().invoke(data, ["check", str(manifest)])
    assert not any(check.heading in result.output for check in CHECKS)
