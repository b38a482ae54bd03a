"""Decisions with their signatures: who may speak, and whether they did.

A decision is signed with the key of the party that it names: the operator of a federation, or a site. Its certificate
is inside the signature. It counts as checked where the federation's authority issued the certificate, the certificate
names this very party, and it was valid at the moment that the decision names.

What this does not prove: the moment. Whoever holds a key that was valid once can write an earlier date.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from fedcervix.errors import FedcervixError, IdentityError
from fedcervix.lineage.decisions import ModelDecision
from fedcervix.transport import identity
from fedcervix.transport.identity import Certificate, Identity
from fedcervix.trust import detached_signatures

SPEAKERS = ("operator", "site")
"""roles that may decide"""


@dataclass(frozen=True, slots=True)
class SignedDecision:
    """A decision, and the detached signature over its text."""

    decision: ModelDecision
    signature: bytes
    """DER; empty: this home had no key when it was written"""

    def signer(self, authority_pem: bytes) -> Certificate:
        """Return the certificate of the party that said it. Raises IdentityError where it did not, or may not."""
        said = self.decision
        if not self.signature:
            raise _not_said(said, "it is not signed", "it was written in a home that had not joined a federation")
        try:
            pem = detached_signatures.signer(said.text.encode(), self.signature)
        except ValueError as error:
            raise _not_said(said, str(error), "one of its two files was changed, or belongs to another") from error
        found = _issued(said, pem, authority_pem)
        if found.identity.role not in SPEAKERS or found.identity.uri != said.said_by:
            raise _not_said(
                said,
                f"it is signed by {found.identity.title}, and names {said.said_by or 'nobody'}",
                "somebody has written a decision in the name of another",
            )
        if not found.not_before <= said.moment <= found.not_after:
            raise _not_said(
                said,
                f"it names {said.made_at}, when its signer's certificate was not valid",
                "the clock of that machine was wrong, or an old key was used again",
            )
        return found


def signed(decision: ModelDecision, key_pem: bytes, certificate_pem: bytes) -> SignedDecision:
    """Return a decision with the signature of the party that it names."""
    return SignedDecision(decision, detached_signatures.sign(decision.text.encode(), key_pem, certificate_pem))


def checked_speaker(key_pem: bytes, certificate_pem: bytes, now: datetime) -> Identity:
    """Return whom a certificate names. Raises IdentityError where what its key signs now would prove nothing."""
    found = identity.identify(certificate_pem)
    identity.check_validity(found, now)
    if not identity.matches(key_pem, certificate_pem):
        raise IdentityError(
            f"the key of {found.identity.title} does not belong to its certificate: nothing was signed",
            cause="both are just being renewed, or one of them was restored from a backup alone",
            next_step=f"give the command again in a minute; otherwise {found.identity.renewal}",
        )
    return found.identity


def _issued(said: ModelDecision, pem: bytes, authority_pem: bytes) -> Certificate:
    try:
        identity.check_issuer(pem, authority_pem)
        found = identity.identify(pem)
        if found.identity.federation != identity.identify(authority_pem).identity.federation:
            raise IdentityError("its certificate names another federation")
    except FedcervixError as error:
        raise _not_said(
            said,
            error.what,
            "it is a decision of another federation, or this federation has been set up again since then",
        ) from error
    return found


def _not_said(said: ModelDecision, why: str, cause: str) -> IdentityError:
    return IdentityError(
        f"the decision {said.name} is not proved: {why}",
        cause=cause,
        next_step="ask the people it comes from, on a number that you know, and have them send both files again "
        f"({said.name}.json and {said.name}.p7s)",
    )
