"""Identifiers as people and spreadsheets write them: which are one, which are none, which are doubtful."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from site_agent.manifest.identifiers import Doubt, complaint, doubts, written_alike


@pytest.mark.parametrize(
    "names",
    [
        ("001", "1"),
        ("0012", "12.0", "12,00", "012"),
        ("P001", "p001", "P-001", "p_1", "P 001", "P.001", "Ｐ００１", "P\u2011001"),
        ("Jos\u00e9 3", "Jose\u0301-3"),
        ("001", "'001", '="001"'),
        ("1-11", "111"),
        ("1-11", "1_11", "01.011"),
        ("P7", "P\u200b7"),
        ("\u0661\u0662", "12"),
        ("stra\u00dfe1", "STRASSE1"),
        ("\u0410\u0421\u041d7", "ACH7", "\u0391CH7"),
        ("A\u22127", "A7", "A/7", "A\\7", "A:7", "A\u034f7", "A\u115f7", "A\u00b77"),
        ("2019/007", "2019-7"),
        ("1,234", "1234", "1'234", "1 234"),
        ("\u201c7\u201d", "7", '"7"'),
        ("1E5", "100000", "100000.0"),
    ],
)
def test_identifiers_that_are_one(names: tuple[str, ...]) -> None:
    assert written_alike([*names, "another"]) == (tuple(sorted(names)),)


@pytest.mark.parametrize(
    "names",
    [
        ("1", "10", "100", "11"),
        ("1-11", "11-1"),
        ("1-11", "11-1", "111"),
        ("1/11", "11/1"),
        ("A1", "B1", "1A", "1"),
        ("P1", "P1+", "P1*"),
        ("a0b", "ab"),
        ("0", "00a"),
        ("\u0915\u093f", "\u0915\u0940"),
    ],
)
def test_identifiers_that_are_apart(names: tuple[str, ...]) -> None:
    assert written_alike(names) == ()


@given(st.lists(st.text(max_size=8), max_size=20))
def test_every_identifier_is_in_one_set_at_most_and_the_order_is_of_no_account(names: list[str]) -> None:
    sets = written_alike(names)
    members = [name for alike in sets for name in alike]
    assert len(members) == len(set(members))
    assert set(members) <= set(names)
    assert written_alike(reversed(names)) == sets


@pytest.mark.parametrize(
    "name", ["P1", "0", "7", "na-12", "#12", "#A1", "A/1", "AB/C", "12E4", "7e-4", "nhs-0001", "Nana", "1.2"]
)
def test_what_is_an_identifier(name: str) -> None:
    assert complaint(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "#VALUE!",
        "#\u00a1VALOR!",
        "#\u00bfNOMBRE?",
        "#N/D",
        "#\u041d/\u0414",
        "#GETTING_DATA",
        "Err:502",
        "(leer)",
        "pd.NA",
        *("#N/D!", "#N/B", "#N/DISP", "#\u00a1REF!", "#SAKNAS!", "#RIF!", "#NOM?"),
        *("#\u00a1DIV/0!", "#DIV/0 !", "# n/a"),
        *("ND", "n.d.", "s/d", "sin dato", "Sin informaci\u00f3n", "n\u00e3o informado", "NAO INFORMADO", "sem id"),
        *("k.A.", "o. A.", "nicht verf\u00fcgbar", "non renseign\u00e9e", "N.R.", "non disponibile", "An\u00f4nimo"),
        *("S/N", "n/i", "N/C"),
        *("Vac\u00edo", "vuoto", "nvt", "desconhecido", "ignota", "manquant"),
    ],
)
def test_what_a_spreadsheet_writes_for_an_error_is_no_identifier(name: str) -> None:
    assert complaint(name) == "means a missing identifier"


@pytest.mark.parametrize("name", ["1.2E+14", "1,2e+14", "12E+14", "1.2E14", "1e+5"])
def test_a_number_that_lost_its_digits_is_no_identifier(name: str) -> None:
    assert "shortened" in str(complaint(name))


def told(labels: dict[str, list[int | None]]) -> dict[str, str]:
    return {doubt.patient: doubt.why for doubt in doubts(labels)}


WOMEN: dict[str, list[int | None]] = {f"P{k}": [0, None] for k in range(3, 30)}


def test_one_identifier_with_a_large_share_of_all_pictures() -> None:
    assert told({**WOMEN, "rest": [None] * 12}) == {"rest": "holds 12 of 66 pictures; 2 are usual"}
    assert told({**WOMEN, "often": [None] * 9}) == {}
    assert told({f"P{k}": [None] * 40 for k in range(3)}) == {}


def test_one_identifier_with_both_labels() -> None:
    assert doubts({**WOMEN, "A": [0, 1]}) == (Doubt("A", "has pictures labelled case and pictures labelled control"),)


@pytest.mark.parametrize("name", ["Jan-11", "03. Mrz", "11-Nov", "1-sep-24", "2024-03-01", "01.03.2024", "3/1/24"])
def test_a_date_that_a_spreadsheet_may_have_made(name: str) -> None:
    assert "date" in told({**WOMEN, name: [0]})[name]
    assert told({**WOMEN, "mar": [0], "maria-12": [0]}) == {}


def test_dates_are_no_wonder_where_all_identifiers_are_dates() -> None:
    assert told({f"2024-03-{day:02}": [None] for day in range(1, 30)}) == {}


@pytest.mark.parametrize("name", ["0", "000", "999", "9999", "-1", "xxx", "test", "0.0", "999.0", "TRUE", "Patient"])
def test_a_code_for_a_missing_value(name: str) -> None:
    assert told({**WOMEN, name: [0]}) == {name: "is a usual code for a missing value"}


def test_numbering_may_begin_at_zero() -> None:
    assert told({f"{k:03}": [0] for k in range(9)}) == {}
