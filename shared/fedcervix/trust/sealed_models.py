"""A model under seal: whoever carries it sees who sent it and how long it is; only those who have its key can read it.

Format (docs/sealed-ring.md): `MAGIC`, the number of bytes of the header (4 bytes, big-endian), the header, then the
model, or its packed form, in chunks. A chunk is CHUNK_BYTES of it, encrypted with ChaCha20-Poly1305 (RFC 8439), and
TAG_BYTES longer by it. The nonce is the chunk's number (11 bytes, big-endian) and a byte that is 1 for the last chunk:
the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizar 2015) as the file format age has it. So a chunk that is
missing, moved or one too many is found.

Rules
1. A key is used for one header, and a header names the digest of what is sealed. So no nonce is used twice, and a
   sender that begins again after a crash makes the same bytes.
2. Nothing of a model is to be used before `opened` has ended: its digest is checked with the last chunk.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedcervix.core.plan import check
from fedcervix.trust.chain import INTEGER_MAX, read, text_of
from fedcervix.trust.statements import tagged

MAGIC = b"fcseal1\n"
CHUNK_BYTES = 64 << 10
TAG_BYTES = 16
KEY_BYTES = 32
SECRET_BYTES = 32
HEADER_BYTES_MAX = 4096
_CONTENT_KEY = "fedcervix content key 1"
_LENGTH = struct.Struct(">I")
_DIGEST = re.compile(r"[0-9a-f]{64}")
PREFIX_BYTES_MAX = len(MAGIC) + _LENGTH.size + HEADER_BYTES_MAX
"""of all that stands before the first chunk"""


class BrokenSealError(ValueError):
    """A sealed model that cannot be opened. The text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Header:
    """What everybody may know of a sealed model. Raises ValueError where a value cannot be right."""

    federation: str
    run: str
    plan: str
    """digest of the run's plan"""
    round: int
    """from 1; 0: the first model of a run"""
    hop: int
    """how many sites have trained in this round, this one included"""
    sender: str
    base: str
    """digest of the model that it was trained from, as plain text; empty for a first model"""
    digest: str
    """SHA-256 of the model"""
    content: str
    """SHA-256 of what is sealed: the model, or its packed form where the plan compresses"""
    size_bytes: int
    """of what is sealed"""

    def __post_init__(self) -> None:
        for name in ("federation", "run", "sender"):
            check(bool(getattr(self, name)), f"{name} is empty")
        for name in ("plan", "digest", "content", *(["base"] if self.base else [])):
            check(_DIGEST.fullmatch(getattr(self, name)) is not None, f"{name} is no digest")
        check(0 <= self.round <= INTEGER_MAX and 0 <= self.hop <= INTEGER_MAX, "round or hop is out of range")
        check(0 < self.size_bytes <= INTEGER_MAX, "size_bytes is out of range")
        check(len(self.text) <= HEADER_BYTES_MAX, "it is too long")

    @property
    def text(self) -> str:
        """The header as it is sent and hashed: JSON in ASCII, with sorted keys."""
        return text_of(asdict(self))

    @property
    def hash(self) -> str:
        """SHA-256 of the text, with a tag."""
        return hashlib.sha256(tagged("fedcervix sealed header 1", self.text)).hexdigest()

    @property
    def sealed_bytes(self) -> int:
        """Length of the sealed model, the header included."""
        return len(prefix(self)) + self.size_bytes + TAG_BYTES * -(-self.size_bytes // CHUNK_BYTES)

    @classmethod
    def parse(cls, text: str) -> Header:
        """Return the header that a text stands for. Raises ValueError."""
        values = read(text)
        check(values.keys() == {field.name for field in fields(cls)}, "it lacks a key, or has one too many")
        for field in fields(cls):
            wanted = int if field.type == "int" else str
            check(type(values[field.name]) is wanted, f"{field.name} is of another kind")
        return cls(**values)  # type: ignore[arg-type]  # checked above


def differences(header: Header, expected: Header) -> list[str]:
    """Return the names of what a header says otherwise than was expected of it."""
    return [field.name for field in fields(Header) if getattr(header, field.name) != getattr(expected, field.name)]


def content_key(run_secret: bytes, header: Header) -> bytes:
    """Return the key (32 bytes) that seals the model of a header. `run_secret`: 32 bytes of the sender, for one run."""
    check(len(run_secret) == SECRET_BYTES, f"a run's secret has {SECRET_BYTES} bytes")
    info = tagged(_CONTENT_KEY, header.hash)
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=None, info=info).derive(run_secret)


