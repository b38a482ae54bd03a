"""The sections on training: what validation chose, how training went, fewer labels, controls, two profiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping

from cervix_study.analysis.comparing import TESTED, Effect
from cervix_study.analysis.findings import (
    HOW,
    Chosen,
    Controlled,
    Curve,
    Shuffled,
    SideBySide,
    SiteFindings,
    StudyFindings,
)
from cervix_study.report import figures
from cervix_study.report.document import (
    Block,
    Bullets,
    Column,
    Figure,
    Figures,
    Heading,
    Table,
    TableCell,
    Text,
    cells,
    columns,
    left,
)
from cervix_study.report.scores import named
from cervix_study.report.wording import NOTHING, difference_cell, measure, p_value, with_interval
from fedcervix.core.plan import Recipe
from site_agent.report.figures import Stroke, interval_label
from site_agent.report.page import recipe_rows, three
from site_agent.starts import title


def choices(findings: StudyFindings) -> Iterable[Block]:
    """Yield what was chosen where, by validation alone."""
    yield Heading("What was chosen, and by what")
    yield Text(
        "N (images per mini-batch of learning without labels), E (epochs per round) and the width of the dense layer "
        "are chosen for each start and site by the validation loss of its classifiers, averaged over seeds; nothing "
        "else is used for this choice. Only after that were test images opened, once: for the chosen classifiers, "
        "for those named in advance, and for controls."
    )
    for found in findings.sites:
        if found.choices:
            yield Heading(named(found, findings), 3)
            yield _choices(found.choices, f"Choices at {named(found, findings)}")


def _choices(found: tuple[Chosen, ...], label: str) -> Table:
    folds = any(choice.fold is not None for choice in found)
    setting = [*(["fold"] if folds else []), "N", "E", "width"]
    losses = (Column("of", "combinations"), "validation loss", "next best")
    heads = columns("start", *setting, *losses, Column("validation AUC", "chooses nothing"))
    rows = [_choice(choice, folds=folds) for choice in found]
    return Table(heads, tuple(rows), label)


def _choice(choice: Chosen, *, folds: bool) -> tuple[TableCell, ...]:
    numbers = [choice.batch_images, choice.epochs_per_round, choice.width]
    rates = [choice.validation_loss, choice.next_best_loss, choice.validation_auc]
    return cells(
        title(choice.start),
        *([str(choice.fold)] if folds else []),
        *(NOTHING if number is None else str(number) for number in numbers),
        str(choice.candidates),
        *(NOTHING if rate is None else three(rate) for rate in rates),
    )


def curves(findings: StudyFindings, by_start: dict[str, Stroke]) -> Iterable[Block]:
    """Yield the learning curves of the chosen starts."""
    yield Heading("Learning curves")
    yield Text(
        "Validation losses of the chosen starts: thick, the first training; thin, the others; dot: the epoch that was "
        "kept. Contrastive losses are drawn as a share of the loss of a model that cannot tell images apart, log(2N − "
        "1), so that different N can be seen together: at 1 a model has collapsed. A federation's rounds are counted "
        "in epochs."
    )
    for found in findings.sites:
        name = named(found, findings)
        pictures = []
        if any(curve.valid for curve in found.encoder_curves):
            drawn = figures.curves(found.encoder_curves, by_start, ylabel="share of a collapsed model's loss", line=1.0)
            pictures.append(Figure(drawn, f"Contrastive losses at {name}", f"**{name}.** Learning without labels."))
        if any(curve.valid for curve in found.classifier_curves):
            drawn = figures.curves(found.classifier_curves, by_start, ylabel="validation loss")
            pictures.append(Figure(drawn, f"Classifier losses at {name}", f"**{name}.** Learning from labels."))
        if pictures:
            yield Figures(tuple(pictures))
            yield _kept(found, name, list(by_start))


def _kept(found: SiteFindings, name: str, order: list[str]) -> Table:
    """Return what the curves say in numbers: the loss and epoch that were kept, of each start's first training."""
    encoders, classifiers = found.encoder_curves, found.classifier_curves
    there = {curve.name for curve in (*encoders, *classifiers)}
    starts = [start for start in order if start in there]
    contrastive = Column("contrastive loss kept", "share of collapsed")
    heads = columns("start", contrastive, "at epoch", "classifier loss kept", "at epoch")
    rows = [cells(start, *_kept_of(start, encoders), *_kept_of(start, classifiers)) for start in starts]
    return Table(heads, tuple(rows), f"Losses that were kept at {name}, first training")


