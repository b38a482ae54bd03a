"""Finds out, in the worker process, what a plan would cost here (`site_agent.worker.preflight` has the values).

It does what a round does, with the learner that the rounds will use: steps on noise, scoring, the model's file. Some of
the images that are not decoded yet are decoded.
"""

from __future__ import annotations

import resource
import shutil
from collections import Counter

import torch
from torch import Tensor

from fedcervix.core.pace import NOTHING, SitePace, Span
from fedcervix.core.plan import Plan
from fedcervix.core.seeds import derive
from fedcervix.models.blobs import BlobStore
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.data.batches import batches
from site_agent.data.collection import Collection, can, require
from site_agent.data.memory import available_bytes
from site_agent.data.remarks import of_recipe, remarks
from site_agent.network.devices import name_of
from site_agent.network.encoder import Encoder
from site_agent.network.precision import resolve_precision
from site_agent.training import step_timing
from site_agent.training.context import TrainingContext
from site_agent.worker import measuring
from site_agent.worker.disk_need import CHECKPOINTS_MOST, DiskNeed, FileBytes, disk_need
from site_agent.worker.preflight import Cost, Findings
from site_agent.worker.tasks import TaskContext, local_names


def examine(bench: TaskContext, plan: Plan | None) -> Findings:
    """Look at the site's images, and try what the plan asks. Raises what a round would have raised later.

    ConfigError, DataError: the images do not suffice. TrainingError: the batch does not fit into memory.
    StorageError: there is no room for a round.
    """
    collection = bench.collection(plan.recipe if plan else None)
    used = collection.of_stages(plan.recipe.stages if plan else ())
    require(used, "pretrain")
    cost = _cost(bench, used, plan) if plan else None
    if cost:
        cost.check(bench.home.folder)
    return Findings(
        images=len(collection.images),
        training_images=len(used.contrastive("train")),
        women=len({image.woman for image in collection.images}),
        unreadable=len(collection.quarantined),
        shared_pictures=len(collection.shared_pictures),
        remarks=(
            *(remark.short() for remark in remarks(collection)),
            *(of_recipe(collection, plan.recipe) if plan else ()),
        ),
        cost=cost,
        details=bench.home.command("data check"),
        unreadable_for=dict(Counter(one.reason for one in collection.quarantined)),
        aside_for=dict(Counter(finding for one in collection.set_aside for finding in one.findings)),
    )


def _cost(bench: TaskContext, used: Collection, plan: Plan) -> Cost:
    recipe, memory_free_bytes = resolve_precision(plan.recipe, bench.device, bench.home.cache), available_bytes()
    train, valid = used.contrastive("train"), used.contrastive("valid")
    learner = bench.learner(context := _context(bench, plan))
    step = score = NOTHING
    if bench.team.alone:
        bench.on_progress(WorkProgress("timing a step"))
        step = step_timing.step_s(learner, context, len(train))
        bench.on_progress(WorkProgress("timing a score"))
        score = step_timing.score_s(learner, context, len(valid), _labelled(used))
    model = measuring.model_file(BlobStore(bench.home.blobs), learner.encoder.state_dict(), plan.terms)
    memory_bytes = _memory_bytes(bench.device)  # before images are decoded
    bench.on_progress(WorkProgress("decoding"))
    decoding = measuring.decoding(bench.home, used, (*train, *valid), recipe, bench.counted("decoding"))
    steps = batches(
        len(train),
        recipe.batch_images,
        derive(0, "order", bench.site, 1),
        patients=tuple(image.woman for image in train),
        avoid_same_patient=recipe.avoid_same_patient,
    )
    room = _room(bench, plan, learner.encoder, model, step.high * len(steps) * plan.terms.epochs_per_round)
    return Cost(
        device=name_of(bench.device),
        epochs_per_round=plan.terms.epochs_per_round,
        rounds_max=plan.rounds_max,
        pace=SitePace(
            steps=len(steps),
            **_ends("step", step),
            task_s=model.task_s,
            **_ends("score", score + Span(model.load_s, model.load_s) if score.high else score),
            **_ends("decode", decoding.seconds),
            model_bytes=model.size_bytes,
            packed_bytes=model.packed_bytes or model.vector_bytes,
            memory_bytes=memory_bytes + _images_bytes(bench, used, recipe.image_px),
            memory_free_bytes=memory_free_bytes,
            disk_bytes=room.most + decoding.size_bytes,
            disk_left_bytes=room.left + decoding.size_bytes,
            disk_free_bytes=shutil.disk_usage(bench.home.folder).free,
            gpu=bench.device.type == "cuda",
            vector_s=model.vector_s,
            mask_s=model.mask_s,
            sum_s=model.sum_s,
        ),
    )


def _context(bench: TaskContext, plan: Plan) -> TrainingContext:
    """Return what the rounds train with, but for their random numbers."""
    recipe = resolve_precision(plan.recipe, bench.device, bench.home.cache)
    machine = bench.machine
    epochs = plan.rounds_max * plan.terms.epochs_per_round
    return TrainingContext(
        recipe=recipe, seed=0, stream="timing", machine=machine, team=bench.team, epochs_total=max(epochs, 1000)
    )


def _room(bench: TaskContext, plan: Plan, encoder: Encoder, model: measuring.ModelFile, train_s: float) -> DiskNeed:
    """Return what models and checkpoints take on the disk. `train_s`: of a round; 0 where it was not timed."""
    state, numbers = encoder.state_dict(), sum(map(_bytes_of, encoder.parameters()))
    own = sum(_bytes_of(state[name]) for name in local_names(encoder, plan.terms.batch_norm))
    size = FileBytes(
        model=model.size_bytes,
        packed=model.packed_bytes,
        residual=model.size_bytes if plan.terms.compression == "int8" else 0,
        vector=model.vector_bytes,
        own=own + (numbers if plan.terms.optimiser_state == "keep" else 0),
        checkpoint=model.size_bytes + numbers,
    )
    checkpoints = int(train_s / bench.home.config().hardware.checkpoint_s) if train_s else CHECKPOINTS_MOST
    return disk_need(plan, bench.site, size, checkpoints)


def _bytes_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _ends(name: str, span: Span) -> dict[str, float]:
    return {f"{name}_low_s": span.low, f"{name}_high_s": span.high}


def _labelled(used: Collection) -> int:
    """Return how many labelled images score a model, beside the validation images."""
    if not can(used, "finetune"):
        return 0
    return len(used.labelled("train")) + len(used.labelled("valid"))


def _images_bytes(bench: TaskContext, used: Collection, side_px: int) -> int:
    """Return the memory that decoded images take: of training, of validation, and the labelled ones once more."""
    if bench.device.type == "cuda":  # the device's memory is what is measured there
        return 0
    count = len(used.contrastive("train")) + len(used.contrastive("valid")) + _labelled(used)
    return count * side_px * side_px * 3


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
