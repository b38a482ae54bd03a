"""The sweep over N and width: what chooses, what is kept, and that test images take no part."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image as Pillow

from fedcervix.core.plan import ClassifierRecipe, Recipe, differences
from fedcervix.core.profiles import PROFILES
from fedcervix.errors import StorageError, TrainingError
from fedcervix.runtime.config import apply_profile, read_toml
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.classifier.sweep import (
    GridPoint,
    Material,
    cell_key,
    choose,
    combinations,
    read_cells,
    sweep,
    write_cells,
)
from site_agent.cli import cli
from site_agent.commands.sweep import gather, toml, write_choice
from site_agent.data import dataset
from site_agent.data.collection import digest_of
from site_agent.home import SiteHome, create
from site_agent.network.devices import Machine
from site_agent.network.encoder import build_encoder
from site_agent.training.context import TrainingContext

CPU = Machine(torch.device("cpu"), "eager")
TINY = Recipe(
    architecture="resnet18",
    image_px=32,
    width=8,
    batch_images=4,
    epochs_max=1,
    classifier=ClassifierRecipe(lr=0.01, epochs_max=1),
)


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    """One thread; the process-wide switches that a command sets are put back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)
    torch.use_deterministic_algorithms(False)


def cell(n: int, width: int, loss: float, auc: float = 0.5) -> GridPoint:
    return GridPoint(
        batch_images=n,
        width=width,
        classifier_loss=loss,
        classifier_auc=auc,
        classifier_epoch=3,
        contrastive_loss=1.0,
        contrastive_epoch=7,
        seconds=60.0,
    )


# --- choosing -----------------------------------------------------------------------------------------------------


def test_the_lowest_validation_loss_chooses_and_the_auc_does_not() -> None:
    assert (
        choose([cell(8, 64, 0.6, auc=0.9), cell(16, 64, 0.5, auc=0.7), cell(32, 64, 0.7, auc=0.8)]).batch_images == 16
    )


def test_of_equal_cells_the_smallest_network_is_chosen_then_the_smallest_batch() -> None:
    """III-B: "empirically decide to set it 64 as we obtain very close performances"."""
    best = choose([cell(8, 128, 0.5), cell(32, 64, 0.5), cell(16, 64, 0.5), cell(8, 256, 0.5)])
    assert (best.batch_images, best.width) == (16, 64)


def test_the_contrastive_loss_does_not_choose() -> None:
    lower = dataclasses.replace(cell(8, 64, 0.6), contrastive_loss=0.1)
    assert choose([lower, cell(32, 64, 0.5)]).batch_images == 32


def test_a_cell_without_a_finite_loss_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="classifier_loss"):
        cell(8, 64, float("nan"))


# --- cells and their names ----------------------------------------------------------------------------------------


def test_a_sweep_changes_n_and_width_and_nothing_else() -> None:
    recipes = combinations(PROFILES["paper"].recipe, (16, 8), (64, 128, 64))
    assert [(r.batch_images, r.width) for r in recipes] == [(8, 64), (8, 128), (16, 64), (16, 128)]
    changed = {line.partition(":")[0] for r in recipes for line in differences(recipes[0], r)}
    assert changed == {"batch_images", "width"}
    with pytest.raises(ValueError, match="width"):
        combinations(TINY, (8,), (0,))


def test_whatever_a_cell_depends_on_is_in_its_name() -> None:
    def key(recipe: Recipe = TINY, seed: int = 0, stream: str = "nhs", images: str = "abc") -> str:
        return cell_key(context_of(recipe, seed=seed, stream=stream), images)

    others = [
        key(dataclasses.replace(TINY, lr=0.02)),
        key(dataclasses.replace(TINY, batch_images=5)),
        key(seed=1),
        key(stream="alts"),
        key(images="abd"),
    ]
    assert len({key(), *others}) == 6
    assert key() == key()


def test_cells_are_kept_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "sweeps" / "one" / "cells.json"
    assert read_cells(file) == {}
    kept = {"a": cell(8, 64, 0.1 + 0.2), "b": cell(16, 128, 0.5)}
    write_cells(file, kept)
    assert read_cells(file) == kept


@pytest.mark.parametrize("text", ["", "[]", '{"a": {"width": 8}}', '{"a": 1}'])
def test_a_damaged_file_of_cells_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "cells.json").write_text(text)
    with pytest.raises(StorageError, match=r"cells\.json is damaged"):
        read_cells(tmp_path / "cells.json")


# --- the loop -----------------------------------------------------------------------------------------------------


SPLITS = {"train": 8, "valid": 5, "test": 6}


