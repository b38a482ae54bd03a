"""The next version of fedcervix, as it may be one day: a copy of the code with a few more keys, fields and a table.

What today's code and that one make of each other's files is the test of docs/formats.md.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedcervix import __version__
from fedcervix.core import events, plan_formats
from fedcervix.core.numerics import NUMERICS, SINCE

ROOT = Path(__file__).parents[2]
PACKAGES = ("shared/fedcervix", "coordinator", "site_agent", "cervix_study", "protos")
VERSION = f"{__version__}.post1"

Edit = tuple[str, str, str]
"""file, a text in it, what stands there instead"""

PLAN_FORMAT, EVENT_FORMAT = plan_formats.FORMAT + 1, events.FORMAT + 1
"""of the next version"""
WIDER = f"""\
    Change({PLAN_FORMAT}, "recipe.loss", ("nt-xent", "dcl"), is_new=False),
    Change({PLAN_FORMAT}, "recipe.width", Within(1, 4096), is_new=False),
"""
KEYS: tuple[Edit, ...] = (
    ("shared/fedcervix/__init__.py", f'__version__ = "{__version__}"', f'__version__ = "{VERSION}"'),
    # A key of the terms, which new plans use, and one of the recipe, which they do not.
    (
        "shared/fedcervix/core/plan.py",
        "    seed: Annotated[int, Within(0, INT64_MAX)] = 0\n",
        "    seed: Annotated[int, Within(0, INT64_MAX)] = 0\n    noise: Annotated[float, Within(0, 1)] = 0.5\n",
    ),
    (
        "shared/fedcervix/core/plan.py",
        '    loss: Loss = "nt-xent"\n',
        '    loss: Loss = "nt-xent"\n    smoothing: Annotated[float, Within(0, 1)] = 0.0\n',
    ),
    # A loss that this version does not know, and a wider dense layer.
    ("shared/fedcervix/core/plan.py", 'Literal["nt-xent", "dcl"]', 'Literal["nt-xent", "dcl", "barlow"]'),
    (
        "shared/fedcervix/core/plan.py",
        "width: Annotated[int, Within(1, 4096)]",
        "width: Annotated[int, Within(1, 8192)]",
    ),
    (
        "shared/fedcervix/core/plan_formats.py",
        "CHANGES: Final = (\n",
        f"CHANGES: Final = (\n{WIDER}",
    ),
    (
        "shared/fedcervix/core/plan_formats.py",
        "CHANGES: Final = (\n",
        (
            f'CHANGES: Final = (\n    Change({PLAN_FORMAT}, "terms.noise", (0.0,)),\n'
            f'    Change({PLAN_FORMAT}, "recipe.smoothing", (0.0,)),\n'
        ),
    ),
    # A field of an event.
    (
        "shared/fedcervix/core/events.py",
        "    reason: str\n    at: float\n\n\n@dataclass(frozen=True, slots=True)\nclass Tick",
        "    reason: str\n    at: float\n    by: str = ''\n\n\n@dataclass(frozen=True, slots=True)\nclass Tick",
    ),
    ("shared/fedcervix/core/events.py", f"\nFORMAT = {events.FORMAT}\n", f"\nFORMAT = {EVENT_FORMAT}\n"),
    (
        "shared/fedcervix/core/events.py",
        "SINCE: Mapping[str, int] = ",
        f"SINCE: Mapping[str, int] = dict.fromkeys(('RunAborted.by', 'Measures.turn'), {EVENT_FORMAT}) | ",
    ),
    # A field of a value in an event.
    (
        "shared/fedcervix/core/measures.py",
        "    distance: float | None = None\n",
        "    distance: float | None = None\n    turn: float = 0.0\n",
    ),
    ("coordinator/run/history.py", "RunAborted(reason, at)", "RunAborted(reason, at, 'the operator')"),
    # A key of a run's record, of a model's record, of a site's notes and of site.toml.
    (
        "shared/fedcervix/runtime/record.py",
        "    adopted: Sites = ()\n",
        '    weather: str = "fine"\n    adopted: Sites = ()\n',
    ),
    (
        "site_agent/store/model_store.py",
        '            "start": trained.start,\n',
        '            "start": trained.start,\n            "weather": "fine",\n',
    ),
    (
        "site_agent/store/task_results.py",
        "    steps: int\n    loss: float\n",
        "    steps: int\n    loss: float\n    watts: float = 0.0\n",
    ),
    (
        "site_agent/home.py",
        "    launcher: tuple[str, ...] = ()\n",
        "    launcher: tuple[str, ...] = ()\n    fans: int = 1\n",
    ),
)
WEATHER = """\
@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    rain: Annotated[float, Within(0, 1)] = 0.25
    wind: Annotated[float, Within(0, 1)] = 0.0


