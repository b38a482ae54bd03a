"""Splits by woman: shares, links, stability."""

from collections import Counter

import pytest
from hypothesis import given as any_of
from hypothesis import settings
from hypothesis import strategies as st

from fedcervix.errors import DataError
from fedcervix.manifest import SPLITS, Row, Split
from fedcervix.splits import (
    STRATA,
    Stratum,
    assign,
    check_links,
    format_splits,
    given,
    groups,
    moved,
    parse_splits,
    stratum,
)


def women(count: int, name: Stratum, first: int = 0) -> dict[str, Stratum]:
    return {f"{name}-{k:04d}": name for k in range(first, first + count)}


def sizes(assigned: dict[str, Split], name: str = "") -> tuple[int, ...]:
    counts = Counter(split for patient, split in assigned.items() if patient.startswith(name))
    return tuple(counts[split] for split in SPLITS)


def row(patient: str, split: Split | None, line: int = 2) -> Row:
    return Row(f"{line}.jpg", patient, None, split, line)


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


def test_the_splits_file_is_sorted_and_reads_back() -> None:
    text = format_splits({"P2": "test", "P,1": "train"})
    assert text == 'patient,split\n"P,1",train\nP2,test\n'
    assert parse_splits(text, "splits.csv") == {"P2": "test", "P,1": "train"}


@pytest.mark.parametrize(
    ("text", "line"),
    [("", 1), ("patient,label\n", 1), ("patient,split\nA,dev\n", 2), ("patient,split\nA,test\nA,test\n", 3)],
)
def test_a_damaged_splits_file_is_refused_because_test_scores_depend_on_it(text: str, line: int) -> None:
    with pytest.raises(DataError, match=rf"splits.csv, line {line}: expected a patient") as caught:
        parse_splits(text, "splits.csv")
    assert "restore splits.csv from a backup" in caught.value.next_step
