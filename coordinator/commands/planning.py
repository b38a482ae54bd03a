"""The command `plan`: what a run will take, before it begins, by what its sites have measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from coordinator.home.home import Home
from coordinator.run import history, paces
from coordinator.run.prediction import told_of, words_of
from fedcervix.core.forecast import RunForecast, SiteForecast, forecast
from fedcervix.core.modes import Mode
from fedcervix.core.pace import Span, pace_key
from fedcervix.core.plan import Plan
from fedcervix.disk.reserve import FREE_BYTES_MIN
from fedcervix.disk.storage import read_file
from fedcervix.errors import ConfigError, RunError
from fedcervix.runtime.cli_runtime import stdout_console
from fedcervix.runtime.pace_lines import PaceLine, parse_pace
from fedcervix.runtime.printing import say, utc
from fedcervix.runtime.quantities import durations, size
from fedcervix.runtime.typed_json import to_text


def plan(home: Home, mode: Mode | None, files: Sequence[Path], *, as_json: bool) -> None:
    """Print what a run will take. Raises ConfigError, RunError, StorageError."""
    planned = _planned(home, mode)
    key = pace_key(planned.recipe)
    known = paces.newest(home.paces, planned.sites, key)
    for file in files:
        line = _handed_over(file, planned, key)
        known[line.site] = line
    if not known:
        raise RunError(
            "no site has measured anything for this plan yet",
            cause="a site measures before its first round of a run, or when its engineer asks",
            next_step="at each site `site-agent plan --json`; save what it prints as SITE.json, and name these files "
            "at the end of this command",
        )
    found = forecast(planned, {site: line.pace for site, line in known.items()})
    if as_json:
        measured = [known[one.site] for one in found.sites]
        said = {"prediction": told_of(found), "measured": measured, "remarks": remarks(planned, found)}
        say(to_text(said, indent=2))
    else:
        stdout_console().print(_drawn(planned, found, known))


def _planned(home: Home, mode: Mode | None) -> Plan:
    """Return the plan of the next run; without a mode, that of the unfinished one. Raises RunError, ConfigError."""
    if mode is not None:
        return home.plan(mode)
    last = history.unfinished_record(home)
    if last is None:
        raise RunError(
            "no run is unfinished, so the mode of the next one is not known",
            cause="--mode is missing",
            next_step=home.command("plan --mode csfssl"),
        )
    return last.plan


def _handed_over(file: Path, planned: Plan, key: str) -> PaceLine:
    """Return what a site has measured and handed over as a file. Raises ConfigError, StorageError."""
    try:
        line = parse_pace(read_file(file))
    except ValueError as error:
        raise ConfigError(
            f"{file} is not what a site has measured: {error}",
            cause="another file, or one that was changed",
            next_step="at the site again `site-agent plan --json`, and save all that it prints",
        ) from error
    if line.site not in planned.sites:
        raise ConfigError(
            f"{file} is of site {line.site}, which is not in the roster: {', '.join(planned.sites)}",
            cause="[run] sites in coordinator.toml does not name it",
            next_step="add it there, or leave the file out",
        )
    if line.pace_key != key:
        raise ConfigError(
            f"{file}: site {line.site} has measured another recipe",
            cause="network, image size or batch differ from [run.recipe] of coordinator.toml",
            next_step="write these keys into a file RECIPE.toml, and at the site: "
            "`site-agent plan --recipe RECIPE.toml --json`",
        )
    return line


# --- as a person reads it -----------------------------------------------------------------------------------------


def _drawn(planned: Plan, found: RunForecast, known: Mapping[str, PaceLine]) -> RenderableType:
    lines = [Text(f"{planned.mode}, {len(planned.sites)} sites, profile {planned.profile}", "bold")]
    told = words_of(told_of(found), planned.rounds_max)
    lines += [Text(told)] if told else [Text("no range for a round: a site has not timed a step", "yellow")]
    if found.before.high >= 1:
        lines.append(Text(f"before the first round: {durations(found.before)} (decoding, the first model)"))
    if found.unmeasured:
        lines.append(Text(f"not measured, and not in it: {', '.join(found.unmeasured)}", "yellow"))
    notes = [Text(f"note: {words}", "yellow") for words in remarks(planned, found)]
    return Group(*lines, _times(found, known), _room(found), *notes)


def _times(found: RunForecast, known: Mapping[str, PaceLine]) -> Table:
    table = Table(
        Column("site", no_wrap=True),
        *("train", "score", "down", "up", "measured (UTC)"),
        title="A round at each site",
        title_justify="left",
    )
    for one in found.sites:
        down, up = (_moved(span, count) for span, count in ((one.down, one.down_bytes), (one.up, one.up_bytes)))
        table.add_row(one.site, _time(one.train), _time(one.score), down, up, utc(known[one.site].at, "%Y-%m-%d %H:%M"))
    return table


def _time(span: Span) -> str:
    return durations(span) if span.high else "not timed"


def _moved(span: Span, count_bytes: int) -> str:
    return f"{count_bytes:,} bytes" + (f", {durations(span)}" if span.high else "")


def _room(found: RunForecast) -> Table:
    table = Table(
        Column("site", no_wrap=True),
        *("steps", "memory", "disk at once", "disk afterwards", "device"),
        title="What each site needs, and has",
        title_justify="left",
    )
    for one in found.sites:
        pace = one.pace
        table.add_row(
            one.site,
            f"{pace.steps:,} an epoch",
            _of(pace.memory_bytes, pace.memory_free_bytes),
            _of(pace.disk_bytes, pace.disk_free_bytes, FREE_BYTES_MIN),
            size(pace.disk_left_bytes),
            "GPU" if pace.gpu else "CPU",
        )
    return table


def _of(needed: int, free: int, kept: int = 0) -> Text:
    return Text(f"{size(needed)} of {size(free)}", "red" if needed + kept > free else "")


def remarks(planned: Plan, found: RunForecast) -> list[str]:
    """Return what a person should know of a prediction: who the others wait for, what is not in it."""
    said = [one.straggles for one in found.sites if one.straggles]
    said += [words for one in found.sites for words in _lacks(one)]
    if any(not one.pace.down_high for one in found.sites):
        sites = ", ".join(one.site for one in found.sites if not one.pace.down_high)
        said.append(f"the line was not measured at {sites}: the time of its transfers is not in the range")
    elif len(found.sites) > 1 and not planned.mode_rules.in_turns:
        said.append("each line was measured by itself; in a round, all sites send at about the same time")
    if planned.terms.secure_sum and (others := [one.site for one in found.sites if not one.pace.vector_s]):
        said.append(f"measured without secure sums: {', '.join(others)}. The time of masks there is not in the range")
    if planned.terms.compression != "none" and any(not one.pace.packed_bytes for one in found.sites):
        said.append("a site has measured without compression: its bytes are those of whole models")
    return said


def _lacks(one: SiteForecast) -> list[str]:
    pace = one.pace
    found = []
    if pace.memory_bytes > pace.memory_free_bytes:
        found.append(f"{one.site} has too little memory: a smaller batch_images or image_px under [run.recipe]")
    if pace.disk_bytes + FREE_BYTES_MIN > pace.disk_free_bytes:
        found.append(f"{one.site} has too little room on its disk for a run; {size(FREE_BYTES_MIN)} of it stay free")
    return found
