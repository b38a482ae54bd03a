"""Three checklists of reporting, filled in as far as the study's own records know: TRIPOD+AI, CLAIM 2024, STARD-AI.

Rules
1. An item's number is the published one; its topic is said in our own few words. Authors take the wording from the
   published list.
2. What is filled in comes from the study's files, and says where the report has it. Nothing is guessed: an item that no
   file answers stays empty, for the authors.
3. A filled item is a draft. Whether it is enough is for authors and reviewers to say.

    TRIPOD+AI: Collins et al., BMJ 385:e078378 (2024)
    CLAIM 2024: Tejani et al., Radiol Artif Intell 6:e240300 (2024)
    STARD-AI: Sounderajah et al., Nat Med 31:3283 (2025)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from cervix_study.analysis.findings import StudyFindings
from fedcervix.core.plan import Recipe
from site_agent.classifier.intervals import WOMEN_MIN
from site_agent.report.answer import counted, listed
from site_agent.starts import title

OPEN = ""
"""an item that only the authors can answer"""


@dataclass(frozen=True, slots=True)
class Checklist:
    """One published list: its name, its source, and its items as (number, topic, key of `facts`)."""

    name: str
    source: str
    items: tuple[tuple[str, str, str], ...]


TRIPOD = Checklist(
    "TRIPOD+AI (2024)",
    "Collins et al., BMJ 385:e078378 (2024), doi 10.1136/bmj-2023-078378; 27 items in 52 rows",
    (
        ("1", "title", "title"),
        ("2", "abstract", OPEN),
        ("3a", "healthcare context, existing models", OPEN),
        ("3b", "target population, purpose, users", OPEN),
        ("3c", "known health inequalities", OPEN),
        ("4", "objectives", "questions"),
        ("5a", "sources of data, representativeness", "sites"),
        ("5b", "dates of the data", OPEN),
        ("6a", "setting, centres", OPEN),
        ("6b", "eligibility", OPEN),
        ("6c", "treatments", OPEN),
        ("7", "preprocessing, quality checks", "preprocessing"),
        ("8a", "outcome: definition, when assessed", OPEN),
        ("8b", "outcome: assessors", OPEN),
        ("8c", "outcome: blinding", OPEN),
        ("9a", "choice of predictors", "input"),
        ("9b", "definition of predictors", "input"),
        ("9c", "assessors of predictors", "no_assessors"),
        ("10", "sample size", "sample_size"),
        ("11", "missing data", "missing"),
        ("12a", "use and partition of the data", "partition"),
        ("12b", "handling of predictors", "preprocessing"),
        ("12c", "type of model, building, tuning, internal validation", "training"),
        ("12d", "differences between clusters", "by_site"),
        ("12e", "measures and plots of performance", "measures"),
        ("12f", "model updating", "no_updating"),
        ("12g", "how predictions were calculated", "predictions"),
        ("13", "class imbalance", "imbalance"),
        ("14", "fairness", OPEN),
        ("15", "output, thresholds", "thresholds"),
        ("16", "differences of development and evaluation data", "same_source"),
        ("17", "ethical approval, consent", OPEN),
        ("18a", "funding", OPEN),
        ("18b", "conflicts of interest", OPEN),
        ("18c", "protocol", "protocol"),
        ("18d", "registration", OPEN),
        ("18e", "data sharing", OPEN),
        ("18f", "code sharing", "software"),
        ("19", "patients and public", OPEN),
        ("20a", "flow of participants", "flow"),
        ("20b", "characteristics of participants", "counts_only"),
        ("20c", "comparison with the development data", "counts_only"),
        ("21", "numbers in each analysis", "flow"),
        ("22", "full model", "model"),
        ("23a", "performance with intervals, subgroups", "performance"),
        ("23b", "differences between clusters: results", "by_site"),
        ("24", "results of updating", "no_updating"),
        ("25", "interpretation", OPEN),
        ("26", "limitations", "limits"),
        ("27a", "poor or missing input in use", OPEN),
        ("27b", "users' part and expertise", OPEN),
        ("27c", "next steps", OPEN),
    ),
)

CLAIM = Checklist(
    "CLAIM (2024 update)",
    "Tejani et al., Radiol Artif Intell 6:e240300 (2024), doi 10.1148/ryai.240300; 44 items",
    (
        ("1", "title: AI, its kind", "title"),
        ("2", "abstract", OPEN),
        ("3", "background, intended use", OPEN),
        ("4", "aims, hypotheses", "questions"),
        ("5", "prospective or retrospective", OPEN),
        ("6", "goal", "questions"),
        ("7", "data sources", "sites"),
        ("8", "inclusion, exclusion", OPEN),
        ("9", "preprocessing", "preprocessing"),
        ("10", "subsets of data", "missing"),
        ("11", "de-identification", OPEN),
        ("12", "missing data", "missing"),
        ("13", "image acquisition", OPEN),
        ("14", "reference standard: definition", OPEN),
        ("15", "reference standard: rationale", OPEN),
        ("16", "annotators", OPEN),
        ("17", "annotation of the test set", OPEN),
        ("18", "variability of annotation", OPEN),
        ("19", "assignment to partitions", "partition"),
        ("20", "level at which partitions are disjoint", "partition"),
        ("21", "intended sample size", "sample_size"),
        ("22", "model", "model"),
        ("23", "software", "software"),
        ("24", "initialisation", "starts"),
        ("25", "training", "training"),
        ("26", "selection of the model", "selection"),
        ("27", "ensembles", "ensemble"),
        ("28", "measures of performance", "measures"),
        ("29", "uncertainty, tests", "uncertainty"),
        ("30", "robustness", "robustness"),
        ("31", "explainability", "no_maps"),
        ("32", "internal testing", "flow"),
        ("33", "external testing", "same_source"),
        ("34", "trial registration", OPEN),
        ("35", "numbers included and excluded", "flow"),
        ("36", "demographics of partitions", "counts_only"),
        ("37", "performance", "performance"),
        ("38", "accuracy with intervals", "performance"),
        ("39", "failures", OPEN),
        ("40", "limitations", "limits"),
        ("41", "implications for practice", OPEN),
        ("42", "protocol", "protocol"),
        ("43", "availability of software, model, data", "software"),
        ("44", "funding", OPEN),
    ),
)

STARD = Checklist(
    "STARD-AI (2025)",
    "Sounderajah et al., Nat Med 31:3283 (2025), doi 10.1038/s41591-025-03953-8; 40 items in 48 rows",
    (
        ("1", "title", "title"),
        ("2", "abstract", OPEN),
        ("3", "background, intended use, workflow", OPEN),
        ("4", "objectives, hypotheses", "questions"),
        ("5", "prospective or retrospective", OPEN),
        ("6", "ethics approval", OPEN),
        ("7", "eligibility of participants and of data", OPEN),
        ("8", "how participants were identified", OPEN),
        ("9", "setting, dates", OPEN),
        ("10", "consecutive, random or convenience series", OPEN),
        ("11", "source of the data", "sites"),
        ("12", "annotation: who and how", OPEN),
        ("13", "devices; software of the index test", "software"),
        ("14", "acquisition, preprocessing", "preprocessing"),
        ("15a", "index test", "model"),
        ("15b", "development of the index test", "training"),
        ("15c", "cut-offs of the index test", "thresholds"),
        ("15d", "end user", OPEN),
        ("16a", "reference standard", OPEN),
        ("16b", "reference standard: rationale", OPEN),
        ("16c", "reference standard: cut-offs", OPEN),
        ("17a", "what readers of the index test knew", "blind_index"),
        ("17b", "what assessors of the reference standard knew", OPEN),
        ("18", "statistical methods", "uncertainty"),
        ("19", "indeterminate results", "indeterminate"),
        ("20", "missing data", "missing"),
        ("21", "variability of accuracy", "robustness"),
        ("22", "sample size", "sample_size"),
        ("23", "errors, bias, fairness: methods", OPEN),
        ("24", "flow of participants", "flow"),
        ("25", "characteristics of training, validation and test sets", "counts_only"),
        ("26a", "severity of disease", OPEN),
        ("26b", "alternative diagnoses", OPEN),
        ("27", "time between tests", OPEN),
        ("28", "whether test sets are like the intended population", OPEN),
        ("29", "differences of an external test set", "same_source"),
        ("30", "cross-tabulation", "cross_table"),
        ("31", "accuracy and its precision", "performance"),
        ("32", "adverse events", OPEN),
        ("33", "limitations", "limits"),
        ("34", "implications for practice", OPEN),
        ("35", "ethics, fairness", OPEN),
        ("36", "registration", OPEN),
        ("37", "protocol", "protocol"),
        ("38", "funding", OPEN),
        ("39", "commercial interests", OPEN),
        ("40a", "availability of data and code", "software"),
        ("40b", "outputs stored, open to audit", "audit"),
    ),
)

CHECKLISTS = (TRIPOD, CLAIM, STARD)


def facts(findings: StudyFindings) -> Mapping[str, str]:
    """Return what the study's files say, by key: a sentence or two each, naming the section of the report."""
    return {**_of_data(findings), **_of_training(findings), **_ALWAYS}


