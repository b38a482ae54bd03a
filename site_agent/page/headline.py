"""How things stand at this site, in one line: a level, some words, and a few more. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedcervix.core.rounds.state import Outcome
from site_agent.federation.activity import Doing
from site_agent.page.seen import SeenSite
from site_agent.page.trouble import QUIET_S, TroubleShown, is_full
from site_agent.page.wording import plain

HeadlineLevel = Literal["ok", "done", "warn", "bad", "off"]


@dataclass(frozen=True, slots=True)
class SiteHeadline:
    """The first thing that a person reads."""

    level: HeadlineLevel
    words: str
    more: str = ""


def headline(seen: SeenSite, found: tuple[TroubleShown, ...]) -> SiteHeadline:
    """Return how things stand; `found` is what is wrong."""
    if seen.run is not None and seen.run.outcome and not _is_at_another_run(seen):
        return _ended(seen.run.outcome, seen.run.name)
    if not seen.alive:
        return _off(seen, found)
    doing = seen.doing
    if doing is None:
        return SiteHeadline("off", "An agent runs", "It is of an earlier version, and does not tell what it does.")
    if is_full(seen.disk) and seen.at - doing.written_at > QUIET_S:
        return SiteHeadline("bad", "The disk is full", "The agent runs, and cannot write down what it does.")
    words, more = _at_work(doing)
    errors = [one for one in found if one.level == "error"]
    if errors or doing.state in ("disk", "away"):
        return SiteHeadline("bad", words, more)
    return SiteHeadline("warn" if found else "ok", words, more)


def _is_at_another_run(seen: SeenSite) -> bool:
    """Say whether an agent already waits for the next run."""
    return seen.alive and seen.doing is not None and seen.run is not None and seen.doing.run != seen.run.name


def _ended(outcome: str, run: str) -> SiteHeadline:
    levels: dict[str, HeadlineLevel] = {Outcome.ABORTED: "bad", Outcome.DEGRADED: "warn"}
    level = levels.get(outcome.partition(":")[0], "done")
    return SiteHeadline(level, "The run has ended", f"{plain(outcome)} ({run}).")


def _off(seen: SeenSite, found: tuple[TroubleShown, ...]) -> SiteHeadline:
    if seen.run is None:
        more = f"This site has been in no run yet. To begin: {seen.command}"
        return SiteHeadline("off", "The agent does not run", more)
    words = "The agent has ended" if seen.doing is not None and seen.doing.ended else "The agent does not run"
    is_missed = any(one.key == "agent" for one in found)
    return SiteHeadline("bad", words, "The run is not over: the others wait for this site." if is_missed else "")


def _at_work(doing: Doing) -> tuple[str, str]:
    """Return what an agent does, in words."""
    number = f" round {doing.round}" if doing.round else ""
    words = {
        "train": f"Training in{number or ' the run'}",
        "score": f"Scoring the model of{number}",
        "transfer": _transfer(doing, number),
        "check": "Looking at the images before round 1",
        "work": f"{plain(doing.task[:1].upper() + doing.task[1:]) or 'Working'}",
        "disk": "Waiting for room on the disk",
        "away": "The coordinator cannot be reached",
        "wait": "Waiting" if doing.connected else "Connecting to the coordinator",
        "off": "The agent has ended",
    }[doing.state]
    if doing.state == "wait":
        more = plain(doing.rest[:1].upper() + doing.rest[1:])
    elif doing.state == "away":
        more = "Nothing can be done here until it answers; the agent tries again by itself."
    elif doing.state in ("train", "score") and not doing.connected:
        more = "The coordinator cannot be reached; the work goes on meanwhile."
    else:
        more = ""
    return words, more


def _transfer(doing: Doing, number: str) -> str:
    if doing.stage == "downloading":
        return f"Receiving the model of{number or ' the run'}"
    return f"Sending the update of{number}" if doing.stage == "uploading" else "Reporting to the coordinator"
