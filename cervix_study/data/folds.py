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
from collections.abc import Iterable, Mapping

from fedcervix.core.plan import check
from site_agent.manifest.reading import Split
from site_agent.manifest.splits import STRATA, Stratum, groups

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
