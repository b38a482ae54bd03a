"""The papers that show what happened: agreements, egress, audits, identity."""

from __future__ import annotations

import json
from collections.abc import Iterator

from fedcervix.trust.ledger_verdict import sentences
from site_agent.dossier.facts import Facts, RunFacts
from site_agent.dossier.papers import Paper, PaperCell, Section, questions, table
from site_agent.store.audit_sheets import AuditSheet, verdict
from site_agent.store.egress_account import RunAccount

DIGITS = 16
"""of a digest or signature that are shown; the files hold all"""


def agreements(facts: Facts) -> Paper:
    """Return the plans, who has accepted them, and whether the signed ledger holds."""
    sections = [section for run in facts.runs for section in _agreement(run, facts)]
    none = Section("No run yet", ("This site has taken part in no run.",))
    lead = (
        "What this site has agreed to, and who has signed it. The plan and the signed ledger of each run lie in runs/."
    )
    return Paper("agreements.html", "Plans and approvals", lead, tuple(sections) or (none,))


def _agreement(run: RunFacts, facts: Facts) -> Iterator[Section]:
    plan = run.plan
    yield questions(
        f"Run {run.run}",
        (
            ("sites", ", ".join(plan.sites)),
            ("mode", plan.mode),
            ("rounds, at most", str(plan.rounds_max)),
            ("epochs of a round", str(plan.terms.epochs_per_round)),
            ("secure sums: the coordinator reads no single update", "yes" if plan.terms.secure_sum else "no"),
            ("sealed ring: the coordinator reads no model", "yes" if plan.terms.sealed else "no"),
            ("network", f"{plan.recipe.architecture}, images of {plan.recipe.image_px} px"),
            ("SHA-256 of the plan", plan.digest),
            ("rounds that this site trained", str(run.rounds)),
            ("how it ended", run.outcome),
            ("approved at this site by", ""),
        ),
    )
    if run.ledger is None:
        yield Section("Approvals", ("There is no signed ledger of this run: an earlier version was installed.",))
        return
    fault = f"The signed ledger does not hold: {run.ledger.fault}."
    said = (fault,) if run.ledger.fault else tuple(sentences(run.ledger))
    yield table(
        f"Approvals of the plan of run {run.run}",
        ("site", "signed record (SHA-256)", "signature", "key compared by people"),
        [(one.site, one.record[:DIGITS], one.signature[:DIGITS], _compared(one.site, facts)) for one in run.approvals],
        *said,
        "Each signature covers the run and the digest of the plan. To check them: site-agent verify, offline.",
    )


def _compared(site: str, facts: Facts) -> str:
    return "this site" if site == facts.site else "yes" if site in facts.pins else "no"


def egress(facts: Facts) -> Paper:
    """Return what has left this site."""
    lead = (
        "Everything that the agent sent, by its egress ledger; not what people carried away as files. An entry is on "
        "the disk before the first byte leaves. A file is a model; with secure sums it is a masked update, or the "
        "masks of a round; in a sealed ring an encrypted model. All entries are in egress.json."
    )
    if facts.egress_fault:
        fault = f"The egress ledger does not hold: {facts.egress_fault}. Nothing below can be relied on."
        return Paper("egress.html", "Egress manifest", lead, (Section("It does not hold", (fault,)),))
    end = facts.egress.end
    rows = [_left(account) for account in facts.egress.runs()]
    until = (
        f"It covers {end.entries} entries; the last one has the hash {end.hash}." if end.entries else "Nothing left."
    )
    head = ("run", "files", "reports", "bytes, at most", "to")
    return Paper("egress.html", "Egress manifest", lead, (table("By run", head, rows, until),))


def _left(account: RunAccount) -> tuple[str, ...]:
    reports = ", ".join(f"{count} {what}" for what, count in sorted(account.reports.items()))
    return (
        account.run or "outside of runs",
        str(len(account.models)),
        reports or "none",
        f"{sum(one.bytes for one in account.departures):,}",
        ", ".join(sorted({one.to for one in account.departures})),
    )


def egress_json(facts: Facts) -> str:
    """Return every thing that left, for programs."""
    listed = [
        {
            "entry": one.entry,
            "kind": one.kind,
            "what": one.what,
            "at_unix_s": one.at,
            "to": one.to,
            "run": one.run,
            "task": one.task,
            "bytes": one.bytes,
            "bytes_exact": one.is_exact,
            "sha256": one.digest,
        }
        for one in facts.egress.departures
    ]
    return json.dumps({"fault": facts.egress_fault, "left": listed}, indent=1, allow_nan=False) + "\n"


def audits(facts: Facts) -> Paper:
    """Return what updates tell about who was trained on."""
    lead = "What somebody who holds an update of this site could find out about who was trained on."
    sections = [_audit(run, sheet) for run, sheet in facts.audits]
    none = Section(
        "No audit yet", ("No update was audited. site-agent audit makes one; [policy] audit_max_auc each time.",)
    )
    return Paper("audit.html", "Audit of updates", lead, tuple(sections) or (none,))


def _audit(run: str, sheet: AuditSheet) -> Section:
    rows = [
        (
            one.words,
            f"{one.auc:.2f} ({one.auc_low:.2f} to {one.auc_high:.2f})",
            f"{one.found:.0%} ({one.found_low:.0%} to {one.found_high:.0%})",
        )
        for one in sheet.attacks
    ]
    women = f"{sheet.training_women} training women and {sheet.other_women} test women, {sheet.images} images"
    head = ("sign of a woman who was trained on", "AUC; .5 is guessing", "found at 1 % false alarms")
    return table(
        f"Run {run}, round {sheet.round}",
        head,
        rows,
        f"{verdict(sheet)[:1].upper()}{verdict(sheet)[1:]}.",
        f"Tried on {women}.",
    )


def identity(facts: Facts) -> Paper:
    """Return whose key this site has, and which keys of partners were compared."""
    partners = [
        (one, "yes" if one in facts.pins else "no", PaperCell()) for one in sorted({*facts.partners, *facts.pins})
    ]
    return Paper(
        "identity.html",
        "Keys and partners",
        "Connections are encrypted and both ends prove who they are (mutual TLS). A pinned key was compared by people.",
        (
            questions(
                "This site",
                (
                    ("name", facts.site),
                    ("federation", facts.federation),
                    ("fingerprint of its key", facts.fingerprint),
                    ("coordinator", facts.coordinator),
                    ("responsible for the key", ""),
                ),
            ),
            table("Partners", ("site", "key compared", "compared by, and when"), partners),
        ),
    )
