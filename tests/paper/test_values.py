"""Every value that the paper prints about training, as profile `paper` holds it; and where `recommended` differs."""

from __future__ import annotations

import math

import pytest
import torch

from fedcervix.core.collapse import collapse_loss
from fedcervix.core.plan import Plan, Recipe, Terms, differences
from fedcervix.core.profiles import PROFILES, Profile
from site_agent.network.encoder import build_encoder
from site_agent.network.optimizer import make_optimiser

PAPER = PROFILES["paper"].recipe
TERMS = PROFILES["paper"].terms
RECOMMENDED = PROFILES["recommended"].recipe


def test_contrastive_learning_has_the_papers_values() -> None:
    """III-D: "learning rate 0.01, weight decay = 1e-5, momentum = 0.9, tau = 0.1 (See Eq 1), epochs = 50".

    And "the learning stops when the validation loss is not decreasing for 5 epochs".
    """
    assert (PAPER.lr, PAPER.weight_decay, PAPER.momentum) == (0.01, 1e-5, 0.9)
    assert PAPER.temperature == 0.1
    assert (PAPER.epochs_max, PAPER.patience_epochs) == (50, 5)


def test_those_values_reach_the_optimiser() -> None:
    encoder = build_encoder(PROFILES["demo"].recipe, seed=0)
    [group] = make_optimiser(encoder, PAPER).param_groups
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.01, 1e-5, 0.9)
    assert not group["nesterov"]
    assert group["dampening"] == 0


def test_the_network_is_resnet_50_and_a_relu_layer_of_64() -> None:
    """III-B: "We use ResNet-50 as a backbone network architecture"; "empirically decide to set it 64"."""
    assert (PAPER.architecture, PAPER.head, PAPER.width, PAPER.start) == ("resnet50", "relu", 64, "random")
    assert build_encoder(PAPER, seed=0).head[0].weight.shape == (64, 2048)


def test_federated_runs_use_eight_images_the_original_being_one_of_the_views() -> None:
    """II-A: "constructed with N random images and an augmented version of them"; federated runs only at N = 8."""
    assert (PAPER.batch_images, PAPER.views) == (8, "one-augmented")
    assert (PAPER.loss, PAPER.normalise) == ("nt-xent", True)


@pytest.mark.parametrize("n", [8, 16, 32])
def test_the_reference_line_of_collapse_is_log_2n_minus_1(n: int) -> None:
    assert collapse_loss(n) == math.log(2 * n - 1)


def test_the_classifier_has_the_papers_values() -> None:
    """III-D: "learning rate 0.001, weight decay = 1e-6, momentum = 0.09, epochs = 50, batch size =4".

    And "we use reverse class weighting".
    """
    classifier = PAPER.classifier
    assert (classifier.lr, classifier.weight_decay, classifier.momentum) == (0.001, 1e-6, 0.09)
    assert (classifier.epochs_max, classifier.patience_epochs, classifier.batch_images) == (50, 5, 4)
    assert classifier.reverse_class_weights
    assert classifier.augment == "none"


def test_a_federation_averages_weights_after_every_epoch() -> None:
    """II-B: "we use weight averaging for model aggregation"; E = 1 was best; rounds x E is 50 at most."""
    assert (TERMS.epochs_per_round, TERMS.rounds, TERMS.patience_rounds) == (1, 50, 5)
    assert (TERMS.average, TERMS.batch_norm, TERMS.optimiser_state) == ("equal", "mean", "reset")
    assert TERMS.quorum is None


OPTIONS = {
    "recipe.loss": "nt-xent",
    "recipe.head": "relu",
    "recipe.views": "one-augmented",
    "recipe.stages": (),
    "recipe.positives": "view",
    "recipe.augment.colour": "free",
    "recipe.avoid_same_patient": False,
    "recipe.warmup_epochs": 0.0,
    "recipe.schedule": "constant",
    "recipe.proximal": 0.0,
    "recipe.start": "random",
    "recipe.precision": "float32",
    "recipe.classifier.augment": "none",
    "terms.average": "equal",
    "terms.batch_norm": "mean",
    "terms.aggregation": "mean",
    "terms.clip": 0.0,
    "terms.server_momentum": 0.0,
    "terms.optimiser_state": "reset",
    "terms.ring_result": "last",
    "terms.compression": "none",
    "terms.quorum": None,
}


