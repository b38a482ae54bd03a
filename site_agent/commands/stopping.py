"""How a training is stopped: Ctrl-C and SIGTERM, and the command that continues it.

Rules
1. If a checkpoint can be saved, the first signal asks for one at the next step, and then training ends. A second signal
   ends it immediately.
2. If none can be saved (images are being read, a classifier is small), the first signal ends the command.
3. In both cases the command prints how to continue, and its exit code is 130.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Collection, Iterator
from types import FrameType
from typing import Any

import click
from click.core import ParameterSource

from fedcervix.errors import INTERRUPTED
from fedcervix.runtime.printing import say
from fedcervix.runtime.signals import SIGNALS
from site_agent.home import SiteHome
from site_agent.training.stopping import Stop

_WAITS = b"\nstopping at the end of this step; a checkpoint is saved. Press Ctrl-C again to stop immediately.\n"


@contextlib.contextmanager
def stops(go_on: str) -> Iterator[Stop]:
    """Listen to signals; `go_on` is the command that continues a stopped training. Raises SystemExit(130)."""
    stop = Stop()

    def heard(_number: int, _frame: FrameType | None) -> None:
        if stop.asked or not stop.ask():
            raise KeyboardInterrupt
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _WAITS)  # a handler may take no lock of a stream

    before = {number: signal.signal(number, heard) for number in SIGNALS}
    try:
        yield stop
    except KeyboardInterrupt:
        say(f"stopped; continue with: {go_on}", err=True)
        raise SystemExit(INTERRUPTED) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    several = value if option.multiple else [value]
    return [word for one in several for word in (option.opts[0], _text(one))]


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
