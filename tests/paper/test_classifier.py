"""Sections III-B and III-D: how an institution makes its own classifier from the cervix model."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from fedcervix.core.plan import ClassifierRecipe, Recipe
from fedcervix.core.profiles import PROFILES
from fedcervix.errors import DataError, ModelError, TrainingError
from site_agent.classifier.finetune import (
    Finetuned,
    build_classifier,
    class_weights,
    classifier_batches,
    finetune,
    predict,
    validation_loss,
)
from site_agent.data.image_sets import Labelled
from site_agent.network.devices import Machine
from site_agent.network.encoder import build_encoder
from site_agent.training.context import TrainingContext
from site_agent.training.epochs import EpochRecord

CPU = torch.device("cpu")
TINY = Recipe(
    architecture="resnet18",
    image_px=32,
    width=8,
    classifier=ClassifierRecipe(lr=0.01, batch_images=4, epochs_max=2),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ignore(_record: EpochRecord) -> None:
    """Report progress to nobody."""


def labelled(count: int, seed: int, gap: int = 60) -> Labelled:
    """Noise; every third image is a case, and brighter by `gap`."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 3 == 0).astype(np.int64)
    pixels = rng.integers(40, 160, (count, 32, 32, 3)) + gap * labels[:, None, None, None]
    return Labelled(pixels.astype(np.uint8), labels, tuple(f"{seed}-{i // 2}" for i in range(count)))


def with_terms(**terms: object) -> Recipe:
    return dataclasses.replace(TINY, classifier=dataclasses.replace(TINY.classifier, **terms))


def context(recipe: Recipe, **more: Any) -> TrainingContext:
    return TrainingContext(**{"recipe": recipe, "seed": 1, "stream": "nhs", "machine": Machine(CPU), **more})


def fit(recipe: Recipe = TINY, *, seed: int = 1, stream: str = "nhs", train: Labelled | None = None) -> Finetuned:
    classifier, _ = build_classifier(recipe, seed, None)
    return finetune(
        classifier,
        train or labelled(9, 0),
        labelled(6, 1),
        context(recipe, seed=seed, stream=stream),
        on_epoch=ignore,
    )


@pytest.mark.parametrize(
    ("cases", "controls", "weight_case", "weight_control"),
    [(182, 361, 1.4918, 0.7521), (248, 481, 1.4698, 0.7578)],
    ids=["NHS", "ALTS"],
)
def test_reverse_class_weights_of_table_one(cases, controls, weight_case, weight_control):
    """III-D: "We use reverse class weighting". Table I's training images, n / (2 n_c)."""
    labels = np.array([1] * cases + [0] * controls)
    control, case = class_weights(labels)
    assert (round(case, 4), round(control, 4)) == (weight_case, weight_control)
    assert case * cases == pytest.approx(control * controls), "both classes weigh the same"


def test_a_class_without_training_images_is_refused():
    """III-D: reverse class weighting has no weight for an absent class."""
    with pytest.raises(DataError, match="0 cases and 7 controls"):
        class_weights(np.zeros(7, np.int64))


def test_the_dense_layer_is_dropped_and_one_neuron_added():
    """III-B: "we remove the dense layer and put a single output neuron with sigmoid activation"."""
    classifier, _ = build_classifier(TINY, 3, None)
    names = set(classifier.state_dict())
    assert not any(name.startswith("head.") for name in names)
    assert classifier.neuron.weight.shape == (1, 512)
    assert {name for name in names if not name.startswith("backbone.")} == {"neuron.weight", "neuron.bias"}
    assert classifier(torch.zeros(2, 3, 32, 32)).shape == (2,)


def test_it_starts_from_the_cervix_model_whose_head_is_left_behind():
    """III-B: fine-tuning starts from the weights that contrastive learning found."""
    model = build_encoder(TINY, 99).state_dict()
    classifier, loaded = build_classifier(TINY, 3, model)
    backbone = {name: tensor for name, tensor in model.items() if name.startswith("backbone.")}
    assert (loaded.tensors, loaded.of) == (len(backbone), len(classifier.backbone.state_dict()))
    for name, tensor in backbone.items():
        assert torch.equal(classifier.state_dict()[name], tensor)


@pytest.mark.parametrize("fault", ["no key matches", "one is missing", "another shape"])
def test_a_model_that_does_not_fit_is_refused(fault):
    """A start that silently loads nothing would be Random under another name."""
    model = build_encoder(TINY, 99).state_dict()
    key = "backbone.conv1.weight"
    if fault == "no key matches":
        model = {f"module.{name}": tensor for name, tensor in model.items()}
    elif fault == "one is missing":
        del model[key]
    else:
        model[key] = model[key][:1]
    with pytest.raises(ModelError, match="does not fit"):
        build_classifier(TINY, 3, model)


