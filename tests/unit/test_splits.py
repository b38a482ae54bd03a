"""Splits by woman: shares, links, stability."""

from collections import Counter

import pytest
from hypothesis import given as any_of
from hypothesis import settings
from hypothesis import strategies as st

from fedcervix.errors import DataError
from site_agent.manifest.reading import SPLITS, ManifestRow, Split
from site_agent.manifest.splits import (
    PICTURES_KEPT_MAX,
    STRATA,
    Kept,
    Stratum,
    assign,
    check_links,
    check_spellings,
    format_splits,
    given,
    groups,
    kept,
    moved,
    parse_splits,
    recognise,
    stratum,
)


def women(count: int, name: Stratum, first: int = 0) -> dict[str, Stratum]:
    return {f"{name}-{k:04d}": name for k in range(first, first + count)}


def sizes(assigned: dict[str, Split], name: str = "") -> tuple[int, ...]:
    counts = Counter(split for patient, split in assigned.items() if patient.startswith(name))
    return tuple(counts[split] for split in SPLITS)


def row(patient: str, split: Split | None, line: int = 2) -> ManifestRow:
    return ManifestRow(f"{line}.jpg", patient, None, split, line)


def test_one_case_makes_a_case() -> None:
    assert stratum([None, 0, 1]) == "case"
    assert stratum([None, 0]) == "control"
    assert stratum([None]) == "unlabelled"


def test_shares_are_exact_whatever_the_seed() -> None:
    patients = women(97, "case") | women(970, "control") | women(100, "unlabelled")
    for seed in range(5):
        assigned = assign(patients, [], {}, seed)
        assert sizes(assigned, "case") == (64, 16, 17)  # 63.8, 15.8, 17.4
        assert sizes(assigned, "control") == (638, 158, 174)
        assert sizes(assigned, "unlabelled") == (80, 20, 0)


def test_the_seed_decides_who_goes_where_and_the_order_of_patients_does_not() -> None:
    patients = women(30, "case") | women(30, "control")
    backwards = dict(reversed(patients.items()))
    assert assign(patients, [], {}, 1) == assign(backwards, [], {}, 1)
    assert assign(patients, [], {}, 1) != assign(patients, [], {}, 2)


@pytest.mark.parametrize("count", range(3, 12))
def test_from_three_patients_on_a_stratum_is_in_every_split(count: int) -> None:
    for seed in range(10):
        assigned = assign(women(count, "case") | women(3, "control"), [], {}, seed)
        assert min(sizes(assigned, "case")) >= 1
        assert sizes(assigned, "control") == (1, 1, 1)


def test_one_woman_trains() -> None:
    assert assign({"A": "case"}, [], {}, 0) == {"A": "train"}
    assert assign({}, [], {}, 0) == {}


def test_patients_linked_by_a_chain_are_one_group() -> None:
    assert groups("ABCDE", [("A", "C"), ("C", "E"), ("B", "X")]) == (("A", "C", "E"), ("B",), ("D",))


def test_an_unlabelled_patient_follows_the_labelled_one_she_is_linked_with() -> None:
    patients = women(60, "case") | women(60, "unlabelled")
    links = [(f"case-{k:04d}", f"unlabelled-{k:04d}") for k in range(60)]
    assigned = assign(patients, links, {}, 3)
    assert sizes(assigned, "case") == sizes(assigned, "unlabelled") == (39, 10, 11)  # 39.5, 9.8, 10.8


def test_earlier_assignments_are_kept_and_shares_restored_by_those_who_come() -> None:
    first = assign(women(40, "control"), [], {}, 0)
    later = assign(women(400, "control"), [], first, 0)
    assert first.items() <= later.items()
    assert sizes(later) == (263, 65, 72)  # 263.05, 65.15, 71.75


@pytest.mark.parametrize(
    ("one", "other", "both"), [("train", "test", "test"), ("train", "valid", "valid"), ("valid", "test", "test")]
)
def test_a_new_link_moves_both_to_the_more_protected_split(one: Split, other: Split, both: Split) -> None:
    earlier: dict[str, Split] = {"A": one, "B": other, "C": "train"}
    now = assign({"A": "case", "B": "case", "C": "case"}, [("A", "B")], earlier, 0)
    assert now == {"A": both, "B": both, "C": "train"}
    assert moved(earlier, now) == (("A",) if one != both else ("B",))


