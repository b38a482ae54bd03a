"""Women's identifiers as spreadsheets, exports and people write them.

Rules
1. Two identifiers are *one, written in two ways*, if they are equal except for these differences: zeros in front of a
   number, a `.0` behind it, upper and lower case, the Unicode form, letters of another alphabet that look the same,
   invisible characters, a spreadsheet's `'` or `=""`, and blanks, hyphens, underscores, dots, slashes and quotation
   marks. A separator between two digits counts where the other identifier has one elsewhere: 1-11 and 11-1 are two
   women. 1E5 is 100000 to a spreadsheet.
2. These are not identifiers, because several women would become one: a word for a missing value (NA, unknown, -), a
   spreadsheet's error (#N/A, #DIV/0!, in any language: # and no number), a number that a spreadsheet shortened
   (1.2E+14).
3. Identifiers that look wrong but may be right are listed for a person to judge: one identifier with a large share of
   all pictures, one with both labels, a date, a code for a missing value.

Pure: values in, values out.
"""

from __future__ import annotations

import re
import statistics
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from site_agent.manifest.spreadsheet import plain, without_accents

MISSING_WORDS: Mapping[str, str] = {
    "programs": "na nan nat nv null nil none undefined pdna",
    "English": "nd unk unknown unknownpatient patientunknown missing empty blank notavailable notapplicable notknown "
    "notgiven notrecorded anon anonymous anonymised anonymized deidentified redacted removed withheld tba tbd todo "
    "noid noname nopatient nopatientid",
    "German": "ka oa unbek unbekannt nichtbekannt fehlt fehlend leer ohne ohneangabe ohneid keine keineangabe keineid "
    "namenlos nichtangegeben nichterfasst nichtvorhanden nichtverfugbar nichtverfuegbar anonym anonymisiert",
    "French": "inconnu inconnue nonconnu nonconnue manquant manquante vide aucun aucune absent absente nr nonrenseigne "
    "nonrenseignee nonprecise nonspecifie nonapplicable nondisponible indisponible sansid sansnom sansnumero "
    "sansidentifiant anonyme anonymise anonymisee",
    "Spanish": "sd desconocido desconocida sindato sindatos sinid sinnombre sinnumero sinidentificar sinidentificador "
    "sininformacion noinformado noinformada nodisponible noaplica noconsta nosesabe nsnc nulo nula vacio vacia "
    "faltante ninguno ninguna anonimo anonima",
    "Portuguese": "desconhecido desconhecida semdado semdados semid semnome semnumero semidentificacao "
    "seminformacao naoinformado naoinformada naodisponivel naoseaplica naoaplicavel naoconsta ignorado ignorada vazio "
    "vazia nenhum nenhuma ausente",
    "Italian": "sconosciuto sconosciuta ignoto ignota nonnoto nonnota mancante vuoto vuota nullo nulla nessuno nessuna "
    "assente senzaid senzanome senzanumero nondisponibile nonapplicabile nonspecificato nonrilevato",
    "Dutch": "nb nvt onbekend leeg ontbreekt geen nietbekend nietbeschikbaar anoniem",
}
"""how people write that a value is missing: letters only, without accents"""
_MISSING = frozenset(" ".join(MISSING_WORDS.values()).split())
SHARE_FROM = 0.05
"""of all pictures"""
PICTURES_FROM = 10
TIMES_MEDIAN_FROM = 5

_SHEET_ERROR = re.compile(r"#\D*(/0 ?!?)?|err:\d{3}")
_TWO_LETTERS = re.compile(r"[^\W\d]\s?/\s?[^\W\d]\.?")
"""N/A, S/N, n/i: a word for a missing value in any language"""
_SHORTENED = re.compile(r"\d+([.,]\d+)?e\+\d{1,3}|\d[.,]\d+e\d{1,3}")
_AS_TEXT = re.compile(r"=\"(.*)\"|'(.*)")
_WHOLE_NUMBER = re.compile(r"(\d+)[.,]0+")
_POWER_OF_TEN = re.compile(r"(\d+)e(\d{1,2})")
_SEPARATORS = frozenset("._-/\\,:;|~·•\u2212\u2043\u2800'\"‘’“”„‚«»‹›`´")
"""beside blanks and dashes of every kind"""
_FILLERS = frozenset("\u034f\u115f\u1160")
"""invisible, although Unicode calls them letters or marks"""
_LOOK_ALIKES = str.maketrans(
    "авекмнорстухіјѕαβεζηικμνορτυχı",
    "abekmhopctyxijsabezhikmnoptyxi",
)
"""Cyrillic and Greek letters, lower case, whose capitals look like Latin ones"""
_MONTHS = "jan|feb|mar|mär|mrz|apr|may|mai|jun|jul|aug|sept?|oct|okt|nov|dec|dez"
_MONTH_DATE = re.compile(rf"(\d{{1,4}}[-. ]+)?({_MONTHS})\.?[-. ]+\d{{1,4}}|\d{{1,2}}[-. ]+({_MONTHS})\.?")
_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}( .*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}( .*)?")
_CODE = re.compile(
    r"(0+|9{3,}|-\d+)([.,]0+)?|x+|test|dummy|sample|other|default|true|false|wahr|falsch|vrai|faux|"
    r"patient|patient ?id|id|name"
)


