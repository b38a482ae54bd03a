"""Every next step that the programs print can be taken.

Hints are found in the source: what is given as `next_step` or `hint`, and texts that say "next:" or "go on with". New
ones are held to the same rules without a line here. Where a hint has a placeholder whose value decides whether the
command is a right one (a number, say), `VALUES` has it.

A command in a hint ends at the end of the hint, at ; , ( ) or a backtick: words behind it would be arguments.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import cervix_study.cli
import coordinator.cli
import site_agent.cli
from fedcervix.errors import FedcervixError

ROOT = Path(__file__).parents[2]
SOURCES = ("shared/fedcervix", "coordinator", "site_agent", "cervix_study")
PROGRAMS: dict[str, click.Group] = {
    "site-agent": site_agent.cli.cli,
    "coordinator": coordinator.cli.cli,
    "cervix-study": cervix_study.cli.cli,
}
VALUES = {
    "recipe_words": "--recipe chosen.toml --seed 3",
    **dict.fromkeys(("name", "folder.name", "new_set"), "second"),
}
"""what stands for a placeholder, by its expression; any other one is the word X"""
INSTALLS = "shared/fedcervix/extras.py"
"""the one file that may say how to install something: it knows where the project lies"""


@dataclass(frozen=True, slots=True)
class Hint:
    """What a program may print of what to do next."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def text_of(node: ast.expr) -> str:
    """Return a text as it may be printed, placeholders filled in; all alternatives of a conditional one."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return text_of(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    if isinstance(node, ast.IfExp):
        return f"{text_of(node.body)}; {text_of(node.orelse)}"
    if isinstance(node, ast.Call) and ast.unparse(node.func) in COMMANDS_OF_HOMES:
        words = text_of(node.args[0]) if node.args else ""
        return f"{COMMANDS_OF_HOMES[ast.unparse(node.func)]} --home '/a home' {words}".rstrip()
    return VALUES.get(ast.unparse(node), "X")


COMMANDS_OF_HOMES = {"home.command": "site-agent", "self.command": "site-agent"}


def hints_of(name: str, source: str) -> Iterator[Hint]:
    """Yield the hints of a module."""
    program = "coordinator" if name.startswith("coordinator") else "site-agent"
    COMMANDS_OF_HOMES.update(dict.fromkeys(COMMANDS_OF_HOMES, program))
    tree = ast.parse(source)
    parts = {id(part) for whole in ast.walk(tree) if isinstance(whole, ast.JoinedStr) for part in whole.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in ("next_step", "hint"):
            yield Hint(f"{name}, line {node.value.lineno}", text_of(node.value))
        elif isinstance(node, ast.JoinedStr | ast.Constant) and id(node) not in parts:
            text = text_of(node)
            if re.search(r"\bnext[:,]|continue with: ", text) and "\n\n" not in text:
                yield Hint(f"{name}, line {node.lineno}", text)


def all_hints() -> list[Hint]:
    files = [file for folder in SOURCES for file in sorted((ROOT / folder).rglob("*.py"))]
    return [hint for file in files for hint in hints_of(str(file.relative_to(ROOT)), file.read_text())]


HINTS = all_hints()


def commands_in(text: str) -> list[list[str]]:
    """Return the words of every command of ours in a hint."""
    found = []
    for program, cli in PROGRAMS.items():
        begins = rf"(?<!the )(?<![\w/.-]){program} (?=--home |(?:{'|'.join(cli.commands)})\b)"
        for match in re.finditer(begins, text):
            quoted = r"""(?:'[^']*'|"[^"]*"|[^;,()`'"\n])*"""
            rest = re.match(quoted, text[match.end() :])
            assert rest is not None
            found.append([program, *shlex.split(rest[0])])
    return found


def parse(words: list[str]) -> None:
    """Read a command line as its program does, without doing the work. Raises click.UsageError."""
    command: click.Command | None = PROGRAMS[words[0]]
    arguments, parent = words[1:], None
    while isinstance(command, click.Group):
        context = command.make_context(command.name, list(arguments), parent=parent)
        rest = [*context._protected_args, *context.args]
        if not rest:
            assert command.invoke_without_command, f"{shlex.join(words)}: no command"
            return
        _, command, arguments = command.resolve_command(context, rest)
        parent = context
    assert command is not None
    command.make_context(command.name, list(arguments), parent=parent)


def test_hints_are_found() -> None:
    assert len(HINTS) > 150
    assert sum(bool(commands_in(hint.text)) for hint in HINTS) > 40


@pytest.mark.parametrize("hint", [hint for hint in HINTS if commands_in(hint.text)], ids=str)
def test_a_command_in_a_hint_is_one_that_its_program_takes(hint: Hint) -> None:
    for words in commands_in(hint.text):
        try:
            parse(words)
        except click.UsageError as error:
            pytest.fail(f"{hint}\n`{shlex.join(words)}`: {error.format_message()}")


def options() -> set[str]:
    def below(command: click.Command) -> Iterator[str]:
        for parameter in command.params:
            yield from (name for name in parameter.opts if name.startswith("--"))
        for inner in command.commands.values() if isinstance(command, click.Group) else ():
            yield from below(inner)

    return {name for cli in PROGRAMS.values() for name in below(cli)} | {"--help"}


def test_an_option_in_a_hint_is_there() -> None:
    there = {*options(), "--help"}  # click gives each command that one by itself
    for hint in HINTS:
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", hint.text):
            assert option in there, str(hint)


