"""Statements: texts with a tag that says what they mean, as bytes to hash and to sign."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

SIGNATURE_BYTES_MAX = 72
"""of an ECDSA signature with P-256, in DER"""

PublicKey = ec.EllipticCurvePublicKey
PrivateKey = ec.EllipticCurvePrivateKey


def tagged(tag: str, *texts: str) -> bytes:
    """Return the bytes that are hashed or signed: a tag and texts, each as a netstring."""
    return b"".join([b"%d:%s," % (len(part), part) for part in map(str.encode, (tag, *texts))])


def digest_of(tag: str, *texts: str) -> str:
    """Return the SHA-256 of a tag and texts, in lower-case hexadecimal."""
    return hashlib.sha256(tagged(tag, *texts)).hexdigest()


def sign(key: PrivateKey, tag: str, *texts: str) -> bytes:
    """Return a signature (DER). It is deterministic: one that was lost can be made again."""
    return key.sign(tagged(tag, *texts), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def holds(key: PublicKey, signature: bytes, tag: str, *texts: str) -> bool:
    """Say whether a signature over the texts is by the owner of a public key."""
    try:
        key.verify(signature, tagged(tag, *texts), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
