"""Boxes: a few bytes from one site to another, through a coordinator that cannot read or exchange them.

    key   HKDF-SHA256(X25519 of the two run keys, salt = context, info = label, both names, both keys)
    box   ChaCha20-Poly1305 with this key and nonce 0

The same key pair, label and context give the same box, so a box that was lost is made again. One key is for one
plaintext: its label and its context name what is inside. A box names its sender, since nobody else but the reader has
the key.

Rules
1. A key that came from elsewhere is refused unless it is canonical and no point of low order: with such a point, what
   two sites agree on is known to everybody (RFC 7748, section 6.1).
2. The names and both keys go into the derivation: a site that gives out another's key as its own shares nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedcervix.core.plan import check
from fedcervix.errors import RemoteError
from fedcervix.trust.statements import tagged

KEY_BYTES = 32
BOX_BYTES_MAX = 4096
NONCE = bytes(12)
FIELD = 2**255 - 19
LOW_ORDER = {
    0,
    1,
    FIELD - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
}
"""u of the points whose order divides 8. Source: Bernstein, cr.yp.to/ecdh.html#validate"""


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A site's public key of a run."""

    name: str
    key: bytes
    """X25519, 32 bytes"""

    def __post_init__(self) -> None:
        if fault := _fault(self.key):
            raise RemoteError(
                f"site {self.name} gives a key that {fault}",
                cause="an honest site never makes such a key: with it, others would know what two sites agree on",
                next_step=f"telephone site {self.name}; this run cannot begin with it",
            )


def _fault(key: bytes) -> str:
    """Return what is wrong with a public key; empty: nothing."""
    number = int.from_bytes(key, "little")
    if len(key) != KEY_BYTES:
        return f"has {len(key)} bytes, not {KEY_BYTES}"
    if number >= FIELD:
        return "is not canonical: it is 2^255 - 19 or more"
    return "has a low order" if number in LOW_ORDER else ""


@dataclass(frozen=True, slots=True)
class OwnKey:
    """This site's key pair of a run, made of 32 random bytes."""

    name: str
    secret: bytes = field(repr=False)
    public: NamedKey = field(init=False)
    """what the others get to know of it"""
    _private: X25519PrivateKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check(len(self.secret) == KEY_BYTES, f"a run key is made of {KEY_BYTES} bytes")
        private = X25519PrivateKey.from_private_bytes(self.secret)
        object.__setattr__(self, "_private", private)
        object.__setattr__(self, "public", NamedKey(self.name, private.public_key().public_bytes_raw()))

    def exchanged(self, peer: NamedKey) -> bytes:
        """Return what X25519 gives for this key and a peer's: 32 bytes, not yet a key."""
        return self._private.exchange(X25519PublicKey.from_public_bytes(peer.key))


def agreed_key(own: OwnKey, first: NamedKey, second: NamedKey, label: str, context: bytes) -> bytes:
    """Return 32 bytes that only two sites know. `own` is one of the two; the order of the two matters."""
    mine = own.public
    assert mine in (first, second)
    peer = second if mine == first else first
    info = tagged(label, first.name, second.name, first.key.hex(), second.key.hex())
    return HKDF(SHA256(), KEY_BYTES, salt=context, info=info).derive(own.exchanged(peer))


def boxed(own: OwnKey, reader: NamedKey, label: str, context: bytes, plaintext: bytes) -> bytes:
    """Return a box for one reader."""
    check(len(plaintext) <= BOX_BYTES_MAX, f"a box holds at most {BOX_BYTES_MAX} bytes")
    key = agreed_key(own, own.public, reader, label, context)
    return ChaCha20Poly1305(key).encrypt(NONCE, plaintext, None)


def opened(own: OwnKey, sender: NamedKey, label: str, context: bytes, box: bytes) -> bytes:
    """Return what is in a box. Raises RemoteError unless `sender` made it for this site and this context."""
    key = agreed_key(own, sender, own.public, label, context)
    try:
        return ChaCha20Poly1305(key).decrypt(NONCE, box, None)
    except InvalidTag as error:
        raise RemoteError(
            f"the box of site {sender.name} for site {own.name} does not open",
            cause="it was made for another run or another reader, or was changed on its way",
            next_step=f"telephone site {sender.name}: its agent and yours must see the same roster",
        ) from error
