"""Boxes between two sites: published vectors of their primitives, keys that are refused, and what a box is bound to."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedcervix.errors import RemoteError
from fedcervix.trust.boxes import FIELD, LOW_ORDER, NamedKey, OwnKey, agreed_key, boxed, opened
from fedcervix.trust.statements import tagged

ADA, BOB, EVE = (OwnKey(name, bytes([number]) * 32) for number, name in enumerate(("ada", "bob", "eve"), 1))
LABEL, CONTEXT, SECRET = "label", b"run 7", bytes(range(32))


def test_keys_agree_by_x25519() -> None:
    """RFC 7748, 6.1."""
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    public = OwnKey("bob", bob).public
    assert public.key.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    shared = X25519PrivateKey.from_private_bytes(alice).exchange(X25519PublicKey.from_public_bytes(public.key))
    assert shared.hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


def test_keys_are_derived_by_hkdf() -> None:
    """RFC 5869, A.1: SHA-256 with salt and info."""
    hkdf = HKDF(SHA256(), 42, salt=bytes(range(13)), info=bytes(range(0xF0, 0xFA)))
    okm = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    assert hkdf.derive(b"\x0b" * 22).hex() == okm


def test_a_box_is_chacha20_poly1305() -> None:
    """RFC 8439, 2.8.2."""
    plaintext = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    nonce, aad = bytes.fromhex("070000004041424344454647"), bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    sealed = ChaCha20Poly1305(bytes(range(0x80, 0xA0))).encrypt(nonce, plaintext, aad).hex()
    assert sealed.startswith("d31a8d34648e60db7b86afbc53ef7ec2")
    assert sealed.endswith("1ae10b594f09e26a7e902ecbd0600691")


def test_a_box_is_what_the_page_describes() -> None:
    shared = X25519PrivateKey.from_private_bytes(ADA.secret).exchange(X25519PublicKey.from_public_bytes(BOB.public.key))
    info = tagged(LABEL, "ada", "bob", ADA.public.key.hex(), BOB.public.key.hex())
    key = HKDF(SHA256(), 32, salt=CONTEXT, info=info).derive(shared)
    box = ChaCha20Poly1305(key).encrypt(bytes(12), SECRET, None)
    assert boxed(ADA, BOB.public, LABEL, CONTEXT, SECRET) == box
    assert opened(BOB, ADA.public, LABEL, CONTEXT, box) == SECRET


@pytest.mark.parametrize(
    ("reader", "sender", "label", "context"),
    [
        (EVE, ADA.public, LABEL, CONTEXT),
        (BOB, EVE.public, LABEL, CONTEXT),
        (BOB, NamedKey("eve", ADA.public.key), LABEL, CONTEXT),
        (OwnKey("eve", BOB.secret), ADA.public, LABEL, CONTEXT),
        (BOB, ADA.public, "another", CONTEXT),
        (BOB, ADA.public, LABEL, b"run 8"),
    ],
    ids=["reader", "sender", "name of the sender", "name of the reader", "label", "context"],
)
def test_a_box_opens_for_its_reader_sender_and_context_alone(reader, sender, label, context) -> None:
    box = boxed(ADA, BOB.public, LABEL, CONTEXT, SECRET)
    with pytest.raises(RemoteError, match=f"the box of site {sender.name} for site {reader.name} does not open"):
        opened(reader, sender, label, context, box)


@pytest.mark.parametrize(
    "damage", [lambda box: box[:-1], lambda box: box[:0], lambda box: bytes([box[0] ^ 1]) + box[1:]]
)
def test_a_damaged_box_does_not_open(damage) -> None:
    with pytest.raises(RemoteError):
        opened(BOB, ADA.public, LABEL, CONTEXT, damage(boxed(ADA, BOB.public, LABEL, CONTEXT, SECRET)))


def test_a_box_back_has_another_key() -> None:
    there = agreed_key(ADA, ADA.public, BOB.public, LABEL, CONTEXT)
    assert there == agreed_key(BOB, ADA.public, BOB.public, LABEL, CONTEXT)
    assert there != agreed_key(ADA, BOB.public, ADA.public, LABEL, CONTEXT)


@pytest.mark.parametrize("number", [*sorted(LOW_ORDER), FIELD, FIELD + 1, 2**255, 2**255 + 9, 2**256 - 1])
def test_a_key_of_low_order_or_not_canonical_is_refused_by_the_name_of_its_site(number: int) -> None:
    with pytest.raises(RemoteError, match=r"site eve gives a key that (has a low order|is not canonical)"):
        NamedKey("eve", number.to_bytes(32, "little"))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(RemoteError, match=f"has {length} bytes"):
        NamedKey("eve", bytes(length))


def test_points_of_low_order_are_those_whose_eighth_multiple_is_nothing() -> None:
    """X25519 multiplies by a multiple of 8: with these, everybody knows the result (RFC 7748, section 6.1)."""
    for number in LOW_ORDER:
        with pytest.raises(ValueError):
            X25519PrivateKey.from_private_bytes(SECRET).exchange(
                X25519PublicKey.from_public_bytes(number.to_bytes(32, "little"))
            )


def test_a_secret_is_not_shown() -> None:
    assert "secret" not in repr(ADA)
