"""Every command has a man page, and the shells complete what can be typed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

pytest.importorskip("click_man", reason="click-man is not installed: make setup")

from tools import shell_files

# click-man calls a function that click 9 no longer has: then these tests fail, and another way to write pages is needed
pytestmark = pytest.mark.filterwarnings("ignore:.*make_default_short_help:DeprecationWarning")

PROGRAMS = Path(sys.executable).parent
EPOCH_S = 1_790_000_000


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shell") / "share"
    shell_files.write(folder, EPOCH_S)
    return folder


def commands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Every command of a program, and the program: "coordinator-init" -> its command."""
    yield name, command
    if isinstance(command, click.Group):
        for word, below in command.commands.items():
            if not below.hidden:
                yield from commands(f"{name}-{word}", below)


@pytest.mark.parametrize("program", shell_files.PROGRAMS)
def test_every_command_has_a_page_with_all_its_options(share: Path, program: str) -> None:
    found = dict(commands(program, shell_files.program(program)))
    assert len(found) > 3
    for name, command in found.items():
        page = (share / "man" / "man1" / f"{name}.1").read_text()
        assert '"2026-09-' in page
        for option in command.params:
            assert not isinstance(option, click.Option) or option.opts[0].replace("-", r"\-") in page, (name, option)


def test_man_reads_the_pages_without_a_warning(share: Path) -> None:
    if not shutil.which("groff"):
        pytest.skip("groff is not installed")
    for page in sorted((share / "man" / "man1").iterdir()):
        done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", page], capture_output=True, check=True)
        assert done.stderr == b"", page.name


def completed(line: str) -> list[str]:
    """What bash offers behind a line, by the completion file of its program."""
    words = line.split(" ")
    script = shell_files.completion(words[0], "bash")
    function = re.findall(r"(?m)^(_\w+)\(\)", script)[0]
    asks = f"{script}\nCOMP_WORDS=({' '.join(words)} ''); COMP_CWORD={len(words) - 1}\n{function} {words[0]}\n"
    asks += 'printf "%s\\n" "${COMPREPLY[@]}"\n'
    environment = os.environ | {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", asks], env=environment, capture_output=True, text=True, check=True)
    return sorted(done.stdout.split())


def test_bash_completes_commands_and_options() -> None:
    assert completed("coordinator st") == ["start", "status", "stop"]
    assert completed("site-agent data ch") == ["check"]
    assert completed("coordinator begin --mo") == ["--mode"]


def test_each_shell_finds_its_file_for_each_program(share: Path) -> None:
    for program in shell_files.PROGRAMS:
        variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
        for shell, place in shell_files.COMPLETIONS.items():
            assert f"{variable}={shell}_complete" in (share / place.format(program)).read_text()
    for program in shell_files.PROGRAMS:
        subprocess.run(["bash", "-n", share / shell_files.COMPLETIONS["bash"].format(program)], check=True)
