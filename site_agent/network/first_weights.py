"""The weights that a training begins with: random ones, ImageNet's, or those of another cervix model.

Rules
1. ImageNet's weights come from the file that site.toml names; else, for EfficientNet-lite0, from the package of the
   extra `imagenet`; else, for a ResNet, from torchvision, which downloads them. A federation downloads nothing.
2. The one foreign format that is read is `.pth`, with `weights_only=True`, so that no code in it can run.
"""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor

from fedcervix.core.plan import Architecture, Recipe
from fedcervix.core.seeds import derive
from fedcervix.errors import ModelError
from site_agent.network.encoder import (
    BACKBONE,
    Encoder,
    Loaded,
    apply_weights,
    backbone_state,
    build_encoder,
    load_weights,
)
from site_agent.network.imagenet_package import PACKAGED, installed

TORCHVISION: dict[Architecture, str] = {
    # The first release of each: the newer recipe (V2) classifies better and transfers worse.
    "resnet18": "ResNet18_Weights.IMAGENET1K_V1",
    "resnet50": "ResNet50_Weights.IMAGENET1K_V1",
}
CLASSIFIERS = ("fc.", "_fc.", "head.")
"""how the names of layers begin that are not taken over"""


def start_encoder(recipe: Recipe, seed: int, weights: Path | None = None, *, download: bool = True) -> Encoder:
    """Return the model a run starts from: a random head on the backbone that `recipe.start` names.

    `weights`: of a cervix model its file; of ImageNet's, and `download`, as in `load_imagenet`. Raises as that does.
    """
    encoder = build_encoder(recipe, seed)
    if recipe.start == "imagenet":
        load_imagenet(encoder, weights, download=download)
    if recipe.start_model:
        assert weights, "whoever asks for a model has found its file"
        given = backbone_state(load_weights(weights))
        state = {name.removeprefix(BACKBONE): tensor for name, tensor in given.items()}
        apply_weights(encoder.backbone, state, what=f"model {recipe.start_model[:12]}")
    return encoder


def imagenet_backbone(recipe: Recipe, path: Path | None) -> dict[str, Tensor]:
    """Return what a classifier starts from, by its names in an encoder. Raises as `load_imagenet` does."""
    encoder = build_encoder(recipe, derive(0, "imagenet-head"))
    load_imagenet(encoder, path)
    return backbone_state(encoder.state_dict())


def load_imagenet(encoder: Encoder, path: Path | None, *, download: bool = True) -> Loaded:
    """Copy ImageNet's weights into the backbone; the head keeps its own.

    `path` is a safetensors file, or a `.pth` with the names of torchvision or of the extra's package. None: see rule 1;
    with `download=False` torchvision's are taken only if an earlier call has downloaded them.
    Raises ModelError if the weights cannot be had or do not fit, ConfigError where the extra is not installed.
    """
    file = path or (installed() if encoder.architecture == PACKAGED else None)
    state = _torchvisions(encoder.architecture, download=download) if file is None else _read(file)
    # Ours are called backbone.*, others are not; the 1000-way layer is left out.
    state = {name.removeprefix(BACKBONE): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if not name.startswith(CLASSIFIERS)}
    for name, tensor in encoder.backbone.state_dict().items():
        if name.endswith("num_batches_tracked"):  # torchvision's older files have no step counters
            state.setdefault(name, torch.zeros_like(tensor))
    return apply_weights(encoder.backbone, state, what="ImageNet's weights" if path is None else path.name)


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".pth":
        return load_weights(path)
    try:
        # The project's one torch.load: for ImageNet's weights; with weights_only it runs no code in them.
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError) as error:
        raise ModelError(
            f"cannot read the weights file {path.name}",
            cause="an incomplete copy, or not a file of plain torchvision weights",
            next_step="download it again from torchvision, or convert it to safetensors",
        ) from error
    return state


def _torchvisions(architecture: Architecture, *, download: bool) -> dict[str, Tensor]:
    weights = torchvision.models.get_weight(TORCHVISION[architecture])
    if not (download or (Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name).exists()):
        raise ModelError(
            f"ImageNet's weights for {architecture} are not on this machine",
            cause="the plan starts from these weights, and a site downloads nothing for a federation",
            next_step=f"curl -fLO {weights.url}, and give that file's path in site.toml: [hardware] imagenet_weights",
        )
    try:
        state: dict[str, Tensor] = weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (URLError, OSError, RuntimeError) as error:
        raise ModelError(
            f"ImageNet's weights for {architecture} could not be downloaded",
            cause=f"this machine cannot reach {weights.url} ({error})",
            next_step="download that file on another machine, and write its path in site.toml: [hardware] "
            f'imagenet_weights; or use architecture = "{PACKAGED}", whose weights are a package',
        ) from error
    return state
