"""A chain of entries: whichever entry is changed, dropped or moved, it is found and named."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from fedcervix.trust.chain import NOTHING, Chain, End, Fault, Why, read, real, text_of
from fedcervix.trust.statements import tagged

CHAIN = Chain("a chain of this test 1")
LARGE = 10_000


def made(count: int, word: str = "") -> tuple[list[str], End]:
    lines, end = [], End()
    for number in range(count):
        line, end = CHAIN.append(end, {"kind": "note", "loss": real(number / 7), "words": f"{word}{number}"})
        lines.append(line)
    return lines, end


def flipped(line: str, at: int, by: int) -> str:
    return line[:at] + chr(ord(line[at]) ^ by) + line[at + 1 :]


def test_an_unchanged_chain_holds() -> None:
    lines, end = made(50)
    assert CHAIN.fault(lines, end) is None
    assert end.entries == 50
    assert read(lines[0])["previous"] == NOTHING


def test_every_character_that_is_flipped_names_its_entry() -> None:
    lines, end = made(6)
    for number, line in enumerate(lines):
        for at in range(len(line)):
            for by in (1, 4):
                changed = [*lines[:number], flipped(line, at, by), *lines[number + 1 :]]
                assert CHAIN.fault(changed, end) == Fault(number, Why.CHANGED), (number, at, by)


def test_every_entry_that_is_dropped_or_doubled_and_every_pair_that_is_swapped_is_named() -> None:
    lines, end = made(9)
    for number in range(9):
        dropped = Why.CUT_OFF if number == 8 else Why.MISSING
        assert CHAIN.fault(lines[:number] + lines[number + 1 :], end) == Fault(number, dropped)
        assert CHAIN.fault(lines[: number + 1] + lines[number:], end) == Fault(number + 1, Why.MOVED)
        for other in range(number + 1, 9):
            swapped = list(lines)
            swapped[number], swapped[other] = lines[other], lines[number]
            assert CHAIN.fault(swapped, end) == Fault(number, Why.MOVED)
        assert CHAIN.fault(lines[:number], end) == Fault(number, Why.CUT_OFF)


def _swap(lines: list[str], at: int) -> list[str]:
    return [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]


HARM: dict[Why, Callable[[list[str], int], list[str]]] = {
    Why.CHANGED: lambda lines, at: [*lines[:at], lines[at].replace("note", "mote"), *lines[at + 1 :]],
    Why.MISSING: lambda lines, at: lines[:at] + lines[at + 1 :],
    Why.MOVED: _swap,
    Why.CUT_OFF: lambda lines, at: lines[:at],
}


@pytest.mark.parametrize("why", HARM)
def test_among_ten_thousand_entries_the_one_that_does_not_hold_is_named(why: Why) -> None:
    """TRUST.md section 10, line 1. Every place holds in the small chains above; here some of the 10,000."""
    lines, end = made(LARGE)
    seed = random.randrange(2**32)
    for at in (0, LARGE - 2, *random.Random(seed).sample(range(LARGE - 1), 2)):
        assert CHAIN.fault(HARM[why](lines, at), end) == Fault(at, why), f"seed {seed}, entry {at}"


def test_an_entry_too_many_is_named() -> None:
    lines, end = made(9)
    assert CHAIN.fault([*lines, CHAIN.append(end, {})[0]], end) == Fault(9, Why.SURPLUS)


def test_a_chain_that_was_rewritten_with_all_its_hashes_is_found_at_the_next_known_head() -> None:
    lines, end = made(30)
    heads = {10: made(10)[1].hash, 20: made(20)[1].hash}
    now = End()
    rewritten = []
    for number in range(30):
        line, now = CHAIN.append(now, {"words": "another" if number == 12 else str(number)})
        rewritten.append(line)
    forged = [*lines[:12]]
    now = made(12)[1]
    for _ in range(12, 30):
        line, now = CHAIN.append(now, {"words": "another"})
        forged.append(line)
    assert CHAIN.fault(forged, end, heads) == Fault(19, Why.REWRITTEN)
    assert CHAIN.fault(forged, end) == Fault(29, Why.CHANGED)
    assert CHAIN.fault(rewritten, end, heads) == Fault(9, Why.REWRITTEN)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":1}',
        '{"b":1,"a":1}',
        '{"a":1.5}',
        '{"a":NaN}',
        '{"a":9007199254740992}',
        '{"a":"\u00e9"}',
        '{"a":\n1}',
        '["a"]',
        "{",
        "[" * 3000,
    ],
)
def test_a_text_that_two_readers_could_understand_differently_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read(text)


def test_the_chain_writes_number_and_link_itself() -> None:
    with pytest.raises(ValueError, match="written here"):
        CHAIN.append(End(), {"entry": 5})
    with pytest.raises(ValueError):
        text_of({"a": 1.5})  # type: ignore[dict-item]


def test_two_kinds_of_chains_and_two_splits_of_a_text_have_different_hashes() -> None:
    assert Chain("one").hash("{}") != Chain("two").hash("{}")
    assert tagged("a", "bc", "") != tagged("ab", "c") != tagged("a", "b", "c")
    assert tagged("a", "bc") == b"1:a,2:bc,"
