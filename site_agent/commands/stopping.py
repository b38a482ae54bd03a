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
import signal
import sys
from collections.abc import Iterator
from types import FrameType

from fedcervix.errors import INTERRUPTED
from fedcervix.runtime.printing import say
from fedcervix.runtime.signals import SIGNALS
from site_agent.training.stopping import Stop

_WAITS = b"\nstopping at the end of this step; a checkpoint is saved. Press Ctrl-C again to stop immediately.\n"


@contextlib.contextmanager
def stops(go_on: str) -> Iterator[Stop]:
    """Listen to signals; `go_on` is the command that continues a stopped training. Raises SystemExit(130)."""
    stop = Stop()

    def heard(number: int, frame: FrameType | None) -> None:
        stop.heard(number, frame)
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
