"""The fingerprint of a public key: what two people compare on the telephone before their programs trust each other.

It is the SHA-256 of the key as X.509 writes it (SubjectPublicKeyInfo, DER), all 32 bytes. People see it in two forms:

    sixteen groups of hexadecimal digits    e582 94f2 e9a2 2748 ...       to copy
    thirty-two words of the PGP word list   topmost Istanbul Pluto ...    to read out

A certificate is renewed and its fingerprint stays, because it is that of the key. To compare:

    openssl x509 -in keys/site.crt -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from fedcervix.trust.pgp_words import EVEN, ODD

FINGERPRINT_BYTES = hashlib.sha256().digest_size
HEX_DIGITS = 2 * FINGERPRINT_BYTES
GROUP_DIGITS = 4
WORDS_PER_LINE = 8
KEY_BYTES_MAX = 256
"""of a public key as DER; one of P-256 has 91"""
SHOWN_CHARS_MAX = 40
"""of a word that an error repeats"""

SiteKeys = Mapping[str, ec.EllipticCurvePublicKey]
"""by the site's name"""

_VALUES = tuple({word.lower(): value for value, word in enumerate(words)} for words in (EVEN, ODD))
_PLACES = ("odd", "even")
"""as people count, from 1: the first word is of the list that its authors call even"""
_EXAMPLES = ("1st, 3rd, ...", "2nd, 4th, ...")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """SHA-256 of a SubjectPublicKeyInfo."""

    digest: bytes

    def __post_init__(self) -> None:
        if len(self.digest) != FINGERPRINT_BYTES:
            raise ValueError(f"a fingerprint has {FINGERPRINT_BYTES} bytes; found {len(self.digest)}")

    @classmethod
    def of(cls, key: CertificatePublicKeyTypes) -> Fingerprint:
        """Return the fingerprint of a public key."""
        return cls(hashlib.sha256(key_bytes(key)).digest())

    @classmethod
    def parse(cls, text: str) -> Fingerprint:
        """Return the fingerprint that a person wrote in one of the two forms; case and spaces mean nothing.

        Raises ValueError, which names the word or the group that is wrong.
        """
        parts = re.findall(r"[^\s:,.-]+", text)
        return cls(_of_groups(parts) if re.search(r"[0-9]", text) else _of_words(parts))

    @property
    def hex(self) -> str:
        """64 lower-case digits: to store."""
        return self.digest.hex()

    @property
    def groups(self) -> str:
        """The digits in groups of four, on one line."""
        return self.digest.hex(" ", GROUP_DIGITS // 2)

    @property
    def words(self) -> tuple[str, ...]:
        """The thirty-two words, in order."""
        return tuple((EVEN, ODD)[place % 2][value] for place, value in enumerate(self.digest))

    def lines(self) -> tuple[str, ...]:
        """Return both forms for a person: a line of groups, four lines of words."""
        words = self.words
        rows = (words[at : at + WORDS_PER_LINE] for at in range(0, len(words), WORDS_PER_LINE))
        return self.groups, *map(" ".join, rows)

    def differing_groups(self, other: Fingerprint) -> tuple[int, ...]:
        """Return which groups of digits are not the same, counted from 1."""
        pairs = zip(self.groups.split(), other.groups.split(), strict=True)
        return tuple(number for number, (mine, others) in enumerate(pairs, 1) if mine != others)


def _of_groups(parts: list[str]) -> bytes:
    for place, part in enumerate(parts, 1):
        if re.fullmatch(r"[0-9A-Fa-f]+", part) is None:
            raise ValueError(f"group {place}, {part[:SHOWN_CHARS_MAX]!r}, has characters other than 0-9 and a-f")
    digits = "".join(parts)
    if len(digits) != HEX_DIGITS:
        raise ValueError(f"a fingerprint has {HEX_DIGITS} hexadecimal digits; found {len(digits)}")
    return bytes.fromhex(digits)


def _of_words(parts: list[str]) -> bytes:
    values = [_value(word, place) for place, word in enumerate(parts)]
    if len(values) != FINGERPRINT_BYTES:
        raise ValueError(f"a fingerprint has {FINGERPRINT_BYTES} words; found {len(values)}")
    return bytes(values)


def _value(word: str, place: int) -> int:
    """Return the byte that a word means at a place, counted from 0. Raises ValueError."""
    here, elsewhere = _VALUES[place % 2], _VALUES[1 - place % 2]
    shown, said = f"word {place + 1}, {word[:SHOWN_CHARS_MAX]!r},", word.lower()
    if said in here:
        return here[said]
    if said in elsewhere:
        raise ValueError(
            f"{shown} is in the list, but only for {_PLACES[1 - place % 2]} places ({_EXAMPLES[1 - place % 2]}): "
            "a word before it was left out or written twice, or two words are in the wrong order"
        )
    near = difflib.get_close_matches(said[:SHOWN_CHARS_MAX], here, n=1)
    raise ValueError(f"{shown} is not in the word list" + (f": did you mean {near[0]!r}?" if near else ""))


# --- keys as bytes ------------------------------------------------------------------------------------------------


def key_bytes(key: CertificatePublicKeyTypes) -> bytes:
    """Return a public key as X.509 writes it (SubjectPublicKeyInfo, DER)."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def read_key(content: bytes) -> ec.EllipticCurvePublicKey:
    """Return the P-256 key that `key_bytes` wrote. Raises ValueError for everything else.

    Also for another way to write the same key: one key has one fingerprint.
    """
    if len(content) > KEY_BYTES_MAX:
        raise ValueError(f"a key of {len(content)} bytes; at most {KEY_BYTES_MAX} are read")
    try:
        key = serialization.load_der_public_key(content)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError("not a public key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("not an ECDSA P-256 key")  # noqa: TRY004  (bytes from outside: one error for all of them)
    if key_bytes(key) != content:
        raise ValueError("a key that is not written in the one way that is allowed")
    return key
