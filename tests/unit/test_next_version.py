"""A synthetic next version of fedcervix: its code with old homes, today's code with its homes (docs/formats.md)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from cervix_study import records
from cervix_study.planning.grid import grid, software
from coordinator.cli import cli
from coordinator.home import registry
from coordinator.home.home import Home
from fedcervix import __version__
from fedcervix.core.events import AggregateStored, Task, TaskKind, UpdateStored, event_from_json, event_to_json
from fedcervix.core.formats import UnknownFormat
from fedcervix.core.measures import Measures
from fedcervix.core.numerics import NUMERICS, SINCE
from fedcervix.core.plan import Plan, Recipe, Terms, canonical_json
from fedcervix.disk.formats import backup_of
from fedcervix.disk.journal import SCHEMA
from fedcervix.disk.storage import INSTALL
from fedcervix.disk.storage import LATER as LATER_CAUSE
from fedcervix.errors import ConfigError, FedcervixError, FormatError, VersionError
from fedcervix.transport import codec
from fedcervix.transport.versions import HERE
from fedcervix.wire import federation_pb2 as wire
from site_agent.classifier.sweep import cell_key
from site_agent.home import SiteHome
from site_agent.network.devices import Machine
from site_agent.store import model_store
from site_agent.store.leak_guard import Seen
from site_agent.store.provenance import recipe_digest
from site_agent.store.run_store import RunStore, last_federation
from site_agent.store.task_results import TrainResult
from site_agent.training.checkpoints import Checkpoint, Checkpoints
from site_agent.training.context import TrainingContext
from tests.unit import study_cases
from tests.unit.coordinator_homes import made
from tests.unit.next_version import (
    EVENT_FORMAT,
    KEYS,
    PLAN_FORMAT,
    PLAN_TABLE,
    TABLE,
    VERSION,
    NextVersion,
    build,
    computes,
)
from tests.unit.test_disk_formats import tables

PLAN = Plan(mode="csfssl", sites=("ada", "bob"), profile="paper", terms=Terms(), recipe=Recipe())
UPDATE = UpdateStored(
    site="ada",
    task=Task("run", TaskKind.TRAIN, 1, "b" * 64),
    digest="a" * 64,
    images=5,
    steps=2,
    loss=1.0,
    seconds=3.0,
    at=4.0,
    measures=Measures(2.0),
)
LATER_EVENT = f"has format {EVENT_FORMAT}; fedcervix {__version__} reads formats up to {EVENT_FORMAT - 1}"
LATER = f"has format {PLAN_FORMAT}; fedcervix {__version__} reads formats up to {PLAN_FORMAT - 1}"
AT_SITE = f"has format {PLAN_FORMAT}; this site (fedcervix {__version__}) reads formats up to {PLAN_FORMAT - 1}"


def say(home: Path, words: str) -> str:
    """Give a command of today's coordinator, which succeeds."""
    done = CliRunner().invoke(cli, ["--home", str(home), *words.split()])
    assert done.exit_code == 0, (words, done.output, done.exception)
    return done.stdout


def refused(home: Path, words: str) -> FedcervixError:
    """Give a command that today's coordinator refuses."""
    error = CliRunner().invoke(cli, ["--home", str(home), *words.split()]).exception
    assert isinstance(error, FedcervixError), (words, error)
    return error


def outcomes(home: Path) -> dict[str, str]:
    return {entry["run"]: entry["outcome"] for entry in json.loads(say(home, "runs --json"))}


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> NextVersion:
    return build(tmp_path_factory.mktemp("next"), *KEYS)


