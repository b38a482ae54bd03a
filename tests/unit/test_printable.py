"""No control character of foreign text reaches a screen: taken out on receipt, and again before every screen."""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import logging
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from rich.table import Table
from rich.text import Text

from coordinator.commands.status_view import render
from coordinator.run.liveness import Line
from coordinator.run.status import overview
from fedcervix.core.events import Event, SiteAttached, SiteRefused
from fedcervix.core.plan import Plan, Recipe, Terms
from fedcervix.core.rounds.instructions import Finish, Idle, instruction
from fedcervix.core.rounds.state import Outcome, Run, begin
from fedcervix.core.rounds.step import step
from fedcervix.errors import FedcervixError, RemoteError
from fedcervix.printable import printable, printable_values
from fedcervix.runtime import cli_runtime, log
from fedcervix.runtime.printing import console, say
from fedcervix.runtime.typed_json import to_text
from fedcervix.runtime.worker_protocol import WorkProgress
from fedcervix.transport import codec, rpc
from fedcervix.transport.versions import HERE
from fedcervix.wire import federation_pb2 as wire
from site_agent.cli import cli as site_agent
from site_agent.commands.display import Display
from site_agent.federation import shown
from site_agent.federation.line_probe import LinePace
from site_agent.federation.partners import Partners
from tests.unit.test_codec import REPORTS

ROOT = Path(__file__).parents[2]
HOSTILE = {
    "erases the screen": "\x1b[2J",
    "writes to the clipboard": "\x1b]52;c;aGVsbG8=\x07",
    "rings": "\x07",
    "begins a forged line": "\r\nOK everything is well",
    "turns the direction": "\u202egnp.exe",
    "C1": "\x9b2J\x85",
    "DEL": "\x7f",
    "parts lines": "\u2028OK\u2029OK",
    "is invisible": "\u200b\U000e0041",
}
ALL = "".join(HOSTILE.values())


