"""Options that stand before a command or behind it, and the homes that hints mean."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import cervix_study.cli
import coordinator.cli
import site_agent.cli
from fedcervix.errors import DataError
from fedcervix.runtime.commandline import Everywhere, Program, given

THERE = "; ask alts what `site-agent check` prints there"
BARE = "add some, then `site-agent check` or site-agent fail, as the agent check says"


@click.group("site-agent", cls=Program)
@click.option("--home", cls=Everywhere, type=click.Path(path_type=Path), default=Path("there"), envvar="A_HOME")
@click.option("--verbose", cls=Everywhere, is_flag=True)
def program() -> None:
    """Stand in for a program."""


@program.command()
@click.option("--out", "-o", default="out")
def check(out: str) -> None:
    click.echo(f"{given('home')} {given('verbose')} {out}")


@program.command()
def fail() -> None:
    raise DataError("no images", next_step=BARE + THERE)


@program.group()
def data() -> None:
    """Stand in for a group."""


@data.command()
def sheet() -> None:
    click.echo(f"{given('home')} {given('verbose')}")


def call(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(program, list(words), env={"A_HOME": None, **environment})


@pytest.mark.parametrize(
    "words",
    [
        ("--home", "H", "--verbose", "check", "-o", "F"),
        ("check", "--home", "H", "--verbose", "--out", "F"),
        ("--verbose", "check", "-o", "F", "--home", "H"),
        ("--home", "H", "--verbose", "check", "--home", "H", "--verbose", "-o", "F"),
    ],
)
def test_an_option_is_taken_on_either_side(words: tuple[str, ...]) -> None:
    assert call(*words).output == "H True F\n"


def test_a_group_within_takes_them_at_all_its_places() -> None:
    for words in (
        ("--home", "H", "data", "sheet", "--verbose"),
        ("data", "--home", "H", "--verbose", "sheet"),
        ("data", "--verbose", "sheet", "--home", "H"),
    ):
        assert call(*words).output == "H True\n"


def test_what_is_given_behind_goes_before_the_environment_and_the_default() -> None:
    assert call("check").output == "there False out\n"
    assert call("check", A_HOME="E").output == "E False out\n"
    assert call("check", "--home", "H", A_HOME="E").output == "H False out\n"


def test_two_homes_are_a_mistake() -> None:
    found = call("--home", "A", "check", "--home", "B")
    assert (found.exit_code, "--home is given twice: A and B" in found.output) == (2, True)


def test_a_hint_means_the_home_that_was_given() -> None:
    for words, hint in (
        (("fail",), BARE + THERE),
        (("--home", "a b", "fail"), BARE.replace("site-agent ", "site-agent --home 'a b' ") + THERE),
    ):
        error = call(*words).exception
        assert isinstance(error, DataError)
        assert error.next_step == hint


def test_help_has_a_short_name() -> None:
    for words in (("-h",), ("check", "-h"), ("data", "sheet", "-h")):
        assert call(*words).output == call(*words[:-1], "--help").output


def _parameters(command: click.Command) -> Iterator[click.Parameter]:
    yield from command.params
    for child in command.commands.values() if isinstance(command, click.Group) else ():
        yield from _parameters(child)


@pytest.mark.parametrize("cli", [site_agent.cli.cli, coordinator.cli.cli, cervix_study.cli.cli])
def test_a_path_that_this_user_may_not_read_reaches_the_command(cli: click.Group) -> None:
    """The command names the owner and the user who asks; click would say "is not readable" (exit code 2)."""
    types = [parameter.type for parameter in _parameters(cli) if isinstance(parameter.type, click.Path)]
    assert types
    assert not any(found.readable or found.writable or found.executable or found.exists for found in types)
