"""The thread that looks at the home, and puts what has changed on the board."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from fedcervix.page.board import Board
from site_agent.home import SiteHome
from site_agent.page.document import document
from site_agent.page.gpus import Watched, library
from site_agent.page.reading import HomeReader

LOOK_S = 0.5
"""from one look at the home to the next: a killed agent is on the page in less than two seconds"""


def feeder(home: SiteHome, board: Board, clock_s: Callable[[], float] = time.time) -> Callable[[threading.Event], None]:
    """Return what fills the board until the event is set."""

    def feed(stop: threading.Event) -> None:
        gpus = Watched(library())
        threading.Thread(target=gpus.watch, args=(stop,), name="gpus", daemon=True).start()
        reader = HomeReader(home, gpus)
        while True:
            board.put(**document(reader.read(clock_s()), reader.clean()))
            if stop.wait(LOOK_S):
                return

    return feed
