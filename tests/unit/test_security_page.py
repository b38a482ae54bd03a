"""docs/security.md against the protocol: all that leaves and reaches a hospital stands there, and nothing else does."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor

from coordinator.run.results import record
from fedcervix.runtime.typed_json import to_text
from fedcervix.transport import rpc
from fedcervix.wire import federation_pb2 as wire
from tests.unit.plain_server import handlers
from tests.unit.test_changes import events_of, plan, run_of
from tests.unit.test_privacy import OUTWARD_KEYS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
OPERATORS = (rpc.OVERVIEW, rpc.WATCH, rpc.COMMAND)
SITES = tuple(method for method in rpc.METHODS if method not in OPERATORS)
NAME = re.compile(r"`([\w-]+)`")
EMPTY = {"Here", "Stopped"}
"""messages without a field: they are named in the row of the field that holds them"""


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(heading: str, first: str) -> Iterator[list[str]]:
    """Yield the cells of the table of a section whose first column has this head."""
    table = section(heading).partition(f"\n| {first} |")[2].partition("\n\n")[0]
    assert table, f"no table of {first} in {heading}"
    for row in table.splitlines()[2:]:
        yield [cell.strip() for cell in row.strip("|").split("|")]


def told(heading: str) -> set[str]:
    """Return `Message.field` for all that the table of messages names."""
    found, message = set(), ""
    for cells in rows(heading, "message"):
        message = (NAME.findall(cells[0]) or [message])[0]
        found |= {f"{message}.{field}" for field in NAME.findall(cells[1])}
    return found


def fields(kind: Descriptor) -> set[str]:
    """Return `Message.field` for a message and all within it; a map is a field."""
    found = {f"{kind.name}.{field.name}" for field in kind.fields}
    inner = [field.message_type for field in kind.fields if field.message_type]
    return found.union(*(fields(one) for one in inner if not one.GetOptions().map_entry))


def sent(methods: tuple[rpc.Method, ...], part: str) -> set[str]:
    """Return `Message.field` of all requests, or replies, of some methods."""
    kinds = (getattr(method, part) for method in methods)
    return set().union(*(fields(kind.DESCRIPTOR) for kind in kinds if kind is not None))


def test_all_that_leaves_a_hospital_is_on_the_page() -> None:
    assert told("What leaves a hospital") == sent(SITES, "request")


def test_all_that_reaches_a_hospital_is_on_the_page() -> None:
    assert told("What reaches a hospital") == sent(SITES, "reply")


def test_what_the_operator_and_the_coordinator_say_is_on_the_page() -> None:
    words = section("What reaches a hospital").rpartition("`OverviewRequest`")[2]
    named = set(NAME.findall("`OverviewRequest`" + words))
    there = sent(OPERATORS, "request") | sent(OPERATORS, "reply")
    assert named == {name for one in there for name in one.split(".")}


def test_every_message_of_the_protocol_is_looked_at() -> None:
    named = {name.partition(".")[0] for part in ("request", "reply") for name in sent(rpc.METHODS, part)}
    assert set(wire.DESCRIPTOR.message_types_by_name) == named | EMPTY
    assert all(f"`{name}`" in section("What leaves a hospital") for name in EMPTY)


# --- headers ------------------------------------------------------------------------------------------------------

OWN_HEADERS = {value for name, value in vars(rpc).items() if name.endswith("_KEY")} - {rpc.VERSIONS_KEY}
"""of a call; the one left out comes with the answer"""


@pytest.fixture
def heard() -> Iterator[tuple[grpc.Channel, list[str]]]:
    """Yield a channel with our options, and the names of the headers that a server at its other end is sent."""
    names: list[str] = []

    def answer(_request: Any, context: grpc.ServicerContext) -> Any:
        names.extend(key for key, _ in context.invocation_metadata())
        return wire.ReportReply()

    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers(handlers({rpc.REPORT: answer}))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=rpc.CLIENT_OPTIONS) as channel:
            yield channel, names
        server.stop(0).wait()


def test_all_headers_of_a_call_are_on_the_page(heard: tuple[grpc.Channel, list[str]]) -> None:
    channel, names = heard
    ours = tuple((key, "1") for key in OWN_HEADERS)
    rpc.stub(channel, rpc.REPORT)(wire.FromSite(), timeout=20, metadata=ours, wait_for_ready=True)
    listed = {name for cells in rows("What leaves a hospital", "header") for name in NAME.findall(cells[0])}
    assert listed == set(names)


# --- the record, and the numbers ----------------------------------------------------------------------------------


def keys(value: Any, within: str = "") -> Iterator[str]:
    """Yield every key of a record but those of the plan, which docs/configuration.md explains."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield key
            yield from keys(one, key) if key not in ("plan", "gauges") else ()
    elif isinstance(value, list):
        for one in value:
            yield from keys(one, within)


ALARM = ("what", "words")
"""keys of an alarm, beside its site: the record of this test has none"""


def test_all_keys_of_the_record_are_on_the_page() -> None:
    wanted = plan(2, 2)
    done = json.loads(to_text(record(run_of(wanted, events_of(wanted, 1, sites_in_last=1)))))
    assert done["ledger"][0]["contributions"]
    assert done["ledger"][0]["scores"]
    listed = {name for cells in rows("What reaches a hospital", "key of the record") for name in NAME.findall(cells[0])}
    assert listed == {*keys(done), *ALARM}


def test_the_numbers_that_may_leave_are_on_the_page() -> None:
    allowed = section("What leaves a hospital").partition("One exit with a list")[2].partition("\n- ")[0]
    gauges = {name for cells in rows("What leaves a hospital", "message") for name in NAME.findall(cells[2])}
    assert {*NAME.findall(allowed), *gauges} >= OUTWARD_KEYS


# --- what is said to hold -----------------------------------------------------------------------------------------

TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_test_that_the_page_names_is_there() -> None:
    named = TEST.findall(PAGE)
    assert len(named) > 20
    for file, name in named:
        assert name in {node.name for node in ast.parse((ROOT / file).read_text()).body if hasattr(node, "name")}, name


def test_every_claim_in_a_table_of_attackers_names_its_test() -> None:
    for table in section("Attackers").split("\n| tries to |")[1:]:
        for row in table.partition("\n\n")[0].splitlines()[2:]:
            assert TEST.search(row), row


@pytest.mark.parametrize("words", ["women.json", "It cannot be proved that a site has trained", ".53 to .83"])
def test_what_must_not_be_forgotten_is_said(words: str) -> None:
    assert words in PAGE


def test_nothing_is_said_that_is_no_longer_so() -> None:
    assert "can fetch any model" not in PAGE.lower()
