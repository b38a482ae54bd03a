"""Which cells a study has: pure functions from what was asked for, and what was chosen, to cells.

Rules
1. The grid comes first: every start with every N, width and E that it has, every seed, every fold. Random and ImageNet
   weights know neither N nor width, and only federations know E.
2. What was chosen from the grid gets followers: smaller shares of the labels, and the controls.
3. A cell knows nothing of the study it belongs to. Two studies that ask for the same find the same cells.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version

from cervix_study.data.folds import Fold
from cervix_study.data.preparation import Ground
from cervix_study.records import Axes, Candidate, Cell, Choice
from cervix_study.settings import StudyConfig
from fedcervix.core.numerics import FIRST_ALIKE
from fedcervix.core.plan import ClassifierRecipe, Recipe, Terms
from site_agent.starts import FLOOR, UNTRAINED, first_site, is_federated

WITHOUT_ENCODER = (*UNTRAINED, FLOOR)
"""starts that need no contrastive training"""


@dataclass(frozen=True, slots=True)
class Combination:
    """A combination of the grid; None for what a start does not have."""

    batch_images: int | None = None
    width: int | None = None
    epochs_per_round: int | None = None


def software() -> str:
    """Return the versions that a cell's bits depend on: of all versions of fedcervix that compute alike, the first."""
    return f"fedcervix {FIRST_ALIKE}, torch {version('torch')}"


def axes(asked: StudyConfig) -> Axes:
    """Return what is varied, defaults written out."""
    given, recipes = asked.settings.axes, [used.recipe for used in asked.profiles.values()]
    batch_images = given.batch_images or _distinct(recipe.batch_images for recipe in recipes)
    return dataclasses.replace(
        given,
        starts=asked.settings.starts,
        batch_images=batch_images,
        federated_batch_images=given.federated_batch_images or batch_images,
        width=given.width or _distinct(recipe.width for recipe in recipes),
        epochs_per_round=given.epochs_per_round
        or _distinct(used.terms.epochs_per_round for used in asked.profiles.values()),
    )


def _distinct(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(values))


def combinations_of(asked: StudyConfig, profile: str, start: str) -> list[Combination]:
    """Return the combinations of a start, smallest first."""
    if start in WITHOUT_ENCODER:
        return [Combination()]
    given, used = asked.settings.axes, asked.profiles[profile]
    federated = is_federated(start)
    sizes = (given.federated_batch_images if federated else ()) or given.batch_images or (used.recipe.batch_images,)
    widths = given.width or (used.recipe.width,)
    rounds = (given.epochs_per_round or (used.terms.epochs_per_round,)) if federated else (None,)
    return [Combination(n, width, e) for e, n, width in itertools.product(rounds, sorted(sizes), sorted(widths))]


def grid(asked: StudyConfig, ground: Ground) -> list[Cell]:
    """Return every encoder and every classifier that validation chooses from; what a cell needs stands before it."""
    axes = asked.settings.axes
    cells: dict[str, Cell] = {}
    for seed, fold, profile, start in itertools.product(axes.seeds, ground.folds, axes.profiles, asked.settings.starts):
        for setting in combinations_of(asked, profile, start):
            for cell in _trained(asked, ground, _Arm(profile, start, setting, seed, fold)):
                cells.setdefault(cell.key, cell)
    return list(cells.values())


@dataclass(frozen=True, slots=True)
class _Arm:
    """What the encoders of a start, and the classifiers that begin from them, have in common."""

    profile: str
    start: str
    setting: Combination
    seed: int
    fold: Fold

    def cell(self) -> Callable[..., Cell]:
        """Return what makes a cell of this arm; what its cells have in common is given."""
        return functools.partial(
            Cell,
            profile=self.profile,
            start=self.start,
            **dataclasses.asdict(self.setting),
            seed=self.seed,
            fold=self.fold,
            software=software(),
        )


def _trained(asked: StudyConfig, ground: Ground, arm: _Arm) -> Iterator[Cell]:
    """Yield the encoders of a start, each followed by the classifiers that begin from it."""
    sites = asked.settings.site_names
    for roster in [()] if arm.start in WITHOUT_ENCODER else encoder_rosters(arm.start, sites):
        encoder = _encoder(asked, ground, arm, roster) if roster else None
        if encoder:
            yield encoder
        learners = roster if arm.start == "ssl" else sites
        for site, again in itertools.product(learners, asked.settings.axes.classifier_seeds):
            yield _classifier(asked, ground, arm, site, again, encoder)


