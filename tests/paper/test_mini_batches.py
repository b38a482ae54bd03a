"""Sections II-A and III-D: what the network really sees, watched at its input while `pretrain` and `finetune` run.

Every image here is of one colour, and the augmentation changes brightness alone, so that a view tells which image it
shows and whether it is augmented.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedcervix.core.plan import Augment, ClassifierRecipe, Recipe
from fedcervix.core.profiles import PROFILES
from site_agent.classifier.finetune import build_classifier, finetune
from site_agent.data.image_sets import Images, Labelled
from site_agent.manifest.details import ImageDetails
from site_agent.network.devices import Machine
from site_agent.network.encoder import build_encoder
from site_agent.training.context import TrainingContext
from site_agent.training.pretrain import Callbacks, pretrain

CPU = torch.device("cpu")
BRIGHTNESS = Augment(
    flip_horizontal=0, flip_vertical=0, rotation_deg=0, shift=0, zoom_min=1, zoom_max=1, gamma_min=1, gamma_max=1
)
SMALL = Recipe(
    architecture="resnet18",
    image_px=32,
    width=8,
    batch_images=4,
    epochs_max=2,
    augment=BRIGHTNESS,
    classifier=ClassifierRecipe(epochs_max=2),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pixels(count: int) -> np.ndarray:
    """Image k has red 100 + 4 k, green and blue 100: red over green names the image whatever its brightness."""
    made = np.full((count, 32, 32, 3), 100, np.uint8)
    made[..., 0] += 4 * np.arange(count, dtype=np.uint8)[:, None, None]
    return made


def women(count: int) -> tuple[str, ...]:
    return tuple(f"woman {k}" for k in range(count))


@dataclasses.dataclass(frozen=True)
class View:
    """What one row of the network's input shows."""

    image: int
    brightness: float
    """1 where it is the original"""


