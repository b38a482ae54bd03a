"""What a check finds: it is right, it deserves a look, or it is a fault; and the loop that asks one after the other.

Rules
1. A check is a function of facts that were measured before. So each can be tried with every fault.
2. A finding is words (all is well), a `CheckWarning` (it works, but a person should look) or an error. An error has its
   cause and its next step, as everywhere, and the exit code of its class.
3. Whatever a check raises is its finding: those behind it have their turn.
4. A check whose conditions are not met is skipped: it would only repeat the first fault, with a wrong cause.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from fedcervix.disk.storage import known
from fedcervix.errors import FedcervixError
from fedcervix.extras import lacking
from fedcervix.printable import printable_lines

State = Literal["ok", "warning", "fault", "skipped"]
LABELS: dict[State, str] = {"ok": "ok     ", "warning": "warning", "fault": "FAULT  ", "skipped": "skipped"}
"""as a person reads them, of one width"""


@dataclass(frozen=True, slots=True)
class CheckWarning:
    """What works, and yet is not as it should be."""

    text: str
    cause: str = ""
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A check that could say nothing, as another one must be right first."""

    text: str


Finding = str | CheckWarning | Skipped | FedcervixError
Row = tuple[str, Finding]
"""name of a check, and what it has found"""


@dataclass(frozen=True, slots=True)
class DoctorCheck:
    """One check of a table."""

    name: str
    look: Callable[[], Finding]
    """may raise; then that is what was found"""
    needs: Collection[str] = ()
    """names of checks before this one which must not be faults"""


def look_through(checks: Iterable[DoctorCheck], faults: set[str]) -> Iterator[Row]:
    """Yield what each check finds. The names of those that are faults, or were skipped, are added to `faults`."""
    for check in checks:
        if missing := sorted(faults & set(check.needs)):
            faults.add(check.name)
            yield check.name, Skipped(f"the {' and the '.join(missing)} must be right first")
            continue
        found = found_by(check.look)
        if isinstance(found, FedcervixError):
            faults.add(check.name)
        yield check.name, found


def found_by(look: Callable[[], Finding]) -> Finding:
    """Return what a check returns or raises."""
    try:
        return look()
    except Exception as error:  # noqa: BLE001  (rule 3)
        return explained(error)


def explained(error: Exception) -> FedcervixError:
    """Return what a check raised as an error of ours."""
    if isinstance(error, FedcervixError):
        return error
    if isinstance(error, ImportError):
        return lacking(error) or FedcervixError(str(error), cause="a package is damaged")
    if isinstance(error, OSError) and error.filename is not None:
        return known(error, str(error.filename), "use")
    return FedcervixError(f"{type(error).__name__}: {error}", cause="a bug", next_step="report this line")


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What `--json` prints of a check, in this order."""

    check: str
    state: State
    what: str
    cause: str
    next_step: str
    exit_code: int
    """that this fault alone would end the command with; 0 where it is none"""

    def explain(self) -> str:
        """Return the lines that a person reads."""
        lines = [f"{LABELS[self.state]} {self.check}: {self.what}"]
        lines += [f"  likely cause: {self.cause}"] if self.cause else []
        lines += [f"  next: {self.next_step}"] if self.next_step else []
        return "\n".join(line.replace("\n", "\n    ") for line in lines)


def result(name: str, found: Finding, meant: Callable[[str], str] = str) -> CheckResult:
    """Return a finding as it is printed. `meant`: makes a next step one that can be typed as it stands."""
    if isinstance(found, str):
        return CheckResult(name, "ok", printable_lines(found), "", "", 0)
    if isinstance(found, Skipped):
        return CheckResult(name, "skipped", found.text, "", "", 0)
    state: State = "fault" if isinstance(found, FedcervixError) else "warning"
    what, code = (found.what, found.exit_code) if isinstance(found, FedcervixError) else (found.text, 0)
    what, cause, next_step = map(printable_lines, (what, found.cause, meant(found.next_step)))
    return CheckResult(name, state, what, cause, next_step, code)


def exit_code(results: Sequence[CheckResult]) -> int:
    """Return how the command ends: with the exit code of its first fault; warnings alone are no reason to stop."""
    return next((one.exit_code for one in results if one.state == "fault"), 0)


def summary(results: Sequence[CheckResult]) -> str:
    """Return the last line: how many faults and warnings there are."""
    faults, warnings = (sum(one.state == state for one in results) for state in ("fault", "warning"))
    words = [f"{count} {name}{'' if count == 1 else 's'}" for count, name in ((faults, "fault"), (warnings, "warning"))]
    return f"{' and '.join(words)} in {len(results)} checks"