@dataclass(frozen=True)
class World:
    """A coordinator's home that began with this version and went on with the next one."""

    home: Path
    before: Path
    """a copy from before"""
    runs: tuple[str, str, str]
    """ended by this version; begun by this version and ended by the next; begun by the next one"""
    digests: tuple[str, str]
    """of the plans of the first two"""
    shown: dict[str, Any]
    """what the next version has shown"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, later: NextVersion) -> World:
    folder = tmp_path_factory.mktemp("world")
    home, before = folder / "home", folder / "before"
    made(home)
    for words in ("begin --mode csfssl", "abort", "begin --mode ppfssl"):
        say(home, words)
    first, second = outcomes(home)
    digests = [json.loads(say(home, f"status --json {run}"))["plan"] for run in (first, second)]
    shutil.copytree(home, before)
    commands = (
        "runs --json",
        f"status --json {first}",
        f"status --json {second}",
        "abort",
        f"export {first} {folder / 'out'}",
        "begin --mode csfssl",
        "runs --json",
    )
    shown = dict(
        zip(("old", first, second, "abort", "export", "begin", "new"), later.coordinator(home, *commands), strict=True)
    )
    third = json.loads(shown["new"])[-1]["run"]
    return World(home, before, (first, second, third), (digests[0], digests[1]), shown)


# --- old homes with the next version ------------------------------------------------------------------------------


def test_the_next_version_goes_on_with_old_homes_and_no_digest_changes(world: World) -> None:
    first, second, third = world.runs
    assert [entry["outcome"] for entry in json.loads(world.shown["old"])] == ["ABORTED", "unfinished"]
    assert tuple(json.loads(world.shown[run])["plan"] for run in (first, second)) == world.digests
    assert [entry["outcome"] for entry in json.loads(world.shown["new"])] == ["ABORTED", "ABORTED", "unfinished"]
    assert first.endswith(world.digests[0][:8])
    assert not third.endswith(world.digests[0][:8]), "noise is in the plan of a new run"


def test_a_plan_that_this_version_can_say_is_the_same_text_there(later: NextVersion) -> None:
    texts = later.run(
        "from fedcervix.core.plan import Plan, Recipe, Terms\n"
        "old = Plan.parse(given)\n"
        "same = [Plan(mode=old.mode, sites=old.sites, profile=old.profile, terms=Terms(noise=n), recipe=Recipe())"
        " for n in (0.0, 0.5)]\n"
        "result = [old.canonical(), old.digest, old.terms.noise, *(plan.canonical() for plan in same)]",
        PLAN.canonical(),
    )
    assert texts[:4] == [PLAN.canonical(), PLAN.digest, 0.0, PLAN.canonical()]
    assert json.loads(texts[4])["format"] == PLAN_FORMAT


def test_the_format_of_a_plan_is_the_one_that_its_text_names(later: NextVersion) -> None:
    """A site is asked to read that text, and refuses it by that number."""
    terms = {**json.loads(PLAN.canonical())["terms"], "noise": 0.0}
    said = canonical_json({**json.loads(PLAN.canonical()), "terms": terms, "format": PLAN_FORMAT})
    script = "from fedcervix.core.plan import Plan\nresult = [Plan.parse(text).format for text in given]"
    assert later.run(script, [PLAN.canonical(), said]) == [1, PLAN_FORMAT]
    assert PLAN.format == 1


def test_a_plan_names_the_later_format_only_for_a_value_that_this_version_refuses(later: NextVersion) -> None:
    texts = later.run(
        "from fedcervix.core.plan import Plan, Recipe, Terms\n"
        "plans = [Plan(mode='csfssl', sites=('ada', 'bob'), profile='paper', terms=Terms(noise=0.0),"
        " recipe=Recipe(**one)) for one in given]\n"
        "assert all(Plan.parse(plan.canonical()) == plan for plan in plans)\n"
        "result = [plan.canonical() for plan in plans]",
        [{"loss": "dcl", "width": 4096}, {"loss": "barlow"}, {"width": 4097}],
    )
    assert Plan.parse(texts[0]).recipe.loss == "dcl"
    for text in texts[1:]:
        with pytest.raises(ValueError, match=f"the plan {LATER}"):
            Plan.parse(text)
        with pytest.raises(ValueError, match=r"loss must be one of|width must be 1 to 4096"):
            Plan.parse(canonical_json({key: value for key, value in json.loads(text).items() if key != "format"}))


def test_a_new_field_of_a_value_in_an_event_is_told_where_it_is_used(later: NextVersion) -> None:
    old = [AggregateStored(1, "a" * 64, 5.0, measures=(("ada", Measures(1.0)),)), UPDATE]
    script = (
        "import dataclasses\n"
        "from fedcervix.core.events import event_from_json, event_to_json\n"
        "average, update = map(event_from_json, given)\n"
        "turned = dataclasses.replace(update.measures, turn=0.5)\n"
        "other = dataclasses.replace(average, measures=(('ada', turned),))\n"
        "new = other, dataclasses.replace(update, measures=turned)\n"
        "assert [event_from_json(event_to_json(one)) for one in new] == [*new]\n"
        "result = [event_to_json(one) for one in (average, update, *new)]"
    )
    texts = later.run(script, [event_to_json(one) for one in old])
    assert texts[:2] == [event_to_json(one) for one in old]
    assert [json.loads(text).get("format") for text in texts] == [None, None, EVENT_FORMAT, EVENT_FORMAT]
    for text in texts[2:]:
        with pytest.raises(UnknownFormat, match=f"the event has format {EVENT_FORMAT}; fedcervix"):
            event_from_json(text)


def test_a_new_table_of_the_plan_changes_no_older_text_and_no_cell_of_a_study(tmp_path: Path) -> None:
    federated = next(
        cell for cell in grid(study_cases.asked(tmp_path, 'starts = ["csfssl"]'), study_cases.ground()) if cell.terms
    )
    cell = records.to_json(federated).decode()
    old, new, part, study = build(tmp_path / "next", *PLAN_TABLE).run(
        "import dataclasses\n"
        "from pathlib import Path\n"
        "from cervix_study import records\n"
        "from fedcervix.core.plan import Plan, Terms, Weather\n"
        "old, cell = Plan.parse(given[0]), records.from_json(records.Cell, given[1].encode(), Path('cell.json'))\n"
        "new = dataclasses.replace(old, terms=Terms())\n"
        "part = dataclasses.replace(old, terms=Terms(weather=Weather(rain=0.0, wind=0.5)))\n"
        "none = dataclasses.replace(old, terms=Terms(weather=Weather(rain=0.0)))\n"
        "used = dataclasses.replace(cell, terms=part.terms)\n"
        "assert all(Plan.parse(plan.canonical()) == plan for plan in (new, part))\n"
        "assert records.from_json(records.Cell, records.to_json(used), Path('cell.json')) == used\n"
        "result = [[old.canonical(), old.terms.weather.rain, none.canonical()], new.canonical(), part.canonical(),"
        " [cell.key, cell.terms.weather.rain, records.to_json(cell).decode(), used.key]]",
        [PLAN.canonical(), cell],
    )
    assert old == [PLAN.canonical(), 0.0, PLAN.canonical()]
    assert [json.loads(text)["terms"]["weather"] for text in (new, part)] == [{"rain": 0.25}, {"wind": 0.5}]
    with pytest.raises(ValueError, match=f"the plan {LATER}"):
        Plan.parse(new)
    assert study[:3] == [federated.key, 0.0, cell]
    assert study[3] != federated.key


# --- homes of the next version with this one ----------------------------------------------------------------------


def test_this_version_goes_on_with_the_runs_that_it_can_read(world: World, tmp_path: Path) -> None:
    first, second, third = world.runs
    assert outcomes(world.home) == {first: "ABORTED", second: "ABORTED", third: "unreadable"}
    assert json.loads(say(world.home, f"status --json {first}"))["plan"] == world.digests[0]
    assert LATER_EVENT in refused(world.home, f"status {second}").what, "an event of it has a new field"
    shown = json.loads(say(world.home, "status --json"))
    assert (shown["run"], LATER in shown["trouble"]) == (first, True)
    say(world.home, f"export {first} {tmp_path / 'out'}")
    say(world.home, f"invite nhs --out {tmp_path / 'nhs.toml'}")


@pytest.mark.parametrize("words", ["start", "start --mode csfssl --new", "begin --mode csfssl --new", "abort"])
def test_a_run_in_progress_that_it_cannot_read_is_refused_in_one_sentence(world: World, words: str) -> None:
    before = outcomes(world.home)
    error = refused(world.home, words)
    assert isinstance(error, FormatError)
    assert f"the plan {LATER}" in error.what
    assert (error.cause, error.next_step) == (LATER_CAUSE, INSTALL)
    assert outcomes(world.home) == before


def test_once_that_run_has_ended_this_version_begins_the_next(world: World, later: NextVersion, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(world.home, home)
    later.coordinator(home, "abort")
    say(home, "begin --mode ppfssl")
    assert [*outcomes(home).values()] == ["ABORTED", "ABORTED", "unreadable", "unfinished"]
    say(home, f"export {world.runs[2]} {tmp_path / 'out'}")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> NextVersion:
    """A next version with other tables, too."""
    return build(tmp_path_factory.mktemp("next"), *KEYS, *TABLE)


def test_a_new_table_is_made_after_a_backup_and_this_version_goes_back_to_it(
    world: World, other: NextVersion, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(world.before, home)
    looked, *_ = other.coordinator(home, "runs --json")
    assert [entry["outcome"] for entry in json.loads(looked)] == ["ABORTED", "unfinished"]
    kept = backup_of(Home(home).journal, SCHEMA.format)
    assert not kept.exists(), "to look changes nothing"
    other.coordinator(home, "abort", "begin --mode csfssl", f"invite nhs --out {tmp_path / 'nhs.toml'}")
    new = made(tmp_path / "new")
    other.coordinator(new.folder, "begin --mode csfssl", f"invite nhs --out {tmp_path / 'new.toml'}")
    for upgraded, fresh in ((Home(home).journal, new.journal), (Home(home).registry, new.registry)):
        assert tables(upgraded) == tables(fresh)
    assert kept.stat().st_mode & 0o777 == 0o600
    error = refused(home, "status")
    later = f"has format {SCHEMA.format + 1}; fedcervix {__version__} reads formats up to {SCHEMA.format}"
    assert f"the journal {Home(home).journal} {later}; its backup in format {SCHEMA.format} is {kept}" in error.what
    subprocess.run(["sh", "-c", error.next_step.rpartition(": ")[2]], check=True)
    assert [*outcomes(home)] == [*world.runs[:2]]


def test_no_command_changes_the_registry_under_a_coordinator_of_this_version(
    other: NextVersion, tmp_path: Path
) -> None:
    home = made(tmp_path / "home")
    say(home.folder, f"invite nhs --out {tmp_path / 'nhs.toml'}")
    before, kept = home.registry.read_bytes(), backup_of(home.registry, registry.SCHEMA.format)
    with home.locked():
        for words in (f"invite alts --out {tmp_path / 'alts.toml'}", "renew nhs", "revoke nhs"):
            told = other.refused(home.folder, words)
            assert f"{home.registry} has an earlier format, and a coordinator is running" in told
            assert "restart it: " in told
    assert (home.registry.read_bytes(), kept.exists()) == (before, False)
    assert not (tmp_path / "alts.toml").exists()
    other.coordinator(home.folder, "revoke nhs")
    assert kept.read_bytes() != home.registry.read_bytes()
    assert f"its backup in format {registry.SCHEMA.format} is {kept}" in refused(home.folder, "revoke nhs").what


def test_an_agent_waits_where_a_coordinator_has_a_plan_of_the_next_version(world: World, later: NextVersion) -> None:
    texts = later.run(
        "from fedcervix.core.plan import Plan, Recipe, Terms\n"
        "result = [Plan(mode='csfssl', sites=('ada', 'bob'), profile='paper', terms=Terms(noise=n), recipe=Recipe())"
        ".canonical() for n in (0.0, 0.5)]"
    )
    old, new = (
        wire.FromCoordinator(welcome=wire.Welcome(wire_version=HERE.wire_max, federation="f", run="run", plan=text))
        for text in texts
    )
    welcome = codec.read_from_coordinator(old)
    assert isinstance(welcome, codec.Welcome)
    assert welcome.plan.digest == PLAN.digest
    with pytest.raises(VersionError, match=re.escape(f"the plan of the run {AT_SITE}")):
        codec.read_from_coordinator(new)


# --- a site -------------------------------------------------------------------------------------------------------

SITE = """
import os
from datetime import datetime, timezone
from pathlib import Path
from fedcervix.core.plan import Plan, Recipe, Terms
from site_agent.home import SiteHome
from site_agent.store import model_store, provenance
from site_agent.store.leak_guard import Seen
from site_agent.store.run_store import RunStore, last_federation
from site_agent.store.task_results import TrainResult