"""
FIELD = "    weather: Weather = dataclasses.field(default_factory=Weather)\n"
ROWS = f"""\
    Change({PLAN_FORMAT}, "terms.weather", ()),
    Change({PLAN_FORMAT}, "terms.weather.rain", (0.0,)),
    Change({PLAN_FORMAT}, "terms.weather.wind", (0.0,)),
"""
PLAN_TABLE: tuple[Edit, ...] = (
    # A table of the terms, which new plans use.
    (
        "shared/fedcervix/core/plan.py",
        "@dataclass(frozen=True, slots=True, kw_only=True)\nclass Terms:\n",
        f"{WEATHER}@dataclass(frozen=True, slots=True, kw_only=True)\nclass Terms:\n",
    ),
    (
        "shared/fedcervix/core/plan.py",
        "    seed: Annotated[int, Within(0, INT64_MAX)] = 0\n",
        f"    seed: Annotated[int, Within(0, INT64_MAX)] = 0\n{FIELD}",
    ),
    (
        "shared/fedcervix/core/plan_formats.py",
        "CHANGES: Final = (\n",
        f"CHANGES: Final = (\n{ROWS}",
    ),
)
LABEL = "label TEXT NOT NULL DEFAULT ''"
TABLE: tuple[Edit, ...] = (
    # A column of the journal.
    ("shared/fedcervix/disk/journal.py", "begun_at REAL NOT NULL) STRICT", f"begun_at REAL NOT NULL, {LABEL}) STRICT"),
    (
        "shared/fedcervix/disk/journal.py",
        "    ((LEDGER, COUNTERSIGNATURES),),\n",
        f'    ((LEDGER, COUNTERSIGNATURES), ("ALTER TABLE runs ADD COLUMN {LABEL}",)),\n',
    ),
    (
        "shared/fedcervix/disk/journal.py",
        "INSERT INTO runs VALUES (?, ?, ?, ?)",
        "INSERT INTO runs VALUES (?, ?, ?, ?, '')",
    ),
    # A column of the registry. Its upgrade to format 2 makes the table of that format, whatever comes after.
    (
        "coordinator/home/registry.py",
        "    (CREDENTIALS, ONE_VALID, ONE_ISSUED),\n    (RENEWALS,),\n",
        f"""    (CREDENTIALS.replace("BLOB  ", "BLOB, {LABEL}  "), ONE_VALID, ONE_ISSUED),
    (RENEWALS, ("ALTER TABLE credentials ADD COLUMN {LABEL}",)),
""",
    ),
)


def computes(numerics: int, since: str) -> Edit:
    """Return the edit after which the code computes otherwise, since that version."""
    last = f'{NUMERICS}: "{SINCE[NUMERICS]}"'
    return ("shared/fedcervix/core/numerics.py", last, f'{last}, {numerics}: "{since}"')


@dataclass(frozen=True)
class NextVersion:
    """A copy of the code with edits."""

    folder: Path

    def run(self, script: str, given: Any = None) -> Any:
        """Run a script with this version: it finds `given`, and leaves `result`, both as JSON has them."""
        whole = f"import json, sys\ngiven = json.loads(sys.argv[1])\n{script}\nprint('RESULT ' + json.dumps(result))"
        path = os.pathsep.join([str(self.folder), str(self.folder / "shared")])
        command = [sys.executable, "-c", whole, json.dumps(given)]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, cwd=self.folder, text=True, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.rpartition("RESULT ")[2])

    def refused(self, home: Path, words: str) -> str:
        """Give a command of the coordinator, which refuses it; return the error's three lines."""
        return self.run(
            "from click.testing import CliRunner\n"
            "from coordinator.cli import cli\n"
            "from fedcervix.errors import FedcervixError\n"
            "error = CliRunner().invoke(cli, ['--home', given[0], *given[1].split()]).exception\n"
            "assert isinstance(error, FedcervixError), error\n"
            "result = error.explain()",
            [str(home), words],
        )

    def coordinator(self, home: Path, *commands: str) -> list[str]:
        """Give commands of the coordinator; return what each has printed. They must succeed."""
        return self.run(
            "from click.testing import CliRunner\n"
            "from coordinator.cli import cli\n"
            "done = [CliRunner().invoke(cli, ['--home', given[0], *words.split()]) for words in given[1]]\n"
            "assert all(one.exit_code == 0 for one in done), [(one.output, one.exception) for one in done]\n"
            "result = [one.stdout for one in done]",
            [str(home), commands],
        )


def build(folder: Path, *edits: Edit) -> NextVersion:
    """Copy the code into a folder, and edit it."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, before, after in edits:
        text = (folder / name).read_text()
        assert text.count(before) == 1, f"{name} has {before!r} {text.count(before)} times"
        (folder / name).write_text(text.replace(before, after))
    return NextVersion(folder)
