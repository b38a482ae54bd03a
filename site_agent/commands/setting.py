"""The recipe of a command that trains, and code that all these commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedcervix.core.plan import Recipe
from fedcervix.core.profiles import PROFILES
from fedcervix.errors import ConfigError
from fedcervix.lineage.decisions import SHORT
from fedcervix.runtime.config import apply_profile, read_toml
from fedcervix.runtime.printing import say
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.commands.display import Display
from site_agent.federation import shown
from site_agent.home import SiteHome
from site_agent.store.retired_models import check_usable
from site_agent.store.run_store import last_federation

if TYPE_CHECKING:
    from site_agent.network.devices import Machine

RECIPE_OPTIONS = ("profile", "recipe_file", "seed")
"""parameters that say with which recipe a command trains: what one command used, the next one needs"""


@dataclass(frozen=True, slots=True)
class Setting:
    """The settings with which a command trains, and their source."""

    recipe: Recipe
    seed: int
    source: str


def setting(home: SiteHome, profile: str | None, recipe_file: Path | None, seed: int | None) -> Setting:
    """Return the recipe: of a file, of a profile, of the last run's plan, or the paper's. Raises ConfigError."""
    home.insist()
    if not home.config_file.exists():
        raise ConfigError(
            f"{home.config_file} does not exist",
            cause="wrong --home, or not set up yet",
            next_step=f"{home.command('join INVITATION.toml')}; to train without a federation, write "
            'two lines into that file: [data], and manifest = "/path/of/manifest.csv"',
        )
    if recipe_file is not None:
        raw = _recipe_keys(recipe_file)
        found = apply_profile(raw.pop("profile", "paper"), raw, {}, source=recipe_file)
        return Setting(found.recipe, seed or 0, str(recipe_file))
    if profile is not None:
        return Setting(PROFILES[profile].recipe, seed or 0, f"profile {profile}")
    if last := last_federation(home):
        return Setting(last.plan.recipe, last.plan.terms.seed if seed is None else seed, "the last run's plan")
    return Setting(PROFILES["paper"].recipe, seed or 0, "profile paper")


def _recipe_keys(file: Path) -> dict[str, object]:
    """Return what a recipe file holds. Raises ConfigError."""
    if not file.exists():
        raise ConfigError(
            f"there is no recipe file {file}",
            cause="the path is wrong",
            next_step="give the path of a TOML file with recipe keys, or --profile NAME",
        )
    raw = read_toml(file)
    for table in ("run", "recipe"):
        if isinstance(raw.get(table), dict):
            raise ConfigError(
                f"{file}: in a recipe file the keys are at the top, not in table [{table}]",
                cause="they were copied from a coordinator.toml",
                next_step=f"edit {file}: no line [run.recipe]; [run.recipe.augment] is [augment] here",
            )
    return raw


def check_start_usable(home: SiteHome, used: Setting, command: str, *, forced: bool) -> None:
    """Raise ModelError where the recipe starts from a model that is retired here, and nobody insists."""
    check_usable(
        home,
        f"model {used.recipe.start_model[:SHORT]}, from which the recipe starts,",
        [used.recipe.start_model],
        again=f"{command} --force-retired",
        forced=forced,
    )


def machine_of(home: SiteHome, recipe: Recipe) -> Machine:
    """Set this process up, and say what of the configuration does nothing outside a federation."""
    hardware = home.config().hardware
    if hardware.processes != 1 or hardware.launcher:
        many = f"processes = {hardware.processes} is for federated training; this command uses one process"
        say(f"note: {many}", err=True)
    if recipe.proximal:
        say(f"note: proximal = {recipe.proximal:g} has no effect here: it is a term of federated rounds", err=True)
    from site_agent.network.devices import ready  # it loads torch, and a mistake in a recipe is found without

    return ready(hardware)


def site_name(home: SiteHome) -> str:
    """Return the site's name; a site that has not joined a federation is called `site`."""
    return home.certificate().identity.name if home.key_file("site.crt").exists() else "site"


def reading(display: Display) -> Callable[[int, int], None]:
    """Return what shows how many images were read."""
    return lambda done, of: display.show(shown.Advanced("images", WorkProgress("reading", done, of, "images")))
