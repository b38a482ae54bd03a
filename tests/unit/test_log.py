"""Logging: a line may be lost, and nothing with it."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from fedcervix.log import configure, logger


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has a disk that is always full")
def test_a_line_that_does_not_fit_on_the_disk_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with io.TextIOWrapper(io.FileIO("/dev/full", "w"), write_through=True) as full:
        monkeypatch.setattr(sys, "stderr", full)
        configure()
        logger(run="run").info("round begins")


def test_a_line_whose_reader_has_gone_is_lost_and_the_next_one_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe(io.StringIO):
        broken = True

        def write(self, text: str) -> int:
            if self.broken:
                raise BrokenPipeError
            return super().write(text)

    pipe = Pipe()
    monkeypatch.setattr(sys, "stderr", pipe)
    configure()
    logger().info("lost")
    pipe.broken = False
    logger().info("written")
    assert (pipe.getvalue().count("\n"), '"written"' in pipe.getvalue()) == (1, True)
