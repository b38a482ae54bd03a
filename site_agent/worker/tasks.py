"""The federation's tasks as functions: model in, model or score out. Runs inside the worker process.

What a site keeps between rounds (its optimiser's momentum, its own batch-norm values, where the plan asks for them)
lies in one file per round: a round that is done again after a crash starts from exactly what it started from before.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from fedcervix.core.events import Task, TaskKind
from fedcervix.core.plan import BatchNorm, Plan, Precision, Recipe
from fedcervix.core.seeds import derive
from fedcervix.errors import ModelError, RemoteError
from fedcervix.models.blobs import BlobStore
from fedcervix.models.step_norms import vet_step
from fedcervix.models.weights import read_layout, vet, vet_values
from fedcervix.runtime.worker_protocol import OnProgress, WorkProgress
from site_agent.data import dataset
from site_agent.data.collection import Collection, digest_of
from site_agent.data.image_sets import Images
from site_agent.home import SiteHome
from site_agent.network.devices import Acceleration, Machine
from site_agent.network.encoder import (
    Encoder,
    apply_weights,
    build_encoder,
    load_weights,
    save_weights,
)
from site_agent.network.first_weights import start_encoder
from site_agent.network.optimizer import clear, optimiser_state, restore_optimiser
from site_agent.network.precision import resolve_precision
from site_agent.store import leak_guard, model_store
from site_agent.store.audit_sheets import AuditSheet
from site_agent.store.task_results import ScoreResult, TaskResult, TrainResult, UnusableResult
from site_agent.training.context import TrainingContext
from site_agent.training.ddp import ALONE, Team, agreed, check_same, leader_first
from site_agent.training.knn_probe import Probe, label_probe
from site_agent.training.loop import DivergedError, Position, StepReport, train_epochs, validation_loss
from site_agent.training.monitor import round_lines
from site_agent.training.resume import CheckpointWriter, unpack
from site_agent.training.steps import Learner, make_learner
from site_agent.training.stopping import Stop, Stoppable
from site_agent.training.update_audit import Update, audit
from site_agent.worker.disk_full_retry import with_room

ROUNDS_KEPT = 2
"""of those in which the site took part: the round before may be many rounds ago"""
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
RUNNING = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(slots=True)
class TaskContext:
    """What the worker keeps in memory between tasks: the site's decoded images, its device."""

    home: SiteHome
    site: str
    device: torch.device
    on_progress: OnProgress
    acceleration: Acceleration = "eager"
    team: Team = ALONE
    stop: Stop = field(default_factory=Stop)
    roster: str = ""
    """digest of the run's openings, where it has secure sums"""
    _collection: Collection | None = None
    _images: dict[tuple[str, Recipe], Images] = field(default_factory=dict)
    _probes: dict[Recipe, Probe] = field(default_factory=dict)
    _learner: tuple[Recipe, Learner] | None = None

    def collection(self, recipe: Recipe | None = None) -> Collection:
        """Return the site's collection; indexed at most once per process, for training by the recipe if it is known."""
        if self._collection is None:
            counted = (self.counted("reading images"), self.counted("comparing images"))
            self._collection = dataset.open_collection(self.home, *counted, recipes=[recipe] if recipe else ())
        return self._collection

    def images(self, recipe: Recipe, split: str) -> Images:
        """Return the site's images for contrastive learning; decoded at most once per process."""
        if (split, recipe) not in self._images:
            collection, counted = self.collection(recipe), self.counted("decoding")
            self._images[split, recipe] = dataset.contrastive(self.home, collection, recipe, split, counted)
        return self._images[split, recipe]

    def probe(self, recipe: Recipe) -> Probe:
        """Return what scores an encoder by the site's labels; their images are decoded at most once per process."""
        if recipe not in self._probes:
            counted = (self.counted("decoding"), self.counted("comparing neighbours"))
            self._probes[recipe] = label_probe(self.home, self.collection(recipe), recipe, self.device, *counted)
        return self._probes[recipe]

    @property
    def machine(self) -> Machine:
        """What it trains on, and how a step is made."""
        return Machine(self.device, self.acceleration)

    def training(self, plan: Plan, task: Task, recipe: Recipe) -> TrainingContext:
        """Return what a task of a plan is done with; the recipe is the plan's with its precision settled."""
        return TrainingContext(
            recipe=recipe,
            seed=run_seed(plan, task),
            stream=self.site,
            machine=self.machine,
            team=self.team,
            epochs_total=plan.rounds_max * plan.terms.epochs_per_round,
        )

    def learner(self, context: TrainingContext) -> Learner:
        """Return the learner of this recipe; made once, so that nothing is compiled or captured in every round."""
        if self._learner is None or self._learner[0] != context.recipe:
            learner = make_learner(build_encoder(context.recipe, 0), context, proximal=True)
            self._learner = (context.recipe, learner)
        return self._learner[1]

    def counted(self, stage: str) -> Callable[[int, int], None]:
        """Return what says, at this stage, how many images are done. No stage is silent (see `hang_detection`)."""
        return lambda done, of: self.on_progress(WorkProgress(stage, done, of, "images"))


