"""What ships for Prometheus and Grafana fits the code: alert rules, dashboards, the page about them, the runbook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.monitoring import names
from coordinator.monitoring.measuring import measured
from fedcervix.monitoring.declared import PREFIX, Declared
from fedcervix.monitoring.exposition import text
from site_agent.monitoring import names as site_names
from tests.unit.test_coordinator_metrics import FACTS, document

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "monitoring"
RULES, RULES_TESTS = FOLDER / "alerts.yml", FOLDER / "alerts.test.yml"
DASHBOARDS = sorted(FOLDER.glob("*.dashboard.json"))
PAGE = (ROOT / "docs" / "monitoring.md").read_text()
RUNBOOK = (ROOT / "deploy" / "RUNBOOK.md").read_text()
DECLARED: dict[str, Declared] = {one.full_name: one for one in (*names.NAMES, *site_names.NAMES)}
ALWAYS = {"federation", "site", "instance", "job", "alertname", "alertstate"}
"""labels that metrics have besides those that they declare"""

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool (apt-get install prometheus; the server is not started)"
)


def alerts() -> dict[str, str]:
    """Return the text of each alert."""
    parts = re.split(r"(?m)^      - alert: (\w+)\n", RULES.read_text())[1:]
    return {name: words.partition("\n  - name:")[0] for name, words in zip(parts[::2], parts[1::2], strict=True)}


def expression(words: str) -> str:
    """Return the expression of an alert's text."""
    found = re.search(r"(?ms)^        expr: (?:>-\n)?(.*?)\n        (?:for|labels):", words)
    assert found is not None
    return " ".join(found[1].split())


def expressions_of(dashboard: object) -> Iterator[str]:
    """Yield what a dashboard asks Prometheus."""
    if isinstance(dashboard, dict):
        if isinstance(one := dashboard.get("expr"), str):
            yield one
        for below in dashboard.values():
            yield from expressions_of(below)
    elif isinstance(dashboard, list):
        for below in dashboard:
            yield from expressions_of(below)


def check_names(expr: str) -> None:
    """Every metric exists, and has the labels that are asked for; `ALERTS` is Prometheus's own."""
    found = re.findall(rf"\b({PREFIX}\w+)\b(?:\{{([^}}]*)\}})?", expr)
    assert found or "ALERTS" in expr
    for metric, labels in found:
        assert metric in DECLARED, f"{metric} is no metric"
        asked = set(re.findall(r"(\w+)\s*[=!]", labels))
        assert asked <= {*DECLARED[metric].labels, *ALWAYS}, f"{metric} has no label {asked}"


def run(*words: str | Path) -> str:
    done = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_there_is_something_to_check() -> None:
    assert len(alerts()) >= 16
    assert len(DASHBOARDS) >= 1


@pytest.mark.parametrize("name", alerts())
def test_an_alert_asks_for_metrics_that_exist(name: str) -> None:
    words = alerts()[name]
    check_names(expression(words))
    for label in re.findall(r"\$labels\.(\w+)", words):
        known = {one for metric in re.findall(rf"{PREFIX}\w+", words) for one in DECLARED[metric].labels}
        assert label in known | ALWAYS
    assert re.search(r"severity: (warning|critical)}", words)


@pytest.mark.parametrize("name", alerts())
def test_an_alert_is_tested_firing_and_quiet_and_is_in_page_and_runbook(name: str) -> None:
    tests = re.findall(rf"(?s)- name: {name} .*?exp_samples: (\[.*?\])\n", RULES_TESTS.read_text())
    assert [one for one in tests if one != "[]"], "no test in which it fires"
    assert "[]" in tests, "no test in which it is quiet"
    severity = re.search(r"severity: (\w+)}", alerts()[name])
    assert severity is not None
    assert f"| `{name}` | {severity[1]} |" in PAGE
    section = RUNBOOK.partition("## 16. When an alert fires")[2]
    assert re.search(rf"(?m)^\|.*\*\*{name}\*\*.*\| .{{40,}} \|$", section)


