"""Three answers: yes, not yet, never."""

from __future__ import annotations

import pytest

from fedcervix.core.quorum import Quorum, quorum


@pytest.mark.parametrize(
    ("needed", "answered", "open_", "answer"),
    [
        (2, 2, 0, "met"),
        (2, 3, 0, "met"),
        (0, 0, 5, "met"),
        (2, 1, 1, "pending"),
        (2, 0, 3, "pending"),
        (2, 1, 0, "impossible"),
        (3, 1, 1, "impossible"),
    ],
)
def test_the_state_of_a_vote(needed: int, answered: int, open_: int, answer: str) -> None:
    assert quorum(needed=needed, answered=answered, open_=open_) is Quorum(answer)
