"""What a key may be stands in one table, its dataclass: the checks and the documents read it there."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_type_hints

import pytest

from coordinator.home.home import CertificatesSection
from fedcervix.core.bounds import INT64_MAX, OrDigest, Within, allowed, check_values
from fedcervix.core.plan import Augment, ClassifierRecipe, Recipe, Terms
from site_agent.home import DataSection, HardwareSection, Policy
from tests.unit.test_docs import row_of

SECTIONS = {
    "certificates": CertificatesSection,
    "run.terms": Terms,
    "run.recipe": Recipe,
    "run.recipe.augment": Augment,
    "run.recipe.classifier": ClassifierRecipe,
    "data": DataSection,
    "hardware": HardwareSection,
    "policy": Policy,
}
KINDS: dict[object, set[str]] = {
    int: {"integer", "pixels"},
    int | None: {"integer"},
    float: {"number", "seconds", "degrees", "probability", "fraction", "factor", "exponent", "share"},
}
"""words of the page for a type"""


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_says_what_each_key_may_be(section: str) -> None:
    schema = SECTIONS[section]
    types = get_type_hints(schema)
    for field in dataclasses.fields(schema):
        if dataclasses.is_dataclass(types[field.name]):
            continue
        cell = row_of(field.name, section)[1]
        values = allowed(schema).get(field.name)
        if isinstance(values, tuple):
            words = [f"`{word}`" for word in values]
            assert cell == f"{', '.join(words[:-1])} or {words[-1]}"
        elif isinstance(values, OrDigest):
            assert cell == str(values)
        elif values is None:
            assert types[field.name] is not bool or cell == "true or false"
            assert types[field.name] is not float, f"{field.name} has no bounds"
        else:
            kind, _, bounds = cell.partition(";")[0].partition(", ")
            assert kind in KINDS[types[field.name]], f"{field.name}: {cell}"
            assert bounds == str(values), f"{field.name}: {cell}"


@pytest.mark.parametrize(
    ("bounds", "words", "inside", "outside"),
    [
        (Within(1, 4096), "1 to 4096", (1, 4096), (0, 4097)),
        (Within(0, below=1), "0 to below 1", (0, 0.999), (-0.001, 1.0)),
        (Within(above=0, most=1), "above 0, at most 1", (0.001, 1), (0, 1.001)),
        (Within(above=0, below=0.5), "above 0 and below 0.5", (0.001, 0.499), (0, 0.5)),
        (Within(1), "1 or more", (1, math.inf), (0.999, None)),
        (Within(above=0), "above 0", (0.001, math.inf), (0, -1)),
        (Within(1, 1000, also=(0,)), "0 or 1 to 1000", (0, 1, 1000), (0.5, None)),
        (Within(1, also=(None,)), "1 or more", (1, None), (0, -1)),
        (Within(above=0, most=1e36), "above 0, at most 1e36", (1e36,), (0, 1e37)),
        (Within(0, INT64_MAX), "0 to 2^63 - 1", (0, INT64_MAX), (-1, 2**63)),
    ],
    ids=str,
)
def test_bounds_say_what_lies_within_them(bounds: Within, words: str, inside: Any, outside: Any) -> None:
    assert str(bounds) == words
    assert all(number in bounds for number in inside)
    assert not any(number in bounds for number in (*outside, math.nan))


@dataclass
class Example:
    """Keys with and without bounds."""

    name: str = ""
    width: Annotated[int, Within(1, 4)] = 2
    head: Literal["relu", "linear"] = "relu"


@pytest.mark.parametrize(
    ("example", "complaint"),
    [
        (Example(width=5), "width must be 1 to 4; found 5"),
        (Example(head="mlp"), "head must be one of relu, linear; found 'mlp'"),  # type: ignore[arg-type]
    ],
)
def test_a_value_that_is_not_allowed_is_refused_in_words(example: Example, complaint: str) -> None:
    check_values(Example())
    with pytest.raises(ValueError, match=complaint):
        check_values(example)
