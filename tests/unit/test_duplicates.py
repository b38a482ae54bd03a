"""Copies, shared pictures and disputed labels."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fedcervix.errors import DataError
from site_agent.data.duplicates import Copy, CrossPatientPicture, IndexedImage, find_duplicates, near_duplicates
from site_agent.images.samples import Pixels
from site_agent.images.thumbnails import thumbnail


def scene(seed: int) -> Pixels:
    """A smooth random scene of 96 x 128: blobs of some 16 pixels."""
    rough = np.random.default_rng(seed).integers(0, 256, (8, 10, 3), np.uint8)
    return np.asarray(Image.fromarray(rough).resize((128, 96), Image.Resampling.BICUBIC))


def compressed(pixels: Pixels) -> Pixels:
    raw = io.BytesIO()
    Image.fromarray(pixels).save(raw, "JPEG", quality=40)
    return np.asarray(Image.open(raw))


def seen(image: str, patient: str, label: int | None, digest: str, shown: bytes | None = None) -> IndexedImage:
    """A picture that was seen; pictures of different digests show different scenes unless `shown` says otherwise."""
    return IndexedImage(image, patient, label, digest, thumbnail(scene(ord(digest))) if shown is None else shown)


def test_one_photograph_saved_twice_is_alike() -> None:
    original = scene(1)
    half = np.asarray(Image.fromarray(original).resize((64, 48)))
    cropped = original[3:-3, 4:-4]
    bordered = np.pad(original, ((5, 5), (5, 5), (0, 0)))
    mirrored, turned, upside = original[:, ::-1], np.rot90(original), np.rot90(original[:, ::-1], 3)
    darker = (original * 0.7).astype(np.uint8)
    for other in (compressed(original), half, cropped, darker, bordered, mirrored, turned, compressed(upside)):
        assert near_duplicates([thumbnail(original), thumbnail(np.ascontiguousarray(other))], "AB") == ((0, 1),)


def test_two_scenes_are_not_alike() -> None:
    assert near_duplicates([thumbnail(scene(k)) for k in range(60)], [str(k) for k in range(60)]) == ()


def test_the_lighting_and_layout_that_all_cervix_images_share_does_not_make_them_alike() -> None:
    disc = Image.radial_gradient("L").resize((128, 96)).convert("RGB")
    lit = [np.asarray(Image.blend(disc, Image.fromarray(scene(k)), 0.3)) for k in range(2)]
    assert near_duplicates([thumbnail(pixels) for pixels in lit], "AB") == ()


def test_only_pictures_of_different_patients_are_compared() -> None:
    same = thumbnail(scene(1))
    assert near_duplicates([same, same, same], ["A", "A", "B"]) == ((0, 2), (1, 2))


def test_pictures_that_show_nothing_are_like_nothing() -> None:
    blank = thumbnail(np.asarray(Image.fromarray(scene(1)).filter(ImageFilter.GaussianBlur(200))))
    assert blank == b""
    assert near_duplicates([blank, blank, b""], "ABC") == ()
    assert near_duplicates([], []) == ()


def test_pairs_are_found_across_blocks() -> None:
    thumbnails = [np.random.default_rng(k).integers(0, 256, 256, np.uint8).tobytes() for k in range(2100)]
    thumbnails[2099] = thumbnails[3]
    thumbnails[1030] = thumbnails[1023]
    assert near_duplicates(thumbnails, [str(k) for k in range(2100)]) == ((3, 2099), (1023, 1030))


def test_a_flood_of_pairs_is_refused() -> None:
    with pytest.raises(DataError, match="more than 100,000 pairs"):
        near_duplicates([thumbnail(scene(1))] * 500, [str(k) for k in range(500)])


def test_a_picture_is_used_once_and_the_labelled_copy_stays() -> None:
    found = find_duplicates(
        [seen("1", "A", None, "x"), seen("2", "A", 1, "x"), seen("3", "A", None, "y"), seen("4", "A", 1, "x")]
    )
    assert [one.image for one in found.used] == ["2", "3"]
    assert found.copies == (Copy("1", "2"), Copy("4", "2"))
    assert found.shared_pictures == ()
    assert found.conflicting_label == frozenset()


def test_identical_pixels_under_two_patients_are_a_leak_and_link_them() -> None:
    found = find_duplicates([seen("1", "B", 0, "x"), seen("2", "A", None, "x"), seen("3", "C", 1, "y")])
    assert found.shared_pictures == (
        CrossPatientPicture("x", ("A", "B"), ("1", "2"), identical=True, conflicting=False),
    )
    assert found.links == [("A", "B")]


def test_contradicting_labels_of_one_picture_are_disputed_within_a_patient_and_between_two() -> None:
    within = find_duplicates([seen("1", "A", 0, "x"), seen("2", "A", 1, "x")])
    assert (within.conflicting_label, within.shared_pictures) == (frozenset({"1", "2"}), ())
    between = find_duplicates([seen("1", "A", 0, "x"), seen("2", "B", 1, "x"), seen("3", "B", 1, "y")])
    assert between.conflicting_label == frozenset({"1", "2"})
    assert between.shared_pictures[0].conflicting


def test_a_photograph_saved_twice_is_a_leak_too_and_both_stay_in_use() -> None:
    pixels = scene(1)
    first, second = thumbnail(pixels), thumbnail(compressed(pixels))
    found = find_duplicates([seen("1", "A", 0, "x", first), seen("2", "B", 1, "y", second)])
    assert found.shared_pictures == (
        CrossPatientPicture("x", ("A", "B"), ("1", "2"), identical=False, conflicting=True),
    )
    assert found.conflicting_label == frozenset({"1", "2"})
    assert len(found.used) == 2


def test_three_patients_with_one_picture_are_linked_in_a_chain() -> None:
    found = find_duplicates([seen(str(k), patient, None, "x") for k, patient in enumerate("ABC")])
    assert found.links == [("A", "B"), ("B", "C")]


def test_pictures_that_show_nothing_make_nobody_one_woman() -> None:
    """All black pictures have the same pixels; they are pictures of nobody."""
    found = find_duplicates([seen("1", "A", 0, "x", b""), seen("2", "B", 1, "x", b""), seen("3", "C", None, "x", b"")])
    assert found.shared_pictures == ()
    assert [copy.image for copy in found.copies] == ["2", "3"]


def test_a_declared_pair_links_nobody_and_keeps_its_labels() -> None:
    first, second = thumbnail(scene(1)), thumbnail(compressed(scene(1)))
    pictures = [seen("1", "A", 0, "x", first), seen("2", "B", 1, "y", second), seen("3", "C", None, "z", first)]
    found = find_duplicates(pictures, declared=frozenset({frozenset("12")}))
    assert found.conflicting_label == frozenset()
    assert [shared.images for shared in found.told_apart] == [("1", "2")]
    assert [shared.images for shared in found.shared_pictures] == [("1", "3"), ("2", "3")]
    assert found.without_effect == ()


def test_a_pair_is_declared_for_all_copies_of_its_images() -> None:
    first, second = thumbnail(scene(1)), thumbnail(compressed(scene(1)))
    pictures = [seen("1", "A", 0, "x", first), seen("2", "B", 1, "y", second), seen("3", "A", 0, "x", first)]
    found = find_duplicates(pictures, declared=frozenset({frozenset("32")}))
    assert (found.shared_pictures, found.conflicting_label, found.without_effect) == ((), frozenset(), ())


def test_a_declared_pair_that_changes_nothing_is_said() -> None:
    pictures = [seen("1", "A", 0, "x"), seen("2", "B", 1, "x"), seen("3", "C", 1, "y")]
    found = find_duplicates(pictures, declared=frozenset({frozenset("12"), frozenset("13"), frozenset("39")}))
    assert [shared.images for shared in found.shared_pictures] == [("1", "2")]
    assert [line.partition(": ")[2] for line in found.without_effect] == [
        "the files show the same pixels, so they are one picture; remove the row of one",
        "these pictures do not look alike, or are of one patient",
        "9 cannot be read, or the manifest does not name it",
    ]