home, weights = SiteHome(Path(given)), Path(given) / "weights"
known = last_federation(home)
old = model_store.read(home.models / "mine")
history = known.run_store.history()
known.run_store.note(2, TrainResult(digest="", images=1, steps=1, loss=2.0, seconds=1.0, watts=250.0))

store = RunStore(home.run_folder("new"))
store.open(Plan(mode="csfssl", sites=("ada",), profile="paper", terms=Terms(), recipe=Recipe()))
store.end("OK", "{}")
later = os.stat(home.run_folder("run") / "plan.json").st_mtime + 9
os.utime(home.run_folder("new") / "plan.json", (later, later))
for name, recipe in (("plain", Recipe()), ("smooth", Recipe(smoothing=0.1))):
    trained = model_store.Trained("SSL", recipe, 0, {})
    model_store.keep(home, name, weights, trained, Seen(), datetime.now(timezone.utc))
result = [known.plan.digest, history.train[1].loss, history.train[1].watts, old.digest, old.recipe.smoothing,
          provenance.recipe_digest(old.recipe)]
"""


def test_a_site_s_files_go_to_the_next_version_and_back(tmp_path: Path, later: NextVersion) -> None:
    home = SiteHome(tmp_path)
    (tmp_path / "weights").write_bytes(b"weights")
    store = RunStore(home.run_folder("run"))
    store.open(PLAN)
    store.note(1, TrainResult(digest="", images=1, steps=1, loss=1.0, seconds=1.0))
    trained = model_store.Trained("SSL", Recipe(), 0, {})
    mine = model_store.keep(home, "mine", tmp_path / "weights", trained, Seen(), model_store.utc_now())
    assert later.run(SITE, str(tmp_path)) == [
        PLAN.digest,
        1.0,
        0.0,
        mine.digest,
        0.0,
        recipe_digest(Recipe()),
    ]

    found = last_federation(home)
    assert found is not None
    assert (found.run, found.run_store.history().train[2].loss) == ("run", 2.0), "the ended run is passed over"
    with pytest.raises(FormatError, match=f"the plan {LATER}"):
        RunStore(home.run_folder("new")).plan()
    (home.run_folder("new") / "outcome.txt").unlink()
    with pytest.raises(FormatError, match=LATER):
        last_federation(home)
    assert last_federation(home, any_readable=True) == found
    whole, broken = model_store.found(home)
    assert {model.folder.name for model in whole} == {"mine", "plain"}
    assert LATER in broken["smooth"].what
    assert broken["smooth"].next_step.startswith("install that version")


def test_a_key_of_the_next_version_in_site_toml_is_said_to_be_one(tmp_path: Path) -> None:
    home = SiteHome(tmp_path)
    home.config_file.write_text("[hardware]\nfans = 2\n")
    with pytest.raises(ConfigError, match=r"unknown key `hardware\.fans`") as caught:
        home.config()
    assert f"a later version of fedcervix (this is {__version__})" in caught.value.cause


# --- a study ------------------------------------------------------------------------------------------------------


def test_the_cells_of_a_study_keep_their_names_and_their_meaning(tmp_path: Path, later: NextVersion) -> None:
    cells = grid(study_cases.asked(tmp_path, 'starts = ["ssl", "csfssl"]'), study_cases.ground())
    federated = next(cell for cell in cells if cell.terms)
    script = (
        "import dataclasses\nfrom pathlib import Path\nfrom cervix_study import records\n"
        "cell = records.from_json(records.Cell, given.encode(), Path('cell.json'))\n"
        "used = dataclasses.replace(cell, terms=dataclasses.replace(cell.terms, noise=0.1))\n"
        "texts = [records.to_json(one).decode() for one in (cell, used)]\n"
        "result = [cell.key, used.key, cell.terms.noise, *texts]"
    )
    before = records.to_json(federated).decode()
    key, other, noise, same, used = later.run(script, before)
    assert (key, noise, same) == (federated.key, 0.0, before)
    assert other != key
    with pytest.raises(FedcervixError, match=r"is not valid: Cell\.terms\.noise"):
        records.from_json(records.Cell, used.encode(), tmp_path / "cell.json")
    with pytest.raises(FormatError, match="format 2"):
        records.from_json(records.Cell, canonical_json({**json.loads(used), "format": 2}).encode(), tmp_path / "c.json")


# --- what is named after the way it was computed -------------------------------------------------------------------

COMPUTED = """
from pathlib import Path
import torch
from cervix_study.planning.grid import software
from fedcervix.core.plan import Recipe
from site_agent.classifier.sweep import cell_key
from site_agent.network.devices import Machine
from site_agent.training.checkpoints import Checkpoints
from site_agent.training.context import TrainingContext

