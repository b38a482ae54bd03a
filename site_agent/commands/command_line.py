"""A command to type, with the options that were given to the one that is running."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from typing import Any

import click
from click.core import ParameterSource

from site_agent.home import SiteHome


def command_line(home: SiteHome, command: str, options: Collection[str] | None = None) -> str:
    """Return a command to type, with the options that were given to the running command.

    `options` are the parameters to take over; default: all but `restart`, which would delete the training to continue.
    """
    context = click.get_current_context()
    words = ["site-agent", "--home", str(home.folder), command]
    for option in context.command.params:
        name = str(option.name)
        taken = name != "restart" if options is None else name in options
        if taken and name in context.params and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            words += _given(option, context.params[name])
    return shlex.join(words)


def _given(option: click.Parameter, value: Any) -> list[str]:
    if isinstance(option, click.Argument):
        return [_text(one) for one in (value if option.nargs != 1 else [value])]
    if isinstance(option, click.Option) and option.is_flag:
        return [option.opts[0]] if value else []
    several = value if option.multiple else [value]
    return [word for one in several for word in (option.opts[0], _text(one))]


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
