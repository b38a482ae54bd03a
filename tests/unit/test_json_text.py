"""What is no JSON that can be read is a ValueError, whatever the standard library makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedcervix.errors import DataError, ModelError, StorageError
from fedcervix.json_text import parsed
from site_agent.classifier.sweep import read_cells
from site_agent.federation import asked
from site_agent.report import results
from site_agent.store import checksummed_records

DEEP = "[" * 100_000


@pytest.mark.parametrize("text", ["", "{", DEEP, '{"a":' * 100_000, b"\xff", "1" * 5000, "NaN,"])
def test_what_cannot_be_read_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):
        parsed(text)


def test_a_value_is_read_and_hooks_are_used() -> None:
    assert parsed('{"a": [1, NaN]}', parse_constant=lambda _: None) == {"a": [1, None]}
    assert parsed(b'{"a": 1, "a": 2}', object_pairs_hook=list) == [("a", 1), ("a", 2)]


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
