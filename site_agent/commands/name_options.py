"""Names, fingerprints and digests that a person types: of results (folders of the home), partners and models."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import click

from fedcervix.core.bounds import DIGEST
from fedcervix.core.events import RUN_OF_COORDINATOR
from fedcervix.core.plan import SITE_NAME
from site_agent.starts import TITLES, UNTRAINED

if TYPE_CHECKING:
    from fedcervix.trust.fingerprints import Fingerprint


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


def site_name(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    """Return the name of a partner. Raises BadParameter."""
    return _name(text, ())


def model_digest(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    """Return the digest of a model. Raises BadParameter."""
    if DIGEST.fullmatch(text) is None:
        raise click.BadParameter("the digest of a model is 64 hexadecimal digits")
    return text


def fingerprint(_context: click.Context, _parameter: click.Parameter, parts: tuple[str, ...]) -> Fingerprint:
    """Return a fingerprint that was typed in either form. Raises BadParameter, which names the wrong word."""
    from fedcervix.trust.fingerprints import Fingerprint  # with `cryptography`

    try:
        return Fingerprint.parse(" ".join(parts))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _name(text: str | None, taken: Collection[str]) -> str:
    if text is None:
        return ""
    if SITE_NAME.fullmatch(text) is None:
        raise click.BadParameter("a name is 1 to 63 characters: a-z, 0-9 and inner hyphens")
    if text in taken:
        raise click.BadParameter(f"{text} is the name of a start; choose another one")
    return text
