"""The head of a ledger: where it ended with a round, signed by the coordinator, and countersigned by the sites.

Rules
1. The coordinator signs one head for each round, with a key that only signs heads. Two signed heads of one run that
   differ, and have the same round or the same number of entries, prove that it keeps two ledgers (`conflict`).
2. A site countersigns a head once it has checked all entries up to it.
3. No site begins round r + 1 before the head of round r - 1 has more than (K + c) / 2 countersignatures (`may_begin`).
   K: sites of the plan; c: of them, those that may collude with the coordinator. Two groups of sites that are shown
   different ledgers cannot both have so many: together they have K - c honest sites, and each has the c others too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from fedcervix.core.plan import check
from fedcervix.trust.chain import INTEGER_MAX, NOTHING, End, read, text_of
from fedcervix.trust.signatures import SIGNATURE_BYTES_MAX, PublicKey, holds, sign

HEAD = "fedcervix head 1"
COUNTERSIGNATURE = "fedcervix countersignature 1"


@dataclass(frozen=True, slots=True)
class Head:
    """What is signed: the ledger of `run` had so many entries when `round` was over. 0: before the first one."""

    run: str
    round: int
    end: End

    def __post_init__(self) -> None:
        check(0 <= self.round <= INTEGER_MAX and 0 < self.end.entries <= INTEGER_MAX, "a number is out of range")
        check(len(self.end.hash) == len(NOTHING), "it holds no hash")

    @property
    def text(self) -> str:
        """The text that is signed."""
        return text_of(
            {"entries": self.end.entries, "hash": self.end.hash, "round": self.round, "run": self.run},
        )

    @classmethod
    def parse(cls, text: str) -> Head:
        """Return the head that a text stands for. Raises ValueError."""
        values = read(text)
        run, round_, entries, hash_ = (values.get(name) for name in ("run", "round", "entries", "hash"))
        check(isinstance(run, str) and isinstance(hash_, str), "a text is missing in the head")
        check(type(round_) is int and type(entries) is int, "a number is missing in the head")
        head = cls(run, round_, End(entries, hash_))  # type: ignore[arg-type]  # checked above
        check(head.text == text, "it is no head")
        return head


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A head, with the coordinator's signature (DER)."""

    head: Head
    signature: bytes

    def __post_init__(self) -> None:
        check(0 < len(self.signature) <= SIGNATURE_BYTES_MAX, "it holds no signature")

    def holds(self, key: PublicKey) -> bool:
        """Say whether the owner of a ledger key has signed it."""
        return holds(key, self.signature, HEAD, self.head.text)


def sign_head(key_pem: bytes, head: Head) -> SignedHead:
    """Sign a head with the coordinator's ledger key (PEM)."""
    return SignedHead(head, sign(key_pem, HEAD, head.text))


def countersign(key_pem: bytes, site: str, head: Head) -> bytes:
    """Return the signature (DER) of a site, by its key (PEM), over a head that it has checked."""
    return sign(key_pem, COUNTERSIGNATURE, site, head.text)


def is_countersigned(key: PublicKey, signature: bytes, site: str, head: Head) -> bool:
    """Say whether a countersignature is by the owner of a site's key."""
    return holds(key, signature, COUNTERSIGNATURE, site, head.text)


def conflict(one: SignedHead, other: SignedHead, key: PublicKey) -> bool:
    """Say whether two heads prove that the owner of a ledger key keeps two ledgers of one run."""
    mine, others = one.head, other.head
    same = mine.round == others.round or mine.end.entries == others.end.entries
    return mine.run == others.run and same and mine != others and one.holds(key) and other.holds(key)


def may_begin(
    round_: int, countersigned: Mapping[int, Collection[str]], sites: Collection[str], colluders: int
) -> bool:
    """Say whether a site may begin a round, by rule 3.

    `countersigned`: by round, the sites whose countersignature over the head of that round was checked against a pinned
    key. `sites`: those of the plan. `colluders`: c.
    """
    if round_ < 2:
        return True
    signed = set(countersigned.get(round_ - 2, ())) & set(sites)
    return 2 * len(signed) > len(sites) + colluders
