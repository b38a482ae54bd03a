"""How a classifier is made when its recipe asks for more than the paper: probe, LP-FT, several trainings, mean weights.

What the paper asks for is in tests/paper/test_classifier.py.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from fedcervix.core.plan import ClassifierRecipe, Recipe
from fedcervix.core.seeds import derive
from fedcervix.errors import DataError
from site_agent.classifier import trainings
from site_agent.classifier.averaged import AveragedClassifier
from site_agent.classifier.finetune import (
    Classifier,
    build_classifier,
    class_weights,
    classifier_batches,
    features,
    predict,
    validation_loss,
)
from site_agent.classifier.graded import called
from site_agent.classifier.ordered import ordinal_losses
from site_agent.classifier.probe import PENALTIES, fit_head, head_loss
from site_agent.classifier.trainings import TrainedClassifier
from site_agent.classifier.weight_average import WeightAverage
from site_agent.data.image_sets import Labelled
from site_agent.manifest.classes import Classes
from site_agent.network.augmentation import standardise, to_input
from site_agent.network.devices import Machine
from site_agent.network.encoder import build_encoder
from site_agent.training.context import TrainingContext

CPU = torch.device("cpu")
TERMS = ClassifierRecipe(lr=0.01, batch_images=4, epochs_max=2)
START = dict(build_encoder(Recipe(architecture="resnet18", width=8), 7).state_dict())


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def labelled(count: int, seed: int, gap: int = 60) -> Labelled:
    """Noise; every third image is a case, and brighter by `gap`. Two images of each woman."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 3 == 0).astype(np.int64)
    pixels = rng.integers(40, 160, (count, 32, 32, 3)) + gap * labels[:, None, None, None]
    return Labelled(pixels.astype(np.uint8), labels, tuple(f"{seed}-{i // 2}" for i in range(count)))


TRAIN, VALID, HARD = labelled(9, 0), labelled(6, 1), labelled(9, 2, gap=2)


def recipe(**terms: object) -> Recipe:
    terms_ = dataclasses.replace(TERMS, **terms)
    return Recipe(architecture="resnet18", image_px=32, width=8, classifier=terms_)


def train(
    start: Mapping[str, Tensor] | None = START, given: Labelled = TRAIN, seed: int = 1, **terms: object
) -> TrainedClassifier:
    context = TrainingContext(recipe=recipe(**terms), seed=seed, stream="nhs", machine=Machine(CPU))
    return trainings.train(start, given, VALID, context)


@functools.cache
def trained(**terms: object) -> TrainedClassifier:
    """What a test looks at and does not change is made once."""
    return train(**terms)


def by_the_paper(seed: int, epochs: int) -> dict[str, Tensor]:
    """Section III-D in a straight line: SGD on everything, in batches of four, without any of today's options."""
    network, _ = build_classifier(recipe(), seed, START)
    network.to(memory_format=torch.channels_last)
    weights = torch.tensor(class_weights(TRAIN.labels))
    optimiser = torch.optim.SGD(
        network.parameters(), lr=TERMS.lr, momentum=TERMS.momentum, weight_decay=TERMS.weight_decay
    )
    for parameter in network.parameters():
        optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    for epoch in range(1, epochs + 1):
        network.train()
        order = derive(derive(seed, "classifier-epoch", "nhs", epoch), "order")
        for rows in classifier_batches(len(TRAIN.labels), 4, order):
            labels = torch.from_numpy(TRAIN.labels[rows])
            logits = network(standardise(to_input(torch.from_numpy(TRAIN.pixels[rows]))))
            losses = F.binary_cross_entropy_with_logits(
                logits, labels.float(), weight=weights[labels], reduction="none"
            )
            optimiser.zero_grad()
            losses.mean().backward()
            optimiser.step()
    return network.state_dict()


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_with_every_option_off_it_is_the_paper_s_to_the_bit():
    found = trained(epochs_max=1)
    assert same(found.state, by_the_paper(1, 1))
    assert found.validation_loss == found.fits[0].history[0].valid_loss


# --- probe and LP-FT ------------------------------------------------------------------------------------------------


