"""The real image collections, where they are at hand: what a hospital's folder really holds."""

import os
from pathlib import Path

import pytest

from site_agent.data.collection import Collection, IndexSettings, index, require
from site_agent.data.duplicates import near_duplicates
from site_agent.images.decode import decode
from site_agent.images.thumbnails import thumbnail
from site_agent.manifest.reading import SPLITS
from tests.unit.scenes import field

FOLDER = Path(os.environ.get("FEDCERVIX_REAL_DATA", Path(__file__).parents[3] / "shared" / "data" / "cervix"))

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not (FOLDER / "via" / "manifest.csv").exists(), reason=f"no image collections at {FOLDER}"),
]


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Collection]:
    cache = tmp_path_factory.mktemp("cache")
    return {
        name: index(FOLDER / name / "manifest.csv", IndexSettings(cache_folder=cache))
        for name in ("via", "colpo", "annocerv")
    }


def pairs(collection: Collection) -> set[tuple[str, ...]]:
    return {shared.patients for shared in collection.shared_pictures}


@pytest.mark.parametrize(("name", "rows", "copies"), [("via", 329, 0), ("colpo", 737, 4), ("annocerv", 250, 17)])
def test_every_image_is_readable_and_counted_once(
    collections: dict[str, Collection], name: str, rows: int, copies: int
) -> None:
    collection = collections[name]
    assert (collection.rows, len(collection.copies), collection.quarantined) == (rows, copies, ())


def test_women_under_two_identifiers_are_found(collections: dict[str, Collection]) -> None:
    assert pairs(collections["via"]) == set()
    assert pairs(collections["annocerv"]) == {
        ("annocerv-001", "annocerv-023"),
        ("annocerv-016", "annocerv-026"),
        ("annocerv-021", "annocerv-028"),
        ("annocerv-055", "annocerv-087"),
        ("annocerv-098", "annocerv-100"),
    }
    assert all(shared.identical for shared in collections["annocerv"].shared_pictures)


def test_a_woman_whose_photographs_were_saved_twice_with_contradicting_labels_is_found(
    collections: dict[str, Collection],
) -> None:
    """No two of these files have the same pixels: only likeness finds them."""
    colpo = collections["colpo"]
    assert pairs(colpo) == {("colpo-094", "colpo-114")}
    assert not any(shared.identical for shared in colpo.shared_pictures)
    assert colpo.disputed == ("images/colpo-094-2.jpg", "images/colpo-114-3.jpg")
    assert all(image.label is None for image in colpo.images if image.path in colpo.disputed)


def test_no_woman_crosses_and_every_collection_can_be_used(collections: dict[str, Collection]) -> None:
    for collection in collections.values():
        splits = {(image.woman, image.split) for image in collection.images}
        assert len(splits) == len({woman for woman, _ in splits})
        for purpose in ("pretrain", "finetune", "evaluate"):
            require(collection, purpose)
        for split in SPLITS:
            assert {image.label for image in collection.labelled(split)} == {0, 1}


@pytest.mark.parametrize("percent", [60, 40])
def test_a_round_field_links_no_other_women(percent: int) -> None:
    """Women of whom the whole pictures show that they are one are left out."""
    one = {"annocerv-023", "annocerv-026", "annocerv-028", "annocerv-087", "annocerv-100"}
    files = [file for file in sorted((FOLDER / "annocerv" / "images").iterdir()) if file.name[:12] not in one]
    thumbnails = [thumbnail(field(decode(file), percent)) for file in files]
    assert all(thumbnails)
    assert near_duplicates(thumbnails, [file.name[:12] for file in files]) == ()