def _of_data(findings: StudyFindings) -> Mapping[str, str]:
    study = findings.study
    unread = counted(sum(q.unreadable for q in findings.quarantine), "image")
    squares = (
        f"squares of {r.image_px} pixels ({r.fit}), stages {listed(r.stages) if r.stages else 'all'}, "
        f"crop to the cervix: {r.roi}, harmonised colours: {r.harmonise}"
        for r in _recipes(findings)
    )
    return {
        "title": f"Study {study.name}: deep learning (ways to start a classifier of cervix images), measured by AUC.",
        "questions": _questions(findings),
        "sites": f"{counted(len(study.sites), 'site')}: {listed([s.name for s in study.sites])}{_phantoms(findings)}. "
        "Their origin is not in the study's files.",
        "preprocessing": f"{_by_profile(findings, squares)}. Unreadable images are set aside; images that look alike "
        "under several women are found.",
        "input": "The image alone; no other predictor.",
        "no_assessors": "None: the pixels are the predictors.",
        "sample_size": "No sample size was fixed in the study's files. Report, “McNemar's and DeLong's tests of every "
        "comparison”: the difference that these women could show.",
        "missing": f"{unread} could not be read; women without a label train no classifier and are not tested. "
        "Nothing is imputed. Report, “The data (Table I)”.",
        "partition": f"{_partition(findings)} By woman: no woman is in two parts.",
        "same_source": _same_source(findings),
        "flow": "Report, “The data (Table I)”: women and images of each part and class.",
        "counts_only": "Women and images of each part: report, “The data (Table I)”. Age and other characteristics are "
        "not in the study's files.",
        "protocol": _protocol(findings),
    }


