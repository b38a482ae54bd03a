"""A file that a version reads exactly: another key, type or default is another format (docs/formats.md)."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cervix_study.records import Cell, CellRecord, Costs, Selection, Study, StudyData
from coordinator.backup.archive import Label
from fedcervix.core.plan import Recipe, Terms
from fedcervix.transport.invitations import Invitation
from site_agent.classifier.sweep import GridPoint
from site_agent.federation.account import Spent
from site_agent.store.leak_guard import Seen
from site_agent.store.provenance import Provenance
from site_agent.store.run_secrets import RunSecrets
from site_agent.store.sum_journal import JournalLine
from tests.unit.goldens import check_written_down, default_of, with_values
from tests.unit.test_formats_page import ROWS

FILES: dict[str, type] = {
    "*.backup.tar": Label,
    "*.invitation.toml": Invitation,
    "women.json": Seen,
    "models/NAME/record.json": Provenance,
    "sweeps/NAME/cells.json": GridPoint,
    "account.json": Spent,
    "sums.jsonl": JournalLine,
    "secrets/RUN.json": RunSecrets,
    "study.json": Study,
    "data.json": StudyData,
    "selection.json": Selection,
    "cells/KEY/cell.json": CellRecord,
    "workshop/plan/*.json": Cell,
    "workshop/scratch/KEY/spent.json": Costs,
}
"""file -> what is read exactly in it"""
ELSEWHERE = {
    *("journal.db", "runs/RUN/plan.json", "runs/RUN/journal.json", "runs/RUN/carried.json", "untold/*.json"),
    *("runs/RUN/ledger.jsonl", "runs/RUN/ledger-signatures.jsonl", "runs/RUN/said.jsonl", "egress.jsonl"),
    *("decisions/*.json", "decisions/*.p7s"),
}
"""what is read exactly in them are plans and events: tests/unit/test_plan_formats.py, test_event_formats.py; or entries
of a ledger, which are signed as they stand: tests/unit/test_run_ledger.py, test_egress.py, test_model_decisions.py"""
ALIKE = {
    "classifiers/NAME/record.json": "models/NAME/record.json",
    "reports/NAME/results.json": "models/NAME/record.json",
}
EXACT = {file: int(number or 1) for files, number, _, rule in ROWS if "exact" in rule for file in files}


def said(kind: type) -> dict[str, dict[str, Any]]:
    """Return the fields of a value, and of those in it, each with its type and what holds without it.

    Recipes and terms of a plan have formats of their own.
    """
    return {
        one.__name__: {field.name: [str(field.type), default_of(field)] for field in dataclasses.fields(one)}
        for one in with_values(kind, leave_out=(Recipe, Terms))
    }


def test_every_file_that_is_read_exactly_is_written_down() -> None:
    assert EXACT.keys() - ELSEWHERE - ALIKE.keys() == FILES.keys()


@pytest.mark.parametrize("file", FILES)
def test_another_key_of_it_is_another_format(file: str, pytestconfig: pytest.Config) -> None:
    name = file.replace("*", "any").replace("/", "-")
    check_written_down(f"exact/{name}", EXACT[file], said(FILES[file]), pytestconfig)
