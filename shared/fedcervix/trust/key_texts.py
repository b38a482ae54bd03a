"""Keys as text: ECDSA P-256, in PEM. Whatever a text holds gives a key or a ValueError."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedcervix.core.plan import check
from fedcervix.trust.statements import PrivateKey, PublicKey

KEY_CHARS_MAX = 1024
"""of a public key in PEM"""


def private_key(pem: bytes) -> PrivateKey:
    """Return a private key (PEM, not encrypted). Raises ValueError where it is none of this kind."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an ECDSA key")  # noqa: TRY004  (its content is wrong)
    return key


def public_key(pem: str) -> PublicKey:
    """Return a public key (PEM, SubjectPublicKeyInfo). Raises ValueError unless it is one with P-256."""
    check(len(pem) <= KEY_CHARS_MAX, "it is too long for a public key")
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    return p256(key)


def p256(key: object) -> PublicKey:
    """Return a public key that is one with P-256. Raises ValueError where it is another."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("not a public key of the kind ECDSA P-256")  # noqa: TRY004  (its content is wrong)
    return key


def public_pem(key: PublicKey) -> str:
    """Return a public key as PEM."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()
