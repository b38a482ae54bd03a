"""Which cells a study has, and what a cell's name depends on."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from cervix_study.execution.scheduler import wanted_keys
from cervix_study.execution.tasks import blocked, make, ready
from cervix_study.planning.cell_names import matches, named
from cervix_study.planning.grid import expected_followers, followers, grid
from cervix_study.planning.selection import choose
from cervix_study.records import Cell
from tests.unit.study_cases import asked, ground, judged

EVERYTHING = """\
starts = ["random", "ssl", "cssl", "csfssl", "ppfssl"]
batch_images = [8, 16, 32]
federated_batch_images = [8]
width = [64, 128]
epochs_per_round = [1, 5]
"""


def counted(cells: list[Cell]) -> Counter[tuple[str, str]]:
    return Counter((cell.kind, cell.start) for cell in cells)


def test_a_start_is_varied_by_what_it_has(tmp_path: Path) -> None:
    """Random weights know neither N nor width; only federations know E; SSL has an encoder for every site."""
    found = counted(grid(asked(tmp_path, EVERYTHING), ground()))
    assert found["encoder", "random"] == 0
    assert found["classifier", "random"] == 2
    assert found["encoder", "ssl"] == found["classifier", "ssl"] == 3 * 2 * 2
    assert (found["encoder", "cssl"], found["classifier", "cssl"]) == (3 * 2, 3 * 2 * 2)
    assert (found["encoder", "csfssl"], found["classifier", "csfssl"]) == (2 * 2, 2 * 2 * 2)
    assert found["encoder", "ppfssl-from-alts"] == 2 * 2


def test_the_paper_s_grid_is_as_large_as_its_table(tmp_path: Path) -> None:
    """Table II: ten trained encoders (four of them SSL at two sites), at one width and E = 1."""
    axes = 'starts = ["random", "ssl", "cssl", "csfssl", "ppfssl"]\nbatch_images = [8, 16, 32]\n'
    found = grid(asked(tmp_path, axes + "federated_batch_images = [8]"), ground())
    rows = {(cell.start, cell.batch_images) for cell in found if cell.kind == "classifier"}
    assert len(rows) == 1 + 3 + 3 + 1 + 2


def test_what_a_cell_needs_stands_before_it(tmp_path: Path) -> None:
    seen: set[str] = set()
    for cell in grid(asked(tmp_path, EVERYTHING + "seeds = [0, 1]"), ground()):
        assert seen.issuperset(cell.inputs)
        seen.add(cell.key)


def test_every_seed_and_fold_has_its_own_cells(tmp_path: Path) -> None:
    one = grid(asked(tmp_path), ground())
    many = grid(asked(tmp_path, "seeds = [0, 1]\nfolds = 3"), ground(3))
    assert len(many) == len({cell.key for cell in many}) == 6 * len(one)


def test_several_classifiers_share_an_encoder(tmp_path: Path) -> None:
    cells = grid(asked(tmp_path, 'starts = ["ssl"]\nclassifier_seeds = [0, 1, 2]'), ground())
    assert counted(cells) == {("encoder", "ssl"): 2, ("classifier", "ssl"): 6}


def test_the_ring_begins_where_its_name_says(tmp_path: Path) -> None:
    cells = grid(asked(tmp_path, 'starts = ["ppfssl"]'), ground())
    rosters = {cell.start: cell.sites for cell in cells if cell.kind == "encoder"}
    assert rosters == {"ppfssl-from-nhs": ("nhs", "alts"), "ppfssl-from-alts": ("alts", "nhs")}


# --- keys ---------------------------------------------------------------------------------------------------------


def keys(cells: list[Cell], kind: str, start: str) -> set[str]:
    return {cell.key for cell in cells if (cell.kind, cell.start) == (kind, start)}


def test_equal_questions_have_equal_keys(tmp_path: Path) -> None:
    assert grid(asked(tmp_path), ground()) == grid(asked(tmp_path, "seeds = [0]"), ground())


def test_another_classifier_recipe_leaves_encoders_alone(tmp_path: Path) -> None:
    before = grid(asked(tmp_path), ground())
    after = grid(asked(tmp_path, more="[recipe.classifier]\nlr = 0.5"), ground())
    for start in ("ssl", "csfssl"):
        assert keys(before, "encoder", start) == keys(after, "encoder", start)
        assert not keys(before, "classifier", start) & keys(after, "classifier", start)


def test_other_images_at_one_site_leave_the_other_site_alone(tmp_path: Path) -> None:
    before, after = grid(asked(tmp_path), ground()), grid(asked(tmp_path), ground(nhs="changed"))
    same = {cell.key for cell in before} & {cell.key for cell in after}
    kept = {named(cell) for cell in before if cell.key in same}
    assert kept == {"classifier Random alts seed0", "encoder SSL alts N8 w64 seed0", "classifier SSL alts N8 w64 seed0"}


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"fold": 0}, {"width": 3}, {"inputs": ("x",)}, {"control": "shuffled-labels"}, {"software": "other"}],
)
def test_everything_that_a_cell_is_enters_its_key(tmp_path: Path, change: dict[str, object]) -> None:
    cell = grid(asked(tmp_path), ground())[0]
    assert dataclasses.replace(cell, **change).key != cell.key


def test_imagenet_s_weights_are_part_of_what_begins_from_them(tmp_path: Path) -> None:
    more = '[machine]\nimagenet_weights = "weights.pth"'
    study = asked(tmp_path, 'starts = ["random", "imagenet"]', more)
    one, other = (grid(study, dataclasses.replace(ground(), imagenet=digest)) for digest in ("1", "2"))
    assert keys(one, "classifier", "random") == keys(other, "classifier", "random")
    assert not keys(one, "classifier", "imagenet") & keys(other, "classifier", "imagenet")


# --- followers ----------------------------------------------------------------------------------------------------

CONTROLS = """\
starts = ["random", "ssl", "cssl"]
batch_images = [8, 16]
label_fractions = [0.01, 0.1]
controls = ["shuffled-labels", "equal-updates", "one-site-batches", "site-predictability"]
"""


def chosen(tmp_path: Path) -> tuple[list[Cell], list[Cell]]:
    """Return the grid, and what follows when N = 16 is best."""
    study, land = asked(tmp_path, CONTROLS), ground()
    cells = {cell.key: cell for cell in grid(study, land)}
    records = {
        key: judged(cell, 1 / (cell.batch_images or 1)) for key, cell in cells.items() if cell.kind == "classifier"
    }
    return list(cells.values()), followers(study, land, choose(cells.values(), records), cells)


def test_the_chosen_ones_are_followed(tmp_path: Path) -> None:
    _, found = chosen(tmp_path)
    assert {cell.batch_images for cell in found} == {None, 16}
    what = Counter((cell.kind, cell.control, cell.label_fraction) for cell in found)
    assert what["classifier", "none", 0.01] == what["classifier", "none", 0.1] == 3 * 2
    assert what["classifier", "shuffled-labels", 1.0] == 3 * 2
    assert what["classifier", "equal-updates", 1.0] == what["encoder", "equal-updates", 1.0] == 2
    assert (what["classifier", "one-site-batches", 1.0], what["encoder", "one-site-batches", 1.0]) == (2, 1)
    assert what["site-probe", "none", 1.0] == 1 + 2 + 1  # random weights, SSL of either site, pooled
    assert what["site-probe", "one-site-batches", 1.0] == 1


def test_the_equal_updates_control_knows_whose_updates(tmp_path: Path) -> None:
    cells, found = chosen(tmp_path)
    by_key = {cell.key: cell for cell in cells}
    encoders = [cell for cell in found if (cell.kind, cell.control) == ("encoder", "equal-updates")]
    assert {by_key[cell.inputs[0]].sites for cell in encoders} == {("nhs",), ("alts",)}
    for cell in encoders:
        rival = by_key[cell.inputs[0]]
        assert (rival.start, rival.batch_images, cell.start, cell.sites) == ("ssl", 16, "cssl", ("nhs", "alts"))


def test_how_many_follow_is_known_before(tmp_path: Path) -> None:
    _, found = chosen(tmp_path)
    assert expected_followers(asked(tmp_path, CONTROLS), ground()) == len(found)


# --- names and order ----------------------------------------------------------------------------------------------


def test_a_pattern_means_cells_by_name_or_key(tmp_path: Path) -> None:
    cells = grid(asked(tmp_path), ground())
    assert {cell.start for cell in cells if matches(cell, "*csfssl*")} == {"csfssl"}
    assert [cell for cell in cells if matches(cell, cells[2].key[:10])] == [cells[2]]
    assert all(matches(cell, "*") for cell in cells)


def test_who_wants_a_classifier_wants_its_encoder(tmp_path: Path) -> None:
    cells = {cell.key: cell for cell in grid(asked(tmp_path), ground())}
    wanted = [cells[key] for key in wanted_keys(cells, "classifier*SSL*nhs*")]
    assert {(cell.kind, cell.start) for cell in wanted} == {
        ("classifier", "ssl"),
        ("encoder", "ssl"),
        ("classifier", "csfssl"),
        ("encoder", "csfssl"),
    }


def test_a_cell_waits_for_its_inputs_and_falls_with_them(tmp_path: Path) -> None:
    tasks = [make(cell) for cell in grid(asked(tmp_path, 'starts = ["ssl"]'), ground())]
    encoder, classifier = tasks[0], tasks[1]
    assert classifier not in ready(tasks, [])
    assert classifier in ready(tasks, [encoder.key])
    assert set(blocked(tasks, {encoder.key: "diverged"})) == {classifier.key}


def test_a_federation_takes_a_place_for_every_site_and_a_ring_takes_one(tmp_path: Path) -> None:
    cells = grid(asked(tmp_path, 'starts = ["csfssl", "ppfssl"]'), ground())
    taken = {cell.start: make(cell).processes for cell in cells if cell.kind == "encoder"}
    assert taken == {"csfssl": 2, "ppfssl-from-nhs": 1, "ppfssl-from-alts": 1}
