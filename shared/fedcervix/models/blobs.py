"""Models on disk, named by the SHA-256 of their bytes.

Rules
1. A file under its digest's name is complete and correct: it was hashed, fsynced and renamed into place, in that order.
2. A transfer in progress is a `.part` file per sender; its length is the offset at which the transfer continues, after
   a lost connection or a killed process. Only a sender's newest transfer writes: an older one may not have noticed yet
   that its connection is lost.
3. A sender is told that a blob is here only if it has sent the blob itself. So no site can find out by a digest whether
   another site has sent a model. The newest blob of each sender is remembered.
4. Only `retire`, which is told what the run still needs, removes a blob. What a sender has brought is forgotten with
   `forget`; the blob stays until it is put away, because another sender may have brought it, too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from fedcervix.disk.files import WriteAhead, sync_path
from fedcervix.disk.reserve import FREE_BYTES_MIN
from fedcervix.disk.storage import disk
from fedcervix.errors import FullDiskError, RemoteError

CHUNK_BYTES = 1 << 19
"""read at once"""
WHOLE = ".whole"


@dataclass(eq=False, slots=True)
class _Turn:
    """The transfer that may write for a sender: its newest."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    newest: object = None

    def write(self, me: object, chunk: bytes, out: FileIO) -> None:
        """Append a chunk. Raises RemoteError once a newer transfer has begun."""
        with self.lock:
            if self.newest is not me:
                raise RemoteError("a newer transfer of this sender has begun")
            rest = memoryview(chunk)
            while rest:
                rest = rest[out.write(rest) :]


