"""What a person is shown may be lost; nothing ends because of it."""

from __future__ import annotations

import errno
import io
import os

import pytest

from fedcervix.runtime.log_budgets import PAUSE, SITE, LineBudgets
from fedcervix.runtime.worker_protocol import WorkProgress
from site_agent.commands.display import Display, echo
from site_agent.federation import shown

PROGRESS = shown.Advanced("train", WorkProgress("training", 1, 2, "steps"))


class Broken(io.StringIO):
    """A stream that takes nothing: of a file on a full disk, or of a pipe that nobody reads."""

    def __init__(self, number: int, *, terminal: bool) -> None:
        super().__init__()
        self._number, self._terminal = number, terminal

    def isatty(self) -> bool:
        return self._terminal

    def write(self, _text: str) -> int:
        raise OSError(self._number, os.strerror(self._number))

    def flush(self) -> None:
        raise OSError(self._number, os.strerror(self._number))


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EPIPE, errno.EIO])
def test_a_line_that_cannot_be_shown_is_lost(monkeypatch: pytest.MonkeyPatch, number: int, terminal: bool) -> None:
    monkeypatch.setattr("sys.stderr", Broken(number, terminal=terminal))
    monkeypatch.setattr("site_agent.commands.display.PLAIN_S", 0.0)
    display = Display()
    display.show(PROGRESS)
    display.show(shown.Message("a line"))
    display.show(PROGRESS)
    display.close()


@pytest.mark.parametrize("err", [False, True])
def test_a_line_of_the_command_s_own_is_lost_alike(monkeypatch: pytest.MonkeyPatch, err: bool) -> None:
    monkeypatch.setattr("sys.stderr" if err else "sys.stdout", Broken(errno.ENOSPC, terminal=False))
    echo("a line", err=err)


def test_what_can_be_shown_is(capsys: pytest.CaptureFixture[str]) -> None:
    Display().show(shown.Message("a line"))
    assert capsys.readouterr().err.endswith("  a line\n")
    echo("another")
    assert capsys.readouterr().out == "another\n"


def test_a_flood_of_reasons_makes_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Before: 112,310 reasons of a malicious coordinator made a site's log 66 MB longer in 15 s."""
    now_s = 0.0
    display = Display(LineBudgets(lambda: now_s))
    for number in range(10_000):
        display.show(shown.Resting(f"reason {number}"))
    display.show(shown.Message("another kind"))
    now_s = 1 / SITE[0]
    display.show(shown.Resting("after a while"))
    lines = [line.split("  ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    said, left = int(SITE[1]), 10_000 - int(SITE[1]) - 1
    assert lines[:said] == [f"reason {number}" for number in range(said)]
    assert lines[said:] == [PAUSE, "another kind", f"{left:,} messages of this kind were left out", "after a while"]
