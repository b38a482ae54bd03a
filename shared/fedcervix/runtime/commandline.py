"""What the command lines of all programs have in common.

Rules
1. A declaration is light: commands and options are declared with click alone. The work of a command is imported when it
   is called, so help, completion and errors in arguments wait for no library.
2. `--home` and `--verbose` may stand before the command or behind it. The commands that an error names are printed with
   the home that was given.
3. `-h` is `--help`.
"""

from __future__ import annotations

import copy
import difflib
import functools
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from fedcervix.errors import ConfigError, FedcervixError
from fedcervix.runtime.log import configure

Function = TypeVar("Function", bound=Callable[..., Any])

HELP = {"help_option_names": ["-h", "--help"]}
LIKENESS_MIN = 0.5
"""of a command that is suggested, by difflib's measure: `cheque` is like `check`"""
ANY_PATH = click.Path(path_type=Path, readable=False)
"""not looked at by click, which would only say "is not readable": a command says who may read it"""
_GIVEN = "fedcervix.runtime.commandline"


class Everywhere(click.Option):
    """An option of a program that is also taken behind each of its commands; read it with `given`."""

    def __init__(self, declarations: Sequence[str], **attributes: Any) -> None:
        super().__init__(declarations, expose_value=False, callback=_remember, **attributes)

    def again(self) -> Everywhere:
        """Return the same option for a command: what is not given there is as the program has it."""
        behind = copy.copy(self)
        behind.default, behind.envvar, behind.show_default = None, None, False
        return behind


def _remember(context: click.Context, option: click.Parameter, value: Any) -> None:
    known: dict[str, tuple[Any, bool]] = context.meta.setdefault(_GIVEN, {})
    name = str(option.name)
    explicit = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    before, was_explicit = known.get(name, (None, False))
    if explicit and was_explicit and value != before:
        raise click.UsageError(f"{option.opts[0]} is given twice: {before} and {value}", context)
    if explicit or name not in known:
        known[name] = (value, explicit)


def given(name: str) -> Any:
    """Return the value of an option that may stand everywhere; None where the program has no such option."""
    return click.get_current_context().meta.get(_GIVEN, {}).get(name, (None, False))[0]


def is_named(name: str) -> bool:
    """Say whether an option that may stand everywhere was written on the command line."""
    return bool(click.get_current_context().meta.get(_GIVEN, {}).get(name, (None, False))[1])


def set_up() -> None:
    """Set up the logging of a command that is about to work."""
    configure(verbose=bool(given("verbose")))


def meant_here(text: str) -> str:
    """Return a hint in which commands of this program have the home that was given on the command line.

    Most errors are raised in code that does not know the home and can only say `site-agent finetune`. A command that
    other people type at their site stands in backticks, and "there" follows: `site-agent identity` prints there.
    """
    context = click.get_current_context()
    home, explicit = context.meta.get(_GIVEN, {}).get("home", (None, False))
    root = context.find_root().command
    if not explicit or "--home" in text or not isinstance(root, click.Group):
        return text
    names = "|".join(root.commands)
    with_home = f"{root.name} --home {shlex.quote(str(home))} "
    elsewhere = r"(?![^`]*` (?:\w+ )?there\b)"
    return re.sub(rf"(?<!the )\b{root.name} (?=(?:{names})\b){elsewhere}", lambda _: with_home, text)


class WorkCommand(click.Command):
    """A command whose logging is set up when it is called."""

    def invoke(self, context: click.Context) -> Any:
        """Do the work."""
        set_up()
        return super().invoke(context)


class Program(click.Group):
    """A program with commands, or a group of commands within one; its hints contain the --home that was given."""

    command_class = WorkCommand
    group_class = type  # groups within are of this class

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **{"context_settings": HELP, **named})

    def invoke(self, context: click.Context) -> Any:
        """Do the work of a command, or that of the program itself."""
        try:
            return super().invoke(context)
        except FedcervixError as error:
            error.next_step = meant_here(error.next_step)
            raise

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is called. Raises click.UsageError, with a name that is near."""
        near = difflib.get_close_matches(words[0], self.commands, n=1, cutoff=LIKENESS_MIN)
        if words[0] in self.commands or not near or context.resilient_parsing:
            return super().resolve_command(context, words)
        raise click.UsageError(f"No such command '{words[0]}'. Did you mean '{near[0]}'?", context)

    def add_command(self, command: click.Command, name: str | None = None) -> None:
        """Add a command; it takes the options that may stand everywhere."""
        super().add_command(command, name)
        command.params += [option.again() for option in self.params if isinstance(option, Everywhere)]


def home_option(role: str) -> Callable[[Function], Function]:
    """Return the option --home of a role's program."""
    return click.option(
        "--home",
        cls=Everywhere,
        type=ANY_PATH,
        default=functools.partial(_default_home, role),
        envvar=f"FEDCERVIX_{role.upper()}_HOME",
        show_default=f"~/.fedcervix/{role}",
        help=f"The {role}'s home folder.",
    )


def decision_options(function: Function) -> Function:
    """Give a command the options with which a person decides on a model."""
    for option in (
        click.option("--by", "person", default="", help="Who says so: a name or an office. It is stored and sent on."),
        click.option(
            "--reason", required=True, help="Why. It is stored and sent on, so do not write who a patient is."
        ),
    ):
        function = option(function)
    return function


replaced_by_option = click.option("--replaced-by", default="", metavar="MODEL", help="The model to use instead.")

verbose_option = click.option("--verbose", cls=Everywhere, is_flag=True, help="Write more messages to the log.")


def _default_home(role: str) -> Path:
    """Return a role's default home folder. Raises ConfigError."""
    try:
        return Path.home() / ".fedcervix" / role
    except RuntimeError as error:
        raise ConfigError(
            "this account has no home folder",
            cause="HOME is not set, and the system does not know the account",
            next_step="name a folder: --home FOLDER",
        ) from error
