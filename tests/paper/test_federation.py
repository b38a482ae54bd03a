"""Section II-B, sentence by sentence: the real machine, the real tasks of a site, the real average; no network.

Two small institutions, a coordinator's machine and its average sit at one table. What each is asked to do comes from
`rounds`, what it does from `tasks`, what is averaged from `aggregate`; only the messages are left out.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from fedcervix.core.events import (
    AggregateStored,
    ModelAdopted,
    ScoreReported,
    SiteAttached,
    Task,
    TaskKind,
    UpdateStored,
)
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.profiles import PROFILES
from fedcervix.core.rounds.coordinator_work import coordinator_work
from fedcervix.core.rounds.instructions import instruction
from fedcervix.core.rounds.state import Phase, Run, begin
from fedcervix.core.rounds.step import step
from fedcervix.models.aggregate import aggregate
from fedcervix.models.blobs import BlobStore
from fedcervix.models.weights import read_layout
from site_agent.data import dataset
from site_agent.data.collection import digest_of
from site_agent.home import SiteHome, create
from site_agent.network.encoder import build_encoder, load_weights
from site_agent.store import leak_guard, model_store
from site_agent.store.run_store import RunStore
from site_agent.store.task_results import ScoreResult, TrainResult
from site_agent.worker.tasks import TaskContext, do, local_names

NHS, ALTS = "nhs", "alts"
SMALL = Recipe(architecture="resnet18", image_px=32, width=8, batch_images=4, lr=0.05)
SEED = Task("run", TaskKind.SEED, 0, "")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


IMAGES = {NHS: {"train": 8, "valid": 4}, ALTS: {"train": 12, "valid": 4}}
"""one a woman, none of them labelled; 2 and 3 mini-batches of 4 in an epoch"""


def clinic(site: str, folder: Path) -> Path:
    """Write an institution's images and their manifest."""
    folder.mkdir()
    rng = np.random.default_rng(len(site))
    rows = [("image", "patient", "label", "split")]
    for split, count in IMAGES[site].items():
        for k in range(count):
            pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
            Image.fromarray(pixels).save(folder / f"{split}-{k}.png")
            rows.append((f"{split}-{k}.png", f"{split}-{k}", "", split))
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "manifest.csv"


@dataclass(frozen=True)
class Federation:
    """A finished federation."""

    run: Run
    folder: Path

    def model(self, digest: str) -> dict[str, Tensor]:
        return load_weights(BlobStore(self.folder / "blobs").path(digest))

    def updates(self, round_: int) -> dict[str, UpdateStored]:
        return {update.site: update for update in self.run.rounds[round_ - 1].contributions}

    def adopted(self, site: str) -> dict[str, Tensor]:
        return load_weights(self.folder / site / "models" / "run" / model_store.WEIGHTS)


def plan_of(mode: str, *sites: str, recipe: Recipe = SMALL, **terms: Any) -> Plan:
    return Plan(mode=mode, sites=sites, profile="paper", terms=Terms(**{"rounds": 2, **terms}), recipe=recipe)


def federate(plan: Plan, folder: Path) -> Federation:
    """Run a federation to its end."""
    benches = {site: bench_of(site, folder, plan) for site in plan.sites}
    run = begin("run", plan, base="", at=0.0)
    for site in plan.sites:
        run, _ = step(run, SiteAttached(site, 0.0))
    while not run.ended:
        work = coordinator_work(run)
        if work is not None:
            run, _ = step(run, AggregateStored(work.round, average(folder, run), 0.0))
            continue
        asked = [(site, task) for site in plan.sites if isinstance(task := instruction(run, site), Task)]
        assert asked, run
        for site, task in asked:
            run, _ = step(run, report(benches[site], task, plan))
    return Federation(run, folder)


def bench_of(site: str, folder: Path, plan: Plan) -> TaskContext:
    home = SiteHome(folder / site)
    create(home, manifest=clinic(site, folder / f"{site}-images"), threads=1)
    home.blobs.rmdir()
    (folder / "blobs").mkdir(exist_ok=True)
    home.blobs.symlink_to(folder / "blobs")  # what the network does: every model is where it is needed
    RunStore(home.run_folder("run")).open(plan)
    return TaskContext(home, site, torch.device("cpu"), lambda _: None)


