"""The papers that the law asks for, prefilled: impact assessment, record of processing, register of who holds what."""

from __future__ import annotations

from site_agent.dossier.facts import Facts
from site_agent.dossier.papers import Paper, Section, questions, table
from site_agent.store.audit_sheets import held_back, verdict

PURPOSE = (
    "research: a model that finds signs of disease in images of the cervix, trained together with other hospitals, "
    "without images leaving any of them"
)
COPY = "Fill it in on a copy or on paper: site-agent dossier writes this file again."

REGISTER = (
    ("images, manifest with identifiers and labels", "this site", "as the site decides; fedcervix reads them in place"),
    ("decoded images (cache/)", "this site", "may be deleted at any time"),
    ("splits of the women (splits.csv)", "this site", "as long as test scores are to be valid"),
    ("keyed digests of the women of a model (women.json)", "this site", "as long as the model"),
    (
        "models and classifiers (models/, classifiers/)",
        "this site",
        "until a person deletes them; earlier ones in history/",
    ),
    ("reports, with images and identifiers (reports/)", "this site", "until a person deletes them"),
    ("history and signed ledger of a run (runs/)", "this site", "until a person deletes them"),
    ("what has left (egress.jsonl)", "this site", "never deleted by the software"),
    ("what this site has signed in secure sums (sums.jsonl)", "this site", "never deleted by the software"),
    ("secrets of a run (secrets/)", "this site", "until the run ends; in no backup"),
    (
        "this site's update of a round (with secure sums masked, in a sealed ring encrypted)",
        "coordinator",
        "until the rounds that need it are over; then deleted automatically",
    ),
    ("average of a round", "coordinator and all sites of the run", "until no round needs it; the result stays"),
    ("result of a run, record, signed ledger", "coordinator and all sites of the run", "until a person deletes them"),
    (
        "counts of images, losses, gauges, durations",
        "coordinator and all sites of the run",
        "with the record and the ledger",
    ),
    ("private-head.json", "whoever this site gives it to", ""),
)
"""(what, who holds it, how long)"""


def register(facts: Facts) -> Paper:
    """Return who holds what, and how long."""
    rows = [(*row, "") for row in REGISTER]
    others = ", ".join(facts.partners) or "none known yet"
    said = f"Coordinator: {facts.coordinator or 'not named yet'}. Other sites: {others}."
    head = ("what", "who holds it", "how long", "agreed otherwise")
    return Paper(
        "register.html",
        "Who holds what, how long",
        "Where the data lie, and how long. No image and no identifier of a patient leaves this site.",
        (table("Register", head, rows, said, COPY),),
    )


def record_of_processing(facts: Facts) -> Paper:
    """Return the record of processing activities (GDPR, Article 30)."""
    return Paper(
        "record-of-processing.html",
        "Record of processing",
        "Record of processing activities by Article 30 of Regulation (EU) 2016/679, prefilled. " + COPY,
        (
            questions(
                "Responsible",
                (
                    ("controller, and contact", ""),
                    ("joint controllers", ""),
                    ("data protection officer", ""),
                    ("legal basis (Articles 6 and 9)", ""),
                ),
            ),
            questions(
                "Processing",
                (
                    ("purpose", PURPOSE),
                    ("data subjects", f"women in cervical screening: {_counted(facts)}"),
                    ("categories of data", "images of the cervix; identifiers and labels of the manifest; health data"),
                    ("recipients", _recipients(facts)),
                    (
                        "what recipients receive",
                        "model weights, counts, losses and signed reports; no image and no identifier",
                    ),
                    ("transfers to third countries", ""),
                    ("time limits for erasure", "see: Who holds what, how long"),
                    ("security measures (Article 32)", "see: Keys and partners; Control map"),
                ),
            ),
        ),
    )


def impact_assessment(facts: Facts) -> Paper:
    """Return the data protection impact assessment (GDPR, Article 35)."""
    return Paper(
        "dpia.html",
        "Impact assessment",
        "Data protection impact assessment by Article 35(7) of Regulation (EU) 2016/679, prefilled with what is known "
        "at this site. " + COPY,
        (_description(facts), _necessity(), _risks(facts), _decision()),
    )


