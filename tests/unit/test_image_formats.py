"""The picture as its writer meant it, over the grid of what TIFF, PNG, BMP and JPEG can be; or a reason.

Every file is written byte by byte (`picture_files`), so every sample is known. TIFFs are compared with a second decoder
as well (tifffile), and JPEGs with Pillow, which decodes with another build of libjpeg-turbo.
"""

import io
import itertools
import struct
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import pytest
import tifffile
from PIL import Image, ImageOps

from site_agent.images import quality
from site_agent.images.decode import _LOADERS, opened
from site_agent.images.samples import Decoded
from site_agent.images.unreadable import FORMATS, FORMATS_TEXT, UnreadableError
from tests.unit.picture_files import Bmp, Png, Samples, Tiff, chunk, scene

HEIGHT, WIDTH = 37, 53


def decoded(folder: Path, data: bytes) -> Decoded:
    (folder / "a").write_bytes(data)
    with opened(folder / "a") as found:
        return found


def refused(folder: Path, data: bytes) -> str:
    with pytest.raises(UnreadableError) as caught:
        decoded(folder, data)
    return caught.value.reason


# --- TIFF ----------------------------------------------------------------------------------------------------------

GREY, WHITE_IS_ZERO, RGB, INKS = 1, 0, 2, 5
TIFF_KINDS = {
    "1 bit": Tiff(bits=1, photometric=GREY),
    "1 bit, white is zero": Tiff(bits=1, photometric=WHITE_IS_ZERO),
    "grey, 2 bits": Tiff(bits=2, photometric=GREY),
    "grey, 4 bits": Tiff(bits=4, photometric=GREY),
    "grey, 4 bits, white is zero": Tiff(bits=4, photometric=WHITE_IS_ZERO),
    "grey": Tiff(photometric=GREY),
    "grey, white is zero": Tiff(photometric=WHITE_IS_ZERO),
    "grey, 12 bits": Tiff(bits=12, photometric=GREY),
    "grey, 16 bits": Tiff(bits=16, photometric=GREY),
    "grey, 16 bits, white is zero": Tiff(bits=16, photometric=WHITE_IS_ZERO),
    "grey and alpha": Tiff(photometric=GREY, extra=(2,)),
    "grey and anything": Tiff(photometric=GREY, extra=(0,)),
    "colour": Tiff(),
    "colour, 16 bits": Tiff(bits=16),
    "colour and alpha": Tiff(extra=(2,)),
    "colour and anything": Tiff(extra=(0,)),
    "colour and alpha, 16 bits": Tiff(bits=16, extra=(2,)),
    "colour and anything, 16 bits": Tiff(bits=16, extra=(0,)),
    "inks": Tiff(photometric=INKS),
    "inks, 16 bits": Tiff(bits=16, photometric=INKS),
}
PILLOW_READS_IT = int(PIL.__version__.partition(".")[0]) >= 13
"""grey and a sample that means nothing"""
COLOURS = {GREY: 1, WHITE_IS_ZERO: 1, RGB: 3, INKS: 4}
TURNS = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


def meant(samples: Samples, kind: Tiff) -> np.ndarray:
    """Return what the samples mean, TIFF 6.0, as (H, W, 3) values up to 255, upright."""
    values = samples / (2**kind.bits - 1)
    colours = values[:, :, : COLOURS[kind.photometric]]
    if kind.photometric == WHITE_IS_ZERO:
        colours = 1 - colours
    if kind.photometric == INKS:
        colours = (1 - colours[:, :, :3]) * (1 - colours[:, :, 3:])
    if kind.extra == (2,):
        colours = colours * values[:, :, -1:]
    return 255 * TURNS[kind.orientation](np.repeat(colours, 3, 2) if colours.shape[2] == 1 else colours)


def ways(kind: Tiff) -> Iterator[Tiff]:
    """Yield every way to store a kind that a reader has to expect."""
    channels = COLOURS[kind.photometric] + len(kind.extra)
    for planar, compression, tile_px, predictor in itertools.product(
        (False, True), ("none", "lzw", "deflate", "old deflate", "packbits"), (0, 16), (False, True)
    ):
        if (planar and channels == 1) or (predictor and (compression in ("none", "packbits") or kind.bits < 8)):
            continue
        if predictor and kind.bits == 12:
            continue
        yield replace(kind, planar=planar, compression=compression, tile_px=tile_px, predictor=predictor)
    yield from (replace(kind, orientation=orientation) for orientation in TURNS)
    yield from (replace(kind, orientation=orientation, compression="lzw") for orientation in TURNS)
    yield from (replace(kind, fill_order=2, compression=compression) for compression in ("none", "lzw"))
    yield replace(kind, rows_per_strip=2**32 - 1)


