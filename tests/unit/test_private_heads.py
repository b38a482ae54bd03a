"""Heads with differential privacy: what is promised of one woman, counted again in another way."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from numpy.typing import NDArray
from scipy.stats import kstest, norm

from fedcervix.core.plan import Recipe
from fedcervix.errors import TrainingError
from site_agent.classifier import classifier_store
from site_agent.classifier.comparable import comparable
from site_agent.classifier.finetune import build_classifier
from site_agent.classifier.privacy_accounting import EPOCHS, PrivateSteps, epsilon, promised
from site_agent.classifier.private_finetune import private_finetune
from site_agent.classifier.private_heads import WomensFeatures, clipped_sum, fit
from site_agent.classifier.secret_draws import SecretDraws
from site_agent.data import dataset
from site_agent.data.image_sets import Labelled
from site_agent.metrics import auc
from site_agent.network.encoder import load_weights
from site_agent.report.history import entries
from tests.unit.sites import site as clinic

torch.set_num_threads(1)

Floats = NDArray[np.float64]


# --- epsilon, by a computation of our own --------------------------------------------------------------------------


def losses_of_one_step(rate: float, noise: float, *, removed: bool, losses: Floats) -> Floats:
    """Return the probability of each privacy loss of a step.

    Upper pair: with the woman (1 - q) N(0, s) + q N(1, s), without her N(0, s); `removed` says which of the two the
    outcome comes from. The loss grows with the outcome x, so its distribution follows from that of x.
    """
    ratio = np.expm1(losses if removed else -losses) / rate + 1  # exp((2x - 1) / 2 s^2)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.where(ratio > 0, noise**2 * np.log(ratio) + 0.5, -np.inf)
    with_her = (1 - rate) * norm.cdf(x, 0, noise) + rate * norm.cdf(x, 1, noise)
    return np.diff(with_her if removed else norm.sf(x, 0, noise), prepend=0)


def independent_epsilon(steps: PrivateSteps, noise: float) -> float:
    """Return epsilon: losses on a grid, composed by powers of their Fourier transform, searched for delta.

    Hockey stick: delta(e) = E[max(0, 1 - exp(e - loss))] (Balle and Wang 2018; Koskela et al. 2020).
    """
    width, cells = 2e-3, 2**17
    losses = width * (np.arange(cells) - cells // 2)
    found = []
    for removed in (True, False):
        one = losses_of_one_step(steps.rate, noise, removed=removed, losses=losses)
        spectrum = np.fft.rfft(np.fft.ifftshift(one))
        composed = np.fft.fftshift(np.fft.irfft(spectrum**steps.count, cells))
        low, high = 0.0, losses[-1]
        for _ in range(50):
            middle = (low + high) / 2
            gap = np.maximum(0, -np.expm1(np.minimum(0, middle - losses)))
            low, high = (middle, high) if gap @ composed > steps.delta else (low, middle)
        found.append(high)
    # a loss is put into the upper end of its cell: half a cell too high on average, in every step
    return max(found) - steps.count * width / 2


@pytest.mark.parametrize(("women", "noise"), [(1000, 1.836), (300, 1.593), (5000, 0.9), (64, 9.0)])
def test_epsilon_is_that_of_an_independent_computation(women: int, noise: float) -> None:
    steps = PrivateSteps(women)
    assert epsilon(steps, noise) == pytest.approx(independent_epsilon(steps, noise), rel=0.01)


def test_without_sampling_it_is_the_gaussian_mechanism() -> None:
    """Of T steps with every woman: one Gaussian of deviation s / sqrt(T) (Balle and Wang, ICML 2018, theorem 8)."""
    steps, noise = PrivateSteps(64), 9.0
    mu, found = math.sqrt(steps.count) / noise, epsilon(PrivateSteps(64), 9.0)
    delta = norm.cdf(mu / 2 - found / mu) - math.exp(found) * norm.cdf(-mu / 2 - found / mu)
    assert (steps.rate, noise) == (1.0, 9.0)
    assert delta == pytest.approx(steps.delta, rel=0.05)


def test_a_promise_keeps_to_what_was_asked() -> None:
    privacy = promised(PrivateSteps(1000), 3.0)
    assert 2.9 < privacy.epsilon <= 3.0
    assert privacy.delta == 1e-5
    assert privacy.rate == 0.064
    assert privacy.steps == math.ceil(EPOCHS / 0.064)
    assert PrivateSteps(100_000).delta == 1e-6


# --- one woman -----------------------------------------------------------------------------------------------------


def data_set(images: list[int], seed: int = 0, scale: float = 5.0) -> WomensFeatures:
    """Women with so many images each."""
    rng = np.random.default_rng(seed)
    count = sum(images)
    names = [f"w{woman:03}" for woman, own in enumerate(images) for _ in range(own)]
    features = rng.normal(0, scale, (count, 12)).astype(np.float32)
    return WomensFeatures.of(features, rng.integers(0, 2, count), names)


def without_the_last(women: WomensFeatures) -> WomensFeatures:
    kept = women.place < women.count - 1
    return WomensFeatures(women.features[kept], women.labels[kept], women.place[kept])


@pytest.mark.parametrize("images", [1, 50])
@pytest.mark.parametrize("scale", [0.01, 1e6])
def test_a_woman_with_one_or_fifty_images_moves_a_sum_as_far(images: int, scale: float) -> None:
    """Neighbouring data sets: with her, and without her. The same others are drawn in both."""
    women = data_set([3, 1, 2, images], scale=scale)
    head = np.random.default_rng(1).normal(0, 1, 13)
    taken = np.array([True, False, True, True])
    there = clipped_sum(women, head, taken, 0.7)
    gone = clipped_sum(without_the_last(women), head, taken[:-1], 0.7)
    moved = np.linalg.norm(there - gone)
    assert moved <= 0.7 * (1 + 1e-9)
    if scale > 1:
        assert moved == pytest.approx(0.7)


def test_the_women_of_a_sum_are_those_drawn() -> None:
    women, head = data_set([2, 4, 1]), np.zeros(13)
    each = [clipped_sum(women, head, np.arange(3) == one, 1e9) for one in range(3)]
    own = women.features[women.place == 1]
    expected = np.append(own, np.ones((4, 1)), axis=1) * (0.5 - women.labels[women.place == 1])[:, None]
    assert np.allclose(each[1], expected.mean(axis=0))
    assert np.allclose(clipped_sum(women, head, np.array([True, False, True]), 1e9), each[0] + each[2])
    assert not clipped_sum(women, head, np.zeros(3, bool), 1.0).any()


def test_copies_of_a_womans_images_change_nothing() -> None:
    one = data_set([1, 1])
    many = WomensFeatures(one.features.repeat(50, axis=0), one.labels.repeat(50), one.place.repeat(50))
    taken, head = np.ones(2, bool), np.ones(13)
    assert np.allclose(clipped_sum(one, head, taken, 1.0), clipped_sum(many, head, taken, 1.0))


def test_the_order_of_the_images_does_not_matter() -> None:
    women = ["b", "a", "b", "c"]
    features, labels = np.arange(8, dtype=np.float32).reshape(4, 2), np.array([1, 0, 1, 0])
    found, turned = (
        WomensFeatures.of(features, labels, women),
        WomensFeatures.of(features[::-1], labels[::-1], women[::-1]),
    )
    assert found.place.tolist() == [0, 1, 1, 2]
    taken = np.array([False, True, False])
    assert np.allclose(clipped_sum(found, np.ones(3), taken, 1.0), clipped_sum(turned, np.ones(3), taken, 1.0))


def test_features_that_are_no_numbers_are_refused() -> None:
    """NaN has no length that could be cut: one woman would decide the whole head."""
    classifier, _ = build_classifier(Recipe(architecture="resnet18", image_px=32), 0, None)
    with torch.no_grad():
        next(classifier.backbone.parameters()).fill_(float("nan"))
    part = Labelled(np.zeros((2, 32, 32, 3), np.uint8), np.array([0, 1]), ("a", "b"))
    privacy = promised(PrivateSteps(2), 8.0)
    with pytest.raises(TrainingError, match="not finite numbers"):
        private_finetune(classifier, part, part, privacy, SecretDraws(bytes(32)), lambda *_: None)


def test_noise_has_the_length_that_was_promised() -> None:
    """A lot of nobody is noise alone: what is left of the head is the sum of the noise of the steps."""
    privacy = promised(PrivateSteps(500), 1.0)
    women = WomensFeatures(np.zeros((500, 2000)), np.full(500, 0.5), np.arange(500))
    head = fit(women, privacy, SecretDraws(bytes(32)))[:-1]
    kept = privacy.steps - privacy.steps // 2
    share = np.minimum(1, (privacy.steps - np.arange(privacy.steps)) / kept)  # of each step's noise in the mean
    expected = 0.5 * privacy.noise * privacy.clip / privacy.lot_women * math.sqrt(np.sum(share**2))
    assert np.std(head) == pytest.approx(expected, rel=0.1)


def test_a_thousand_women_are_enough_to_learn_from() -> None:
    rng = np.random.default_rng(3)
    labels = (rng.random(1400) < 0.3).astype(np.int64)
    means = np.abs(rng.normal(0.5, 0.3, 256))
    features = np.maximum(0, means + rng.normal(0, 0.4, (1400, 256)) + 0.25 * labels[:, None] * (np.arange(256) < 32))
    names = [str(woman) for woman in range(1000)]
    privacy = promised(PrivateSteps(1000), 4.0)
    head = fit(
        WomensFeatures.of(features[:1000].astype(np.float32), labels[:1000], names), privacy, SecretDraws(bytes(32))
    )
    assert auc(labels[1000:], features[1000:] @ head[:-1] + head[-1]) > 0.8


# --- numbers that nobody can compute again -------------------------------------------------------------------------


def test_the_stream_is_that_of_rfc_8439() -> None:
    """Appendix A.1, test vector 1: key, nonce and counter of zeros."""
    expected = bytes.fromhex("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7")
    words = np.frombuffer(expected, "<u8")
    assert SecretDraws(bytes(32)).uniform(4).tolist() == [((int(word) >> 12) + 0.5) * 2**-52 for word in words]
    assert Cipher(algorithms.ChaCha20(bytes(32), bytes(16)), mode=None).encryptor().update(bytes(32)) == expected


def test_numbers_are_uniform_and_gaussian_and_never_twice() -> None:
    draws = SecretDraws(bytes(32))
    uniform, normal = draws.uniform(20_000), draws.normal(20_000)
    assert kstest(uniform, "uniform").pvalue > 1e-3
    assert kstest(normal, "norm").pvalue > 1e-3
    assert not np.array_equal(draws.normal(10), draws.normal(10))
    assert 0 < uniform.min() <= uniform.max() < 1


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_command_trains_the_head_alone(tmp_path: Path) -> None:
    made = clinic(tmp_path)
    made.federate("run-one", 1)
    made.train("finetune", "--start", "run-one")
    said = made.train("finetune", "--start", "run-one", "--private", "8", "--name", "private")
    assert "the encoder is not covered" in said.stdout
    assert "10 women are few" in said.stdout
    [stored], _ = classifier_store.found(made.home, "private")
    [model] = made.home.models.glob("*/cervix-model.safetensors")
    backbone, start = stored.build().backbone.state_dict(), load_weights(model)
    assert all(torch.equal(tensor, start[f"backbone.{name}"]) for name, tensor in backbone.items())

    leaves = json.loads((stored.folder / "private-head.json").read_text())
    assert leaves["encoder"] == stored.provenance.start.weights
    assert leaves["privacy"]["epsilon"] == stored.epsilon
    assert stored.epsilon is not None
    assert 7.5 < stored.epsilon <= 8
    neuron = stored.build().neuron
    assert leaves["weight"] == neuron.weight.detach()[0].tolist()
    assert leaves["bias"] == neuron.bias.item()
    assert not [row[1] for row in made.rows() if row[1] in json.dumps(leaves)]
    [plain], _ = classifier_store.found(made.home)
    assert plain.epsilon is None
    assert not (plain.folder / "private-head.json").exists()
    marked = {entry.place: "private head, epsilon 7.9" in entry.what for entry in entries(made.home)}
    assert [marked[f"classifiers/{place}"] for place in ("csfssl", "private/csfssl")] == [False, True]

    made.train("finetune", "--start", "random", "--private", "8")
    found = comparable(made.home, dataset.open_collection(made.home))
    [difference] = [line for line in found.differences if "privacy" in line]
    assert difference == "The heads were trained with different privacy: Random epsilon 7.99, CSFSSL no."


def test_a_head_made_twice_is_not_the_same(tmp_path: Path) -> None:
    """Its noise does not come from the seed."""
    made = clinic(tmp_path)
    heads = []
    for name in ("one", "two"):
        made.train("finetune", "--start", "random", "--private", "8", "--name", name, "--seed", "1")
        heads.append(classifier_store.found(made.home, name)[0][0].provenance.weights)
    assert heads[0] != heads[1]
