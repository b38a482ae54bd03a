"""Frames are decoded in a process of its own, with bounds of memory and time: a file may be hostile, or only broken.

    python -m site_agent.dicom.frame_process

It reads requests and writes answers, each one line of JSON. A decoder that crashes, hangs, or wants too much memory
costs its frame; the next frame gets a new process. What decoders in C print may hold anything, so all other outputs of
the process are closed.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import resource
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from PIL import Image

from fedcervix.disk.files import write_whole
from fedcervix.json_text import parsed
from fedcervix.runtime.parent_death import end_with_parent
from fedcervix.runtime.typed_json import from_json
from site_agent.dicom.frames import frame, reduced, sharpness
from site_agent.dicom.headers import UNREADABLE, RefusedError
from site_agent.dicom.quiet import close_outputs
from site_agent.images.samples import Pixels

MEMORY_BYTES = 4 << 30
"""of address space"""
FRAME_S = 120.0
CRASHED: Final = "its decoder crashed"
TOO_LONG: Final = "decoding it takes too long"
TOO_MUCH: Final = f"decoding it takes more than {MEMORY_BYTES >> 30} GiB"


@dataclass(frozen=True, slots=True)
class FrameRequest:
    """One frame to be written to a file; without one, to be looked at."""

    file: str
    index: int
    to: str = ""
    side_max_px: int = 0
    """of the file that is written; 0: as large as it is"""


@dataclass(frozen=True, slots=True)
class FrameAnswer:
    """What came of it."""

    sharpness: float = 0.0
    refused: str = ""
    errno: int = 0
    """of the disk"""


@dataclass
class FrameProcess:
    """The process, seen from the one that asks it; made when it is needed, and again after a crash."""

    frame_s: float = FRAME_S
    _child: subprocess.Popen[str] | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def sharpness(self, path: Path, index: int) -> float:
        """Return how sharp a frame is. Raises RefusedError, OSError."""
        return self._asked(FrameRequest(str(path), index)).sharpness

    def write(self, path: Path, index: int, to: Path, side_max_px: int) -> None:
        """Write a frame as a PNG file, at most so large; 0: as large as it is. Raises RefusedError, OSError."""
        self._asked(FrameRequest(str(path), index, str(to), side_max_px))

    def peak_bytes(self) -> int:
        """Return the largest resident memory of the process up to now; 0 where there is none."""
        status = Path(f"/proc/{self._child.pid}/status").read_text() if self._child else ""
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(found[1]) * 1024 if found else 0

    def _asked(self, request: FrameRequest) -> FrameAnswer:
        child = self._child = self._child or subprocess.Popen(
            [sys.executable, "-m", "site_agent.dicom.frame_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        too_late = threading.Event()

        def stop() -> None:
            too_late.set()
            child.kill()

        timer = threading.Timer(self.frame_s, stop)
        timer.start()
        try:
            child.stdin.write(json.dumps(_plain(request), allow_nan=False) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            self._end()
            raise RefusedError(TOO_LONG if too_late.is_set() else CRASHED)
        answer = from_json(FrameAnswer, parsed(line))
        if answer.errno:
            raise OSError(answer.errno, os.strerror(answer.errno), request.to or request.file)
        if answer.refused:
            raise RefusedError(answer.refused)
        return answer

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()


def _plain(value: FrameRequest | FrameAnswer) -> dict[str, object]:
    return {name: getattr(value, name) for name in value.__slots__}


def _answer(request: FrameRequest) -> FrameAnswer:
    try:
        pixels = _read(request)
        if not request.to:
            return FrameAnswer(sharpness=sharpness(pixels))
        png = io.BytesIO()
        kept = reduced(pixels, request.side_max_px) if request.side_max_px else pixels
        Image.fromarray(kept).save(png, "PNG")
        write_whole(Path(request.to), png.getvalue())
    except RefusedError as error:
        return FrameAnswer(refused=str(error))
    except MemoryError:
        return FrameAnswer(refused=TOO_MUCH)
    except OSError as error:
        return FrameAnswer(errno=error.errno or errno.EIO)
    return FrameAnswer()


def _read(request: FrameRequest) -> Pixels:
    try:
        return frame(Path(request.file), request.index)
    except OSError as error:
        raise RefusedError(UNREADABLE) from error


def main() -> None:
    """Answer requests until standard input ends."""
    end_with_parent()
    with os.fdopen(os.dup(1), "w") as answers:
        close_outputs()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        for line in sys.stdin:
            answers.write(json.dumps(_plain(_answer(from_json(FrameRequest, parsed(line)))), allow_nan=False) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
