"""Who shows signs of life, by a clock that the test turns."""

from __future__ import annotations

import pytest

from coordinator.run.liveness import Liveness
from fedcervix.core.events import Task, TaskKind
from fedcervix.transport.codec import Progress

LEASE_S = 60.0
PROGRESS = Progress(Task("run", TaskKind.TRAIN, 1, "b" * 64), "training", 1, 2, "steps", 0.5, 3.0)


class Clock:
    """Seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def liveness(clock: Clock) -> Liveness:
    return Liveness(("ada", "bob"), LEASE_S, clock)


def test_everyone_begins_with_a_whole_lease(liveness: Liveness) -> None:
    """The design: a restarted coordinator knows of nobody; nobody is silent for that."""
    assert [liveness.lease_ends_in_s(site, working=True) for site in ("ada", "bob")] == [LEASE_S, LEASE_S]


def test_a_sign_of_life_renews_the_lease_of_one_site(liveness: Liveness, clock: Clock) -> None:
    clock.now += 50
    liveness.heard("ada")
    clock.now += 5
    assert liveness.lease_ends_in_s("ada", working=True) == 55
    assert liveness.lease_ends_in_s("bob", working=True) == 5


def test_a_lease_that_has_run_out_is_negative(liveness: Liveness, clock: Clock) -> None:
    clock.now += 61
    assert liveness.lease_ends_in_s("ada", working=True) == -1


@pytest.mark.parametrize(
    ("connected", "working", "ends_in_s"),
    [(False, False, 50), (False, True, 50), (True, True, 50), (True, False, None)],
)
def test_an_idle_site_needs_no_more_than_its_open_stream(
    liveness: Liveness, clock: Clock, connected: bool, working: bool, ends_in_s: float | None
) -> None:
    if connected:
        liveness.opened("ada")
    clock.now += 10
    assert liveness.lease_ends_in_s("ada", working=working) == ends_in_s


def test_the_last_progress_is_kept_until_there_is_newer(liveness: Liveness) -> None:
    liveness.heard("ada", PROGRESS)
    liveness.heard("ada")
    assert liveness.signs["ada"].progress == PROGRESS
    assert liveness.signs["bob"].progress is None


def test_a_site_lives_while_its_stream_is_open_and_for_a_lease_after_its_last_word(
    liveness: Liveness, clock: Clock
) -> None:
    liveness.opened("ada")
    clock.now += 10 * LEASE_S
    assert (liveness.alive("ada"), liveness.alive("bob")) == (True, False)
    liveness.closed("ada")
    clock.now += LEASE_S - 1
    assert liveness.alive("ada")
    clock.now += 1
    assert not liveness.alive("ada")


def test_a_lease_that_begins_anew_is_no_sign_of_life(liveness: Liveness, clock: Clock) -> None:
    """Else an agent on a restored home is refused for ever as the twin of one that is gone, while rounds are short."""
    for _ in range(4):
        clock.now += LEASE_S / 4
        liveness.begin_lease("ada")
    assert liveness.lease_ends_in_s("ada", working=True) == LEASE_S
    assert not liveness.alive("ada")
    assert liveness.line("ada", working=True).unheard_for_s == LEASE_S


def test_time_in_which_nobody_could_be_heard_does_not_count(liveness: Liveness, clock: Clock) -> None:
    clock.now += LEASE_S - 5
    clock.now += 1000
    liveness.stood_still(1000)
    assert liveness.alive("ada")
    liveness.heard("bob")
    liveness.stood_still(1000)
    assert liveness.signs["bob"].at_s == clock.now, "nothing is heard in the future"
    clock.now += LEASE_S
    assert not liveness.alive("bob")


def test_when_a_line_was_cut_is_kept_until_it_is_open_again(liveness: Liveness, clock: Clock) -> None:
    assert liveness.signs["ada"].cut_s is None
    liveness.opened("ada")
    clock.now += 5
    liveness.closed("ada")
    assert liveness.signs["ada"].cut_s == 1005
    liveness.opened("ada")
    assert liveness.signs["ada"].cut_s is None
