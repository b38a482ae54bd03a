"""How often do updates raise alarms: honest ones, those ten times as long, and those with their sign turned round.

    python benchmarks/alarms.py [--seeds 2] [--rounds 26] [--sites 5] [--women 24]
    python benchmarks/alarms.py --simulated [--seeds 20] [--rounds 50]

Phantom institutions of two cameras and of different sizes train a federation in one straight line. From round 6 on,
when each site has a history, each site's update is exchanged in turn for a bad one: the base plus ten times its step,
or the base minus its step. The other updates and the history stay honest. What is counted is whether the coordinator's
rules (`coordinator.alarms.unusual_steps`) name that site; and how many alarms the honest updates raise.

`--simulated`: nothing trains; the measures of 2 to 20 sites are drawn (the sites' lengths differ by a factor of 1.35 in
standard deviation, noise of 10 %, first rounds four times as long; cosines of .1 with a standard deviation of .02).
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.recipes import Site
from coordinator.alarms.unusual_steps import unusual_steps
from fedcervix.core.events import Task, TaskKind, UpdateStored
from fedcervix.core.measures import Measures
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.state import Round, Run, begin
from fedcervix.core.seeds import derive
from fedcervix.models.aggregate import aggregate
from fedcervix.models.step_similarity import measure_steps
from fedcervix.models.weights import Layout, read_layout
from site_agent.data.collection import IndexSettings, index
from site_agent.data.image_sets import Images
from site_agent.network.devices import Machine, prepare
from site_agent.network.encoder import apply_weights, build_encoder, load_weights, save_weights, snapshot
from site_agent.phantom import INSTITUTIONS, write_institution
from site_agent.training.context import TrainingContext
from site_agent.training.loop import train_epochs
from site_agent.training.steps import make_learner

HISTORY = 5
CPU = torch.device("cpu")
BAD = {"scaled by 10": 10.0, "sign turned round": -1.0}


@dataclass
class Federation:
    """Sites that train in turn, and the measures of their rounds."""

    folder: Path
    plan: Plan
    images: dict[str, Images]

    def __post_init__(self) -> None:
        self.base = self.folder / "base"
        first = build_encoder(self.plan.recipe, derive(self.plan.terms.seed, "first-model"))
        save_weights(self.base, snapshot(first))
        self.layout: Layout = read_layout(self.base)
        self.run: Run = begin("run", self.plan, base="b" * 64, at=0.0)

    def train(self) -> dict[str, Path]:
        """Train a round; return the update of each site."""
        return {site: self._trained(site) for site in self.plan.sites}

    def _trained(self, site: str) -> Path:
        encoder, number = build_encoder(self.plan.recipe, 0), len(self.run.rounds) + 1
        apply_weights(encoder, load_weights(self.base), what="the base")
        context = TrainingContext(recipe=self.plan.recipe, seed=self.plan.terms.seed, stream=site, machine=Machine(CPU))
        learner = make_learner(encoder, context)
        train_epochs(learner, self.images[site], context, range(number, number + 1), on_step=lambda _step: None)
        file = self.folder / f"update-{site}"
        save_weights(file, snapshot(encoder))
        return file

    def bad(self, update: Path, factor: float) -> Path:
        """Return an update whose step is `factor` times as long."""
        base, file = load_weights(self.base), self.folder / "bad"
        moved = {
            name: base[name] + factor * (values - base[name])
            if values.is_floating_point() and "running" not in name
            else values
            for name, values in load_weights(update).items()
        }
        save_weights(file, moved)
        return file

    def round(self, updates: dict[str, Path]) -> Round:
        """Return the round as the coordinator would see it with these updates."""
        pairs = [(file, self.base) for file in updates.values()]
        measured = measure_steps(pairs, self.layout, self.plan.terms.batch_norm)
        return _round(len(self.run.rounds) + 1, list(updates), measured)

    def end_round(self, updates: dict[str, Path], round_: Round) -> None:
        """Take the average of the updates as the next base."""
        output = self.folder / "next"
        aggregate([(file, 1.0) for file in updates.values()], self.layout, output, self.plan.terms.batch_norm)
        output.replace(self.base)
        self.run = replace(self.run, rounds=(*self.run.rounds, round_))


def _round(number: int, sites: Sequence[str], measured: Sequence[Measures]) -> Round:
    task = Task("run", TaskKind.TRAIN, number, "b" * 64)
    stored = (UpdateStored(site, task, f"{at:064x}", 10, 7, 0.5, 1.0, 0.0) for at, site in enumerate(sites))
    measures = tuple(zip(sites, measured, strict=True))
    return Round(number, "b" * 64, 0.0, tuple(stored), measures=measures, candidate="d" * 64)


def federation(folder: Path, asked: argparse.Namespace, seed: int) -> Federation:
    """Draw the institutions and begin."""
    names = [f"site-{number}" for number in range(asked.sites)]
    recipe = Recipe(architecture="resnet18", image_px=32, batch_images=8, epochs_max=asked.rounds)
    terms = Terms(rounds=asked.rounds, epochs_per_round=1, seed=seed)
    plan = Plan(mode="csfssl", sites=tuple(names), profile="paper", terms=terms, recipe=recipe)
    images = {name: _images(folder / name, number, asked, seed, recipe) for number, name in enumerate(names)}
    return Federation(folder, plan, images)


def _images(folder: Path, number: int, asked: argparse.Namespace, seed: int, recipe: Recipe) -> Images:
    institution = list(INSTITUTIONS.values())[number % len(INSTITUTIONS)]
    women = asked.women + 4 * number
    write_institution(folder, institution, women=women, seed=derive(seed, "phantom", str(number)))
    settings = IndexSettings(splits_file=folder / "splits.csv", seed=0, unreadable_max=0.05, cache_folder=folder)
    site = Site(folder.name, index(folder / "manifest.csv", settings), folder)
    return site.train(recipe)


def alarms(made: Federation, round_: Round) -> Iterator[str]:
    """Yield the site of each alarm of a round."""
    run = replace(made.run, rounds=(*made.run.rounds, round_))
    return (alarm.site for alarm in unusual_steps(run, round_))


def simulate(asked: argparse.Namespace) -> None:
    """Print, by number of sites, alarms for each honest update, and the share of bad updates that are named."""
    for sites in (2, 3, 5, 8, 20):
        honest, named = 0, Counter[str]()
        for seed in range(asked.seeds):
            chance, rounds = np.random.default_rng((seed, sites)), list[Round]()
            apart = chance.normal(0, math.log(1.35), sites)
            for number in range(1, asked.rounds + 1):
                drawn = _drawn(chance, apart, number)
                rounds.append(_round(number, _names(sites), drawn))
                honest += len(_named(rounds))
                if number in (HISTORY + 1, 8, 16, asked.rounds):
                    for name, factor in BAD.items():
                        last = _bad(drawn[-1], factor)
                        bad = _round(number, _names(sites), [*drawn[:-1], last])
                        named[f"{name}, round {number}"] += _names(sites)[-1] in _named([*rounds[:-1], bad])
        found = ", ".join(f"{name}: {count / asked.seeds:.2f}" for name, count in named.items())
        print(
            f"{sites} sites: {honest / (asked.seeds * asked.rounds * sites):.4f} alarms an update; {found}", flush=True
        )


def _drawn(chance: np.random.Generator, apart: Any, number: int) -> list[Measures]:
    trend = 1.4 * math.exp(-(number - 1) / 3)
    lengths = np.exp(trend + apart + chance.normal(0, 0.1, len(apart)))
    cosines = chance.normal(0.1, 0.02, len(apart))
    return [
        Measures(float(n), 0.1, float(c), float(n) * math.sqrt(1.2 - c)) for n, c in zip(lengths, cosines, strict=True)
    ]


def _bad(honest: Measures, factor: float) -> Measures:
    """Return the measures of an update with another length or sign; its distance is left alone."""
    cosine = None if honest.cosine is None else math.copysign(1, factor) * honest.cosine
    return replace(honest, norm=abs(factor) * honest.norm, cosine=cosine)


def _names(sites: int) -> list[str]:
    return [f"site-{number}" for number in range(sites)]


def _named(rounds: Sequence[Round]) -> list[str]:
    plan = Plan(
        mode="csfssl", sites=tuple(_names(len(rounds[0].measures))), profile="paper", terms=Terms(), recipe=Recipe()
    )
    run = replace(begin("run", plan, base="b" * 64, at=0.0), rounds=tuple(rounds))
    return [alarm.site for alarm in unusual_steps(run, rounds[-1])]


def main() -> None:
    """Train, exchange, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in (("--seeds", 2), ("--rounds", 26), ("--sites", 5), ("--women", 24)):
        parser.add_argument(option, type=int, default=default)
    parser.add_argument("--simulated", action="store_true")
    asked = parser.parse_args()
    if asked.simulated:
        simulate(asked)
        return
    prepare(CPU, 1, "off")
    found, tried, honest, updates_seen = Counter[str](), Counter[str](), 0, 0
    for seed in range(asked.seeds):
        with tempfile.TemporaryDirectory() as folder:
            made = federation(Path(folder), asked, seed)
            for number in range(1, asked.rounds + 1):
                updates = made.train()
                round_ = made.round(updates)
                honest += len(list(alarms(made, round_)))
                updates_seen += len(updates)
                for site, update in updates.items() if number > HISTORY else ():
                    for name, factor in BAD.items():
                        spoiled = made.round({**updates, site: made.bad(update, factor)})
                        tried[name] += 1
                        found[name] += site in alarms(made, spoiled)
                made.end_round(updates, round_)
                print(f"seed {seed}, round {number}: {honest} honest alarms; found {dict(found)}", flush=True)
    for name in BAD:
        print(f"{name}: {found[name]} of {tried[name]} named")
    print(f"honest: {honest} alarms, {updates_seen} updates, {asked.seeds * asked.rounds} rounds")


if __name__ == "__main__":
    main()
