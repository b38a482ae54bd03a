"""Signatures over texts: ECDSA with P-256 and SHA-256, deterministic (RFC 6979).

The same key and the same text give the same signature, so one that was lost can be made again. What is signed is
`chain.tagged`: a tag that says what the signature means, and the texts.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedcervix.core.plan import check
from fedcervix.trust.chain import tagged

SIGNATURE_BYTES_MAX = 72
"""of an ECDSA signature with P-256, in DER"""
KEY_CHARS_MAX = 1024
"""of a public key in PEM"""

PublicKey = ec.EllipticCurvePublicKey


def sign(key_pem: bytes, tag: str, *texts: str) -> bytes:
    """Return a signature (DER) by a P-256 private key (PEM). Raises ValueError where the key is none."""
    key = serialization.load_pem_private_key(key_pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an ECDSA key")  # noqa: TRY004  (its content is wrong)
    return key.sign(tagged(tag, *texts), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def holds(key: PublicKey, signature: bytes, tag: str, *texts: str) -> bool:
    """Say whether a signature (DER) over the texts is by the owner of a public key."""
    try:
        key.verify(signature, tagged(tag, *texts), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def public_key(pem: str) -> PublicKey:
    """Return a public key (PEM, SubjectPublicKeyInfo). Raises ValueError unless it is one with P-256."""
    check(len(pem) <= KEY_CHARS_MAX, "it is too long for a public key")
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("not a public key of the kind ECDSA P-256")  # noqa: TRY004  (as above)
    return key


def public_pem(key: PublicKey) -> str:
    """Return a public key as PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()


def fingerprint(key: PublicKey) -> str:
    """Return the SHA-256 of a public key (SubjectPublicKeyInfo, DER), in lower-case hexadecimal."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).hexdigest()
