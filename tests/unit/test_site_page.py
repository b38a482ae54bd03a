"""The site's page: what it shows of a home, beside the agent that works on it; and what it never shows."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedcervix.core.events import Task, TaskKind
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.disk.locks import locked
from fedcervix.errors import RunError, StorageError
from fedcervix.runtime.worker_protocol import ErrorParts
from site_agent.federation.activity import Doing, ExaminedSite, Note, here, note, write_doing, write_examined
from site_agent.home import SiteHome, create
from site_agent.page.document import document, ends_at
from site_agent.page.gpus import Gpu, Watched, read_gpus
from site_agent.page.headline import headline
from site_agent.page.reading import SILENT_S, HomeReader, Reread
from site_agent.page.seen import SeenCertificate, SeenDisk, SeenRun, SeenSite
from site_agent.page.trouble import troubles
from site_agent.page.wording import cleaner
from site_agent.store.egress import Egress
from site_agent.store.run_store import RunStore
from site_agent.store.task_results import History, ScoreResult, TrainResult

pytestmark = pytest.mark.timeout(60)
PLAN = Plan(mode="csfssl", sites=("ada", "bob"), profile="paper", terms=Terms(), recipe=Recipe())
RUN = "20261130-120000-csfssl-0badcafe"
TRAIN = Task(RUN, TaskKind.TRAIN, 3, "b" * 64)
NOW = 1_000_000.0
WORKS = Doing(
    written_at=NOW - 1, pid=7, run=RUN, state="train", since=NOW - 60, task="train in round 3", round=3,
    stage="training", stage_since=NOW - 40, done=30, of=40, unit="steps", loss=2.5, heard_at=NOW - 10,
    connected=True, line_since=NOW - 500,
)  # fmt: skip
SEEN = SeenSite(
    at=NOW, name="ada", command="site-agent --home /srv/ada", alive=True, doing=WORKS,
    run=SeenRun(name=RUN, plan=PLAN), disk=SeenDisk(free_bytes=2**40, total_bytes=2**41),
)  # fmt: skip


def as_it_is(text: str) -> str:
    return text


def keys(seen: SeenSite) -> list[str]:
    return [one.key for one in troubles(seen, as_it_is)]


# --- what is wrong ------------------------------------------------------------------------------------------------


def test_where_all_is_well_nothing_is_wrong() -> None:
    assert keys(SEEN) == []
    assert headline(SEEN, ()).level == "ok"


def test_a_killed_agent_is_the_first_thing_said_with_the_command_that_starts_it() -> None:
    seen = replace(SEEN, alive=False)
    [found] = troubles(seen, as_it_is)
    assert (found.key, found.level, found.next_step) == ("agent", "error", SEEN.command)
    assert "it was to train in round 3" in found.what
    assert found.since == WORKS.written_at
    assert headline(seen, (found,)).words == "The agent does not run"


@pytest.mark.parametrize("outcome", ["OK: the last round is done", "ABORTED: no quorum"])
def test_an_agent_of_a_run_that_is_over_may_rest(outcome: str) -> None:
    seen = replace(SEEN, alive=False, run=replace(SEEN.run, outcome=outcome))  # type: ignore[type-var]
    assert keys(seen) == []
    assert headline(seen, ()).level == ("done" if outcome.startswith("OK") else "bad")


def test_an_agent_that_a_person_stopped_is_not_called_killed() -> None:
    seen = replace(SEEN, alive=False, doing=replace(WORKS, ended="stopped", state="off"))
    [found] = troubles(seen, as_it_is)
    assert found.what == "the agent was stopped, and the run is not over"


def test_an_agent_that_failed_is_told_with_its_error_and_its_incident() -> None:
    parts = ErrorParts("the loss is not finite", "the learning rate", "lower lr")
    ended = replace(WORKS, ended="ended with an error", trouble=parts, trouble_at=NOW - 5, in_trouble=True)
    seen = replace(SEEN, alive=False, doing=ended, incident="INC-7F3A-21C4", incident_at=NOW - 5)
    [found] = troubles(seen, as_it_is)
    assert (found.what, found.next_step) == ("the agent has ended: the loss is not finite", "lower lr")
    assert found.incident == "INC-7F3A-21C4"
    [other] = troubles(replace(seen, incident_at=NOW - 900), as_it_is)
    assert other.incident == ""  # of an earlier failure


def test_a_full_disk_is_an_error_and_one_that_may_become_full_a_warning() -> None:
    run = SeenRun(name=RUN, plan=PLAN, examined=ExaminedSite(at=1.0, images=9, training_images=6, women=3,
                                                            disk_bytes=2**34))  # fmt: skip
    levels = {
        free: [one.level for one in troubles(replace(SEEN, run=run, disk=SeenDisk(free_bytes=free, total_bytes=2**40)),
                                             as_it_is)]
        for free in (0, 2**33, 2**35)
    }  # fmt: skip
    assert levels == {0: ["error"], 2**33: ["warning"], 2**35: []}


def test_after_the_first_round_the_disk_is_held_against_a_round_s_models() -> None:
    trained = {1: TrainResult(digest="d", images=3, steps=2, loss=1.0, seconds=1.0)}
    run = SeenRun(name=RUN, plan=PLAN, model_bytes=2**30, history=History(train=trained))
    part = document(replace(SEEN, run=run), as_it_is)["disk"]
    assert part["needed"] == 4 * 2**30


def test_an_agent_that_runs_and_tells_nothing_is_named_once_the_disk_is_not_the_reason() -> None:
    silent = replace(SEEN, doing=replace(WORKS, written_at=NOW - 60))
    assert keys(silent) == ["quiet"]
    assert keys(replace(silent, disk=SeenDisk(free_bytes=0, total_bytes=9))) == ["disk"]


def test_what_an_agent_does_on_a_full_disk_is_not_guessed() -> None:
    full = replace(SEEN, disk=SeenDisk(free_bytes=0, total_bytes=9))
    assert headline(full, troubles(full, as_it_is)).words == "Training in round 3"
    old = replace(full, doing=replace(WORKS, written_at=NOW - 60))
    assert headline(old, troubles(old, as_it_is)).words == "The disk is full"


def test_a_certificate_that_has_ended_is_an_error() -> None:
    ended = SeenCertificate(title="this site", not_after=NOW - 5, warning="the certificate of this site has expired")
    assert [one.level for one in troubles(replace(SEEN, certificates=(ended,)), as_it_is)] == ["error"]
    soon = replace(ended, not_after=NOW + 5)
    assert [one.level for one in troubles(replace(SEEN, certificates=(soon,)), as_it_is)] == ["warning"]


def test_errors_come_before_warnings() -> None:
    seen = replace(SEEN, alive=False, faults=(StorageError("a"), StorageError("b")), gpus_silent_s=30.0)
    assert [one.level for one in troubles(seen, as_it_is)] == ["error", "warning", "warning", "warning"]


# --- the document -------------------------------------------------------------------------------------------------


def test_the_page_can_be_sent_whatever_is_known() -> None:
    for seen in (
        SeenSite(at=NOW),
        SEEN,
        replace(SEEN, doing=None),
        replace(SEEN, alive=False),
        replace(SEEN, run=None),
    ):
        text = json.dumps(document(seen, as_it_is), allow_nan=False)
        assert "null" not in text  # in a merge patch it means that a key is gone


def test_the_end_of_a_step_follows_from_its_pace() -> None:
    assert ends_at(SEEN) == NOW - 10 + 10  # 30 steps took 30 s; 10 are left
    assert ends_at(replace(SEEN, doing=replace(WORKS, of=0))) is None
    assert ends_at(replace(SEEN, doing=replace(WORKS, stage_from=30))) is None


def test_the_timeline_of_a_killed_agent_ends_when_it_was_last_heard_of() -> None:
    run = SeenRun(name=RUN, plan=PLAN, notes=(Note(at=NOW - 60, round=3, state="train"),))
    open_span, *_ = document(replace(SEEN, run=run), as_it_is)["timeline"].values()
    assert "until" not in open_span  # type: ignore[operator]
    ended, lost = document(replace(SEEN, run=run, alive=False), as_it_is)["timeline"].values()
    assert ended["until"] == WORKS.written_at == lost["at"]  # type: ignore[index]
    assert lost["state"] == "off"  # type: ignore[index]


def test_an_agent_that_ended_with_its_run_is_not_out_of_touch() -> None:
    notes = (Note(at=NOW - 60, round=3, state="score"), Note(at=NOW - 50, round=3, state="off"))
    ended = SeenRun(name=RUN, plan=PLAN, notes=notes, outcome="OK")
    [span] = document(replace(SEEN, run=ended, alive=False), as_it_is)["timeline"].values()
    assert (span["state"], span["until"]) == ("score", NOW - 50)  # type: ignore[index]


def test_an_epoch_that_was_done_twice_counts_once_with_its_last_loss() -> None:
    twice = (Note(at=1.0, round=1, epoch=2, loss=3.0), Note(at=2.0, round=1, epoch=1, loss=4.0),
             Note(at=3.0, round=1, epoch=2, loss=2.5))  # fmt: skip
    part = document(replace(SEEN, run=SeenRun(name=RUN, plan=PLAN, notes=twice)), as_it_is)["epochs"]
    assert {epoch: row["loss"] for epoch, row in part.items()} == {"1": 4.0, "2": 2.5}  # type: ignore[index]


def test_rounds_show_what_was_trained_scored_and_sent() -> None:
    found = History(
        train={1: TrainResult(digest="d", images=60, steps=8, loss=2.5, seconds=9.0)},
        score={1: ScoreResult(loss_sum=12.0, count=4, images=60, gauges={"effective_rank": 5.5})},
    )
    row = document(replace(SEEN, run=SeenRun(name=RUN, plan=PLAN, history=found)), as_it_is)["rounds"]["1"]
    assert row == {
        "train": 2.5, "seconds": 9.0, "steps": 8, "images": 60, "score": 3.0, "scored": 4, "effective_rank": 5.5
    }  # fmt: skip


# --- words --------------------------------------------------------------------------------------------------------

CANARIES = ("Jane Doe", "DOE^JANE", "PAT-004711", "jane_doe_2.png", "19670312", "/mnt/pacs/doe/7")


@pytest.mark.parametrize("canary", CANARIES)
def test_what_names_a_woman_is_taken_out_of_an_error(canary: str) -> None:
    clean = cleaner(Path("/srv/ada"), lambda: frozenset({"Jane Doe", "DOE^JANE", "PAT-004711"}))
    text = clean(f"cannot read {canary}: the file ends too early")
    assert canary not in text
    assert text.startswith("cannot read")


def test_the_next_command_of_this_home_stays_whole() -> None:
    clean = cleaner(Path("/srv/ada"), lambda: frozenset({"ada", "srv"}))
    for text in (
        "site-agent --home /srv/ada check",
        "delete it: rm /srv/ada/runs/20261130-120000-csfssl-0badcafe/journal.json",
        "edit /srv/ada/site.toml",
    ):
        assert clean(text) == text


def test_what_the_coordinator_says_stays_and_another_quotation_goes() -> None:
    clean = cleaner(Path("/srv/ada"), lambda: frozenset({"Jane"}))
    assert clean('the coordinator refused: "the site was revoked"') == "the coordinator refused: the site was revoked"
    assert clean('the coordinator says "Jane is late"') == "the coordinator says *** is late"
    assert clean('the manifest says "Ruth is late"') == "the manifest says ***"


def test_a_text_is_cleaned_once_however_often_the_home_is_looked_at() -> None:
    """The words of a large manifest are read for it: seconds of a core, twice a second, for nothing."""
    calls: list[int] = []

    def secrets() -> frozenset[str]:
        calls.append(1)
        return frozenset({"Jane"})

    clean = cleaner(Path("/srv/ada"), secrets)
    assert [clean("Jane is late") for _ in range(3)] == ["*** is late"] * 3
    assert clean("") == ""
    assert len(calls) == 1


def test_a_picture_below_the_home_is_not_named() -> None:
    clean = cleaner(Path("/srv/ada"), frozenset)
    assert "doe" not in clean("cannot read /srv/ada/images/doe/2.png: it is damaged")
    assert "doe" not in clean("cannot read /srv/ada/runs/../images/doe.png: it is damaged")


# --- a home -------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    home = SiteHome(tmp_path / "ada")
    manifest = tmp_path / "Jane Doe" / "manifest.csv"
    manifest.parent.mkdir()
    manifest.write_text("image,patient\njane_doe_1.png,PAT-004711\n")
    create(home, coordinator="localhost:50051", manifest=manifest)
    RunStore(home.run_folder(RUN)).open(PLAN)
    return home


def read(home: SiteHome, at: float = NOW) -> SeenSite:
    return HomeReader(home, Watched(None)).read(at)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def works_in_a_container(home: SiteHome, **changed: Any) -> None:
    write_doing(home.doing, replace(WORKS, place="elsewhere", **changed))


def test_an_agent_is_alive_as_long_as_it_holds_its_lock(home: SiteHome) -> None:
    write_doing(home.doing, replace(WORKS, place=here()))
    holds = "import sys; from pathlib import Path; from fedcervix.disk.locks import locked\n"
    holds += "with locked(Path(sys.argv[1]), wait=False): print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", holds, home.lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        seen = read(home)
        assert (seen.alive, seen.pid) == (True, process.pid)
        process.kill()
        process.wait()
        assert read(home).alive is False


def test_looking_never_takes_the_lock(home: SiteHome) -> None:
    write_doing(home.doing, replace(WORKS, place=here()))
    reader = HomeReader(home, Watched(None))
    before = open_files()
    reader.read(NOW)
    assert not home.lock.exists()  # it is made by who takes it
    assert open_files() == before
    with locked(home.lock, wait=False):
        assert reader.read(NOW).alive


def test_an_agent_in_a_container_is_alive_as_long_as_it_writes(home: SiteHome) -> None:
    works_in_a_container(home)
    assert read(home).alive
    assert not read(home, at=NOW + SILENT_S).alive
    works_in_a_container(home, ended="stopped")
    assert not read(home).alive


def test_what_was_killed_here_is_not_taken_for_an_agent_elsewhere(home: SiteHome) -> None:
    if not here():
        pytest.skip("the system does not say which processes see each other")
    write_doing(home.doing, replace(WORKS, place=here()))
    assert not read(home).alive


def test_what_left_is_summed_by_round(home: SiteHome) -> None:
    ledger = Egress(home.egress, "localhost:50051")
    task = replace(TRAIN, round=2)
    with ledger.model("d" * 64, 0, 1000, task) as sent:
        sent(1000, 1000)
    left = read(home).egress
    assert left is not None
    assert (left.run.bytes, left.run.models, left.rounds[2].bytes) == (1000, 1, 1000)


def test_a_ledger_that_does_not_hold_is_a_fault_and_hides_nothing_else(home: SiteHome) -> None:
    home.egress.write_text("\nno entry~\n")
    (home.run_folder(RUN) / "history.jsonl").write_text('\n{"part": "train", "round": "x", "values": {}}')
    write_doing(home.doing, WORKS)
    parts = document(read(home), as_it_is)
    assert parts["site"]["coordinator"] == "localhost:50051"
    assert parts["agent"]["round"] == 3
    assert parts["disk"]


def test_nothing_that_names_a_woman_is_in_anything_that_is_sent(home: SiteHome) -> None:
    secret = ErrorParts(
        "cannot read jane_doe_1.png of PAT-004711", "the folder Jane Doe was moved", f"ls {home.folder.parent}/Jane Doe"
    )
    works_in_a_container(home, trouble=secret, trouble_at=NOW, in_trouble=True)
    write_examined(home.run_folder(RUN), ExaminedSite(at=1.0, images=9, training_images=6, women=3,
                                                      unreadable_for={"it ends too early": 2}))  # fmt: skip
    note(home.run_folder(RUN), Note(at=1.0, round=1, epoch=1, loss=2.0))
    home.incidents.mkdir(exist_ok=True)
    (home.incidents / "INC-7F3A-21C4.txt").write_text("Traceback: jane_doe_1.png of PAT-004711")
    reader = HomeReader(home, Watched(None))
    text = json.dumps(document(reader.read(NOW), reader.clean()))
    assert "INC-" in text
    for canary in ("jane", "Jane", "doe", "4711", "manifest.csv"):
        assert canary not in text


def test_a_folder_that_is_no_home_is_refused_before_a_page_opens(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from site_agent.cli import cli

    done = CliRunner().invoke(cli, ["--home", str(tmp_path / "none"), "page"])
    assert done.exit_code != 0
    assert "site.toml" in str(done.exception) + done.output


def test_what_has_not_changed_is_not_read_again(tmp_path: Path) -> None:
    file, calls, clock = tmp_path / "a", list[int](), [0.0]

    def make() -> int:
        calls.append(1)
        clock[0] += 1.0  # it takes a second
        return len(calls)

    kept: Reread[int] = Reread(clock_s=lambda: clock[0])
    assert [kept.of([file], make) for _ in range(3)] == [1, 1, 1]
    file.write_text("x")
    assert kept.of([file], make) == 1  # too soon for what took so long
    clock[0] += 20.0
    assert kept.of([file], make) == 2


def test_an_error_of_the_reading_is_raised_each_time(tmp_path: Path) -> None:
    kept: Reread[int] = Reread(clock_s=lambda: 0.0)
    calls: list[int] = []

    def fail() -> int:
        calls.append(1)
        raise RunError("no")

    for _ in range(2):
        with pytest.raises(RunError):
            kept.of([tmp_path / "a"], fail)
    assert len(calls) == 1  # a long ledger that is damaged is not read twice a second
    (tmp_path / "a").touch()
    with pytest.raises(RunError):
        kept.of([tmp_path / "a"], fail)
    assert len(calls) == 2


def test_a_manifest_that_cannot_be_looked_at_does_not_end_the_page(home: SiteHome, tmp_path: Path) -> None:
    """A network disk that is away answers with an error, and a person looks at the page just then."""
    config = home.config_file.read_text()
    home.config_file.write_text(config.replace("Jane Doe", "x" * 300))  # an OSError, as of a disk that is away
    works_in_a_container(home, trouble=ErrorParts("the disk is away", "why", "df"), trouble_at=NOW, in_trouble=True)
    reader = HomeReader(home, Watched(None))
    assert "the disk is away" in str(document(reader.read(NOW), reader.clean())["trouble"])


# --- GPUs ---------------------------------------------------------------------------------------------------------


class FakeNvml(SimpleNamespace):
    """NVIDIA's library: two whole GPUs, of which the second is divided into two parts."""

    NVML_DEVICE_MIG_ENABLE, NVML_TEMPERATURE_GPU = 1, 0

    class NVMLError(Exception):
        pass

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, number: int) -> str:
        return f"gpu{number}"

    def nvmlDeviceGetMigMode(self, device: str) -> tuple[int, int]:
        if device == "gpu0":
            raise self.NVMLError
        return (1, 1)

    def nvmlDeviceGetMaxMigDeviceCount(self, _device: str) -> int:
        return 3

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: str, part: int) -> str:
        if part == 2:
            raise self.NVMLError
        return f"{device}/{part}"

    def nvmlDeviceGetMemoryInfo(self, device: str) -> SimpleNamespace:
        if device == "gpu1/1":
            raise self.NVMLError
        return SimpleNamespace(total=100, used=40)

    def nvmlDeviceGetUtilizationRates(self, device: str) -> SimpleNamespace:
        assert "/" not in device
        return SimpleNamespace(gpu=0)

    def nvmlDeviceGetTemperature(self, device: str, _sensor: int) -> int:
        assert "/" not in device
        return 51

    def nvmlDeviceGetName(self, device: str) -> bytes:
        return f"NVIDIA {device}".encode()


