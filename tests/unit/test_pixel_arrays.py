"""Rows of pictures that are put in an order, joined and selected without a picture being copied."""

import numpy as np
import pytest

from site_agent.data.pixel_arrays import Gathered, joined, selected
from site_agent.data.pixels import Pixels


def pictures(first: int, count: int, side: int = 2) -> np.ndarray:
    """Pictures of one colour each: first, first + 1, ..."""
    return np.repeat(np.arange(first, first + count, dtype=np.uint8), side * side * 3).reshape(count, side, side, 3)


def colours(pixels: np.ndarray) -> list[int]:
    return pixels[:, 0, 0, 0].tolist()


def kinds() -> list[Pixels]:
    return [
        pictures(10, 5),
        selected(pictures(0, 30), [10, 11, 12, 13, 14]),
        joined([pictures(10, 2), pictures(12, 3)]),
    ]


@pytest.mark.parametrize("pixels", kinds(), ids=["array", "selected", "joined"])
def test_an_array_and_gathered_pictures_answer_alike(pixels: Pixels) -> None:
    assert (len(pixels), pixels.shape, pixels.dtype) == (5, (5, 2, 2, 3), np.uint8)
    assert colours(pixels[np.array([3, 0, 3])]) == [13, 10, 13]
    assert colours(pixels[np.array([-1])]) == [14]
    assert colours(pixels[1:4]) == [11, 12, 13]
    assert colours(pixels[::2]) == [10, 12, 14]
    assert pixels[np.array([], np.int64)].shape == (0, 2, 2, 3)
    with pytest.raises(IndexError):
        pixels[np.array([5])]
    with pytest.raises(IndexError):
        pixels[np.array([-6])]


def test_what_is_taken_is_a_copy() -> None:
    source = pictures(0, 3)
    gathered = selected(source, [1])
    gathered[np.array([0])][:] = 99
    gathered[:][:] = 99
    assert colours(source) == [0, 1, 2]


def test_pictures_of_several_collections_are_joined_and_selected_in_any_order() -> None:
    first, second = selected(pictures(0, 10), [9, 1]), pictures(20, 3)
    whole = joined([first, second, joined([first, second])])
    assert colours(whole[:]) == [9, 1, 20, 21, 22, 9, 1, 20, 21, 22]
    assert colours(selected(whole, [9, 0, 3])[:]) == [22, 9, 21]
    assert colours(whole[np.array([8, 1, 2, 5])]) == [21, 1, 20, 9]


def test_one_collection_joined_is_that_collection() -> None:
    one = pictures(0, 3)
    assert joined([one]) is one


def test_nothing_is_copied_until_rows_are_asked_for() -> None:
    source = pictures(0, 3)
    whole = joined([selected(source, [2]), source])
    source[2] = 77
    assert colours(whole[:]) == [77, 0, 1, 77]


def test_pictures_of_different_sizes_cannot_be_joined() -> None:
    with pytest.raises(ValueError, match="pictures of one size"):
        joined([pictures(0, 1, side=2), pictures(0, 1, side=3)])
    with pytest.raises(ValueError, match="a row for each place"):
        Gathered((pictures(0, 1),), np.zeros(2, np.int64), np.zeros(1, np.int64))
    with pytest.raises(TypeError, match="found list"):
        selected([1, 2], [0])  # type: ignore[arg-type]
