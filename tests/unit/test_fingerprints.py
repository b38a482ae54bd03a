"""Fingerprints: the two forms that people compare, and keys as bytes."""

import re

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fedcervix.trust.fingerprints import KEY_BYTES_MAX, Fingerprint, key_bytes, read_key
from fedcervix.trust.pgp_words import EVEN, ODD

PUBLISHED = {
    "e58294f2e9a227486e8b061b31cc528fd7fa3f19": (
        "topmost Istanbul Pluto vagabond treadmill Pacific brackish dictator goldfish Medusa "
        "afflict bravado chatter revolver Dupont midsummer stopwatch whimsical cowbell bottomless"
    ),
    "d1d464c004f00fb5c9a4c8d8e433e7fb7ff56256": (
        "stairway souvenir flytrap recipe adrift upcoming artist positive spearhead Pandora "
        "spaniel stupendous tonic concurrent transit Wichita lockup visitor flagpole escapade"
    ),
}
"""Wikipedia, "PGP word list", Examples"""
ONE = Fingerprint(bytes.fromhex(next(iter(PUBLISHED))) + bytes(12))
TEXT = " ".join(ONE.words)

RFC_9500 = b"""-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIObLW92AqkWunJXowVR2Z5/+yVPBaFHnEedDk5WJxk/BoAoGCCqGSM49
AwEHoUQDQgAEQiVI+I+3gv+17KN0RFLHKh5Vj71vc75eSOkyMsxFxbFsTNEMTLjV
uKFxOelIgsiZJXKZNCX0FBmrfpCkKklCcg==
-----END EC PRIVATE KEY-----
"""
"""testECCP256 of RFC 9500, section 2.3"""


@pytest.mark.parametrize(("digits", "words"), PUBLISHED.items())
def test_the_published_examples_in_words(digits: str, words: str) -> None:
    assert " ".join(Fingerprint(bytes.fromhex(digits) + bytes(12)).words[:20]) == words


def test_the_lists_have_a_word_for_each_byte_and_none_twice() -> None:
    assert (len(EVEN), len(ODD)) == (256, 256)
    assert len({word.lower() for word in (*EVEN, *ODD)}) == 512
    assert (EVEN[0], ODD[0], EVEN[255], ODD[255]) == ("aardvark", "adroitness", "Zulu", "Yucatan")
    assert not [word for word in (*EVEN, *ODD) if re.fullmatch("[0-9a-f]+", word)], "hexadecimal digits, too"


def test_both_forms_for_a_person() -> None:
    groups, *words = ONE.lines()
    assert groups == "e582 94f2 e9a2 2748 6e8b 061b 31cc 528f d7fa 3f19 0000 0000 0000 0000 0000 0000"
    assert words[0] == "topmost Istanbul Pluto vagabond treadmill Pacific brackish dictator"
    assert [len(line.split()) for line in words] == [8, 8, 8, 8]


@pytest.mark.parametrize(
    "text",
    [
        ONE.hex,
        ONE.hex.upper(),
        ONE.groups,
        ":".join(re.findall("..", ONE.hex)),
        ONE.groups.replace(" ", "\n  "),
        TEXT,
        TEXT.upper().replace(" ", ",  "),
        "\n".join(ONE.lines()[1:]),
    ],
)
def test_spaces_and_case_mean_nothing(text: str) -> None:
    assert Fingerprint.parse(text) == ONE


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TEXT.replace("Pacific", "Pacifik"), "word 6, 'Pacifik', is not in the word list: did you mean 'pacific'?"),
        (TEXT.replace("Pacific", "qqq"), "word 6, 'qqq', is not in the word list$"),
        (TEXT.replace("Pluto ", ""), "word 3, 'vagabond', is in the list, but only for even places"),
        (
            TEXT.replace("Pluto vagabond", "vagabond Pluto"),
            "word 3, 'vagabond', is in the list, but only for even places",
        ),
        (TEXT.replace("vagabond", "Pluto Pluto"), "word 4, 'Pluto', is in the list, but only for odd places"),
        (TEXT.removesuffix(" aardvark adroitness"), "a fingerprint has 32 words; found 30"),
        (TEXT + " aardvark", "a fingerprint has 32 words; found 33"),
        ("", "a fingerprint has 32 words; found 0"),
        (ONE.hex[:-1], "a fingerprint has 64 hexadecimal digits; found 63"),
        (ONE.hex + "00", "found 66"),
        (ONE.groups.replace("e9a2", "e9o2"), "group 3, 'e9o2', has characters other than 0-9 and a-f"),
        (ONE.hex.replace("0", "٠"), "group 1"),
        ("x" * 10_000, "word 1, 'x{40}', is not"),
    ],
)
def test_what_is_mistyped_is_named(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Fingerprint.parse(text)


def test_no_fingerprint_is_cut() -> None:
    with pytest.raises(ValueError, match="32 bytes; found 20"):
        Fingerprint(ONE.digest[:20])


def test_the_fingerprint_of_a_key_is_what_openssl_gives() -> None:
    key = serialization.load_pem_private_key(RFC_9500, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    # openssl pkey -in KEY -pubout -outform DER | openssl dgst -sha256
    assert Fingerprint.of(key.public_key()).hex == "b2b04340cfaee616ec9c2c62d261b208e54bb197498df52e8cadede23ac0ba5e"


def test_groups_that_differ() -> None:
    assert ONE.differing_groups(ONE) == ()
    assert ONE.differing_groups(Fingerprint(ONE.digest[:-1] + b"\1")) == (16,)


# --- keys as bytes ------------------------------------------------------------------------------------------------

KEY = ec.derive_private_key(7, ec.SECP256R1()).public_key()


def test_a_key_is_read_as_it_was_written() -> None:
    assert read_key(key_bytes(KEY)) == KEY


def _der(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _compressed() -> bytes:
    """The same key with a compressed point: another way to write it, so another fingerprint."""
    point = KEY.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    return b"\x30\x39" + _der(KEY)[2:23] + b"\x03\x22\x00" + point


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a public key"),
        (_der(KEY)[:-1], "not a public key"),
        (_der(ec.derive_private_key(7, ec.SECP384R1()).public_key()), "not an ECDSA P-256 key"),
        (_der(rsa.generate_private_key(65537, 1024).public_key()), "not an ECDSA P-256 key"),
        (_compressed(), "not written in the one way"),
        (bytes(KEY_BYTES_MAX + 1), "at most 256 are read"),
    ],
)
def test_everything_else_is_no_key(content: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_key(content)
