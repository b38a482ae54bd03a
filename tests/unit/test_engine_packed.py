"""The coordinator in a run that saves bytes: packed updates come in, packed averages go out, whatever is restarted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordinator.run.incoming import needed
from coordinator.run.round_average import average
from fedcervix.core.compression import packed_form
from fedcervix.core.events import Answer, Task, TaskKind, UpdateStored
from fedcervix.disk.journal import RunRecord
from fedcervix.errors import RemoteError, RunError
from fedcervix.models.aggregate import aggregate
from fedcervix.models.quantization import Origin, unpack
from fedcervix.models.rounding import Rounded, round_model
from fedcervix.models.weights import read_layout, read_tensors, write_tensors
from tests.unit.test_engine import SITES, Federation, driven, duty_of

pytestmark = pytest.mark.timeout(30)

NUMBERS = 300
PACKINGS = ["bfloat16", "int8"]


def model(weights: Any, steps: int) -> dict[str, np.ndarray]:
    return {"w": np.asarray(weights, np.float32), "bn.num_batches_tracked": np.array(steps, np.int64)}


class Packing(Federation):
    """The federation of `test_engine`, with models of a few numbers, whose sites send them packed."""

    def __init__(self, folder: Path, **terms: Any) -> None:
        super().__init__(folder, **terms)
        self.packing: Any = self.record.plan.terms.compression

    def begin(self) -> None:
        """Begin again, from a model of so many numbers."""
        first = self.blobs.scratch("first")
        base = write_tensors(first, model(np.zeros(NUMBERS), 0))
        self.blobs.adopt(first, base)
        self.record = RunRecord("packing", self.record.plan, base, 0.0)
        self.journal.begin(self.record)
        self.restart()

    def step(self, site: str, round_: int) -> np.ndarray:
        """How far a site's training moves the weights."""
        return np.random.default_rng([round_, SITES.index(site)]).laplace(size=NUMBERS) ** 3

    def rounded(self, site: str, task: Task) -> Rounded:
        base = read_tensors(self.blobs.path(task.base))["w"]
        exact = self.blobs.scratch(f"{site}-exact")
        write_tensors(exact, model(base + self.step(site, task.round), task.round))
        return round_model(self.blobs, exact, self.packing, task.base, "", name=site)

    def update(self, site: str, task: Task, made: Rounded) -> UpdateStored:
        return UpdateStored(site, task, made.digest, 10, 1, 0.5, 1.0, 0.0, made.packed)

    def train(self, site: str) -> None:
        task = self.asked(site)
        with self.engine._state.changed:  # it is known to have been brought before anything is put away
            made = self.rounded(site, task)
            self.blobs.note_brought(made.packed, site)
            self.blobs.path(made.digest).unlink()  # it travels packed; what arrives is made of that
        assert self.take(self.update(site, task, made)) is Answer.ACCEPTED
        assert self.blobs.has(made.digest)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Callable[..., Packing]]:
    with ExitStack() as stack:

        def make(name: str = "home", **terms: Any) -> Packing:
            (tmp_path / name).mkdir()
            made = Packing(tmp_path / name, **terms)
            made.begin()
            stack.callback(made.journal.close)
            made.attach()
            return made

        yield make


def weights(run: Packing) -> np.ndarray:
    found: np.ndarray = read_tensors(run.blobs.path(run.engine.run.model))["w"]
    return found


@pytest.mark.parametrize("compression", PACKINGS)
def test_restarts_between_rounds_give_the_same_digests(federation: Callable[..., Packing], compression: str) -> None:
    through, restarted = (federation(name, compression=compression) for name in ("through", "restarted"))
    with driven(through.engine):
        for _ in range(4):
            for work in (through.train, through.score):
                for site in SITES:
                    work(site)
    for _ in range(4):
        restarted.round()
        restarted.restart()
    ours, theirs = through.engine.run.rounds, restarted.engine.run.rounds
    assert len(ours) == 5
    assert [(r.candidate, r.packed, r.residual) for r in ours] == [(r.candidate, r.packed, r.residual) for r in theirs]


@pytest.mark.parametrize("compression", PACKINGS)
def test_a_site_makes_the_average_from_its_packed_form_and_the_base_that_it_holds(
    federation: Callable[..., Packing], tmp_path: Path, compression: str
) -> None:
    run = federation(compression=compression)
    with driven(run.engine):
        for site in SITES:
            run.train(site)
        task = run.asked("ada")
    form = packed_form(run.engine.run, "ada", task.base)
    assert form is not None
    origin = Origin(form.base, run.blobs.path(form.base)) if form.base else None
    arrived = tmp_path / "arrived"
    assert unpack(run.blobs.path(form.digest), arrived, run.packing, origin) == task.base
    assert arrived.read_bytes() == run.blobs.path(task.base).read_bytes()


def test_what_the_averages_round_away_is_late_but_not_lost(federation: Callable[..., Packing], tmp_path: Path) -> None:
    """After any number of rounds the published model is at most one round's rounding away from the exact averages."""
    run = federation(compression="int8")
    exact = np.zeros(NUMBERS)
    for number in range(1, 7):
        with driven(run.engine):
            before = weights(run)
            updates = []
            for site in SITES:
                run.train(site)
                [mine] = [u for u in run.engine.run.current.contributions if u.site == site]
                updates.append(read_tensors(run.blobs.path(mine.digest))["w"])
            exact += np.mean(updates, axis=0, dtype=np.float64) - before
            for site in SITES:
                run.score(site)
        left = read_tensors(run.blobs.path(run.engine.run.rounds[number - 1].residual))["residual"]
        assert np.abs(weights(run) + left - exact).max() < 1e-4
        run.restart()
    assert np.abs(weights(run) - exact).max() > 1e-3  # so there was something to carry on


