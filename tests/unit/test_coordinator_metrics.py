"""The metrics of a coordinator: what a status becomes, what is left out, and the file for node_exporter."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from coordinator.cli import cli
from coordinator.commands.metrics import Looks
from coordinator.home.home import Home
from coordinator.home.registry import Registry
from coordinator.monitoring import names
from coordinator.monitoring.facts import CoordinatorFacts, facts
from coordinator.monitoring.measuring import measured
from coordinator.run.liveness import Line
from coordinator.run.status import overview
from coordinator.run.status_document import FailureStatus, SiteStatus, StatusDocument, WaitStatus
from fedcervix.core.events import SiteAttached
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.state import begin
from fedcervix.core.rounds.step import step
from fedcervix.disk.journal import Journal, RunRecord
from fedcervix.errors import ConfigError, StorageError
from fedcervix.monitoring import textfiles
from fedcervix.monitoring.declared import Declared, Sample
from fedcervix.monitoring.exposition import check_folder, text, write_textfile
from fedcervix.monitoring.home_metrics import Validity
from fedcervix.notify.outbox import LateMessages
from fedcervix.runtime.record import AlarmLine, ContributionLine, LedgerLine, MissingLine, ScoreLine
from tests.unit.coordinator_homes import made

NOW = 1000.0
RUN = "20300101-000000-csfssl-00000000"
Found = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def site(name: str, presence: str = "present", **told: object) -> SiteStatus:
    nothing = {"reason": "", "connected": True, "cut_at": None, "line": "", "doing": "", "stage": "", "unit": ""}
    none = {"done": 0, "of": 0, "loss": 0.0, "images_per_s": 0.0, "set_aside": 0, "lease_ends_at": None}
    held = {"calls_open": 1, "calls_refused": 0, "connections": 1}
    return SiteStatus(site=name, presence=presence, since=500.0, **{**nothing, **none, **held, **told})  # type: ignore[arg-type]


def contribution(name: str, **told: object) -> ContributionLine:
    return ContributionLine(
        **{"site": name, "images": 100, "steps": 9, "weight": 0.5, "loss": 2.5, "seconds": 60.0, **told}
    )  # type: ignore[arg-type]


def line(round_: int, *, ended: bool = True, **told: object) -> LedgerLine:
    begun = 100.0 * round_
    lines = {"contributions": (contribution("nhs"), contribution("alts")), "missing": (), "loss": 3.0 - round_ / 10}
    return LedgerLine(round=round_, begun_at=begun, ended_at=begun + 70 if ended else None, **{**lines, **told})  # type: ignore[arg-type]


def document(**told: object) -> StatusDocument:
    usual = {
        "run": RUN, "mode": "csfssl", "profile": "paper", "plan": "5" * 64, "phase": "training", "since": 700.0,
        "now": NOW, "round": 3, "rounds_max": 50, "best_round": 2, "outcome": None, "reason": "", "trouble": "",
        "sites": (site("nhs"), site("alts")), "waits": (), "failures": (), "collapse_loss": 2.7,
        "ledger": (line(1), line(2), line(3, ended=False, contributions=(), loss=None)),
    }  # fmt: skip
    return StatusDocument(**{**usual, **told})  # type: ignore[arg-type]


FACTS = CoordinatorFacts(
    now=NOW,
    federation="cervix",
    answers=True,
    certificates=(Validity("authority", "", 1.0, 9e9), Validity("site", "nhs", 10.0, 2000.0)),
    disk_free_bytes=10,
    disk_size_bytes=100,
    undelivered=(LateMessages("mail", 3, 50.0), LateMessages("webhook", 0, None)),
)


def parsed(content: bytes) -> Found:
    """Return the samples as Prometheus's own reader finds them, without the label that all have."""
    found: Found = {}
    for family in text_string_to_metric_families(content.decode()):
        assert family.documentation
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("federation") == "cervix"
            key = (sample.name, tuple(sorted(labels.items())))
            assert key not in found, "a sample stands twice: Prometheus refuses the whole text"
            found[key] = sample.value
    return found


def told(known: StatusDocument | None, told_facts: CoordinatorFacts = FACTS) -> Found:
    return parsed(text(measured(known, told_facts), {"federation": "cervix"}))


