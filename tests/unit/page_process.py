"""The coordinator's page as a process, showing a made run: what browser tests and pictures stand on.

    python -m tests.unit.page_process FOLDER SCENE

It makes a home in FOLDER with the scene's journal, serves the page on loopback, and prints its address. A line on its
standard input changes what is seen: `cut SITE`, `silence SITE`, `fail SITE`, `inject SITE`, `round`, `wait`, `away`.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from importlib.resources import files
from pathlib import Path

from coordinator.home.home import Home
from coordinator.page.records import record_route
from coordinator.page.watching import Watching
from fedcervix.core.modes import Mode
from fedcervix.disk.journal import Journal, RunRecord
from fedcervix.page.app import PageContent
from fedcervix.page.board import Board
from fedcervix.page.doors import Door
from fedcervix.page.serving import serve
from fedcervix.runtime.cli_runtime import ends_whole
from tests.unit.coordinator_homes import made
from tests.unit.page_scenes import BASE, Scene, night

SCENES: dict[str, tuple[Mode, tuple[str, ...]]] = {
    "star": ("csfssl", ("nhs", "alts", "kiel", "ghent", "porto")),
    "ring": ("ppfssl", ("nhs", "alts", "kiel", "ghent", "porto")),
    "three": ("csfssl", ("nhs", "alts", "kiel")),
    "pair": ("ppfssl", ("nhs", "alts")),
    "many": ("csfssl", tuple(f"site-{number:02}" for number in range(48))),
}


def home_of(folder: Path, scene: Scene) -> Home:
    """Make a home that has the scene's run in its journal."""
    home = made(folder / "home", sites=scene.sites)
    write(home, scene, 0)
    return home


def write(home: Home, scene: Scene, known: int) -> int:
    """Add to the journal what has happened since event `known`; return how many events there are."""
    with contextlib.closing(Journal(home.journal)) as journal:
        journal._db.execute("PRAGMA synchronous = OFF")  # no power fails here
        if not journal.runs():
            journal.begin(RunRecord(scene.run.run, scene.plan, BASE, scene.began))
        for event in scene.events[known:]:
            journal.append(scene.run.run, event)
    return len(scene.events)


def main(folder: Path, name: str) -> None:
    """Serve the page until standard input ends or a signal comes."""
    scene = night(*SCENES[name])
    home, known = home_of(folder, scene), len(scene.events)
    board = Board()
    watching = Watching(home, board, lambda _home, _known: iter(()))

    def feed(_stop: threading.Event) -> None:
        nonlocal known
        watching.show(scene.document())
        for line in sys.stdin:
            words = line.split()
            if words[0] in ("cut", "silence", "fail", "inject"):
                getattr(scene, words[0])(words[1])
            elif words[0] == "round":
                scene.train_all()
                scene.progress()
            elif words[0] == "wait":
                scene.later(1)
            known = write(home, scene, known)
            away = "the coordinator is not running" if words[0] == "away" else ""
            watching.show(scene.document(), away)

    content = PageContent("coordinator", files("coordinator.page") / "static", board, [record_route(home)])
    serve(content, Door(port=0), feed, command="coordinator page", members=b"")


if __name__ == "__main__":
    with ends_whole():
        main(Path(sys.argv[1]), sys.argv[2])