def second_decoder(data: bytes, way: Tiff) -> Samples | None:
    """Return the samples that tifffile finds, (H, W, C); None for what it cannot unpack without further packages."""
    try:
        found = tifffile.imread(io.BytesIO(data))
    except (ValueError, NotImplementedError, ImportError):
        return None
    if found.ndim == 2:
        return found[:, :, None]
    return np.moveaxis(found, 0, -1) if way.planar else found


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", TIFF_KINDS)
def test_a_tiff_is_what_its_writer_and_a_second_decoder_say_or_unreadable(
    tmp_path: Path, name: str, order: str
) -> None:
    kind = replace(TIFF_KINDS[name], order=order)
    samples = scene(HEIGHT, WIDTH, COLOURS[kind.photometric] + len(kind.extra), kind.bits)
    for way in ways(kind):
        data = way.of(samples)
        second = second_decoder(data, way)
        assert second is not None or way.compression == "lzw" or way.fill_order == 2 or kind.bits not in (1, 8, 16)
        if second is not None:
            np.testing.assert_array_equal(second, samples, str(way))
        if name == "grey and anything" and not PILLOW_READS_IT:
            assert refused(tmp_path, data).startswith(("a TIFF of 2 x 8 bits", "grey and another sample"))
        elif samples.shape[2] == 2 and way.planar:
            assert refused(tmp_path, data) == "grey and another sample in separate planes"
        else:
            found = decoded(tmp_path, data)
            np.testing.assert_allclose(found.pixels, meant(samples, way), atol=2, err_msg=str(way))
            assert kind.bits < 8 or not quality.oddities(found)


def test_alpha_that_is_multiplied_already_is_not_multiplied_again(tmp_path: Path) -> None:
    for bits in (8, 16):
        samples = scene(HEIGHT, WIDTH, 4, bits)
        samples[:, :, :3] = samples[:, :, :3] * (samples[:, :, 3:] / (2**bits - 1))
        found = decoded(tmp_path, Tiff(bits=bits, extra=(1,)).of(samples))
        np.testing.assert_allclose(found.pixels, samples[:, :, :3] / (2**bits - 1) * 255, atol=3)


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("unit", [1, 257])
def test_a_colour_map_of_8_bit_values_is_none_of_16_bits(tmp_path: Path, bits: int, unit: int) -> None:
    """TIFF asks for 16 bits; some programs write 8, and all colours come out black."""
    colours = np.random.default_rng(1).integers(0, 256, (2**bits, 3))
    indices = scene(HEIGHT, WIDTH, 1, bits)
    tags = {320: ("short", tuple((colours.T * unit).ravel().tolist()))}
    found = decoded(tmp_path, Tiff(bits=bits, photometric=3, tags=tags).of(indices))
    np.testing.assert_array_equal(found.pixels, colours[indices[:, :, 0]])


def test_luma_and_chroma_become_colour(tmp_path: Path) -> None:
    samples = scene(HEIGHT, WIDTH, 3, 8)
    luma, blue, red = (samples[:, :, k].astype(float) for k in range(3))
    rgb = [luma + 1.402 * (red - 128), luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128)]
    rgb.append(luma + 1.772 * (blue - 128))
    for order in "<>":
        found = decoded(tmp_path, Tiff(photometric=6, order=order, tags={530: ("short", (1, 1))}).of(samples))
        np.testing.assert_allclose(found.pixels, np.clip(np.stack(rgb, 2), 0, 255), atol=3)


