"""The choice of device, and the switches of torch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from fedcervix.errors import TrainingError
from site_agent.network.devices import autocast, choose, place, prepare

CPU = torch.device("cpu")


@pytest.fixture
def switches() -> Iterator[None]:
    """Put the process-wide switches back."""
    threads = torch.get_num_threads()
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    torch.use_deterministic_algorithms(False)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32


def test_the_cpu_is_always_there() -> None:
    assert choose("cpu") == CPU


def test_auto_is_the_gpu_where_there_is_one() -> None:
    assert choose("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(TrainingError, match="torch finds no GPU") as caught:
        choose("cuda")
    assert "nvidia-smi" in caught.value.next_step


@pytest.mark.usefixtures("switches")
def test_a_prepared_process_is_deterministic_on_the_cpu_and_exact_on_a_gpu() -> None:
    prepare(CPU, threads=1)
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert (torch.tensor([1e-40]) * 1).item() == 0  # a denormal number


def test_a_placed_module_keeps_its_parameters_so_that_an_optimiser_still_knows_them() -> None:
    module = nn.Conv2d(4, 8, 3)
    before = module.weight
    place(module, CPU)
    assert module.weight is before
    assert module.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_precision_of_the_recipe_is_the_precision_of_the_network() -> None:
    layer, x = nn.Linear(3, 2), torch.ones(1, 3)
    with autocast(CPU, "bfloat16"):
        assert layer(x).dtype == torch.bfloat16
    with autocast(CPU, "float32"):
        assert layer(x).dtype == torch.float32
