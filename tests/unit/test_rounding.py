"""A model is rounded into a store, and made again in another: what is kept, and that it is the same when done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedcervix.disk.files import digest_file
from fedcervix.errors import RemoteError, StorageError
from fedcervix.models.blobs import BlobStore
from fedcervix.models.quantization import Packing
from fedcervix.models.rounding import Rounded, rebuild, round_model
from fedcervix.models.weights import read_tensors, write_tensors

PACKINGS = ["bfloat16", "int8"]


def keep(blobs: BlobStore, weights: Any) -> str:
    made = blobs.scratch("made")
    digest = write_tensors(made, {"w": np.asarray(weights, np.float32)})
    blobs.adopt(made, digest)
    return digest


@pytest.fixture
def here(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "there")


def files(blobs: BlobStore) -> set[str]:
    return {file.name.removesuffix(".safetensors") for file in blobs.path("x").parent.glob("*.safetensors")}


def rounded(blobs: BlobStore, packing: Packing, base: str, exact: str, residual: str = "") -> Rounded:
    return round_model(blobs, blobs.path(exact), packing, base, residual, name="it")


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_model_that_is_made_again_elsewhere_is_the_same_file(
    here: BlobStore, there: BlobStore, packing: Packing
) -> None:
    base, exact = keep(here, [1.0, 2.0, 3.0]), keep(here, [1.1, 1.7, 3.3])
    keep(there, [1.0, 2.0, 3.0])
    made = rounded(here, packing, base, exact)
    there.path(made.packed).write_bytes(here.path(made.packed).read_bytes())
    rebuild(there, made.packed, made.digest, packing, base, name="it")
    assert there.path(made.digest).read_bytes() == here.path(made.digest).read_bytes()
    assert read_tensors(there.path(made.digest))["w"] == pytest.approx([1.1, 1.7, 3.3], rel=0.01)
    assert files(here) == {base, exact, made.digest, made.packed} | ({made.residual} - {""})
    assert bool(made.residual) == (packing == "int8")
    for digest in files(here):
        assert digest_file(here.path(digest)) == digest
    assert not list(here.scratch("it").parent.iterdir())


@pytest.mark.parametrize("packing", PACKINGS)
def test_done_again_it_is_the_same(here: BlobStore, packing: Packing) -> None:
    base, exact = keep(here, [1.0, 2.0, 3.0]), keep(here, [1.1, 1.7, 3.3])
    first = rounded(here, packing, base, exact)
    assert rounded(here, packing, base, exact) == first
    second = rounded(here, packing, base, exact, first.residual)
    assert rounded(here, packing, base, exact, first.residual) == second
    assert (second == first) == (packing == "bfloat16")


def test_a_residual_that_is_gone_is_not_taken_for_none(here: BlobStore) -> None:
    base, exact = keep(here, [1.0]), keep(here, [1.1])
    with pytest.raises(StorageError, match="is missing"):
        rounded(here, "int8", base, exact, "c" * 64)


def test_what_is_not_the_announced_model_leaves_nothing(here: BlobStore) -> None:
    base, exact = keep(here, [1.0]), keep(here, [1.1])
    made = rounded(here, "int8", base, exact)
    before = files(here)
    with pytest.raises(RemoteError, match="does not give the model that was announced"):
        rebuild(here, made.packed, "c" * 64, "int8", base, name="it")
    assert files(here) == before
    assert not list(here.scratch("it").parent.iterdir())
