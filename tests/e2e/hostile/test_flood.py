"""One site floods journal and disk: the others do not notice, the operator does, and every command works.

The attacker has a certificate of the federation, and speaks the protocol on a line of its own. What each attack did
before stands in its test.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fedcervix.core.events import Answer, SiteFailed, Task, TaskKind, UpdateStored
from fedcervix.disk.reserve import Reserve
from fedcervix.errors import IdentityError, LinkError, RemoteError, RunError, StorageError
from fedcervix.models.blobs import BlobStore
from fedcervix.models.weights import write_tensors
from fedcervix.transport import codec, rpc
from site_agent.federation.link import GrpcLink
from tests.e2e.disks import MayNotMountError, fill, small_disk
from tests.e2e.loopback import Federation, call, federation, until

pytestmark = pytest.mark.timeout(120)

SITES = ("nhs", "alts", "mallory")
QUORUM = {"quorum": 2, "grace_s": 0.0, "rounds": 1, "epochs_per_round": 1}
LONG = "\U0001f600" * 600
"""a character that takes twelve bytes in ASCII's JSON"""
REPORTS = 1_500
MODEL_NUMBERS = 1_000_000
MODEL_BYTES = 4 * MODEL_NUMBERS


def flood(link: GrpcLink, count: int) -> list[Answer | None]:
    """Report so many failures, each as long as may be; None: the call itself was one too many."""
    answers: list[Answer | None] = []
    for number in range(count):
        report = SiteFailed("mallory", LONG, LONG, f"{number:040}", 0.0, goes_on=True)
        message = codec.write_report(report, 0.0)  # an attacker's site does not filter what it sends
        try:
            answers.append(codec.read_answer(link._call(rpc.REPORT, message))[0])
        except (LinkError, RunError):
            answers.append(None)
    return answers


def journal_bytes(made: Federation) -> int:
    return sum(file.stat().st_size for file in made.home.folder.glob("journal.db*"))


def seen(made: Federation, site: str) -> dict[str, object]:
    found: dict[str, object] = next(one for one in made.overview()["sites"] if one["site"] == site)
    return found


def coordinator(made: Federation, *words: str) -> tuple[int, str]:
    return call("coordinator", "--home", made.home.folder, *words, cwd=made.folder)


@contextlib.contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_a_flood_of_failures_leaves_the_journal_short_and_the_round_goes_on(
    federate: Callable[..., Federation],
) -> None:
    """Before: 412 reports a second of 21.6 KB each, 95 MB of journal in 10 s, 215 MB of memory at the next start."""
    made = federate(sites=SITES, terms=QUORUM)
    process = made.coordinate("--mode", "csfssl")
    for site in SITES:
        made.enrol(site)
    attacker, calls_s = made.link("mallory"), []
    answers: list[Answer | None] = []
    with meanwhile(lambda: answers.extend(flood(attacker, REPORTS))):
        nhs, alts = (made.light(site, "--pace-s", "1") for site in ("nhs", "alts"))
        made.until("honest sites train", lambda now: now["round"] == 1)
        alts.signal(signal.SIGSTOP)  # so that the run is not over before the flood
        for _ in range(20):
            begun_s = time.monotonic()
            made.overview()
            calls_s.append(time.monotonic() - begun_s)
    assert sorted(calls_s)[-2] < 10.0, "the operator is answered"
    assert answers.count(Answer.ACCEPTED) <= 100 + 60, "and what little comes back with time and round"
    assert set(answers) <= {Answer.ACCEPTED, Answer.DUPLICATE, None}, "an agent that is honest goes on"
    assert journal_bytes(made) < 5 * 2**20
    set_aside = int(str(seen(made, "mallory")["set_aside"]))
    assert set_aside >= answers.count(Answer.DUPLICATE) > 0
    assert seen(made, "nhs")["set_aside"] == 0
    assert "reports set aside" in coordinator(made, "status")[1]
    assert 1 <= process.text.count('"event": "reports set aside"') <= 3
    assert coordinator(made, "revoke", "mallory")[0] == 0
    with pytest.raises(IdentityError):
        flood(attacker, 1)
    alts.signal(signal.SIGCONT)
    made.finish(process, nhs, alts, code=20)
    assert [one["site"] for one in made.record()["ledger"][0]["contributions"]] == ["nhs", "alts"]


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Federation]:
    """Yield a federation whose coordinator has a disk of 80 MiB, and runs."""
    try:
        with (
            small_disk(tmp_path / "small" / "coordinator", 80 << 20) as disk,
            federation(disk.parent, sites=SITES, terms=QUORUM) as made,
        ):
            made.coordinate("--mode", "csfssl")
            made.enrol("nhs")
            made.enrol("mallory")
            yield made
    except MayNotMountError as error:
        pytest.skip(str(error))


