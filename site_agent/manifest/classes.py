"""The classes of a label: control and case, or more of them in an order that site.toml gives.

Rules
1. The order is one of severity, the mildest first. Every class from `case_from` on is a case, the milder ones are
   controls: so an ordered label is a binary one, too, and everything that knows case and control works with it.
2. A cell of the column `label` holds the name of a class, letter by letter, or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from fedcervix.core.plan import check
from fedcervix.printable import quoted

CLASSES_MAX = 20
NAME_CHARS = 40


@dataclass(frozen=True, slots=True)
class Classes:
    """The names of the classes, and which of them are cases."""

    names: tuple[str, ...]
    """the mildest first"""
    case_from: str
    """this one and the more severe ones are cases"""

    def __post_init__(self) -> None:
        names = self.names
        check(2 <= len(names) <= CLASSES_MAX, f"classes are 2 to {CLASSES_MAX} names; found {len(names)}")
        check(len(set(names)) == len(names), "classes contains a name twice")
        for name in names:
            fits = name == name.strip() and name.isprintable() and 0 < len(name) <= NAME_CHARS
            check(
                fits, f"a class has a name of 1 to {NAME_CHARS} characters, no blanks around it; found {quoted(name)}"
            )
        later = names[1:]
        check(self.case_from in later, f"case_from is one of {', '.join(later)}; found {quoted(self.case_from)}")

    @property
    def cut(self) -> int:
        """How many classes are controls."""
        return self.names.index(self.case_from)

    @property
    def ordered(self) -> bool:
        """Whether there are more than two."""
        return len(self.names) > 2

    @property
    def expected(self) -> str:
        """What a cell may hold, in words."""
        if not self.ordered:
            control, case = self.names
            return f"{control} = control, {case} = case, empty = unlabelled"
        return f"{', '.join(self.names)} (classes in site.toml), or empty = unlabelled"

    def rank(self, text: str) -> int | None:
        """Return which class a cell names, from 0; None: unlabelled. Raises ValueError for what is no class."""
        return self.names.index(text) if text else None

    def label(self, rank: int | None) -> int | None:
        """Return 0 = control or 1 = case."""
        return None if rank is None else int(rank >= self.cut)


BINARY = Classes(("0", "1"), "1")
"""the paper's"""


def classes_of(names: tuple[str, ...], case_from: str) -> Classes:
    """Return what [data] of site.toml says; with neither key, control and case. Raises ValueError."""
    check(
        bool(names) == bool(case_from), "classes and case_from belong together: which classes, and from which on cases"
    )
    check(len(names) != 2, "two classes are what labels 0 and 1 are: leave out classes and case_from")
    return Classes(names, case_from) if names else BINARY
