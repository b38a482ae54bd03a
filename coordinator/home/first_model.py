"""The first model that [run] base names: the checks before a run begins with it, and how it is stored.

Rules
1. Errors that can be found here are reported here, before the run begins. A site would find them only after all sites
   have attached.
2. A model in float16, bfloat16 or float64 is converted to float32, which is what sites train in.
3. The names and shapes of the plan's network follow from its recipe, without torch (`network_shapes`).
"""

from __future__ import annotations

from pathlib import Path

from coordinator.home.home import Home
from coordinator.home.network_shapes import Shapes, network
from fedcervix.core.plan import Plan, Recipe
from fedcervix.disk.files import copy_file
from fedcervix.errors import ConfigError, ModelError, RemoteError
from fedcervix.models.blobs import BlobStore
from fedcervix.models.weights import Layout, as_float32, read_layout, vet_base, wide_floats
from fedcervix.runtime.log import logger

PREFIXES = ("module.", "model.", "encoder.", "network.", "state_dict.", "backbone.")
"""prefixes that other programs add to the names of a network's tensors"""
SHOWN = 3


def taken_in(home: Home, blobs: BlobStore, plan: Plan) -> str:
    """Put the first model that the configuration names into the store; return its digest, empty where none is named.

    Raises ConfigError, ModelError, StorageError.
    """
    named = home.config().run.base
    if not named:
        return ""
    file = home.folder / named
    if plan.terms.sealed:
        raise ConfigError(
            f"[run] base names {file}, but the run is sealed",
            cause="in a sealed run the sites take no model from the coordinator that it can read",
            next_step=f"remove base from [run] in {home.config_file}; a site then makes the first model",
        )
    if not home.has(file):
        raise ConfigError(
            f"[run] base names {file}, which does not exist",
            cause="a relative path is read from the home folder",
            next_step=f"correct it in {home.config_file}, or put the file there",
        )
    layout = _checked(file, plan)
    scratch = blobs.scratch("base")
    if found := wide_floats(layout):
        digest = as_float32(file, scratch)
        logger().warning("the first model is converted to float32", found=", ".join(found))
    else:
        digest = copy_file(file, scratch)
    try:
        vet_base(scratch)
        if plan.terms.secure_sum:
            from fedcervix.models.secure_updates import check_base  # loads `cryptography`

            check_base(scratch)
    except RemoteError as error:
        scratch.unlink(missing_ok=True)
        raise _unfit(file, error) from error
    blobs.adopt(scratch, digest)
    return digest


def _checked(file: Path, plan: Plan) -> Layout:
    """Return what the file holds, if that is the plan's network. Raises ModelError, StorageError."""
    try:
        layout = read_layout(file)
    except RemoteError as error:
        raise _unfit(file, error) from error
    wanted, found = network(plan.recipe), {tensor.name: tensor.shape for tensor in layout.tensors}
    if found != wanted:
        _check_names(file, found, wanted, plan)
    return layout


def _unfit(file: Path, error: RemoteError) -> ModelError:
    return ModelError(
        f"the first model {file} cannot be used: {error.what}",
        cause="it is incomplete or damaged, or has another format, such as .pth",
        next_step="save the network's state_dict as float32 with safetensors.torch.save_file, and name that file",
    )


def _check_names(file: Path, found: Shapes, wanted: Shapes, plan: Plan) -> None:
    """Raise ModelError if the file holds a network of this kind, but not the plan's.

    A network that has nothing in common with it may be meant for agents that train something else: then only a warning
    is logged.
    """
    kin = {_stem(name) for name in found} & {_stem(name) for name in wanted}
    what = f"the first model {file} is not the plan's network ({_named(plan.recipe)}): {_differences(found, wanted)}"
    if not kin:
        logger().warning(what, next_step="a site that trains this network would fail; see [run] base")
        return
    raise ModelError(
        what,
        cause=_cause(found, wanted),
        next_step="rename its tensors, use a model that fits, or change [run.recipe] to match the file",
    )


def _cause(found: Shapes, wanted: Shapes) -> str:
    prefix = next((prefix for prefix in PREFIXES[:-1] if all(name.startswith(prefix) for name in found)), "")
    if prefix:
        return f"another program added {prefix!r} before every name"
    if "conv1.weight" in found and "backbone.conv1.weight" in wanted:
        return "the names are torchvision's: here the network's begin with 'backbone.', and its dense layer is 'head.'"
    if found.keys() == wanted.keys():
        return "it is another architecture, or another width of the dense layer"
    return "it was made for another architecture, head or width"


def _differences(found: Shapes, wanted: Shapes) -> str:
    lines = [f"{name} is missing" for name in wanted if name not in found]
    lines += [f"{name} is not part of the network" for name in found if name not in wanted]
    lines += [
        f"{name} is {list(found[name])}, not {list(shape)}"
        for name, shape in wanted.items()
        if found.get(name, shape) != shape
    ]
    more = f" (and {len(lines) - SHOWN} more)" if len(lines) > SHOWN else ""
    return "; ".join(lines[:SHOWN]) + more


def _named(recipe: Recipe) -> str:
    return f"{recipe.architecture}, head {recipe.head}, width {recipe.width}"


def _stem(name: str) -> str:
    """Return a tensor's name without what programs put before it."""
    shorter = next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)
    return name if shorter == name else _stem(shorter)
