"""A model under seal: opened by its key alone, and whatever is done to it on the way is found."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import struct

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedcervix.trust.sealed_models import (
    CHUNK_BYTES,
    PREFIX_BYTES_MAX,
    TAG_BYTES,
    BrokenSealError,
    Header,
    content_key,
    differences,
    opened,
    prefix,
    read_prefix,
    sealed,
)

SECRET = bytes(range(32))
SIZES = (1, 1000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 5)
CHUNK = CHUNK_BYTES + TAG_BYTES


def header_of(model: bytes, **changes: object) -> Header:
    values = {
        "federation": "cervix",
        "run": "run-1",
        "plan": "a" * 64,
        "round": 2,
        "hop": 1,
        "sender": "nhs",
        "base": "b" * 64,
        "digest": hashlib.sha256(model).hexdigest(),
        "content": hashlib.sha256(model).hexdigest(),
        "size_bytes": len(model),
    }
    return Header(**{**values, **changes})  # type: ignore[arg-type]


def pieces(data: bytes, seed: int = 0) -> list[bytes]:
    """Cut bytes into pieces of any length, as they come from a line."""
    random_, found = random.Random(seed), []
    while data:
        size = random_.choice([1, 17, 1000, CHUNK_BYTES, 200_000])
        found.append(data[:size])
        data = data[size:]
    return found


def sealed_bytes(model: bytes, header: Header | None = None) -> bytes:
    header = header or header_of(model)
    return b"".join(sealed(header, content_key(SECRET, header), pieces(model)))


def body(whole: bytes) -> bytes:
    return whole[read_prefix(whole[:PREFIX_BYTES_MAX])[1] :]


def opens(header: Header, chunks: bytes, key: bytes | None = None) -> bytes:
    return b"".join(opened(header, key or content_key(SECRET, header), pieces(chunks, 1)))


def drawn(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_sealed_is_opened(size: int) -> None:
    model = drawn(size)
    whole = sealed_bytes(model)
    header, start = read_prefix(whole[:PREFIX_BYTES_MAX])
    assert header == header_of(model)
    assert (start, len(whole)) == (len(prefix(header)), header.sealed_bytes)
    assert opens(header, whole[start:]) == model
    assert model[:64] not in whole or size < 16


def test_the_same_model_is_sealed_to_the_same_bytes_however_it_is_cut() -> None:
    model = drawn(200_000)
    header = header_of(model)
    key = content_key(SECRET, header)
    assert b"".join(sealed(header, key, [model])) == b"".join(sealed(header, key, pieces(model, 7)))


def test_another_program_opens_it_from_the_page_alone() -> None:
    """RFC 5869 and RFC 8439 as `cryptography` has them, and the format of docs/sealed-ring.md."""
    model = drawn(2 * CHUNK_BYTES + 3)
    whole = sealed_bytes(model)
    assert whole[:8] == b"fcseal1\n"
    (size,) = struct.unpack(">I", whole[8:12])
    text = whole[12 : 12 + size]
    assert json.loads(text)["sender"] == "nhs"

    def netstrings(*texts: bytes) -> bytes:
        return b"".join(b"%d:%s," % (len(one), one) for one in texts)

    header_hash = hashlib.sha256(netstrings(b"fedcervix sealed header 1", text)).hexdigest().encode()
    info = netstrings(b"fedcervix content key 1", header_hash)
    key = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(SECRET)
    found, at, number = b"", 12 + size, 0
    while at < len(whole):
        chunk = whole[at : at + CHUNK]
        at, last = at + len(chunk), at + len(chunk) == len(whole)
        found += ChaCha20Poly1305(key).decrypt(number.to_bytes(11, "big") + bytes([last]), chunk, b"")
        number += 1
    assert found == model


MODEL = drawn(3 * CHUNK_BYTES + 100)
BODY = body(sealed_bytes(MODEL))
CHANGED = {
    "a bit flipped in the first chunk": bytes([BODY[0] ^ 1]) + BODY[1:],
    "a bit flipped in the last tag": BODY[:-1] + bytes([BODY[-1] ^ 128]),
    "cut in a chunk": BODY[: CHUNK + 9],
    "cut at a chunk's end": BODY[: 2 * CHUNK],
    "the last chunk is missing": BODY[: 3 * CHUNK],
    "the first chunk is missing": BODY[CHUNK:],
    "two chunks changed places": BODY[CHUNK : 2 * CHUNK] + BODY[:CHUNK] + BODY[2 * CHUNK :],
    "a chunk twice": BODY[:CHUNK] + BODY,
    "the last chunk twice": BODY + BODY[3 * CHUNK :],
    "bytes after the end": BODY + b"x",
    "nothing": b"",
}


@pytest.mark.parametrize("how", CHANGED)
def test_what_was_changed_on_the_way_is_not_opened(how: str) -> None:
    with pytest.raises(BrokenSealError):
        opens(header_of(MODEL), CHANGED[how])


def test_a_model_opens_under_its_own_header_alone() -> None:
    changes = {"round": 3, "hop": 2, "sender": "alts", "base": "c" * 64, "run": "run-2", "plan": "d" * 64}
    for name, value in changes.items():
        with pytest.raises(BrokenSealError):
            opens(header_of(MODEL, **{name: value}), BODY)
    with pytest.raises(BrokenSealError):
        opens(header_of(MODEL), BODY, bytes(32))


def test_a_key_that_opens_shows_a_model_of_another_digest() -> None:
    """Whoever has the key, and lies in the header that the key was made for, is found at the end."""
    header = header_of(MODEL, content="e" * 64)
    cipher = ChaCha20Poly1305(content_key(SECRET, header))
    cut = [MODEL[at : at + CHUNK_BYTES] for at in range(0, len(MODEL), CHUNK_BYTES)]
    forged = b"".join(
        cipher.encrypt(n.to_bytes(11, "big") + bytes([n == len(cut) - 1]), one, None) for n, one in enumerate(cut)
    )
    with pytest.raises(BrokenSealError, match="another model"):
        opens(header, forged)
    short = header_of(MODEL, size_bytes=CHUNK_BYTES)
    cipher = ChaCha20Poly1305(content_key(SECRET, short))
    longer = b"".join(cipher.encrypt(n.to_bytes(11, "big") + b"\0", one, None) for n, one in enumerate(cut))
    with pytest.raises(BrokenSealError, match="longer"):
        opens(short, longer)


def test_a_sender_does_not_seal_a_model_that_its_header_does_not_name() -> None:
    header = header_of(MODEL)
    key = content_key(SECRET, header)
    for other in (MODEL[:-1], MODEL + b"x", bytes(len(MODEL)), b""):
        made = b""
        with pytest.raises(BrokenSealError):  # noqa: PT012  (what was made before it counts)
            for piece in sealed(header, key, [other]):
                made += piece
            raise BrokenSealError("nothing came")
        with pytest.raises(BrokenSealError):
            opens(header, made[len(prefix(header)) :])


def test_keys_of_two_headers_or_secrets_differ() -> None:
    one, other = header_of(MODEL), header_of(MODEL, round=3)
    keys = {content_key(SECRET, one), content_key(SECRET, other), content_key(bytes(32), one)}
    assert len(keys) == 3
    with pytest.raises(ValueError, match="32 bytes"):
        content_key(b"short", one)


def test_a_prefix_that_is_none_is_refused() -> None:
    start = prefix(header_of(MODEL))
    for text in (
        b"",
        b"x" * 100,
        start[:10],
        start[:-1],
        start[:8] + b"\xff" * 4 + start[12:],
        start.replace(b"nhs", b'n"s'),
    ):
        with pytest.raises(BrokenSealError):
            read_prefix(text)


@pytest.mark.parametrize(
    "change",
    [{"size_bytes": 0}, {"digest": "x"}, {"base": "B" * 64}, {"sender": ""}, {"round": -1}, {"run": "r" * 5000}],
    ids=str,
)
def test_a_header_with_impossible_values_is_none(change: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        header_of(MODEL, **change)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        header_of(MODEL).text.replace('"round":2', '"round":true'),
        header_of(MODEL).text.replace('"round":2', '"round":"2"'),
        header_of(MODEL).text.replace('"round":2', '"round":2,"surprise":1'),
        header_of(MODEL).text[:-1],
    ],
)
def test_a_text_that_is_no_header_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Header.parse(text)


def test_what_differs_from_the_task_is_named() -> None:
    header = header_of(MODEL)
    assert differences(header, header) == []
    assert differences(header, dataclasses.replace(header, hop=2, base="")) == ["hop", "base"]