def test_a_page_in_a_hint_is_there() -> None:
    for hint in HINTS:
        for page in re.findall(r"\bdocs/[\w./-]+\w", hint.text):
            assert (ROOT / page).exists(), str(hint)


def test_only_one_file_says_how_to_install_something() -> None:
    """`pip install 'fedcervix[site]'` names a package that no index has."""
    for folder in SOURCES:
        for file in (ROOT / folder).rglob("*.py"):
            if "pip install" in file.read_text():
                assert str(file.relative_to(ROOT)) == INSTALLS, "use fedcervix.extras.missing or install"


def test_a_home_in_a_hint_is_quoted() -> None:
    """Use `home.command("check")`: a path may hold a blank."""
    for folder in SOURCES:
        for file in (ROOT / folder).rglob("*.py"):
            bare = re.findall(r"--home \{(?!shlex\.quote)[^}]*\}", file.read_text())
            assert not bare, f"{file}: {bare}. {test_a_home_in_a_hint_is_quoted.__doc__}"


# --- taken, one after the other -----------------------------------------------------------------------------------


def said_by(words: list[str]) -> tuple[int, str]:
    """Call a program within this process; return its exit code, and all that it printed."""
    done = CliRunner().invoke(PROGRAMS[words[0]], words[1:])
    if isinstance(done.exception, FedcervixError):
        return done.exception.exit_code, f"{done.output}\n{done.exception.explain()}"
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name a home that is not there yet, and whose path has to be quoted."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "a hospital's home"


def follow(words: list[str], *, steps_max: int = 6) -> list[list[str]]:
    """Take the first next step of each command that fails; return the commands, the last of which goes well."""
    taken = [words]
    while len(taken) <= steps_max:
        code, said = said_by(taken[-1])
        assert code != 2, said
        if code == 0:
            return taken
        following = commands_in(said.partition("next:")[2])
        assert following, said
        assert following[0] not in taken, f"{taken} leads in a circle to {following[0]}"
        taken.append(following[0])
    return taken


def test_whoever_follows_the_coordinators_hints_gets_there(home: Path) -> None:
    begun = follow(["coordinator", "invite", "nhs", "--home", str(home)])
    assert begun == [
        ["coordinator", "invite", "nhs", "--home", str(home)],
        ["coordinator", "--home", str(home), "init"],
    ]
    assert follow(["coordinator", "--home", str(home), "invite", "nhs"])[1:] == []
    config = home / "coordinator.toml"  # the port is the system's choice: another test may have the usual one
    config.write_text(re.sub(r'(?m)^bind = ".*:8443"', 'bind = "127.0.0.1:0"', config.read_text()))
    for command, then in (("status", "start"), ("abort", "runs"), ("stop", "status"), ("start", "start")):
        code, said = said_by(["coordinator", "--home", str(home), command])
        [following] = commands_in(said)
        assert (code, following[:4]) == (11, ["coordinator", "--home", str(home), then])


def test_the_invitations_hint_is_taken_at_the_site(home: Path) -> None:
    """`join` is told to do nothing that it was told before: `check` needs what only joining brings."""
    site = ["--home", str(home.with_name("site"))]
    said_by(["coordinator", "--home", str(home), "init", "--advertise", "127.0.0.1:1"])
    _, said = said_by(["coordinator", "--home", str(home), "invite", "nhs"])
    [[_, *join]] = [words for words in commands_in(said) if words[0] == "site-agent"]
    Path("MANIFEST.csv").write_text("image,patient,label\n1.png,1,0\n")
    code, said = said_by(["site-agent", *join, *site])
    assert code == 7, said
    [again] = commands_in(said)
    assert again == ["site-agent", *site, "join", "nhs.invitation.toml", "--manifest", "MANIFEST.csv"]
    code, said = said_by(["site-agent", *site, "check"])
    assert code in (3, 7), said
    assert {words[3] for words in commands_in(said) if words[0] == "site-agent"} == {"join"}


def test_a_site_without_a_home_is_told_to_join(home: Path) -> None:
    for command in (["check"], ["pretrain"], ["finetune"], ["sweep"], ["evaluate"], ["predict", "ssl", "x.png"], []):
        code, said = said_by(["site-agent", "--home", str(home), *command])
        assert (code, commands_in(said)) == (3, [["site-agent", "--home", str(home), "join", "INVITATION.toml"]]), said


def test_an_error_that_knows_no_home_is_printed_with_the_one_that_was_given(home: Path) -> None:
    home.mkdir()
    (home / "site.toml").touch()
    for before, behind in ((["--home", str(home)], []), ([], ["--home", str(home)])):
        code, said = said_by(["site-agent", *before, "evaluate", *behind])
        assert (code, commands_in(said)) == (10, [["site-agent", "--home", str(home), "finetune"]])


# --- the test tests -----------------------------------------------------------------------------------------------


def test_commands_are_found_and_prose_is_not() -> None:
    source = """
raise E("what", next_step=f"ask the coordinator's operator; `site-agent join {file}`, then coordinator status (or so)")
say(f"next: {home.command('check')}")
"""
    first, second = hints_of("site_agent/x.py", source)
    assert commands_in(first.text) == [["site-agent", "join", "X"], ["coordinator", "status"]]
    assert commands_in(second.text) == [["site-agent", "--home", "/a home", "check"]]
    for wrong in ("site-agent join FILE --homes X", "site-agent join FILE writes it", "coordinator start --mode xyz"):
        [words] = commands_in(wrong)
        with pytest.raises(click.UsageError):
            parse(words)
