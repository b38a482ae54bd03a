"""Counts of a study: leaks and look-alikes without names, costs, cells, machines."""

from __future__ import annotations

from collections.abc import Iterable

from cervix_study.analysis.findings import Alike, CellLine, CostLine, Leakage
from cervix_study.analysis.result_rows import Finished
from cervix_study.records import CellRecord, StudyData
from site_agent.starts import title


def leakage(data: StudyData) -> tuple[Leakage, ...]:
    """Count the pictures that each site has under several patients."""
    sites = dict.fromkeys(row.site for row in data.rows)
    found = {site: [picture for picture in data.shared if picture.site == site] for site in sites}
    return tuple(
        Leakage(
            site=site,
            pictures=len(pictures),
            identical=sum(picture.identical for picture in pictures),
            conflicting=sum(picture.conflicting for picture in pictures),
            patients=len({patient for picture in pictures for patient in picture.patients}),
        )
        for site, pictures in found.items()
    )


def alike(data: StudyData) -> tuple[Alike, ...]:
    """Count the look-alikes of different women, by sites and splits."""
    groups: dict[tuple[tuple[str, str], tuple[str, str]], list[float]] = {}
    for pair in data.near_duplicates:
        (site_a, split_a), (site_b, split_b) = sorted(zip(pair.sites, pair.splits, strict=True))
        groups.setdefault(((site_a, site_b), (split_a, split_b)), []).append(pair.likeness)
    return tuple(
        Alike(sites, splits, len(likenesses), max(likenesses)) for (sites, splits), likenesses in sorted(groups.items())
    )


def costs(finished: Finished) -> Iterable[CostLine]:
    """Yield what each kind of cell took, encoders by start."""
    groups: dict[tuple[str, str, str], list[CellRecord]] = {}
    for record in finished.cells.values():
        start = title(record.cell.start) if record.cell.kind == "encoder" else ""
        groups.setdefault((record.cell.profile, record.cell.kind, start), []).append(record)
    for (profile, kind, start), own in groups.items():
        spent = [record.costs for record in own]
        wire = [cost.wire_bytes for cost in spent if cost.wire_bytes is not None]
        memory = [cost.peak_memory_bytes for cost in spent if cost.peak_memory_bytes is not None]
        energy = [cost.energy_j for cost in spent if cost.energy_j is not None]
        yield CostLine(
            profile=profile,
            kind=kind,
            start=start,
            cells=len(own),
            seconds=sum(cost.seconds for cost in spent),
            cpu_s=sum(cost.cpu_s for cost in spent),
            wire_bytes=sum(wire) if wire else None,
            peak_memory_bytes=max(memory) if memory else None,
            energy_j=sum(energy) if len(energy) == len(spent) else None,
            interruptions=sum(cost.interruptions for cost in spent),
        )


def cell_line(finished: Finished, record: CellRecord) -> CellLine:
    """Return one cell for the record."""
    cell = record.cell
    opened = {found.key: found.why for found in finished.selection.opened}
    results = record.encoder or record.classifier
    return CellLine(
        key=record.key,
        kind=cell.kind,
        profile=cell.profile,
        start=title(cell.start),
        sites=cell.sites,
        batch_images=cell.batch_images,
        epochs_per_round=cell.epochs_per_round,
        width=cell.width,
        seed=cell.seed,
        classifier_seed=cell.classifier_seed,
        fold=cell.fold,
        label_fraction=cell.label_fraction,
        control=cell.control,
        model=results.model if results else "",
        opened=opened.get(record.key, ""),
        seconds=record.costs.seconds,
    )


def machines(finished: Finished) -> tuple[tuple[str, str, int], ...]:
    """Return where cells were made, and how many."""
    places = [(record.provenance.host, record.provenance.machine) for record in finished.cells.values()]
    return tuple((host, machine, places.count((host, machine))) for host, machine in dict.fromkeys(places))
