"""The network: a backbone without its classifier, then one dense head; and its weights as bytes.

Section III-B: of ResNet-50 "the top 1000-way classification layer is removed and a dense layer with a ReLU activation
is added. The dense layer serves as the image representation vector"; of 64 units (128 and 256 came very close).

Rules
1. Random weights come from the seed alone; the process-wide generator is left as it was.
2. Weights are copied only after every name, shape and type agrees; what was loaded is returned.
3. Weights on disk are safetensors; equal weights are equal bytes. The one foreign format that is read is `.pth`, of
   ImageNet's weights alone (`first_weights`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from fedcervix.core import efficientnet_lite0
from fedcervix.core.plan import Architecture, Head, Recipe
from fedcervix.disk.descriptors import check_used_up
from fedcervix.disk.files import write_parts
from fedcervix.errors import ModelError, RemoteError
from fedcervix.models.weights import Form, check_header, file_parts
from site_agent.network.efficientnet import EfficientNetLite0

BACKBONE = "backbone."
FEATURES: dict[Architecture, int] = {
    "resnet18": 512,
    "resnet50": 2048,
    "efficientnet_lite0": efficientnet_lite0.FEATURES,
}
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""as a weights file calls them"""
State = Mapping[str, Tensor]
"""weights by name"""
ZERO_LENGTH = 1e-8
"""A row shorter than this has no direction."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """How many tensors were loaded, of how many the module has."""

    tensors: int
    of: int


class Encoder(nn.Module):
    """Images to representations: `backbone` (no classifier) then `head`, then unit length."""

    def __init__(self, architecture: Architecture, width: int, head: Head, *, normalise: bool) -> None:
        super().__init__()
        self.architecture: Architecture = architecture
        self.backbone = build_backbone(architecture)
        self.head = build_head(head, FEATURES[architecture], width)
        self.normalise = normalise

    def features(self, x: Tensor) -> Tensor:
        """Return what the classifier is fine-tuned on: (B, 3, H, W) standardised images to (B, F)."""
        found: Tensor = self.backbone(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 representations (B, width); of unit length (or exactly zero) if `normalise`."""
        f: Tensor = self.head(self.features(x))
        f = f.float()  # bfloat16 has 8 bits: too few for a dot product divided by tau = 0.1
        return unit_rows(f) if self.normalise else f


def build_backbone(architecture: Architecture) -> nn.Module:
    """Return a network with random weights that turns standardised images (B, 3, H, W) into features (B, F)."""
    if architecture == "efficientnet_lite0":
        return EfficientNetLite0()
    resnet: nn.Module = getattr(torchvision.models, architecture)(weights=None)
    resnet.fc = nn.Identity()
    return resnet


def build_head(head: Head, features: int, width: int) -> nn.Sequential:
    """Return the dense head: (B, features) to (B, width). `relu` is the paper's (section III-B)."""
    if head == "relu":
        return nn.Sequential(nn.Linear(features, width), nn.ReLU())
    if head == "linear":
        return nn.Sequential(nn.Linear(features, width))
    return nn.Sequential(nn.Linear(features, features), nn.BatchNorm1d(features), nn.ReLU(), nn.Linear(features, width))


def unit_rows(f: Tensor) -> Tensor:
    """Scale every row of (B, D) to unit length. A zero row stays zero and receives exactly zero gradient."""
    length = torch.linalg.vector_norm(f, dim=1, keepdim=True)
    # Asked this way round, a row that is not a number stays one: damaged weights must not pass for dead ones.
    return torch.where(length <= ZERO_LENGTH, torch.zeros_like(f), f / length.clamp_min(ZERO_LENGTH))


def build_encoder(recipe: Recipe, seed: int) -> Encoder:
    """Return the recipe's encoder with random weights that depend on `seed` alone (never downloads)."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # of the CPU alone, where the weights are made
        return Encoder(recipe.architecture, recipe.width, recipe.head, normalise=recipe.normalise)


def feature_count(architecture: Architecture) -> int:
    """Return the width F of `Encoder.features`."""
    return FEATURES[architecture]


def backbone_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the part of an encoder's state that a classifier starts from: all but the dense layer (III-B)."""
    return {name: tensor for name, tensor in state.items() if name.startswith(BACKBONE)}


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """Return a copy of the module's state in the CPU's memory, every tensor contiguous."""
    return {name: _plain(tensor) for name, tensor in module.state_dict().items()}


def save_weights(path: Path, state: Mapping[str, Tensor]) -> str:
    """Write a state as safetensors, all or nothing; return its SHA-256. Equal states make equal bytes.

    Raises StorageError.
    """
    return write_parts(path, state_parts(state))


def state_parts(state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> Iterator[bytes | memoryview]:
    """Yield a state as the bytes of a safetensors file, a tensor at a time: no more than one is copied to the CPU."""
    forms = {name: Form(DTYPES[tensor.dtype], tuple(tensor.shape)) for name, tensor in state.items()}

    def values(name: str) -> Iterator[memoryview]:
        rows = state[name].detach().to("cpu").contiguous().reshape(-1)
        yield rows.view(torch.uint8).numpy().data

    return file_parts(forms, values, metadata or {})


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the file that `save_weights` would write."""
    sha256 = hashlib.sha256()
    for part in state_parts(state):
        sha256.update(part)
    return sha256.hexdigest()


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises ModelError if there is none, or it is not one."""
    try:
        check_header(path)
        state: dict[str, Tensor] = safetensors.torch.load_file(path)
    except OSError as error:
        check_used_up(f"cannot read the weights file {path.name}", error)
        raise ModelError(
            f"cannot read the weights file {path.name}: {error.strerror or error}",
            cause="the path is wrong, or the file is not readable by this user",
            next_step="check the path given for the weights",
        ) from error
    except (RemoteError, safetensors.SafetensorError) as error:
        raise ModelError(
            f"{path.name} is not a safetensors file: {error}",
            cause="an incomplete copy, or weights in another format",
            next_step="export or copy the weights again",
        ) from error
    return state


def apply_weights(module: nn.Module, state: Mapping[str, Tensor], *, what: str) -> Loaded:
    """Copy `state` into the module once every name, shape and type agrees; else raise, copying nothing.

    `what` names the weights in the ModelError ("the cervix model of round 7").
    """
    own = module.state_dict()
    faults = _disagreements(own, state)
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise ModelError(
            f"{what} does not fit this model: {'; '.join(faults[:3])}{more}",
            cause="the weights were made with another architecture, head or width",
            next_step="use the recipe the weights were trained with, or other weights",
        )
    module.load_state_dict(dict(state), strict=True)
    return Loaded(tensors=len(state), of=len(own))


def _plain(tensor: Tensor) -> Tensor:
    """Return a copy that shares memory with nothing, rows in order (channels_last undone), on the CPU."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _disagreements(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Say every way in which two states differ in names, shapes or types."""
    faults = [f"{name} is missing" for name in own if name not in given]
    faults += [f"{name} is not part of it" for name in given if name not in own]
    for name in own.keys() & given.keys():
        expected, found = own[name], given[name]
        if expected.shape != found.shape:
            faults.append(f"{name} is {tuple(found.shape)}, not {tuple(expected.shape)}")
        elif expected.dtype != found.dtype:
            faults.append(f"{name} is {found.dtype}, not {expected.dtype}")
    return sorted(faults)
