"""What does an encoder know after each epoch? Train one of a finished study again, and keep all that it was.

    python benchmarks/every_epoch.py STUDY CELL [--lr .005] [--out FOLDER]

STUDY is the folder of `cervix-study run`, CELL the beginning of the name of an encoder that was trained in one process
(SSL or CSSL). It is trained as there, from the same random numbers; `--lr` changes its learning rate. FOLDER then holds
epoch0.safetensors (random weights), epoch1.safetensors and so on, for benchmarks/phantom_features.py.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from cervix_study.execution.encoders import pretrained, started
from cervix_study.execution.worker_context import WorkerContext
from cervix_study.records import CELLS_FOLDER, Cell, read_cell
from cervix_study.study_paths import Places
from site_agent.network.encoder import Encoder, save_weights, snapshot
from site_agent.training.loop import Epoch
from site_agent.training.pretrain import Callbacks


def main() -> None:
    asked = _arguments()
    places = Places(asked.study.absolute())
    train(WorkerContext(places, lambda _values: None), _cell(places.folder, asked.cell), asked.lr, asked.out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("cell")
    parser.add_argument("--lr", type=float, help="in place of the recipe's")
    parser.add_argument("--out", type=Path, default=Path("epochs"))
    return parser.parse_args()


def _cell(study: Path, named: str) -> Cell:
    found = [read_cell(study, folder.name) for folder in (study / CELLS_FOLDER).glob(f"{named}*")]
    cells = [one.cell for one in found if one and one.encoder and not one.cell.terms]
    if len(cells) != 1:
        raise SystemExit(f"{named} names {len(cells)} encoders of {study} that were trained in one process, not one")
    return cells[0]


def train(bench: WorkerContext, cell: Cell, lr: float | None, out: Path) -> None:
    """Train an encoder as its cell says; write its weights before the first epoch and after each."""
    out.mkdir(parents=True, exist_ok=True)
    recipe = bench.settled(cell.recipe, cell.sites[0], cell.fold)
    recipe = dataclasses.replace(recipe, lr=lr or recipe.lr, patience_epochs=recipe.epochs_max)
    encoder = started(bench, cell, recipe)
    kept = 0

    def keep(trained: Encoder) -> None:
        nonlocal kept
        save_weights(out / f"epoch{kept}.safetensors", snapshot(trained))
        kept += 1

    keep(encoder)
    pretrained(bench, cell, recipe, encoder, Callbacks(epoch=_tell), probe=keep)


def _tell(epoch: Epoch) -> None:
    print(f"epoch {epoch.train.epoch}: loss {epoch.train.loss:.3f}, validation {epoch.valid.loss:.3f}", flush=True)


if __name__ == "__main__":
    main()