def do(bench: TaskContext, task: Task, plan: Plan) -> TaskResult | None:
    """Do a task; return what it gave. None at a follower of a team: its leader has the result.

    A model that gives no finite loss is a result as well: others may have made it, and what follows is decided by what
    all sites find.
    """
    try:
        return _DO[task.kind](bench, task, plan)
    except DivergedError as error:
        return UnusableResult(steps=error.steps, said=unusable_lines(task, error))


def unusable_lines(task: Task, error: DivergedError) -> tuple[str, ...]:
    """Return what is said at the site of a model that it cannot use."""
    begun = f" after {error.steps} steps" if task.kind is TaskKind.TRAIN else ""
    return (
        f"this site cannot use the model that it was given{begun}: {error.found}",
        "  the coordinator is told; it decides when all sites have reported. No action is needed at this site",
    )


def _seed(bench: TaskContext, task: Task, plan: Plan) -> TrainResult:
    started = time.monotonic()
    weights = model_store.start_weights(bench.home, plan.recipe)
    encoder = start_encoder(plan.recipe, first_seed(plan.terms.seed, bench.roster), weights, download=False)
    digest = _keep(bench, task, encoder.state_dict())
    return TrainResult(digest=digest, images=0, steps=0, loss=0.0, seconds=time.monotonic() - started)


def first_seed(seed: int, roster: str = "") -> int:
    """Return the seed of a run's first model: the same one wherever it is made.

    `roster`: digest of the openings of a run with secure sums. Its first model is new, so it was in no sum before.
    """
    return derive(seed, "first-model", *filter(None, [roster]))


def run_seed(plan: Plan, task: Task) -> int:
    """Return the seed of a task's random numbers: the plan's.

    TRUST 5: "without the run's id in it, two runs that differ by one site would give that site's update as the
    difference of two sums. So secure runs mix the run's id into the seeds." So do the attempts at a round.
    """
    if not plan.terms.secure_sum:
        return plan.terms.seed
    return derive(plan.terms.seed, "secure-sum", task.run, task.attempt)


def _train(bench: TaskContext, task: Task, plan: Plan) -> TrainResult | None:
    """Train E epochs (paper, II-B: "at every client, the model is fine-tuned for E epochs with local data")."""
    recipe = _agreed_recipe(bench, plan)
    with leader_first(bench.team):  # who decodes; the others find the squares in the cache
        images = bench.images(recipe, "train")
    if bench.team.leads:
        _remember(bench, task, plan)
    bench.on_progress(WorkProgress("training", unit="steps"))
    started = time.monotonic()
    context = bench.training(plan, task, recipe)
    learner = _ready(bench, task, plan, context)
    contract = _contract(bench, task, plan, recipe)
    checkpoints = _checkpoints(bench, task, contract)
    kept = checkpoints.latest()
    at = unpack(kept, learner).position if kept else None
    if at:
        bench.on_progress(WorkProgress("resuming", unit="steps", note=_goes_on(at, task, plan)))
    check_same(contract, "model, images and plan", bench.team)
    check_same(f"{at.epoch} {at.step}" if at else "", "checkpoint", bench.team)
    with bench.stop.waits_for_checkpoint():
        records = train_epochs(
            learner,
            images,
            context,
            _epochs(task, plan),
            on_step=_step_progress(bench, plan, started),
            at=at,
            keeper=CheckpointWriter(checkpoints, learner) if bench.team.leads else None,
        )
        if not bench.team.leads:
            return None
        digest, steps = _keep(bench, task, learner.encoder.state_dict()), sum(record.steps for record in records)
        _check_fit(bench, task, plan, digest, steps)
        with_room(lambda: _keep_own(bench, task, plan, learner), bench.on_progress, threading.Event().wait)
    result = TrainResult(
        digest=digest,
        images=len(images),
        steps=steps,
        loss=records[-1].loss,
        seconds=time.monotonic() - started,
        gauges=dataclasses.asdict(records[-1].gauges),
        precision=recipe.precision,
        base=task.base,
        audit=_audited(bench, Update(task.round, task.base, digest), context),
    )
    return dataclasses.replace(result, said=round_lines(result, recipe))