def test_an_average_that_was_made_but_not_journaled_is_made_again(federation: Callable[..., Packing]) -> None:
    """Killed between the files and the journal."""
    run = federation(compression="int8")
    for _ in range(2):
        run.round()
        run.restart()
    for site in SITES:
        run.train(site)
    first = average(run.record.plan, run.blobs, duty_of(run))
    assert first.packed
    assert first.residual
    run.restart()
    assert average(run.record.plan, run.blobs, duty_of(run)) == first


def test_the_plain_average_is_what_is_rounded(federation: Callable[..., Packing], tmp_path: Path) -> None:
    run = federation(compression="bfloat16")
    for site in SITES:
        run.train(site)
    work = duty_of(run)
    plain = tmp_path / "plain"
    layout = read_layout(run.blobs.path(work.layout))
    aggregate([(run.blobs.path(digest), weight) for digest, weight in work.updates], layout, plain, "mean")
    rounded = read_tensors(run.blobs.path(average(run.record.plan, run.blobs, work).digest))["w"]
    bits = rounded.view(np.uint32)
    assert (bits & 0xFFFF == 0).all()
    assert rounded == pytest.approx(read_tensors(plain)["w"], rel=2.0**-8)


@pytest.mark.parametrize(("compression", "files"), [("bfloat16", 6), ("int8", 7)])
def test_the_disk_keeps_what_the_next_round_needs_and_no_more(
    federation: Callable[..., Packing], compression: str, files: int
) -> None:
    """The first model; the best and the last, each with its packed form; and the one that the run may go back to.

    In int8 also what the last one rounded away.
    """
    run = federation(compression=compression)
    for _ in range(4):
        run.round()
        run.restart()
    kept = {file.name.removesuffix(".safetensors") for file in run.blobs.path("x").parent.glob("*.safetensors")}
    assert kept == needed(run.engine.run)
    assert len(kept) == files


# --- updates that are not what they say ---------------------------------------------------------------------------


def arrives(run: Packing, **changes: Any) -> UpdateStored:
    """Return ada's update, changed; the model itself is not here."""
    task = run.asked("ada")
    made = run.rounded("ada", task)
    run.blobs.path(made.digest).unlink()
    update = run.update("ada", task, made)
    return UpdateStored(**{f: getattr(update, f) for f in update.__dataclass_fields__} | changes)


@pytest.mark.parametrize("compression", PACKINGS)
def test_a_packed_form_of_another_model_is_refused(federation: Callable[..., Packing], compression: str) -> None:
    run = federation(compression=compression)
    with pytest.raises(RemoteError, match="does not give the model that was announced"):
        run.take(arrives(run, digest="c" * 64))
    assert run.engine.run.current.contributions == ()
    assert not run.blobs.has("c" * 64)


def test_a_model_that_is_here_does_not_vouch_for_a_packed_form(federation: Callable[..., Packing]) -> None:
    """It goes on to others: it must be that of this model, not of whatever lies in the store."""
    run = federation(compression="int8")
    run.train("bob")
    [other] = run.engine.run.current.contributions
    with pytest.raises(RemoteError, match="does not give the model that was announced"):
        run.take(arrives(run, packed=other.packed))


def test_a_packed_form_that_is_not_here_is_asked_for(federation: Callable[..., Packing]) -> None:
    run = federation(compression="int8")
    with pytest.raises(RunError, match="is not at the coordinator"):
        run.take(arrives(run, packed="c" * 64))


def test_a_packed_form_in_a_run_without_is_refused(federation: Callable[..., Packing]) -> None:
    run = federation()
    run.packing = "int8"
    with pytest.raises(RemoteError, match="the plan has no compression"):
        run.take(arrives(run))


def test_int8_has_nothing_to_which_a_first_model_could_be_the_difference(tmp_path: Path) -> None:
    run = Packing(tmp_path, compression="int8")
    run.record = RunRecord("unseeded", run.record.plan, "", 0.0)
    run.journal.begin(run.record)
    run.restart()
    run.attach()
    task = Task("unseeded", TaskKind.SEED, 0, "")
    first = run.blobs.scratch("seed")
    digest = write_tensors(first, model(np.ones(NUMBERS), 0))
    run.blobs.adopt(first, digest)
    seed = UpdateStored("ada", task, digest, 0, 0, 0.0, 1.0, 0.0)
    with pytest.raises(RemoteError, match="the plan has no compression"):
        run.take(UpdateStored("ada", task, digest, 0, 0, 0.0, 1.0, 0.0, digest))
    assert run.take(seed) is Answer.ACCEPTED
    run.journal.close()


def test_a_first_model_in_bfloat16_is_unpacked_without_a_base(tmp_path: Path) -> None:
    run = Packing(tmp_path, compression="bfloat16")
    run.record = RunRecord("unseeded", run.record.plan, "", 0.0)
    run.journal.begin(run.record)
    run.restart()
    run.attach()
    exact = run.blobs.scratch("exact")
    write_tensors(exact, model(np.full(NUMBERS, 1 / 3), 0))
    made = round_model(run.blobs, exact, "bfloat16", "", "", name="seed")
    run.blobs.path(made.digest).unlink()
    seed = UpdateStored("ada", Task("unseeded", TaskKind.SEED, 0, ""), made.digest, 0, 0, 0.0, 1.0, 0.0, made.packed)
    assert run.take(seed) is Answer.ACCEPTED
    assert (run.engine.run.layout, run.engine.run.packed) == (made.digest, made.packed)
    assert run.blobs.has(made.digest)
    assert made.packed in needed(run.engine.run)
    run.journal.close()
