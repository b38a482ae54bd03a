"""The folder decisions/ of a home: two files for each decision, its text (.json) and its signature (.p7s).

Rules
1. A file is written once, under a name that follows from its content, and never changed or deleted.
2. A decision can be added twice, in any order, from a copy: what the folder says is the set of its decisions.
3. What cannot be read fails to the safe side. A damaged retirement still retires: the name of its file says which
   model. Signatures are checked where a decision comes in and by `models verify`; a retirement counts even where its
   signature can no longer be checked, for this home may have joined another federation since.
4. Who decides holds a lock, so each decision follows the one before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from fedcervix.core.plan import check
from fedcervix.disk.files import make_folder, write_whole
from fedcervix.disk.locks import held
from fedcervix.disk.storage import damaged, disk, read_file
from fedcervix.errors import StorageError
from fedcervix.lineage.decisions import SHORT, ModelDecision, ModelStanding, Ruling, standing
from fedcervix.lineage.signed_decisions import SignedDecision
from fedcervix.trust.chain import End

TEXT, SIGNATURE = ".json", ".p7s"
TEXT_BYTES_MAX = 64 * 1024
NAME = re.compile(rf"(approved|retired)-([0-9a-f]{{{SHORT}}})-[0-9a-f]{{{SHORT}}}")


@dataclass(frozen=True, slots=True)
class StoredDecisions:
    """What a folder holds."""

    decisions: tuple[SignedDecision, ...] = ()
    """in the order in which they were made"""
    damaged: tuple[StorageError, ...] = ()
    retired_by_name: frozenset[str] = frozenset()
    """first digits of the models that a damaged file retires"""

    def of(self, model: str) -> tuple[SignedDecision, ...]:
        """Return what was decided on a model."""
        return tuple(one for one in self.decisions if one.decision.model == model)

    def by(self, said_by: str) -> tuple[ModelDecision, ...]:
        """Return the decisions of one party."""
        return tuple(one.decision for one in self.decisions if one.decision.said_by == said_by)

    def standing(self, model: str, *, site: str | None, proved: Collection[str] | None = None) -> ModelStanding:
        """Return how a model stands. `site`: whose home it is; None: a coordinator's.

        A federation's operator binds everybody, a site only itself; what a home said before it had a key binds it.
        `proved`: texts whose signatures hold. An approval counts only with them; None: approvals are not asked for.
        """
        binding = [one.decision for one in self.of(model) if binds(one.decision, site)]
        said = [one for one in binding if one.decision == "retired" or not one.said_by or one.text in (proved or ())]
        found = standing(model, said)
        return ModelStanding("retired") if found.by is None and model[:SHORT] in self.retired_by_name else found


def binds(one: ModelDecision, site: str | None) -> bool:
    """Say whether a decision binds the home of a site, or of a coordinator (None)."""
    role, _, name = one.said_by.partition("://")[2].partition("/")[2].partition("/")
    return not one.said_by or role == "operator" or (role == "site" and name == site)


@dataclass(frozen=True, slots=True)
class DecisionStore:
    """The decisions of a home. Every method raises StorageError."""

    folder: Path

    def read(self) -> StoredDecisions:
        """Return all decisions; files that are not whole are named."""
        with disk(self.folder, "read"):
            there = sorted(self.folder.iterdir()) if self.folder.is_dir() else []
        names = sorted({file.stem for file in there if file.suffix in (TEXT, SIGNATURE) and file.name[0] != "."})
        found, broken, retired = list[SignedDecision](), list[StorageError](), set[str]()
        for name in names:
            try:
                found.append(read_decision(self.folder / f"{name}{TEXT}"))
            except StorageError as error:
                broken.append(error)
                if (named := NAME.fullmatch(name)) and named[1] == "retired":
                    retired.add(named[2])
        ordered = sorted(found, key=lambda one: (one.decision.moment, one.decision.entry, one.decision.text))
        return StoredDecisions(tuple(ordered), tuple(broken), frozenset(retired))

    def decide(
        self,
        ruling: Ruling,
        sign: Callable[[ModelDecision], SignedDecision],
        allowed: Callable[[StoredDecisions], None],
    ) -> SignedDecision:
        """Write down what a person says, as the next decision of the party.

        `allowed` looks at what was decided so far, under the lock, and raises where this must not be added.
        """
        make_folder(self.folder)
        with held(self.folder / ".lock", busy=None):
            before = self.read()
            allowed(before)
            last = max(before.by(ruling.said_by), key=lambda one: one.entry, default=None)
            made = sign(ModelDecision.of(ruling, last.end if last else End()))
            self.add(made)
        return made

    def add(self, one: SignedDecision) -> bool:
        """Store a decision; return whether it is new. A damaged copy of the same one is replaced.

        The text comes last: with it the decision is there.
        """
        make_folder(self.folder)
        text = self.file(one.decision)
        if one.signature:
            write_whole(text.with_suffix(SIGNATURE), one.signature)
        with disk(text, "read"):
            known = text.exists() and text.read_bytes() == one.decision.text.encode()
        if not known:
            write_whole(text, one.decision.text.encode())
        return not known

    def file(self, decision: ModelDecision) -> Path:
        """Return where the text of a decision lies."""
        return self.folder / f"{decision.name}{TEXT}"


def read_decision(file: Path, *, under_its_name: bool = True) -> SignedDecision:
    """Return the decision of a file, with the signature that lies beside it. Raises StorageError.

    `under_its_name`: the file must have the name that follows from its text. One that came by mail may have another
    one, and a line break behind its text.
    """
    content, beside = read_file(file), file.with_suffix(SIGNATURE)
    with disk(beside, "read"):
        signature = beside.read_bytes() if beside.exists() else b""
    try:
        decision = ModelDecision.parse(content[:TEXT_BYTES_MAX].decode("ascii").strip())
        check(
            not under_its_name or decision.name == file.stem, f"a decision of this text is called {decision.name}{TEXT}"
        )
    except ValueError as error:
        names = f"{file.name} and {beside.name}"
        raise damaged(
            file, error, next_step=f"copy {names} again, from a backup or from who sent them, into {file.parent}"
        ) from error
    return SignedDecision(decision, signature)