def test_the_neuron_depends_on_the_seed_alone_and_no_global_number_is_drawn():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, _ = build_classifier(TINY, 3, None)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    again, _ = build_classifier(TINY, 3, None)
    other, _ = build_classifier(TINY, 4, None)
    assert torch.equal(first.neuron.weight, again.neuron.weight)
    assert not torch.equal(first.neuron.weight, other.neuron.weight)


def test_the_whole_network_is_fine_tuned():
    """III-B: "The classification network is fully finetuned": no layer is frozen, every parameter moves."""
    recipe = with_terms(epochs_max=1)
    classifier, _ = build_classifier(recipe, 1, None)
    before = {name: tensor.detach().clone() for name, tensor in classifier.named_parameters()}
    train, valid = labelled(8, 0), labelled(6, 1)
    finetune(classifier, train, valid, context(recipe), on_epoch=ignore)
    still = [name for name, tensor in classifier.named_parameters() if torch.equal(tensor, before[name])]
    assert still == []


def test_the_printed_hyper_parameters_are_the_defaults():
    """III-D: SGD, learning rate .001, momentum .09 (sic), weight decay 1e-6, batch 4, 50 epochs, patience 5."""
    assert PROFILES["paper"].recipe.classifier == ClassifierRecipe(
        lr=0.001,
        momentum=0.09,
        weight_decay=1e-6,
        batch_images=4,
        epochs_max=50,
        patience_epochs=5,
        reverse_class_weights=True,
        augment="none",
    )