REFUSED = {
    "floating-point pixels": Tiff(bits=32, photometric=GREY, tags={339: ("short", (3,))}),
    "signed pixel values": Tiff(bits=16, photometric=GREY, tags={339: ("short", (2,))}),
    "32-bit grey values beyond 16 bits": Tiff(bits=32, photometric=GREY),
    "pixels that are not numbers": Tiff(bits=32, photometric=GREY, tags={339: ("short", (6,))}),
    "colour space LAB": Tiff(photometric=8),
    "unprocessed sensor data (CFA)": Tiff(photometric=32803),
    "a TIFF that does not say how to interpret its samples": Tiff(photometric=GREY, tags={262: ("short", ())}),
    "a TIFF whose first page is a preview": Tiff(tags={254: ("long", (1,))}),
    "inks other than CMYK": Tiff(photometric=INKS, tags={332: ("short", (2,))}),
    "TIFF compression 6, which is not supported": Tiff(tags={259: ("short", (6,))}),
    "damaged or cut short: the TIFF lacks strips or tiles": Tiff(tags={278: ("long", (3,))}),
    "damaged: a tile of the TIFF is much larger than the picture": Tiff(tile_px=16, tags={322: ("long", (2**25,))}),
    "a TIFF of 3 x 12 bits (PhotometricInterpretation 2), which is not supported": Tiff(bits=12),
    "a TIFF of 1 x 10 bits (PhotometricInterpretation 1), which is not supported": Tiff(bits=10, photometric=GREY),
    "a TIFF of 2 x 16 bits (PhotometricInterpretation 1), which is not supported": Tiff(
        bits=16, photometric=GREY, extra=(2,)
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_another_kind_is_refused_by_its_name(tmp_path: Path, reason: str, order: str) -> None:
    kind = replace(REFUSED[reason], order=order)
    channels = {GREY: 1, INKS: 4, 32803: 1}.get(kind.photometric, 3) + len(kind.extra)
    assert refused(tmp_path, kind.of(scene(HEIGHT, WIDTH, channels, kind.bits))) == reason


@pytest.mark.parametrize("compression", ["none", "lzw", "deflate"])
def test_strips_that_were_never_written_make_a_tiff_unreadable(tmp_path: Path, compression: str) -> None:
    """Programs that broke off leave places and sizes of 0."""
    samples = scene(HEIGHT, WIDTH, 3, 8)
    sizes = tuple(len(part) for part in Tiff(compression=compression).parts(samples))
    for tag in (273, 279):
        tags = {tag: ("long", (*sizes[:3], *(0 for _ in sizes[3:])))}
        reason = refused(tmp_path, Tiff(compression=compression, tags=tags).of(samples))
        assert reason == "damaged or cut short: the TIFF lacks strips or tiles"


@pytest.mark.parametrize("compression", ["lzw", "deflate"])
def test_a_strip_that_does_not_unpack_makes_a_tiff_unreadable(tmp_path: Path, compression: str) -> None:
    samples = scene(HEIGHT, WIDTH, 3, 8)
    whole = Tiff(compression=compression).of(samples)
    middle = 8 + sum(map(len, Tiff(compression=compression).parts(samples))) // 2
    damaged = whole[:middle] + b"\xff" * 400 + whole[middle + 400 :]
    assert refused(tmp_path, damaged) == "damaged or cut short"


def test_a_bigtiff_of_the_other_byte_order_is_refused_by_its_name(tmp_path: Path) -> None:
    raw = io.BytesIO()
    tifffile.imwrite(raw, scene(HEIGHT, WIDTH, 3, 8), bigtiff=True, byteorder=">", photometric="rgb")
    assert refused(tmp_path, raw.getvalue()) == "a big-endian BigTIFF, which is not read"


def test_of_several_pages_the_first_is_taken_and_that_is_said(tmp_path: Path) -> None:
    pages = [Image.fromarray(scene(HEIGHT, WIDTH, 3, 8)[::step].copy()) for step in (1, -1)]
    for options in ({}, {"compression": "tiff_lzw"}, {"big_tiff": True}):
        raw = io.BytesIO()
        pages[0].save(raw, "TIFF", save_all=True, append_images=pages[1:], **options)
        found = decoded(tmp_path, raw.getvalue())
        np.testing.assert_array_equal(found.pixels, pages[0])
        assert quality.oddities(found) == ("pages",)


# --- PNG -----------------------------------------------------------------------------------------------------------

PNG_KINDS = {
    ("grey", 1): 1, ("grey", 2): 1, ("grey", 4): 1, ("grey", 8): 1, ("grey", 16): 1,
    ("rgb", 8): 3, ("rgb", 16): 3, ("grey alpha", 8): 2, ("grey alpha", 16): 2, ("rgb alpha", 8): 4,
    ("rgb alpha", 16): 4,
}  # fmt: skip


def on_black(samples: Samples, bits: int) -> np.ndarray:
    """Return what PNG samples mean, 1, 2, 3 or 4 channels, as (H, W, 3) values up to 255."""
    values = samples / (2**bits - 1)
    if values.shape[2] in (2, 4):
        values = values[:, :, :-1] * values[:, :, -1:]
    return 255 * (np.repeat(values, 3, 2) if values.shape[2] == 1 else values)


@pytest.mark.parametrize(("colour", "bits"), PNG_KINDS)
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_a_png_is_what_its_writer_says(
    tmp_path: Path, colour: str, bits: int, interlaced: bool, orientation: int
) -> None:
    samples = scene(HEIGHT, WIDTH, PNG_KINDS[colour, bits], bits)
    exif = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    before = Png(bits=bits, colour=colour, interlaced=interlaced, chunks=((b"eXIf", exif),)).of(samples)
    whole = Png(bits=bits, colour=colour, interlaced=interlaced).of(samples)
    for data in (before, whole[:-12] + chunk(b"eXIf", exif) + whole[-12:]):
        found = decoded(tmp_path, data)
        np.testing.assert_allclose(found.pixels, TURNS[orientation](on_black(samples, bits)), atol=2)


@pytest.mark.parametrize(("colour", "bits"), [kind for kind in PNG_KINDS if "alpha" not in kind[0]])
def test_a_png_has_a_transparent_colour_of_its_own_depth(tmp_path: Path, colour: str, bits: int) -> None:
    samples = scene(HEIGHT, WIDTH, PNG_KINDS[colour, bits], bits)
    key = samples[HEIGHT // 2, WIDTH // 2]
    hidden = (samples == key).all(axis=2)
    data = Png(bits=bits, colour=colour, chunks=((b"tRNS", struct.pack(f">{len(key)}H", *key)),)).of(samples)
    found = decoded(tmp_path, data)
    np.testing.assert_allclose(found.pixels, np.where(hidden[:, :, None], 0, on_black(samples, bits)), atol=2)
    assert found.transparent == pytest.approx(hidden.mean())


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_of_a_png_is_looked_up_with_its_transparency(tmp_path: Path, bits: int) -> None:
    colours = np.random.default_rng(2).integers(0, 256, (2**bits, 3), dtype=np.uint8)
    indices = scene(HEIGHT, WIDTH, 1, bits)
    chunks = ((b"PLTE", colours.tobytes()), (b"tRNS", b"\0"))
    found = decoded(tmp_path, Png(bits=bits, colour="palette", chunks=chunks).of(indices))
    colours[0] = 0
    np.testing.assert_array_equal(found.pixels, colours[indices[:, :, 0]])


@pytest.mark.parametrize(("colours", "reason"), [(0, "no palette"), (9, "shorter than its pixels need")])
def test_a_palette_that_lacks_colours_is_damage(tmp_path: Path, colours: int, reason: str) -> None:
    chunks = ((b"PLTE", bytes(3 * colours)),) if colours else ()
    assert reason in refused(tmp_path, Png(colour="palette", chunks=chunks).of(scene(HEIGHT, WIDTH, 1, 8)))


@pytest.mark.parametrize("damage", ["a bit of the pixels", "zeros from the middle on", "the end is missing"])
def test_damage_of_a_png_is_found_by_its_checksums(tmp_path: Path, damage: str) -> None:
    whole = Png().of(scene(HEIGHT, WIDTH, 3, 8))
    begin, middle, end = whole.index(b"IDAT") + 4, len(whole) // 2, len(whole) - 20
    damaged = {
        "a bit of the pixels": whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :],
        "zeros from the middle on": whole[:middle].ljust(len(whole), b"\0"),
        "the end is missing": whole[:end],
    }[damage]
    assert begin < middle < end
    assert "damaged" in refused(tmp_path, damaged)


# --- more than 8 bits, of which few are used -----------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("colour", ["grey", "rgb", "rgb alpha"])
def test_a_png_that_states_its_bits_is_scaled_by_them(tmp_path: Path, bits: int, colour: str) -> None:
    """PNG asks for samples at the upper end of 16 bits; cameras leave them at the lower."""
    samples = scene(HEIGHT, WIDTH, PNG_KINDS[colour, 16], bits)
    stated = ((b"sBIT", bytes([bits] * samples.shape[2])),)
    filled = samples << (16 - bits) | samples >> (2 * bits - 16)
    for stored in (samples, samples << (16 - bits), filled):
        found = decoded(tmp_path, Png(bits=16, colour=colour, chunks=stated).of(stored.astype(np.uint16)))
        np.testing.assert_allclose(found.pixels, on_black(samples, bits), atol=2)
        assert quality.oddities(found) == ()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "kind",
    [
        Tiff(bits=16),
        Tiff(bits=16, extra=(2,)),
        Tiff(bits=16, extra=(0,)),
        Tiff(bits=16, photometric=GREY),
        Tiff(bits=16, photometric=WHITE_IS_ZERO),
    ],
)
@pytest.mark.parametrize("tag", [281, 341])
def test_a_tiff_whose_largest_value_is_a_number_of_bits_is_scaled_by_it(
    tmp_path: Path, kind: Tiff, order: str, tag: int
) -> None:
    channels = COLOURS[kind.photometric] + len(kind.extra)
    for bits in (10, 12, 14):
        samples = scene(HEIGHT, WIDTH, channels, bits).astype(np.uint16)
        stated = replace(kind, order=order, tags={tag: ("short", (2**bits - 1,) * channels)})
        for way in (stated, replace(stated, compression="lzw", tile_px=16, orientation=6)):
            found = decoded(tmp_path, way.of(samples))
            np.testing.assert_allclose(found.pixels, meant(samples, replace(way, bits=bits)), atol=2)


def test_packed_12_bits_that_say_so_are_not_scaled_twice(tmp_path: Path) -> None:
    samples = scene(HEIGHT, WIDTH, 1, 12) // 20  # a dark picture
    kind = Tiff(bits=12, photometric=GREY, tags={281: ("short", (4095,))})
    np.testing.assert_allclose(decoded(tmp_path, kind.of(samples)).pixels, meant(samples, kind), atol=1)


def test_a_largest_value_that_was_measured_changes_nothing(tmp_path: Path) -> None:
    samples = scene(HEIGHT, WIDTH, 1, 12).astype(np.uint16)
    found = decoded(tmp_path, Tiff(bits=16, photometric=GREY, tags={281: ("short", (4000,))}).of(samples))
    np.testing.assert_allclose(found.pixels[:, :, 0], samples[:, :, 0] / 257, atol=1)


@pytest.mark.parametrize("bits", [10, 12])
def test_pictures_that_use_a_sixteenth_of_their_range_are_counted(tmp_path: Path, bits: int) -> None:
    for channels, photometric in ((1, GREY), (3, RGB), (4, RGB)):
        samples = scene(HEIGHT, WIDTH, channels, bits).astype(np.uint16)
        if channels == 4:
            samples[:, :, 3] = 2**16 - 1
        extra = (2,) if channels == 4 else ()
        for planar in (False, True)[:channels]:
            tiff = Tiff(bits=16, photometric=photometric, planar=planar, extra=extra).of(samples)
            assert quality.oddities(decoded(tmp_path, tiff)) == ("narrow",)
        png = Png(bits=16, colour={1: "grey", 3: "rgb", 4: "rgb alpha"}[channels]).of(samples)
        assert quality.oddities(decoded(tmp_path, png)) == ("narrow",)


# --- alpha ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header_bytes", [40, 108, 124])
@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_bmp_is_what_its_writer_says(tmp_path: Path, header_bytes: int, top_down: bool, channels: int) -> None:
    """A header of 40 bytes knows no alpha: the fourth byte means nothing."""
    samples = scene(HEIGHT, WIDTH, channels, 8)
    found = decoded(tmp_path, Bmp(header_bytes=header_bytes, top_down=top_down).of(samples))
    want = samples[:, :, :3] if header_bytes == 40 else on_black(samples, 8)
    np.testing.assert_allclose(found.pixels, want, atol=2)


def test_a_bmp_of_another_kind_is_refused_by_its_name(tmp_path: Path) -> None:
    """Ten bits a channel."""
    whole = bytearray(Bmp(header_bytes=108).of(scene(HEIGHT, WIDTH, 4, 8)))
    whole[54:66] = struct.pack("<3I", 0x3FF00000, 0xFFC00, 0x3FF)
    assert refused(tmp_path, whole) == "an unsupported kind of BMP"


@pytest.mark.parametrize(
    "writer",
    [
        *(Bmp(header_bytes=108), Bmp(header_bytes=124), Png(colour="rgb alpha")),
        *(Tiff(extra=(2,)), Tiff(extra=(1,)), Tiff(extra=(1,), orientation=6), Tiff()),
    ],
)
def test_alpha_that_is_0_everywhere_is_no_alpha_and_is_counted(tmp_path: Path, writer: Bmp | Png | Tiff) -> None:
    samples = scene(HEIGHT, WIDTH, 4, 8)
    samples[:, :, 3] = 0
    found = decoded(tmp_path, writer.of(samples))
    turn = TURNS[writer.orientation if isinstance(writer, Tiff) else 1]
    np.testing.assert_array_equal(found.pixels, turn(samples[:, :, :3]))
    assert quality.oddities(found) == ("transparent",)
    samples[5, 5, 3] = 255  # then it is alpha, and nearly all is black
    assert quality.oddities(decoded(tmp_path, writer.of(samples))) == ("flat", "black", "transparent")


def test_alpha_that_is_0_everywhere_and_multiplied_already_is_no_alpha(tmp_path: Path) -> None:
    deep, grey = scene(HEIGHT, WIDTH, 4, 16), scene(HEIGHT, WIDTH, 2, 8)
    deep[:, :, 3] = grey[:, :, 1] = 0
    found = decoded(tmp_path, Tiff(bits=16, extra=(1,)).of(deep))
    np.testing.assert_allclose(found.pixels, deep[:, :, :3] / 257, atol=1)
    found = decoded(tmp_path, Tiff(photometric=GREY, extra=(1,)).of(grey))
    np.testing.assert_array_equal(found.pixels, np.repeat(grey[:, :, :1], 3, 2))
    planes = Tiff(bits=16, extra=(1,), planar=True).of(deep)
    assert refused(tmp_path, planes) == "colours in separate planes under an alpha that is 0 everywhere"


# --- JPEG ----------------------------------------------------------------------------------------------------------

JPEG_WAYS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 4},
    "full colour": {"subsampling": 0},
    "half colour": {"subsampling": 1},
    "optimised": {"optimize": True},
}


