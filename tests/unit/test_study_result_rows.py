"""Which classifiers make a row: opened ones alone, complete ones alone, as validation chose."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from cervix_study import records
from cervix_study.analysis.result_rows import Finished, Variant, benches, labels
from cervix_study.records import Selection
from fedcervix.errors import DataError
from site_agent.classifier.by_woman import Part
from tests.unit.synthetic_study import Synthetic, write

SMALL = Synthetic(starts=("random", "ssl", "csfssl"), case_women=4, control_women=6)


def names(rows) -> list[str]:
    return [row.label for row in rows]


def test_one_row_per_start_and_variant_in_the_order_of_the_tables(tmp_path: Path):
    nhs, alts = benches(Finished.read(write(tmp_path, SMALL)))
    assert (nhs.site, alts.site, nhs.profile) == ("nhs", "alts", "paper")
    assert names(nhs.rows) == ["Random", "SSL N=8", "SSL N=16", "CSFSSL"]
    assert [row.chosen for row in nhs.rows] == [True, True, False, True]
    assert nhs.unfinished == ()
    assert set(nhs.rows[0].trials) == {Part(1), Part(2)}


def test_test_images_of_what_was_not_opened_are_unknown(tmp_path: Path):
    selection = records.read_selection(write(tmp_path, SMALL))
    before = Finished.read(tmp_path)
    kept = tuple(o for o in selection.opened if before.cells[o.key].cell.batch_images != 16)
    records.write(tmp_path / records.SELECTION_FILE, dataclasses.replace(selection, opened=kept))
    assert names(benches(Finished.read(tmp_path))[0].rows) == ["Random", "SSL N=8", "CSFSSL"]


def test_a_row_that_lacks_a_training_is_named_and_not_judged(tmp_path: Path):
    write(tmp_path, SMALL)
    found = Finished.read(tmp_path)
    one = next(r for r in found.cells.values() if r.classifier and r.cell.start == "csfssl" and r.cell.site == "nhs")
    (records.cell_folder(tmp_path, one.key) / records.CELL_FILE).unlink()
    nhs, alts = benches(Finished.read(tmp_path))
    assert names(nhs.rows) == ["Random", "SSL N=8", "SSL N=16"]
    assert nhs.unfinished == ("CSFSSL",)
    assert alts.unfinished == ()


def test_where_folds_choose_differently_the_start_has_a_row_of_its_own(tmp_path: Path):
    """The second fold chose N = 16: neither variant is what the procedure gives."""
    drawn = dataclasses.replace(SMALL, folds=3, seeds=(1,))
    nhs, _ = benches(Finished.read(write(tmp_path, drawn)))
    assert names(nhs.rows) == ["Random", "SSL N=8", "SSL N=16", "SSL (as chosen)", "CSFSSL"]
    mixed = nhs.chosen("ssl")
    assert mixed is not None
    assert mixed.variant is None
    assert [mixed.cells[Part(0, 0, fold)].cell.batch_images for fold in range(3)] == [8, 16, 8]


def test_with_one_encoder_seed_the_classifiers_are_what_repeats(tmp_path: Path):
    drawn = dataclasses.replace(SMALL, seeds=(7,), classifier_seeds=(0, 1, 2))
    nhs, _ = benches(Finished.read(write(tmp_path, drawn)))
    assert set(nhs.rows[0].trials) == {Part(0), Part(1), Part(2)}


def test_followers_follow_and_ssl_is_the_rival_of_equal_updates(tmp_path: Path):
    drawn = dataclasses.replace(
        SMALL,
        starts=("random", "ssl", "cssl"),
        label_fractions=(0.1,),
        controls=("shuffled-labels", "equal-updates"),
    )
    nhs, _ = benches(Finished.read(write(tmp_path, drawn)))
    told = [(f.start, f.label_fraction, f.control) for f in nhs.followers]
    assert told == [
        ("random", 0.1, "none"),
        ("ssl", 0.1, "none"),
        ("cssl", 0.1, "none"),
        ("cssl", 1.0, "equal-updates"),
        ("cssl", 1.0, "shuffled-labels"),
    ]
    rival = nhs.followers[3].rival
    assert rival is not None
    assert {record.cell.start for record in rival.cells.values()} == {"ssl"}
    assert {record.cell.batch_images for record in rival.cells.values()} == {8}


def test_labels_name_what_differs_and_nothing_else():
    variants = [
        Variant("ssl", 8, None, 64),
        Variant("ssl", 16, None, 64),
        Variant("csfssl", 8, 1, 64),
        Variant("ppfssl-from-nhs", 8, 1, 64),
        Variant("ppfssl-from-nhs", 8, 5, 128),
    ]
    assert list(labels(variants).values()) == [
        "SSL N=8",
        "SSL N=16",
        "CSFSSL",
        "PPFSSL_NHS E=1 width 64",
        "PPFSSL_NHS E=5 width 128",
    ]


def test_a_woman_who_was_seen_before_she_was_tested_stops_the_report(tmp_path: Path):
    write(tmp_path, SMALL)
    key = next(iter(Finished.read(tmp_path).predictions))
    rows = records.read_predictions(tmp_path, key)
    moved = [
        dataclasses.replace(row, split="valid") if place == len(rows) - 1 else row for place, row in enumerate(rows)
    ]
    file = records.cell_folder(tmp_path, key) / records.PREDICTIONS_FILE
    file.write_bytes(records.predictions_text(moved))
    with pytest.raises(DataError, match="1 women are in the validation and in the test part"):
        Finished.read(tmp_path)


def test_a_study_before_its_first_choice_has_no_rows(tmp_path: Path):
    write(tmp_path, SMALL)
    records.write(tmp_path / records.SELECTION_FILE, Selection(choices=(), opened=()))
    assert all(bench.rows == () for bench in benches(Finished.read(tmp_path)))
