"""One file in, one upright 8-bit RGB array out; or a reason that names no path."""

import io
import os
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from site_agent.images import decode as images
from site_agent.images.decode import AHEAD, PIXELS_MAX, SIDE_MIN_PX, each, opened, pixel_digest, square
from site_agent.images.samples import Pixels
from site_agent.images.unreadable import FORMATS_TEXT, UnreadableError

RED, BLACK, WHITE = (255, 0, 0), (0, 0, 0), (255, 255, 255)


def decode(path: Path, pixels_max: int = PIXELS_MAX) -> Pixels:
    """What the formats hold, seen on pictures that are too small to be used."""
    return images.decode(path, pixels_max=pixels_max, side_min_px=1)


def corner_red(height: int = 6, width: int = 10) -> np.ndarray:
    """Black but for its top left quarter, so that every turn and flip is seen."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = RED
    return pixels


def saved(folder: Path, image: Image.Image, name: str, **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG of raw rows: each begins with its filter byte."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_16_bit_rgb(samples: list[int]) -> bytes:
    """An uncompressed little-endian TIFF of one row of 16-bit RGB pixels."""
    width = len(samples) // 3
    entries = [
        (256, 4, 1, width), (257, 4, 1, 1), (258, 3, 3, 122), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 128),
        (277, 3, 1, 3), (278, 4, 1, 1), (279, 4, 1, 6 * width),
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\x00" + struct.pack("<I", 8) + directory + struct.pack("<I", 0)
    return head.ljust(122, b"\0") + struct.pack("<3H", 16, 16, 16) + struct.pack(f"<{len(samples)}H", *samples)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.tiff"])
def test_lossless_formats_give_their_pixels(tmp_path: Path, name: str) -> None:
    pixels = corner_red()
    found = decode(saved(tmp_path, Image.fromarray(pixels), name))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels)


def test_jpeg_gives_nearly_its_pixels_and_the_suffix_does_not_matter(tmp_path: Path) -> None:
    path = saved(
        tmp_path, Image.fromarray(np.full((8, 8, 3), (200, 30, 60), np.uint8)), "a.png", format="JPEG", quality=95
    )
    assert np.abs(decode(path).astype(int) - (200, 30, 60)).max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    upright = corner_red(48, 80)
    # how a camera held that way stores the scene: EXIF's definition, rows and columns swapped from 5 on
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(np.ascontiguousarray(stored)), f"a.{kind}", format=kind, exif=exif)
    found = decode(path)
    assert found.shape == (48, 80, 3)
    assert found[12, 20, 0] > 200
    assert found[12, 60, 0] < 50
    assert found[36, 20, 0] < 50


def test_a_damaged_exif_block_counts_as_none(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(corner_red()), "a.jpg", exif=b"Exif\x00\x00garbage that is no TIFF")
    assert decode(path).shape == (6, 10, 3)


def test_grey_and_one_bit_are_copied_to_three_channels(tmp_path: Path) -> None:
    grey = Image.fromarray(np.array([[0, 77, 255]], np.uint8))
    assert decode(saved(tmp_path, grey, "a.png"))[0].tolist() == [[0] * 3, [77] * 3, [255] * 3]
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert decode(saved(tmp_path, bits, "b.tif"))[0].tolist() == [[0] * 3, [255] * 3]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_black(tmp_path: Path, mode: str) -> None:
    values = {
        "RGBA": [(200, 200, 200, 255), (200, 200, 200, 51), (200, 200, 200, 0)],
        "LA": [(200, 255), (200, 51), (200, 0)],
    }
    image = Image.fromarray(np.array([values[mode]], np.uint8), mode=mode)
    assert decode(saved(tmp_path, image, "a.png"))[0].tolist() == [[200] * 3, [40] * 3, [0] * 3]


def test_a_palette_is_looked_up_with_its_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *WHITE, 0, 0, 255])
    image.putdata([0, 1, 2])
    assert decode(saved(tmp_path, image, "a.bmp"))[0].tolist() == [list(RED), list(WHITE), [0, 0, 255]]
    assert decode(saved(tmp_path, image, "a.png", transparency=1))[0].tolist() == [list(RED), list(BLACK), [0, 0, 255]]


@pytest.mark.parametrize("name", ["a.tif", "a.jpg"])
def test_cmyk_becomes_rgb_whether_adobe_inverted_it_or_not(tmp_path: Path, name: str) -> None:
    """Pillow writes CMYK JPEG as Adobe does: inverted. A TIFF is not inverted."""
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow ink make red
    assert np.abs(decode(saved(tmp_path, ink, name)).astype(int) - RED).max() <= 3


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, name: str) -> None:
    grey = Image.fromarray(np.array([[0, 257, 300, 32_896, 65_535]], np.uint16))
    assert decode(saved(tmp_path, grey, name))[0, :, 0].tolist() == [0, 1, 1, 128, 255]


def test_32_bit_grey_is_taken_as_16_bit_or_refused(tmp_path: Path) -> None:
    fits = Image.fromarray(np.array([[0, 65_535]], np.int32))
    assert decode(saved(tmp_path, fits, "a.tif"))[0, :, 0].tolist() == [0, 255]
    beyond = Image.fromarray(np.array([[0, 65_536]], np.int32))
    with pytest.raises(UnreadableError, match="beyond 16 bits"):
        decode(saved(tmp_path, beyond, "b.tif"))


def test_16_bit_colour_keeps_the_high_bytes(tmp_path: Path) -> None:
    samples = [65_535, 32_768, 0, 257, 65_535, 0]
    expected = [[255, 128, 0], [1, 255, 0]]
    (tmp_path / "a.png").write_bytes(png(2, 1, 16, 2, b"\0" + struct.pack(">6H", *samples)))
    (tmp_path / "a.tif").write_bytes(tiff_16_bit_rgb(samples))
    assert decode(tmp_path / "a.png")[0].tolist() == expected
    assert decode(tmp_path / "a.tif")[0].tolist() == expected


def test_of_several_pages_the_first_is_taken(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (4, 4), colour) for colour in (RED, WHITE)]
    path = saved(tmp_path, pages[0], "a.tif", save_all=True, append_images=pages[1:])
    assert decode(path)[0, 0].tolist() == list(RED)


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(np.zeros((2, 2), np.float32)), "a.tif")
    with pytest.raises(UnreadableError, match="floating-point pixels"):
        decode(path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
def test_a_file_that_was_cut_short_is_unreadable(tmp_path: Path, kind: str) -> None:
    raw = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(raw, kind)
    path = tmp_path / "P17.img"
    for kept in (len(raw.getvalue()) // 2, 40, 10):
        path.write_bytes(raw.getvalue()[:kept])
        with pytest.raises(UnreadableError) as caught:
            decode(path)
        assert "P17" not in caught.value.explain()
        assert str(tmp_path) not in caught.value.explain()


def test_what_is_not_an_image_file_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    saved(tmp_path, Image.fromarray(corner_red()), "other.gif")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    found = {}
    for name in ("empty.jpg", "text.jpg", "other.gif", "folder.jpg", "pipe.jpg", "absent.jpg"):
        with pytest.raises(UnreadableError) as caught:
            decode(tmp_path / name)
        found[name] = caught.value.reason
    assert found == {
        "empty.jpg": "an empty file",
        "text.jpg": f"not a {FORMATS_TEXT} image, or damaged at its beginning",
        "other.gif": "a GIF picture: save it as PNG",
        "folder.jpg": "not a file",
        "pipe.jpg": "not a file",
        "absent.jpg": "no such file",
    }


def test_the_size_is_bounded_before_anything_is_decoded(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(corner_red(10, 10)), "a.png")
    assert decode(path, pixels_max=100).shape == (10, 10, 3)
    with pytest.raises(UnreadableError, match="larger than 99 pixels"):
        decode(path, pixels_max=99)
    for side in (12_000, 30_000, 60_000):  # a few dozen bytes that would be 432 MB, 2.7 GB and 10.8 GB
        (tmp_path / "bomb.png").write_bytes(png(side, side, 8, 2, b""))
        with pytest.raises(UnreadableError, match="larger than 100,000,000 pixels"):
            decode(tmp_path / "bomb.png")


def test_a_picture_too_small_to_show_anything_is_refused(tmp_path: Path) -> None:
    for size in ((1, 1), (SIDE_MIN_PX - 1, 100), (100, SIDE_MIN_PX - 1)):
        with pytest.raises(UnreadableError, match="a side of less than 16 pixels"):
            images.decode(saved(tmp_path, Image.new("RGB", size), "a.png"))
    assert images.decode(saved(tmp_path, Image.new("RGB", (SIDE_MIN_PX, 20)), "a.png")).shape == (20, SIDE_MIN_PX, 3)


def test_pictures_that_are_too_large_to_be_open_together_wait_for_each_other() -> None:
    room, entered = images._Room(100), {pixels: threading.Event() for pixels in (40, 60, 1000)}

    def visit(pixels: int) -> None:
        with room.of(pixels):
            entered[pixels].set()

    visitors = [threading.Thread(target=visit, args=(pixels,)) for pixels in entered]
    with room.of(60):
        for visitor in visitors:
            visitor.start()
        assert entered[40].wait(10)
        assert not entered[60].wait(0.02)
        assert not entered[1000].is_set()
    assert entered[60].wait(10)
    assert entered[1000].wait(10)  # larger than the room: it goes alone
    for visitor in visitors:
        visitor.join(10)


def test_an_error_while_a_picture_is_looked_at_is_the_lookers_own(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("RGB", (20, 20)), "a.png")
    with pytest.raises(ValueError, match="mine"), opened(path):  # not: a damaged image
        raise ValueError("mine")


def test_random_damage_gives_pixels_or_a_reason(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    path = tmp_path / "a"
    for kind in ("JPEG", "PNG", "BMP"):
        raw = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)).save(raw, kind)
        for _ in range(150):
            damaged = bytearray(raw.getvalue())
            for place in rng.integers(0, min(len(damaged), 300), 3):
                damaged[place] = rng.integers(256)
            path.write_bytes(damaged)
            try:
                assert decode(path, pixels_max=10**6).shape[2] == 3
            except UnreadableError as error:
                assert error.reason  # noqa: PT017 - either outcome is right, a third is not


def test_squash_keeps_everything_and_crop_keeps_the_aspect() -> None:
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :20] = pixels[:, 60:] = RED  # the central 40 x 40 is black
    squashed, cropped = square(pixels, 20, "squash"), square(pixels, 20, "crop")
    assert squashed.shape == cropped.shape == (20, 20, 3)
    assert squashed[10, 1].tolist() == list(RED)
    assert squashed[10, 10].tolist() == list(BLACK)
    assert cropped[:, 1:-1].max() == 0


def test_shrinking_averages_instead_of_picking() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(square(stripes, 8, "squash").astype(int) - 127).max() <= 6  # picking would give 0 or 255


def test_enlarging_and_one_pixel_work() -> None:
    assert square(np.full((1, 1, 3), 9, np.uint8), 4, "crop").tolist() == [[[9] * 3] * 4] * 4


def test_the_digest_tells_pixels_and_shape_apart() -> None:
    pixels = np.zeros((2, 6, 3), np.uint8)
    assert pixel_digest(pixels) == pixel_digest(np.asfortranarray(pixels))
    assert pixel_digest(pixels) != pixel_digest(pixels.reshape(3, 4, 3))
    assert pixel_digest(pixels) != pixel_digest(pixels + np.uint8(1))
    assert len(pixel_digest(pixels)) == 64


def test_each_takes_items_only_as_fast_as_they_are_done() -> None:
    taken: list[int] = []

    class Items(list[int]):
        def __iter__(self):
            for item in range(len(self)):
                taken.append(item)
                yield item

    ahead: list[int] = []
    each(lambda k: k, Items([0] * 500), lambda done, _: ahead.append(len(taken) - done))
    assert len(taken) == 500
    assert max(ahead) <= AHEAD


def test_each_keeps_the_order_reports_progress_and_raises_the_first_error() -> None:
    reports: list[tuple[int, int]] = []
    assert each(lambda k: k * k, range(5), lambda done, total: reports.append((done, total))) == [0, 1, 4, 9, 16]
    assert reports == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    with pytest.raises(ZeroDivisionError):
        each(lambda k: 1 // (k - 2), range(5))
