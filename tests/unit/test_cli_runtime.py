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
from fedcervix.runtime.cli_runtime import exits

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


# --- terminals, files and readers ---------------------------------------------------------------------------------

TALK = """
import pathlib, sys
import click
from fedcervix.runtime.cli_runtime import exits, stdout_console

@click.command()
@click.argument("what")
def command(what):
    if what == "dashes":
        click.echo("0.76–0.91, ü, 宮\\udcfc ≥ 1")
        from rich.table import Table
        table = Table("AUC")
        table.add_row("0.76–0.91")
        stdout_console().print(table)
    if what == "files":
        pathlib.Path("ü.txt").write_text("ü")
        click.echo(sys.getfilesystemencoding())
    if what == "much":
        for number in range(100_000):
            click.echo(f"line {number}")
    if what == "tables":
        for number in range(10_000):
            stdout_console().print(f"line {number}")
    if what == "forbidden":
        pathlib.Path("none/here").read_bytes()

exits(command)
"""


def talk(what: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONUTF8"))
    }
    return subprocess.run(
        [sys.executable, "-c", TALK, what],
        cwd=folder,
        env={**variables, **environment},
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="session")
def latin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Make a locale of eight bits."""
    folder = tmp_path_factory.mktemp("locales")
    make = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", folder / "de_DE.ISO-8859-1"]
    try:
        subprocess.run(make, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine cannot make a locale")
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE.ISO-8859-1"}


def test_a_latin_terminal_has_hyphens_for_dashes_and_its_own_letters(tmp_path: Path, latin: dict[str, str]) -> None:
    done = talk("dashes", tmp_path, **latin)
    assert (done.returncode, done.stderr) == (0, b"")
    said = done.stdout.decode("latin-1")
    assert said.startswith("0.76-0.91, ü, \\u5bae\\udcfc >= 1\n")
    assert said.count("0.76-0.91") == 2


def test_files_are_utf_8_whatever_the_terminal_is(tmp_path: Path, latin: dict[str, str]) -> None:
    done = talk("files", tmp_path, **latin)
    assert (done.returncode, done.stdout) == (0, b"utf-8\n")
    assert {os.fsencode(path.name): path.read_bytes() for path in tmp_path.iterdir()} == {
        "ü.txt".encode(): "ü".encode()
    }


@pytest.mark.parametrize(
    ("environment", "dash"),
    [
        ({"LC_ALL": "C"}, "–"),
        ({"LC_ALL": "POSIX"}, "–"),
        ({"LC_ALL": "C.UTF-8"}, "–"),
        ({}, "–"),
        ({"PYTHONIOENCODING": "latin-1"}, "-"),
    ],
)
def test_no_locale_ends_in_a_traceback(environment: dict[str, str], dash: str, tmp_path: Path) -> None:
    done = talk("dashes", tmp_path, **environment)
    assert (done.returncode, done.stderr) == (0, b"")
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
    assert done.stdout.decode(encoding).startswith(f"0.76{dash}0.91, ")
    assert rb"\udcfc" in done.stdout


@pytest.mark.parametrize("what", ["much", "tables"])
def test_whoever_has_read_enough_hears_no_more(what: str, tmp_path: Path) -> None:
    shell = f'{{ "$0" -c "$1" {what}; echo $? >code; }} | head -n 1'
    done = subprocess.run(
        ["bash", "-c", shell, sys.executable, TALK],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout.count("\n"), done.stderr) == (1, "")
    assert (tmp_path / "code").read_text().strip() == "141"


def test_a_file_that_cannot_be_used_is_no_bug(tmp_path: Path) -> None:
    done = talk("forbidden", tmp_path)
    assert done.returncode == 8
    assert done.stderr.decode().splitlines()[0] == "error: cannot use none/here: No such file or directory"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("coordinator invite", "Missing argument 'SITE'|this command cannot work without it|coordinator invite --help"),
        ("site_agent data check --fulll", "No such option|the option is misspelt|site-agent data check --help"),
        ("cervix_study reportt", "No such command 'reportt'|a word is misspelt|cervix-study --help"),
        (
            "site_agent data check --unreadable-max 2",
            "Invalid value|the value is misspelt|site-agent data check --help",
        ),
    ],
)
def test_a_wrong_command_line_is_told_in_three_lines(tmp_path: Path, words: str, said: str) -> None:
    """What happened, the likely cause, the next command: as of any other error."""
    make = [sys.executable, "-m", "coordinator", "--home", str(tmp_path / "home"), "init"]
    subprocess.run(make, check=True, capture_output=True, timeout=60)
    home = {"FEDCERVIX_COORDINATOR_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", *words.split()]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **home}, cwd=tmp_path
    )
    what, cause, next_ = said.split("|")
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines), done.stdout) == (2, 3, "")
    assert lines[0].startswith(f"error: {what}")
    assert lines[1].startswith(f"  likely cause: {cause}")
    assert lines[2] == f"  next: {next_}"