def _of_training(findings: StudyFindings) -> Mapping[str, str]:
    study = findings.study
    seeds, controls = listed([str(seed) for seed in study.axes.seeds]), study.axes.controls
    weights = ("reverse class weights" if r.classifier.reverse_class_weights else "none" for r in _recipes(findings))
    networks = (f"{r.architecture}, width {r.width}" for r in _recipes(findings))
    return {
        "training": "STUDY.toml and “Every cell” in the report: recipe, seeds, epochs and versions of each training.",
        "selection": "By validation loss; test images were opened for chosen rows. Report, “What was chosen, and by "
        "what”.",
        "ensemble": _ensemble(findings),
        "robustness": f"Seeds: {seeds}; folds: {study.axes.folds or 'none'}; devices left out: "
        f"{listed(study.axes.leave_out_devices) if study.axes.leave_out_devices else 'none'}; "
        f"controls: {listed(controls) if controls else 'none'}.",
        "imbalance": f"{_by_profile(findings, weights)}. Probabilities are not recalibrated.",
        "indeterminate": _zones(findings),
        "predictions": "predictions.csv of each cell; a model is exported with `cervix-study export`.",
        "no_updating": "None.",
        "software": listed([f"{name} {version}" for name, version in sorted(study.versions.items())]) + ".",
        "model": f"{_by_profile(findings, networks)}. `cervix-study export` writes weights and a model card.",
        "starts": f"{listed([title(start) for start in study.axes.starts])}.",
    }