def test_a_patient_who_left_counts_for_nothing() -> None:
    assert assign({"A": "case"}, [], {"gone": "test"}, 0) == {"A": "train"}


@settings(max_examples=60, deadline=None)
@any_of(
    st.dictionaries(st.integers(0, 40).map(str), st.sampled_from(STRATA), max_size=30),
    st.dictionaries(st.integers(41, 80).map(str), st.sampled_from(STRATA), max_size=20),
    st.lists(st.tuples(st.integers(0, 80).map(str), st.integers(0, 80).map(str)), max_size=12),
    st.integers(0, 3),
)
def test_no_link_crosses_and_nobody_moves_for_a_stranger(
    first: dict[str, Stratum], more: dict[str, Stratum], links: list[tuple[str, str]], seed: int
) -> None:
    earlier = assign(first, [], {}, seed)
    now = assign(first | more, links, earlier, seed)
    assert set(now) == set(first | more)
    for group in groups(now, links):
        assert len({now[patient] for patient in group}) == 1
        if all((first | more)[patient] == "unlabelled" for patient in group):
            assert now[group[0]] != "test"
        if len({earlier[patient] for patient in group if patient in earlier}) == 1:
            assert all(now[patient] == earlier.get(patient, now[patient]) for patient in group)
    protection = {"train": 0, "valid": 1, "test": 2}
    assert all(protection[now[patient]] > protection[earlier[patient]] for patient in moved(earlier, now))


def test_a_manifest_may_give_the_splits() -> None:
    assert given([row("A", "train"), row("A", "train"), row("B", "test")], "images.csv") == {"A": "train", "B": "test"}
    assert given([row("A", None)], "images.csv") is None


def test_a_patient_in_two_given_splits_is_refused() -> None:
    with pytest.raises(DataError, match=r"images.csv: patients in more than one split: A \(train, test\)") as caught:
        given([row("A", "test"), row("A", "train"), row("B", "test")], "images.csv")
    assert "too good" in caught.value.cause


def test_some_rows_with_and_some_without_a_split_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 rows give a split and 2 do not \(line 3, line 4\)"):
        given([row("A", "train", 2), row("B", None, 3), row("B", None, 4)], "images.csv")


def test_given_splits_that_a_shared_picture_crosses_are_refused() -> None:
    check_links({"A": "train", "B": "train"}, [("B", "A")], "images.csv")
    with pytest.raises(DataError, match=r"A \(train\) and B \(test\)"):
        check_links({"A": "train", "B": "test"}, [("B", "A")], "images.csv")


@pytest.mark.parametrize("line", ["P1,train,1.2E+15", "P1,train,AABB", ",train,aa", "P1,train"])
def test_a_splits_file_that_was_edited_is_damaged_and_blank_lines_are_no_edit(line: str) -> None:
    with pytest.raises(DataError, match="line 2"):
        parse_splits(f"patient,split,pictures\n{line}\n", "splits.csv")
    assert parse_splits("patient,split\nP1,test\n\n", "splits.csv") == {"P1": Kept("test")}


def test_the_splits_file_is_sorted_and_reads_back() -> None:
    women = {"P2": Kept("test"), "P,1": Kept("train", frozenset({"b2", "a1"}))}
    text = format_splits(women)
    assert text == 'patient,split,pictures\n"P,1",train,a1 b2\nP2,test,\n'
    assert parse_splits(text, "splits.csv") == women


def test_a_splits_file_of_an_earlier_version_is_read() -> None:
    assert parse_splits("patient,split\nA,train\n", "splits.csv") == {"A": Kept("train")}


@pytest.mark.parametrize(
    ("text", "line"),
    [("", 1), ("patient,label\n", 1), ("patient,split\nA,dev\n", 2), ("patient,split\nA,test\nA,test\n", 3)],
)
def test_a_damaged_splits_file_is_refused_because_test_scores_depend_on_it(text: str, line: int) -> None:
    with pytest.raises(DataError, match=rf"splits.csv, line {line}: expected a patient") as caught:
        parse_splits(text, "splits.csv")
    assert "restore splits.csv from a backup" in caught.value.next_step


# --- who is known from splits.csv -----------------------------------------------------------------------------------


def had(**women: str) -> dict[str, Kept]:
    """Return what splits.csv holds, `A="test 1 2"`: A is in test, with pictures 1 and 2."""
    return {name: Kept(said.split()[0], frozenset(said.split()[1:])) for name, said in women.items()}  # type: ignore[arg-type]


