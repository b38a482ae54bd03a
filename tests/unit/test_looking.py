"""Grad-CAM: a network that can only see one corner is found looking there."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fedcervix.core.plan import Recipe
from site_agent.classifier.finetune import Classifier, build_classifier
from site_agent.classifier.looking import heat, overlaid

CPU = torch.device("cpu")


class Brightness(nn.Module):
    """One map, of how bright each place is; pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv2d(3, 1, 4, stride=4, bias=False)
        nn.init.constant_(self.map.weight, 1.0)
        self.rise, self.pool = nn.ReLU(), nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.rise(self.map(x)))


def seen(direction: float) -> np.ndarray:
    neuron = nn.Linear(1, 1)
    nn.init.constant_(neuron.weight, direction)
    picture = np.zeros((1, 32, 32, 3), np.uint8)
    picture[0, :8, 24:] = 255
    (found,) = heat(Classifier(Brightness(), neuron), picture, CPU)
    return found


def test_the_heat_lies_where_the_score_comes_from():
    found = seen(1.0)
    assert found.shape == (32, 32)
    assert found.max() == 1.0
    assert found[:8, 24:].mean() > 0.6
    assert found[16:, :16].max() == 0.0


def test_what_lowers_the_score_has_no_heat():
    assert seen(-1.0).max() == 0.0


def test_a_resnet_is_left_as_it_was():
    recipe = Recipe(architecture="resnet18", image_px=64)
    classifier, _ = build_classifier(recipe, 1, None)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    pixels = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    found = heat(classifier, pixels, CPU)
    assert found.shape == (2, 64, 64)
    assert ((found >= 0) & (found <= 1)).all()
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.state_dict().items())
    assert not any(module._forward_hooks for module in classifier.modules())


def test_what_did_not_matter_is_dark():
    picture = np.full((2, 2, 3), 200, np.uint8)
    found = overlaid(picture, np.array([[1.0, 0.0], [0.5, 0.0]]))
    assert found[..., 0].tolist() == [[200, 60], [130, 60]]
