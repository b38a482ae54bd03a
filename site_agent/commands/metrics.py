"""The command `site-agent metrics`: what this site does, as Prometheus reads it. Nothing is sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import click

from fedcervix.extras import require
from fedcervix.monitoring.exposition import check_folder, text, write_textfile
from fedcervix.monitoring.textfiles import keep_writing
from fedcervix.runtime.printing import say
from site_agent.home import SiteHome
from site_agent.monitoring.measuring import fixed, measured
from site_agent.page.gpus import Watched, library
from site_agent.page.reading import HomeReader

FIRST_S = 5.0
"""within which a driver tells of its GPUs, or they are left out of the first text"""


def metrics(home: SiteHome, textfile: Path | None, every: float | None) -> None:
    """Print the metrics, or write them into node_exporter's folder, once or again and again.

    Raises click.UsageError, ConfigError, StorageError.
    """
    require("prometheus_client")
    if textfile is None and every is not None:
        raise click.UsageError("--every needs --textfile DIR: printed metrics are those of one moment")
    who = home.certificate().identity
    if textfile is None:
        say(reader(home)().decode().rstrip("\n"))
        return
    check_folder(textfile)
    file = textfile / f"fedcervix-site-{who.federation}-{who.name}.prom"
    if every is None:
        write_textfile(file, reader(home)())
        say(f"wrote {file}")
        return
    say(f"writes {file} every {every:g} s; Ctrl-C ends it and removes the file")
    keep_writing(file, reader(home), every)


def reader(home: SiteHome, clock_s: Callable[[], float] = time.time) -> Callable[[], bytes]:
    """Return what makes the text of a moment. GPUs are asked by a thread of its own: a driver can hang."""
    gpus, once, always = Watched(library()), threading.Event(), threading.Event()
    once.set()
    first, again = (threading.Thread(target=gpus.watch, args=(stop,), daemon=True) for stop in (once, always))
    first.start()
    first.join(FIRST_S)
    again.start()
    known = HomeReader(home, gpus)

    def read() -> bytes:
        seen = known.read(clock_s())
        return text(measured(seen), fixed(seen))

    return read