@pytest.mark.parametrize("key", OPTIONS)
def test_every_option_is_off_in_the_profile_paper_which_is_the_default(key: str) -> None:
    """What the paper does not do is there to be switched on, and never on by itself."""
    for whole in (PROFILES["paper"], Profile(Recipe(), Terms())):
        found: object = whole
        for name in key.split("."):
            found = getattr(found, name)
        assert found == OPTIONS[key]


@pytest.mark.parametrize(
    ("owner", "field", "value"),
    [
        (Recipe, "loss", "dcl"),
        (Recipe, "head", "mlp"),
        (Recipe, "views", "both-augmented"),
        (Recipe, "avoid_same_patient", True),
        (Recipe, "stages", ("acetic",)),
        (Recipe, "positives", "same-stage-visit"),
        (Recipe, "warmup_epochs", 5.0),
        (Recipe, "schedule", "cosine"),
        (Recipe, "proximal", 0.01),
        (Terms, "batch_norm", "pooled-variance"),
        (Terms, "batch_norm", "local-statistics"),
        (Terms, "batch_norm", "local"),
        (Terms, "aggregation", "trimmed-mean"),
        (Terms, "clip", 3.0),
        (Terms, "server_momentum", 0.9),
        (Terms, "optimiser_state", "keep"),
        (Terms, "ring_result", "cycle-average"),
        (Terms, "compression", "int8"),
    ],
)
def test_every_option_can_be_switched_on_and_is_then_part_of_the_contract(
    owner: type, field: str, value: object
) -> None:
    """A plan with an option has another digest: a site that agreed to plain averaging is asked again."""
    parts = {Recipe: Recipe(), Terms: Terms()} | {owner: owner(**{field: value})}
    plain = Plan(mode="csfssl", sites=tuple("abcde"), profile="paper", terms=Terms(), recipe=Recipe())
    other = Plan(mode="csfssl", sites=tuple("abcde"), profile="paper", terms=parts[Terms], recipe=parts[Recipe])
    assert other.digest != plain.digest
    [said] = differences(plain, other)
    assert said.startswith(("recipe." if owner is Recipe else "terms.") + f"{field}: ")


def test_where_the_paper_is_silent_the_profile_says_what_we_chose() -> None:
    augment = PAPER.augment
    assert (augment.flip_horizontal, augment.flip_vertical) == (0.5, 0.5)
    assert (augment.rotation_deg, augment.shift) == (20, 0.10)
    assert (augment.zoom_min, augment.zoom_max) == (0.9, 1.1)
    assert (augment.gamma_min, augment.gamma_max, augment.brightness) == (0.8, 1.25, 0.15)
    assert (PAPER.image_px, PAPER.fit, PAPER.precision) == (224, "squash", "float32")
    assert PAPER.decay_norms_and_biases
    assert not PAPER.avoid_same_patient


def test_the_recommended_profile_differs_in_these_keys_and_no_others() -> None:
    changed = {line.split(":")[0] for line in differences(PAPER, RECOMMENDED)}
    assert changed == {
        "precision",
        "augment.rotation_deg",
        "augment.zoom_min",
        "augment.zoom_max",
    }
    assert RECOMMENDED.precision == "auto"
    assert (RECOMMENDED.augment.rotation_deg, RECOMMENDED.augment.zoom_min) == (180, 0.7)


def test_every_profile_builds_a_model_with_its_own_head() -> None:
    x = torch.zeros(2, 3, 32, 32)
    for name, profile in PROFILES.items():
        assert build_encoder(profile.recipe, seed=0).eval()(x).shape == (2, profile.recipe.width), name
