"""The agent in a run that saves bytes: what it fetches and pushes, and what it carries on through lost answers."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcervix.core import compression
from fedcervix.core.events import Answer, ScoreReported, Task, TaskKind, UpdateStored
from fedcervix.core.plan import Plan
from fedcervix.core.rounds.instructions import Idle
from fedcervix.core.session import PersistentState
from fedcervix.errors import LinkError, RemoteError, StorageError
from fedcervix.models.blobs import BlobStore
from fedcervix.models.quantization import Origin, Packing, unpack
from fedcervix.models.rounding import Rounded, round_model
from fedcervix.models.weights import write_tensors
from fedcervix.runtime.worker_protocol import OnProgress
from fedcervix.transport import codec
from site_agent.federation.compression import FILE, carried
from site_agent.store.task_results import TaskResult, TrainResult
from tests.unit.agents import FakeWorker, Site, cutting
from tests.unit.fake_link import OVER, RUN, FakeLink, plan, update

pytestmark = pytest.mark.timeout(60)

PACKINGS = ["bfloat16", "int8"]
NUMBERS = 500


def weights(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).laplace(size=NUMBERS).astype(np.float32)


def keep(blobs: BlobStore, values: np.ndarray, name: str = "made") -> str:
    made = blobs.scratch(name)
    digest = write_tensors(made, {"w": values, "steps": np.array(1, np.int64)})
    blobs.adopt(made, digest)
    return digest


class Trainer(FakeWorker):
    """Trains: what comes of a task depends on the task alone."""

    def do(self, task: Task, plan: Plan, on_progress: OnProgress, cancelled: threading.Event, **_: str) -> TaskResult:
        made = super().do(task, plan, on_progress, cancelled)
        if not isinstance(made, TrainResult):
            return made
        digest = keep(self._blobs, weights(1000 + task.round), f"trained-{task.round}")
        return dataclasses.replace(made, digest=digest)


class Federation:
    """A site whose coordinator is the test; the models that it sends lie in `there`."""

    def __init__(self, folder: Path, compression: str) -> None:
        self.there, self.terms = BlobStore(folder / "there"), {"compression": compression}
        self.packing: Packing = compression  # type: ignore[assignment]
        self.site = Site(folder / "site")
        self.restart()

    def restart(self) -> None:
        """Begin anew on the same home, as after a kill."""
        self.site.begin()
        self.site.worker = Trainer(self.site.home)
        self.site.agent._jobs._worker = self.site.worker  # type: ignore[assignment]
        for blob in self.there.path("x").parent.glob("*.safetensors"):
            self.link.models[blob.stem] = blob.read_bytes()

    @property
    def link(self) -> FakeLink:
        return self.site.link

    def publish(self, seed: int) -> str:
        """Make a model that the coordinator has as it is."""
        digest = keep(self.there, weights(seed))
        self.link.models[digest] = self.there.path(digest).read_bytes()
        return digest

    def publish_packed(self, seed: int, base: str) -> Rounded:
        """Make a model that the coordinator has packed."""
        exact = self.there.path(keep(self.there, weights(seed)))
        made = round_model(self.there, exact, self.packing, base, "", name="published")
        for digest in (made.packed, made.digest):
            self.link.models[digest] = self.there.path(digest).read_bytes()
        self.link.forms[made.digest] = compression.Packed(made.packed, base if self.packing == "int8" else "")
        return made

    def attach(self, *said: Any) -> None:
        self.site.attach(*said, **self.terms)

    def finished(self, task: Task) -> UpdateStored:
        """Return a task's update."""
        self.link.hears(update(task))
        return next(what for what in self.link.told if isinstance(what, UpdateStored) and what.task == task)

    def scored(self, task: Task) -> None:
        self.link.hears(lambda told: any(isinstance(what, ScoreReported) and what.task == task for what in told))

    def says(self, task: Task) -> None:
        self.site.says(task)

    def end(self) -> None:
        self.site.says(OVER)
        self.site.end()


def train(round_: int, base: str) -> Task:
    return Task(RUN, TaskKind.TRAIN, round_, base)


def score(round_: int, base: str) -> Task:
    return Task(RUN, TaskKind.SCORE, round_, base)


def fetched(link: FakeLink) -> list[str]:
    return [what[1] for what in link.told if isinstance(what, tuple) and what[0] == "fetch"]


