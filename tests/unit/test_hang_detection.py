"""When a silent worker counts as hung."""

from __future__ import annotations

from site_agent.worker.hang_detection import FLOOR_S, TIMES, Silence


def after(*words_s: float, floor_s: float = FLOOR_S) -> Silence:
    """A worker that was given its task at 0 s and said something at these times."""
    silence = Silence(0.0, floor_s)
    for at_s in words_s:
        silence = silence.heard(at_s)
    return silence


def test_no_worker_hangs_before_the_floor() -> None:
    """Ten minutes: libraries are loaded, the first step is compiled."""
    assert not after().hangs(599.9)
    assert after().hangs(600.0)
    assert not after(1.0, 1.5, 2.0).hangs(601.9)
    assert after(1.0, 1.5, 2.0).hangs(602.0)


def test_a_worker_of_long_steps_may_be_silent_ten_times_as_long_as_it_ever_was() -> None:
    assert TIMES == 10
    slow = after(100.0, 220.0, 230.0)
    assert slow.longest_s == 120.0
    assert not slow.hangs(230.0 + 1199.9)
    assert slow.hangs(230.0 + 1200.0)


def test_the_longest_silence_is_not_forgotten() -> None:
    assert after(0.0, 90.0, 91.0, 92.0).ends_at_s == 92.0 + 900.0


def test_what_a_worker_needs_to_begin_is_no_measure_of_its_silences() -> None:
    """Loading libraries for five minutes does not make fifty minutes of silence in a step of a second harmless."""
    assert after(300.0, 301.0).ends_at_s == 301.0 + FLOOR_S


def test_every_word_begins_a_new_silence() -> None:
    silence = after(*[599.0 * number for number in range(1, 6)])
    assert not silence.hangs(599.0 * 5 + 5989.9)


def test_a_machine_that_stood_still_has_not_hung() -> None:
    silence = after(1.0, 2.0)
    assert silence.woke(2.0 + 659.0, 2.0 + 600.0).hangs(661.0), "a busy machine wakes late"
    assert silence.woke(7200.0, 2.0 + 600.0).ends_at_s == 7200.0 + FLOOR_S


def test_the_floor_is_an_argument() -> None:
    assert after(1.0, 1.1, floor_s=5.0).hangs(6.1)