class BlobStore:
    """A folder of blobs. Safe for several threads as long as each sender pushes one blob at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"
        self._away = folder / "away"
        self._turns: dict[Path, _Turn] = {}
        with disk(folder, "write"):
            self._incoming.mkdir(parents=True, exist_ok=True)
            self._away.mkdir(exist_ok=True)

    def path(self, digest: str) -> Path:
        """Return where a blob lies (or would lie)."""
        return self._folder / f"{digest}.safetensors"

    def has(self, digest: str) -> bool:
        """Say whether the blob is here."""
        return self.path(digest).is_file()

    def brought(self, digest: str, sender: str) -> bool:
        """Say whether the blob is here, and was the newest that this sender brought whole."""
        return self._whole(digest, sender).exists() and self.has(digest)

    def note_brought(self, digest: str, sender: str) -> None:
        """Remember that a sender has brought a blob whole. Raises StorageError."""
        whole = self._whole(digest, sender)
        with disk(whole, "write"):
            whole.parent.mkdir(exist_ok=True)
            whole.touch(mode=0o600)

    def forget(self, sender: str, *, part: str = "", whole: Collection[str] = ()) -> None:
        """Delete a sender's transfer in progress, and forget what it has sent. Raises StorageError.

        But not the part of the digest `part`, nor that the sender has brought blobs of the digests `whole`.
        """
        for file in self._files_of(sender):
            if file.stem not in (whole if file.suffix == WHOLE else (part,)):
                with disk(file, "write"):
                    file.unlink(missing_ok=True)

    def senders(self) -> list[str]:
        """Return the senders with remembered blobs or transfers in progress."""
        with os.scandir(self._incoming) as found:
            return sorted(entry.name for entry in found if entry.is_dir())

    def brought_by_any(self) -> set[str]:
        """Return the digests of the blobs that senders have brought and that are not forgotten."""
        files = (file for sender in self.senders() for file in self._files_of(sender))
        return {file.stem for file in files if file.suffix == WHOLE}

    def unreported_bytes(self, sender: str, needed: Collection[str]) -> int:
        """Return what a sender occupies with blobs that it has brought, and with parts, but for the blobs `needed`."""
        parts = sum(_length(file) for file in self._files_of(sender) if file.suffix != WHOLE)
        return parts + sum(
            _length(self.path(file.stem))
            for file in self._files_of(sender)
            if file.suffix == WHOLE and file.stem not in needed
        )

    def occupied_bytes(self, digests: Collection[str]) -> int:
        """Return what these blobs occupy, as far as they are here."""
        return sum(_length(self.path(digest)) for digest in digests)

    def _files_of(self, sender: str) -> list[Path]:
        folder = self._incoming / sender
        try:
            return list(folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def size_bytes(self, digest: str) -> int:
        """Return a blob's length. Raises FileNotFoundError."""
        return self.path(digest).stat().st_size

    def resume_at(self, digest: str, sender: str) -> int:
        """Return how many bytes of an incoming blob are here already."""
        part = self._part(digest, sender)
        return part.stat().st_size if part.exists() else 0

    def expect(self, digest: str, sender: str, *, size_bytes: int) -> int:
        """Prepare for an incoming blob and return the byte from which it is wanted.

        That is its end where the sender has brought it whole (rule 3). A sender pushes one blob at a time: what is left
        of an earlier one is thrown away. Raises StorageError unless the rest fits on the disk.
        """
        if self.brought(digest, sender):
            return size_bytes
        part = self._part(digest, sender)
        with disk(part, "write"):
            part.parent.mkdir(exist_ok=True)
        self.forget(sender, part=digest)
        have_bytes = self.resume_at(digest, sender)
        if have_bytes >= size_bytes:  # this process was killed before it could verify what had arrived
            return size_bytes if self._settle(part, digest) else 0
        self._check_room(size_bytes, have_bytes=have_bytes)
        return have_bytes

    def _settle(self, part: Path, digest: str) -> bool:
        """Give a part its name if it is the blob; throw it away if not."""
        hasher = hashlib.sha256()
        with disk(part, "read"):
            _hash_into(hasher, part)
        with disk(part, "write"):
            sync_path(part)  # the process that wrote it may have been killed before it came to that
        try:
            self._verify(part, digest, hasher)
        except RemoteError:
            return False
        return True

    def _check_room(self, size_bytes: int, *, have_bytes: int) -> None:
        if self.no_room(size_bytes, have_bytes=have_bytes):
            self.purge()
        if error := self.no_room(size_bytes, have_bytes=have_bytes):
            raise error

    def no_room(self, size_bytes: int, *, have_bytes: int = 0) -> FullDiskError | None:
        """Return why a blob of so many bytes, of which some are here, cannot be received; None where it fits."""
        free = shutil.disk_usage(self._folder).free
        if free >= size_bytes - have_bytes + FREE_BYTES_MIN:
            return None
        return FullDiskError(
            f"no room for a model of {size_bytes:,} bytes in {self._folder}: {free:,} bytes are free",
            cause="the disk is (nearly) full",
            next_step=f"free some space (df -h {self._folder}); the transfer then continues automatically",
        )

    def receive(self, digest: str, sender: str, chunks: Iterator[bytes], *, offset: int, size_bytes: int) -> bool:
        """Append chunks to an incoming blob; when it is whole, verify it and give it its name.

        Returns whether the blob is now here; False: the line ended early, and `resume_at` says where to go on.
        Raises RemoteError where offset, length or digest are wrong (by a wrong digest the part is lost), StorageError.
        """
        incoming = self.incoming(digest, sender, offset=offset, size_bytes=size_bytes)
        try:
            incoming.open()
            for chunk in chunks:
                incoming.write(chunk)
            return incoming.settle()
        finally:
            incoming.close()

    def incoming(self, digest: str, sender: str, *, offset: int, size_bytes: int) -> Incoming:
        """Return a writer that receives a blob chunk by chunk, as `receive` does, from several threads in turn."""
        part = self._part(digest, sender)
        turn = self._turns.setdefault(part.parent, _Turn())
        return Incoming(part, turn, self._verify, digest, offset=offset, size_bytes=size_bytes)

    def _verify(self, part: Path, digest: str, hasher: hashlib._Hash) -> None:
        if hasher.hexdigest() != digest:
            part.unlink()
            raise RemoteError("the bytes received are not the model that was announced; sending it again may help")
        self.note_brought(digest, part.parent.name)
        self._name(part, digest)

    def adopt(self, file: Path, digest: str) -> None:
        """Give a finished file (same disk, already hashed by its writer) its name."""
        with disk(file, "write"):
            sync_path(file)
        self._name(file, digest)

    def scratch(self, name: str) -> Path:
        """Return a path for an unfinished file on the same disk (no sender's name begins with a dot)."""
        return self._incoming / f".{name}"

    def chunks(self, digest: str, offset: int, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Yield a blob's bytes from `offset`, in chunks. Raises FileNotFoundError."""
        with self.path(digest).open("rb") as blob:
            blob.seek(offset)
            while chunk := blob.read(chunk_bytes):
                yield chunk

    def retire(self, digests: Collection[str]) -> None:
        """Remove every finished blob that is not among `digests` from the store.

        This is quick; `purge` frees the space and takes about 25 ms for 100 MB.
        """
        self._retire(self._here(), set(digests))

    def retire_unwanted(self, digests: Collection[str]) -> None:
        """The same, but what a sender has brought stays as well, also where it comes while this looks.

        What is here is listed first: a blob gets its name only once it is remembered who brought it.
        """
        here = self._here()
        self._retire(here, {*digests, *self.brought_by_any()})

    def _here(self) -> list[Path]:
        with disk(self._folder, "read"):
            return [path for path in self._folder.iterdir() if path.suffix == ".safetensors"]

    def _retire(self, here: list[Path], kept: set[str]) -> None:
        with disk(self._folder, "write"):
            for blob in here:
                if blob.name.removesuffix(".safetensors") not in kept:
                    blob.replace(self._away / blob.name)

    def purge(self) -> None:
        """Delete what was put away."""
        with disk(self._folder, "write"):
            for blob in self._away.iterdir():
                blob.unlink(missing_ok=True)

    def _part(self, digest: str, sender: str) -> Path:
        return self._incoming / sender / f"{digest}.part"

    def _whole(self, digest: str, sender: str) -> Path:
        """Return the empty file that says that a sender has brought a blob whole."""
        return self._part(digest, sender).with_suffix(WHOLE)

    def _name(self, file: Path, digest: str) -> None:
        with disk(file, "write"):
            file.replace(self.path(digest))
            sync_path(self._folder)


class Incoming:
    """A blob on its way in: `open`, `write` each chunk, `settle`; `close` at any time. From any thread."""

    def __init__(
        self,
        part: Path,
        turn: _Turn,
        verify: Callable[[Path, str, hashlib._Hash], None],
        digest: str,
        *,
        offset: int,
        size_bytes: int,
    ) -> None:
        self._part, self._turn, self._verify, self._digest = part, turn, verify, digest
        self._have, self._size_bytes = offset, size_bytes
        self._hasher = hashlib.sha256()
        self._lock = threading.Lock()
        """whoever closes waits for a chunk that is being written"""
        self._closed = False
        self._out: FileIO | None = None

    def open(self) -> None:
        """Take over from an older transfer of this sender. Raises RemoteError where the offset is wrong."""
        with self._lock, disk(self._part, "write"):
            if self._closed:
                return
            with self._turn.lock:
                self._turn.newest = self
            have = self._part.stat().st_size if self._part.exists() else 0
            if self._have != have:
                raise RemoteError(f"the transfer continues at byte {have}, not at {self._have}")
            self._out = self._part.open("ab", buffering=0)
            if have:
                _hash_into(self._hasher, self._part)
            self._ahead = WriteAhead(self._out.fileno(), written_bytes=have)

    def write(self, chunk: bytes) -> None:
        """Append a chunk, and hash it. Raises RemoteError at the first byte too many or where a newer one has begun."""
        with self._lock, disk(self._part, "write"):
            if self._out is None:
                raise RemoteError("the transfer has ended")
            if self._have + len(chunk) > self._size_bytes:
                raise RemoteError(f"more bytes than the {self._size_bytes:,} announced")
            self._turn.write(self, chunk, self._out)
            self._have += len(chunk)
            self._hasher.update(chunk)
            self._ahead.wrote(len(chunk))

    def settle(self) -> bool:
        """Verify a complete blob and give it its name; say whether it is complete. An incomplete one stays a part.

        Raises RemoteError where the digest is another one: then the part is lost.
        """
        with self._lock, disk(self._part, "write"):
            if self._out is None:
                raise RemoteError("the transfer has ended")
            os.fsync(self._out.fileno())
            self._out.close()
            self._out, self._closed = None, True
            if self._have < self._size_bytes or not self._part.exists():  # nobody wants it any more: see `forget`
                return False
            self._verify(self._part, self._digest, self._hasher)
            return True

    def close(self) -> None:
        """Accept no more bytes; received bytes stay."""
        with self._lock:
            self._closed = True
            if self._out is not None:
                self._out.close()
                self._out = None


def _length(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _hash_into(hasher: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as already:
        while chunk := already.read(CHUNK_BYTES):
            hasher.update(chunk)