def clinic(folder: Path) -> SiteHome:
    """A home whose manifest gives the splits: one image a woman, every other one a case, cases brighter."""
    rng = np.random.default_rng(0)
    rows = [["image", "patient", "label", "split"]]
    for split, women in SPLITS.items():
        for k in range(women):
            pixels = rng.integers(0, 160, (32, 32, 3)) + 80 * (k % 2)
            Pillow.fromarray(pixels.astype(np.uint8)).save(folder / f"{split}-{k}.png")
            rows.append([f"{split}-{k}.png", f"{split}-woman-{k}", str(k % 2), split])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    home = SiteHome(folder / "home")
    create(home, manifest=folder / "manifest.csv", threads=1)
    text = home.config_file.read_text()
    home.config_file.write_text(text.replace("# unreadable_max = 0.05", "unreadable_max = 0.9"))
    (folder / "recipe.toml").write_text(toml(TINY))
    return home


def material(home: SiteHome) -> Material:
    return gather(home, dataset.open_collection(home), TINY, lambda _done, _of: None)


def context_of(recipe: Recipe, **more: Any) -> TrainingContext:
    return TrainingContext(**{"recipe": recipe, "seed": 0, "stream": "nhs", "machine": CPU, **more})


def swept(
    images: Material, recipes: list[Recipe], kept: dict[str, GridPoint], trained: list[GridPoint], **given: Any
) -> list[GridPoint]:
    """Sweep; finished cells go to `kept` and `trained`. Times are left out: they are never equal."""

    def keep(key: str, done: GridPoint) -> None:
        kept[key] = done
        trained.append(done)

    options: dict[str, Any] = {"on_trouble": lambda _r, _e: None, "on_progress": lambda *_: None}
    found = sweep(
        [context_of(recipe, clock=lambda: 0.0) for recipe in recipes],
        images,
        kept,
        start_of=lambda recipe: build_encoder(recipe, 0),
        on_cell=keep,
        **(options | given),
    )
    return list(found)


def test_every_combination_is_trained_once_and_a_second_sweep_trains_nothing(tmp_path: Path) -> None:
    images, recipes = material(clinic(tmp_path)), combinations(TINY, (2, 4), (8,))
    kept: dict[str, GridPoint] = {}
    trained: list[GridPoint] = []
    first = swept(images, recipes, kept, trained)
    assert [(c.batch_images, c.width) for c in first] == [(2, 8), (4, 8)]
    assert trained == first
    assert first[0].classifier_loss != first[1].classifier_loss
    assert all(0 <= c.classifier_auc <= 1 and c.contrastive_epoch == c.classifier_epoch == 1 for c in first)
    assert swept(images, recipes, kept, trained) == first
    assert len(trained) == 2


def test_an_interrupted_sweep_repeats_no_finished_cell(tmp_path: Path) -> None:
    images, recipes = material(clinic(tmp_path)), combinations(TINY, (2, 4), (8,))
    kept: dict[str, GridPoint] = {}
    trained: list[GridPoint] = []

    def interrupt(task: str, _at: WorkProgress) -> None:
        if task == "N 4, width 8":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swept(images, recipes, kept, trained, on_progress=interrupt)
    assert [c.batch_images for c in trained] == [2]
    assert [c.batch_images for c in swept(images, recipes, kept, trained)] == [2, 4]
    assert [c.batch_images for c in trained] == [2, 4]


def test_a_combination_that_cannot_be_trained_has_no_cell_and_the_others_go_on(tmp_path: Path) -> None:
    """N = 1 has nothing to contrast its image with."""
    images, recipes = material(clinic(tmp_path)), combinations(TINY, (1, 4), (8,))
    troubles: list[tuple[int, TrainingError]] = []
    found = swept(
        images, recipes, {}, [], on_trouble=lambda recipe, error: troubles.append((recipe.batch_images, error))
    )
    assert [c.batch_images for c in found] == [4]
    [(n, error)] = troubles
    assert (n, "nothing to contrast" in error.what) == (1, True)


# --- test images --------------------------------------------------------------------------------------------------


def test_a_sweep_is_given_training_and_validation_women_only(tmp_path: Path) -> None:
    """III-A: "the validation images are used for training hyper-parameter selection", test images for evaluation."""
    images = material(clinic(tmp_path))
    assert (len(images.train), len(images.valid)) == (8, 5)
    assert (len(images.labelled_train.labels), len(images.labelled_valid.labels)) == (8, 5)
    women = {*images.train.patients, *images.valid.patients, *images.labelled_train.patients}
    assert not [woman for woman in (women | set(images.labelled_valid.patients)) if woman.startswith("test")]
    assert {field.name for field in dataclasses.fields(Material)} == {
        "train", "valid", "labelled_train", "labelled_valid", "digest",
    }  # fmt: skip


