"""Which columns of a manifest are read, and which others were probably meant for one of these.

Rules
1. A name is recognised in any case, and with any invisible characters in it.
2. `label` and `split` may be missing. They may also have another name, which must be noticed. So where `label` (or
   `split`) is missing or empty everywhere, a column is an error if its name is similar, or if all its values would be
   valid for the missing column.
3. ignore_columns names the columns to ignore. Ignored columns are listed.
4. Columns of `details` are read where they are there, and so are the covariates that the site names.

Pure: values in, values or a DataError out.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fedcervix.errors import DataError
from site_agent.manifest.details import DETAIL_COLUMNS
from site_agent.manifest.identifiers import is_missing
from site_agent.manifest.spreadsheet import DELIMITERS, ManifestTable, plain, shown, without_accents

REQUIRED = ("image", "patient")
OPTIONAL = ("label", "split")
KNOWN = (*REQUIRED, *OPTIONAL, *DETAIL_COLUMNS)

NAMES: Mapping[str, re.Pattern[str]] = {
    "image": re.compile("image|file|filename|path|filepath|picture|photo|img|bild|datei|imagen|archivo|fichier"),
    "patient": re.compile(
        "patient|pid|id|identifier|mrn|subject|woman|case|person|study|participant|patientin|paciente"
    ),
    "label": re.compile(
        "label|class|target|diagnos[ei]s?|diagn[oó]stic[oa]?|truth|groundtruth|gt|annotation|outcome|result|category|"
        "y|ytrue|iscase|casecontrol|casestatus|pathology|histology|etikett|klasse|befund|ergebnis|clase|classe|etiqueta|"
        "étiquette|resultado|résultat|risultato|esito|etichetta|rótulo"
    ),
    "split": re.compile(
        "split|partition|fold|subset|dataset|set|phase|train|istrain|istest|trainvalidtest|trainvaltest|traintest|teil|"
        "aufteilung|partici[oó]n|parti[cç][aã]o|conjunto|répartition|ensemble|suddivisione|insieme"
    ),
}
"""names under which other tools keep a column, and what other languages call it"""
_TRAIN_WORDS: Final = (
    "tr|trn|train|training|entrainement|apprentissage|entrenamiento|entreno|treinamento|treino|addestramento|"
    "allenamento"
)
_HELD_OUT_WORDS: Final = (
    "va|val|valid|validation|validate|dev|development|validierung|validacion|validacao|validazione|convalida|"
    "te|tst|test|testing|teste|tests|eval|evaluation|evaluacion|avaliacao|valutazione|holdout|prueba|essai|prova"
)
_NUMBER: Final = r"[ _-]?\d*"
VALUES: Mapping[str, re.Pattern[str]] = {
    "label": re.compile(
        r"-?[01]([.,]0)?|[+-]|cases?|controls?|pos|neg|positi(v|ve?|ves|v[ao]s?|f)|negati(v|ve?|ves|v[ao]s?|f)|"
        r"y|n|t|f|yes|no|true|false|ja|nein|j|oui|non|o|si|s|sim|nao|wahr|falsch|vrai|faux|verdader[oa]|verdadeir[oa]|"
        r"vero|fals[oa]|falle?|kontrollen?|cas|temoins?|cas[oi]s?|controle?s?|controll[oi]|"
        r"normale?|abnormal|anormale?|benign[oaei]?|benin|malign[oaei]?|malignant|malin|gesund|krank|healthy|diseased|"
        r"san[oa]s?|saine?|enferm[oa]s?|malat[oaie]|malade|saudavel|doente"
    ),
    "split": re.compile(f"(({_TRAIN_WORDS})|({_HELD_OUT_WORDS}))([ _-]?(set|data|satz|daten))?{_NUMBER}"),
}
"""how people write the values of an optional column, without accents"""
_SIGNS: Final = ("+", "-")
_TRAIN: Final = re.compile(f"(?!tr{_NUMBER}$)({_TRAIN_WORDS}){_NUMBER}")
_HELD_OUT: Final = re.compile(f"(?!(va|te){_NUMBER}$)({_HELD_OUT_WORDS}){_NUMBER}")
NEAR_FROM = 0.8
"""likeness of two names (difflib's ratio) from which on one is taken for a slip of the other: `lable`, `spilt`"""


@dataclass(frozen=True, slots=True)
class Columns:
    """What every cell of a line is."""

    names: tuple[str, ...]
    """a known name or that of a covariate, or empty where the column is ignored"""
    ignored: tuple[str, ...]
    """the names of the ignored columns, as the file writes them"""
    covariates: tuple[str, ...] = ()
    """in lower case"""


def read_columns(
    table: ManifestTable, source: str, ignore: Collection[str] = (), covariates: Sequence[str] = ()
) -> Columns:
    """Return which column is which. `ignore` are names of columns that are meant to be ignored.

    Raises DataError where a required column or a covariate is missing or is to be ignored, where a known column stands
    twice, and where a column was probably meant to be `label` or `split`.
    """
    passed = {plain(name) for name in ignore}
    further = tuple(dict.fromkeys(plain(name) for name in covariates))
    _check_ignorable(passed, source)
    plainly = [plain(cell) for cell in table.header]
    read = {*KNOWN, *further} - passed
    names = tuple(name if name in read else "" for name in plainly)
    _check_once(names, source)
    _check_required(table.header, names, source)
    _check_covariates(table.header, names, further, source)
    unread = [k for k, name in enumerate(names) if not name]
    wanted = [name for name in OPTIONAL if name not in passed and not _filled(table, names, name)]
    _check_meant(table, wanted, [k for k in unread if plainly[k] not in passed], source)
    ignored = tuple(_named(table.header[k], k) for k in unread if table.header[k] or _values(table, k))
    return Columns(names, ignored, further)


def _check_ignorable(ignored: Collection[str], source: str) -> None:
    needed = [name for name in REQUIRED if name in ignored]
    if needed:
        raise DataError(
            f"{source}: column {needed[0]!r} cannot be ignored",
            cause="it is listed as a column to ignore, but no image can be used without it",
            next_step=f"take {needed[0]!r} out of ignore_columns (or leave out --ignore-column {needed[0]})",
        )


def _check_once(names: Sequence[str], source: str) -> None:
    twice = [name for name in dict.fromkeys(names) if name and names.count(name) > 1]
    if twice:
        raise DataError(
            f"{source} has two columns named {twice[0]!r}", next_step=f"keep one column {twice[0]!r} in {source}"
        )


def _check_required(header: Sequence[str], names: Sequence[str], source: str) -> None:
    missing = [name for name in REQUIRED if name not in names]
    if not missing:
        return
    found = ", ".join(map(shown, header)) if any(header) else "none: the file is empty"
    raise DataError(
        f"{source} has no column {' and no column '.join(map(repr, missing))}; columns found: {found}",
        cause=_why_missing(missing[0], [name for name in header if plain(name) not in KNOWN]),
        next_step=f"the first line of {source} must name image, patient and, where known, label and split",
    )


def _check_covariates(header: Sequence[str], names: Sequence[str], covariates: Sequence[str], source: str) -> None:
    """Raise DataError where a covariate is a column that is read anyway, or is not there."""
    known = [name for name in covariates if name in KNOWN]
    missing = [name for name in covariates if name not in names]
    if not known and not missing:
        return
    what = f"{source}: column {shown((known or missing)[0])} cannot be a covariate"
    cause = (
        "it has a meaning of its own, and is read without being named"
        if known
        else f"columns found: {', '.join(map(shown, header))}"
    )
    raise DataError(
        what if known else f"{source} has no column {shown(missing[0])}, which covariates names",
        cause=cause,
        next_step=f"{'remove it from' if known else 'correct'} covariates in table [data] of site.toml",
    )


def _why_missing(missing: str, others: Sequence[str]) -> str:
    if any(mark in name for name in others for mark in DELIMITERS):
        return "each line is in quotation marks as one cell: the file was exported twice"
    meant = [name for name in others if _near(name, missing)]
    if meant:
        return f"column {shown(meant[0])} was probably meant to be {missing!r}"
    return "the columns have other names, or the header line is missing"


def _filled(table: ManifestTable, names: Sequence[str], name: str) -> bool:
    return name in names and bool(_values(table, names.index(name)))


def _check_meant(table: ManifestTable, wanted: Sequence[str], unread: Sequence[int], source: str) -> None:
    """Raise DataError where an unread column was probably meant to be one of the wanted ones."""
    filled = {k: values for k in unread if (values := _values(table, k))}
    meant = {k: found for k, values in filled.items() if (found := _meant(table.header[k], values, wanted))}
    if not meant:
        return
    listed = [f"{_named(table.header[k], k)} may be meant as {what!r}: {why}" for k, (what, why) in meant.items()]
    first = next(iter(meant))
    name, known = table.header[first] or "NAME", meant[first][0]
    raise DataError(
        f"{source}: column {'; column '.join(listed)}",
        cause=f"fedcervix reads {', '.join(KNOWN)} and no other column; {known!r} is missing or empty",
        next_step=f"rename the column to {known!r} in {source}; if it is something else: --ignore-column "
        f"{shlex.quote(name)} (data check, join), or ignore_columns = [{_quoted(name)}] in table [data] of site.toml",
    )


def _meant(name: str, values: Collection[str], wanted: Sequence[str]) -> tuple[str, str] | None:
    """Return (the known column that this one was probably meant to be, why), or None."""
    by_name = [(known, "its name is similar") for known in wanted if _near(name, known)]
    by_values = [(known, f"its values are {_some(values)}") for known in wanted if _are_of(values, known)]
    return next(iter([*by_name, *by_values]), None)


def _are_of(values: Collection[str], known: str) -> bool:
    """Return whether the values are those of a known column. A split may have further ones: `excluded`."""
    bare = [without_accents(value) for value in values]
    if known == "split" and any(map(_TRAIN.fullmatch, bare)) and any(map(_HELD_OUT.fullmatch, bare)):
        return True
    given = [value for value in bare if value in _SIGNS or not is_missing(value)]
    if len(given) == 1 and given[0].isalpha() and len(given[0]) == 1:
        return False  # F alone is a sex, not a class
    return bool(given) and all(VALUES[known].fullmatch(value) for value in given)


def _near(name: str, known: str) -> bool:
    words = [word for word in re.split(r"[\W\d_]+", plain(name)) if word]
    tried = {"".join(words), *(word for word in words if len(word) > 1)}
    tried |= {word.removesuffix("s") for word in tried}
    return any(NAMES[known].fullmatch(word) or _slip(word, known) for word in tried)


def _slip(word: str, known: str) -> bool:
    return difflib.SequenceMatcher(None, word, known).ratio() >= NEAR_FROM


def _values(table: ManifestTable, column: int) -> set[str]:
    """Return the different values of a column that are not empty."""
    found = {record.cells[column] for record in table.records if len(record.cells) > column}
    return {plain(cell) for cell in found} - {""}


def _some(values: Collection[str]) -> str:
    return ", ".join(map(repr, sorted(values)[:3]))


def _named(cell: str, column: int) -> str:
    return shown(cell) if cell else f"number {column + 1}, which has no name"


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