def _audited(bench: TaskContext, update: Update, context: TrainingContext) -> AuditSheet | None:
    """Return what an attacker would learn from an update, where the site's policy asks."""
    if bench.home.config().policy.audit_max_auc == 1:
        return None
    counted = (bench.counted("decoding"), bench.counted("auditing"))
    return audit(bench.home, bench.collection(), update, context, *counted)


def _epochs(task: Task, plan: Plan) -> range:
    """Return the numbers of a round's epochs in the whole run; the first is 1."""
    return range(1 + (task.round - 1) * plan.terms.epochs_per_round, 1 + task.round * plan.terms.epochs_per_round)


def _check_fit(bench: TaskContext, task: Task, plan: Plan, digest: str, steps: int) -> None:
    """Check a trained model as the coordinator will: a site is not refused for a model that it was given.

    Raises DivergedError.
    """
    blobs = BlobStore(bench.home.blobs)
    update, base = blobs.path(digest), blobs.path(task.base)
    try:
        vet(update, read_layout(base))
        vet_step(update, base, plan.terms.step_max)
    except RemoteError as error:
        told = {"cause": error.cause, "next_step": error.next_step}
        raise DivergedError(error.what, **told, found=error.what, steps=steps) from error


def _remember(bench: TaskContext, task: Task, plan: Plan) -> None:
    """Write down whose images this round of the run uses, before it uses them."""
    collection, key = bench.collection(), leak_guard.site_key(bench.home)
    trained = collection.of_stages(plan.recipe.stages)
    used = (image for split in ("train", "valid") for image in trained.contrastive(split))
    seen = key.seen(used, digest=digest_of(collection.images), run=plan.digest)
    before = model_store.seen_by_start(bench.home, plan.recipe)
    leak_guard.remember(bench.home.run_folder(task.run), key, before | seen)


def _agreed_recipe(bench: TaskContext, plan: Plan) -> Recipe:
    """Return the recipe with its precision settled, by the leader for all."""
    own = resolve_precision(plan.recipe, bench.device, bench.home.cache) if bench.team.leads else plan.recipe
    return dataclasses.replace(own, precision=cast(Precision, agreed(own.precision, bench.team)))


def _ready(bench: TaskContext, task: Task, plan: Plan, context: TrainingContext) -> Learner:
    """Return a learner that holds the round's model, and the momentum of the round before where the plan keeps it."""
    learner = bench.learner(context)
    _load(bench, task, learner.encoder)
    clear(learner.optimiser)
    own = _own_latest(bench, task.run, task.round - 1)
    if plan.terms.optimiser_state == "keep" and own is not None:
        restore_optimiser(learner.optimiser, learner.encoder, _part(load_weights(own), "optimiser."))
    learner.anchors.set(learner.encoder)
    return learner


def _contract(bench: TaskContext, task: Task, plan: Plan, recipe: Recipe) -> str:
    """Return what a checkpoint within this task depends on; the recipe is the plan's with its precision settled."""
    images = bench.collection().digest
    again = f" attempt {task.attempt}" if task.attempt > 1 else ""
    return f"{task.run} {task.round}{again} {task.base} {plan.digest} {recipe.precision} {bench.site} {images}"


def _goes_on(at: Position, task: Task, plan: Plan) -> str:
    epochs = plan.terms.epochs_per_round
    epoch = at.epoch - (task.round - 1) * epochs
    return f"continues from its checkpoint: epoch {epoch} of {epochs}, after step {at.step}"


def _checkpoints(bench: TaskContext, task: Task, contract: str) -> Stoppable:
    """Return the checkpoints of a task, and drop those of others: they were settled, or there would not be this one.

    Those of the task itself stay until then: its result is not kept by the agent yet.
    """
    interval_s = bench.home.config().hardware.checkpoint_s
    checkpoints = Stoppable(bench.home.run_folder(task.run), contract, bench.stop, interval_s=interval_s)
    if bench.team.leads:
        checkpoints.drop_others()
    return checkpoints


def _step_progress(bench: TaskContext, plan: Plan, started: float) -> Callable[[StepReport], None]:
    trained = 0

    def on_step(step: StepReport) -> None:
        nonlocal trained
        trained += step.images
        done = (step.epoch - 1) % plan.terms.epochs_per_round * step.steps + step.step
        of, pace = step.steps * plan.terms.epochs_per_round, trained / max(1e-9, time.monotonic() - started)
        ended = step.epoch if step.step == step.steps else 0
        bench.on_progress(WorkProgress("training", done, of, "steps", step.loss_sum / step.step, pace, epoch=ended))

    return on_step


