"""Batches reach the device as they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from site_agent.data.device_batches import Feed

DEVICES = [
    torch.device("cpu"),
    pytest.param(
        torch.device("cuda"),
        marks=pytest.mark.gpu,
    ),
]


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("resident_share", [0.3, 0.0], ids=["resident", "copied"])
def test_the_rows_asked_for_come_in_the_order_asked(
    device: torch.device, resident_share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("site_agent.data.device_batches.RESIDENT_SHARE", resident_share)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    taken = Feed(pixels, device).take(np.array([3, 0, 3]))
    assert taken.device.type == device.type
    np.testing.assert_array_equal(taken.cpu().numpy(), pixels[[3, 0, 3]])