def test_what_the_test_images_are_changes_no_name_of_a_cell(tmp_path: Path) -> None:
    collection = dataset.open_collection(clinic(tmp_path))
    digest = digest_of(collection.images)
    assert digest_of(image for image in collection.images if image.split != "test") == digest
    assert digest_of(collection.images[1:]) != digest


def run(home: SiteHome, *words: str) -> Result:
    arguments = ["--home", str(home.folder), "sweep", "--recipe", str(home.folder.parent / "recipe.toml"), *words]
    return CliRunner().invoke(cli, arguments, catch_exceptions=False)


def test_the_command_sweeps_without_the_test_images_and_says_how_to_go_on(tmp_path: Path) -> None:
    home = clinic(tmp_path)
    for image in tmp_path.glob("test-*.png"):
        image.unlink()
    result = run(home, "--batch-images", "2,4", "--width", "8", "--seed", "3")
    assert result.exit_code == 0, result.output
    folder = home.folder / "sweeps" / "sweep"
    cells = read_cells(folder / "cells.json")
    best = choose(cells.values())
    assert sorted(c.batch_images for c in cells.values()) == [2, 4]
    assert "judged on 5 labelled validation images of 5 women" in result.output
    [marked] = [line for line in result.output.splitlines() if "<- chosen" in line]
    assert f"{best.classifier_loss:.4f}" in marked
    assert f"batch_images = {best.batch_images}\n  width = 8\n" in result.output
    assert f"pretrain --recipe {folder / 'chosen.toml'} --seed 3" in result.output.splitlines()[-1]
    chosen = apply_profile("paper", read_toml(folder / "chosen.toml"), {}, source=folder / "chosen.toml").recipe
    assert chosen == dataclasses.replace(TINY, batch_images=best.batch_images)

    head = (folder / "chosen.toml").read_text().partition("architecture")[0]
    assert "# among N 2, width 8, N 4, width 8; seed 3\n" in head
    assert f"SHA-256 {digest_of(dataset.open_collection(home).images)}" in head

    again = run(home, "--batch-images", "2,4", "--width", "8", "--seed", "3")
    assert read_cells(folder / "cells.json") == cells, "seconds and all: nothing was trained again"
    assert again.stdout == result.stdout


def test_test_images_that_are_there_change_nothing(tmp_path: Path) -> None:
    cells = []
    for name in ("with", "without"):
        folder = tmp_path / name
        folder.mkdir()
        home = clinic(folder)
        if name == "without":
            for image in folder.glob("test-*.png"):
                image.unlink()
        assert run(home, "--batch-images", "4", "--width", "8", "--name", "one").exit_code == 0
        found = read_cells(home.folder / "sweeps" / "one" / "cells.json")
        cells.append({key: dataclasses.replace(one, seconds=0.0) for key, one in found.items()})
    assert cells[0] == cells[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--batch-images", "8;16"), "whole numbers with commas between them, as 8,16,32"),
        (("--width", "0"), "width must be 1 to 4096; found 0"),
        (("--name", "../out"), "a-z, 0-9 and inner hyphens"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(tmp_path: Path, words: tuple[str, str], said: str) -> None:
    result = run(clinic(tmp_path), *words)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_where_nothing_can_be_trained_the_command_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="none of the combinations could be trained"):
        run(clinic(tmp_path), "--batch-images", "1", "--width", "8")


@pytest.mark.parametrize("profile", list(PROFILES))
def test_a_recipe_written_as_toml_reads_back(tmp_path: Path, profile: str) -> None:
    recipe = PROFILES[profile].recipe
    (tmp_path / "recipe.toml").write_text(toml(recipe))
    found = apply_profile("demo", read_toml(tmp_path / "recipe.toml"), {}, source=tmp_path / "recipe.toml")
    assert found.recipe == recipe


def test_another_choice_does_not_overwrite_the_one_before(tmp_path: Path) -> None:
    home = SiteHome(tmp_path)
    file = home.folder / "sweeps" / "sweep" / "chosen.toml"
    file.parent.mkdir(parents=True)
    assert write_choice(home, file, "# today\nwidth = 8\n") is None
    assert write_choice(home, file, "# tomorrow\nwidth = 8\n") is None, "the same choice"
    earlier = write_choice(home, file, "# tomorrow\nwidth = 16\n")
    assert earlier is not None
    assert earlier.parent == home.folder / "history" / "sweeps" / "sweep"
    assert (earlier.read_text(), file.read_text()) == ("# tomorrow\nwidth = 8\n", "# tomorrow\nwidth = 16\n")
