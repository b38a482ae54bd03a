"""Every image is decoded once, and no harm to what was kept, to the disk or to the images is fatal or believed."""

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedcervix.errors import DataError, FullDiskError, StorageError
from site_agent.data.pixel_arrays import Gathered
from site_agent.data.pixel_cache import load
from site_agent.data.pixel_store import COMMIT_BYTES, STORES_MAX, Kind, Store, opened
from site_agent.data.pixels import Pixels
from site_agent.images.decode import decode, pixel_digest, square

COUNT = 5
RECORD_BYTES = 8 * 8 * 3
ENTRY_BYTES = 36
IN_MEMORY, ON_DISK = 1 << 30, 0
DAMAGED_RECORDS_FILE = ["a byte flipped", "cut short", "emptied", "deleted", "squares of another version"]
DAMAGED_INDEX = [
    "deleted",
    "emptied",
    "cut short",
    "digest flipped",
    "checksum flipped",
    "no index at all",
    "of an older version",
]


@dataclass(frozen=True)
class Picture:
    path: str
    digest: str


def photographs(folder: Path, count: int, seed: int = 0) -> list[Picture]:
    rng = np.random.default_rng(seed)
    found = []
    for k in range(count):
        pixels = rng.integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}-{k}.png")
        found.append(Picture(f"{seed}-{k}.png", pixel_digest(pixels)))
    return found


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    return photographs(tmp_path, COUNT)


@dataclass
class Loader:
    """Loads squares of 8 px, and counts what it had to decode."""

    folder: Path
    memory_bytes_max: int
    decoded: int = 0

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def squares(self) -> Path:
        return self.cache / "pixels-8-crop.squares"

    @property
    def index(self) -> Path:
        return self.cache / "pixels-8-crop.index"

    def __call__(self, pictures: list[Picture]) -> Pixels:
        self.decoded = 0
        return load(
            self.folder,
            pictures,
            8,
            "crop",
            self.cache,
            self._count,
            memory_bytes_max=self.memory_bytes_max,
        )

    def _count(self, done: int, _of: int) -> None:
        self.decoded = done


@pytest.fixture(params=[IN_MEMORY, ON_DISK], ids=["in memory", "on the disk"])
def loader(tmp_path: Path, request: pytest.FixtureRequest) -> Loader:
    return Loader(tmp_path, request.param)


@pytest.fixture
def on_disk(tmp_path: Path) -> Loader:
    return Loader(tmp_path, ON_DISK)


