"""Losses come in order, and none is lost."""

from __future__ import annotations

import pytest
import torch

from site_agent.training.async_losses import PENDING_MAX, Readings


def test_on_a_cpu_a_loss_is_there_at_once() -> None:
    readings: Readings[int] = Readings()
    readings.put(1, torch.tensor(0.5))
    readings.put(2, torch.tensor(0.25))
    assert list(readings.arrived()) == [(1, 0.5), (2, 0.25)]
    assert list(readings.rest()) == []


@pytest.mark.gpu
def test_on_a_gpu_losses_come_later_in_order_and_whole() -> None:
    readings: Readings[int] = Readings()
    found = []
    for step in range(100):
        readings.put(step, torch.tensor(float(step), device="cuda"))
        found += readings.arrived()
        assert step - len(found) <= PENDING_MAX
    found += readings.rest()
    assert found == [(step, float(step)) for step in range(100)]
