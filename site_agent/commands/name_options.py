"""Names that a person gives to the results of a command: they become folders in the home folder."""

from __future__ import annotations

from collections.abc import Collection

import click

from fedcervix.core.events import RUN_OF_COORDINATOR
from fedcervix.core.plan import SITE_NAME
from site_agent.starts import TITLES, UNTRAINED


def model_name(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str:
    """Return the name of a model, empty where none is given. Raises BadParameter."""
    if text and RUN_OF_COORDINATOR.fullmatch(text):
        raise click.BadParameter(f"{text} is named like a run of the federation; choose another one")
    return _name(text, UNTRAINED)


def set_name(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str:
    """Return the name of a set of classifiers, empty where none is given. Raises BadParameter."""
    return _name(text, TITLES)


def folder_name(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str:
    """Return the name of a report or sweep, empty where none is given. Raises BadParameter."""
    return _name(text, ())


def _name(text: str | None, taken: Collection[str]) -> str:
    if text is None:
        return ""
    if SITE_NAME.fullmatch(text) is None:
        raise click.BadParameter("a name is 1 to 63 characters: a-z, 0-9 and inner hyphens")
    if text in taken:
        raise click.BadParameter(f"{text} is the name of a start; choose another one")
    return text