def test_one_step_is_sgd_on_the_weighted_mean():
    """III-D, one batch by hand: w := w - lr (g + decay w), g of the plain mean of n/(2 n_c)-weighted losses."""
    recipe = with_terms(lr=0.5, weight_decay=0.25, momentum=0.09, epochs_max=1)
    train = labelled(4, 0)
    by_hand, _ = build_classifier(recipe, 1, None)
    by_hand.train()
    [order] = classifier_batches(4, 4, 0)
    pixels = torch.from_numpy(train.pixels[np.sort(order)]).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    logits = by_hand((pixels - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
    target = torch.from_numpy(train.labels).float()  # case, control, control, case: both weights are 1
    p = torch.sigmoid(logits)
    loss = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    loss.backward()
    expected = by_hand.neuron.bias - 0.5 * (by_hand.neuron.bias.grad + 0.25 * by_hand.neuron.bias)
    found = fit(recipe, train=train)
    torch.testing.assert_close(found.best_state["neuron.bias"], expected.detach(), rtol=1e-4, atol=1e-6)
    assert found.history[0].train_loss == pytest.approx(float(loss.detach()), rel=1e-4)


def test_the_training_loss_is_weighted_by_class_and_the_validation_loss_is_not():
    """III-D: weights n / (2 n_c) belong to training alone."""
    weighted, plain = (
        fit(with_terms(epochs_max=1, lr=1e-12)),
        fit(with_terms(epochs_max=1, lr=1e-12, reverse_class_weights=False)),
    )
    assert weighted.history[0].train_loss != pytest.approx(plain.history[0].train_loss, rel=1e-3)
    assert weighted.history[0].valid_loss == pytest.approx(plain.history[0].valid_loss, rel=1e-6)


def test_validation_loss_is_the_cross_entropy_of_the_predictions():
    classifier, _ = build_classifier(TINY, 1, None)
    valid = labelled(6, 1)
    p = predict(classifier, valid.pixels, device=CPU)
    by_hand = -np.mean(np.where(valid.labels == 1, np.log(p), np.log(1 - p)))
    assert validation_loss(classifier, valid, device=CPU) == pytest.approx(by_hand, rel=1e-9)


def test_it_stops_when_the_validation_loss_has_not_fallen_for_patience_epochs():
    """III-D: "The learning stops when the validation loss is not decreasing for 5 epochs"."""
    # At this learning rate the weights stand still.
    found = fit(with_terms(lr=1e-30, epochs_max=50, patience_epochs=5), train=labelled(4, 0))
    losses = [record.valid_loss for record in found.history]
    assert found.stopped == "patience"
    assert len(losses) == found.best_epoch + 5
    assert min(losses) == losses[found.best_epoch - 1]


def test_it_stops_at_the_last_epoch():
    found = fit(with_terms(epochs_max=2, patience_epochs=5))
    assert (len(found.history), found.stopped) == (2, "epochs")


def test_stopping_restores_the_weights_of_the_best_epoch():
    """III-D stops on the validation loss; what is kept is what scored best there, not what came last."""
    recipe = with_terms(lr=0.5, epochs_max=8, patience_epochs=2)
    classifier, _ = build_classifier(recipe, 1, None)
    valid = labelled(6, 1)
    found = finetune(
        classifier,
        labelled(9, 0, gap=0),
        valid,
        context(recipe),
        on_epoch=ignore,
    )
    assert found.best_epoch < len(found.history), "the last epoch must not be the best one for this test to bite"
    best = found.history[found.best_epoch - 1].valid_loss
    assert validation_loss(classifier, valid, device=CPU) == pytest.approx(best, rel=1e-6)
    for name, tensor in classifier.state_dict().items():
        assert torch.equal(tensor, found.best_state[name])


@pytest.mark.parametrize("augment", ["none", "light"])
def test_the_same_seed_gives_the_same_bits(augment):
    recipe = with_terms(augment=augment)
    first, again = fit(recipe), fit(recipe)
    assert [(r.train_loss, r.valid_loss) for r in first.history] == [
        (r.train_loss, r.valid_loss) for r in again.history
    ]
    assert all(torch.equal(first.best_state[name], again.best_state[name]) for name in first.best_state)


def test_light_augmentation_changes_what_is_trained_on():
    assert fit(with_terms(augment="light")).history != fit(with_terms(augment="none")).history


def test_two_sites_see_their_images_in_different_orders():
    here, there = fit(stream="nhs"), fit(stream="alts")
    assert here.history[0].train_loss != there.history[0].train_loss


@pytest.mark.parametrize(("count", "sizes"), [(8, [4, 4]), (9, [4, 5]), (10, [4, 4, 2]), (5, [5]), (3, [3]), (1, [1])])
def test_every_image_is_seen_once_and_a_single_left_over_joins_the_batch_before(count, sizes):
    """Batch norm cannot normalise one image, and labelled women are few: none is dropped."""
    batches = classifier_batches(count, 4, 7)
    assert [len(batch) for batch in batches] == sizes
    assert sorted(np.concatenate(batches)) == list(range(count))


def test_the_order_is_shuffled_anew_by_every_seed():
    one, two = (np.concatenate(classifier_batches(40, 4, seed)) for seed in (1, 2))
    assert not np.array_equal(one, two)


def test_progress_is_reported_by_step_and_by_epoch():
    classifier, _ = build_classifier(TINY, 1, None)
    steps: list[tuple[int, int, int]] = []
    epochs: list[EpochRecord] = []
    ticks = iter(range(100))
    finetune(
        classifier,
        labelled(9, 0),
        labelled(6, 1),
        context(TINY, clock=lambda: float(next(ticks))),
        on_epoch=epochs.append,
        on_step=lambda *step: steps.append(step),
    )
    assert steps == [(1, 1, 2), (1, 2, 2), (2, 1, 2), (2, 2, 2)]
    assert [(record.epoch, record.seconds) for record in epochs] == [(1, 1.0), (2, 1.0)]


def test_a_diverging_fit_says_so():
    with pytest.raises(TrainingError, match="diverged in epoch 1"):
        fit(with_terms(lr=1e30, epochs_max=3))


def test_no_validation_image_is_refused():
    classifier, _ = build_classifier(TINY, 1, None)
    nobody = Labelled(np.zeros((0, 32, 32, 3), np.uint8), np.zeros(0, np.int64), ())
    with pytest.raises(DataError, match="no labelled validation image"):
        finetune(
            classifier,
            labelled(9, 0),
            nobody,
            context(TINY),
            on_epoch=ignore,
        )


def test_a_batch_of_one_is_refused():
    with pytest.raises(TrainingError, match="one image"):
        fit(with_terms(batch_images=1))


def test_predictions_are_probabilities_and_do_not_depend_on_the_batch():
    """III-B: "The output obtained from the sigmoid layer is the case probability"; its neighbours do not matter."""
    classifier, _ = build_classifier(TINY, 1, None)
    pixels = labelled(7, 0).pixels
    together = predict(classifier, pixels, device=CPU)
    alone = predict(classifier, pixels, device=CPU, batch_images=1)
    assert together.shape == (7,)
    assert together.dtype == np.float64
    assert ((together > 0) & (together < 1)).all()
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_it_learns_what_can_be_learned():
    """Bright cases, dark controls: a classifier that cannot learn this learns nothing."""
    recipe = with_terms(epochs_max=4)
    classifier, _ = build_classifier(recipe, 1, None)
    train, valid = labelled(24, 0, gap=90), labelled(12, 1, gap=90)
    finetune(classifier, train, valid, context(recipe), on_epoch=ignore)
    p = predict(classifier, valid.pixels, device=CPU)
    assert p[valid.labels == 1].min() > p[valid.labels == 0].max()
