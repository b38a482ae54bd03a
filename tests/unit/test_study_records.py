"""What a study leaves on the disk reads back as it was written, and damage is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from cervix_study.planning.grid import grid
from cervix_study.records import (
    CellRecord,
    Prediction,
    from_json,
    predictions_text,
    read_predictions,
    read_selection,
    to_json,
)
from fedcervix.errors import StorageError
from site_agent.starts import title
from tests.unit.study_cases import asked, ground, judged


def test_a_cell_reads_back_with_its_key(tmp_path: Path) -> None:
    for cell in grid(asked(tmp_path, 'starts = ["random", "ssl", "ppfssl"]'), ground()):
        if cell.kind == "classifier":
            record = judged(cell, 0.25)
            again = from_json(CellRecord, to_json(record), tmp_path)
            assert again == record
            assert again.cell.key == cell.key == again.key


def test_damage_is_told_with_its_place(tmp_path: Path) -> None:
    record = to_json(judged(grid(asked(tmp_path), ground())[0], 0.25))
    with pytest.raises(StorageError, match=r"classifier\.validation_loss"):
        from_json(CellRecord, record.replace(b"0.25", b'"low"'), tmp_path / "cell.json")


def test_a_cell_has_the_results_of_its_kind(tmp_path: Path) -> None:
    encoder = next(cell for cell in grid(asked(tmp_path), ground()) if cell.kind == "encoder")
    with pytest.raises(ValueError, match="kind encoder has its own results"):
        judged(encoder, 0.5)


def test_predictions_read_back_to_the_last_digit(tmp_path: Path) -> None:
    rows = (
        Prediction("valid", "images/a,b.png", "w1", 1, 0.1 + 0.2),
        Prediction("test", 'images/"c".png', "w2", 0, 1e-17),
    )
    (tmp_path / "cells" / "k").mkdir(parents=True)
    file = tmp_path / "cells" / "k" / "predictions.csv"
    file.write_bytes(predictions_text(rows))
    assert read_predictions(tmp_path, "k") == rows
    file.write_text(file.read_text().replace("valid", "train"))
    with pytest.raises(StorageError, match="line 2"):
        read_predictions(tmp_path, "k")


def test_a_probability_is_a_number() -> None:
    with pytest.raises(ValueError, match="a probability is a number"):
        predictions_text([Prediction("valid", "a", "w", 1, float("nan"))])


def test_nothing_is_chosen_before_it_is(tmp_path: Path) -> None:
    assert read_selection(tmp_path).choices == ()


def test_starts_are_called_as_in_the_paper() -> None:
    assert [title(s) for s in ("random", "csfssl", "ppfssl-from-alts")] == ["Random", "CSFSSL", "PPFSSL_ALTS"]
