"""The streams that mask a vector: published vectors, resumption, and what an observer can tell."""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest
from scipy import stats

from fedcervix.trust.mask_streams import LABEL, PART_BYTES, Lane, MaskSecret, MaskStream, derived

U1, U4, U8 = np.dtype(np.uint8), np.dtype(np.uint32), np.dtype(np.uint64)
SECRET = MaskSecret(bytes(range(32)), b"round 7")


def test_the_stream_is_aes_256_in_counter_mode() -> None:
    """NIST SP 800-38A, F.5.5: CTR-AES256.Encrypt."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    counter = int.from_bytes(bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"), "big")
    plaintext = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    ciphertext = bytes.fromhex(
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    )
    stream = MaskStream(key, counter).words(64, U1).tobytes()
    assert bytes(a ^ b for a, b in zip(stream, plaintext, strict=True)) == ciphertext


def test_keys_are_derived_by_hkdf() -> None:
    """RFC 5869, A.3: SHA-256, no salt, no info."""
    okm = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert derived(b"\x0b" * 22).hex() == okm[:64]


def test_a_lane_has_the_key_that_the_page_describes() -> None:
    info = b"".join(len(part).to_bytes(4, "big") + part for part in (LABEL, b"round 7", b"numbers"))
    extracted = hmac.digest(bytes(32), SECRET.secret, "sha256")
    assert SECRET.key(Lane.NUMBERS) == hmac.digest(extracted, info + b"\x01", "sha256")


def test_another_lane_context_or_secret_has_another_key() -> None:
    others = [SECRET, MaskSecret(SECRET.secret, b"round 8"), MaskSecret(bytes(32), b"round 7")]
    keys = {secret.key(lane) for secret in others for lane in Lane}
    assert len(keys) == len(others) * len(Lane)
    assert derived(bytes(32), b"ab", b"c") != derived(bytes(32), b"a", b"bc")


@pytest.mark.parametrize(("secret", "context"), [(bytes(31), b"c"), (bytes(33), b"c"), (bytes(32), b"")])
def test_a_secret_has_32_bytes_and_a_context(secret: bytes, context: bytes) -> None:
    with pytest.raises(ValueError):
        MaskSecret(secret, context)


def test_a_secret_is_not_shown() -> None:
    assert "secret=" not in repr(SECRET)


def test_a_stream_goes_on_at_any_block() -> None:
    key = SECRET.key(Lane.NUMBERS)
    whole = MaskStream(key).words(4096, U4).copy()
    for block in (0, 1, 7, 1000):
        np.testing.assert_array_equal(MaskStream(key, block).words(8, U4), whole[4 * block :][:8])


def test_words_are_little_endian_and_cut_anywhere() -> None:
    key = SECRET.key(Lane.STATISTICS)
    raw = MaskStream(key).words(PART_BYTES, U1).tobytes()
    pieces = MaskStream(key)
    found = [int(word) for count in (1, 2, 3, 5, 100) for word in pieces.words(count, U8)]
    assert found == [int.from_bytes(raw[8 * at : 8 * at + 8], "little") for at in range(111)]


@pytest.mark.parametrize("dtype", [U4, U8])
def test_what_was_added_is_subtracted_to_the_bit(dtype: np.dtype) -> None:
    words = np.random.default_rng(0).integers(0, 2**32, 3 * PART_BYTES // dtype.itemsize + 5).astype(dtype)
    masked = words.copy()
    MaskStream(SECRET.key(Lane.NUMBERS)).add_to(masked)
    assert (masked != words).mean() > 0.999
    MaskStream(SECRET.key(Lane.NUMBERS)).subtract_from(masked)
    np.testing.assert_array_equal(masked, words)


@pytest.mark.parametrize("value", [0, 1, 2**32 - 1])
def test_masked_bytes_pass_a_chi_square_test(value: int) -> None:
    """Of vectors whose numbers are all the same nothing is left: over 200 rounds the test's p-values are uniform."""
    found = []
    for round_ in range(200):
        words = np.full(2**14, value, np.uint32)
        MaskStream(MaskSecret(SECRET.secret, f"round {round_}".encode()).key(Lane.NUMBERS)).add_to(words)
        found.append(stats.chisquare(np.bincount(words.view(np.uint8), minlength=256)).pvalue)
    assert stats.kstest(found, "uniform").pvalue > 0.01


def test_the_stream_of_a_context_never_changes() -> None:
    """What was masked by one version is unmasked by another."""
    words = MaskStream(SECRET.key(Lane.NUMBERS)).words(1024, U4)
    assert hashlib.sha256(words.tobytes()).hexdigest() == GOLDEN


GOLDEN = "7cb8aecdb5a39d0359a841db274c94586d00c72e4ccb5e405a68bba279cc1634"