def jpeg(image: Image.Image, **options: object) -> bytes:
    raw = io.BytesIO()
    image.save(raw, "JPEG", quality=90, **options)
    return raw.getvalue()


def photograph() -> Image.Image:
    """Smooth, with texture: its scans are long enough to be damaged in many ways."""
    return Image.fromarray(scene(240, 320, 3, 8))


def ended(data: bytes) -> bytes:
    return data + b"\xff\xd9"


@pytest.mark.parametrize("way", JPEG_WAYS)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_is_what_a_second_decoder_says(tmp_path: Path, way: str, mode: str) -> None:
    data = jpeg(photograph().convert(mode), **JPEG_WAYS[way])
    found = decoded(tmp_path, data)
    second = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(found.pixels - second).max() <= 2
    assert quality.oddities(found) == ()


def test_a_jpeg_whose_inks_are_stored_as_luma_and_chroma_becomes_colour(tmp_path: Path) -> None:
    """YCCK: luma and chroma of the negative, and a fourth component, inverted, for black."""
    no_black = np.full((240, 320, 1), 255, np.uint8)
    ycck = np.concatenate([np.asarray(ImageOps.invert(photograph()).convert("YCbCr")), no_black], 2)
    data = jpeg(Image.frombytes("CMYK", (320, 240), (255 - ycck).tobytes()))  # Pillow inverts what it writes
    adobe = data.index(b"Adobe")
    found = decoded(tmp_path, data[: adobe + 11] + b"\2" + data[adobe + 12 :])
    assert np.abs(found.pixels - np.asarray(photograph()).astype(int)).mean() < 5


