"""A round of secure sums from run keys to the model: keys, commitments, list and releases with real vectors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fedcervix.errors import RemoteError
from fedcervix.models.aggregate import aggregate
from fedcervix.models.secure_averages import Summed, derive
from fedcervix.models.secure_sums import check_sum, mask, open_sum, release
from fedcervix.models.secure_updates import quantise
from fedcervix.models.secure_vectors import vector_form
from fedcervix.models.weights import read_layout, read_tensors, write_tensors
from fedcervix.trust.boxes import OwnKey
from fedcervix.trust.contexts import RoundContext, RunContext
from fedcervix.trust.fixed_point import Share
from fedcervix.trust.sum_lists import SumList, released_fault, signed_release
from fedcervix.trust.sum_reports import SumReport, commit_nonce, commitment
from fedcervix.trust.sum_roster import checked_roster, opened_rho, rho_boxes, signed_opening
from fedcervix.trust.sum_secrets import attempt_tag, holder_secrets, site_secrets

NAMES = ("a", "b", "c", "d")
HOLDERS = ("a", "b")
IMAGES = {"a": 300, "b": 250, "c": 410, "d": 333}
RUN = RunContext(federation="f", run="r", plan="0" * 64)
IDENTITIES = {name: ec.generate_private_key(ec.SECP256R1()) for name in NAMES}
PINS = {name: key.public_key() for name, key in IDENTITIES.items()}


@dataclass
class Federation:
    folder: Path
    keys: dict[str, OwnKey] = field(default_factory=dict)
    reports: dict[str, SumReport] = field(default_factory=dict)

    def __post_init__(self) -> None:
        chance = np.random.default_rng(5)
        base = {"w": chance.normal(size=(40, 30)).astype(np.float32), "bn.running_mean": np.zeros(7, np.float32)}
        write_tensors(self.at("base"), base)
        for name in NAMES:
            moved = {key: value + chance.normal(size=value.shape) / 50 for key, value in base.items()}
            write_tensors(self.at(f"update-{name}"), {key: value.astype(np.float32) for key, value in moved.items()})
        self.layout = read_layout(self.at("base"))
        self.keys = {name: OwnKey(name, hashlib.sha256(name.encode()).digest()) for name in NAMES}
        self.rhos = {name: hashlib.sha256(b"rho" + name.encode()).digest() for name in NAMES}
        openings = [signed_opening(IDENTITIES[n], RUN, self.keys[n], IMAGES[n], self.rhos[n]) for n in NAMES]
        self.roster = checked_roster(RUN, NAMES, openings, PINS)
        self.context = RoundContext(
            run=RUN,
            sites=len(NAMES),
            colluders=1,
            roster=self.roster.digest,
            round=1,
            base=hashlib.sha256(self.at("base").read_bytes()).hexdigest(),
            head="1" * 64,
            layout=vector_form(self.layout).digest,
            width=32,
            holders=HOLDERS,
        )

    def at(self, name: str) -> Path:
        return self.folder / name

    def rhos_at(self, site: str) -> dict[str, bytes]:
        """What a site knows of the others' secret bytes, by their boxes."""
        boxes = {other: rho_boxes(self.keys[other], self.roster, self.rhos[other]) for other in NAMES if other != site}
        opened = {other: opened_rho(self.keys[site], self.roster, other, box[site]) for other, box in boxes.items()}
        return {**opened, site: self.rhos[site]}

    def share(self, *sites: str) -> Share:
        weights = self.roster.weights("by-images")
        return Share(sum(weights[site] for site in sites), sum(weights.values()))

    def upload(self, site: str) -> None:
        tag = attempt_tag(self.roster, self.context, self.rhos_at(site))
        update, q, y = (self.at(f"{part}-{site}") for part in ("update", "q", "y"))
        nonce = commit_nonce(self.keys[site].secret, self.context, hashlib.sha256(update.read_bytes()).hexdigest())
        share, hasher = self.share(site), commitment(nonce)
        commit = quantise(update, self.at("base"), q, share, "mean", tag, hasher, round_=1).digest
        assert commit == hashlib.sha256(nonce + q.read_bytes()).hexdigest()
        digest = mask(q, y, self.layout, site_secrets(self.keys[site], self.roster, self.context, commit))
        report = SumReport(site=site, commit=commit, upload=digest, steps=10, norm=0.5, loss=1.0)
        self.reports[site] = report.signed(IDENTITIES[site], self.context)

    def listed(self, *sites: str) -> SumList:
        return SumList(self.context.digest, tuple(self.reports[site] for site in sites))

    def released(self, listed: SumList) -> list[Path]:
        signed = []
        for holder in HOLDERS:
            secrets = holder_secrets(self.keys[holder], self.roster, self.context, listed)
            digest = release(self.at(f"release-{holder}"), self.layout, secrets)
            signed.append(signed_release(IDENTITIES[holder], holder, self.context, listed, digest))
        assert released_fault(self.context, listed, signed, PINS) == ""
        return [self.at(f"release-{holder}") for holder in HOLDERS]