def _description(facts: Facts) -> Section:
    terms = {run.plan.mode for run in facts.runs}
    return questions(
        "1. Description of the processing",
        (
            ("site, federation", ", ".join(filter(None, (facts.site, facts.federation)))),
            ("women", _counted(facts)),
            ("runs", f"{len(facts.runs)}" + (f" ({', '.join(sorted(terms))})" if terms else "")),
            ("rounds that this site trained", str(sum(run.rounds for run in facts.runs))),
            ("recipients", _recipients(facts)),
            ("where the images are", "at this site; they are read on its own machines only"),
            ("nature, scope and context beyond this", ""),
        ),
    )


def _necessity() -> Section:
    return questions(
        "2. Necessity and proportionality",
        (
            ("why federated", "the images need not be copied to another place"),
            ("minimisation", "only weights and numbers leave; the message is a fixed list of fields"),
            ("why these women, and no fewer", ""),
            ("information of the women, and their rights", ""),
        ),
    )


def _risks(facts: Facts) -> Section:
    policy = facts.policy
    hold = (
        "no update is held back"
        if policy.audit_max_auc == 1
        else f"an update above AUC {policy.audit_max_auc:g} is held back"
    )
    sums, seals = (sum(getattr(run.plan.terms, key) for run in facts.runs) for key in ("secure_sum", "sealed"))
    hidden = f"hidden from it in {sums + seals} of {len(facts.runs)} runs (secure sums: {sums}, sealed ring: {seals})"
    rows = (
        (
            "Somebody with a model finds out that a woman was trained on",
            f"audit of updates: {hold}. {_worst(facts)}",
            "",
        ),
        ("The coordinator reads this site's update", hidden, ""),
        (
            "The coordinator invents a partner",
            f"pins: {len(facts.pins)} of {len({*facts.partners, *facts.pins})} partners compared by people",
            "",
        ),
        ("The past is changed", f"signed ledger: {_ledgers(facts)}", ""),
        ("More leaves than is known", "every departure is written down before it leaves (egress manifest)", ""),
        ("A machine is stolen", "files are readable by their owner only; encryption of the disk is up to the site", ""),
        ("A classifier that is given away tells who was labelled", _private(facts), ""),
    )
    head = ("risk", "measure, as it is set here", "residual risk, as judged")
    return table(
        "3. Risks and measures", head, rows, "A model that was trained on images of patients is not anonymous."
    )


def _decision() -> Section:
    asked = (
        "advice of the data protection officer",
        "views of the women or their representatives",
        "prior consultation (Article 36) needed",
        "decision, name, date, signature",
        "next review",
    )
    return questions("4. Decision", [(one, "") for one in asked])


def _counted(facts: Facts) -> str:
    """Return how many women there are, by what each part is for."""
    for_what = {"train": "trained on", "valid": "to choose", "test": "to test"}
    parts = [f"{facts.women[split]} {words}" for split, words in for_what.items() if facts.women.get(split)]
    return f"{sum(facts.women.values())} patients ({', '.join(parts)})" if parts else ""


def _recipients(facts: Facts) -> str:
    coordinator = f"coordinator {facts.coordinator}" if facts.coordinator else ""
    others = f"sites {', '.join(facts.partners)}" if facts.partners else ""
    return "; ".join(filter(None, (coordinator, others)))


def _worst(facts: Facts) -> str:
    """Return what the audit with the highest lower end says."""
    told = [sheet for _, sheet in facts.audits if sheet.strongest]
    if not told:
        return "No audit could tell yet" if facts.audits else "No audit yet"
    worst = max(told, key=lambda sheet: sheet.strongest.auc_low if sheet.strongest else 0.0)
    kept = "; it is held back" if held_back(worst, facts.policy.audit_max_auc) else ""
    return f"Worst of {len(told)}: {verdict(worst)}{kept}"


def _ledgers(facts: Facts) -> str:
    kept = [run.ledger for run in facts.runs if run.ledger is not None]
    return f"{sum(not one.fault for one in kept)} of {len(kept)} hold" if kept else "none yet"


def _private(facts: Facts) -> str:
    classifiers = [one for one in facts.models if one.is_classifier]
    private = [one for one in classifiers if one.epsilon is not None]
    return f"{len(private)} of {len(classifiers)} classifiers have a private head; others must stay here"