def seen(x: Tensor) -> list[View]:
    """Undo the standardisation and read each row's colour."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    red, green, _ = (x.detach()[:, :, 16, 16] * std + mean).mul(255).T
    return [
        View(round((float(r / g) * 100 - 100) / 4), round(float(g) / 100, 4)) for r, g in zip(red, green, strict=True)
    ]


@dataclasses.dataclass
class Watched:
    """The inputs of a network: while training, and while scoring."""

    training: list[list[View]]
    scoring: list[list[View]]


def watch(network: nn.Module) -> Watched:
    watched = Watched([], [])

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (watched.training if module.training else watched.scoring).append(seen(inputs[0]))

    network.register_forward_pre_hook(look)
    return watched


def context(recipe: Recipe, **more: Any) -> TrainingContext:
    return TrainingContext(**{"recipe": recipe, "seed": 0, "stream": "nhs", "machine": Machine(CPU), **more})


def contrastive(recipe: Recipe, images: int = 11, valid: int = 6) -> Watched:
    encoder = build_encoder(recipe, seed=0)
    watched = watch(encoder)
    pretrain(
        encoder,
        Images(pixels(images), women(images)),
        Images(pixels(valid), women(valid)),
        context(recipe),
        Callbacks(),
    )
    return watched


@pytest.fixture(scope="module")
def paper() -> Watched:
    """Eleven images at N = 4, two epochs."""
    return contrastive(SMALL)


def classified(recipe: Recipe) -> Watched:
    classifier, _ = build_classifier(recipe, 0, None)
    watched = watch(classifier.backbone)  # its input is the classifier's
    labels = np.arange(10) % 2
    finetune(
        classifier,
        Labelled(pixels(10), labels, women(10)),
        Labelled(pixels(4), labels[:4], women(4)),
        context(recipe),
        on_epoch=lambda _: None,
    )
    return watched


# Contrastive learning


def test_a_mini_batch_is_n_different_images_and_an_augmented_version_of_each(paper: Watched) -> None:
    """II-A: "every mini-batch of size 2N is constructed with N random images and an augmented version of them"."""
    for batch in paper.training:
        originals, augmented = batch[:4], batch[4:]
        assert len(batch) == 8
        assert [view.image for view in originals] == [view.image for view in augmented]
        assert len({view.image for view in originals}) == 4
        assert {view.brightness for view in originals} == {1.0}
        assert all(0.85 <= view.brightness <= 1.15 and view.brightness != 1 for view in augmented)


def test_both_views_go_through_the_network_together(paper: Watched) -> None:
    """Where II-A is silent: one forward pass of 2N a step, so that batch norm sees both views. 2 epochs of 2 steps."""
    assert [len(batch) for batch in paper.training] == [8, 8, 8, 8]


@pytest.mark.parametrize("n", [8, 16, 32])
def test_n_is_8_16_or_32(n: int) -> None:
    """IV, Table II: "SSL (N 8)", "SSL (N 16)", "SSL (N 32)"."""
    recipe = dataclasses.replace(SMALL, batch_images=n, epochs_max=1)
    assert [len(batch) for batch in contrastive(recipe, images=n + 3).training] == [2 * n]


def test_images_are_shuffled_anew_in_every_epoch(paper: Watched) -> None:
    """III-D: "we randomly shuffle images during batch construction"; what makes no full batch sits an epoch out."""
    epochs = [[view.image for batch in paper.training[k : k + 2] for view in batch[:4]] for k in (0, 2)]
    for shown in epochs:
        assert len(set(shown)) == 8
        assert set(shown) <= set(range(11))
        assert shown != sorted(shown)
    assert epochs[0] != epochs[1]


def test_every_augmentation_is_drawn_anew(paper: Watched) -> None:
    """II-C: "random shift, and random zoom ...": no two augmented versions of an image are alike."""
    versions = [(view.image, view.brightness) for batch in paper.training for view in batch[4:]]
    assert len(set(versions)) == len(versions) == 16


def test_validation_shows_every_image_the_same_way_after_every_epoch(paper: Watched) -> None:
    """Where III-D is silent: the training's N, a fixed order, fixed augmentation; 6 images at N = 4 are 4 and 2."""
    first, again = paper.scoring[:2], paper.scoring[2:]
    assert first == again
    assert [len(batch) for batch in first] == [8, 4]
    assert sorted(view.image for batch in first for view in batch[: len(batch) // 2]) == [0, 1, 2, 3, 4, 5]


def test_option_both_views_augmented() -> None:
    """Off by default; both views then differ from the original and from each other."""
    assert PROFILES["paper"].recipe.views == "one-augmented"
    for batch in contrastive(dataclasses.replace(SMALL, views="both-augmented", epochs_max=1)).training:
        one, two = batch[:4], batch[4:]
        assert [view.image for view in one] == [view.image for view in two]
        assert all(a.brightness != 1 and b.brightness not in (1, a.brightness) for a, b in zip(one, two, strict=True))


def test_option_never_two_images_of_one_woman_in_a_batch() -> None:
    """Off by default: in the paper's "N random images" a woman's two photographs of a visit may meet."""
    assert not PROFILES["paper"].recipe.avoid_same_patient
    hers = {k: k // 2 for k in range(8)}  # two images each of four women
    met = {}
    for avoid in (False, True):
        encoder = build_encoder(SMALL, seed=0)
        watched = watch(encoder)
        recipe = dataclasses.replace(SMALL, avoid_same_patient=avoid, epochs_max=6, patience_epochs=6)
        images = Images(pixels(8), tuple(f"woman {woman}" for woman in hers.values()))
        pretrain(encoder, images, images, context(recipe), Callbacks())
        met[avoid] = any(len({hers[view.image] for view in batch[:4]}) < 4 for batch in watched.training)
    assert met == {False: True, True: False}


def test_option_a_positive_pair_is_two_photographs_of_one_visit_and_stage() -> None:
    """MICLe; off by default. Who has no partner is paired with herself, as in the paper."""
    assert PROFILES["paper"].recipe.positives == "view"
    recipe = dataclasses.replace(SMALL, positives="same-stage-visit")
    partners = {0: {1, 2}, 1: {0, 2}, 2: {0, 1}, 3: {4}, 4: {3}, 5: {5}, 6: {6}, 7: {7}}
    visits = ("1", "1", "1", "1", "1", "1", "2", "1")  # images 5 and 6 are two visits of one woman
    images = Images(
        pixels(8),
        ("a", "a", "a", "b", "b", "c", "c", "d"),
        details=tuple(ImageDetails(stage="acetic", visit=visit) for visit in visits),
    )
    encoder = build_encoder(recipe, seed=0)
    watched = watch(encoder)
    pretrain(
        encoder, images, images, context(dataclasses.replace(recipe, epochs_max=6, patience_epochs=6)), Callbacks()
    )
    paired: dict[int, set[int]] = {}
    for batch in watched.training:
        for one, two in zip(batch[:4], batch[4:], strict=True):
            assert one.brightness == 1
            assert two.brightness != 1
            paired.setdefault(one.image, set()).add(two.image)
    assert paired == partners
    scored = [[(view.image, other.image) for view, other in zip(b[:4], b[4:], strict=True)] for b in watched.scoring]
    assert scored[:2] == scored[2:4]  # the same pairs after every epoch
    assert {image for batch in scored for image, _ in batch} == set(range(8))


def test_control_of_pooled_training_in_mini_batches_of_one_site() -> None:
    """IV pools at random ("CSSL"); the control keeps the sites apart in training, and validates as CSSL does."""
    recipe = dataclasses.replace(SMALL, epochs_max=4, patience_epochs=4)
    images = Images(pixels(16), tuple(f"woman {k}" for k in range(16)), runs=(8, 8))
    mixed = {}
    for control in (False, True):
        encoder = build_encoder(recipe, seed=0)
        watched = watch(encoder)
        pretrain(encoder, images, images, context(recipe, stream="pooled", one_site_batches=control), Callbacks())
        batches = {"training": watched.training, "scoring": watched.scoring}
        mixed[control] = {
            what: any(len({view.image < 8 for view in batch}) == 2 for batch in found)
            for what, found in batches.items()
        }
        assert len(watched.training) == 4 * 4
    assert mixed == {False: {"training": True, "scoring": True}, True: {"training": False, "scoring": True}}


# The classifier


def test_the_classifier_sees_batches_of_four_originals_shuffled_anew() -> None:
    """III-D: "batch size =4"; "In both SSL and classification model training, we randomly shuffle images".

    Ten images: 4, 4 and 2 an epoch. No augmentation is mentioned for the classifier, so there is none.
    """
    watched = classified(SMALL)
    assert [len(batch) for batch in watched.training] == [4, 4, 2] * 2
    epochs = [[view for batch in watched.training[k : k + 3] for view in batch] for k in (0, 3)]
    for views in epochs:
        assert sorted(view.image for view in views) == list(range(10))
        assert {view.brightness for view in views} == {1.0}
    assert epochs[0] != epochs[1]


def test_the_classifier_is_validated_on_originals() -> None:
    watched = classified(SMALL)
    assert all(view == View(k, 1.0) for batch in watched.scoring for k, view in enumerate(batch))
    assert [len(batch) for batch in watched.scoring] == [4, 4]
