"""What is written as JSON can be read as JSON: no NaN and no Infinity, which Python writes unless it is told not to."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.run import results
from coordinator.run.status import ledger_line, overview
from fedcervix.core.events import event_from_json
from fedcervix.core.rounds.state import Run
from fedcervix.core.rounds.step import step
from fedcervix.runtime.typed_json import to_text
from tests.unit.test_rounds import A, B, C, after, as_before, attached, fresh, scored, trained

ROOT = Path(__file__).parents[2]
WRITERS = {"json.dumps", "json.dump"}
BETWEEN_OUR_PROCESSES = {
    "shared/fedcervix/runtime/worker_protocol.py": 2,  # a loss that is no number ends the training, and is told as such
    "shared/fedcervix/runtime/typed_json.py": 1,  # read again at once
    "site_agent/store/checksummed_records.py": 1,  # only hashed, also where an older version has written the record
}


def loose() -> Iterator[str]:
    """Yield the file of each call that would write NaN."""
    for package in ("shared/fedcervix", "coordinator", "site_agent", "cervix_study"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in WRITERS:
                    strict = {key.arg: ast.unparse(key.value) for key in node.keywords}.get("allow_nan") == "False"
                    if not strict:
                        yield str(path.relative_to(ROOT))


def test_every_writer_of_json_refuses_what_is_no_number() -> None:
    found = list(loose())
    assert {path: found.count(path) for path in found} == BETWEEN_OUR_PROCESSES


def of_an_old_journal(loss: float) -> Run:
    """Return a run whose sites reported losses that are refused today."""
    run = after(fresh(), *attached(A, B, C))
    for site in (A, B, C):
        run = after(run, as_before(replace(trained(run, site), loss=loss)))
    run, _ = step(run, event_from_json(f'{{"event":"AggregateStored","round":1,"digest":"{"a" * 64}","at":1.0}}'))
    for site in (A, B, C):
        run = after(run, as_before(replace(scored(run, site), loss_sum=loss, count=1)))
    return run


@pytest.mark.parametrize("loss", [-1e308, 1e308, 1.7e308])
def test_an_old_journal_with_losses_without_bound_gives_a_record_that_is_json(loss: float) -> None:
    run = of_an_old_journal(loss)
    text = to_text(results.record(run))
    to_text(overview(run, {}, now=1.0))
    line = ledger_line(run, run.rounds[0])
    assert line.loss == (1e9 if loss > 0 else -1e9), "shown within what is accepted today"
    assert json.loads(text)["ledger"][0]["loss"] == line.loss


def test_an_old_record_with_infinity_is_read(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    rest = '"contributions": [], "missing": []'
    lines = ", ".join(
        f'{{"round": {n}, "loss": {loss}, {rest}}}' for n, loss in enumerate(("-Infinity", "NaN", 1.5), 1)
    )
    record = f'{{"ledger": [{lines}], "best_round": 3, "outcome": "OK", "reason": ""}}'
    (tmp_path / "run" / results.RECORD_FILE).write_text(record)
    assert [line.loss for line in results.read(tmp_path, "run").ledger] == [None, None, 1.5]