def pushed(link: FakeLink) -> list[str]:
    return [what[1] for what in link.told if isinstance(what, tuple) and what[0] == "push"]


@pytest.fixture(params=PACKINGS)
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Federation:
    return Federation(tmp_path, request.param)


@pytest.fixture
def int8(tmp_path: Path) -> Federation:
    return Federation(tmp_path, "int8")


# --- models come and go packed ------------------------------------------------------------------------------------


def test_an_update_travels_packed_and_gives_the_reported_model(either: Federation, tmp_path: Path) -> None:
    base = either.publish(1)
    either.attach(train(1, base))
    told = either.finished(train(1, base))
    assert pushed(either.link) == [told.packed]
    here = BlobStore(either.site.home.blobs)
    origin = Origin(base, here.path(base)) if either.packing == "int8" else None
    again = tmp_path / "again"
    made = round_model(
        either.there, either.there.path(keep(either.there, weights(1001))), either.packing, base, "", name="again"
    )
    assert unpack(either.there.path(told.packed), again, either.packing, origin) == told.digest == made.digest
    either.end()


def test_an_average_comes_packed_to_a_site_that_holds_its_base(either: Federation) -> None:
    base = either.publish(1)
    either.attach(train(1, base))
    either.finished(train(1, base))
    average = either.publish_packed(2, base)
    either.says(score(1, average.digest))
    either.scored(score(1, average.digest))
    assert fetched(either.link) == [base, average.packed]
    here = BlobStore(either.site.home.blobs)
    assert here.path(average.digest).read_bytes() == either.there.path(average.digest).read_bytes()
    either.end()


def test_a_site_that_has_lost_the_base_fetches_the_whole_model(int8: Federation) -> None:
    average = int8.publish_packed(2, int8.publish(1))
    int8.attach(score(1, average.digest))
    int8.scored(score(1, average.digest))
    assert fetched(int8.link) == [average.digest]
    int8.end()


def test_a_packed_form_that_gives_another_model_ends_the_agent(int8: Federation) -> None:
    base = int8.publish(1)
    average, other = int8.publish_packed(2, base), int8.publish_packed(3, base)
    int8.link.forms[average.digest] = compression.Packed(other.packed, base)
    int8.attach(train(1, base))
    int8.finished(train(1, base))
    int8.says(score(1, average.digest))
    assert isinstance(int8.site.end(), RemoteError)
    assert not BlobStore(int8.site.home.blobs).has(average.digest)


@pytest.mark.parametrize("compression", ["none", "int8"])
def test_a_first_model_travels_as_it_was_made(tmp_path: Path, compression: str) -> None:
    federation, seed = Federation(tmp_path, compression), Task(RUN, TaskKind.SEED, 0, "")
    federation.attach(seed)
    told = federation.finished(seed)
    assert (pushed(federation.link), told.packed) == ([told.digest], "")
    assert told.digest == keep(federation.there, weights(1000))
    federation.end()


def test_a_first_model_in_bfloat16_travels_packed(tmp_path: Path) -> None:
    federation, seed = Federation(tmp_path, "bfloat16"), Task(RUN, TaskKind.SEED, 0, "")
    federation.attach(seed)
    told = federation.finished(seed)
    assert pushed(federation.link) == [told.packed]
    federation.end()


# --- what is carried on -------------------------------------------------------------------------------------------


def three_rounds(federation: Federation) -> list[str]:
    """Train three rounds from given models; return the digests of the updates."""
    digests, bases = [], [federation.publish(seed) for seed in (1, 2, 3)]
    federation.attach(Idle("waiting"))
    for round_, base in enumerate(bases, 1):
        federation.says(train(round_, base))
        digests.append(federation.finished(train(round_, base)).digest)
        federation.says(score(round_, base))
        federation.scored(score(round_, base))
    federation.end()
    return digests


@pytest.fixture
def undisturbed(tmp_path: Path) -> list[str]:
    return three_rounds(Federation(tmp_path / "undisturbed", "int8"))


def fresh(folder: Path, round_: int, residual: str = "") -> str:
    """Return the update of a round by itself."""
    blobs = BlobStore(folder)
    base, exact = keep(blobs, weights(round_)), keep(blobs, weights(1000 + round_))
    return round_model(blobs, blobs.path(exact), "int8", base, residual, name="fresh").digest


