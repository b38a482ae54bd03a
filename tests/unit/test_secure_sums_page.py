"""docs/secure-sums.md is enough: a second implementation from the page alone, number by number, gives the same bytes.

It uses Python's integers and fractions. Of ours it takes nothing but what it compares with.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedcervix.models.secure_averages import Summed, derive
from fedcervix.models.secure_sums import check_sum, mask, open_sum, release
from fedcervix.models.secure_updates import quantise
from fedcervix.models.weights import read_layout, write_tensors
from fedcervix.trust.fixed_point import Share
from fedcervix.trust.mask_streams import MaskSecret
from fedcervix.trust.sum_tag import tag_secret

P = 2**61 - 1
RHOS = [bytes([site + 1]) * 32 for site in range(3)]
IMAGES = (100, 237, 41)
USED = (0, 2)
"""the sites that take part: their share is 141 of 378"""
CONTEXT = b"one attempt at one round"
BASE = {
    "a.weight": np.float32([[0.5, -0.25, 3.0], [0, 1e-9, -1]]),
    "b.bias": np.float32([0, 0]),
    "n.num_batches_tracked": np.array(7),
    "n.running_mean": np.float32([0.5, -1]),
    "n.running_var": np.float32([1, 2]),
}


def update(site: int) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(site)
    moved = {name: (v + chance.normal(size=v.shape) / 10).astype(v.dtype) for name, v in BASE.items() if v.ndim}
    return {**moved, "n.num_batches_tracked": np.array(7 + site)}


# --- the second implementation ------------------------------------------------------------------------------------


def hkdf(secret: bytes, *parts: bytes) -> bytes:
    info = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    return hmac.digest(hmac.digest(bytes(32), secret, "sha256"), info + b"\x01", "sha256")


def stream(secret: bytes, context: bytes, lane: bytes, size: int) -> bytes:
    key = hkdf(secret, b"fedcervix mask stream 1", context, lane)
    return Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(size))


def words(raw: bytes, size: int) -> list[int]:
    return [int.from_bytes(raw[at : at + size], "little") for at in range(0, len(raw), size)]


def nearest(value: float) -> int:
    return round(Fraction(value))  # to the nearest, ties to even


def vector(model: Mapping[str, np.ndarray], images: int, pooled: bool, number: int) -> tuple[list[int], list[int]]:
    share = images / sum(IMAGES)
    mean, var = (model[f"n.running_{name}"].astype(float).tolist() for name in ("mean", "var"))
    if pooled:
        var = [m * m + max(v, 0.0) for m, v in zip(mean, var, strict=True)]
    statistics = [nearest(value * (share * 2.0**32)) for value in (*mean, *var)]
    steps = []
    for name in ("a.weight", "b.bias"):
        base, ours = (tensor[name].astype(float).ravel().tolist() for tensor in (BASE, model))
        bound = 2.0 ** math.ceil(math.log2(max(8 * max(map(abs, base)), 16 if number == 1 else 1)))
        steps += [nearest((x - b) * (share * (2.0**30 / bound))) for x, b in zip(ours, base, strict=True)]
    return statistics, steps


def tag(statistics: Sequence[int], steps: Sequence[int]) -> int:
    secret = hkdf(b"".join(RHOS), b"fedcervix sum tag 1")
    *columns, first = (word % 2**61 for word in words(stream(secret, CONTEXT, b"tag weights", 8 * 1025), 8))
    return sum(first * t * q for t, q in zip(columns, (*statistics, *steps), strict=False)) % P


def file(statistics: Sequence[int], steps: Sequence[int], counter: int, tag_: int, base: Path) -> bytes:
    raw = base.read_bytes()
    layout = hashlib.sha256(raw[8 : 8 + int.from_bytes(raw[:8], "little")]).hexdigest()
    sizes = (("statistics", "I64", 8, len(statistics)), ("numbers", "I32", 4, len(steps)))
    header: dict[str, object] = {"__metadata__": {"format": "1", "layout": layout}}
    at = 0
    for name, dtype, item, count in (*sizes, ("counters", "U8", 1, 8), ("tag", "U8", 1, 8)):
        header[name] = {"dtype": dtype, "shape": [count], "data_offsets": [at, at + item * count]}
        at += item * count
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join((q % 2**64).to_bytes(8, "little") for q in statistics)
    body += b"".join((q % 2**32).to_bytes(4, "little") for q in steps)
    return struct.pack("<Q", len(text)) + text + body + struct.pack("<QQ", counter, tag_)


def masks(secret: bytes, context: bytes) -> tuple[list[int], list[int], int]:
    statistics = words(stream(secret, context, b"statistics", 8 * 4), 8)
    return (
        statistics,
        words(stream(secret, context, b"numbers", 4 * 8), 4),
        int.from_bytes(stream(secret, context, b"tag", 16), "little"),
    )


def added(vectors: Sequence[tuple[Sequence[int], Sequence[int], int]]) -> tuple[list[int], list[int], int]:
    statistics, steps, tags = zip(*vectors, strict=True)
    return [sum(c) for c in zip(*statistics, strict=True)], [sum(c) for c in zip(*steps, strict=True)], sum(tags) % P


# --- beside ours --------------------------------------------------------------------------------------------------


def pairs() -> Iterator[tuple[int, int, bytes, bytes]]:
    """Yield (site, holder, what the two agree on, context of their stream)."""
    for site in range(3):
        for holder in range(2):
            yield site, holder, hashlib.sha256(bytes([site, holder])).digest(), f"{site} {holder}".encode()


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("rule", ["mean", "pooled-variance"])
def test_the_page_describes_every_byte(tmp_path: Path, rule, number: int) -> None:
    base, pooled = tmp_path / "base", rule == "pooled-variance"
    write_tensors(base, BASE)
    layout, found = read_layout(base), []
    secret = tag_secret(RHOS, CONTEXT)
    for site in range(3):
        write_tensors(tmp_path / "update", update(site))
        q, y = tmp_path / "q", tmp_path / f"y{site}"
        quantise(tmp_path / "update", base, q, Share(IMAGES[site], sum(IMAGES)), rule, secret, round_=number)
        mine = vector(update(site), IMAGES[site], pooled, number)
        found.append((*mine, tag(*mine)))
        assert q.read_bytes() == file(*mine, 7 + site, tag(*mine), base)
        ways = [(agreed, context) for one, _, agreed, context in pairs() if one == site]
        mask(q, y, layout, [MaskSecret(*way) for way in ways])
        statistics, steps, tag_ = added([found[-1], *(masks(*way) for way in ways)])
        assert y.read_bytes() == file(statistics, steps, 7 + site, tag_, base)
    for holder in range(2):
        ways = [(agreed, context) for site, one, agreed, context in pairs() if one == holder and site in USED]
        release(tmp_path / f"r{holder}", layout, [MaskSecret(*way) for way in ways])
        statistics, steps, tag_ = added([masks(*way) for way in ways])
        assert (tmp_path / f"r{holder}").read_bytes() == file(statistics, steps, 0, tag_, base)
    masked, releases = ([tmp_path / f"{part}{at}" for at in ats] for part, ats in (("y", USED), ("r", range(2))))
    open_sum(masked, releases, tmp_path / "sum", layout)
    statistics, steps, _ = added([found[site] for site in USED])
    assert (tmp_path / "sum").read_bytes() == file(statistics, steps, 9, tag(statistics, steps), base)
    check_sum(tmp_path / "sum", base, len(USED), secret)
    of = Summed(Share(sum(IMAGES[site] for site in USED), sum(IMAGES)), len(USED))
    derive(tmp_path / "sum", base, tmp_path / "model", of, rule, round_=number)
    raw = base.read_bytes()
    assert (tmp_path / "model").read_bytes() == raw[: -8 - 4 * 12] + average(statistics, steps, pooled, number)


def average(statistics: Sequence[int], steps: Sequence[int], pooled: bool, number: int) -> bytes:
    """The data of the model, in the order of its file: the count, a.weight, b.bias, running_mean, running_var."""
    inverse = sum(IMAGES) / sum(IMAGES[site] for site in USED)
    base = [*BASE["a.weight"].ravel().tolist(), *BASE["b.bias"].tolist()]
    bounds = [32.0] * 6 + [16.0 if number == 1 else 1.0] * 2
    numbers = [q * (inverse * (bound / 2**30)) + b for q, bound, b in zip(steps, bounds, base, strict=True)]
    mean, moment = ([q * (inverse / 2**32) for q in statistics[at : at + 2]] for at in (0, 2))
    var = [max(e - m * m, 0.0) for e, m in zip(moment, mean, strict=True)] if pooled else moment
    return struct.pack("<q12f", 9, *numbers, *mean, *var)
