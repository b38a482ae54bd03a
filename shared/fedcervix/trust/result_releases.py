"""The result of a run under seal for who is no site, such as the operator: by the signed word of m of its sites.

    release     a site's signed word: this model of this run may go to who has this key, until then
    hand-over   one of the sites has m releases; it encrypts the model, and puts the key into a box for the recipient

This is authorisation, not cryptography: each site has the model, and a site that does not ask the others could give it
away. What the rules do is that honest sites give it only together, and that it can be shown who agreed.

Rules
1. All releases of a hand-over say the same but for the site, and are signed by keys that the giving site has pinned.
2. A site counts once, and only until the time that it has named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Self

from fedcervix.core.bounds import DIGEST
from fedcervix.core.events import RUN_NAME, SIGNATURE
from fedcervix.core.plan import SITE_NAME, check
from fedcervix.trust.boxes import NamedKey, OwnKey, boxed, opened
from fedcervix.trust.chain import INTEGER_MAX, read, text_of
from fedcervix.trust.sealed_models import Header
from fedcervix.trust.statements import PrivateKey, PublicKey, holds, sign

RELEASE = "fedcervix result release 1"
RESULT_KEY = "fedcervix result key 1"
SEALED_FILE, NOTE_FILE = "cervix-model.sealed", "hand-over.json"
"""what is in the folder of a hand-over"""
RECIPIENT = "recipient"
"""stands for the name of who gets the result, who is no site"""
_KEY = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ResultRelease:
    """A site's word. Raises ValueError where it cannot be one."""

    run: str
    model: str
    """digest"""
    recipient: str
    """X25519 key of who gets it, in hexadecimal"""
    until: int
    """Unix seconds"""
    site: str
    signature: str = ""

    def __post_init__(self) -> None:
        check(RUN_NAME.fullmatch(self.run) is not None, "not a run's name")
        check(DIGEST.fullmatch(self.model) is not None, "not a digest")
        check(SITE_NAME.fullmatch(self.site) is not None, "not a site's name")
        check(0 <= self.until <= INTEGER_MAX, "until is out of range")
        check(SIGNATURE.fullmatch(self.signature) is not None, "not a signature")
        recipient_key(self.recipient)

    @property
    def texts(self) -> tuple[str, ...]:
        """What is signed of it."""
        return (self.run, self.model, self.recipient, str(self.until), self.site)

    @property
    def what(self) -> tuple[str, str, str]:
        """Which model of which run, for whom."""
        return self.run, self.model, self.recipient

    @property
    def text(self) -> str:
        """It as a file."""
        return text_of(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Undo `text`. Raises ValueError."""
        values = read(text)
        check(values.keys() == {field.name for field in fields(cls)}, "it lacks a key, or has one too many")
        for name, value in values.items():
            check(type(value) is (int if name == "until" else str), f"{name} is of another kind")
        return cls(**values)  # type: ignore[arg-type]  # checked above


def recipient_key(text: str) -> NamedKey:
    """Return the key of who gets the result. Raises ValueError; RemoteError for a key that nobody has."""
    check(_KEY.fullmatch(text) is not None, "a recipient's key has 64 hexadecimal digits")
    return NamedKey(RECIPIENT, bytes.fromhex(text))


def released(identity: PrivateKey, bare: ResultRelease) -> ResultRelease:
    """Return a release with its site's signature."""
    return replace(bare, signature=sign(identity, RELEASE, *bare.texts).hex())


def release_faults(
    own: ResultRelease, others: Sequence[ResultRelease], keys: Mapping[str, PublicKey], at: float
) -> list[str]:
    """Return why releases do not count beside this site's own, in words. `keys`: of the sites, checked by pins."""
    found = []
    for one in others:
        key = keys.get(one.site)
        signed = key is not None and holds(key, bytes.fromhex(one.signature), RELEASE, *one.texts)
        if not signed:
            found.append(f"the release of {one.site} is not signed by its pinned key")
        elif one.what != own.what:
            found.append(f"the release of {one.site} is for another model, run or recipient")
        elif one.until < at:
            found.append(f"the release of {one.site} has expired")
    if len({own.site, *(one.site for one in others)}) <= len(others):
        found.append("a site is named twice")
    return found


def boxed_key(giver: OwnKey, recipient: str, header: Header, key: bytes) -> bytes:
    """Return the key of the encrypted result in a box. `giver`: a key pair for this hand-over alone."""
    return boxed(giver, recipient_key(recipient), RESULT_KEY, header.hash.encode(), key)


def opened_result_key(own: OwnKey, giver: NamedKey, header: Header, box: bytes) -> bytes:
    """Return the key of the encrypted result. Raises RemoteError where the box is for somebody else."""
    return opened(own, giver, RESULT_KEY, header.hash.encode(), box)