HEARD = [(way, mode) for way in JPEG_WAYS for mode in ("L", "RGB", "CMYK") if (way, mode) != ("half colour", "CMYK")]
"""inks of which black is sampled otherwise than the first are decoded by Pillow, which tells no warnings"""


@pytest.mark.parametrize(("way", "mode"), HEARD)
def test_a_jpeg_that_libjpeg_warns_of_is_unreadable(tmp_path: Path, way: str, mode: str) -> None:
    whole = jpeg(photograph().convert(mode), **JPEG_WAYS[way])
    middle = len(whole) // 2
    damages = {
        "cut short": whole[:middle],
        "cut, and an end marker": ended(whole[:middle]),
        "without an end": whole[:-2],
        "a hole of zeros": whole[:middle] + bytes(4096) + whole[middle + 4096 :],
    }
    if way != "progressive":  # of its refinements, some bits are valid wherever they stand
        damages["a piece is missing"] = whole[:middle] + whole[middle + 800 :]
        damages["a piece is there twice"] = whole[:middle] + whole[middle - 500 :]
    reasons = {name: refused(tmp_path, data) for name, data in damages.items()}
    assert all(reason.startswith("damaged") for reason in reasons.values())


def test_a_progressive_jpeg_that_lacks_scans_is_unreadable(tmp_path: Path) -> None:
    """Libjpeg warns of nothing: it shows the picture without its details."""
    whole = jpeg(photograph(), progressive=True)
    scans = [k for k in range(len(whole)) if whole.startswith(b"\xff\xda", k)]
    assert len(scans) > 5
    for scan in scans[1:]:
        tables = whole.rfind(b"\xff\xc4", 0, scan)
        for cut in {scan, tables if tables > scans[0] else scan}:
            assert refused(tmp_path, ended(whole[:cut])) == "damaged or cut short: the JPEG lacks scans"