def test_what_an_update_left_over_is_in_the_next_one(undisturbed: list[str], tmp_path: Path) -> None:
    assert undisturbed[0] == fresh(tmp_path / "alone", 1)
    assert undisturbed[1] != fresh(tmp_path / "alone", 2)


def test_an_update_whose_answer_was_lost_is_asked_about_before_the_next_one(
    int8: Federation, undisturbed: list[str]
) -> None:
    """The coordinator took it in, but the run went on before the site heard of it."""
    base, lost = int8.publish(1), []

    def answer(report: codec.Report) -> tuple[Answer, str]:
        if not isinstance(report, UpdateStored) or report.task.round != 1:
            return Answer.ACCEPTED, ""
        if not lost:
            lost.append(report)
            int8.says(score(1, base))
            raise LinkError("the answer is lost")
        return Answer.DUPLICATE, ""

    int8.link.answers = answer
    assert three_rounds(int8) == undisturbed
    asked = [what for what in int8.link.told if isinstance(what, UpdateStored) and what.task.round == 1]
    assert [what.digest for what in asked] == [undisturbed[0]] * len(asked)
    assert len(asked) >= 2


def test_an_update_that_came_too_late_is_not_carried_on(int8: Federation, tmp_path: Path) -> None:
    def answer(report: codec.Report) -> tuple[Answer, str]:
        late = isinstance(report, UpdateStored) and report.task.round == 1
        return (Answer.STALE if late else Answer.ACCEPTED), ""

    int8.link.answers = answer
    digests = three_rounds(int8)
    assert digests[:2] == [fresh(tmp_path / "alone", 1), fresh(tmp_path / "alone", 2)]
    assert digests[2] != fresh(tmp_path / "alone", 3)


def test_a_site_killed_between_training_and_delivery_ends_with_the_same_updates(
    int8: Federation, undisturbed: list[str]
) -> None:
    """Its line is cut while it trains the second round; the process dies with the update in its folder, or before."""
    bases = [int8.publish(seed) for seed in (1, 2, 3)]
    int8.attach(train(1, bases[0]))
    digests = [int8.finished(train(1, bases[0])).digest]
    int8.says(score(1, bases[0]))
    int8.scored(score(1, bases[0]))

    int8.link.answers = cutting(int8.site)
    int8.says(train(2, bases[1]))
    first = int8.finished(train(2, bases[1])).digest
    int8.site.stop()
    int8.site.end()
    int8.site.run_store().keep(
        PersistentState()
    )  # as if it had died before it kept the update there: the round is trained again

    int8.restart()
    int8.attach(train(2, bases[1]))
    digests.append(int8.finished(train(2, bases[1])).digest)
    assert int8.site.worker.begun == [train(2, bases[1])]
    int8.says(score(2, bases[1]))
    int8.scored(score(2, bases[1]))
    int8.says(train(3, bases[2]))
    digests.append(int8.finished(train(3, bases[2])).digest)
    int8.end()
    assert first == digests[1]
    assert digests == undisturbed


def test_files_that_are_carried_on_outlive_a_delivery_and_no_others_do(int8: Federation) -> None:
    three_rounds(int8)
    here = BlobStore(int8.site.home.blobs)
    found = carried(int8.site.home.run_folder(RUN))
    files = {file.stem for file in here.path("x").parent.glob("*.safetensors")}
    assert [round_ for round_, _ in found.counted] == [2, 3]
    assert found.residuals <= files
    assert len(files) == 3  # and the model that was scored last


def test_a_damaged_note_says_what_to_do(int8: Federation) -> None:
    folder = int8.site.home.run_folder(RUN)
    folder.mkdir(parents=True)
    (folder / FILE).write_text("{")
    with pytest.raises(StorageError) as caught:
        carried(folder)
    assert "delete it" in caught.value.next_step


def test_without_compression_nothing_is_asked_and_nothing_is_kept(tmp_path: Path) -> None:
    federation = Federation(tmp_path, "none")
    federation.link.packed = None  # type: ignore[assignment]
    assert len(three_rounds(federation)) == 3
    assert not (federation.site.home.run_folder(RUN) / FILE).exists()
    assert plan().terms.compression == "none"