def test_every_command_works_on_a_disk_without_a_free_byte(full: Federation) -> None:
    """Before: `revoke` ended with 8, and a coordinator that was stopped could not start again."""
    attacker, honest = full.link("mallory"), full.link("nhs")
    ballast = fill(full.home.folder)
    assert flood(attacker, 200).count(Answer.ACCEPTED) > 50  # what is within the allowance is written down
    fill(full.home.folder)
    honest.report(codec.Ping())
    for words in (["status"], ["revoke", "mallory"], ["stop"]):
        code, text = coordinator(full, *words)
        assert code == 0, text
        with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0" * 4096):  # another program takes every byte that comes free
                pass
    assert full.processes[0].ended() == 130
    assert coordinator(full, "status")[0] == 0
    again = full.coordinate()
    assert seen(full, "mallory")["presence"] == "revoked"
    assert "MiB are left of the reserve" in full.overview()["trouble"]
    with pytest.raises(IdentityError):
        flood(attacker, 1)
    assert coordinator(full, "abort")[0] == 0
    assert again.ended() == 21
    ballast.unlink()


def test_a_site_is_refused_at_once_also_where_that_cannot_be_written_down(full: Federation) -> None:
    """Before: `revoke` ended with 8 before it had spoken with the coordinator, and the site went on."""
    attacker = full.link("mallory")
    attacker.report(codec.Ping())
    Reserve.beside(full.home.journal).path.unlink()
    ballast = fill(full.home.folder)
    code, text = coordinator(full, "revoke", "mallory")
    assert code == StorageError.exit_code
    assert "the running coordinator refuses mallory from now on, but this could not be saved" in text
    assert f"next: free some space (df -h {full.home.folder}), then coordinator --home" in text
    with pytest.raises(IdentityError, match="revoked"):
        flood(attacker, 1)
    ballast.unlink()
    assert coordinator(full, "revoke", "mallory")[0] == 0


def test_models_that_are_never_reported_do_not_fill_the_disk(federate: Callable[..., Federation]) -> None:
    """Before: one after another lay there until the round's end, the honest upload waited, and `trouble` was empty."""
    made = federate(sites=("nhs", "mallory"), terms={**QUORUM, "quorum": 1})
    process = made.coordinate("--mode", "csfssl")
    plan = made.plan("csfssl")
    lines = {}
    for site in made.sites:
        made.enrol(site)
        lines[site] = made.link(site)
        run = lines[site].welcome()
        assert isinstance(run, codec.Welcome)
        lines[site].report(codec.Ready(run.run, plan.digest))
    models = BlobStore(made.folder / "models")

    def model(value: float) -> str:
        making = models.scratch("model")
        digest = write_tensors(making, {"w": np.full(MODEL_NUMBERS, value, np.float32)})
        models.adopt(making, digest)
        return digest

    def push(site: str, digest: str) -> None:
        lines[site].push(digest, models, lambda _done, _of: None)

    def report(site: str, task: Task, digest: str) -> Answer:
        return lines[site].report(UpdateStored(site, task, digest, 10, 1, 0.5, 1.0, 0.0))[0]

    def stored_bytes() -> int:
        return sum(file.stat().st_size for file in made.home.blobs.rglob("*") if file.is_file())

    push("nhs", first := model(0.0))
    assert report("nhs", Task(run.run, TaskKind.SEED, 0, ""), first) is Answer.ACCEPTED
    train = Task(run.run, TaskKind.TRAIN, 1, first)
    for value in range(1, 9):
        push("mallory", model(value))
        assert stored_bytes() < 2.1 * MODEL_BYTES
    push("nhs", honest := model(-1.0))
    assert report("nhs", train, honest) is Answer.ACCEPTED
    assert coordinator(made, "revoke", "mallory")[0] == 0
    until("nothing of it is left", lambda: not list((made.home.blobs / "incoming" / "mallory").iterdir()))
    kept = {f"{digest}.safetensors" for digest in (first, honest)}
    until("nor its model", lambda: {file.name for file in made.home.blobs.glob("*.safetensors")} <= kept)
    with pytest.raises((IdentityError, RunError, RemoteError)):
        push("mallory", model(99.0))
    process.end()
