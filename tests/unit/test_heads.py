"""Signed heads: two of one place are proof, and the rule of countersignatures stops a coordinator with two ledgers."""

from __future__ import annotations

import itertools

import pytest

from fedcervix.transport import identity
from fedcervix.trust.chain import NOTHING, End
from fedcervix.trust.heads import Head, conflict, countersign, is_countersigned, may_begin, sign_head
from fedcervix.trust.key_texts import private_key, public_key, public_pem
from fedcervix.trust.statements import holds

KEY, OTHER = private_key(identity.new_key()), private_key(identity.new_key())
PUBLIC = KEY.public_key()
HEAD = Head("run-1", 3, End(17, "a" * 64))


def test_a_head_is_signed_and_read_back() -> None:
    signed = sign_head(KEY, HEAD)
    assert signed.holds(PUBLIC)
    assert not signed.holds(OTHER.public_key())
    assert Head.parse(HEAD.text) == HEAD
    assert sign_head(KEY, HEAD) == signed, "signing twice gives the same bytes"


def test_a_signature_of_one_kind_is_none_of_another() -> None:
    signature = countersign(KEY, "nhs", HEAD)
    assert is_countersigned(PUBLIC, signature, "nhs", HEAD)
    assert not is_countersigned(PUBLIC, signature, "alts", HEAD)
    assert not holds(PUBLIC, signature, "fedcervix head 1", HEAD.text)
    assert not holds(PUBLIC, b"no signature", "fedcervix head 1", HEAD.text)


@pytest.mark.parametrize("text", ["{}", '{"entries":"17","hash":"a","round":3,"run":"run-1"}', "", "[]"])
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Head.parse(text)


def test_two_heads_of_one_place_are_proof() -> None:
    one = sign_head(KEY, HEAD)
    same_place = sign_head(KEY, Head("run-1", 4, End(17, "b" * 64)))
    same_round = sign_head(KEY, Head("run-1", 3, End(18, "b" * 64)))
    assert conflict(one, same_place, PUBLIC)
    assert conflict(one, same_round, PUBLIC)
    assert not conflict(one, one, PUBLIC)
    assert not conflict(one, sign_head(KEY, Head("run-1", 4, End(18, "b" * 64))), PUBLIC)
    assert not conflict(one, sign_head(KEY, Head("run-2", 3, End(17, "b" * 64))), PUBLIC)
    assert not conflict(one, sign_head(OTHER, Head("run-1", 3, End(17, "b" * 64))), PUBLIC), "anyone could write that"


def test_a_public_key_is_kept_as_text() -> None:
    text = public_pem(PUBLIC)
    assert public_key(text) == PUBLIC
    with pytest.raises(ValueError):
        public_key(text.replace("A", "B", 3))
    with pytest.raises(ValueError):
        public_key(identity.new_key().decode())


def test_keys_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError):
        private_key(b"no key")


def test_signatures_are_those_of_rfc_6979() -> None:
    """RFC 6979, A.2.5: P-256 with SHA-256, message "sample"; here by way of the primitive that `sign` uses."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    private = ec.derive_private_key(0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721, ec.SECP256R1())
    signature = private.sign(b"sample", ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    assert decode_dss_signature(signature) == (
        0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
        0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
    )


# --- the countersignature rule, against a coordinator that keeps two ledgers ----------------------------------------


class Site:
    """An honest site: it begins a round by the rule, and countersigns the head of the round that is over."""

    def __init__(self) -> None:
        self.begun = 0

    def begin(self, round_: int, countersigned: dict[int, set[str]], sites: list[str], colluders: int) -> None:
        if self.begun == round_ - 1 and may_begin(round_, countersigned, sites, colluders):
            self.begun = round_


def rounds_begun(sites: list[str], groups: list[set[str]], colluding: set[str], fork: int, rounds: int) -> list[int]:
    """Return how many rounds the honest sites of each group begin. The ledgers differ from the head of `fork` on.

    The coordinator shows each group the countersignatures that it has: of the group, and of those that collude. Before
    the fork, all sign the same heads.
    """
    honest = {site: Site() for site in sites if site not in colluding}
    shown: list[dict[int, set[str]]] = [{} for _ in groups]
    for round_ in range(1, rounds + 1):
        for mine, group in zip(shown, groups, strict=True):
            for site in group - colluding:
                honest[site].begin(round_, mine, sites, len(colluding))
        for mine, group in zip(shown, groups, strict=True):
            signers = group if round_ - 1 >= fork else set(sites)
            began = {site for site in signers if site in colluding or honest[site].begun == round_}
            mine[round_ - 1] = began | colluding
    return [min((honest[site].begun for site in group - colluding), default=0) for group in groups]


def splits(sites: list[str], colluding: set[str]) -> list[list[set[str]]]:
    honest = [site for site in sites if site not in colluding]
    return [
        [set(one) | colluding, set(honest) - set(one) | colluding]
        for size in range(1, len(honest))
        for one in itertools.combinations(honest, size)
    ]


@pytest.mark.parametrize(("count", "most"), [(3, 1), (5, 2), (8, 3)])
def test_a_coordinator_that_keeps_two_ledgers_is_stopped_within_two_rounds(count: int, most: int) -> None:
    """TRUST.md section 10, line 3: whoever colludes, and however the honest sites are split."""
    sites = [f"site-{number}" for number in range(count)]
    for colluders in range(most + 1):
        colluding = set(sites[:colluders])
        for groups in splits(sites, colluding):
            for fork in (0, 3):
                begun = rounds_begun(sites, groups, colluding, fork, rounds=12)
                assert min(begun) <= fork + 1, (groups, fork, begun)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_one_ledger_goes_on(count: int) -> None:
    sites = [f"site-{number}" for number in range(count)]
    assert rounds_begun(sites, [set(sites)], set(), 0, rounds=12) == [12]


def test_the_numbers_of_the_design() -> None:
    """K = 3: 2 at c = 0, 3 at c = 1. The first head that is needed is the one before round 1."""
    three = ["a", "b", "c"]
    assert may_begin(1, {}, three, 0)
    assert not may_begin(2, {}, three, 0)
    assert may_begin(2, {0: ["a", "b"]}, three, 0)
    assert not may_begin(2, {0: ["a", "b"]}, three, 1)
    assert may_begin(2, {0: three}, three, 1)
    assert not may_begin(2, {0: ["a", "x", "y"]}, three, 0), "only sites of the plan count"
    assert not may_begin(5, {2: three, 4: three}, three, 0)


def test_a_head_has_entries() -> None:
    with pytest.raises(ValueError):
        Head("run-1", 0, End(0, NOTHING))
