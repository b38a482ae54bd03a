"""Sealed models on the disk."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
from pathlib import Path

import pytest

from fedcervix.errors import RemoteError
from fedcervix.models.sealed_files import read_header, seal, unseal
from fedcervix.trust.sealed_models import BrokenSealError, Header, content_key

SECRET = bytes(32)


def model(folder: Path, size: int = 300_000) -> tuple[Path, Header, bytes]:
    """Return a file, its header and its key."""
    data = random.Random(size).randbytes(size)
    file = folder / "model"
    file.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    header = Header("cervix", "run-1", "a" * 64, 1, 1, "nhs", "b" * 64, digest, digest, size)
    return file, header, content_key(SECRET, header)


def test_a_file_is_sealed_and_opened(tmp_path: Path) -> None:
    file, header, key = model(tmp_path)
    digest = seal(file, header, key, tmp_path / "sealed")
    assert digest == hashlib.sha256((tmp_path / "sealed").read_bytes()).hexdigest()
    assert seal(file, header, key, tmp_path / "again") == digest
    assert read_header(tmp_path / "sealed") == header
    assert unseal(tmp_path / "sealed", key, tmp_path / "opened") == header
    assert (tmp_path / "opened").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("cut", [1, 16, 70_000, 299_000])
def test_of_a_file_that_was_cut_or_changed_nothing_is_written(tmp_path: Path, cut: int) -> None:
    file, header, key = model(tmp_path)
    seal(file, header, key, tmp_path / "sealed")
    whole = (tmp_path / "sealed").read_bytes()
    for data in (whole[:-cut], whole[:-cut] + bytes(cut), whole + b"x" * cut):
        (tmp_path / "sealed").write_bytes(data)
        with pytest.raises(RemoteError, match="sealed model"):
            unseal(tmp_path / "sealed", key, tmp_path / "opened")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["model", "sealed"]


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    file, header, key = model(tmp_path)
    seal(file, header, key, tmp_path / "sealed")
    with pytest.raises(RemoteError, match="key"):
        unseal(tmp_path / "sealed", bytes(32), tmp_path / "opened")


def test_a_model_that_changed_since_its_header_was_made_is_not_sealed(tmp_path: Path) -> None:
    file, header, key = model(tmp_path)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BrokenSealError):
        seal(file, header, key, tmp_path / "sealed")
    assert not (tmp_path / "sealed").exists()


def test_a_file_that_is_no_sealed_model_is_refused(tmp_path: Path) -> None:
    file, _, key = model(tmp_path)
    for call in (lambda: read_header(file), lambda: unseal(file, key, tmp_path / "opened")):
        with pytest.raises(RemoteError, match="no sealed model"):
            call()


def test_a_long_model_is_never_completely_in_memory(tmp_path: Path) -> None:
    file, header, key = model(tmp_path, 30_000_000)
    tracemalloc.start()
    try:
        seal(file, header, key, tmp_path / "sealed")
        unseal(tmp_path / "sealed", key, tmp_path / "opened")
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 6e6