_ALWAYS: Mapping[str, str] = {
    "by_site": "Every table is by site; sites are not pooled.",
    "measures": "AUC, accuracy, recall, precision, F1, Brier score, calibration (ECE, reliability), ROC curves; by "
    "woman: sensitivity and specificity at wanted shares.",
    "uncertainty": f"95 % intervals by woman, by seed and fold; none with fewer than {WOMEN_MIN} women of a class. "
    "Verdicts are corrected for their number. Shuffled labels beside every small AUC. docs/statistics.md has the "
    "methods.",
    "thresholds": ".5, as published, and the best balance on validation images; by woman, for wanted shares. "
    "Report, “How well each start does (Table II)” and “By woman”.",
    "performance": "Report, “How well each start does (Table II)”, “By woman” and “ROC curves (Fig. 2)”, with "
    "intervals. Subgroups: not in the study; a site's clinical page has them.",
    "cross_table": "predictions.csv of each cell has every image; a site's own report has the counts.",
    "no_maps": "None in the study; `site-agent evaluate --look` draws maps at a site.",
    "limits": "The answer at the top of the report lists what limits these results.",
    "blind_index": "The network sees the pixels alone; labels of test images are read after scoring.",
    "audit": "Every prediction and cell is stored, with SHA-256 digests of weights and data (“Provenance”).",
}
"""what holds for every study"""


def _recipes(findings: StudyFindings) -> list[Recipe]:
    return [used.recipe for used in findings.study.profiles.values()]


def _by_profile(findings: StudyFindings, said: Iterable[str]) -> str:
    return "; ".join(f"{name}: {words}" for name, words in zip(findings.study.profiles, said, strict=True))


def _phantoms(findings: StudyFindings) -> str:
    drawn = [site.name for site in findings.study.sites if site.phantom]
    return f" ({listed(drawn)}: drawn pictures, no patients)" if drawn else ""


def _questions(findings: StudyFindings) -> str:
    registered = findings.study.registered
    if registered is None or not registered.hypotheses:
        return (
            "Report, “The paper's claims in this data”: each question with its comparison. None was written down first."
        )
    return f"Hypotheses, in order: {listed([one.name for one in registered.hypotheses])}."


def _protocol(findings: StudyFindings) -> str:
    registered = findings.study.registered
    if registered is None:
        return "STUDY.toml, in the report (“Provenance”)."
    when = "after a test part was open" if registered.after_opening else "before any test part was opened"
    return f"STUDY.toml, SHA-256 {registered.file[:12]}, written down {registered.at[:10]}, {when}."


def _same_source(findings: StudyFindings) -> str:
    if findings.study.axes.leave_out_devices:
        return (
            "Each classifier is tested on women of a device that it has not learned from, at the site that trained it."
        )
    return "Each classifier is tested on women of the site that trained it: there is no external test."


def _partition(findings: StudyFindings) -> str:
    folds, devices = findings.study.axes.folds, findings.study.axes.leave_out_devices
    if devices:
        return f"The women of each of {len(devices)} devices in turn are tested, and train nothing: {listed(devices)}."
    return f"Cross-validation of {folds} folds." if folds else "One division into training, validation and test women."


def _ensemble(findings: StudyFindings) -> str:
    many = [(name, used.recipe.classifier.trainings) for name, used in findings.study.profiles.items()]
    said = [f"{name}: mean probability of {count} trainings" for name, count in many if count > 1]
    return f"{'; '.join(said)}." if said else "None."


def _zones(findings: StudyFindings) -> str:
    errors = [(name, used.recipe.classifier.zone_error) for name, used in findings.study.profiles.items()]
    said = [f"{name}: conformal zone, permitted error {error:g}" for name, error in errors if error]
    return f"{'; '.join(said)}." if said else "No indeterminate result is possible: every image has a probability."


def sheets(findings: StudyFindings) -> str:
    """Return checklists.md: every list as a table, empty where the authors have to answer."""
    return "\n".join(_lines(findings))


def _lines(findings: StudyFindings) -> Iterator[str]:
    known = facts(findings)
    yield f"# Checklists of study {findings.study.name}"
    yield ""
    yield "Filled in from the study's own files, as a draft. **An empty answer is for the authors.** Topics are short"
    yield "names of ours: the wording of each item is in the published list."
    for found in CHECKLISTS:
        filled = sum(bool(key) for _, _, key in found.items)
        yield from ("", f"## {found.name}", "", f"{found.source}. Filled in: {filled} of {len(found.items)} rows.", "")
        yield from ("| item | topic | answer |", "|---|---|---|")
        yield from _rows(found.items, known)
    yield ""


def _rows(items: Iterable[tuple[str, str, str]], known: Mapping[str, str]) -> Iterator[str]:
    for number, topic, key in items:
        yield f"| {number} | {topic} | {known[key].replace('|', ' ') if key else ''} |"