def test_a_probe_changes_the_neuron_alone_and_depends_on_no_seed():
    one, other = trained(method="probe"), train(method="probe", seed=2)
    assert same(one.state, other.state)
    for name, tensor in START.items():
        assert not name.startswith("backbone.") or torch.equal(one.state[name], tensor)
    assert len(one.fits[0].history) == 1


@pytest.mark.parametrize("penalty", PENALTIES[::4])
def test_a_head_is_logistic_regression_s(penalty):
    rng = np.random.default_rng(0)
    seen, labels = rng.normal(size=(30, 5)), (np.arange(30) % 3 == 0).astype(np.int64)
    weights = np.array(class_weights(labels))[labels]
    head = fit_head(seen, labels, weights, penalty, begin=np.zeros(6))
    expected = LogisticRegression(C=1 / (penalty * 30), class_weight="balanced", tol=1e-10, max_iter=10_000).fit(
        seen, labels
    )
    np.testing.assert_allclose(head, np.append(expected.coef_[0], expected.intercept_), atol=1e-3)
    chosen = np.where(labels == 1, expected.predict_proba(seen)[:, 1], expected.predict_proba(seen)[:, 0])
    assert head_loss(seen, labels, head, weights) == pytest.approx(float(np.mean(weights * -np.log(chosen))), rel=1e-3)


def test_a_probe_takes_the_penalty_that_validation_prefers():
    found = train(given=HARD, method="probe")
    assert isinstance(found.network, Classifier)
    seen = {part: features(found.network, part.pixels, CPU).astype(np.float64) for part in (HARD, VALID)}
    middle, spread = seen[HARD].mean(axis=0), seen[HARD].std(axis=0)
    train_, valid = ((seen[part] - middle) / np.where(spread < 1e-8, np.inf, spread) for part in (HARD, VALID))
    losses = []
    for penalty in PENALTIES:
        probe = LogisticRegression(C=1 / (penalty * 9), class_weight="balanced", tol=1e-9, max_iter=10_000)
        probe.fit(train_, HARD.labels)
        losses.append(-np.mean(np.log(probe.predict_proba(valid)[np.arange(6), VALID.labels])))
    assert found.validation_loss == pytest.approx(min(losses), rel=0.02)


def test_lp_ft_goes_on_from_the_probe_with_the_start_s_batch_norm():
    probe, still = trained(method="probe"), train(method="lp-ft", lr=1e-30)
    moved = trained(method="lp-ft")
    for name, tensor in probe.state.items():
        torch.testing.assert_close(still.state[name], tensor, rtol=0, atol=1e-9)  # at this rate nothing moves
    for name, tensor in START.items():
        if "running" in name or name.endswith("num_batches_tracked"):
            assert torch.equal(moved.state[name], tensor)
    assert not torch.equal(moved.state["backbone.conv1.weight"], START["backbone.conv1.weight"])
    assert not torch.equal(moved.state["backbone.bn1.weight"], START["backbone.bn1.weight"])


def test_lp_ft_keeps_the_probe_where_fine_tuning_makes_validation_worse():
    probe, found = trained(method="probe"), train(method="lp-ft", lr=0.5, epochs_max=1)
    assert found.fits[0].is_probe
    assert same(found.state, probe.state)
    assert found.validation_loss == probe.validation_loss