def report(bench: TaskContext, task: Task, plan: Plan) -> UpdateStored | ScoreReported | ModelAdopted:
    """Let a site do a task, and put its numbers into the words of the machine."""
    if task.kind is TaskKind.ADOPT:
        model_store.adopt(bench.home, task, plan, BlobStore(bench.home.blobs))
        return ModelAdopted(bench.site, task, 0.0)
    found = do(bench, task, plan)
    if isinstance(found, ScoreResult):
        return ScoreReported(bench.site, task, found.loss_sum, found.count, found.images, (), 0.0)
    assert isinstance(found, TrainResult)
    return UpdateStored(bench.site, task, found.digest, found.images, found.steps, found.loss, 1.0, 0.0)


def average(folder: Path, run: Run) -> str:
    work, blobs = coordinator_work(run), BlobStore(folder / "blobs")
    assert work is not None
    updates = [(blobs.path(digest), weight) for digest, weight in work.updates]
    output = blobs.scratch("average")
    digest = aggregate(updates, read_layout(blobs.path(work.layout)), output, run.plan.terms.batch_norm)
    blobs.adopt(output, digest)
    return digest


def equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def csfssl(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federate(plan_of("csfssl", NHS, ALTS), tmp_path_factory.mktemp("csfssl"))


@pytest.fixture(scope="module")
def ppfssl(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federate(plan_of("ppfssl", NHS, ALTS), tmp_path_factory.mktemp("ppfssl"))


# Client-server (CSFSSL)


def test_the_server_sends_one_model_to_all_clients(csfssl: Federation) -> None:
    """II-B: "firstly, the server sends a deep model to all clients"."""
    for round_ in csfssl.run.rounds:
        assert {update.task.base for update in round_.contributions} == {round_.base}
    assert csfssl.run.rounds[0].base == csfssl.run.layout


def test_every_client_trains_on_its_own_images(csfssl: Federation) -> None:
    """II-B: "at every client, the model is fine-tuned for E-epochs with local data".

    One epoch of 8 images is 2 steps at N = 4, of 12 images 3.
    """
    updates = csfssl.updates(1)
    assert {site: update.steps for site, update in updates.items()} == {NHS: 2, ALTS: 3}
    assert updates[NHS].digest != updates[ALTS].digest


def test_the_updated_models_are_averaged_at_the_server(csfssl: Federation) -> None:
    """II-B: "the updated models from all clients are aggregated at the server"; "we use weight averaging".

    Every weight, those of the dense head included, and batch norm's running values: half of one, half of the other.
    Its step counters, 2 at nhs and 3 at alts, take the maximum.
    """
    models_of = {site: csfssl.model(update.digest) for site, update in csfssl.updates(1).items()}
    found = csfssl.model(csfssl.run.rounds[0].candidate)
    for name, tensor in found.items():
        nhs, alts = models_of[NHS][name], models_of[ALTS][name]
        if name.endswith("num_batches_tracked"):
            assert (int(nhs), int(alts), int(tensor)) == (2, 3, 3)
        else:
            assert torch.equal(tensor, ((nhs.double() + alts.double()) / 2).float()), name
    assert not torch.equal(models_of[NHS]["head.0.weight"], models_of[ALTS]["head.0.weight"])


def test_the_average_begins_the_next_iteration(csfssl: Federation) -> None:
    """II-B: the average is "used as the initialized model for the next iteration"."""
    first, second = csfssl.run.rounds
    assert second.base == first.candidate
    assert {update.task.base for update in second.contributions} == {first.candidate}


def test_every_client_ends_with_the_same_cervix_model(csfssl: Federation) -> None:
    """II-B: "This procedure continues until the deep model is trained"; then all hold the best round's model."""
    assert csfssl.run.phase is Phase.FINISHED
    best = csfssl.model(csfssl.run.best.candidate)
    assert equal(csfssl.adopted(NHS), best)
    assert equal(csfssl.adopted(ALTS), best)


# Peer-to-peer (PPFSSL)


def test_the_starting_client_trains_first_and_sends_its_model_on(ppfssl: Federation) -> None:
    """II-B: "the starting client runs SSL with its own data for E-epochs and then sends the trained model to the next".

    "... client at which SSL is performed for E-epochs using the received model as starting point".
    """
    updates = ppfssl.updates(1)
    assert updates[NHS].task.base == ppfssl.run.layout
    assert updates[ALTS].task.base == updates[NHS].digest
    assert {site: update.steps for site, update in updates.items()} == {NHS: 2, ALTS: 3}


def test_the_ring_goes_round(ppfssl: Federation) -> None:
    """II-B: "and then the updated model is sent to next client and so on": SSL is "circularly performed"."""
    first, second = ppfssl.updates(1), ppfssl.updates(2)
    assert second[NHS].task.base == first[ALTS].digest
    assert second[ALTS].task.base == second[NHS].digest


def test_nothing_is_averaged_in_the_ring_and_the_final_model_is_shared(ppfssl: Federation) -> None:
    """II-B: "This circular computation is performed for few iterations and the final model is shared"."""
    assert [round_.candidate for round_ in ppfssl.run.rounds] == [ppfssl.updates(r)[ALTS].digest for r in (1, 2)]
    best = ppfssl.model(ppfssl.run.best.candidate)
    assert equal(ppfssl.adopted(NHS), best)
    assert equal(ppfssl.adopted(ALTS), best)


def test_ppfssl_nhs_and_ppfssl_alts_are_two_runs_with_two_results(ppfssl: Federation, tmp_path: Path) -> None:
    """IV: "The first approach starts SSL training with NHS (called PPFSSL_NHS) images and the other [...] ALTS"."""
    other = federate(plan_of("ppfssl", ALTS, NHS), tmp_path)
    assert other.run.layout == ppfssl.run.layout, "both begin with the same model"
    assert other.updates(1)[ALTS].task.base == other.run.layout
    assert other.updates(1)[NHS].task.base == other.updates(1)[ALTS].digest
    assert not equal(other.adopted(NHS), ppfssl.adopted(NHS))
    starts = [model_store.read(f.folder / NHS / "models" / "run").start for f in (ppfssl, other)]
    assert starts == ["PPFSSL_NHS", "PPFSSL_ALTS"]


# E, and the optimiser between rounds


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Federation]:
    """One site, nhs, in a federation of its own: 2 rounds of 1 epoch with and without momentum, 1 of 2."""
    terms: dict[str, dict[str, Any]] = {
        "keep": {"optimiser_state": "keep"},
        "reset": {"optimiser_state": "reset"},
        "local": {"rounds": 1, "epochs_per_round": 2},
    }
    return {name: federate(plan_of("csfssl", NHS, **own), tmp_path_factory.mktemp(name)) for name, own in terms.items()}


def test_every_client_trains_independently_of_the_others(csfssl: Federation, alone: dict[str, Federation]) -> None:
    """II-B: "Then independently, at every client": what nhs does in round 1 is what it does without alts."""
    assert alone["reset"].updates(1)[NHS].digest == csfssl.updates(1)[NHS].digest


def test_e_epochs_are_trained_before_each_average(alone: dict[str, Federation]) -> None:
    """II-B: "the model is fine-tuned for E-epochs": 8 images at N = 4 are 2 steps an epoch, so 4 a round at E = 2."""
    assert alone["local"].updates(1)[NHS].steps == 4
    assert alone["reset"].updates(1)[NHS].steps == 2


def test_one_site_that_keeps_its_optimiser_is_local_training_bit_for_bit(alone: dict[str, Federation]) -> None:
    """The average of one is itself, so two rounds of one epoch are two epochs: momentum, random numbers and all."""
    assert alone["keep"].updates(2)[NHS].digest == alone["local"].updates(1)[NHS].digest


def test_by_default_momentum_is_forgotten_between_rounds(alone: dict[str, Federation]) -> None:
    """The momentum belongs to weights that the average has replaced: profile `paper` begins each round without it."""
    assert PROFILES["paper"].terms.optimiser_state == "reset"
    assert alone["reset"].updates(1)[NHS].digest == alone["keep"].updates(1)[NHS].digest
    assert alone["reset"].updates(2)[NHS].digest != alone["keep"].updates(2)[NHS].digest


# Batch norm and the weights of the average: two numbers by hand


def two_site_average(folder: Path, rule: str, weights: tuple[float, float]) -> dict[str, float]:
    """Average mean 0 and 4, variance 1 and 3, weight 10 and 30, 3 and 7 steps."""
    files = []
    for number, (mean, variance, weight, steps) in enumerate([(0.0, 1.0, 10.0, 3), (4.0, 3.0, 30.0, 7)]):
        files.append(folder / f"{number}.safetensors")
        tensors = {"bn.running_mean": mean, "bn.running_var": variance, "bn.weight": weight}
        values: dict[str, Tensor] = {name: torch.tensor([value]) for name, value in tensors.items()}
        save_file(values | {"bn.num_batches_tracked": torch.tensor(steps)}, files[-1])
    out = folder / "average.safetensors"
    aggregate(list(zip(files, weights, strict=True)), read_layout(files[0]), out, rule)  # type: ignore[arg-type]
    return {name.removeprefix("bn."): float(tensor) for name, tensor in load_weights(out).items()}


def test_the_papers_average_is_one_over_k_for_everything_but_step_counters(tmp_path: Path) -> None:
    """Where II-B is silent, `paper` averages batch norm like all weights; counters take the maximum."""
    assert (PROFILES["paper"].terms.average, PROFILES["paper"].terms.batch_norm) == ("equal", "mean")
    found = two_site_average(tmp_path, "mean", (1.0, 1.0))
    assert found == {"running_mean": 2.0, "running_var": 2.0, "weight": 20.0, "num_batches_tracked": 7}


def test_option_average_by_images_with_pooled_variance(tmp_path: Path) -> None:
    """100 and 300 images: mean 3, variance (1 + 3 x 3) / 4 = 2.5 plus the spread of the means, (9 + 3 x 1) / 4 = 3."""
    found = two_site_average(tmp_path, "pooled-variance", (100.0, 300.0))
    assert found == {"running_mean": 3.0, "running_var": 5.5, "weight": 25.0, "num_batches_tracked": 7}


@pytest.mark.parametrize(
    ("rule", "kept"), [("mean", 0), ("pooled-variance", 0), ("local-statistics", 20 * 3), ("local", 20 * 5)]
)
def test_option_batch_norm_that_stays_at_its_site_by_name(rule: str, kept: int) -> None:
    """ResNet-18 has 20 batch norms; 3 running values each, 2 weights more."""
    assert len(local_names(build_encoder(SMALL, seed=0), rule)) == kept  # type: ignore[arg-type]


def test_option_batch_norm_that_stays_at_its_site(csfssl: Federation, tmp_path: Path) -> None:
    """The first round trains and averages as it does without; each site then scores with its own batch norm."""
    federation = federate(plan_of("csfssl", NHS, ALTS, rounds=1, batch_norm="local"), tmp_path)
    [local], usual = federation.run.rounds, csfssl.run.rounds[0]
    assert local.candidate == usual.candidate
    assert all(own.loss != averaged.loss for own, averaged in zip(local.scores, usual.scores, strict=True))


# When it stops: the machine alone, with made-up scores


def digest(text: str) -> str:
    return text.encode().hex().ljust(64, "0")


def course(mode: str, losses: list[dict[str, float]], images: dict[str, int], **terms: Any) -> Run:
    """Return a run whose rounds score as given, until it is over or the scores are used up."""
    plan = plan_of(mode, *images, recipe=PROFILES["paper"].recipe, **{"rounds": 50, **terms})
    run = begin("run", plan, base=digest("first"), at=0.0)
    for site in images:
        run, _ = step(run, SiteAttached(site, 0.0))
    for number, scores in enumerate(losses, start=1):
        for site in images if run.phase is Phase.TRAINING else ():
            task = instruction(run, site)
            assert isinstance(task, Task), "in a ring the holder is the next in the roster"
            run, _ = step(run, UpdateStored(site, task, digest(f"{site}{number}"), images[site], 1, 1.0, 1.0, 0.0))
        if coordinator_work(run) is not None:
            run, _ = step(run, AggregateStored(number, digest(f"average{number}"), 0.0))
        for site, loss in scores.items() if run.phase is Phase.SCORING else ():
            run = scored(run, site, loss, images[site])
    return run


def scored(run: Run, site: str, loss: float, images: int) -> Run:
    task = instruction(run, site)
    assert isinstance(task, Task)
    run, _ = step(run, ScoreReported(site, task, 4 * loss, 4, images, (), 0.0))
    return run


both = functools.partial(dict.fromkeys, (NHS, ALTS))


@pytest.mark.parametrize("mode", ["csfssl", "ppfssl"])
def test_it_stops_after_five_rounds_without_a_lower_mean_and_keeps_the_best(mode: str) -> None:
    """III-D: "The learning stops when the validation loss is not decreasing for 5 epochs"; in a federation, rounds.

    The loss is the mean over the sites: nhs goes on falling, but what alts loses weighs more. In a ring the model that
    is scored is the one after a full cycle.
    """
    falling_and_rising = [{NHS: 2.0 - r / 10, ALTS: 2.0 + r / 5} for r in range(1, 9)]
    run = course(mode, [both(2.0), *falling_and_rising], {NHS: 100, ALTS: 300})
    assert (run.phase, len(run.rounds), run.best_round) == (Phase.PUBLISHING, 6, 1)
    task = instruction(run, NHS)
    assert isinstance(task, Task)
    assert (task.kind, task.base) == (TaskKind.ADOPT, digest("average1" if mode == "csfssl" else "alts1"))


@pytest.mark.parametrize(("average", "best"), [("equal", 1), ("by-images", 2)])
def test_the_mean_loss_has_the_weights_of_the_average(average: str, best: int) -> None:
    """Round 1 scores 1.0 and 3.0, round 2 3.0 and 2.0, at 100 and 300 images.

    In equal parts round 1 is better (2 < 2.5); by images round 2: 900 / 400 = 2.25 < 1000 / 400 = 2.5.
    """
    run = course("csfssl", [{NHS: 1.0, ALTS: 3.0}, {NHS: 3.0, ALTS: 2.0}], {NHS: 100, ALTS: 300}, average=average)
    assert run.best_round == best


@pytest.mark.parametrize(("e", "rounds"), [(1, 50), (5, 10), (10, 5)])
def test_e_is_1_5_or_10_and_rounds_times_e_never_exceed_50(e: int, rounds: int) -> None:
    """IV: "we vary the value of E i.e. local model updating for 1, 5, 10"; III-D: "epochs = 50"."""
    run = course("csfssl", [both(1 / r) for r in range(1, 60)], {NHS: 1, ALTS: 1}, epochs_per_round=e)
    assert (run.phase, len(run.rounds)) == (Phase.PUBLISHING, rounds)
    assert len(run.rounds) * e == 50


def test_federated_runs_are_at_n_8_and_e_1() -> None:
    """IV: "we evaluate the performance of both [...] models for N = 8"; "We set E = 1 for experimental similarity"."""
    paper = PROFILES["paper"]
    assert (paper.recipe.batch_images, paper.terms.epochs_per_round) == (8, 1)
    ring = plan_of("ppfssl", NHS, ALTS, recipe=paper.recipe, **dataclasses.asdict(paper.terms))
    server = dataclasses.replace(ring, mode="csfssl")
    assert ring.rounds_max == server.rounds_max == 50


@pytest.mark.parametrize("mode", ["csfssl", "ppfssl"])
def test_a_result_remembers_whose_images_this_site_gave(mode: str, request: pytest.FixtureRequest) -> None:
    """They trained it, or chose among its rounds: none of them may be a test woman of its classifiers."""
    federation: Federation = request.getfixturevalue(mode)
    for name in (NHS, ALTS):
        home = SiteHome(federation.folder / name)
        images = dataset.open_collection(home).images
        key = leak_guard.site_key(home)
        seen = leak_guard.read(home.models / "run", key, next_step="")
        used = [image for image in images if image.split != "test"]
        assert seen == key.seen(used, digest=digest_of(images), run=federation.run.plan.digest)
