"""The command that tries out N and the width of the dense layer: `site-agent sweep`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import click
from rich.table import Table

from fedcervix.core.plan import Recipe
from fedcervix.disk.files import write_whole
from fedcervix.errors import TrainingError
from fedcervix.runtime.cli_runtime import stdout_console
from fedcervix.runtime.printing import say
from site_agent.classifier.sweep import (
    GridPoint,
    Material,
    cell_key,
    choose,
    combinations,
    read_cells,
    write_cells,
)
from site_agent.classifier.sweep import sweep as train_cells
from site_agent.commands.command_line import command_line
from site_agent.commands.display import Display
from site_agent.commands.open_images import open_images
from site_agent.commands.setting import Setting, check_start_usable, machine_of, reading, site_name
from site_agent.commands.stopping import stops
from site_agent.data import dataset
from site_agent.data.collection import Collection, digest_of
from site_agent.federation import shown
from site_agent.home import SiteHome
from site_agent.images.decode import OnCount
from site_agent.network.first_weights import start_encoder
from site_agent.network.precision import resolve_precision
from site_agent.store import model_store
from site_agent.store.archive import retire, utc_now
from site_agent.training.checkpoints import Checkpoints
from site_agent.training.context import TrainingContext
from site_agent.training.stopping import Stop, Stoppable
from site_agent.worker.tasks import first_seed

CELLS = "cells.json"
CHOSEN = "chosen.toml"


def sweep(
    home: SiteHome,
    used: Setting,
    batch_images: tuple[int, ...],
    width: tuple[int, ...],
    name: str,
    *,
    force_retired: bool = False,
) -> None:
    """Try out N and the dense width on this site's images; choose by the classifier's validation loss alone.

    Test images are not used. Finished combinations are kept: an interrupted sweep continues when started again.

    E (epochs_per_round) exists only in a federation: run one with each E, and compare the mean validation losses.
    Raises click.BadParameter where no such combination can be trained, and a FedcervixError.
    """
    folder = home.folder / "sweeps" / name
    check_start_usable(home, used, command_line(home, "sweep"), forced=force_retired)
    with home.locked(f"lock-sweep-{name}", who=f"another sweep {name}"), stops(command_line(home, "sweep")) as stop:
        machine, display = machine_of(home, used.recipe), Display()
        try:
            recipes = combinations(resolve_precision(used.recipe, machine.device, home.cache), batch_images, width)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
        kept = read_cells(folder / CELLS)
        say(f"{len(recipes)} combinations on {machine.device}, recipe of {used.source}", err=True)
        try:
            collection = open_images(home, display, used.recipe)
            material = gather(home, collection, used.recipe, reading(display))
            stream = site_name(home)
            contexts = [TrainingContext(recipe=r, seed=used.seed, stream=stream, machine=machine) for r in recipes]
            if finished := len({cell_key(context, material.digest) for context in contexts} & kept.keys()):
                display.show(shown.Message(f"{finished} of them were trained before"))
            cells = train_cells(
                contexts,
                material,
                kept,
                start_of=lambda recipe: start_encoder(
                    recipe, first_seed(used.seed), model_store.start_weights(home, recipe)
                ),
                on_cell=_keeper(folder, kept, stop, display),
                on_trouble=lambda recipe, error: display.show(shown.Message(f"{_named(recipe)}: {error.explain()}")),
                on_progress=lambda task, at: display.show(shown.Advanced(task, at)),
                keeping=lambda key: _keeping(folder, key, stop),
            )
        finally:
            display.close()
        _report(home, folder, used, recipes, cells, material)


@contextlib.contextmanager
def _keeping(folder: Path, key: str, stop: Stop) -> Iterator[Checkpoints]:
    """Keep checkpoints of the contrastive training of a cell."""
    with stop.waits_for_checkpoint():
        yield Stoppable(folder, key, stop)
    stop.end_if_asked()


def gather(home: SiteHome, collection: Collection, recipe: Recipe, on_progress: OnCount) -> Material:
    """Return what a sweep may see: the images of training and validation women. Test images are not opened for it."""
    return Material(
        train=dataset.contrastive(home, collection, recipe, "train", on_progress),
        valid=dataset.contrastive(home, collection, recipe, "valid", on_progress),
        labelled_train=dataset.labelled(home, collection, recipe, "train", on_progress),
        labelled_valid=dataset.labelled(home, collection, recipe, "valid", on_progress),
        digest=digest_of(collection.images),
    )


def table(cells: Sequence[GridPoint], title: str) -> Table:
    """Return the cells in the order of the sweep, the chosen one marked."""
    drawn = Table(title=title, title_justify="left")
    drawn.add_column("N", justify="right")
    drawn.add_column("width", justify="right")
    for heading in ("classifier's validation loss", "its AUC there", "contrastive epochs", "seconds"):
        drawn.add_column(heading, justify="right")
    drawn.add_column("")
    for cell in cells:
        numbers = (f"{cell.classifier_loss:.4f}", f"{cell.classifier_auc:.3f}", f"{cell.contrastive_epoch}")
        chosen = "<- chosen" if cell == choose(cells) else ""
        drawn.add_row(f"{cell.batch_images}", f"{cell.width}", *numbers, f"{cell.seconds:.0f}", chosen)
    return drawn


def toml(recipe: Recipe) -> str:
    """Return a whole recipe as a TOML file that `--recipe` reads back."""
    lines, tables = [], []
    for key, value in dataclasses.asdict(recipe).items():
        if isinstance(value, dict):
            tables += [
                "",
                f"[{key}]",
                *(f"{below} = {json.dumps(found, allow_nan=False)}" for below, found in value.items()),
            ]
        else:
            lines.append(f"{key} = {json.dumps(value, allow_nan=False)}")
    return "\n".join([*lines, *tables, ""])


def said_of(recipes: Sequence[Recipe], seed: int, images: str, now: datetime) -> str:
    """Return the comment at the head of a choice: among what, on which images, when."""
    tried = ", ".join(_named(recipe) for recipe in recipes)
    lines = (
        f"chosen by `site-agent sweep` on validation images, {now:%Y-%m-%d %H:%M} UTC",
        f"among {tried}; seed {seed}",
        f"images and splits: SHA-256 {images}",
    )
    return "".join(f"# {line}\n" for line in lines)


def write_choice(home: SiteHome, file: Path, text: str) -> Path | None:
    """Write a choice; return where the earlier one was moved, if there was another one. Raises StorageError."""
    before = file.read_text("utf-8", "replace") if file.exists() else ""
    same = _settings(before) == _settings(text)
    earlier = retire(home.folder, file) if before and not same else None
    write_whole(file, text.encode())
    return earlier


def _settings(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


def _keeper(folder: Path, kept: dict[str, GridPoint], stop: Stop, display: Display) -> Callable[[str, GridPoint], None]:
    def keep(key: str, cell: GridPoint) -> None:
        kept[key] = cell
        write_cells(folder / CELLS, kept)
        Stoppable(folder, key, stop).drop()
        said = f"classifier's validation loss {cell.classifier_loss:.4f}, AUC {cell.classifier_auc:.3f}"
        display.show(shown.Message(f"{_named(cell)}: {said}"))

    return keep


def _named(one: Recipe | GridPoint) -> str:
    return f"N {one.batch_images}, width {one.width}"


def _report(
    home: SiteHome,
    folder: Path,
    used: Setting,
    recipes: Sequence[Recipe],
    cells: Sequence[GridPoint],
    material: Material,
) -> None:
    """Print the table, the choice, and how to use it. Raises TrainingError where nothing could be trained."""
    if not cells:
        raise TrainingError(
            "none of the combinations could be trained",
            cause="the reasons are printed above",
            next_step="other values of --batch-images, or another recipe",
        )
    best = choose(cells)
    [recipe] = [r for r in recipes if (r.batch_images, r.width) == (best.batch_images, best.width)]
    earlier = write_choice(
        home, folder / CHOSEN, said_of(recipes, used.seed, material.digest, utc_now()) + toml(recipe)
    )
    if earlier:
        say(f"an earlier, different choice is kept: {earlier}")
    images, women = len(material.labelled_valid.labels), len(set(material.labelled_valid.patients))
    stdout_console().print(table(cells, f"judged on {images} labelled validation images of {women} women"))
    say(f"chosen: {_named(best)}. One training each: small differences may be chance.")
    say("in a federation's coordinator.toml:")
    say(f"  [run.recipe]\n  batch_images = {best.batch_images}\n  width = {best.width}")
    with_seed = f" --seed {used.seed}" if used.seed else ""
    recipe_words = f"--recipe {shlex.quote(str(folder / CHOSEN))}{with_seed}"
    say(f"next: {home.command(f'pretrain {recipe_words}')}")
