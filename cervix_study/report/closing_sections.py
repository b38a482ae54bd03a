"""The last sections: costs, the meaning of words, and the source of every number."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from cervix_study.analysis.findings import CellLine, CostLine, StudyFindings
from cervix_study.records import Axes
from cervix_study.report.document import (
    Block,
    Code,
    Column,
    Details,
    Glossary,
    Heading,
    Table,
    TableCell,
    Text,
    cells,
    columns,
    left,
)
from cervix_study.report.wording import NOTHING, energy, seconds, size
from site_agent.classifier.intervals import FOLD_WOMEN_MIN, MOVERS_MIN, TRAININGS_MIN, WOMEN_MIN
from site_agent.report.answer import counted, listed

DIGEST_SHOWN = 12


def costs(findings: StudyFindings) -> Iterable[Block]:
    """Yield time, bytes and energy."""
    yield Heading("What it cost")
    time, network = Column("time", "elapsed, added up"), Column("on the network", "both ways, all sites")
    memory = Column("memory", "largest process")
    heads = columns("what", left("profile"), "cells", time, "of all processors", network, memory, "energy")
    rows = tuple(_cost(line) for line in findings.costs)
    yield Table(heads, rows, "Time, bytes, memory and energy")
    total = sum(line.seconds for line in findings.costs)
    yield Text(
        f"{counted(sum(line.cells for line in findings.costs), 'cell')}, {seconds(total)} in all (cells may have run "
        "at the same time). Energy is that of the whole processor package while a cell ran, other programs "
        f"included; {NOTHING}: it could not be read.",
        quiet=True,
    )


def _cost(line: CostLine) -> tuple[TableCell, ...]:
    what = {
        "encoder": f"learning without labels: {line.start}",
        "classifier": "classifiers",
        "site-probe": "site probes",
    }
    return cells(
        what[line.kind],
        line.profile,
        f"{line.cells:,}",
        seconds(line.seconds),
        seconds(line.cpu_s),
        size(line.wire_bytes),
        size(line.peak_memory_bytes),
        energy(line.energy_j),
    )


WORDS = {
    "start": "The weights from which a classifier is fine-tuned. **Random**: none learned. **ImageNet**: learned on "
    "everyday photographs. **SSL**: learned without labels on the site's own images. **CSSL**: the same on images "
    "pooled from all sites. **CSFSSL**: learned by all sites, each on its own images, weights averaged by a "
    "coordinator. **PPFSSL**: the same, the model is passed from site to site and begins at the site in the name.",
    "case, control": "A woman with, or without, the disease by her site's own criterion; criteria may differ between "
    "sites.",
    "AUC": "How often a classifier gives a case a higher probability than a control, when one of each is drawn at "
    "random.",
    "accuracy": "The share of images that were called correctly. With two controls per case, a classifier that never "
    "calls a case gets two thirds.",
    "recall": "The share of case images that were classified as case; also called sensitivity.",
    "precision": "Of the images classified as case, the share that are cases. It falls where the disease is rarer than "
    "in this test.",
    "F1": "The harmonic mean of recall and precision.",
    "95 % interval": "How much the number might change with other women of the same kind, and with other seeds. "
    f"With fewer than {WOMEN_MIN} test women of a class, or {FOLD_WOMEN_MIN} in a fold, or with two to "
    f"{TRAININGS_MIN - 1} trainings, there is none. A difference that fewer than {MOVERS_MIN} women decide has none "
    "either, and no verdict: all others are ranked much alike by both starts.",
    "corrected p": "The chance of a difference this large or larger if there were none, corrected for the number of "
    "comparisons.",
    "better, worse, close, not shown": "See “The paper's claims in this data”. “Not shown” never means “no "
    "difference”.",
    "detectable": "A difference of this size would be found in four of five studies, after the same correction.",
    "cell": "One training: a cervix model or a classifier. Named by the digest of all that it depends on.",
    "train, valid, test": "Women for training, for making choices, and for the final scores. No woman is in two of "
    "these parts.",
}


def glossary() -> Iterable[Block]:
    """Yield the words of the page."""
    yield Heading("Words on this page")
    yield Glossary(tuple(WORDS.items()))
    yield Text("For research. No classifier here is a medical device, and nothing here is a diagnosis.", quiet=True)


def _folds(axes: Axes) -> str:
    if axes.leave_out_devices:
        return f"devices left out: {', '.join(axes.leave_out_devices)}"
    if not axes.folds:
        return "none: one division of the women"
    return f"{axes.folds}, dealt {axes.fold_repeats} times" if axes.fold_repeats > 1 else str(axes.folds)


def provenance(findings: StudyFindings) -> Iterable[Block]:
    """Yield versions, machines, digests, seeds, commands and every cell."""
    study = findings.study
    yield Heading("Provenance")
    versions = ", ".join(f"{name} {version}" for name, version in sorted(study.versions.items()))
    judged = ", ".join(f"{name} {version}" for name, version in sorted(findings.versions.items()))
    facts = [
        ("study", f"{study.name}, {study.state}"),
        ("begun, ended", f"{study.begun_at}, {study.ended_at or NOTHING}"),
        ("command", f"`{shlex.join(study.command)}`"),
        ("seeds", ", ".join(map(str, study.axes.seeds))),
        ("classifiers per encoder", ", ".join(map(str, study.axes.classifier_seeds))),
        ("folds", _folds(study.axes)),
        ("trained with", versions),
        ("judged with", judged),
        ("begun on", f"{study.host}: {study.machine}, {counted(study.cores, 'core')}"),
        *(
            ("cells made on", f"{host}: {machine} ({counted(cells_, 'cell')})")
            for host, machine, cells_ in findings.machines
        ),
    ]
    yield Table(
        columns("what", Column("value", left=True, wrap=True)),
        tuple(cells(name, value) for name, value in facts),
        "Versions, seeds and machines",
    )
    yield Table(
        columns("site", "fold", Column("SHA-256 of images, women, labels and splits", left=True, wrap=True)),
        tuple(
            cells(f"{site.name}{' (phantom)' if site.phantom else ''}", "" if fold == "-" else fold, f"`{digest}`")
            for site in study.sites
            for fold, digest in site.digests.items()
        ),
        "Digests of the data",
    )
    yield Details("STUDY.toml", (Code(study.configuration),))
    if study.failed:
        rows = tuple(cells(f"`{key[:DIGEST_SHOWN]}`", why) for key, why in study.failed.items())
        yield Details(
            f"{counted(len(rows), 'cell')} could not be trained",
            (Table(columns("cell", Column("why", left=True, wrap=True)), rows, "Cells that failed"),),
        )
    yield Details(f"Every cell ({len(findings.cells):,})", (_cells(findings.cells),))


def _cells(found: tuple[CellLine, ...]) -> Table:
    setting = ("N, E, width", "seed, fold", "labels")
    last = (left("test part opened"), "time", left("weights", "SHA-256"))
    heads = columns("cell", left("what"), left("sites"), *setting, *last)
    return Table(heads, tuple(_cell(line) for line in found), "Every cell")


def _cell(line: CellLine) -> tuple[TableCell, ...]:
    setting = ", ".join(
        NOTHING if v is None else str(v) for v in (line.batch_images, line.epochs_per_round, line.width)
    )
    seed = f"{line.seed}" if line.classifier_seed is None else f"{line.seed}.{line.classifier_seed}"
    control = () if line.control == "none" else (line.control,)
    return cells(
        TableCell(f"`{line.key[:DIGEST_SHOWN]}`", (line.profile,)),
        TableCell(f"{line.kind} {line.start}", control),
        listed(line.sites),
        setting,
        f"{seed}, {NOTHING if line.fold is None else line.fold}",
        f"{100 * line.label_fraction:g} %" if line.kind == "classifier" else "",
        line.opened,
        seconds(line.seconds),
        f"`{line.model[:DIGEST_SHOWN]}`" if line.model else "",
    )
