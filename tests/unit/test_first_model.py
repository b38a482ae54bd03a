"""The first model that [run] base names: what is converted, what is refused before a run begins, and in which words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from coordinator.home import first_model
from coordinator.home.home import Home
from fedcervix.core.plan import Architecture, Head, Plan, Recipe, Terms
from fedcervix.disk.files import digest_file
from fedcervix.errors import ConfigError, ModelError
from fedcervix.models.blobs import BlobStore
from fedcervix.models.weights import read_layout, read_tensors, write_tensors
from tests.unit.coordinator_homes import made

RECIPE = Recipe(architecture="resnet18", width=8)
PLAN = Plan(mode="csfssl", sites=("nhs",), profile="paper", terms=Terms(), recipe=RECIPE)


def tensors(dtype: Any = np.float32) -> dict[str, Any]:
    """Return the plan's network with small numbers."""
    return {
        name: np.ones(shape, np.int64 if name.endswith("tracked") else dtype)
        for name, shape in first_model.network(RECIPE).items()
    }


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = made(tmp_path / "home")
    text = home.config_file.read_text().replace("# base =", "base =")
    home.config_file.write_text(text)
    return home


def taken_in(home: Home, model: dict[str, Any]) -> tuple[BlobStore, str]:
    write_tensors(home.folder / "first.safetensors", model)
    blobs = BlobStore(home.blobs)
    return blobs, first_model.taken_in(home, blobs, PLAN)


@pytest.mark.parametrize("head", get_args(Head))
@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_the_network_is_the_trainers(architecture: Architecture, head: Head) -> None:
    model = pytest.importorskip("site_agent.network.encoder", reason="needs torch")
    recipe = Recipe(architecture=architecture, head=head, width=32)
    state = model.build_encoder(recipe, 0).state_dict()
    assert first_model.network(recipe) == {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize(("number", "fits"), [(2.0**16, True), (2.0**18, False)])
def test_a_model_whose_updates_cannot_be_summed_is_refused_before_a_run_with_secure_sums(
    home: Home, number: float, fits: bool
) -> None:
    model = tensors()
    next(values for values in model.values() if values.ndim == 4).flat[3] = number
    write_tensors(home.folder / "first.safetensors", model)
    terms = Terms(secure_sum=True, holders=("nhs",))
    plan = replace(PLAN, sites=("nhs", "alts", "cleo"), terms=terms)
    if fits:
        assert first_model.taken_in(home, BlobStore(home.blobs), plan)
        return
    with pytest.raises(ModelError, match="numbers that are too large for a secure sum"):
        first_model.taken_in(home, BlobStore(home.blobs), plan)


def test_a_float32_model_is_taken_in_as_it_is(home: Home) -> None:
    blobs, digest = taken_in(home, tensors())
    assert blobs.has(digest)
    assert digest == digest_file(home.folder / "first.safetensors")


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_another_precision_is_converted(home: Home, dtype: Any) -> None:
    blobs, digest = taken_in(home, {**tensors(dtype), "head.0.bias": np.arange(8, dtype=dtype) / 4})
    found = read_tensors(blobs.path(digest))
    assert {str(array.dtype) for array in found.values()} == {"float32", "int64"}
    assert found["head.0.bias"].tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]
    assert digest == digest_file(blobs.path(digest))
    _, again = taken_in(home, {**tensors(), "head.0.bias": np.arange(8, dtype=np.float32) / 4})
    assert again == digest, "the bytes that the same numbers in float32 have"


def test_bfloat16_is_converted(home: Home) -> None:
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    state = {name: torch.from_numpy(np.asarray(array)) for name, array in tensors().items()}
    state = {name: tensor.bfloat16() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    safetensors.save_file(state, home.folder / "first.safetensors")
    blobs = BlobStore(home.blobs)
    digest = first_model.taken_in(home, blobs, PLAN)
    assert {tensor.dtype for tensor in read_layout(blobs.path(digest)).tensors} == {"F32", "I64"}


@pytest.mark.parametrize(
    ("rename", "cause"),
    [
        (lambda name: f"module.{name}", "another program added 'module.' before every name"),
        (lambda name: name.removeprefix("backbone."), "the names are torchvision's"),
        (lambda name: name.replace("layer4.1", "layer4.7"), "another architecture, head or width"),
    ],
)
def test_other_names_are_refused_before_the_run(home: Home, rename: Any, cause: str) -> None:
    with pytest.raises(ModelError, match="is not the plan's network") as caught:
        taken_in(home, {rename(name): array for name, array in tensors().items()})
    assert cause in caught.value.cause
    assert caught.value.exit_code == 10
    assert not any(home.blobs.glob("*.safetensors"))


def test_another_width_is_refused_before_the_run(home: Home) -> None:
    wrong = {**tensors(), "head.0.weight": np.ones((64, 512), np.float32), "head.0.bias": np.ones(64, np.float32)}
    with pytest.raises(ModelError, match=r"head.0.weight is \[64, 512\], not \[8, 512\]") as caught:
        taken_in(home, wrong)
    assert "another width" in caught.value.cause


def test_numbers_that_are_none_are_refused(home: Home) -> None:
    with pytest.raises(ModelError, match="not finite numbers"):
        taken_in(home, {**tensors(np.float64), "head.0.bias": np.full(8, 1e300)})


def test_a_checkpoint_of_torch_is_named(home: Home) -> None:
    (home.folder / "first.safetensors").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(ModelError, match="cannot be used") as caught:
        first_model.taken_in(home, BlobStore(home.blobs), PLAN)
    assert ".pth" in caught.value.cause
    assert "safetensors" in caught.value.next_step


def test_a_file_that_is_missing_is_the_configurations_fault(home: Home) -> None:
    with pytest.raises(ConfigError, match=r"\[run\] base names .*first.safetensors, which does not exist"):
        first_model.taken_in(home, BlobStore(home.blobs), PLAN)


def test_a_network_of_another_kind_is_not_forbidden(home: Home) -> None:
    """Agents may train something else than the paper's network."""
    blobs, digest = taken_in(home, {"weight": np.zeros(9, np.float32)})
    assert blobs.has(digest)