def _score(bench: TaskContext, task: Task, plan: Plan) -> ScoreResult:
    """Score the round's model on this site's validation images."""
    _checkpoints(bench, task, "none: scoring is short and is repeated after a restart")
    recipe = resolve_precision(plan.recipe, bench.device, bench.home.cache)
    context = bench.training(plan, task, recipe)
    images, encoder = bench.images(recipe, "valid"), bench.learner(context).encoder
    _remember(bench, task, plan)
    _load(bench, task, encoder)
    score = validation_loss(encoder, images, context, bench.counted("validating"))
    result = ScoreResult(
        loss_sum=score.loss_sum,
        count=score.count,
        images=len(bench.images(recipe, "train")),
        gauges=dataclasses.asdict(score.gauges),
        knn_auc=_probed(bench.probe(recipe), encoder),
    )
    return dataclasses.replace(result, said=round_lines(result, recipe))


def _probed(probe: Probe, encoder: Encoder) -> float | None:
    """Return the area under the curve of the nearest neighbours; None where features are not finite numbers."""
    try:
        return probe(encoder)
    except ValueError:
        return None


_DO: dict[TaskKind, Callable[[TaskContext, Task, Plan], TaskResult | None]] = {
    TaskKind.SEED: _seed,
    TaskKind.TRAIN: _train,
    TaskKind.SCORE: _score,
}


# --- what stays at the site ---------------------------------------------------------------------------------------


def _load(bench: TaskContext, task: Task, encoder: Encoder) -> None:
    """Load the task's base model, with this site's own batch-norm values where the plan keeps them local.

    Raises RemoteError where it holds numbers that no model has: an honest coordinator sends none; DivergedError where
    it is not the plan's network.
    """
    file = BlobStore(bench.home.blobs).path(task.base)
    vet_values(file)
    state = load_weights(file)
    try:
        apply_weights(encoder, state, what=f"the model of {task}")
    except ModelError as error:  # whoever made the first model made another network: no fault of this site's
        told = {"cause": error.cause, "next_step": error.next_step}
        raise DivergedError(error.what, **told, found=error.what, steps=0) from error
    last = task.round - (task.kind is TaskKind.TRAIN)
    own = _own_latest(bench, task.run, last)
    if own is not None:
        encoder.load_state_dict({**encoder.state_dict(), **_part(load_weights(own), "model.")})


def _keep(bench: TaskContext, task: Task, state: dict[str, Tensor]) -> str:
    """Keep a model that was made. Until then it is in memory alone, so a full disk is waited for, here."""
    return with_room(lambda: _write(bench, task, state), bench.on_progress, threading.Event().wait)


def _write(bench: TaskContext, task: Task, state: dict[str, Tensor]) -> str:
    blobs = BlobStore(bench.home.blobs)
    making = blobs.scratch(f"{task.kind}-{task.round}")
    digest = save_weights(making, state)
    blobs.adopt(making, digest)
    return digest


def _keep_own(bench: TaskContext, task: Task, plan: Plan, learner: Learner) -> None:
    """Keep what does not travel, for the next round; a few rounds back, because a round may be done again."""
    state = learner.encoder.state_dict()
    kept = {f"model.{name}": state[name] for name in local_names(learner.encoder, plan.terms.batch_norm)}
    if plan.terms.optimiser_state == "keep":
        momentum = optimiser_state(learner.optimiser, learner.encoder)
        kept |= {f"optimiser.{name}": tensor for name, tensor in momentum.items()}
    if not kept:
        return
    file = bench.home.run_folder(task.run) / f"own-{task.round}.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    save_weights(file, kept)
    for older in superseded(_own_files(bench, task.run), task.round):
        older.unlink(missing_ok=True)


def local_names(encoder: nn.Module, rule: BatchNorm) -> list[str]:
    """Return the tensors that stay at the site under a batch-norm rule."""
    if rule not in ("local-statistics", "local"):
        return []
    norms = [name for name, module in encoder.named_modules() if isinstance(module, NORMS)]
    kept = RUNNING if rule == "local-statistics" else (*RUNNING, "weight", "bias")
    return [f"{norm}.{part}" for norm in norms for part in kept]


def _own_files(bench: TaskContext, run: str) -> dict[int, Path]:
    """Return what was kept, by round, in order."""
    files = bench.home.run_folder(run).glob("own-*.safetensors")
    found = ((int(file.stem.removeprefix("own-")), file) for file in files)
    return dict(sorted(found))


def superseded(kept: Mapping[int, Path], last: int) -> list[Path]:
    """Return the files (by round, in order) that no round done again will ask for, now that round `last` is done."""
    return [file for round_, file in kept.items() if round_ <= last][:-ROUNDS_KEPT]


def _own_latest(bench: TaskContext, run: str, last: int) -> Path | None:
    """Return what was kept in round `last`, or in the last round before it in which this site took part."""
    earlier = [file for round_, file in _own_files(bench, run).items() if round_ <= last]
    return earlier[-1] if earlier else None


def _part(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
