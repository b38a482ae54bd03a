"""Finds out, in the worker process, what a plan would cost here (`site_agent.worker.preflight` has the values).

Estimates, not promises: a step is timed on noise, eagerly; decoding on a few images, which are then decoded.
"""

from __future__ import annotations

import resource
import shutil
import time

import torch

from fedcervix.core.plan import Plan, Recipe
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.data import pixel_cache
from site_agent.data.collection import Collection, require
from site_agent.data.memory import available_bytes
from site_agent.data.pixel_store import Kind, opened
from site_agent.data.remarks import remarks
from site_agent.network.devices import name_of
from site_agent.network.encoder import build_encoder
from site_agent.network.precision import resolve_precision
from site_agent.training import step_timing
from site_agent.worker.preflight import Cost, Findings
from site_agent.worker.tasks import TaskContext

MODELS_AT_ONCE = 8
"""files of the model's size that lie on the disk in a round: base, update, result, checkpoints with momentum, the
adopted model, and the one that is being written"""
DECODED_FOR_TIMING = 16


def examine(bench: TaskContext, plan: Plan | None) -> Findings:
    """Look at the site's images, and try what the plan asks. Raises what a round would have raised later.

    ConfigError, DataError: the images do not suffice. TrainingError: the batch does not fit into memory.
    StorageError: there is no room for a round.
    """
    collection = bench.collection(plan.recipe if plan else None)
    require(collection, "pretrain")
    cost = _cost(bench, collection, plan) if plan else None
    if cost:
        cost.check(bench.home.folder)
    return Findings(
        images=len(collection.images),
        training_images=len(collection.contrastive("train")),
        women=len({image.woman for image in collection.images}),
        unreadable=len(collection.quarantined),
        shared_pictures=len(collection.shared_pictures),
        remarks=tuple(remark.short() for remark in remarks(collection)),
        cost=cost,
        details=bench.home.command("data check"),
    )


def _cost(bench: TaskContext, collection: Collection, plan: Plan) -> Cost:
    recipe, memory_free_bytes = resolve_precision(plan.recipe, bench.device, bench.home.cache), available_bytes()
    train = len(collection.contrastive("train"))
    steps = max(1, train // recipe.batch_images)
    bench.on_progress(WorkProgress("timing a step"))
    image_s = step_timing.encoder_pace(recipe, bench.device, steps=1) if bench.team.alone else None
    memory_bytes = _memory_bytes(bench.device)  # before images are decoded
    decode_s, decoded_bytes = _decoding(bench, collection, recipe)
    return Cost(
        device=name_of(bench.device),
        step_s=None if image_s is None else image_s * min(recipe.batch_images, train),
        steps_per_round=steps * plan.terms.epochs_per_round,
        rounds_max=plan.rounds_max,
        decode_s=decode_s,
        memory_bytes=memory_bytes,
        memory_free_bytes=memory_free_bytes,
        disk_bytes=MODELS_AT_ONCE * _model_bytes(recipe) + decoded_bytes,
        disk_free_bytes=shutil.disk_usage(bench.home.folder).free,
    )


def _decoding(bench: TaskContext, collection: Collection, recipe: Recipe) -> tuple[float, int]:
    """Return how long decoding what is not decoded yet will take, and how many bytes it will add to the disk."""
    chosen = (*collection.contrastive("train"), *collection.contrastive("valid"))
    with opened(bench.home.cache, kind := Kind(recipe.image_px, recipe.fit)) as store:
        absent = [image for image in chosen if not store.holds(bytes.fromhex(image.digest))]
    few = absent[:DECODED_FOR_TIMING]
    started = time.monotonic()
    pixel_cache.load(collection.folder, few, recipe.image_px, recipe.fit, bench.home.cache, bench.counted("decoding"))
    each_s = (time.monotonic() - started) / max(1, len(few))
    left = len(absent) - len(few)
    return each_s * left, left * kind.record_bytes


def _model_bytes(recipe: Recipe) -> int:
    with torch.device("meta"):
        state = build_encoder(recipe, 0).state_dict()
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
