"""Sealed models as files: written and read piece by piece (see fedcervix.trust.sealed_models for the format)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from io import FileIO
from pathlib import Path

from fedcervix.disk.files import opened as open_file
from fedcervix.disk.files import write_parts
from fedcervix.errors import RemoteError
from fedcervix.trust.sealed_models import PREFIX_BYTES_MAX, BrokenSealError, Header, opened, read_prefix, sealed

PIECE_BYTES = 1 << 20


def seal(model: Path, header: Header, key: bytes, to: Path) -> str:
    """Write a model under seal, and return the SHA-256 of the sealed file. Memory: five pieces of 1 MiB.

    The same model, header and key give the same bytes. Raises StorageError; BrokenSealError where the model is not the
    one that the header names.
    """
    with open_file(model) as file:
        return write_parts(to, sealed(header, key, _pieces(file)))


def read_header(file: Path) -> Header:
    """Return the header of a sealed file. Raises RemoteError where its length is not the one it says; StorageError."""
    with open_file(file) as open_:
        header, _ = _header(open_, file)
    return header


def unseal(file: Path, key: bytes, to: Path) -> Header:
    """Write the model of a sealed file; its digest is that of the returned header. Memory as for `seal`.

    What is written appears under its name only when all of it was found right. Raises RemoteError where the file was
    changed on its way, or the key is another one; StorageError.
    """
    with open_file(file) as open_:
        header, start = _header(open_, file)
        open_.seek(start)
        try:
            write_parts(to, opened(header, key, _pieces(open_)))
        except BrokenSealError as error:
            raise _refused(error) from error
    return header


def _header(file: FileIO, path: Path) -> tuple[Header, int]:
    try:
        header, start = read_prefix(file.read(PREFIX_BYTES_MAX))
    except BrokenSealError as error:
        raise _refused(error) from error
    if path.stat().st_size != header.sealed_bytes:
        raise _refused("its length is not the one that its header says")
    return header, start


def _pieces(file: FileIO) -> Iterator[bytes]:
    return iter(partial(file.read, PIECE_BYTES), b"")


def _refused(why: object) -> RemoteError:
    return RemoteError(f"a sealed model cannot be opened: {why}", cause="it was damaged or replaced on its way")