def _kept_of(start: str, found: tuple[Curve, ...]) -> tuple[str, str]:
    curve = next((curve for curve in found if curve.name == start), None)
    if curve is None or curve.kept is None:
        return NOTHING, NOTHING
    loss = dict(curve.valid).get(curve.kept)
    return NOTHING if loss is None else three(loss), f"{curve.kept:g}"


def fractions(findings: StudyFindings, by_start: dict[str, Stroke]) -> Iterable[Block]:
    """Yield the label-fraction curve."""
    if not any(found.fractions for found in findings.sites):
        return
    yield Heading("With fewer labels")
    yield Text(
        "The same classifiers, fine-tuned on a share of the labelled training women; smaller shares are parts of "
        "larger ones. Validation and test images stay the same. The benefit of learning without labels shows where "
        "labels are few."
    )
    for found in findings.sites:
        if not found.fractions:
            continue
        name = named(found, findings)
        picture = figures.fraction_curves(found.fractions, by_start)
        yield Heading(name, 3)
        caption = f"**{name}.** AUC{interval_label(point.auc for point in found.fractions)}."
        yield Figures((Figure(picture, f"AUC over the share of labels at {name}", caption),))
        shares = sorted({point.label_fraction for point in found.fractions})
        heads = [Column("start")]
        for share in shares:
            women = next(point.train_women for point in found.fractions if point.label_fraction == share)
            heads.append(Column(f"AUC, {100 * share:g} % of labels", f"{women:.0f} women"))
        starts = list(dict.fromkeys(point.label for point in found.fractions))
        rows = []
        for start in starts:
            own = {point.label_fraction: point for point in found.fractions if point.label == start}
            rows.append(cells(start, *(with_interval("auc", own[s].auc) if s in own else NOTHING for s in shares)))
        yield Table(columns(*heads), tuple(rows), f"AUC by share of labels at {name}")


def controls(findings: StudyFindings) -> Iterable[Block]:
    """Yield equal updates, mini-batches of one site, shuffled labels, site predictability."""
    made = (_equal_updates, _one_site_batches, _shuffled_labels, _site_predictability)
    parts = [block for make in made for block in make(findings)]
    if parts:
        yield Heading("Controls")
        yield from parts


def _equal_updates(findings: StudyFindings) -> Iterable[Block]:
    return _controlled(
        findings,
        lambda site: site.equal_updates,
        HOW["equal-updates"],
        "Equal updates",
        "Pooled learning (CSSL) sees more images per epoch and so takes more steps than SSL. Here it was stopped at "
        "the number of updates that SSL took. If it still does better, more images helped, not only more steps.",
    )


def _one_site_batches(findings: StudyFindings) -> Iterable[Block]:
    return _controlled(
        findings,
        lambda site: site.one_site_batches,
        HOW["one-site-batches"],
        "Mini-batches of one site each",
        "In pooled learning (CSSL) a mini-batch mixes the sites, and images of different cameras can be told apart "
        "by the camera alone. Here every training mini-batch was of one site; images and validation were the same. "
        "If the difference from mixed batches is more than chance, mixing matters: by the negatives, or by batch "
        "norm, which then sees one camera at a time. Random weights and the federated starts are listed for "
        "comparison. The p values are not corrected; the verdicts are those above.",
    )


def _controlled(
    findings: StudyFindings,
    of: Callable[[SiteFindings], tuple[Controlled, ...]],
    how: tuple[str, str],
    heading: str,
    said: str,
) -> Iterable[Block]:
    found = [(named(site, findings), control) for site in findings.sites for control in of(site)]
    if found:
        yield Heading(heading, 3)
        yield Text(said)
        yield _beside(found, how, heading)


def _as_it_must_be(control: Shuffled) -> str:
    if control.auc.interval is None:
        return f"cannot be told: {control.auc.why}"
    return "yes" if control.as_expected else "no: check this"


def _shuffled_labels(findings: StudyFindings) -> Iterable[Block]:
    rows = tuple(
        cells(
            named(found, findings),
            control.label,
            with_interval("auc", control.auc),
            _as_it_must_be(control),
        )
        for found in findings.sites
        for control in found.shuffled
    )
    if rows:
        yield Heading("Shuffled labels", 3)
        yield Text(
            "The training and validation labels were shuffled among women. Such a classifier can only guess: an "
            "interval of its AUC above .5 would mean that labels leak. (One shuffling can be close to the true "
            "labels by chance; several seeds, each with its own shuffling, should not be.)"
        )
        yield Table(columns("site", left("start"), "AUC", left("as it must be")), rows, "Shuffled labels")


