"""Every error that a person can meet, and who can solve it.

    FedcervixError
    ├── CommandLineError the command line is wrong               (who typed it looks at --help)
    ├── ConfigError      a configuration file is wrong           (its author corrects it)
    ├── DataError        a manifest or the images are wrong      (the data owner corrects them)
    ├── IdentityError    a certificate or invitation is wrong    (the operator renews it)
    ├── PolicyError      the plan asks what this site forbids    (the two sides talk)
    ├── LinkError        the other side cannot be reached        (the network recovers, or IT acts)
    │   ├── BusyError        it takes no more calls now: worth another try, in a while
    │   └── VersionError     the two run versions that cannot work together: worth another try, after an upgrade
    ├── StorageError     the disk is full or holds damaged files (IT acts; nothing was lost)
    │   ├── FullDiskError    it is full: worth another try, when there is room
    │   └── FormatError      another version wrote the file: that version reads it
    ├── TrainingError    the trainer cannot continue             (recipe or hardware)
    ├── ModelError       a weights file is not what was asked for
    ├── RunError         the request does not fit the state of the run
    ├── RemoteError      the other side sent something invalid   (never our caller's fault)
    │   └── NoSuchMethodError    it calls what is not there: it has another version
    ├── DuplicateAgentError        another agent acts for this site        (the site's engineer ends one of the two)
    └── LedgerError      a ledger was changed, or there are two         (people compare what they have)

Each carries the three things an operator needs: what happened, the likely cause, the next command to try.
The exit code of a process is the `exit_code` of the error that stopped it.
"""

from __future__ import annotations

from fedcervix.printable import shortened

PART_CHARS_MAX = 4000
"""of each of the three: what somebody else wrote is part of many of them"""


class FedcervixError(Exception):
    """What happened; `cause` is the likely reason, `next_step` the command or action to try."""

    exit_code: int = 1

    def __init__(self, what: str, *, cause: str = "", next_step: str = "") -> None:
        what = shortened(what, PART_CHARS_MAX)
        super().__init__(what)
        self.what = what
        self.cause = shortened(cause, PART_CHARS_MAX)
        self.next_step = shortened(next_step, PART_CHARS_MAX)

    def explain(self) -> str:
        """Return the message as it is printed: one to three lines; those within a part are indented.

        So a line in a file's name or in a text of the other side never looks like a line of this program.
        """
        lines = [self.what]
        if self.cause:
            lines.append(f"  likely cause: {self.cause}")
        if self.next_step:
            lines.append(f"  next: {self.next_step}")
        return "\n".join(line.replace("\n", "\n    ") for line in lines)


class CommandLineError(FedcervixError):
    """The command line is wrong."""

    exit_code = 2


class ConfigError(FedcervixError):
    """A configuration file names an unknown key or a value out of its range."""

    exit_code = 3


class DataError(FedcervixError):
    """A manifest, an image or a split cannot be used as it is."""

    exit_code = 4


class IdentityError(FedcervixError):
    """A certificate, key or invitation is missing, foreign, expired, used up or revoked."""

    exit_code = 5


class PolicyError(FedcervixError):
    """The federation's plan, or its coordinator, asks for something that this site's policy does not allow."""

    exit_code = 6


class LinkError(FedcervixError):
    """The other side cannot be reached, or closed the connection."""

    exit_code = 7


class BusyError(LinkError):
    """The other side does not answer this call now: it comes too often, came in part, or another one is in work."""


class VersionError(LinkError):
    """The two sides run versions that cannot work together; one of them must be upgraded."""


class StorageError(FedcervixError):
    """The disk is full, not writable, or holds a file whose content does not match its digest."""

    exit_code = 8


class FullDiskError(StorageError):
    """The disk is full."""


class FormatError(StorageError):
    """A file holds what this version does not read: another version wrote it, or it is damaged."""


class TrainingError(FedcervixError):
    """The trainer cannot continue (diverged, out of memory, too few images)."""

    exit_code = 9


class ModelError(FedcervixError):
    """A weights file does not hold the model that was asked for."""

    exit_code = 10


class RunError(FedcervixError):
    """The request does not fit the state of the run."""

    exit_code = 11


class RemoteError(FedcervixError):
    """The other side sent something that no correct peer sends."""

    exit_code = 12


class NoSuchMethodError(RemoteError):
    """The other side calls a method that is not there."""


class DuplicateAgentError(FedcervixError):
    """Another agent acts for this site: it runs twice, on two machines or from a copied home folder."""

    exit_code = 13


class LedgerError(FedcervixError):
    """A run's ledger does not hold: an entry is not what was written, or somebody was shown another ledger."""

    exit_code = 14


EXIT_OF_OUTCOME = {"OK": 0, "DEGRADED": 20, "ABORTED": 21}
"""how a run ended (`Outcome` in core/rounds/state.py) -> exit code"""
INTERRUPTED = 130
"""as a shell reports a program that SIGINT ended"""
OUTPUT_CLOSED = 141
"""as a shell reports a program that SIGPIPE ended"""

EXIT_CODES: dict[int, str] = {
    0: "finished, every declared site contributed (OK)",
    1: "unexpected error (a bug: please report the incident)",
    **{
        error.exit_code: (error.__doc__ or "").strip().rstrip(".")
        for error in FedcervixError.__subclasses__()  # those of this file, in its order
    },
    EXIT_OF_OUTCOME["DEGRADED"]: "finished, but a declared site is missing from at least one round (DEGRADED)",
    EXIT_OF_OUTCOME["ABORTED"]: "the run was aborted",
    INTERRUPTED: "interrupted (Ctrl-C or SIGTERM); start again to continue",
    OUTPUT_CLOSED: "the program that read the output closed it (`| head`)",
}
