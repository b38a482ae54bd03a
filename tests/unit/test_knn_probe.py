"""The nearest-neighbour probe: scored by hand, blind to who asks, silent where labels are few."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedcervix.core.plan import Recipe
from site_agent.data.image_sets import Labelled
from site_agent.network.encoder import build_encoder
from site_agent.training.knn_probe import NEIGHBOURS, embed, neighbour_auc, neighbour_scores

torch.set_num_threads(1)

CPU = torch.device("cpu")
RECIPE = Recipe(architecture="resnet18", image_px=32)


def labelled(labels: list[int], seed: int) -> Labelled:
    """Cases are red, controls are blue."""
    pixels = np.random.default_rng(seed).integers(0, 60, (len(labels), 32, 32, 3), dtype=np.uint8)
    for pixel, label in zip(pixels, labels, strict=True):
        pixel[..., 0 if label else 2] += 180
    return Labelled(pixels, np.array(labels, np.int64), tuple(f"{seed}-{k}" for k in range(len(labels))))


def test_a_score_is_the_share_of_cases_among_the_neighbours_nearer_ones_weighing_more() -> None:
    known = np.array([[1, 0], [0, 1], [1, 1]], np.float32)  # fewer than NEIGHBOURS: all are asked
    asked = np.array([[1, 0.1]], np.float32)
    cosine = known @ asked[0] / np.linalg.norm(known, axis=1) / np.linalg.norm(asked[0])
    weight = 1 / (1 - cosine)
    found = neighbour_scores(known, np.array([1, 0, 0]), asked)
    assert len(known) < NEIGHBOURS
    assert found[0] == pytest.approx(weight[0] / weight.sum(), rel=1e-4)


def test_neighbours_of_one_class_say_nothing() -> None:
    with pytest.raises(ValueError, match="both classes"):
        neighbour_scores(np.eye(2, dtype=np.float32), np.array([1, 1]), np.eye(2, dtype=np.float32))


def test_what_can_be_seen_is_found_even_by_random_weights() -> None:
    encoder = build_encoder(RECIPE, 0)
    assert neighbour_auc(encoder, labelled([0, 1] * 8, 1), labelled([0, 1] * 4, 2), CPU) == 1.0


@pytest.mark.parametrize("part", [0, 1])
def test_where_a_class_is_missing_there_is_no_auc(part: int) -> None:
    parts = [labelled([0, 1, 0, 1], 1), labelled([0, 1, 0, 1], 2)]
    parts[part] = labelled([0, 0, 0, 0], 3)
    assert neighbour_auc(build_encoder(RECIPE, 0), *parts, CPU) is None


def test_looking_does_not_touch_the_encoder() -> None:
    encoder = build_encoder(RECIPE, 0).train()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    features = embed(encoder, labelled([0, 1] * 40, 1).pixels, CPU)  # more than a batch
    assert features.shape == (80, 512)
    assert encoder.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