def prefix(header: Header) -> bytes:
    """Return all that stands before the first chunk."""
    text = header.text.encode()
    return MAGIC + _LENGTH.pack(len(text)) + text


def read_prefix(start: bytes) -> tuple[Header, int]:
    """Return the header of a sealed model, and how many bytes stand before its first chunk.

    `start`: its first PREFIX_BYTES_MAX bytes, or all of it. Raises BrokenSealError.
    """
    text_at = len(MAGIC) + _LENGTH.size
    if not start.startswith(MAGIC) or len(start) < text_at:
        raise BrokenSealError("it is no sealed model")
    (size_bytes,) = _LENGTH.unpack_from(start, len(MAGIC))
    text = start[text_at : text_at + size_bytes]
    if size_bytes > HEADER_BYTES_MAX or len(text) < size_bytes:
        raise BrokenSealError("its header is cut off, or too long")
    try:
        return Header.parse(text.decode("ascii")), text_at + size_bytes
    except ValueError as error:
        raise BrokenSealError(f"its header cannot be read: {error}") from error


def sealed(header: Header, key: bytes, model: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a sealed model, of which `model` is the plain text in pieces of any length.

    Raises BrokenSealError, before the last chunk, where the model is not the one that the header names.
    """
    yield prefix(header)
    cipher, digest, size_bytes = ChaCha20Poly1305(key), hashlib.sha256(), 0
    for number, chunk, last in _numbered(model, CHUNK_BYTES):
        digest.update(chunk)
        size_bytes += len(chunk)
        if last and (size_bytes, digest.hexdigest()) != (header.size_bytes, header.content):
            raise BrokenSealError("the model is not the one that its header names")
        yield cipher.encrypt(_nonce(number, last), chunk, None)


def opened(header: Header, key: bytes, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the model of which `chunks` is all that follows the header, in pieces of any length.

    Raises BrokenSealError where it was changed, cut or made longer, or where the key is of another model.
    """
    cipher, digest, size_bytes = ChaCha20Poly1305(key), hashlib.sha256(), 0
    for number, chunk, last in _numbered(chunks, CHUNK_BYTES + TAG_BYTES):
        try:
            plain = cipher.decrypt(_nonce(number, last), chunk, None)
        except InvalidTag as error:
            raise BrokenSealError(
                f"chunk {number} was changed, or chunks are missing, or the key is another one"
            ) from error
        digest.update(plain)
        size_bytes += len(plain)
        if size_bytes > header.size_bytes:
            raise BrokenSealError("it is longer than its header says")
        if last and (size_bytes, digest.hexdigest()) != (header.size_bytes, header.content):
            raise BrokenSealError("it holds another model than its header names")
        yield plain
    if not size_bytes:
        raise BrokenSealError("it holds no model")


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _numbered(pieces: Iterable[bytes], size_bytes: int) -> Iterator[tuple[int, bytes, bool]]:
    """Yield chunks of one size, the last may be shorter: number from 0, bytes, whether it is the last."""
    whole = _of_size(pieces, size_bytes)
    before = next(whole, None)
    if before is None:
        return
    number = 0
    for chunk in whole:
        yield number, before, False
        number, before = number + 1, chunk
    yield number, before, True


def _of_size(pieces: Iterable[bytes], size_bytes: int) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        data = rest + piece if rest else piece
        whole = len(data) - len(data) % size_bytes
        for at in range(0, whole, size_bytes):
            yield data[at : at + size_bytes]
        rest = data[whole:]
    if rest:
        yield rest
