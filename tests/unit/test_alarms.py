"""The type of an alarm."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedcervix.core.alarms import WORDS_CHARS_MAX, Alarm

ALARM = Alarm("nhs", 3, "norm", "its norm is 400; 2.0 to 5.0 is usual")


def test_an_alarm_reads_as_a_line() -> None:
    assert str(ALARM) == "round 3, nhs: its norm is 400; 2.0 to 5.0 is usual"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"site": "not a name"}, "not a site name"),
        ({"round": 0}, "round is 1 or more"),
        ({"what": "Two words"}, "not a kind"),
        ({"words": ""}, "1 to 200"),
        ({"words": "a" * (WORDS_CHARS_MAX + 1)}, "1 to 200"),
        ({"words": "two\nlines"}, "one printable line"),
    ],
)
def test_an_alarm_checks_itself(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ALARM, **change)  # type: ignore[arg-type]