def test_what_a_divided_gpu_does_not_tell_is_left_out_and_is_not_zero() -> None:
    whole, one, other = read_gpus(FakeNvml())
    assert whole == Gpu(name="GPU 0: NVIDIA gpu0", memory_bytes=100, memory_used_bytes=40, busy=0.0, degrees=51)
    assert one == Gpu(name="GPU 1, part 0: NVIDIA gpu1/0", memory_bytes=100, memory_used_bytes=40)
    assert other == Gpu(name="GPU 1, part 1: NVIDIA gpu1/1")
    parts = document(replace(SEEN, gpus=(whole, one, other)), as_it_is)["gpus"]
    assert parts["GPU 0: NVIDIA gpu0"]["busy"] == 0.0  # type: ignore[index]
    assert set(parts["GPU 1, part 1: NVIDIA gpu1/1"]) == {"name"}  # type: ignore[call-overload]


def test_a_driver_that_does_not_answer_is_named() -> None:
    now = [0.0]
    watched = Watched(FakeNvml(), clock_s=lambda: now[0])
    assert watched.silent_s() == 0
    now[0] = 30.0
    assert watched.silent_s() == 30.0
    assert Watched(None, clock_s=lambda: now[0]).silent_s() == 0


def test_the_page_needs_no_torch() -> None:
    program = "import sys, site_agent.page.feeding, site_agent.commands.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