def raw(text: str) -> set[str]:
    """Return the control characters of a text but line feeds, which screens end their own lines with."""
    return {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Zl", "Zp")} - {"\n"}


# --- the function -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
def test_control_characters_are_taken_out_and_the_length_stays(words: str) -> None:
    clean = printable(f"before{words}after")
    assert not raw(clean) - {"\n"}
    assert "\n" not in clean
    assert len(clean) == len(f"before{words}after")


@pytest.mark.parametrize(
    "words", ["", "plain", "Žluťoučký kůň", "宮頸", "narrow\u202fspace", "نمی\u200cخواهم", "a\udc9bb", "👩\u200d⚕️"]
)
def test_what_people_write_stays_as_it_is(words: str) -> None:
    assert printable(words) == words


def test_exactly_the_control_characters_of_unicode_are_taken_out() -> None:
    for letter in map(chr, range(sys.maxunicode + 1)):
        category = unicodedata.category(letter)
        if category == "Cn":  # unassigned as far as this version of Python knows
            continue
        stays = category not in ("Cc", "Cf", "Zl", "Zp") or letter in "\u200c\u200d"
        assert (printable(letter) == letter) is stays, hex(ord(letter))


def test_values_of_all_depths_are_cleaned() -> None:
    found = printable_values({ALL: [ALL, 1, None, {"a": (ALL, True)}]})
    assert not raw(repr(found))
    assert printable_values([1, None, 2.5, True]) == [1, None, 2.5, True]


# --- every text field of the protocol -----------------------------------------------------------------------------

Way = tuple[FieldDescriptor, ...]


def ways(kind: Descriptor) -> Iterator[Way]:
    """Yield the fields that lead to each text of a message."""
    for field in kind.fields:
        if field.message_type is not None:
            yield from ((field, *rest) for rest in ways(field.message_type))
        elif field.type == field.TYPE_STRING:
            yield (field,)


def with_text(kind: type[Message], way: Way, text: str) -> Message:
    """Return a message with one text in it."""
    message = kind()
    at: Any = message
    for field in way[:-1]:
        at = getattr(at, field.name)
        if field.message_type.GetOptions().map_entry:
            at[text] = 1.0
            return message
        if field.is_repeated:
            at = at.add()
        else:
            at.SetInParent()
    last = way[-1]
    if last.is_repeated:
        getattr(at, last.name).append(text)
    else:
        setattr(at, last.name, text)
    return message


KINDS = {kind for method in rpc.METHODS for kind in (method.request, method.reply) if kind is not None}
FIELDS = [(kind, way) for kind in sorted(KINDS, key=lambda kind: kind.DESCRIPTOR.name) for way in ways(kind.DESCRIPTOR)]
NAMES = [".".join([kind.DESCRIPTOR.name, *(field.name for field in way)]) for kind, way in FIELDS]


def _texts(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        if field.message_type is None:
            yield from ([*value] if field.is_repeated else [str(value)])
        elif field.message_type.GetOptions().map_entry:
            yield from map(str, value)
        else:
            for inner in value if field.is_repeated else [value]:
                yield from _texts(inner)


def test_the_walk_finds_the_texts_of_every_message() -> None:
    assert {"FromSite.failure.hint", "FromSite.score.gauges.key", "AttachRequest.software_version"} <= {*NAMES}
    assert {"FromCoordinator.leave.record", "ReportReply.reason", "AttachRequest.succeeds"} <= {*NAMES}
    kinds = {GetMessageClass(kind) for kind in wire.DESCRIPTOR.message_types_by_name.values()}
    inner = {field.message_type.name for kind in kinds for field in kind.DESCRIPTOR.fields if field.message_type}
    assert {kind.DESCRIPTOR.name for kind in kinds} <= {kind.DESCRIPTOR.name for kind in KINDS} | inner


@pytest.mark.parametrize(("kind", "way"), FIELDS, ids=NAMES)
def test_every_text_of_the_protocol_is_cleaned_on_receipt(kind: type[Message], way: Way) -> None:
    sent = with_text(kind, way, ALL)
    assert "\x1b" in "".join(_texts(sent)), "the test sends what it means to"
    found = codec.received(kind)(sent.SerializeToString())
    clean = "".join(_texts(found))
    assert not raw(clean)
    assert "\n" not in clean
    assert "everything is well" in clean


def test_a_text_that_is_far_too_long_costs_a_caller_s_message_and_no_time() -> None:
    """It is cut before it is cleaned, and still refused: no correct site sends it."""
    hostile = wire.FromSite(refusal=wire.Refusal(run="run", reason="a\x1b" * 1_500_000))
    parse = codec.received(wire.FromSite, codec.REQUEST_TEXT_CHARS_MAX)
    found = parse(hostile.SerializeToString())
    assert len(found.refusal.reason) == codec.REQUEST_TEXT_CHARS_MAX + 1
    with pytest.raises(RemoteError, match="longer than 600"):
        codec.read_report(found, site="ada", at=1.0)


@pytest.mark.parametrize(
    "message",
    [
        wire.AttachRequest(succeeds=["\x1b"] * 100_000),
        wire.FromSite(score=wire.Score(gauges={f"{number}\x1b": 1.0 for number in range(100_000)})),
    ],
    ids=["a list", "a map"],
)
def test_of_far_too_many_texts_as_many_are_kept_as_are_enough_to_refuse_them(message: Message) -> None:
    found = codec.received(type(message), codec.REQUEST_TEXT_CHARS_MAX)(message.SerializeToString())
    assert len([*_texts(found)]) == codec.REQUEST_TEXT_CHARS_MAX + 1
    assert not raw("".join(_texts(found)))


def test_what_arrives_printable_arrives_unchanged() -> None:
    for report in REPORTS:
        message = codec.write_report(report, 12.5)
        assert codec.received(wire.FromSite)(message.SerializeToString()) == message


def test_both_ends_parse_with_it() -> None:
    """A channel and a server of ours read no message in another way."""
    found: dict[str, Any] = {}

    class Channel:
        def __getattr__(self, _shape: str) -> Callable[..., Any]:
            return lambda path, **named: found.update({path: named["response_deserializer"]})

    for method in rpc.METHODS:
        rpc.stub(Channel(), method)  # type: ignore[arg-type]
        if method.reply is not None:
            field = next(iter(ways(method.reply.DESCRIPTOR)), None)
            if field:
                data = with_text(method.reply, field, ALL).SerializeToString()
                assert not raw("".join(_texts(found[method.path](data))))
    for method in rpc.METHODS:
        if method.request is None or not (field := next(iter(ways(method.request.DESCRIPTOR)), None)):
            continue
        data = with_text(method.request, field, ALL).SerializeToString()
        assert not raw("".join(_texts(rpc.parse(method, data))))


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
def test_a_record_has_no_control_characters_in_its_json_either(words: str) -> None:
    record = json.dumps({"reason": words, words: [{"missing": words}]})
    assert not raw(record.replace("\x7f", "")), "they are escapes, which nothing but JSON reads"
    said = wire.FromCoordinator(leave=wire.Leave(outcome="OK", record=record))
    leave = codec.read_from_coordinator(codec.received(wire.FromCoordinator)(said.SerializeToString()))
    assert isinstance(leave, Finish)
    found = json.loads(leave.record)
    assert not any(raw(text) or "\n" in text for text in (*found, found["reason"], str(found)))


@pytest.mark.parametrize("record", ["no JSON", "[" * 100_000, '{"a": ', "1" * 5000])
def test_a_record_that_cannot_be_read_costs_the_record_and_not_the_end_of_the_run(record: str) -> None:
    said = wire.FromCoordinator(leave=wire.Leave(outcome="OK", reason="done", record=record))
    assert codec.read_from_coordinator(said) == Finish(Outcome.OK, "done", "")


def test_a_plan_has_no_text_of_the_coordinator_s_choice() -> None:
    plan = Plan(mode="csfssl", sites=("ada", "bob"), profile="paper", terms=Terms(), recipe=Recipe())
    text = plan.canonical().replace('"paper"', '"\\u001b[2J"')
    message = wire.FromCoordinator(
        welcome=wire.Welcome(wire_version=HERE.wire_max, federation="fed", run="run", plan=text)
    )
    with pytest.raises(RemoteError, match="profile"):
        codec.read_from_coordinator(message)


class Ended(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


@pytest.mark.parametrize("details", [ALL, json.dumps([ALL, ALL, ALL]), f"[{ALL}", f"Exception {ALL}"])
@pytest.mark.parametrize("code", grpc.StatusCode)
def test_the_words_of_an_error_of_the_other_side_are_cleaned(code: grpc.StatusCode, details: str) -> None:
    error = rpc.translate(Ended(code, details), "localhost:1")
    assert not any(raw(words) or "\n" in words for words in (error.what, error.cause, error.next_step))


# --- every screen -------------------------------------------------------------------------------------------------


def shown_by_say() -> None:
    say(ALL)
    say(ALL, err=True)


def shown_by_tables() -> None:
    table = Table(ALL, title=ALL)
    table.add_row(ALL)
    table.add_row(Text(ALL))
    for screen in (cli_runtime.stdout_console(), console(stderr=True)):
        screen.print(ALL)
        screen.print(Text(ALL))
        screen.print(table)


def shown_as_an_error() -> None:
    with pytest.raises(SystemExit):
        cli_runtime.fail(FedcervixError(ALL, cause=ALL, next_step=ALL))


def shown_by_the_agent() -> None:
    display = Display()
    values: dict[str, Any] = {
        "run": ALL, "plan": Plan(mode="csfssl", sites=("ada",), profile="paper", terms=Terms(), recipe=Recipe()),
        "task": ALL, "text": ALL, "reason": ALL, "lines": (ALL,), "error": FedcervixError(ALL, cause=ALL),
        "works": True, "at": WorkProgress(ALL, 1, 2, ALL), "findings": None, "deadline_s": 1.0,
        "answer": ALL, "partners": Partners((ALL,), (), (ALL,)), "command": ALL, "names": (ALL,), "hides": True,
        "line": LinePace(why_not=ALL),
    }  # fmt: skip
    kinds = [kind for kind in vars(shown).values() if isinstance(kind, type) and issubclass(kind, shown.Shown)]
    for kind in filter(dataclasses.is_dataclass, kinds):
        display.show(kind(**{field.name: values[field.name] for field in dataclasses.fields(kind)}))
    display.close()


def logged() -> None:
    log.configure()
    logger = log.logger(run=ALL)
    logger.info(ALL, why=ALL, deep=[{ALL: ALL}], error=FedcervixError(ALL), **{ALL: 1})


def logged_by_a_library() -> None:
    cli_runtime._log_printable()
    assert logging.lastResort is not None
    record = logging.LogRecord("grpc", logging.ERROR, "", 1, ALL, (), None)
    sys.stderr.write(logging.lastResort.format(record))


SCREENS = [shown_by_say, shown_by_tables, shown_as_an_error, shown_by_the_agent, logged, logged_by_a_library]


@pytest.mark.parametrize("screen", SCREENS)
def test_nothing_raw_is_printed_or_logged_also_where_nobody_cleaned_it_before(
    screen: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    screen()
    said = capsys.readouterr()
    assert not raw(said.out + said.err)
    assert "everything is well" in said.out + said.err


def test_a_terminal_gets_our_colours_and_not_theirs() -> None:
    terminal = io.StringIO()
    console(file=terminal, force_terminal=True, color_system="standard").print(Text(ALL, "red"))
    assert terminal.getvalue().replace("\x1b[31m", "").replace("\x1b[0m", "").count("\x1b") == 0
    assert "\x07" not in terminal.getvalue()


@pytest.mark.parametrize("markup", ["[red]a[/red]", "[link=https://example.org]a[/link]", ":warning:", "[/x]"])
def test_a_console_reads_no_markup_in_a_text(markup: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = Table()
    table.add_row(markup)
    console().print(markup)
    console().print(table)
    assert capsys.readouterr().out.count(markup) == 2


PRINTS = {"click.echo", "click.secho", "echo", "secho", "print", "Console", "rich.print", "sys.stdout.write",
          "sys.stderr.write", "traceback.print_exc", "traceback.print_exception"}  # fmt: skip
OWN = {"site_agent/commands/display.py": {"echo"}, "site_agent/commands/federation.py": {"echo"}}
"""the agent's `echo` is `say` for a screen that may be lost"""


def test_nothing_else_prints() -> None:
    """A program that prints past `fedcervix.runtime.printing` prints what a hostile site sends it."""
    found = [
        (name, called)
        for package in ("shared/fedcervix", "coordinator", "site_agent", "cervix_study")
        for path in sorted((ROOT / package).rglob("*.py"))
        for name in [str(path.relative_to(ROOT))]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and (called := ast.unparse(node.func)) in PRINTS - OWN.get(name, set())
    ]
    assert found == [("shared/fedcervix/runtime/printing.py", "click.echo")], test_nothing_else_prints.__doc__


# --- from one hospital to the other, and to the operator -------------------------------------------------------------

NOW = 1_893_456_000.0
SENT = [
    (report, way)
    for report in (codec.write_report(one, 1.0) for one in REPORTS)
    for way in ways(wire.FromSite.DESCRIPTOR)
    if report.WhichOneof("what") == way[0].name and len(way) > 1
]


def asked() -> Run:
    """Return a run whose sites, ada and bob, are asked to train."""
    plan = Plan(mode="csfssl", sites=("ada", "bob"), profile="paper", terms=Terms(), recipe=Recipe())
    run = begin("run", plan, base="b" * 64, at=NOW - 100)
    for site in plan.sites:
        run, _ = step(run, SiteAttached(site, NOW - 50))
    return run


@pytest.mark.parametrize(("report", "way"), SENT, ids=[".".join(field.name for field in way) for _, way in SENT])
def test_what_a_site_reports_reaches_no_screen_raw(
    report: wire.FromSite, way: Way, capsys: pytest.CaptureFixture[str]
) -> None:
    """The operator's (status, its JSON, the log), the other hospital's, and the sender's own."""
    message = wire.FromSite()
    message.CopyFrom(report)
    message.MergeFrom(with_text(wire.FromSite, way, ALL))
    run, progress = asked(), None
    log.configure()
    try:
        heard = codec.read_report(codec.received(wire.FromSite)(message.SerializeToString()), site="ada", at=NOW)
    except RemoteError as error:
        log.logger().warning("call refused", what=error.what)
        with pytest.raises(SystemExit):
            cli_runtime.fail(error)
    else:
        event = SiteRefused("ada", heard.reason, NOW) if isinstance(heard, codec.Refusal) else heard
        run = step(run, event)[0] if isinstance(event, Event) else run
        progress = heard if isinstance(heard, codec.Progress) else None
        log.logger().info("a report", report=heard)
    document = overview(run, {"ada": Line(True, None, 1.0, 40.0, progress)}, now=NOW)
    cli_runtime.stdout_console().print(render(document))
    say(to_text(document))
    display = Display()
    display.show(shown.Resting(_heard_by(run, "bob")))
    said = capsys.readouterr()
    assert not raw(said.out + said.err)
    assert not any(line.startswith("OK") for line in (said.out + said.err).splitlines())


def _heard_by(run: Run, site: str) -> str:
    """Return the words that another hospital's agent shows."""
    stand = instruction(run, site)
    message = codec.write_instruction(stand if isinstance(stand, Idle) else Idle(str(run.site("ada"))[:500]))
    found = codec.read_from_coordinator(codec.received(wire.FromCoordinator)(message.SerializeToString()))
    assert isinstance(found, Idle)
    return found.reason


def test_a_hostile_file_name_reaches_no_screen_raw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`site-agent data check` names a file like the one that is missing; `predict` names those that it cannot read."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / f"a{HOSTILE['erases the screen']}.jpg").write_bytes(b"no image")
    (tmp_path / "images" / "A\x1b[2J.PNG").write_bytes(b"no image")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("image,patient,label,split\nimages/a\x1b[2J.jpg,p1,0,train\n")
    for arguments in (["data", "check", str(manifest)], ["data", "check", str(tmp_path / ALL.replace("/", ""))]):
        with pytest.raises((SystemExit, FedcervixError)) as ended:
            site_agent(arguments, standalone_mode=False)
        if isinstance(ended.value, FedcervixError):
            with pytest.raises(SystemExit):
                cli_runtime.fail(ended.value)
    said = capsys.readouterr()
    assert not raw(said.out + said.err)
    assert said.err
