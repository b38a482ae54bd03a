"""What the coordinator's page shows of a run: states, what needs attention, the timeline, rounds, what is left."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.page.attention import DO, Attention, attention, grouped
from coordinator.page.round_parts import CELLS_MAX, COLUMNS, RoundParts
from coordinator.page.site_states import site_state
from coordinator.page.status_parts import StatusContext, StatusParts, headline, holder, prediction
from coordinator.page.timeline import SPANS_MAX, Timeline
from coordinator.page.watching import Watching
from coordinator.run.results import RECORD_FILE
from coordinator.run.status_document import PredictionStatus, StatusDocument
from fedcervix.core.collapse import collapse_loss
from fedcervix.core.events import SiteAttached
from fedcervix.errors import RunError
from fedcervix.page.board import Board, difference
from fedcervix.runtime.record import SitePrediction
from tests.unit.coordinator_homes import made
from tests.unit.page_process import home_of, write
from tests.unit.page_scenes import Scene, night


def seen(scene: Scene, source: str = "", **certificates: float) -> list[Attention]:
    return attention(scene.document(), collapse=collapse_loss(8), certificates=certificates, source=source)


def words(scene: Scene, site: str, *, is_watched: bool = True) -> tuple[str, str]:
    [found] = [one for one in scene.document().sites if one.site == site]
    state = site_state(found, is_over=False, is_watched=is_watched)
    return state.word, state.mark


# --- states and attention -----------------------------------------------------------------------------------------


def test_where_all_is_well_nothing_asks_for_attention() -> None:
    scene = night()
    assert seen(scene) == []
    assert headline(scene.document(), [], "")["words"] == "All is well"
    assert [words(scene, site)[0] for site in scene.sites] == ["training"] * 3


def test_a_killed_agent_is_told_at_once_with_what_follows() -> None:
    scene = night()
    scene.cut("kiel")
    assert words(scene, "kiel") == ("connection cut", "warn")
    [one] = seen(scene)
    assert (one.level, one.site, one.then) == ("warn", "kiel", "its lease runs out")
    assert one.until == scene.now + 36
    assert one.since == scene.now - 3


def test_a_silent_site_that_the_run_waits_for_needs_a_person_and_comes_first() -> None:
    scene = night()
    scene.cut("alts")
    scene.silence("kiel")
    scene.silence("nhs")
    found = seen(scene)
    assert [(one.level, one.site) for one in found] == [("bad", "nhs"), ("bad", "kiel"), ("warn", "alts")]
    assert found[0].then == "the run is aborted"
    assert headline(scene.document(), found, "")["words"] == "2 things need a person"


def test_a_silent_site_that_a_ring_passes_over_needs_a_look() -> None:
    scene = night("ppfssl")
    scene.silence("kiel")
    [one] = seen(scene)
    assert (one.level, one.until) == ("warn", None)
    assert one.why.endswith("The run goes on without it.")


def test_a_failure_is_told_with_its_hint_and_its_number() -> None:
    scene = night()
    scene.fail("kiel")
    assert words(scene, "kiel") == ("failed", "bad")
    [one] = [one for one in seen(scene) if one.site == "kiel"]
    assert "out of memory" in one.why
    assert "INC-20261130-7f3a" in one.why
    assert "incidents/" in one.do


def test_the_same_of_many_sites_is_said_once() -> None:
    scene = night(sites=tuple(f"site-{number}" for number in range(9)))
    for site in scene.sites[:7]:
        scene.silence(site)
    [one] = seen(scene)
    assert one.what == "7 sites are silent"
    assert one.why.startswith("site-0, site-1, site-2, site-3, site-4, site-5, site-6")
    alone = [Attention(level="warn", what=f"{site}: x", do="y", site=site) for site in "ab"]
    assert grouped(alone) == alone


def test_where_all_sites_are_silent_this_end_is_looked_at_first() -> None:
    scene = night()
    for site in scene.sites[:-1]:
        scene.silence(site)
    assert {one.do for one in seen(scene) if one.level == "bad"} == {DO["silent"]}
    scene.silence(scene.sites[-1])
    [one] = seen(scene)
    assert one.what == "3 sites are silent"
    assert "coordinator doctor" in one.do


def test_troubles_are_told_one_by_one_with_what_to_do() -> None:
    words = "one of them\n  likely cause: the disk is full\n  next: free some space (df -h /x)\nanother one: no more"
    one, two = attention(replace(night().document(), trouble=words), collapse=9.0, certificates={})
    assert (one.why, one.do) == ("one of them. Likely cause: the disk is full.", "free some space (df -h /x)")
    assert (two.why, two.do) == ("another one: no more", "")


def test_since_when_is_of_the_state_that_is_shown() -> None:
    scene = night()
    [wait] = [one for one in scene.document().waits if one.site == "kiel"]
    sites = parts(scene)["sites"]
    assert sites["kiel"]["since"] == round(wait.since)  # type: ignore[index]
    scene.update("kiel", 5)
    assert "since" not in parts(scene)["sites"]["kiel"]  # type: ignore[index]


def test_while_the_coordinator_is_away_that_is_the_news_and_connections_are_not_known() -> None:
    scene = night()
    scene.cut("kiel")
    found = seen(scene, "the coordinator is not running")
    assert [(one.what, one.why) for one in found] == [("The coordinator is away", "the coordinator is not running")]
    [last] = attention(
        scene.document(), collapse=9.0, certificates={}, source="it is not running", wrote_at=1_796_000_000.0
    )
    assert last.why == "Its journal was last written at 2026-11-30 00:53:20 UTC; it is not running"
    assert headline(scene.document(), found, "it is not running")["level"] == "bad"
    assert words(scene, "kiel", is_watched=False) == ("not known", "off")


def test_a_certificate_is_spoken_of_when_few_days_are_left() -> None:
    scene, day = night(), 86_400.0
    found = seen(scene, kiel=scene.now - 1, nhs=scene.now + 10 * day, alts=scene.now + 15 * day)
    assert [(one.level, one.what) for one in found] == [
        ("bad", "The certificate of kiel has ended"),
        ("warn", "The certificate of nhs ends soon"),
    ]


def test_a_collapsed_model_is_said() -> None:
    scene = night()
    found = attention(scene.document(), collapse=1.5, certificates={})
    assert [one.what for one in found] == ["The loss is that of a collapsed model"]


# --- parts --------------------------------------------------------------------------------------------------------


def parts(scene: Scene, made_by: StatusParts | None = None) -> dict[str, object]:
    found = (made_by or StatusParts()).of(scene.document(), StatusContext(plan=scene.plan, model_bytes=1000))
    return json.loads(json.dumps(found, allow_nan=False))  # type: ignore[no-any-return]


def no_null(value: object) -> bool:
    return value is not None and (not isinstance(value, dict) or all(map(no_null, value.values())))


@pytest.mark.parametrize("mode", ["csfssl", "ppfssl"])
def test_parts_can_be_sent_as_merge_patches(mode: str) -> None:
    scene = night(mode)  # type: ignore[arg-type]
    scene.silence("kiel")
    assert no_null(parts(scene))


def test_in_a_ring_the_holder_is_named_and_in_a_star_nobody() -> None:
    ring, star = night("ppfssl"), night("csfssl")
    assert holder(ring.document(), ring.plan) == "nhs"
    ring.update("nhs", 10)
    assert holder(ring.document(), ring.plan) == "alts"
    assert holder(star.document(), star.plan) == ""
    assert (parts(ring)["run"]["shape"], parts(star)["run"]["shape"]) == ("ring", "star")  # type: ignore[index]


def test_the_numbers_of_a_round_stand_in_the_named_columns() -> None:
    scene = night()
    line = scene.document().ledger[2]
    row = dict(zip(COLUMNS, parts(scene)["rounds"]["3"]["sites"]["kiel"], strict=True))  # type: ignore[index]
    [given] = [one for one in line.contributions if one.site == "kiel"]
    [score] = [one for one in line.scores if one.site == "kiel"]
    assert row["images"] == given.images == 580
    assert row["loss"] == pytest.approx(given.loss, rel=1e-4)
    assert row["score"] == pytest.approx(score.loss, rel=1e-4)
    assert row["effective_rank"] == pytest.approx(score.gauges["effective_rank"], rel=1e-4)


def test_a_second_costs_few_bytes_once_a_round_has_ended() -> None:
    scene, made_by = night(sites=tuple(f"site-{number:02}" for number in range(16))), StatusParts()
    document = scene.document()
    before = made_by.of(document, StatusContext(plan=scene.plan))
    after = made_by.of(replace(document, now=document.now + 1), StatusContext(plan=scene.plan))
    assert len(json.dumps(difference(before, after))) < 200
    assert all(after["rounds"][str(n)] is before["rounds"][str(n)] for n in range(1, 12))


def test_of_a_long_run_of_many_sites_early_rounds_have_their_mean_alone() -> None:
    scene = night()
    ledger = scene.document().ledger
    found = RoundParts().of(ledger, CELLS_MAX // 4)
    assert [("sites" in found[str(line.round)]) for line in ledger] == [False] * 8 + [True] * 4
    assert all("loss" in found[str(number)] for number in range(1, 12))


def test_what_was_predicted_stands_beside_it_and_names_who_is_slow() -> None:
    site = SitePrediction(site="alts", straggler="4 times as slow: fewer steps in a round (min_steps)")
    said = PredictionStatus(
        round_low_s=40.0, round_high_s=60.0, left_low_s=123.4, left_high_s=567.8, unmeasured=("nhs",), sites=(site,)
    )
    assert prediction(replace(night().document(), prediction=said)) == {
        "round_low_s": 40.0,
        "round_high_s": 60.0,
        "left_low_s": 120.0,
        "left_high_s": 570.0,  # to ten seconds: else each second would be news
        "stragglers": {"alts": site.straggler},
        "unmeasured": "nhs",
    }
    assert prediction(replace(night().document(), prediction=None)) == {}


def test_the_time_left_is_a_range_of_what_the_last_rounds_took() -> None:
    scene = night()
    found = parts(scene)["pace"]
    assert isinstance(found, dict)
    assert found["rounds_ended"] == 11
    assert found["left_most_s"] == pytest.approx(29 * found["round_most_s"], abs=3)
    assert found["round_bytes"] == 2 * 3 * 1000
    assert found["left_bytes"] == 2 * 3 * 1000 * 29


def test_bytes_that_moved_are_those_that_were_counted() -> None:
    scene = night()
    assert "received_bytes" not in parts(scene)["pace"]  # type: ignore[operator]
    scene.lines["kiel"] = replace(scene.lines["kiel"], received_bytes=700, sent_bytes=900)
    scene.lines["nhs"] = replace(scene.lines["nhs"], received_bytes=30)
    found = parts(scene)
    assert (found["pace"]["received_bytes"], found["pace"]["sent_bytes"]) == (730, 900)  # type: ignore[index]
    assert (found["sites"]["kiel"]["received"], found["sites"]["kiel"]["sent"]) == (700, 900)  # type: ignore[index]
    assert "received" not in found["sites"]["alts"]  # type: ignore[index]


# --- the timeline -------------------------------------------------------------------------------------------------


def test_work_that_was_cut_off_is_shown_until_the_site_was_found_silent() -> None:
    scene = night()
    scene.update("alts", 10)
    scene.silence("kiel", 30)
    scene.silence("alts", 30)
    found = spans(scene)
    kiel, alts = found["kiel"][-2:], found["alts"][-2:]
    assert [one[0] for one in kiel] == ["cut", "silent"]
    assert kiel[0][2] == kiel[1][1]
    assert [one[0] for one in alts] == ["train", "silent"]  # its work is here


def spans(scene: Scene) -> dict[str, list[list[object]]]:
    line = Timeline(scene.sites, in_turns=scene.plan.mode_rules.in_turns)
    for event in scene.events:
        line.take(event)
    return {site: [*one.values()] for site, one in line.part().items()}  # type: ignore[union-attr, attr-defined]


@pytest.mark.parametrize("mode", ["csfssl", "ppfssl"])
def test_spans_of_a_site_follow_each_other_and_have_the_trained_seconds(mode: str) -> None:
    scene = night(mode)  # type: ignore[arg-type]
    for site, found in spans(scene).items():
        for (_, _, end), (_, begin, _) in itertools.pairwise(found):
            assert begin >= end
        trained = [end - begin for kind, begin, end in found if kind == "train"]
        said = [one.seconds for line in scene.document().ledger for one in line.contributions if one.site == site]
        assert trained == pytest.approx(said, abs=0.11)
        assert [kind for kind, *_ in found].count("score") == 11


def test_silence_is_open_until_the_site_is_back() -> None:
    scene = night()
    scene.silence("kiel", 60)
    kind, since = spans(scene)["kiel"][-1]
    assert (kind, since) == ("silent", scene.now)
    scene.happen(SiteAttached("kiel", scene.later(100)))
    assert spans(scene)["kiel"][-1] == ["silent", scene.now - 100, scene.now]


def test_spans_have_a_bound() -> None:
    scene = Scene("csfssl", ("nhs", "alts"), rounds=60, now=1e9)
    for _ in range(40):
        scene.train_all()
    assert {len(found) for found in spans(scene).values()} == {SPANS_MAX}


# --- the thread that watches --------------------------------------------------------------------------------------


def shown(board: Board, name: str) -> dict[str, object]:
    return dict(board.parts()[name])


def test_news_of_the_coordinator_are_shown_and_then_what_its_journal_says(tmp_path: Path) -> None:
    scene, board, stop = night(), Board(), threading.Event()
    home = home_of(tmp_path, scene)
    calls = 0

    def watched(_home: object, known: StatusDocument | None) -> Iterator[StatusDocument]:
        nonlocal calls
        calls += 1
        if calls == 1:
            assert known is None
            yield scene.document()
            assert shown(board, "source") == {}
            assert shown(board, "headline")["words"] == "All is well"
            assert len(shown(board, "timeline")["kiel"]) > 10  # type: ignore[arg-type]
        if calls == 3:
            stop.set()

    Watching(home, board, watched)(stop)
    assert "is not running" in str(shown(board, "source")["away"])
    assert shown(board, "headline")["words"] == "The coordinator is away"
    assert shown(board, "run")["round"] == 12
    assert "this coordinator" in shown(board, "certificates")


def test_while_nothing_changes_the_journal_is_read_once(tmp_path: Path) -> None:
    scene, board, stop = night(), Board(), threading.Event()
    home, rounds = home_of(tmp_path, scene), []

    def watched(_home: object, known: StatusDocument | None) -> Iterator[StatusDocument]:
        rounds.append((known.round if known else 0, board.parts().get("headline")))
        if len(rounds) == 3:
            scene.train_all()
            write(home, scene, 0 if known is None else known_events)
        if len(rounds) == 5:
            stop.set()
        yield from ()

    known_events = len(scene.events)
    Watching(home, board, watched)(stop)
    assert [round_ for round_, _ in rounds] == [0, 12, 12, 13, 13]
    assert rounds[1][1] is rounds[2][1]  # not drawn anew


def test_what_cannot_be_read_of_the_home_hides_nothing_of_the_run(tmp_path: Path) -> None:
    scene, board = night(), Board()
    home = home_of(tmp_path, scene)
    home.key_file("server.crt").write_bytes(b"damaged")
    home.results.parent.mkdir(exist_ok=True)
    Watching(home, board, lambda _home, _known: iter(())).show(scene.document())
    assert shown(board, "run")["round"] == 12
    assert len(shown(board, "timeline")["kiel"]) > 10  # type: ignore[arg-type]
    [one] = shown(board, "attention").values()
    assert one["what"] == "Certificates and keys cannot be read"  # type: ignore[index]
    assert one["do"]  # type: ignore[index]
    assert shown(board, "headline")["words"] == "One thing needs a look"


def test_what_was_wrong_with_a_coordinator_is_gone_once_it_is_away(tmp_path: Path) -> None:
    scene, board, stop = night(), Board(), threading.Event()
    home, calls = home_of(tmp_path, scene), []

    def watched(_home: object, _known: StatusDocument | None) -> Iterator[StatusDocument]:
        calls.append(str(board.parts().get("headline")))
        if len(calls) == 2:
            raise RunError("the coordinator that runs here is of another version")
        if len(calls) == 4:
            stop.set()
        yield from ()

    Watching(home, board, watched)(stop)
    assert ["no news" in words for words in calls] == [False, False, True, False]
    assert shown(board, "headline")["words"] == "The coordinator is away"
    assert "another version" not in str(shown(board, "attention"))


def test_a_home_without_a_run_says_what_to_do(tmp_path: Path) -> None:
    home, board, stop = made(tmp_path / "home"), Board(), threading.Event()

    def watched(_home: object, _known: StatusDocument | None) -> Iterator[StatusDocument]:
        if board.parts():
            stop.set()
        yield from ()

    Watching(home, board, watched)(stop)
    assert shown(board, "headline")["words"] == "Nothing to show yet"
    assert "start --mode csfssl" in str(shown(board, "attention"))


def test_a_record_that_is_written_a_moment_after_the_end_is_shown(tmp_path: Path) -> None:
    scene, board, stop = night(), Board(), threading.Event()
    home = home_of(tmp_path, scene)
    ended = replace(scene.document(), outcome="OK", reason="all rounds done")

    def watched(_home: object, _known: StatusDocument | None) -> Iterator[StatusDocument]:
        yield ended
        assert shown(board, "runs") == {}
        record = home.results / ended.run / RECORD_FILE
        record.parent.mkdir(parents=True)
        record.write_text("{}")
        yield ended
        stop.set()
        yield ended

    Watching(home, board, watched)(stop)
    assert list(shown(board, "runs")) == [ended.run]


def test_the_page_needs_no_numpy() -> None:
    """17 MB of a process that may have 120."""
    program = "import sys, coordinator.cli, coordinator.commands.operator, coordinator.page.watching, "
    program += "fedcervix.page.serving, coordinator.monitoring.facts; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
