"""`models` of both programs, on homes that release 0.1.0 left: what people type, read, and are refused."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import coordinator.cli
import site_agent.cli
from cervix_study.data.preparation import _check_not_retired
from cervix_study.export import card
from cervix_study.export.model_source import find
from coordinator.home.founding import renew_self
from coordinator.home.home import Home
from fedcervix.errors import ConfigError, FedcervixError, IdentityError, ModelError, RunError, StorageError
from fedcervix.lineage.decision_store import DecisionStore
from fedcervix.lineage.decisions import Ruling
from fedcervix.lineage.shelf import Voice
from fedcervix.transport import identity
from site_agent.home import SiteHome
from site_agent.home import pin as pin_site
from site_agent.store.retired_models import objection
from tests.archive.homes import unpack
from tests.unit.sites import plan_of

NOW = datetime.now(UTC)
WRONG = "a site had wrong labels"


@dataclass(frozen=True)
class Town:
    """A coordinator and a hospital, and what people type there."""

    folder: Path

    @property
    def home(self) -> Home:
        return Home(self.folder / "coordinator")

    @property
    def site(self) -> SiteHome:
        return SiteHome(self.folder / "site-nhs")

    @property
    def run(self) -> str:
        return next(self.home.results.iterdir()).name

    @property
    def digest(self) -> str:
        return str(json.loads((self.home.results / self.run / "record.json").read_text())["model"])

    def operator(self, *words: str) -> str:
        return typed(coordinator.cli.cli, self.home.folder, *words)

    def hospital(self, *words: str) -> str:
        return typed(site_agent.cli.cli, self.site.folder, *words)

    def party(self, who: identity.Identity) -> Voice:
        """Return the voice of somebody to whom the authority gives a certificate today."""
        key = identity.new_key()
        made = identity.issue(self.home.authority(), identity.public_key(key), who, NOW, identity.SITE_LIFETIME)
        return Voice.of(key, made, NOW)

    def said(self, by: Voice, decision: str = "retired", model: str = "") -> Path:
        """Return the file of what a party says, as it comes by mail."""
        store = DecisionStore(self.folder / "mail")
        ruling = Ruling(
            decision=decision,  # type: ignore[arg-type]
            model=model or self.digest,
            why=WRONG,
            said_by=by.said_by,
            made_at=NOW.isoformat(),
        )
        return store.file(store.decide(ruling, by.sign, lambda _before: None).decision)


def typed(program, home: Path, *words: str) -> str:
    done = CliRunner().invoke(program, ["--home", str(home), *words])
    if isinstance(done.exception, FedcervixError):
        raise done.exception
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return done.output


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Town:
    """The homes of 0.1.0, with certificates of today."""
    town = Town(tmp_path_factory.mktemp("town"))
    unpack("0.1.0", "ended", town.folder)
    renew_self(town.home, NOW)
    nhs = town.party(identity.Identity("cervix", "site", "nhs"))
    town.site.key_file("site.key").write_bytes(nhs.key)
    town.site.key_file("site.crt").write_bytes(nhs.certificate)
    return town


def _copied(source: str, to: str) -> str:
    """Copy a file; a model becomes a second name of the same file, which no test writes to."""
    os.link(source, to) if source.endswith(".safetensors") else shutil.copyfile(source, to)
    return to


@pytest.fixture
def town(made: Town, tmp_path: Path) -> Town:
    shutil.copytree(made.folder, tmp_path / "town", copy_function=_copied)
    return Town(tmp_path / "town")


# --- the three people ---------------------------------------------------------------------------------------------


def test_an_operator_lists_what_the_runs_made_and_approves_it(town: Town) -> None:
    assert f"{town.digest[:12]}" in (listed := town.operator("models", "list"))
    assert "candidate" in listed
    said = town.operator("models", "approve", town.run, "--reason", "validated", "--by", "steering group")
    assert f"approved: model {town.digest}" in said
    assert "approved" in town.operator("models", "list")
    shown = town.operator("models", "show", town.digest[:8])
    assert "validated (by operator (steering group)" in shown
    assert "nhs: in 1 of 1 rounds, up to 24 images in a round; has the model" in shown
    assert "1 decision in" in town.operator("models", "verify")
    [entry] = json.loads(town.operator("models", "list", "--json"))
    assert (entry["model"]["digest"], entry["standing"]["state"]) == (town.digest, "approved")


def test_a_hospital_stops_using_a_model_today_and_all_that_was_made_from_it(town: Town) -> None:
    done = town.hospital("models", "retire", town.run, "--reason", WRONG, "--replaced-by", "c" * 64)
    assert "made from it, and refused from now on, too: classifiers/csfssl" in done
    with pytest.raises(ModelError, match=r"classifier csfssl \(\w{12}\) is retired") as refused:
        town.hospital("predict", "csfssl", "picture.png", "--out", str(town.folder / "out.csv"))
    for word in (WRONG, f"It was made from model {town.digest[:12]}", "site nhs", f"{NOW:%Y-%m-%d}", "c" * 64):
        assert word in refused.value.what
    assert "--force-retired" in refused.value.next_step
    assert "made from" in town.hospital("models", "list")


def test_what_was_made_from_a_retired_model_stands_as_retired_everywhere_and_is_not_approved(town: Town) -> None:
    assert "candidate" in town.hospital("history")
    town.hospital("models", "retire", town.run, "--reason", WRONG)
    listed = {one["model"]["name"]: one["standing"] for one in json.loads(town.hospital("models", "list", "--json"))}
    assert listed["classifiers/csfssl"]["state"] == "retired"
    assert listed["classifiers/csfssl"]["by"]["model"] == town.digest
    bill = json.loads(town.hospital("models", "show", "csfssl", "--bom"))
    assert {"name": "fedcervix:state", "value": "retired"} in bill["components"][0]["properties"]
    assert "retired" in town.hospital("history")
    with pytest.raises(ModelError, match="which is retired") as refused:
        town.hospital("models", "approve", "csfssl", "--reason", "tested")
    assert "models list" in refused.value.next_step


def test_a_study_does_not_begin_from_a_retired_model(town: Town) -> None:
    town.operator("models", "retire", town.run, "--reason", WRONG)
    town.operator("export", town.run, str(town.folder / "out"))
    exported = next((town.folder / "out").glob("*.safetensors"))
    kept = next((town.site.models / town.run).glob("*.safetensors"))

    def begin(file: Path) -> None:
        home = SiteHome(file.parent.parent.parent)
        _check_not_retired(Path("study.toml"), home, file, town.digest)

    begin(kept)
    with pytest.raises(ModelError, match="from which encoders would begin, is retired"):
        begin(exported)
    town.hospital("models", "retire", town.run, "--reason", WRONG)
    with pytest.raises(ModelError, match=WRONG) as refused:
        begin(kept)
    assert refused.value.next_step.startswith("edit study.toml")


def test_force_that_replaces_a_file_does_not_use_a_retired_model(town: Town) -> None:
    town.hospital("models", "retire", "csfssl", "--reason", WRONG)
    words = ("predict", "csfssl", str(town.folder), "--out", str(town.folder / "out.csv"), "--force")
    with pytest.raises(ModelError, match="is retired") as refused:
        town.hospital(*words)
    again = f"predict csfssl {words[2]} --out {words[4]} --force --force-retired"
    assert refused.value.next_step.endswith(f"site-agent --home {town.site.folder} {again}")
    pictures = next((town.folder / "collections").rglob("*.jpg"), None) or next(town.folder.rglob("*.png"))
    said = town.hospital(*words[:2], str(pictures), *words[3:], "--force-retired")
    assert "warning: classifier csfssl (" in said


@pytest.mark.parametrize("command", ["finetune", "pretrain", "sweep"])
def test_nothing_is_trained_from_a_retired_model(town: Town, command: str) -> None:
    town.hospital("models", "retire", town.digest, "--reason", WRONG)
    recipe = town.folder / "recipe.toml"
    recipe.write_text(f'start = "{town.digest}"\narchitecture = "resnet18"\nimage_px = 32\n')
    more = ["--start", town.digest] if command == "finetune" else []
    with pytest.raises(ModelError, match="is retired") as refused:
        town.hospital(command, "--recipe", str(recipe), *more)
    assert refused.value.next_step.endswith("--force-retired")


def test_no_run_begins_from_a_retired_model_at_either_end(town: Town) -> None:
    town.operator("models", "retire", town.run, "--reason", WRONG)
    text = town.home.config_file.read_text()
    base = town.home.results / town.run / "cervix-model.safetensors"
    start = [line for line in text.splitlines() if line.startswith("base = ")]
    assert len(start) == 1
    town.home.config_file.write_text(text.replace(start[0], f'base = "{base}"'))
    with pytest.raises(ModelError, match="no run was begun") as refused:
        town.operator("begin", "--mode", "csfssl")
    assert refused.value.next_step.endswith("begin --mode csfssl --force-retired")
    assert "created: run" in town.operator("begin", "--mode", "csfssl", "--force-retired")
    with pytest.raises(ModelError, match="no run was begun") as refused:
        town.operator("start", "--mode", "csfssl", "--new")
    assert refused.value.next_step.endswith("start --mode csfssl --new --force-retired"), "the old run is not continued"

    [file] = town.home.decisions.glob("retired-*.json")
    town.hospital("models", "import", str(file))
    assert "which is retired" in objection(town.site, plan_of(1, start=town.digest))[0]
    assert objection(town.site, plan_of(1, start="d" * 64)) == []


def test_an_auditor_reads_which_sites_and_how_many_images_and_no_identifier(town: Town) -> None:
    texts = [town.hospital("models", "show", name) for name in ("csfssl", town.run)]
    texts += [town.operator("models", "show", town.run), town.hospital("models", "show", "csfssl", "--bom")]
    manifest = next((town.folder / "collections").rglob("manifest.csv")).read_text()
    women = {line.split(",")[1] for line in manifest.splitlines()[1:]}
    assert len(women) > 5
    for text in texts:
        assert not [woman for woman in women if woman in text]
        assert town.digest in text
    assert "images of this site: 30" in texts[0]


@pytest.mark.parametrize("program", ["operator", "hospital"])
def test_the_bill_of_materials_holds_against_the_schema(town: Town, program: str) -> None:
    ask: Callable[..., str] = getattr(town, program)
    ask("models", "retire", town.run, "--reason", WRONG)
    text = ask("models", "show", town.run, "--bom")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert {"name": "fedcervix:state", "value": "retired"} in json.loads(text)["components"][0]["properties"]
    assert json.loads(text)["components"][0]["pedigree"]["ancestors"]


def test_an_export_holds_the_decisions_and_warns(town: Town) -> None:
    town.operator("models", "retire", town.run, "--reason", WRONG)
    done = CliRunner().invoke(
        coordinator.cli.cli, ["--home", str(town.home.folder), "export", town.run, str(town.folder / "out")]
    )
    assert f"is retired: {WRONG}" in done.stderr
    [file] = (town.folder / "out" / "decisions").glob("retired-*.json")
    assert "is retired" in town.hospital("models", "import", str(file))


def test_a_card_has_a_head_for_programs_and_says_that_its_model_is_retired(town: Town) -> None:
    town.operator("models", "retire", town.run, "--reason", f"{WRONG} --- **see** <b>mail</b>")
    [file] = town.home.decisions.glob("retired-*.json")
    town.hospital("models", "import", str(file))
    town.operator("export", town.run, str(town.folder / "out"))
    lie = card.Files("w", "", "o", "", "onnx", {}, 0.0)
    for folder in (town.site.models / town.run, town.site.folder / "classifiers" / "csfssl", town.folder / "out"):
        model = find(folder)
        text = card.to_markdown(model, lie)
        dashes, *head, end = text.split("\n\n")[0].split("\n")
        told = {key: json.loads(value) for key, _, value in (line.partition(": ") for line in head)}
        assert (dashes, end) == ("---", "---")
        assert told["pipeline_tag"] in ("image-feature-extraction", "image-classification")
        assert (told["fedcervix"]["state"], told["fedcervix"]["sha256"]) == ("retired", model.digest)
        assert "**Retired: do not use it.**" in text
        assert card.to_json(model, lie)["state"] == dataclasses.asdict(model.standing)


# --- between the institutions -------------------------------------------------------------------------------------


def test_a_retirement_of_the_operator_holds_at_a_site_that_imports_it(town: Town) -> None:
    town.operator("models", "retire", town.run, "--reason", WRONG)
    [file] = town.home.decisions.glob("retired-*.p7s")  # a person may name either of the two
    assert "is retired" in town.hospital("models", "import", str(file))
    assert "known already" in town.hospital("models", "import", str(file))


def test_a_file_that_a_mail_program_has_renamed_is_imported(town: Town) -> None:
    file = town.said(town.party(identity.Identity("cervix", "operator")))
    renamed = file.with_name("attachment (1).json")
    renamed.write_text(file.read_text() + "\r\n")
    file.with_suffix(".p7s").rename(renamed.with_suffix(".p7s"))
    assert "is retired" in town.hospital("models", "import", str(renamed))
    assert "0 faults" in town.hospital("models", "verify")


def test_an_old_approval_after_the_retirement_changes_nothing(town: Town) -> None:
    town.operator("models", "approve", town.run, "--reason", "validated")
    [old] = town.home.decisions.glob("approved-*.json")
    town.hospital("models", "retire", town.run, "--reason", WRONG)
    assert f"({'models/' + town.run}) is retired" in town.hospital("models", "import", str(old))
    with pytest.raises(RunError, match="cannot be approved: it is retired"):
        town.hospital("models", "approve", town.run, "--reason", "again")
    with pytest.raises(RunError, match="is retired already"):
        town.hospital("models", "retire", town.run, "--reason", "again")


def test_what_another_site_says_is_shown_and_binds_nobody_else(town: Town) -> None:
    file = town.said(town.party(identity.Identity("cervix", "site", "alts")))
    assert "does not bind here" in town.hospital("models", "import", str(file))
    assert "candidate; retired at site alts" in " ".join(town.hospital("models", "list").split())
    assert "does not bind here" in town.operator("models", "import", str(file))


def other_federation(town: Town) -> Path:
    key = identity.new_key()
    authority = identity.Authority(identity.new_authority("cervix", key, NOW), key)
    signer = identity.new_key()
    who = identity.Identity("cervix", "operator")
    certificate = identity.issue(authority, identity.public_key(signer), who, NOW, identity.SITE_LIFETIME)
    return town.said(Voice.of(signer, certificate, NOW))


def own_name_with_a_key_of_the_coordinator(town: Town) -> Path:
    return town.said(town.party(identity.Identity("cervix", "site", "nhs")), "approved")


def pinned_partner_with_another_key(town: Town) -> Path:
    pin_site(town.site, "alts", identity.Fingerprint.parse("a1" * 32))
    return town.said(town.party(identity.Identity("cervix", "site", "alts")))


def edited(town: Town) -> Path:
    file = town.said(town.party(identity.Identity("cervix", "operator")))
    file.write_text(file.read_text().replace(WRONG, "no reason at all"))
    return file


def edited_and_renamed(town: Town) -> Path:
    file = edited(town)
    from fedcervix.lineage.decisions import ModelDecision

    name = ModelDecision.parse(file.read_text()).name
    file.with_suffix(".p7s").rename(file.with_name(f"{name}.p7s"))
    return file.rename(file.with_name(f"{name}.json"))


def without_signature(town: Town) -> Path:
    file = town.said(town.party(identity.Identity("cervix", "operator")))
    file.with_suffix(".p7s").unlink()
    return file


def no_file(town: Town) -> Path:
    return town.folder / "nothing.json"


@pytest.mark.parametrize(
    ("forge", "error"),
    [
        (other_federation, IdentityError),
        (own_name_with_a_key_of_the_coordinator, IdentityError),
        (pinned_partner_with_another_key, IdentityError),
        (edited, IdentityError),
        (edited_and_renamed, IdentityError),
        (without_signature, IdentityError),
        (no_file, StorageError),
    ],
    ids=lambda value: value.__name__,
)
def test_what_nobody_said_is_not_imported(town: Town, forge, error: type[FedcervixError]) -> None:
    file = forge(town)
    with pytest.raises(error) as refused:
        town.hospital("models", "import", str(file))
    assert refused.value.next_step
    assert not town.site.decisions.exists()


# --- files that were exchanged, edited, or brought back -----------------------------------------------------------


@pytest.mark.parametrize("program", ["operator", "hospital"])
def test_an_exchanged_model_file_is_found_and_not_approved(town: Town, program: str) -> None:
    folder = town.home.results if program == "operator" else town.site.models
    file = folder / town.run / "cervix-model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()  # it is a second name of the file in the blob store
    file.write_bytes(content)
    ask: Callable[..., str] = getattr(town, program)
    with pytest.raises(ModelError, match="is not the file that its record names"):
        ask("models", "verify", town.run)
    with pytest.raises(ModelError, match="cannot be approved"):
        ask("models", "approve", town.run, "--reason", "looks good")


def test_a_record_of_the_coordinator_that_was_edited_with_its_model_is_found_by_the_journal(town: Town) -> None:
    folder = town.home.results / town.run
    file, other = folder / "cervix-model.safetensors", (folder / "cervix-model.safetensors").read_bytes() + b"\0"
    file.unlink()
    file.write_bytes(other)
    import hashlib

    text = (folder / "record.json").read_text().replace(town.digest, hashlib.sha256(other).hexdigest())
    (folder / "record.json").write_text(text)
    with pytest.raises(ModelError, match="not what happened by the journal"):
        town.operator("models", "verify")


def test_decisions_that_were_edited_or_deleted_are_named(town: Town) -> None:
    town.operator("models", "approve", town.run, "--reason", "validated")
    town.operator("models", "approve", town.run, "--reason", "validated again")
    town.operator("models", "retire", town.run, "--reason", WRONG)
    first, _ = sorted(
        town.home.decisions.glob("approved-*.json"), key=lambda file: json.loads(file.read_text())["entry"]
    )
    first.unlink()
    first.with_suffix(".p7s").unlink()
    [retired] = town.home.decisions.glob("retired-*.json")
    retired.write_text(retired.read_text().replace("retired", "approved"))
    done = CliRunner().invoke(coordinator.cli.cli, ["--home", str(town.home.folder), "models", "verify"])
    assert isinstance(done.exception, ModelError)
    assert "decision 0 of this home is missing" in done.output
    assert "is damaged" in done.output
    assert "retired" in town.operator("models", "list")


def test_a_backup_holds_the_decisions_and_copies_bring_back_the_later_ones(town: Town) -> None:
    town.operator("models", "approve", town.run, "--reason", "validated")
    town.operator("backup", str(town.folder / "home.tar"))
    town.operator("models", "retire", town.run, "--reason", WRONG)
    [file] = town.home.decisions.glob("retired-*.json")
    town.hospital("models", "import", str(file))
    old = Home(town.folder / "restored")
    said = typed(coordinator.cli.cli, old.folder, "restore", str(town.folder / "home.tar"))
    assert "models import" in said
    assert "approved" in typed(coordinator.cli.cli, old.folder, "models", "list")
    copy = town.site.decisions / file.name
    assert "is retired" in typed(coordinator.cli.cli, old.folder, "models", "import", str(copy))


def test_a_retirement_holds_also_where_the_site_has_joined_another_federation_since(town: Town) -> None:
    town.hospital("models", "retire", town.run, "--reason", WRONG)
    key = identity.new_key()
    town.site.key_file("authority.crt").write_bytes(identity.new_authority("other", key, NOW))
    with pytest.raises(ModelError, match="is retired"):
        town.hospital("predict", "csfssl", "picture.png", "--out", str(town.folder / "out.csv"))
    with pytest.raises(ModelError, match="is not proved"):
        town.hospital("models", "verify")


def test_a_site_that_has_not_joined_decides_without_a_signature_and_imports_nothing(town: Town) -> None:
    file = town.said(town.party(identity.Identity("cervix", "operator")))
    town.site.key_file("site.crt").unlink()
    assert "is not signed" in town.hospital("models", "retire", "csfssl", "--reason", WRONG)
    assert "not signed" in town.hospital("models", "show", "csfssl")
    assert "0 faults" in town.hospital("models", "verify")
    with pytest.raises(ConfigError, match="cannot tell who has signed"):
        town.hospital("models", "import", str(file))


def test_a_hospital_whose_certificate_has_ended_can_still_stop_using_a_model(town: Town) -> None:
    key, who = identity.new_key(), identity.Identity("cervix", "site", "nhs")
    long_ago = NOW - timedelta(hours=1)
    authority = town.home.authority()
    ended = identity.issue(authority, identity.public_key(key), who, long_ago, timedelta(minutes=1))
    town.site.key_file("site.key").write_bytes(key)
    town.site.key_file("site.crt").write_bytes(ended)
    with pytest.raises(IdentityError, match="has expired"):
        town.hospital("models", "approve", "csfssl", "--reason", "validated")
    assert "is not signed" in town.hospital("models", "retire", "csfssl", "--reason", WRONG)
    with pytest.raises(ModelError, match="is retired"):
        town.hospital("predict", "csfssl", "picture.png", "--out", str(town.folder / "out.csv"))


def test_an_operator_whose_certificate_has_ended_while_nothing_ran_can_decide(town: Town) -> None:
    key = town.home.pem("operator.key")
    ended = identity.issue(
        town.home.authority(),
        identity.public_key(key),
        identity.Identity("cervix", "operator"),
        NOW - timedelta(hours=1),
        timedelta(minutes=1),
    )
    town.home.key_file("operator.crt").write_bytes(ended)
    assert "retired: model" in town.operator("models", "retire", town.run, "--reason", WRONG)
    assert "0 faults" in town.operator("models", "verify")


def test_a_record_that_cannot_be_read_costs_itself_alone(town: Town) -> None:
    (town.home.results / "20300101-000000-csfssl-00000000").mkdir()
    (town.home.results / "20300101-000000-csfssl-00000000" / "record.json").write_text("{")
    done = CliRunner().invoke(coordinator.cli.cli, ["--home", str(town.home.folder), "models", "list"])
    assert town.run in done.output
    assert "is damaged" in done.stderr
    with sqlite3.connect(town.home.journal) as journal:  # nothing was written
        assert journal.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--reason", "  "], "gives no reason"),
        (["--reason", "x" * 600], "why is longer than 500"),
        (["--reason", "x", "--by", "y" * 200], "person is longer than 100"),
        (["--reason", "x", "--replaced-by", "nothing"], "there is no model 'nothing'"),
    ],
    ids=["blank", "long", "person", "unknown"],
)
def test_what_cannot_be_stored_is_refused_before_anything_is_written(town: Town, words: list[str], error: str) -> None:
    with pytest.raises(FedcervixError, match=error):
        town.operator("models", "retire", town.run, *words)
    assert not town.home.decisions.exists()