@pytest.mark.parametrize("method", ["probe", "lp-ft"])
def test_random_weights_have_the_statistics_of_the_training_images(method):
    """Without them the first layers of an untrained network are not normalised, and neither is what follows."""
    network = train(start=None, method=method, epochs_max=1, lr=1e-30).network
    seen = network.backbone.conv1(standardise(to_input(torch.from_numpy(TRAIN.pixels))))
    torch.testing.assert_close(network.backbone.bn1.running_mean, seen.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert all(norm.momentum == 0.1 for norm in network.modules() if isinstance(norm, nn.BatchNorm2d))


def test_lp_ft_of_three_labelled_women_is_made():
    few = Labelled(TRAIN.pixels[:3], np.array([1, 0, 0]), ("a", "b", "c"))
    found = train(method="lp-ft", given=few)
    assert np.isfinite(found.validation_loss)


@pytest.mark.parametrize("method", ["probe", "lp-ft"])
def test_a_probe_of_one_class_is_refused(method):
    with pytest.raises(DataError, match="0 cases and 3 controls"):
        train(method=method, given=Labelled(TRAIN.pixels[:3], np.zeros(3, np.int64), ("a", "b", "c")))


# --- several trainings ----------------------------------------------------------------------------------------------


def test_the_score_of_several_trainings_is_the_mean_of_theirs():
    whole = trained(trainings=2, epochs_max=1)
    assert isinstance(whole.network, AveragedClassifier)
    each = [predict(one, VALID.pixels, device=CPU) for one in whole.network.trainings]
    scores = predict(whole.network, VALID.pixels, device=CPU)
    np.testing.assert_allclose(scores, np.mean(each, axis=0), rtol=1e-12)
    assert whole.validation_loss == pytest.approx(-np.mean(np.log(np.where(VALID.labels == 1, scores, 1 - scores))))
    assert whole.validation_loss <= np.mean([one.history[0].valid_loss for one in whole.fits]), "Jensen"


def test_the_first_of_several_trainings_is_the_one_alone_and_the_others_differ():
    alone, whole = trained(epochs_max=1), trained(trainings=2, epochs_max=1)
    assert same(alone.state, whole.fits[0].best_state)
    assert not torch.equal(whole.fits[0].best_state["neuron.weight"], whole.fits[1].best_state["neuron.weight"])


def test_from_random_weights_every_training_draws_its_own():
    whole = train(None, trainings=2, method="probe")
    one, other = (fit.best_state["backbone.conv1.weight"] for fit in whole.fits)
    assert not torch.equal(one, other)


def test_what_is_stored_of_several_trainings_is_built_again():
    whole = trained(trainings=2, epochs_max=1)
    again = trainings.restore(recipe(trainings=2), whole.state, what="a classifier")
    np.testing.assert_array_equal(*(predict(n, VALID.pixels, device=CPU) for n in (whole.network, again)))


# --- means of weights -----------------------------------------------------------------------------------------------


def test_a_weight_average_is_of_the_last_epochs_and_of_the_start():
    average = WeightAverage({"w": torch.tensor([0.0])}, epochs=2, share=0.5)
    states = [{"w": torch.tensor([value]), "steps": torch.tensor(k)} for k, value in enumerate((2.0, 4.0, 8.0))]
    found = [average.after(state) for state in states]
    assert [float(one["w"]) for one in found] == [1.0, 1.5, 3.0]
    assert [int(one["steps"]) for one in found] == [0, 1, 2]


def test_interpolation_lies_between_the_probe_and_what_was_fine_tuned():
    probe, whole, half = (
        trained(method="probe"),
        trained(method="lp-ft", epochs_max=1),
        train(method="lp-ft", epochs_max=1, tuned_share=0.5),
    )
    for name, tensor in half.state.items():
        if tensor.is_floating_point():
            middle = (probe.state[name].double() + whole.state[name].double()) / 2
            torch.testing.assert_close(tensor, middle.float(), rtol=1e-6, atol=1e-7)


def test_the_mean_of_epochs_is_what_validation_judges_and_training_goes_on_from_its_own():
    one, two = trained(method="lp-ft"), train(method="lp-ft", averaged_epochs=2)
    assert [epoch.train_loss for epoch in one.fits[0].history] == [epoch.train_loss for epoch in two.fits[0].history]
    best = two.fits[0].history[two.fits[0].best_epoch - 1].valid_loss
    assert isinstance(two.network, Classifier)
    assert validation_loss(two.network, VALID, device=CPU) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize(
    "terms", [{"averaged_epochs": 2}, {"tuned_share": 0.5}, {"tuned_share": 0.5, "method": "probe"}]
)
def test_means_of_weights_need_lp_ft(terms):
    with pytest.raises(ValueError, match="lp-ft"):
        ClassifierRecipe(**terms)


# --- ordered classes ------------------------------------------------------------------------------------------------

THREE = Classes(("normal", "low", "high"), "high")


def graded(count: int, seed: int, names: Classes = THREE, gap: int = 30) -> Labelled:
    """Noise, brighter by `gap` with every class; one image of each woman."""
    rng = np.random.default_rng(seed)
    ranks = np.arange(count) % len(names.names)
    pixels = rng.integers(40, 100, (count, 32, 32, 3)) + gap * ranks[:, None, None, None]
    women = tuple(map(str, range(count)))
    return Labelled(pixels.astype(np.uint8), (ranks >= names.cut).astype(np.int64), women, ranks=ranks, classes=names)


def train_graded(given: Labelled, valid: Labelled | None = None, **terms: object) -> TrainedClassifier:
    context = TrainingContext(recipe=recipe(**terms), seed=1, stream="nhs", machine=Machine(CPU))
    return trainings.train(START, given, valid or graded(9, 1, given.classes), context)


def test_ordered_labels_change_nothing_where_two_classes_are_learned():
    """The paper's binary classifier is the same, whatever finer labels the site has."""
    fine = graded(12, 0), graded(9, 1)
    binary = [Labelled(part.pixels, part.labels, part.patients) for part in fine]
    expected = train_graded(*binary, method="probe")
    assert same(train_graded(*fine, method="probe").state, expected.state)
    assert same(train_graded(*binary, method="probe", labels="ordered").state, expected.state)


@pytest.mark.parametrize("method", ["probe", "lp-ft"])
def test_ordered_classes_are_learned_and_a_case_is_what_lies_above_the_cut(method):
    made = train_graded(
        graded(12, 0), method=method, labels="ordered", trainings=1 if method == "lp-ft" else 2, epochs_max=1
    )
    asked = graded(9, 5)
    chances = trainings.class_probabilities(made.network, asked.pixels, device=CPU)
    assert chances is not None
    assert chances.shape == (9, 3)
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-9)
    assert chances.min() >= 0
    assert called(chances).tolist() == asked.ranks.tolist()
    np.testing.assert_allclose(
        predict(made.network, asked.pixels, device=CPU), chances[:, THREE.cut :].sum(axis=1), atol=1e-9
    )
    again = trainings.restore(made_recipe(made, method), made.state, what="a classifier")
    np.testing.assert_array_equal(trainings.class_probabilities(again, asked.pixels, device=CPU), chances)