@contextmanager
def disk_that_takes(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size_bytes`: what a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def right(folder: Path, pictures: list[Picture]) -> np.ndarray:
    return np.stack([square(decode(folder / picture.path), 8, "crop") for picture in pictures])


def flipped(raw: bytes, place: int) -> bytes:
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


# --- what is loaded -----------------------------------------------------------------------------------------------


def test_images_are_squares_in_the_order_asked_for(loader: Loader, pictures: list[Picture]) -> None:
    order = [pictures[2], pictures[0], pictures[2]]
    found = loader(order)
    assert (len(found), found.shape, found.dtype) == (3, (3, 8, 8, 3), np.uint8)
    np.testing.assert_array_equal(found[np.arange(3)], right(loader.folder, order))
    assert loader.decoded == 2  # one of them was asked for twice


def test_they_are_an_array_if_they_fit_in_memory_and_stay_on_the_disk_if_not(
    tmp_path: Path, pictures: list[Picture]
) -> None:
    fits = Loader(tmp_path, COUNT * RECORD_BYTES)(pictures)
    assert isinstance(fits, np.ndarray)
    mapped = Loader(tmp_path, COUNT * RECORD_BYTES - 1)(pictures)
    assert isinstance(mapped, Gathered)
    assert not mapped.sources[0].flags.writeable
    np.testing.assert_array_equal(mapped[np.arange(COUNT)], fits)


def test_a_second_start_decodes_nothing_and_needs_no_image(loader: Loader, pictures: list[Picture]) -> None:
    first = loader(pictures)[np.arange(COUNT)]
    assert loader.decoded == COUNT
    for picture in pictures:
        (loader.folder / picture.path).unlink()
    np.testing.assert_array_equal(loader(pictures)[np.arange(COUNT)], first)
    assert loader.decoded == 0


def test_splits_share_one_file_and_a_new_image_alone_is_decoded(loader: Loader, pictures: list[Picture]) -> None:
    loader(pictures[:3])
    loader(pictures[2:])
    assert loader.decoded == 2
    [more] = photographs(loader.folder, 1, seed=1)
    everything = [more, *reversed(pictures)]
    np.testing.assert_array_equal(loader(everything)[np.arange(6)], right(loader.folder, everything))
    assert loader.decoded == 1
    assert loader.squares.stat().st_size == 6 * RECORD_BYTES


def test_another_side_or_fit_is_another_file(tmp_path: Path, pictures: list[Picture]) -> None:
    cache = tmp_path / "cache"
    assert load(tmp_path, pictures, 9, "crop", cache).shape == (COUNT, 9, 9, 3)
    squashed = load(tmp_path, pictures, 8, "squash", cache)
    assert (squashed[np.arange(COUNT)] != right(tmp_path, pictures)).any()
    assert load(tmp_path, [], 8, "crop", cache).shape == (0, 8, 8, 3)
    assert sorted(file.name for file in cache.glob("*.squares")) == [
        "pixels-8-crop.squares",
        "pixels-8-squash.squares",
        "pixels-9-crop.squares",
    ]


def test_only_the_owner_may_read_what_is_kept(loader: Loader, pictures: list[Picture]) -> None:
    loader(pictures)
    assert {file.suffix: oct(file.stat().st_mode & 0o777) for file in loader.cache.iterdir()} == {
        ".squares": "0o600",
        ".index": "0o600",
        ".lock": "0o600",
    }


def test_an_array_in_memory_may_be_written_to_without_changing_what_is_kept(
    tmp_path: Path, pictures: list[Picture]
) -> None:
    loader = Loader(tmp_path, IN_MEMORY)
    array = loader(pictures)
    assert isinstance(array, np.ndarray)
    array[:] = 0
    np.testing.assert_array_equal(loader(pictures)[np.arange(COUNT)], right(tmp_path, pictures))


def test_the_folder_stays_bounded_and_drops_what_was_not_used(tmp_path: Path, pictures: list[Picture]) -> None:
    loader = Loader(tmp_path, IN_MEMORY)
    loader(pictures)
    for side in range(9, 9 + STORES_MAX):
        os.utime(loader.index, ns=(2**62, 2**62))  # as if it had just been used
        load(tmp_path, pictures[:1], side, "crop", loader.cache)
    assert loader.squares.exists()
    assert len(list(loader.cache.glob("*.squares"))) == len(list(loader.cache.glob("*.index"))) == STORES_MAX
    assert not (loader.cache / "pixels-9-crop.squares").exists()


# --- harm to what is kept -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", DAMAGED_RECORDS_FILE)
def test_a_damaged_square_is_decoded_again_and_the_others_are_not(
    loader: Loader, pictures: list[Picture], harm: str
) -> None:
    loader(pictures)
    raw = loader.squares.read_bytes()
    loader.squares.unlink()
    again = COUNT
    if harm == "a byte flipped":
        loader.squares.write_bytes(flipped(raw, 2 * RECORD_BYTES + 5))
        again = 1
    elif harm == "cut short":
        loader.squares.write_bytes(raw[: 3 * RECORD_BYTES + 7])
        again = 2
    elif harm == "squares of another version":
        loader.squares.write_bytes(bytes(byte ^ 1 for byte in raw))
    elif harm == "emptied":
        loader.squares.touch()
    np.testing.assert_array_equal(loader(pictures)[np.arange(COUNT)], right(loader.folder, pictures))
    assert loader.decoded == again
    loader(pictures)
    assert loader.decoded == 0  # it was mended
    assert loader.squares.stat().st_size == COUNT * RECORD_BYTES


@pytest.mark.parametrize("harm", DAMAGED_INDEX)
def test_a_damaged_index_costs_the_entries_that_are_damaged(loader: Loader, pictures: list[Picture], harm: str) -> None:
    loader(pictures)
    raw = loader.index.read_bytes()
    body = len(raw) - COUNT * ENTRY_BYTES
    harmed, again = {
        "deleted": (None, COUNT),
        "emptied": (b"", COUNT),
        "cut short": (raw[:-ENTRY_BYTES - 1], 2),
        "digest flipped": (flipped(raw, body + ENTRY_BYTES), 1),
        "checksum flipped": (flipped(raw, body + 2 * ENTRY_BYTES - 1), 1),
        "no index at all": (b"[" * 100_000, COUNT),
        "of an older version": (raw.replace(b"pillow", b"pillow 0"), COUNT),
    }[harm]  # fmt: skip
    loader.index.unlink()
    if harmed is not None:
        loader.index.write_bytes(harmed)
    np.testing.assert_array_equal(loader(pictures)[np.arange(COUNT)], right(loader.folder, pictures))
    assert loader.decoded == again
    loader(pictures)
    assert loader.decoded == 0


def test_a_trainer_keeps_its_squares_whatever_happens_to_the_cache_meanwhile(
    on_disk: Loader, pictures: list[Picture]
) -> None:
    expected = right(on_disk.folder, pictures)
    more = photographs(on_disk.folder, 3, seed=1)

    def cut_index() -> None:
        on_disk.index.write_bytes(on_disk.index.read_bytes()[: -3 * ENTRY_BYTES])

    def older_version() -> None:
        on_disk.index.write_bytes(on_disk.index.read_bytes().replace(b"pillow", b"pillow 0"))

    for harm in (cut_index, older_version, on_disk.squares.unlink, on_disk.index.unlink):
        trainer = on_disk(pictures)
        harm()
        np.testing.assert_array_equal(on_disk(more)[np.arange(3)], right(on_disk.folder, more))  # another process adds
        np.testing.assert_array_equal(trainer[np.arange(COUNT)], expected)
        on_disk(more + pictures[::-1])
        np.testing.assert_array_equal(trainer[np.arange(COUNT)], expected)


def test_what_was_left_half_written_is_removed(on_disk: Loader, pictures: list[Picture]) -> None:
    on_disk(pictures)
    (on_disk.cache / ".pixels-8-crop.index.x7y").write_text("half")
    on_disk(pictures)
    assert len(list(on_disk.cache.iterdir())) == 3


# --- processes that are killed, and several at a time -------------------------------------------------------------

KILLED = """
import sys
from pathlib import Path
from site_agent.data.pixel_store import Kind, opened
import numpy as np
with opened(Path(sys.argv[1]), Kind(8, "crop")) as store:
    store.put(b"a" * 32, np.full((8, 8, 3), 1, np.uint8))
    store.commit()
    store.put(b"b" * 32, np.full((8, 8, 3), 2, np.uint8))
    print("not yet kept", flush=True)
    sys.stdin.read()
"""


def test_a_process_that_is_killed_loses_only_what_it_had_not_committed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.kill()
    assert process.wait(30) == -signal.SIGKILL
    process.communicate()
    with opened(tmp_path, Kind(8, "crop")) as store:
        found = np.empty((8, 8, 3), np.uint8)
        assert store.read(b"a" * 32, found)
        assert found.min() == found.max() == 1
        assert not store.holds(b"b" * 32)


def test_what_a_killed_process_wrote_and_did_not_name_is_written_over(on_disk: Loader, pictures: list[Picture]) -> None:
    on_disk(pictures[:2])
    with on_disk.squares.open("ab") as file:
        file.write(b"x" * (RECORD_BYTES + 10))
    np.testing.assert_array_equal(on_disk(pictures)[np.arange(COUNT)], right(on_disk.folder, pictures))
    assert on_disk.decoded == COUNT - 2
    assert on_disk.squares.stat().st_size == COUNT * RECORD_BYTES


def test_what_was_decoded_before_an_error_is_kept(loader: Loader, pictures: list[Picture]) -> None:
    kept = (loader.folder / pictures[0].path).read_bytes()
    (loader.folder / pictures[0].path).unlink()
    with pytest.raises(DataError):
        loader(pictures)
    (loader.folder / pictures[0].path).write_bytes(kept)
    loader(pictures)
    assert loader.decoded < COUNT


def test_squares_reach_the_disk_as_they_come_not_at_the_end(tmp_path: Path) -> None:
    side = 1024
    with opened(tmp_path, Kind(side, "crop")) as store:
        blank, count = np.zeros((side, side, 3), np.uint8), COMMIT_BYTES // (side * side * 3) + 1
        for k in range(count):
            store.put(k.to_bytes(32), blank)
        assert store.holds((0).to_bytes(32))
        assert (tmp_path / f"pixels-{side}-crop.squares").stat().st_size == count * side * side * 3


def fill(store: Store, names: str) -> None:
    for name in names:
        store.put(name.encode() * 32, np.full((8, 8, 3), ord(name), np.uint8))
    store.commit()


def test_two_processes_add_to_one_file_and_find_what_the_other_has_kept(tmp_path: Path) -> None:
    kind, found = Kind(8, "crop"), np.empty((8, 8, 3), np.uint8)
    with opened(tmp_path, kind) as one, opened(tmp_path, kind) as other:
        fill(one, "ab")
        fill(other, "bc")  # b: both have decoded it
        fill(one, "d")
        for store, names in ((one, "abcd"), (other, "abc")):
            for name in names:
                assert store.read(name.encode() * 32, found)
                assert (found == ord(name)).all()
    assert (tmp_path / "pixels-8-crop.squares").stat().st_size == 4 * RECORD_BYTES


DECODES = """
import json, sys
from pathlib import Path
from tests.unit.test_pixel_cache import Loader, Picture
from site_agent.data import pixel_store as records
records.COMMIT_BYTES = 20 * 8 * 8 * 3
pictures = [Picture(*fields) for fields in json.load(sys.stdin)]
print("ready", flush=True)
Path(sys.argv[2]).read_text()  # a pipe: opens when the other side does
print(len(Loader(Path(sys.argv[1]), 0)(pictures)))
"""


def test_two_real_processes_on_one_home_do_each_other_no_harm(tmp_path: Path) -> None:
    pictures = photographs(tmp_path, 300)
    listed = json.dumps([[picture.path, picture.digest] for picture in pictures])
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = []
    for k in range(2):
        os.mkfifo(tmp_path / f"go{k}")
        command = [sys.executable, "-c", DECODES, str(tmp_path), str(tmp_path / f"go{k}")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes.append(subprocess.Popen(command, cwd=Path(__file__).parents[2], env=here, **pipes))
        processes[-1].stdin.write(listed)
        processes[-1].stdin.close()
    assert [process.stdout.readline() for process in processes] == ["ready\n", "ready\n"]
    for k in range(2):
        (tmp_path / f"go{k}").write_text("go")
    assert [process.stdout.read() for process in processes] == ["300\n", "300\n"]
    assert [process.wait(60) for process in processes] == [0, 0]
    loader = Loader(tmp_path, ON_DISK)
    np.testing.assert_array_equal(loader(pictures)[np.arange(300)], right(tmp_path, pictures))
    assert loader.decoded == 0
    assert loader.squares.stat().st_size == 300 * RECORD_BYTES


def test_a_cache_that_is_deleted_while_images_are_decoded_is_not_half_there_afterwards(tmp_path: Path) -> None:
    with opened(tmp_path, Kind(8, "crop")) as store:
        fill(store, "a")
        for file in tmp_path.iterdir():
            file.unlink()
        fill(store, "b")
        assert store.why_not_kept is not None
    with opened(tmp_path, Kind(8, "crop")) as store:
        assert not store.holds(b"a" * 32)
        fill(store, "b")
        assert store.why_not_kept is None


# --- disks that do not take it ------------------------------------------------------------------------------------


def test_a_full_disk_costs_time_not_the_run_where_memory_is_enough(
    tmp_path: Path, pictures: list[Picture], capsys: pytest.CaptureFixture[str]
) -> None:
    loader = Loader(tmp_path, IN_MEMORY)
    with disk_that_takes(2 * RECORD_BYTES):
        found = loader(pictures)
    np.testing.assert_array_equal(found[np.arange(COUNT)], right(tmp_path, pictures))
    assert loader.squares.stat().st_size == 0  # nothing half-written stays
    printed = capsys.readouterr()
    assert "cache_not_kept" in printed.out + printed.err
    assert str(tmp_path) not in printed.out + printed.err
    loader(pictures)
    assert loader.decoded == COUNT  # now there is room
    loader(pictures)
    assert loader.decoded == 0


def test_a_full_disk_and_too_little_memory_say_how_much_is_missing(on_disk: Loader, pictures: list[Picture]) -> None:
    with disk_that_takes(2 * RECORD_BYTES), pytest.raises(StorageError, match="960 more bytes") as caught:
        on_disk(pictures)
    assert "File too large" in caught.value.what
    assert "images_in_memory_gib" in caught.value.next_step
    np.testing.assert_array_equal(on_disk(pictures)[np.arange(COUNT)], right(on_disk.folder, pictures))


def test_what_does_not_fit_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    side, absent = 20_000, [Picture("absent.png", f"{k:064x}") for k in range(50_000)]  # 60 TB
    with pytest.raises(FullDiskError, match="the disk is full") as caught:
        load(tmp_path, absent, side, "crop", tmp_path / "cache", memory_bytes_max=ON_DISK)
    needed, missing = re.findall(r"([\d,]+) (?:more bytes|of these)", caught.value.what)
    assert needed == "60,000,000,000,000"
    assert 0 < int(missing.replace(",", "")) < 60_000_000_000_000
    assert caught.value.cause == "the disk is full"


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, FullDiskError), (errno.EDQUOT, FullDiskError), (errno.EACCES, StorageError)],
)
def test_a_disk_that_becomes_full_is_worth_waiting_for_and_one_that_may_not_be_written_is_not(
    on_disk: Loader, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StorageError]
) -> None:
    def refuse(_store: Store, _file: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Store, "_add", refuse)
    with pytest.raises(StorageError) as caught:
        on_disk(pictures)
    assert type(caught.value) is kind
    assert (caught.value.cause == "the disk is full") == (kind is FullDiskError)


def test_squares_on_a_disk_that_became_full_are_still_used(on_disk: Loader, pictures: list[Picture]) -> None:
    on_disk(pictures)
    with disk_that_takes(0):
        np.testing.assert_array_equal(on_disk(pictures)[np.arange(COUNT)], right(on_disk.folder, pictures))
    assert on_disk.decoded == 0


def test_a_cache_folder_that_cannot_be_made_costs_time_not_the_run(tmp_path: Path, pictures: list[Picture]) -> None:
    (tmp_path / "cache").touch()
    np.testing.assert_array_equal(Loader(tmp_path, IN_MEMORY)(pictures)[np.arange(COUNT)], right(tmp_path, pictures))
    with pytest.raises(StorageError, match="960 more bytes"):
        Loader(tmp_path, ON_DISK)(pictures)


# --- harm to the images -------------------------------------------------------------------------------------------


def test_an_image_that_vanished_or_changed_since_indexing_is_named(loader: Loader, pictures: list[Picture]) -> None:
    changed = loader.folder / pictures[1].path
    good = changed.read_bytes()
    Image.new("RGB", (20, 30)).save(changed)
    with pytest.raises(DataError, match=r"0-1.png has changed since .*: its pixels have changed") as caught:
        loader(pictures)
    assert "data check" in caught.value.next_step
    changed.write_bytes(good[:100])
    with pytest.raises(DataError, match=r"0-1.png has changed since .*: damaged or cut short"):
        loader(pictures)
    changed.unlink()
    with pytest.raises(DataError, match=r"0-1.png has changed since .*: no such file"):
        loader(pictures)


def test_after_decoding_it_does_not_matter_what_happens_to_the_images(loader: Loader, pictures: list[Picture]) -> None:
    expected = right(loader.folder, pictures)
    found = loader(pictures)
    (loader.folder / pictures[0].path).unlink()
    (loader.folder / pictures[1].path).write_bytes(b"")
    for _epoch in range(40):
        np.testing.assert_array_equal(found[np.arange(COUNT)], expected)
    np.testing.assert_array_equal(loader(pictures)[np.arange(COUNT)], expected)
