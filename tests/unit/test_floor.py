"""The floor: 25 numbers that mean what they are called, and a regression that training and validation images make."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from site_agent.classifier.floor import NAMES, STRENGTHS, Floor, describe, fit, fit_numbers, loss
from site_agent.data.image_sets import Labelled
from site_agent.metrics import auc, best_threshold


def plain(red: int, green: int, blue: int, side: int = 32) -> np.ndarray:
    return np.full((side, side, 3), (red, green, blue), np.uint8)


def named(pixels: np.ndarray) -> dict[str, float]:
    (row,) = describe(pixels[None])
    return dict(zip(NAMES, row.tolist(), strict=True))


def test_a_plain_picture_has_its_colour_and_no_texture():
    found = named(plain(255, 51, 0))
    assert found["red mean"] == pytest.approx(1.0)
    assert found["green mean"] == pytest.approx(0.2)
    assert found["red share mean"] == pytest.approx(1 / 1.2, abs=1e-5)
    assert found["saturation mean"] == pytest.approx(1.0, abs=1e-5)
    textures = [name for name in NAMES if any(word in name for word in ("deviation", "gradient", "sharp", "centre"))]
    assert [found[name] for name in textures] == pytest.approx([0.0] * len(textures))


def test_each_number_sees_what_it_is_called():
    grey = plain(100, 100, 100)
    pale = grey.copy()
    pale[:8] = 240
    assert named(pale)["share of pale pixels"] == 0.25
    middle = grey.copy()
    middle[8:24, 8:24] = 200
    assert named(middle)["centre brighter than rim"] > 0.1
    red = grey.copy()
    red[8:24, 8:24, 0] = 200
    assert named(red)["centre redder than rim"] > 0.05
    fine, coarse = grey.copy(), grey.copy()
    fine[::2] = 150
    coarse[(np.arange(32) // 4) % 2 == 0] = 150
    assert named(fine)["sharpness"] > named(coarse)["sharpness"]
    assert named(fine)["gradient over 2 px"] == pytest.approx(0.0)
    assert named(coarse)["gradient over 2 px"] > 0.02


def part(seed: int, many: int, effect: float) -> Labelled:
    draws = np.random.default_rng(seed)
    labels = np.arange(many) % 2
    colours = np.clip(draws.normal(120 + effect * labels[:, None, None, None], 25, (many, 1, 1, 3)), 0, 255)
    noise = draws.normal(0, 5, (many, 16, 16, 3))
    pixels = np.clip(colours + noise, 0, 255).astype(np.uint8)
    return Labelled(pixels, labels.astype(np.int64), tuple(f"{seed}-{n}" for n in range(many)))


def test_it_ranks_what_colour_tells_and_nothing_else():
    seen, blind, test = fit(part(1, 60, 40), part(2, 30, 40)), fit(part(1, 60, 0), part(2, 30, 0)), part(3, 60, 40)
    assert auc(test.labels, seen.floor.scores(describe(test.pixels))) > 0.85
    nothing = part(3, 200, 0)
    assert 0.35 < auc(nothing.labels, blind.floor.scores(describe(nothing.pixels))) < 0.65


def test_validation_chooses_strength_and_threshold():
    train, valid = part(1, 24, 15), part(2, 24, 15)
    numbers, others = describe(train.pixels), describe(valid.pixels)
    found = fit_numbers(numbers, train.labels, others, valid.labels)
    models = {
        c: make_pipeline(StandardScaler(), LogisticRegression(C=c, class_weight="balanced", max_iter=1000)).fit(
            numbers, train.labels
        )
        for c in STRENGTHS
    }
    losses = {c: log_loss(valid.labels, model.predict_proba(others)[:, 1]) for c, model in models.items()}
    assert found.strength == min(losses, key=lambda c: losses[c])
    assert found.loss == pytest.approx(losses[found.strength])  # as many cases as controls: no weights
    assert found.floor.scores(others) == pytest.approx(models[found.strength].predict_proba(others)[:, 1])
    assert found.threshold == best_threshold(valid.labels, found.floor.scores(others))


def test_both_classes_count_the_same_in_the_loss():
    labels, scores = np.array([1, 0, 0, 0]), np.array([0.2, 0.4, 0.3, 0.1])
    assert loss(scores, labels) == pytest.approx(log_loss(labels, scores, sample_weight=[3, 1, 1, 1]))


def test_a_row_of_numbers_holds_it():
    found = fit(part(1, 24, 15), part(2, 24, 15)).floor
    numbers = describe(part(3, 9, 15).pixels)
    assert Floor.of_row(found.row()).scores(numbers).tobytes() == found.scores(numbers).tobytes()
    with pytest.raises(ValueError, match="76 numbers"):
        Floor.of_row(np.zeros(5))


def test_the_same_images_give_the_same_bits():
    train, valid, test = part(1, 24, 15), part(2, 24, 15), describe(part(3, 9, 15).pixels)
    assert fit(train, valid).floor.scores(test).tobytes() == fit(train, valid).floor.scores(test).tobytes()
