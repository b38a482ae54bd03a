"""Section III-A and Table I: how the women of both institutions were divided, and what each part is used for."""

import csv
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedcervix.errors import DataError
from site_agent.data.collection import Collection, index
from site_agent.data.dataset import joined
from site_agent.data.image_sets import Images
from site_agent.manifest.reading import SPLITS
from site_agent.manifest.splits import SHARES, Stratum, assign
from site_agent.phantom import INSTITUTIONS

# women in train, validation and test, as printed
TABLE_ONE = {
    "NHS": {"case": (91, 22, 25), "control": (181, 45, 50)},
    "ALTS": {"case": (124, 31, 34), "control": (242, 60, 65)},
}
# labelled images in train, validation and test, as printed
LABELLED_IMAGES = {
    "NHS": {"case": (182, 44, 49), "control": (361, 90, 99)},
    "ALTS": {"case": (248, 62, 68), "control": (481, 120, 130)},
}
# all images in train and validation, as printed; the test split has no such number
ALL_IMAGES = {"NHS": (2029, 520), "ALTS": (3145, 791)}
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


def test_our_shares_are_those_of_the_table() -> None:
    """Table I, both institutions and classes together: 638 women of 970 train, 158 validate, 174 test.

    Women without a label: 4 to 1, as all images are (5174 to 1311).
    """
    women = [
        sum(TABLE_ONE[name][kind][k] for name in TABLE_ONE for kind in ("case", "control")) for k in range(len(SPLITS))
    ]
    assert women == [638, 158, 174]
    for kind in ("case", "control"):
        assert [SHARES[kind][split] for split in SPLITS] == [Fraction(count, 970) for count in women]
    train, valid = (sum(ALL_IMAGES[name][k] for name in ALL_IMAGES) for k in (0, 1))
    assert (train, valid) == (5174, 1311)
    assert float(SHARES["unlabelled"]["train"]) == pytest.approx(train / (train + valid), abs=0.005)


@pytest.mark.parametrize("name", ["NHS", "ALTS"])
def test_a_woman_has_two_labelled_images(name: str) -> None:
    """III-A: "in every visit, two images of the acetic acid applied cervix are captured"; at most 3 are missing."""
    for kind, women in TABLE_ONE[name].items():
        for split in range(len(SPLITS)):
            assert 0 <= 2 * women[split] - LABELLED_IMAGES[name][kind][split] <= 3


@pytest.mark.parametrize("name", ["NHS", "ALTS"])
def test_the_phantoms_have_the_tables_proportions(name: str) -> None:
    """Table I: NHS 414 labelled women, 138 of them cases; 2549 - 677 unlabelled images. ALTS 556, 189; 3936 - 911."""
    phantom = INSTITUTIONS[name.lower()]
    assert phantom.case_women == sum(TABLE_ONE[name]["case"])
    assert phantom.labelled_women == sum(sum(women) for women in TABLE_ONE[name].values())
    labelled = sum(sum(images[:2]) for images in LABELLED_IMAGES[name].values())
    assert phantom.unlabelled_images == sum(ALL_IMAGES[name]) - labelled


# What each part is used for


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    """Two images of each of 12 women: 4 cases, 4 controls, 4 without a label."""
    rows = [("image", "patient", "label")]
    rng = np.random.default_rng(0)
    for k in range(24):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / f"{k}.png")
        rows.append((f"{k}.png", f"woman {k // 2}", ("1", "0", "")[k // 2 % 3]))
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return index(tmp_path / "manifest.csv")


def test_both_images_of_a_woman_are_in_one_split(collection: Collection) -> None:
    """III-A: "we split both NHS and ALTS datasets at the woman level into three disjoint subsets"."""
    splits: dict[str, set[str]] = {}
    for image in collection.images:
        splits.setdefault(image.woman, set()).add(image.split)
    assert len(splits) == 12
    assert all(len(found) == 1 for found in splits.values())
    assert set().union(*splits.values()) == set(SPLITS)


def test_contrastive_learning_takes_all_images_of_its_women_labelled_or_not(collection: Collection) -> None:
    """I: "As the SSL does not require any label, it allows us to include all available images"."""
    for split in ("train", "valid"):
        taken = collection.contrastive(split)
        assert taken == tuple(image for image in collection.images if image.split == split)
        assert {image.label for image in taken} >= {None}
        assert {image.label for image in collection.labelled(split)} <= {0, 1}


def test_test_images_take_no_part_in_contrastive_learning(collection: Collection) -> None:
    """III-A: "the test images are used for classification performance evaluation"; Table I: test has no "all" ("-")."""
    with pytest.raises(ValueError, match="test women take no part"):
        collection.contrastive("test")  # type: ignore[arg-type]
    assert all(image.label is not None for image in collection.images if image.split == "test")


def test_an_image_is_case_or_control_or_unlabelled(tmp_path: Path) -> None:
    """III-A: images are labelled "as case (disease) or control (non-disease)", or not at all."""
    (tmp_path / "manifest.csv").write_text("image,patient,label\na.png,a,2\n")
    with pytest.raises(DataError, match="label"):
        index(tmp_path / "manifest.csv")


def test_cssl_pools_the_images_of_all_institutions() -> None:
    """III-C: "All images from both datasets are combined to train the SSL"."""
    nhs = Images(np.full((2, 32, 32, 3), 1, np.uint8), ("a", "b"))
    alts = Images(np.full((1, 32, 32, 3), 2, np.uint8), ("c",))
    pooled = joined([nhs, alts])
    assert pooled.patients == ("a", "b", "c")
    assert [int(pooled.pixels[np.array([k])].max()) for k in range(3)] == [1, 1, 2]
