"""How a process ends: with the right code, everything said, and before the interpreter is taken apart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import atexit, sys, threading
import click
from fedcervix.errors import ConfigError
from fedcervix.process import exits

class Global:
    def __del__(self):  # as the interpreter is taken apart, after its daemon threads' memory was freed
        sys.stderr.write("taken apart")

held = Global()

@click.command()
@click.argument("how")
def command(how):
    atexit.register(print, "a library ends")
    print("said", end=" ")
    threading.Timer(0.05, print, ["a thread ends"]).start()
    if how == "sys.exit":
        sys.exit(20)
    if how == "error":
        raise ConfigError("wrong", cause="a test", next_step="none")
    if how == "bug":
        raise ZeroDivisionError
    if how == "nothing":
        sys.exit()
    if how == "text":
        sys.exit("some text")

exits(command)
"""


ENDINGS = {"well": 0, "nothing": 0, "sys.exit": 20, "error": 3, "bug": 1, "--help": 0}


def run(how: str, *, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, how],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(("how", "code"), ENDINGS.items())
def test_a_program_ends_before_the_interpreter_is_taken_apart(how: str, code: int) -> None:
    done = run(how)
    assert done.returncode == code
    assert "taken apart" not in done.stderr
    if how != "--help":
        assert done.stdout.split(maxsplit=1) == ["said", "a thread ends\na library ends\n"]


def test_whatever_the_interpreter_has_to_say_it_says() -> None:
    done = run("text")
    assert (done.returncode, "some text" in done.stderr, "taken apart" in done.stderr) == (1, True, True)


def test_words_that_found_no_room_are_no_success() -> None:
    with Path("/dev/full").open("w") as full:
        done = run("well", stdout=full.fileno())
    assert done.returncode == 120
    assert "No space left on device" in done.stderr


def test_a_program_whose_output_was_closed_before_it_began_ends_as_well() -> None:
    shell = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", PROGRAM, "sys.exit"]
    done = subprocess.run(shell, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (20, "")
