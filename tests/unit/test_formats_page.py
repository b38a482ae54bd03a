"""docs/formats.md lists every file that the programs keep, with its format and its rule."""

from __future__ import annotations

import ast
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from coordinator.backup import archive
from coordinator.home import registry
from fedcervix.core import events, plan_formats
from fedcervix.disk import journal
from site_agent.data import cache_files
from site_agent.report import results
from site_agent.store import leak_guard

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "formats.md").read_text()
PACKAGES = ("shared/fedcervix", "coordinator", "site_agent", "cervix_study")
ROW = re.compile(r"^\| (`.+?`) \| ?(\d*) \| \[`(\S+)`\]\(\S+\) \| (.+) \|$", re.MULTILINE)
RULES = {"upgrade", "read", "exact", "rebuild", "typed", "standard", "process", "written", "backups"}
KINDS = "json jsonl db toml csv txt key crt safetensors html lock sock looks index squares log md onnx tar part jpg"
NAME = re.compile(rf"[\w.*-]*\.(?:{'|'.join(KINDS.split())})")
ELSEWHERE = {
    "direct_url.json": "of the installed package",
    "pyproject.toml": "of the source",
    "site_template.toml": "of the package",
    "configuration.md": "of the documents",
    "study.md": "of the documents",
}
"""names in the code that are none of a kept file"""

ROWS = [(re.findall(r"`([^`]+)`", files), number, module, rule) for files, number, module, rule in ROW.findall(PAGE)]
LISTED = {file.rpartition("/")[2] for files, *_ in ROWS for file in files}


def named() -> dict[str, str]:
    """Return the names of files in the code (a part that is filled in is a *), and where one stands."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                parts = node.values if isinstance(node, ast.JoinedStr) else [node]
                texts = [part.value if isinstance(part, ast.Constant) else "*" for part in parts]
                name = "".join(map(str, texts)).rpartition("/")[2]
                if NAME.fullmatch(name) and isinstance(node, ast.Constant | ast.JoinedStr):
                    found[f"*{name}" if name.startswith(".") else name] = str(path.relative_to(ROOT))
    return found


def test_the_page_is_read() -> None:
    assert len(ROWS) > 40
    assert PAGE.count("](../") >= len(ROWS)


@pytest.mark.parametrize(("name", "where"), sorted(named().items()))
def test_a_file_that_the_code_names_is_a_row(name: str, where: str) -> None:
    listed = any(fnmatch(name, file) or fnmatch(file, name) for file in LISTED)
    assert listed or name in ELSEWHERE, f"{where} names {name}: give it a row in docs/formats.md"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][0])
def test_a_row_names_a_rule_and_a_number_where_the_rule_needs_one(row: tuple[list[str], str, str, str]) -> None:
    _files, number, module, rule = row
    assert (ROOT / module).is_file()
    word = re.split(r"[ ;]", rule)[0]
    assert word in RULES
    if word in ("upgrade", "read", "rebuild") and not module.endswith("checkpoints.py"):
        assert number


NUMBERS = {
    "journal.db": journal.SCHEMA.format,
    "registry.db": registry.SCHEMA.format,
    "runs/RUN/plan.json": plan_formats.FORMAT,
    "untold/*.json": events.FORMAT,
    "women.json": int(leak_guard.FORMAT.split()[-1]),
    "reports/NAME/results.json": int(results.FORMAT.split()[-1]),
    "cache/precision.json": int(cache_files.VERSION.split()[0]),
    "*.backup.tar": archive.FORMAT,
}


@pytest.mark.parametrize("file", NUMBERS)
def test_a_row_has_the_number_of_the_code(file: str) -> None:
    assert [number for files, number, *_ in ROWS if file in files] == [str(NUMBERS[file])]
