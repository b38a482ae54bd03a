"""Validation chooses, and which test parts are opened then."""

from __future__ import annotations

from pathlib import Path

import pytest

from cervix_study.planning.grid import followers, grid
from cervix_study.planning.selection import choose, competes, to_open
from cervix_study.records import Cell, CellRecord, Choice
from cervix_study.settings import StudyConfig
from tests.unit.study_cases import asked, ground, judged

AXES = 'starts = ["random", "ssl", "cssl"]\nbatch_images = [8, 16]\nseeds = [0, 1]\n'


def study(tmp_path: Path, more: str = "") -> tuple[StudyConfig, dict[str, Cell]]:
    found = asked(tmp_path, AXES, more)
    return found, {cell.key: cell for cell in grid(found, ground())}


def losses(cells: dict[str, Cell], loss: dict[int | None, list[float]]) -> dict[str, CellRecord]:
    """Return records of all classifiers, with a loss by N and seed."""
    found = {key: cell for key, cell in cells.items() if cell.kind == "classifier"}
    return {key: judged(cell, loss[cell.batch_images][cell.seed], validation_auc=0.9) for key, cell in found.items()}


def best(choices: tuple[Choice, ...], site: str, start: str) -> int | None:
    [choice] = [c for c in choices if (c.site, c.start) == (site, start)]
    return choice.candidates[choice.chosen].batch_images


def test_the_lowest_mean_over_seeds_is_chosen(tmp_path: Path) -> None:
    _, cells = study(tmp_path)
    found = choose(cells.values(), losses(cells, {None: [1, 1], 8: [0.1, 0.9], 16: [0.4, 0.5]}))
    assert best(found, "nhs", "ssl") == 16
    assert best(found, "nhs", "random") is None
    assert len(found) == 3 * 2


def test_of_equal_losses_the_smaller_n_is_chosen_and_auc_chooses_nothing(tmp_path: Path) -> None:
    _, cells = study(tmp_path)
    records = losses(cells, {None: [1, 1], 8: [0.5, 0.5], 16: [0.5, 0.5]})
    better = {
        key: judged(r.cell, 0.5, validation_auc=1.0) if r.cell.batch_images == 16 else r for key, r in records.items()
    }
    assert best(choose(cells.values(), better), "alts", "cssl") == 8


def test_what_failed_with_one_seed_cannot_be_chosen(tmp_path: Path) -> None:
    _, cells = study(tmp_path)
    records = losses(cells, {None: [1, 1], 8: [0.1, 0.1], 16: [0.4, 0.5]})
    [lost] = [
        k
        for k, r in records.items()
        if r.cell.start == "ssl" and r.cell.site == "nhs" and r.cell.batch_images == 8 and r.cell.seed
    ]
    del records[lost]
    found = choose(cells.values(), records)
    assert best(found, "nhs", "ssl") == 16
    assert best(found, "alts", "ssl") == 8


def test_a_start_of_which_nothing_could_be_trained_has_no_choice(tmp_path: Path) -> None:
    _, cells = study(tmp_path)
    records = losses(cells, {None: [1, 1], 8: [1, 1], 16: [1, 1]})
    found = choose(cells.values(), {key: record for key, record in records.items() if record.cell.start != "ssl"})
    assert {choice.start for choice in found} == {"random", "cssl"}


def test_only_what_the_rule_names_is_opened(tmp_path: Path) -> None:
    _, cells = study(tmp_path)
    choices = choose(cells.values(), losses(cells, {None: [1, 1], 8: [0.2, 0.2], 16: [0.4, 0.4]}))
    opened = to_open(choices, cells, None)
    assert {cells[one.key].batch_images for one in opened} == {None, 8}
    assert {one.why for one in opened} == {"chosen"}
    assert len(opened) == 3 * 2 * 2  # starts, sites, seeds


def test_what_was_named_in_advance_is_opened_whatever_is_chosen(tmp_path: Path) -> None:
    found, cells = study(tmp_path, "[named]\nbatch_images = 16\nwidth = 64")
    choices = choose(cells.values(), losses(cells, {None: [1, 1], 8: [0.2, 0.2], 16: [0.4, 0.4]}))
    why = {
        (cells[one.key].start, cells[one.key].batch_images): one.why
        for one in to_open(choices, cells, found.settings.named)
    }
    assert why == {
        ("random", None): "chosen",
        ("ssl", 8): "chosen",
        ("cssl", 8): "chosen",
        ("ssl", 16): "named in advance",
        ("cssl", 16): "named in advance",
    }


@pytest.fixture
def controlled(tmp_path: Path) -> tuple[StudyConfig, dict[str, Cell]]:
    axes = AXES + 'label_fractions = [0.1]\ncontrols = ["shuffled-labels", "equal-updates"]\n'
    found = asked(tmp_path, axes)
    return found, {cell.key: cell for cell in grid(found, ground())}


def by_start(cell: Cell) -> float:
    """SSL is best at N = 8, all others at 16."""
    return float(cell.batch_images == (16 if cell.start == "ssl" else 8))


def test_followers_are_opened_and_whom_a_control_is_compared_with(
    controlled: tuple[StudyConfig, dict[str, Cell]],
) -> None:
    found, cells = controlled
    records = {key: judged(cell, by_start(cell)) for key, cell in cells.items() if cell.kind == "classifier"}
    choices = choose(cells.values(), records)
    cells |= {cell.key: cell for cell in followers(found, ground(), choices, cells)}
    why = {one.key: one.why for one in to_open(choices, cells, None)}
    for key, cell in cells.items():
        if cell.kind == "classifier" and cell.label_fraction < 1:
            assert why[key] == "label fraction"
        if cell.kind == "classifier" and cell.control != "none":
            assert why[key] == "control"
        if competes(cell) and cell.start == "ssl":
            assert why[key] == ("chosen" if cell.batch_images == 8 else "counterpart of a control")
        if competes(cell) and cell.start == "cssl" and cell.batch_images == 8:
            assert key not in why


def test_followers_of_an_earlier_choice_stay_shut(controlled: tuple[StudyConfig, dict[str, Cell]]) -> None:
    found, cells = controlled
    records = {key: judged(cell, by_start(cell)) for key, cell in cells.items() if cell.kind == "classifier"}
    earlier = followers(found, ground(), choose(cells.values(), records), cells)
    cells |= {cell.key: cell for cell in earlier}
    now = {key: judged(cell, 1 - by_start(cell)) for key, cell in cells.items() if competes(cell)}
    opened = {one.key for one in to_open(choose(cells.values(), now), cells, None)}
    assert not [cell for cell in earlier if cell.batch_images and cell.kind == "classifier" and cell.key in opened]
