"""Cropping and a site's colours: off is what it was, on is the same for training, tests, predictions and files."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image as Pillow

from cervix_study.export.card import _input
from cervix_study.export.model_source import Released
from fedcervix.core.plan import Recipe, Stage
from fedcervix.errors import DataError, ModelError, StorageError
from site_agent.classifier import classifier_store
from site_agent.classifier.classifier_store import Decisions
from site_agent.classifier.finetune import Finetuned, build_classifier, predict
from site_agent.classifier.onnx_export import _Answers
from site_agent.classifier.trainings import TrainedClassifier
from site_agent.cli import cli
from site_agent.data import dataset, site_colours
from site_agent.home import SiteHome, create
from site_agent.images.appearance import Tissue
from site_agent.images.decode import square
from site_agent.images.preparation import (
    PICTURES_MIN,
    PLAIN,
    REFERENCE_MEAN,
    REFERENCE_SPREAD,
    Preparation,
    SiteColour,
    cropped,
    site_colour,
)
from site_agent.images.samples import Pixels
from site_agent.network.augmentation import standardise, to_input
from site_agent.network.encoder import snapshot
from site_agent.store import leak_guard
from site_agent.store.provenance import Start
from tests.unit.provenances import provenance
from tests.unit.test_details import collection_of, women

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
LINES = SiteColour((1.2, 0.9, 1.0), (-10.0, 5.0, 0.0))
DIGEST = bytes(range(32))


def pink(seed: int, colour: tuple[int, int, int] = (200, 120, 115)) -> Pixels:
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 14, (12, 15, 1)).repeat(10, 0).repeat(10, 1)
    return np.clip(np.array(colour) + coarse + rng.normal(0, 6, (120, 150, 3)), 0, 255).astype(np.uint8)


def test_a_picture_that_is_not_prepared_has_its_own_key_and_square() -> None:
    assert PLAIN.key(DIGEST) == DIGEST
    assert np.array_equal(PLAIN.square(NOISE, 32, "crop"), square(NOISE, 32, "crop"))


def test_all_that_makes_a_square_is_in_its_key() -> None:
    ways = [
        PLAIN,
        Preparation(box=(0, 0, 32, 32)),
        Preparation(box=(0, 1, 32, 32)),
        Preparation(colour=LINES),
        Preparation(colour=SiteColour((1.2, 0.9, 1.1), LINES.offset)),
        Preparation((0, 0, 32, 32), LINES),
    ]
    assert len({one.key(DIGEST) for one in ways}) == len(ways)
    assert Preparation((0, 0, 32, 32), LINES).key(DIGEST) == ways[-1].key(DIGEST)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10, 10, 20, 20), (slice(10, 30), slice(10, 30))),
        ((10, 10, 30, 20), (slice(5, 35), slice(10, 40))),  # a square, not stretched
        ((40, 0, 20, 16), (slice(0, 20), slice(40, 60))),  # moved where it would leave the picture
        ((0, 0, 60, 40), (slice(0, 40), slice(0, 60))),  # as square as the picture is large
    ],
)
def test_a_crop_is_a_square_around_the_box(box: tuple[int, int, int, int], expected: tuple[slice, slice]) -> None:
    assert np.array_equal(cropped(NOISE, box), NOISE[expected])


def test_tissue_of_a_site_is_brought_to_the_reference() -> None:
    tissues = [Tissue((200.0, 90.0, 80.0), (40400.0, 8500.0, 6800.0))] * PICTURES_MIN
    lines = site_colour(tissues)
    for k in range(3):
        mean, spread = tissues[0].mean[k], np.sqrt(tissues[0].square[k] - tissues[0].mean[k] ** 2)
        assert lines.gain[k] * mean + lines.offset[k] == pytest.approx(REFERENCE_MEAN[k], abs=1e-3)
        assert lines.gain[k] * spread == pytest.approx(REFERENCE_SPREAD[k], rel=1e-5)
    with pytest.raises(ValueError, match="7 pictures with tissue; 8 are needed"):
        site_colour(tissues[1:])


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_lines_that_are_no_numbers_are_refused(broken: float) -> None:
    with pytest.raises(ValueError, match="six numbers"):
        SiteColour((1.0, broken, 1.0), (0.0, 0.0, 0.0))


def test_an_exported_network_holds_the_lines() -> None:
    class Same(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images

    network = classifier_like(Same())
    pixels = torch.from_numpy(NOISE[None])
    [answer] = _Answers(network, LINES)(pixels)
    expected = torch.sigmoid(standardise(to_input(torch.from_numpy(LINES.applied(NOISE)[None]))))
    assert torch.equal(answer, expected)


def classifier_like(inner: torch.nn.Module) -> "torch.nn.Module":
    from site_agent.classifier.finetune import Classifier

    network = Classifier.__new__(Classifier)
    torch.nn.Module.__init__(network)
    network.forward = inner.forward  # type: ignore[method-assign]
    return network


def test_the_card_of_a_model_of_one_stage_says_which_pictures_it_is_for() -> None:
    text = "".join(_input(cast(Released, SimpleNamespace(recipe=Recipe(stages=("acetic",)), colour=None))))
    assert text.startswith("Pictures of stage acetic alone")


# --- in a home --------------------------------------------------------------------------------------------------------

RECIPE = Recipe(architecture="resnet18", image_px=32)


def site(folder: Path, count: int = 24, **details: str) -> SiteHome:
    rows = [{"image": f"{k}.png", "patient": f"P{k}", "split": "train" if k < 16 else "valid"} for k in range(count)]
    manifest = collection_of(folder / "images", [{**row, **details} for row in rows])
    for k in range(count):
        Pillow.fromarray(pink(k)).save(folder / "images" / f"{k}.png")
    home = SiteHome(folder / "home")
    create(home, manifest=manifest)
    return home


def trained_on(home: SiteHome, **changes: str) -> Pixels:
    recipe = Recipe(architecture="resnet18", image_px=32, **changes)  # type: ignore[arg-type]
    return np.asarray(dataset.contrastive(home, dataset.open_collection(home), recipe, "train").pixels)


def test_the_manifests_boxes_are_cropped_to_and_each_preparation_is_kept_by_itself(tmp_path: Path) -> None:
    home = site(tmp_path, roi="20 30 60 60")
    plain = trained_on(home)
    assert np.array_equal(plain[0], square(pink(0), 32, "squash"))
    for _ in ("decoded", "from the cache"):
        assert np.array_equal(trained_on(home, roi="manifest")[0], square(pink(0)[30:90, 20:80], 32, "squash"))
        assert np.array_equal(trained_on(home), plain)


def test_a_detector_that_is_unsure_crops_nothing(tmp_path: Path) -> None:
    home = site(tmp_path)  # the picture is all tissue
    assert np.array_equal(trained_on(home, roi="detector"), trained_on(home))


def test_a_sites_colours_are_made_once_and_kept(tmp_path: Path) -> None:
    home = site(tmp_path)
    harmonised = trained_on(home, harmonise="site-colour")
    kept = home.colours.read_bytes()
    lines = site_colours.kept(home, Recipe(harmonise="site-colour"))
    assert lines is not None
    assert np.array_equal(harmonised[0], lines.applied(square(pink(0), 32, "squash")))
    assert home.colours.stat().st_mode & 0o077 == 0
    Pillow.fromarray(pink(99, (120, 60, 60))).save(tmp_path / "images" / "0.png")
    trained_on(home, harmonise="site-colour")
    assert home.colours.read_bytes() == kept
    assert site_colours.kept(home, RECIPE) is None


def test_a_sites_colours_do_not_depend_on_the_stages_of_the_recipe_that_comes_first(tmp_path: Path) -> None:
    home, made = site(tmp_path), []
    rows = [f"{k}.png,P{k},{'train' if k < 16 else 'valid'},{'acetic' if k % 2 else 'native'}" for k in range(24)]
    home.manifest().write_text("\n".join(["image,patient,split,stage", *rows]))
    stages: tuple[tuple[Stage, ...], ...] = (("acetic",), ("native",), ())
    for first in stages:
        recipe = Recipe(architecture="resnet18", image_px=32, harmonise="site-colour", stages=first)
        dataset.contrastive(home, dataset.open_collection(home), recipe, "train")
        made.append(home.colours.read_bytes())
        home.colours.unlink()
    assert len(set(made)) == 1


def test_a_woman_whose_pictures_made_the_colours_is_not_tested_with_them(tmp_path: Path) -> None:
    """Not under a new name either. With colours that are made again she is."""
    home = site(tmp_path)
    trained_on(home, harmonise="site-colour")
    for moved in ("P3", "renamed"):
        rows = [f"{k}.png,P{k},{'train' if k < 16 else 'valid'}" for k in range(24)]
        rows[3] = f"3.png,{moved},test"
        home.manifest().write_text("\n".join(["image,patient,split", *rows]))
        with pytest.raises(DataError, match="1 woman of the test part is among those whose pictures made the colours"):
            trained_on(home, harmonise="site-colour")
    home.colours.unlink()
    trained_on(home, harmonise="site-colour")


def test_colours_that_cannot_be_told_stop_the_training(tmp_path: Path) -> None:
    home = SiteHome(tmp_path / "home")
    create(home, manifest=collection_of(tmp_path / "images", women()))
    with pytest.raises(DataError, match=r"the colours of manifest\.csv cannot be told: 0 pictures with tissue"):
        trained_on(home, harmonise="site-colour")
    assert not home.colours.exists()


def test_damaged_colours_are_not_made_anew_in_silence(tmp_path: Path) -> None:
    home = site(tmp_path)
    trained_on(home, harmonise="site-colour")
    home.colours.write_text(json.dumps({"x": {"gain": [1, 2], "offset": []}}))
    with pytest.raises(StorageError, match=r"site-colour\.json is damaged"):
        trained_on(home, harmonise="site-colour")


def test_a_classifier_takes_new_pictures_as_those_that_made_it(tmp_path: Path) -> None:
    """Its record holds the site's lines: they are used although the home's file is gone."""
    home = site(tmp_path, roi="20 30 60 60")
    recipe = Recipe(architecture="resnet18", image_px=32, width=8, roi="manifest", harmonise="site-colour")
    images = dataset.contrastive(home, dataset.open_collection(home), recipe, "train")
    network, _ = build_classifier(recipe, 3, None)
    made = TrainedClassifier(network, (Finetuned(snapshot(network), (), 1, "epochs"),), None, 0.5)
    used = provenance("Random", Start(name="random"), recipe=recipe)
    seen = leak_guard.site_key(home).seen(dataset.open_collection(home).images)
    stored = classifier_store.keep(home, "", made, used, decided=Decisions(0.5), seen=seen)
    assert stored.colour == site_colours.kept(home, recipe)
    classifier_store.check_colours(home, [stored])
    home.colours.unlink()
    with pytest.raises(ModelError, match="other colours of the site"):
        classifier_store.check_colours(home, [stored])
    out = tmp_path / "p.csv"
    words = ["predict", "random", str(home.manifest().parent), "--out", str(out)]
    result = CliRunner().invoke(cli, ["--home", str(home.folder), *words])
    assert result.exit_code == 0, result.output
    assert "the classifier has the colours of the site that made it" in result.output
    with out.open(newline="") as file:
        found = {Path(row["image"]).name: float(row["probability_of_case"]) for row in csv.DictReader(file)}
    device = torch.device("cpu")
    expected = predict(stored.build(), np.asarray(images.pixels), device=device)
    assert [found[f"{k}.png"] for k in range(16)] == pytest.approx(expected.tolist(), abs=2e-6)
    plain = predict(stored.build(), trained_on(home), device=device)
    assert np.abs(plain - expected).max() > 1e-3


def test_a_record_without_the_lines_that_its_recipe_needs_is_damaged(tmp_path: Path) -> None:
    home = site(tmp_path)
    recipe = Recipe(architecture="resnet18", image_px=32, width=8, harmonise="site-colour")
    network, _ = build_classifier(recipe, 3, None)
    made = TrainedClassifier(network, (Finetuned(snapshot(network), (), 1, "epochs"),), None, 0.5)
    used = provenance("Random", Start(name="random"), recipe=recipe)
    seen = leak_guard.site_key(home).seen(())
    with pytest.raises(ModelError, match="site_colour is said where the recipe harmonises"):
        classifier_store.keep(home, "", made, used, decided=Decisions(0.5), seen=seen)
