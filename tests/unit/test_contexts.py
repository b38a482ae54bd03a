"""Contexts of secure sums: two that differ have different bytes."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from fedcervix.trust.contexts import RoundContext, RunContext, mask_context

RUN = RunContext(federation="cervix", run="r1", plan="a" * 64)
CONTEXT = RoundContext(
    run=RUN,
    sites=5,
    colluders=1,
    roster="b" * 64,
    round=3,
    base="c" * 64,
    head="d" * 64,
    layout="e" * 64,
    width=32,
    holders=("ada", "bob"),
)
OTHERS: dict[str, Any] = {
    "run": replace(RUN, run="r2"),
    "sites": 6,
    "colluders": 0,
    "roster": "1" * 64,
    "round": 4,
    "base": "2" * 64,
    "head": "3" * 64,
    "layout": "4" * 64,
    "width": 16,
    "holders": ("ada", "cleo"),
    "attempt": (2, "5" * 64),
    "follows": (2, "6" * 64),
}


def other(field: str) -> RoundContext:
    if field in ("attempt", "follows"):
        attempt, follows = OTHERS[field]
        return replace(CONTEXT, attempt=attempt, follows=follows)
    return replace(CONTEXT, **{field: OTHERS[field]})


def test_every_field_of_a_context_counts() -> None:
    assert [field.name for field in fields(RoundContext)] == list(OTHERS)
    digests = {CONTEXT.digest, *(other(field).digest for field in OTHERS)}
    assert len(digests) == 1 + len(OTHERS)


def test_every_field_of_a_run_counts() -> None:
    others = [replace(RUN, federation="other"), replace(RUN, run="other"), replace(RUN, plan="f" * 64)]
    assert len({replace(CONTEXT, run=run).digest for run in [RUN, *others]}) == 4


def test_names_do_not_run_into_each_other() -> None:
    """Each text stands with its length before it."""
    first, second = (replace(CONTEXT, holders=holders) for holders in (("ad", "ada-bob"), ("ad-ada", "bob")))
    assert first.digest != second.digest
    assert mask_context(CONTEXT, "ad", "abob", "0" * 64) != mask_context(CONTEXT, "ada", "bob", "0" * 64)


@pytest.mark.parametrize(
    "changed",
    [
        {"base": "C" * 64},
        {"base": "c" * 63},
        {"width": 8},
        {"round": 0},
        {"attempt": 2},
        {"follows": "f" * 64},
        {"holders": ("bob", "ada")},
        {"holders": ("ada", "ada")},
        {"colluders": 5},
        {"colluders": -1},
        {"holders": ("ada",)},
    ],
)
def test_what_is_no_context_cannot_be_built(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        replace(CONTEXT, **changed)


def test_another_attempt_names_the_one_before() -> None:
    three = replace(CONTEXT, holders=("ada", "bob", "cleo"))
    following = three.after_close(("bob", "cleo"))
    assert (following.attempt, following.follows, following.holders) == (2, three.digest, ("bob", "cleo"))
    assert replace(following, attempt=1, follows="", holders=three.holders) == three
