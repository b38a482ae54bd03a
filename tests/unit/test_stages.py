"""`stages` of the recipe: what encoder and classifier see, what is counted, and what is said where nothing is left."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from cervix_study.data.folds import Fold
from cervix_study.execution.worker_context import WorkerContext
from fedcervix.core.plan import Plan, Recipe, Terms, parse_recipe, recipe_to_dict
from fedcervix.errors import DataError
from site_agent.commands.pretrain import seen_by
from site_agent.data import dataset
from site_agent.data.collection import Collection, can, require
from site_agent.data.remarks import of_recipe
from site_agent.home import SiteHome, create
from site_agent.store import leak_guard
from site_agent.worker.examining import examine
from site_agent.worker.tasks import TaskContext

RECIPE = Recipe(architecture="resnet18", image_px=32, width=8, batch_images=2)
ACETIC = dataclasses.replace(RECIPE, stages=("acetic",))
STAGES = ("native", "acetic", "other")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> SiteHome:
    """Ten women, half of them cases: each before and after acetic acid, and once at another stage."""
    folder, rng = tmp_path_factory.mktemp("site"), np.random.default_rng(0)
    lines = ["image,patient,label,stage,visit"]
    for woman in range(10):
        for stage in STAGES:
            name = f"{woman}-{stage}.png"
            Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(folder / name)
            lines.append(f"{name},w{woman},{woman % 2},{stage},1")
    (folder / "manifest.csv").write_text("\n".join(lines))
    made = SiteHome(folder / "home")
    create(made, manifest=folder / "manifest.csv")
    return made


@pytest.fixture(scope="module")
def collection(home: SiteHome) -> Collection:
    return dataset.open_collection(home)


def test_encoder_and_classifier_see_the_stages_of_the_recipe_and_no_others(
    home: SiteHome, collection: Collection
) -> None:
    for recipe, stages in ((RECIPE, set(STAGES)), (ACETIC, {"acetic"})):
        parts = [dataset.contrastive(home, collection, recipe, split) for split in ("train", "valid")]
        parts += [dataset.pooled(home, [collection], recipe, "train")]
        labelled = [dataset.labelled(home, collection, recipe, split) for split in ("train", "valid", "test")]
        for part in (*parts, *labelled):
            assert {one.stage for one in part.details} == stages
            assert len(part.patients) == len(stages) * len(set(part.patients))


def test_a_collection_of_all_stages_is_the_collection_itself(collection: Collection) -> None:
    assert collection.of_stages(()) is collection
    some = collection.of_stages(("acetic",))
    assert len(some.images) == 10
    assert some.of_stages(("acetic",)) == some
    assert len(collection.of_stages(("native", "acetic")).images) == 20
    assert some.digest != collection.digest


def test_what_counts_in_an_average_is_what_trains(home: SiteHome, collection: Collection) -> None:
    bench = TaskContext(home, "site", torch.device("cpu"), lambda _progress: None, _collection=collection)
    counts = {}
    for recipe in (RECIPE, ACETIC):
        plan = Plan(mode="csfssl", sites=("site",), profile="demo", terms=Terms(), recipe=recipe)
        counts[recipe.stages] = examine(bench, plan).training_images
    assert counts[()] == 3 * counts[("acetic",)]


def test_how_many_images_are_used_and_paired_is_said_before_they_train(home: SiteHome, collection: Collection) -> None:
    paired = dataclasses.replace(ACETIC, stages=("acetic", "native"), positives="same-stage-visit")
    assert of_recipe(collection, RECIPE) == ()
    stages, pairs = of_recipe(collection, paired)
    assert stages == "20 of 30 images are of stage acetic or native: no others are used"
    assert pairs.startswith("0 of 12 training images have another one of the same visit and stage; the others are")
    bench = TaskContext(home, "site", torch.device("cpu"), lambda _progress: None, _collection=collection)
    plan = Plan(mode="csfssl", sites=("site",), profile="demo", terms=Terms(), recipe=paired)
    assert set(of_recipe(collection, paired)) <= set(examine(bench, plan).remarks)


class OneHome:
    """Places of a study with one site and no folds."""

    def __init__(self, home: SiteHome) -> None:
        self._home = home

    def home(self, _site: str, _fold: Fold) -> SiteHome:
        return self._home


def test_a_study_s_cells_of_two_stages_do_not_share_their_images(home: SiteHome) -> None:
    bench = WorkerContext(OneHome(home), lambda _progress: None)  # type: ignore[arg-type]
    counts = [
        (
            len(bench.labelled("site", None, recipe, "train").labels),
            len(bench.images(("site",), None, recipe, "valid")),
            len(bench.used("site", None, recipe).images),
        )
        for recipe in (RECIPE, ACETIC, RECIPE)
    ]
    assert counts[0] == counts[2] == tuple(3 * count for count in counts[1])


def test_only_women_whose_images_train_are_remembered(home: SiteHome, collection: Collection) -> None:
    key = leak_guard.site_key(home)
    whole, some = seen_by(key, [collection]), seen_by(key, [collection], ("acetic",))
    assert some.pictures < whole.pictures
    assert 3 * len(some.pictures) == len(whole.pictures)


def test_where_no_image_is_left_the_recipe_s_stages_are_named(home: SiteHome, collection: Collection) -> None:
    none = collection.of_stages(("iodine",))
    assert not can(none, "finetune")
    with pytest.raises(DataError, match="cannot be used to pretrain") as raised:
        require(none, "pretrain")
    assert "Only images of stage iodine count: the recipe's `stages`, manifest column stage" in raised.value.cause
    with pytest.raises(DataError):
        dataset.labelled(home, collection, dataclasses.replace(RECIPE, stages=("iodine",)), "train")


@pytest.mark.parametrize("wrong", [("vinegar",), ("acetic", "acetic"), ["acetic"]], ids=["unknown", "twice", "list"])
def test_a_stage_that_is_none_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"stages (are some of native, acetic|is a list)"):
        Recipe(stages=wrong)  # type: ignore[arg-type]


def test_a_recipe_says_its_stages_only_where_it_has_some() -> None:
    assert "stages" not in recipe_to_dict(RECIPE)
    assert recipe_to_dict(ACETIC)["stages"] == ("acetic",)
    assert parse_recipe(recipe_to_dict(ACETIC)) == ACETIC
