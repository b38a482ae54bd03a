"""Which image is the other one of a positive pair."""

from __future__ import annotations

import numpy as np

from site_agent.data.image_pairs import ImagePairs
from site_agent.data.image_sets import Images
from site_agent.manifest.details import NO_DETAILS

ROWS = (  # woman, visit, stage
    ("ada", "1", "acetic"),
    ("ada", "1", "acetic"),
    ("ada", "1", "acetic"),
    ("ada", "1", "native"),  # before acetic acid: never with one after it
    ("ada", "2", "acetic"),  # another visit
    ("bea", "1", "acetic"),  # another woman with a visit of that name
    ("bea", "1", "acetic"),
    ("cleo", "", "acetic"),  # not known to be of one visit
    ("cleo", "", "acetic"),
    ("dora", "1", ""),  # not known to be of one stage
    ("dora", "1", ""),
)


def test_partners_are_of_one_woman_visit_and_stage_and_both_are_known() -> None:
    found = ImagePairs.among(ROWS)
    assert [others.tolist() for others in found.of] == [[1, 2], [0, 2], [0, 1], [], [], [6], [5], [], [], [], []]
    assert found.paired == 5


def test_one_of_several_is_drawn_and_who_has_none_is_her_own() -> None:
    found, chosen = ImagePairs.among(ROWS), np.array([0, 3, 6, 0])
    assert found.choose(chosen, np.array([0.0, 0.9, 0.9, 0.49])).tolist() == [1, 3, 5, 1]
    assert found.choose(chosen, np.array([0.5, 0.0, 0.0, 0.999])).tolist() == [2, 3, 5, 2]
    dice = np.random.default_rng(0)
    drawn = [int(found.choose(np.array([1]), dice.random(1))[0]) for _ in range(200)]
    assert 60 < drawn.count(0) < 140
    assert set(drawn) == {0, 2}


def test_images_of_which_nothing_is_known_have_no_partners() -> None:
    pixels = np.zeros((4, 32, 32, 3), np.uint8)
    for details in ((), (NO_DETAILS,) * 4):
        images = Images(pixels, ("a", "a", "b", "a"), details=details)
        assert images.partners.paired == 0
        assert images.women.tolist() == [0, 0, 1, 0]
