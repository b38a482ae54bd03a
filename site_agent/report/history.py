"""A site's models, classifiers and reports, present and earlier ones; and the comparison of two reports.

An entry that cannot be read is listed with its error; the others are listed as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedcervix.errors import FedcervixError, ModelError
from site_agent.classifier import classifier_store
from site_agent.home import SiteHome
from site_agent.store import archive, model_store
from site_agent.store.model_store import CervixModel
from site_agent.store.provenance import Provenance, recipe_digest
from site_agent.store.report_store import RESULTS_FILE, all_reports
from site_agent.store.run_store import federation_of

SHORT = 12
"""hexadecimal digits of a digest that are shown"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the history."""

    kind: str
    """model, classifier or report"""
    place: str
    """its folder, below the home folder"""
    made_at: str = ""
    """UTC"""
    digest: str = ""
    """SHA-256 of the weights; of a report, of its test images"""
    what: str = ""
    """start, run and outcome, in words"""
    trouble: str = ""
    """why it cannot be read; empty where it can"""


def entries(home: SiteHome) -> list[Entry]:
    """Return everything that the site has made, kind by kind, oldest first; what cannot be read comes first."""
    earlier = home.folder / archive.HISTORY
    found = [
        *_read(home, "model", archive.entries(home.models, model_store.RECORD), _model),
        *_read(home, "model", archive.entries(earlier / "models", model_store.RECORD), _model),
        *_read(
            home, "classifier", archive.entries(classifier_store.folder_of(home), classifier_store.RECORD), _classifier
        ),
        *_read(home, "classifier", archive.entries(earlier / "classifiers", classifier_store.RECORD), _classifier),
        *_read(home, "report", all_reports(home.reports), _report),
    ]
    kinds = ("model", "classifier", "report")
    return sorted(found, key=lambda entry: (kinds.index(entry.kind), entry.made_at))


def _read(home: SiteHome, kind: str, places: Iterable[Path], read: Callable[[SiteHome, Path], Entry]) -> list[Entry]:
    found = []
    for place in places:
        try:
            found.append(read(home, place))
        except FedcervixError as error:
            found.append(Entry(kind=kind, place=_below(home, place), trouble=error.explain()))
    return found


def _below(home: SiteHome, place: Path) -> str:
    return str(place.relative_to(home.folder))


def _model(home: SiteHome, place: Path) -> Entry:
    model = model_store.read(place)
    what = f"{model.start}, run {model.run}{_outcome(home, model)}" if model.run else model.start
    return Entry(kind="model", place=_below(home, place), made_at=model.made_at, digest=model.digest, what=what)


def _outcome(home: SiteHome, model: CervixModel) -> str:
    """Return how the run of a model ended; nothing where this home has no record of that very plan."""
    try:
        run = federation_of(home, model.run)
        return f", {run.run_store.outcome()}" if run and run.plan.digest == model.plan_digest else ""
    except FedcervixError:
        return ""


def _classifier(home: SiteHome, place: Path) -> Entry:
    stored = classifier_store.read(place)
    made = stored.provenance
    start = f" from {made.start.origin} ({made.start.weights[:SHORT]})" if made.start.recipe else ""
    what = f"{made.label}{start}, recipe {recipe_digest(made.recipe)[:SHORT]}, seed {made.seed}"
    if stored.epsilon is not None:
        what += f", private head, epsilon {stored.epsilon:g}"
    return Entry(kind="classifier", place=_below(home, place), made_at=made.made_at, digest=made.weights, what=what)


def _report(home: SiteHome, place: Path) -> Entry:
    from site_agent.report.results import read  # with what draws figures

    found = read(place)
    run = f"run {found.run}, {found.final_state}" if found.run else "no federation"
    what = f"{run}; {', '.join(one.label for one in found.provenance)}; answer: {found.answer}"
    digest = found.provenance[0].data.test_images if found.provenance else ""
    return Entry(kind="report", place=_below(home, place), made_at=found.when, digest=digest, what=what)


# --- two reports --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is compared of one report."""

    name: str
    scores: Mapping[str, str]
    """start -> AUC, as reports print it"""
    provenance: tuple[Provenance, ...]
    women: int = 0
    """that were tested"""

    def of(self, label: str) -> Provenance | None:
        """Return what the score of a start is based on."""
        return next((one for one in self.provenance if one.label == label), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedStart:
    """One start in two reports."""

    label: str
    one: str
    """its AUC; empty where this report lacks the start"""
    other: str
    remark: str
    """what is the same and what is not"""


def compare(one: Told, other: Told) -> tuple[list[str], list[ComparedStart]]:
    """Return, in sentences, whether two reports can be compared, and the starts of both with their AUCs."""
    labels = list(dict.fromkeys([*one.scores, *other.scores]))
    rows = [
        ComparedStart(
            label=label,
            one=one.scores.get(label, ""),
            other=other.scores.get(label, ""),
            remark=_remark(one.of(label), other.of(label)),
        )
        for label in labels
    ]
    return _same_data(one, other), rows


def _same_data(one: Told, other: Told) -> list[str]:
    if not one.provenance or not other.provenance:
        return ["One report has no provenance: the two cannot be compared."]
    a, b = one.provenance[0].data, other.provenance[0].data
    if a.test_images != b.test_images:
        return ["The test images are not the same: the scores of the two reports cannot be compared."]
    if a == b:
        return ["Images, labels and splits are the same in both reports."]
    return ["The test images are the same; labels, splits or training images are not."]


def _remark(one: Provenance | None, other: Provenance | None) -> str:
    if one is None or other is None:
        return "in one report only"
    if one.weights == other.weights:
        return "the same classifier"
    differs = {
        "start": one.start.weights != other.start.weights,
        "recipe": one.recipe != other.recipe,
        "seed": one.seed != other.seed,
        "training images": one.data.learning != other.data.learning,
    }
    found = [name for name, differing in differs.items() if differing]
    return f"another {', another '.join(found)}" if found else "the same start, recipe, seed and images; other weights"


def find_report(home: SiteHome, name: str) -> Path:
    """Return the folder of a report by its name below reports/ or by its path. Raises ModelError."""
    for place in (home.reports / name, Path(name)):
        if (place / RESULTS_FILE).is_file():
            return place
    known = [place.name for place in all_reports(home.reports)]
    raise ModelError(
        f"there is no report {name}",
        cause=f"the newest ones are {', '.join(known[-3:])}" if known else "none was written yet",
        next_step=home.command("history"),
    )
