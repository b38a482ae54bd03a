"""Nothing in protos/federation.proto breaks an end of a release: what a release says there still stands there.

tests/archive has the file of each release. `make lint` lets buf compare them, too; this test needs no further program.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet

from fedcervix.transport.codec import SINCE

pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")

ROOT = Path(__file__).parents[2]
TODAY = ROOT / "protos" / "federation.proto"
RELEASES = sorted((ROOT / "tests" / "archive").glob("*/federation.proto"))


def compiled(proto: Path, folder: Path) -> FileDescriptorProto:
    """Return a file as protoc reads it."""
    to = folder / "set"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto.parent}", f"--descriptor_set_out={to}", str(proto)]
    subprocess.run(command, check=True, timeout=60)
    return FileDescriptorSet.FromString(to.read_bytes()).file[0]


def said(file: FileDescriptorProto) -> set[str]:
    """Return a line for each thing that the other end relies on: fields, values, methods."""
    methods = {
        f"{service.name}.{rpc.name}: {rpc.input_type} > {rpc.output_type} {rpc.client_streaming} {rpc.server_streaming}"
        for service in file.service
        for rpc in service.method
    }
    values = {line for enum in file.enum_type for line in _values(enum, "")}
    return methods | values | {line for message in file.message_type for line in _fields(message, "")}


def _fields(message: DescriptorProto, within: str) -> Iterator[str]:
    name = f"{within}{message.name}"
    for field in message.field:
        one_of = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
        kind = f"type {field.type}{field.type_name}, label {field.label}"
        yield f"{name}.{field.name} = {field.number}: {kind}{f', one of {one_of}' if one_of else ''}"
    for inner in message.nested_type:
        yield from _fields(inner, f"{name}.")
    for enum in message.enum_type:
        yield from _values(enum, f"{name}.")


def _values(enum: EnumDescriptorProto, within: str) -> Iterator[str]:
    return (f"{within}{enum.name}.{value.name} = {value.number}" for value in enum.value)


@pytest.mark.parametrize("release", RELEASES, ids=lambda proto: str(proto.parent.name))
def test_what_a_release_says_still_stands_there(release: Path, tmp_path: Path) -> None:
    broken = said(compiled(release, tmp_path)) - said(compiled(TODAY, tmp_path))
    assert not broken, "a release relies on this: leave it as it is, and add a new field"


def kinds(file: FileDescriptorProto) -> set[str]:
    """Return the kinds of messages and the values of enumerations between a site and its coordinator."""
    lines = {line.partition(" = ")[::2] for line in said(file) if " = " in line}
    return {name for name, rest in lines if (", one of " in rest or ":" not in rest) and OPERATOR not in name}


OPERATOR = "CommandRequest."


@pytest.mark.parametrize("release", RELEASES, ids=lambda proto: str(proto.parent.name))
def test_a_kind_that_a_release_lacks_has_a_row_which_says_since_when_it_is_there(release: Path, tmp_path: Path) -> None:
    then, now = kinds(compiled(release, tmp_path)), kinds(compiled(TODAY, tmp_path))
    assert {"FromSite.ready", "Task.Kind.KIND_SEED"} <= then
    assert now - then <= set(SINCE) <= now, "add a row to fedcervix.transport.codec.SINCE"


def test_there_is_a_release_to_compare_with() -> None:
    assert RELEASES


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  bool look = 5;", "  // bool look = 5;"),
        ("  bool look = 5;", "  reserved 5;"),
        ("  bool look = 5;", "  bool look = 15;"),
        ("  bool look = 5;", "  bool looks = 5;"),
        ("  string instance = 3;", "  bytes instance = 3;"),
        ("  repeated string succeeds = 4;", "  string succeeds = 4;"),
        ("KIND_ADOPT = 4;", "KIND_ADOPT = 15;"),
        ("returns (stream FromCoordinator)", "returns (FromCoordinator)"),
        ("    string abort = 2;", "  } string abort = 2; oneof other {"),
    ],
)
def test_a_change_that_breaks_a_release_is_found(old: str, new: str, tmp_path: Path) -> None:
    changed = tmp_path / "federation.proto"
    changed.write_text(TODAY.read_text().replace(old, new))
    assert said(compiled(TODAY, tmp_path)) - said(compiled(changed, tmp_path))


def test_a_change_that_adds_breaks_nothing(tmp_path: Path) -> None:
    changed = tmp_path / "federation.proto"
    changed.write_text(TODAY.read_text().replace("  bool look = 5;", "  bool look = 5;\n  string more = 1000;"))
    assert not said(compiled(TODAY, tmp_path)) - said(compiled(changed, tmp_path))
