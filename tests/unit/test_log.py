"""Logging: a line may be lost, and nothing with it."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import pytest

from fedcervix.errors import RemoteError
from fedcervix.runtime.log import LINE_CHARS_MAX, configure, logger, ration


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


def logged(*lines: dict[str, object]) -> list[dict[str, object]]:
    """Return the lines as they stand in the log."""
    found = io.StringIO()
    with contextlib.redirect_stderr(found):
        configure()
        for line in lines:
            logger().info("event", **line)
    return [json.loads(line) for line in found.getvalue().splitlines()]


@pytest.mark.parametrize(
    "value",
    [
        "x" * 3_500_000,
        "\x1b\\" * 1_000_000,
        "🧬" * 900_000,
        ["y" * 1000] * 1000,
        {f"{n}" * 1000: n for n in range(1000)},
    ],
    ids=["long", "doubled by escapes", "twelve bytes each", "a list", "a table"],
)
def test_no_line_is_longer_than_its_bound_whatever_is_in_it(value: object, capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    logger(run="run").warning("call refused", what=value, more=value, error=RemoteError(str(value)))
    [line] = capsys.readouterr().err.splitlines()
    assert len(line.encode()) <= LINE_CHARS_MAX
    assert json.loads(line)["event"] == "call refused", "it is a whole line of JSON all the same"


def test_a_long_value_is_told_by_its_beginning_and_its_length() -> None:
    [line] = logged({"what": "a" * 5000})
    assert str(line["what"]).startswith("aaaa")
    assert str(line["what"]).endswith("... (5,000 characters)")


def test_a_line_that_is_not_wanted_is_left_out_and_another_is_told_more() -> None:
    ration(lambda event: None if event.get("n") == 1 else {"left_out": 1} if event.get("n") == 2 else {})
    try:
        assert [(line["n"], line.get("left_out")) for line in logged({"n": 0}, {"n": 1}, {"n": 2})] == [
            (0, None),
            (2, 1),
        ]
    finally:
        ration(None)