def _site_predictability(findings: StudyFindings) -> Iterable[Block]:
    rows = tuple(
        cells(
            probe.label,
            profile,
            TableCell(measure("accuracy", probe.balanced_accuracy), _range(probe.lowest, probe.highest)),
            measure("accuracy", probe.chance),
            str(probe.trainings),
        )
        for profile, probes in findings.probes.items()
        for probe in probes
    )
    if rows:
        yield Heading("Does the representation reveal the site?", 3)
        yield Text(
            "A linear probe on each start's features distinguishes validation images of one site from those of the "
            "others. Near chance, the representation contains nothing about the camera; near 100 % it does, and a "
            "difference between sites may be a difference of cameras."
        )
        balanced = Column("balanced accuracy", "of the sites")
        heads = columns("start", left("profile"), balanced, "chance", "trainings")
        yield Table(heads, rows, "Site predictability")


def _range(low: float, high: float) -> tuple[str, ...]:
    """Return the lowest and the highest of several trainings; nothing where they are the same."""
    ends = [measure("accuracy", end).removesuffix(" %") for end in (low, high)]
    return (" to ".join(ends),) if ends[0] != ends[1] else ()


def _beside(found: list[tuple[str, Controlled]], how: tuple[str, str], label: str) -> Table:
    p = Column("p", "not corrected")
    names = ("control", left("compared with"), left("site"), Column("updates", "control, other"))
    rows = [
        cells(
            f"{control.label}, {how[0]}",
            f"{control.versus}, {how[1]}" if control.itself else control.versus,
            name,
            f"{control.updates:,.0f}, {control.versus_updates:,.0f}",
            *_gains(control.effects),
        )
        for name, control in found
    ]
    return Table(columns(*names, "difference in AUC", p, "difference in accuracy", p), tuple(rows), label)


def _gains(effects: Mapping[str, Effect]) -> Iterable[str | TableCell]:
    """Yield difference and p of each tested measure."""
    for name in TESTED:
        yield difference_cell(name, effects[name].difference)
        yield p_value(effects[name].p)


def profiles(findings: StudyFindings) -> Iterable[Block]:
    """Yield what each profile sets, and, with several, what each start gains from the other one."""
    names = findings.study.axes.profiles
    if len(names) > 1:
        yield Heading(f"Profiles side by side: {' and '.join(names)}")
        yield Text(
            "The same start under both profiles, on the same test women. Right of zero, the second profile is "
            "better. Not corrected."
        )
        yield _side_by_side(findings.side_by_side)
    yield Heading("Settings")
    for name in names:
        used = findings.study.profiles[name]
        differing = [(key, value, printed) for key, value, printed in recipe_rows(used.recipe) if printed]
        yield Heading(f"Profile {name}", 3)
        if differing:
            heads = columns("setting", left("this study"), left("published"))
            rows = tuple(cells(f"`{key}`", value, printed) for key, value, printed in differing)
            yield Table(heads, rows, f"Settings of profile {name} that differ from the published ones")
            yield Text(
                f"All others of {len(dataclasses.fields(Recipe))} groups of settings are the published ones.",
                quiet=True,
            )
        else:
            yield Text("Every setting is the published one, or, where the paper is silent, the literal reading of it.")
        terms = {key: "unset" if value is None else value for key, value in dataclasses.asdict(used.terms).items()}
        yield Bullets((f"federation: {', '.join(f'`{key} = {value}`' for key, value in terms.items())}",))


def _side_by_side(found: tuple[SideBySide, ...]) -> Table:
    names = ("start", left("site"), left("profiles", "second − first"), Column("AUC", "first, second"))
    rows = [
        cells(
            pair.label,
            pair.site,
            f"{pair.second_profile} − {pair.first_profile}",
            f"{measure('auc', pair.effects['auc'].second)}, {measure('auc', pair.effects['auc'].first)}",
            *_gains(pair.effects),
        )
        for pair in found
    ]
    heads = columns(*names, "difference in AUC", "p", "difference in accuracy", "p")
    return Table(heads, tuple(rows), "Profiles side by side")
