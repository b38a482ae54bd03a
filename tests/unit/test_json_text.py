"""What is no JSON that can be read is a ValueError, whatever the standard library makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcervix.core.events import event_from_json
from fedcervix.core.plan import Plan
from fedcervix.core.rounds.instructions import Finish
from fedcervix.errors import ConfigError, DataError, ModelError, RemoteError, StorageError
from fedcervix.json_text import DEPTH_MAX, parsed, shallow
from fedcervix.runtime.config import read_toml
from fedcervix.transport import codec
from fedcervix.wire import federation_pb2 as wire
from site_agent.classifier.sweep import read_cells
from site_agent.federation import asked
from site_agent.report import results
from site_agent.site_toml import with_values
from site_agent.store import checksummed_records

DEEP = "[" * 100_000


@pytest.mark.parametrize("text", ["", "{", DEEP, '{"a":' * 100_000, b"\xff", "1" * 5000, "NaN,"])
def test_what_cannot_be_read_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parsed(text)


def test_a_value_is_read_and_hooks_are_used() -> None:
    assert parsed('{"a": [1, NaN]}', parse_constant=lambda _: None) == {"a": [1, None]}
    assert parsed(b'{"a": 1, "a": 2}', object_pairs_hook=list) == [("a", 1), ("a", 2)]


def nested(deep: int) -> str:
    return "[" * deep + "]" * deep


@pytest.mark.parametrize("deep", [DEPTH_MAX + 1, 900, 980, 990])
def test_a_value_is_less_deep_than_anything_that_is_done_with_it(deep: int) -> None:
    """A value as deep as the parser goes is too deep for whoever quotes it, or writes it again."""
    with pytest.raises(ValueError, match="nested too deeply"):
        parsed(nested(deep))
    with pytest.raises(ValueError, match="nested too deeply"):
        parsed('{"sites":' * deep + "1" + "}" * deep)
    assert parsed(nested(DEPTH_MAX)) == shallow(parsed(nested(DEPTH_MAX)))


def every_depth() -> list[str]:
    return [nested(deep) for deep in (*range(940, 1000), 60_000)] + ["[" * 60_000]


def test_a_plan_of_any_depth_is_an_invalid_message_to_a_site_and_a_bad_entry_to_a_coordinator() -> None:
    """One of 991 brackets was a RecursionError, and ended either side with an incident."""
    run = "20260101-000000-csfssl-00000000"
    for text in every_depth():
        with pytest.raises(ValueError):
            Plan.parse(text)
        with pytest.raises(ValueError):
            Plan.parse(f'{{"mode":{text},"profile":"paper","recipe":{text},"sites":{text},"terms":{text}}}')
        with pytest.raises(ValueError):
            event_from_json(f'{{"at":{text},"event":"SiteAttached","site":"ada"}}')
        with pytest.raises(RemoteError, match="invalid message"):
            codec.read_from_coordinator(wire.FromCoordinator(welcome=wire.Welcome(federation="f", run=run, plan=text)))
        leave = codec.read_from_coordinator(wire.FromCoordinator(leave=wire.Leave(outcome="OK", record=text)))
        assert isinstance(leave, Finish)
        assert leave.record == ""


def test_a_configuration_that_is_nested_too_deeply_is_said_to_be_wrong(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    for deep in (900, 5000):
        file.write_text(f"[data]\nignore_columns = {nested(deep)}\n")
        with pytest.raises(ConfigError, match="not valid TOML"):
            read_toml(file)
        with pytest.raises(ConfigError, match="cannot be changed by this command"):
            with_values(file.read_text(), {("data", "manifest"): "there"}, source=file)


def test_a_file_that_is_nested_too_deeply_is_a_damaged_file(tmp_path: Path) -> None:
    """Not a bug with an incident, as a RecursionError is."""
    file = tmp_path / "record.json"
    file.write_text(DEEP)
    with pytest.raises(ModelError):
        checksummed_records.read_record(file, what="model", next_step="look")
    with pytest.raises(StorageError):
        read_cells(file)
    with pytest.raises(DataError):
        results.parse(DEEP)
    assert asked._line(DEEP.encode()) is None