def of(found: Found, name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of a metric by the values of their labels."""
    return {
        tuple(value for _, value in labels): value
        for (one, labels), value in found.items()
        if one == f"fedcervix_{name}"
    }


def test_a_run_has_its_numbers() -> None:
    found = told(document())
    numbers = {
        name: of(found, name).get(())
        for name in ("round", "rounds_max", "best_round", "collapse_loss", "coordinator_up")
    }
    assert numbers == {"round": 3, "rounds_max": 50, "best_round": 2, "collapse_loss": 2.7, "coordinator_up": 1}
    assert of(found, "run_info") == {("csfssl", "5" * 64, "paper", RUN): 1}
    assert {key for key, value in of(found, "phase").items() if value} == {("training",)}
    assert of(found, "validation_loss") == of(found, "best_validation_loss") == {(): 2.8}
    assert of(found, "round_begun_timestamp_seconds") == {(): 300}
    assert of(found, "round_duration_seconds") == {(): 70}
    assert of(found, "site_rounds_contributed_total") == {("nhs",): 2, ("alts",): 2}
    assert of(found, "site_training_loss") == {("nhs",): 2.5, ("alts",): 2.5}


def test_each_state_of_a_site_is_one_of_a_closed_list() -> None:
    found = of(told(document(sites=(site("nhs", "silent"),))), "site_state")
    assert {state for state, value in found.items() if value} == {("nhs", "silent")}
    assert len(found) == 6


def test_what_is_not_known_is_left_out_and_is_not_0() -> None:
    """Before the first round, without a coordinator."""
    away = tuple(replace(site(name, "absent"), connected=False) for name in ("nhs", "alts"))
    known = document(round=0, best_round=0, ledger=(), sites=away, since=0.0, collapse_loss=0.0)
    found = {name for name, _ in told(known, replace(FACTS, answers=False))}
    absent = (
        "best_round", "round_begun_timestamp_seconds", "round_duration_seconds", "validation_loss", "collapse_loss",
        "site_connected", "site_connections", "transfer_bytes_total", "site_last_heard_timestamp_seconds",
        "run_outcome", "lease_expiry_timestamp_seconds", "site_training_loss", "effective_rank", "site_progress_ratio",
        "phase_since_timestamp_seconds",
    )  # fmt: skip
    assert not found & {f"fedcervix_{name}" for name in absent}
    assert "fedcervix_site_rounds_contributed_total" in found, "that it is 0 is known"


def test_before_the_first_run_there_is_the_home() -> None:
    found = told(None)
    assert of(found, "disk_free_bytes") == {("coordinator",): 10}
    assert of(found, "certificate_not_after_timestamp_seconds") == {
        ("authority", "coordinator", ""): 9e9,
        ("site", "coordinator", "nhs"): 2000,
    }
    assert not of(found, "run_info")


def test_a_site_on_the_line() -> None:
    busy = site(
        "nhs", stage="training", done=3, of=12, images_per_s=40.0, heard_at=990.0, lease_ends_at=1020.0,
        received_bytes=7, sent_bytes=9, set_aside=2, software="9.9.9",
    )  # fmt: skip
    wait = WaitStatus(site="nhs", reason="", since=400.0, cut_at=None, until=None, then="")
    found = told(document(sites=(busy, site("alts")), waits=(wait,)))
    assert of(found, "site_progress_ratio") == {("nhs",): 0.25}
    assert of(found, "site_images_per_second") == {("nhs",): 40}
    assert of(found, "site_last_heard_timestamp_seconds") == {("nhs",): 990}
    assert of(found, "lease_expiry_timestamp_seconds") == {("nhs",): 1020}
    assert of(found, "transfer_bytes_total")[("upload", "nhs")] == 7
    assert of(found, "transfer_bytes_total")[("download", "nhs")] == 9
    assert of(found, "site_version_differs") == {("nhs",): 1}
    assert of(found, "site_wait_since_timestamp_seconds") == {("nhs",): 400}
    assert not of(found, "site_wait_until_timestamp_seconds")


def test_losses_that_secure_sums_hide_are_left_out() -> None:
    hidden = (contribution("nhs", loss=0.0), contribution("alts", loss=0.0))
    assert not of(told(document(ledger=(line(1, contributions=hidden),))), "site_training_loss")


def test_a_number_that_is_not_finite_is_left_out() -> None:
    one = Declared("one", "One.")
    assert text([one.of(float("inf")), one.of(float("nan")), one.of(None)], {}) == b""


def test_alarms_and_failures_are_counted_and_their_words_are_not_shown() -> None:
    secret = "MUELLER-1961 /data/cervix INC-2030-0001"
    alarm = AlarmLine(site="nhs", what="norm", words=secret)
    failure = {"site": "alts", "stage": secret, "hint": secret, "incident": "INC-2030-0001", "at": 5.0, "kind": secret}
    failures = (FailureStatus(**failure, goes_on=False), FailureStatus(**failure, goes_on=True))  # type: ignore[arg-type]
    missing = MissingLine(site="alts", reason=secret)
    known = document(
        ledger=(line(1, alarms=(alarm, alarm)), line(2, alarms=(alarm,), missing=(missing,)), line(3)),
        failures=failures,
        reason=secret,
        trouble=secret,
        sites=(
            site("nhs", reason=secret, line=secret, stage=secret, unit=secret, doing=secret, software=secret),
            site("alts"),
        ),
    )
    content = text(measured(known, FACTS), {"federation": "cervix"})
    found = parsed(content)
    assert of(found, "alarms_total") == {("nhs",): 3, ("alts",): 0}
    assert of(found, "alarm_last_round") == {("nhs", "norm"): 2}
    assert of(found, "failures_total") == {("no", "nhs"): 0, ("yes", "nhs"): 0, ("no", "alts"): 1, ("yes", "alts"): 1}
    assert of(found, "failures_open") == {("nhs",): 0, ("alts",): 1}
    assert of(found, "site_rounds_missed_total")[("alts",)] == 1
    assert of(found, "coordinator_trouble") == {(): 1}
    assert not [word for word in (*secret.split(), "MUELLER") if word.encode() in content]


def test_a_site_cannot_make_a_series() -> None:
    """A gauge that no version of ours sends, from a site that lies."""
    gauges = {"effective_rank": 4.0, 'x"} 1\nfedcervix_evil': 1.0, "mueller": 2.0}
    score = ScoreLine(site="nhs", loss=2.0, count=9, gauges=gauges)
    found = told(document(ledger=(line(1, scores=(score,)),)))
    assert of(found, "effective_rank") == {("nhs",): 4.0}
    assert {name for name, _ in found} <= {one.full_name for one in names.NAMES}


def test_the_newest_values_of_each_site_count_also_of_one_that_was_missing_since() -> None:
    ledger = (
        line(1, contributions=(contribution("nhs", images=1), contribution("alts", images=2))),
        line(2, contributions=(contribution("nhs", images=3),)),
    )
    assert of(told(document(ledger=ledger)), "site_images") == {("nhs",): 3, ("alts",): 2}


def test_the_share_is_that_of_a_whole_round() -> None:
    """While others are still at work, the first contribution of a round is all of it."""
    whole = line(1, model="5" * 64, contributions=(contribution("nhs", norm=2.0), contribution("alts", norm=3.0)))
    half = line(2, ended=False, loss=None, contributions=(contribution("nhs", weight=1.0, images=7),))
    found = told(document(ledger=(whole, half)))
    assert of(found, "site_share_ratio") == {("nhs",): 0.5, ("alts",): 0.5}
    assert of(found, "site_step_norm") == {("nhs",): 2, ("alts",): 3}
    assert of(found, "site_images")[("nhs",)] == 7


def test_every_value_belongs_to_a_declared_metric_and_every_metric_has_a_value() -> None:
    full = site(
        "nhs", stage="training", done=1, of=2, images_per_s=1.0, heard_at=9.0, lease_ends_at=9.0, software="1.0"
    )
    score = ScoreLine(site="nhs", loss=2.0, count=9, gauges=dict.fromkeys(names.GAUGES, 0.5))
    alarm = AlarmLine(site="nhs", what="norm", words="far")
    rounds = (
        line(1, scores=(score,), alarms=(alarm,), contributions=(contribution("nhs", norm=1.0),), model="5" * 64),
        line(2),
    )
    wait = WaitStatus(site="nhs", reason="", since=1.0, cut_at=None, until=2.0, then="")
    known = document(outcome="OK", phase="finished", sites=(full,), ledger=rounds, waits=(wait,))
    assert {one.metric.name for one in measured(known, FACTS)} == {one.name for one in names.NAMES}
    assert len({one.name for one in names.NAMES}) == len(names.NAMES)
    assert all((one.kind == "counter") == one.name.endswith("_total") for one in names.NAMES)


def test_labels_are_all_given() -> None:
    with pytest.raises(ValueError, match=r"has the labels \('site',\)"):
        Sample(names.CONNECTED, 1.0, ())


def test_a_sign_of_life_is_known_to_the_second() -> None:
    """Two looks at one sign are one moment: else every line would be sent again each second."""
    plan = Plan(mode="csfssl", sites=("nhs", "alts"), profile="paper", terms=Terms(), recipe=Recipe())
    run, _ = step(begin(RUN, plan, base="5" * 64, at=0.0), SiteAttached("nhs", 1.0))
    heard = [overview(run, {"nhs": Line(True, None, ago, None, None)}, now=990.3 + ago).sites for ago in (2.0, 2.25)]
    assert [one[0].heard_at for one in heard] == [990.0, 990.0]
    assert heard[0][1].heard_at is None
    never = overview(run, {"nhs": Line(False, None, 30.0, 5.0, None)}, now=990.0)
    assert never.sites[0].heard_at is None
    assert never.collapse_loss == pytest.approx(2.70805)


# --- a home ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return made(tmp_path / "home")


def test_the_facts_of_a_home(home: Home) -> None:
    now = datetime.now(UTC)
    Registry(home.registry).invite("nhs", "77", now, now)
    found = facts(home, now, answers=False)
    assert [one.owner for one in found.certificates] == ["authority", "server", "operator"], "an invitation is none"
    assert 0 < found.disk_free_bytes <= found.disk_size_bytes
    assert found.federation == "cervix"


def test_without_a_coordinator_the_journal_is_read_and_only_when_it_changes(home: Home) -> None:
    looks = Looks(home)
    assert looks.look() == (None, False)
    with_run(home)
    known, answers = looks.look()
    assert known is not None
    assert (known.run, answers) == (RUN, False)
    assert looks.look()[0] is known, "it was not read again"
    assert of(parsed(looks.text()), "coordinator_up") == {(): 0}


def with_run(home: Home) -> None:
    plan = Plan(mode="csfssl", sites=("nhs", "alts"), profile="paper", terms=Terms(), recipe=Recipe())
    journal = Journal(home.journal)
    journal.begin(RunRecord(RUN, plan, "", 1.0))
    journal.close()


def invoked(home: Home, *words: str | Path) -> str:
    done = CliRunner().invoke(
        cli, ["--home", str(home.folder), "metrics", *map(str, words)], catch_exceptions=False, standalone_mode=False
    )
    if isinstance(done.exception, BaseException):
        raise done.exception
    return done.output


def test_the_command_prints_them(home: Home) -> None:
    assert of(parsed(invoked(home).encode()), "disk_free_bytes")


def test_the_command_writes_a_file_that_node_exporter_may_read(home: Home, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    said = invoked(home, "--textfile", tmp_path / "text")
    (file,) = (tmp_path / "text").iterdir()
    assert file.name == "fedcervix-coordinator-cervix.prom"
    assert file.name in said
    assert file.stat().st_mode & 0o777 == 0o644
    assert parsed(file.read_bytes())


def test_a_folder_that_is_not_there_is_not_made(home: Home, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder"):
        invoked(home, "--textfile", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_printed_metrics_are_of_one_moment(home: Home) -> None:
    with pytest.raises(click.UsageError, match="--every needs --textfile"):
        invoked(home, "--every", "5")


def test_a_home_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a coordinator's home"):
        invoked(Home(tmp_path / "none"))


# --- the file -------------------------------------------------------------------------------------------------------


class Turns:
    """Stands for a clock: each wait is a turn, and the last one ends it."""

    def __init__(self, count: int) -> None:
        self.left = count

    def wait(self, _seconds: float) -> bool:
        self.left -= 1
        return self.left < 0


def written(file: Path, texts: Iterable[bytes | Exception], turns: int) -> list[bytes | None]:
    """Return what stands in the file after each turn."""
    given, seen = iter(texts), []

    def read() -> bytes:
        one = next(given)
        if isinstance(one, Exception):
            raise one
        return one

    class Looked(Turns):
        def wait(self, seconds: float) -> bool:
            seen.append(file.read_bytes() if file.exists() else None)
            return super().wait(seconds)

    textfiles.keep_writing(file, read, 1.0, Looked(turns))  # type: ignore[arg-type]
    return seen


def test_the_file_is_written_again_and_removed_in_the_end(tmp_path: Path) -> None:
    file = tmp_path / "a.prom"
    assert written(file, [b"1", b"2", b"3"], 2) == [b"1", b"2", b"3"]
    assert not list(tmp_path.iterdir()), "what is no longer true does not stay"


def test_a_fault_is_said_once_and_the_file_stays_as_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full = StorageError("the disk is full", next_step="free some space")
    assert written(tmp_path / "a.prom", [b"1", full, full, b"4"], 3) == [b"1", b"1", b"1", b"4"]
    said = capsys.readouterr().err
    assert said.count("the disk is full") == 1
    assert "is written again" in said


def test_the_first_fault_ends_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nothing"):
        written(tmp_path / "a.prom", [StorageError("nothing")], 3)


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    """A thread writes texts of two lengths again and again, and each that is read is whole."""
    file, texts, stop = tmp_path / "a.prom", (b"a" * 200_000, b"b" * 100_000), threading.Event()
    write_textfile(file, texts[0])

    def write() -> None:
        while not stop.is_set():
            for one in texts:
                write_textfile(file, one)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert {file.read_bytes() for _ in range(100)} <= set(texts)
    finally:
        stop.set()
        writer.join()
    assert [one.name for one in tmp_path.iterdir()] == ["a.prom"]


def test_a_link_in_the_folder_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "a.prom").symlink_to(tmp_path / "victim")
    write_textfile(tmp_path / "a.prom", b"new")
    assert (tmp_path / "victim").read_text() == "kept"
    assert not (tmp_path / "a.prom").is_symlink()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is no folder"):
        check_folder(tmp_path / "file")