def test_page_and_runbook_name_no_other_alert() -> None:
    for words in (PAGE, RUNBOOK, RULES_TESTS.read_text()):
        assert set(re.findall(r"\bFedcervix[A-Z]\w+", words)) == alerts().keys()


@promtool
def test_promtool_takes_the_rules() -> None:
    assert f"{len(alerts())} rules found" in run("check", "rules", RULES)


@promtool
def test_each_alert_fires_when_it_should_and_is_quiet_when_it_should() -> None:
    run("test", "rules", RULES_TESTS)


@promtool
def test_a_rule_that_never_fires_would_be_noticed(tmp_path: Path) -> None:
    broken, (head, *tests) = RULES.read_text(), re.split(r"(?m)^(?=  - name: )", RULES_TESTS.read_text())
    assert broken.count('state="silent"} == 1') == 1
    (tmp_path / RULES.name).write_text(broken.replace('state="silent"} == 1', 'state="silent"} == 2'))
    (tmp_path / RULES_TESTS.name).write_text(head + "".join(one for one in tests if "FedcervixSiteSilent" in one))
    done = subprocess.run(
        ["promtool", "test", "rules", tmp_path / RULES_TESTS.name], capture_output=True, text=True, timeout=100
    )
    assert done.returncode != 0
    assert "FAILED" in done.stderr
    assert "got: nil" in done.stderr


@promtool
def test_promtool_finds_nothing_to_complain_of_in_the_metrics() -> None:
    content = text(measured(document(), FACTS), {"federation": "cervix"})
    done = subprocess.run(["promtool", "check", "metrics"], input=content, capture_output=True, timeout=100)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.name)
def test_a_dashboard_asks_for_metrics_that_exist(file: Path) -> None:
    board = json.loads(file.read_text())
    found = list(expressions_of(board))
    assert len(found) > 10
    for expr in found:
        check_names(expr)
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["targets"], panel["title"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.name)
def test_the_panels_of_a_dashboard_do_not_overlap(file: Path) -> None:
    cells: dict[tuple[int, int], str] = {}
    for panel in json.loads(file.read_text())["panels"]:
        x, y, w, h = (panel["gridPos"][side] for side in "xywh")
        assert x + w <= 24
        for cell in ((column, row) for column in range(x, x + w) for row in range(y, y + h)):
            assert cells.setdefault(cell, panel["title"]) == panel["title"]


@promtool
@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.name)
def test_each_expression_of_a_dashboard_parses(file: Path, tmp_path: Path) -> None:
    """As recording rules, with Grafana's variables filled in."""
    filled = [
        one.replace("$federation", "cervix").replace("$site", "nhs").replace("$__rate_interval", "5m")
        for one in expressions_of(json.loads(file.read_text()))
    ]
    assert not [one for one in filled if "$" in one]
    rules = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(filled)]
    whole = {"groups": [{"name": "panels", "rules": rules}]}
    (tmp_path / "panels.yml").write_text(json.dumps(whole, allow_nan=False))  # JSON is YAML, too
    assert f"{len(rules)} rules found" in run("check", "rules", tmp_path / "panels.yml")


def rows(heading: str) -> list[tuple[str, ...]]:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [tuple(row) for row in re.findall(r"(?m)^\| `(\w+)` \| (.*?) ?\| (.+) \|$", section)]


@pytest.mark.parametrize(("role", "declared"), [("coordinator", names.NAMES), ("site", site_names.NAMES)])
def test_the_page_lists_the_metrics_as_the_code_declares_them(role: str, declared: tuple[Declared, ...]) -> None:
    assert rows(f"The metrics of a {role}") == [
        (one.full_name, ", ".join(f"`{label}`" for label in one.labels), one.help) for one in declared
    ]