@pytest.fixture
def federation(tmp_path) -> Federation:
    made = Federation(tmp_path)
    for site in NAMES:
        made.upload(site)
    return made


@pytest.mark.parametrize("sites", [NAMES, ("a", "b", "d"), ("b", "c", "d")])
def test_a_round_gives_the_average_of_the_sites_in_its_list(federation: Federation, sites: tuple[str, ...]) -> None:
    """Holder a may be missing from the list: its masks are released all the same."""
    base, total = federation.at("base"), federation.at("sum")
    releases = federation.released(federation.listed(*sites))
    open_sum([federation.at(f"y-{site}") for site in sites], releases, total, federation.layout)
    made = set()
    for site in NAMES:  # each checks and derives by itself, the one that is missing too
        check_sum(total, base, len(sites), attempt_tag(federation.roster, federation.context, federation.rhos_at(site)))
        of = Summed(federation.share(*sites), len(sites))
        made.add(derive(total, base, federation.at("model"), of, "mean", round_=1))
    assert len(made) == 1
    updates = [(federation.at(f"update-{site}"), float(IMAGES[site])) for site in sites]
    aggregate(updates, federation.layout, federation.at("plain"), "mean")
    ours, plain = read_tensors(federation.at("model")), read_tensors(federation.at("plain"))
    for name, value in plain.items():
        np.testing.assert_allclose(ours[name], value, atol=1e-6)


def test_masks_for_another_list_open_nothing(federation: Federation) -> None:
    releases = federation.released(federation.listed("a", "b", "c"))
    masked = [federation.at(f"y-{site}") for site in ("a", "b", "d")]
    with pytest.raises(RemoteError, match="masks of this round do not cancel"):
        open_sum(masked, releases, federation.at("sum"), federation.layout)


def test_the_masks_of_one_holder_alone_open_nothing(federation: Federation) -> None:
    releases = federation.released(federation.listed(*NAMES))
    masked = [federation.at(f"y-{site}") for site in NAMES]
    with pytest.raises(RemoteError, match="masks of this round do not cancel"):
        open_sum(masked, releases[:1], federation.at("sum"), federation.layout)


def test_another_attempt_has_other_masks_and_another_tag(federation: Federation) -> None:
    later = federation.context.after_close(("b", "c"))
    commit = federation.reports["d"].commit
    now, then = (
        site_secrets(federation.keys["d"], federation.roster, context, commit)
        for context in (federation.context, later)
    )
    assert not {secret.secret for secret in now} & {secret.secret for secret in then}
    tags = {attempt_tag(federation.roster, context, federation.rhos) for context in (federation.context, later)}
    assert len({tag.context for tag in tags}) == 2


def test_a_tag_needs_the_secret_bytes_of_all_sites(federation: Federation) -> None:
    with pytest.raises(KeyError):
        attempt_tag(federation.roster, federation.context, {"a": bytes(32)})
