"""How long a study will take, and what is said of it meanwhile."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cervix_study.execution.estimate import FEDERATION_S, duration, kind_of, paces, seconds_left, size
from cervix_study.execution.progress_display import Screen, outcome
from cervix_study.execution.tasks import make
from cervix_study.planning.grid import grid
from cervix_study.records import Cell
from fedcervix.runtime.worker_protocol import WorkProgress
from tests.unit.study_cases import asked, ground, judged


@pytest.fixture
def cells(tmp_path: Path) -> dict[tuple[str, str], Cell]:
    axes = 'starts = ["random", "ssl", "cssl", "csfssl"]\nepochs_per_round = [2]'
    found = grid(asked(tmp_path, axes), ground())
    return {(cell.kind, cell.start): cell for cell in found}


def test_a_cell_is_as_large_as_the_images_that_pass(cells: dict[tuple[str, str], Cell]) -> None:
    """Four epochs, two views of 40 training images and a third of 10 validation images, at one site and at two."""
    own, pooled, federated = (size(cells["encoder", start], ground()) for start in ("ssl", "cssl", "csfssl"))
    assert own == pytest.approx(4 * 2 * (40 + 10 / 3))
    assert pooled == pytest.approx(2 * own)
    assert federated == pytest.approx(2 * 4 * 2 * (40 + 10 / 3 / 2))  # scored after every second epoch
    assert size(cells["classifier", "ssl"], ground()) == pytest.approx(50 * (20 + 8 / 3))


def test_a_share_of_the_labels_is_a_smaller_cell(cells: dict[tuple[str, str], Cell]) -> None:
    whole = cells["classifier", "ssl"]
    share = dataclasses.replace(whole, label_fraction=0.1)
    assert size(share, ground()) == pytest.approx(50 * (2 + 8 / 3))


def test_what_is_finished_gives_the_pace(cells: dict[tuple[str, str], Cell]) -> None:
    cell = cells["classifier", "ssl"]
    known = paces([judged(cell, 0.5), judged(cells["classifier", "cssl"], 0.5)], ground(), workers=1)
    assert known == {kind_of(cell): pytest.approx(2.0 / size(cell, ground()))}
    assert seconds_left([cell, cell], known, ground(), workers=1) == pytest.approx(4.0)
    assert seconds_left([cell, cell], known, ground(), workers=2) == pytest.approx(2.0)


def test_nothing_is_promised_of_what_nobody_has_timed(cells: dict[tuple[str, str], Cell]) -> None:
    assert seconds_left([cells["encoder", "ssl"]], {}, ground(), workers=1) is None


def test_a_federation_costs_what_its_processes_take_to_start(cells: dict[tuple[str, str], Cell]) -> None:
    cell = cells["encoder", "csfssl"]
    assert make(cell).processes == 2
    assert seconds_left([cell], {kind_of(cell): 0.0}, ground(), workers=2) == pytest.approx(FEDERATION_S)


@pytest.mark.parametrize(("seconds", "said"), [(3.4, "3 s"), (61, "61 s"), (600, "10 min"), (7290, "2 h 2 min")])
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_log_file_gets_a_line_for_every_cell(
    cells: dict[tuple[str, str], Cell], capsys: pytest.CaptureFixture[str]
) -> None:
    task, record = make(cells["classifier", "ssl"]), judged(cells["classifier", "ssl"], 0.5)
    now = [0.0]
    screen = Screen(clock=lambda: now[0])
    screen.stand(3, 9, 600.0)
    for second in range(90):
        now[0] = float(second)
        screen.progress(task, WorkProgress("epoch 1", second, 100, "steps"))
    screen.made(task, record)
    screen.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2  # one in the first minute, and the end
    assert "[3/9], at most 10 min left classifier SSL" in lines[0]
    assert outcome(record) in lines[1]
