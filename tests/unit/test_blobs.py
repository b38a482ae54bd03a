"""The blob store: whole and right under its name, or not there at all."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedcervix.errors import LinkError, RemoteError, StorageError
from fedcervix.models.blobs import CHUNK_BYTES, BlobStore

BLOB = bytes(range(256)) * 40
SIZE = len(BLOB)


def name_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


NAME, OTHER = name_of(BLOB), name_of(b"other")


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs")


def cut(data: bytes, size: int = 1000) -> Iterator[bytes]:
    return iter([data[at : at + size] for at in range(0, len(data), size)])


def push(store: BlobStore, data: bytes = BLOB, *, name: str = NAME, sender: str = "ada", size: int = SIZE) -> bool:
    """Push what the store does not have yet of `data`; return whether the blob is then here."""
    offset = store.expect(name, sender, size_bytes=size)
    return offset == size or store.receive(name, sender, cut(data[offset:]), offset=offset, size_bytes=size)


def part(store: BlobStore, name: str = NAME, sender: str = "ada") -> Path:
    return store._part(name, sender)


def test_what_was_pushed_is_here_under_its_digest(store: BlobStore) -> None:
    assert not store.has(NAME)
    assert push(store)
    assert (store.has(NAME), store.size_bytes(NAME), store.path(NAME).read_bytes()) == (True, SIZE, BLOB)
    assert not part(store).exists()


def test_a_blob_that_a_sender_has_brought_is_not_wanted_again_from_it(store: BlobStore) -> None:
    push(store)
    again = BlobStore(store.path("x").parent)  # another process
    assert again.expect(NAME, "ada", size_bytes=SIZE) == SIZE
    assert again.brought(NAME, "ada")


def test_nobody_learns_that_another_has_brought_a_blob(store: BlobStore) -> None:
    """Bob is answered as if the blob were not here, from the first byte to the last."""
    push(store)
    assert store.expect(NAME, "bob", size_bytes=SIZE) == store.expect(OTHER, "bob", size_bytes=SIZE) == 0
    assert not store.brought(NAME, "bob")
    with pytest.raises(RemoteError, match="not the model that was announced"):
        push(store, BLOB[::-1], sender="bob")
    assert store.path(NAME).read_bytes() == BLOB, "what is here stays as it is"
    store.expect(NAME, "bob", size_bytes=SIZE)
    assert not store.receive(NAME, "bob", cut(BLOB[:300]), offset=0, size_bytes=SIZE)
    assert store.expect(NAME, "bob", size_bytes=SIZE) == 300, "and goes on where it was cut"
    assert push(store, sender="bob")
    assert (store.brought(NAME, "bob"), store.brought(NAME, "ada")) == (True, True)


def test_what_a_sender_has_brought_is_wanted_again_once_it_was_put_away(store: BlobStore) -> None:
    push(store)
    store.retire(())
    assert not store.brought(NAME, "ada")
    assert store.expect(NAME, "ada", size_bytes=SIZE) == 0
    assert push(store)


def test_of_each_sender_its_newest_blob_is_remembered(store: BlobStore) -> None:
    push(store)
    store.expect(OTHER, "ada", size_bytes=SIZE)
    assert not store.brought(NAME, "ada")


@pytest.mark.parametrize("arrived", [0, 1, 999, 1000, SIZE - 1])
def test_a_transfer_goes_on_at_the_byte_where_the_line_was_cut(store: BlobStore, arrived: int) -> None:
    assert store.expect(NAME, "ada", size_bytes=SIZE) == 0
    assert not store.receive(NAME, "ada", cut(BLOB[:arrived]), offset=0, size_bytes=SIZE)
    assert not store.has(NAME)
    again = BlobStore(store.path("x").parent)  # another process
    assert again.resume_at(NAME, "ada") == again.expect(NAME, "ada", size_bytes=SIZE) == arrived
    assert again.receive(NAME, "ada", cut(BLOB[arrived:], 77), offset=arrived, size_bytes=SIZE)
    assert again.path(NAME).read_bytes() == BLOB


def test_a_process_killed_between_the_last_byte_and_the_name_loses_nothing(store: BlobStore) -> None:
    part(store).parent.mkdir()
    part(store).write_bytes(BLOB)
    assert store.expect(NAME, "ada", size_bytes=SIZE) == SIZE
    assert store.path(NAME).read_bytes() == BLOB


def test_what_a_killed_process_left_is_on_the_disk_before_it_has_its_name(
    store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    part(store).parent.mkdir()
    part(store).write_bytes(BLOB)
    synced: list[tuple[int, bool]] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, store.has(NAME)))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    store.expect(NAME, "ada", size_bytes=SIZE)
    assert synced[0] == (store.path(NAME).stat().st_ino, False)


def test_the_same_with_wrong_bytes_begins_again(store: BlobStore) -> None:
    part(store).parent.mkdir()
    part(store).write_bytes(BLOB[::-1])
    assert store.expect(NAME, "ada", size_bytes=SIZE) == 0
    assert push(store)


def test_a_blob_with_the_wrong_digest_is_thrown_away(store: BlobStore) -> None:
    with pytest.raises(RemoteError, match="not the model that was announced"):
        push(store, BLOB[::-1])
    assert (store.has(NAME), store.resume_at(NAME, "ada")) == (False, 0)
    assert push(store)


def test_bytes_beyond_the_announced_size_are_not_written(store: BlobStore) -> None:
    with pytest.raises(RemoteError, match="more bytes than the 10,240 announced"):
        push(store, BLOB + b"x")
    assert store.resume_at(NAME, "ada") <= SIZE
    assert push(store), "and the transfer is not spoilt"


def test_a_transfer_that_goes_on_at_the_wrong_byte_is_refused(store: BlobStore) -> None:
    store.expect(NAME, "ada", size_bytes=SIZE)
    store.receive(NAME, "ada", cut(BLOB[:100]), offset=0, size_bytes=SIZE)
    for offset in (0, 99, 101):
        with pytest.raises(RemoteError, match=f"continues at byte 100, not at {offset}"):
            store.receive(NAME, "ada", cut(BLOB[offset:]), offset=offset, size_bytes=SIZE)
    assert push(store)


def test_a_sender_that_announces_another_blob_gives_up_the_earlier_one(store: BlobStore) -> None:
    store.expect(OTHER, "ada", size_bytes=SIZE)
    store.receive(OTHER, "ada", cut(BLOB[:100]), offset=0, size_bytes=SIZE)
    store.expect(NAME, "ada", size_bytes=SIZE)
    assert store.resume_at(OTHER, "ada") == 0


def test_senders_do_not_disturb_each_other(store: BlobStore) -> None:
    """Four threads, whose chunks are made to alternate."""
    blobs = {sender: sender.encode() * 5000 for sender in ("ada1", "bob2", "cle3", "dor4")}
    in_step = threading.Barrier(len(blobs), timeout=10)

    def alternately(data: bytes) -> Iterator[bytes]:
        for chunk in cut(data, 4096):
            in_step.wait()
            yield chunk

    def send(sender: str, data: bytes) -> None:
        assert store.receive(name_of(data), sender, alternately(data), offset=0, size_bytes=len(data))

    for sender, data in blobs.items():
        store.expect(name_of(data), sender, size_bytes=len(data))
    with ThreadPoolExecutor(len(blobs)) as pool:
        list(pool.map(send, blobs.keys(), blobs.values()))
    for data in blobs.values():
        assert store.path(name_of(data)).read_bytes() == data


def test_two_senders_of_the_same_blob(store: BlobStore) -> None:
    for sender in ("ada", "bob"):
        store.expect(NAME, sender, size_bytes=SIZE)
        store.receive(NAME, sender, cut(BLOB[:500]), offset=0, size_bytes=SIZE)
    for sender in ("ada", "bob"):
        assert store.receive(NAME, sender, cut(BLOB[500:]), offset=500, size_bytes=SIZE)
    assert store.path(NAME).read_bytes() == BLOB


def test_an_old_transfer_that_has_not_noticed_its_line_is_cut_cannot_spoil_the_new_one(store: BlobStore) -> None:
    """The site has called again; bytes that the old line still held arrive in the middle of the new transfer."""
    store.expect(NAME, "ada", size_bytes=SIZE)

    def old_line() -> Iterator[bytes]:
        yield BLOB[:1000]
        new = store.resume_at(NAME, "ada")
        assert store.receive(NAME, "ada", cut(BLOB[new:]), offset=new, size_bytes=SIZE)
        yield BLOB[1000:2000]

    with pytest.raises(RemoteError, match="a newer transfer of this sender has begun"):
        store.receive(NAME, "ada", old_line(), offset=0, size_bytes=SIZE)
    assert store.path(NAME).read_bytes() == BLOB


def test_an_old_transfer_does_not_write_into_the_part_of_a_new_one(store: BlobStore) -> None:
    store.expect(NAME, "ada", size_bytes=SIZE)

    def old_line() -> Iterator[bytes]:
        yield BLOB[:1000]
        assert not store.receive(NAME, "ada", cut(BLOB[1000:1500]), offset=1000, size_bytes=SIZE)
        yield BLOB[1000:2000]

    with pytest.raises(RemoteError, match="a newer transfer"):
        store.receive(NAME, "ada", old_line(), offset=0, size_bytes=SIZE)
    assert store.resume_at(NAME, "ada") == 1500
    assert push(store)


def test_a_line_that_breaks_keeps_what_has_arrived(store: BlobStore) -> None:
    store.expect(NAME, "ada", size_bytes=SIZE)

    def breaks() -> Iterator[bytes]:
        yield BLOB[:3000]
        raise LinkError("cable")

    with pytest.raises(LinkError, match="cable"):
        store.receive(NAME, "ada", breaks(), offset=0, size_bytes=SIZE)
    assert store.resume_at(NAME, "ada") == 3000


# --- sending, from any byte ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 1, SIZE - 1, SIZE, SIZE + 5])
def test_a_blob_is_read_from_any_byte(store: BlobStore, offset: int) -> None:
    push(store)
    assert b"".join(store.chunks(NAME, offset)) == BLOB[offset:]


def test_no_chunk_is_above_a_mebibyte(store: BlobStore) -> None:
    large = b"z" * (2 * CHUNK_BYTES + 5)
    name = name_of(large)
    push(store, large, name=name, size=len(large))
    assert [len(chunk) for chunk in store.chunks(name, 0)] == [CHUNK_BYTES, CHUNK_BYTES, 5]


# --- room, keeping, files of one's own ----------------------------------------------------------------------------


def test_a_blob_that_does_not_fit_on_the_disk_is_not_begun(store: BlobStore) -> None:
    with pytest.raises(StorageError, match="no room for a model of 1,152,921,504,606,846,976 bytes") as caught:
        store.expect(NAME, "ada", size_bytes=2**60)
    assert "continues automatically" in caught.value.next_step
    assert push(store)


def test_only_what_is_needed_is_kept(store: BlobStore) -> None:
    push(store)
    push(store, b"other", name=OTHER, size=5)
    store.expect("5" * 64, "bob", size_bytes=9)
    store.receive("5" * 64, "bob", cut(b"1234"), offset=0, size_bytes=9)
    store.retire({NAME, "7" * 64})
    assert (store.has(NAME), store.has(OTHER)) == (True, False)
    assert store.resume_at("5" * 64, "bob") == 4, "a transfer in progress is nobody's to delete"
    store.retire(())
    assert not store.has(NAME)
    away = store.path(NAME).parent / "away"
    assert len(list(away.iterdir())) == 2
    store.purge()
    assert not list(away.iterdir())


def test_a_finished_file_is_adopted(store: BlobStore) -> None:
    making = store.scratch("aggregate-1")
    making.write_bytes(BLOB)
    store.adopt(making, NAME)
    assert store.path(NAME).read_bytes() == BLOB
    assert not making.exists()


def test_a_file_in_the_making_is_never_a_sender_s_folder(store: BlobStore) -> None:
    """A site may well be called aggregate-1."""
    store.expect(NAME, "aggregate-1", size_bytes=SIZE)
    store.scratch("aggregate-1").write_bytes(BLOB)
    assert push(store, sender="aggregate-1")


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        BlobStore(tmp_path / "file" / "blobs")


def test_a_blob_that_comes_while_others_are_put_away_stays(tmp_path: Path) -> None:
    """A model that a site had sent was gone when it reported it, once in some hundred of short rounds."""
    late = hashlib.sha256(b"late").hexdigest()

    class Busy(BlobStore):
        def brought_by_any(self) -> set[str]:
            known = super().brought_by_any()
            self.receive(late, "alts", iter([b"late"]), offset=0, size_bytes=4)
            return known

    store = Busy(tmp_path / "blobs")
    store.expect(late, "alts", size_bytes=4)
    store.retire_unwanted(())
    assert store.brought(late, "alts")
    BlobStore(tmp_path / "blobs").retire(())
    assert not store.has(late)