def made_recipe(made: TrainedClassifier, method: str) -> Recipe:
    return recipe(method=method, labels="ordered", trainings=len(made.fits))


def test_thresholds_of_a_probe_are_those_of_the_convex_optimum_and_ascend():
    """The optimum of CORAL with one weight per image is ordered: no threshold needs to be moved."""
    rng = np.random.default_rng(0)
    for draw in range(20):
        seen, grades = rng.normal(size=(40, 4)), rng.integers(0, 5, 40)
        head = fit_head(seen, grades, 1 / np.bincount(grades)[grades], PENALTIES[draw % len(PENALTIES)], np.zeros(8))
        assert (np.diff(head[4:]) < 0).all()


def test_a_step_of_ordered_classes_is_the_weighted_mean_of_the_thresholds_losses():
    logits, grades = torch.tensor([[0.5, -1.0], [2.0, 1.0]]), torch.tensor([1, 2])
    by_hand = [-(np.log(1 / (1 + np.exp(-0.5))) + np.log(1 - 1 / (1 + np.exp(1.0)))) / 2]
    by_hand += [-3 * (np.log(1 / (1 + np.exp(-2.0))) + np.log(1 / (1 + np.exp(-1.0)))) / 2]
    found = ordinal_losses(logits, grades, torch.tensor([1.0, 1.0, 3.0]))
    np.testing.assert_allclose(found.numpy(), by_hand, rtol=1e-5)


def test_five_classes_of_which_one_is_empty_are_refused_with_its_name():
    five = Classes(("a", "b", "c", "d", "e"), "c")
    full = graded(20, 0, five)
    rows = np.flatnonzero(full.grades != 3)
    few = Labelled(full.pixels[rows], full.labels[rows], tuple(map(str, rows)), ranks=full.grades[rows], classes=five)
    with pytest.raises(DataError, match="no training image has the class d"):
        train_graded(few, method="lp-ft", labels="ordered")
    assert np.isfinite(train_graded(few, method="probe").validation_loss), "binary, it is made"
