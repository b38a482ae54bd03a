"""Recognises one woman at two sites, and checks that no woman is in two splits.

One picture at two sites is one woman, as within a site (`site_agent.data.duplicates`). Identifiers are each site's own,
unless the study says that they are shared.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cervix_study.data.folds import Patient
from fedcervix.core.grouped import grouped
from fedcervix.errors import DataError
from site_agent.data.collection import Collection, Image
from site_agent.data.duplicates import ALIKE_FROM, likenesses
from site_agent.manifest.identifiers import written_alike
from site_agent.manifest.reading import Split, at_most
from site_agent.manifest.splits import MOST_PROTECTED_FIRST, groups

Link = tuple[Patient, Patient]


@dataclass(frozen=True, slots=True)
class SiteImage:
    """One image of one site, and its thumbnail."""

    site: str
    image: Image
    thumbnail: bytes

    @property
    def patient(self) -> Patient:
        """Whose it is."""
        return self.site, self.image.patient

    @property
    def owner(self) -> str:
        """The woman, named apart from those of other sites."""
        return f"{self.site}\x1f{self.image.woman}"


def shared_pictures(seen: Sequence[SiteImage]) -> list[Link]:
    """Return pairs of patients of two sites who share a picture, to the pixel or nearly."""
    # A picture that shows nothing, and so has no thumbnail, is a picture of nobody.
    by_digest = grouped((one.image.digest, one.patient) for one in seen if one.thumbnail)
    links = {pair for same in by_digest.values() for pair in itertools.pairwise(same)}
    alike = likenesses([one.thumbnail for one in seen], [one.owner for one in seen], ALIKE_FROM)
    links |= {(seen[i].patient, seen[j].patient) for i, j, _ in alike}
    return sorted((one, other) for one, other in links if one[0] != other[0])


def shared_names(collections: Mapping[str, Collection]) -> list[Link]:
    """Return the patients that several sites know under one identifier, in whatever way each of them writes it."""
    patients = {(site, image.patient) for site, collection in collections.items() for image in collection.images}
    spellings = {one: names[0] for names in written_alike(patient for _, patient in patients) for one in names}
    known = grouped((spellings.get(patient, patient), (site, patient)) for site, patient in sorted(patients))
    pairs = (pair for _, same in sorted(known.items()) for pair in itertools.pairwise(same))
    return [(one, other) for one, other in pairs if one[0] != other[0]]


def together(splits: Mapping[Patient, Split], links: Sequence[Link]) -> dict[Patient, Split]:
    """Return the splits with linked patients in the most protected of theirs: test, then valid, then train."""
    result = dict(splits)
    for group in groups(splits, links):
        theirs = {splits[patient] for patient in group}
        protected = next(split for split in MOST_PROTECTED_FIRST if split in theirs)
        result |= dict.fromkeys(group, protected)
    return result


def check_apart(collections: Mapping[str, Collection], links: Sequence[Link]) -> None:
    """Raise DataError where one woman is in two splits, at one site or at two."""
    images = [(site, image) for site, collection in collections.items() for image in collection.images]
    by_name = grouped(((site, name), image.split) for site, image in images for name in (image.patient, image.woman))
    splits = {who: set(found) for who, found in by_name.items()}
    crossing = [f"{_named(who)} ({_listed(found)})" for who, found in sorted(splits.items()) if len(found) > 1]
    crossing += [
        f"{_named(one)} ({_listed(splits[one])}) and {_named(other)} ({_listed(splits[other])})"
        for one, other in links
        if splits[one] != splits[other]
    ]
    if crossing:
        raise DataError(
            f"women in two splits: {'; '.join(at_most(crossing))}",
            cause="the splits in the manifests were drawn at each site alone, or by image",
            next_step="give these patients one split, or empty column split in all manifests: "
            "fedcervix then draws the splits by woman",
        )


def _named(who: Patient) -> str:
    return f"{who[1]} of {who[0]}"


def _listed(found: set[Split]) -> str:
    return ", ".join(sorted(found))
