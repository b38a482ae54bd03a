"""How much of the coordinator one certificate may use: far above what an honest agent makes, and no more."""

from __future__ import annotations

import pytest

from coordinator.limits.admission import ALARM_PER_MIN, AT_ONCE, LIMITS, MINUTE_S, OUT_S, Admission, Held, alarm

SITE = LIMITS["site"]


def begun(admission: Admission, count: int, now_s: float = 0.0, *, kind: str = "site", serial: str = "s1") -> int:
    """Begin so many calls whose messages do not come; return how many were admitted."""
    return sum(admission.begin(serial, "nhs", kind, now_s) for _ in range(count))


def test_so_many_calls_at_once_and_one_that_has_ended_makes_room() -> None:
    admission = Admission()
    assert begun(admission, 100) == SITE.open_max
    assert admission.held(0.0)["nhs"].open == SITE.open_max
    admission.end("s1")
    admission.end("s1")
    assert begun(admission, 100) == 2


def test_an_honest_agent_is_never_refused() -> None:
    """Short rounds on a fast line: thirty calls a second; and thirty signs of life that wait behind a model."""
    admission = Admission()
    for second in range(600):
        for call in range(30):
            assert admission.begin("s1", "nhs", "site", second + call / 30)
            admission.end("s1")
    for _ in range(30):
        assert admission.begin("s1", "nhs", "site", 600.0)


def test_who_makes_too_many_calls_is_refused_for_a_while_and_another_certificate_is_not() -> None:
    admission, admitted = Admission(), 0
    for _ in range(2_000):
        if admission.begin("s1", "nhs", "site", 0.0):
            admitted += 1
            admission.end("s1")
    assert admitted == SITE.burst
    assert admission.begin("s2", "alts", "site", 0.0)
    assert admission.begin("s1", "nhs", "site", 1.0)


def test_of_many_calls_at_once_the_first_are_answered_at_once_and_the_others_one_by_one() -> None:
    admission, pauses_s = Admission(), []
    for _ in range(2 * AT_ONCE):
        assert begun(admission, 1) == 1
        admission.end("s1")
        pauses_s.append(admission.pause_s("s1"))
    assert pauses_s[:AT_ONCE] == [0.0] * AT_ONCE
    assert pauses_s[AT_ONCE:] == [pytest.approx(n / SITE.per_s) for n in range(1, AT_ONCE + 1)]
    begun(admission, 1, serial="s2")
    assert admission.pause_s("s2") == 0.0
    begun(admission, 1, now_s=10.0)
    assert admission.pause_s("s1") == 0.0


def test_who_goes_on_although_it_is_refused_loses_its_connections() -> None:
    admission = Admission()
    verdicts = [admission.refuse("s1", "nhs", 0.0) for _ in range(200)]
    assert verdicts.count(True) == SITE.refused_burst
    assert not any(verdicts[int(SITE.refused_burst) :])
    assert admission.refuse("s1", "nhs", 10.0), "after a while it may be refused again"


def test_who_goes_on_although_it_is_refused_is_shut_out_for_a_while_and_nobody_else_is() -> None:
    admission = Admission()
    for _ in range(int(SITE.refused_burst)):
        admission.refuse("s1", "nhs", 0.0)
    assert not admission.is_out("s1", 0.0)
    admission.refuse("s1", "nhs", 0.0)
    assert admission.is_out("s1", OUT_S - 0.1)
    assert not admission.is_out("s1", OUT_S)
    assert not admission.is_out("s2", 0.0)


def test_an_invitation_that_was_used_has_one_call_at_a_time_and_few_in_all() -> None:
    admission = Admission()
    assert begun(admission, 40, kind="enroll") == LIMITS["enroll"].open_max
    for _ in range(LIMITS["enroll"].open_max):
        admission.end("s1")
    assert begun(admission, 40, kind="used invitation") == 1


def test_nobody_gets_a_new_budget_by_being_refused_in_between() -> None:
    admission = Admission()
    for _ in range(int(SITE.burst)):
        admission.begin("s1", "nhs", "site", 0.0)
        admission.end("s1")
    admission.refuse("s1", "nhs", 0.0)
    assert not admission.begin("s1", "nhs", "site", 0.0)


def test_what_a_site_holds_is_known_by_its_name_over_all_its_certificates_and_forgotten_after_a_minute() -> None:
    admission = Admission()
    admission.begin("s1", "nhs", "site", 0.0)
    admission.begin("s2", "nhs", "site", 0.0)
    for second in (0.0, 0.5, 30.0):
        admission.refuse("s1", "nhs", second)
    assert admission.held(30.0) == {"nhs": Held(open=2, refused=3)}
    assert admission.held(MINUTE_S + 1.0) == {"nhs": Held(open=2, refused=1)}
    for serial in ("s1", "s2"):
        admission.end(serial)
    assert admission.held(200.0) == {}


def test_one_line_a_minute_is_said_of_a_certificate() -> None:
    admission = Admission()
    said = 0
    for call in range(1_200):
        admission.refuse("s1", "nhs", call / 10)
        said += admission.may_say("s1", call / 10)
    assert said == 2


def test_the_operator_is_told_who_is_refused_at_a_high_rate() -> None:
    assert alarm({"nhs": Held(refused=ALARM_PER_MIN - 1)}) == ""
    assert alarm({"nhs": Held(refused=4_000), "alts": Held(open=3)}) == (
        "4,000 calls from nhs were refused in the last minute"
    )
