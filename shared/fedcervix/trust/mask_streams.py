"""Streams that mask a site's vector: AES-256 in counter mode, one key for each context and lane.

    key of a lane   HKDF-SHA256(secret, no salt, info = label, context, lane; each with its length before it)
    stream          AES-256-CTR of zeros, the counter from 0
    words           of a lane are cut from the stream one after the other, little-endian

Whoever holds the secret makes the same stream again, from its beginning or from any block of 16 bytes. `secret` is what
two run keys agree on, 32 bytes; `context` names everything that must never share a mask: run, round, base and so on.

Rules
1. One (secret, context) masks one vector, once. Two vectors under one stream would show their difference.
2. No stream is shared by two lanes: their positions would overlap.
3. Words are added and subtracted modulo their size, in place. What was added is subtracted again to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LABEL = b"fedcervix mask stream 1"
KEY_BYTES = 32
CIPHER_BLOCK_BYTES = 16
PART_BYTES = 2**17
"""of a stream that are made at once: a holder has a stream for every site"""
LENGTH_BYTES = 4


class Lane(Enum):
    """What a stream is for."""

    STATISTICS = b"statistics"
    NUMBERS = b"numbers"
    TAG = b"tag"
    TAG_WEIGHTS = b"tag weights"
    """not a mask: the numbers by which vectors are weighed (`sum_tag`)"""


@dataclass(frozen=True, slots=True)
class MaskSecret:
    """What all streams of one context derive from."""

    secret: bytes = field(repr=False)
    context: bytes

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES or not self.context:
            raise ValueError(f"a stream needs {KEY_BYTES} secret bytes, and a context")

    def key(self, lane: Lane) -> bytes:
        """Return the key of a lane, 32 bytes."""
        return derived(self.secret, LABEL, self.context, lane.value)


def derived(secret: bytes, *parts: bytes) -> bytes:
    """Return 32 bytes by HKDF-SHA256 (RFC 5869) without salt; info is all parts, each with its length before it."""
    info = b"".join(len(part).to_bytes(LENGTH_BYTES, "big") + part for part in parts)
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(secret)


class MaskStream:
    """A stream of pseudorandom words, from a block of 16 bytes on. Not thread-safe."""

    def __init__(self, key: bytes, at_block: int = 0) -> None:
        counter = at_block.to_bytes(CIPHER_BLOCK_BYTES, "big")
        self._cipher = Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor()
        self._room = memoryview(bytearray(PART_BYTES + CIPHER_BLOCK_BYTES - 1))

    def words(self, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the next words, at most `PART_BYTES` of them; the ones after them take their place."""
        import numpy as np  # 17 MB, which a page and the operator's commands do without

        size = count * dtype.itemsize
        self._cipher.update_into(_ZEROS[:size], self._room)
        return np.frombuffer(self._room[:size], dtype.newbyteorder("<"))

    def add_to(self, words: NDArray[Any]) -> None:
        """Add the next words to unsigned words, in place."""
        for part in _parts(words):
            part += self.words(part.size, part.dtype)

    def subtract_from(self, words: NDArray[Any]) -> None:
        """Subtract the next words from unsigned words, in place."""
        for part in _parts(words):
            part -= self.words(part.size, part.dtype)


_ZEROS = memoryview(bytes(PART_BYTES))


def _parts(words: NDArray[Any]) -> list[NDArray[Any]]:
    most = PART_BYTES // words.itemsize
    return [words[start : start + most] for start in range(0, words.size, most)]
