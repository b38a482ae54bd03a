"""Cross-validation by woman: every labelled woman is tested in exactly one fold.

Rules
1. The women of all sites are dealt to as many parts as there are folds, stratum by stratum and site by site, so that
   every part holds a site's cases, controls and unlabelled women in equal shares, to within one group.
2. Patients who are linked (one picture under two identifiers, or one woman at two sites) go to one part.
3. In fold f, part f is tested, the next part validates, the others train. Women without any label never test: those of
   part f train.

Pure: values in, values out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from fedcervix.core.plan import check
from fedcervix.core.seeds import derive
from site_agent.manifest.reading import Split
from site_agent.manifest.splits import STRATA, Stratum, groups

VALIDATES_ONE_IN = 4
"""of the women who are not tested, where devices are left out"""

Patient = tuple[str, str]
"""(site, patient)"""
Fold = int | None
"""from 0; None: the one division of the women, without cross-validation"""


def deal(
    strata: Mapping[Patient, Stratum], links: Iterable[tuple[Patient, Patient]], folds: int, seed: int
) -> dict[Patient, int]:
    """Return the part of every patient, 0 to folds - 1. It depends on no order."""
    check(folds >= 1, f"folds is 1 or more; found {folds}")
    dealt: Counter[tuple[str, Stratum]] = Counter()
    parts: dict[Patient, int] = {}
    for group in sorted(groups(strata, links), key=lambda members: (-len(members), _order(seed, members[0]))):
        pile = (group[0][0], _gravest(strata[patient] for patient in group))
        for patient in group:
            parts[patient] = dealt[pile] % folds
        dealt[pile] += 1
    return parts


def deals(
    strata: Mapping[Patient, Stratum], links: Iterable[tuple[Patient, Patient]], folds: int, repeats: int, seed: int
) -> Iterator[tuple[int, dict[Patient, Split]]]:
    """Yield the number of every fold of every repeat, from 0, and what each patient does in it (rules 3 and 4)."""
    known = list(links)
    for repeat in range(repeats):
        parts = deal(strata, known, folds, derive(seed, "study-fold-repeat", repeat) if repeat else seed)
        for fold in range(folds):
            yield repeat * folds + fold, {who: split_in(part, strata[who], fold, folds) for who, part in parts.items()}


def leave_out(
    devices: Mapping[Patient, str],
    strata: Mapping[Patient, Stratum],
    links: Sequence[tuple[Patient, Patient]],
    left_out: Sequence[str],
    seed: int,
) -> Iterator[tuple[int, dict[Patient, Split]]]:
    """Yield the number of every device, from 0, and what each patient does while it is left out (rule 5).

    Patients who are linked have one device, where one of theirs is left out.
    """
    for fold, device in enumerate(left_out):
        others = {who: stratum for who, stratum in strata.items() if devices[who] != device}
        kept = [link for link in links if set(link) <= others.keys()]
        parts = deal(others, kept, VALIDATES_ONE_IN, seed)
        splits: dict[Patient, Split] = dict.fromkeys(strata, "test")
        splits |= {who: "valid" if part == 0 else "train" for who, part in parts.items()}
        yield fold, splits


def split_in(part: int, stratum: Stratum, fold: int, folds: int) -> Split:
    """Return what the women of a part do in a fold (rule 3)."""
    if part == fold:
        return "train" if stratum == "unlabelled" else "test"
    return "valid" if part == (fold + 1) % folds else "train"


def _gravest(found: Iterable[Stratum]) -> Stratum:
    there = set(found)
    return next(stratum for stratum in STRATA if stratum in there)


def _order(seed: int, patient: Patient) -> bytes:
    return hashlib.sha256("\x1f".join((str(seed), "folds", *patient)).encode()).digest()
