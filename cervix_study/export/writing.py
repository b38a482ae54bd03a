"""A model and its card, as files for others: safetensors, ONNX that was checked, card.md and card.json.

The folder is filled once the ONNX file has given the network's own answers; before that nothing is written.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from cervix_study.export import card
from cervix_study.export.model_source import Released
from fedcervix.disk.files import write_whole
from fedcervix.disk.storage import disk, read_file
from fedcervix.errors import ModelError
from site_agent.classifier import trainings
from site_agent.classifier.finetune import Network
from site_agent.classifier.onnx_export import TOLERANCE, Parity, to_onnx
from site_agent.network.encoder import Encoder, apply_weights, build_encoder, load_weights

ONNX_FILES = {"cervix model": "cervix-model.onnx", "classifier": "classifier.onnx"}
WEIGHTS_FILES = {"cervix model": "cervix-model.safetensors", "classifier": "classifier.safetensors"}
CARD_FILE = "card.md"
CARD_JSON_FILE = "card.json"


def export(model: Released, folder: Path) -> tuple[tuple[Path, ...], Parity]:
    """Write a model's files into `folder`; return their paths and the parity. Raises ModelError, StorageError."""
    weights = read_file(model.weights)
    digest = hashlib.sha256(weights).hexdigest()
    if digest != model.digest:
        raise ModelError(
            f"{model.weights.name} is not the file that its record names",
            cause="it was changed or damaged after it was trained",
            next_step="make the model again, or copy it again from its source",
        )
    content, parity = to_onnx(network(model), model.recipe.image_px, _notes(model), model.colour)
    files = card.Files(
        weights=WEIGHTS_FILES[model.kind],
        weights_sha256=digest,
        onnx=ONNX_FILES[model.kind],
        onnx_sha256=hashlib.sha256(content).hexdigest(),
        onnx_evaluator=parity.evaluator,
        onnx_differences=dict(parity.differences),
        tolerance=TOLERANCE,
    )
    numbers = json.dumps(card.to_json(model, files), indent=1, allow_nan=False) + "\n"
    written = {
        files.weights: weights,
        files.onnx: content,
        CARD_FILE: card.to_markdown(model, files).encode(),
        CARD_JSON_FILE: numbers.encode(),
    }
    with disk(folder, "write"):
        folder.mkdir(parents=True, exist_ok=True)
    for name, data in written.items():
        write_whole(folder / name, data)
    return tuple(folder / name for name in written), parity


def network(model: Released) -> Encoder | Network:
    """Return the network with its weights. Raises ModelError."""
    state, what = load_weights(model.weights), f"the {model.kind} {model.start}"
    if model.kind == "classifier":
        return trainings.restore(model.recipe, state, what=what)
    encoder = build_encoder(model.recipe, 0)
    apply_weights(encoder, state, what=what)
    return encoder


def _notes(model: Released) -> dict[str, str]:
    """Return what the ONNX file says of itself."""
    return {
        "kind": model.kind,
        "start": model.start,
        "weights_sha256": model.digest,
        "use": "research only; not a medical device",
    }
