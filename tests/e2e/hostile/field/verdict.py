"""What must hold under an attack, and the line of the table that says whether it did."""

from __future__ import annotations

from collections.abc import Iterator

from tests.e2e.hostile.field.battle import AFTER_S, Command, Finding

ANSWER_S = 2.0
"""within which `status` and `revoke` answer; on a machine where `status` takes half of that in peace, twice as long"""
GROWTH_BYTES_A_MINUTE = 8 << 20
"""of journal and log, each"""
MEMORY_BYTES = 200 << 20
"""beyond what there was before"""


def broken(finding: Finding) -> Iterator[str]:
    """Yield in words every bound that does not hold."""
    if finding.trouble:
        yield f"the battle could not be fought to its end: {finding.trouble[:300]}"
    elif not finding.counts:
        yield "the attacker did nothing"
    yield from _calls(finding)
    yield from _commands(finding)
    yield from _rest(finding)
    yield from _use(finding)
    for what in finding.attack.forbidden:
        if finding.counts[what]:
            yield f"{what}: {finding.counts[what]}"


def _calls(finding: Finding) -> Iterator[str]:
    failures = finding.attacked.failures.total()
    if failures > finding.quiet.failures.total():
        yield f"{failures} of {len(finding.attacked.seconds)} honest calls failed: {dict(finding.attacked.failures)}"
    if finding.slows:
        without_ms, with_ms = finding.quiet.ms(0.95), finding.attacked.ms(0.95)
        yield f"honest p95 went from {without_ms:.1f} to {with_ms:.1f} ms{_beside(finding)}"


def _beside(finding: Finding) -> str:
    """Say what the processor time of the attacker alone would have done."""
    if not finding.burdened.seconds:
        return ""
    took = f"takes as much processor time as the attacker ({finding.attacker_busy:.2f} of one)"
    return f" ({finding.burdened.ms(0.95):.1f} ms beside a program that {took} and attacks nobody)"


def _commands(finding: Finding) -> Iterator[str]:
    calm = finding.commands.get("status without", Command(0, 0.0))
    most_s = max(ANSWER_S, 2 * calm.seconds)
    for name in ("status", "revoke"):
        command = finding.commands.get(name, Command(0, 0.0))
        if command.code != 0:
            yield f"{name} ended with {command.code} after {command.seconds:.1f} s"
        elif command.seconds > most_s:
            yield f"{name} took {command.seconds:.1f} s"
    for name in ("stop", "end", "start"):
        command = finding.commands.get(name, Command(0, 0.0))
        if command.code != 0:
            yield f"{name} after it ended with {command.code}: {command.words[-200:]}"


def _rest(finding: Finding) -> Iterator[str]:
    if finding.left:
        yield f"{finding.left} connections of the attacker were left"
    if finding.left_bytes:
        yield f"{finding.left_bytes:,} bytes of the attacker's models were left"
    if finding.rounds and min(finding.rounds) < 1:
        yield f"no round was begun in a phase of attack: {finding.rounds}"
    if not finding.goes_on_after:
        yield f"no round was begun within {AFTER_S:.0f} s after the revocation"


def _use(finding: Finding) -> Iterator[str]:
    if finding.before is None or finding.most is None:
        return
    before, most, minutes = finding.before, finding.most, max(1.0, finding.seconds / 60)
    for what, grown in (
        ("journal", most.journal_bytes - before.journal_bytes),
        ("log", most.log_bytes - before.log_bytes),
    ):
        if grown > GROWTH_BYTES_A_MINUTE * minutes:
            yield f"{what} grew by {grown / 2**20:.0f} MiB"
    if most.rss_bytes - before.rss_bytes > MEMORY_BYTES:
        yield f"memory grew by {(most.rss_bytes - before.rss_bytes) / 2**20:.0f} MiB"


HEAD = (
    *("attack", "p50 ms", "p50 with", "p95 ms", "p95 with", "ratio", "p95 burden", "failed", "rounds"),
    *("status s", "status with", "revoke s", "left", "connections", "CPU", "attacker CPU"),
    *("descriptors", "RSS MiB", "journal MiB", "log MiB", "start s", "verdict"),
)


def row(finding: Finding) -> list[str]:
    """Return one attack's line."""
    if finding.skipped:
        return [finding.name, *[""] * (len(HEAD) - 2), f"skipped: {finding.skipped}"]
    quiet, with_ = finding.quiet, finding.attacked
    ratio = with_.ms(0.95) / quiet.ms(0.95)
    return [
        finding.name,
        f"{quiet.ms(0.5):.1f}",
        f"{with_.ms(0.5):.1f}",
        f"{quiet.ms(0.95):.1f}",
        f"{with_.ms(0.95):.1f}",
        f"{ratio:.1f}",
        f"{finding.burdened.ms(0.95):.1f}" if finding.burdened.seconds else "-",
        f"{with_.failures.total()}/{len(with_.seconds)}",
        "+".join(map(str, finding.rounds)),
        *(_seconds(finding, name) for name in ("status without", "status", "revoke")),
        "-" if finding.left is None else str(finding.left),
        str(finding.connections_most),
        f"{finding.busy.get('quiet', 0):.2f}>{finding.busy.get('attack', 0):.2f}",
        f"{finding.attacker_busy:.2f}",
        *_grown(finding),
        _seconds(finding, "start"),
        "; ".join(broken(finding)) or "holds",
    ]


def _seconds(finding: Finding, name: str) -> str:
    command = finding.commands.get(name)
    if command is None:
        return "-"
    return f"{command.seconds:.1f}" if command.code == 0 else f"exit {command.code}"


def _grown(finding: Finding) -> list[str]:
    before, most = finding.before, finding.most
    if before is None or most is None:
        return ["-"] * 4
    return [
        f"{before.descriptors}>{most.descriptors}",
        f"{before.rss_bytes / 2**20:.0f}>{most.rss_bytes / 2**20:.0f}",
        f"{(most.journal_bytes - before.journal_bytes) / 2**20:.1f}",
        f"{(most.log_bytes - before.log_bytes) / 2**20:.1f}",
    ]


def table(rows: list[list[str]]) -> str:
    """Return lines of a Markdown table."""
    lines = [HEAD, ["---"] * len(HEAD), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
