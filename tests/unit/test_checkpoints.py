"""Checkpoints: whole or not there, for their own contract only, few, and rarely due."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from site_agent.training.checkpoints import FILES_MAX, Checkpoint, Checkpoints


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def checkpoint(value: float = 1.0) -> Checkpoint:
    return Checkpoint({"model.w": torch.full((3,), value), "seen.0": torch.zeros(2, 2)}, {"step": 7, "loss": 0.1 + 0.2})


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*"))


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "one").keep(checkpoint())
    found = Checkpoints(tmp_path, "one").latest()
    assert found is not None
    assert found.facts == {"step": 7, "loss": 0.1 + 0.2}
    assert torch.equal(found.part("model.")["w"], torch.ones(3))
    assert list(found.part("seen.")) == ["0"]


def test_there_is_none_before_one_was_kept_and_none_after_all_were_dropped(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "new", "one")
    assert kept.latest() is None
    kept.keep(checkpoint())
    kept.drop()
    assert kept.latest() is None
    assert files(tmp_path / "new") == []


def test_those_of_other_trainings_can_be_dropped(tmp_path: Path) -> None:
    for contract in ("one", "two", "three"):
        Checkpoints(tmp_path, contract).keep(checkpoint())
    for unfinished in (".checkpoint-0.whole", "..checkpoint-0.whole.part"):  # a process was killed
        (tmp_path / unfinished).touch()
    Checkpoints(tmp_path, "two").drop_others()
    assert Checkpoints(tmp_path, "two").latest() is not None
    assert len(list(tmp_path.iterdir())) == 1


def test_a_newer_one_replaces_the_older(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, "one")
    for value in (1.0, 2.0, 3.0):
        kept.keep(checkpoint(value))
    [file] = files(tmp_path)
    found = kept.latest()
    assert found is not None
    assert found.tensors["model.w"][0] == 3
    assert file.stat().st_mode & 0o777 == 0o600


def test_one_contract_never_sees_anothers(tmp_path: Path) -> None:
    Checkpoints(tmp_path, "one").keep(checkpoint())
    assert Checkpoints(tmp_path, "two").latest() is None


def test_of_many_contracts_the_newest_few_stay(tmp_path: Path) -> None:
    for number in range(6):
        kept = Checkpoints(tmp_path, str(number))
        kept.keep(checkpoint())
        [file] = kept._files()
        os.utime(file, (number, number))
    assert len(files(tmp_path)) == FILES_MAX
    assert [Checkpoints(tmp_path, str(n)).latest() is not None for n in range(6)] == [False] * 3 + [True] * 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, damage: str) -> None:
    kept = Checkpoints(tmp_path, "one")
    kept.keep(checkpoint())
    [file] = files(tmp_path)
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes({"cut": bytes(raw[:40]), "flipped": bytes(raw), "empty": b""}[damage])
    assert kept.latest() is None
    kept.keep(checkpoint())
    assert kept.latest() is not None


def test_a_disk_that_does_not_take_it_costs_the_checkpoint_and_not_the_run(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    kept = Checkpoints(blocked, "one")
    kept.keep(checkpoint())
    assert kept.latest() is None


def test_an_unfinished_file_is_never_taken_for_one(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, "one")
    kept.keep(checkpoint())
    (tmp_path / f".{files(tmp_path)[0].name}.part").write_bytes(b"half")
    found = kept.latest()
    assert found is not None
    assert found.facts["step"] == 7


def test_what_keeping_costs_is_counted_from_asking_whether_it_is_due(tmp_path: Path) -> None:
    """A GPU catches up, and tensors are copied from it, before `keep` has anything to write."""
    clock = Clock()
    kept = Checkpoints(tmp_path, "one", interval_s=60.0, clock=clock)
    clock.now_s = 60.0
    assert kept.due()
    clock.now_s = 64.0
    kept.keep(checkpoint())
    clock.now_s = 463.9
    assert not kept.due()
    clock.now_s = 464.0
    assert kept.due()


def test_one_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, "one")
    kept.keep(checkpoint())
    [file] = files(tmp_path)
    file.unlink()
    file.mkdir()
    assert kept.latest() is None


def test_keeping_takes_at_most_a_hundredth_of_the_time(tmp_path: Path) -> None:
    clock = Clock()

    class Slow(Checkpoints):
        def _put(self, *_: object) -> None:
            clock.now_s += 5.0

    kept = Slow(tmp_path, "one", interval_s=60.0, clock=clock)
    clock.now_s = 59.9
    assert not kept.due()
    clock.now_s = 60.0
    assert kept.due()
    kept.keep(checkpoint())  # until 65
    clock.now_s = 564.9
    assert not kept.due()
    clock.now_s = 565.0
    assert kept.due()


def test_a_checkpoint_has_the_bytes_that_the_safetensors_library_writes(tmp_path: Path) -> None:
    """Rows in order whatever the layout in memory, any type that a state may hold, and the facts in the header."""
    tensors = {
        "model.w": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "model.steps": torch.tensor(7),
        "seen.0": torch.rand(3, 2).bfloat16(),
        "none": torch.zeros(0, 4),
        "flags": torch.tensor([True, False]),
    }
    facts = {"note": 'a "quoted" naïve line\n', "loss": 0.1}
    Checkpoints(tmp_path, "one").keep(Checkpoint(tensors, facts))
    [file] = files(tmp_path)
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    assert file.read_bytes() == safetensors.torch.save(plain, {"facts": json.dumps(facts, sort_keys=True)})


WRITES = """
import resource, sys, pathlib, torch
from site_agent.network.encoder import save_weights
from site_agent.training.checkpoints import Checkpoint, Checkpoints
def peak_bytes():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def state(count):
    return {f"model.{k}": torch.ones(2**20) for k in range(count)}
def write(tensors):
    save_weights(pathlib.Path(sys.argv[1]) / "weights", tensors)
    assert Checkpoints(pathlib.Path(sys.argv[1]), "one").keep(Checkpoint(tensors, {}))
write(state(1))  # what is loaded and set aside once
large = state(32)
before = peak_bytes()
write(large)
print(peak_bytes() - before)
"""


def test_writing_weights_takes_no_memory_for_a_second_model(tmp_path: Path) -> None:
    """128 MB of weights; one tensor of them has 4 MB."""
    ran = subprocess.run(
        [sys.executable, "-c", WRITES, str(tmp_path)], check=True, capture_output=True, text=True, timeout=60
    )
    assert int(ran.stdout) < 32 * 2**20