found = Checkpoints(Path(given), "a training").latest()
context = TrainingContext(recipe=Recipe(), seed=1, stream="nhs", machine=Machine(torch.device("cpu"), "eager"))
result = [software(), cell_key(context, "images"), found and dict(found.facts)]
"""


def test_a_version_that_computes_alike_goes_on_with_cells_and_checkpoints_and_another_one_begins_anew(
    tmp_path: Path, later: NextVersion
) -> None:
    """Before: after an upgrade to any version, a half-done study or sweep began again, and a long training, too."""
    Checkpoints(tmp_path / "kept", "a training").keep(Checkpoint({"w": torch.ones(1)}, {"step": 7}))
    context = TrainingContext(recipe=Recipe(), seed=1, stream="nhs", machine=Machine(torch.device("cpu"), "eager"))
    ours = [software(), cell_key(context, "images"), {"step": 7}]
    assert later.run(COMPUTED, str(tmp_path / "kept")) == ours
    other = build(tmp_path / "other", *KEYS, computes(NUMERICS + 1, VERSION))
    names, key, found = other.run(COMPUTED, str(tmp_path / "kept"))
    assert names.startswith(f"fedcervix {VERSION}, torch ")
    assert (key != ours[1], found) == (True, None)


def test_the_names_of_the_first_release_are_still_found() -> None:
    assert SINCE[1] == "0.1.0"
    assert list(SINCE) == [*range(1, NUMERICS + 1)]


def test_the_copy_is_another_version(later: NextVersion) -> None:
    assert later.run("from fedcervix import __version__\nresult = __version__") == VERSION != __version__