@dataclass(frozen=True, slots=True)
class Doubt:
    """An identifier that may be wrong, and why."""

    patient: str
    why: str


def complaint(identifier: str) -> str | None:
    """Return why a text is not a woman's identifier, or None."""
    text = plain(identifier)
    if is_missing(text) or _SHEET_ERROR.fullmatch(text) or _TWO_LETTERS.fullmatch(text):
        return "means a missing identifier"
    return "is a number that a spreadsheet shortened: its digits are lost" if _SHORTENED.fullmatch(text) else None


def is_missing(text: str) -> bool:
    """Return whether a text is a word for a missing value, or holds no letter and no digit."""
    letters = "".join(c for c in without_accents(plain(text)) if c.isalnum())
    return not letters or letters in _MISSING


def written_alike(identifiers: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return the sets of identifiers that are one, written in several ways (rule 1); sorted, two or more in each."""
    sets: dict[str, set[str]] = {}
    parted_as: dict[str, set[str]] = {}
    for identifier in sorted(set(identifiers)):
        parted, joined = forms(identifier)
        sets.setdefault(parted, set()).add(identifier)
        if "-" in parted:
            parted_as.setdefault(joined, set()).add(parted)
    for joined, ways in parted_as.items():
        if joined in sets and len(ways) == 1:
            sets[next(iter(ways))] |= sets.pop(joined)
    return tuple(sorted(tuple(sorted(alike)) for alike in sets.values() if len(alike) > 1))


def forms(identifier: str) -> tuple[str, str]:
    """Return what all ways of writing an identifier share: with a hyphen between digits that are apart, and without.

    Two identifiers are one if the first forms are equal, or if the first form of one is the second of the other.
    """
    text = plain(identifier)
    as_text = _AS_TEXT.fullmatch(text)
    text = (as_text[1] or as_text[2] or "") if as_text else text
    text = "".join(map(_character, _digits(text).translate(_LOOK_ALIKES)))
    parted = re.sub(r"(?<=\d)-+(?=\d)", "\x1f", text).replace("-", "").replace("\x1f", "-")
    return _without_zeros(parted), _without_zeros(text.replace("-", ""))


def _digits(text: str) -> str:
    """Return a number that a spreadsheet writes in another way (7.0, 1e5) by its digits, any other text as it is."""
    whole, power = _WHOLE_NUMBER.fullmatch(text), _POWER_OF_TEN.fullmatch(text)
    if whole:
        return whole[1]
    return power[1] + "0" * int(power[2]) if power else text


def _character(character: str) -> str:
    """Return a digit of any script as one of ours, a separator as a hyphen, anything else as it is."""
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    if character in _FILLERS:
        return ""
    separates = character in _SEPARATORS or unicodedata.category(character) in ("Zs", "Pd", "Pc")
    return "-" if separates else character


def _without_zeros(text: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)


def doubts(labels: Mapping[str, Sequence[int | None]]) -> tuple[Doubt, ...]:
    """Return the identifiers that may be wrong. `labels` are those of every identifier's pictures."""
    found = [*_large(labels), *_of_both_labels(labels), *_dates(labels), *_codes(labels)]
    return tuple(sorted(found, key=lambda doubt: (doubt.patient, doubt.why)))


def _large(labels: Mapping[str, Sequence[int | None]]) -> Iterator[Doubt]:
    pictures = [len(its) for its in labels.values()]
    total, usual = sum(pictures), statistics.median(pictures or [0])
    at_least = max(PICTURES_FROM, SHARE_FROM * total, TIMES_MEDIAN_FROM * usual)
    for patient, its in labels.items():
        if len(its) >= at_least:
            yield Doubt(patient, f"holds {len(its)} of {total} pictures; {usual:g} are usual")


def _of_both_labels(labels: Mapping[str, Sequence[int | None]]) -> Iterator[Doubt]:
    for patient, its in labels.items():
        if {0, 1} <= set(its):
            yield Doubt(patient, "has pictures labelled case and pictures labelled control")


def _dates(patients: Iterable[str]) -> Iterator[Doubt]:
    named = {patient: plain(patient) for patient in patients}
    dates = [patient for patient, text in named.items() if _DATE.fullmatch(text)]
    if len(dates) * 2 < len(named):
        yield from (Doubt(patient, "is a date, and most identifiers are not") for patient in dates)
    for patient, text in named.items():
        if _MONTH_DATE.fullmatch(text):
            yield Doubt(patient, "is a date that a spreadsheet may have made of an identifier such as 3-1")


def _codes(patients: Iterable[str]) -> Iterator[Doubt]:
    named = {patient: plain(patient) for patient in patients}
    from_0 = {"1", "2"} <= {forms(patient)[0] for patient in named}
    for patient, text in named.items():
        if _CODE.fullmatch(text) and not (from_0 and not text.strip("0")):
            yield Doubt(patient, "is a usual code for a missing value")