def test_what_is_no_damage_of_a_jpeg_is_let_pass(tmp_path: Path) -> None:
    whole = jpeg(photograph())
    bad_profile = b"\xff\xe2" + struct.pack(">H", 20) + b"ICC_PROFILE\0\5\1abcd"
    harmless = {
        "zeros that fill a block": whole[:-2] + bytes(7) + whole[-2:],
        "something after the end": whole + b"a video" * 99,
        "a colour profile in pieces": whole[:2] + bad_profile + whole[2:],
        "bytes that fill before a marker": whole[:2] + b"\xff\xff" + whole[2:],
    }
    expected = decoded(tmp_path, whole).pixels
    for name, data in harmless.items():
        np.testing.assert_array_equal(decoded(tmp_path, data).pixels, expected, name)


def test_a_jpeg_whose_colour_is_sampled_by_three_is_read(tmp_path: Path) -> None:
    """Of one grey, so that every block is two zero bits, however many there are."""
    data = bytearray(jpeg(Image.new("RGB", (48, 48), (128, 128, 128)), subsampling=0, optimize=True))
    data[data.index(b"\xff\xc0") + 11] = 0x31
    assert (decoded(tmp_path, bytes(data)).pixels == 128).all()


def test_the_first_picture_of_a_file_of_several_jpegs_is_taken(tmp_path: Path) -> None:
    raw = io.BytesIO()
    photograph().save(raw, "MPO", save_all=True, append_images=[Image.new("RGB", (320, 240))])
    assert Image.open(raw).format == "MPO"
    assert np.abs(decoded(tmp_path, raw.getvalue()).pixels - np.asarray(photograph()).astype(int)).mean() < 5


