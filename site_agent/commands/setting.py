"""With which recipe a command trains, and what commands that train have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from fedcervix.config import apply_profile, read_toml
from fedcervix.plan import Plan, Recipe
from fedcervix.profiles import PROFILES
from site_agent.display import Display
from site_agent.home import SiteHome
from site_agent.runs import last_federation


@dataclass(frozen=True, slots=True)
class Setting:
    """With what a command trains, and where that comes from."""

    recipe: Recipe
    seed: int
    source: str


def setting(home: SiteHome, profile: str | None, recipe_file: Path | None, seed: int | None) -> Setting:
    """Return the recipe: of a file, of a profile, of the last run's plan, or the paper's."""
    if recipe_file is not None:
        raw = read_toml(recipe_file)
        found = apply_profile(raw.pop("profile", "paper"), raw, {}, source=recipe_file)
        return Setting(found.recipe, seed or 0, str(recipe_file))
    if profile is not None:
        return Setting(PROFILES[profile].recipe, seed or 0, f"profile {profile}")
    plan = last_plan(home)
    if plan is not None:
        return Setting(plan.recipe, plan.terms.seed if seed is None else seed, "the last run's plan")
    return Setting(PROFILES["paper"].recipe, seed or 0, "profile paper")


def last_plan(home: SiteHome) -> Plan | None:
    """Return the plan of the run that this site took part in last."""
    federation = last_federation(home)
    return federation.plan if federation else None


def site_name(home: SiteHome) -> str:
    """Return the site's name; a site that has not joined a federation is called `site`."""
    return home.certificate().identity.name if home.key_file("site.crt").exists() else "site"


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say with which recipe it trains."""
    for option in (
        click.option("--seed", type=click.IntRange(min=0), help="Default: that of the last run, or 0."),
        click.option("--recipe", "recipe_file", type=click.Path(path_type=Path), help="TOML file with recipe keys."),
        click.option("--profile", type=click.Choice(list(PROFILES)), help="Default: the last run's recipe, or paper."),
    ):
        command = option(command)
    return command


def reading(display: Display) -> Callable[[int, int], None]:
    """Return what shows how many images were read."""
    return lambda done, of: display.show(
        "progress", {"task": "images", "stage": "reading", "done": done, "of": of, "unit": "images"}
    )
