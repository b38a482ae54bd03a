"""The roster of a run with secure sums (S0): what each site opens with, signed by a key that the others have pinned.

    opening   the site's X25519 key of this run, its number of images, H(rho), signed by the site's identity key
    rho       32 secret bytes of each site, in a box for every other site: all rho together weigh the tag of a sum

Rules
1. An opening counts only under a key that this site has pinned. The coordinator certifies keys, so without pins it
   could invent the sites among which a vector is to hide.
2. A roster has one opening of every site of the plan, never fewer.
3. What a vector is multiplied by follows from the roster alone. So the numbers of images are fixed before anybody
   trains, and are part of every context by the roster's digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fedcervix.core.plan import Average, check
from fedcervix.core.sum_plan import ISOLATION_FACTOR
from fedcervix.errors import RemoteError
from fedcervix.trust.boxes import NamedKey, OwnKey, boxed, opened
from fedcervix.trust.contexts import RunContext, check_digest
from fedcervix.trust.statements import SIGNATURE_BYTES_MAX, PrivateKey, PublicKey, digest_of, holds, sign

OPENING = "fedcervix sum opening 1"
RHO = "fedcervix sum rho 1"
RHO_BYTES = 32
IMAGES_MAX = 2**31

PinnedKeys = Mapping[str, PublicKey]
"""the identity keys by name, each checked against its pin (`fedcervix.trust.pins`); the site's own is among them"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a site says once at the beginning of a run."""

    site: str
    key: NamedKey
    images: int
    """n: constant for the run"""
    rho: str
    """SHA-256 of its 32 secret bytes"""
    signature: bytes = b""

    def __post_init__(self) -> None:
        check(1 <= self.images <= IMAGES_MAX, f"a site has 1 to 2^31 images; found {self.images}")
        check(self.key.name == self.site, "an opening holds the key of its own site")
        check(len(self.signature) <= SIGNATURE_BYTES_MAX, "a signature is too long")
        check_digest("the commitment to rho", self.rho)

    @property
    def texts(self) -> tuple[str, ...]:
        """What is hashed and signed of it."""
        return (self.site, self.key.key.hex(), str(self.images), self.rho)

    def digest(self, run: RunContext) -> str:
        """Return the SHA-256 of what is signed of it, for a run."""
        return digest_of(OPENING, *run.texts, *self.texts)


def signed_opening(identity: PrivateKey, run: RunContext, key: OwnKey, images: int, rho: bytes) -> Opening:
    """Return this site's opening. `rho`: 32 secret random bytes, new for every run."""
    check(len(rho) == RHO_BYTES, f"rho has {RHO_BYTES} bytes")
    bare = Opening(site=key.name, key=key.public, images=images, rho=hashlib.sha256(rho).hexdigest())
    signature = sign(identity, OPENING, *run.texts, *bare.texts)
    return Opening(site=bare.site, key=bare.key, images=images, rho=bare.rho, signature=signature)


@dataclass(frozen=True)
class SumRoster:
    """The openings of all sites of a plan, in its order. Made by `checked_roster`."""

    run: RunContext
    openings: tuple[Opening, ...]

    @cached_property
    def digest(self) -> str:
        """Names, keys, numbers of images and commitments to rho, as one SHA-256."""
        texts = (text for opening in self.openings for text in opening.texts)
        return digest_of("fedcervix sum roster 1", *self.run.texts, *texts)

    @property
    def names(self) -> tuple[str, ...]:
        """The sites, in the plan's order."""
        return tuple(opening.site for opening in self.openings)

    def of(self, site: str) -> Opening:
        """Return the opening of a site. Raises KeyError where it has none."""
        return {opening.site: opening for opening in self.openings}[site]

    def weights(self, average: Average) -> dict[str, int]:
        """Return what each site's step is multiplied by, as parts of the sum over all sites of the roster."""
        return {opening.site: opening.images if average == "by-images" else 1 for opening in self.openings}


def opening_fault(run: RunContext, opening: Opening, key: PublicKey) -> str:
    """Say what is wrong with an opening of a run; empty: the owner of the key has signed it."""
    signed = holds(key, opening.signature, OPENING, *run.texts, *opening.texts)
    return "" if signed else "its opening is not signed by its key for this run"


def checked_roster(run: RunContext, sites: Sequence[str], openings: Sequence[Opening], pins: PinnedKeys) -> SumRoster:
    """Return the roster. Raises RemoteError where it is not one of all sites, each under its pinned key."""
    by_site = {opening.site: opening for opening in openings}
    if len(by_site) != len(openings) or set(by_site) != set(sites):
        raise _refused(
            f"the roster has openings of {', '.join(sorted(by_site)) or 'no site'}; the plan names {', '.join(sites)}",
            cause="the coordinator left a site out, or put one in",
        )
    for opening in openings:
        if opening.site not in pins or opening_fault(run, opening, pins[opening.site]):
            raise _refused(
                f"the opening of site {opening.site} is not signed by the key that is pinned for it",
                cause="site and coordinator disagree on the run, or somebody else speaks for that site",
            )
    owners = {opening.key.key: opening.site for opening in openings}
    for opening in openings:
        if (owner := owners[opening.key.key]) != opening.site:
            raise _refused(f"sites {opening.site} and {owner} give the same run key", cause="one has copied the other")
    return SumRoster(run, tuple(by_site[site] for site in sites))


def _refused(what: str, *, cause: str) -> RemoteError:
    return RemoteError(what, cause=cause, next_step="telephone that site before the run begins again")


def outweighs(weights: Mapping[str, int], colluders: int) -> str:
    """Return a site that the others do not hide; empty: there is none.

    TRUST 5, H4: "for every k, a_k <= 4 times (the sum of the others' weights in U less the c largest)".
    """
    largest = sorted(weights.values(), reverse=True)
    total, hidden_by = sum(largest), colluders + 1
    for site, weight in sorted(weights.items()):
        place = largest.index(weight)
        most = sum(largest[:hidden_by]) if place < hidden_by else weight + sum(largest[:colluders])
        if weight > ISOLATION_FACTOR * (total - most):
            return site
    return ""


def rho_boxes(own: OwnKey, roster: SumRoster, rho: bytes) -> dict[str, bytes]:
    """Return this site's 32 secret bytes in a box for each other site."""
    context = roster.digest.encode()
    others = (opening.key for opening in roster.openings if opening.site != own.name)
    return {reader.name: boxed(own, reader, RHO, context, rho) for reader in others}


def opened_rho(own: OwnKey, roster: SumRoster, sender: str, box: bytes) -> bytes:
    """Return the 32 secret bytes of another site. Raises RemoteError unless they are those that it has opened with."""
    opening = roster.of(sender)
    rho = opened(own, opening.key, RHO, roster.digest.encode(), box)
    if hashlib.sha256(rho).hexdigest() != opening.rho:
        raise _refused(f"the secret bytes of site {sender} are not those that it committed to", cause="a faulty agent")
    return rho