def have(**women: str) -> dict[str, frozenset[str]]:
    return {name: frozenset(pictures.split()) for name, pictures in women.items()}


def test_a_woman_who_was_renamed_is_known_by_her_pictures() -> None:
    found = recognise(have(X="1 9", Y="2", N="8"), had(A="test 1", B="train 2"))
    assert found.splits == {"X": "test", "Y": "train"}
    assert found.renamed == (("X", "A"), ("Y", "B"))
    assert (found.absent, found.earlier) == (2, 2)


def test_a_woman_whose_identifier_lost_its_zeros_is_known_without_pictures() -> None:
    found = recognise(have(**{"1": "7", "2": "8"}), {"001": Kept("test"), "002": Kept("train")})
    assert found.splits == {"1": "test", "2": "train"}
    assert found.renamed == (("1", "001"), ("2", "002"))


def test_a_picture_that_was_put_under_another_known_woman_takes_her_to_the_more_protected_split() -> None:
    found = recognise(have(A="1", B="2 3"), had(A="test 1 2", B="train 3"))
    assert found.splits == {"A": "test", "B": "test"}
    assert found.renamed == ()


def test_identifiers_that_were_given_to_other_women_count_for_nothing() -> None:
    """A new pseudonymisation uses the old names again."""
    found = recognise(have(A="2", B="3", C="1"), had(A="test 1", B="train 2", C="valid 3"))
    assert found.splits == {"A": "train", "B": "valid", "C": "test"}
    assert found.renamed == (("A", "B"), ("B", "C"), ("C", "A"))


def test_an_identifier_is_given_to_another_woman_only_where_somebody_has_the_pictures_kept_under_it() -> None:
    """A test woman is exported anew, and one of her files is a copy of a training woman's: she does not train."""
    earlier = had(P17="test 1", P5="train 2", P6="valid 3")
    found = recognise(have(P17="2 9", P5="2", P6="3"), earlier)
    assert found.splits == {"P17": "test", "P5": "train", "P6": "valid"}
    assert found.renamed == ()
    assert recognise(have(P17="2 9", P6="3"), earlier).splits["P17"] == "test"
    assert recognise(have(P17="2 9", P5="2", X="1"), earlier).splits == {"P17": "train", "P5": "train", "X": "test"}


def test_pictures_that_were_exported_anew_leave_a_woman_where_she_was() -> None:
    assert recognise(have(A="7"), had(A="test 1")).splits == {"A": "test"}


def test_the_manifest_of_other_women_is_refused() -> None:
    earlier = had(A="test 1", B="train 2", C="valid 3")
    with pytest.raises(DataError, match=r"3 of 3 patients of splits.csv are not in the manifest") as caught:
        recognise(have(X="7", Y="8", Z="9"), earlier)
    assert "move splits.csv away" in caught.value.next_step
    recognise(have(A="1"), earlier)  # fewer women, no other ones
    recognise(have(A="1", X="7"), earlier)
    recognise(have(X="7", Y="8", Z="9"), had(A="test 1"), named=["A"])  # not one of hers can be read at the moment


def test_what_is_kept_of_a_woman_grows_and_is_begun_anew_under_a_name_that_was_used_before() -> None:
    earlier = had(A="test 1", B="train 2", gone="valid 3")
    now = kept({"A": "test", "B": "test"}, have(A="1 9", B="8"), earlier)
    assert now == had(A="test 1 9", B="test 8", gone="valid 3")
    assert kept({"B": "test"}, have(B=""), earlier)["B"] == Kept("test", frozenset({"2"}))


def test_more_pictures_than_a_cell_holds_are_written_and_read() -> None:
    many = frozenset(f"{k:016x}" for k in range(PICTURES_KEPT_MAX + 10))
    read = parse_splits(format_splits({"A": Kept("test", many)}), "splits.csv")
    assert len(read["A"].pictures) == PICTURES_KEPT_MAX


def test_given_splits_that_cut_one_identifier_in_two_are_refused() -> None:
    check_spellings({"1": "train", "001": "train"}, [("001", "1")], "images.csv")
    with pytest.raises(DataError, match=r"images.csv: .* 001 \(test\) and 1 \(train\)") as caught:
        check_spellings({"1": "train", "001": "test"}, [("001", "1")], "images.csv")
    assert "in one way" in caught.value.next_step
