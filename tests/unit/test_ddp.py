"""Several training processes are one: with a joint batch they come to what one process comes to."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from fedcervix.errors import TrainingError
from site_agent.network.encoder import apply_weights, build_encoder
from site_agent.training.ddp import ALONE, Team, agreed, gather_views, share, share_rows, tell, wrap
from site_agent.training.sync_batch_norm import JointBatchNorm1d, JointBatchNorm2d, join_batch_norm
from tests.ports import free_port
from tests.unit import joint_steps

RANKS = 2
TEAM = [Team(rank, 3) for rank in range(3)]
PROGRAM = joint_steps.__file__


@pytest.fixture(autouse=True, scope="module")
def exact() -> Iterator[None]:
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


# --- two processes and one ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which two real processes have left what they came to."""
    folder = tmp_path_factory.mktemp("joint")
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(RANKS)}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.unit.joint_steps", folder],
            env={**os.environ, **place, "RANK": str(rank)},
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
        )
        for rank in range(RANKS)
    ]
    try:
        said = [rank.communicate(timeout=100)[1].decode() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * RANKS, "\n".join(said)
    return folder


@functools.cache
def alone(name: str) -> dict[str, Tensor]:
    return joint_steps.train(joint_steps.RECIPES[name], ALONE)


@pytest.mark.parametrize("name", joint_steps.RECIPES)
@pytest.mark.long
def test_two_processes_train_as_one_does_on_the_joint_batch(joint: Path, name: str) -> None:
    """In float64, so that only the order of additions differs: equal to nine digits after three steps with momentum."""
    for rank in range(RANKS):
        found = safetensors.torch.load_file(joint / f"{name}-{rank}.safetensors")
        assert found.keys() == alone(name).keys()
        for part, expected in alone(name).items():
            torch.testing.assert_close(found[part], expected, rtol=1e-9, atol=1e-11, msg=lambda m, p=part: f"{p}: {m}")


def test_the_steps_that_are_compared_do_train() -> None:
    """Else the comparison would be of nothing."""
    recipe = joint_steps.RECIPES["one-augmented"]
    trained, start = alone("one-augmented"), build_encoder(recipe, 1).state_dict()
    moved = [(trained[f"model.{name}"] - tensor).abs().max() for name, tensor in start.items()]
    assert min(moved) > 1e-7


@pytest.mark.long
def test_all_ranks_hold_the_same_bits(joint: Path) -> None:
    for name in joint_steps.RECIPES:
        one, other = (safetensors.torch.load_file(joint / f"{name}-{rank}.safetensors") for rank in range(RANKS))
        assert all(torch.equal(one[part], other[part]) for part in one if part != "losses"), name


def test_a_team_s_weights_load_into_an_ordinary_encoder(joint: Path) -> None:
    recipe = joint_steps.RECIPES["both-augmented"]
    found = safetensors.torch.load_file(joint / "both-augmented-0.safetensors")
    state = {part.removeprefix("model."): tensor for part, tensor in found.items() if part.startswith("model.")}
    encoder = build_encoder(recipe, 0).double()
    assert apply_weights(encoder, state, what="the team's weights").tensors == len(state)


# --- who has what -------------------------------------------------------------------------------------------------


def test_every_image_of_a_joint_batch_belongs_to_one_rank() -> None:
    batch = np.array([7, 3, 8, 1, 0, 5])
    assert [share(batch, team).tolist() for team in TEAM] == [[7, 1], [3, 0], [8, 5]]
    assert share(batch, ALONE) is not batch
    assert share(batch, ALONE).tolist() == batch.tolist()


def test_a_batch_that_cannot_be_shared_equally_is_refused_with_a_hint() -> None:
    with pytest.raises(TrainingError, match="8 images cannot be shared equally by 3") as caught:
        share(np.arange(8), TEAM[1])
    assert "a divisor of 8" in caught.value.next_step


def test_an_image_s_augmentations_go_where_it_goes() -> None:
    one = torch.tensor([10, 11, 12, 13, 14, 15])[:, None]  # of the second views
    both = torch.cat([one, one + 10])  # of the first views, then the second
    assert [share_rows(one, 6, team).flatten().tolist() for team in TEAM] == [[10, 13], [11, 14], [12, 15]]
    assert share_rows(both, 6, TEAM[1]).flatten().tolist() == [11, 14, 21, 24]
    assert torch.equal(share_rows(both, 6, ALONE), both)


def test_a_rank_lies_within_its_team() -> None:
    for rank, size in ((2, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="rank is 0 to size - 1"):
            Team(rank, size)


def test_alone_nothing_is_gathered_wrapped_joined_or_told() -> None:
    f = torch.eye(4)
    encoder = build_encoder(joint_steps.RECIPES["both-augmented"], 0)
    layers = [type(layer) for layer in encoder.modules()]
    join_batch_norm(encoder, ALONE)
    tell("", ALONE)
    assert agreed("a", ALONE) == "a"
    assert gather_views(f, ALONE) is f
    assert wrap(encoder, ALONE, joint_steps.CPU) is encoder
    assert [type(layer) for layer in encoder.modules()] == layers


# --- joint batch norm ---------------------------------------------------------------------------------------------


def test_joining_batch_norm_keeps_every_name_and_tensor() -> None:
    encoder = build_encoder(joint_steps.RECIPES["both-augmented"], 0)
    before = dict(encoder.named_parameters()) | dict(encoder.named_buffers())
    names = list(encoder.state_dict())
    join_batch_norm(encoder, Team(1, 2))
    join_batch_norm(encoder, Team(1, 2))
    after = dict(encoder.named_parameters()) | dict(encoder.named_buffers())
    assert list(encoder.state_dict()) == names
    assert all(after[name] is tensor for name, tensor in before.items())
    kinds = [type(layer) for layer in encoder.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert (kinds.count(JointBatchNorm1d), kinds.count(JointBatchNorm2d), len(kinds)) == (1, 20, 21)


def test_a_joined_encoder_scores_without_the_others() -> None:
    """The leader scores alone: in evaluation a joint layer is an ordinary one."""
    encoder = build_encoder(joint_steps.RECIPES["both-augmented"], 0).eval()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected: Tensor = encoder(x)
        join_batch_norm(encoder, Team(0, 2))
        assert torch.equal(encoder(x), expected)