def test_a_jpeg_of_12_bits_is_refused_by_its_name(tmp_path: Path) -> None:
    data = bytearray(jpeg(photograph()))
    data[data.index(b"\xff\xc0") + 4] = 12
    assert refused(tmp_path, bytes(data)) == "a JPEG of 3 x 12 bits, which is not supported"


def test_a_jpeg_that_states_its_height_at_its_end_is_refused_by_its_name(tmp_path: Path) -> None:
    data = bytearray(jpeg(photograph()))
    begin = data.index(b"\xff\xc0") + 5
    data[begin : begin + 2] = b"\0\0"
    assert "height at its end" in refused(tmp_path, bytes(data))


@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr"])
def test_a_jpeg_inside_a_tiff_is_read_and_its_damage_is_found(tmp_path: Path, mode: str) -> None:
    """Libtiff drops libjpeg's warnings."""
    raw = io.BytesIO()
    picture = photograph().convert(mode)
    picture.save(raw, "TIFF", compression="jpeg", quality=90)
    found = decoded(tmp_path, raw.getvalue())
    assert np.abs(found.pixels - np.asarray(picture.convert("RGB")).astype(int)).mean() < 5
    whole = raw.getvalue()
    place, size = Image.open(raw).tag_v2[273][-1], Image.open(raw).tag_v2[279][-1]
    middle = place + size // 2
    assert "damaged" in refused(tmp_path, whole[:middle] + bytes(300) + whole[middle + 300 :])


