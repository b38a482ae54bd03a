"""How many of a site's reports are written down: enough for every honest one, never enough to fill a disk."""

from __future__ import annotations

from coordinator.limits.allowances import OF_ROUND_MAX, OF_RUN_MAX, PER_S, Allowances
from fedcervix.core.events import (
    FAILURE_STAGE_CHARS_MAX,
    INCIDENT_CHARS_MAX,
    REASON_CHARS_MAX,
    ModelAdopted,
    ScoreReported,
    SiteAttached,
    SiteFailed,
    SiteRefused,
    Task,
    TaskKind,
    UpdateStored,
    event_to_json,
)
from fedcervix.transport.codec import KIND_CHARS_MAX

BASE = "b" * 64
DELIVERED = (
    SiteAttached("ada", 1.0),
    UpdateStored("ada", Task("run", TaskKind.TRAIN, 1, BASE), BASE, 1, 1, 0.5, 1.0, 1.0),
    ScoreReported("ada", Task("run", TaskKind.SCORE, 1, BASE), 1.0, 1, 1, (), 1.0),
    ModelAdopted("ada", Task("run", TaskKind.ADOPT, 1, BASE), 1.0),
)


def failed(number: int, site: str = "ada") -> SiteFailed:
    return SiteFailed(site, "training", "diverged", f"INC-{number}", 1.0)


def flood(allowances: Allowances, count: int, *, round_: int = 0, now_s: float = 0.0) -> int:
    """Report so many failures; return how many are written down."""
    allowed = 0
    for number in range(count):
        if allowances.allow(failed(number), round_, now_s):
            allowances.count(failed(number), round_)
            allowed += 1
    return allowed


def test_a_flood_is_cut_off_and_counted() -> None:
    allowances = Allowances(("ada", "bob"))
    assert flood(allowances, 4_000) == OF_ROUND_MAX
    assert (allowances.set_aside("ada"), allowances.set_aside("bob")) == (4_000 - OF_ROUND_MAX, 0)
    assert allowances.allow(failed(1, "bob"), 0, 0.0)


def test_refusals_and_failures_share_one_allowance() -> None:
    allowances = Allowances(("ada",))
    flood(allowances, OF_ROUND_MAX)
    assert not allowances.allow(SiteRefused("ada", "another reason", 1.0), 0, 0.0)


def test_what_a_site_delivers_is_never_set_aside() -> None:
    allowances = Allowances(("ada",))
    flood(allowances, 4_000)
    assert all(allowances.allow(event, 1, 0.0) for event in DELIVERED)


def test_a_round_has_its_own_allowance_but_not_at_once() -> None:
    allowances = Allowances(("ada",))
    flood(allowances, 4_000)
    assert flood(allowances, 4_000, round_=1) == 0
    assert flood(allowances, 4_000, round_=1, now_s=60.0) == round(60 * PER_S)


def test_a_run_has_an_end_of_it_also_over_a_restart() -> None:
    first = Allowances(("ada",))
    written = sum(flood(first, 200, round_=round_, now_s=round_ * 1e5) for round_ in range(7))
    assert written == 7 * OF_ROUND_MAX
    again = Allowances(("ada",))
    for number in range(written):
        again.count(failed(number), number // OF_ROUND_MAX)
    written += sum(flood(again, 200, round_=round_, now_s=round_ * 1e5) for round_ in range(7, 99))
    assert written == OF_RUN_MAX


def test_the_log_takes_a_line_a_minute() -> None:
    allowances = Allowances(("ada", "bob"))
    assert [allowances.may_log("ada", now_s) for now_s in (0.0, 1.0, 59.0, 61.0, 62.0)] == [1, 0, 0, 1, 0]
    assert allowances.may_log("bob", 1.0)


def test_an_event_is_as_long_as_the_documentation_says() -> None:
    """A character that is no ASCII took twelve bytes, and an event 21.6 KB."""
    worst = SiteFailed(
        "s" * 63,
        "\U0001f600" * FAILURE_STAGE_CHARS_MAX,
        "\U0001f600" * REASON_CHARS_MAX,
        "\U0001f600" * INCIDENT_CHARS_MAX,
        1764446640.123456,
        "\U0001f600" * KIND_CHARS_MAX,
        goes_on=True,
    )
    assert len(event_to_json(worst).encode()) < 3_500
