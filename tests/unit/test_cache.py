"""What is kept so that no image is decoded twice, and what happens to it when disks misbehave."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedcervix.errors import DataError
from site_agent.cache import PIXEL_FILES_MAX, Look, load, read_looks, write_looks
from site_agent.images import decode, pixel_digest, square


@dataclass(frozen=True)
class Picture:
    path: str
    digest: str


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    rng = np.random.default_rng(0)
    found = []
    for k in range(3):
        pixels = rng.integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
        found.append(Picture(f"{k}.png", pixel_digest(pixels)))
    return found


@contextmanager
def disk_that_takes(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size_bytes`: what a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files(folder: Path) -> list[str]:
    return sorted(path.name.split("-")[0] + path.suffix for path in folder.iterdir())


def test_images_are_squares_in_the_order_asked_for(tmp_path: Path, pictures: list[Picture]) -> None:
    order = [pictures[2], pictures[0]]
    found = load(tmp_path, order, 8, "crop", tmp_path / "cache")
    assert (found.shape, found.dtype) == ((2, 8, 8, 3), np.uint8)
    for k, picture in enumerate(order):
        np.testing.assert_array_equal(found[k], square(decode(tmp_path / picture.path), 8, "crop"))


def test_a_second_start_decodes_nothing(tmp_path: Path, pictures: list[Picture]) -> None:
    first = load(tmp_path, pictures, 8, "crop", tmp_path / "cache")
    assert files(tmp_path / "cache") == ["pixels.npy", "pixels.sha256"]
    for picture in pictures:
        (tmp_path / picture.path).unlink()
    reports: list[tuple[int, int]] = []
    again = load(tmp_path, pictures, 8, "crop", tmp_path / "cache", lambda *report: reports.append(report))
    np.testing.assert_array_equal(again, first)
    assert reports == []


def test_a_cached_array_may_be_written_to_without_changing_the_cache(tmp_path: Path, pictures: list[Picture]) -> None:
    first = load(tmp_path, pictures, 8, "crop", tmp_path / "cache").copy()
    load(tmp_path, pictures, 8, "crop", tmp_path / "cache")[:] = 0
    np.testing.assert_array_equal(load(tmp_path, pictures, 8, "crop", tmp_path / "cache"), first)


def test_another_side_fit_or_selection_is_another_entry(tmp_path: Path, pictures: list[Picture]) -> None:
    cache = tmp_path / "cache"
    assert load(tmp_path, pictures, 8, "crop", cache).shape == (3, 8, 8, 3)
    assert load(tmp_path, pictures, 9, "crop", cache).shape == (3, 9, 9, 3)
    squashed = load(tmp_path, pictures, 8, "squash", cache)
    assert (squashed != load(tmp_path, pictures, 8, "crop", cache)).any()
    assert load(tmp_path, pictures[:1], 8, "crop", cache).shape == (1, 8, 8, 3)
    assert load(tmp_path, [], 8, "crop", cache).shape == (0, 8, 8, 3)
    assert load(tmp_path, [], 8, "crop", cache).shape == (0, 8, 8, 3)


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "no checksum"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, pictures: list[Picture], harm: str) -> None:
    cache = tmp_path / "cache"
    first = load(tmp_path, pictures, 8, "crop", cache).copy()
    kept = next(cache.glob("*.npy"))
    raw = bytearray(kept.read_bytes())
    if harm == "no checksum":
        kept.with_suffix(".sha256").unlink()
    else:
        raw[200] ^= 1
        kept.write_bytes({"flip": raw, "cut": raw[:100], "empty": b""}[harm])
    np.testing.assert_array_equal(load(tmp_path, pictures, 8, "crop", cache), first)
    (tmp_path / "0.png").unlink()
    np.testing.assert_array_equal(load(tmp_path, pictures, 8, "crop", cache), first)  # it was kept again


def test_a_full_disk_costs_time_not_the_run(
    tmp_path: Path, pictures: list[Picture], capsys: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    with disk_that_takes(100):
        found = load(tmp_path, pictures, 8, "crop", cache)
    assert found.shape == (3, 8, 8, 3)
    assert list(cache.iterdir()) == []  # nothing half-written stays
    printed = capsys.readouterr()
    assert "cache_not_kept" in printed.out + printed.err
    assert str(tmp_path) not in printed.out + printed.err


def test_a_cache_folder_that_cannot_be_made_costs_time_not_the_run(tmp_path: Path, pictures: list[Picture]) -> None:
    (tmp_path / "cache").touch()
    assert load(tmp_path, pictures, 8, "crop", tmp_path / "cache").shape == (3, 8, 8, 3)
    write_looks(tmp_path / "cache", "key", {})
    assert read_looks(tmp_path / "cache", "key") == {}


def test_an_image_that_vanished_or_changed_since_indexing_is_named(tmp_path: Path, pictures: list[Picture]) -> None:
    Image.new("RGB", (20, 30)).save(tmp_path / "1.png")
    with pytest.raises(DataError, match=r"1.png is no longer what it was .*: its pixels are others") as caught:
        load(tmp_path, pictures, 8, "crop", tmp_path / "cache")
    assert "data check" in caught.value.next_step
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match=r"1.png is no longer what it was .*: no such file"):
        load(tmp_path, pictures, 8, "crop", tmp_path / "cache")


def test_the_cache_folder_stays_bounded_and_drops_what_was_not_used(tmp_path: Path, pictures: list[Picture]) -> None:
    cache = tmp_path / "cache"
    load(tmp_path, pictures, 8, "crop", cache)
    used = next(cache.glob("*.npy"))
    for side in range(9, 9 + PIXEL_FILES_MAX):
        os.utime(used, ns=(2**62, 2**62))  # as if it had just been used
        load(tmp_path, pictures[:1], side, "crop", cache)
    assert used.exists()
    assert len(list(cache.glob("*.npy"))) == len(list(cache.glob("*.sha256"))) == PIXEL_FILES_MAX


def test_looks_are_kept_by_key(tmp_path: Path) -> None:
    looks = {"a.png": Look(10, 20, "0" * 64, bytes(range(256))), "b.png": Look(1, 2, "f" * 64, b"")}
    write_looks(tmp_path, "this folder", looks)
    assert read_looks(tmp_path, "this folder") == looks
    assert read_looks(tmp_path, "another folder") == {}


@pytest.mark.parametrize(
    "damaged",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"version": "0", "looks": {}}', b"[" * 100_000, b'{"version": "0"}', b"null"],
)
def test_a_damaged_or_older_index_is_ignored(tmp_path: Path, damaged: bytes) -> None:
    write_looks(tmp_path, "key", {"a.png": Look(10, 20, "0" * 64, b"")})
    kept = next(tmp_path.glob("index-*.json"))
    kept.write_bytes(damaged)
    assert read_looks(tmp_path, "key") == {}


def test_an_index_with_a_damaged_entry_is_ignored(tmp_path: Path) -> None:
    write_looks(tmp_path, "key", {"a.png": Look(10, 20, "0" * 64, b"")})
    kept = next(tmp_path.glob("index-*.json"))
    whole = kept.read_text()
    for old, new in (("0" * 64, "0"), ('"thumbnail": ""', '"thumbnail": "zz"'), ("mtime_ns", "mtime")):
        kept.write_text(whole.replace(old, new))
        assert read_looks(tmp_path, "key") == {}