# --- damage of any kind --------------------------------------------------------------------------------------------


def small_files() -> dict[str, bytes]:
    """One small file per way to the pixels."""
    rgb, deep = scene(20, 30, 3, 8), scene(20, 30, 3, 16)
    key = (b"tRNS", struct.pack(">3H", *deep[3, 3]))
    tiff_jpeg = io.BytesIO()
    Image.fromarray(scene(32, 32, 3, 8)).save(tiff_jpeg, "TIFF", compression="jpeg")
    return {
        "jpeg": jpeg(Image.fromarray(rgb)),
        "progressive jpeg": jpeg(Image.fromarray(rgb), progressive=True),
        "jpeg of inks": jpeg(Image.fromarray(rgb).convert("CMYK")),
        "png": Png().of(rgb),
        "png of 16 bits": Png(bits=16, chunks=((b"sBIT", b"\x0c\x0c\x0c"), key)).of(deep >> 4),
        "interlaced png": Png(colour="rgb alpha", interlaced=True).of(scene(20, 30, 4, 8)),
        "bmp": Bmp(header_bytes=124).of(scene(20, 30, 4, 8)),
        "tiff": Tiff().of(rgb),
        "tiff of planes": Tiff(bits=16, planar=True, tile_px=16, compression="deflate").of(deep),
        "tiff of 12 bits in 16": Tiff(bits=16, tags={281: ("short", (4095,) * 3)}).of(deep >> 4),
        "tiff of grey": Tiff(bits=16, photometric=0, order=">", compression="lzw").of(scene(20, 30, 1, 16)),
        "tiff of a palette": Tiff(photometric=3, tags={320: ("short", tuple(range(768)))}).of(scene(20, 30, 1, 8)),
        "tiff of jpegs": tiff_jpeg.getvalue(),
    }


def decoded_or_refused(folder: Path, data: bytes) -> None:
    (folder / "a").write_bytes(data)
    try:
        with warnings.catch_warnings(action="ignore"), opened(folder / "a", pixels_max=10**6) as found:
            assert found.pixels.ndim == 3
            quality.oddities(found)
    except UnreadableError as error:
        assert error.reason  # noqa: PT017 - either outcome is right, a third is not
        assert str(folder) not in error.explain()  # noqa: PT017


@pytest.mark.parametrize("name", small_files())
def test_a_damaged_file_is_a_picture_or_unreadable_and_nothing_else(tmp_path: Path, name: str) -> None:
    """Cut at every tenth; and many times two changed bytes, a changed bit, zeros, or a piece taken out."""
    whole = small_files()[name]
    rng = np.random.default_rng(11)
    for tenth in range(10):
        decoded_or_refused(tmp_path, whole[: len(whole) * tenth // 10])
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 2):
            damaged[place] = rng.integers(256)
        decoded_or_refused(tmp_path, damaged)
        place = rng.integers(0, len(whole))
        bit = whole[place] ^ 1 << rng.integers(8)
        decoded_or_refused(tmp_path, whole[:place] + bytes([bit]) + whole[place + 1 :])
        decoded_or_refused(tmp_path, whole[:place] + bytes(40) + whole[place + 40 :])
        decoded_or_refused(tmp_path, whole[:place] + whole[place + 5 :])


# --- which formats ------------------------------------------------------------------------------------------------


def test_pillow_opens_every_format_that_is_named_and_each_has_a_loader() -> None:
    """A name that Pillow does not know would be a KeyError at each file, which looks like damage."""
    Image.init()
    assert set(FORMATS) <= set(Image.OPEN)
    assert set(FORMATS) <= set(_LOADERS)


def test_the_formats_are_listed_in_one_place() -> None:
    for file in (Path(__file__).parents[2] / "site_agent").rglob("*.py"):
        assert FORMATS_TEXT not in file.read_text(), file
    assert FORMATS_TEXT in (Path(__file__).parents[2] / "docs" / "quickstart.md").read_text()
