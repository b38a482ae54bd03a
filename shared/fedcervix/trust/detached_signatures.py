"""Detached signatures that other programs can check: CMS (RFC 5652), made by `cryptography`, read here strictly.

    openssl cms -verify -binary -inform DER -in FILE.p7s -content FILE -CAfile authority.crt -purpose any ...

One signer, whose certificate is inside; ECDSA P-256 over SHA-256 of the content; no signed attributes, for the content
itself says when it was made. `cryptography` reads the certificate and has no function for the rest: `_Der` cuts what
stands around the signature into its parts. Anything else than this form is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7

from fedcervix.core.plan import check
from fedcervix.trust.key_texts import p256, private_key

SIGNATURE_FILE_BYTES_MAX = 16 * 1024
SEQUENCE, SET, INTEGER, OCTETS, NAMED, CONTEXT_0 = 0x30, 0x31, 0x02, 0x04, 0x06, 0xA0
"""tags (X.690); NAMED: an object identifier"""
DATA = bytes.fromhex("2a864886f70d010701")
SIGNED_DATA = bytes.fromhex("2a864886f70d010702")
SHA_256 = bytes.fromhex("608648016503040201")
ECDSA_SHA_256 = bytes.fromhex("2a8648ce3d040302")
VERSION = b"\x01"
NULL = bytes.fromhex("0500")
LONG = 0x80
"""from here on, the first byte of a length says how many bytes the length has"""
FORM = "it is no detached CMS signature of this kind"


def sign(content: bytes, key_pem: bytes, certificate_pem: bytes) -> bytes:
    """Return a detached signature (DER) with the signer's certificate in it. Raises ValueError."""
    certificate, key = x509.load_pem_x509_certificate(certificate_pem), private_key(key_pem)
    options = [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoAttributes]
    builder = pkcs7.PKCS7SignatureBuilder().set_data(content).add_signer(certificate, key, hashes.SHA256())
    return builder.sign(serialization.Encoding.DER, options)


def signer(content: bytes, signature: bytes) -> bytes:
    """Return the certificate (PEM) whose key has signed a content. Raises ValueError where none has.

    Who issued the certificate, and what it names, is for the caller to check.
    """
    check(len(signature) <= SIGNATURE_FILE_BYTES_MAX, f"it is longer than {SIGNATURE_FILE_BYTES_MAX} bytes")
    certificate_der, info = _parts(signature)
    certificate, value = _certificate(certificate_der), _signature(info, certificate_der)
    try:
        p256(certificate.public_key()).verify(value, content, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise ValueError("the signature does not belong to this text: one of the two was changed") from None
    except UnsupportedAlgorithm as error:
        raise ValueError(FORM) from error
    return certificate.public_bytes(serialization.Encoding.PEM)


def _parts(signature: bytes) -> tuple[bytes, list[_Der]]:
    """Return the one certificate, and the parts of what the one signer says."""
    outer = _only(_cut(signature), SEQUENCE).inner(NAMED, CONTEXT_0)
    check(outer[0].value == SIGNED_DATA, FORM)
    inner = _only(outer[1].cut(), SEQUENCE).inner(INTEGER, SET, SEQUENCE, CONTEXT_0, SET)
    [kind] = inner[2].inner(NAMED)
    check((inner[0].value, kind.value) == (VERSION, DATA), FORM)  # and no content: it is detached
    check(_algorithm(_only(inner[1].cut(), SEQUENCE)) == SHA_256, FORM)
    return _only(inner[3].cut(), SEQUENCE).whole, _only(inner[4].cut(), SEQUENCE).cut()


def _signature(info: list[_Der], certificate: bytes) -> bytes:
    """Return the value of the signature, where the algorithms are the known ones and the signer is the certificate's.

    `info` is version, issuer with number, digest, algorithm, value. Attributes would stand between: there are none.
    """
    check([one.tag for one in info] == [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE, OCTETS], FORM)
    known = x509.load_der_x509_certificate(certificate)
    named, number = info[1].inner(SEQUENCE, INTEGER)
    same = int.from_bytes(number.value, "big", signed=True) == known.serial_number
    check(named.whole == known.issuer.public_bytes() and same, "its signer is another one than its certificate's")
    algorithms = [_algorithm(one) for one in info[2:4]]
    check((info[0].value, algorithms) == (VERSION, [SHA_256, ECDSA_SHA_256]), FORM)
    return info[4].value


def _algorithm(one: _Der) -> bytes:
    """Return the name of an algorithm that has no parameters: none, or NULL."""
    name, *parameters = one.cut()
    check(name.tag == NAMED and [part.whole for part in parameters] in ([], [NULL]), FORM)
    return name.value


def _certificate(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as error:
        raise ValueError("its certificate cannot be read") from error


@dataclass(frozen=True, slots=True)
class _Der:
    """One value of DER: tag, content, and the bytes of both."""

    tag: int
    value: bytes
    whole: bytes

    def cut(self) -> list[_Der]:
        """Return the values in its content. Raises ValueError."""
        return _cut(self.value)

    def inner(self, *tags: int) -> list[_Der]:
        """Return the values in its content, whose tags must be these. Raises ValueError."""
        found = self.cut()
        check([one.tag for one in found] == [*tags], FORM)
        return found


def _only(found: list[_Der], tag: int) -> _Der:
    check([one.tag for one in found] == [tag], FORM)
    return found[0]


def _cut(data: bytes) -> list[_Der]:
    """Cut bytes into values of DER, one after the other. Raises ValueError. Source: X.690, 8.1 and 10.1."""
    found, at = [], 0
    while at < len(data):
        check(len(data) - at >= 2, FORM)
        start, size, begin = at, data[at + 1], at + 2
        if size >= LONG:
            digits = data[begin : begin + size - LONG]
            check(0 < size - LONG <= 3 and len(digits) == size - LONG, FORM)
            size, begin = int.from_bytes(digits, "big"), begin + len(digits)
            check(size >= LONG and digits[0] != 0, FORM)
        at = begin + size
        check(at <= len(data), FORM)
        found.append(_Der(data[start], data[begin:at], data[start:at]))
    return found