def encoder_rosters(start: str, sites: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return whose images make each encoder of a start: every site's own (SSL), or all in the order of the ring."""
    if start == "ssl":
        return [(site,) for site in sites]
    first = first_site(start)
    return [(first, *(site for site in sites if site != first))] if first else [sites]


def _encoder(asked: StudyConfig, ground: Ground, arm: _Arm, roster: tuple[str, ...]) -> Cell:
    profile, setting = arm.profile, arm.setting
    return arm.cell()(
        kind="encoder",
        sites=roster,
        # The classifier's part does not touch an encoder: with its defaults, equal encoders have equal keys.
        recipe=dataclasses.replace(recipe_of(asked, profile, setting), classifier=ClassifierRecipe()),
        terms=_terms(asked, profile, setting, arm.seed),
        data={site: ground.lots[site, arm.fold].contrastive for site in roster}
        | weights_of(arm.start, asked, profile, ground),
    )


def weights_of(start: str, asked: StudyConfig, profile: str, ground: Ground) -> dict[str, str]:
    """Return what a cell depends on that begins from ImageNet's weights; a site cannot have this name."""
    contrastive = start not in WITHOUT_ENCODER and asked.profiles[profile].recipe.start == "imagenet"
    return {"ImageNet": ground.imagenet} if start == "imagenet" or contrastive else {}


def recipe_of(asked: StudyConfig, profile: str, setting: Combination) -> Recipe:
    """Return the recipe of a combination."""
    base = asked.profiles[profile].recipe
    if setting.batch_images is None or setting.width is None:
        return base
    return dataclasses.replace(base, batch_images=setting.batch_images, width=setting.width)


def _terms(asked: StudyConfig, profile: str, setting: Combination, seed: int) -> Terms | None:
    if setting.epochs_per_round is None:
        return None
    base = asked.profiles[profile].terms
    return dataclasses.replace(base, epochs_per_round=setting.epochs_per_round, seed=seed)


def _classifier(asked: StudyConfig, ground: Ground, arm: _Arm, site: str, again: int, encoder: Cell | None) -> Cell:
    return arm.cell()(
        kind="classifier",
        sites=(site,),
        classifier_seed=again,
        recipe=recipe_of(asked, arm.profile, arm.setting),
        inputs=(encoder.key,) if encoder else (),
        data={site: ground.lots[site, arm.fold].whole}
        | (weights_of(arm.start, asked, arm.profile, ground) if not encoder else {}),
    )


# --- followers ----------------------------------------------------------------------------------------------------


def followers(asked: StudyConfig, ground: Ground, choices: Iterable[Choice], cells: Mapping[str, Cell]) -> list[Cell]:
    """Return what follows the chosen cells, in an order in which each stands behind what it needs."""
    found: dict[str, Cell] = {}
    for choice in choices:
        for key in choice.candidates[choice.chosen].keys:
            for cell in _following(asked, ground, cells[key], cells):
                found.setdefault(cell.key, cell)
    return list(found.values())


def _following(asked: StudyConfig, ground: Ground, chosen: Cell, cells: Mapping[str, Cell]) -> Iterator[Cell]:
    axes = asked.settings.axes
    for fraction in sorted(axes.label_fractions, reverse=True):
        yield dataclasses.replace(chosen, label_fraction=fraction)
    if "shuffled-labels" in axes.controls:
        yield dataclasses.replace(chosen, control="shuffled-labels")
    if "equal-updates" in axes.controls and chosen.start == "cssl":
        encoder = _equal_updates(chosen, cells)
        yield encoder
        yield dataclasses.replace(chosen, control="equal-updates", inputs=(encoder.key,))
    if "one-site-batches" in axes.controls and chosen.start == "cssl":
        [own] = chosen.inputs
        encoder = dataclasses.replace(cells[own], control="one-site-batches")
        unmixed = dataclasses.replace(chosen, control="one-site-batches", inputs=(encoder.key,))
        yield from (encoder, unmixed)
        if "site-predictability" in axes.controls:
            yield _site_probe(asked, ground, unmixed)
    if "site-predictability" in axes.controls and len(asked.settings.sites) > 1:
        yield _site_probe(asked, ground, chosen)


def _equal_updates(chosen: Cell, cells: Mapping[str, Cell]) -> Cell:
    """Return the pooled encoder that may take as many steps as the site's own took, at the same N and width."""
    [own] = chosen.inputs
    rival = counterpart(chosen, cells.values())
    return dataclasses.replace(cells[own], control="equal-updates", inputs=rival.inputs)


def counterpart(chosen: Cell, cells: Iterable[Cell]) -> Cell:
    """Return the SSL classifier at the same site and of the same combination as one of CSSL."""
    wanted = dataclasses.replace(chosen, start="ssl", inputs=(), control="none", label_fraction=1.0)
    [rival] = [cell for cell in cells if dataclasses.replace(cell, inputs=()) == wanted]
    return rival


def _site_probe(asked: StudyConfig, ground: Ground, chosen: Cell) -> Cell:
    sites = asked.settings.site_names
    return dataclasses.replace(
        chosen,
        kind="site-probe",
        sites=sites,
        classifier_seed=None,
        recipe=dataclasses.replace(chosen.recipe, classifier=ClassifierRecipe()),
        data={site: ground.lots[site, chosen.fold].contrastive for site in sites},
    )


def expected_followers(asked: StudyConfig, ground: Ground) -> int:
    """Return how many cells will follow. It depends little on what is chosen: sites may choose one encoder, or two."""
    cells = {cell.key: cell for cell in grid(asked, ground)}
    first: dict[tuple[str, str, str, Fold], Combination] = {}
    choices = []
    for cell in cells.values():
        if cell.kind == "classifier":
            group = (cell.profile, cell.site, cell.start, cell.fold)
            if first.setdefault(group, combination_of(cell)) == combination_of(cell):
                choices.append(_alone(cell))
    return len(followers(asked, ground, choices, cells))


def combination_of(cell: Cell) -> Combination:
    """Return the combination that a cell is of."""
    return Combination(cell.batch_images, cell.width, cell.epochs_per_round)


def _alone(cell: Cell) -> Choice:
    """Return the choice of a cell that has no rival."""
    only = Candidate(
        batch_images=cell.batch_images,
        epochs_per_round=cell.epochs_per_round,
        width=cell.width,
        validation_loss=None,
        validation_auc=None,
        keys=(cell.key,),
    )
    return Choice(profile=cell.profile, site=cell.site, start=cell.start, fold=cell.fold, candidates=(only,), chosen=0)
