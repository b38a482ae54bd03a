"""Table I: how the women of both institutions were divided."""

from collections import Counter

import pytest

from fedcervix.manifest import SPLITS
from fedcervix.splits import Stratum, assign

# women in train, validation and test, as printed
TABLE_ONE = {
    "NHS": {"case": (91, 22, 25), "control": (181, 45, 50)},
    "ALTS": {"case": (124, 31, 34), "control": (242, 60, 65)},
}
UNLABELLED_WOMEN = {"NHS": 700, "ALTS": 1100}


def institution(name: str) -> dict[str, Stratum]:
    patients: dict[str, Stratum] = {}
    for stratum in ("case", "control"):
        patients |= {f"{stratum}-{k}": stratum for k in range(sum(TABLE_ONE[name][stratum]))}
    return patients | {f"unlabelled-{k}": "unlabelled" for k in range(UNLABELLED_WOMEN[name])}


@pytest.mark.parametrize("name", ["NHS", "ALTS"])
@pytest.mark.parametrize("stratum", ["case", "control"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_labelled_women_are_divided_as_in_table_one(name: str, stratum: str, seed: int) -> None:
    """Table I, rows case and control: 91 / 22 / 25 cases and 181 / 45 / 50 controls of NHS, and ALTS likewise."""
    assigned = assign(institution(name), [], {}, seed)
    counts = Counter(split for patient, split in assigned.items() if patient.startswith(f"{stratum}-"))
    for split, printed in zip(SPLITS, TABLE_ONE[name][stratum], strict=True):
        assert abs(counts[split] - printed) <= 1, (split, counts[split], printed)


@pytest.mark.parametrize("name", ["NHS", "ALTS"])
def test_unlabelled_women_train_and_validate_and_are_never_in_test(name: str) -> None:
    """Table I, column "all images": train and valid hold unlabelled images (about 4 to 1), test has none ("-")."""
    assigned = assign(institution(name), [], {}, 0)
    counts = Counter(split for patient, split in assigned.items() if patient.startswith("unlabelled-"))
    assert counts == {"train": UNLABELLED_WOMEN[name] * 4 // 5, "valid": UNLABELLED_WOMEN[name] // 5}


def test_every_woman_is_in_exactly_one_split() -> None:
    """Table I is at the level of the woman: a division of patients, so none is missing and none is in two."""
    patients = institution("NHS")
    assert sorted(assign(patients, [], {}, 0)) == sorted(patients)
